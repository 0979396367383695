"""Closed candles by REST: the warm-up before trading, and the repair of bars around a hole."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from ccxt.base.errors import BaseError

from agents.core.errors import DataError, Throttled
from agents.core.events import Bar
from agents.core.instruments import TIMEFRAMES, Symbol
from daemon.venues.client import Exchange
from daemon.venues.parse import MS, parse_candle
from daemon.venues.throttle import Throttle

log = structlog.get_logger(__name__)

WARM_UP: tuple[tuple[str, int], ...] = (("1d", 365), ("4h", 500), ("1h", 2400), ("15m", 500), ("1m", 1000))
"""(timeframe, closed bars wanted). 2,400 hours carry an average of 96 days."""
PAGE = 1000
"""Rows asked for at a time: the most that common exchanges give."""
RETRIES = 3


@dataclass(frozen=True, slots=True)
class Hole:
    """A span of market time (nanoseconds) in which prints of a symbol may be missing."""

    symbol: Symbol
    start: int
    end: int


class History:
    """Reads candles of one ccxt object, a few requests at a time."""

    def __init__(self, exchange: Exchange, throttle: Throttle, concurrency: int = 4) -> None:
        self._exchange, self._throttle = exchange, throttle
        self._lane = asyncio.Semaphore(concurrency)
        self.refused = 0

    def timeframes(self, wanted: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
        """Those that this exchange has, longest first."""
        known = self._exchange.timeframes or {}
        if not self._exchange.has.get("fetchOHLCV"):
            return []
        return [(timeframe, count) for timeframe, count in wanted if not known or timeframe in known]

    async def warm_up(self, symbols: Sequence[Symbol], wanted: Sequence[tuple[str, int]] = WARM_UP) -> list[Bar]:
        """Closed bars of all symbols, in order of their closing times; less than wanted where an exchange has less."""
        frames = self.timeframes(wanted)
        jobs = [(symbol, timeframe, count) for symbol in symbols for timeframe, count in frames]
        async with asyncio.TaskGroup() as tasks:
            reads = [tasks.create_task(self._pages(*job)) for job in jobs]
        rows = {job[:2]: read.result() for job, read in zip(jobs, reads, strict=True)}
        now_ms = max((found[-1][0] for found in rows.values() if found), default=0)
        bars: list[Bar] = []
        for (symbol, timeframe), found in rows.items():
            # The newest row of the shortest timeframe is still forming; what ends by its opening is closed.
            bars += self._parsed(found, symbol, timeframe, now_ms)
            await asyncio.sleep(0)
        bars.sort(key=lambda bar: (bar.time + TIMEFRAMES[bar.timeframe], TIMEFRAMES[bar.timeframe]))
        return bars

    async def mend(self, hole: Hole, now: int, wanted: Sequence[tuple[str, int]] = WARM_UP) -> list[Bar]:
        """Closed bars that overlap a hole and ended by `now` (market time), in order of closing."""
        bars: list[Bar] = []
        for timeframe, count in self.timeframes(wanted):
            length = TIMEFRAMES[timeframe]
            first = hole.start // length * length
            closed = [time for time in range(first, now - length + 1, length) if time < hole.end]
            if not closed:
                continue
            limit = min(len(closed) + 1, PAGE, count)
            rows = await self._page(hole.symbol, timeframe, first // MS, limit)
            overlapping = [row for row in rows if row[0] * MS < hole.end]
            bars += self._parsed(overlapping, hole.symbol, timeframe, now // MS)
        bars.sort(key=lambda bar: (bar.time + TIMEFRAMES[bar.timeframe], TIMEFRAMES[bar.timeframe]))
        return bars

    async def _pages(self, symbol: Symbol, timeframe: str, count: int) -> list[list[Any]]:
        """The newest `count` + 1 rows, oldest first."""
        length_ms = TIMEFRAMES[timeframe] // MS
        rows = {row[0]: row for row in await self._page(symbol, timeframe, None, min(count + 1, PAGE))}
        while rows and len(rows) < count + 1:
            oldest = min(rows)
            want = min(count + 1 - len(rows), PAGE)
            page = await self._page(symbol, timeframe, oldest - want * length_ms, want)
            older = {row[0]: row for row in page if row[0] < oldest}
            if not older:
                break
            rows |= older
        return [rows[time] for time in sorted(rows)]

    async def _page(self, symbol: Symbol, timeframe: str, since_ms: int | None, limit: int) -> list[list[Any]]:
        fetch = self._exchange.fetch_ohlcv
        for attempt in range(RETRIES):
            try:
                async with self._lane:
                    rows = await self._throttle.call(self._exchange, lambda: fetch(symbol, timeframe, since_ms, limit))
                return [row for row in rows or [] if row and row[0] is not None]
            except (BaseError, TimeoutError, Throttled) as error:
                if attempt == RETRIES - 1:
                    log.warning("history_missing", symbol=symbol, timeframe=timeframe, error=f"{type(error).__name__}: {error}"[:200])
                else:
                    await asyncio.sleep(0.5 * 2**attempt)
        return []

    def _parsed(self, rows: Sequence[Sequence[Any]], symbol: Symbol, timeframe: str, now_ms: int) -> list[Bar]:
        length_ms, bars = TIMEFRAMES[timeframe] // MS, []
        for row in rows:
            if row[0] + length_ms > now_ms:
                continue
            try:
                bars.append(parse_candle(row, symbol, timeframe))
            except (DataError, IndexError):
                self.refused += 1
        return bars
