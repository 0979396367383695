"""Tape segments: one codec row per line; the running one is plain text, full ones are compressed beside it."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import zstandard

from agents.core.codec import decode, encode
from agents.core.errors import DataError, TradingError
from agents.core.events import Event

TAIL = 512
"""Rows that are gathered before a write, unless somebody asks sooner."""


class RecordFailed(TradingError):
    """The record could not be written; nothing that depends on it may be sent."""


class SegmentWriter:
    """Appends facts to segments in `folder`. Not thread-safe, but `sync` may run in another thread."""

    def __init__(self, folder: Path, segment_bytes: int) -> None:
        self.folder, self._segment_bytes = folder, segment_bytes
        self._tail: list[bytes] = []
        self._file: Any = None
        self._size = 0
        self._full: list[Path] = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RecordFailed(f"{folder} cannot be made ({error.strerror}): choose another folder or fix its rights") from error

    def append(self, event: Event) -> None:
        """Remember a fact; with the operating system after the next `write`. Raises RecordFailed."""
        self._tail.append(orjson.dumps(encode(event)))
        if len(self._tail) >= TAIL:
            self.write(event.stamp.seq)

    def write(self, seq: int) -> None:
        """Hand the tail to the operating system; `seq` names a new segment. Raises RecordFailed, and keeps the tail."""
        if not self._tail:
            return
        block = b"\n".join(self._tail) + b"\n"
        try:
            if self._file is None:
                self._file = open(self.folder / f"{seq:012d}.jsonl", "ab", buffering=0)  # noqa: SIM115 - lives over many calls
            written = self._file.write(block)
            if written != len(block):
                raise OSError(28, "No space left on device")
        except OSError as error:
            if self._file is not None:
                with suppress(OSError):  # a row that was written in part must not stand before the next one
                    os.ftruncate(self._file.fileno(), self._size)
            raise RecordFailed(
                f"{self.folder} cannot be written ({error.strerror}): free disk space or fix its rights, then start again"
            ) from error
        self._tail.clear()
        self._size += len(block)
        if self._size >= self._segment_bytes:
            self._roll()

    def _roll(self) -> None:
        self._file.close()
        self._full.append(Path(self._file.name))
        self._file, self._size = None, 0

    def sync(self) -> None:
        """Bring the tail to the disk and compress full segments; slow, so it belongs into a thread."""
        if (file := self._file) is not None:
            with suppress(ValueError):  # closed meanwhile by a roll
                os.fdatasync(file.fileno())
        while self._full:
            with suppress(OSError):  # no room for the twin: the plain segment stays, and reads as well
                compress(self._full.pop())

    def abandon(self) -> None:
        """Let go of the file as it stands; what was not written is lost. For a disk that takes nothing more."""
        self._tail.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    def close(self, seq: int) -> None:
        """Write what is left and compress it all."""
        self.write(seq)
        if self._file is not None:
            self._roll()
        self.sync()


def compress(segment: Path) -> None:
    """Replace a plain segment by its zstd twin, atomically. Raises OSError, and leaves no half of a twin."""
    packed, temporary = segment.with_suffix(".jsonl.zst"), segment.with_suffix(".part")
    try:
        with segment.open("rb") as source, temporary.open("wb") as target:
            zstandard.ZstdCompressor(level=3).copy_stream(source, target)
            target.flush()
            os.fsync(target.fileno())
        temporary.rename(packed)
    finally:
        temporary.unlink(missing_ok=True)
    segment.unlink()


def segments_of(folder: Path) -> list[Path]:
    """The segments of a tape in order; of a pair that a crash left, the compressed one."""
    found = sorted(folder.glob("*.jsonl*"))
    packed = {path.stem for path in found if path.suffix == ".zst"}
    return [path for path in found if path.name not in packed]


def read(folder: Path) -> Iterator[Event]:
    """Facts of all segments in order. A last line that a crash cut off ends the tape; any other bad line raises DataError."""
    segments = segments_of(folder)
    for segment in segments:
        for number, line in enumerate(lines(segment), start=1):
            try:
                yield decode(orjson.loads(line))  # type: ignore[misc]  # a tape row decodes to an event
            except (ValueError, DataError) as error:
                if segment == segments[-1] and segment.suffix != ".zst" and not line.endswith(b"\n"):
                    return
                raise DataError(f"{segment} line {number} cannot be read ({error}): the tape is damaged there, restore the file") from error


def lines(segment: Path) -> Iterator[bytes]:
    """Lines with their ends. Raises DataError for a file that is damaged or cut off."""
    try:
        if segment.suffix != ".zst" and not segment.exists():
            segment = segment.with_suffix(".jsonl.zst")  # compressed meanwhile by the session that writes it
        if segment.suffix == ".zst":
            yield from _unpacked(segment)
            return
        with segment.open("rb") as file:
            yield from file
    except OSError as error:
        raise DataError(f"{segment} cannot be read ({error.strerror}): fix its rights or restore the file") from error


def _unpacked(segment: Path) -> Iterator[bytes]:
    unpacker, rest = zstandard.ZstdDecompressor().decompressobj(), b""
    try:
        with segment.open("rb") as file:
            while block := file.read(1 << 18):
                *whole, rest = (rest + unpacker.decompress(block)).split(b"\n")
                yield from (line + b"\n" for line in whole)
    except zstandard.ZstdError as error:
        raise DataError(f"{segment} is damaged ({error}): restore the file") from error
    if rest:
        yield rest
    if not unpacker.eof:
        raise DataError(f"{segment} is cut off: restore the file")
