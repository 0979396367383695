"""How far the journal was committed, beside it: what tells a journal that lost its write-ahead log from one that is whole.

Written after each commit, in place and without waiting for the disk: it may lag behind the journal, and never runs ahead of it.
"""

import os
import struct
import weakref
import zlib
from pathlib import Path
from typing import ClassVar, NamedTuple

_BODY = struct.Struct(">8sqq")
_CHECK = struct.Struct(">I")
_MAGIC = b"QCOMMIT\n"


class Mark(NamedTuple):
    """Session and newest sequence number that are in the database for certain."""

    epoch: int
    seq: int


class Committed:
    """The mark of a state folder."""

    NAME: ClassVar[str] = "journal.committed"

    def __init__(self, folder: Path) -> None:
        self._path = folder / self.NAME
        self._file: int | None = None

    def read(self) -> Mark | None:
        """What was committed, or None where that is not known: no file, or one that cannot be believed."""
        try:
            content = self._path.read_bytes()
        except OSError:
            return None
        if len(content) < _BODY.size + _CHECK.size:
            return None
        magic, epoch, seq = _BODY.unpack_from(content)
        (check,) = _CHECK.unpack_from(content, _BODY.size)
        return Mark(epoch, seq) if magic == _MAGIC and check == zlib.crc32(content[: _BODY.size]) else None

    def write(self, mark: Mark) -> None:
        """Move the mark. Raises OSError."""
        if self._file is None:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            weakref.finalize(self, os.close, self._file)
        body = _BODY.pack(_MAGIC, *mark)
        os.pwrite(self._file, body + _CHECK.pack(zlib.crc32(body)), 0)
