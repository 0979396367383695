"""A venue is two verbs: tell us what happened, take what we ask."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Protocol

from agents.core.errors import TradingError
from agents.core.events import Event
from agents.core.orders import Command


class Venue(Protocol):
    """Anything that can be traded on. Events leave unstamped; the outcome of a command comes back as an event."""

    def events(self) -> AsyncIterator[Event]:
        """Facts in order of arrival, until the venue ends. Close the iterator (`contextlib.aclosing`) to stop it."""
        ...

    async def send(self, command: Command) -> None:
        """Take one command; returns as soon as it is accepted for sending."""
        ...


class Outbox:
    """A bounded buffer of events between the tasks of a venue and the one who iterates over it."""

    def __init__(self, limit: int = 65_536) -> None:
        self._events: deque[Event] = deque()
        self._limit = limit
        self._stirred, self._room = asyncio.Event(), asyncio.Event()
        self._room.set()
        self.closed = False

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: Event) -> None:
        """Add one fact without waiting; whoever brings many awaits `room` in between."""
        self._events.append(event)
        if not self._stirred.is_set():
            self._stirred.set()

    def extend(self, events: Iterable[Event]) -> None:
        """Add several facts, as `put`."""
        before = len(self._events)
        self._events.extend(events)
        if len(self._events) > before and not self._stirred.is_set():
            self._stirred.set()

    def take(self) -> Event | None:
        """The oldest fact, or None."""
        if not self._events:
            return None
        if not self._room.is_set() and len(self._events) < self._limit:
            self._room.set()
        return self._events.popleft()

    def wake(self) -> None:
        """Let the reader look at the time, though nothing has come in."""
        self._stirred.set()

    def close(self) -> None:
        """What is inside may still be read; nothing more will come."""
        self.closed = True
        self._stirred.set()
        self._room.set()

    async def stirred(self) -> None:
        """Wait for the next fact, `wake` or `close`."""
        await self._stirred.wait()
        self._stirred.clear()

    async def room(self) -> None:
        """Wait until the buffer is below its limit."""
        while len(self._events) >= self._limit and not self.closed:
            self._room.clear()
            await self._room.wait()


def cause(error: BaseException) -> BaseException:
    """The error that a person should read: the first of our own inside nested groups, else the first of all."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    found = [cause(inner) for inner in error.exceptions]
    return next((inner for inner in found if isinstance(inner, TradingError)), found[0])


async def pumped(run: Callable[[], Awaitable[None]], outbox: Outbox) -> AsyncIterator[Event]:
    """Yield what `run` puts into `outbox`; ends when `run` does, and raises what it raised.

    The runner never raises into its task group, so that no cancellation can hit the consumer between two facts; closing
    this iterator cancels the runner and waits for it.
    """
    failures: list[BaseException] = []

    async def guarded() -> None:
        try:
            await run()
        except Exception as error:  # noqa: BLE001 - carried to the consumer below, where it is raised
            failures.append(error)
        finally:
            outbox.close()

    async with asyncio.TaskGroup() as tasks:
        runner = tasks.create_task(guarded())
        try:
            while True:
                while (event := outbox.take()) is not None:
                    yield event
                if outbox.closed:
                    break
                await outbox.stirred()
        except GeneratorExit:
            pass
        finally:
            runner.cancel()
    if failures:
        raise cause(failures[0])
