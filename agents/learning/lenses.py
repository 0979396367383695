"""Through what an agent sees its world: running moments that scale observations and rewards before anything learns from them.

A lens is fed with what is lived and applied to what is sampled, so that old rows are always seen with the newest moments.
"""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.learning.replay import Floats, Rows

_SMALLEST = 1e-4
"""A deviation below this is taken for a constant: dividing by it would make noise of rounding."""


class Lens(Protocol):
    """What an agent needs of a lens. `tensors` and `load` carry its memory through a checkpoint."""

    def observe(self, state: Floats, reward: float, ended: bool) -> None: ...
    def states(self, states: Floats) -> Floats: ...
    def rows(self, rows: Rows) -> Rows: ...
    def fold(self, weight: Floats, bias: Floats) -> tuple[Floats, Floats]: ...
    def tensors(self) -> dict[str, Tensor]: ...
    def load(self, tensors: dict[str, Tensor]) -> None: ...


class Moments:
    """Running mean and variance of vectors (Welford; Chan et al. 1979), in float64."""

    def __init__(self, size: int) -> None:
        self.count = 0.0
        self.mean: NDArray[np.float64] = np.zeros(size)
        self._squares: NDArray[np.float64] = np.zeros(size)

    def add(self, value: NDArray[np.floating]) -> None:
        self.count += 1
        before = value - self.mean
        self.mean += before / self.count
        self._squares += before * (value - self.mean)

    @property
    def deviation(self) -> NDArray[np.float64]:
        """Standard deviation; one where it is not known yet or nearly zero."""
        found = np.sqrt(self._squares / max(self.count, 1.0))
        return np.where((found < _SMALLEST) | (self.count < 2), 1.0, found)

    def tensors(self) -> dict[str, Tensor]:
        parts = {"count": np.array([self.count]), "mean": self.mean, "squares": self._squares}
        return {name: torch.from_numpy(part.copy()) for name, part in parts.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.count = float(tensors["count"][0])
        self.mean, self._squares = (np.array(tensors[name].numpy(), np.float64) for name in ("mean", "squares"))


class ObservationNorm:
    """States in units of their running deviation around their running mean. Lee et al. 2024 (SimBa): no clipping.

    Being affine, it folds into a network's first layer, so that serving need not know of it.
    """

    def __init__(self, state_dim: int) -> None:
        self.moments = Moments(state_dim)
        self._refresh()

    def _refresh(self) -> None:
        self.mean, self.deviation = (part.astype(np.float32) for part in (self.moments.mean, self.moments.deviation))

    def observe(self, state: Floats, reward: float, ended: bool) -> None:
        self.moments.add(state)
        self._refresh()

    def states(self, states: Floats) -> Floats:
        return (states - self.mean) / self.deviation

    def rows(self, rows: Rows) -> Rows:
        return rows._replace(state=self.states(rows.state), next_state=self.states(rows.next_state))

    def fold(self, weight: Floats, bias: Floats) -> tuple[Floats, Floats]:
        """The first layer (outputs, inputs) that does to a raw state what the given one does to a normalised state."""
        scaled = (weight / self.deviation).astype(np.float32)
        return scaled, (bias - scaled @ self.mean).astype(np.float32)

    def tensors(self) -> dict[str, Tensor]:
        return self.moments.tensors()

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.moments.load(tensors)
        self._refresh()


class ReturnScale:
    """Rewards in units of the running deviation of the discounted return (Engstrom et al. 2020); never shifted."""

    def __init__(self, gamma: float) -> None:
        self.gamma, self._return, self.moments = gamma, 0.0, Moments(1)

    def observe(self, state: Floats, reward: float, ended: bool) -> None:
        self._return = self._return * self.gamma + reward
        self.moments.add(np.array([self._return]))
        if ended:
            self._return = 0.0

    def states(self, states: Floats) -> Floats:
        return states

    def rows(self, rows: Rows) -> Rows:
        return rows._replace(reward=rows.reward / np.float32(self.moments.deviation[0]))

    def fold(self, weight: Floats, bias: Floats) -> tuple[Floats, Floats]:
        return weight, bias

    def tensors(self) -> dict[str, Tensor]:
        return self.moments.tensors() | {"return": torch.tensor([self._return], dtype=torch.float64)}

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.moments.load(tensors)
        self._return = float(tensors["return"][0])


def lenses(state_dim: int, gamma: float, normalize_observations: bool, scale_returns: bool) -> dict[str, Lens]:
    """Those that were asked for, by the name they have in a checkpoint."""
    found: dict[str, Lens] = {}
    if normalize_observations:
        found["observation_norm"] = ObservationNorm(state_dim)
    if scale_returns:
        found["return_scale"] = ReturnScale(gamma)
    return found
