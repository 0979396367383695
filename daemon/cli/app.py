"""What all commands share: the application, the options they have in common, and how they read settings and answer."""

import asyncio
import os
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from agents.core.errors import ConfigError
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


RUN, LOOK, STEER, CARE, RESEARCH = "Trade and record", "Look", "Steer a running daemon", "Take care", "Research"

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
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the journal.")]


def settings_of(config: Path | None, flags: Mapping[str, Any], assignments: list[str] | None = None) -> Settings:
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


def speak(settings: Settings) -> None:
    from daemon import logs

    logs.configure(settings.log.level, settings.log.format, settings.secrets())


def tell(result: Mapping[str, Any], as_json: bool, *, ended: bool = False) -> None:
    """The result on standard output: JSON, or words; of a session that has ended the words that matter."""
    if as_json:
        import orjson

        text = orjson.dumps(result, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
        typer.echo(text.decode())
        return
    from rich.console import Console

    from daemon.view import closing, words

    Console().print(closing(result) if ended else words(result))


def run(work: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any]:
    return asyncio.run(work)


def ask(command: str, state: Path | None, config: Path | None, **fields: Any) -> dict[str, Any]:
    """Ask the daemon that runs on the state folder."""
    from daemon import control

    return control.ask(settings_of(config, {"state_dir": state}).state_dir, command, **fields)


def market_flags(
    symbols: str | None, exchange: str | None, data: Path | None, speed: float | None, state: Path | None
) -> dict[str, Any]:
    """The settings behind the flags that name a market."""
    return {
        "exchange.symbols": symbols,
        "exchange.id": exchange,
        "rehearsal.data": data,
        "rehearsal.speed": speed,
        "state_dir": state,
    }
