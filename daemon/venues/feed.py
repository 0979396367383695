"""Market data of any exchange that ccxt knows, without keys: listings, history, then live prints and books.

One ccxt object at a time; when a stream of it dies silently the whole object is replaced, what was told stays told.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from agents.core.events import UNSTAMPED, Event, Listing
from agents.core.instruments import NS, TIMEFRAMES, Instrument, Symbol
from daemon.venues import markets
from daemon.venues.base import Outbox, pumped
from daemon.venues.client import ClientFactory, Exchange, close_client
from daemon.venues.freshness import Freshness
from daemon.venues.history import WARM_UP, History, Hole
from daemon.venues.intake import BOOK, TRADES, Intake
from daemon.venues.markets import Fees
from daemon.venues.polling import BARS, Poller, interval_s
from daemon.venues.readers import StreamReader
from daemon.venues.throttle import Backoff, Throttle
from daemon.venues.watchdog import Rebuild, Watchdog

log = structlog.get_logger(__name__)

HEALTHY_S = 60.0
"""A ccxt object that lived this long was a good one: the next replacement comes without delay."""
MINUTE = TIMEFRAMES["1m"]
GRACE_NS = 2 * NS
"""Market time an exchange may need to close its candles."""


@dataclass(frozen=True, slots=True)
class FeedOptions:
    """How to read one exchange."""

    depth: int = 20
    """Levels a side that are copied out of ccxt's book."""
    stop_orders: bool = False
    """Whether protective stops can rest on this exchange; told with each listing."""
    coalesce_s: float = 0.04
    """Pause between a stream's bell and the look at its cache: one look serves all that came meanwhile."""
    book_silence_s: float = 3.0
    trade_silence_s: float = 15.0
    look_s: float = 0.5
    """Pause between two looks of the watchdog."""
    history: tuple[tuple[str, int], ...] = WARM_UP
    timeout_s: float = 12.0
    """Our own end to any REST call, a little longer than ccxt's."""
    poll_s: float = 1.0
    reload_s: float = 86_400.0
    group: int = 100
    """Symbols that share one websocket subscription at most."""
    connect_s: float = 60.0
    """How long the first contact may take."""


