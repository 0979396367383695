"""The life of our orders on a real exchange: sent once, judged in three states, ended only when their fills are in.

Nothing here decides; nothing is sent twice. UNKNOWN is resolved by evidence: a look by client order id that finds the order,
or several that do not, over a window longer than the exchange may sit on a request.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Any

import structlog
from ccxt.base.errors import BaseError, OrderNotFound

from agents.core.errors import ConfigError, DataError, Throttled
from agents.core.events import UNSTAMPED, Fill, OrderUpdate
from agents.core.instruments import ZERO, Side, Symbol
from agents.core.orders import NEXT, Cancel, OrderId, OrderState, Place, TimeInForce, is_ours
from daemon.venues.base import Outbox
from daemon.venues.client import Exchange
from daemon.venues.fills import FillReader
from daemon.venues.outcomes import Outcome, Verdict, bad_key, judge_answer, judge_error
from daemon.venues.parse import OrderView, parse_order
from daemon.venues.throttle import Throttle

log = structlog.get_logger(__name__)

KEPT = 4096
"""Ended orders that are remembered, for late fills."""
LOOKS = (0.02, 0.05, 0.07, 0.13, 0.2, 0.27, 0.33)
"""Pauses between looks for an order whose fate is unknown, in parts of the window; the last repeats."""
ABSENT = 4
"""Looks in a row that must find nothing before an order counts as never accepted."""
LOOKUP_BY_CLIENT_ID = ("binance", "okx", "myokx", "mexc", "kucoin", "gate")
"""ccxt classes whose fetch_order takes a client order id; with the others, the lists of orders are searched."""


@dataclass(slots=True)
class Tracked:
    """One order of ours as the exchange knows it. Times are the loop's seconds."""

    place: Place
    state: OrderState = OrderState.PENDING
    """Last told."""
    venue_order_id: str = ""
    reported: Decimal | None = None
    """Filled quantity by the exchange's word."""
    filled: Decimal = ZERO
    """Sum of the fills told."""
    sent_at: float = 0.0
    ending: OrderState | None = None
    """How it ended; told once its fills are in."""
    ended_at: float = 0.0
    absent: int = 0
    looks: int = 0
    next_look: float | None = None
    cancel_wanted: bool = False
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the create call has come to an end, whatever end."""

    @property
    def done(self) -> bool:
        return self.state.done

    @property
    def complete(self) -> bool:
        """Whether no fill is known to be missing."""
        if self.reported is not None:
            return self.filled >= self.reported and (self.ending is not OrderState.FILLED or self.reported > 0)
        return self.filled >= self.place.quantity


class OrderDesk:
    """Sends, cancels and follows orders of one account. `instance` marks client order ids that are ours."""

    def __init__(
        self, exchange: Exchange, throttle: Throttle, outbox: Outbox, instance: str, window_s: float, filters: Callable[[], None]
    ) -> None:
        self._exchange, self._throttle, self._outbox = exchange, throttle, outbox
        self._instance, self._window_s, self._filters = instance, window_s, filters
        self.orders: dict[OrderId, Tracked] = {}
        self.dirty: set[Symbol] = set()
        """Symbols with own trades that have not been fetched yet."""
        self.stirred = asyncio.Event()
        self.counts: Counter[str] = Counter()
        self.fills = FillReader(exchange, throttle, outbox, self._owner, self._filled)
        self._by_venue_id: dict[str, OrderId] = {}

    # -- commands ------------------------------------------------------------------------------------------------

    def expect(self, place: Place) -> Tracked:
        """Begin to follow an order that is about to be sent."""
        tracked = self.orders[place.order_id] = Tracked(place, sent_at=_now())
        self._prune()
        return tracked

    async def place(self, tracked: Tracked) -> None:
        """Send one order, once. Raises ConfigError when the key is refused."""
        place, view = tracked.place, None
        tracked.sent_at = _now()
        try:
            raw = await self._throttle.call(self._exchange, lambda: self._create(place), wait_for_ban=False)
            view = parse_order(raw)
            verdict = judge_answer(view, place.order_id)
        except Throttled:
            verdict = Verdict(Outcome.REJECTED, "throttled")
        except asyncio.CancelledError:
            tracked.answered.set()
            raise
        except Exception as error:  # noqa: BLE001 - judged one by one; whatever is not a refusal is UNKNOWN
            verdict = judge_error(error)
            say = log.debug if verdict.outcome is Outcome.REJECTED else log.warning
            say("order_not_confirmed", order_id=place.order_id, symbol=place.symbol, outcome=verdict.outcome.value,
                reason=verdict.reason, error=f"{type(error).__name__}: {error}"[:300])  # fmt: skip
        tracked.answered.set()
        self._judge(tracked, verdict, view)

    def refuse(self, place: Place, reason: str) -> None:
        """Tell that an order was never sent."""
        self._tell(Tracked(place), OrderState.REJECTED, reason)

    async def cancel(self, command: Cancel) -> None:
        """Make one order go away, and find out how it ended."""
        tracked = self.orders.get(command.order_id)
        if tracked is None:
            self.counts["cancel_of_unknown_order"] += 1
            log.warning("cancel_of_unknown_order", order_id=command.order_id, symbol=command.symbol)
            return
        tracked.cancel_wanted = True
        await tracked.answered.wait()
        for pause in (0.2, 0.5, 1.0, 2.0):
            if tracked.done or tracked.ending is not None or await self._cancel_once(tracked):
                return
            await asyncio.sleep(pause)
        if not tracked.done and tracked.ending is None and tracked.state is not OrderState.UNKNOWN:
            tracked.cancel_wanted = False
            self._tell(tracked, OrderState.PARTIAL if tracked.filled else OrderState.OPEN, "cancel_failed")

    # -- following -----------------------------------------------------------------------------------------------

    def hint(self, raw: Any) -> None:
        """A private stream said something: where it concerns us, look soon."""
        view = self._parse(raw)
        tracked = self.orders.get(OrderId(view.order_id)) or self.orders.get(self._by_venue_id.get(view.venue_order_id, OrderId("")))
        if tracked is None:
            self.counts["foreign_order" if not is_ours(view.order_id, self._instance) else "stray_order"] += 1
            return
        news = view.state is not None and (view.state.done or tracked.state in (OrderState.PENDING, OrderState.UNKNOWN))
        if view.filled is not None and view.filled > tracked.filled:
            self.dirty.add(tracked.place.symbol)
            news = True
        if news and not tracked.done and tracked.answered.is_set():
            self.look_soon(tracked)
        elif self.dirty:
            self.stirred.set()

    def look_soon(self, tracked: Tracked, delay: float = 0.0) -> None:
        """Have `attend` look at this order."""
        due = _now() + delay
        if tracked.next_look is None or due < tracked.next_look:
            tracked.next_look = due
            self.stirred.set()

    async def attend(self) -> float:
        """Sweep dirty symbols and look at orders that are due; seconds until the next look is."""
        while self.dirty:
            await self._sweep(self.dirty.pop())
        now = _now()
        for tracked in [t for t in self.orders.values() if t.next_look is not None and t.next_look <= now]:
            tracked.next_look = None
            await self._look(tracked)
        waits = [t.next_look - _now() for t in self.orders.values() if t.next_look is not None]
        return max(0.0, min(waits, default=60.0))

    def live(self) -> list[Tracked]:
        """Orders whose end has not been told."""
        return [tracked for tracked in self.orders.values() if not tracked.done]

    async def compare(self, symbol: Symbol) -> None:
        """Hold our open orders of a symbol against the exchange's list; what is missing there is looked at."""
        opened = await self.open_orders(symbol)
        listed = {view.venue_order_id for view in opened}
        for tracked in self.live():
            if tracked.place.symbol == symbol and tracked.venue_order_id and tracked.venue_order_id not in listed:
                self.look_soon(tracked)
        for view in opened:
            if is_ours(view.order_id, self._instance) and OrderId(view.order_id) not in self.orders:
                self.counts["stray_order"] += 1
                log.warning("stray_order", order_id=view.order_id, symbol=symbol)

    async def open_orders(self, symbol: Symbol) -> list[OrderView]:
        """The exchange's list of this account's open orders. Raises what ccxt raises."""
        fetch = self._exchange.fetch_open_orders
        return [self._parse(raw) for raw in await self._throttle.call(self._exchange, lambda: fetch(symbol)) or []]

    async def cancel_strays(self, symbol: Symbol) -> list[str]:
        """Cancel open orders that carry our prefix but that this session has not placed; their client ids."""
        strays = [v for v in await self.open_orders(symbol) if is_ours(v.order_id, self._instance)]
        strays = [v for v in strays if OrderId(v.order_id) not in self.orders]
        for view in strays:
            request = partial(self._exchange.cancel_order, view.venue_order_id, symbol)
            try:
                await self._throttle.call(self._exchange, request, urgent=True)
            except OrderNotFound:
                continue
        return [view.order_id for view in strays]

    # -- inside --------------------------------------------------------------------------------------------------

    async def _create(self, place: Place) -> Any:
        params: dict[str, Any] = {"clientOrderId": place.order_id}
        if place.post_only:
            params["postOnly"] = True
        if place.time_in_force is TimeInForce.IOC and place.price is not None:
            params["timeInForce"] = "IOC"
        side = "buy" if place.side is Side.BUY else "sell"
        kind, price = ("limit", float(place.price)) if place.price is not None else ("market", None)
        return await self._exchange.create_order(place.symbol, kind, side, float(place.quantity), price, params)

    def _judge(self, tracked: Tracked, verdict: Verdict, view: OrderView | None) -> None:
        self.counts[verdict.outcome.value] += 1
        if verdict.reload:
            self._filters()
        if tracked.done:
            return
        match verdict.outcome:
            case Outcome.ACCEPTED:
                assert view is not None
                self._apply(tracked, view)
            case Outcome.UNKNOWN:
                if tracked.state is OrderState.PENDING:
                    self._tell(tracked, OrderState.UNKNOWN, verdict.reason)
                self.look_soon(tracked, 0.0 if verdict.duplicate else LOOKS[0] * self._window_s)
            case Outcome.REJECTED | Outcome.FATAL:
                self._tell(tracked, OrderState.REJECTED, verdict.reason)
                if verdict.outcome is Outcome.FATAL:
                    raise refused_key(self._exchange)

    async def _cancel_once(self, tracked: Tracked) -> bool:
        """One attempt; whether nothing more needs to be tried from here."""
        place, params = tracked.place, {}
        if not tracked.venue_order_id:
            params["clientOrderId"] = place.order_id
        cancel = self._exchange.cancel_order
        try:
            raw = await self._throttle.call(
                self._exchange, lambda: cancel(tracked.venue_order_id, place.symbol, params), urgent=True
            )
        except OrderNotFound:
            await self._look(tracked)  # gone, or never there: only its own record tells
            return tracked.done or tracked.ending is not None or tracked.state is OrderState.UNKNOWN
        except (BaseError, TimeoutError, Throttled) as error:
            if bad_key(error):
                raise refused_key(self._exchange) from error
            await self._look(tracked)
            return tracked.done or tracked.ending is not None
        view = self._parse(raw)  # its client order id is the cancel's, not the order's: matched by what we asked
        if view.state is not None and view.state.done:
            self._apply(tracked, view)
        else:
            await self._look(tracked)
        return tracked.done or tracked.ending is not None

    async def _look(self, tracked: Tracked) -> None:
        """Fetch one order's own record, and draw what conclusions it allows."""
        if tracked.done:
            return
        if tracked.ending is not None:
            await self._finish(tracked)
            return
        tracked.looks += 1
        try:
            view = await self._find(tracked)
        except (BaseError, TimeoutError, Throttled) as error:
            if bad_key(error):
                raise refused_key(self._exchange) from error
            self._look_again(tracked)
            return
        if view is not None and not view.empty:
            tracked.absent = 0
            self._apply(tracked, view)
            return
        tracked.absent += 1
        unknown = tracked.state in (OrderState.UNKNOWN, OrderState.PENDING)
        if unknown and tracked.absent >= ABSENT and _now() - tracked.sent_at >= self._window_s:
            self._tell(tracked, OrderState.REJECTED, "not_found")
        else:
            self._look_again(tracked)

    def _look_again(self, tracked: Tracked) -> None:
        self.look_soon(tracked, LOOKS[min(tracked.looks, len(LOOKS) - 1)] * self._window_s)

    async def _find(self, tracked: Tracked) -> OrderView | None:
        """The exchange's record of an order, or None if it has none. Raises what ccxt raises."""
        place, exchange = tracked.place, self._exchange
        by_client = exchange.id.startswith(LOOKUP_BY_CLIENT_ID)
        if exchange.has.get("fetchOrder") and (tracked.venue_order_id or by_client):
            params = {} if tracked.venue_order_id else {"clientOrderId": place.order_id}
            fetch = exchange.fetch_order
            try:
                return self._parse(await self._throttle.call(exchange, lambda: fetch(tracked.venue_order_id, place.symbol, params)))
            except OrderNotFound:
                return None
        for name in ("fetchOpenOrders", "fetchClosedOrders", "fetchCanceledOrders", "fetchOrders"):
            if exchange.has.get(name) is not True:
                continue
            for raw in await self._throttle.call(exchange, partial(getattr(exchange, name), place.symbol)) or []:
                view = self._parse(raw)
                if view.order_id == place.order_id or (view.venue_order_id and view.venue_order_id == tracked.venue_order_id):
                    return view
        return None

    def _apply(self, tracked: Tracked, view: OrderView) -> None:
        """Take an order's record, however old it may be: what is known never shrinks."""
        if tracked.done:
            return
        if view.venue_order_id and not tracked.venue_order_id:
            self._identify(tracked, view)
            if tracked.done:
                return
        if view.filled is not None:
            tracked.reported = max(view.filled, tracked.reported or ZERO)
        if (tracked.reported or ZERO) > tracked.filled:
            self.dirty.add(tracked.place.symbol)
            self.stirred.set()
        state = view.state
        if state is not None and state.done and tracked.ending is None:
            self._end(tracked, state, view.reason)
        elif tracked.ending is None:
            self._opened(tracked, state)

    def _identify(self, tracked: Tracked, view: OrderView) -> None:
        """The exchange's id is known: told before any fill that may have waited for it."""
        tracked.venue_order_id = view.venue_order_id
        self._by_venue_id[view.venue_order_id] = tracked.place.order_id
        if tracked.state in (OrderState.PENDING, OrderState.UNKNOWN) and view.state is not OrderState.REJECTED:
            self._tell(tracked, OrderState.OPEN)
        self.fills.adopt(view.venue_order_id)

    def _opened(self, tracked: Tracked, state: OrderState | None) -> None:
        if state is None:
            self._look_again(tracked)
        if tracked.state in (OrderState.PENDING, OrderState.UNKNOWN) or (state is OrderState.PARTIAL and tracked.state is not state):
            self._tell(tracked, OrderState.PARTIAL if state is OrderState.PARTIAL else OrderState.OPEN)
            if tracked.cancel_wanted:
                self._look_again(tracked)

    def _end(self, tracked: Tracked, state: OrderState, reason: str) -> None:
        if state is OrderState.REJECTED:
            self._tell(tracked, state, reason.lower())
            return
        tracked.ending, tracked.ended_at = state, _now()
        if tracked.complete:
            self._tell(tracked, state)
        else:
            self.dirty.add(tracked.place.symbol)
            self.look_soon(tracked, 0.05)

    async def _finish(self, tracked: Tracked) -> None:
        """Fetch the fills that an ended order still lacks; after the window tell its end without them."""
        await self._sweep(tracked.place.symbol)
        if tracked.done or tracked.ending is None:
            return
        if not tracked.complete and tracked.reported is None and tracked.ending is not OrderState.FILLED:
            tracked.reported = tracked.filled  # the exchange did not say how much; what the sweep brought is all there is
        if not tracked.complete:
            try:
                await self.fills.of_order(tracked.place.symbol, tracked.venue_order_id)
            except (BaseError, TimeoutError, Throttled) as error:
                log.warning("fills_not_read", order_id=tracked.place.order_id, error=f"{type(error).__name__}: {error}"[:200])
        if tracked.done:
            return
        late = _now() - tracked.ended_at > self._window_s
        if tracked.complete or late:
            if not tracked.complete:
                self.counts["fills_missing"] += 1
                log.error("fills_missing", order_id=tracked.place.order_id, filled=str(tracked.filled), reported=str(tracked.reported))
            self._tell(tracked, tracked.ending, "" if tracked.complete else "fills_missing")
        else:
            tracked.looks += 1
            self._look_again(tracked)

    async def _sweep(self, symbol: Symbol) -> None:
        try:
            await self.fills.sweep(symbol)
            await self._orphans(symbol)
        except (BaseError, TimeoutError, Throttled) as error:
            if bad_key(error):
                raise refused_key(self._exchange) from error
            self.counts["sweep_failed"] += 1

    async def _orphans(self, symbol: Symbol) -> None:
        """Whose are the trades that match no order? Ask by venue order id, unless an answer of ours is still on its way."""
        if any(not t.venue_order_id and t.place.symbol == symbol for t in self.live()):
            return
        fetch = self._exchange.fetch_order
        for venue_order_id, rows in list(self.fills.orphans.items()):
            if rows and rows[0].get("symbol") == symbol:
                request = partial(fetch, venue_order_id, symbol)
                view = self._parse(await self._throttle.call(self._exchange, request))
                tracked = self.orders.get(OrderId(view.order_id))
                if tracked is None:
                    self.counts["foreign_trade"] += len(rows)
                    self.fills.disown(venue_order_id)
                else:
                    self._apply(tracked, view)

    def _owner(self, venue_order_id: str, client_order_id: str) -> OrderId | None:
        found = self._by_venue_id.get(venue_order_id)
        if found is None and client_order_id and OrderId(client_order_id) in self.orders:
            return OrderId(client_order_id)
        return found

    def _filled(self, fill: Fill) -> None:
        tracked = self.orders.get(fill.order_id)
        if tracked is None or tracked.done:
            return
        tracked.filled += fill.quantity
        if tracked.ending is None and tracked.filled >= tracked.place.quantity:
            tracked.ending, tracked.ended_at = OrderState.FILLED, _now()
            tracked.reported = max(tracked.reported or ZERO, tracked.filled)
        if tracked.ending is not None and tracked.complete:
            self._tell(tracked, tracked.ending)

    def _tell(self, tracked: Tracked, state: OrderState, reason: str = "") -> None:
        if state not in NEXT[tracked.state] and state is not tracked.state:
            self.counts["illegal_move"] += 1
            return
        tracked.state = state
        if state.done:
            tracked.next_look = None
        place = tracked.place
        filled = tracked.reported if tracked.reported is not None else tracked.filled
        self._outbox.put(OrderUpdate(UNSTAMPED, place.order_id, place.symbol, state, tracked.venue_order_id, filled, reason))

    def _parse(self, raw: Any) -> OrderView:
        try:
            return parse_order(raw)
        except DataError as error:
            self.counts["order_refused"] += 1
            log.error("order_answer_refused", reason=str(error))
            return OrderView("", "", "", None, None, None)

    def _prune(self) -> None:
        if len(self.orders) <= 2 * KEPT:
            return
        ended = [order_id for order_id, tracked in self.orders.items() if tracked.done][:KEPT]
        for order_id in ended:
            self._by_venue_id.pop(self.orders.pop(order_id).venue_order_id, None)


def refused_key(exchange: Exchange) -> ConfigError:
    """The one error that ends trading at once: no call with this key will work."""
    return ConfigError(
        f"exchange.api_key: {exchange.id} refuses the key (wrong key, wrong secret, missing right or an address that is not on its "
        "list); check all four at the exchange"
    )


def _now() -> float:
    return asyncio.get_running_loop().time()
