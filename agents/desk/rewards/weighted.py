"""A weighted sum of reward terms over consecutive intervals, with the running numbers that some terms need between them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from agents.desk.rewards.exploration import ExplorationBonus
from agents.desk.rewards.functions import Array, RewardFunctions
from agents.desk.rewards.params import (
    COSTS,
    CVAR,
    DIFFERENTIAL_SHARPE,
    DRAWDOWN,
    EXPLORATION,
    HYBRID,
    MOMENT_TERMS,
    NAMES,
    SORTINO,
    SPREAD_CAPTURE,
    UTILITY,
    RewardParams,
    check_terms,
)

Flags = NDArray[np.bool_]
START_VALUE_AT_RISK = 1.645
"""The 95 % quantile of a normal return at the volatility target."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one interval of `years` brought: [..., n] by symbol, in fractions of the equity at its beginning."""

    profit: Array
    """Net of all costs, marked at both ends."""
    weights: Array
    """What was held over it."""
    returns: Array
    """Of the marks."""
    covariance: Array
    """Annualised, [n, n] or [..., n, n]."""
    years: float
    book: Array | None = None
    """What the whole account held; None: the same as `weights`."""
    cost: Array | float = 0.0
    """Of trading, already taken from `profit`."""
    drawdown: Array | float = 0.0
    """From the peak, at the beginning, [...]."""
    prediction: Array | float = 0.0
    """Signed confidence in [-1, 1] at the beginning."""
    states: Array | None = None
    """What was seen at the end, [..., n, size] or [..., size]; for an exploration bonus alone."""


