"""Bonuses for states that were seen rarely. For simulation only: nothing that trades is ever given one."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import ConfigError, NotFinite
from agents.desk.rewards.functions import Array

KINDS = ("count", "random_network")
_CLIP = 5.0
"""Whitened states are cut here, as in Burda et al.: a single wild column must not be news for ever."""


class ExplorationBonus(Protocol):
    """Novelty of states, learned from the states that it is asked about."""

    def bonus(self, states: NDArray[Any]) -> Array:
        """At least 0, [...], for states [..., size]; each call counts as a visit. Raises NotFinite."""
        ...


def make_bonus(kind: str, size: int, seed: int = 0) -> ExplorationBonus:
    """A bonus by name for states of `size` numbers. Raises ConfigError for another name."""
    if kind == "count":
        return CountBonus(size, seed=seed)
    if kind == "random_network":
        return RandomNetworkBonus(size, seed=seed)
    raise ConfigError(f"{kind!r} is no exploration bonus; use one of {', '.join(KINDS)}")


class CountBonus:
    """`1 / sqrt(n(phi(s)))`, phi the signs of `bits` random projections of the whitened state.

    Bellemare et al. (2016), "Unifying count-based exploration and intrinsic motivation"; the hash is that of Tang et al. (2017),
    "#Exploration". n counts the present visit.
    """

    def __init__(self, size: int, bits: int = 16, seed: int = 0) -> None:
        if not 1 <= bits <= 62:
            raise ConfigError(f"a state is hashed to {bits} bits; use 1 to 62")
        self._planes = np.random.default_rng(seed).standard_normal((size, bits))
        self._powers = 2 ** np.arange(bits, dtype=np.int64)
        self._white = _Whitening(size)
        self.counts: dict[int, int] = {}

    def bonus(self, states: NDArray[Any]) -> Array:
        """See ExplorationBonus."""
        rows = self._white(states)
        codes = (rows @ self._planes > 0.0) @ self._powers
        values = np.empty(len(codes))
        for number, code in enumerate(codes.tolist()):
            self.counts[code] = self.counts.get(code, 0) + 1
            values[number] = self.counts[code] ** -0.5
        return values.reshape(states.shape[:-1])


class RandomNetworkBonus:
    """Squared error of an online predictor of a fixed random network's output, over the mean square of that output so far: about 1 where
    nothing is known, falling towards 0 with visits.

    Burda, Edwards, Storkey, Klimov (2018), "Exploration by random network distillation". Here the predictor is linear in fixed random
    features of its own and learns by normalised least mean squares, so that the desk needs no deep-learning library.
    """

    def __init__(self, size: int, features: int = 64, outputs: int = 8, step: float = 1.0, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._target = rng.standard_normal((size, features)) / np.sqrt(size), rng.standard_normal((features, outputs)) / np.sqrt(features)
        self._features = rng.standard_normal((size, features)) / np.sqrt(size)
        self._weights = np.zeros((features + 1, outputs))
        self._step = step
        self._white = _Whitening(size)
        self._mean, self._seen = 0.0, 0

    def bonus(self, states: NDArray[Any]) -> Array:
        """See ExplorationBonus."""
        rows = self._white(states)
        inner, outer = self._target
        wanted = np.tanh(rows @ inner) @ outer
        seen = np.concatenate([np.tanh(rows @ self._features), np.ones((len(rows), 1))], axis=1)
        miss = wanted - seen @ self._weights
        errors = (miss**2).mean(axis=1)
        reach = (seen**2).sum(axis=1, keepdims=True)
        self._weights += self._step * (seen / reach).T @ miss / max(len(rows), 1)
        self._seen += len(rows)
        self._mean += (float((wanted**2).mean(axis=1).sum()) - len(rows) * self._mean) / max(self._seen, 1)
        return np.asarray(errors / max(self._mean, 1e-12)).reshape(states.shape[:-1])


class _Whitening:
    """Rows less their running mean over their running deviation, clipped."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._count, self._mean, self._square = 1.0, np.zeros(size), np.ones(size)

    def __call__(self, states: NDArray[Any]) -> Array:
        rows = np.asarray(states, dtype=np.float64).reshape(-1, self._size)
        if not np.isfinite(rows).all():
            raise NotFinite("a state with a NaN or an infinity has no novelty: mend what observes it")
        if len(rows):
            total = self._count + len(rows)
            before, moved = self._mean, rows.mean(axis=0) - self._mean
            self._mean = before + moved * len(rows) / total
            self._square = (
                self._count * self._square + len(rows) * rows.var(axis=0) + moved**2 * self._count * len(rows) / total
            ) / total
            self._count = total
        return np.clip((rows - self._mean) / np.sqrt(np.maximum(self._square, 1e-12)), -_CLIP, _CLIP)
