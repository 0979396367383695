"""A simulated day of live trading on the rehearsal exchange with faults: does anything grow that should not? `make soak`.

The day passes in 24 minutes at speed 60. What is measured every ten seconds must stay flat after the warm-up; at the end the books
must equal the exchange's, and the record must replay.
"""

import argparse
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import orjson

from agents.core.errors import TradingError
from benchmarks.proofs.audit import put, truth
from benchmarks.proofs.crash_sweep import exchange, switch_on
from daemon.control import ask

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- soak: written by make soak -->", "<!-- end of soak -->"
SPEED = 60.0
EVERY_S = 10.0
WARM = 0.25
"""Part of the run that is left out: history, weights, caches and the allocator's arenas fill up."""
STOP_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Bound:
    """How much a figure may grow in a simulated day, or in all of a shorter run, by its median slope, and why so much."""

    name: str
    growth: float
    unit: str
    why: str


BOUNDS = (
    Bound("rss", 40.0, "MB", "ids of fills and of orders that ended are remembered, some kilobytes each hour; the allocator breathes by a few MB"),
    Bound("files", 3.0, "", "connections come and go with the faults; one that leaks at each reconnection would add hundreds"),
    Bound("threads", 2.0, "", "the resolver's and the journal's pools reach their size in the warm-up"),
    Bound("tasks", 5.0, "", "a task for each stream, sender and watcher; requests under way come and go"),
    Bound("inbox", 50.0, "facts", "it is empty whenever the engine keeps up"),
    Bound("live_orders", 30.0, "", "quotes of all symbols; orders that are forgotten would pile up"),
)  # fmt: skip


def resident(pid: int) -> float | None:
    """Resident memory of a process in MB, shared pages included; None where there is none."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return None


def sample(pid: int, folder: Path, at_s: float) -> dict[str, float | None]:
    """One look from outside and one by the control socket; what cannot be had is None."""
    found: dict[str, float | None] = {"at_s": round(at_s, 1), "rss": resident(pid)}
    found["files"], found["threads"] = (len(list(Path(f"/proc/{pid}/{what}").iterdir())) for what in ("fd", "task"))
    try:
        status = ask(folder, "status")
    except TradingError:
        status = {}
    found["inbox"], found["tasks"] = status.get("inbox_depth"), (status.get("process") or {}).get("tasks")
    found["live_orders"] = len(status["open_orders"]) if "open_orders" in status else None
    found["journal"] = sum(file.stat().st_size for file in folder.glob("journal.sqlite*")) / 1e6
    found["tape"] = sum(file.stat().st_size for file in (folder / "tape").rglob("*") if file.is_file()) / 1e6
    for name in ("learner", "watchdog"):
        found[f"{name}_rss"] = resident(other) if (other := (status.get(name) or {}).get("pid")) else None
    return found


def growth(samples: Sequence[Mapping[str, float | None]], name: str, day_s: float) -> float | None:
    """By how much a figure grows in `day_s` seconds: the median of the slopes of all pairs (Theil and Sen), so that spikes weigh nothing."""
    points = [(at, value) for one in samples if (at := one["at_s"]) is not None and (value := one.get(name)) is not None]
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in combinations(points, 2) if x2 > x1]
    return statistics.median(slopes) * day_s if slopes else None


def judged(samples: Sequence[Mapping[str, float | None]], day_s: float) -> list[dict[str, Any]]:
    """One row a bound: median, peak, growth in a simulated day (or the run), and whether it holds. What was never told is left out."""
    day_s = min(day_s, samples[-1]["at_s"] or 0.0)
    warm = [one for one in samples if (one["at_s"] or 0) >= WARM * (samples[-1]["at_s"] or 0)]
    rows = []
    for bound in BOUNDS:
        values = [value for one in warm if (value := one.get(bound.name)) is not None]
        grown = growth(warm, bound.name, day_s)
        if grown is not None:
            row = {"name": bound.name, "median": round(statistics.median(values), 1), "peak": round(max(values), 1)}
            rows.append({**row, "growth": round(grown, 2), "bound": bound.growth, "unit": bound.unit, "why": bound.why, "holds": grown <= bound.growth})
    return rows


def soak(minutes: float, *, seed: int = 11, rate: float = 0.002, folder: Path | None = None, loud: bool = True) -> dict[str, Any]:
    """Run it. Returns figures, samples and what is wrong."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary, exchange(seed, faults=False) as base_url:
        switch_on(base_url, {"fault": "random", "rate": rate, "seed": seed})
        state = (folder or Path(temporary)) / "state"
        samples, summary, words = _trade(base_url, state, minutes * 60, loud=loud)
        left = truth(base_url).open_orders("main", stops=False)
        replayed = _replay(state)
    rows = judged(samples, 86_400 / SPEED) if len(samples) > 2 else []
    wrong = [f"{row['name']} grows by {row['growth']} {row['unit']} a day, more than {row['bound']}" for row in rows if not row["holds"]]
    wrong += [] if rows else ["the daemon did not live long enough to be measured"]
    if summary.get("ledger_difference") != 0:
        wrong.append(f"ledger_difference is {summary.get('ledger_difference')} {summary.get('ledger_differences')}; last words: {words}")
    if left:
        wrong.append(f"{len(left)} orders were left open")
    if not replayed.get("equal"):
        wrong.append(f"the record does not replay: {replayed}")
    return {
        "minutes": minutes, "market_hours": round(minutes * SPEED / 60, 2), "fault_rate": rate, "seed": seed, "holds": not wrong, "wrong": wrong,
        "figures": rows, "sizes": _sizes(samples), "machine": platform.machine(), "cores": os.cpu_count(), "replay": replayed,
        "summary": {name: summary.get(name) for name in ("orders", "fills", "decisions", "anomalies", "refused", "ledger_difference", "drawdown")},
        "samples": samples,
    }  # fmt: skip


