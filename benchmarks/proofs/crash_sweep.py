"""Kills the live daemon at its commit points, one life after the other, and holds journal and exchange against each other each time.

The rehearsal exchange lives through, with faults on; every restart is the next victim: `make crash-sweep`.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from agents.core.errors import TradingError
from agents.core.events import Adopted
from benchmarks.proofs.audit import Truth, audit, books, doubts, put, replayed, truth

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- crash sweep: written by make crash-sweep -->", "<!-- end of crash sweep -->"
INSTANCE = "main"
SYMBOLS = "BTC/USDT,ETH/USDT,SOL/USDT"
BUSY = {"agents.market_making_s": "1", "agents.requote_ms": "100", "http.port": "off"}
"""More decisions a second than a user would want: lives are short, and should be full of orders."""
MOMENTS = ("before", "after", "soon")
LIFE_S = 120.0
"""By then a life must have come to its commit: they come several times a second once trading goes on."""
LAST_S = 8.0
"""The life that ends in order."""
FAULTS: dict[str, Any] = {"rate": 0.003, "among": [
    "answer_late", "accepted_reset", "empty_answer", "not_json", "timeout_1007", "http_500", "http_504", "overload_1008", "none_fields",
    "order_unseen", "diff_skipped", "private_lost", "private_duplicated", "private_reordered", "private_delayed", "split_fills",
    "stream_drop", "private_drop", "private_terminated",
]}  # fmt: skip
"""All that happens by chance but bans, silence and crossed books: they would only make lives longer."""


@dataclass(slots=True)
class Kill:
    """One life and its end. `commit` is the transaction of that life at which the signal came."""

    commit: int
    moment: str
    session: str = ""
    recovered: bool = False
    adopted: int = 0
    open_orders: int = 0
    """At the exchange when it died."""
    fills: int = 0
    refused: int = 0
    """Starts that gave up because the exchange answered nothing but faults."""
    seconds: float = 0.0
    doubts: list[str] = field(default_factory=list)
    """Differences that it could not explain at once, because the exchange hid something; it may only reduce risk then."""
    wrong: list[str] = field(default_factory=list)


def plan(kills: int) -> Iterator[tuple[int, str]]:
    """Commit points: the first of a start in each of the three moments, then ever deeper into trading, over and over."""
    early = [(commit, moment) for commit in range(1, 9) for moment in MOMENTS]
    for number in range(kills):
        yield early[number // 2 % len(early)] if number % 2 else (9 + number // 2 * 7 % 32, MOMENTS[number // 2 % 3])


@contextmanager
def exchange(seed: int, faults: bool) -> Iterator[str]:
    """A rehearsal exchange of its own, over all lives; its address."""
    command = [sys.executable, "-m", "daemon.rehearsal", "--faults", "--seed", str(seed), "--symbols", SYMBOLS, "--speed", "120"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        assert server.stdout is not None
        base_url = f"http://127.0.0.1:{orjson.loads(server.stdout.readline())['port']}"
        try:
            if faults:
                switch_on(base_url, {"fault": "random", "seed": seed, **FAULTS})
            yield base_url
        finally:
            server.terminate()


def switch_on(base_url: str, fault: dict[str, Any]) -> None:
    request = urllib.request.Request(f"{base_url}/rehearsal/faults", orjson.dumps(fault), method="POST")
    with urllib.request.urlopen(request, timeout=10):
        pass


def clear(base_url: str) -> None:
    """No more faults."""
    with urllib.request.urlopen(urllib.request.Request(f"{base_url}/rehearsal/faults", method="DELETE"), timeout=10):
        pass


def live(base_url: str, folder: Path, commit: int, moment: str, *arguments: str, watchdog: bool) -> tuple[int, str]:
    """One life; its exit code and last words."""
    settings = {**BUSY, "exchange.base_url": base_url, "safety.watchdog_s": "15" if watchdog else "0"}
    command = [sys.executable, "-m", "tests.crash.victim", str(commit), moment, "trade", "--live", "--json", "--symbols", SYMBOLS, "--state", str(folder)]
    command += [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    words = folder.parent / "words.log"
    with words.open("wb") as errors:
        process = subprocess.Popen([*command, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors, env=_environment())
        try:
            code = process.wait(LIFE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
            code = 1000
    return code, "\n".join(words.read_text(errors="replace").splitlines()[-30:])


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("QUARTET__")} | {"OMP_NUM_THREADS": "1"}


def one(base_url: str, folder: Path, commit: int, moment: str, before: Truth | None, *, watchdog: bool, replay: bool) -> tuple[Kill, Truth]:
    """One life up to its kill, and what is wrong after it."""
    kill, started = Kill(commit, moment), time.monotonic()
    code, words = live(base_url, folder, commit, moment, watchdog=watchdog)
    now = truth(base_url)
    if code == 1 and "cannot be read on" in words.splitlines()[-1]:  # faults all along its patience: it may say so, and be started again
        kill.refused += 1
        code, words = live(base_url, folder, commit, moment, watchdog=watchdog)
        now = truth(base_url)
    if code != -signal.SIGKILL:
        kill.wrong.append(f"it ended with code {code} before it could be killed: {words}")
        before = None  # there may have been no session that could have heard of what was there
    try:
        _judge(kill, folder, before, now, replay=replay)
    except (TradingError, OSError) as error:
        kill.wrong.append(f"the journal cannot be read: {error}")
    kill.seconds = round(time.monotonic() - started, 2)
    return kill, now


def _judge(kill: Kill, folder: Path, before: Truth | None, now: Truth, *, replay: bool) -> None:
    if not (folder / "journal.sqlite").is_file():
        return
    found = books(folder)
    kill.session, kill.recovered, kill.fills = found.last.name, found.recovered, len(found.fills)
    kill.adopted = sum(isinstance(event, Adopted) for event in found.events)
    kill.open_orders = len(now.open_orders(INSTANCE))
    kill.wrong += audit(found, before, now, INSTANCE)
    kill.doubts = doubts(found)
    if replay and found.events and (difference := replayed(folder, found.last.name)):
        kill.wrong.append(difference)


def ending(base_url: str, folder: Path) -> Kill:
    """A last life without faults that ends in order: nothing is left open, and its own account of itself is clean."""
    clear(base_url)
    before, kill = truth(base_url), Kill(0, "end")
    code, words = live(base_url, folder, 0, "after", "--duration", f"{LAST_S:g}", watchdog=True)
    now = truth(base_url)
    if code:
        kill.wrong.append(f"it ended with code {code}: {words}")
    _judge(kill, folder, before, now, replay=True)
    kill.wrong += kill.doubts  # nothing hides anything any more
    summary = books(folder).last.summary or {}
    if summary.get("ledger_difference") != 0:
        kill.wrong.append(f"ledger_difference {summary.get('ledger_difference')} {summary.get('ledger_differences')}")
    if left := now.open_orders(INSTANCE, stops=False):
        kill.wrong.append(f"{len(left)} orders left open")
    return kill


def sweep(kills: int, *, seed: int = 7, faults: bool = True, folder: Path | None = None, replay_every: int = 1, loud: bool = True) -> dict[str, Any]:
    """All lives. Returns plain data: every kill, and counts by moment."""
    done: list[Kill] = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:  # a victim's watchdog may still write its report
        state = (folder or Path(temporary)) / "state"
        with exchange(seed, faults) as base_url:
            now: Truth | None = None
            for number, (commit, moment) in enumerate(plan(kills)):
                kill, now = one(base_url, state, commit, moment, now, watchdog=number // 2 % 2 == 1, replay=number % replay_every == 0)
                kill.wrong += [] if faults else kill.doubts
                done.append(kill)
                if loud:
                    print(f"{number + 1}/{kills} {json.dumps(asdict(kill))}", file=sys.stderr, flush=True)
            last = ending(base_url, state)
            if loud:
                print(f"end {json.dumps(asdict(last))}", file=sys.stderr, flush=True)
    return _summed(done, last, seed, faults)


def _summed(done: list[Kill], last: Kill, seed: int, faults: bool) -> dict[str, Any]:
    by_moment = {
        moment: {
            "kills": len(rows := [kill for kill in done if kill.moment == moment]), "clean": sum(not kill.wrong for kill in rows),
            "recovered": sum(kill.recovered for kill in rows), "adopted": sum(kill.adopted for kill in rows),
            "with_open_orders": sum(kill.open_orders > 0 for kill in rows), "doubtful": sum(bool(kill.doubts) for kill in rows),
        }
        for moment in MOMENTS
    }  # fmt: skip
    return {
        "kills": len(done), "clean": sum(not kill.wrong for kill in done), "end_clean": not last.wrong, "seed": seed, "faults": faults,
        "by_moment": by_moment, "fills": last.fills, "machine": platform.machine(), "cores": os.cpu_count(),
        "seconds": round(sum(kill.seconds for kill in done), 1), "worst": Counter(w.split(":")[-1][:60] for k in done for w in k.wrong).most_common(5),
        "lives": [asdict(kill) for kill in (*done, last)],
    }  # fmt: skip


def table(result: dict[str, Any]) -> str:
    """Markdown for docs/reliability.md."""
    head = "| killed | lives | clean | recovered | orders adopted | died with open orders | in doubt for a while |\n|---|---|---|---|---|---|---|"
    names = {"before": "before the commit", "after": "after the commit, before the send", "soon": "30 ms after the commit"}
    rows = [
        f"| {names[moment]} | {row['kills']} | {row['clean']} | {row['recovered']} | {row['adopted']} | {row['with_open_orders']} | {row['doubtful']} |"
        for moment, row in result["by_moment"].items()
    ]
    end = "clean" if result["end_clean"] else "NOT clean"
    said = f"{result['clean']} of {result['kills']} kill points clean, the end {end}; {result['fills']} fills, {result['seconds']:.0f} s, faults {'on' if result['faults'] else 'off'}."
    return "\n".join([said, "", head, *rows])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proofs.crash_sweep", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--no-faults", action="store_true", help="the exchange behaves")
    parser.add_argument("--folder", type=Path, help="keep state folder and words here")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--page", type=Path, help="put the table into this page, such as docs/reliability.md")
    given = parser.parse_args()
    if given.folder is not None:
        given.folder.mkdir(parents=True, exist_ok=True)
    result = sweep(given.kills, seed=given.seed, faults=not given.no_faults, folder=given.folder)
    if given.json is not None:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))
    print(table(result))
    clean = result["clean"] == result["kills"] and result["end_clean"]
    if given.page is not None and clean:
        put(given.page, BEGIN, END, table(result))
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
