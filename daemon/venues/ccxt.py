"""A real exchange: CcxtFeed for the market, and with keys orders, fills by cursor and balances."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import structlog
from ccxt.base.errors import BaseError, NotSupported

from agents.core.errors import DataError, Throttled, Unreachable
from agents.core.events import UNSTAMPED, Balance, BookSnapshot, Event
from agents.core.instruments import Currency, Symbol
from agents.core.orders import Amend, Cancel, Command, Place
from daemon.venues import markets
from daemon.venues.base import Outbox, pumped
from daemon.venues.client import Exchange, ExchangeOptions, build_client, close_client
from daemon.venues.feed import CcxtFeed
from daemon.venues.orders import OrderDesk, refused_key
from daemon.venues.outcomes import bad_key
from daemon.venues.parse import Levels, parse_balances, parse_book
from daemon.venues.readers import LostStream, watched
from daemon.venues.throttle import Backoff, Throttle

log = structlog.get_logger(__name__)

QUOTE_DEPTH = 10


@dataclass(frozen=True, slots=True)
class VenueOptions:
    """How to trade on one account. Seconds are real seconds."""

    timeout_s: float = 12.0
    """Our own end to any request, a little longer than ccxt's."""
    window_s: float = 15.0
    """How long an order may be on its way: longer than the exchange accepts a signed request (10 s on Binance)."""
    sweep_s: float = 5.0
    """Pause between two comparisons of open orders and trades with the exchange, while orders are live."""
    balance_s: float = 10.0
    queue: int = 512
    """Commands that may wait to be sent; a Place beyond is refused unsent."""
    senders: int = 8
    cancellers: int = 4


