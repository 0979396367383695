"""How orders travel: over the websocket API where it is open and tried, over REST else; each order once, by one way.

ccxt waits forever for the answer to a websocket order, sends it whenever a connection opens however late, and leaves it among its
futures. So an order goes by websocket only if the connection stands at that moment, has its own time-out, and after one without an answer
the connection is given up: nothing may be delivered later. A refused dial costs nothing: REST takes the order.
"""

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import structlog
from ccxt.base.errors import BaseError, NetworkError, OperationFailed

from agents.core.errors import Throttled, VenueError
from agents.core.instruments import Side, Symbol
from agents.core.orders import Place, TimeInForce
from daemon.venues.budget import Call, Lane, budget_of
from daemon.venues.capabilities import BY_RECORD, Capabilities
from daemon.venues.client import Exchange
from daemon.venues.client_ids import Unspellable
from daemon.venues.clock import ExchangeClock
from daemon.venues.outcomes import NotSent, Unsettled
from daemon.venues.readers import LostStream, watched
from daemon.venues.throttle import Throttle

log = structlog.get_logger(__name__)

ANSWER_S = 5.0
"""A websocket that works answers in a fraction of a second; what it leaves open is looked up over REST, so the wait is short."""
BINANCE_ORDER_COST = 0.2
"""Weight 1 in ccxt's units; elsewhere a whole unit is taken."""
AUTO, WEBSOCKET, REST = "auto", "websocket", "rest"


class NotConnected(VenueError):
    """The websocket does not stand; nothing was sent over it."""


@dataclass(slots=True)
class _Talk:
    """One call over the websocket API: the futures that ccxt waits on for it."""

    waits: list[tuple[Any, str, "asyncio.Future[Any]"]] = field(default_factory=list)


_TALK: ContextVar[_Talk | None] = ContextVar("talk", default=None)


