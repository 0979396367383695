"""The commands that judge: folds in time, and all that a sceptic asks for, on recorded or made-up candles."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from agents.core.errors import ConfigError
from daemon.cli.app import RESEARCH, Json, app, tell

Candles = Annotated[
    list[Path] | None, typer.Option("--data", metavar="PATH", help="Candle files, a folder or a panel; without, a made-up market.")
]
Name = Annotated[str | None, typer.Option("--name", metavar="NAME", help="What the study is called in the run log; from --data if left out.")]
Seeds = Annotated[int, typer.Option("--seeds", min=0, help="Seeds of the long-term agent; 0 judges baselines and priors alone.")]
Steps = Annotated[int, typer.Option("--steps", min=1, help="Updates of each training run.")]
Hidden = Annotated[str, typer.Option("--hidden", metavar="SIZES", help="Hidden layers, such as 64,64.")]
Unguarded = Annotated[
    bool, typer.Option("--unguarded", help="Judge the newest weights; without it a run that does not beat its prior on the gap stays the prior.")
]
TrainDays = Annotated[float, typer.Option("--train-days", help="Length of the first fold's training.")]
TestDays = Annotated[float, typer.Option("--test-days", help="Length of each fold's judged part.")]
PurgeDays = Annotated[float, typer.Option("--purge-days", help="Left out between training and judging; at least the longest look-back, 365.")]
EmbargoDays = Annotated[float, typer.Option("--embargo-days", help="Left out besides.")]
Fee = Annotated[float, typer.Option("--fee-bps", min=0.0, help="Fee in basis points of notional.")]
HalfSpread = Annotated[float, typer.Option("--half-spread-bps", min=0.0, help="Half spread in basis points.")]
Trials = Annotated[Path, typer.Option("--trials", metavar="FILE", help="Run log: every configuration tried is appended and counted.")]
Kept = Annotated[Path | None, typer.Option("--keep", metavar="DIR", help="Keep trained weights there, and take from there what was trained before.")]
Resamples = Annotated[int, typer.Option("--resamples", min=100, help="Of the stationary bootstrap.")]
Markdown = Annotated[Path | None, typer.Option("--markdown", metavar="FILE", help="Write the report there.")]

RUN_LOG = Path("trials.jsonl")


@app.command("walk-forward", rich_help_panel=RESEARCH)
def walk_forward(
    data: Candles = None,
    name: Name = None,
    rolling: Annotated[bool, typer.Option("--rolling", help="Training keeps its length; without, it grows from the first bar on.")] = False,
    with_test: Annotated[bool, typer.Option("--with-test", help="The last fold too, which else stays unseen until `evaluate`.")] = False,
    seeds: Seeds = 0,
    steps: Steps = 4_000,
    hidden: Hidden = "64,64",
    unguarded: Unguarded = False,
    train_days: TrainDays = 730.0,
    test_days: TestDays = 365.0,
    purge_days: PurgeDays = 365.0,
    embargo_days: EmbargoDays = 1.0,
    fee_bps: Fee = 10.0,
    half_spread_bps: HalfSpread = 1.0,
    trials: Trials = RUN_LOG,
    keep: Kept = None,
    resamples: Resamples = 2000,
    as_json: Json = False,
) -> None:
    """Folds in time: train on the past, leave a gap, judge what follows. Configurations are tried here, and each enters the run log."""
    from agents.jobs.evaluate import features_of, walk
    from agents.jobs.trials import TrialLog

    days = {"train": train_days, "test": test_days, "purge": purge_days, "embargo": embargo_days}
    study = _study(data, name, days, "rolling" if rolling else "anchored", fee_bps, half_spread_bps, resamples)
    training = _training(steps, hidden, unguarded, keep) if seeds else None
    features = features_of(study.history)
    if features is None:
        raise ConfigError(f"--data: walk-forward needs candles of an hour or longer, these are {study.history.timeframe}")
    folds = study.folds if with_test else None
    rows = walk(study, features, training, range(seeds), TrialLog(trials), folds, _progress)
    if as_json:
        tell({"study": study.name, "folds": rows}, True)
        return
    _fold_table(rows)


@app.command(rich_help_panel=RESEARCH)
def evaluate(
    data: Candles = None,
    name: Name = None,
    again: Annotated[
        list[Path] | None, typer.Option("--repeat", metavar="PATH", help="Judge the same weights and rules on these candles too; may be repeated.")
    ] = None,
    books: Annotated[
        Path | None, typer.Option("--books", metavar="FILE", help="JSON of `quartet backtest --mark-outs --json`, to be part of the report.")
    ] = None,
    seeds: Seeds = 10,
    fold_seeds: Annotated[int, typer.Option("--fold-seeds", min=0, help="Seeds on the folds before the test.")] = 0,
    steps: Steps = 4_000,
    hidden: Hidden = "64,64",
    unguarded: Unguarded = False,
    train_days: TrainDays = 730.0,
    test_days: TestDays = 365.0,
    purge_days: PurgeDays = 365.0,
    embargo_days: EmbargoDays = 1.0,
    fee_bps: Fee = 10.0,
    half_spread_bps: HalfSpread = 1.0,
    without_controls: Annotated[bool, typer.Option("--without-controls", help="Leave out the null market and the planted alpha.")] = False,
    trials: Trials = RUN_LOG,
    keep: Kept = None,
    resamples: Resamples = 2000,
    markdown: Markdown = None,
    note: Annotated[list[str] | None, typer.Option("--note", metavar="TEXT", help="A line for the head of the report; may be repeated.")] = None,
    as_json: Json = False,
) -> None:
    """Judge baselines, priors and the trained long-term agent as a sceptic would, and say what the intervals allow and nothing more."""
    from agents.jobs.evaluate import evaluate as judge
    from agents.jobs.evaluate_suite import controls, repetition
    from agents.jobs.evaluate_tables import document
    from agents.jobs.trials import TrialLog

    for path in again or []:
        if not path.exists():
            raise ConfigError(f"--repeat: there is no file or folder {path}")
    if books is not None and not books.is_file():
        raise ConfigError(f"--books: there is no file {books}; quartet backtest --mark-outs --json writes one")
    seen = None if books is None else _books(books)
    if markdown is not None and markdown.is_dir():
        raise ConfigError(f"--markdown: {markdown} is a folder; name a file in it, such as {markdown / 'results.md'}")
    days = {"train": train_days, "test": test_days, "purge": purge_days, "embargo": embargo_days}
    study = _study(data, name, days, "anchored", fee_bps, half_spread_bps, resamples)
    training = _training(steps, hidden, unguarded, keep) if seeds else None
    found = judge(study, training, range(seeds), TrialLog(trials), _progress, range(fold_seeds))
    report: dict[str, Any] = {"command": _command(), "notes": note or [], "main": found.report}
    report["repeats"] = [repetition(path, study, found.weights, _progress) for path in again or []]
    if not without_controls:
        report["controls"] = controls(found.weights, study.costs, study.desk, told=_progress)
    if seen is not None:
        report["books"] = seen
    if markdown is not None:
        markdown.parent.mkdir(parents=True, exist_ok=True)
        markdown.write_text(document(report))
        _progress(f"written: {markdown}")
    if as_json:
        tell(report, True)
    elif markdown is None:
        from rich.console import Console
        from rich.markdown import Markdown as Page

        Console().print(Page(document(report)))


def _study(
    data: list[Path] | None, name: str | None, days: dict[str, float], scheme: str, fee_bps: float, half_spread_bps: float, resamples: int
) -> Any:
    from agents.jobs.evaluate_suite import make_study

    for path in data or []:
        if not path.exists():
            raise ConfigError(f"--data: there is no file or folder {path}")
    return make_study(data or [], name, days, scheme, fee_bps=fee_bps, half_spread_bps=half_spread_bps, resamples=resamples)


def _books(path: Path) -> Any:
    """What `quartet backtest --mark-outs --json` wrote. Raises ConfigError for anything else, before hours are spent on the rest."""
    import json

    try:
        found = json.loads(path.read_text())
    except ValueError:
        found = None
    if not isinstance(found, dict) or "rows" not in found:
        raise ConfigError(f"--books: {path} holds no mark-outs; quartet backtest --mark-outs --json writes them")
    return found


def _training(steps: int, hidden: str, unguarded: bool, keep: Path | None) -> Any:
    from agents.jobs.evaluate_training import long_term_training
    from agents.jobs.train_long_term import LongTermConfig

    try:
        sizes = tuple(int(word) for word in hidden.split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise ConfigError(f"--hidden {hidden}: write layer sizes such as 64,64")
    return long_term_training(LongTermConfig(steps=steps, hidden_sizes=sizes), keep, guarded=not unguarded)


def _progress(text: str) -> None:
    typer.echo(text, err=True)


def _command() -> str:
    """What was typed, with the data folder by its variable."""
    words = " ".join(["quartet", *(f"'{word}'" if " " in word else word for word in sys.argv[1:])])
    folder = os.environ.get("QUARTET_DATA", "").rstrip("/")
    return words.replace(folder, "$QUARTET_DATA") if folder else words


def _fold_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    grid = Table("fold", "trained to", "judged", "", "Sharpe", "growth", "drawdown", "turnover")
    for row in rows:
        shown = [*row["standings"], *([{**row["agent"]["agent"], "name": "agent, mean of seeds"}] if "agent" in row else [])]
        for place, each in enumerate(shown):
            head = (str(row["number"]), row["train"][1][:10], f"{row['test'][0][:10]} to {row['test'][1][:10]}") if not place else ("", "", "")
            figures = (f"{each['sharpe']:.2f}", f"{each['growth']:.1%}", f"{each['max_drawdown']:.0%}", f"{each['turnover']:.0f}")
            grid.add_row(*head, each["name"], *figures)
        if "agent" in row:
            found = row["agent"]["against_prior"]["equal_volatility"]
            grid.add_row("", "", "", f"agent less prior at equal volatility: {found['estimate']:.1%} [{found['low']:.1%}, {found['high']:.1%}]")
    Console().print(grid)
