"""Sequences without copies: each frame is stored once, and a transition is where its window ends.

A sequence observation of T steps shares T - 1 of them with the next. Stored as rows, 30 steps of 100 assets x 15 features
cost 60 times the memory that the frames themselves do.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agents.core.errors import DataError, NotFinite, SpecMismatch
from agents.learning.replay import Floats, Rows

_TRANSITION = np.dtype(
    [("end", "i8"), ("following", "i8"), ("time", "i8"), ("reward", "f4"), ("done", "f4"), ("elapsed", "f4"), ("quarantined", "f4")]
)


class Window(NamedTuple):
    """Which frame a window ends with, by the number that `push` gave it."""

    end: int


class FrameReplay:
    """A ring of `frames` frames of one `shape` in memory, and a ring of as many transitions between windows of `steps` frames.

    A window never spans two episodes: before `steps` frames of an episode are there, its first frame stands for those that
    are missing. A transition is sampled only while all frames of both its windows are kept.
    """

    def __init__(self, shape: tuple[int, ...], action_dim: int, steps: int, frames: int = 100_000) -> None:
        if steps < 1 or frames <= 2 * steps:
            raise DataError(f"a frame ring needs steps of at least 1 and more than twice as many frames, not {steps} and {frames}")
        self.shape, self.action_dim, self.steps, self.capacity = tuple(shape), action_dim, steps, frames
        self._frames: Floats = np.zeros((frames, *self.shape), np.float32)
        self._begins: NDArray[np.int64] = np.zeros(frames, np.int64)
        """The number of the first frame of each frame's episode."""
        self._transitions: NDArray[Any] = np.zeros(frames, _TRANSITION)
        self._actions: Floats = np.zeros((frames, action_dim), np.float32)
        self.pushed = self.committed = 0
        self._usable: NDArray[np.int64] = np.zeros(0, np.int64)
        self._usable_at = (-1, -1)

    def push(self, frame: ArrayLike, first: bool = False) -> Window:
        """Store one frame; `first` begins an episode. Raises SpecMismatch on a wrong shape, NotFinite."""
        values = np.asarray(frame, np.float32)
        if values.shape != self.shape:
            raise SpecMismatch(f"a frame has shape {values.shape}, expected {self.shape}")
        if not np.isfinite(values).all():
            raise NotFinite("a frame holds a NaN or an infinity")
        slot = self.pushed % self.capacity
        begins = self.pushed if first or not self.pushed else int(self._begins[(self.pushed - 1) % self.capacity])
        self._frames[slot], self._begins[slot] = values, begins
        self.pushed += 1
        return Window(self.pushed - 1)

    def frame(self, window: Window) -> Floats:
        """The last frame of a window that is kept, as a view."""
        newest: Floats = self._frames[window.end % self.capacity]
        return newest

    def window(self, window: Window) -> Floats:
        """The observation that ends there, (steps, *shape). Raises DataError when its frames are gone."""
        if not self._oldest(window.end) >= self.pushed - self.capacity or window.end >= self.pushed:
            raise DataError(f"the window that ends with frame {window.end} is not kept any more")
        found: Floats = self._windows(np.array([window.end]))[0]
        return found

    def _oldest(self, end: int) -> int:
        return max(end - self.steps + 1, min(int(self._begins[end % self.capacity]), end))

    def add(
        self, at: Window, action: ArrayLike, reward: float, following: Window, done: bool, elapsed: float = 1.0, time: int = 0,
        quarantined: bool = False,
    ) -> None:  # fmt: skip
        """A transition from one window to another. Raises SpecMismatch (shape), NotFinite, DataError (unknown window, elapsed)."""
        act = np.asarray(action, np.float32)
        if act.shape != (self.action_dim,):
            raise SpecMismatch(f"an action has shape {act.shape}, expected {(self.action_dim,)}")
        if not (np.isfinite(act).all() and np.isfinite([reward, elapsed]).all()):
            raise NotFinite("an action, a reward or an elapsed time is a NaN or an infinity")
        if elapsed < 0 or not 0 <= at.end < self.pushed or not 0 <= following.end < self.pushed:
            raise DataError(f"no transition leads from frame {at.end} to {following.end} in {elapsed}")
        slot = self.committed % self.capacity
        self._transitions[slot] = (at.end, following.end, time, reward, done, elapsed, quarantined)
        self._actions[slot] = act
        self.committed += 1

    def __len__(self) -> int:
        """Transitions that may be sampled."""
        return len(self._kept())

    def _kept(self) -> NDArray[np.int64]:
        """Their slots. Found anew only after something was added."""
        if self._usable_at != (self.pushed, self.committed):
            rows = self._transitions[: min(self.committed, self.capacity)]
            ends = np.minimum(rows["end"], rows["following"])
            whole = ends - self.steps + 1 >= self.pushed - self.capacity
            self._usable = np.flatnonzero(whole & (rows["quarantined"] == 0))
            self._usable_at = (self.pushed, self.committed)
        return self._usable

    def sample(self, size: int, rng: np.random.Generator) -> Rows:
        """`size` transitions drawn uniformly with replacement; states are (size, steps, *shape). Raises DataError without any."""
        kept = self._kept()
        if not len(kept):
            raise DataError("an empty replay buffer cannot be sampled")
        slots = kept[rng.integers(0, len(kept), size)]
        rows = self._transitions[slots]
        return Rows(
            self._windows(rows["end"]), self._actions[slots], rows["reward"], self._windows(rows["following"]), rows["done"],
            rows["elapsed"],
        )  # fmt: skip

    def _windows(self, ends: NDArray[np.int64]) -> Floats:
        steps = ends[:, None] + np.arange(1 - self.steps, 1)
        steps = np.maximum(steps, self._begins[ends % self.capacity][:, None])
        found: Floats = self._frames[steps % self.capacity]
        return found
