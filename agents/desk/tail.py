"""Tail risk of a book: the mean of its worst scenarios (CVaR) with the cutting planes that hold it down, and the parametric quantile."""

from dataclasses import dataclass, field
from math import ceil
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

POOL = 16
"""Cutting planes kept at most. Few bind at a time; with 48 a program of a hundred symbols takes twice as long."""
PATIENCE = 4
"""Programs for which a plane may lie idle before it is dropped."""


class Tail:
    """CVaR over equally likely scenarios, and a bounded pool of its cutting planes.

    With losses `-R x` of a book x [n] over scenarios R [S, n] (returns over the horizon of the limit), CVaR is the mean of the
    worst `share` of them (Rockafellar & Uryasev 2000): `min over zeta of zeta + sum_s max(-r_s'x - zeta, 0) / (share S)`. It is
    the largest of `g'x` over all `g = -p'R` with `0 <= p_s <= 1 / (share S)`, `sum p = 1`, so each p that was worst for some book
    gives a plane `g'x <= limit` that is valid for every book and every limit (Kuenzi-Bay & Mayer 2006). The planes that bound in
    earlier programs open the next one.
    """

    __slots__ = ("_idle", "_planes", "_probabilities", "alone", "scenarios", "share")

    def __init__(self, scenarios: Floats, share: float) -> None:
        """`scenarios` float64 [S, n]; `share` in (0, 1]. Raises ValueError for numbers that are none: they would bound nothing."""
        if scenarios.ndim != 2 or not len(scenarios) or not np.isfinite(scenarios).all():
            raise ValueError("scenarios are finite returns of shape [S, n] with at least one row; complete them first")
        if not 0 < share <= 1:
            raise ValueError(f"share is {share}: the tail is a part of all scenarios, in (0, 1]")
        self.scenarios, self.share = np.ascontiguousarray(scenarios), share
        self.alone: Floats = np.maximum(tail_means(-self.scenarios.T, share), 0.0)
        """CVaR of one unit of each symbol held alone, [n], at least 0: the sum over a book bounds the book's."""
        self._planes = np.empty((0, scenarios.shape[1]))
        self._probabilities = np.empty((0, len(scenarios)))
        self._idle = np.empty(0, dtype=np.int64)

    def value(self, book: Floats) -> float:
        """CVaR of a book [n], as a positive loss."""
        return float(tail_means(-(self.scenarios @ book), self.share))

    def plane(self, book: Floats) -> tuple[float, Floats, Floats]:
        """(CVaR of a book [n], its plane [n], the probabilities [S] behind it)."""
        losses = -(self.scenarios @ book)
        size = self.share * len(losses)
        whole = int(size)
        order = np.argsort(-losses, kind="stable")
        probabilities = np.zeros(len(losses))
        probabilities[order[:whole]] = 1.0
        if whole < len(losses) and size > whole:
            probabilities[order[whole]] = size - whole
        probabilities /= size
        return float(probabilities @ losses), -(probabilities @ self.scenarios), probabilities

    # -- the pool --------------------------------------------------------------------------------------------------

    @property
    def planes(self) -> Floats:
        """Planes kept from earlier programs, [k, n]."""
        return self._planes

    def remember(self, used: NDArray[np.bool_], fresh: list[tuple[Floats, Floats]]) -> None:
        """After a program: which of the kept planes bound, and (plane, probabilities) of the new ones that did. Idle ones go."""
        idle = np.where(used, 0, self._idle + 1)
        keep = np.flatnonzero(idle <= PATIENCE)
        if excess := max(len(keep) + len(fresh) - POOL, 0):
            keep = np.sort(keep[np.argsort(idle[keep], kind="stable")][: max(len(keep) - excess, 0)])
        fresh = fresh[-POOL:]
        self._planes = np.vstack([self._planes[keep], *(plane for plane, _ in fresh)])
        self._probabilities = np.vstack([self._probabilities[keep], *(p for _, p in fresh)])
        self._idle = np.concatenate([idle[keep], np.zeros(len(fresh), dtype=np.int64)])

    def inherit(self, older: "Tail", rows: int) -> None:
        """Take the pool of the same symbols' tail `rows` scenarios ago. The probabilities of the rows that left go to the new ones."""
        if older.scenarios.shape == self.scenarios.shape and older.share == self.share and 0 <= rows < len(self.scenarios):
            self._probabilities = np.roll(older._probabilities, -rows, axis=1)
            self._planes = -(self._probabilities @ self.scenarios)
            self._idle = older._idle.copy()


def tail_means(losses: Floats, share: float) -> Floats:
    """Mean of the worst `share` of losses along the last axis; the last loss that counts, counts in part."""
    number = losses.shape[-1]
    size = share * number
    count = min(max(ceil(size), 1), number)
    worst = np.partition(losses, number - count, axis=-1)[..., number - count :]
    part = max(size - (count - 1), 0.0)
    result: Floats = (worst[..., 1:].sum(-1) + part * worst[..., 0]) / (count - 1 + part)
    return result


@dataclass(frozen=True, slots=True)
class Quantile:
    """Parametric value at risk as a cone: `quantile ||L'x|| - drift'x` of a book x [n], with covariance L L' over the horizon.

    Arrays are finite float64: `factor` L [n, k], `drift` [n].
    """

    factor: Floats
    drift: Floats
    quantile: float
    alone: Floats = field(init=False)

    def __post_init__(self) -> None:
        if not (np.isfinite(self.factor).all() and np.isfinite(self.drift).all() and np.isfinite(self.quantile) and self.quantile > 0):
            raise ValueError("a quantile needs a finite factor, drift and positive multiple; repair the covariance first")
        object.__setattr__(self, "alone", np.maximum(self.quantile * np.sqrt((self.factor**2).sum(1)) - self.drift, 0.0))

    def value(self, book: Floats) -> float:
        """Value at risk of a book [n], as a positive loss."""
        return self.quantile * float(np.linalg.norm(book @ self.factor)) - float(self.drift @ book)


def quantile_multiple(level: float, skewness: float = 0.0, kurtosis: float = 0.0) -> float:
    """How many deviations the loss at `level` lies out: the normal quantile, stretched by Cornish & Fisher (1938) for the moments.

    `skewness` and excess `kurtosis` of returns, clipped to where the expansion is monotone enough to mean something (Maillard 2012);
    never below the normal quantile: thin tails that were estimated widen no limit.
    """
    z = NormalDist().inv_cdf(level)
    s, k = min(max(-skewness, -1.0), 1.0), min(max(kurtosis, 0.0), 8.0)
    stretched = z + (z * z - 1) * s / 6 + (z**3 - 3 * z) * k / 24 - (2 * z**3 - 5 * z) * s * s / 36
    return max(stretched, z)
