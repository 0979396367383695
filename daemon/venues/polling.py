"""Market data by REST, for what an exchange does not stream."""

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog
from ccxt.base.errors import BaseError

from agents.core.errors import Throttled
from agents.core.events import Bar
from agents.core.instruments import TIMEFRAMES, Symbol
from daemon.venues.base import Outbox
from daemon.venues.client import Exchange
from daemon.venues.history import History
from daemon.venues.intake import BOOK, TRADES, Intake
from daemon.venues.parse import MS
from daemon.venues.throttle import Backoff, Throttle

log = structlog.get_logger(__name__)

BARS = "bars"
RECENT = 1000


class Poller:
    """Asks for one channel of some symbols in turn, each round `interval_s` after the last."""

    def __init__(
        self, exchange: Exchange, intake: Intake, outbox: Outbox, throttle: Throttle, channel: str, symbols: Sequence[Symbol],
        interval_s: float,
    ) -> None:  # fmt: skip
        self._exchange, self._intake, self._outbox, self._throttle = exchange, intake, outbox, throttle
        self._channel, self._symbols, self._interval_s = channel, symbols, interval_s
        self._bars: dict[Symbol, int] = {}

    async def run(self) -> None:
        """Until cancelled."""
        ask = {BOOK: self._book, TRADES: self._trades, BARS: self._newest_bars}[self._channel]
        backoff = Backoff()
        while True:
            delay = self._interval_s
            for symbol in self._symbols:
                try:
                    await ask(symbol)
                    if backoff.worked():
                        log.info("poll_back", channel=self._channel)
                except (BaseError, TimeoutError, Throttled) as error:
                    delay = max(delay, backoff.failed())
                    if backoff.failures == 1:
                        log.warning("poll_failed", channel=self._channel, symbol=symbol, error=f"{type(error).__name__}: {error}"[:200])
            await self._outbox.room()
            await asyncio.sleep(delay)

    async def _book(self, symbol: Symbol) -> None:
        book = await self._throttle.call(self._exchange, lambda: self._exchange.fetch_order_book(symbol))
        self._intake.book_asked(symbol, book, asyncio.get_running_loop().time())

    async def _trades(self, symbol: Symbol) -> None:
        rows = await self._throttle.call(self._exchange, lambda: self._exchange.fetch_trades(symbol, None, RECENT))
        if self._intake.lines[symbol].last is None:
            self._intake.seed(symbol, rows or [])
            return
        _, joined = self._intake.mended(symbol, rows or [])
        if not joined:
            self._intake.gap(TRADES, symbol, "polled_too_late")

    async def _newest_bars(self, symbol: Symbol) -> None:
        history = History(self._exchange, self._throttle)
        for timeframe, _ in history.timeframes((("1m", 3),)):
            for bar in await history.warm_up([symbol], ((timeframe, 3),)):
                if bar.time > self._bars.get(symbol, 0):
                    self._bars[symbol] = bar.time
                    self._tell(bar)

    def _tell(self, bar: Bar) -> None:
        self._intake.market_time = max(self._intake.market_time, bar.time + TIMEFRAMES[bar.timeframe])
        self._outbox.put(bar)


def interval_s(exchange: Exchange, symbols: int, shortest: float) -> float:
    """A round takes at least `shortest`, and no more than half of what the exchange's rate limit allows."""
    spacing: Any = exchange.rateLimit or 0
    return max(shortest, 2 * symbols * float(spacing) * MS / 1e9)
