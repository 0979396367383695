"""The durable record: facts and intents that must never be lost in SQLite, the market's flow in tape segments beside it.

One sequence number runs over both. The tape's tail is written before an intent that it caused commits, so after a killed
process nothing is missing, and after a power loss at most the last second of market events is, never an intent.
"""

import sqlite3
import weakref
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import orjson
import sqlalchemy as sa

from agents.core.codec import decode
from agents.core.errors import DataError
from agents.core.events import MARKET_EVENTS, Event, NewWeights, Tick
from agents.core.orders import Command
from agents.market.observation import Experience
from daemon.committed import Committed, Mark
from daemon.journal_rows import ACCOUNT_KINDS, INSERTS, Row, command_rows, decision_row, fact_row
from daemon.segments import RecordFailed, SegmentWriter, read
from daemon.store import NAME, damaged, examine, failed, open_store, reading, sessions

_TO_TAPE = (*MARKET_EVENTS, Tick)
CHECKPOINT_BYTES = 2 << 20
"""A write-ahead log above this is folded into the database by `sync`."""


@dataclass(frozen=True, slots=True)
class Pending:
    """What a journal that cannot be written any more still held in memory; `cut` is the last fact that is recorded in full."""

    epoch: int
    cut: int
    facts: tuple[Row, ...]
    decisions: tuple[Row, ...]
    unsent: tuple[Command, ...]


