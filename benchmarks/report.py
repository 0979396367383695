"""How every benchmark reports: a table on standard output and, with --json FILE, one JSON object of one shape."""

import argparse
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True, slots=True)
class Row:
    """One question's answer. `ratio` is the speed-up where more is promised, ours over peer where at most; `p99` is ours."""

    case: str
    ours: float
    unit: str
    peer: float | None = None
    peer_name: str = ""
    ratio: float | None = None
    p99: float | None = None


def main(benchmark: str, measure: Callable[[argparse.Namespace], Iterable[Row]], packages: Sequence[str] = (), **options: object) -> None:
    """Run `measure` and report its rows. `packages` are those whose versions matter; `options` become --flags with defaults."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{benchmark}", description=measure.__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    for name, default in options.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=f"default {default}")
    arguments = parser.parse_args()
    rows = []
    print(f"{benchmark}: {os.environ.get('OMP_NUM_THREADS', '?')} thread(s)", flush=True)
    for row in measure(arguments):
        print(_line(row), flush=True)
        rows.append(row)
    if arguments.json:
        arguments.json.write_text(json.dumps(_document(benchmark, rows, packages), indent=2) + "\n")


def _document(benchmark: str, rows: Sequence[Row], packages: Sequence[str]) -> dict[str, object]:
    versions = {"python": platform.python_version()} | {name: _version(name) for name in packages}
    threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
    return {"benchmark": benchmark, "threads": threads, "versions": versions, "rows": [asdict(row) for row in rows]}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _line(row: Row) -> str:
    parts = [f"  {row.case:<34} {row.ours:>12,.4g} {row.unit}"]
    if row.peer is not None:
        parts.append(f"{row.peer_name} {row.peer:,.4g}")
    if row.ratio is not None:
        parts.append(f"ratio {row.ratio:.2f}")
    if row.p99 is not None:
        parts.append(f"p99 {row.p99:,.4g}")
    return "   ".join(parts)


def alternate(calls: Sequence[Callable[[], object]], rounds: int, per_round: int) -> list[np.ndarray]:
    """Durations in microseconds of each callable, (rounds * per_round,), taken in turns so that they share the machine's moods."""
    durations: list[list[int]] = [[] for _ in calls]
    for call in calls:
        for _ in range(max(per_round // 4, 1)):
            call()
    for _ in range(rounds):
        for call, taken in zip(calls, durations, strict=True):
            for _ in range(per_round):
                start = time.perf_counter_ns()
                call()
                taken.append(time.perf_counter_ns() - start)
    return [np.asarray(taken) / 1e3 for taken in durations]
