"""The state folder: one daemon holds it at a time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agents.core.errors import ConfigError
from daemon.errors import Unsafe


class Occupied(Unsafe):
    """Another daemon holds the state folder."""


@contextmanager
def held(folder: Path) -> Iterator[Path]:
    """Hold the folder for this process. Raises Occupied when another does, ConfigError when it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ConfigError(f"state folder {folder} cannot be written ({error.strerror}): choose another with --state") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(handle, 32, 0).decode(errors="replace").strip() or "unknown"
            raise Occupied(
                f"state folder {folder} is in use by process {owner}: stop that daemon, or choose another folder with --state"
                " (on the same account with another `instance`)"
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield folder
    finally:
        os.close(handle)
