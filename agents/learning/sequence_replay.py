"""A replay buffer for observations that are windows of a sequence: it finds out which frames are new, and keeps each once.

States come and go as flat rows, as with `ReplayBuffer`; behind it stands a `FrameReplay`. Equal windows are recognised by their
content, so that what is sampled is bit for bit what was added, however the windows follow each other.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from agents.core.errors import NotFinite, SpecMismatch
from agents.learning.frames import FrameReplay, Window
from agents.learning.replay import Floats, Rows


class SequenceReplay:
    """Room for `capacity` transitions between windows of `shape`, (time_steps, ...), whose frames mostly overlap.

    Windows that share nothing with the one before (a new episode) cost all their frames, so that many short episodes leave
    room for fewer transitions.
    """

    def __init__(self, shape: tuple[int, ...], action_dim: int, capacity: int) -> None:
        self.shape, self.capacity, self.action_dim = tuple(shape), capacity, action_dim
        self.steps, self.state_dim = shape[0], math.prod(shape)
        self.frames = FrameReplay(self.shape[1:], action_dim, self.steps, capacity + 2 * self.steps + 1)

    def __len__(self) -> int:
        return len(self.frames)

    def add(
        self, state: ArrayLike, action: ArrayLike, reward: float, next_state: ArrayLike, done: bool, elapsed: float = 1.0
    ) -> int:  # fmt: skip
        """Keep one transition. Raises SpecMismatch (wrong shape), NotFinite, DataError; then nothing was kept."""
        windows = [self._sequence(name, given) for name, given in (("state", state), ("next_state", next_state))]
        at, following = (self._place(window) for window in windows)
        self.frames.add(at, action, float(reward), following, bool(done), float(elapsed))
        return 1

    def _sequence(self, name: str, given: ArrayLike) -> Floats:
        values = np.asarray(given, np.float32)
        if values.size != self.state_dim:
            raise SpecMismatch(f"replay column {name} has {values.size} numbers, expected {self.shape}")
        if not np.isfinite(values).all():
            raise NotFinite(f"replay column {name} holds a NaN or an infinity")
        return values.reshape(self.shape)

    def _place(self, sequence: Floats) -> Window:
        """Where the window ends: where it did already, or behind those of its frames that are new."""
        newest = self.frames.pushed - 1
        for end in range(newest, max(newest - self.steps, -1), -1):
            known = Window(end)
            if np.array_equal(self.frames.frame(known), sequence[-1]) and np.array_equal(self.frames.window(known), sequence):
                return known
        fresh = self._fresh(sequence)
        for at in range(self.steps - fresh, self.steps):
            last = self.frames.push(sequence[at])
        return last

    def _fresh(self, sequence: Floats) -> int:
        """How many of its last frames are not those of the newest window; all where the two do not overlap."""
        if not self.frames.pushed:
            return self.steps
        newest = self.frames.window(Window(self.frames.pushed - 1))
        for fresh in range(1, self.steps):
            kept = self.steps - fresh
            if np.array_equal(sequence[kept - 1], newest[-1]) and np.array_equal(sequence[:kept], newest[fresh:]):
                return fresh
        return self.steps

    def sample(self, size: int, rng: np.random.Generator) -> Rows:
        """`size` transitions drawn uniformly with replacement, states flat, (size, state_dim). Raises DataError without any."""
        rows = self.frames.sample(size, rng)
        return rows._replace(state=rows.state.reshape(size, -1), next_state=rows.next_state.reshape(size, -1))
