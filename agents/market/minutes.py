"""Features out of bars of a minute, all symbols at once: the residual that reverts, short returns, activity."""

from dataclasses import dataclass

import numpy as np

from agents.market.features import (
    CLIP,
    MINUTE,
    VOLATILITY_1H,
    Flags,
    Floats,
    Track,
    half_lives,
    known,
    ranks,
    stacked,
    volatility,
)
from agents.market.hours import beta_of
from agents.market.moments import Moments

VOLATILITY_1M = VOLATILITY_1H / 60**0.5
SERIES = {
    "square_fast": 10, "square": 60, "square_slow": 720, "range": 60, "lagged": 240,
    "volume": 240, "volume_fast": 15, "volume_slow": 720, "product": 240, "market_square": 240, "market_square_fast": 60,
}  # fmt: skip
"""Averaged series and their half-lives in minutes."""
NAMES = tuple(SERIES)
SERIES_ALPHA = half_lives(SERIES.values())
LEVELS = {"ema_5m": 5, "ema_60m": 60, "ema_240m": 240}
LEVEL_ALPHA = 2.0 / (np.array(list(LEVELS.values())) + 1.0)
REVERSION_ALPHA = float(half_lives([180])[0])
REVERSION_ROWS = 2.0 / REVERSION_ALPHA - 1.0
"""Equally weighted minutes that the half-life of three hours is worth."""
LEAST_ROWS = 60
"""Minutes before a mean-reversion fit is looked at."""
LOOKBACKS = (1, 5, 15, 60, 240, 1440)
RANGES = (60, 1440)
DAY_ROWS = 1441


@dataclass(slots=True)
class Reversion:
    """AR(1) fit of the residual level: X[t+1] = a + b X[t] + e. Arrays [..., N], except moments as `Moments` keeps them."""

    mean_x: Floats
    mean_y: Floats
    var_x: Floats
    var_y: Floats
    cov: Floats
    level: Floats
    rows: Floats


@dataclass(slots=True)
class MinuteView:
    """All that the columns are made of; arrays [..., N], `past` [..., N + 1] with the market last."""

    mean: dict[str, Floats]
    volume_var: Floats
    volume_last: Floats
    volume_base: Floats
    volume_notional: Floats
    """Quote notional of the last minute."""
    level: dict[str, Floats]
    past: dict[int, Floats]
    ranges: dict[int, tuple[Floats, Floats]]
    log_close: Floats
    market_return: Floats
    reversion: Reversion
    count: Floats
    default: Floats
    """Deviation of a minute to fall back on, [..., N]."""


