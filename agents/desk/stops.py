"""Stops that the daemon holds: a trailing level under the highest mark since a position was opened."""

from dataclasses import dataclass, replace

from agents.core.instruments import NS, Symbol
from agents.core.ledger import Ledger
from agents.desk.wishes import LongTermWish, Target
from agents.market.state import MarketState

HOUR = 3600 * NS


@dataclass(slots=True)
class _Stop:
    since: int
    highest: float
    distance: float
    hit: bool = False


class Stops:
    """One per long position. Distances come from the long-term agent and are fractions of the highest mark since the opening.

    A stop that was hit keeps its symbol at zero until the long-term agent has spoken again.
    """

    def __init__(self) -> None:
        self._stops: dict[Symbol, _Stop] = {}

    def wish(self, wish: LongTermWish) -> None:
        """The long-term agent spoke: its distance counts from now on, and a stop that was hit is forgiven."""
        if (stop := self._stops.get(wish.symbol)) is not None:
            stop.distance, stop.hit = wish.stop_distance, False
        elif wish.stop_distance > 0:
            self._stops[wish.symbol] = _Stop(0, 0.0, wish.stop_distance)

    def watch(self, market: MarketState, ledger: Ledger) -> None:
        """Follow the marks. Only a trustworthy mark moves or hits a stop."""
        for symbol, stop in self._stops.items():
            if ledger.position(symbol) <= 0:
                stop.since = 0
                continue
            if market.trouble(symbol) is not None or (mark := market.mark(symbol)) is None:
                continue
            price = float(mark)
            if not stop.since:
                stop.since, stop.highest = market.now, max(price, float(ledger.average_price(symbol)))
            stop.highest = max(stop.highest, price)
            if price <= stop.highest * (1.0 - stop.distance):
                stop.hit = True

    def levels(self, now: int) -> dict[Symbol, tuple[float, float]]:
        """symbol -> (distance as a fraction, age in hours), for the observation; only of open positions."""
        return {s: (stop.distance, (now - stop.since) / HOUR) for s, stop in self._stops.items() if stop.since}

    def cut(self, target: Target) -> Target:
        """The same target with nothing wished where a stop was hit."""
        hit = {s for s, stop in self._stops.items() if stop.hit and s in target.weights}
        if not hit:
            return target
        return replace(
            target,
            weights={s: 0.0 if s in hit else w for s, w in target.weights.items()},
            quotes={s: q for s, q in target.quotes.items() if s not in hit},
            contributions={s: {} if s in hit else c for s, c in target.contributions.items()},
        )
