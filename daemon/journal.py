"""The durable record: facts and intents that must never be lost in SQLite, the market's flow in tape segments beside it.

One sequence number runs over both. The tape's tail is written before an intent that it caused commits, so after a killed
process nothing is missing, and after a power loss at most the last second of market events is, never an intent.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import sqlalchemy as sa

from agents.core.codec import decode, encode
from agents.core.errors import DataError, TradingError
from agents.core.events import MARKET_EVENTS, Event, NewWeights, Tick
from agents.core.orders import Command
from daemon.segments import RecordFailed, SegmentWriter, read

SCHEMA_VERSION = 1
_TO_TAPE = (*MARKET_EVENTS, Tick)

metadata = sa.MetaData()
sessions = sa.Table(
    "sessions", metadata,
    sa.Column("epoch", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, unique=True, nullable=False),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    sa.Column("config", sa.JSON, nullable=False),
    sa.Column("summary", sa.JSON),
)  # fmt: skip
facts = sa.Table(
    "facts", metadata,
    sa.Column("epoch", sa.Integer, primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("kind", sa.Text, nullable=False, index=True),
    sa.Column("body", sa.Text, nullable=False),
)  # fmt: skip
commands = sa.Table(
    "commands", metadata,
    sa.Column("epoch", sa.Integer, primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True),
    sa.Column("leg", sa.Integer, primary_key=True),
    sa.Column("order_id", sa.Text, nullable=False, index=True),
    sa.Column("body", sa.Text, nullable=False),
)  # fmt: skip
decisions = sa.Table(
    "decisions", metadata,
    sa.Column("epoch", sa.Integer, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
)  # fmt: skip
contents = sa.Table(
    "contents", metadata,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("body", sa.LargeBinary, nullable=False),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SessionRow:
    """One run: its epoch (number in this state folder), name, start (ns UTC), engine configuration and summary."""

    epoch: int
    name: str
    started_at: int
    config: dict[str, Any]
    summary: dict[str, Any] | None


def _engine(path: Path, *, read_only: bool = False) -> sa.Engine:
    engine = sa.create_engine(f"sqlite:///{path}")

    @sa.event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _: Any) -> None:
        if not read_only:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA busy_timeout=5000")

    return engine


def open_store(folder: Path) -> sa.Engine:
    """The database of a state folder, created or checked.

    Raises DataError when it was written by a newer version or is damaged, RecordFailed when it cannot be written.
    """
    path = folder / "journal.sqlite"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        engine = _engine(path)
        with engine.begin() as connection:
            found = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
            if found > SCHEMA_VERSION:
                raise DataError(f"{path} was written by a newer version (schema {found}, known {SCHEMA_VERSION}): update Quartet")
            metadata.create_all(connection)
            connection.exec_driver_sql(f"PRAGMA user_version={SCHEMA_VERSION}")
        return engine
    except sa.exc.DatabaseError as error:
        raise _failed(path, error) from error
    except OSError as error:
        raise _failed(path, error) from error


def _failed(path: Path, error: Exception) -> TradingError:
    reason = str(getattr(error, "orig", None) or error)
    if "malformed" in reason or "not a database" in reason:
        return DataError(f"{path} is damaged ({reason}): move it away to start afresh, or restore a backup")
    return RecordFailed(f"{path} cannot be written ({reason}): free disk space or fix its rights, then start again")


class Journal:
    """Writer of one session. Not thread-safe, but `sync` may run in another thread."""

    def __init__(self, folder: Path, name: str, started_at: int, config: dict[str, Any], segment_bytes: int = 64 << 20) -> None:
        self._folder = folder
        self._store = open_store(folder)
        self._contents: list[dict[str, Any]] = []
        self._facts: list[dict[str, Any]] = []
        self._commands: list[dict[str, Any]] = []
        self._decisions: list[dict[str, Any]] = []
        try:
            with self._store.begin() as connection:
                self.epoch = int(connection.execute(sa.select(sa.func.coalesce(sa.func.max(sessions.c.epoch), 0))).scalar_one()) + 1
                self.name = f"{name}-{self.epoch}"
                row = {"epoch": self.epoch, "name": self.name, "started_at": started_at, "config": config}
                connection.execute(sa.insert(sessions), row)
            self._tape = SegmentWriter(folder / "tape" / self.name, segment_bytes)
            self._connection = self._store.connect()
        except (OSError, sa.exc.DatabaseError) as error:
            raise _failed(folder, error) from error

    def describe(self, config: dict[str, Any]) -> None:
        """Complete the session's configuration once it is known (it holds the epoch itself)."""
        with self._store.begin() as connection:
            connection.execute(sa.update(sessions).where(sessions.c.epoch == self.epoch).values(config=config))

    def append(self, event: Event) -> None:
        """Remember a fact; durable after the next `commit`."""
        if isinstance(event, _TO_TAPE):
            self._tape.append(event)
            return
        if isinstance(event, NewWeights):
            self._contents.append({"digest": event.digest, "body": event.payload})
            event = replace(event, payload=b"")
        row = encode(event)
        body = orjson.dumps(row).decode()
        self._facts.append({"epoch": self.epoch, "seq": event.stamp.seq, "at": event.stamp.at, "kind": row[0], "body": body})

    def intend(self, seq: int, wanted: tuple[Command, ...]) -> None:
        """Remember what the engine asks for after fact `seq`; must be committed before it is sent."""
        for leg, command in enumerate(wanted):
            body = orjson.dumps(encode(command)).decode()
            self._commands.append({"epoch": self.epoch, "seq": seq, "leg": leg, "order_id": command.order_id, "body": body})

    def decide(self, number: int, seq: int, at: int, record: dict[str, Any]) -> None:
        """Remember a decision record (plain JSON values)."""
        body = orjson.dumps(record).decode()
        self._decisions.append({"epoch": self.epoch, "number": number, "seq": seq, "at": at, "body": body})

    def commit(self, seq: int) -> None:
        """Tail of the tape first, then one transaction. Raises RecordFailed; then nothing of it may be acted on."""
        try:
            self._tape.write(seq)
            if self._contents or self._facts or self._commands or self._decisions:
                with self._connection.begin():
                    for statement, rows in (
                        (sa.insert(contents).prefix_with("OR IGNORE"), self._contents), (sa.insert(facts), self._facts),
                        (sa.insert(commands), self._commands), (sa.insert(decisions), self._decisions),
                    ):  # fmt: skip
                        if rows:
                            self._connection.execute(statement, rows)
                for rows in (self._contents, self._facts, self._commands, self._decisions):
                    rows.clear()
        except (OSError, sa.exc.DatabaseError) as error:
            raise _failed(self._folder, error) from error

    def sync(self) -> None:
        """Bring the tape's tail to the disk and compress full segments; slow, so it belongs into a thread."""
        self._tape.sync()

    def close(self, seq: int, summary: dict[str, Any]) -> None:
        """Write everything, then the summary."""
        self.commit(seq)
        self._connection.close()
        with self._store.begin() as connection:
            connection.execute(sa.update(sessions).where(sessions.c.epoch == self.epoch).values(summary=summary))
        self._tape.close(seq)
        self._store.dispose()


