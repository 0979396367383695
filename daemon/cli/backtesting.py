"""The command that runs the engine over recorded data, and what it says about the result."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from agents.core.errors import ConfigError
from daemon.cli.app import RUN, Config, Json, Set, app, settings_of, speak, tell

Moment = Annotated[str | None, typer.Option("--from", metavar="DATE", help="First moment, such as 2024-01-01 (UTC).")]
Until = Annotated[str | None, typer.Option("--to", metavar="DATE", help="Where to stop, such as 2024-06-30T12:00 (UTC).")]


@app.command(rich_help_panel=RUN)
def backtest(
    data: Annotated[
        list[Path], typer.Option("--data", metavar="PATH", help="A recorded tape: a file, or a folder of files; several of candles.")
    ],
    start: Moment = None,
    end: Until = None,
    symbols: Annotated[str | None, typer.Option("--symbols", metavar="LIST", help="Only these symbols of the tape.")] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option("--weights", metavar="[AGENT=]PATH", help="Learned weights for all agents, or for one; without, the priors trade."),
    ] = None,
    report: Annotated[Path | None, typer.Option("--report", metavar="DIR", help="Write report.html and report.json there.")] = None,
    allow_gaps: Annotated[bool, typer.Option("--allow-gaps", help="Go on over holes in the tape instead of refusing it.")] = False,
    mark_outs: Annotated[
        bool,
        typer.Option("--mark-outs", help="On recorded books: fill rates and mark-outs of the market maker's quotes by queue model, in place of a run."),
    ] = False,
    warm_up: Annotated[
        float, typer.Option("--warm-up", metavar="DAYS", min=0, help="Days of candles before --from that fill the features.")
    ] = 100.0,
    config: Config = None,
    assignments: Set = None,
    as_json: Json = False,
) -> None:
    """Run the same engine over recorded data, with simulated fills, fees and latency.

    Fees, latency, queue and impact are settings: `--set paper.taker_fee_bps=10 --set paper.latency_ms=100 --set paper.queue=back
    --set paper.impact=square_root`. A summary is printed; --json prints it for programs.
    """
    settings = settings_of(config, {}, assignments)
    speak(settings)
    for path in data:
        if not path.exists():
            raise ConfigError(f"--data: there is no file or folder {path}")
    window = moment("--from", start), moment("--to", end)
    chosen = None if symbols is None else tuple(word.strip() for word in symbols.split(",") if word.strip())
    from agents.jobs.backtest import summary
    from agents.jobs.report import DAY_NS, summary_json, write_report
    from agents.jobs.weights import read_weights
    from daemon import offline

    served = read_weights(weights or [])
    if mark_outs:
        if report is not None:
            raise ConfigError("--report belongs to a run; leave it out with --mark-outs, and take --json")
        with progress_bar(not as_json) as advance:
            seen = offline.mark_outs(settings, data, *window, chosen, allow_gaps=allow_gaps, weights=served, progress=advance)
        tell(seen, True) if as_json else _print_books(seen)
        return
    paths = data[0] if len(data) == 1 else data
    with progress_bar(not as_json) as advance:
        made = offline.backtest(
            settings, paths, *window, chosen, allow_gaps=allow_gaps, weights=served, progress=advance, warm_up_ns=int(warm_up * DAY_NS)
        )
    answer = summary_json(made, summary(made))
    if report is not None:
        answer["report"] = [str(path) for path in write_report(made, report)]
    if as_json:
        tell(answer, True)
    else:
        _print(answer)


@contextmanager
def progress_bar(wanted: bool) -> Iterator[Callable[[float], None] | None]:
    """What to tell the part done, in [0, 1]; None where nobody looks at a terminal."""
    if not wanted or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("running"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("", total=1.0)
        yield lambda done: shown.update(task, completed=done)


def moment(flag: str, text: str | None) -> int | None:
    """Nanoseconds UTC of an ISO date or time. Raises ConfigError, naming the flag."""
    if text is None:
        return None
    from datetime import UTC, datetime

    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{flag} {text!r}: write a date such as 2024-01-31 or a time such as 2024-01-31T12:00") from None
    if found.tzinfo is None:
        found = found.replace(tzinfo=UTC)
    return int(found.timestamp()) * 1_000_000_000


def _print(answer: Mapping[str, Any]) -> None:
    from rich.console import Console

    from agents.jobs.report import CAUTION, LABELS, PERCENT, told

    console = Console()
    metrics = [(LABELS[name], told(name, value)) for name, value in answer["statistics"].items()]
    console.print(_table("Summary metrics", ("Metric", "Value"), metrics))
    for title, rows in (("By symbol", answer["by_symbol"]), ("By agent", answer["by_agent"])):
        if rows:
            heads = tuple(name.replace("_", " ") + (" %" if name in PERCENT else "") for name in rows[0])
            console.print(_table(title, heads, [tuple(told(k, v) for k, v in row.items()) for row in rows]))
    for path in answer.get("report", ()):
        console.print(f"written: {path}", soft_wrap=True)
    console.print(CAUTION, style="dim")


def _print_books(seen: Mapping[str, Any]) -> None:
    from rich.console import Console

    console = Console()
    heads = ("session", "quoter", "queue", "quotes", "fill rate %", "fills a minute", "captured", "fee", "1 s", "5 s", "30 s", "error of 5 s")
    rows = [
        (
            f"{row['symbol']} {row['session'].split()[-1][:10]}", row["quoter"], row["queue"], str(row["quotes"]), _number(row["fill_rate"], 100.0),
            _number(row["fills_a_minute"]), _number(row["captured"]), _number(row["fee"]), *(_number(row["markout"][f"{h}s"]) for h in (1, 5, 30)),
            _number(row["error"]["5s"]),
        )
        for row in seen["rows"]
    ]  # fmt: skip
    console.print(_table("Mark-outs in basis points of notional, fees not taken off", heads, rows))
    console.print(seen["caution"], style="dim")


def _number(value: float | None, factor: float = 1.0) -> str:
    return "-" if value is None else f"{factor * value:.2f}"


def _table(title: str, heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold")
    for position, head in enumerate(heads):
        table.add_column(head, justify="left" if position == 0 else "right")
    for row in rows:
        table.add_row(*row)
    return table
