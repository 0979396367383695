"""The command that trains before anything is traded: on candles, on recorded tapes, and in the synthetic order-flow market."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from agents.core.errors import ConfigError
from daemon.cli.app import RESEARCH, Config, Json, Set, Symbols, app, settings_of, speak, tell
from daemon.cli.backtesting import Moment, Until, moment


@app.command(rich_help_panel=RESEARCH)
def train(
    out: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder for the run; or one of a run that was cut off, which goes on.")],
    source: Annotated[
        Literal["candles", "tape", "synthetic"],
        typer.Option("--source", help="candles: the long-term agent alone; tape: all agents on a recorded market; synthetic: on made-up order flow."),
    ] = "synthetic",
    data: Annotated[list[Path] | None, typer.Option("--data", metavar="PATH", help="Files or folders of the source; several of candles.")] = None,
    start: Moment = None,
    end: Until = None,
    validate_from: Annotated[
        str | None,
        typer.Option("--validate-from", metavar="DATE", help="Candles from here on choose the policy that is kept; nothing learns from them."),
    ] = None,
    timeframe: Annotated[str, typer.Option("--timeframe", metavar="1h", help="Of candles; an hour or longer.")] = "1h",
    symbols: Symbols = None,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Updates of the networks.")] = 20_000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of networks, markets, noise and sampling.")] = 0,
    round_minutes: Annotated[float, typer.Option("--round-minutes", min=0.1, help="Market minutes between two rounds of learning.")] = 30.0,
    relabelled: Annotated[int, typer.Option("--relabelled", min=0, help="Rows made in hindsight for each row of agents with exogenous prices.")] = 4,
    curriculum: Annotated[bool, typer.Option("--curriculum", help="Costs begin low and grow with skill.")] = False,
    hidden_sizes: Annotated[str, typer.Option("--hidden-sizes", metavar="LIST", help="Units of the hidden layers.")] = "64,64",
    trials: Annotated[Path | None, typer.Option("--trials", metavar="FILE", help="The run log that counts this run; DIR/../trials.jsonl.")] = None,
    transitions: Annotated[
        Path | None, typer.Option("--write-transitions", metavar="DIR", help="Write the rows lived through, as reinforcement_learning.offline_data takes them.")
    ] = None,
    allow_gaps: Annotated[bool, typer.Option("--allow-gaps", help="Go on over holes in the data instead of refusing it.")] = False,
    config: Config = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Train agents offline and write weights: `quartet trade --set agents.weights=DIR` begins with them, `backtest --weights DIR` judges them.

    Limits, rewards, fees and learning rates are the settings'. Exploration happens here alone, in simulation. A run that was killed goes
    on where it was when it is asked for again, with the same result as if it had not been.
    """
    settings = settings_of(config, {}, assignments)
    speak(settings)
    from agents.jobs.train import TrainConfig
    from agents.jobs.train import train as run
    from daemon.wiring import engine_config, frictions

    asked = TrainConfig.of(
        engine_config(settings, (), 0, exploration=1.0), settings.reinforcement_learning.model_dump(), _sizes(hidden_sizes),
        settings.paper.taker_fee_bps, source=source, folder=out, data=tuple(data or ()), start=moment("--from", start), end=moment("--to", end),
        validate_from=moment("--validate-from", validate_from), timeframe=timeframe, symbols=_words(symbols), steps=steps, seed=seed,
        round_minutes=round_minutes, relabelled=relabelled, curriculum=curriculum, capital=settings.capital.allocation,
        frictions=frictions(settings), trials=trials or out.absolute().parent / "trials.jsonl", transitions=transitions, allow_gaps=allow_gaps,
    )  # fmt: skip
    figures: dict[str, Any] = {}
    with _progress(as_json) as show:

        def told(done: int, total: int, found: Mapping[str, Any]) -> None:
            figures.update(found)
            show(done, total, found)

        folder = run(asked, told)
    tell({"folder": str(folder), "weights": str(folder / "weights.safetensors"), "source": source, "seed": seed, **_plain(figures)}, as_json)


def _words(text: str | None) -> tuple[str, ...]:
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


def _sizes(text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(word) for word in _words(text))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise ConfigError(f"--hidden-sizes {text!r}: write whole numbers above 0, such as 64,64")
    return sizes


def _plain(figures: Mapping[str, Any]) -> dict[str, Any]:
    """What there is to say of the last round: its numbers, and by agent reward and entropy."""
    found = {name: value for name, value in figures.items() if isinstance(value, int | float)}
    agents = figures.get("agents") or {}
    return found | {"agents": {agent: {name: info[name] for name in ("reward", "entropy", "q_mean") if name in info} for agent, info in agents.items()}}


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[int, int, Mapping[str, Any]], None]]:
    """A bar of the updates on a terminal, with the newest reward or validation beside it; a line a round elsewhere; nothing for JSON."""
    if quiet:
        yield lambda done, total, found: None
        return
    if not sys.stderr.isatty():
        yield lambda done, total, found: typer.echo(f"{done} of {total} updates{_beside(found)}", err=True)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("train"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[beside]}"))
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("train", total=None, beside="")
        yield lambda done, total, found: shown.update(task, completed=done, total=total, beside=_beside(found))


def _beside(found: Mapping[str, Any]) -> str:
    named = [(name, found[name]) for name in ("validation", "validation_error", "reward") if name in found]
    return "".join(f"  {name} {value:.4g}" for name, value in named[:2])
