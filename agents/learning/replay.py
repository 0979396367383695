"""What was lived: a memory-mapped ring with one row per transition that survives a killed process and a lost power line.

The header carries two counts. `begun` is raised before rows are written and `committed` after, so that rows which were
being overwritten when a process died are outside the window [begun - capacity, committed) and can never be sampled. Each
row carries a checksum, which finds rows that a power cut has torn when the file is opened. The file is sparse and is
reserved in steps, so that a full disk is an error and not a bus error. Layout is in native byte order.
"""

import fcntl
import hashlib
import mmap
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agents.core.errors import DataError, NotFinite, SpecMismatch
from agents.learning.groups import TimeGroups

Floats = NDArray[np.float32]

_MAGIC = b"QTRING01"
_PAGE = 4096
_LINE = 64
"""Bytes of a cache line."""
_RESERVE = 8 << 20
"""Bytes of disk made sure of at a time."""
_CHUNK = 65_536
"""Rows gathered at a time where all are wanted."""
_DOUBT = 65_536
"""How many of the oldest rows are verified on opening: more than are ever written between two flushes."""
_HEADER = np.dtype(
    [("magic", "S8"), ("schema", "S64"), ("capacity", "u8"), ("begun", "u8"), ("committed", "u8"), ("flushed", "u8"),
     ("suspect", "u8")]
)  # fmt: skip


class Rows(NamedTuple):
    """Sampled transitions as float32 arrays: views into one gathered block, (n, state_dim), (n, action_dim), (n,) ..."""

    state: Floats
    action: Floats
    reward: Floats
    next_state: Floats
    done: Floats
    elapsed: Floats


def row_dtype(state_dim: int, action_dim: int) -> np.dtype[np.void]:
    """One transition: market time (ns) and weight version, the floats, and last the checksum of all before it.

    Padded to whole cache lines, so that a row never lies on one line or page more than it must.
    """
    fields = [
        ("time", "i8", 8), ("version", "i8", 8), ("state", ("f4", (state_dim,)), 4 * state_dim), ("action", ("f4", (action_dim,)), 4 * action_dim),
        ("next_state", ("f4", (state_dim,)), 4 * state_dim), ("reward", "f4", 4), ("done", "f4", 4), ("elapsed", "f4", 4),
        ("quarantined", "f4", 4), ("check", "u4", 4),
    ]  # fmt: skip
    names, formats, sizes = zip(*fields, strict=True)
    size = -(-sum(sizes) // _LINE) * _LINE
    offsets = [sum(sizes[:at]) for at in range(len(sizes) - 1)] + [size - 4]
    return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": size})


def _in_memory(size: int) -> NDArray[np.uint8]:
    """Zeros on whole pages, huge ones where the system has them: rows drawn at random lie all over, and each page looked up costs.

    Raises MemoryError.
    """
    try:
        block = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError):
        raise MemoryError from None
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):
            block.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(block, np.uint8)


def _checksums(rows: NDArray[Any]) -> list[int]:
    size = rows.dtype.itemsize
    raw = rows.view(np.uint8).data
    return [zlib.crc32(raw[at : at + size - 4]) for at in range(0, len(raw), size)]


