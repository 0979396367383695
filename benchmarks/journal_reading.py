"""How fast a start has what the last session left: a journal of 100,000 rows, a thousand of its orders open."""

import argparse
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import orjson

from agents.core.events import NewWeights, Stamp
from benchmarks.intent_commit import RECORD, facts, intents
from benchmarks.report import Row, main
from daemon.journal import Journal, JournalReader
from daemon.store import NAME, open_store

BATCH = 200


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    """Seconds to open the journal, to read what the account is made of, and to find one order; the floor parses every row as JSON."""
    with tempfile.TemporaryDirectory(dir=arguments.folder or None) as name:
        folder = Path(name)
        rows = write(folder, arguments.rows)
        yield Row("opened for writing", seconds(lambda: open_store(folder).dispose()), "s")
        took = seconds(lambda: read(folder))
        yield Row(f"read what recovery needs of {rows}", took, "s", floor := seconds(lambda: bare(folder)), "sqlite3 and orjson", took / floor)
        yield Row("found one order's facts", seconds(lambda: list(JournalReader(folder).order_facts("q-main-1-7-0"))), "s")


def write(folder: Path, rows: int) -> int:
    """Facts, commands and decisions as a session leaves them that was killed; how many."""
    book = Journal(folder, "benchmark", 0, {})
    seq = number = count = 0
    while count < rows:
        number += 1
        for event in facts(number, seq):
            if "Quote" not in type(event).__name__:
                book.append(event)
        seq += 44
        book.intend(seq, intents(number))
        book.decide(number, seq, seq, RECORD)
        count += 9
        if number % BATCH == 0:
            book.append(NewWeights(Stamp(seq, seq + 1), number, f"{number:064x}", "spec", bytes(100_000)))
            seq += 1
            book.commit(seq)
    book.commit(seq)
    book.hand_over()
    return count


def read(folder: Path) -> None:
    """The last session, its account facts and commands, the newest trades."""
    reader = JournalReader(folder)
    epoch = reader.session("last").epoch
    for _ in reader.account_facts(epoch):
        pass
    for _ in reader.commands(epoch):
        pass
    reader.newest_trades([epoch])


def bare(folder: Path) -> None:
    """Every row's JSON and nothing more."""
    with closing(sqlite3.connect(folder / NAME)) as connection:
        for table in ("facts", "commands"):
            for (body,) in connection.execute(f"SELECT body FROM {table}"):
                orjson.loads(body)


def seconds(call: Callable[[], object], rounds: int = 3) -> float:
    """The median of a few rounds."""
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return sorted(taken)[rounds // 2]


if __name__ == "__main__":
    main("journal_reading", measure, packages=("sqlalchemy", "orjson"), rows=100_000, folder="")
