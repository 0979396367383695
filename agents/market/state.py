"""Everything known of the market, as a deterministic function of the events so far. What cannot be believed never enters."""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from decimal import Decimal
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt

from agents.core.errors import ConfigError
from agents.core.events import Bar, BookDelta, BookSnapshot, Event, FeedGap, Listing, Quote, Tick, Trade
from agents.core.instruments import NS, TIMEFRAMES, Instrument, Symbol
from agents.market.bars import CHAIN, Bars, Row
from agents.market.book import EMPTY, STALE, Book
from agents.market.columns import DEPTH_COLUMNS, FLOW_COLUMNS
from agents.market.features import DAY, MINUTE
from agents.market.flow import GRID, Flow, intensity
from agents.market.panels import Panels

Floats = npt.NDArray[np.float64]

GRACE_NS = 2 * NS
"""Market time after a boundary in which late prints and bars may still arrive before the boundary counts as passed."""
SETTLE_NS = 150_000_000
"""Stamp time that a boundary waits besides: where market time runs fast, other symbols' messages are still on the wire."""
FORGOTTEN_NS = 3600 * NS
"""A book this much older in market time than the last print or bar marks nothing any more."""
FASTEST = 100
"""Market time never runs faster against the stamps than this (a rehearsal runs at 60); a larger leap is bad data."""
KEPT_IDS = 2048
"""Trade ids remembered per symbol, to tell a repetition from a new print."""


