"""The one door: every fact is stamped here, once, and put in order. The only place where the wall clock is read.

The inbox is bounded. When the engine falls behind, an older book of a symbol gives way to the newer one (a book is state);
nothing else is ever dropped: whoever brings more must wait.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable

from agents.core.events import UNSTAMPED, BookSnapshot, Event, Stamp, Tick, stamped
from agents.core.instruments import Symbol


class MonotonicClock:
    """Nanoseconds UTC that never step: the wall clock read once, then the monotonic clock added."""

    def __init__(self) -> None:
        self._offset = time.time_ns() - time.monotonic_ns()

    def __call__(self) -> int:
        return self._offset + time.monotonic_ns()


def boot_s() -> float:
    """Seconds of a clock that never steps and goes on while the machine is suspended, where the kernel has one: for what may not outlive its time."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Door:
    """Inbox of one session. `clock` gives nanoseconds; `first` is the first sequence number to hand out."""

    def __init__(self, clock: Callable[[], int] | None = None, capacity: int = 65_536, first: int = 1) -> None:
        self.now = clock or MonotonicClock()
        self._capacity = capacity
        self._next = first
        self._cells: deque[list[int | Event | None]] = deque()
        self._books: dict[Symbol, list[int | Event | None]] = {}
        self._arrived, self._room = asyncio.Event(), asyncio.Event()
        self._room.set()
        self._closed = False
        self.coalesced = 0

    @property
    def depth(self) -> int:
        """Facts that wait for the engine."""
        return len(self._cells)

    @property
    def last(self) -> int:
        """The last sequence number that was handed out."""
        return self._next - 1

    async def put(self, event: Event) -> None:
        """Bring one fact; waits while the inbox is full."""
        while len(self._cells) >= self._capacity and not self._closed:
            self._room.clear()
            await self._room.wait()
        self.push(event)

    def push(self, event: Event) -> None:
        """Bring one fact without waiting: for the few sources that are themselves bounded (operator, weights, metronome)."""
        cell: list[int | Event | None] = [self.now(), event]
        if isinstance(event, BookSnapshot):
            if (old := self._books.get(event.symbol)) is not None:
                old[1] = None
                self.coalesced += 1
            self._books[event.symbol] = cell
        self._cells.append(cell)
        if not self._arrived.is_set():
            self._arrived.set()

    def close(self) -> None:
        """Let what is inside out, and nothing more after it."""
        self._closed = True
        self._arrived.set()
        self._room.set()

    async def events(self) -> AsyncIterator[Event]:
        """Facts in order, stamped."""
        while True:
            while self._cells:
                at, event = self._cells.popleft()
                if not self._room.is_set() and len(self._cells) < self._capacity:
                    self._room.set()
                if event is None:
                    continue
                assert isinstance(at, int) and not isinstance(event, int)
                if isinstance(event, BookSnapshot):
                    self._books.pop(event.symbol, None)
                stamp = Stamp(at, self._next)
                self._next += 1
                yield stamped(event, stamp)
            if self._closed:
                return
            self._arrived.clear()
            await self._arrived.wait()

    async def metronome(self, interval_s: float, each: Callable[[], Awaitable[None]] | None = None) -> None:
        """A Tick every `interval_s` real seconds, for ever; `each` runs after it."""
        while not self._closed:
            self.push(Tick(UNSTAMPED))
            if each is not None:
                await each()
            await asyncio.sleep(interval_s)
