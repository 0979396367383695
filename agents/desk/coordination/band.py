"""Hierarchical band: the long-term agent sets the weight, the short-term agent moves strictly inside a band around it."""

from collections.abc import Mapping, Sequence
from functools import partial
from math import copysign

from agents.core.instruments import Symbol
from agents.desk.coordination.joining import coordinate
from agents.desk.coordination.params import CoordinatorParams
from agents.desk.coordination.track import Evidence
from agents.desk.wishes import LongTermWish, ShortTermWish, StandingWishes, Target


class Band:
    """`w = m (L + sign(e) min(b |L| |e|, |s|))`: L the long-term weight, e in (-1, 1) the short-term tilt and s the same in fractions
    of equity, b in [0, 1] the band, m < 1 the risk multiplier.

    So `|w - m L| < b m |L|` strictly, the short-term agent never turns the sign, has nothing to say where the long-term agent wants
    nothing, and risk narrows the band with the weight. A level that sets bounds for the one below it: Dayan and Hinton (1993),
    "Feudal reinforcement learning". Precisions do not count here, and nothing is learned.
    """

    def __init__(self, params: CoordinatorParams) -> None:
        self.params = params

    def coordinate(
        self, wishes: StandingWishes, symbols: Sequence[Symbol], now: int,
        inventory: Mapping[Symbol, float] | None = None, evidence: Evidence | None = None,
    ) -> Target:  # fmt: skip
        """The joint target; the evidence is not looked at."""
        return coordinate(wishes, symbols, now, inventory, self.params, partial(_within, self.params.band))

    def trusted(self) -> dict[str, float]:
        """Nobody's say is changed."""
        return {}


def _within(band: float, long_term: LongTermWish | None, short_term: ShortTermWish | None) -> tuple[float, float]:
    weight = long_term.weight if long_term is not None else 0.0
    if short_term is None:
        return weight, 0.0
    return weight, copysign(min(band * abs(weight) * abs(short_term.tilt), abs(short_term.weight)), short_term.tilt)
