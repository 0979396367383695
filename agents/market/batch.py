"""The bar features over a whole history at once: for training, and the second opinion on the streaming ones.

Histories are complete and regular: every symbol has a bar in every row. Numbers equal those of `HourPanel` and `MinutePanel`
after each row, to rounding, as long as their records reach back.
"""

import numpy as np

from agents.market import hours, minutes
from agents.market.features import CLIP, DAY, HOUR, VOLATILITY_1H, Floats, Times, volatility
from agents.market.hours import HourView
from agents.market.minutes import MinuteView, Reversion
from agents.market.moments import history, weighted_sums


def hour_history(times: Times, close: Floats, high: Floats, low: Floats, volume: Floats) -> Floats:
    """HOUR_COLUMNS after each row, float64 [T, N, columns]. `times` [T] are closings an hour apart, the rest [T, N]."""
    log, rows = np.log(close), np.arange(len(close), dtype=np.float64)[:, None]
    level = {name: history(close, alpha) for name, alpha in zip(hours.LEVELS, hours.LEVEL_ALPHA, strict=True)}
    deviation = np.sqrt(level["price"][1])[:, None, :]
    fast = np.stack([level[name][0] for name in hours.LEVELS[:3]], axis=1)
    slow = np.stack([level[name][0] for name in hours.LEVELS[3:6]], axis=1)
    spread = np.where(deviation > 0, (fast - slow) / np.maximum(deviation, 1e-300), 0.0)
    alpha = float(hours.TREND_ALPHA[0])
    weight = (1.0 - (1.0 - alpha) ** (rows + 1.0))[:, :, None] * np.ones_like(spread)

    moves = np.diff(log, axis=0)
    square = _after_none(history(moves * moves, float(hours.SERIES_ALPHA[1]))[0])
    known = volatility(square[:-1], rows[:-1], VOLATILITY_1H)
    score = np.clip(moves / known, -CLIP, CLIP)
    everyone = np.ones(moves.shape, dtype=bool)
    inputs, _ = hours.series(
        moves, _after_none(score[:-1]), known, everyone, close[1:], high[1:], low[1:], close[:-1], volume[1:], np.ones_like(moves)
    )
    moments = {name: history(inputs[n], float(hours.SERIES_ALPHA[n])) for n, name in enumerate(hours.NAMES)}
    clipped = np.clip(moves, -CLIP * VOLATILITY_1H * 5, CLIP * VOLATILITY_1H * 5)
    products = history(clipped[:, :, None] * clipped[:, None, :], hours.PRODUCT_ALPHA)[0]
    index = _after_none(np.cumsum(moves.mean(1)))
    wide = np.column_stack([log, index])
    past = {name: _since(wide, rows[:, 0] - back) for name, back in hours.LOOKBACKS.items()}
    midnight = times // DAY * DAY
    first_day = -(-times[0] // DAY) * DAY
    for name, days in hours.LONG_LOOKBACKS.items():
        target = midnight - days * DAY
        past[name] = _since(wide, np.where(target >= first_day, (target - times[0]) / HOUR, -1.0))
    year = past["365d"][:, :-1]
    oldest = log[int((first_day - times[0]) // HOUR)] if times[-1] >= first_day else log[0]
    partial = np.where((times - 30 * DAY >= first_day)[:, None], np.sign(log - oldest), 0.0)
    return hours.columns(HourView(
        level={name: pair[0] for name, pair in level.items()}, price_var=level["price"][1],
        mean={name: _after_none(pair[0]) for name, pair in moments.items()}, volume_var=_after_none(moments["volume"][1]),
        volume_last=_after_none(inputs[12]), spread=spread, spread_var=history(spread, alpha)[1], spread_weight=weight,
        past=past, sign_12m=np.where(np.isnan(year), partial, np.sign(year)), log_close=log,
        extremes=_extremes(times, np.log(high), np.log(low)), market_return=_after_none(moves.mean(1, keepdims=True)),
        products=_after_none(products), rows=rows, count=rows * np.ones_like(log),
    ))  # fmt: skip


def minute_history(close: Floats, high: Floats, low: Floats, volume: Floats, volatility_1h: Floats) -> Floats:
    """MINUTE_COLUMNS after each row, float64 [T, N, columns], of minute bars [T, N]; `volatility_1h` [N] is the fall-back."""
    log, rows = np.log(close), np.arange(len(close), dtype=np.float64)[:, None]
    moves = np.diff(log, axis=0)
    everyone = np.ones(moves.shape, dtype=bool)
    market = minutes.others(moves, everyone)
    square = _after_none(history(moves * moves, float(minutes.SERIES_ALPHA[1]))[0])
    known = volatility(square[:-1], rows[:-1], minutes.VOLATILITY_1M)
    score = np.clip(moves / known, -CLIP, CLIP)
    inputs, _ = minutes.series(
        moves, market, _after_none(score[:-1]), known, np.log(high[1:] / low[1:]), volume[1:] * close[1:], moves.mean(1, keepdims=True)
    )
    moments = {name: history(inputs[n], float(minutes.SERIES_ALPHA[n])) for n, name in enumerate(minutes.NAMES)}
    mean = {name: _after_none(pair[0]) for name, pair in moments.items()}
    beta = hours.beta_of(mean["product"][:-1], mean["market_square"][:-1], rows[:-1] * np.ones_like(moves), 120.0)
    level = _after_none(np.cumsum(moves - beta * market, axis=0))
    default = np.broadcast_to(volatility_1h / 60**0.5, log.shape)
    wide = np.column_stack([log, _after_none(np.cumsum(moves.mean(1)))])
    return minutes.columns(MinuteView(
        mean=mean, volume_var=_after_none(moments["volume"][1]), volume_last=_after_none(inputs[5]), volume_base=mean["volume"],
        volume_notional=volume * close,
        level={n: history(log, float(a))[0] for n, a in zip(minutes.LEVELS, minutes.LEVEL_ALPHA, strict=True)},
        past={back: _since(wide, rows[:, 0] - back) for back in minutes.LOOKBACKS},
        ranges={m: (_rolling(np.log(high), m), -_rolling(-np.log(low), m)) for m in minutes.RANGES}, log_close=log,
        market_return=_after_none(moves.mean(1, keepdims=True)), reversion=_reversion(level, rows), count=rows * np.ones_like(log),
        default=default,
    ))  # fmt: skip


def _reversion(level: Floats, rows: Floats) -> Reversion:
    alpha = minutes.REVERSION_ALPHA
    x, y = level[:-1], level[1:]
    mean_x, var_x = history(x, alpha)
    mean_y, var_y = history(y, alpha)
    before = np.concatenate([x[:1], mean_x[:-1]])
    weight = 1.0 - (1.0 - alpha) ** np.arange(1, len(x) + 1)[:, None]
    cov = weighted_sums((x - before) * (y - mean_y), alpha) / weight
    return Reversion(
        mean_x=_after_none(mean_x), mean_y=_after_none(mean_y), var_x=_after_none(var_x), var_y=_after_none(var_y),
        cov=_after_none(cov), level=level, rows=rows * np.ones_like(level),
    )  # fmt: skip


def _after_none(values: Floats) -> Floats:
    """A first row of zeros: before the first return there was nothing."""
    return np.concatenate([np.zeros((1, *values.shape[1:])), values])


def _since(wide: Floats, rows: Floats) -> Floats:
    """Log return of each row since row number `rows` [T]; NaN where that is before the first."""
    place = rows.astype(np.intp)
    return np.where((place >= 0)[:, None], wide - wide[np.maximum(place, 0)], np.nan)


def _rolling(values: Floats, width: int) -> Floats:
    """Maximum over the last `width` rows, fewer at the start."""
    padded = np.concatenate([np.full((width - 1, *values.shape[1:]), -np.inf), values])
    result: Floats = np.lib.stride_tricks.sliding_window_view(padded, width, axis=0).max(-1)
    return result


def _extremes(times: Times, high: Floats, low: Floats) -> dict[str, Floats]:
    """Highest and lowest log price over the days that a look-back touches, the day under way included."""
    result = {}
    day = -(-times // DAY)
    number = (day - day[0]).astype(np.intp)
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    for name, days in (("30d", 30), ("365d", 365)):
        for label, values in (("high", high), ("low", -low)):
            daily = np.maximum.reduceat(values, starts, axis=0)
            running = np.concatenate([np.maximum.accumulate(part, axis=0) for part in np.split(values, starts[1:])])
            padded = np.concatenate([np.full((days, *values.shape[1:]), -np.inf), daily])
            at_midnight = times % DAY == 0  # the day ends here, so one day fewer lies behind
            for back, rows in ((days, ~at_midnight), (days - 1, at_midnight)):
                window = np.lib.stride_tricks.sliding_window_view(padded[days - back :], back, axis=0)[: len(daily)].max(-1)
                running[rows] = np.maximum(running[rows], window[number[rows]])
            result[f"{label}_{name}"] = running if label == "high" else -running
    return result
