"""A record that has its room before it is needed: with a full disk the kill path may still send what fits into it.

One file of fixed size, written in place: frames of length, checksum and JSON rows, each durable before `commit` returns. The next
start takes them into the journal. It keeps what concerns orders and money, not the market's flow, and ends when it is full.
"""

import os
import sqlite3
import struct
import weakref
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, ClassVar

import orjson

from agents.core.errors import DataError
from agents.core.events import Event
from agents.core.orders import Command
from daemon.committed import Committed, Mark
from daemon.journal import Journal
from daemon.journal_rows import ACCOUNT_KINDS, command_rows, decision_row, fact_row
from daemon.segments import RecordFailed
from daemon.store import NAME as JOURNAL
from daemon.store import failed, last_committed, open_store

_HEAD = struct.Struct(">II")
Frame = dict[str, Any]


class EmergencyRecord:
    """Stands in for the journal (`daemon.drive.Record`) from `take_over` on; before that it only holds its room.

    What an earlier session left in it is merged first. Raises RecordFailed when the room cannot be had, DataError when that is damaged.
    """

    NAME: ClassVar[str] = "emergency.record"
    SIZE: ClassVar[int] = 1 << 20
    """Bytes: some three thousand orders with their updates and fills."""

    def __init__(self, folder: Path, size: int = SIZE) -> None:
        self._path, self._size = folder / self.NAME, size
        self._epoch, self._end = 0, 0
        self._rows: Frame = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            merge_into(folder)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            weakref.finalize(self, os.close, self._file)
            if os.fstat(self._file).st_size != size or self._path.read_bytes().strip(b"\0"):
                _blank(self._file, size)
        except OSError as error:
            raise failed(self._path, error) from error

    def take_over(self, journal: Journal) -> tuple[Command, ...]:
        """Go on where a journal that cannot be written left off; returns intents that were never sent, which nothing records.

        Raises RecordFailed when even this file cannot be written.
        """
        pending = journal.hand_over()
        self._epoch = pending.epoch
        self._rows = {"epoch": pending.epoch, "cut": pending.cut}
        for row in pending.facts:
            if row[3] in ACCOUNT_KINDS:
                self._keep("facts", row)
        for row in pending.decisions:
            self._keep("decisions", row)
        self.commit(pending.cut)
        return pending.unsent

    def append(self, event: Event) -> None:
        """Remember a fact of the account or an operator's word; everything else passes."""
        if type(event).__name__ in ACCOUNT_KINDS:
            self._keep("facts", fact_row(self._epoch, event))

    def intend(self, seq: int, wanted: tuple[Command, ...]) -> None:
        """Remember what the engine asks for after fact `seq`; must be committed before it is sent."""
        for row in command_rows(self._epoch, seq, wanted):
            self._keep("commands", row)

    def decide(self, number: int, seq: int, at: int, record: dict[str, Any]) -> None:
        """Remember a decision record."""
        self._keep("decisions", decision_row(self._epoch, number, seq, at, record))

    def commit(self, seq: int) -> None:
        """One durable frame. Raises RecordFailed when it does not fit or the disk fails; then nothing of it may be acted on."""
        if not self._rows:
            return
        if not self._epoch:
            raise RecordFailed(f"{self._path} has taken over no session: nothing may be recorded in it")
        body = orjson.dumps(self._rows)
        frame = _HEAD.pack(len(body), zlib.crc32(body)) + body
        self._rows = {}
        if self._end + len(frame) + _HEAD.size > self._size:
            raise RecordFailed(f"{self._path} is full: cancel what rests by hand if it must not stay, free disk space, then start again")
        try:
            if os.pwrite(self._file, frame, self._end) != len(frame):
                raise OSError(28, "No space left on device")
            os.fdatasync(self._file)
        except OSError as error:
            raise failed(self._path, error) from error
        self._end += len(frame)

    def _keep(self, table: str, row: tuple[Any, ...]) -> None:
        self._rows.setdefault(table, []).append(row)


def merge_into(folder: Path) -> int:
    """Take the frames of an earlier session into the journal of `folder`, then empty the record; the number of rows in it.

    To be called before anything looks at the journal. Doing it twice does it once. Raises DataError for a damaged record,
    RecordFailed while the disk is still full; then the record stays as it is.
    """
    path = folder / EmergencyRecord.NAME
    if not path.exists():
        return 0
    frames = list(_frames(path))
    if not frames:
        return 0
    if "epoch" not in frames[0]:
        raise DataError(f"{path} is damaged: it does not say whose orders it holds; move it away and compare with the exchange by hand")
    epoch, cut = int(frames[0]["epoch"]), int(frames[0]["cut"])
    store = open_store(folder)
    try:
        with closing(store.raw_connection()) as connection:
            rows = _insert(connection, epoch, cut, frames)
        with store.connect() as looking:
            newest = last_committed(looking, epoch) or 0
        Committed(folder).write(Mark(epoch, newest))
        file = os.open(path, os.O_RDWR)
        try:
            _blank(file, os.fstat(file).st_size)
        finally:
            os.close(file)
    except (OSError, sqlite3.Error) as error:
        raise failed(folder / JOURNAL, error) from error
    finally:
        store.dispose()
    return rows


def _insert(connection: Any, epoch: int, cut: int, frames: list[Frame]) -> int:
    cursor, rows = connection.cursor(), 0
    cursor.execute("BEGIN IMMEDIATE")
    try:
        cursor.execute("UPDATE sessions SET cut_seq = ? WHERE epoch = ? AND cut_seq IS NULL", (cut, epoch))
        for frame in frames:
            for table, width in (("facts", 6), ("commands", 5), ("decisions", 5)):
                found = [tuple(row) for row in frame.get(table, ())]
                cursor.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({', '.join('?' * width)})", found)
                rows += len(found)
        cursor.execute("COMMIT")
    except sqlite3.Error:
        with suppress(sqlite3.Error):  # a full disk ends the transaction by itself
            cursor.execute("ROLLBACK")
        raise
    return rows


def _frames(path: Path) -> Iterator[Frame]:
    """The whole frames from the start. One that a crash cut off was never acted upon; raises DataError where whole ones follow a bad one."""
    content, place = path.read_bytes(), 0
    while place + _HEAD.size <= len(content):
        length, check = _HEAD.unpack_from(content, place)
        body = content[place + _HEAD.size : place + _HEAD.size + length]
        if not length or len(body) < length or zlib.crc32(body) != check:
            if _whole_after(content, place + _HEAD.size + (length if length < len(content) else 0)):
                raise DataError(f"{path} is damaged at byte {place}: move it away and compare orders and fills with the exchange by hand")
            return
        yield orjson.loads(body)
        place += _HEAD.size + length


def _whole_after(content: bytes, place: int) -> bool:
    """Whether a whole frame stands at `place`."""
    if place + _HEAD.size > len(content):
        return False
    length, check = _HEAD.unpack_from(content, place)
    body = content[place + _HEAD.size : place + _HEAD.size + length]
    return bool(length) and len(body) == length and zlib.crc32(body) == check


def _blank(file: int, size: int) -> None:
    """Zeros, last page first: as long as one frame stands, the first one does."""
    os.posix_fallocate(file, 0, size)
    page = 1 << 16
    for place in reversed(range(0, size, page)):
        os.pwrite(file, bytes(min(page, size - place)), place)
    os.ftruncate(file, size)
    os.fsync(file)
