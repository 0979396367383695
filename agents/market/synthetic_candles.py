"""Candles made for sceptics: a market in which nothing can be known, and one in which exactly so much can.

Prices are martingales in the null market: the mean simple return of every bar is 0 whatever came before. Volatility clusters and
returns are correlated across symbols, as in real ones, because neither is of any use to a forecaster of direction.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import ConfigError
from agents.core.instruments import TIMEFRAMES, Symbol
from agents.market.features import DAY
from agents.market.history import CandleHistory

Floats = NDArray[np.float64]

START = 1_577_836_800 * 10**9
"""2020-01-01 UTC: on every grid of candles."""
CLUSTER_HALF_LIFE = DAY
"""Of log volatility's deviation from its mean."""
FIRST_PRICE = 100.0
MEAN_NOTIONAL = 1e6
"""Quote traded in a bar, on average: enough that a share of volume binds no research account."""


def random_walk_history(
    symbols: Sequence[str] | int,
    bars: int,
    seed: int,
    timeframe: str = "1h",
    volatility: float = 0.6,
    correlation: float = 0.5,
    clustering: float = 0.4,
) -> CandleHistory:
    """The null market: a martingale of `bars` candles for each symbol (names, or how many of them).

    `volatility` is annual, `correlation` that of any two symbols' returns, `clustering` the standard deviation of log volatility.
    No rule has a mean return above minus its costs here. Raises ConfigError for numbers outside their range.
    """
    names, rng = _names(symbols), np.random.default_rng(seed)
    shape = _checked(bars, len(names), timeframe, volatility, correlation, clustering)
    deviation = _deviation(rng, shape, timeframe, volatility, clustering)
    return _candles(names, timeframe, deviation, _shocks(rng, shape, correlation), rng)


def planted_alpha_history(
    symbols: Sequence[str] | int,
    bars: int,
    seed: int,
    timeframe: str = "1h",
    volatility: float = 0.6,
    correlation: float = 0.5,
    clustering: float = 0.0,
    *,
    sharpe: float = 2.0,
    half_life: float = 24.0,
    in_prices: bool = False,
) -> tuple[CandleHistory, Floats]:
    """The positive control: (candles, signal [T, N]); row t of the signal is known at the close of bar t.

    The next bar's return is `sigma_t (rho x_t + sqrt(1 - rho^2) eps)`, x standard normal and independent across symbols. Who holds
    x_t / sigma_t of every symbol over bar t + 1 earns the annual Sharpe ratio `sharpe` before costs: mean N rho and variance
    N (1 + rho^2) a bar give `rho^2 = q / (1 - q)` with `q = sharpe^2 / (N bars per year)`. x forgets half of itself in `half_life`
    bars. With `in_prices` x is an average of the unexpected part of each symbol's own past returns (momentum), so that it can be
    found in the candles; else they do not tell it. Raises ConfigError for a Sharpe ratio too large for the bars.
    """
    names, rng = _names(symbols), np.random.default_rng(seed)
    shape = _checked(bars, len(names), timeframe, volatility, correlation, clustering)
    share = sharpe**2 / (shape[1] * _per_year(timeframe))
    if not share < 0.1 or not half_life > 0.0:
        raise ConfigError(f"a Sharpe ratio of {sharpe} needs more bars a year than {timeframe} has, or more symbols; half_life is positive")
    rho = np.copysign(np.sqrt(share / (1.0 - share)), sharpe)
    keep = 0.5 ** (1.0 / half_life)
    deviation = _deviation(rng, shape, timeframe, volatility, clustering)
    common = rng.standard_normal((shape[0], 1)) * np.sqrt(correlation)
    own = rng.standard_normal(shape)
    news = (own if in_prices else rng.standard_normal(shape)) * np.sqrt(1.0 - keep * keep)
    signal = np.empty(shape)
    before = level = rng.standard_normal(shape[1])
    for row in range(shape[0]):
        level = keep * level + news[row]
        signal[row] = level
    expected = np.concatenate([before[None], signal[:-1]])
    scores = rho * expected + np.sqrt(1.0 - rho * rho) * (common + own * np.sqrt(1.0 - correlation))
    return _candles(names, timeframe, deviation, scores, rng), signal


