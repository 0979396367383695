"""A session read back. Any command that differs from the record ends the replay by naming the first difference."""

from collections.abc import AsyncIterator, Iterable

from agents.core.errors import ReplayDiffers
from agents.core.events import Event
from agents.core.orders import Command


class RecordedVenue:
    """Yields what happened and compares what is asked with what was asked."""

    def __init__(self, events: Iterable[Event], commands: Iterable[Command]) -> None:
        self._events, self._commands = events, iter(commands)
        self._seen = 0
        self._last = "before the first event"

    async def events(self) -> AsyncIterator[Event]:
        """The recorded events with their recorded stamps; raises ReplayDiffers at the end if a command is missing."""
        for event in self._events:
            self._last = f"at event {event.stamp.seq}"
            yield event
        if (missing := next(self._commands, None)) is not None:
            raise ReplayDiffers(f"command {self._seen + 1} is missing at the end: the record has {missing}")

    async def send(self, command: Command) -> None:
        """Compare one command with the next recorded one; raises ReplayDiffers."""
        self._seen += 1
        recorded = next(self._commands, None)
        if recorded is None:
            raise ReplayDiffers(f"command {self._seen} {self._last} is extra: the engine asks {command}")
        if recorded != command:
            raise ReplayDiffers(f"command {self._seen} {self._last} differs: the record has {recorded}, the engine asks {command}")
