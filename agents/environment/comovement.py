"""How the symbols of a history move together, bar by bar: the correlation the desk reads and the covariance that rewards use."""

import numpy as np
from numpy.typing import NDArray

from agents.core.instruments import NS
from agents.desk.rewards.params import SECONDS_PER_YEAR
from agents.desk.rewards.scale import Covariance
from agents.market.features import CLIP, HOUR, VOLATILITY_1H, correlation
from agents.market.history import CandleHistory
from agents.market.hours import PRODUCT_ALPHA
from agents.market.moments import history as averages

Singles = NDArray[np.float32]


def correlations(history: CandleHistory) -> Singles:
    """Correlation of hourly log returns after each row, [T, N, N]: what `MarketState.correlation` says there."""
    log = np.log(history.marks)
    seen = history.listed
    count = np.arange(len(log))[:, None]
    last = np.maximum.accumulate(np.where(seen, count, -1), axis=0)
    before = np.vstack([np.full((1, log.shape[1]), -1), last[:-1]])
    moved = seen & (before >= 0)
    steps = np.where(moved, (count - before) * (history.length / HOUR), 1.0)
    moves = np.zeros_like(log)
    moves[1:][moved[1:]] = (log[1:] - log[:-1])[moved[1:]]
    bound = CLIP * VOLATILITY_1H * 5
    returns = np.clip(moves / np.sqrt(steps), -bound, bound)
    rows = np.flatnonzero(moved.any(axis=1))
    number = np.cumsum(moved.any(axis=1))
    width = log.shape[1]
    products = np.zeros((len(rows) + 1, width, width))
    if len(rows):
        products[1:] = averages(returns[rows, :, None] * returns[rows, None, :], PRODUCT_ALPHA)[0]
    return correlation(products, np.arange(len(rows) + 1.0)).astype(np.float32)[number]


def covariances(history: CandleHistory) -> Singles:
    """Annualised covariance of mark returns before each row's own return, [T, N, N]: `rewards.Covariance` over bars.

    A reward for bar t is judged by what was known at its beginning; symbols without a candle yet keep the starting values.
    """
    years = history.length / NS / SECONDS_PER_YEAR
    returns, width = history.returns(), len(history.symbols)
    began = ~np.isnan(np.vstack([np.full((1, width), np.nan), history.marks[:-1]]))
    running, decay = Covariance(width), 0.5 ** (1.0 / Covariance.HALF_LIFE)
    start, result = running.matrix.copy(), np.empty((len(returns), width, width), dtype=np.float32)
    everyone = began.all(axis=1)
    for row, move in enumerate(returns):
        result[row] = running.matrix
        if not row:
            continue
        if everyone[row]:
            running.update(move, years)
        else:
            bound = 10.0 * np.sqrt(np.diag(running.matrix) * years)
            clipped = np.clip(move, -bound, bound)
            updated = decay * running.matrix + (1.0 - decay) * np.outer(clipped, clipped) / years
            known = began[row]
            running.matrix = np.where(known[:, None] & known[None, :], updated, start)
    return result
