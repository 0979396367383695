"""Columns in like units: what a network sees of each is its distance from the running mean in running deviations.

Raw market columns span eight orders of magnitude (a fee of 1e-3, an intensity decay of 3e3); a network that sees them raw is
ruled by the largest, and its critic diverges. Being affine, the scaling folds into the first layer of what is published, so
that serving need not know of it.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.learning.replay import Floats, Rows

_WIDEST = 10.0
"""Nothing seen so far lies further than so many units out, however rare it was. A normal column never reaches it."""
_ROUNDING = 1e-4
"""A deviation below this share of the mean is taken for a constant: magnified, it would cost too many digits of float32."""


class ColumnScale:
    """Running moments and range of the columns of states (rows, size), in float64. Chan, Golub, LeVeque 1979."""

    def __init__(self, size: int) -> None:
        self.count = 0
        self._mean: NDArray[np.float64] = np.zeros(size)
        self._squares: NDArray[np.float64] = np.zeros(size)
        self._low: NDArray[np.float64] = np.full(size, np.inf)
        self._high: NDArray[np.float64] = np.full(size, -np.inf)
        self._refresh()

    def extend(self, states: Floats) -> None:
        """Take finite states (rows, size) into account."""
        if not len(states):
            return
        values = np.asarray(states, np.float64)
        count, mean = len(values), values.mean(0)
        total, shift = self.count + count, mean - self._mean
        self._squares += np.square(values - mean).sum(0) + np.square(shift) * (self.count * count / total)
        self._mean += shift * (count / total)
        self._low, self._high = np.minimum(self._low, values.min(0)), np.maximum(self._high, values.max(0))
        self.count = total
        self._refresh()

    def _refresh(self) -> None:
        """Mean and unit, float32 (size,). A column that never moved keeps unit 1."""
        deviation = np.sqrt(self._squares / max(self.count, 1))
        reach = np.maximum(self._high - self._mean, self._mean - self._low) / _WIDEST
        unit = np.maximum(deviation, reach) if self.count else deviation
        constant = unit <= _ROUNDING * np.abs(self._mean)
        self.mean, self.unit = self._mean.astype(np.float32), np.where(constant, 1.0, unit).astype(np.float32)

    def states(self, states: Floats) -> Floats:
        """States (rows, size) as the networks see them."""
        return (states - self.mean) / self.unit

    def rows(self, rows: Rows) -> Rows:
        return rows._replace(state=self.states(rows.state), next_state=self.states(rows.next_state))

    def fold(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same network for raw states: `weights` with the first layer, `0.weight` (outputs, size) and `0.bias`, changed."""
        unit, mean = (torch.from_numpy(part.astype(np.float64)) for part in (self.unit, self.mean))
        scaled = weights["0.weight"].double() / unit
        shifted = weights["0.bias"].double() - scaled @ mean
        return weights | {"0.weight": scaled.float(), "0.bias": shifted.float()}

    def tensors(self) -> dict[str, Tensor]:
        """What it remembers, for a checkpoint."""
        parts = {"mean": self._mean, "squares": self._squares, "low": self._low, "high": self._high}
        return {"count": torch.tensor([self.count])} | {name: torch.from_numpy(part.copy()) for name, part in parts.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        self.count = int(tensors["count"])
        self._mean, self._squares, self._low, self._high = (
            np.array(tensors[name].numpy(), np.float64) for name in ("mean", "squares", "low", "high")
        )
        self._refresh()


class NoScale(ColumnScale):
    """States as they are, for worlds whose columns are alike already."""

    def extend(self, states: Floats) -> None:
        self.count += len(states)

    def states(self, states: Floats) -> Floats:
        return states

    def fold(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        return weights