class Journal:
    """Writer of one session. Not thread-safe, but `sync` may run in another thread.

    `floor` is the least number that the session may take. Raises RecordFailed where the folder cannot be written, DataError where what is
    there cannot be believed.
    """

    def __init__(
        self, folder: Path, name: str, started_at: int, config: dict[str, Any], segment_bytes: int = 64 << 20, floor: int = 1
    ) -> None:
        self._folder, self._path = folder, folder / NAME
        self._store = open_store(folder)
        self._rows: dict[str, list[Row]] = {table: [] for table in INSERTS}
        self._intended: list[Command] = []
        self._mark = Committed(folder)
        self._last = self._marked = 0
        self._handed_over = False
        try:
            with self._store.begin() as connection:
                newest = int(connection.execute(sa.select(sa.func.coalesce(sa.func.max(sessions.c.epoch), 0))).scalar_one())
                self.epoch = max(newest + 1, _newest_trace(folder) + 1, floor)
                self.name = f"{name}-{self.epoch}"
                row = {"epoch": self.epoch, "name": self.name, "started_at": started_at, "config": config}
                connection.execute(sa.insert(sessions), row)
            self._mark.write(Mark(self.epoch, 0))
            self._tape = SegmentWriter(folder / "tape" / self.name, segment_bytes)
            self._connection = self._store.raw_connection()
            self._folding = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            self._folding.execute("PRAGMA synchronous=FULL")
        except (OSError, sa.exc.DatabaseError, sqlite3.Error) as error:
            raise failed(self._path, error) from error

    def describe(self, config: dict[str, Any]) -> None:
        """Complete the session's configuration once it is known (it holds the epoch itself)."""
        try:
            with self._store.begin() as connection:
                connection.execute(sa.update(sessions).where(sessions.c.epoch == self.epoch).values(config=config))
        except sa.exc.DatabaseError as error:
            raise failed(self._path, error) from error

    def append(self, event: Event) -> None:
        """Remember a fact; durable after the next `commit`."""
        if isinstance(event, _TO_TAPE):
            with suppress(RecordFailed):  # kept, and said at the next commit: upon a fact alone nothing is sent
                self._tape.append(event)
            return
        if isinstance(event, NewWeights):
            self._rows["contents"].append((event.digest, event.payload))
            event = replace(event, payload=b"")
        self._rows["facts"].append(fact_row(self.epoch, event))

    def intend(self, seq: int, wanted: tuple[Command, ...]) -> None:
        """Remember what the engine asks for after fact `seq`; must be committed before it is sent."""
        self._rows["commands"] += command_rows(self.epoch, seq, wanted)
        self._intended += wanted

    def decide(self, number: int, seq: int, at: int, record: dict[str, Any]) -> None:
        """Remember a decision record (plain JSON values)."""
        self._rows["decisions"].append(decision_row(self.epoch, number, seq, at, record))

    def learn(self, experiences: Sequence[Experience]) -> None:
        """Remember what earlier decisions were worth, as it is offered to the learner; durable after the next `commit`."""
        by_decision: dict[tuple[str, int, int, float], dict[str, float]] = {}
        for one in experiences:
            by_decision.setdefault((one.agent, one.time, one.version, one.elapsed), {})[one.symbol or ""] = float(one.reward)
        self._rows["lessons"] += [
            (self.epoch, agent, time, version, orjson.dumps({"elapsed": float(elapsed), "rewards": rewards}).decode())
            for (agent, time, version, elapsed), rewards in by_decision.items()
        ]

    def commit(self, seq: int) -> None:
        """Tail of the tape first, then one transaction. Raises RecordFailed; then nothing of it may be acted on."""
        if self._handed_over:
            raise RecordFailed(f"{self._path} was handed over to the emergency record: end the session, and start again with room on the disk")
        try:
            self._tape.write(seq)
            if any(self._rows.values()):
                self._transact()
                self._mark.write(Mark(self.epoch, self._newest()))
                for rows in self._rows.values():
                    rows.clear()
                self._intended.clear()
            self._last = seq
        except (OSError, sqlite3.Error) as error:
            raise failed(self._path, error) from error

    def _transact(self) -> None:
        cursor = self._connection.cursor()
        done = False
        try:
            cursor.execute("BEGIN IMMEDIATE")
            for table, rows in self._rows.items():
                if rows:
                    cursor.executemany(INSERTS[table], rows)
            cursor.execute("COMMIT")
            done = True
        finally:
            if not done:
                with suppress(sqlite3.Error):  # a full disk ends the transaction by itself
                    cursor.execute("ROLLBACK")
            cursor.close()

    def _newest(self) -> int:
        """The newest fact that the rows of this commit name; a commit of lessons alone moves nothing."""
        places = (("facts", 1), ("commands", 1), ("decisions", 2))
        self._marked = max((rows[-1][place] for table, place in places if (rows := self._rows[table])), default=self._marked)
        return self._marked

    def sync(self) -> None:
        """Bring the tape's tail to the disk, compress full segments and fold the log into the database; slow: it belongs into a thread."""
        self._tape.sync()
        with suppress(OSError, sqlite3.Error):  # what cannot be folded now stays in the log, which is as durable
            if self._path.with_name(f"{NAME}-wal").stat().st_size > CHECKPOINT_BYTES:
                self._folding.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def hand_over(self) -> Pending:
        """Give away what was not committed, for the emergency record. Intents are not among it: they were never sent.

        Nothing can be committed here afterwards.
        """
        facts, decisions = tuple(self._rows["facts"]), tuple(self._rows["decisions"])
        self._handed_over = True
        pending = Pending(self.epoch, self._last, facts, decisions, tuple(self._intended))
        for kept in self._rows.values():
            kept.clear()
        self._intended.clear()
        self._tape.abandon()
        self._connection.close()
        self._folding.close()
        self._store.dispose()
        return pending

    def close(self, seq: int, summary: dict[str, Any]) -> None:
        """Write everything, then the summary."""
        self.commit(seq)
        self._connection.close()
        self._folding.close()
        try:
            with self._store.begin() as connection:
                ended = {"summary": summary, "last_seq": seq}
                connection.execute(sa.update(sessions).where(sessions.c.epoch == self.epoch).values(**ended))
        except sa.exc.DatabaseError as error:
            raise failed(self._path, error) from error
        self._tape.close(seq)
        self._store.dispose()


def newest_epoch(folder: Path) -> int:
    """The newest session of a state folder; 0 where there is none. Raises DataError for a damaged journal."""
    rows = JournalReader(folder).sessions() if examine(folder) is not None else []
    return max([_newest_trace(folder), *(row.epoch for row in rows)])


def _newest_trace(folder: Path) -> int:
    """The newest session that left a trace beside the database: client order ids carry the epoch, so none is used twice."""
    mark = Committed(folder).read()
    tapes = [path.name.rsplit("-", 1)[-1] for path in (folder / "tape").glob("*-*")]
    return max([mark.epoch if mark else 0, *(int(number) for number in tapes if number.isdecimal())])


@dataclass(frozen=True, slots=True)
class SessionRow:
    """One run: its epoch (number in this state folder), name, start (ns UTC), engine configuration and summary.

    `last` is the last fact of a session that ended in order, `cut` that of one that went on in the emergency record: after it
    there are orders and fills, but not what the market did.
    """

    epoch: int
    name: str
    started_at: int
    config: dict[str, Any]
    summary: dict[str, Any] | None
    last: int | None = None
    cut: int | None = None