class MarketState:
    """Books, bars and features of `symbols`; facts of other symbols are ignored, bad ones are counted in `refused`.

    `now` is market time, the largest believable exchange time so far; `at` is the latest stamp. Both in nanoseconds.
    """

    def __init__(
        self, symbols: Sequence[Symbol], stale_after_ns: int = 10 * NS, grace_ns: int = GRACE_NS, settle_ns: int = SETTLE_NS
    ) -> None:
        if not symbols or len(set(symbols)) != len(symbols):
            raise ConfigError(f"symbols: at least one, each once; got {list(symbols)}")
        self.symbols = tuple(symbols)
        self.instruments: dict[Symbol, Instrument] = {}
        self.refused: Counter[str] = Counter()
        self.now = 0
        self.at = 0
        self.has_books = False
        self.late_trades = 0
        """Prints that came after their minute had closed: the bars that are kept have them, features see them later."""
        self._grace_ns, self._settle_ns = grace_ns, settle_ns
        self._index = {symbol: number for number, symbol in enumerate(self.symbols)}
        self._books = [Book(stale_after_ns) for _ in self.symbols]
        self._flows = [Flow() for _ in self.symbols]
        self._bars = [Bars() for _ in self.symbols]
        self._panels = Panels(self._bars)
        self._last: list[tuple[int, Decimal] | None] = [None] * len(self.symbols)
        self._trade_times = [0] * len(self.symbols)
        self._ids: list[tuple[set[str], deque[str]]] = [(set(), deque()) for _ in self.symbols]
        self._ticks = [0.0] * len(self.symbols)
        self._passed = 0
        self._due = 0
        self._waiting_since: int | None = None
        self._live = False
        self._settled = False
        self._arrived: dict[str, tuple[int, set[int], set[int]]] = {}
        self._handlers: dict[type, Callable[[Any], None]] = {
            Trade: self._trade, BookSnapshot: self._book, BookDelta: self._book, Quote: self._book, Bar: self._bar,
            FeedGap: self._gap, Listing: self._list, Tick: self._tick,
        }  # fmt: skip

    # -- facts -----------------------------------------------------------------------------------------------------

    def apply(self, event: Event) -> None:
        """Take one fact; a bad one is counted in `refused` and changes nothing else. Never raises for bad data."""
        handler = self._handlers.get(type(event))
        if handler is not None:
            handler(event)
        if event.stamp.at > self.at:
            self.at = event.stamp.at

    def _trade(self, event: Trade) -> None:
        number = self._index.get(event.symbol)
        if number is None:
            self.refused["unknown_symbol"] += 1
            return
        price, quantity, time = _number(event.price), _number(event.quantity), event.time
        if not (0.0 < price < inf and 0.0 < quantity < inf):
            self.refused["trade_not_finite"] += 1
            return
        seen, order = self._ids[number]
        if event.trade_id in seen:
            self.refused["trade_duplicate"] += 1
            return
        if time < self._trade_times[number]:
            self.refused["trade_out_of_order"] += 1
            return
        if not self._advance(time, event.stamp.at):
            return
        seen.add(event.trade_id)
        order.append(event.trade_id)
        if len(order) > KEPT_IDS:
            seen.discard(order.popleft())
        self._trade_times[number] = time
        self._last[number] = (time, event.price)
        if not self._bars[number].trade(time, price, quantity):
            self.late_trades += 1
        self._flows[number].on_trade(time, price, quantity, event.side.value)

    def _book(self, event: BookSnapshot | BookDelta | Quote) -> None:
        number = self._index.get(event.symbol)
        if number is None:
            self.refused["unknown_symbol"] += 1
            return
        if not self._plausible(event.time, event.stamp.at):
            return
        book = self._books[number]
        if (problem := book.apply(event)) is not None:
            self.refused[f"book_{problem}"] += 1
            return
        self.has_books = True
        self._advance(event.time, event.stamp.at)
        self._flows[number].on_book(event.time, book.bid_prices[0], book.bid_sizes[0], book.ask_prices[0], book.ask_sizes[0])

    def _bar(self, event: Bar) -> None:
        number = self._index.get(event.symbol)
        if number is None:
            self.refused["unknown_symbol"] += 1
            return
        if (problem := _bar_problem(event)) is not None:
            self.refused[problem] += 1
            return
        close = event.time + TIMEFRAMES[event.timeframe]
        if close > self.now and not self._plausible(close, event.stamp.at):
            return
        bars = self._bars[number]
        values = (float(event.open), float(event.high), float(event.low), float(event.close), float(event.volume))
        bars.put(event.timeframe, Row(event.time, *values))
        self._panels.touch(bars)
        last = self._last[number]
        if last is None or last[0] < close:
            self._last[number] = (close, event.close)
        if close > self.now:
            self._move(close, event.stamp.at)
        self._arrive(number, event.timeframe, close)

    def _gap(self, event: FeedGap) -> None:
        """Books are distrusted until the next snapshot; bars until the exchange's own repair them."""
        number = self._index.get(event.symbol)
        if number is not None and "trade" not in event.channel:
            self._books[number].distrust()

    def _list(self, event: Listing) -> None:
        instrument = event.instrument
        self.instruments[instrument.symbol] = instrument
        number = self._index.get(instrument.symbol)
        if number is not None:
            self._ticks[number] = float(instrument.tick)

    def _tick(self, event: Tick) -> None:
        if self._waiting_since is not None:
            self._wait(event.stamp.at)

    # -- time ------------------------------------------------------------------------------------------------------

    def _plausible(self, time: int, at: int) -> bool:
        if self._live and time > self.now + DAY + FASTEST * max(at - self.at, 0):
            self.refused["time_leaps"] += 1
            return False
        if time <= 0 or (self._live and time < self.now - DAY):
            self.refused["time_steps_back"] += 1
            return False
        return True

    def _advance(self, time: int, at: int) -> bool:
        """Move market time to that of a print or a book, unless it cannot be believed."""
        if not self._plausible(time, at):
            return False
        self._live = True
        if time > self.now:
            self._move(time, at)
        elif self._waiting_since is not None:
            self._wait(at)
        if not self._settled:
            self._settle()
        return True

    def _settle(self) -> None:
        """History came symbol by symbol before the first live fact: now each panel may take it in the order of time."""
        self._settled = True
        if any(self._panels.stale.values()):
            self._panels.renew(self._passed)
        else:
            self._panels.take(self._passed)

    def _move(self, time: int, at: int) -> None:
        self.now = time
        if time >= self._due:
            self._wait(at)

    def _wait(self, at: int) -> None:
        """A boundary's grace is over in market time; in stamp time too?"""
        if self._waiting_since is None:
            self._waiting_since = at
        if not self._live:
            # Bars alone: nothing happens between two of them, and the first of a new time does not end the wait for the others.
            step = min((TIMEFRAMES[timeframe] for timeframe in self._arrived), default=MINUTE)
            self._waiting_since = None
            self._pass((self.now - self._grace_ns) // step * step)
        elif at - self._waiting_since >= self._settle_ns:
            self._pass((self.now - self._grace_ns) // MINUTE * MINUTE)

    def _pass(self, until: int) -> None:
        """Every boundary up to `until` has passed."""
        if until <= self._passed:
            return
        self._passed, self._waiting_since = until, None
        self._due = until + MINUTE + self._grace_ns
        for bars in self._bars:
            bars.close_until(until)
        if any(self._panels.stale.values()):
            self._panels.renew(until)
        else:
            self._panels.take(until)

    def _arrive(self, number: int, timeframe: str, close: int) -> None:
        """A boundary passes at once when the bar of every symbol that had one at the last boundary is in."""
        current, here, before = self._arrived.get(timeframe, (0, set(), set()))
        if close > current:
            self._arrived[timeframe] = (close, {number}, here)
            here, before = self._arrived[timeframe][1], here
        elif close == current:
            here.add(number)
        else:
            return
        if close > self._passed and (len(here) == len(self.symbols) or (before and here >= before)):
            self._pass(close)

    def closed(self, timeframe: str) -> int:
        """Market time of the last boundary of `timeframe` that has passed: its grace is over, or every symbol's bar is in."""
        length = TIMEFRAMES[timeframe]
        return self._passed // length * length

    # -- questions by symbol ---------------------------------------------------------------------------------------

    def index(self, symbols: Sequence[Symbol]) -> npt.NDArray[np.intp]:
        """Row numbers of `symbols` in the arrays of this class. Raises KeyError for a stranger."""
        return np.array([self._index[symbol] for symbol in symbols], dtype=np.intp)

    def book(self, symbol: Symbol) -> Book:
        """The symbol's book mirror; ask `trouble` before believing it."""
        return self._books[self._index[symbol]]

    def bars(self, symbol: Symbol) -> Bars:
        """The symbol's rolling bars, by timeframe."""
        return self._bars[self._index[symbol]]

    def flow(self, symbol: Symbol) -> Flow:
        """The symbol's book and print features."""
        return self._flows[self._index[symbol]]

    def mark(self, symbol: Symbol) -> Decimal | None:
        """Mid of a book that is sound or merely stale, else the last trade's or bar's price; None if nothing is known."""
        number = self._index[symbol]
        book, last = self._books[number], self._last[number]
        if book.flaw is None and (last is None or book.time + FORGOTTEN_NS >= last[0]):
            return book.mid
        return last[1] if last is not None else book.mid

    def trouble(self, symbol: Symbol) -> str | None:
        """Why no new risk may be taken in this symbol, or None. Without any books, bars may be two lengths old at most."""
        number = self._index[symbol]
        if self._live:
            return self._books[number].trouble(self.at)
        for timeframe in CHAIN:
            ring = self._bars[number][timeframe]
            if ring.last is not None:
                return STALE if self.now - ring.last.time > 3 * ring.length else None
        return EMPTY

    # -- questions over symbols ------------------------------------------------------------------------------------

    @property
    def rebuilds(self) -> int:
        """How often bar features were built anew because the past had changed."""
        return self._panels.rebuilt

    def volatility_1h(self) -> Floats:
        """Deviation of hourly log returns of all symbols, [N]."""
        return self._panels.volatility_1h()

    def correlation(self, symbols: Sequence[Symbol]) -> Floats:
        """Correlation of hourly log returns, [n, n], positive semi-definite; drawn towards .5 while there is little history."""
        rows = self.index(symbols)
        matrix: Floats = self._panels.hours.correlation()[np.ix_(rows, rows)]
        return matrix

    def covariance(self, symbols: Sequence[Symbol]) -> Floats:
        """Covariance of hourly log returns, [n, n], positive semi-definite."""
        deviation = self.volatility_1h()[self.index(symbols)]
        return self.correlation(symbols) * np.outer(deviation, deviation)

    def returns_1h(self, symbols: Sequence[Symbol], rows: int) -> Floats:
        """Log returns of the last bars, an hour each where there are hours: [at most min(rows, 199), n]; 0 where unknown."""
        return self._panels.hours.returns(rows)[:, self.index(symbols)]

    def hour_columns(self) -> Floats:
        """float64 [N, HOUR_COLUMNS] of all symbols."""
        return self._panels.hour_columns()

    def minute_columns(self) -> Floats:
        """float64 [N, MINUTE_COLUMNS] of all symbols."""
        return self._panels.minute_columns()

    def flow_columns(self, rows: Sequence[int]) -> Floats:
        """float64 [n, FLOW_COLUMNS] of the symbols at `rows`."""
        fallback = self._volatility_1s()
        if not self._live and len(rows):  # bars alone: every flow is as it was made, but for the volatility it falls back on
            first, silent = rows[0], np.empty((len(rows), len(FLOW_COLUMNS)))
            silent[:] = self._flows[first].columns(self._books[first], self.now, self.at, fallback[first])
            silent[:, FLOW_COLUMNS.index("volatility_1s")] = [self._flows[i].volatility_1s(fallback[i]) for i in rows]
            return silent
        return np.array([self._flows[i].columns(self._books[i], self.now, self.at, fallback[i]) for i in rows]).reshape(-1, len(FLOW_COLUMNS))

    def depth_columns(self, rows: Sequence[int]) -> Floats:
        """float64 [n, DEPTH_COLUMNS] of the symbols at `rows`."""
        flows, fallback = [self._flows[i] for i in rows], self._volatility_1s()
        a, k = intensity(
            np.array([flow.hits for flow in flows]).reshape(-1, len(GRID)),
            np.array([flow.window_weight for flow in flows]),
            np.array([flow.window_time for flow in flows]),
        )
        deep = [self._flows[i].depths(self._books[i], self.now, self._ticks[i], fallback[i]) for i in rows]
        return np.column_stack([a, k, np.array(deep).reshape(-1, len(DEPTH_COLUMNS) - 2)])

    def _volatility_1s(self) -> list[float]:
        values: list[float] = (self.minute_columns()[:, 5] / 60**0.5).tolist()
        return values


def _number(value: Decimal) -> float:
    """A float, NaN for what is none; a signalling NaN is no reason to raise."""
    try:
        return float(value)
    except (ValueError, OverflowError):
        return float("nan")


def _bar_problem(bar: Bar) -> str | None:
    """Why this candle cannot be one, or None."""
    length = TIMEFRAMES.get(bar.timeframe)
    if length is None or bar.timeframe not in CHAIN:
        return "bar_timeframe"
    low, high, volume = _number(bar.low), _number(bar.high), _number(bar.volume)
    opened, closed = _number(bar.open), _number(bar.close)
    if not (low > 0.0 and high < inf and 0.0 <= volume < inf):
        return "bar_not_finite"
    if not (low <= opened <= high and low <= closed <= high):
        return "bar_inconsistent"
    if bar.time % length or bar.time <= 0:
        return "bar_off_grid"
    return None
