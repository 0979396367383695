"""The command that takes the desk apart: one agent, prior, constraint or reward term off at a time, and what that cost."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from agents.core.errors import ConfigError
from daemon.cli.app import RESEARCH, Config, Json, Set, app, settings_of, speak, tell
from daemon.cli.backtesting import Moment, Until, moment


@app.command(rich_help_panel=RESEARCH)
def ablate(
    data: Annotated[
        list[Path] | None, typer.Option("--data", metavar="PATH", help="A tape or candles; without, a made-up market with planted momentum.")
    ] = None,
    start: Moment = None,
    end: Until = None,
    symbols: Annotated[str | None, typer.Option("--symbols", metavar="LIST", help="Only these symbols of the data.")] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="NAME", help="Only these parts, such as agents.risk, prior or 'risk.c*'; may be repeated.")
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="Name what is switched on and could be switched off, and do nothing.")] = False,
    engine: Annotated[
        Literal["event", "vector"],
        typer.Option("--engine", help="event: the whole engine; vector: the long-term agent alone on candles, many times faster."),
    ] = "event",
    weights: Annotated[
        list[str] | None,
        typer.Option("--weights", metavar="[AGENT=]PATH", help="Learned weights for all agents, or for one; without, the priors trade."),
    ] = None,
    retrain: Annotated[
        int, typer.Option("--retrain", metavar="STEPS", min=0, help="Learn the long-term agent on what lies before --from, so many updates a seed.")
    ] = 0,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Seeds of --retrain.")] = 3,
    warm_up_days: Annotated[
        float, typer.Option("--warm-up-days", min=0.0, help="Facts before --from that the engine sees and nobody judges; trends take 100 days.")
    ] = 100.0,
    resamples: Annotated[int, typer.Option("--resamples", min=100, help="Of the stationary bootstrap.")] = 2000,
    allow_gaps: Annotated[bool, typer.Option("--allow-gaps", help="Go on over holes in the data instead of refusing it.")] = False,
    config: Config = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Switch off one agent, prior, constraint or reward term at a time and tabulate the out-of-sample effect with intervals.

    The effect is with minus without: above 0 the part earns its place. Costs are those of the settings, as in `backtest`. Terms of
    the reward are met while learning only, so they need --retrain; the table says what was retrained and what was not.
    """
    settings = settings_of(config, {}, assignments)
    speak(settings)
    for path in data or []:
        if not path.exists():
            raise ConfigError(f"--data: there is no file or folder {path}")
    from agents.core.instruments import Symbol
    from daemon.wiring import engine_config, frictions

    wanted = () if symbols is None else tuple(Symbol(word.strip()) for word in symbols.split(",") if word.strip())
    built = engine_config(settings, wanted, 0, exploration=0.0)
    if show:
        from agents.jobs.ablations import chosen

        parts = [{"name": part.name, "kind": part.kind, "off": part.meaning, "retrains": part.learned} for part in chosen(built, only or [])]
        tell({"parts": parts}, True) if as_json else _print_parts(parts)
        return
    from agents.jobs.ablate import ablate as run
    from agents.jobs.ablation_setup import Window, prepare
    from agents.jobs.weights import joined, read_weights

    served = read_weights(weights or [])
    payload = joined(served) if isinstance(served, dict) else served
    fee = settings.paper.taker_fee_bps
    window = Window(
        data or [], wanted, moment("--from", start), moment("--to", end), settings.capital.allocation, frictions(settings),
        10.0 if fee is None else max(fee, 0.0), warm_up_days, allow_gaps,
    )  # fmt: skip
    with _progress(not as_json) as told:
        runner, bucket, train = prepare(window, engine, retrain, seeds)
        table = run(built, runner, bucket, only=only or [], weights=payload, train=train, resamples=resamples, told=told)
    found = {
        "data": [str(path) for path in data or []] or ["made up, with planted momentum"], "engine": engine, "retrain": retrain,
        "seeds": seeds if retrain else 0, **table.to_dict(),
    }  # fmt: skip
    tell(found, True) if as_json else _print(found)


@contextmanager
def _progress(wanted: bool) -> Iterator[Callable[[str, float], None]]:
    if not wanted or not sys.stderr.isatty():
        yield lambda _, __: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("ablate", total=1.0)
        yield lambda name, done: shown.update(task, description=name, completed=done)


def _print_parts(parts: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("Part", "Kind", "Switched off", "Needs --retrain")
    for part in parts:
        table.add_row(part["name"], part["kind"], part["off"], "yes" if part["retrains"] else "")
    Console().print(table)


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console, whole = Console(), found["whole"]
    console.print(
        f"Everything on ({found['weights']}): {whole['growth']:+.1%} a year, volatility {whole['volatility']:.1%}, Sharpe {whole['sharpe']:.2f},"
        f" drawdown {whole['max_drawdown']:.1%}, turnover {whole['turnover']:.1f} a year; {found['periods']} returns of {found['bucket']}"
    )
    table = Table("Without", "Off means", "Sharpe", "Drawdown", "Turnover", "Effect on Sharpe (95 %)", "Effect a year (95 %)", "p (Holm)", "Bound", "Weights")
    for row in found["rows"]:
        bound = "" if row["bound"] is None else str(row["bound"])
        figures = row["figures"]
        seen = (f"{figures['sharpe']:.2f}", f"{figures['max_drawdown']:.1%}", f"{figures['turnover']:.1f}") if figures else ("", "", "")
        if not row["effect"]:
            table.add_row(row["name"], row["meaning"], *seen, row["detail"], "", "", bound, row["weights"])
            continue
        sharpe, mean = row["effect"]["sharpe"], row["effect"]["mean"]
        table.add_row(
            row["name"], row["meaning"], *seen, f"{sharpe['estimate']:+.2f} [{sharpe['low']:+.2f}, {sharpe['high']:+.2f}]",
            f"{mean['estimate']:+.1%} [{mean['low']:+.1%}, {mean['high']:+.1%}]", f"{row['p']:.3f}", bound, row["weights"],
        )  # fmt: skip
    console.print(table)
    console.print(f"Effect: with minus without, above 0 the part earns its place. {found['tested']} parts were tested.", style="dim")
    if found["unknown"]:
        console.print(f"Passed over in every row: {', '.join(found['unknown'])}", style="dim")
    for caution in found["cautions"]:
        console.print(f"- {caution}", style="dim")