class MinutePanel:
    """Streaming state of N symbols; `push` takes one closed row of minute bars. `version` grows with each."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.version = 0
        self.time = 0
        self.count = np.zeros(width)
        self.log_close = np.full(width, np.nan)
        self._last = np.zeros(width, dtype=np.int64)
        self._mean = Moments(SERIES_ALPHA, width)
        self._level = Moments(LEVEL_ALPHA, width)
        self._score = np.zeros(width)
        self._volume = np.zeros(width)
        self._inputs = np.zeros((len(SERIES), width))
        self._residual = np.zeros(width)
        self._fit = np.zeros((5, width))
        self._fit_weight = np.zeros(width)
        self._fit_rows = np.zeros(width)
        self._index = 0.0
        self._market_return = 0.0
        self._track = Track(DAY_ROWS, 3 * width + 1)

    # -- facts -----------------------------------------------------------------------------------------------------

    def push(self, time: int, close: Floats, high: Floats, low: Floats, volume: Floats, seen: Flags) -> None:
        """Take the bars that closed at `time`: [N] prices, volume in base units; only where `seen`. Later than all before."""
        before = self._last > 0
        steps = np.where(before, (time - self._last) / MINUTE, 1.0)
        log = np.where(seen, np.log(np.where(seen, close, 1.0)), self.log_close)
        moved = seen & before
        even = bool(seen.all()) and bool((steps == 1.0).all())
        self._level.push(known(log), None if even else steps, None if even else seen)
        if moved.any():
            self._returns(log, close, high, low, volume, steps, moved, even)
        self.log_close = log
        self._last = np.where(seen, time, self._last)
        self.count += np.where(moved, steps, 0.0)
        self._volume = np.where(seen, volume * close, 0.0)
        highs = np.where(seen, np.log(np.where(seen, high, 1.0)), known(log))
        lows = np.where(seen, np.log(np.where(seen, low, 1.0)), known(log))
        self._track.append(time, np.concatenate([log, highs, lows, [self._index]]))
        self.time = time
        self.version += 1

    def _returns(
        self, log: Floats, close: Floats, high: Floats, low: Floats, volume: Floats, steps: Floats, moved: Flags, even: bool
    ) -> None:
        moves = np.where(moved, log - np.where(moved, self.log_close, log), 0.0)
        number = moved.sum()
        self._market_return = float(moves.sum() / number)
        self._index += self._market_return
        root = np.sqrt(steps)
        market = others(moves, moved)
        deviation = volatility(self._mean.mean[1], self.count, VOLATILITY_1M)
        inputs, score = series(
            moves / root, market / root, self._score, deviation,
            np.log(np.where(moved, high / low, 1.0)) / root, np.where(moved, volume * close, 0.0) / steps, self._market_return,
        )  # fmt: skip
        beta = beta_of(self._mean.mean[8], self._mean.mean[9], self.count, 120.0)
        self._inputs, self._score = inputs, np.where(moved, score, self._score)
        self._mean.push(inputs, None if even else steps, None if even else moved)
        self._revert(np.where(moved, moves - beta * market, 0.0), moved)

    def _revert(self, residual: Floats, moved: Flags) -> None:
        """One more pair (X[t], X[t+1]) of the cumulated residual."""
        before, after = self._residual, self._residual + residual
        self._fit_weight += np.where(moved, REVERSION_ALPHA * (1.0 - self._fit_weight), 0.0)
        gain = np.where(moved, REVERSION_ALPHA / np.maximum(self._fit_weight, 1e-300), 0.0)
        mean_x, mean_y, var_x, var_y, cov = self._fit
        delta_x, delta_y, left = before - mean_x, after - mean_y, 1.0 - gain
        mean_x += gain * delta_x
        mean_y += gain * delta_y
        var_x += gain * (left * delta_x * delta_x - var_x)
        var_y += gain * (left * delta_y * delta_y - var_y)
        cov += gain * (left * delta_x * delta_y - cov)
        self._residual = after
        self._fit_rows += moved

    # -- questions -------------------------------------------------------------------------------------------------

    def columns(self, volatility_1h: Floats) -> Floats:
        """float64 [N, MINUTE_COLUMNS]; `volatility_1h` [N] stands in while there are few minutes."""
        return columns(self.view(volatility_1h))

    def volatility_1m(self, volatility_1h: Floats) -> Floats:
        """Deviation of one-minute log returns, [N]."""
        return drawn(self._mean.mean[1], self.count, volatility_1h / 60**0.5)

    def view(self, volatility_1h: Floats) -> MinuteView:
        width = self.width
        now = np.append(self.log_close, self._index)
        past, ranges = {}, {}
        for minutes in LOOKBACKS:
            row = self._track.at(self.time - minutes * MINUTE, self.time - 2 * minutes * MINUTE)
            past[minutes] = np.full(width + 1, np.nan) if row is None else now - np.append(row[:width], row[-1])
        for minutes in RANGES:
            rows = self._track.after(self.time - minutes * MINUTE)
            if len(rows):
                ranges[minutes] = (rows[:, width : 2 * width].max(0), rows[:, 2 * width : 3 * width].min(0))
            else:
                ranges[minutes] = (known(self.log_close), known(self.log_close))
        fit: tuple[Floats, Floats, Floats, Floats, Floats] = tuple(self._fit)  # type: ignore[assignment]  # five rows
        return MinuteView(
            mean=dict(zip(NAMES, self._mean.mean, strict=True)), volume_var=self._mean.var[5], volume_last=self._inputs[5],
            volume_base=self._mean.mean[5], volume_notional=self._volume,
            level=dict(zip(LEVELS, self._level.mean, strict=True)), past=past, ranges=ranges, log_close=known(self.log_close),
            market_return=np.array([self._market_return]), reversion=Reversion(*fit, level=self._residual, rows=self._fit_rows),
            count=self.count, default=volatility_1h / 60**0.5,
        )  # fmt: skip


def others(moves: Floats, moved: Flags) -> Floats:
    """Mean move of all other symbols, [..., N]; 0 for a symbol on its own, so that its residual is its own return."""
    number = moved.sum(-1, keepdims=True) - moved
    total = moves.sum(-1, keepdims=True) - moves
    return np.where(number > 0, total / np.maximum(number, 1), 0.0)


def series(
    returns: Floats, market: Floats, last_score: Floats, deviation: Floats, width: Floats, notional: Floats, common: Floats | float
) -> tuple[Floats, Floats]:
    """What is averaged, [series, ..., N], and the standardised returns. `width` is log(high / low); all per sqrt(minute)."""
    score = np.clip(returns / deviation, -CLIP, CLIP)
    square, log_volume = returns * returns, np.log1p(notional)
    rows = (
        square, square, square, width * width / (4 * np.log(2.0)), score * last_score, log_volume, log_volume, log_volume,
        returns * market, market * market, common * common * np.ones_like(returns),
    )  # fmt: skip
    return np.stack(rows), score


def drawn(mean_square: Floats, rows: Floats, default: Floats) -> Floats:
    """Deviation per minute, drawn towards [N] defaults while there are few rows, never below a hundredth of the usual one."""
    result: Floats = np.maximum(np.sqrt((mean_square * rows + 10.0 * default * default) / (rows + 10.0)), 0.01 * VOLATILITY_1M)
    return result


def reversion(fit: Reversion) -> tuple[Floats, Floats, Floats, Floats]:
    """(kappa per minute, X - mu, sigma per sqrt(minute), s-score): Avellaneda & Lee (2010), appendix A.

    The slope is corrected for its small-sample bias (Kendall 1954: E[b] - b = -(1 + 3 b) / n), so that a random walk mostly
    shows no reversion; where none is left, kappa, gap and score are 0.
    """
    rows = np.minimum(fit.rows, REVERSION_ROWS)
    usable = (fit.rows >= LEAST_ROWS) & (fit.var_x > 1e-18)
    slope = np.where(usable, fit.cov / np.maximum(fit.var_x, 1e-300), 1.0)
    innovation = np.sqrt(np.maximum(fit.var_y - slope * fit.cov, 0.0))
    slope = slope + (1.0 + 3.0 * slope) / np.maximum(rows, 1.0)
    reverts = usable & (slope > 0.05) & (slope < 0.9999)
    slope = np.where(reverts, slope, 0.5)
    kappa = -np.log(slope)
    mu = (fit.mean_y - slope * fit.mean_x) / (1.0 - slope)
    sigma = innovation * np.sqrt(2.0 * kappa / (1.0 - slope * slope))
    gap = fit.level - mu
    spread = np.maximum(sigma / np.sqrt(2.0 * kappa), 1e-9)
    neutral = np.zeros_like(kappa)
    return (
        np.where(reverts, kappa, neutral), np.where(reverts, gap, neutral), np.where(reverts, sigma, innovation),
        np.where(reverts, np.clip(gap / spread, -8.0, 8.0), neutral),
    )  # fmt: skip


def columns(view: MinuteView) -> Floats:
    """float64 [..., N, MINUTE_COLUMNS], finite. `volume_1m_notional` is in quote here; the observation divides it by equity."""
    mean, count = view.mean, view.count
    active = count > 0
    one = drawn(mean["square"], count, view.default)
    fast, slow = (drawn(mean[name], count, view.default) for name in ("square_fast", "square_slow"))
    kappa, gap, sigma, score = reversion(view.reversion)
    scaled = {m: known(past[..., :-1]) / (one * np.sqrt(m)) for m, past in view.past.items()}
    market_deviation = drawn(
        mean["market_square_fast"].max(-1, keepdims=True), count.max(-1, keepdims=True), view.default.mean(-1, keepdims=True)
    )
    market = {m: known(past[..., -1:]) / (market_deviation * np.sqrt(m)) for m, past in view.past.items()}
    distance = {
        name: np.where(active, view.log_close - level, 0.0) / (one * np.sqrt(LEVELS[name])) for name, level in view.level.items()
    }
    place = {}
    for minutes, (high, low) in view.ranges.items():
        width = high - low
        place[minutes] = np.where(width > 0, np.clip((view.log_close - low) / np.maximum(width, 1e-12), 0.0, 1.0) - 0.5, 0.0)
    result = (
        kappa, gap, np.where(sigma > 0, sigma, one), score, np.where(kappa > 0, np.log(2.0) / np.maximum(kappa, 1e-6) / 60.0, 0.0),
        one, fast, slow, np.log(fast / slow), np.sqrt(mean["range"]),
        *(scaled[minutes] for minutes in LOOKBACKS),
        np.log1p(view.volume_notional), view.volume_notional,
        np.where(active, (view.volume_last - view.volume_base) / np.sqrt(view.volume_var + 0.05), 0.0),
        mean["volume_fast"] - mean["volume_slow"], mean["lagged"],
        distance["ema_5m"], distance["ema_60m"], distance["ema_240m"], place[60], place[1440],
        beta_of(mean["product"], mean["market_square"], count, 120.0), market[1], market[15], market_deviation,
        *ranks(np.stack([scaled[15], scaled[60]]), active),
    )  # fmt: skip
    return stacked(result, view.log_close)