class WeightedReward:
    """`judge` turns outcomes into rewards, one after the other; `shape` are the leading dimensions of independent copies.

    Symbols whose numbers are not finite get NaN, enter no running number, and are counted in `dropped`. The term `exploration` needs
    a `bonus`, which environments give and nothing that trades does; raises ConfigError without.
    """

    def __init__(
        self, params: RewardParams, terms: Mapping[str, float], shape: tuple[int, ...] = (), bonus: ExplorationBonus | None = None
    ) -> None:
        check_terms(terms, tuple(name for name in NAMES if name != EXPLORATION or bonus is not None))
        self._bonus = bonus
        self.functions, self.terms = RewardFunctions(params), {name: weight for name, weight in terms.items() if weight}
        self.shape = shape
        self._moments = next((name for name in MOMENT_TERMS if name in self.terms), None)
        self._tail = CVAR in self.terms
        self.value_at_risk: Array = np.full(shape, START_VALUE_AT_RISK)
        self._mean: Array = np.zeros(shape)
        self._square: Array = np.ones(shape)
        """As if the account had run at its volatility target so far."""
        self.dropped = 0

    def judge(self, outcome: Outcome, *, remember: bool = True) -> Array:
        """Rewards [..., n], NaN where something is not finite; the running numbers move on if `remember`."""
        known: Flags | None = None
        if not np.isfinite(outcome.profit).all():
            outcome, known = _finite(outcome)
        total = self._sum(outcome)
        finite = np.isfinite(total)
        if not finite.all() and known is None:
            # One symbol's NaN is everybody's in a term of the whole portfolio: again, without it.
            outcome, known = _finite(outcome)
            total = self._sum(outcome)
            finite = np.isfinite(total)
        if remember:
            self._move_on(outcome)
        if known is None:
            return total
        known = known & finite
        self.dropped += int(known.size - known.sum())
        return np.where(known, total, np.nan)

    def _sum(self, outcome: Outcome) -> Array:
        total: Array | None = None
        for name, weight in self.terms.items():
            value = weight * _FORMULAS[name](self, outcome)
            total = value if total is None else total + value
        return np.zeros(outcome.profit.shape) if total is None else total

    @property
    def has_moments(self) -> bool:
        """Whether a term needs two running moments in the state."""
        return self._moments is not None

    def moments(self) -> tuple[Array, Array]:
        """The two numbers that belong into the state, [...] each: zeros where no term needs them."""
        if self._moments is None:
            return np.zeros(self.shape), np.zeros(self.shape)
        return self._mean.copy(), self._square.copy()

    def ahead(self, profit: Array, years: float) -> tuple[Array, Array]:
        """The moments as they will be after this profit [..., n]: what is seen before the interval is judged."""
        if self._moments is None:
            return self.moments()
        r = self.functions.normalised(np.where(np.isfinite(profit), profit, 0.0), years)
        return self.functions.moments(r, self._mean, self._square, downside=self._moments == SORTINO)

    def restart(self, where: Flags | None = None) -> None:
        """Forget all running numbers, or those of the copies `where` [...]: an episode begins."""
        chosen = np.ones(self.shape, dtype=bool) if where is None else where
        self.value_at_risk = np.where(chosen, START_VALUE_AT_RISK, self.value_at_risk)
        self._mean, self._square = np.where(chosen, 0.0, self._mean), np.where(chosen, 1.0, self._square)

    def _move_on(self, outcome: Outcome) -> None:
        if self._moments is not None:
            self._mean, self._square = self.ahead(outcome.profit, outcome.years)
        if self._tail:
            self.value_at_risk = self.functions.value_at_risk(self._normalised(outcome), self.value_at_risk)

    # -- the terms ---------------------------------------------------------------------------------------------------------

    def _normalised(self, outcome: Outcome) -> Array:
        return self.functions.normalised(outcome.profit, outcome.years)

    def _utility(self, o: Outcome) -> Array:
        return self.functions.utility(o.profit, o.weights, o.weights if o.book is None else o.book, o.covariance, o.years)

    def _spread_capture(self, o: Outcome) -> Array:
        variance = np.diagonal(o.covariance, axis1=-2, axis2=-1)
        return self.functions.spread_capture(o.profit, o.weights, variance, o.years)

    def _differential_sharpe(self, o: Outcome) -> Array:
        return self.functions.differential_sharpe(self._normalised(o), self._mean, self._square)

    def _sortino(self, o: Outcome) -> Array:
        return self.functions.sortino(self._normalised(o), self._mean, self._square)

    def _cvar(self, o: Outcome) -> Array:
        return self.functions.cvar(self._normalised(o), self.value_at_risk)

    def _drawdown(self, o: Outcome) -> Array:
        return self.functions.drawdown(self._normalised(o), o.drawdown)

    def _costs(self, o: Outcome) -> Array:
        return self.functions.costs(np.broadcast_to(o.cost, o.profit.shape), o.years)

    def _hybrid(self, o: Outcome) -> Array:
        return self.functions.hybrid(o.profit, o.returns, np.broadcast_to(o.prediction, o.profit.shape), o.years)

    def _exploration(self, o: Outcome) -> Array:
        if self._bonus is None or o.states is None:
            return np.zeros(o.profit.shape)
        novelty = self._bonus.bonus(o.states)
        # One row of state for the whole portfolio: its bonus is shared, so that the symbols still add up to it.
        per_symbol = novelty.shape == o.profit.shape
        return novelty if per_symbol else np.broadcast_to(novelty[..., None] / o.profit.shape[-1], o.profit.shape)


_FORMULAS: dict[str, Callable[[WeightedReward, Outcome], Array]] = {
    UTILITY: WeightedReward._utility,
    SPREAD_CAPTURE: WeightedReward._spread_capture,
    DIFFERENTIAL_SHARPE: WeightedReward._differential_sharpe,
    SORTINO: WeightedReward._sortino,
    CVAR: WeightedReward._cvar,
    DRAWDOWN: WeightedReward._drawdown,
    COSTS: WeightedReward._costs,
    HYBRID: WeightedReward._hybrid,
    EXPLORATION: WeightedReward._exploration,
}


def _finite(outcome: Outcome) -> tuple[Outcome, Flags]:
    """(the outcome with zeros where a symbol's numbers are not finite, where they all are)."""
    given = (outcome.profit, outcome.weights, outcome.returns, outcome.cost, outcome.prediction)
    arrays = [np.broadcast_to(np.asarray(array, dtype=np.float64), outcome.profit.shape) for array in given]
    known: Flags = np.logical_and.reduce(np.isfinite(arrays))
    kept = [np.where(known, array, 0.0) for array in arrays]
    book = None if outcome.book is None else np.where(np.isfinite(outcome.book), outcome.book, 0.0)
    return replace(outcome, profit=kept[0], weights=kept[1], returns=kept[2], cost=kept[3], prediction=kept[4], book=book), known
