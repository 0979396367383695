"""What a curve of returns says, and how sure that is: figures of performance, paired intervals, and corrections for trying often.

Plain arrays in, plain floats out. Returns are simple returns per period; `periods` is the number of periods in a year, 365 for days of
a market that never closes. Days are the right grain for all that is tested here: hours add rows and hardly any knowledge.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri, stdtrit

from agents.core.errors import ConfigError, DataError

Floats = npt.NDArray[np.float64]

DAYS = 365.0
EULER = 0.5772156649015329
STILL = 1e-12
"""A deviation below this share of the mean is rounding: the curve does not move."""
ROUNDING = 1e-9
"""Differences a year below this come from the order of additions: equal curves are equal."""


# -- performance -------------------------------------------------------------------------------------------------------


def checked(returns: npt.ArrayLike, least: int = 1) -> Floats:
    """Returns as float64 [periods]. Raises DataError for another shape, fewer than `least`, NaN or infinity."""
    values = np.asarray(returns, dtype=np.float64)
    if values.ndim != 1 or len(values) < least:
        raise DataError(f"statistics need at least {least} returns in one row, got an array of shape {values.shape}")
    if not np.isfinite(values).all():
        raise DataError(f"return {int(np.flatnonzero(~np.isfinite(values))[0])} is not finite: mend the curve before judging it")
    return values


def deviation(returns: npt.ArrayLike) -> float:
    """Sample standard deviation per period; 0 for a curve that does not move."""
    values = checked(returns, 2)
    spread = float(values.std(ddof=1))
    return spread if spread > STILL * max(float(np.abs(values).max()), 1e-300) else 0.0


def volatility(returns: npt.ArrayLike, periods: float = DAYS) -> float:
    """Annualised standard deviation."""
    return deviation(returns) * math.sqrt(periods)


def sharpe(returns: npt.ArrayLike, periods: float = DAYS) -> float:
    """Annualised mean over deviation, cash at 0 (Sharpe 1994, "The Sharpe ratio"); 0 for a curve that does not move."""
    values = checked(returns, 2)
    spread = deviation(values)
    return float(values.mean()) / spread * math.sqrt(periods) if spread else 0.0


def sortino(returns: npt.ArrayLike, periods: float = DAYS, target: float = 0.0) -> float:
    """Annualised mean excess over `target` by the root mean square of shortfalls (Sortino and Price 1994); 0 without a shortfall."""
    excess = checked(returns, 2) - target
    short = math.sqrt(float((np.minimum(excess, 0.0) ** 2).mean()))
    return float(excess.mean()) / short * math.sqrt(periods) if short > 0 else 0.0


def equity_curve(returns: npt.ArrayLike) -> Floats:
    """[periods + 1] from 1; ruin is for good: after a return of -1 or less the curve stays at 0."""
    factors = np.maximum(1.0 + checked(returns), 0.0)
    return np.concatenate([[1.0], np.cumprod(factors)])


def max_drawdown(returns: npt.ArrayLike) -> float:
    """Largest fall from a peak of the compounded curve, in [0, 1]."""
    curve = equity_curve(returns)
    peak = np.maximum.accumulate(curve)
    return float((1.0 - curve / peak).max())


def growth(returns: npt.ArrayLike, periods: float = DAYS) -> float:
    """Compound annual growth rate (CAGR); -1 after ruin."""
    values = checked(returns)
    if (values <= -1.0).any():
        return -1.0
    return math.expm1(min(float(np.log1p(values).sum()) * periods / len(values), 700.0))


def calmar(returns: npt.ArrayLike, periods: float = DAYS) -> float:
    """Compound annual growth by the largest drawdown (Young 1991); 0 without a drawdown."""
    fall = max_drawdown(returns)
    return growth(returns, periods) / fall if fall > 0 else 0.0


def t_statistic(ratio: float, years: float) -> float:
    """`t = SR sqrt(years)`: what an annualised Sharpe ratio is worth as evidence that it is not 0."""
    return ratio * math.sqrt(years)


@dataclass(frozen=True, slots=True)
class Performance:
    """A curve in figures. Rates are per year, as fractions."""

    periods: int
    years: float
    growth: float
    mean: float
    volatility: float
    sharpe: float
    t: float
    sortino: float
    max_drawdown: float
    calmar: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def performance(returns: npt.ArrayLike, periods: float = DAYS) -> Performance:
    """All figures of one curve. Raises DataError for fewer than two returns."""
    values = checked(returns, 2)
    years, ratio = len(values) / periods, sharpe(values, periods)
    return Performance(
        len(values), years, growth(values, periods), float(values.mean()) * periods, volatility(values, periods), ratio,
        t_statistic(ratio, years), sortino(values, periods), max_drawdown(values), calmar(values, periods),
    )  # fmt: skip


def compounded(
    times: npt.NDArray[np.int64], returns: npt.ArrayLike, every_ns: int = 86_400 * 10**9
) -> tuple[npt.NDArray[np.int64], Floats]:
    """Returns [T] ending at `times` (ns UTC, ascending) compounded into buckets of `every_ns`: bucket ends [K] and returns [K].

    A return that ends exactly at midnight belongs to the day that ends there.
    """
    values = checked(returns)
    ends = -(-np.asarray(times, dtype=np.int64) // every_ns) * every_ns
    if len(ends) != len(values) or (np.diff(ends) < 0).any():
        raise DataError("returns and their times must be of one length, the times in order")
    starts = np.flatnonzero(np.diff(ends, prepend=ends[0] - 1))
    return ends[starts], np.multiply.reduceat(np.maximum(1.0 + values, 0.0), starts) - 1.0


# -- one curve against another -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate between two bounds; `below` is the share of resamples at or under 0, a one-sided p-value of "more than 0"."""

    estimate: float
    low: float
    high: float
    level: float
    below: float
    block: float
    resamples: int

    @property
    def decided(self) -> int:
        """1 if all of the interval is above 0, -1 if all is below, else 0; what is within rounding of 0 is 0."""
        return int(self.low > ROUNDING) - int(self.high < -ROUNDING)

    def to_dict(self) -> dict[str, float]:
        return {**asdict(self), "decided": self.decided}