class OrderTransport:
    """Sends and cancels orders of one account. Errors are ccxt's own, or NotSent where certainly nothing has left."""

    def __init__(self, exchange: Exchange, throttle: Throttle, caps: Capabilities, clock: ExchangeClock, over: str = AUTO) -> None:
        self._exchange, self._throttle, self._caps, self._clock = exchange, throttle, caps, clock
        wanted = over == WEBSOCKET or (over == AUTO and caps.websocket_reviewed)
        self._by_socket = wanted and caps.websocket_orders
        self.by_record = caps.lookup == BY_RECORD
        """Whether an order can be asked for by our id."""
        self._native = exchange.id.startswith("binance")
        self._distrusted: set[Any] = set()
        self._talks = 0
        self.sent = {"websocket": 0, "rest": 0, "fallen_back": 0, "given_up": 0}
        if self._by_socket:
            self._guard()

    @property
    def status(self) -> dict[str, Any]:
        """For the session's view."""
        return {"over": "websocket" if self._by_socket else "rest", **self.sent}

    async def create(self, place: Place) -> Any:
        """Send one order, once; ccxt's order structure. Raises what ccxt raises, TimeoutError, NotSent, Unsettled or LostStream."""
        if not self._clock.usable and not place.reduce_only:  # what reduces risk is tried: signed by the measured offset, or refused
            raise NotSent("this machine's clock is not known to be right", "clock")
        if self._caps.client_id is not None:
            try:
                self._caps.client_id.spell(place.order_id)
            except Unspellable as error:
                raise NotSent(str(error), "client_id") from error
        if self._by_socket:
            try:
                arguments = self._native_arguments(place) if self._native else self._arguments(place)
                raw = await self._talk(self._exchange.create_order_ws, arguments, Call(Lane.ORDER), urgent=False)
                self.sent["websocket"] += 1
                return raw
            except NotConnected:
                self.sent["fallen_back"] += 1
        self.sent["rest"] += 1
        return await self._rest(place)

    async def cancel(self, venue_order_id: str, symbol: Symbol, client_order_id: str = "", **params: Any) -> Any:
        """Cancel by the exchange's id, or by ours where that is not known. Raises what ccxt raises. Asking twice does no harm."""
        if not venue_order_id:
            params["clientOrderId"] = client_order_id
        arguments = (venue_order_id, symbol, params)
        if self._by_socket:
            try:
                return await self._talk(self._exchange.cancel_order_ws, arguments, Call(Lane.PROTECT), urgent=True)
            except (NotConnected, NotSent, OperationFailed, LostStream, TimeoutError):
                self.sent["fallen_back"] += 1
        return await self._throttle.call(self._exchange, lambda: self._exchange.cancel_order(*arguments), urgent=True)

    # -- REST ----------------------------------------------------------------------------------------------------

    async def _rest(self, place: Place) -> Any:
        arguments, call = self._arguments(place), Call(Lane.ORDER)
        try:
            return await self._throttle.call(
                self._exchange, lambda: self._exchange.create_order(*arguments), wait_for_ban=False, call=call
            )
        except Throttled as error:
            if call.wrote:
                raise Unsettled("silence was asked for between two requests of one order") from error
            raise NotSent(str(error), "throttled") from error
        except NotSent as error:  # refused when it was to be signed
            if call.wrote:
                raise Unsettled("a second request of one order was not signed") from error
            raise
        except (BaseError, TimeoutError) as error:
            if call.wrote and not call.last_wrote:
                raise Unsettled(f"{type(error).__name__}: {error}"[:300]) from error
            silent = budget_of(self._exchange) is not None and call.sent == 0
            if silent and isinstance(error, OperationFailed | TimeoutError):
                raise NotSent(f"{type(error).__name__}: {error}"[:300]) from error
            raise

    def _arguments(self, place: Place) -> tuple[Any, ...]:
        """Of ccxt's unified `create_order`."""
        params: dict[str, Any] = {"clientOrderId": place.order_id}
        if place.post_only:
            params["postOnly"] = True
        if place.time_in_force is TimeInForce.IOC and place.price is not None:
            params["timeInForce"] = "IOC"
        if place.trigger_price is not None:
            params["stopLossPrice"] = float(place.trigger_price)
        return self._common(place, "limit" if place.price is not None else "market", params)

    def _native_arguments(self, place: Place) -> tuple[Any, ...]:
        """The same in Binance's own words: ccxt hands parameters of websocket orders on as they are, unified names included."""
        params: dict[str, Any] = {"newClientOrderId": place.order_id}
        if place.time_in_force is TimeInForce.IOC and place.price is not None:
            params["timeInForce"] = "IOC"
        if place.trigger_price is not None:
            params["stopPrice"] = self._exchange.price_to_precision(place.symbol, float(place.trigger_price))
        kind = "limit" if place.price is not None else "market"
        return self._common(place, "LIMIT_MAKER" if place.post_only and place.trigger_price is None else kind, params)

    def _common(self, place: Place, kind: str, params: dict[str, Any]) -> tuple[Any, ...]:
        side = "buy" if place.side is Side.BUY else "sell"
        return place.symbol, kind, side, float(place.quantity), None if place.price is None else float(place.price), params

    # -- websocket -----------------------------------------------------------------------------------------------

    async def _talk(self, method: Any, arguments: tuple[Any, ...], call: Call, urgent: bool) -> Any:
        talk, exchange = _Talk(), self._exchange

        async def request() -> Any:
            if exchange.enableRateLimit:
                await exchange.throttle(BINANCE_ORDER_COST if self._native else 1.0)
            async with asyncio.timeout(ANSWER_S):
                return await watched(lambda: method(*arguments))

        self._talks += 1
        token = _TALK.set(talk)
        try:
            return await self._throttle.call(exchange, request, urgent=urgent, wait_for_ban=urgent, call=call)
        except Throttled as error:
            if talk.waits or urgent:
                raise
            raise NotSent(str(error), "throttled") from error
        except (LostStream, TimeoutError) as error:
            if not talk.waits and isinstance(error, TimeoutError):
                raise NotSent("no budget in time") from error
            self._distrusted.update(connection for connection, _, _ in talk.waits)
            raise
        finally:
            _TALK.reset(token)
            self._talks -= 1
            self._forget(talk)
            if self._distrusted and self._talks == 0:
                await self._give_up()

    def _forget(self, talk: _Talk) -> None:
        """Leave nothing of a call in ccxt: an answer that never came must not complain when it is thrown away."""
        for connection, message_hash, future in talk.waits:
            if future.done() and not future.cancelled():
                connection.subscriptions.pop(message_hash, None)
                future.exception()
            else:  # ccxt must know what a late answer belongs to, until the connection is given up
                future.cancel()

    async def _give_up(self) -> None:
        """Close connections that did not answer, so that nothing on its way over them arrives later."""
        while self._distrusted:
            connection = self._distrusted.pop()
            self.sent["given_up"] += 1
            connection.error = connection.error or NetworkError("given up: an order was not answered")
            if self._exchange.clients.get(connection.url) is connection:
                del self._exchange.clients[connection.url]
            try:
                async with asyncio.timeout(1.0):
                    await connection.close()
            except Exception as error:  # noqa: BLE001 - a broken connection; it is dropped either way
                log.debug("websocket_not_closed", error=str(error)[:200])

    def _guard(self) -> None:
        """Have ccxt's `watch` refuse what would wait for a connection, for our calls only."""
        watch = self._exchange.watch

        def guarded(url: str, message_hash: str, message: Any = None, *rest: Any) -> Any:
            talk = _TALK.get()
            if talk is None:
                return watch(url, message_hash, message, *rest)
            connection = (self._exchange.clients or {}).get(url)
            if connection is None or not connection.connected.done() or connection.closed() or connection in self._distrusted:
                self._dial(url)
                raise NotConnected(url)
            connection.throttle = _at_once  # the budget has paced it; what waits here could leave after we gave it up
            future = watch(url, message_hash, message, *rest)
            talk.waits.append((connection, message_hash, future))
            return future

        self._exchange.watch = guarded

    def _dial(self, url: str) -> None:
        """Open the connection for the next order."""
        self._exchange.open()
        connection = self._exchange.client(url)
        connection.connect(self._exchange.session, self._exchange.ws_dial_delay(url))


async def _at_once(cost: float | None = None) -> None:
    """In place of ccxt's queue of websocket messages."""
