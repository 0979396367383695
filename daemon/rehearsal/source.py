"""Where market events come from: the seeded synthetic market, or a recorded tape played as a spot market."""

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Protocol

from agents.core.errors import DataError
from agents.core.events import BookSnapshot, Event, MarketEvent, Trade
from agents.core.instruments import Instrument, Side, Symbol
from agents.market.synthetic import SyntheticMarket
from agents.market.synthetic_assets import KNOWN
from daemon.rehearsal.candles import HistoryRow
from daemon.rehearsal.config import RehearsalConfig

HISTORY_DAYS = 120
TRADES_A_SECOND = 20.0
"""Prints of one symbol in a real second at speed 60: what a busy market shows and a client can bear."""
TRADES_AT_LEAST = 1.5
"""The same at speed 1."""


class Source(Protocol):
    """A market that is stepped forward. Times are market time in nanoseconds."""

    instruments: Mapping[Symbol, Instrument]
    start: int
    ended: bool

    def step(self, to: int) -> Sequence[MarketEvent]:
        """Everything that happened after the last step up to `to`, in order."""
        ...

    def history(self, symbol: Symbol, interval: str, end_ms: int, limit: int) -> list[HistoryRow]:
        """The last `limit` candles that open before `end_ms`, oldest first; none where nothing is known."""
        ...

    def absorb(self, symbol: Symbol, side: Side, quantity: Decimal) -> None:
        """A user's order took that much; the market may move."""
        ...


class SyntheticSource:
    """The synthetic market, from `start` on and for ever. Raises ConfigError for a symbol that it does not have."""

    ended = False

    def __init__(self, symbols: Sequence[str], seed: int, start: int, trade_rate: float) -> None:
        self.start = start
        names = [Symbol(symbol) for symbol in symbols or KNOWN]
        self._market = SyntheticMarket(names, seed, start, history_days=HISTORY_DAYS, trade_rate=trade_rate)
        self.instruments: Mapping[Symbol, Instrument] = self._market.instruments

    def step(self, to: int) -> Sequence[MarketEvent]:
        return self._market.step(to)

    def history(self, symbol: Symbol, interval: str, end_ms: int, limit: int) -> list[HistoryRow]:
        return self._market.history(symbol, interval, end=end_ms * 1_000_000, limit=limit)

    def absorb(self, symbol: Symbol, side: Side, quantity: Decimal) -> None:
        self._market.absorb(symbol, side, quantity)


class TapeSource:
    """Books and prints of a recorded tape, in its own recorded time, until it ends. Nothing is known from before it."""

    def __init__(self, instruments: Mapping[Symbol, Instrument], start: int, events: Iterator[Event]) -> None:
        self.instruments = instruments
        self.start = start
        self.ended = False
        self._events = (event for event in events if isinstance(event, BookSnapshot | Trade))
        self._next: BookSnapshot | Trade | None = next(self._events, None)

    def step(self, to: int) -> Sequence[MarketEvent]:
        due: list[MarketEvent] = []
        while self._next is not None and self._next.stamp.at <= to:
            due.append(self._next)
            self._next = next(self._events, None)
        self.ended = self._next is None
        return due

    def history(self, symbol: Symbol, interval: str, end_ms: int, limit: int) -> list[HistoryRow]:
        return []

    def absorb(self, symbol: Symbol, side: Side, quantity: Decimal) -> None:
        """A recorded market has happened: nothing moves it."""


def open_source(config: RehearsalConfig, start: int) -> Source:
    """The tape that the configuration names, else the synthetic market from `start` (ns) on.

    Raises ConfigError for symbols that are not there, DataError for a tape that can't be read.
    """
    if config.data is not None:
        from agents.market.tape import open_tape  # brings polars, which the synthetic market has no need of

        tape = open_tape(config.data, symbols=config.symbols or None)
        if tape.kind == "candles":
            raise DataError(f"{config.data} holds candles, and an exchange shows books and trades: give a book session, or use the backtest")
        return TapeSource(tape.instruments, tape.start, tape.events())
    rate = config.trade_rate
    if rate is None:
        rate = max(TRADES_AT_LEAST, TRADES_A_SECOND * min(config.speed, 60.0) / 60.0) / config.speed
    return SyntheticSource(config.symbols, config.seed, start, rate)
