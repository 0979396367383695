"""What limits on risk are measured with: scenarios, shrunk covariance and clusters, out of the bars that have closed.

A pure function of the market's facts: renewed when a bar closes (scenarios) and when a day closes (covariance, clusters), so that a
replay measures the same. What is not known is made up conservatively, see `complete`; nothing here widens a limit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from agents.core.instruments import TIMEFRAMES, Symbol
from agents.desk.clusters import clusters, correlation_of, load, shrunk_covariance
from agents.desk.question import Integers
from agents.desk.tail import Floats, Quantile, Tail, quantile_multiple
from agents.market.features import DAY, VOLATILITY_1H, VOLATILITY_FLOOR_1H
from agents.market.state import MarketState

LENGTHS = ("1h", "4h", "1d")
"""Bars that scenarios are made of: hours where there are any, else what there is."""
LEAST_ROWS = 48
"""Returns that a symbol must have shown before its own history counts: two days of hours."""
STRANGER = 1.5
"""How much wilder than the wildest known symbol an unknown one is taken to be."""


@dataclass(frozen=True, slots=True)
class RiskParams:
    """What is measured. All optional parts are None where no limit asks for them."""

    rows: int = 250
    """Scenarios: the last so many bars."""
    tail_level: float | None = None
    quantile_level: float | None = None
    cornish_fisher: bool = False
    cluster_correlation: float | None = None


@dataclass(frozen=True, slots=True)
class Measures:
    """The measures for one tuple of symbols; parts that nobody asked for are None."""

    tail: Tail | None = None
    quantile: Quantile | None = None
    groups: Integers | None = None
    covariance: Floats | None = None
    strangers: tuple[bool, ...] = ()
    """Whose own history is too short or too still to count."""


class RiskModel:
    """Keeps the measures for the symbols last asked for until the market's bars say something new."""

    def __init__(self) -> None:
        self._kind: object = None
        self._key: object = None
        self._slow_key: object = None
        self._closed = 0
        self._measures = Measures()

    @staticmethod
    def prepare(params: RiskParams) -> None:
        """Import what measuring will need: a second or two now, not at the first decision."""
        if params.quantile_level is not None or params.cluster_correlation is not None:
            load()

    def measures(self, market: MarketState, symbols: Sequence[Symbol], params: RiskParams) -> Measures:
        """The measures as of the last closed bar; arrays follow the order of `symbols`, those not followed count as strangers."""
        if not symbols or (params.tail_level is None and params.quantile_level is None and params.cluster_correlation is None):
            return Measures()
        timeframe = finest(market, symbols)
        closed = market.closed(timeframe)
        rows = sum(len(market.bars(s)[timeframe]) for s in symbols if s in market.symbols)  # history may come late
        kind, key = (tuple(symbols), params, timeframe, market.rebuilds), (closed, rows)
        if (kind, key) != (self._kind, self._key):
            self._renew(market, tuple(symbols), params, timeframe, closed, same=kind == self._kind)
            self._kind, self._key, self._closed = kind, key, closed
        return self._measures

    def _renew(self, market: MarketState, symbols: tuple[Symbol, ...], params: RiskParams, timeframe: str, closed: int, same: bool) -> None:
        length, old = TIMEFRAMES[timeframe], self._measures
        scenarios, strangers = complete(returns(market, symbols, timeframe, params.rows), length)
        tail = None
        if params.tail_level is not None:
            tail = Tail(scenarios, 1.0 - params.tail_level)
            if same and old.tail is not None:
                tail.inherit(old.tail, (closed - self._closed) // length)
        slow_key = (symbols, params, timeframe, closed // DAY, market.rebuilds, strangers)
        quantile, groups, covariance = old.quantile, old.groups, old.covariance
        if slow_key != self._slow_key:
            self._slow_key = slow_key
            quantile, groups, covariance = matrices(scenarios, params)
        self._measures = Measures(tail, quantile, groups, covariance, strangers)


def finest(market: MarketState, symbols: Sequence[Symbol]) -> str:
    """The timeframe of scenarios: hours, unless no symbol has enough of them and some have enough longer bars."""
    for timeframe in LENGTHS:
        if any(s in market.symbols and len(market.bars(s)[timeframe]) > LEAST_ROWS for s in symbols):
            return timeframe
    return LENGTHS[0]


def matrices(scenarios: Floats, params: RiskParams) -> tuple[Quantile | None, Integers | None, Floats | None]:
    """(quantile, clusters, covariance) of scenarios [S, n], as far as they are asked for. Drift is taken to be nothing: over such
    spans it is noise, and an estimate above zero would widen the limit."""
    if params.quantile_level is None and params.cluster_correlation is None:
        return None, None, None
    covariance = shrunk_covariance(scenarios)
    quantile, groups = None, None
    if params.quantile_level is not None:
        multiple = quantile_multiple(params.quantile_level, *(moments(scenarios) if params.cornish_fisher else (0.0, 0.0)))
        quantile = Quantile(np.asarray(np.linalg.cholesky(covariance), dtype=np.float64), np.zeros(len(covariance)), multiple)
    if params.cluster_correlation is not None:
        groups = clusters(correlation_of(covariance), params.cluster_correlation)
    return quantile, groups, covariance


def returns(market: MarketState, symbols: Sequence[Symbol], timeframe: str, rows: int) -> Floats:
    """Log returns of the last `rows` closed bars, [rows, n]; NaN where a symbol was not there. A move over missing bars counts whole
    where the next bar stands."""
    length, end = TIMEFRAMES[timeframe], market.closed(timeframe)
    closes = np.full((rows + 1, len(symbols)), np.nan)
    for column, symbol in enumerate(symbols):
        if symbol not in market.symbols:
            continue
        ring = market.bars(symbol)[timeframe]
        place = rows - (end - length - ring.time[-rows - 2 :]) // length
        there = (place >= 0) & (place <= rows)
        closes[place[there], column] = ring.close[-rows - 2 :][there]
    last = np.where(np.isnan(closes), 0, np.arange(rows + 1)[:, None])
    filled = np.take_along_axis(closes, np.maximum.accumulate(last, axis=0), axis=0)
    result: Floats = np.where(np.isnan(closes[1:]), np.nan, np.diff(np.log(filled), axis=0))
    return result


def complete(log_returns: Floats, length: int) -> tuple[Floats, tuple[bool, ...]]:
    """(scenarios of one day [S, n], who is a stranger) out of log returns [S, n] of bars of `length` nanoseconds, NaN where unknown.

    Scenarios are simple returns, less their mean where that is a gain (what rose lately is not safer for it), times the root of the
    bars in a day (as if bars were independent), never below -1. A symbol with
    fewer than `LEAST_ROWS` returns, or that hardly ever moved, is a stranger: it moves with the mean of the known symbols,
    `STRANGER` times as wildly as the wildest of them, and where its own few returns were worse, those stand. Rows from before a
    known symbol was there are filled in the same way with its own deviation. Where no symbol is known, all move as one,
    normally distributed with the deviation that features assume of the unknown.
    """
    known = np.isfinite(log_returns)
    values = np.where(known, log_returns, 0.0)
    count = known.sum(0)
    deviation = np.sqrt((values**2).sum(0) / np.maximum(count, 1))
    day, hours = DAY / length, length / TIMEFRAMES["1h"]
    strangers = (count < LEAST_ROWS) | (deviation < VOLATILITY_FLOOR_1H * np.sqrt(hours))
    trusted, rows = ~strangers, len(values)
    if trusted.any():
        there = known[:, trusted]
        market = values[:, trusted].sum(1) / np.maximum(there.sum(1), 1)
        wildest = STRANGER * float(deviation[trusted].max())
    else:
        normal = NormalDist()
        market = np.array([normal.inv_cdf((row + 0.5) / rows) for row in range(rows)])
        wildest = VOLATILITY_1H * float(np.sqrt(hours))
    spread = max(float(np.sqrt((market**2).mean())), 1e-12)
    made_up = np.outer(market / spread, np.where(strangers, wildest, deviation))
    filled = np.where(strangers & known, np.minimum(values, made_up), np.where(known, values, made_up))
    simple = np.expm1(np.clip(filled, -10.0, 10.0))
    scenarios: Floats = np.maximum((simple - np.maximum(simple.mean(0), 0.0)) * np.sqrt(day), -1.0)
    return scenarios, tuple(strangers.tolist())


def moments(scenarios: Floats) -> tuple[float, float]:
    """(skewness, excess kurtosis) of the equally weighted book over scenarios [S, n]."""
    book = scenarios.mean(1)
    book = book - book.mean()
    deviation = float(np.sqrt((book**2).mean()))
    if deviation < 1e-12:
        return 0.0, 0.0
    score = book / deviation
    return float((score**3).mean()), float((score**4).mean() - 3.0)
