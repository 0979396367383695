"""Rounds of misfortune for three contenders and a real Redis; afterwards no two of them may ever have traded at once.

    python -m tests.lease_rounds --rounds 1000     # `make lease-proof`: half an hour
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.lease_contender import TERMS
from tests.servers import Server, redis_server

CONTENDERS = 3
KINDS = ("stop", "kill", "redis_stop", "redis_kill", "redis_forgets", "calm")
WEIGHTS = (5, 5, 3, 1, 1, 2)


@dataclass(slots=True)
class Claim:
    """From `begin` to `end` (seconds of the machine's monotonic clock) orders of this holder may have been alive."""

    holder: str
    epoch: int
    begin: float
    end: float


@dataclass(slots=True)
class Report:
    """What the rounds showed."""

    rounds: int = 0
    claims: int = 0
    holders: int = 0
    overlaps: list[tuple[Claim, Claim]] = field(default_factory=list)
    epochs_that_fell: list[tuple[Claim, Claim]] = field(default_factory=list)
    misfortunes: Counter[str] = field(default_factory=Counter)
    takeovers_s: list[float] = field(default_factory=list)


class Ground:
    """Redis and the contenders."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.chance, self.started = folder, random.Random(seed), 0
        self.claims = folder / "claims"
        self.claims.touch()
        self.redis: Server = redis_server(folder)
        self.redis.start()
        self.processes = [self.contender() for _ in range(CONTENDERS)]

    def contender(self) -> "subprocess.Popen[bytes]":
        self.started += 1
        command = [sys.executable, "-m", "tests.lease_contender", str(self.redis.port), str(self.claims), str(self.started)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[1])

    def round(self, kind: str) -> None:
        """One misfortune, and some time to get over it."""
        some = lambda most: self.chance.random() * most  # noqa: E731
        victim = self.chance.randrange(CONTENDERS)
        if kind == "stop":
            self.processes[victim].send_signal(signal.SIGSTOP)
            time.sleep(some(1.2))
            self.processes[victim].send_signal(signal.SIGCONT)
        elif kind == "kill":
            self.processes[victim].kill()
            self.processes[victim].wait()
            self.processes[victim] = self.contender()
        elif kind == "redis_stop":
            self.redis.signal(signal.SIGSTOP)
            time.sleep(some(1.0))
            self.redis.signal(signal.SIGCONT)
        elif kind.startswith("redis"):
            self.redis.kill()
            if kind == "redis_forgets":
                for file in self.folder.rglob("*.aof*"):
                    file.unlink()
            time.sleep(some(0.3))
            self.redis.start()
        time.sleep(0.1 + some(0.8))

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self.redis.kill()


def play(folder: Path, rounds: int, seed: int) -> Report:
    """That many rounds; the report names whatever went wrong."""
    report, ground = Report(), Ground(folder, seed)
    try:
        time.sleep(3 * TERMS.length_s + 2)  # a Redis that has just begun gives no lease
        for _ in range(rounds):
            kind = ground.chance.choices(KINDS, WEIGHTS)[0]
            report.misfortunes[kind] += 1
            ground.round(kind)
            report.rounds += 1
    finally:
        ground.close()
    judge(ground.claims.read_text().splitlines(), report)
    return report


def judge(lines: list[str], report: Report) -> None:
    """No claim of one holder may reach into one of another; epochs rise with time where Redis forgot nothing."""
    claims = []
    for line in lines:
        holder, epoch, begin, end = line.split()
        claims.append(Claim(holder, int(epoch), float(begin), float(end)))
    claims.sort(key=lambda claim: claim.begin)
    report.claims, report.holders = len(claims), len({(claim.holder, claim.epoch) for claim in claims})
    last: Claim | None = None
    for claim in claims:
        if last is not None and (claim.holder, claim.epoch) != (last.holder, last.epoch):
            if claim.begin < last.end:
                report.overlaps.append((last, claim))
            if claim.epoch <= last.epoch and not report.misfortunes["redis_forgets"]:
                report.epochs_that_fell.append((last, claim))
            report.takeovers_s.append(claim.begin - last.end)
        if last is None or claim.end > last.end or claim.holder != last.holder:
            last = claim


def main() -> int:
    """Prints the report; 1 where a lease was held twice."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = play(Path(folder), given.rounds, given.seed)
    print(f"{report.rounds} rounds ({dict(report.misfortunes)}), {report.holders} holders, {report.claims} orders")
    print(f"two traders at once: {len(report.overlaps)}; epochs that fell: {len(report.epochs_that_fell)}")
    for pair in report.overlaps[:5]:
        print(pair)
    return 1 if report.overlaps or report.epochs_that_fell or report.holders < report.rounds / 10 else 0


if __name__ == "__main__":
    sys.exit(main())
