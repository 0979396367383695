"""From a ccxt object's shared, mutable caches to events: copied, each fact once, nothing believed that cannot be."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agents.core.errors import DataError
from agents.core.events import UNSTAMPED, FeedGap, Level, Trade
from agents.core.instruments import Side, Symbol
from daemon.venues.base import Outbox
from daemon.venues.continuity import TradeLine
from daemon.venues.freshness import Freshness
from daemon.venues.parse import Levels, parse_book, parse_trade

BOOK, TRADES = "book", "trades"
REPEAT_S = 1.0
"""An unchanged book is told again after this long, so that its age stays the age of our knowledge."""

BEST = 5
"""Levels compared between a stream's book and a fetched one; the stream's may be shallower."""


@dataclass(slots=True)
class _BookLine:
    version: tuple[Any, Any] | None = None
    numbered: bool = False
    """Whether this exchange numbers its books; then a book without a number waits for its snapshot."""
    sides: tuple[tuple[Level, ...], tuple[Level, ...]] | None = None
    told: float = -1e9


class Intake:
    """One feed's memory of what it has already told. Survives the ccxt objects that it reads from."""

    def __init__(
        self, symbols: Sequence[Symbol], outbox: Outbox, clock: Callable[[], int], depth: int, freshness: Freshness
    ) -> None:
        self.lines = {symbol: TradeLine() for symbol in symbols}
        self.freshness = freshness
        self.market_time = 0
        """Latest exchange time seen on any symbol, nanoseconds."""
        self.refused: Counter[str] = Counter()
        self.trades = self.books = 0
        self.holed: set[Symbol] = set()
        """Symbols whose prints wait for a hole to be mended."""
        self._spans: list[tuple[Symbol, tuple[int, int]]] = []
        self._books = {symbol: _BookLine() for symbol in symbols}
        self._sides: dict[Symbol, Side] = {}
        self._outbox, self._clock, self._depth = outbox, clock, depth
        self._levels = Levels()

    def trades_from(self, symbol: Symbol, rows: Iterable[Mapping[str, Any]], now: float) -> int:
        """Prints of the stream, in order; how many were new."""
        trades = self._parsed(symbol, rows)
        if not trades:
            return 0
        self.freshness.heard(TRADES, symbol, now)
        line = self.lines[symbol]
        new = line.live(trades)
        if line.holed:
            self.holed.add(symbol)
        self._tell(new)
        return len(new)

    def mended(self, symbol: Symbol, rows: Iterable[Mapping[str, Any]]) -> tuple[int, bool]:
        """Prints fetched by REST; (how many were new, whether they join what was known)."""
        before = self.lines[symbol].last
        new, joined = self.lines[symbol].mend(self._parsed(symbol, rows))
        self.holed.discard(symbol)
        self._tell(new)
        if not joined and before is not None and new:
            self._spans.append((symbol, (before.time, new[0].time)))
        return len(new), joined

    def seed(self, symbol: Symbol, rows: Iterable[Mapping[str, Any]]) -> None:
        """Prints from before we listened: remembered as known, told to nobody."""
        for trade in sorted(self._parsed(symbol, rows), key=lambda trade: trade.time):
            self.lines[symbol].seed(trade)

    def unmended(self, symbol: Symbol) -> None:
        """The hole cannot be mended: hand on what was held."""
        before = self.lines[symbol].last
        new = self.lines[symbol].give_up()
        self.holed.discard(symbol)
        self._tell(new)
        if before is not None and new:
            self._spans.append((symbol, (before.time, new[0].time)))

    def take_holes(self) -> list[tuple[Symbol, tuple[int, int]]]:
        """Spans of market time whose prints are lost, since the last call: their bars need repair."""
        spans, self._spans = self._spans, []
        return spans

    def book_from(self, symbol: Symbol, book: Mapping[str, Any], now: float) -> bool:
        """The stream's book as it is now; whether it is another one than before."""
        line = self._books[symbol]
        version = (book.get("nonce"), book.get("timestamp"))
        if version == line.version and version != (None, None):
            return False
        if version[0] is not None:
            line.numbered = True
        elif line.numbered:
            return False
        line.version = version
        return self._book(symbol, book, line, now, live=True)

    def book_asked(self, symbol: Symbol, book: Mapping[str, Any], now: float) -> bool:
        """A book fetched by REST; whether it shows news."""
        return self._book(symbol, book, self._books[symbol], now, live=False)

    def lost(self, channel: str, symbols: Iterable[Symbol], reason: str) -> None:
        """The stream broke: say so, and hold prints back until the hole is looked after."""
        for symbol in symbols:
            if channel == TRADES:
                self.lines[symbol].lose()
                if self.lines[symbol].holed:
                    self.holed.add(symbol)
            else:
                if self._books[symbol].sides is not None:
                    self.gap(channel, symbol, reason)
                    self._books[symbol].sides = None

    def gap(self, channel: str, symbol: Symbol, reason: str) -> None:
        """Tell that something is missing for good."""
        self._outbox.put(FeedGap(UNSTAMPED, symbol, channel, reason))

    def time_or_clock(self) -> int:
        """Stand-in where an exchange sends no time."""
        return self.market_time or self._clock()

    def _book(self, symbol: Symbol, book: Mapping[str, Any], line: _BookLine, now: float, *, live: bool) -> bool:
        """Tell a book unless it repeats; whether its best levels differ from what was told before."""
        try:
            event = parse_book(book, symbol, self._depth, self.time_or_clock(), self._levels)
        except (DataError, KeyError, IndexError, TypeError) as error:
            self.refused[f"book_{error}"] += 1
            return False
        if live:
            self.freshness.heard(BOOK, symbol, now)
        sides = (event.bids, event.asks)
        known = line.sides
        changed = sides != known
        if live and not self.market_time and book.get("timestamp") is None:
            line.sides = sides  # no time to tell it by; the stream's own, dated books follow at once
        elif changed or now - line.told >= REPEAT_S:
            line.sides, line.told = sides, now
            self.market_time = max(self.market_time, event.time)
            self.books += 1
            self._outbox.put(event)
        return changed and (known is None or any(new[:BEST] != old[:BEST] for new, old in zip(sides, known, strict=True)))

    def _parsed(self, symbol: Symbol, rows: Iterable[Mapping[str, Any]]) -> list[Trade]:
        out, otherwise, side = [], self.time_or_clock(), self._sides.get(symbol, Side.BUY)
        for row in rows:
            try:
                trade = parse_trade(row, symbol, otherwise, side)
            except (DataError, AttributeError, TypeError) as error:
                self.refused[f"trade_{error}"] += 1
                continue
            side = trade.side
            out.append(trade)
        self._sides[symbol] = side
        return out

    def _tell(self, trades: list[Trade]) -> None:
        if trades:
            self.trades += len(trades)
            self.market_time = max(self.market_time, trades[-1].time)
            self._outbox.extend(trades)
