"""A real exchange: CcxtFeed for the market, and with keys orders, fills by cursor and balances."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import structlog
from ccxt.base.errors import BaseError, NotSupported

from agents.core.errors import DataError, Throttled, Unreachable
from agents.core.events import UNSTAMPED, Adopted, Balance, BookSnapshot, Event
from agents.core.instruments import Currency, Symbol
from agents.core.orders import Amend, Cancel, Command, OrderId, OrderState, Place
from daemon.venues import markets
from daemon.venues.base import Outbox, pumped
from daemon.venues.budget import Lane
from daemon.venues.client import Exchange, ExchangeOptions, build_client, close_client, dials_loopback
from daemon.venues.feed import CcxtFeed
from daemon.venues.fills import Cursor
from daemon.venues.link import Link, LinkOptions
from daemon.venues.orders import OrderDesk, refused_key
from daemon.venues.outcomes import bad_key
from daemon.venues.parse import Levels, OrderView, Transfer, VenueKey, parse_balances, parse_book
from daemon.venues.readers import LostStream, watched
from daemon.venues.throttle import Backoff, Throttle
from daemon.venues.truth import Asked, Truth, TruthReader

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
    link: LinkOptions = field(default_factory=LinkOptions)
    """Clock, budget, transport, dead-man switch, capabilities."""


class CcxtVenue:
    """A feed plus an account. Fills come from the account's trades; private streams only tell when to look."""

    def __init__(
        self, feed: CcxtFeed, account: ExchangeOptions, clock: Callable[[], int], instance: str, options: VenueOptions | None = None,
        factory: Callable[[ExchangeOptions], Exchange] = build_client,
    ) -> None:  # fmt: skip
        self._feed, self._account, self._clock, self._instance = feed, account, clock, instance
        self._factory = factory
        self._symbols = feed.symbols
        self._options = options = options or VenueOptions()
        self._outbox = Outbox()
        feed.feed_into(self._outbox)
        self._places: asyncio.Queue[Place] = asyncio.Queue(options.queue)
        self._cancels: asyncio.Queue[Cancel] = asyncio.Queue(options.queue)
        self._to_cancel: set[OrderId] = set()
        """What is in that queue: each order once, so that whoever asks again never has to wait for room."""
        self._throttle = Throttle(options.timeout_s, options.senders, options.cancellers, Lane.PROTECT)
        self._exchange: Exchange | None = None
        self._link: Link | None = None
        self._desk: OrderDesk | None = None
        self._opening = asyncio.Lock()

    @property
    def status(self) -> dict[str, Any]:
        """For the session's view: the feed's, and counts of what happened to orders."""
        counts = dict(self._desk.counts) if self._desk else {}
        link = self._link.status if self._link else {}
        return {**self._feed.status, "orders": counts, "link": link, "strays": self.strays, "rivals": self.rivals, "bans": self._throttle.bans}

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
                await self._queue(command)
            case Amend():
                place = Place(command.new_order_id, command.symbol, command.side, command.quantity, command.price)
                await self._queue(Cancel(command.order_id, command.symbol))
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
        """Connect the account once. Nothing of it is touched, and nothing is told before `adopt` or `events`.

        Raises ConfigError where the exchange lacks what orders need (before anything is dialled) or the clock is wrong.
        """
        async with self._opening:
            if self._exchange is None or self._desk is None:
                exchange = self._factory(self._account)
                try:
                    link = Link(exchange, self._throttle, self._options.link)
                    window_s = self._options.window_s if dials_loopback(self._account) else link.window_s(self._options.window_s)
                    desk = OrderDesk(
                        exchange, self._throttle, link.transport, self._outbox, self._instance, window_s, self._feed.reload_markets
                    )
                    await markets.load(exchange, self._throttle)
                    markets.check(exchange, self._symbols, ())
                    await link.start()
                    self._feed.charge(await markets.account_fees(exchange, self._throttle, self._symbols))
                except BaseException:
                    await close_client(exchange)
                    raise
                self._exchange, self._link, self._desk = exchange, link, desk
            return self._exchange, self._desk

    async def truth(self, asked: Asked) -> Truth:
        """What the exchange says about the account; changes nothing. Raises Unreachable, ConfigError for a refused key."""
        exchange, desk = await self.open()
        wanted = {*self._symbols, *(asked.cursors or ()), *(order.place.symbol for order in asked.orders)}
        symbols = sorted(symbol for symbol in wanted if symbol in exchange.markets)
        with self._said("the account cannot be read"):
            reader = TruthReader(exchange, self._throttle, desk.records, desk.fills, self._instance)
            found = await reader.read(symbols, asked)
            listed = await markets.instruments(exchange, self._throttle, symbols)
        return replace(found, instruments={instrument.symbol: instrument for instrument in listed}, at=self._exchange_time())

    async def adopt(
        self, orders: Iterable[Adopted], cursors: Mapping[Symbol, Cursor], past: Mapping[VenueKey, OrderId] | None = None,
        epoch: int | None = None,
    ) -> None:  # fmt: skip
        """Go on from an earlier session: follow its orders, and tell of trades only what `cursors` do not know. Before `events`.

        `past` names its ended orders by the exchange's ids; `epoch` is the session that starts.
        """
        _, desk = await self.open()
        for symbol, cursor in cursors.items():
            desk.fills.begin(symbol, cursor)
        desk.adopt(orders, past or {}, epoch, self._exchange_time())

    def _exchange_time(self) -> int:
        ahead_ms = (self._link.clock.offset_ms if self._link is not None else None) or 0.0
        return self._clock() - round(ahead_ms * 1_000_000)

    async def cancel_strays(self, strays: Sequence[OrderView]) -> None:
        """Cancel open orders of our prefix that nobody follows. Raises Unreachable."""
        _, desk = await self.open()
        with self._said("strays cannot be cancelled"):
            for view in strays:
                await desk.cancel_stray(view)

    async def sweep(self, symbols: Iterable[Symbol]) -> None:
        """Tell the own trades of these symbols that are not told yet, and find out whose they are. Raises Unreachable."""
        _, desk = await self.open()
        with self._said("trades cannot be read"):
            for symbol in symbols:
                await desk.fills.sweep(symbol)
                await desk.claim(symbol)

    async def compare(self) -> None:
        """Hold open orders of all symbols against the exchange's; strays are cancelled, another daemon's go to `rivals`."""
        _, desk = await self.open()
        with self._said("open orders cannot be read"):
            for symbol in self._symbols:
                await desk.compare(symbol)

    async def transfers(self, since: int) -> list[Transfer]:
        """Deposits and withdrawals since a time (ns), as far as the exchange tells them."""
        exchange, desk = await self.open()
        return await TruthReader(exchange, self._throttle, desk.records, desk.fills, self._instance).transfers(since)

    @property
    def rivals(self) -> list[str]:
        """Client ids of open orders of another daemon that trades this account under our name."""
        return sorted(self._desk.rivals) if self._desk else []

    @property
    def strays(self) -> list[str]:
        """Client ids of open orders of our prefix that nobody here had sent, and that were cancelled."""
        return list(self._desk.strays) if self._desk else []

    @property
    def denied(self) -> list[str]:
        """Client ids of orders that the exchange had accepted, and whose existence it denies again and again."""
        return self._desk.denied() if self._desk else []

    def close_denied(self) -> None:
        """The operator's word: orders that the exchange denies are over."""
        if self._desk is not None:
            self._desk.close_denied()

    @property
    def waiting(self) -> int:
        """Facts that are told, but that nobody has taken yet."""
        return len(self._outbox)

    async def settle(self, timeout_s: float) -> bool:
        """Final sweep before the end: until every order has ended and no fill is missing, or time is up; whether it is.

        Protective stops that rest and nobody has cancelled stay: they are what the session leaves to the exchange.
        """
        _, desk = await self.open()

        def left() -> bool:
            return any(t.place.trigger_price is None or t.cancel_wanted or t.state is not OrderState.OPEN for t in desk.live())

        for tracked in desk.live():
            desk.look_soon(tracked)
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    desk.dirty.update(self._symbols)
                    failed = desk.counts["sweep_failed"]
                    wait = await desk.attend()
                    if not left() and desk.counts["sweep_failed"] == failed:
                        return True
                    await asyncio.sleep(min(max(wait, 0.05), 0.5))
        except TimeoutError:
            return False

    async def close(self) -> None:
        """Release the connections of the account and of the feed."""
        exchange, self._exchange, self._desk = self._exchange, None, None
        if self._link is not None:
            await self._link.stop()
        if exchange is not None:
            await close_client(exchange)
        await self._feed.close()

    # -- inside --------------------------------------------------------------------------------------------------

    @contextmanager
    def _said(self, what: str) -> Iterator[None]:
        """A read that fails: a refused key ends trading, anything else is Unreachable."""
        try:
            yield
        except (BaseError, TimeoutError, Throttled) as error:
            if bad_key(error):
                raise refused_key(self._exchange) from error
            raise Unreachable(f"{what} on {self._account.id}: {type(error).__name__} {error}"[:400]) from error

    async def _run(self) -> None:
        exchange, desk = await self.open()
        with self._said("own trades cannot be read"):
            for symbol in self._symbols:
                await desk.fills.start(symbol)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._feed.run())
            if self._link is not None:
                tasks.create_task(self._link.run())
            for _ in range(self._options.senders):
                tasks.create_task(self._send_places(desk))
            for _ in range(self._options.cancellers):
                tasks.create_task(self._send_cancels(desk))
            tasks.create_task(self._follow(desk))
            tasks.create_task(self._sweep(desk))
            tasks.create_task(self._tell_balances())
            if exchange.has.get("watchOrders"):
                tasks.create_task(self._listen(exchange, desk))

    async def _send_places(self, desk: OrderDesk) -> None:
        while True:
            place = await self._places.get()
            await desk.place(desk.orders[place.order_id])

    async def _send_cancels(self, desk: OrderDesk) -> None:
        while True:
            cancel = await self._cancels.get()
            self._to_cancel.discard(cancel.order_id)
            await desk.cancel(cancel)

    async def _queue(self, cancel: Cancel) -> None:
        if cancel.order_id not in self._to_cancel:
            self._to_cancel.add(cancel.order_id)
            await self._cancels.put(cancel)

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
            for cancel in desk.uncancelled():
                await self._queue(cancel)
            for symbol in desk.moving():
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
        with self._said("the balances cannot be read"):
            raw = await self._throttle.call(exchange, exchange.fetch_balance)
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
