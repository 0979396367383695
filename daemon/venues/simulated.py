"""The real market with pretended fills: feed events pass through, and our orders meet them in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from decimal import Decimal
from typing import Protocol

from agents.core.events import MARKET_EVENTS, Bar, BookSnapshot, Event, Listing, Stamp, Trade, stamped
from agents.core.instruments import Currency, Symbol
from agents.core.orders import Command
from agents.market.exchange import SimulatedExchange
from daemon.venues.base import Outbox, pumped

NS = 1_000_000_000
CROWDED = 1000
"""Waiting facts from which on it is worth asking whether there is room."""


class Feed(Protocol):
    """Where market data comes from."""

    def events(self) -> AsyncIterator[Event]:
        """Unstamped facts."""
        ...

    async def close(self) -> None:
        """Let go of what is connected."""
        ...


class SimulatedVenue:
    """A feed and a simulated exchange. Holds no key and sends nothing to the world."""

    def __init__(self, feed: Feed, exchange: SimulatedExchange, clock: Callable[[], int]) -> None:
        self._feed, self._exchange, self._clock = feed, exchange, clock
        self._outbox = Outbox()
        self._alarm: asyncio.TimerHandle | None = None
        self._booked: set[Symbol] = set()

    async def events(self) -> AsyncIterator[Event]:
        """Each fact of the feed, followed by what it caused to our orders; delayed commands are released by time."""
        async with aclosing(pumped(self._run, self._outbox)) as events:  # type: ignore[type-var]
            async for event in events:
                yield event

    async def send(self, command: Command) -> None:
        """Hand a command to the simulated exchange; it arrives there after the configured latency."""
        self._exchange.send(command, self._clock())
        self._schedule()

    async def balances(self) -> dict[Currency, Decimal]:
        """Total of every currency in the simulated account."""
        return self._exchange.balances()

    async def quote(self, symbol: Symbol) -> None:
        """Nothing: simulated fills come from the feed's own prices, and no other would sell anything here."""

    async def settle(self, timeout_s: float) -> bool:
        """Wait until nothing is on its way any more; False when time is up first."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._exchange.next_due is not None or len(self._outbox):
                    await asyncio.sleep(0.01)
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        """Stop the alarm and let go of the feed's connection."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        await self._feed.close()

    async def _run(self) -> None:
        async with aclosing(self._feed.events()) as feed:  # type: ignore[type-var]
            async for event in feed:
                self._take(event)
                if len(self._outbox) > CROWDED:
                    await self._outbox.room()

    def _take(self, event: Event) -> None:
        now, put, kind = self._clock(), self._outbox.put, type(event)
        if not self._exchange.idle:
            for due in self._exchange.advance(now):
                put(due)
        put(event)
        if kind is BookSnapshot or kind is Trade:
            if kind is BookSnapshot:
                self._booked.add(event.symbol)  # type: ignore[union-attr]  # a book has one
            for caused in self._exchange.on_market(event, now):
                put(caused)
        elif isinstance(event, Listing):
            self._exchange.list(event.instrument)
        elif isinstance(event, MARKET_EVENTS) and not (isinstance(event, Bar) and event.symbol in self._booked):
            # Bars are liquidity only where nothing better is known; next to a book they are history, told late.
            for caused in self._exchange.on_market(stamped(event, Stamp(now))):
                put(caused)
        if not self._exchange.idle:
            self._schedule()

    def _release(self) -> None:
        self._alarm = None
        self._outbox.extend(self._exchange.advance(self._clock()))
        self._schedule()

    def _schedule(self) -> None:
        """Ring when the next delayed command or acknowledgement is due."""
        due = self._exchange.next_due
        if due is None:
            return
        loop = asyncio.get_running_loop()
        when = loop.time() + max(0.0, (due - self._clock()) / NS)
        if self._alarm is not None:
            if self._alarm.when() <= when:
                return
            self._alarm.cancel()
        self._alarm = loop.call_at(when, self._release)
