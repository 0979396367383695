"""What the bar features share: the record of past rows, and the small formulas that streaming and batch both use."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from agents.core.instruments import NS

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Times = npt.NDArray[np.int64]

MINUTE, HOUR, DAY = 60 * NS, 3600 * NS, 86_400 * NS
VOLATILITY_1H = 0.01
"""What one hour is taken to move (standard deviation) while nothing is known: some 94 % a year, high for a large coin."""
VOLATILITY_FLOOR_1H = 1e-4
"""Least hourly deviation ever reported: nothing that trades is calmer, and sizes divide by it."""
PRIOR_ROWS = 6.0
"""Observations that the default volatility counts for."""
CORRELATION = 0.5
"""What two coins are taken to share while nothing is known."""
PRIOR_CORRELATION_ROWS = 48.0
TIE = 1e-11
"""Values nearer than this rank equal, so that rounding never decides a rank."""
CLIP = 6.0
"""Standardised returns beyond this say nothing more about shape."""


def known(values: Floats) -> Floats:
    """NaN as 0: what is not known yet is neutral."""
    return np.where(values == values, values, 0.0)


def half_lives(hours: Iterable[float]) -> Floats:
    """Smoothing factor per row of each half-life in rows."""
    return 1.0 - np.exp2(-1.0 / np.asarray(list(hours), dtype=np.float64))


def volatility(mean_square: Floats, rows: Floats | float, default: float) -> Floats:
    """Deviation per row, drawn towards `default` while there are few rows, never below a hundredth of it."""
    drawn = (mean_square * rows + PRIOR_ROWS * default * default) / (rows + PRIOR_ROWS)
    result: Floats = np.maximum(np.sqrt(drawn), default * VOLATILITY_FLOOR_1H / VOLATILITY_1H)
    return result


def ranks(values: Floats, active: Flags) -> Floats:
    """Rank of each value among the active ones of its row, scaled to [-.5, .5]; ties share, the inactive and the lonely get 0."""
    ahead = values[..., :, None] - values[..., None, :]
    among, same = active[..., None, :], TIE * (1.0 + np.abs(values[..., :, None]))
    below = ((ahead > same) & among).sum(-1) + 0.5 * (((np.abs(ahead) <= same) & among).sum(-1) - 1.0)
    others = active.sum(-1, keepdims=True) - 1.0
    result: Floats = np.where(active & (others > 0), below / np.maximum(others, 1.0) - 0.5, 0.0)
    return result


def correlation(products: Floats, rows: Floats | float) -> Floats:
    """Correlation matrix [..., N, N] out of mean products, drawn towards a constant one while there are few rows.

    Positive semi-definite: both parts are. `rows` broadcasts over the leading axes.
    """
    width = products.shape[-1]
    deviation = np.sqrt(np.maximum(np.diagonal(products, axis1=-2, axis2=-1), 0.0))
    scale = np.where(deviation > 0, 1.0 / np.maximum(deviation, 1e-300), 0.0)
    sample = products * scale[..., :, None] * scale[..., None, :]
    sample = np.clip(sample, -1.0, 1.0)
    share = np.asarray(rows / (rows + PRIOR_CORRELATION_ROWS))[..., None, None]
    result: Floats = share * sample + (1.0 - share) * CORRELATION
    index = np.arange(width)
    result[..., index, index] = 1.0
    return result


def effective_bets(matrix: Floats) -> Floats:
    """Number of independent bets in a correlation matrix [..., N, N]: (sum of eigenvalues)^2 / sum of their squares."""
    result: Floats = matrix.shape[-1] ** 2 / np.maximum((matrix * matrix).sum((-2, -1)), 1e-12)
    return result


def stacked(columns: Sequence[Floats | float], like: Floats) -> Floats:
    """[..., N, columns] out of columns that broadcast to `like` [..., N]."""
    result = np.empty((len(columns), *like.shape))
    for number, column in enumerate(columns):
        result[number] = column
    return np.moveaxis(result, 0, -1)


class Track:
    """The last `capacity` rows of a few numbers with their times, oldest first, in a buffer of twice that."""

    __slots__ = ("_begin", "_capacity", "_end", "_times", "_values")

    def __init__(self, capacity: int, width: int) -> None:
        self._capacity, self._begin, self._end = capacity, 0, 0
        self._times = np.zeros(2 * capacity, dtype=np.int64)
        self._values = np.full((2 * capacity, width), np.nan)

    def __len__(self) -> int:
        return self._end - self._begin

    @property
    def times(self) -> Times:
        """Row times in nanoseconds, a view."""
        return self._times[self._begin : self._end]

    @property
    def values(self) -> Floats:
        """float64 [rows, width], a view."""
        return self._values[self._begin : self._end]

    def append(self, time: int, values: Floats) -> None:
        """Enter a row; `time` is later than all before."""
        if self._end == 2 * self._capacity:
            keep = self._end - self._begin
            self._times[:keep], self._values[:keep] = self.times, self.values
            self._begin, self._end = 0, keep
        self._times[self._end], self._values[self._end] = time, values
        self._end += 1
        if self._end - self._begin > self._capacity:
            self._begin += 1

    def at(self, time: int, oldest: int) -> Floats | None:
        """The last row at or before `time`, unless that is before `oldest`."""
        place = int(np.searchsorted(self.times, time, side="right")) - 1
        if place < 0 or self.times[place] < oldest:
            return None
        row: Floats = self.values[place]
        return row

    def after(self, time: int) -> Floats:
        """All rows later than `time`, [rows, width]."""
        return self.values[int(np.searchsorted(self.times, time, side="right")) :]
