"""Two whole daemons, one account: the one that trades is killed or frozen, the other takes over; the exchange's own records judge.

    python -m tests.lease_daemons --rounds 20     # the second half of `make lease-proof`: a quarter of an hour
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from agents.core.orders import epoch_of, is_ours
from benchmarks.proofs.audit import replayed, truth
from benchmarks.proofs.crash_sweep import exchange
from daemon import control
from daemon.errors import NotRunning, TimedOut
from daemon.journal import JournalReader
from daemon.left import left_in
from tests.servers import Server, redis_server

ROOT = Path(__file__).parents[1]
SYMBOLS = "BTC/USDT,ETH/USDT"
LEASE_S = 5.0
START_S = 180.0
"""How long a daemon may take to its first order on a machine that has other work."""
BUSY = {"agents.market_making_s": "1", "agents.requote_ms": "100", "http.port": "off", "redis.lease": "true", "redis.lease_s": f"{LEASE_S:g}"}


@dataclass(slots=True)
class Report:
    """What the rounds showed; times in seconds from the misfortune to the other's first order at the exchange."""

    rounds: int = 0
    misfortunes: Counter[str] = field(default_factory=Counter)
    takeovers_s: list[float] = field(default_factory=list)
    orders: int = 0
    sessions: int = 0
    wrong: list[str] = field(default_factory=list)


class Ground:
    """The exchange, Redis, and two daemons with state folders of their own."""

    def __init__(self, folder: Path, base_url: str) -> None:
        self.folder, self.base_url = folder, base_url
        self.redis: Server = redis_server(folder)
        self.redis.start()
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """Start a daemon, which may have to stand by."""
        settings = {**BUSY, "exchange.base_url": self.base_url, "redis.url": f"redis://127.0.0.1:{self.redis.port}", "safety.watchdog_s": "0"}
        command = [sys.executable, "-m", "tests.crash.victim", "0", "after", "trade", "--live", "--json", "--symbols", SYMBOLS]
        command += ["--state", str(self.state(name)), *(word for key, value in settings.items() for word in ("--set", f"{key}={value}"))]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("QUARTET__")} | {"OMP_NUM_THREADS": "1"}
        with (self.folder / f"{name}.log").open("ab") as words:
            self.daemons[name] = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=words, env=environment)

    def state(self, name: str) -> Path:
        return self.folder / name

    def status(self, name: str) -> dict[str, Any]:
        """The daemon's own word; empty where it does not answer."""
        try:
            return control.ask(self.state(name), "status", 2.0)
        except (NotRunning, TimedOut):
            return {}

    def orders(self) -> list[Mapping[str, Any]]:
        """Our orders in the order in which the exchange took them."""
        return sorted((row for row in truth(self.base_url).orders if is_ours(row["clientOrderId"], "main")), key=lambda row: int(row["orderId"]))

    def newest(self) -> int:
        """The newest session that has an order at the exchange."""
        return max((epoch_of(row["clientOrderId"]) or 0 for row in self.orders()), default=0)

    def until(self, what: str, holds: Callable[[], Any], within_s: float = START_S) -> Any:
        """Wait until something holds; its value. Raises AssertionError with the daemons' last words."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if found := holds():
                return found
            time.sleep(0.1)
        words = {name: (self.folder / f"{name}.log").read_text(errors="replace")[-3000:] for name in self.daemons}
        raise AssertionError(f"{what}: not within {within_s:g} s; " + "\n".join(f"--- {name}\n{text}" for name, text in words.items()))

    def trading(self, name: str, above: int) -> int:
        """Wait until this daemon's session, with a number above `above`, has orders at the exchange; that number."""
        return int(self.until(f"{name} trades", lambda: (newest := self.newest()) > above and newest))

    def close(self) -> None:
        for process in self.daemons.values():
            process.kill()
            process.wait()
        self.redis.kill()