class CcxtFeed:
    """Listing events first, then closed bars of the past, then live Trade, BookSnapshot, FeedGap and repaired Bar events."""

    def __init__(
        self, factory: ClientFactory, symbols: Sequence[Symbol], clock: Callable[[], int], options: FeedOptions | None = None
    ) -> None:
        self._factory, self.symbols, self._clock = factory, tuple(symbols), clock
        self._options = options or FeedOptions()
        self._outbox = Outbox()
        self._intake = self._new_intake()
        self._listed: dict[Symbol, Instrument] = {}
        self._fees: dict[Symbol, Fees] = {}
        self._holes: list[Hole] = []
        self._reload = asyncio.Event()
        self.exchange: Exchange | None = None
        self.rebuilds = 0

    def events(self) -> AsyncIterator[Event]:
        """Unstamped facts until closed; raises ConfigError or Unreachable when the exchange cannot be read at all."""
        return pumped(self.run, self._outbox)

    async def close(self) -> None:
        """Release the connection at once, also when the events were dropped instead of closed."""
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            await close_client(exchange)

    def feed_into(self, outbox: Outbox) -> None:
        """Put facts into another outbox from now on; for a venue that has more to tell than market data."""
        self._outbox = outbox
        self._intake = self._new_intake()

    def reload_markets(self) -> None:
        """Ask for the exchange's listing again soon, because a filter refused what should have passed."""
        self._reload.set()

    @property
    def market_time(self) -> int:
        """The newest exchange time heard, ns UTC; 0 before the first."""
        return self._intake.market_time

    @property
    def status(self) -> dict[str, Any]:
        """For the session's view: silent symbols, rebuilds, what was refused and why."""
        now = asyncio.get_running_loop().time()
        silent = [symbol for symbol in self.symbols if self._intake.freshness.silence(BOOK, symbol, now) > 10]
        return {
            "stale": silent, "rebuilds": self.rebuilds, "refused": dict(self._intake.refused), "trades": self._intake.trades,
            "books": self._intake.books, "market_time": self._intake.market_time,
        }  # fmt: skip

    async def run(self) -> None:
        """Read until cancelled."""
        backoff = Backoff(0.25, 30.0)
        loop = asyncio.get_running_loop()
        exchange = await self._begin()
        while True:
            self.exchange = exchange
            started, reason = loop.time(), ""
            try:
                await self._live(exchange)
            except* Rebuild as group:
                reason = str(next(_leaves(group)))
            finally:
                await close_client(exchange)
            if loop.time() - started > HEALTHY_S:
                backoff.worked()
            self.rebuilds += 1
            delay = backoff.failed()
            log.warning("feed_rebuilt", reason=reason, rebuilds=self.rebuilds, delay_s=delay)
            for channel in (BOOK, TRADES):
                self._intake.lost(channel, self.symbols, "rebuild")
            await asyncio.sleep(delay)
            exchange = self._successor(exchange)

    async def _begin(self) -> Exchange:
        """First contact: markets, listings, history."""
        exchange = self._factory()
        throttle = Throttle(self._options.timeout_s)
        try:
            await markets.load(exchange, throttle, self._options.connect_s)
            markets.check(exchange, self.symbols, [timeframe for timeframe, _ in self._options.history])
            await self._list(exchange, throttle)
            bars = await History(exchange, throttle).warm_up(self.symbols, self._options.history)
        except BaseException:
            await close_client(exchange)
            raise
        known = {bar.symbol: bar.time + TIMEFRAMES[bar.timeframe] for bar in bars}
        self._intake.market_time = max(known.values(), default=0)
        self._holes += [Hole(symbol, end, 0) for symbol, end in known.items()]  # from here to the first live print
        log.info("history_read", bars=len(bars), symbols=len(known))
        for start in range(0, len(bars), 1000):
            self._outbox.extend(bars[start : start + 1000])
            await self._outbox.room()
        return exchange

    async def _live(self, exchange: Exchange) -> None:
        options, has = self._options, exchange.has
        throttle = Throttle(options.timeout_s)
        polled: list[str] = []
        async with asyncio.TaskGroup() as tasks:
            for channel, name in ((BOOK, "watchOrderBook"), (TRADES, "watchTrades")):
                if not has.get(name):
                    polled.append(channel)
                    continue
                size = options.group if has.get(f"{name}ForSymbols") else 1
                for group in _chunks(self.symbols, size):
                    tasks.create_task(self._stream(exchange, throttle, channel, group))
            for channel in polled:
                tasks.create_task(self._poll(exchange, throttle, channel, self.symbols))
            tasks.create_task(Watchdog(exchange, self._intake, throttle, options.depth, options.look_s).run())
            tasks.create_task(self._mend_bars(exchange, throttle))
            tasks.create_task(self._relist(exchange, throttle))

    async def _stream(self, exchange: Exchange, throttle: Throttle, channel: str, symbols: Sequence[Symbol]) -> None:
        """Read one stream; where it turns out not to exist, poll instead."""
        await StreamReader(exchange, self._intake, self._outbox, channel, symbols, self._options.coalesce_s).run()
        await self._poll(exchange, throttle, channel, symbols)

    async def _poll(self, exchange: Exchange, throttle: Throttle, channel: str, symbols: Sequence[Symbol]) -> None:
        has = exchange.has
        if not has.get({BOOK: "fetchOrderBook", TRADES: "fetchTrades"}[channel]):
            if channel == BOOK or not has.get("fetchOHLCV"):
                log.warning("channel_missing", channel=channel, exchange=exchange.id)
                return
            channel = BARS
        pace = interval_s(exchange, len(symbols), self._options.poll_s)
        await Poller(exchange, self._intake, self._outbox, throttle, channel, symbols, pace).run()

    def charge(self, fees: Mapping[Symbol, Fees]) -> None:
        """What this account really pays, by symbol, in place of the exchange's public rates; told with the next listing."""
        self._fees = dict(fees)

    async def _list(self, exchange: Exchange, throttle: Throttle) -> None:
        for listed in await markets.instruments(exchange, throttle, self.symbols):
            maker, taker = self._fees.get(listed.symbol, (listed.maker_fee, listed.taker_fee))
            instrument = replace(listed, maker_fee=maker, taker_fee=taker, stop_orders=self._options.stop_orders)
            if self._listed.get(instrument.symbol) != instrument:
                self._listed[instrument.symbol] = instrument
                self._outbox.put(Listing(UNSTAMPED, instrument))

    async def _relist(self, exchange: Exchange, throttle: Throttle) -> None:
        """Reload the markets once a day and when asked; a failure is told and tried again the next time."""
        while True:
            try:
                async with asyncio.timeout(self._options.reload_s):
                    await self._reload.wait()
            except TimeoutError:
                pass
            self._reload.clear()
            try:
                await throttle.call(exchange, lambda: exchange.load_markets(True))
                markets.check(exchange, self.symbols, ())
                await self._list(exchange, throttle)
            except Exception as error:  # noqa: BLE001 - a reload that fails must not end a feed that works
                log.warning("markets_not_reloaded", error=f"{type(error).__name__}: {error}"[:200])
            await asyncio.sleep(min(60.0, self._options.reload_s))

    async def _mend_bars(self, exchange: Exchange, throttle: Throttle) -> None:
        """Fetch the bars around each hole once the exchange has closed them."""
        history = History(exchange, throttle, concurrency=2)
        while True:
            await asyncio.sleep(0.25)
            now = self._intake.market_time
            ready = [hole for hole in self._bounded(now) if now >= -(-hole.end // MINUTE) * MINUTE + GRACE_NS]
            for hole in ready:
                self._holes.remove(hole)
                self._outbox.extend(await history.mend(hole, now, self._options.history))

    def _bounded(self, now: int) -> list[Hole]:
        """Holes with both ends known: a hole from the history ends at the first live print."""
        self._holes += [Hole(symbol, *span) for symbol, span in self._intake.take_holes()]
        for index, hole in enumerate(self._holes):
            if not hole.end and self._intake.lines[hole.symbol].last is not None:
                self._holes[index] = Hole(hole.symbol, hole.start, now)
        return [hole for hole in self._holes if hole.end]

    def _successor(self, old: Exchange) -> Exchange:
        """A new ccxt object that knows the old one's markets."""
        new = self._factory()
        new.set_markets(list(old.markets.values()), old.currencies)
        return new

    def _new_intake(self) -> Intake:
        freshness = Freshness({BOOK: self._options.book_silence_s, TRADES: self._options.trade_silence_s})
        return Intake(self.symbols, self._outbox, self._clock, self._options.depth, freshness)


def _chunks(symbols: Sequence[Symbol], size: int) -> Iterator[Sequence[Symbol]]:
    for start in range(0, len(symbols), size):
        yield symbols[start : start + size]


def _leaves(group: BaseException) -> Iterator[BaseException]:
    if isinstance(group, BaseExceptionGroup):
        for inner in group.exceptions:
            yield from _leaves(inner)
    else:
        yield group
