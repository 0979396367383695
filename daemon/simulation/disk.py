"""The disk below a session's record, as far as it can fail: full for a while, or the process dies in the middle of a commit."""

import random
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from daemon.emergency import EmergencyRecord
from daemon.journal import Journal
from daemon.segments import RecordFailed
from daemon.simulation.loop import Crashed


class Disk:
    """One disk for all sessions of a run. `full` is a switch; `deadly` kills the process at one of the next commits."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.full = self._failed = False
        self.deadly = 0
        """How many commits from now the process dies; 0 is never."""
        self.committed: Callable[[], None] = lambda: None
        """Told after each commit that is durable."""

    def require_room(self) -> None:
        """Raises RecordFailed, as opening the record on a full disk does."""
        if self.full:
            raise RecordFailed("the state folder cannot be written (No space left on device)")

    def place_under(self, journal: Journal) -> None:
        """Let a session's record meet this disk at each of its writes."""
        tape: Any = journal._tape
        record: Any = journal
        write, transact, commit = tape.write, record._transact, record.commit

        def tape_write(seq: int) -> None:
            if self.full and tape._tail:
                self._failed = True
                raise RecordFailed(f"{tape.folder} cannot be written (No space left on device)")
            write(seq)

        def guarded_transact() -> None:
            if self.full:
                self._failed = True
                raise sqlite3.OperationalError("database or disk is full")
            point = self._fatal_point()
            if point == "before":
                raise Crashed("killed before a commit")
            transact()
            if point == "after":
                raise Crashed("killed after a commit, before anybody heard of it")

        def told_commit(seq: int) -> None:
            self._failed = False
            commit(seq)
            if not self._failed:
                self.committed()
            if self.deadly < 0:
                self.deadly = 0
                raise Crashed("killed after a commit, before what it allows was sent")

        tape.write, record._transact, record.commit = tape_write, guarded_transact, told_commit

    def listen_to(self, emergency: EmergencyRecord) -> None:
        """The room of the emergency record was taken before: it is never full, and what it commits is durable as well."""
        record: Any = emergency
        commit = record.commit

        def told_commit(seq: int) -> None:
            commit(seq)
            self.committed()

        record.commit = told_commit

    def _fatal_point(self) -> str:
        if self.deadly <= 0:
            return ""
        self.deadly -= 1
        if self.deadly:
            return ""
        point = self._rng.choice(("before", "after", "sent"))
        self.deadly = -1 if point == "sent" else 0
        return point


def let_go(journal: Journal) -> None:
    """What the operating system does with the database of a killed process: its locks are gone, what was not committed never was."""
    record: Any = journal
    for connection in (getattr(record, "_connection", None), getattr(record, "_folding", None)):
        raw = getattr(connection, "driver_connection", connection)
        if raw is not None:
            with suppress(sqlite3.Error):
                raw.rollback()
                raw.close()