def play(folder: Path, rounds: int, seed: int = 0, kinds: Iterable[str] = ("kill", "stop", "redis", "kill", "cut"), loud: bool = False) -> Report:
    """That many takeovers, to and fro; whatever went wrong is in the report."""
    report, chance, kinds = Report(), random.Random(seed), list(kinds)
    with exchange(seed or 7, faults=False) as base_url:
        ground = Ground(folder, base_url)
        try:
            holder, other = "first", "second"
            ground.start(holder)
            epoch = ground.trading(holder, 0)
            ground.start(other)
            for number in range(rounds):
                ground.until(f"{other} stands by", lambda name=other: ground.status(name).get("standby"))
                time.sleep(1.0 + chance.random())
                kind = kinds[number % len(kinds)]
                report.misfortunes[kind] += 1
                report.rounds += 1
                if kind == "redis":
                    restart_redis(ground, holder, epoch, report)
                    continue
                began = time.monotonic()
                if kind == "cut":
                    cut(ground, holder, report)
                    began = time.monotonic()
                else:
                    ground.daemons[holder].send_signal(signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
                epoch = ground.trading(other, epoch)
                report.takeovers_s.append(round(time.monotonic() - began, 2))
                if loud:
                    print(f"{number + 1}/{rounds} {kind}: {other} trades after {report.takeovers_s[-1]:.1f} s as session {epoch}", flush=True)
                if kind != "kill":
                    ground.daemons[holder].send_signal(signal.SIGCONT)
                    if (code := ground.daemons[holder].wait(START_S)) != 1:
                        report.wrong.append(f"{holder} lost its lease ({kind}) and ended with code {code}, not 1")
                    report.wrong += again(ground.state(holder))
                ground.daemons[holder].wait(START_S)
                holder, other = other, holder
                ground.start(other)
            ground.daemons[other].kill()  # or it would take over at once: the lease is given back
            ground.daemons[other].wait()
            ground.daemons[holder].send_signal(signal.SIGTERM)
            if code := ground.daemons[holder].wait(START_S):
                report.wrong.append(f"{holder} ended with code {code}: {(folder / f'{holder}.log').read_text(errors='replace')[-2000:]}")
            judge(ground, holder, report)
        finally:
            ground.close()
    return report


def again(state: Path) -> list[str]:
    """What is different when the last session of a folder, in which the lease came and went, is replayed; empty for nothing."""
    difference = replayed(state, JournalReader(state).sessions()[-1].name)
    return [difference] if difference else []


def restart_redis(ground: Ground, holder: str, epoch: int, report: Report) -> None:
    """A Redis that dies and is started again at once: the same session trades on."""
    ground.redis.kill()
    ground.redis.start()
    before = len(ground.orders())
    ground.until(f"{holder} trades on", lambda: len(ground.orders()) > before + 3 and (ground.status(holder).get("lease") or {}).get("reachable"))
    if ground.newest() != epoch:
        report.wrong.append(f"session {ground.newest()} began though session {epoch} had the lease over a restart of Redis")


def cut(ground: Ground, holder: str, report: Report) -> None:
    """A Redis that is silent for longer than the lease: the holder opens nothing, and takes away what rests."""
    ground.redis.signal(signal.SIGSTOP)
    try:
        ground.until(f"{holder} stands still", lambda: still(ground.status(holder)))
        before = len(ground.orders())
        time.sleep(2.0)
        if (after := len(ground.orders())) != before:
            report.wrong.append(f"{after - before} orders were taken without a lease")
    finally:
        ground.redis.signal(signal.SIGCONT)


def still(status: Mapping[str, Any]) -> bool:
    """Whether a daemon without the lease has nothing open but protective stops."""
    kept = {order["order_id"] for order in status.get("open_orders", ()) if order["agent"] == "safety"}
    return bool(status) and not status["lease"]["held"] and {order["order_id"] for order in status["open_orders"]} <= kept


def judge(ground: Ground, last: str, report: Report) -> None:
    """Nothing was sent twice, no two sessions sent in turns, and the last one's book is what all trades make of it."""
    names = [row["clientOrderId"] for row in ground.orders()]
    report.orders, report.sessions = len(names), len({epoch_of(name) for name in names})
    report.wrong += [f"{name} is {times} times at the exchange" for name, times in Counter(names).items() if times > 1]
    report.wrong += interleaved(names)
    found = truth(ground.base_url)
    reader = JournalReader(ground.state(last))
    row = reader.sessions()[-1]
    left = left_in(reader, row.config["origin"])
    assert left is not None
    for symbol in SYMBOLS.split(","):
        base = symbol.split("/")[0]
        trades = [trade for trade in found.trades if trade["symbol"] == symbol.replace("/", "")]
        net = sum((Decimal(t["qty"]) * (1 if t["isBuyer"] else -1) for t in trades), Decimal(0))
        net -= sum((Decimal(t["commission"]) for t in trades if t["commissionAsset"] == base), Decimal(0))
        if left.ledger.position(symbol) != net:  # type: ignore[arg-type]
            report.wrong.append(f"{left.ledger.position(symbol)} {base} in the book, {net} by all trades")  # type: ignore[arg-type]
    if (row.summary or {}).get("ledger_difference") != 0:
        report.wrong.append(f"ledger_difference {(row.summary or {}).get('ledger_differences')}")


def interleaved(names: Iterable[str]) -> list[str]:
    """Sentences about sessions whose orders were taken after those of a later one; `names` in the order of acceptance."""
    newest, found = 0, list[str]()
    for name in names:
        epoch = epoch_of(name) or 0
        if epoch < newest:
            found.append(f"{name} was taken after an order of session {newest}")
        newest = max(newest, epoch)
    return found


def main() -> int:
    """Prints the report; 1 where anything is wrong, or a takeover took longer than 10 s after a kill."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--within", type=float, default=10.0, help="seconds that a takeover may take")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = play(Path(folder), given.rounds, given.seed, loud=True)
    slow = [each for each in report.takeovers_s if each > given.within]
    print(f"{report.rounds} misfortunes ({dict(report.misfortunes)}), {report.sessions} sessions, {report.orders} orders at the exchange")
    print(f"slowest {max(report.takeovers_s):.1f} s, {len(slow)} above {given.within:g} s; wrong: {len(report.wrong)}")
    for sentence in report.wrong[:10]:
        print(sentence)
    return 1 if report.wrong or slow or report.rounds < given.rounds else 0


if __name__ == "__main__":
    sys.exit(main())
