"""A synthetic market as a feed for whole-session tests: no network, no process, its own clock."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal

from agents.core.events import UNSTAMPED, Bar, Event, Listing, stamped
from agents.core.instruments import NS, TIMEFRAMES, Symbol
from agents.market.synthetic import SyntheticMarket

START = 1_700_000_000 * NS


class SyntheticFeed:
    """Listings, an hour of history and then `seconds` of market in steps of 100 ms; `now` is the feed's clock."""

    def __init__(self, symbols: Sequence[Symbol], seconds: float, seed: int = 3) -> None:
        self._market = SyntheticMarket(symbols, seed, START, history_days=2)
        self._symbols, self._steps = tuple(symbols), int(seconds * 10)
        self._now = START

    def clock(self) -> int:
        """Market time; moves with the steps."""
        return self._now

    async def events(self) -> AsyncIterator[Event]:
        """Unstamped facts, as a venue's feed gives them."""
        for symbol in self._symbols:
            yield Listing(UNSTAMPED, self._market.instruments[symbol])
        for bar in self.history():
            yield bar
        for step in range(1, self._steps + 1):
            self._now = START + step * NS // 10
            for event in self._market.step(self._now):
                yield stamped(event, UNSTAMPED)
            await asyncio.sleep(0)

    def history(self) -> list[Bar]:
        """One-minute bars of the last hour."""
        bars = []
        for symbol in self._symbols:
            for row in self._market.history(symbol, "1m", limit=60):
                prices = [Decimal(repr(float(x))) for x in row[1:]]
                time = int(row[0]) * 1_000_000
                if time + TIMEFRAMES["1m"] <= START:
                    bars.append(Bar(UNSTAMPED, symbol, time, "1m", *prices))
        return sorted(bars, key=lambda bar: bar.time)
