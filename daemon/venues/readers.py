"""One task per websocket stream of one ccxt object. Nobody else awaits the same stream, and nothing cancels a shared watch.

`watch_*` is used as a bell only: between two awaits ccxt coalesces updates, so the facts are taken from its caches. Trade
caches are emptied at each look; looking happens right before the next await, so nothing falls between.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog
from ccxt.base.errors import BaseError, ChecksumError, InvalidNonce, NotSupported

from agents.core.instruments import Symbol
from daemon.venues.base import Outbox
from daemon.venues.client import TRADES_LIMIT, Exchange
from daemon.venues.intake import BOOK, TRADES, Intake
from daemon.venues.throttle import Backoff

log = structlog.get_logger(__name__)


class LostStream(Exception):
    """The client gave up a watch in a way that does not say why."""


async def watched(watch: Callable[[], Awaitable[Any]]) -> Any:
    """Await one watch. A cancellation that did not come from our own task group is a lost stream, not an order to stop."""
    try:
        return await watch()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise LostStream("the client cancelled its own watch") from None


def take_trades(exchange: Exchange, intake: Intake, symbols: Sequence[Symbol], now: float) -> None:
    """Empty ccxt's trade caches into the intake."""
    caches = exchange.trades or {}
    for symbol in symbols:
        cache = caches.get(symbol)
        if not cache:
            continue
        rows = list(cache)
        cache.clear()
        if len(rows) >= TRADES_LIMIT:
            intake.lost(TRADES, (symbol,), "overflow")
        intake.trades_from(symbol, rows, now)


def take_books(exchange: Exchange, intake: Intake, symbols: Sequence[Symbol], now: float) -> None:
    """Copy the tops of ccxt's books that have changed; a book that waits for its snapshot is skipped."""
    books = exchange.orderbooks or {}
    for symbol in symbols:
        book = books.get(symbol)
        if book is not None and (book["bids"] or book["asks"]) and not getattr(book, "cache", None):
            intake.book_from(symbol, book, now)


class StreamReader:
    """Reads one stream (one channel of one or more symbols) for as long as it is supported."""

    def __init__(
        self, exchange: Exchange, intake: Intake, outbox: Outbox, channel: str, symbols: Sequence[Symbol], coalesce_s: float
    ) -> None:
        self._exchange, self._intake, self._outbox = exchange, intake, outbox
        self._channel, self._symbols, self._coalesce_s = channel, tuple(symbols), coalesce_s
        self._take = take_trades if channel == TRADES else take_books
        self._backoff = Backoff()

    async def run(self) -> None:
        """Until cancelled; returns only if the exchange does not have the stream after all."""
        loop = asyncio.get_running_loop()
        for symbol in self._symbols:
            self._intake.freshness.watch(self._channel, symbol, loop.time())
        watch = self._watch()
        while True:
            try:
                await watched(watch)
            except NotSupported as error:
                log.warning("stream_not_supported", channel=self._channel, symbols=self._symbols, error=str(error))
                return
            except (BaseError, LostStream) as error:
                await self._broken(error)
                continue
            except Exception as error:  # noqa: BLE001 - a bug in a parser of ccxt must not end the feed
                await self._broken(error)
                continue
            if self._backoff.worked():
                log.info("stream_back", channel=self._channel, symbols=self._symbols)
            if self._coalesce_s:
                await asyncio.sleep(self._coalesce_s)
            await self._outbox.room()
            self._take(self._exchange, self._intake, self._symbols, loop.time())

    def _watch(self) -> Callable[[], Awaitable[Any]]:
        name = "watch_trades" if self._channel == TRADES else "watch_order_book"
        if len(self._symbols) > 1:
            several, symbols = getattr(self._exchange, f"{name}_for_symbols"), list(self._symbols)
            return lambda: several(symbols)
        one, symbol = getattr(self._exchange, name), self._symbols[0]
        return lambda: one(symbol)

    async def _broken(self, error: Exception) -> None:
        """Say what is distrusted, wait, and let the next watch resubscribe."""
        self._take(self._exchange, self._intake, self._symbols, asyncio.get_running_loop().time())
        symbols: Sequence[Symbol] = self._symbols
        if self._channel == BOOK and isinstance(error, ChecksumError | InvalidNonce):
            books = self._exchange.orderbooks or {}
            symbols = [symbol for symbol in self._symbols if symbol not in books] or self._symbols
        self._intake.lost(self._channel, symbols, type(error).__name__)
        delay = self._backoff.failed()
        if self._backoff.failures == 1:
            log.warning("stream_lost", channel=self._channel, symbols=list(symbols), error=f"{type(error).__name__}: {error}"[:200])
        await asyncio.sleep(delay)
