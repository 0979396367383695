"""Brings a journal of an older version up to date: a verified copy first, then all steps in one transaction.

A database's `user_version` is its schema; Alembic's own table is filled from it when it is needed. Schema 1 is Alembic's base.
"""

import os
import shutil
import sqlite3
from pathlib import Path

import sqlalchemy as sa
import structlog
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from agents.core.errors import DataError
from daemon.segments import RecordFailed

log = structlog.get_logger()

ROOM = 3
"""Free space that a migration needs, in sizes of the journal: the copy, the rows that are rewritten, and their log."""


def migrate(engine: sa.Engine, path: Path, found: int, wanted: int) -> None:
    """Take the journal at `path` from schema `found` to `wanted`.

    Raises RecordFailed where there is no room for it, DataError where the copy does not hold what the journal does; then nothing
    was changed. A process that ends within leaves the journal as it was.
    """
    size = sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*") if file.suffix != ".bak")
    free = shutil.disk_usage(path.parent).free
    if free < ROOM * size:
        raise RecordFailed(
            f"{path} is of an older version (schema {found}) and needs {ROOM * size >> 20} MiB free to be brought to schema "
            f"{wanted}, but {path.parent} has {free >> 20}: free disk space, then start again"
        )
    copy = backup(path, found)
    with engine.begin() as connection:
        _upgrade(connection, found)
        connection.exec_driver_sql(f"PRAGMA user_version={wanted}")
    log.info("journal_migrated", journal=str(path), schema_before=found, schema=wanted, backup=str(copy))


def _upgrade(connection: sa.Connection, found: int) -> None:
    script = ScriptDirectory(str(Path(__file__).parent))
    context = MigrationContext.configure(connection, opts={"fn": lambda heads, _: script._upgrade_revs("head", heads)})
    if found > 1:
        context.stamp(script, str(found))
    with Operations.context(context):
        context.run_migrations()


def backup(path: Path, schema: int) -> Path:
    """A verified copy beside the journal, `journal.sqlite.v<schema>.<latest session>.bak`; an older copy is never overwritten."""
    source = sqlite3.connect(f"file:{path.resolve()}?mode=ro", uri=True)
    try:
        latest = source.execute("SELECT name FROM sessions ORDER BY epoch DESC LIMIT 1").fetchone()
        copy = _unused(path, f"v{schema}.{latest[0] if latest else 'empty'}")
        part = copy.with_suffix(".part")
        part.unlink(missing_ok=True)
        target = sqlite3.connect(part)
        try:
            source.backup(target)
            (verdict,) = target.execute("PRAGMA integrity_check").fetchone()
        finally:
            target.close()
    finally:
        source.close()
    if verdict != "ok":
        part.unlink(missing_ok=True)
        raise DataError(f"{path} is damaged ({verdict.splitlines()[0]}): keep the file, then restore the latest backup (docs/journal.md)")
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.rename(copy)
    return copy


def _unused(path: Path, name: str) -> Path:
    number, copy = 1, path.with_name(f"{path.name}.{name}.bak")
    while copy.exists():
        number += 1
        copy = path.with_name(f"{path.name}.{name}.{number}.bak")
    return copy
