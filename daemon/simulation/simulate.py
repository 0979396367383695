"""Many seeds, on as many processes as wanted: which broke an invariant, and how to see one of them again."""

import json
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from daemon.simulation.faults import named
from daemon.simulation.run import Options, simulate_seed

SEEDS_A_PROCESS = 25
"""A worker is replaced after so many seeds: nothing that a library keeps may grow for hours."""


def simulate(
    first_seed: int,
    seeds: int,
    faults: str = "all",
    minutes: float = 10.0,
    jobs: int = 1,
    progress: Callable[[dict[str, Any]], None] | None = None,
    trace: Path | None = None,
    learner: str = "",
) -> dict[str, Any]:
    """Simulate `seeds` seeds of `minutes` each; the summary as plain JSON values, with every seed that broke an invariant.

    `progress` gets the report of each seed as it ends. `trace` is a file for the event log, of the last seed that is run here.
    Raises ConfigError for a fault that is not in the catalogue.
    """
    named(faults)
    wanted = [Options(seed, minutes, faults, learner, trace is not None) for seed in range(first_seed, first_seed + seeds)]
    failed: list[dict[str, Any]] = []
    total = {"events": 0, "commands": 0, "requests": 0, "fills": 0, "lives": 0}
    simulated_s = 0.0
    happened: dict[str, int] = {}
    for report, log in _reports(wanted, jobs):
        if progress is not None:
            progress(report)
        if trace is not None:
            trace.write_text("\n".join(log) + "\n", encoding="utf-8")
        for name in ("events", "commands", "requests", "fills"):
            total[name] += report[name]
        total["lives"] += len(report["lives"])
        simulated_s += report["simulated_s"]
        for name, times in report["happened"].items():
            happened[name] = happened.get(name, 0) + times
        if report["broken"]:
            failed.append({**report, "again": again(report["seed"], faults, minutes)})
    failed.sort(key=lambda report: int(report["seed"]))
    return {
        "first_seed": first_seed, "seeds": seeds, "minutes": minutes, "faults": faults, "failed": failed,
        "failed_seeds": [report["seed"] for report in failed], "simulated_s": round(simulated_s, 1), **total,
        "happened": dict(sorted(happened.items())),
    }  # fmt: skip


def again(seed: int, faults: str, minutes: float) -> str:
    """The command that runs one seed again and writes its event log."""
    return f"quartet simulate --seeds 1 --first-seed {seed} --faults {faults} --minutes {minutes:g} --trace seed-{seed}.log"


def render(summary: dict[str, Any]) -> str:
    """The summary for people."""
    asked = f"{summary['seeds']} seeds from {summary['first_seed']}, {summary['minutes']:g} minutes each, faults {summary['faults']}"
    counted = f"{summary['lives']} sessions, {summary['commands']} commands, {summary['fills']} fills"
    lines = [f"{asked}: {summary['simulated_s'] / 3600:.1f} h simulated, {counted}"]
    for report in summary["failed"]:
        first = report["broken"][0]
        lines += [f"seed {report['seed']} broke {first['invariant']} at {first['at_s']} s: {first['what']}", f"  {report['again']}"]
    lines.append("no invariant broken" if not summary["failed"] else f"{len(summary['failed'])} seeds broke an invariant")
    return "\n".join(lines)


def _reports(wanted: list[Options], jobs: int) -> Iterator[tuple[dict[str, Any], list[str]]]:
    if jobs <= 1 or len(wanted) <= 1:
        yield from map(simulate_seed, wanted)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=SEEDS_A_PROCESS) as pool:
        for done in as_completed([pool.submit(simulate_seed, options) for options in wanted]):
            yield done.result()


def dumps(summary: dict[str, Any]) -> str:
    """The summary as one JSON document."""
    return json.dumps(summary, indent=2)
