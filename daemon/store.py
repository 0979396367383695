"""The journal's database: its tables, and the one way to open it. What is damaged, lost or of another version is said, never mended.

A file that cannot be believed is left as it is: everything here looks at it read-only before anything is written.
"""

import os
import sqlite3
import struct
from contextlib import closing
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from agents.core.errors import DataError, TradingError
from daemon.committed import Committed, Mark
from daemon.segments import RecordFailed

NAME = "journal.sqlite"
SCHEMA_VERSION = 2

metadata = sa.MetaData()
sessions = sa.Table(
    "sessions", metadata,
    sa.Column("epoch", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, unique=True, nullable=False),
    sa.Column("started_at", sa.BigInteger, nullable=False),
    sa.Column("config", sa.JSON, nullable=False),
    sa.Column("summary", sa.JSON),
    sa.Column("last_seq", sa.BigInteger),  # of a session that ended in order: the last fact of journal and tape
    sa.Column("cut_seq", sa.BigInteger),  # of one that went on in the emergency record: the last fact that is recorded in full
)  # fmt: skip
facts = sa.Table(
    "facts", metadata,
    sa.Column("epoch", sa.Integer, primary_key=True),
    sa.Column("seq", sa.BigInteger, primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("order_id", sa.Text),  # of order updates, fills and adopted orders
    sa.Index("ix_facts_epoch_kind", "epoch", "kind"),
    sa.Index("ix_facts_order_id", "order_id", sqlite_where=sa.text("order_id IS NOT NULL")),
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
    sa.Index("ix_decisions_epoch_seq", "epoch", "seq"),
)  # fmt: skip
lessons = sa.Table(  # what an agent's decision turned out to be worth, as it was offered to the learner
    "lessons", metadata,
    sa.Column("epoch", sa.Integer, primary_key=True),
    sa.Column("agent", sa.Text, primary_key=True),
    sa.Column("time", sa.BigInteger, primary_key=True),  # market time of the decision
    sa.Column("version", sa.Integer, nullable=False),  # of the weights that decided
    sa.Column("body", sa.Text, nullable=False),
)  # fmt: skip
contents = sa.Table(
    "contents", metadata,
    sa.Column("digest", sa.Text, primary_key=True),
    sa.Column("body", sa.LargeBinary, nullable=False),
)  # fmt: skip

DAMAGED = "keep the file, then restore the latest backup or move it away to start afresh (docs/journal.md)"


def open_store(folder: Path) -> sa.Engine:
    """The database of a state folder, created, migrated or checked.

    Raises DataError when it was written by a newer version, is damaged or ends before what was committed; RecordFailed when it
    cannot be written.
    """
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = examine(folder)
        engine = _writing(path)
        if found is None:
            with engine.begin() as connection:
                metadata.create_all(connection)
                connection.exec_driver_sql(f"PRAGMA user_version={SCHEMA_VERSION}")
            with closing(engine.raw_connection()) as raw:
                raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")  # from now on the file alone says what it is
        elif found < SCHEMA_VERSION:
            from daemon.migrations import migrate  # Alembic takes its time to load, and is hardly ever needed

            migrate(engine, path, found, SCHEMA_VERSION)
        else:
            with engine.begin() as connection:
                connection.exec_driver_sql("SELECT epoch FROM sessions LIMIT 1")
    except (sa.exc.DatabaseError, sqlite3.Error, OSError) as error:
        raise failed(path, error) from error
    return engine


def examine(folder: Path) -> int | None:
    """The schema of the journal there, None where none is yet; changes nothing.

    Raises DataError as `open_store` does, and SQLite's own errors as they are.
    """
    path, mark = folder / NAME, Committed(folder).read()
    if not path.exists() and mark is None:
        return None
    if not path.exists():
        raise DataError(
            f"{path} is gone, but session {mark.epoch if mark else 0} was recorded in it: restore it, or move "
            f"{Committed.NAME} away as well to start afresh"
        )
    _require_pages(path, _logged(path))
    if not path.stat().st_size and mark is None:
        return None  # made by a first start that ended in the same moment
    engine = reading(path)
    try:
        with engine.connect() as connection:
            found = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
            if found > SCHEMA_VERSION:
                raise DataError(f"{path} was written by a newer version (schema {found}, known {SCHEMA_VERSION}): update Quartet")
            if not found and mark is None and not connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one():
                return None  # made by a first start that found no room for its tables
            _require_tables(path, connection, found)
            if mark is not None:
                _require_committed(path, connection, mark)
    finally:
        engine.dispose()
    return found


def _logged(path: Path) -> bool:
    """Whether rows may stand in the write-ahead log alone."""
    log = path.with_name(f"{path.name}-wal")
    return log.exists() and log.stat().st_size > 0


def _require_pages(path: Path, logged: bool) -> None:
    """Before SQLite sees the file: of an empty one it would delete the log, and a last page that is cut it would take for zeros."""
    size = path.stat().st_size
    if size < 512 and logged:
        raise DataError(f"{path} is cut off, and {path.name}-wal holds what was committed last: {DAMAGED}")
    with path.open("rb") as file:
        head = file.read(100)
    if size and not logged and head.startswith(b"SQLite format 3\0"):
        page, (pages,) = int.from_bytes(head[16:18], "big"), struct.unpack_from(">I", head.ljust(100, b"\0"), 28)
        whole = pages * (page if page > 1 else 65536)
        if size < whole:
            raise DataError(f"{path} is cut off ({size} of {whole} bytes): {DAMAGED}")


def _require_tables(path: Path, connection: sa.Connection, found: int) -> None:
    there = set(connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'").scalars())
    wanted = {"sessions", "facts", "commands", "decisions", "contents", *(("lessons",) if found > 1 else ())}
    if missing := sorted(wanted - there):
        raise DataError(f"{path} is damaged or no journal of Quartet (it has no {', '.join(missing)}): {DAMAGED}")


def _require_committed(path: Path, connection: sa.Connection, mark: Mark) -> None:
    """A journal whose write-ahead log was lost or cut is whole to SQLite, and shorter than what orders were sent upon."""
    newest = last_committed(connection, mark.epoch)
    if newest is None or newest < mark.seq:
        has = f"session {mark.epoch} only to fact {newest}" if newest is not None else f"nothing of session {mark.epoch}"
        raise DataError(
            f"{path} has {has}, but was committed to fact {mark.seq}: {NAME}-wal is missing or cut; put it back, or after "
            f"restoring a backup on purpose move {Committed.NAME} away; what is missing is then learned from the exchange"
        )


def last_committed(connection: sa.Connection, epoch: int) -> int | None:
    """The newest sequence number of a session in the database, 0 for one without rows, None for an unknown one."""
    if not connection.exec_driver_sql("SELECT count(*) FROM sessions WHERE epoch = ?", (epoch,)).scalar_one():
        return None
    queries = (f"SELECT coalesce(max(seq), 0) FROM {table} WHERE epoch = ?" for table in ("facts", "commands"))
    newest = [int(connection.exec_driver_sql(query, (epoch,)).scalar_one()) for query in queries]
    decided = "SELECT coalesce((SELECT seq FROM decisions WHERE epoch = ? ORDER BY number DESC LIMIT 1), 0)"
    return max(*newest, int(connection.exec_driver_sql(decided, (epoch,)).scalar_one()))


def reading(path: Path) -> sa.Engine:
    """An engine that can change nothing: not the file, and not by closing it."""
    alone = not os.access(path.parent, os.W_OK) and not _logged(path)  # SQLite would want to make its index there
    engine = sa.create_engine(f"sqlite:///file:{path.resolve()}?mode=ro{'&immutable=1' if alone else ''}&uri=true")
    sa.event.listen(engine, "connect", _patient)
    return engine


def _writing(path: Path) -> sa.Engine:
    engine = sa.create_engine(f"sqlite:///{path}")

    @sa.event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions begin where we say so, table changes included
        _patient(connection, _)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA wal_autocheckpoint=0")  # a commit is waited for; Journal.sync does it elsewhere

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _patient(connection: Any, _: Any) -> None:
    connection.execute("PRAGMA busy_timeout=5000")


_DAMAGE = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_IOERR_SHORT_READ", "SQLITE_SCHEMA", "SQLITE_ERROR")


def failed(path: Path, error: Exception) -> TradingError:
    """What a failing write means: damage, or a disk that takes nothing."""
    cause = getattr(error, "orig", None) or error
    if _is_damage(cause):
        return damaged(path, error)
    reason = getattr(cause, "strerror", None) or cause
    return RecordFailed(f"{path} cannot be written ({reason}): free disk space or fix its rights, then start again")


def damaged(path: Path, error: Exception) -> DataError:
    """What a failing read means: damage, or a file that cannot be reached."""
    cause = getattr(error, "orig", None) or error
    if _is_damage(cause):
        return DataError(f"{path} is damaged ({cause}): {DAMAGED}")
    return DataError(f"{path} cannot be read ({cause}): fix the rights of its folder, free disk space, or end the program that holds it")


def _is_damage(cause: object) -> bool:
    return str(getattr(cause, "sqlite_errorname", "")).startswith(_DAMAGE) or type(cause) is sqlite3.DatabaseError
