"""The command line. Heavy rooms are imported by the command that needs them, so `quartet --help` answers at once."""

import asyncio
import os
import sys
from collections.abc import Coroutine, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from agents.core.errors import ConfigError, TradingError
from daemon.errors import Exit, exit_code
from daemon.settings import Settings
from daemon.sources import assign, load

app = typer.Typer(
    name="quartet",
    help="Trade with four Soft Actor-Critic agents that share one account.\n\n"
    "Without any configuration `quartet trade` starts a rehearsal exchange on this machine and trades on it with simulated fills:"
    " no keys, no network, no risk.\n\n"
    "Settings come from config.yaml, then QUARTET__SECTION__KEY environment variables, then flags; `quartet show-config` prints"
    " what they add up to.\n\n"
    "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 no daemon is running, 4 refused for safety, 5 timed out.",
    add_completion=False,
    rich_markup_mode="markdown",
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import PackageNotFoundError, version

        try:
            typer.echo(f"quartet {version('quartet')}")
        except PackageNotFoundError:
            typer.echo("quartet, run from its source folder without being installed")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    pass


_RUN, _LOOK, _STEER = "Trade and record", "Look", "Steer a running daemon"

Config = Annotated[Path | None, typer.Option("--config", metavar="FILE", help="Configuration file; config.yaml where there is one.")]
State = Annotated[Path | None, typer.Option("--state", metavar="DIR", help="State folder of the daemon (state_dir).")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any setting, such as risk.position_cap=0.1.")]
Symbols = Annotated[str | None, typer.Option("--symbols", metavar="LIST", help="Symbols, such as BTC/USDT,ETH/USDT.")]
ExchangeId = Annotated[str | None, typer.Option("--exchange", metavar="ID", help="A ccxt exchange id, or rehearsal (exchange.id).")]
Duration = Annotated[float | None, typer.Option("--duration", metavar="SECONDS", min=0.1, help="Stop by itself after so long.")]
Data = Annotated[Path | None, typer.Option("--data", metavar="PATH", help="A recorded tape: a file, or a folder of files.")]
Speed = Annotated[float | None, typer.Option("--speed", metavar="X", help="Market seconds per second of the rehearsal exchange.")]
RealMoney = Annotated[
    bool,
    typer.Option("--yes-trade-real-money", help="Needed on a real exchange. The priors trade there; what is learned stays in shadow."),
]
Here = Annotated[bool, typer.Option("--without-daemon", help="Do it here and now: connect to the account itself, no daemon running.")]
Word = Literal["flatten", "cancel-all"]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the journal.")]


def _settings(config: Path | None, flags: Mapping[str, Any], assignments: list[str] | None = None) -> Settings:
    """The settings of this command; `flags` maps dotted names to values, and None means not given."""
    tree: dict[str, Any] = {}
    for text in assignments or []:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text}: write NAME=VALUE, such as --set risk.position_cap=0.1")
        assign(tree, name.strip(), value.strip(), f"--set {text}")
    for name, value in flags.items():
        if value is not None:
            assign(tree, name, value, name)
    return load(config, tree, os.environ)


def _speak(settings: Settings) -> None:
    from daemon import logs

    logs.configure(settings.log.level, settings.log.format, settings.secrets())


def _tell(result: Mapping[str, Any], as_json: bool, *, ended: bool = False) -> None:
    """The result on standard output: JSON, or words; of a session that has ended the words that matter."""
    if as_json:
        import orjson

        text = orjson.dumps(result, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
        typer.echo(text.decode())
        return
    from rich.console import Console

    from daemon.view import closing, words

    Console().print(closing(result) if ended else words(result))


def _run(work: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    return asyncio.run(work)


@app.command(rich_help_panel=_RUN)
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
    settings = _settings(config, {**_market_flags(symbols, exchange, data, speed, state), "mode": mode}, assignments)
    _speak(settings)
    from daemon import session

    draw = sys.stderr.isatty() and not as_json
    if draw:
        from daemon.view import LiveView
    with LiveView() if draw else nullcontext() as show:
        summary = _run(session.trade(settings, duration=duration, show=show, real_money=yes_trade_real_money))
    _tell(summary, as_json, ended=True)


def _market_flags(
    symbols: str | None, exchange: str | None, data: Path | None, speed: float | None, state: Path | None
) -> dict[str, Any]:
    return {
        "exchange.symbols": symbols,
        "exchange.id": exchange,
        "rehearsal.data": data,
        "rehearsal.speed": speed,
        "state_dir": state,
    }


@app.command(rich_help_panel=_RUN)
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
    settings = _settings(config, _market_flags(symbols, exchange, data, speed, None), assignments)
    _speak(settings)
    from daemon import session

    _tell(_run(session.record(settings, out, duration=duration)), as_json)


@app.command(rich_help_panel=_RUN)
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
    settings = _settings(config, {}, assignments)
    _speak(settings)
    if not data.exists():
        raise ConfigError(f"--data: there is no file or folder {data}")
    from daemon import offline

    chosen = None if symbols is None else tuple(word.strip() for word in symbols.split(",") if word.strip())
    _tell(offline.backtest(settings, data, _moment("--from", start), _moment("--to", end), chosen, allow_gaps=allow_gaps), as_json)


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


@app.command(rich_help_panel=_RUN)
def exchange(
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="Port on loopback; 0 takes a free one.")] = 0,
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
    settings = _settings(config, _market_flags(symbols, None, data, speed, None), assignments)
    _speak(settings)
    from daemon import offline

    _tell(_run(offline.exchange(settings, port, lambda address: _tell(address, as_json))), as_json)


@app.command(rich_help_panel=_LOOK)
def replay(
    session_name: Annotated[str, typer.Argument(metavar="SESSION", help="A session's name, or `last`.")] = "last",
    state: State = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """Re-run a recorded session and compare every decision and command; exit code 1 names the first difference."""
    settings = _settings(config, {"state_dir": state})
    _speak(settings)
    from daemon.replay import replay as run

    result = run(settings.state_dir, session_name)
    _tell(result, as_json)
    if not result["equal"]:
        raise typer.Exit(Exit.FAILED)


@app.command(rich_help_panel=_LOOK)
def status(state: State = None, config: Config = None, as_json: Json = False) -> None:
    """What the daemon on a state folder is doing."""
    answer = _ask("status", state, config)
    if as_json:
        _tell(answer, True)
        return
    from rich.console import Console

    from daemon.view import render

    Console().print(render(answer, 60))


@app.command(rich_help_panel=_LOOK)
def learner(
    png: Annotated[Path | None, typer.Option("--png", metavar="FILE", help="Also draw the learning curves there.")] = None,
    state: State = None,
    config: Config = None,
    as_json: Json = False,
) -> None:
    """What the learner has learned, by agent: of the running daemon, or of the last one on a state folder."""
    folder = _settings(config, {"state_dir": state}).state_dir
    from daemon import learner_view

    found = learner_view.look(folder)
    if png is not None:
        from daemon.learner_history import read

        learner_view.curves(read(folder / "learner"), png)
    if as_json:
        _tell(found, True)
        return
    from rich.console import Console

    Console().print(learner_view.table(found))


@app.command("show-config", rich_help_panel=_LOOK)
def show_config(
    config: Config = None,
    state: State = None,
    symbols: Symbols = None,
    exchange: ExchangeId = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """The settings that are in force, without secrets; the output is itself a configuration file."""
    settings = _settings(config, _market_flags(symbols, exchange, None, None, state), assignments)
    if as_json:
        _tell(settings.public(), True)
        return
    import yaml

    typer.echo(yaml.safe_dump(settings.public(), sort_keys=False), nl=False)


@app.command("config-schema", rich_help_panel=_LOOK)
def config_schema(as_json: Json = True) -> None:
    """The JSON schema of the configuration file: every setting with its meaning, bounds and default."""
    _tell(Settings.model_json_schema(), as_json or True)


@app.command(rich_help_panel=_STEER)
def halt(reason: Reason = "operator", state: State = None, config: Config = None, as_json: Json = False) -> None:
    """Cancel every order and place none until resume, restarts included; positions stay, and so do stops that protect them."""
    _tell(_ask("halt", state, config, reason=reason), as_json)


@app.command(rich_help_panel=_STEER)
def resume(reason: Reason = "operator", state: State = None, config: Config = None, as_json: Json = False) -> None:
    """Trade again after halt or flatten."""
    _tell(_ask("resume", state, config, reason=reason), as_json)


@app.command(rich_help_panel=_STEER)
def flatten(
    reason: Reason = "operator",
    without_daemon: Here = False,
    yes_trade_real_money: RealMoney = False,
    state: State = None,
    config: Config = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Halt, cancel every order and sell what is held; stands across restarts until resume."""
    _tell_or_do("flatten", reason, state, config, assignments, as_json, without_daemon, yes_trade_real_money)


@app.command("cancel-all", rich_help_panel=_STEER)
def cancel_all(
    reason: Reason = "operator",
    without_daemon: Here = False,
    yes_trade_real_money: RealMoney = False,
    state: State = None,
    config: Config = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Cancel every order once, protective stops included; the agents go on and may place new ones.

    With --without-daemon nobody goes on: the next session stands still until resume.
    """
    _tell_or_do("cancel-all", reason, state, config, assignments, as_json, without_daemon, yes_trade_real_money)


@app.command(rich_help_panel=_STEER)
def stop(state: State = None, config: Config = None, as_json: Json = False) -> None:
    """End the session as Ctrl-C does: cancel what rests, keep positions, print the summary."""
    _tell(_ask("stop", state, config), as_json)


def _tell_or_do(word: Word, reason: str, state: Path | None, config: Path | None, assignments: list[str] | None, as_json: bool,
                here: bool, real_money: bool) -> None:  # fmt: skip
    """Tell the running daemon; with `here` carry the word out without one, on the account that the settings name."""
    if not here:
        _tell(_ask(word, state, config, reason=reason), as_json)
        return
    settings = _settings(config, {"state_dir": state, "mode": "live"}, assignments)
    _speak(settings)
    from daemon import session

    _tell(_run(session.clear(settings, word, reason, real_money=real_money)), as_json, ended=True)


def _ask(command: str, state: Path | None, config: Path | None, **fields: Any) -> dict[str, Any]:
    from daemon.control import ask

    return ask(_settings(config, {"state_dir": state}).state_dir, command, **fields)


def _ours(error: BaseException) -> TradingError | None:
    """The first error of our own in a group, however deep."""
    if isinstance(error, TradingError):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next((found for inner in error.exceptions if (found := _ours(inner)) is not None), None)
    return None


def _sentence(text: str) -> None:
    said = text.strip().rstrip(".")
    typer.echo(f"quartet: {said}{'' if said.endswith('?') else '.'}", err=True)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code. A user's mistake ends in one sentence, a fault of ours in a logged trace."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        result = typer.main.get_command(app).main(given or ["--help"], prog_name="quartet", standalone_mode=False)
    except typer.exceptions.TyperException as error:
        known = given and given[0] in {command.name or (command.callback or main).__name__ for command in app.registered_commands}
        _sentence(f"{error.format_message().rstrip('.')}; see `quartet {f'{given[0]} ' if known else ''}--help`")
        return Exit.USAGE
    except (KeyboardInterrupt, typer.Abort):
        _sentence("interrupted")
        return Exit.FAILED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads: the interpreter must not complain at exit
        return Exit.OK
    except Exception as error:  # noqa: BLE001 - the last line of defence: whatever it is, the user reads one sentence
        return _failed(error)
    return result if isinstance(result, int) else Exit.OK


def _failed(error: Exception) -> Exit:
    if (ours := _ours(error)) is not None:
        _sentence(str(ours))
        return exit_code(ours)
    if isinstance(error, OSError) and error.strerror:
        _sentence(f"{error.filename or 'the operating system'}: {error.strerror}")
        return Exit.FAILED
    import structlog

    if not structlog.is_configured():  # its own default prints local variables, and those may hold secrets
        from daemon import logs

        logs.configure("info", "auto")
    structlog.get_logger().exception("internal_error", error=repr(error))
    _sentence(f"internal error ({type(error).__name__}: {error}); the trace is in the log above")
    return Exit.FAILED
