"""Rules that an agent has to beat: they learn nothing and pay the same costs. History in, target weights by bar out.

Row t of a path, float64 [T, N], is decided at the close of bar t from candles up to and including t. Weights are fractions of equity;
what they leave of 1 is cash.
"""

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from agents.core.errors import ConfigError, DataError
from agents.desk.long_term import LongTerm, LongTermParams
from agents.desk.priors import HOURS_PER_YEAR, bend, column, horizon_weights, unit_weight
from agents.desk.short_term import ShortTerm, ShortTermParams
from agents.desk.wishes import LONG_TERM, SHORT_TERM
from agents.market.batch import minute_history
from agents.market.columns import HOUR_COLUMNS, MINUTE_COLUMNS, SPECS
from agents.market.features import DAY, MINUTE, VOLATILITY_1H
from agents.market.history import CandleHistory
from agents.market.observation import Observation

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

VOLATILITY_DAYS = 30
TREND = LongTermParams()
"""The default prior; the classic alternative is LongTermParams(prior="sign")."""
REVERSION = ShortTermParams()


def cash(history: CandleHistory) -> Floats:
    """Nothing, ever."""
    return np.zeros_like(history.close)


def buy_and_hold(history: CandleHistory, start: int = 0, gross: float = 1.0) -> Floats:
    """Equal parts of what is listed at `start`, never traded again."""
    moments = np.zeros(len(history.times), dtype=bool)
    moments[start] = True
    return held(history, _equal(history.listed, gross), moments)


def equal_weight(history: CandleHistory, start: int = 0, gross: float = 1.0) -> Floats:
    """Equal parts of what is listed, restored at each midnight UTC (DeMiguel, Garlappi, Uppal 2009)."""
    return held(history, _equal(history.listed, gross), midnights(history, start))


def inverse_volatility(history: CandleHistory, start: int = 0, gross: float = 1.0, days: int = VOLATILITY_DAYS) -> Floats:
    """Parts in inverse proportion to the volatility of the last `days`, restored at each midnight UTC.

    A symbol takes part once it has a third of the window; until one has, nothing is held.
    """
    window = max(round(days * DAY / history.length), 2)
    moves = history.returns()
    known = history.listed & (np.cumsum(history.listed, axis=0) > 1)
    count = _trailing(known.astype(np.float64), window)
    mean = _trailing(moves, window) / np.maximum(count, 1.0)
    spread = np.sqrt(np.maximum(_trailing(moves * moves, window) / np.maximum(count, 1.0) - mean * mean, 0.0))
    taking_part = history.listed & (count >= window / 3.0) & (spread > 0)
    parts = np.where(taking_part, 1.0 / np.maximum(spread, 1e-12), 0.0)
    total = parts.sum(axis=1, keepdims=True)
    return held(history, gross * np.divide(parts, total, out=np.zeros_like(parts), where=total > 0), midnights(history, start))


def long_term_prior(
    history: CandleHistory, features: npt.NDArray[np.float32], params: LongTermParams = TREND
) -> Floats:
    """What the long-term agent wishes at action 0, signed and not yet limited; `features` are HOUR_COLUMNS [T, N, columns].

    The agent's own prior and maps, over all bars and symbols as rows of one observation; what is not listed is not wished.
    """
    rows, width = history.close.shape
    if features.shape != (rows, width, len(HOUR_COLUMNS)):
        raise ConfigError(f"features of shape {features.shape} do not belong to a history of {rows} bars and {width} symbols")
    matrix = np.zeros((rows * width, SPECS[LONG_TERM].size), dtype=np.float32)
    matrix[:, : len(HOUR_COLUMNS)] = features.reshape(rows * width, -1)
    seen = Observation(LONG_TERM, (), 0, matrix)
    none = np.zeros(rows * width)
    exposure = bend(LongTerm(params).prior(seen, horizon_weights(none, params.horizon_tilt)), none)
    deviation = column(seen, "volatility_1h", 0.0, 10.0) * np.sqrt(HOURS_PER_YEAR)
    unit = unit_weight(deviation, column(seen, "effective_bets", 1.0, 1e4), params.volatility_target, 0.0, params.weight_cap)
    return np.where(history.listed, (exposure * unit).reshape(rows, width), 0.0)


def short_term_prior(
    history: CandleHistory, fee: float, half_spread: float, params: ShortTermParams = REVERSION, volatility_1h: float = VOLATILITY_1H
) -> Floats:
    """What the short-term agent wishes at action 0 around a long-term weight of 0, signed, [T, N], on complete minute candles.

    `fee` and `half_spread` are fractions: what the prior must expect to earn back. A spot account can follow the positive part alone.
    """
    if history.length != MINUTE or not history.listed.all():
        raise DataError(f"the short-term prior needs complete candles of a minute, these are {history.timeframe}; cut to where all are listed")
    rows, width = history.close.shape
    known = minute_history(history.close, history.high, history.low, history.volume, np.full(width, volatility_1h))
    matrix = np.zeros((rows * width, SPECS[SHORT_TERM].size), dtype=np.float32)
    place = SPECS[SHORT_TERM].index
    for number, name in enumerate(MINUTE_COLUMNS):
        if name in place:
            matrix[:, place[name]] = known[..., number].reshape(-1)
    matrix[:, place["maker_fee"]], matrix[:, place["half_spread"]] = fee, half_spread
    seen, agent = Observation(SHORT_TERM, (), 0, matrix), ShortTerm(params)
    band = agent.band(seen)
    path: Floats = (bend(agent.prior(seen, band), np.zeros(rows * width)) * band).reshape(rows, width)
    return path


BASELINES: Mapping[str, Callable[[CandleHistory, int], Floats]] = {
    "buy_and_hold": buy_and_hold,
    "equal_weight": equal_weight,
    "inverse_volatility": inverse_volatility,
}
"""By name: (history, first row) to a path that holds nothing before that row."""


def held(history: CandleHistory, targets: Floats, moments: Flags) -> Floats:
    """Weights that follow `targets` [T, N] at the rows `moments` and are left alone in between, drifting with the prices.

    Following a drifting path costs nothing; before the first of the moments nothing is held.
    """
    rows = np.arange(len(history.times))
    last = np.maximum.accumulate(np.where(moments, rows, -1))
    since = np.maximum(last, 0)
    before = history.marks[since]
    gained = np.divide(history.marks, before, out=np.ones_like(before), where=~np.isnan(before))
    value = np.where((last >= 0)[:, None], targets[since] * gained, 0.0)
    wealth = value.sum(axis=1) + 1.0 - np.where(last >= 0, targets[since].sum(axis=1), 0.0)
    drifted: Floats = value / np.maximum(wealth, 1e-9)[:, None]
    return drifted


def midnights(history: CandleHistory, start: int = 0) -> Flags:
    """bool [T]: rows from `start` on that close on or as the first after midnight UTC, and `start` itself."""
    flags: Flags = np.diff(history.closings // DAY, prepend=-1) > 0
    flags[:start], flags[start] = False, True
    return flags


def _equal(listed: Flags, gross: float) -> Floats:
    count = listed.sum(axis=1, keepdims=True)
    return np.where(listed, gross / np.maximum(count, 1), 0.0)


def _trailing(values: Floats, window: int) -> Floats:
    """Sum over the last `window` rows, fewer at the start."""
    total: Floats = np.cumsum(values, axis=0)
    total[window:] -= total[:-window].copy()
    return total
