"""The four wishes at one table: which strategy joins them into one target is a choice, what a strategy must do is a protocol."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from agents.core.instruments import Symbol
from agents.desk.coordination.band import Band
from agents.desk.coordination.confidence import Confidence
from agents.desk.coordination.gating import Gating
from agents.desk.coordination.joining import coordinate, granted
from agents.desk.coordination.params import (
    BAND,
    CONFIDENCE,
    DEFAULT,
    GATING,
    PRECISION,
    STRATEGIES,
    AgentBudget,
    Budgets,
    CoordinatorParams,
)
from agents.desk.coordination.precision import Precision
from agents.desk.coordination.track import Evidence
from agents.desk.wishes import StandingWishes, Target

__all__ = [
    "STRATEGIES", "AgentBudget", "Band", "Budgets", "Confidence", "Coordinator", "CoordinatorParams", "Evidence", "Gating", "Precision",
    "coordinate", "granted", "make_coordinator",
]  # fmt: skip


class Coordinator(Protocol):
    """Joins wishes; whatever it remembers is a function of its calls alone, so that a replay decides the same."""

    def coordinate(
        self, wishes: StandingWishes, symbols: Sequence[Symbol], now: int,
        inventory: Mapping[Symbol, float] | None = None, evidence: Evidence | None = None,
    ) -> Target:  # fmt: skip
        """The joint target at market time `now` for all of `symbols`; expired wishes count as never made.

        `inventory` is the market maker's own (fractions of equity), `evidence` what the agents' sub-accounts are worth: without it
        nothing is learned. No wish is ever made larger than its agent made it, and none opposed to it.
        """

    def trusted(self) -> dict[str, float]:
        """What evidence has made of each agent's say: a factor by agent, empty where the strategy does not learn."""


_MAKERS: dict[str, Callable[[CoordinatorParams], Coordinator]] = {
    PRECISION: Precision, CONFIDENCE: Confidence, BAND: Band, GATING: Gating,
}  # fmt: skip


def make_coordinator(params: CoordinatorParams = DEFAULT) -> Coordinator:
    """The coordinator of `params.strategy`, without a past."""
    return _MAKERS[params.strategy](params)
