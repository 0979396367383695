"""Learned gating: a softmax over the agents, moved after each period towards those whose wishes were worth their risk."""

from collections.abc import Mapping, Sequence
from math import exp, log, sqrt

from agents.core.instruments import Symbol
from agents.desk.coordination.joining import blend, coordinate
from agents.desk.coordination.params import BUDGETED, CoordinatorParams
from agents.desk.coordination.track import Evidence, Track
from agents.desk.wishes import LONG_TERM, MARKET_MAKING, SHORT_TERM, LongTermWish, ShortTermWish, StandingWishes, Target

WILD = 3.0
"""A profit of three times its running size is as good as any larger one."""


class Gating:
    """Each wish times `u_a = g_a / max g`, in (0, 1]: the favourite wishes as it would alone, nobody ever more.

    The gate g on the simplex is Hedge (exponentiated gradient): `g_a <- g_a exp(eta r_a) / sum`, with the reward r_a the agent's
    attributed profit of the period over three times its own running root mean square, clipped to [-1, 1]: by its own, so that an
    agent that is gated down can still show what it is worth. For rewards of that range `eta = sqrt(2 ln K / n)`, n the memory, bounds
    the regret to the best of K agents by `sqrt(2 n ln K)` (Cesa-Bianchi and Lugosi 2006, "Prediction, learning, and games",
    theorem 2.2; Helmbold et al. 1998, "On-line portfolio selection using multiplicative updates"). The part `1 / n` of the gate is
    shared evenly after each step, so that the best of now and not of ever is followed (Herbster and Warmuth 1998, "Tracking the
    best expert"), and `gate_floor` of what is served is even. Without evidence the gate is even, and nothing is changed.
    """

    def __init__(self, params: CoordinatorParams) -> None:
        self.params = params
        self._track = Track(params.period_s)
        self._eta, self._share = sqrt(2.0 * log(len(BUDGETED)) / params.memory), 1.0 / params.memory
        self._decay = 1.0 - 2.0 / (params.memory + 1.0)
        self._gate = dict.fromkeys(BUDGETED, 1.0 / len(BUDGETED))
        self._squares = dict.fromkeys(BUDGETED, 0.0)
        self._seen = 0.0

    def coordinate(
        self, wishes: StandingWishes, symbols: Sequence[Symbol], now: int,
        inventory: Mapping[Symbol, float] | None = None, evidence: Evidence | None = None,
    ) -> Target:  # fmt: skip
        """The joint target; learns from the evidence when a period is over."""
        if (profits := self._track.observe(now, evidence)) is not None:
            self._learn(profits)
        trust = self.trusted()

        def gated(long_term: LongTermWish | None, short_term: ShortTermWish | None) -> tuple[float, float]:
            weight, tilt = blend(long_term, short_term)
            return trust[LONG_TERM] * weight, trust[SHORT_TERM] * tilt

        return coordinate(wishes, symbols, now, inventory, self.params, gated, trust[MARKET_MAKING])

    def gate(self) -> dict[str, float]:
        """The point on the simplex that is served, by agent."""
        even, floor = 1.0 / len(BUDGETED), self.params.gate_floor
        return {agent: (1.0 - floor) * g + floor * even for agent, g in self._gate.items()}

    def trusted(self) -> dict[str, float]:
        """What each agent's wish is multiplied by, in (0, 1]."""
        gate = self.gate()
        best = max(gate.values())
        return {agent: g / best for agent, g in gate.items()}

    def _learn(self, profits: Mapping[str, float]) -> None:
        self._seen = self._decay * self._seen + 1.0
        for agent, profit in profits.items():
            self._squares[agent] = self._decay * self._squares[agent] + profit * profit
            size = WILD * sqrt(self._squares[agent] / self._seen)
            reward = min(max(profit / size, -1.0), 1.0) if size > 1e-15 else 0.0
            self._gate[agent] *= exp(self._eta * reward)
        total, even = sum(self._gate.values()), 1.0 / len(BUDGETED)
        self._gate = {agent: (1.0 - self._share) * g / total + self._share * even for agent, g in self._gate.items()}
