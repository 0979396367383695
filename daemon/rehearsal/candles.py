"""Candles of one market: history up to the start, then built print by print, one open candle for each interval."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

from agents.core.instruments import TIMEFRAMES

INTERVALS_MS = {name: length // 1_000_000 for name, length in TIMEFRAMES.items() if name != "1s"}
"""Intervals served, in milliseconds."""
KEPT_CANDLES = 50_000
"""Live candles kept for each market and interval: 35 days of minutes."""

HistoryRow = tuple[int, float, float, float, float, float]
"""(open time ms, open, high, low, close, base volume)."""
History = Callable[[str, int, int], Sequence[HistoryRow]]
"""(interval, end ms exclusive, at most this many) -> the last rows that open before the end, oldest first."""


@dataclass(slots=True)
class Candle:
    """One candle; times in ms, volumes in base and quote units, `first_id` -1 while nothing has traded."""

    open_ms: int
    open: float
    high: float
    low: float
    close: float
    volume: float = 0.0
    quote: float = 0.0
    count: int = 0
    taker_base: float = 0.0
    taker_quote: float = 0.0
    first_id: int = -1
    last_id: int = -1

    def take(self, price: float, quantity: float, buyer_is_taker: bool, trade_id: int) -> None:
        if price > self.high:
            self.high = price
        if price < self.low:
            self.low = price
        self.close = price
        self.volume += quantity
        self.quote += price * quantity
        self.count += 1
        if buyer_is_taker:
            self.taker_base += quantity
            self.taker_quote += price * quantity
        if self.first_id < 0:
            self.first_id = trade_id
        self.last_id = trade_id


def from_history(row: HistoryRow) -> Candle:
    """A recorded row as a candle; what history does not tell (trades, taker volume) is estimated from its volume."""
    open_ms, opened, high, low, close, volume = row
    typical = (opened + high + low + close) / 4
    count = min(int(volume * typical / 500.0) + 1, 1_000_000) if volume > 0 else 0
    return Candle(open_ms, opened, high, low, close, volume, volume * typical, count, volume / 2, volume * typical / 2)


class CandleSeries:
    """One interval of one market."""

    def __init__(self, interval: str, start_ms: int, history: History) -> None:
        self.interval = interval
        self.length_ms = INTERVALS_MS[interval]
        self._history = history
        self._first_live_ms = start_ms - start_ms % self.length_ms
        self._closed: deque[Candle] = deque(maxlen=KEPT_CANDLES)
        self.current = self._open_at_start(start_ms)

    def _open_at_start(self, start_ms: int) -> Candle | None:
        """The candle that the start falls into, with what history already put in it."""
        opening = self._first_live_ms
        minutes = (start_ms - opening) // 60_000
        rows = [row for row in self._history("1m", start_ms - start_ms % 60_000, minutes) if row[0] >= opening] if minutes else []
        if not rows:
            before = self._history("1m", start_ms - start_ms % 60_000, 1)
            return Candle(opening, *(before[-1][4],) * 4) if before else None
        candle = from_history(rows[0])
        candle.open_ms = opening
        for later in map(from_history, rows[1:]):
            candle.high, candle.low, candle.close = max(candle.high, later.high), min(candle.low, later.low), later.close
            candle.volume += later.volume
            candle.quote += later.quote
            candle.count += later.count
            candle.taker_base += later.taker_base
            candle.taker_quote += later.taker_quote
        return candle

    def roll(self, now_ms: int) -> list[Candle]:
        """Closes every candle that has ended by `now_ms` and opens the next, empty at the last close; returns the closed."""
        closed = []
        current = self.current
        while current is not None and now_ms >= current.open_ms + self.length_ms:
            closed.append(current)
            self._closed.append(current)
            current = Candle(current.open_ms + self.length_ms, *(current.close,) * 4)
            self.current = current
        return closed

    def take(self, time_ms: int, price: float, quantity: float, buyer_is_taker: bool, trade_id: int) -> list[Candle]:
        """Adds a print; returns the candles that its time closed."""
        closed = self.roll(time_ms)
        if self.current is None:
            self.current = Candle(time_ms - time_ms % self.length_ms, *(price,) * 4)
        elif self.current.count == 0:
            self.current.open = self.current.high = self.current.low = price
        self.current.take(price, quantity, buyer_is_taker, trade_id)
        return closed

    def _latest(self, limit: int = KEPT_CANDLES + 1) -> list[Candle]:
        """The last `limit` candles since the start, oldest first, the open one last."""
        if self.current is None:
            return []
        return [*reversed(list(islice(reversed(self._closed), limit - 1))), self.current]

    def rows(self, start_ms: int | None, end_ms: int | None, limit: int) -> list[Candle]:
        """Candles with start <= open time <= end, oldest first: the first `limit` from a start, else the last `limit`."""
        if start_ms is None and end_ms is None:
            live = self._latest(limit)
        else:
            low, high = start_ms or 0, end_ms if end_ms is not None else 1 << 62
            live = [candle for candle in self._latest() if low <= candle.open_ms <= high]
        if start_ms is None:
            wanted = limit - len(live)
            before = self._before(end_ms, wanted) if wanted > 0 else []
            return (before + live)[-limit:]
        if start_ms >= self._first_live_ms:
            return live[:limit]
        wanted = (self._first_live_ms - start_ms) // self.length_ms + 1
        past = [c for c in self._before(end_ms, wanted, start_ms + limit * self.length_ms) if c.open_ms >= start_ms]
        return (past + live)[:limit]

    def _before(self, end_ms: int | None, limit: int, not_after_ms: int | None = None) -> list[Candle]:
        """Up to `limit` history candles that open before the start, at or before `end_ms` and before `not_after_ms`."""
        until = self._first_live_ms
        if end_ms is not None:
            until = min(until, end_ms + 1)
        if not_after_ms is not None:
            until = min(until, not_after_ms)
        return [from_history(row) for row in self._history(self.interval, until, limit) if row[0] < until]
