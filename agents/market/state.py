"""Everything known of the market, as a deterministic function of the events so far."""

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal

from agents.core.events import BookDelta, BookSnapshot, Event, Listing, Quote, Trade
from agents.core.instruments import NS, Instrument, Symbol
from agents.market.book import Book


class MarketState:
    """Books, bars and features of `symbols`; facts of other symbols are ignored."""

    def __init__(self, symbols: Sequence[Symbol], stale_after_ns: int = 10 * NS) -> None:
        self.symbols = tuple(symbols)
        self.instruments: dict[Symbol, Instrument] = {}
        self.refused: Counter[str] = Counter()
        self.now = 0
        self.at = 0
        self.has_books = False
        self._books = {symbol: Book(stale_after_ns) for symbol in self.symbols}
        self._last: dict[Symbol, Decimal] = {}

    def apply(self, event: Event) -> None:
        """Take one fact; bad data is counted in `refused` and changes nothing else."""
        self.at = max(self.at, event.stamp.at)
        match event:
            case BookSnapshot() | BookDelta() | Quote() if event.symbol in self._books:
                if (problem := self._books[event.symbol].apply(event)) is not None:
                    self.refused[f"book_{problem}"] += 1
                else:
                    self.has_books = True
                    self.now = max(self.now, event.time)
            case Trade() if event.symbol in self._books:
                self._last[event.symbol] = event.price
                self.now = max(self.now, event.time)
            case Listing(instrument=instrument):
                self.instruments[instrument.symbol] = instrument
            case _:
                pass

    def book(self, symbol: Symbol) -> Book:
        return self._books[symbol]

    def mark(self, symbol: Symbol) -> Decimal | None:
        """Mid of a book that is sound or merely stale, else the last trade's or bar's price."""
        book = self._books[symbol]
        return book.mid if book.flaw is None else self._last.get(symbol)

    def trouble(self, symbol: Symbol) -> str | None:
        """Why no new risk may be taken in this symbol, or None."""
        return self._books[symbol].trouble(self.at)

    def closed(self, timeframe: str) -> int:
        """Market time of the last boundary of `timeframe` that has passed."""
        length = {"1m": 60 * NS, "15m": 900 * NS, "1h": 3600 * NS, "4h": 14_400 * NS, "1d": 86_400 * NS}[timeframe]
        return (self.now - 2 * NS) // length * length if self.now else 0