class ReplayBuffer:
    """A ring of `capacity` transitions of one agent, in memory (`path` None) or in a file.

    `spec` names what the columns mean; a file made for another spec, shape or capacity is refused.
    Raises SpecMismatch, DataError (not a ring, damaged header) and OSError (disk).
    """

    def __init__(self, state_dim: int, action_dim: int, capacity: int = 1_000_000, path: Path | None = None, spec: str = "") -> None:
        if capacity < 1:
            raise DataError(f"replay capacity must be at least 1, not {capacity}")
        self.state_dim, self.action_dim, self.capacity, self.path = state_dim, action_dim, capacity, path
        self._dtype = row_dtype(state_dim, action_dim)
        self.schema = hashlib.sha256(f"{spec}|{self._dtype.descr}".encode()).hexdigest()
        self.lost = 0
        """Rows that the last opening had to give up, because the machine lost power before they were flushed."""
        self._file: mmap.mmap | None = None
        self._flags: NDArray[np.bool_] = np.zeros(capacity, bool)
        """The quarantine flags of the slots, which lie a row apart in the file and are asked for with every sample."""
        self._flagged = 0
        self._groups = TimeGroups()
        if path is None:
            self._header: NDArray[Any] = np.zeros(1, _HEADER)
            self._rows: NDArray[Any] = _in_memory(capacity * self._dtype.itemsize).view(self._dtype)
            self._fresh_header()
        else:
            self._open(path)

    def __len__(self) -> int:
        return self.committed - self._first

    @property
    def committed(self) -> int:
        """Rows ever added."""
        return int(self._header["committed"][0])

    @property
    def usable(self) -> int:
        """Rows that may be sampled: those that are kept and not quarantined."""
        return len(self) - self._flagged

    @property
    def learnable(self) -> int:
        """Rows ever added, less the quarantined ones that are still kept: what updates are allowed for."""
        return self.committed - self._flagged

    @property
    def _first(self) -> int:
        return max(0, int(self._header["begun"][0]) - self.capacity)

    def add(
        self,
        state: ArrayLike,
        action: ArrayLike,
        reward: ArrayLike,
        next_state: ArrayLike,
        done: ArrayLike,
        elapsed: ArrayLike = 1.0,
        time: ArrayLike = 0,
        version: ArrayLike = 0,
        quarantined: ArrayLike = 0,
    ) -> int:
        """Append one transition, or n with a leading axis; returns how many. Nothing is written unless all are sound.

        What was lived under a fault is `quarantined`: it is kept and never sampled.
        Raises SpecMismatch on a wrong shape, NotFinite on a NaN or an infinity, DataError on a negative elapsed time, and
        OSError when the disk is full.
        """
        block = self._block(state, action, reward, next_state, done, elapsed, time, version, quarantined)
        for start in range(0, len(block), self.capacity):
            self._write(block[start : start + self.capacity])
        return len(block)

    def sample(self, size: int, rng: np.random.Generator) -> Rows:
        """`size` transitions drawn uniformly with replacement. Raises DataError when there are none."""
        return self._gather(self._draw(size, lambda count: rng.integers(self._first, self.committed, count)))

    def sample_by_time(self, size: int, rng: np.random.Generator) -> Rows:
        """`size` market times drawn uniformly with replacement, and a row of each; rows must have come in order of time."""
        groups = self._groups
        if groups.seen < self.committed:
            since = max(groups.seen, self._first)
            groups.extend(since, self._rows["time"][np.arange(since, self.committed) % self.capacity])
        return self._gather(self._draw(size, lambda count: groups.draw(count, self._first, rng)))

    def _draw(self, size: int, draw: Callable[[int], NDArray[np.int64]]) -> NDArray[np.int64]:
        """What `draw` gives, drawn again wherever it hit a quarantined row."""
        if self.usable < 1:
            raise DataError("an empty replay buffer cannot be sampled" if not len(self) else "every row is quarantined")
        index = draw(size)
        while self._flagged and (bad := np.flatnonzero(self._flags[index % self.capacity])).size:
            index[bad] = draw(bad.size)
        return index

    def quarantine(self, since: int) -> int:
        """Flag the newest rows down to market time `since` (ns), as what followed a fault that was found late; returns how many."""
        at = self.committed
        while at > self._first and int(self._rows["time"][(at - 1) % self.capacity]) >= since:
            at -= 1
            slot = at % self.capacity
            row = self._rows[slot : slot + 1]
            row["quarantined"] = 1
            row["check"] = _checksums(row)
            self._flagged += not self._flags[slot]
            self._flags[slot] = True
        if at < self.committed:
            self._header["suspect"] = self.committed
        return self.committed - at

    def latest(self, size: int) -> Rows:
        """The newest `size` transitions (or all there are), oldest first."""
        return self._gather(np.arange(max(self._first, self.committed - size), self.committed))

    def since(self, number: int) -> Iterator[Rows]:
        """What may be learned from of the rows from the `number`-th ever added on, oldest first, in chunks."""
        for start in range(max(self._first, number), self.committed, _CHUNK):
            index = np.arange(start, min(start + _CHUNK, self.committed))
            yield self._gather(index[~self._flags[index % self.capacity]])

    def fingerprint(self) -> str:
        """A hash over the rows that are kept, from their checksums."""
        checks = self._rows["check"][np.arange(self._first, self.committed) % self.capacity]
        return hashlib.sha256(checks.tobytes()).hexdigest()

    def flush(self) -> None:
        """Make everything added so far safe against a power cut. Takes as long as the disk does: keep it off the hot path."""
        if self._file is None or int(self._header["flushed"][0]) == self.committed:
            return
        committed = self.committed
        self._file.flush()
        self._header["flushed"] = committed
        self._file.flush(0, _PAGE)

    def _gather(self, index: NDArray[np.int64]) -> Rows:
        slots = index % self.capacity
        self._rows["time"][slots]  # Waits for all rows' pages at once, not for one after the other: a tenth sooner.
        rows = np.take(self._rows, slots)
        return Rows(rows["state"], rows["action"], rows["reward"], rows["next_state"], rows["done"], rows["elapsed"])

    def _block(self, *columns: ArrayLike) -> NDArray[Any]:
        names = ("state", "action", "reward", "next_state", "done", "elapsed", "time", "version", "quarantined")
        states = np.asarray(columns[0], np.float32)
        block = np.zeros(1 if states.ndim == 1 else len(states), self._dtype)
        for name, column in zip(names, columns, strict=True):
            field, values = block[name], np.asarray(column)
            single = len(block) == 1 and values.shape == field.shape[1:]
            constant = values.ndim == 0 and name in ("elapsed", "time", "version", "quarantined")
            if values.shape != field.shape and not single and not constant:
                raise SpecMismatch(f"replay column {name} has shape {values.shape}, expected {field.shape}")
            field[...] = values
            if field.dtype == np.float32 and not np.isfinite(field).all():
                raise NotFinite(f"replay column {name} holds a NaN or an infinity")
        if (block["elapsed"] < 0).any():
            raise DataError("replay column elapsed is negative")
        block["check"] = _checksums(block)
        return block

    def _write(self, block: NDArray[Any]) -> None:
        committed, count = self.committed, len(block)
        start = committed % self.capacity
        head = min(count, self.capacity - start)
        self._reserve(start + head)
        self._header["begun"] = max(int(self._header["begun"][0]), committed + count)
        self._rows[start : start + head] = block[:head]
        self._rows[: count - head] = block[head:]
        self._header["committed"] = committed + count
        slots = np.arange(committed, committed + count) % self.capacity
        flags = block["quarantined"] != 0
        self._flagged += int(np.count_nonzero(flags)) - int(np.count_nonzero(self._flags[slots]))
        self._flags[slots] = flags
        if flags.any():
            self._header["suspect"] = committed + count

    def _fresh_header(self) -> None:
        self._header["schema"], self._header["capacity"] = self.schema.encode(), self.capacity
        self._header["magic"] = _MAGIC

    def _open(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._reserved = 0
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._map(path, _PAGE + self.capacity * self._dtype.itemsize)
        except BaseException:
            os.close(self._descriptor)
            raise
        self._recover()

    def _map(self, path: Path, size: int) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"{path} is in use by another learner") from None
        found = os.fstat(self._descriptor).st_size
        if found == 0:
            os.ftruncate(self._descriptor, size)
            self._reserve(0)
        elif found < _PAGE:
            raise DataError(f"{path} is not a replay buffer; move it away to start a new one")
        self._file = mmap.mmap(self._descriptor, 0)
        self._header = np.frombuffer(self._file, _HEADER, 1)
        if self._header["magic"][0] == b"" and found in (0, size):
            self._fresh_header()
        self._check_header(path, size, found or size)
        self._rows = np.frombuffer(self._file, self._dtype, self.capacity, _PAGE)

    def _check_header(self, path: Path, expected: int, found: int) -> None:
        header = self._header[0]
        if header["magic"] != _MAGIC:
            raise DataError(f"{path} is not a replay buffer; move it away to start a new one")
        if header["schema"] != self.schema.encode():
            raise SpecMismatch(f"{path} was recorded for another observation spec or shape; move it away to start a new one")
        if header["capacity"] != self.capacity:
            raise SpecMismatch(
                f"{path} holds {header['capacity']} rows but replay_buffer_size is {self.capacity}; "
                "set it back, or move the file away to start a new one"
            )
        counts = [int(header[name]) for name in ("flushed", "committed", "begun")]
        if found != expected or counts != sorted(counts) or counts[2] - counts[1] > self.capacity:
            raise DataError(f"{path} is damaged (size {found}, counts {counts}); move it away to start a new one")

    def _recover(self) -> None:
        """Leave out what a power cut may have torn: newest rows that were not flushed, and oldest ones being overwritten."""
        before, first, committed = len(self), self._first, self.committed
        doubtful = max(first, int(self._header["flushed"][0]))
        self._header["committed"] = next((at for at in range(doubtful, committed) if not self._sound(at)), committed)
        if first:
            oldest = range(first, min(first + _DOUBT, self.committed))
            torn = [at for at in oldest if not self._sound(at)]
            self._header["begun"] = max(int(self._header["begun"][0]), max(torn, default=-1) + 1 + self.capacity)
        self.lost = before - len(self)
        if int(self._header["suspect"][0]) > self._first:
            live = np.arange(self._first, self.committed) % self.capacity
            self._flags[live] = self._rows["quarantined"][live] != 0
            self._flagged = int(np.count_nonzero(self._flags))

    def _sound(self, at: int) -> bool:
        row = self._rows[at % self.capacity :][:1]
        return _checksums(row)[0] == int(row["check"][0])

    def _reserve(self, rows: int) -> None:
        """Make sure that the disk has room for the first `rows` rows: a write into a hole of a full disk would be SIGBUS."""
        if self.path is None:
            return
        end = _PAGE + self.capacity * self._dtype.itemsize
        need = _PAGE + rows * self._dtype.itemsize
        while self._reserved < need:
            step = min(_RESERVE, end - self._reserved)
            os.posix_fallocate(self._descriptor, self._reserved, step)
            self._reserved += step

    def close(self) -> None:
        """Flush and let go of the file."""
        if self._file is not None:
            self.flush()
            del self._header, self._rows
            self._file.close()
            self._file = None
            os.close(self._descriptor)