class CcxtVenue:
    """A feed plus an account. Fills come from the account's trades; private streams only tell when to look."""

    def __init__(
        self, feed: CcxtFeed, account: ExchangeOptions, clock: Callable[[], int], instance: str, options: VenueOptions | None = None
    ) -> None:
        self._feed, self._account, self._clock, self._instance = feed, account, clock, instance
        self._symbols = feed.symbols
        self._options = options = options or VenueOptions()
        self._outbox = Outbox()
        feed.feed_into(self._outbox)
        self._places: asyncio.Queue[Place] = asyncio.Queue(options.queue)
        self._cancels: asyncio.Queue[Cancel] = asyncio.Queue(options.queue)
        self._throttle = Throttle(options.timeout_s, options.senders, options.cancellers)
        self._exchange: Exchange | None = None
        self._desk: OrderDesk | None = None
        self._opening = asyncio.Lock()
        self.strays: list[str] = []
        """Client ids of orders of an earlier session that were found open at the start, and cancelled."""

    @property
    def status(self) -> dict[str, Any]:
        """For the session's view: the feed's, and counts of what happened to orders."""
        counts = dict(self._desk.counts) if self._desk else {}
        return {**self._feed.status, "orders": counts, "strays": list(self.strays), "bans": self._throttle.bans}

    def events(self) -> AsyncIterator[Event]:
        """Market data, order updates, fills and balances, unstamped. Raises ConfigError when the key is refused."""
        return pumped(self._run, self._outbox)

    async def send(self, command: Command) -> None:
        """Queue one command; its outcome comes back as OrderUpdate events."""
        _, desk = await self.open()
        match command:
            case Place():
                try:
                    self._places.put_nowait(command)
                    desk.expect(command)
                except asyncio.QueueFull:
                    desk.refuse(command, "outbox_full")
            case Cancel():
                await self._cancels.put(command)
            case Amend():
                place = Place(command.new_order_id, command.symbol, command.side, command.quantity, command.price)
                await self._cancels.put(Cancel(command.order_id, command.symbol))
                desk.refuse(place, "amend_not_supported")

    async def balances(self) -> dict[Currency, Decimal]:
        """Total of every currency in the account; raises Unreachable."""
        return {currency: total for currency, (total, _) in (await self._fetch_balances()).items()}

    async def quote(self, symbol: Symbol) -> BookSnapshot | None:
        """The venue's own prices of a symbol, asked for at once; None where it shows none. Raises Unreachable."""
        exchange, _ = await self.open()
        depth = QUOTE_DEPTH if exchange.id.startswith("binance") else None
        try:
            raw = await self._throttle.call(exchange, lambda: exchange.fetch_order_book(symbol, depth), urgent=True)
            return parse_book(raw, symbol, QUOTE_DEPTH, self._feed.market_time or self._clock(), Levels())
        except DataError:
            return None
        except (BaseError, TimeoutError, Throttled) as error:
            raise Unreachable(f"{exchange.id} tells no price of {symbol}: {type(error).__name__} {error}"[:400]) from error

    async def open(self) -> tuple[Exchange, OrderDesk]:
        """Connect the account once: markets, our strays cancelled, trades of the past set aside."""
        async with self._opening:
            if self._exchange is None or self._desk is None:
                exchange = build_client(self._account)
                desk = OrderDesk(
                    exchange, self._throttle, self._outbox, self._instance, self._options.window_s, self._feed.reload_markets
                )
                try:
                    await markets.load(exchange, self._throttle)
                    markets.check(exchange, self._symbols, ())
                    await self._clear(exchange, desk)
                    self._feed.charge(await markets.account_fees(exchange, self._throttle, self._symbols))
                except BaseException:
                    await close_client(exchange)
                    raise
                self._exchange, self._desk = exchange, desk
            return self._exchange, self._desk

    async def settle(self, timeout_s: float) -> bool:
        """Final sweep before the end: until every order has ended and no fill is missing, or time is up; whether it is."""
        _, desk = await self.open()
        for tracked in desk.live():
            desk.look_soon(tracked)
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    desk.dirty.update(self._symbols)
                    failed = desk.counts["sweep_failed"]
                    wait = await desk.attend()
                    if not desk.live() and desk.counts["sweep_failed"] == failed:
                        return True
                    await asyncio.sleep(min(max(wait, 0.05), 0.5))
        except TimeoutError:
            return False

    async def close(self) -> None:
        """Release the connections of the account and of the feed."""
        exchange, self._exchange, self._desk = self._exchange, None, None
        if exchange is not None:
            await close_client(exchange)
        await self._feed.close()

    # -- inside --------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        exchange, desk = await self.open()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._feed.run())
            for _ in range(self._options.senders):
                tasks.create_task(self._send_places(desk))
            for _ in range(self._options.cancellers):
                tasks.create_task(self._send_cancels(desk))
            tasks.create_task(self._follow(desk))
            tasks.create_task(self._sweep(desk))
            tasks.create_task(self._tell_balances())
            if exchange.has.get("watchOrders"):
                tasks.create_task(self._listen(exchange, desk))

    async def _clear(self, exchange: Exchange, desk: OrderDesk) -> None:
        try:
            for symbol in self._symbols:
                self.strays += await desk.cancel_strays(symbol)
                await desk.fills.start(symbol)
        except (BaseError, TimeoutError, Throttled) as error:
            if bad_key(error):
                raise refused_key(exchange) from error
            raise Unreachable(f"the account on {exchange.id} cannot be read: {type(error).__name__} {error}"[:400]) from error
        if self.strays:
            log.warning("strays_cancelled", order_ids=self.strays)

    async def _send_places(self, desk: OrderDesk) -> None:
        while True:
            place = await self._places.get()
            await desk.place(desk.orders[place.order_id])

    async def _send_cancels(self, desk: OrderDesk) -> None:
        while True:
            await desk.cancel(await self._cancels.get())

    async def _follow(self, desk: OrderDesk) -> None:
        """Look at what is due, when it is due or when something stirs."""
        while True:
            desk.stirred.clear()
            wait = await desk.attend()
            try:
                async with asyncio.timeout(wait):
                    await desk.stirred.wait()
            except TimeoutError:
                pass

    async def _sweep(self, desk: OrderDesk) -> None:
        """The periodic truth, whatever the private stream says or does not say."""
        while True:
            await asyncio.sleep(self._options.sweep_s)
            for symbol in sorted({tracked.place.symbol for tracked in desk.live()}):
                desk.dirty.add(symbol)
                try:
                    await desk.compare(symbol)
                except (BaseError, TimeoutError, Throttled) as error:
                    if bad_key(error):
                        raise refused_key(self._exchange) from error
                    desk.counts["compare_failed"] += 1
            desk.stirred.set()

    async def _tell_balances(self) -> None:
        while True:
            try:
                for currency, (total, free) in (await self._fetch_balances()).items():
                    self._outbox.put(Balance(UNSTAMPED, currency, total, free))
            except (Unreachable, DataError) as error:
                log.warning("balances_not_read", error=str(error)[:200])
            await asyncio.sleep(self._options.balance_s)

    async def _fetch_balances(self) -> dict[Currency, tuple[Decimal, Decimal]]:
        exchange, _ = await self.open()
        try:
            raw = await self._throttle.call(exchange, exchange.fetch_balance)
        except (BaseError, TimeoutError, Throttled) as error:
            if bad_key(error):
                raise refused_key(exchange) from error
            raise Unreachable(f"the balances on {exchange.id} cannot be read: {type(error).__name__} {error}"[:400]) from error
        return parse_balances(raw)

    async def _listen(self, exchange: Exchange, desk: OrderDesk) -> None:
        """The private stream as a bell; where it fails, the sweeps go on without it."""
        backoff = Backoff(0.5, 60.0)
        while True:
            try:
                told = await watched(exchange.watch_orders)
            except NotSupported:
                return
            except Exception as error:  # noqa: BLE001 - ccxt's or a parser's; the stream is a hint and may fail in any way
                delay = backoff.failed()
                if backoff.failures == 1:
                    kind = "lost" if isinstance(error, LostStream) else type(error).__name__
                    log.warning("private_stream_lost", error=f"{kind}: {error}"[:200])
                desk.dirty.update(tracked.place.symbol for tracked in desk.live())
                desk.stirred.set()
                await asyncio.sleep(delay)
                continue
            if backoff.worked():
                log.info("private_stream_back")
            cache = exchange.orders
            rows = list(cache) if cache else list(told or [])
            if cache:
                cache.clear()
            for raw in rows:
                desk.hint(raw)
