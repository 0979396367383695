"""Decides that a stream has died although nobody said so, by asking the exchange what the stream should have brought."""

import asyncio

import structlog
from ccxt.base.errors import BaseError

from agents.core.errors import Throttled
from agents.core.instruments import Symbol
from daemon.venues.client import Exchange
from daemon.venues.intake import BOOK, TRADES, Intake
from daemon.venues.throttle import Throttle

log = structlog.get_logger(__name__)

ENOUGH_S = 15.0
"""Silence after which the ccxt object is rebuilt even if the exchange cannot be asked."""
RECENT = 1000
"""Prints fetched to bridge a hole: the most that common exchanges give at once."""


class Rebuild(Exception):
    """This ccxt object has to go; the message says why."""


class Watchdog:
    """Watches the streams of one ccxt object."""

    def __init__(self, exchange: Exchange, intake: Intake, throttle: Throttle, depth: int, look_s: float) -> None:
        self._exchange, self._intake, self._throttle = exchange, intake, throttle
        self._depth = depth if exchange.id.startswith("binance") else None
        self._look_s = look_s
        self.questions = 0

    async def run(self) -> None:
        """Until a stream is found dead: raises Rebuild."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._look_s)
            for symbol in sorted(self._intake.holed):
                await self.bridge(symbol)
            for channel, symbol in self._intake.freshness.due(loop.time())[:2]:
                if await self._dead(channel, symbol):
                    raise Rebuild(f"{channel} of {symbol} silent for {self._silence(channel, symbol):.1f} s")

    async def bridge(self, symbol: Symbol) -> None:
        """Close a hole in a symbol's prints by REST; what cannot be closed is told as a gap."""
        if not self._exchange.has.get("fetchTrades"):
            self._intake.unmended(symbol)
            self._intake.gap(TRADES, symbol, "no_rest_trades")
            return
        try:
            rows = await self._throttle.call(self._exchange, lambda: self._exchange.fetch_trades(symbol, None, RECENT))
        except (BaseError, TimeoutError, Throttled) as error:
            if self._silence(TRADES, symbol) > ENOUGH_S:
                self._intake.unmended(symbol)
                self._intake.gap(TRADES, symbol, type(error).__name__)
            return
        _, joined = self._intake.mended(symbol, rows or [])
        if not joined:
            self._intake.gap(TRADES, symbol, "hole")

    async def _dead(self, channel: str, symbol: Symbol) -> bool:
        self.questions += 1
        try:
            news = await (self._trade_news(symbol) if channel == TRADES else self._book_news(symbol))
        except (BaseError, TimeoutError, Throttled):
            self._asked(channel, symbol)
            return self._silence(channel, symbol) > ENOUGH_S
        self._asked(channel, symbol)
        if not news:
            return False
        silent = self._silence(channel, symbol)
        await asyncio.sleep(2 * self._look_s)  # the news may have been on its way to us when we asked
        return self._silence(channel, symbol) > silent

    async def _book_news(self, symbol: Symbol) -> bool:
        before = self._silence(BOOK, symbol)
        book = await self._throttle.call(self._exchange, lambda: self._exchange.fetch_order_book(symbol, self._depth))
        now = asyncio.get_running_loop().time()
        if self._silence(BOOK, symbol) < before:
            return False  # the stream spoke while we asked
        return self._intake.book_asked(symbol, book, now)

    async def _trade_news(self, symbol: Symbol) -> bool:
        if not self._exchange.has.get("fetchTrades"):
            return False
        before = self._silence(TRADES, symbol)
        rows = await self._throttle.call(self._exchange, lambda: self._exchange.fetch_trades(symbol, None, RECENT))
        if self._silence(TRADES, symbol) < before:
            return False
        if self._intake.lines[symbol].last is None:
            self._intake.seed(symbol, rows or [])
            return False
        new, joined = self._intake.mended(symbol, rows or [])
        if not joined:
            self._intake.gap(TRADES, symbol, "hole")
        return new > 0

    def _silence(self, channel: str, symbol: Symbol) -> float:
        return self._intake.freshness.silence(channel, symbol, asyncio.get_running_loop().time())

    def _asked(self, channel: str, symbol: Symbol) -> None:
        self._intake.freshness.asked(channel, symbol, asyncio.get_running_loop().time())
