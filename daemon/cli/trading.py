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
    settings = settings_of(config, {**market_flags(symbols, exchange, data, speed, state), "mode": mode}, assignments)
    speak(settings)
    from daemon import session

    draw = sys.stderr.isatty() and not as_json
    if draw:
        from daemon.view import LiveView
    with LiveView() if draw else nullcontext() as show:
        summary = run(session.trade(settings, duration=duration, show=show, real_money=yes_trade_real_money))
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
def backtest(
    data: Annotated[Path, typer.Option("--data", metavar="PATH", help="A recorded tape: a file, or a folder of files.")],
    start: Annotated[str | None, typer.Option("--from", metavar="DATE", help="First moment, such as 2024-01-01 (UTC).")] = None,
    end: Annotated[str | None, typer.Option("--to", metavar="DATE", help="Where to stop, such as 2024-06-30T12:00 (UTC).")] = None,
    symbols: Annotated[str | None, typer.Option("--symbols", metavar="LIST", help="Only these symbols of the tape.")] = None,
    allow_gaps: Annotated[bool, typer.Option("--allow-gaps", help="Go on over holes in the tape instead of refusing it.")] = False,
    config: Config = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Run the same engine over recorded data, with simulated fills, fees and latency."""
    settings = settings_of(config, {}, assignments)
    speak(settings)
    if not data.exists():
        raise ConfigError(f"--data: there is no file or folder {data}")
    from daemon import offline

    chosen = None if symbols is None else tuple(word.strip() for word in symbols.split(",") if word.strip())
    tell(offline.backtest(settings, data, _moment("--from", start), _moment("--to", end), chosen, allow_gaps=allow_gaps), as_json)


def _moment(flag: str, text: str | None) -> int | None:
    """Nanoseconds UTC of an ISO date or time."""
    if text is None:
        return None
    from datetime import UTC, datetime

    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{flag} {text!r}: write a date such as 2024-01-31 or a time such as 2024-01-31T12:00") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1_000_000_000


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