class JournalReader:
    """What a session recorded, for replay, explanation and carrying positions over. Opens nothing for writing."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        if not (folder / "journal.sqlite").is_file():
            raise DataError(f"no journal in {folder}: name the state folder of an earlier session with --state")
        self._store = _engine(folder / "journal.sqlite", read_only=True)

    def sessions(self) -> list[SessionRow]:
        """All sessions, oldest first."""
        with self._store.connect() as connection:
            rows = connection.execute(sa.select(sessions).order_by(sessions.c.epoch)).all()
        return [SessionRow(row.epoch, row.name, row.started_at, row.config, row.summary) for row in rows]

    def session(self, name: str) -> SessionRow:
        """One session by name or by `last`. Raises DataError naming those that exist."""
        rows = self.sessions()
        for row in rows[-1:] if name == "last" else rows:
            if name in ("last", row.name, str(row.epoch)):
                return row
        known = ", ".join(row.name for row in rows[-5:]) or "none"
        raise DataError(f"no session {name!r} in {self._folder}; the latest are: {known}")

    def commands(self, epoch: int) -> Iterator[tuple[int, Command]]:
        """(sequence number of the fact, command) in order."""
        query = sa.select(commands).where(commands.c.epoch == epoch).order_by(commands.c.seq, commands.c.leg)
        with self._store.connect() as connection:
            for row in connection.execute(query):
                yield row.seq, decode(orjson.loads(row.body))  # type: ignore[misc]  # a command row decodes to a command

    def decisions(self, epoch: int) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """(number, sequence number of the fact, record) in order."""
        query = sa.select(decisions).where(decisions.c.epoch == epoch).order_by(decisions.c.number)
        with self._store.connect() as connection:
            for row in connection.execute(query):
                yield row.number, row.seq, orjson.loads(row.body)

    def facts(self, epoch: int) -> Iterator[Event]:
        """Facts of the journal proper, without the market's flow, in order."""
        query = sa.select(facts.c.body).where(facts.c.epoch == epoch).order_by(facts.c.seq)
        with self._store.connect() as connection:
            for (body,) in connection.execute(query):
                event = decode(orjson.loads(body))
                if isinstance(event, NewWeights):
                    event = replace(event, payload=self.weights(event.digest))
                yield event  # type: ignore[misc]  # a fact row decodes to an event

    def events(self, row: SessionRow) -> Iterator[Event]:
        """Facts of journal and tape merged by sequence number. Raises DataError at the first missing one.

        In a session that was killed the tape may run ahead of the last transaction by facts that nothing was done about: its
        record ends there.
        """
        stored, taped = self.facts(row.epoch), read(self._folder / "tape" / row.name)
        left, right = next(stored, None), next(taped, None)
        expected: int | None = None
        while left is not None or right is not None:
            if right is None or (left is not None and left.stamp.seq < right.stamp.seq):
                assert left is not None
                event, left = left, next(stored, None)
            else:
                event, right = right, next(taped, None)
            if expected is not None and event.stamp.seq != expected:
                if row.summary is None and left is None and isinstance(event, _TO_TAPE):
                    return
                raise DataError(f"session {row.name}: facts {expected} to {event.stamp.seq - 1} are missing from journal and tape")
            expected = event.stamp.seq + 1
            yield event

    def weights(self, digest: str) -> bytes:
        """Weight bytes from the content store. Raises DataError when they are not there."""
        with self._store.connect() as connection:
            body = connection.execute(sa.select(contents.c.body).where(contents.c.digest == digest)).scalar_one_or_none()
        if body is None:
            raise DataError(f"weights {digest} are not in the journal of {self._folder}")
        return bytes(body)
