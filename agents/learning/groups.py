"""Rows of one market time are about one sample: draw times, and then a row of each.

N symbols whose returns correlate by rho are worth N / (1 + (N-1) rho) samples; drawing rows would weigh crowded times more.
"""

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


class TimeGroups:
    """Where each run of equal market times begins, by the rows' sequence numbers; rows come in order of time."""

    def __init__(self) -> None:
        self._starts: Indices = np.zeros(1024, np.int64)
        self._low = self._high = 0
        self._last: int | None = None
        self.seen = 0
        """The sequence number after the newest row that was taken in."""

    def __len__(self) -> int:
        return self._high - self._low

    def extend(self, first: int, times: NDArray[np.int64]) -> None:
        """Take in rows numbered from `first` on, of market times (n,)."""
        if not len(times):
            return
        fresh = np.empty(len(times), bool)
        fresh[0] = first != self.seen or self._last != times[0]
        np.not_equal(times[1:], times[:-1], out=fresh[1:])
        starts = first + np.flatnonzero(fresh)
        if self._high + len(starts) > len(self._starts):
            self._make_room(len(starts))
        self._starts[self._high : self._high + len(starts)] = starts
        self._high += len(starts)
        self._last, self.seen = int(times[-1]), first + len(times)

    def _make_room(self, count: int) -> None:
        kept = self._starts[self._low : self._high]
        grown = np.zeros(2 * (len(kept) + count), np.int64)
        grown[: len(kept)] = kept
        self._starts, self._low, self._high = grown, 0, len(kept)

    def draw(self, size: int, first: int, rng: np.random.Generator) -> Indices:
        """Sequence numbers (size,) of rows from `first` on: times uniformly with replacement, one row of each uniformly.

        There must be such rows. A time whose oldest rows are before `first` counts with those that are left.
        """
        starts = self._starts[: self._high]
        self._low += max(int(np.searchsorted(starts[self._low :], first, "right")) - 1, 0)
        which = rng.integers(self._low, self._high, size)
        begin = np.maximum(starts[which], first)
        following = which + 1
        end = np.where(following < self._high, starts[np.minimum(following, self._high - 1)], self.seen)
        rows: Indices = begin + (rng.random(size) * (end - begin)).astype(np.int64)
        return rows
