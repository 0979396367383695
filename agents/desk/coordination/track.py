"""What each agent earned, period by period, from its sub-account: the evidence that a strategy may learn from. Floats, no clock.

State is a function of the calls alone, and the calls of the facts: a replay reaches the same bits. A new session starts without a
past, as its sub-accounts do (what an earlier one left belongs to the house).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from math import isfinite, sqrt

from agents.core.instruments import NS, Symbol
from agents.desk.attribution import Attribution
from agents.desk.coordination.params import BUDGETED


@dataclass(frozen=True, slots=True)
class Evidence:
    """The sub-accounts at present marks; asked only when a period is over, because valuing them takes a while."""

    attribution: Attribution
    marks: Mapping[Symbol, Decimal]
    equity: Decimal

    def profits(self) -> dict[str, float] | None:
        """Profit by agent since the session began as a fraction of present equity; None where a mark is missing."""
        if self.equity <= 0:
            return None
        try:
            profits = self.attribution.pnl(self.marks)
        except KeyError:
            return None
        return {agent: float(profits[agent] / self.equity) for agent in BUDGETED}


class Track:
    """Profits of the last period by agent, told once when it is over."""

    def __init__(self, period_s: float) -> None:
        self._period = max(int(period_s * NS), 1)
        self._since = -1
        self._before: dict[str, float] = {}

    def observe(self, now: int, evidence: Evidence | None) -> dict[str, float] | None:
        """Profits by agent in fractions of equity over the period that has just ended, or None.

        A longer while counts as one observation, divided by the root of its length in periods: it is as large as one of them.
        """
        period = now // self._period
        if evidence is None or period == self._since or (profits := evidence.profits()) is None:
            return None
        before, since, self._before, self._since = self._before, self._since, profits, period
        if not before or period < since:
            return None
        gained = {agent: (profits[agent] - before[agent]) / sqrt(period - since) for agent in BUDGETED}
        return gained if all(map(isfinite, gained.values())) else None


class Moments:
    """Exponentially weighted mean and variance of one agent's profits a period.

    With the decay `1 - 2 / (memory + 1)` the effective number of observations `(sum w)^2 / sum w^2` (Kish 1965) grows to `memory`.
    """

    def __init__(self, memory: float) -> None:
        self._decay = 1.0 - 2.0 / (memory + 1.0)
        self._weight = self._square_weight = self._mean = self._sum = 0.0

    def update(self, value: float) -> None:
        """Take one observation (West 1979, "Updating mean and variance estimates", with weights that decay)."""
        self._weight = self._decay * self._weight + 1.0
        self._square_weight = self._decay**2 * self._square_weight + 1.0
        before = self._mean
        self._mean += (value - before) / self._weight
        self._sum = self._decay * self._sum + (value - before) * (value - self._mean)

    @property
    def count(self) -> float:
        """Effective number of observations."""
        return self._weight**2 / self._square_weight if self._square_weight else 0.0

    @property
    def sharpe(self) -> float:
        """Mean over standard deviation of one period; 0 where there is no spread to judge the mean by, or fewer than two."""
        if self.count < 2.0 or self._sum <= 0.0:
            return 0.0
        deviation = sqrt(self._sum / self._weight * self.count / (self.count - 1.0))
        # Profits that hardly vary are no proof of skill: a line that never traded, or the last bits of a float.
        return self._mean / deviation if deviation > 1e-12 else 0.0