def _sizes(samples: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """What grows by design, in MB at the end: the record, and what the learner remembers."""
    return {name: None if (value := samples[-1].get(name)) is None else round(value, 1) for name in ("journal", "tape", "learner_rss", "watchdog_rss")} if samples else {}


def _trade(base_url: str, state: Path, seconds: float, *, loud: bool) -> tuple[list[dict[str, float | None]], dict[str, Any], str]:
    """(samples, closing summary, last words of the log)."""
    state.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "daemon", "trade", "--live", "--json", "--state", str(state)]
    command += ["--symbols", "BTC/USDT,ETH/USDT,SOL/USDT", "--set", f"exchange.base_url={base_url}", "--set", "http.port=off"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QUARTET__")} | {"OMP_NUM_THREADS": "1"}
    samples: list[dict[str, float | None]] = []
    started = time.monotonic()
    with (state.parent / "soak.log").open("wb") as words, (state.parent / "summary.json").open("wb") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=words, env=environment)
        try:
            while (passed := time.monotonic() - started) < seconds and process.poll() is None:
                time.sleep(min(EVERY_S, max(0.1, seconds - passed)))
                if process.poll() is None:
                    samples.append(sample(process.pid, state, time.monotonic() - started))
                    if loud:
                        print(orjson.dumps(samples[-1]).decode(), file=sys.stderr, flush=True)
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_WITHIN_S)
        finally:
            process.kill()
            process.wait()
    told = (state.parent / "summary.json").read_bytes().strip()
    last = "\n".join((state.parent / "soak.log").read_text(errors="replace").splitlines()[-5:])
    return samples, orjson.loads(told) if told else {}, last


def _replay(state: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "daemon", "replay", "last", "--json", "--state", str(state)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    return dict(orjson.loads(done.stdout)) if done.stdout.strip() else {"equal": False, "error": done.stderr.decode(errors="replace")[-500:]}


def table(result: Mapping[str, Any]) -> str:
    """Markdown for docs/reliability.md."""
    summary, sizes = result["summary"], result["sizes"]
    lines = [
        (f"{result['minutes']:g} minutes, {result['market_hours']:g} market hours, each event spoiled with probability {result['fault_rate']:g}: "
        f"{summary['orders']} orders, {summary['fills']} fills, ledger difference {summary['ledger_difference']:g}, "
        f"replay {'equal' if result['replay'].get('equal') else 'DIFFERENT'} ({result['replay'].get('decisions')} decisions)."),
        "",
        "| figure | median | peak | growth | bound | why it may |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for row in result["figures"]:
        unit = f" {row['unit']}" if row["unit"] else ""
        lines.append(f"| {row['name']} | {row['median']:g}{unit} | {row['peak']:g}{unit} | {row['growth']:+g}{unit} | {row['bound']:g}{unit} | {row['why']} |")
    return "\n".join([*lines, "", f"At the end: journal {sizes['journal']} MB, tape {sizes['tape']} MB, learner process {sizes['learner_rss']} MB, watchdog {sizes['watchdog_rss']} MB."])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proofs.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=24.0)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--rate", type=float, default=0.002, help="probability of a fault at each call, message and event")
    parser.add_argument("--folder", type=Path, help="keep state folder and log here")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--page", type=Path, help="put the table into this page, such as docs/reliability.md")
    given = parser.parse_args()
    result = soak(given.minutes, seed=given.seed, rate=given.rate, folder=given.folder)
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))
    print(table(result) if result["figures"] else "nothing measured")
    print("\n".join(result["wrong"]) or "everything holds")
    if given.page is not None and result["holds"]:
        put(given.page, BEGIN, END, table(result))
    return 0 if result["holds"] else 1


if __name__ == "__main__":
    sys.exit(main())
