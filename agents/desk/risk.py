"""The risk agent: two multipliers below 1 for the whole book, once per one-minute bar and on risk events. It can only tighten."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.core.instruments import TIMEFRAMES
from agents.desk.priors import Array, checked_actions, column, tighten, volatility_cushion
from agents.desk.wishes import RISK, RiskWish
from agents.market.observation import Observation


@dataclass(frozen=True, slots=True)
class RiskParams:
    """What action 0 means."""

    prior: str = "cushion"
    """cushion (volatility target times what is left of the drawdown budget) or none (an even .5, for plain SAC)."""
    volatility_target: float = 0.20
    """Annualised volatility of the whole book."""
    worst_drawdown: float = 0.20
    """DDmax: where the hard ladder would flatten anyway."""
    budget: float = 0.9
    """Prior of the second multiplier."""
    lifetime: int = 5

    def __post_init__(self) -> None:
        if self.prior not in ("cushion", "none"):
            raise ValueError(f"risk prior {self.prior!r}: use cushion or none")


class Risk:
    """Action columns: gross multiplier, risk-budget multiplier. One row."""

    name = RISK
    cadence_ns = TIMEFRAMES["1m"]
    action_size = 2

    def __init__(self, params: RiskParams = RiskParams()) -> None:
        self.params = params

    def prior(self, observation: Observation) -> tuple[Array, Array]:
        """Prior of both multipliers in [0, 1], [1] each; `tighten` clips them to [.02, .9].

        The hard limits cut a gross wish above 1 back to 1 before the multiplier is felt, so its volatility is counted at gross 1.
        """
        p = self.params
        if p.prior == "none":
            return np.full(1, 0.5), np.full(1, 0.5)
        wished = column(observation, "wished_volatility", 0.0, 100.0) / np.maximum(column(observation, "wish_gross", 0.0, 1e3), 1.0)
        drawdown = column(observation, "drawdown", 0.0, 1.0)
        return volatility_cushion(wished, drawdown, p.volatility_target, p.worst_drawdown), np.full(1, p.budget)

    def propose(self, observation: Observation, actions: NDArray[np.float32]) -> list[RiskWish]:
        """One wish. `actions` float32 [1, 2] in [-1, 1]; raises SpecMismatch or NotFinite."""
        a = checked_actions(observation, actions, self.name, self.action_size)
        gross, budget = self.prior(observation)
        expires_at = observation.time + self.params.lifetime * self.cadence_ns
        return [
            RiskWish(
                observation.time,
                expires_at,
                tuple(a[0].tolist()),
                float(tighten(gross, a[:1, 0])[0]),
                float(tighten(budget, a[:1, 1])[0]),
            )
        ]
