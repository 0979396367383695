"""Exponentially weighted means and variances of many series at once: streaming, and the same numbers over a whole history.

Weights are normalised, so that the first value is its own mean and a short history is no biased one (pandas calls this
`adjust=True`). Variances follow West (1979): sums of non-negative terms only, so they neither cancel nor turn negative.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


class Moments:
    """State of K weightings of N series. `alpha` [K] is the weight of the newest of equally spaced values.

    Each array is [K, N]: `mean`, `var` (biased, around the weighted mean) and `weight`, the sum of weights so far, in [0, 1].
    """

    __slots__ = ("_alpha", "alpha", "mean", "var", "weight")

    def __init__(self, alpha: Floats, width: int) -> None:
        self.alpha = np.asarray(alpha, dtype=np.float64)
        self._alpha = self.alpha[:, None]
        shape = (len(self.alpha), width)
        self.mean, self.var, self.weight = np.zeros(shape), np.zeros(shape), np.zeros(shape)

    def push(self, values: Floats, steps: Floats | None = None, seen: Flags | None = None) -> None:
        """Take one row [K, N] (or what broadcasts to it).

        `steps` [N] is the time since the last row in units of the nominal spacing, 1 if absent; series that are not `seen` [N]
        stand still.
        """
        decay = self._alpha if steps is None else 1.0 - (1.0 - self._alpha) ** steps
        if seen is not None:
            decay = decay * seen
        self.weight += decay * (1.0 - self.weight)
        gain = decay / np.maximum(self.weight, 1e-300)
        delta = values - self.mean
        if seen is not None:
            delta = np.where(seen, delta, 0.0)
        self.mean += gain * delta
        self.var += gain * (delta * delta * (1.0 - gain) - self.var)


def weighted_sums(values: Floats, alpha: float) -> Floats:
    """alpha * sum over s <= t of (1 - alpha)^(t - s) values[s], for all t; [T, ...] -> [T, ...].

    In blocks short enough that no power under- or overflows: a cumulative sum inside a block, a carry between blocks.
    """
    values = np.asarray(values, dtype=np.float64)
    keep = 1.0 - alpha
    block = max(1, min(len(values), int(20.0 / -np.log(keep)))) if keep > 0.0 else 1
    result = np.empty_like(values)
    carry = np.zeros(values.shape[1:])
    for start in range(0, len(values), block):
        part = values[start : start + block]
        powers = keep ** np.arange(1, len(part) + 1).reshape(-1, *([1] * (values.ndim - 1)))
        result[start : start + block] = powers * (carry + alpha * np.cumsum(part / powers, axis=0))
        carry = result[start + len(part) - 1]
    return result


def history(values: Floats, alpha: float) -> tuple[Floats, Floats]:
    """Mean and variance after each row of `values` [T, ...]: the batch twin of `Moments.push` with unit steps."""
    weight = 1.0 - (1.0 - alpha) ** np.arange(1, len(values) + 1).reshape(-1, *([1] * (values.ndim - 1)))
    mean = weighted_sums(values, alpha) / weight
    before = np.concatenate([values[:1], mean[:-1]])
    var = weighted_sums((values - mean) * (values - before), alpha) / weight
    return mean, var
