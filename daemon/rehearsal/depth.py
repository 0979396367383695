"""The public order book of one market, and what changed in it since the last diff message."""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from agents.core.events import BookSnapshot, Level
from agents.core.instruments import Side

FIRST_UPDATE_ID = 1_000_000


@dataclass(frozen=True, slots=True)
class DepthChange:
    """One diff: update ids U and u, and the absolute quantity of every price that changed (0 removes)."""

    first_id: int
    final_id: int
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]


class _Half:
    """One side of the book; `sign` orders prices best first when multiplied and taken descending."""

    def __init__(self, highest_first: bool) -> None:
        self._best_of = max if highest_first else min
        self._top_of = heapq.nlargest if highest_first else heapq.nsmallest
        self.levels: dict[Decimal, Decimal] = {}
        self.changed: dict[Decimal, Decimal] = {}

    def replace(self, levels: Iterable[Level]) -> None:
        fresh = dict(levels)
        old = self.levels
        if fresh == old:
            return
        changed = self.changed
        for price, quantity in fresh.items():
            if old.get(price) != quantity:
                changed[price] = quantity
        for price in old.keys() - fresh.keys():
            changed[price] = Decimal(0)
        self.levels = fresh

    def best(self) -> Level | None:
        if not self.levels:
            return None
        price = self._best_of(self.levels)
        return price, self.levels[price]

    def put(self, price: Decimal, quantity: Decimal) -> None:
        self.levels[price] = self.changed[price] = quantity

    def top(self, count: int) -> list[Level]:
        return self._top_of(count, self.levels.items())


class Depth:
    """The book that the public sees. Ids count changed levels, so that each diff starts where the one before it ended."""

    def __init__(self) -> None:
        self._bids = _Half(highest_first=True)
        self._asks = _Half(highest_first=False)
        self.update_id = FIRST_UPDATE_ID

    def apply(self, event: BookSnapshot) -> None:
        self._bids.replace(event.bids)
        self._asks.replace(event.asks)

    def put(self, side: Side, price: Decimal, quantity: Decimal) -> None:
        """One level has another quantity (not 0)."""
        (self._bids if side is Side.BUY else self._asks).put(price, quantity)

    def drain(self) -> DepthChange | None:
        """What changed since the last call, or None; from here on the snapshot carries the new update id."""
        bids, asks = self._bids.changed, self._asks.changed
        count = len(bids) + len(asks)
        if not count:
            return None
        self._bids.changed, self._asks.changed = {}, {}
        first = self.update_id + 1
        self.update_id += count
        return DepthChange(first, self.update_id, tuple(bids.items()), tuple(asks.items()))

    def best(self) -> tuple[Level | None, Level | None]:
        """Best bid and best ask."""
        return self._bids.best(), self._asks.best()

    def top(self, count: int) -> tuple[list[Level], list[Level]]:
        """The best `count` bids and asks, best first."""
        return self._bids.top(count), self._asks.top(count)

    def walk(self, side: Side, quote_quantity: Decimal) -> tuple[Decimal, Decimal]:
        """(base, quote) that a taker of `side` gets for at most `quote_quantity`, by the displayed levels."""
        levels = self._asks if side is Side.BUY else self._bids
        base = spent = Decimal(0)
        for price, quantity in levels.top(len(levels.levels)):
            take = min(quantity, (quote_quantity - spent) / price)
            base += take
            spent += take * price
            if take < quantity:
                break
        return base, spent
