"""Facts of a market, an open desk and the exchange in memory, played one after the other; it stops wherever the desk asks somebody."""

from collections.abc import Iterable, Iterator
from decimal import Decimal

from agents.core.events import MARKET_EVENTS, UNSTAMPED, Adjustment, AdjustmentKind, Event, Fill, Listing, Stamp, Tick, stamped
from agents.core.instruments import NS, Currency, Instrument
from agents.core.orders import Command, Place
from agents.desk.decision import Decision, Effects
from agents.environment.desk import OpenDesk
from agents.market.exchange import SimulatedExchange
from agents.market.frictions import Frictions


class Stage:
    """One account on one market. `run()` is a generator that pauses at every question; before it goes on, call `answered`.

    Facts stamped up to `opens_at` (ns) are history: they make the market known, then the account is opened at that time.
    """

    def __init__(
        self, desk: OpenDesk, instruments: Iterable[Instrument], capital: Decimal, frictions: Frictions, facts: Iterable[Event], opens_at: int
    ) -> None:
        quote = Currency(desk.config.quote)
        self.desk = desk
        self.exchange = SimulatedExchange(instruments, frictions, {quote: capital})
        self.fills: list[Fill] = []
        """Since somebody took them from here."""
        self.orders = 0
        self.decision: Decision | None = None
        """The latest."""
        self._facts, self._opens_at, self._now, self._seq = iter(facts), opens_at, 0, 0
        self._given: Effects | None = None
        # The capital comes before the listings, so that the last listing finds an account that can decide.
        self._opening: list[Event] = [
            Adjustment(UNSTAMPED, quote, capital, AdjustmentKind.OPENING),
            Adjustment(UNSTAMPED, quote, capital, AdjustmentKind.CAPITAL),
            *(Listing(UNSTAMPED, instrument) for instrument in instruments),
        ]

    def answered(self, effects: Effects) -> None:
        """What the desk said to an answer."""
        self._given = effects

    def run(self) -> Iterator[None]:
        """Play to the end of the facts, pausing at each question."""
        next_tick = 0
        for event in self._facts:
            now = self._now = event.stamp.at
            if self._opening and now > self._opens_at:
                yield from self._open(self._opens_at or now)
            if now >= next_tick and not self._opening:
                yield from self._step(Tick(UNSTAMPED), now)
                next_tick = now + NS
            for due in self.exchange.advance(now):
                yield from self._step(due, now)
            yield from self._step(event, now)
            if isinstance(event, MARKET_EVENTS):
                for caused in self.exchange.on_market(event):
                    yield from self._step(caused, now)
        if self._opening and self._now:
            yield from self._open(self._now)

    def _open(self, now: int) -> Iterator[None]:
        opening, self._opening = self._opening, []
        for event in opening:
            yield from self._step(event, now)
        for due in self.exchange.advance(now):
            yield from self._step(due, now)

    def _step(self, event: Event, now: int) -> Iterator[None]:
        self._seq += 1
        if type(event) is Fill:
            self.fills.append(event)
        effects = self.desk.step(stamped(event, Stamp(now, self._seq)))
        self._send(effects, now)
        while self.desk.asked is not None:
            yield
            given, self._given = self._given, None
            if given is None:
                raise RuntimeError("the question was not answered")
            self._send(given, now)

    def _send(self, effects: Effects, now: int) -> None:
        for command in effects.commands:
            self._count(command)
            self.exchange.send(command, now)
        if effects.decision is not None:
            self.decision = effects.decision

    def _count(self, command: Command) -> None:
        self.orders += isinstance(command, Place)
