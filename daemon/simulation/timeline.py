"""Virtual time, and what the world will do when. It outlives every event loop that runs on it, as the world outlives a process."""

import heapq
from collections.abc import Callable

NS = 1_000_000_000

Action = Callable[[], None]


class Timeline:
    """Nanoseconds since the beginning of the simulation, and an agenda. Actions at one instant keep their order of entry."""

    def __init__(self) -> None:
        self.now = 0
        self._agenda: list[tuple[int, int, Action]] = []
        self._entered = 0

    @property
    def seconds(self) -> float:
        """The same in seconds."""
        return self.now / NS

    def at(self, when: int, action: Action) -> None:
        """Enter an action for a time in nanoseconds; one in the past is due now."""
        self._entered += 1
        heapq.heappush(self._agenda, (when, self._entered, action))

    def after(self, seconds: float, action: Action) -> None:
        """Enter an action for so many seconds from now."""
        self.at(self.now + round(seconds * NS), action)

    @property
    def due(self) -> int | None:
        """When the next action is due."""
        return self._agenda[0][0] if self._agenda else None

    def take(self) -> Action | None:
        """The next action, if its time has come."""
        if self._agenda and self._agenda[0][0] <= self.now:
            return heapq.heappop(self._agenda)[2]
        return None
