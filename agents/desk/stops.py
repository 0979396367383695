"""Trailing stop levels: a distance under the highest mark since a position was opened, and what happens once one is reached.

The level is a fact about the position; who watches it is another question. Where a stop order rests on the exchange
(`agents.desk.protection`) its trigger is the level that counts, else the daemon watches the mark itself.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from agents.core.instruments import NS, Symbol
from agents.core.ledger import Ledger
from agents.desk.wishes import LONG_TERM, LongTermWish, Style, Target
from agents.market.state import MarketState

HOUR = 3600 * NS
COOL_DOWN_H = 24.0
"""Market hours that the long-term agent stays out after a stop of its was hit. What was stopped is mostly wished again an hour later: on
hourly candles of three coins, ten days, buying back at once turned the book over sixteen times."""
AT_ONCE = Style(urgency=1.0, offset=0.0, participation=1.0)
"""Immediate-or-cancel, as fast as a whole market's volume."""


@dataclass(frozen=True, slots=True)
class Level:
    """Where a position shall be stopped: a price, and its distance from the highest mark as a fraction of that."""

    price: float
    distance: float


@dataclass(slots=True)
class _Stop:
    since: int
    highest: float
    distance: float
    hit: bool = False
    out_until: int = 0
    """Market time until which the long-term agent's wish for more than nothing is not heard."""


class Stops:
    """One per long position. Distances come from the long-term agent and are fractions of the highest mark since the opening.

    A stop that was hit keeps its symbol at zero until the long-term agent has spoken again, and the long-term agent out of it for the
    cool-down, or until it has wished for nothing there: then its next wish is a new one.
    """

    def __init__(self, cool_down_h: float = COOL_DOWN_H) -> None:
        self._cool_down = int(cool_down_h * HOUR)
        self._stops: dict[Symbol, _Stop] = {}
        self._left: dict[Symbol, float] = {}
        """Triggers of stops that an earlier session left: a restart does not lower them."""

    def wish(self, wish: LongTermWish) -> None:
        """The long-term agent spoke: its distance counts from now on, and a stop that was hit is forgiven."""
        if (stop := self._stops.get(wish.symbol)) is not None:
            stop.distance, stop.hit = wish.stop_distance, False
            if wish.weight <= 0:
                stop.out_until = 0
        elif wish.stop_distance > 0:
            self._stops[wish.symbol] = _Stop(0, 0.0, wish.stop_distance)

    def adopt(self, symbol: Symbol, trigger: float) -> None:
        """A stop of an earlier session rests at `trigger`: the trailing goes on from there."""
        self._left[symbol] = max(trigger, self._left.get(symbol, 0.0))

    def fire(self, symbol: Symbol, now: int) -> None:
        """The exchange has sold by a stop: the symbol stays at zero until the long-term agent speaks, as if the daemon had seen it."""
        self._hit(self._stops.setdefault(symbol, _Stop(0, 0.0, 0.0)), now)

    def _hit(self, stop: _Stop, now: int) -> None:
        stop.hit, stop.out_until = True, now + self._cool_down

    def watch(self, market: MarketState, ledger: Ledger, resting: Mapping[Symbol, float] | None = None,
              only: Collection[Symbol] | None = None) -> None:  # fmt: skip
        """Follow the marks. Only a trustworthy mark moves or hits a stop.

        `resting` are the triggers of stops on the exchange: where one rests, it and not the level says when the stop is hit. `only`
        restricts the look to some symbols.
        """
        for symbol, stop in self._stops.items():
            if only is not None and symbol not in only:
                continue
            if ledger.position(symbol) <= 0:
                stop.since = 0
                self._left.pop(symbol, None)
                continue
            if market.trouble(symbol) is not None or (mark := market.mark(symbol)) is None:
                continue
            price = float(mark)
            if not stop.since:
                left = self._left.pop(symbol, 0.0) / (1.0 - stop.distance) if stop.distance < 1.0 else 0.0
                stop.since, stop.highest = market.now, max(price, float(ledger.average_price(symbol)), left)
            stop.highest = max(stop.highest, price)
            if price <= (resting or {}).get(symbol, stop.highest * (1.0 - stop.distance)):
                self._hit(stop, market.now)

    def levels(self, now: int) -> dict[Symbol, tuple[float, float]]:
        """symbol -> (distance as a fraction, age in hours), for the observation; only of open positions."""
        return {s: (stop.distance, (now - stop.since) / HOUR) for s, stop in self._stops.items() if stop.since}

    def prices(self) -> dict[Symbol, Level]:
        """Where each open position shall be stopped."""
        return {s: Level(stop.highest * (1.0 - stop.distance), stop.distance) for s, stop in self._stops.items() if stop.since}

    def hits(self) -> frozenset[Symbol]:
        """Symbols whose stop was reached and not yet forgiven."""
        return frozenset(s for s, stop in self._stops.items() if stop.hit)

    def cut(self, target: Target, urgent: Collection[Symbol] = ()) -> Target:
        """The same target with nothing wished where a stop was hit. What is `urgent` sells by taking: its stop was a market order,
        and what that did not cover shall not be worked patiently."""
        hit = {s for s in self.hits() if s in target.weights}
        out = {s for s, stop in self._stops.items() if s in target.weights and s not in hit and target.time < stop.out_until}
        out = {s for s in out if target.contributions.get(s, {}).get(LONG_TERM, 0.0) > 0}
        if not hit and not out:
            return target
        left = {s: {agent: part for agent, part in target.contributions[s].items() if agent != LONG_TERM} for s in out}
        return replace(
            target,
            styles=target.styles | {s: AT_ONCE for s in hit if s in urgent},
            weights={s: 0.0 if s in hit else sum(left[s].values()) if s in out else w for s, w in target.weights.items()},
            quotes={s: q for s, q in target.quotes.items() if s not in hit},
            contributions={s: {} if s in hit else left.get(s, c) for s, c in target.contributions.items()},
        )
