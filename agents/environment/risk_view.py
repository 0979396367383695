"""What the risk agent sees and means in thousands of accounts at once: the columns of `observe`, the map and the reward of `Risk`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.desk.priors import HOURS_PER_YEAR, tighten
from agents.desk.rewards.functions import RewardFunctions
from agents.desk.risk import Risk, RiskParams
from agents.environment.comovement import correlations
from agents.environment.kernel import Floats
from agents.environment.long_term_view import LongTermView, Singles, blocks, clock
from agents.market.columns import HOUR_COLUMNS, PORTFOLIO_COLUMNS, SPECS
from agents.market.features import effective_bets
from agents.market.flow import HALF_SPREAD
from agents.market.observation import LARGEST, Observation
from agents.market.portfolio import SCENARIOS, TAIL_95, Z_95

AGENT = "risk"
STALE_BARS = 2
"""Bars without a candle beyond which a symbol is distrusted, as `MarketState.trouble` has it."""
_H = {name: number for number, name in enumerate(HOUR_COLUMNS)}
_MARKET = {
    "market_volatility_1h": "market_volatility_1h", "market_volatility_trend": "volatility_trend", "market_return_1h": "market_return_1h",
    "market_momentum_1d": "market_momentum_1d", "market_momentum_7d": "market_momentum_7d", "market_breadth": "market_breadth",
    "market_dispersion": "market_dispersion", "market_tail_weight": "tail_weight", "market_illiquidity": "illiquidity",
}  # fmt: skip
"""Portfolio column -> the hour column whose mean over the symbols it is."""


class RiskView:
    """Columns of SPECS["risk"] for every copy, over the wishes that the long-term view has standing. On candles of an hour and longer.

    Means are over all symbols of the history; what minutes and books would say is what the desk assumes without them.
    """

    def __init__(self, view: LongTermView, params: RiskParams | None = None) -> None:
        self.view, self.speaker = view, Risk(params or RiskParams())
        history = view.kernel.history
        self._correlation: Floats = correlations(history).astype(np.float64)
        self._clock, self._blocks = clock(history.closings), blocks(AGENT)
        self._log: Floats = np.nan_to_num(np.diff(np.log(history.marks), axis=0, prepend=np.nan))
        bets, width = effective_bets(self._correlation), len(history.symbols)
        total = self._correlation.sum((1, 2))
        self._columns: dict[str, Floats] = {
            "effective_bets": bets,
            "correlation_top": np.linalg.eigvalsh(self._correlation)[:, -1] / width,
            "correlation_mean": (total - width) / (width * max(width - 1, 1)),
            "market_half_spread": np.full(len(bets), HALF_SPREAD),
            "market_volatility_1m": view.features[..., _H["volatility_1h"]].mean(axis=1).astype(np.float64) / 60**0.5,
            **{name: view.features[..., _H[column]].mean(axis=1).astype(np.float64) for name, column in _MARKET.items()},
        }
        count = np.arange(len(history.times))[:, None]
        last = np.maximum.accumulate(np.where(history.listed, count, -STALE_BARS - 1), axis=0)
        self._untrusted = count - last > STALE_BARS

    def observe(self) -> Singles:
        """float32 [E, 60] at the close of each copy's bar, after the long-term agent has wished."""
        kernel, view = self.view.kernel, self.view
        row, weights = kernel.row, kernel.weights.astype(np.float64)
        deviation = view.features[row, :, _H["volatility_1h"]].astype(np.float64)
        matrix = self._correlation[row]
        numbers = {name: values[row] for name, values in self._columns.items()}
        numbers |= self._risk(weights, deviation, matrix) | self._exposure(weights) | self._wishes(weights, deviation, matrix)
        numbers["portfolio_beta"] = (weights * view.features[row, :, _H["beta"]]).sum(axis=1)
        untrusted = self._untrusted[row]
        numbers["untrusted_share"] = untrusted.mean(axis=1)
        numbers["untrusted_weight"] = (weights * untrusted).sum(axis=1)
        result = np.zeros((kernel.copies, SPECS[AGENT].size), dtype=np.float32)
        for number, name in enumerate(PORTFOLIO_COLUMNS):
            result[:, self._blocks["portfolio"].start + number] = numbers.get(name, 0.0)
        result[:, self._blocks["clock"]] = self._clock[row]
        result[:, self._blocks["multiplier"]] = view.multipliers
        return np.clip(result, -LARGEST, LARGEST, out=result)

    def propose(self, seen: Singles, actions: NDArray[Any]) -> tuple[Floats, Floats]:
        """(gross, budget) multipliers [E] of raw actions [E, 2]."""
        a = np.clip(actions.astype(np.float64), -1.0, 1.0)
        gross, budget = self.speaker.prior(Observation(AGENT, (), 0, seen))
        return tighten(gross, a[:, 0]), tighten(np.broadcast_to(budget, gross.shape), a[:, 1])

    # -- columns -----------------------------------------------------------------------------------------------------------

    def _risk(self, weights: Floats, deviation: Floats, matrix: Floats) -> dict[str, Floats]:
        hourly = _deviation(weights * deviation, matrix)
        gross, square = weights.sum(axis=1), (weights * weights).sum(axis=1)
        rows = np.minimum(self.view.kernel.row, SCENARIOS)
        places = self.view.kernel.row[:, None] - np.arange(SCENARIOS)
        returns = (self._log[np.maximum(places, 0)] @ weights[..., None])[..., 0]
        # What lies before the record is no scenario: it sorts behind all that are.
        returns = np.sort(np.where(np.arange(SCENARIOS) < rows[:, None], returns, np.inf), axis=1)
        size = np.maximum(rows // 20, 1)
        known = np.where(np.isfinite(returns), returns, 0.0)
        worst = np.where(np.arange(SCENARIOS) < size[:, None], known, 0.0).sum(axis=1) / size
        edge = np.take_along_axis(known, size[:, None] - 1, axis=1)[:, 0]
        return {
            "portfolio_volatility": hourly * HOURS_PER_YEAR**0.5,
            "var_95": Z_95 * hourly * 24**0.5,
            "cvar_95": TAIL_95 * hourly * 24**0.5,
            "var_95_history": np.maximum(-edge, 0.0) * 24**0.5,
            "cvar_95_history": np.maximum(-worst, 0.0) * 24**0.5,
            "concentration": np.where(gross > 0, square / np.maximum(gross, 1e-12) ** 2, 0.0),
            "largest_weight": weights.max(axis=1),
            "position_count": (weights > 0).sum(axis=1).astype(np.float64),
            "diversification": np.where(hourly > 0, (weights * deviation).sum(axis=1) / np.maximum(hourly, 1e-12), 1.0),
        }

    def _exposure(self, weights: Floats) -> dict[str, Floats]:
        kernel, view = self.view.kernel, self.view
        gross = weights.sum(axis=1)
        open_ = weights > 0
        return {
            "drawdown": kernel.drawdown,
            "gross": gross,
            "net": gross,
            "cash_weight": 1.0 - gross,
            "headroom_gross": 1.0 - gross,
            "headroom_cash": 1.0 - gross,
            "turnover_day": view.turnover / kernel.equity,
            "fees_day": view.fees / kernel.equity,
            "unrealised_return": (weights * view.gains()).sum(axis=1),
            "stop_distance_mean": np.where(gross > 0, (weights * np.where(open_, view.wishes.stop, 0.0)).sum(axis=1) / np.maximum(gross, 1e-12), 0.0),
        }

    def _wishes(self, weights: Floats, deviation: Floats, matrix: Floats) -> dict[str, Floats]:
        wish = self.view.wishes.weight
        return {
            "wish_gross": np.abs(wish).sum(axis=1),
            "wish_net": wish.sum(axis=1),
            "wish_distance": np.abs(wish - weights).sum(axis=1),
            "wished_volatility": _deviation(wish * deviation, matrix) * HOURS_PER_YEAR**0.5,
        }


def tightening(
    functions: RewardFunctions, multiplier: Floats, book: Floats, returns: Floats, covariance: Floats, drawdown: Floats, years: float
) -> Floats:
    """`RewardFunctions.tightening` of E copies, [E]: utility(m) - utility(1) on the same path; `book` [E, N] was held under m."""
    p = functions.params
    gross = np.abs(book).sum(axis=1)
    scale = np.where(gross > 0, np.minimum(1.0 / multiplier, np.maximum(1.0 / np.maximum(gross, 1e-12), 1.0)), 1.0)
    left = np.maximum(1.0 - np.maximum(drawdown, 0.0) / p.worst_drawdown, 0.1)
    gained = (book * returns).sum(axis=1)
    risk = 0.5 * p.risk_aversion / left * years * np.einsum("en,enm,em->e", book, covariance, book, optimize=True)
    # Under multiplier 1 the same path is `scale` times as large: gains grow with it, the risk with its square.
    value: Floats = (gained * (1.0 - scale) - risk * (1.0 - scale * scale)) / (p.volatility_target * years**0.5)
    return value


def _deviation(scaled: Floats, matrix: Floats) -> Floats:
    deviation: Floats = np.sqrt(np.maximum(np.einsum("en,enm,em->e", scaled, matrix, scaled, optimize=True), 0.0))
    return deviation

