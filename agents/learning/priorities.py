"""Prioritised replay: rows that surprised most are drawn most often. Schaul et al. 2016, the proportional form.

A ring with a sum-tree beside it. The tree lies in memory: after a restart every row counts as new.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agents.core.errors import DataError
from agents.learning.replay import Floats, ReplayBuffer, Rows

_LEAST = 1e-6
"""Added to an error, so that no row is lost for good."""


class SumTree:
    """Weights (capacity,) >= 0 that are drawn from, and changed, in log time; both for many at once."""

    def __init__(self, capacity: int) -> None:
        self.leaves = 1 << max(capacity - 1, 0).bit_length()
        self._nodes = np.zeros(2 * self.leaves)

    @property
    def total(self) -> float:
        return float(self._nodes[1])

    def __getitem__(self, index: NDArray[np.int64]) -> NDArray[np.float64]:
        return self._nodes[self.leaves + index]

    def set(self, index: NDArray[np.int64], weights: ArrayLike) -> None:
        """Where an index comes twice, the last counts."""
        nodes = self.leaves + index
        self._nodes[nodes] = weights
        while nodes.size and nodes[0] > 1:
            nodes = np.unique(nodes >> 1)
            self._nodes[nodes] = self._nodes[2 * nodes] + self._nodes[2 * nodes + 1]

    def draw(self, points: NDArray[np.float64]) -> NDArray[np.int64]:
        """For each point in [0, total) the leaf in whose stretch it lies."""
        nodes, rest = np.ones(len(points), np.int64), points.copy()
        for _ in range(self.leaves.bit_length() - 1):
            left = self._nodes[2 * nodes]
            right = (rest >= left) & (self._nodes[2 * nodes + 1] > 0)
            rest -= np.where(right, left, 0.0)
            nodes = 2 * nodes + right
        return nodes - self.leaves


class PrioritizedReplay(ReplayBuffer):
    """A replay ring whose rows are drawn in proportion to priority ** exponent. New rows get the largest priority so far."""

    def __init__(self, *arguments: Any, exponent: float = 0.6, correction: float = 0.4, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.exponent, self.correction, self._largest = exponent, correction, 1.0
        self._tree = SumTree(self.capacity)
        self._renew(np.arange(self.committed - len(self), self.committed))

    def add(self, *columns: ArrayLike, **named: ArrayLike) -> int:
        count = super().add(*columns, **named)
        self._renew(np.arange(max(self.committed - count, self.committed - self.capacity), self.committed))
        return count

    def _renew(self, rows: NDArray[np.int64]) -> None:
        if len(rows):
            slots = rows % self.capacity
            self._tree.set(slots, np.where(self._flags[slots], 0.0, self._largest**self.exponent))

    def quarantine(self, since: int) -> int:
        count = super().quarantine(since)
        self._renew(np.arange(self.committed - count, self.committed))
        return count

    def sample_weighted(self, size: int, rng: np.random.Generator) -> tuple[Rows, Floats, NDArray[np.int64]]:
        """`size` rows, one from each of as many equal stretches; the importance weight of each (the largest is 1); their slots.

        Raises DataError when there are none.
        """
        if self.usable < 1:
            raise DataError("an empty replay buffer cannot be sampled" if not len(self) else "every row is quarantined")
        points = (np.arange(size) + rng.random(size)) * (self._tree.total / size)
        slots = self._tree.draw(points)
        chance = self._tree[slots] / self._tree.total
        weights = (len(self) * chance) ** -self.correction
        return self._gather(slots), (weights / weights.max()).astype(np.float32), slots

    def learned(self, slots: NDArray[np.int64], errors: Floats) -> None:
        """Take the absolute TD errors (n,) of the rows at `slots` as their priorities."""
        priorities = np.abs(errors.astype(np.float64)) + _LEAST
        self._largest = max(self._largest, float(priorities.max(initial=0.0)))
        self._tree.set(slots, priorities**self.exponent)
