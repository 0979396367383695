"""Two markets that judge a whole pipeline: one in which nobody may win, and one in which so much, and no more, must be found.

What is judged is a function from candles to the returns of its account: whatever it does inside, it is not told which market it is in.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import DataError
from agents.desk.limits import Limits
from agents.environment.kernel import LIMITS, PortfolioKernel, VectorCosts, simulate
from agents.jobs.statistics import Interval, compounded, mean_interval
from agents.market.history import CandleHistory
from agents.market.synthetic_candles import planted_alpha_history, random_walk_history

Floats = NDArray[np.float64]
Lives = Callable[[CandleHistory], Floats]
"""Candles to the account's simple return over each bar after the first, [T - 1]."""
LivesBy = Callable[[CandleHistory, Floats], Floats]
"""The same, told the planted signal [T, N]; row t may be used from the close of bar t on."""
SEEDS = (0, 1, 2, 3, 4)
FREE = VectorCosts(fee_bps=0.0, half_spread_bps=0.0)


@dataclass(frozen=True, slots=True)
class Market:
    """Size of the made-up market; each seed is one of its own."""

    symbols: int = 8
    years: float = 2.0
    timeframe: str = "1h"
    volatility: float = 0.6
    correlation: float = 0.5

    def bars(self) -> int:
        """Candles of one seed."""
        return int(self.years * random_walk_history(1, 2, 0, self.timeframe).periods_per_year)


MARKET = Market()


@dataclass(frozen=True, slots=True)
class NullVerdict:
    """What an account earned where nothing can be earned. `passed` unless its mean is above 0 beyond chance."""

    passed: bool
    mean: Interval
    """Annual mean return."""
    sharpe: Interval
    seeds: int
    years: float
    """Of all seeds together."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "mean": self.mean.to_dict(), "sharpe": self.sharpe.to_dict()}


@dataclass(frozen=True, slots=True)
class PlantedVerdict:
    """How much of a known Sharpe ratio an account earned. `passed` if what was expected lies inside the interval, and 0 does not."""

    passed: bool
    planted: float
    expected: float
    sharpe: Interval
    seeds: int
    years: float

    @property
    def recovered(self) -> float:
        """Share of what was expected."""
        return self.sharpe.estimate / self.expected if self.expected else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "sharpe": self.sharpe.to_dict(), "recovered": self.recovered}


def null_market(lives: Lives, *, market: Market = MARKET, seeds: Sequence[int] = SEEDS, level: float = 0.95) -> NullVerdict:
    """Let the account live in random walks, one for each seed. Raises DataError for returns that are not its own bars'."""
    histories = [
        random_walk_history(market.symbols, market.bars(), seed, market.timeframe, market.volatility, market.correlation) for seed in seeds
    ]
    days = np.concatenate([_daily(history, lives(history)) for history in histories])
    found = mean_interval(days, level=level)
    return NullVerdict(found["mean"].decided <= 0, found["mean"], found["sharpe"], len(seeds), len(days) / 365.0)


def planted_alpha(
    lives: LivesBy, *, sharpe: float = 2.0, expected: float | None = None, half_life: float = 24.0, in_prices: bool = False,
    market: Market = MARKET, seeds: Sequence[int] = SEEDS, level: float = 0.95,
) -> PlantedVerdict:  # fmt: skip
    """Let the account live where the signal is worth `sharpe` a year before costs to who may go short (`known_rule`).

    `expected` is what this account could earn at best, `sharpe` unless told: spot without shorts has less (`spot_share`).
    """
    days = []
    for seed in seeds:
        history, signal = planted_alpha_history(
            market.symbols, market.bars(), seed, market.timeframe, market.volatility, market.correlation,
            sharpe=sharpe, half_life=half_life, in_prices=in_prices,
        )  # fmt: skip
        days.append(_daily(history, lives(history, signal)))
    returns = np.concatenate(days)
    found = mean_interval(returns, level=level)["sharpe"]
    wanted = sharpe if expected is None else expected
    passed = found.low <= wanted <= found.high and (found.decided == np.sign(wanted))
    return PlantedVerdict(bool(passed), sharpe, wanted, found, len(seeds), len(returns) / 365.0)


# -- accounts to judge -------------------------------------------------------------------------------------------------


def known_rule(history: CandleHistory, signal: Floats, gross: float = 1.0) -> Floats:
    """Hold every symbol in proportion to its signal over the next bar, long and short, without costs or limits: [T - 1] returns.

    What `planted_alpha_history` promises its Sharpe ratio to. `gross` is the mean sum of positions.
    """
    weights = gross * signal[:-1] / (np.sqrt(2.0 / np.pi) * signal.shape[1])
    return np.asarray((weights * (history.close[1:] / history.open[1:] - 1.0)).sum(axis=1))


def spot_rule(
    history: CandleHistory, signal: Floats, *, costs: VectorCosts = FREE, limits: Limits = LIMITS, delay_bars: int = 1, gross: float = 0.35
) -> Floats:
    """The same without shorts, through the kernel with its limits and costs: in proportion to max(x, 0), `gross` of the equity on average,
    which leaves room for the days on which all signals agree."""
    path = gross * np.maximum(signal, 0.0) * np.sqrt(2.0 * np.pi) / signal.shape[1]
    return by_weights(lambda _: path, costs=costs, limits=limits, delay_bars=delay_bars)(history)


def spot_share(market: Market = MARKET) -> float:
    """What `spot_rule` can have of the planted Sharpe ratio without costs: `(1 / 2) / sqrt(1 / 2 + (N - 1) c / (2 pi))`.

    It holds max(x, 0), half of the signal's worth, and with it the part of N symbols' moves that correlation c makes common.
    """
    return float(0.5 / np.sqrt(0.5 + (market.symbols - 1) * market.correlation / (2.0 * np.pi)))


def by_weights(
    rule: Callable[[CandleHistory], Floats], *, costs: VectorCosts | None = None, limits: Limits = LIMITS, delay_bars: int = 1
) -> Lives:
    """An account that wishes for the weights [T, N] of a rule, row t at the close of bar t, through the kernel."""

    def lives(history: CandleHistory) -> Floats:
        kernel = PortfolioKernel(history, costs or VectorCosts(), limits, delay_bars=delay_bars)
        return np.asarray(simulate(kernel, rule(history)[:-1]).returns, dtype=np.float64)

    return lives


def _daily(history: CandleHistory, returns: Floats) -> Floats:
    if returns.shape != (len(history.times) - 1,):
        raise DataError(f"an account of {len(history.times)} candles has {len(history.times) - 1} returns, got shape {returns.shape}")
    return compounded(history.closings[1:], returns)[1]
