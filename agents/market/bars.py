"""Rolling candles of one symbol: built from trades, repaired by the exchange's own, the longer ones made from the shorter."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from agents.core.instruments import TIMEFRAMES

Floats = npt.NDArray[np.float64]

CHAIN = ("1m", "5m", "15m", "1h", "4h", "1d")
"""Each is made of whole bars of the one before it."""
CAPACITY = {"1m": 1536, "5m": 600, "15m": 1024, "1h": 1104, "4h": 720, "1d": 512}
"""Rows kept: a day of minutes, 46 days of hours, 17 months of days."""
END_OF_TIME = 2**63 - 1
SAME_PRICE, SAME_VOLUME = 1e-9, 1e-3
"""Relative differences up to which a repair changes nothing that features would notice."""


class Row(NamedTuple):
    """One closed candle as floats: opening time in nanoseconds, prices in quote, volume in base."""

    time: int
    open: float
    high: float
    low: float
    close: float
    volume: float


class Ring:
    """The last `capacity` closed bars of one timeframe, oldest first; holes are possible, order and uniqueness are kept.

    Rows live in a buffer of twice the capacity whose tail is moved to the front when it is full, so a view is always contiguous.
    """

    __slots__ = ("_begin", "_capacity", "_end", "_exact", "_times", "_values", "last", "length")

    def __init__(self, length: int, capacity: int) -> None:
        self.length = length
        self.last: Row | None = None
        self._capacity, self._begin, self._end = capacity, 0, 0
        self._times = np.zeros(2 * capacity, dtype=np.int64)
        self._values = np.zeros((2 * capacity, 5))
        self._exact = np.zeros(2 * capacity, dtype=bool)

    def __len__(self) -> int:
        return self._end - self._begin

    @property
    def time(self) -> npt.NDArray[np.int64]:
        """Opening times in nanoseconds, int64 [rows]: a view, good until the next change."""
        return self._times[self._begin : self._end]

    @property
    def values(self) -> Floats:
        """float64 [rows, 5]: open, high, low, close, volume; a view."""
        return self._values[self._begin : self._end]

    @property
    def open(self) -> Floats:
        return self.values[:, 0]

    @property
    def high(self) -> Floats:
        return self.values[:, 1]

    @property
    def low(self) -> Floats:
        return self.values[:, 2]

    @property
    def close(self) -> Floats:
        return self.values[:, 3]

    @property
    def volume(self) -> Floats:
        return self.values[:, 4]

    def put(self, row: Row, exact: bool) -> str:
        """Enter one bar; what became of it: appended, inserted, repaired, same, ignored.

        `exact` bars are the exchange's own: they replace ours and are never replaced by ours.
        """
        if self.last is None or row.time > self.last.time:
            self._append(row, exact)
            return "appended"
        place = self._begin + int(np.searchsorted(self.time, row.time))
        if int(self._times[place]) == row.time:
            return self._repair(place, row, exact)
        if place == self._begin and len(self) >= self._capacity:
            return "ignored"
        self._insert(place, row, exact)
        return "inserted"

    @property
    def first(self) -> int:
        """Opening time of the oldest row, the end of time without any."""
        return int(self._times[self._begin]) if self._end > self._begin else END_OF_TIME

    def since(self, time: int) -> list[Row]:
        """Rows that open at or after `time`, oldest first."""
        if self.last is None or self.last.time < time:
            return []
        rows: list[Row] = []
        place = self._end - 1
        while place >= self._begin and self._times[place] >= time:
            rows.append(self._row(place))
            place -= 1
        rows.reverse()
        return rows

    def between(self, start: int, end: int) -> Row | None:
        """One bar out of all rows that open in [start, end), or None without any."""
        first, stop = (self._begin + int(place) for place in np.searchsorted(self.time, (start, end)))
        if first == stop:
            return None
        rows = self._values[first:stop].tolist()
        return Row(
            start, rows[0][0], max(r[1] for r in rows), min(r[2] for r in rows), rows[-1][3], sum(r[4] for r in rows)
        )  # fmt: skip

    def _row(self, place: int) -> Row:
        return Row(int(self._times[place]), *self._values[place].tolist())

    def _append(self, row: Row, exact: bool) -> None:
        if self._end == 2 * self._capacity:
            self._compact()
        end = self._end
        self._times[end] = row.time
        self._values[end] = row[1:]
        self._exact[end] = exact
        self._end = end + 1
        if self._end - self._begin > self._capacity:
            self._begin += 1
        self.last = row

    def _compact(self) -> None:
        keep, begin, end = self._end - self._begin, self._begin, self._end
        for column in (self._times, self._values, self._exact):
            column[:keep] = column[begin:end]
        self._begin, self._end = 0, keep

    def _insert(self, place: int, row: Row, exact: bool) -> None:
        if self._end == 2 * self._capacity:
            place -= self._begin
            self._compact()
        for column in (self._times, self._values, self._exact):
            column[place + 1 : self._end + 1] = column[place : self._end].copy()
        self._times[place], self._values[place], self._exact[place] = row.time, row[1:], exact
        self._end += 1
        if len(self) > self._capacity:
            self._begin += 1

    def _repair(self, place: int, row: Row, exact: bool) -> str:
        if self._exact[place] and not exact:
            return "ignored"
        old = self._values[place].tolist()
        self._values[place], self._exact[place] = row[1:], exact
        if place == self._end - 1:
            self.last = row
        same = all(abs(new - was) <= SAME_PRICE * was for new, was in zip(row[1:5], old[:4], strict=True))
        return "same" if same and abs(row.volume - old[4]) <= SAME_VOLUME * old[4] else "repaired"


class Bars:
    """All timeframes of one symbol. `touched` holds, by timeframe, the earliest opening of a bar that the exchange sent.

    The longer bars that it changed are noted too, our own bars of prints are not. Whoever reads it clears it.
    """

    __slots__ = ("_forming", "_forming_end", "_pending", "rings", "touched")

    def __init__(self) -> None:
        self.rings = {timeframe: Ring(TIMEFRAMES[timeframe], CAPACITY[timeframe]) for timeframe in CHAIN}
        self.touched: dict[str, int] = {}
        self._forming: list[float] = []
        self._forming_end = 0
        self._pending: dict[str, int] = {}

    def __getitem__(self, timeframe: str) -> Ring:
        return self.rings[timeframe]

    def trade(self, time: int, price: float, quantity: float) -> bool:
        """Take one print into the minute that is forming; False if it came too late for that and was added to a closed bar.

        Prints of one symbol come in order of time. What is too late changes the kept bar, but no feature that has seen it.
        """
        if time < self._forming_end:
            if not self._forming:
                self._add_late(price, quantity)
                return False
        else:
            if self._forming:
                self._finish_minute()
            length = self.rings["1m"].length
            self._forming_end = time - time % length + length
            self._forming = [price, price, price, price, 0.0]
        forming = self._forming
        if price > forming[1]:
            forming[1] = price
        elif price < forming[2]:
            forming[2] = price
        forming[3] = price
        forming[4] += quantity
        return True

    def _add_late(self, price: float, quantity: float) -> None:
        start = self._forming_end - self.rings["1m"].length
        last = self.rings["1m"].last
        if last is not None and last.time == start:
            merged = Row(start, last.open, max(last.high, price), min(last.low, price), price, last.volume + quantity)
            self._enter("1m", merged, exact=False, loud=False)

    def put(self, timeframe: str, row: Row) -> str:
        """Take the exchange's own closed bar; outcomes as in `Ring.put`. Raises KeyError for another timeframe."""
        return self._enter(timeframe, row, exact=True, loud=True)

    def close_until(self, time: int) -> None:
        """Market time `time` has passed: close every bar that ends by then."""
        if self._forming and self._forming_end <= time:
            self._finish_minute()
        if self._pending:
            for timeframe in CHAIN[1:]:  # in this order: a longer bar waits for the shorter ones
                start = self._pending.get(timeframe)
                if start is not None and start + self.rings[timeframe].length <= time:
                    self._aggregate(timeframe, start, loud=False)

    def _finish_minute(self) -> None:
        start = self._forming_end - self.rings["1m"].length
        row = Row(start, *self._forming)
        self._forming = []
        self._enter("1m", row, exact=False, loud=False)

    def _enter(self, timeframe: str, row: Row, exact: bool, loud: bool) -> str:
        ring = self.rings[timeframe]
        outcome = ring.put(row, exact)
        if outcome in ("ignored", "same"):
            return outcome
        if loud and row.time < self.touched.get(timeframe, END_OF_TIME):
            self.touched[timeframe] = row.time
        level = CHAIN.index(timeframe) + 1
        if level < len(CHAIN):
            self._extend(CHAIN[level], row.time, row.time + ring.length, loud)
        return outcome

    def _extend(self, timeframe: str, time: int, end: int, loud: bool) -> None:
        """A shorter bar [time, end) entered: make the longer bar when it is whole, or again when it stood already."""
        upper = self.rings[timeframe]
        start = time - time % upper.length
        if upper.last is not None and upper.last.time >= start:
            self._aggregate(timeframe, start, loud)
            return
        waiting = self._pending.get(timeframe)
        if waiting is not None and waiting < start:
            self._aggregate(timeframe, waiting, loud)
        self._pending[timeframe] = start
        if end == start + upper.length:
            self._aggregate(timeframe, start, loud)

    def _aggregate(self, timeframe: str, start: int, loud: bool) -> None:
        if self._pending.get(timeframe) == start:
            del self._pending[timeframe]
        lower = self.rings[CHAIN[CHAIN.index(timeframe) - 1]]
        row = lower.between(start, start + self.rings[timeframe].length)
        if row is not None:
            self._enter(timeframe, row, exact=False, loud=loud)
