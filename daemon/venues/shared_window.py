"""What the processes of this machine have asked of one exchange lately: a small file under a lock, or plain memory.

The file holds a sliding window of costs, the end of a ban and marks of urgency. Times are seconds of the monotonic clock, which all
processes of a machine share until it boots again. A lock dies with its process; where somebody holds it and stands still, the others
go on without it after some milliseconds: a lost update costs a request, a blocked loop costs money.
"""

import fcntl
import os
import stat
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

SLOTS = 60
_LAYOUT = struct.Struct(f"<8s16sdddQdq{SLOTS}d")
_MAGIC = b"quartet1"
_TRIES, _PAUSE_S = 100, 0.0005


@dataclass(slots=True)
class Window:
    """Costs in `SLOTS` slots of `slot_s` seconds, newest at `index`; until when nobody, or only the urgent, may call."""

    slot_s: float
    banned_until: float = 0.0
    urgent_until: float = 0.0
    orders_until: float = 0.0
    """Until when no new order is sent."""
    bans: int = 0
    index: int = 0
    slots: list[float] = field(default_factory=lambda: [0.0] * SLOTS)

    def advance(self, now: float) -> None:
        """Let go of what is older than the window."""
        index = int(now / self.slot_s)
        for empty in range(max(self.index + 1, index - SLOTS + 1), index + 1):
            self.slots[empty % SLOTS] = 0.0
        self.index = max(self.index, index)

    @property
    def used(self) -> float:
        return sum(self.slots)

    def add(self, cost: float) -> None:
        self.slots[self.index % SLOTS] += cost

    def until_free(self, excess: float, now: float) -> float:
        """Seconds until at least `excess` has left the window."""
        for age in range(SLOTS - 1, -1, -1):
            index = self.index - age
            excess -= self.slots[index % SLOTS]
            if excess <= 1e-9:
                return max((index + SLOTS) * self.slot_s - now, self.slot_s / 4)
        return SLOTS * self.slot_s


class PrivateWindow:
    """The window of a server that nobody else calls."""

    def __init__(self, slot_s: float) -> None:
        self._window = Window(slot_s)
        self.contended = 0

    @contextmanager
    def held(self) -> Iterator[Window]:
        """The window, to look at and to change."""
        yield self._window

    def close(self) -> None:
        """Nothing is held."""


class SharedWindow:
    """The same in a file that every process of this user opens by the exchange's name."""

    def __init__(self, path: Path, slot_s: float) -> None:
        self._file, self._tries = -1, _TRIES
        self._slot_s, self._boot, self._kept = slot_s, _boot_id(), Window(slot_s)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self.contended = 0
        """How often the lock could not be had."""

    @contextmanager
    def held(self) -> Iterator[Window]:
        """The window as it is now, locked; what was changed is written back."""
        locked = self._lock()
        try:
            window = self._read()
            yield window
            head = (_MAGIC, self._boot, window.slot_s, window.banned_until, window.urgent_until, window.bans, window.orders_until)
            self._kept = window
            with suppress(OSError):  # a full disk: this process goes on by its own memory
                os.pwrite(self._file, _LAYOUT.pack(*head, window.index, *window.slots), 0)
        finally:
            if locked:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the file; it stays for the others."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        self.close()

    def _lock(self) -> bool:
        for _ in range(self._tries):
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._tries = _TRIES
                return True
            except OSError:
                time.sleep(_PAUSE_S)
        self.contended += 1
        self._tries = 1  # whoever holds it stands still: it is waited for once, not at each call
        return False

    def _read(self) -> Window:
        raw = os.pread(self._file, _LAYOUT.size, 0)
        if len(raw) != _LAYOUT.size:
            return self._kept
        magic, boot, slot_s, banned, urgent, bans, orders, index, *slots = _LAYOUT.unpack(raw)
        if magic != _MAGIC or boot != self._boot:
            return Window(self._slot_s)
        if slot_s != self._slot_s:
            return Window(self._slot_s, banned, urgent, orders, bans)
        return Window(slot_s, banned, urgent, orders, bans, index, slots)


def folder() -> Path | None:
    """This user's own folder for such files, made if need be; None where it cannot be trusted."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    place = Path(runtime) / "quartet" if runtime else Path(tempfile.gettempdir()) / f"quartet-{os.getuid()}"
    try:
        place.mkdir(mode=0o700, exist_ok=True)
        found = place.lstat()
    except OSError:
        return None
    private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
    return place if private else None


def _boot_id() -> bytes:
    try:
        return bytes.fromhex(Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", ""))
    except (OSError, ValueError):
        return bytes(16)
