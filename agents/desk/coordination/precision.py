"""The default: each view has the precision that its agent gave it. Learns nothing."""

from collections.abc import Mapping, Sequence

from agents.core.instruments import Symbol
from agents.desk.coordination.joining import coordinate
from agents.desk.coordination.params import CoordinatorParams
from agents.desk.coordination.track import Evidence
from agents.desk.wishes import StandingWishes, Target


class Precision:
    """`w = sum(kappa e) / sum(kappa)` over the long-term weight L and the short-term view L + 2 tilt, inside the band."""

    def __init__(self, params: CoordinatorParams) -> None:
        self.params = params

    def coordinate(
        self, wishes: StandingWishes, symbols: Sequence[Symbol], now: int,
        inventory: Mapping[Symbol, float] | None = None, evidence: Evidence | None = None,
    ) -> Target:  # fmt: skip
        """See `agents.desk.coordination.joining.coordinate`; the evidence is not looked at."""
        return coordinate(wishes, symbols, now, inventory, self.params)

    def trusted(self) -> dict[str, float]:
        """Nobody's say is changed."""
        return {}
