"""Commands that trade and record."""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from agents.core.errors import ConfigError
from daemon.cli.app import (
    RUN,
    Config,
    Data,
    Duration,
    ExchangeId,
    Json,
    RealMoney,
    Set,
    Speed,
    State,
    Symbols,
    app,
    market_flags,
    run,
    settings_of,
    speak,
    tell,
)


@app.command(rich_help_panel=RUN)
def trade(
    paper: Annotated[bool, typer.Option("--paper", help="Real market data, simulated fills; holds no key. The default.")] = False,
    live: Annotated[bool, typer.Option("--live", help="Send orders to the exchange.")] = False,
    yes_trade_real_money: RealMoney = False,
    duration: Duration = None,
    symbols: Symbols = None,
    exchange: ExchangeId = None,
    data: Data = None,
    speed: Speed = None,
    state: State = None,
    config: Config = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Trade until Ctrl-C, or for --duration seconds; then cancel what rests and print a summary.

    On a terminal a live view is drawn; elsewhere JSON lines go to standard error. With --data the rehearsal exchange serves that
    recorded market, at its own speed, and the session ends where it ends.
    """
    if paper and live:
        raise ConfigError("--paper and --live exclude each other; give one")
    mode = "live" if live else "paper" if paper else None
    flags = {**market_flags(symbols, exchange, data, speed, state), "mode": mode}
    settings = settings_of(config, flags, assignments)
    speak(settings)
    from daemon import session

    draw = sys.stderr.isatty() and not as_json
    if draw:
        from daemon.view import LiveView
    with LiveView() if draw else nullcontext() as show:
        summary = run(session.trade(settings, duration=duration, show=show, real_money=yes_trade_real_money, reread=lambda: settings_of(config, flags, assignments)))
    tell(summary, as_json, ended=True)


@app.command(rich_help_panel=RUN)
def record(
    out: Annotated[Path | None, typer.Argument(metavar="DIR", help="A new folder for the tape; tapes/TIME if left out.")] = None,
    duration: Duration = None,
    symbols: Symbols = None,
    exchange: ExchangeId = None,
    data: Data = None,
    speed: Speed = None,
    config: Config = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Record a live feed to a tape, which `backtest --data` and `trade --data` take; no account, no orders."""
    settings = settings_of(config, market_flags(symbols, exchange, data, speed, None), assignments)
    speak(settings)
    from daemon import session

    tell(run(session.record(settings, out, duration=duration)), as_json)


@app.command(rich_help_panel=RUN)
def exchange(
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="Port on loopback; 0 takes a free one.")] = 0,
    faults: Annotated[bool, typer.Option("--faults", help="Misbehave on request, over /rehearsal/faults; see docs/rehearsal.md.")] = False,
    data: Data = None,
    speed: Speed = None,
    symbols: Symbols = None,
    config: Config = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Run the rehearsal exchange alone: Binance's spot protocol on loopback, until Ctrl-C or the end of its tape.

    It prints its address and the key pair that it accepts; point any Binance client at it, this daemon by exchange.base_url included.
    """
    settings = settings_of(config, market_flags(symbols, None, data, speed, None), assignments)
    speak(settings)
    from daemon import offline

    tell(run(offline.exchange(settings, port, lambda address: tell(address, as_json), faults=faults)), as_json)
