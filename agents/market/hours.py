"""Features out of bars of an hour and longer, all symbols at once: trend, risk, cross-section, the common factor."""

from dataclasses import dataclass

import numpy as np

from agents.market.features import (
    CLIP,
    DAY,
    HOUR,
    VOLATILITY_1H,
    Flags,
    Floats,
    Track,
    correlation,
    effective_bets,
    half_lives,
    known,
    ranks,
    stacked,
    volatility,
)  # fmt: skip
from agents.market.moments import Moments

# Baz, Granger, Harvey, Le Roux, Rattray: Dissecting Investment Strategies in the Cross Section and Time Series (2015), section 3:
# EMAs of n days decay by (1 - 1/n) a day; windows of 63 and 252 days become exponential ones with the same centre of mass.
TREND_DAYS = ((8, 24), (16, 48), (32, 96))
TREND_SPREAD = np.array([0.63, 0.89, 1.25])
"""Deviation of the EMA difference over the price's deviation for a random walk: what the second normalisation starts from."""
LEVELS = ("ema_8", "ema_16", "ema_32", "ema_24", "ema_48", "ema_96", "price", "ema_1")
LEVEL_ALPHA = np.array([*(1 - (1 - 1 / n) ** (1 / 24) for n in (8, 16, 32, 24, 48, 96)), 2 / (63 * 24 + 1), 2 / 25])
TREND_ALPHA = np.full(3, 2 / (252 * 24 + 1))
SERIES = {
    "square_fast": 12, "square": 72, "square_slow": 720, "range": 72, "true_range": 9.35, "up": 9.35, "down": 9.35,
    "cube": 168, "fourth": 168, "down_square": 168, "square_week": 168, "lagged": 168,
    "volume": 168, "volume_day": 24, "volume_month": 720, "illiquidity": 168,
    "product": 336, "market_square": 336, "square_fortnight": 336, "market_square_fast": 72, "dispersion": 24,
}  # fmt: skip
"""Averaged series and their half-lives in hours; 9.35 is Wilder's 14."""
NAMES = tuple(SERIES)
SERIES_ALPHA = half_lives(SERIES.values())
PRODUCT_ALPHA = float(half_lives([336])[0])
LOOKBACKS = {"1h": 1, "4h": 4, "1d": 24, "7d": 168}
LONG_LOOKBACKS = {"30d": 30, "90d": 90, "365d": 365}
HISTORY_HOURS = 90 * 24


@dataclass(slots=True)
class HourView:
    """All that the columns are made of. Arrays are [..., N]; `past` holds log returns, N + 1 wide with the market last."""

    level: dict[str, Floats]
    price_var: Floats
    mean: dict[str, Floats]
    volume_var: Floats
    volume_last: Floats
    spread: Floats
    """[..., 3, N]: EMA difference over price deviation."""
    spread_var: Floats
    spread_weight: Floats
    past: dict[str, Floats]
    sign_12m: Floats
    log_close: Floats
    extremes: dict[str, Floats]
    market_return: Floats
    """[..., 1]."""
    products: Floats
    rows: Floats
    """[..., 1]: rows with a return in the matrix."""
    count: Floats


