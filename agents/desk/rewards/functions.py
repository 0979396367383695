"""The reward formulas, free of state, over any number of leading dimensions.

Arguments are fractions of equity, years and annualised variances, [..., n] by symbol; where a formula belongs to the portfolio its
value is split by symbol so that the parts add up to it. r_i stands for `profit_i / (sigma_target sqrt(dt))` and R for their sum.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.desk.rewards.params import SECONDS_PER_YEAR, STANDARD, RewardParams

Array = NDArray[np.float64]


class RewardFunctions:
    """All formulas by name. `years` is the length of the interval; per symbol arrays are [..., n], per portfolio [...]."""

    def __init__(self, params: RewardParams = STANDARD) -> None:
        self.params = params

    def normalised(self, profit: Array, years: float) -> Array:
        """`r_i = profit_i / (sigma_target sqrt(dt))`: the volatility-scaled return (Zhang, Zohren, Roberts 2020, "Deep reinforcement
        learning for trading", eq. 4), [..., n]. A gain of one target deviation is 1 over an hour and over five seconds."""
        return np.asarray(profit / (self.params.volatility_target * np.sqrt(years)))

    def utility(self, profit: Array, weights: Array, book: Array, covariance: Array, years: float) -> Array:
        """`[w_i rho_i - c_i - (lambda / 2) w_i (Sigma w)_i dt] / (sigma_target sqrt(dt))`, [..., n].

        `profit` is an agent's gain net of cost by symbol, `weights` what it owns, `book` what the whole account owns; `covariance` is
        [n, n] or [..., n, n]. Over agents and symbols the risk terms add up to the portfolio's (Euler's decomposition of w' Sigma w).
        """
        p = self.params
        risk = 0.5 * p.risk_aversion * weights * _applied(covariance, book) * years
        return np.asarray((profit - risk) / (p.volatility_target * np.sqrt(years)))

    def spread_capture(self, profit: Array, inventory: Array, variance: Array, years: float) -> Array:
        """Spread captured net of fees and mark-outs, less `gamma / 2 (q sigma)^2 dt`, in units of sigma_target sqrt(dt), [..., n].

        `profit` values own fills at a later mid: `side (mid - price) quantity - fee`, so it is spread and mark-out in one number.
        Inventory penalty as in Cartea, Jaimungal, Penalva (2015), "Algorithmic and high-frequency trading", ch. 10.
        """
        p = self.params
        risk = 0.5 * p.inventory_aversion * inventory**2 * (variance / SECONDS_PER_YEAR) * (years * SECONDS_PER_YEAR)
        return np.asarray((profit - risk) / (p.volatility_target * np.sqrt(years)))

    def tightening(
        self, multiplier: float, weights: Array, returns: Array, covariance: Array, drawdown: float, years: float
    ) -> float:
        """utility(m) - utility(1) on the same path; `weights` [n] are those held under the multiplier m.

        The aversion grows as the drawdown budget is used up: Grossman and Zhou (1993), "Optimal investment strategies for controlling
        drawdowns", hold exposure in proportion to what is left of it.
        """
        if not np.abs(weights).sum():
            return 0.0
        full, left = self.untightened(multiplier, weights), self.budget_left(drawdown)
        return self._path(weights, returns, covariance, left, years) - self._path(full, returns, covariance, left, years)

    def untightened(self, multiplier: float, weights: Array) -> Array:
        """What would have been held under multiplier 1: at most the whole equity, or what was held if that is more, [n]."""
        gross = float(np.abs(weights).sum())
        return weights * min(1.0 / multiplier, max(1.0 / gross, 1.0)) if gross else weights

    def budget_left(self, drawdown: float) -> float:
        """Share of the drawdown budget that is left, at least a tenth."""
        return max(1.0 - max(drawdown, 0.0) / self.params.worst_drawdown, 0.1)

    def _path(self, weights: Array, returns: Array, covariance: Array, left: float, years: float) -> float:
        p = self.params
        risk = 0.5 * p.risk_aversion / left * float(weights @ covariance @ weights) * years
        return (float(weights @ returns) - risk) / (p.volatility_target * float(np.sqrt(years)))

    # -- ratios that learn online ------------------------------------------------------------------------------------------

    def differential_sharpe(self, r: Array, mean: Array | float, square: Array | float) -> Array:
        """`D = [B (R - A) - A (R^2 - B) / 2] / (B - A^2)^(3/2)`, split by symbol, [..., n]: the derivative of the exponentially
        averaged Sharpe ratio by its own adaptation rate (Moody & Saffell 2001, "Learning to trade via direct reinforcement", eq. 14).

        `r` [..., n] are normalised returns; `mean` A and `square` B [...] are the moments before them. B is held at least
        `A^2 + deviation_floor^2`, |R| at most `return_clip`. Beyond its vertex R = B / A the parabola falls (a gain too large would
        be punished, and with A < 0 a loss rewarded): there it is held flat. Each symbol gets `slope r_i` and an equal part of
        the constant, so the two moments are all that the state must tell.
        """
        total, parts, mean = self._total(r, mean)
        square = np.maximum(square, mean**2 + self.params.deviation_floor**2)
        held = _flat_beyond(total, mean, square)
        scale = (square - mean**2) ** -1.5
        return _split(parts * _ratio(held, total)[..., None], (square - 0.5 * mean * held) * scale, -0.5 * mean * square * scale)

    def sortino(self, r: Array, mean: Array | float, square: Array | float) -> Array:
        """The differential downside deviation ratio, split by symbol, [..., n] (Moody & Saffell 2001, eq. 20):
        `D = (R - A / 2) / DD` for a gain and `[DD^2 (R - A / 2) - A R^2 / 2] / DD^3` for a loss.

        `mean` A and `square` DD^2 (of losses only) [...] are the moments before `r`; floor, clip, vertex and split as for
        the differential Sharpe ratio.
        """
        total, parts, mean = self._total(r, mean)
        square = np.maximum(square, self.params.deviation_floor**2)
        loss = _flat_beyond(np.minimum(total, 0.0), mean, square)
        kept = np.where(total < 0.0, _ratio(loss, total), 1.0)
        scale = square**-1.5
        return _split(parts * kept[..., None], (square - 0.5 * mean * loss) * scale, -0.5 * mean * square * scale)

    def moments(
        self, r: Array, mean: Array | float, square: Array | float, *, downside: bool = False
    ) -> tuple[Array, Array]:
        """(A, B) [...] after normalised returns `r` [..., n]: `A + eta (R - A)`, `B + eta (R^2 - B)`; `downside` squares losses only."""
        total, _, _ = self._total(r, mean)
        counted = np.minimum(total, 0.0) if downside else total
        eta = 1.0 / self.params.moment_memory
        return np.asarray(mean + eta * (total - mean)), np.asarray(square + eta * (counted**2 - square))

    def _total(self, r: Array, mean: Array | float) -> tuple[Array, Array, Array]:
        """(R clipped, the parts cut alike, A as an array)."""
        total = r.sum(axis=-1)
        clipped = np.clip(total, -self.params.return_clip, self.params.return_clip)
        return clipped, r * _ratio(clipped, total)[..., None], np.asarray(mean, dtype=np.float64)

    # -- penalties ---------------------------------------------------------------------------------------------------------

    def cvar(self, r: Array, value_at_risk: Array | float) -> Array:
        """`-max(-R - zeta, 0) / (1 - beta)` split by symbol, [..., n]: its mean, less zeta, is minus the conditional value at risk
        (Rockafellar & Uryasev 2000, "Optimization of conditional value-at-risk", eq. 4). `value_at_risk` zeta [...] is at least 0."""
        total = r.sum(axis=-1)
        excess = np.maximum(-total - np.maximum(value_at_risk, 0.0), 0.0) / (1.0 - self.params.cvar_level)
        share = excess / np.where(total < 0.0, -total, 1.0)
        return np.asarray(r * share[..., None])

    def value_at_risk(self, r: Array, value_at_risk: Array | float) -> Array:
        """zeta [...] after `r`: one stochastic step down the gradient of Rockafellar and Uryasev's objective (Bardou, Frikha, Pages
        2009, "Computing VaR and CVaR using stochastic approximation"); never below 0."""
        beaten = -r.sum(axis=-1) > value_at_risk
        step = (beaten / (1.0 - self.params.cvar_level) - 1.0) / self.params.moment_memory
        return np.asarray(np.maximum(value_at_risk + step, 0.0))

    def expected_shortfall(self, window: Array) -> Array:
        """Mean of the worst `1 - cvar_level` of losses in a window of returns [..., T], as a positive number, [...].

        The boundary return counts by the part of it that the level asks for (Rockafellar & Uryasev 2002, proposition 8).
        """
        count = window.shape[-1]
        worst = np.sort(-window, axis=-1)[..., ::-1]
        share = (1.0 - self.params.cvar_level) * count
        weights = np.clip(share - np.arange(count), 0.0, 1.0)
        return np.asarray((worst * weights).sum(axis=-1) / share)

    def drawdown(self, r: Array, drawdown: Array | float) -> Array:
        """`kappa(DD) (1 - DD) min(R, 0)` split by symbol, [..., n]: each new loss below the peak, by how deep it begins.

        `kappa = drawdown_penalty / left(DD)` grows as the budget is used up (Grossman & Zhou 1993); climbing back is not paid, so the sum
        of the penalties bounds the fall (Chekhlov, Uryasev, Zabarankin 2005, "Drawdown measure in portfolio optimization").
        """
        fallen = np.clip(drawdown, 0.0, 1.0)
        left = np.maximum(1.0 - fallen / self.params.worst_drawdown, 0.1)
        kappa = self.params.drawdown_penalty * (1.0 - fallen) / left * (r.sum(axis=-1) < 0.0)
        return np.asarray(r * np.asarray(kappa)[..., None])

    def costs(self, cost: Array, years: float) -> Array:
        """`-c_i / (sigma_target sqrt(dt))`, [..., n]: what trading cost, once more beside what the profit already lost by it."""
        return -self.normalised(np.maximum(cost, 0.0), years)

    def hybrid(self, profit: Array, returns: Array, prediction: Array, years: float) -> Array:
        """`r_i + alpha c_i a_i`, [..., n]: the trading reward and a bonus for a prediction that the market agreed with.

        `prediction` in [-1, 1] is signed confidence: c_i its size, a_i = 1 where its sign is that of `returns`, -1 where it is the
        opposite, 0 where either is 0, so that guessing earns nothing. The hybrid reward of the project's CNN-LSTM formulation, in
        which a_i was paid for hits only.
        """
        bonus = self.params.prediction_bonus * np.clip(prediction, -1.0, 1.0) * np.sign(returns)
        return self.normalised(profit, years) + bonus

    def alias(self, executed: Array, wished: Array) -> Array:
        """`lambda (w_executed - w_wished)^2`, [..., n]; subtracted from the reward."""
        return np.asarray(self.params.alias * (executed - wished) ** 2)


def _applied(covariance: Array, book: Array) -> Array:
    """Sigma w, [..., n], of one matrix or one for each."""
    if book.ndim == 1 and covariance.ndim == 2:
        return np.asarray(covariance @ book)
    if covariance.ndim == 2:
        return np.asarray(book @ covariance.T)
    return np.asarray((covariance @ book[..., None])[..., 0])


def _ratio(part: Array, whole: Array) -> Array:
    """part / whole; 1 where the whole is 0, and so is its part."""
    safe = np.where(whole == 0.0, 1.0, whole)
    return np.where(whole == 0.0, 1.0, part / safe)


def _flat_beyond(total: Array, mean: Array, square: Array) -> Array:
    """R held where `A R <= B`, the side of the parabola that climbs."""
    beyond = mean * total > square
    return np.where(beyond, square / np.where(beyond, mean, 1.0), total)


def _split(parts: Array, slope: Array, constant: Array) -> Array:
    width: Any = max(parts.shape[-1], 1)
    return np.asarray(parts * slope[..., None] + np.asarray(constant)[..., None] / width)
