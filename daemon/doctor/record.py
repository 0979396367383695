"""The state folder: rights, room, who holds it, whether trading is latched, and what the journal says of the past."""

import fcntl
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import sqlalchemy as sa

from agents.core.codec import decode
from agents.core.errors import DataError, ModelError
from agents.core.events import NewWeights, Reconciled
from agents.core.instruments import NS
from agents.market.observation import SPEC_HASH
from agents.serving.actors import Actors
from daemon.doctor.findings import FAIL, OK, SKIPPED, WARN, Finding, age, guarded, size
from daemon.journal import JournalReader, SessionRow
from daemon.latch import NAME as LATCH
from daemon.latch import Latch
from daemon.store import NAME as JOURNAL
from daemon.store import damaged, reading
from daemon.store import examine as examine_store

LEAST_FREE, WANTED_FREE = 200_000_000, 2_000_000_000
"""Bytes: below the first the record may fail within the hour; the second is some days of tape of four symbols."""
RECONCILED_WITHIN_S = 600.0
"""A running session compares every `safety.reconcile_s`; ten minutes without a clean word mean something."""


def examine(folder: Path, now: int) -> list[Finding]:
    """`now` in nanoseconds UTC."""
    if not folder.exists():
        return [_absent(folder), guarded("disk", lambda: _disk(_existing(folder)))]
    owner = _owner(folder)
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("state_folder", lambda: _rights(folder)), ("disk", lambda: _disk(folder)), ("lock", lambda: _lock(owner)),
        ("latch", lambda: _latch(folder)), ("watchdog", lambda: _watchdog(folder)), ("journal", lambda: _journal(folder)),
    ]  # fmt: skip
    found = [guarded(name, check) for name, check in checks]
    if not (folder / JOURNAL).is_file() or found[-1].state == FAIL:
        return found
    past = _Past(folder, now, running=owner is not None)
    later: list[tuple[str, Callable[[], Finding]]] = [
        ("last_session", past.last_session), ("reconciled", past.reconciled), ("weights", past.weights)
    ]  # fmt: skip
    return found + [guarded(name, check) for name, check in later]


def _existing(folder: Path) -> Path:
    return next(parent for parent in folder.absolute().parents if parent.exists())


def _absent(folder: Path) -> Finding:
    parent = _existing(folder)
    if not os.access(parent, os.W_OK | os.X_OK):
        return Finding("state_folder", FAIL, f"{folder} is not there, and {parent} cannot be written", "choose another with --state")
    return Finding("state_folder", OK, f"{folder} is not there yet; the first session makes it")


def _rights(folder: Path) -> Finding:
    if not folder.is_dir():
        return Finding("state_folder", FAIL, f"{folder} is no folder", "choose another with --state")
    for file in (folder, *(f for f in (folder / JOURNAL, folder / "lock", folder / LATCH) if f.exists())):
        if not os.access(file, os.R_OK | os.W_OK):
            return Finding("state_folder", FAIL, f"{file} cannot be read and written by this user", "start the daemon as its owner, or mend its rights")
    mode = folder.stat().st_mode
    if mode & 0o002:
        return Finding("state_folder", WARN, f"{folder} may be written by everybody", f"chmod o-w {folder}")
    return Finding("state_folder", OK, f"{folder}, mode {mode & 0o777:o}")


def _disk(folder: Path) -> Finding:
    usage, inodes = shutil.disk_usage(folder), os.statvfs(folder)
    said = f"{size(usage.free)} free of {size(usage.total)}"
    if usage.free < LEAST_FREE or (inodes.f_files and inodes.f_favail < 1000):
        return Finding("disk", FAIL, said + f", {inodes.f_favail} files", "free disk space: a record that cannot be written ends the session")
    if usage.free < WANTED_FREE:
        return Finding("disk", WARN, said, f"keep {size(WANTED_FREE)} free, or move the state folder")
    return Finding("disk", OK, said)


