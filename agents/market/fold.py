"""A book rebuilt from absolute level changes, in whole ticks and lots; gives the top as snapshots. Pure; `tape.py` reads files."""

from bisect import bisect_left, insort
from collections.abc import Sequence
from decimal import Decimal

from agents.core.events import Level


class FoldedSide:
    """One side. Keys are ticks, negated for bids, so that the best is always first."""

    __slots__ = ("_keys", "_lot", "_lots", "_made", "_sign", "_tick")

    def __init__(self, sign: int, tick: Decimal, lot: Decimal) -> None:
        self._sign, self._tick, self._lot = sign, tick, lot
        self._keys: list[int] = []
        self._lots: dict[int, int] = {}
        self._made: dict[int, tuple[int, Level]] = {}

    def change(self, tick: int, lots: int) -> None:
        """Set the quantity at a price; 0 removes it."""
        key = self._sign * tick
        if lots:
            if key not in self._lots:
                insort(self._keys, key)
            self._lots[key] = lots
        elif self._lots.pop(key, 0):
            del self._keys[bisect_left(self._keys, key)]
            self._made.pop(key, None)

    @property
    def best(self) -> int | None:
        """Best price in ticks."""
        return self._sign * self._keys[0] if self._keys else None

    def top(self, depth: int) -> tuple[Level, ...]:
        """The best `depth` levels; level objects are reused while they do not change."""
        made, lots = self._made, self._lots
        levels = []
        for key in self._keys[:depth]:
            known = made.get(key)
            if known is None or known[0] != lots[key]:
                known = made[key] = (lots[key], (self._sign * key * self._tick, lots[key] * self._lot))
            levels.append(known[1])
        return tuple(levels)


class BookFold:
    """Both sides of one symbol's book."""

    __slots__ = ("_lot", "_tick", "asks", "bids")

    def __init__(self, tick: Decimal, lot: Decimal) -> None:
        self._tick, self._lot = tick, lot
        self.clear()

    def clear(self) -> None:
        """Forget everything: a snapshot follows."""
        self.bids, self.asks = FoldedSide(-1, self._tick, self._lot), FoldedSide(1, self._tick, self._lot)

    def apply(self, sides: Sequence[int], ticks: Sequence[int], lots: Sequence[int]) -> None:
        """Absolute level changes of one message; sides are 1 for bids and -1 for asks."""
        bid, ask = self.bids.change, self.asks.change
        for side, tick, count in zip(sides, ticks, lots, strict=True):
            (bid if side > 0 else ask)(tick, count)

    @property
    def crossed(self) -> bool:
        """Bids at or above asks: a change was lost."""
        bid, ask = self.bids.best, self.asks.best
        return bid is not None and ask is not None and bid >= ask