MEASURES = ("mean", "sharpe", "equal_volatility")


def differences(ours: Floats, theirs: Floats, periods: float) -> Floats:
    """[..., 3] of MEASURES for curves [..., periods]: ours minus theirs, per year.

    `equal_volatility` scales our curve to the volatility of theirs first, which compares skill and not appetite:
    `(SR_ours - SR_theirs) * volatility_theirs` (Modigliani and Modigliani 1997).
    """
    mean, other = ours.mean(-1), theirs.mean(-1)
    spread, wide = ours.std(-1, ddof=1), theirs.std(-1, ddof=1)
    ratio = np.where(spread > STILL * np.abs(mean), mean / np.maximum(spread, 1e-300), 0.0)
    rival = np.where(wide > STILL * np.abs(other), other / np.maximum(wide, 1e-300), 0.0)
    return np.stack([(mean - other) * periods, (ratio - rival) * math.sqrt(periods), (ratio - rival) * wide * periods], axis=-1)


def block_length(*series: Floats) -> float:
    """Mean block of the stationary bootstrap, the longest that any of the series asks for, at least one period.

    Politis and White (2004), corrected by Patton, Politis and White (2009), of each series and of its square (volatility clusters).
    """
    _, lengths = _arch()
    longest = 1.0
    for values in series:
        for column in (values, (values - values.mean()) ** 2):
            if column.std() > 0:
                found = float(lengths(column)["stationary"].iloc[0])
                longest = max(longest, found if math.isfinite(found) else 1.0)
    return min(longest, len(series[0]) / 4.0)


def paired_intervals(
    ours: npt.ArrayLike,
    theirs: npt.ArrayLike,
    periods: float = DAYS,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    block: float | None = None,
) -> dict[str, Interval]:
    """Ours minus theirs by MEASURES with percentile intervals of the stationary bootstrap, both curves resampled together.

    Politis and Romano (1994), "The stationary bootstrap"; paired, so that what moved both curves cancels. The block is chosen from
    both curves and their difference unless given. `ours` may be [periods, seeds]: then it stands for the mean of the seeds, and a
    resample draws seeds too, so that the interval is about other seeds as well as other times. Raises DataError for curves of
    different length or fewer than 20 periods.
    """
    right = checked(theirs, 20)
    table = np.stack([checked(column, 20) for column in np.atleast_2d(np.asarray(ours, dtype=np.float64).T)], axis=1)
    if len(table) != len(right):
        raise DataError(f"paired curves must be of one length, got {len(table)} and {len(right)} periods")
    left, count = table.mean(axis=1), table.shape[1]
    size = block_length(left, right, left - right) if block is None else block
    drawn, chance = np.empty((resamples, len(MEASURES))), np.random.default_rng([seed, 1])
    for number, rows in enumerate(_resampled(len(left), size, resamples, seed)):
        mine = left[rows] if count == 1 else table[rows] @ (np.bincount(chance.integers(count, size=count), minlength=count) / count)
        drawn[number] = differences(mine, right[rows], periods)
    return _intervals(differences(left, right, periods), drawn, level, size)


