"""Confidence: a precision is worth what its agent has lately earned for its risk, and little is concluded from little."""

from collections.abc import Mapping, Sequence
from math import sqrt, tanh

from agents.core.instruments import Symbol
from agents.desk.coordination.joining import coordinate, granted
from agents.desk.coordination.params import BUDGETED, CoordinatorParams
from agents.desk.coordination.track import Evidence, Moments, Track
from agents.desk.wishes import LONG_TERM, MARKET_MAKING, SHORT_TERM, LongTermWish, ShortTermWish, StandingWishes, Target

YEAR_S = 365.0 * 86_400.0


class Confidence:
    """The precision-weighted blend with `kappa_a -> kappa_a B^tanh(s~_a / tau)`, B the largest trust.

    s_a is the exponentially weighted Sharpe ratio of the agent's attributed profits a period, net of its costs, from n effective
    observations. Its sampling variance is `(1 + s^2 / 2) / n` (Lo 2002, "The statistics of Sharpe ratios", eq. 9); with the prior
    `N(0, tau^2)` the posterior mean is `s~ = s n tau^2 / (n tau^2 + 1 + s^2 / 2)`, which is 0, and the factor 1, with few
    observations. The factor lies in (1/B, B). Opinion pools weighted by past performance: Clemen and Winkler (1999), "Combining
    probability distributions from experts in risk analysis". The market maker has no precision in the blend: its sizes and the
    inventory it may keep are scaled by its factor where that is below 1, never raised.
    """

    def __init__(self, params: CoordinatorParams) -> None:
        self.params = params
        self._track = Track(params.period_s)
        self._moments = {agent: Moments(params.memory) for agent in BUDGETED}
        self._factors = dict.fromkeys(BUDGETED, 1.0)

    def coordinate(
        self, wishes: StandingWishes, symbols: Sequence[Symbol], now: int,
        inventory: Mapping[Symbol, float] | None = None, evidence: Evidence | None = None,
    ) -> Target:  # fmt: skip
        """The joint target; learns from the evidence when a period is over."""
        if (profits := self._track.observe(now, evidence)) is not None:
            for agent, moments in self._moments.items():
                moments.update(profits[agent])
                self._factors[agent] = self._factor(moments)
        return coordinate(wishes, symbols, now, inventory, self.params, self._blend, min(1.0, self._factors[MARKET_MAKING]))

    def trusted(self) -> dict[str, float]:
        """Factor on each agent's precision, in [1/trust, trust]."""
        return dict(self._factors)

    def _factor(self, moments: Moments) -> float:
        tau = self.params.sharpe_scale * sqrt(self.params.period_s / YEAR_S)
        seen = moments.count * tau * tau
        posterior = moments.sharpe * seen / (seen + 1.0 + 0.5 * moments.sharpe**2)
        return float(self.params.trust ** tanh(posterior / tau))

    def _blend(self, long_term: LongTermWish | None, short_term: ShortTermWish | None) -> tuple[float, float]:
        weight, precision = (long_term.weight, long_term.precision * self._factors[LONG_TERM]) if long_term is not None else (0.0, 0.0)
        if short_term is None:
            return weight, 0.0
        return weight, granted(short_term.weight, short_term.precision * self._factors[SHORT_TERM], precision)
