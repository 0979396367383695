"""Months of minutes before the synthetic market opens: correlated, with clustered volatility, jumps and volume."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import DataError
from agents.core.instruments import NS, TIMEFRAMES
from agents.market.synthetic_assets import FACTOR_VOLATILITY, MINUTE_NS, YEAR_S, Asset

Floats = NDArray[np.float64]
Row = tuple[int, float, float, float, float, float]
"""(opening time in ms, open, high, low, close, base volume)."""

VOLATILITY_HALF_LIFE_S = 6 * 3600.0
VOLATILITY_OF_LOG = 0.45
"""Standard deviation of log volatility: with it, hourly returns have a kurtosis of about 6 before jumps."""
JUMP_RATE_S = 1 / 14_400
"""One jump in four hours for each coin, and for all together."""
JUMP_SIZE = 0.0025
"""Scale of a Student-t jump with three degrees of freedom."""
MEAN_PRINT = 500.0
"""Median notional of a print of an asset of size 1, in quote."""
PRINT_SPREAD = 1.2
"""Standard deviation of log print notional."""


def season(time_ns: NDArray[np.int64] | int) -> Floats:
    """Volatility over the day, highest at 15:00 UTC; mean about 1."""
    return np.asarray(np.exp(0.25 * np.cos(2 * np.pi * (np.asarray(time_ns) / (3600 * NS) - 15) / 24)))


def mean_volume_per_s(asset: Asset, trade_rate: float) -> float:
    """Base units a second that prints of `trade_rate` a second add up to."""
    return trade_rate * asset.size * MEAN_PRINT * float(np.exp(PRINT_SPREAD**2 / 2)) / asset.price


class MinuteHistory:
    """Minute candles of every asset up to `end` (market ns, cut to the minute), prices as integer ticks and volumes as lots."""

    def __init__(self, assets: Sequence[Asset], end: int, days: int, trade_rate: float, seed: int) -> None:
        self._index = {asset.symbol: i for i, asset in enumerate(assets)}
        self._scales = [(_per_unit(asset.tick), float(asset.lot)) for asset in assets]
        minutes = days * 1440
        self.end = end - end % MINUTE_NS
        self.start = self.end - minutes * MINUTE_NS
        self._ticks = np.empty((len(assets), 4, minutes), dtype=np.int32)
        self._lots = np.empty((len(assets), minutes), dtype=np.int32)
        rng = np.random.default_rng([seed, 0])
        self.log_volatility = np.zeros(len(assets) + 1)
        """Log volatility of each asset and, last, of the factor, at the end: where the live market goes on."""
        times = self.start + MINUTE_NS * np.arange(minutes, dtype=np.int64)
        daily = season(times)
        factor_level = self._volatility(rng, days, len(assets))
        factor = self._returns(rng, FACTOR_VOLATILITY * np.exp(factor_level) * daily)
        for i, asset in enumerate(assets):
            level = self._volatility(rng, days, i)
            own = asset.own_volatility * np.exp(level) * daily
            self._fill(i, asset, rng, asset.beta * factor + self._returns(rng, own), own, trade_rate)

    def rows(self, symbol: str, timeframe: str, end: int | None, limit: int) -> list[Row]:
        """The last `limit` candles on the grid that open before `end`, oldest first; the newest may be unfinished.

        Raises DataError for a timeframe shorter than a minute or unknown.
        """
        length = TIMEFRAMES.get(timeframe, 0)
        if length < MINUTE_NS:
            raise DataError(f"the synthetic market keeps no {timeframe} candles; ask for 1m or longer")
        until = self.end if end is None else min(end, self.end)
        last = (until - 1) // length * length
        first = max(last - (limit - 1) * length, -(-self.start // length) * length)
        if last < first or limit <= 0:
            return []
        a = (first - self.start) // MINUTE_NS
        b = min((last + length - self.start) // MINUTE_NS, self._lots.shape[1])
        i, step = self._index[symbol], length // MINUTE_NS
        cuts = np.arange(0, b - a, step)
        opened, high, low, close = self._ticks[i, :, a:b]
        per_unit, lot = self._scales[i]
        volume = np.add.reduceat(self._lots[i, a:b].astype(np.int64), cuts) * lot
        closes = close[np.minimum(cuts + step, b - a) - 1]
        columns = (opened[cuts], np.maximum.reduceat(high, cuts), np.minimum.reduceat(low, cuts), closes)
        opens_ms = (first + length * np.arange(len(cuts), dtype=np.int64)) // 1_000_000
        prices = [(column / per_unit).tolist() for column in columns]
        return list(zip(opens_ms.tolist(), *prices, np.round(volume, 8).tolist(), strict=True))

    def last_price(self, symbol: str) -> float:
        """The last close."""
        i = self._index[symbol]
        return float(self._ticks[i, 3, -1] / self._scales[i][0])

    def _volatility(self, rng: np.random.Generator, days: int, slot: int) -> Floats:
        """Log volatility, minute by minute: a first-order autoregression over hours, held within the hour."""
        keep = 0.5 ** (3600.0 / VOLATILITY_HALF_LIFE_S)
        noise = rng.standard_normal(days * 24) * VOLATILITY_OF_LOG * np.sqrt(1 - keep * keep)
        level = noise[0]
        levels = []
        for shock in noise.tolist():
            level = keep * level + shock
            levels.append(level)
        self.log_volatility[slot] = level
        return np.repeat(np.asarray(levels) - VOLATILITY_OF_LOG**2 / 2, 60)

    def _returns(self, rng: np.random.Generator, annual: Floats) -> Floats:
        """Log returns of minutes, with jumps."""
        size = len(annual)
        jumps = np.zeros(size)
        count = int(rng.poisson(JUMP_RATE_S * 60 * size))
        jumps[rng.integers(0, size, count)] = JUMP_SIZE * np.clip(rng.standard_t(3, count), -12, 12)
        return np.asarray(annual * np.sqrt(60 / YEAR_S) * rng.standard_normal(size) + jumps * annual)

    def _fill(self, i: int, asset: Asset, rng: np.random.Generator, returns: Floats, own: Floats, trade_rate: float) -> None:
        path = np.cumsum(returns)
        path += np.log(asset.price) - path[-1]
        close = np.exp(path + 1.5e-4 * rng.standard_normal(len(path)))
        opened = np.concatenate([close[:1], close[:-1]])
        # Extremes of a Brownian bridge between open and close (inverse of its distribution function).
        span = np.log(close / opened)
        variance = (own**2 + (asset.beta * FACTOR_VOLATILITY) ** 2) * 60 / YEAR_S
        up = (span + np.sqrt(span**2 - 2 * variance * np.log(rng.random(len(path))))) / 2
        down = (span - np.sqrt(span**2 - 2 * variance * np.log(rng.random(len(path))))) / 2
        scale = _per_unit(asset.tick)
        ticks = self._ticks[i]
        ticks[0], ticks[3] = np.rint(opened * scale), np.rint(close * scale)
        ticks[1] = np.maximum(np.maximum(ticks[0], ticks[3]), np.rint(opened * np.exp(up) * scale))
        ticks[2] = np.maximum(np.minimum(np.minimum(ticks[0], ticks[3]), np.rint(opened * np.exp(down) * scale)), 1)
        mean = 60 * mean_volume_per_s(asset, trade_rate) * asset.price / close
        activity = np.abs(span) / np.sqrt(variance)
        volume = mean * rng.gamma(4.0, 0.25, len(path)) * (0.6 + 0.5 * activity)
        self._lots[i] = np.minimum(np.rint(volume / float(asset.lot)), 2**31 - 1)


def _per_unit(tick: str) -> float:
    """Ticks per unit of price, exact for powers of ten: dividing by it gives the nearest float to the decimal price."""
    return float(round(1 / float(tick)))
