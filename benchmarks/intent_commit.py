"""What an intent costs before it may be sent: the journal's commit, beside the least that a durable row costs on this disk."""

import argparse
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np

from agents.core.events import Event, Fill, OrderUpdate, Quote, Stamp
from agents.core.instruments import Currency, Side, Symbol
from agents.core.orders import Command, OrderState, Place, client_order_id
from benchmarks.report import Row, main
from daemon.journal import Journal
from daemon.running import SYNC_S

BTC = Symbol("BTC/USDT")
QUOTES, UPDATES, LEGS = 40, 4, 4
"""Between two decisions: what the market and the orders before bring; and what a decision asks for."""
RECORD: dict[str, Any] = {
    "agents": ["market_making"], "equity": 10_000.123456,
    "wishes": [{"agent": "market_making", "symbol": BTC, "action": [0.123456789] * 6, "bid_offset": 0.00198655919} for _ in range(16)],
}  # fmt: skip
PRICE = Decimal("96901.23")


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    """Milliseconds from the decision to the moment its orders may be sent, journal and floor in turns on one disk."""
    with tempfile.TemporaryDirectory(dir=arguments.folder or None) as name, closing(floor(Path(name))) as bare:
        journal = Journal(Path(name), "benchmark", 0, {})
        ours, peer = commits(journal, bare, arguments.decisions)
        journal.close(0, {})
        kind = os.stat(name).st_dev
    floor_name = "sqlite3, one row, synchronous=FULL"
    yield Row("decision to send, median", median(ours), "ms", median(peer), floor_name, median(ours) / median(peer), p99(ours))
    yield Row("decision to send, p99", p99(ours), "ms", p99(peer), floor_name, p99(ours) / p99(peer), p99(ours))
    yield Row("promised at most, p99", 5.0, f"ms (device {kind:x})")


def commits(journal: Journal, bare: sqlite3.Connection, decisions: int) -> tuple[np.ndarray, np.ndarray]:
    """Durations in milliseconds of each commit of ours and of the floor's; the journal is folded once a second, as in a session."""
    ours, peer, seq = [], [], 0
    folded, folding = time.monotonic(), Future[None]()
    folding.set_result(None)
    with ThreadPoolExecutor(1) as beside:
        for number in range(1, decisions + 1):
            for event in facts(number, seq):
                journal.append(event)
            seq += QUOTES + UPDATES
            commands = intents(number)
            start = time.perf_counter_ns()
            journal.decide(number, seq, seq, RECORD)
            journal.intend(seq, commands)
            journal.commit(seq)
            middle = time.perf_counter_ns()
            bare.execute("INSERT INTO intents VALUES (?, ?)", (number, "q-main-1-1-0"))
            bare.execute("COMMIT")
            bare.execute("BEGIN")
            ours.append(middle - start)
            peer.append(time.perf_counter_ns() - middle)
            if folding.done() and time.monotonic() - folded > SYNC_S:
                folded, folding = time.monotonic(), beside.submit(journal.sync)
    return np.asarray(ours) / 1e6, np.asarray(peer) / 1e6


def facts(number: int, seq: int) -> Iterator[Event]:
    """Forty quotes, three updates and a fill."""
    for offset in range(1, QUOTES + 1):
        yield Quote(Stamp(seq, seq + offset), BTC, seq, PRICE, Decimal("0.5"), PRICE + 1, Decimal("0.25"))
    order = client_order_id("main", 1, number, 0)
    for offset in range(1, UPDATES):
        yield OrderUpdate(Stamp(seq, seq + QUOTES + offset), order, BTC, OrderState.OPEN, str(10**9 + seq), Decimal(0))
    last = Stamp(seq, seq + QUOTES + UPDATES)
    yield Fill(last, BTC, seq, order, str(number), Side.BUY, PRICE, Decimal("0.01"), Decimal("0.9"), Currency("USDT"), True)


def intents(number: int) -> tuple[Command, ...]:
    """Four quotes."""
    return tuple(
        Place(client_order_id("main", 1, number, leg), BTC, Side.BUY, Decimal("0.01031"), PRICE, post_only=True, shares=(("market_making", 0.01),))
        for leg in range(LEGS)
    )


def floor(folder: Path) -> sqlite3.Connection:
    """A database that does nothing but make one small row durable."""
    bare = sqlite3.connect(folder / "floor.sqlite", isolation_level=None)
    bare.execute("PRAGMA journal_mode=WAL")
    bare.execute("PRAGMA synchronous=FULL")
    bare.execute("CREATE TABLE intents (number INTEGER PRIMARY KEY, order_id TEXT)")
    bare.execute("BEGIN")
    return bare


def median(values: np.ndarray) -> float:
    return float(np.median(values))


def p99(values: np.ndarray) -> float:
    return float(np.quantile(values, 0.99))


if __name__ == "__main__":
    main("intent_commit", measure, packages=("sqlalchemy", "orjson"), decisions=5000, folder="")