def louder(history: CandleHistory, factor: float) -> CandleHistory:
    """The same candles with every log return times `factor`, from the same first open: a curriculum's quieter or louder market.

    Gaps between a close and the next open are scaled like all else. Raises ConfigError unless the factor is positive.
    """
    if not 0.0 < factor < float("inf"):
        raise ConfigError(f"a volatility factor of {factor}: give a positive number")
    first = np.where(history.listed.any(0), history.open[np.argmax(history.listed, 0), np.arange(len(history.symbols))], 1.0)
    opened, high, low, close = (first * (values / first) ** factor for values in (history.open, history.high, history.low, history.close))
    high, low = np.maximum(high, np.maximum(opened, close)), np.minimum(low, np.minimum(opened, close))
    return CandleHistory(history.symbols, history.timeframe, history.times, opened, high, low, close, history.volume, history.funding)


def _names(symbols: Sequence[str] | int) -> tuple[Symbol, ...]:
    if isinstance(symbols, int):
        return tuple(Symbol(f"S{number:03d}/USDT") for number in range(symbols))
    return tuple(Symbol(symbol) for symbol in symbols)


def _checked(bars: int, width: int, timeframe: str, volatility: float, correlation: float, clustering: float) -> tuple[int, int]:
    if timeframe not in TIMEFRAMES:
        raise ConfigError(f"timeframe {timeframe!r}: use one of {', '.join(TIMEFRAMES)}")
    if bars < 2 or width < 1:
        raise ConfigError(f"{bars} bars of {width} symbols: at least two bars of one symbol")
    if not (0.0 < volatility < float("inf") and 0.0 <= correlation < 1.0 and 0.0 <= clustering < 3.0):
        raise ConfigError("volatility is positive, correlation lies in [0, 1) and clustering in [0, 3)")
    return bars, width


def _per_year(timeframe: str) -> float:
    return 365.0 * DAY / TIMEFRAMES[timeframe]


def _deviation(rng: np.random.Generator, shape: tuple[int, int], timeframe: str, volatility: float, clustering: float) -> Floats:
    """Standard deviation of each bar's return [T, N], known before the bar: log volatility is an autoregression, its mean square 1."""
    keep = 0.5 ** (TIMEFRAMES[timeframe] / CLUSTER_HALF_LIFE)
    noise = rng.standard_normal(shape) * clustering * np.sqrt(1.0 - keep * keep)
    level = rng.standard_normal(shape[1]) * clustering
    levels = np.empty(shape)
    for row in range(shape[0]):
        levels[row] = level
        level = keep * level + noise[row]
    return np.asarray(volatility / np.sqrt(_per_year(timeframe)) * np.exp(levels - clustering**2))


def _shocks(rng: np.random.Generator, shape: tuple[int, int], correlation: float) -> Floats:
    common = rng.standard_normal((shape[0], 1))
    return np.asarray(np.sqrt(correlation) * common + np.sqrt(1.0 - correlation) * rng.standard_normal(shape))


def _candles(names: tuple[Symbol, ...], timeframe: str, deviation: Floats, scores: Floats, rng: np.random.Generator) -> CandleHistory:
    """Log returns `deviation * scores - deviation^2 / 2`: with standard normal scores the mean simple return is 0."""
    span = deviation * scores - deviation**2 / 2.0
    close = FIRST_PRICE * np.exp(np.cumsum(span, axis=0))
    opened = np.concatenate([np.full((1, close.shape[1]), FIRST_PRICE), close[:-1]])
    # Extremes of a Brownian bridge between open and close (inverse of its distribution function).
    reach = [np.sqrt(span**2 - 2.0 * deviation**2 * np.log1p(-rng.random(span.shape))) for _ in range(2)]
    high = np.maximum(opened * np.exp((span + reach[0]) / 2.0), np.maximum(opened, close))
    low = np.minimum(opened * np.exp((span - reach[1]) / 2.0), np.minimum(opened, close))
    volume = MEAN_NOTIONAL / close * rng.gamma(4.0, 0.25, span.shape) * (0.6 + 0.5 * np.abs(span) / deviation)
    times = START + TIMEFRAMES[timeframe] * np.arange(len(close), dtype=np.int64)
    return CandleHistory(names, timeframe, times, opened, high, low, close, volume)