def _owner(folder: Path) -> str | None:
    """The process that holds the folder; asks without holding it for longer than the question takes."""
    try:
        handle = os.open(folder / "lock", os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
    else:
        return None
    finally:
        os.close(handle)


def _lock(owner: str | None) -> Finding:
    return Finding("lock", OK, "no daemon holds the folder" if owner is None else f"held by process {owner}, a running daemon")


def _latch(folder: Path) -> Finding:
    if not (folder / LATCH).exists():
        return Finding("latch", OK, "never set")
    latched = Latch(folder).read()
    if latched.kind == "none":
        return Finding("latch", OK, "open")
    return Finding("latch", WARN, f"{latched.kind}: {latched.reason}", "no session trades before `quartet resume`; first see why it was set")


def _watchdog(folder: Path) -> Finding:
    reports = sorted((folder / "watchdog").glob("*.json"))
    if not reports:
        return Finding("watchdog", OK, "it never had to act")
    last = orjson.loads(reports[-1].read_bytes())
    said = f"acted {len(reports)} times, last at {last['at'][:19]}: {last['reason']}; {last['cancelled']} orders cancelled; {last['outcome']}"
    if str(last["outcome"]).startswith("given up"):
        return Finding("watchdog", FAIL, said, "look at the open orders on the exchange")
    return Finding("watchdog", OK, said)


def _journal(folder: Path) -> Finding:
    try:
        schema = examine_store(folder)
    except (sqlite3.Error, sa.exc.DatabaseError) as error:
        raise damaged(folder / JOURNAL, error) from error
    if schema is None:
        return Finding("journal", OK, "none yet")
    store = sum(file.stat().st_size for file in folder.glob(f"{JOURNAL}*"))
    tape = sum(file.stat().st_size for file in (folder / "tape").rglob("*") if file.is_file())
    said = f"schema {schema}, {size(store)}, and {size(tape)} of tape"
    if store + tape > shutil.disk_usage(folder).free:
        return Finding("journal", WARN, said, "it fills more of the disk than is left: move old segments of tape/ away")
    return Finding("journal", OK, said)


class _Past:
    """Questions about the latest session."""

    def __init__(self, folder: Path, now: int, *, running: bool) -> None:
        self._folder, self._now, self._running = folder, now, running

    def last_session(self) -> Finding:
        row = self._last()
        if row is None:
            return Finding("last_session", OK, "none yet")
        spoken = self._one("SELECT max(at) FROM facts WHERE epoch = ?", row.epoch)
        ago = f"{age((self._now - (spoken[0] or row.started_at)) / NS)} ago" if spoken else "at an unknown time"
        if row.summary is None:
            if self._running:
                return Finding("last_session", OK, f"{row.name} is running")
            return Finding("last_session", WARN, f"{row.name} did not end in order, {ago}", "the next start recovers by itself; `quartet reconcile` shows what it would do")
        if (difference := row.summary.get("ledger_difference")) not in (0, 0.0):
            what = "could not compare its books with the exchange" if difference is None else f"ended {difference} away from the exchange's books"
            return Finding("last_session", WARN, f"{row.name} {what}, {ago}", "`quartet reconcile` shows the difference")
        return Finding("last_session", OK, f"{row.name} ended in order {ago}, books equal to the exchange's")

    def reconciled(self) -> Finding:
        row = self._one("SELECT at, body FROM facts WHERE kind = 'Reconciled' ORDER BY epoch DESC, seq DESC LIMIT 1")
        if row is None:
            return Finding("reconciled", SKIPPED, "no session of this folder traded an account")
        ago, told = (self._now - row[0]) / NS, decode(orjson.loads(row[1]))
        if isinstance(told, Reconciled) and told.differences:
            words = ", ".join(f"{currency} {ours} here, {theirs} there" for currency, ours, theirs in told.differences)
            return Finding("reconciled", WARN, f"{age(ago)} ago with a difference: {words}", "`quartet reconcile`; until then only risk is reduced")
        if self._running and ago > RECONCILED_WITHIN_S:
            return Finding("reconciled", WARN, f"clean, but {age(ago)} ago", "the running session no longer compares: see its log")
        return Finding("reconciled", OK, f"clean, {age(ago)} ago")

    def weights(self) -> Finding:
        row = self._one("SELECT body FROM facts WHERE kind = 'NewWeights' ORDER BY epoch DESC, seq DESC LIMIT 1")
        if row is None:
            return Finding("weights", OK, "none published yet; the analytic priors decide")
        told = decode(orjson.loads(row[0]))
        assert isinstance(told, NewWeights)
        number, digest = told.version, told.digest
        try:
            payload = JournalReader(self._folder).weights(digest)
            Actors.from_payload(payload, SPEC_HASH)
        except (ModelError, DataError) as error:
            return Finding("weights", WARN, f"version {number}: {error}", "they are not used: the priors decide until the learner publishes again")
        return Finding("weights", OK, f"version {number}, {digest[:12]}, {size(len(payload))}, finite, made for these observations")

    def _last(self) -> SessionRow | None:
        return next(reversed(JournalReader(self._folder).sessions()), None)

    def _one(self, query: str, *values: Any) -> Any:
        engine = reading(self._folder / JOURNAL)
        try:
            with engine.connect() as connection:
                return connection.exec_driver_sql(query, values).first()
        except (sqlite3.Error, sa.exc.DatabaseError) as error:
            raise damaged(self._folder / JOURNAL, error) from error
        finally:
            engine.dispose()
