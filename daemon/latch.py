"""Whether trading is stopped, on disk: it outlives every crash, and takes a new word when the disk takes nothing else.

The file is as large as it will ever be from its first moment, and is written in place. It has two slots with checksums, and the
older one is overwritten: a write that a power loss cuts in two leaves what was said before.
"""

import os
import struct
import weakref
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from daemon.segments import RecordFailed

Kind = Literal["none", "halt", "flatten"]
KINDS: tuple[Kind, ...] = get_args(Kind)

NAME = "latch"
SLOT = 4096
"""Bytes of a slot: one page, so that no write of the one touches the other."""
_HEAD = struct.Struct(">8sQqBH")
_MAGIC = b"QLATCH1\n"
_CHECK = struct.Struct(">I")
_ROOM = SLOT - _HEAD.size - _CHECK.size


@dataclass(frozen=True, slots=True)
class Latched:
    """What was said last: `none`, `halt` or `flatten`, why, and when (ns UTC; 0: never)."""

    kind: Kind
    reason: str
    at: int


class Latch:
    """The latch of a state folder; several processes may hold it. Raises RecordFailed when the file cannot be made."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not self._path.exists():
                _create(self._path)
            self._file = os.open(self._path, os.O_RDWR)
        except OSError as error:
            raise _failed(self._path, error) from error
        weakref.finalize(self, os.close, self._file)

    def read(self) -> Latched:
        """What was said last. A file that cannot be believed says halt."""
        found = self._newest()
        if found is None:
            return Latched("halt", f"{self._path} is damaged: look at the account on the exchange, then resume by hand", 0)
        return found[1]

    def set(self, kind: Kind, reason: str, at: int) -> None:
        """Say it, durably; a long reason is cut. Needs no free disk space. Raises RecordFailed when the disk fails altogether."""
        newest = self._newest()
        generation = 1 if newest is None else newest[0] + 1
        try:
            slot = _pack(generation, Latched(kind, reason, at))
            if os.pwrite(self._file, slot, generation % 2 * SLOT) != SLOT:
                raise OSError(28, "No space left on device")
            os.fdatasync(self._file)
        except OSError as error:
            raise _failed(self._path, error) from error

    def _newest(self) -> tuple[int, Latched] | None:
        """(generation, what was said) of the newer slot that is whole."""
        try:
            slots = [os.pread(self._file, SLOT, number * SLOT) for number in range(2)]
        except OSError:
            return None  # a disk that cannot be read is as good as a damaged file
        whole = [found for slot in slots if (found := _unpack(slot)) is not None]
        return max(whole, key=lambda found: found[0], default=None)


def _create(path: Path) -> None:
    """A whole file or none, however early the process ends."""
    temporary = path.with_name(f"{NAME}.{os.getpid()}.part")
    file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.posix_fallocate(file, 0, 2 * SLOT)
        for generation in range(2):
            os.pwrite(file, _pack(generation, Latched("none", "", 0)), generation % 2 * SLOT)
        os.fsync(file)
        temporary.rename(path)
    finally:
        os.close(file)
        temporary.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _pack(generation: int, latched: Latched) -> bytes:
    reason = latched.reason.encode("utf-8", "replace")[:_ROOM]
    body = _HEAD.pack(_MAGIC, generation, latched.at, KINDS.index(latched.kind), len(reason)) + reason
    body = body.ljust(SLOT - _CHECK.size, b"\0")
    return body + _CHECK.pack(zlib.crc32(body))


def _unpack(slot: bytes) -> tuple[int, Latched] | None:
    """(generation, what was said), or None for a slot that is not whole."""
    if len(slot) != SLOT:
        return None
    body, (check,) = slot[: -_CHECK.size], _CHECK.unpack(slot[-_CHECK.size :])
    magic, generation, at, kind, length = _HEAD.unpack_from(body)
    if magic != _MAGIC or check != zlib.crc32(body) or kind >= len(KINDS):
        return None
    reason = body[_HEAD.size : _HEAD.size + length].decode("utf-8", "replace")
    return generation, Latched(KINDS[kind], reason, at)


def _failed(path: Path, error: OSError) -> RecordFailed:
    return RecordFailed(f"{path} cannot be written ({error.strerror}): free disk space or fix its rights, then start again")