class JournalReader:
    """What was recorded, for replay, explanation and recovery. Opens nothing for writing; reads older schemas as they are.

    All questions raise DataError, saying what to do, where the journal is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / NAME
        try:
            schema = examine(folder)
        except (sa.exc.DatabaseError, OSError) as error:
            raise damaged(self._path, error) from error
        if schema is None:
            raise DataError(f"no journal in {folder}: name the state folder of an earlier session with --state")
        self.schema = schema
        self._store = reading(self._path)
        weakref.finalize(self, self._store.dispose)

    @contextmanager
    def _asking(self) -> Iterator[sqlite3.Cursor]:
        """A cursor on the raw connection: a hundred thousand rows are read at a start, and SQLAlchemy would double the time."""
        try:
            with closing(self._store.raw_connection()) as connection, closing(connection.cursor()) as cursor:
                yield cast(sqlite3.Cursor, cursor)
        except (sqlite3.Error, sa.exc.DatabaseError) as error:
            raise damaged(self._path, error) from error

    def _rows(self, query: str, values: Sequence[object] = ()) -> Iterator[Row]:
        with self._asking() as cursor:
            yield from cursor.execute(query, values)

    def _decode(self, body: str) -> Any:
        try:
            return decode(orjson.loads(body))
        except (orjson.JSONDecodeError, DataError) as error:
            raise DataError(f"{self._path} has a row that cannot be read ({error}): restore the latest backup (docs/journal.md)") from error

    def _json(self, body: str | None) -> Any:
        try:
            return None if body is None else orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise DataError(f"{self._path} has a row that cannot be read ({error}): restore the latest backup (docs/journal.md)") from error

    def sessions(self) -> list[SessionRow]:
        """All sessions, oldest first."""
        ends = "last_seq, cut_seq" if self.schema > 1 else "NULL, NULL"
        rows = self._rows(f"SELECT epoch, name, started_at, config, summary, {ends} FROM sessions ORDER BY epoch")
        return [SessionRow(row[0], row[1], row[2], self._json(row[3]), self._json(row[4]), row[5], row[6]) for row in rows]

    def session(self, name: str) -> SessionRow:
        """One session by name, epoch or `last`. Raises DataError naming those that exist."""
        rows = self.sessions()
        for row in rows[-1:] if name == "last" else rows:
            if name in ("last", row.name, str(row.epoch)):
                return row
        known = ", ".join(row.name for row in rows[-5:]) or "none"
        raise DataError(f"no session {name!r} in {self._folder}; the latest are: {known}")

    def last_session(self, origin: str) -> SessionRow | None:
        """The latest session that traded the account `origin` (daemon/opening.py), or None."""
        return next((row for row in reversed(self.sessions()) if row.config.get("origin") == origin), None)

    def commands(self, epoch: int, until: int | None = None) -> Iterator[tuple[int, Command]]:
        """(sequence number of the fact, command) in order, up to fact `until`."""
        query = "SELECT seq, body FROM commands WHERE epoch = ? AND seq <= ? ORDER BY seq, leg"
        for seq, body in self._rows(query, (epoch, _END if until is None else until)):
            yield seq, self._decode(body)

    def decisions(self, epoch: int, until: int | None = None) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """(number, sequence number of the fact, record) in order, up to fact `until`."""
        query = "SELECT number, seq, body FROM decisions WHERE epoch = ? AND seq <= ? ORDER BY number"
        for number, seq, body in self._rows(query, (epoch, _END if until is None else until)):
            yield number, seq, self._json(body)

    def account_facts(self, epoch: int) -> Iterator[Event]:
        """Facts from which the account is rebuilt (ACCOUNT_KINDS), in order."""
        marks = ", ".join("?" * len(ACCOUNT_KINDS))
        query = f"SELECT body FROM facts WHERE epoch = ? AND kind IN ({marks}) ORDER BY seq"
        for (body,) in self._rows(query, (epoch, *ACCOUNT_KINDS)):
            yield self._decode(body)

    def order_facts(self, order_id: str) -> Iterator[Event]:
        """Updates, fills and adoptions of one order, oldest first, over all sessions; in time proportional to their number."""
        if self.schema > 1:
            query = "SELECT body FROM facts WHERE order_id = ? ORDER BY epoch, seq"
            values: tuple[str, ...] = (order_id,)
        else:
            query = "SELECT body FROM facts WHERE kind IN ('OrderUpdate', 'Fill') AND instr(body, ?) ORDER BY epoch, seq"
            values = (f'"{order_id}"',)
        for (body,) in self._rows(query, values):
            yield self._decode(body)

    def newest_trades(self, epochs: Sequence[int]) -> dict[str, tuple[str, int]]:
        """Per symbol the newest own trade of these sessions: (trade id, market time in ns)."""
        newest: dict[str, tuple[str, int]] = {}
        for symbol, trade_id, time in self._trades(epochs, 0):
            if time >= newest.get(symbol, ("", 0))[1]:
                newest[symbol] = (trade_id, time)
        return newest

    def seen_trades(self, epochs: Sequence[int], since: int = 0) -> set[tuple[str, str]]:
        """(symbol, trade id) of the own trades of these sessions from market time `since` on (ns)."""
        return {(symbol, trade_id) for symbol, trade_id, _ in self._trades(epochs, since)}

    def _trades(self, epochs: Sequence[int], since: int) -> Iterator[Row]:
        query = (
            "SELECT json_extract(body, '$[2]'), json_extract(body, '$[5]'), json_extract(body, '$[3]') AS time FROM facts "
            "WHERE epoch = ? AND kind = 'Fill' AND time >= ? ORDER BY seq"
        )
        for epoch in epochs:
            yield from self._rows(query, (epoch, since))

    def facts(self, epoch: int) -> Iterator[Event]:
        """Facts of the journal proper, without the market's flow, in order."""
        for (body,) in self._rows("SELECT body FROM facts WHERE epoch = ? ORDER BY seq", (epoch,)):
            event = self._decode(body)
            yield replace(event, payload=self.weights(event.digest)) if isinstance(event, NewWeights) else event

    def events(self, row: SessionRow) -> Iterator[Event]:
        """Facts of journal and tape merged by sequence number. Raises DataError where one is missing.

        In a session that was killed the tape may run ahead of the last transaction by facts that nothing was done about: its
        record ends there. That of a session that went on in the emergency record ends at `row.cut`.
        """
        expected: int | None = None
        for event in self._merged(row):
            seq = event.stamp.seq
            if row.cut is not None and seq > row.cut:
                return
            if expected is not None and seq != expected:
                if row.summary is None and seq > expected > self._last_acted(row.epoch):
                    return
                what = f"facts {expected} to {seq - 1} are missing from" if seq > expected else f"fact {seq} stands twice in"
                raise DataError(f"session {row.name}: {what} journal and tape")
            expected = seq + 1
            yield event
        self._require_whole(row, 0 if expected is None else expected - 1)

    def _merged(self, row: SessionRow) -> Iterator[Event]:
        stored, taped = self.facts(row.epoch), read(self._folder / "tape" / row.name)
        left, right = next(stored, None), next(taped, None)
        while left is not None or right is not None:
            if right is None or (left is not None and left.stamp.seq < right.stamp.seq):
                assert left is not None
                event, left = left, next(stored, None)
            else:
                event, right = right, next(taped, None)
            yield event

    def _require_whole(self, row: SessionRow, last: int) -> None:
        """The tape's end may be lost without leaving a gap: the session's own word, or what was done, tells."""
        wanted = row.cut if row.cut is not None else row.last if row.last is not None else self._last_acted(row.epoch)
        if last < wanted:
            raise DataError(
                f"session {row.name}: facts {last + 1} to {wanted} are missing at the end of its tape: restore {self._folder / 'tape' / row.name}"
            )

    def _last_acted(self, epoch: int) -> int:
        """The newest fact upon which something was stored."""
        queries = (f"SELECT coalesce(max(seq), 0) FROM {table} WHERE epoch = ?" for table in ("facts", "commands", "decisions"))
        return max(int(found) for query in queries for (found,) in self._rows(query, (epoch,)))

    def weights(self, digest: str) -> bytes:
        """Weight bytes from the content store. Raises DataError when they are not there."""
        for (body,) in self._rows("SELECT body FROM contents WHERE digest = ?", (digest,)):
            return bytes(body)
        raise DataError(f"weights {digest} are not in the journal of {self._folder}")


_END = (1 << 63) - 1