def mean_interval(
    returns: npt.ArrayLike, periods: float = DAYS, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> dict[str, Interval]:
    """A curve's own annual mean and Sharpe ratio with stationary-bootstrap intervals: the paired ones against cash."""
    values = checked(returns, 20)
    against = paired_intervals(
        values, np.zeros_like(values), periods, level=level, resamples=resamples, seed=seed, block=block_length(values)
    )
    return {name: against[name] for name in ("mean", "sharpe")}


def _intervals(point: Floats, drawn: Floats, level: float, block: float) -> dict[str, Interval]:
    low, high = np.quantile(drawn, [(1.0 - level) / 2.0, (1.0 + level) / 2.0], axis=0)
    below = (drawn <= 0.0).mean(axis=0)
    return {
        name: Interval(float(point[n]), float(low[n]), float(high[n]), level, float(below[n]), block, len(drawn))
        for n, name in enumerate(MEASURES)
    }


def _resampled(length: int, block: float, resamples: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Row numbers [length] of each resample."""
    bootstrap, _ = _arch()
    draw = bootstrap(max(block, 1.0), np.arange(length), seed=np.random.default_rng(seed))
    for (rows,), _ in draw.bootstrap(resamples):
        yield rows


def _arch() -> tuple[Any, Any]:
    # Imported here: it brings pandas and takes seconds, and a machine that only trades does without.
    try:
        from arch.bootstrap import StationaryBootstrap, optimal_block_length
    except ImportError:
        raise ConfigError("intervals need the package arch: pip install 'quartet[research]'") from None
    return StationaryBootstrap, optimal_block_length


# -- trying often ------------------------------------------------------------------------------------------------------


def moments(returns: npt.ArrayLike) -> tuple[float, float, float]:
    """Sharpe ratio per period, skewness and kurtosis (3 for a normal curve)."""
    values = checked(returns, 3)
    spread = deviation(values)
    if not spread:
        return 0.0, 0.0, 3.0
    score = (values - values.mean()) / values.std()
    return float(values.mean()) / spread, float((score**3).mean()), float((score**4).mean())


def probabilistic_sharpe(ratio: float, rows: int, skewness: float = 0.0, kurtosis: float = 3.0, benchmark: float = 0.0) -> float:
    """Probability that the true Sharpe ratio exceeds `benchmark`; both ratios per period, over `rows` periods.

    `Phi((SR - SR*) sqrt(n - 1) / sqrt(1 - g3 SR + (g4 - 1) / 4 SR^2))`. Bailey and Lopez de Prado (2012), "The Sharpe ratio
    efficient frontier".
    """
    return float(ndtr((ratio - benchmark) * math.sqrt(max(rows - 1, 0)) / _width(ratio, skewness, kurtosis)))


def _width(ratio: float, skewness: float, kurtosis: float) -> float:
    return math.sqrt(max(1.0 - skewness * ratio + (kurtosis - 1.0) / 4.0 * ratio * ratio, 1e-12))


def least_track_record(
    ratio: float, skewness: float = 0.0, kurtosis: float = 3.0, benchmark: float = 0.0, level: float = 0.95
) -> float:
    """Periods until a Sharpe ratio (per period) is believed at `level`; infinite if it does not exceed the benchmark. Same source."""
    if ratio <= benchmark:
        return math.inf
    return 1.0 + (_width(ratio, skewness, kurtosis) * float(ndtri(level)) / (ratio - benchmark)) ** 2


def expected_best(trials: int, variance: float) -> float:
    """Sharpe ratio per period that the best of `trials` worthless tries reaches on average, ratios varying by `variance`.

    `sqrt(V) ((1 - g) Phi^-1(1 - 1/N) + g Phi^-1(1 - 1/(N e)))`, g Euler's constant; 0 for one try. Bailey and Lopez de Prado
    (2014), "The deflated Sharpe ratio".
    """
    if trials < 1:
        raise ConfigError(f"{trials} trials: a result that exists was tried at least once")
    if trials == 1:
        return 0.0
    quantiles = (1.0 - EULER) * float(ndtri(1.0 - 1.0 / trials)) + EULER * float(ndtri(1.0 - 1.0 / (trials * math.e)))
    return math.sqrt(max(variance, 0.0)) * quantiles


def deflated_sharpe(returns: npt.ArrayLike, trials: int, variance: float | None = None) -> float:
    """Probability that a curve's Sharpe ratio is more than the best of `trials` worthless tries would show.

    `variance` is that of the tries' Sharpe ratios per period; without it that of a worthless curve of this length, 1 / (n - 1), the
    least that chance alone allows. Bailey and Lopez de Prado (2014).
    """
    values = checked(returns, 3)
    ratio, skewness, kurtosis = moments(values)
    least = 1.0 / (len(values) - 1)
    hurdle = expected_best(trials, least if variance is None else max(variance, least))
    return probabilistic_sharpe(ratio, len(values), skewness, kurtosis, hurdle)


@dataclass(frozen=True, slots=True)
class Overfitting:
    """What choosing the best in sample was worth out of it."""

    probability: float
    """PBO: how often the best in sample falls into the worse half out of sample. .5 is what chance gives."""
    loss: float
    """How often the chosen one loses money out of sample."""
    slope: float
    """Of the chosen one's Sharpe ratio out of sample on that in sample: negative where more in sample means less out of it."""
    splits: int
    trials: int

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def overfitting(returns: npt.ArrayLike, blocks: int = 16) -> Overfitting:
    """Probability of backtest overfitting by combinatorially symmetric cross-validation of tries [periods, tries].

    The rows are cut into `blocks` (even) runs of time; each choice of half of them is in sample once. Judged by the Sharpe ratio.
    Bailey, Borwein, Lopez de Prado, Zhu (2017), "The probability of backtest overfitting". Raises DataError for fewer than two
    tries or two rows a block.
    """
    table = np.asarray(returns, dtype=np.float64)
    if blocks < 2 or blocks % 2 or blocks > 20:
        raise ConfigError(f"{blocks} blocks: overfitting needs an even number from 2 to 20")
    if table.ndim != 2 or table.shape[1] < 2 or len(table) < 2 * blocks or not np.isfinite(table).all():
        raise DataError(
            f"overfitting needs finite returns of at least two tries over {2 * blocks} periods, got shape {table.shape}"
        )
    size = len(table) // blocks
    parts = table[len(table) - size * blocks :].reshape(blocks, size, -1)
    sums, squares = parts.sum(1), (parts * parts).sum(1)
    chosen = np.array([[b in half for b in range(blocks)] for half in combinations(range(blocks), blocks // 2)], dtype=np.float64)
    inside, outside = (_ratios(pick @ sums, pick @ squares, size * blocks // 2) for pick in (chosen, 1.0 - chosen))
    best = inside.argmax(1)
    rows = np.arange(len(best))
    won = outside[rows, best]
    below, tied = (outside < won[:, None]).sum(1), (outside == won[:, None]).sum(1)
    rank = (below + 0.5 * (tied + 1.0)) / (table.shape[1] + 1.0)
    seen = inside[rows, best]
    spread = float(seen.var())
    slope = float(((seen - seen.mean()) * (won - won.mean())).mean()) / spread if spread > 0 else 0.0
    return Overfitting(float((rank <= 0.5).mean()), float((won < 0).mean()), slope, len(best), table.shape[1])


def _ratios(sums: Floats, squares: Floats, rows: int) -> Floats:
    mean = sums / rows
    variance = np.maximum(squares / rows - mean * mean, 0.0)
    return np.where(variance > 0, mean / np.sqrt(np.maximum(variance, 1e-300)), 0.0)


# -- seeds -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Dispersion:
    """How much of a figure is the seed. `low` and `high` bound its mean over seeds at 95 % (Student's t)."""

    seeds: int
    mean: float
    deviation: float
    least: float
    median: float
    most: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def dispersion(values: Sequence[float]) -> Dispersion:
    """A figure over seeds. The interval tells about other seeds on this same history, nothing about other histories."""
    figures = checked(values)
    count, mean = len(figures), float(figures.mean())
    spread = float(figures.std(ddof=1)) if count > 1 else 0.0
    reach = float(stdtrit(count - 1, 0.975)) * spread / math.sqrt(count) if count > 1 else math.inf
    return Dispersion(
        count, mean, spread, float(figures.min()), float(np.median(figures)), float(figures.max()), mean - reach, mean + reach
    )