class HourPanel:
    """Streaming state of N symbols; `push` takes one closed row of bars. `version` grows with each."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.version = 0
        self.time = 0
        self.count = np.zeros(width)
        self.log_close = np.full(width, np.nan)
        self._last = np.zeros(width, dtype=np.int64)
        self._level = Moments(LEVEL_ALPHA, width)
        self._mean = Moments(SERIES_ALPHA, width)
        self._trend = Moments(TREND_ALPHA, width)
        self._spread = np.zeros((3, width))
        self._score = np.zeros(width)
        self._inputs = np.zeros((len(SERIES), width))
        self._products = np.zeros((width, width))
        self._product_weight = 0.0
        self._product_rows = 0
        self._index = 0.0
        self._market_return = 0.0
        self._hours = Track(200, width + 1)
        self._days = Track(372, 3 * width + 1)

    # -- facts -----------------------------------------------------------------------------------------------------

    def push(self, time: int, close: Floats, high: Floats, low: Floats, volume: Floats, seen: Flags) -> None:
        """Take the bars that closed at `time`: [N] prices, volume in base units; only where `seen`. Later than all before."""
        before = self._last > 0
        steps = np.where(before, (time - self._last) / HOUR, 1.0)
        log = np.where(seen, np.log(np.where(seen, close, 1.0)), self.log_close)
        moved = seen & before
        every = bool(seen.all())
        even = every and bool((steps == 1.0).all())
        self._level.push(close, None if even else steps, None if every else seen)
        if moved.any():
            self._returns(log, close, high, low, volume, steps, moved, even)
        self.log_close = log
        self._last = np.where(seen, time, self._last)
        self.count += np.where(moved, steps, 0.0)
        deviation = np.sqrt(self._level.var[6])
        self._spread = np.where(deviation > 0, (self._level.mean[:3] - self._level.mean[3:6]) / np.maximum(deviation, 1e-300), 0.0)
        self._trend.push(self._spread, None if even else steps, None if every else seen)
        self._record(time, high, low, seen)
        self.time = time
        self.version += 1

    def _returns(
        self, log: Floats, close: Floats, high: Floats, low: Floats, volume: Floats, steps: Floats, moved: Flags, even: bool
    ) -> None:
        root = np.sqrt(steps)
        moves = np.where(moved, log - np.where(moved, self.log_close, log), 0.0)
        number = moved.sum()
        self._index += float(moves.sum() / number)
        self._market_return = float(moves.sum() / number)
        returns = moves / root
        inputs, score = series(
            returns, self._score, volatility(self._mean.mean[1], self.count, VOLATILITY_1H), moved,
            np.where(moved, close, 1.0), np.where(moved, high, 1.0), np.where(moved, low, 1.0), np.exp(np.where(moved, self.log_close, 0.0)),
            np.where(moved, volume, 0.0) / steps, root,
        )  # fmt: skip
        self._inputs = inputs
        self._score = np.where(moved, score, self._score)
        everyone = bool(moved.all())
        self._mean.push(inputs, None if even else steps, None if everyone else moved)
        clipped = np.clip(returns, -CLIP * VOLATILITY_1H * 5, CLIP * VOLATILITY_1H * 5)
        decay = PRODUCT_ALPHA
        self._product_weight += decay * (1.0 - self._product_weight)
        self._products += decay / self._product_weight * (np.outer(clipped, clipped) - self._products)
        self._product_rows += 1

    def _record(self, time: int, high: Floats, low: Floats, seen: Flags) -> None:
        self._hours.append(time, np.append(self.log_close, self._index))
        end = -(-time // DAY) * DAY
        highs = np.where(seen, np.log(np.where(seen, high, 1.0)), -np.inf)
        lows = np.where(seen, np.log(np.where(seen, low, 1.0)), np.inf)
        if len(self._days) and self._days.times[-1] == end:
            row, width = self._days.values[-1], self.width
            row[:width] = self.log_close
            row[width : 2 * width] = np.maximum(row[width : 2 * width], highs)
            row[2 * width : 3 * width] = np.minimum(row[2 * width : 3 * width], lows)
            row[-1] = self._index
        else:
            self._days.append(end, np.concatenate([self.log_close, highs, lows, [self._index]]))

    # -- questions -------------------------------------------------------------------------------------------------

    def volatility_1h(self) -> Floats:
        """Deviation of hourly log returns, [N]; `VOLATILITY_1H` weighs in while there is little history."""
        return volatility(self._mean.mean[1], self.count, VOLATILITY_1H)

    def correlation(self) -> Floats:
        """Correlation of hourly returns, [N, N], positive semi-definite."""
        return correlation(self._products, float(self._product_rows))

    def columns(self) -> Floats:
        """float64 [N, HOUR_COLUMNS]."""
        return columns(self.view())

    def returns(self, rows: int) -> Floats:
        """Log returns of the last rows, at most `rows` and what the record holds (eight days), [rows, N]; 0 where unknown."""
        values = self._hours.values[-rows - 1 :, : self.width]
        return known(np.diff(values, axis=0))

    def view(self) -> HourView:
        past = {name: self._past(self._hours, self.time - hours * HOUR, hours * HOUR) for name, hours in LOOKBACKS.items()}
        past |= {name: self._past(self._days, self.time - days * DAY, 10 * DAY) for name, days in LONG_LOOKBACKS.items()}
        names, mean = zip(LEVELS, self._level.mean, strict=True), zip(NAMES, self._mean.mean, strict=True)
        return HourView(
            level=dict(names), price_var=self._level.var[6], mean=dict(mean), volume_var=self._mean.var[12],
            volume_last=self._inputs[12], spread=self._spread, spread_var=self._trend.var, spread_weight=self._trend.weight,
            past=past, sign_12m=self._sign_12m(past["365d"]), log_close=known(self.log_close), extremes=self._extremes(),
            market_return=np.array([self._market_return]), products=self._products, rows=np.array([float(self._product_rows)]),
            count=self.count,
        )  # fmt: skip

    def _past(self, track: Track, time: int, slack: int) -> Floats:
        """Log return since `time`, [N + 1]; NaN where the record does not reach back."""
        now = np.append(self.log_close, self._index)
        row = track.at(time, time - slack)
        if row is None:
            return np.full(self.width + 1, np.nan)
        then = np.append(row[: self.width], row[-1])
        result: Floats = now - then
        return result

    def _sign_12m(self, year: Floats) -> Floats:
        """Sign of the twelve-month return; of the longest one above 30 days while there is less."""
        result = np.sign(known(year[: self.width]))
        if not len(self._days):
            return result
        closes, times = self._days.values[:, : self.width], self._days.times
        old = times <= self.time - 30 * DAY
        if not old.any():
            return result
        there = ~np.isnan(closes[old])
        first = closes[old][there.argmax(0), np.arange(self.width)]
        partial = np.where(there.any(0), np.sign(known(self.log_close - first)), 0.0)
        return np.where(np.isnan(year[: self.width]), partial, result)

    def _extremes(self) -> dict[str, Floats]:
        width, result = self.width, {}
        for name, days in (("30d", 30), ("365d", 365)):
            rows = self._days.after(self.time - days * DAY)
            if not len(rows):
                result[f"high_{name}"] = result[f"low_{name}"] = known(self.log_close)
                continue
            high, low = rows[:, width : 2 * width].max(0), rows[:, 2 * width : 3 * width].min(0)
            result[f"high_{name}"] = np.where(np.isfinite(high), high, known(self.log_close))
            result[f"low_{name}"] = np.where(np.isfinite(low), low, known(self.log_close))
        return result


def series(
    returns: Floats, last_score: Floats, deviation: Floats, moved: Flags, close: Floats, high: Floats, low: Floats, before: Floats,
    volume: Floats, root: Floats,
) -> tuple[Floats, Floats]:  # fmt: skip
    """What is averaged, [series, ..., N], and the standardised returns [..., N]. `returns` are per sqrt(hour), `volume` per hour."""
    score = np.clip(returns / deviation, -CLIP, CLIP)
    square = returns * returns
    number = np.maximum(moved.sum(-1, keepdims=True), 1)
    market = np.where(moved, returns, 0.0).sum(-1, keepdims=True) / number
    spread = np.where(moved, returns - market, 0.0)
    dispersion = np.sqrt((spread * spread).sum(-1, keepdims=True) / number)
    notional = volume * close
    fourth = score * score
    true_range = (np.maximum(high, before) - np.minimum(low, before)) / close / root
    parkinson = np.log(high / low) ** 2 / (4 * np.log(2.0)) / (root * root)
    log_volume = np.log1p(notional)
    ones = np.ones_like(returns)
    rows = (
        square, square, square, parkinson, true_range, np.maximum(returns, 0.0), np.maximum(-returns, 0.0),
        score * fourth, fourth * fourth, np.where(returns < 0, square, 0.0), square, score * last_score,
        log_volume, log_volume, log_volume, np.abs(returns) / np.maximum(notional, 1.0) * 1e6,
        returns * market, market * market * ones, square, market * market * ones, dispersion * ones,
    )  # fmt: skip
    return np.stack(rows), score


def columns(view: HourView) -> Floats:
    """float64 [..., N, HOUR_COLUMNS], finite: what is not known yet is neutral."""
    mean, count = view.mean, view.count
    active = count > 0
    one_hour = volatility(mean["square"], count, VOLATILITY_1H)
    fast, slow = (volatility(mean[name], count, VOLATILITY_1H) for name in ("square_fast", "square_slow"))
    drawn = view.spread_weight * view.spread_var + (1 - view.spread_weight) * TREND_SPREAD[:, None] ** 2
    z = view.spread / np.sqrt(np.maximum(drawn, 1e-6))
    trend = z * np.exp(-z * z / 4) / 0.89
    hours = {**LOOKBACKS, **{name: days * 24 for name, days in LONG_LOOKBACKS.items()}}
    scaled = {n: known(p[..., :-1]) / (one_hour * np.sqrt(hours[n])) for n, p in view.past.items()}
    market_deviation = volatility(mean["market_square_fast"].max(-1, keepdims=True), count.max(-1, keepdims=True), VOLATILITY_1H)
    market = {n: known(p[..., -1:]) / (market_deviation * np.sqrt(hours[n])) for n, p in view.past.items()}
    beta = beta_of(mean["product"], mean["market_square"], count, 48.0)
    residual = np.maximum(mean["square_fortnight"] - 2 * beta * mean["product"] + beta * beta * mean["market_square"], 0.0)
    matrix = correlation(view.products, view.rows[..., 0])
    others = max(matrix.shape[-1] - 1, 1)
    tail = np.where(active, mean["fourth"] / 3.0 - 1.0, 0.0)
    place = {n: _place(view.log_close, view.extremes[f"high_{n}"], view.extremes[f"low_{n}"]) for n in ("30d", "365d")}
    close = np.exp(view.log_close)
    week = known(view.past["7d"][..., :-1])
    rising = (np.where(active, np.sign(week), 0.0)).sum(-1, keepdims=True) / np.maximum(active.sum(-1, keepdims=True), 1)
    volume_deviation = np.sqrt(view.volume_var + 0.05)
    ranked = ranks(
        np.stack([
            scaled["1d"], scaled["7d"], scaled["30d"], scaled["90d"], z[..., 1, :], one_hour,
            mean["volume_month"] * np.ones_like(one_hour),
        ]), active,
    )  # fmt: skip
    top = np.linalg.eigvalsh(matrix)[..., -1:] / matrix.shape[-1]
    result = (
        z[..., 0, :], z[..., 1, :], z[..., 2, :], trend[..., 0, :], trend[..., 1, :], trend[..., 2, :], view.sign_12m,
        scaled["1h"], scaled["4h"], scaled["1d"], scaled["7d"], scaled["30d"], scaled["90d"], scaled["365d"],
        *ranked,
        one_hour, fast, slow, np.log(fast / slow), np.sqrt(mean["range"]), mean["true_range"],
        mean["cube"], tail, np.where(active, mean["down_square"] / np.maximum(mean["square_week"], 1e-18) - 0.5, 0.0), mean["lagged"],
        view.log_close - view.extremes["high_30d"], view.log_close - view.extremes["high_365d"], place["30d"], place["365d"],
        _distance(close, view.level["ema_1"], one_hour, 24), _distance(close, view.level["ema_8"], one_hour, 192),
        np.where(active, _balance(mean["up"], mean["down"]), 0.0),
        np.where(active, (view.volume_last - mean["volume"]) / volume_deviation, 0.0), mean["volume_day"] - mean["volume_month"],
        np.log1p(mean["illiquidity"]),
        beta, np.sqrt(residual), (matrix.sum(-1) - 1.0) / others, view.market_return / market_deviation,
        market["1d"], market["7d"], market["30d"], market_deviation, rising, mean["dispersion"].max(-1, keepdims=True),
        effective_bets(matrix)[..., None], top, np.minimum(count / HISTORY_HOURS, 1.0),
    )  # fmt: skip
    return stacked(result, view.log_close)


def beta_of(product: Floats, square: Floats, count: Floats, prior_rows: float) -> Floats:
    """Slope on the market, drawn towards 1 while there are few rows, within [-1, 4]."""
    share = count / (count + prior_rows)
    sample = product / np.maximum(square, 1e-18)
    result: Floats = np.clip(np.where(square > 0, share * sample + (1 - share), 1.0), -1.0, 4.0)
    return result


def _place(log: Floats, high: Floats, low: Floats) -> Floats:
    """Where the price stands in its range, [-.5, .5]."""
    width = high - low
    return np.where(width > 0, np.clip((log - low) / np.maximum(width, 1e-12), 0.0, 1.0) - 0.5, 0.0)


def _distance(close: Floats, ema: Floats, deviation: Floats, hours: float) -> Floats:
    """Log distance from an average over the deviation of its span."""
    distance: Floats = np.where(ema > 0, np.log(close / np.where(ema > 0, ema, 1.0)), 0.0) / (deviation * np.sqrt(hours))
    return distance


def _balance(up: Floats, down: Floats) -> Floats:
    """Wilder's RSI, moved to [-.5, .5]."""
    total = up + down
    return np.where(total > 0, up / np.maximum(total, 1e-300) - 0.5, 0.0)
