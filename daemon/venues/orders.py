"""The life of our orders on a real exchange: sent once, judged in three states, ended only when their fills are in.

Nothing here decides; nothing is sent twice. UNKNOWN is resolved by evidence: a look by client order id that finds the order,
or several that do not, over a window longer than the exchange may sit on a request.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import structlog
from ccxt.base.errors import BaseError, OrderNotFound

from agents.core.errors import ConfigError, Throttled
from agents.core.events import UNSTAMPED, Adopted, Fill, OrderUpdate
from agents.core.instruments import NS, ZERO, Symbol
from agents.core.orders import NEXT, Cancel, OrderId, OrderState, Place, epoch_of, is_ours
from daemon.venues.base import Outbox
from daemon.venues.client import Exchange
from daemon.venues.fills import FillReader
from daemon.venues.outcomes import Outcome, Verdict, bad_key, judge_answer, judge_error
from daemon.venues.parse import OrderView, VenueKey, parse_order
from daemon.venues.records import Records
from daemon.venues.throttle import Throttle
from daemon.venues.transport import OrderTransport

log = structlog.get_logger(__name__)

KEPT = 4096
"""Ended orders that are remembered, for late fills."""
LOOKS = (0.02, 0.05, 0.07, 0.13, 0.2, 0.27, 0.33)
"""Pauses between looks for an order whose fate is unknown, in parts of the window; the last repeats."""
AT_ONCE = 4
"""Requests that one round of `attend` makes side by side; fewer than run at a time, so that looks which hang hold up no order."""
TOO_LATE_S = 5.0
"""An order that has waited so long for its turn was meant for another market; what only reduces is still sent."""
CLAIM_S = 3.0
"""How long trades of no known order wait for an answer that is on its way, before the exchange is asked whose they are."""
_UNPROVEN = frozenset({OrderState.PENDING, OrderState.UNKNOWN, OrderState.REJECTED})
ABSENT = 4
"""Looks in a row that must find nothing before an order counts as never accepted."""


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
    cancelling: bool = False
    """Whether somebody is at it."""
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the create call has come to an end, whatever end."""

    @property
    def key(self) -> VenueKey:
        """By what the exchange knows it."""
        return self.place.symbol, self.venue_order_id

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
        self, exchange: Exchange, throttle: Throttle, transport: OrderTransport, outbox: Outbox, instance: str, window_s: float,
        filters: Callable[[], None],
    ) -> None:  # fmt: skip
        self._exchange, self._transport, self._outbox = exchange, transport, outbox
        self._instance, self._window_s, self._filters = instance, window_s, filters
        self.orders: dict[OrderId, Tracked] = {}
        self.dirty: set[Symbol] = set()
        """Symbols with own trades that have not been fetched yet."""
        self.stirred = asyncio.Event()
        self.counts: Counter[str] = Counter()
        self.epoch: int | None = None
        """The session that sends; an order of a later one is another daemon's."""
        self.rivals: dict[str, OrderView] = {}
        """Open orders of another daemon that trades this account under our name, by client id."""
        self.strays: list[str] = []
        """Client ids of orders with our prefix that nobody here had sent, in the order of finding; they were cancelled."""
        self.records = Records(exchange, throttle, transport.by_record, lambda: self.counts.update(["order_refused"]))
        self.fills = FillReader(exchange, throttle, outbox, self._owner, self._filled)
        self._by_venue_id: dict[VenueKey, OrderId] = {}
        self._past: dict[VenueKey, OrderId] = {}
        self._since = 0
        self._ended: dict[Symbol, float] = {}
        self._denied: Counter[VenueKey] = Counter()
        self._orphaned: dict[VenueKey, float] = {}

    # -- commands ------------------------------------------------------------------------------------------------

    def expect(self, place: Place) -> Tracked:
        """Begin to follow an order that is about to be sent."""
        tracked = self.orders[place.order_id] = Tracked(place, sent_at=_now())
        if self.epoch is None:
            self.epoch = epoch_of(place.order_id)
        self._prune()
        return tracked

    def adopt(self, orders: Iterable[Adopted], past: Mapping[VenueKey, OrderId], epoch: int | None = None, at: int = 0) -> None:
        """Go on following orders of an earlier session; nothing that they carry is told again.

        `past` names that session's ended orders by the exchange's ids, for fills that come late. `epoch` is the session that
        starts now, `at` its time by the exchange's clock (ns).
        """
        self._past.update(past)
        self.epoch, self._since = epoch, at
        for order in orders:
            age_s = max(0, at - order.created) / NS if at else 0.0  # its window began when it was sent, in whatever session
            tracked = Tracked(order.place, order.state, order.venue_order_id, order.reported or None, order.filled, sent_at=_now() - age_s)
            tracked.answered.set()
            self.orders[order.place.order_id] = tracked
            if tracked.venue_order_id:
                self._by_venue_id[tracked.key] = order.place.order_id
            if not tracked.done and (not tracked.venue_order_id or (tracked.reported or ZERO) > tracked.filled):
                self.look_soon(tracked)

    async def place(self, tracked: Tracked) -> None:
        """Send one order, once; one that nobody wants any more is not sent. Raises ConfigError when the key is refused."""
        place, view = tracked.place, None
        late = not place.reduce_only and _now() - tracked.sent_at > TOO_LATE_S
        if tracked.cancel_wanted or late:
            tracked.answered.set()
            self._tell(tracked, OrderState.REJECTED, "too_late" if late else "not_wanted")
            return
        tracked.sent_at = _now()
        try:
            view = parse_order(await self._transport.create(place))
            verdict = judge_answer(view, place.order_id)
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
        """Make one order go away, and find out how it ended. What does not succeed is in `uncancelled` from then on."""
        tracked = self.orders.get(command.order_id)
        if tracked is None:
            self.counts["cancel_of_unknown_order"] += 1
            log.warning("cancel_of_unknown_order", order_id=command.order_id, symbol=command.symbol)
            return
        tracked.cancel_wanted = tracked.cancelling = True
        try:
            await tracked.answered.wait()
            for pause in (0.2, 0.5, 1.0, 2.0):
                if tracked.done or tracked.ending is not None or await self._cancel_once(tracked):
                    return
                await asyncio.sleep(pause)
            self.counts["cancel_failed"] += 1
        finally:
            tracked.cancelling = False

    def uncancelled(self) -> list[Cancel]:
        """Cancels that were wanted and have not come through, and that nobody is trying just now: to be sent again until they do."""
        return [
            Cancel(tracked.place.order_id, tracked.place.symbol)
            for tracked in self.live()
            if tracked.cancel_wanted and not tracked.cancelling and tracked.ending is None
        ]

    # -- following -----------------------------------------------------------------------------------------------

    def hint(self, raw: Any) -> None:
        """A private stream said something: where it concerns us, look soon."""
        view = self.records.parse(raw)
        tracked = self.orders.get(OrderId(view.order_id)) or self.orders.get(self._by_venue_id.get(view.key, OrderId("")))
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
        """Sweep dirty symbols and look at orders that are due, several at a time; seconds until the next look is.

        Side by side, so that a request that hangs does not hold up the others; orders of unknown fate first.
        """
        now = _now()
        dirty = sorted(self.dirty)[:AT_ONCE]  # one order in every process: a simulated run must repeat
        self.dirty.difference_update(dirty)
        due = [t for t in self.orders.values() if t.next_look is not None and t.next_look <= now]
        due.sort(key=lambda tracked: tracked.state is not OrderState.UNKNOWN)
        async with asyncio.TaskGroup() as tasks:
            for symbol in dirty:
                tasks.create_task(self._sweep(symbol))
            for tracked in due[:AT_ONCE]:
                tracked.next_look = None
                tasks.create_task(self._look(tracked))
        if self.dirty:
            return 0.0
        waits = [t.next_look - _now() for t in self.orders.values() if t.next_look is not None]
        return max(0.0, min(waits, default=60.0))

    def live(self) -> list[Tracked]:
        """Orders whose end has not been told."""
        return [tracked for tracked in self.orders.values() if not tracked.done]

    def moving(self) -> list[Symbol]:
        """Symbols where fills may still come: with live orders, or with one that ended less than the window ago."""
        now = _now()
        self._ended = {symbol: until for symbol, until in self._ended.items() if until > now}
        return sorted({tracked.place.symbol for tracked in self.live()} | self._ended.keys())

    def denied(self) -> list[str]:
        """Orders that the exchange had accepted and now denies, look after look."""
        return [t.place.order_id for t in self.live() if t.venue_order_id and t.absent >= ABSENT]

    def close_denied(self) -> None:
        """Tell that denied orders have ended; only a person can know that."""
        for order_id in self.denied():
            self._tell(self.orders[OrderId(order_id)], OrderState.CANCELED, "denied")

    async def compare(self, symbol: Symbol) -> None:
        """Hold our open orders of a symbol against the exchange's list.

        What is missing there is looked at; what is there and should not be, with our prefix, is cancelled. Raises what ccxt raises.
        """
        opened = await self.records.open(symbol)
        listed = {view.venue_order_id for view in opened}
        for tracked in self.live():
            if tracked.place.symbol == symbol and tracked.venue_order_id and tracked.venue_order_id not in listed:
                self.look_soon(tracked)
        for view in opened:
            if is_ours(view.order_id, self._instance):
                await self._expected(view, symbol)

    async def _expected(self, view: OrderView, symbol: Symbol) -> None:
        tracked = self.orders.get(OrderId(view.order_id))
        if tracked is not None and tracked.venue_order_id not in ("", view.venue_order_id):
            tracked = None  # somebody else has used the same name, as a daemon that began from an empty journal does
        if tracked is not None and not tracked.done:
            return
        if tracked is None and self._is_rival(view):
            self.rivals[view.order_id] = view
            return
        self.counts["stray_order" if tracked is None else "undead_order"] += 1
        log.warning("stray_order", order_id=view.order_id, symbol=symbol, told=tracked.state.value if tracked else None)
        if tracked is not None and tracked.state is OrderState.REJECTED:  # it was accepted after all: it lives, until it is cancelled
            self._revive(tracked, view)
            await self.cancel(Cancel(tracked.place.order_id, symbol))
        else:
            await self.cancel_stray(view)

    def _is_rival(self, view: OrderView) -> bool:
        """Whether somebody sends under our name: a later session's order, or one made long after all that came before us was dead."""
        epoch = epoch_of(view.order_id)
        if epoch is not None and self.epoch is not None and epoch > self.epoch:
            return True
        return bool(self._since) and view.created > self._since + int(2 * self._window_s * NS)

    async def cancel_stray(self, view: OrderView) -> None:
        """Cancel an open order that carries our prefix, but that nobody here follows. Raises what ccxt raises."""
        if view.order_id not in self.strays:
            self.strays.append(view.order_id)
        with suppress(OrderNotFound):  # gone by itself
            await self._transport.cancel(view.venue_order_id, Symbol(view.symbol))

    # -- inside --------------------------------------------------------------------------------------------------

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
        place = tracked.place
        try:
            raw = await self._transport.cancel(tracked.venue_order_id, place.symbol, place.order_id)
        except OrderNotFound:
            await self._look(tracked)  # gone, or never there: only its own record tells
            return tracked.done or tracked.ending is not None or tracked.state is OrderState.UNKNOWN
        except (BaseError, TimeoutError, Throttled) as error:
            if bad_key(error):
                raise refused_key(self._exchange) from error
            await self._look(tracked)
            return tracked.done or tracked.ending is not None
        view = self.records.parse(raw)  # its client order id is the cancel's, not the order's: matched by what we asked
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
            view = await self.records.find(tracked.place.symbol, tracked.place.order_id, tracked.venue_order_id)
        except (BaseError, TimeoutError, Throttled) as error:
            if bad_key(error):
                raise refused_key(self._exchange) from error
            self._look_again(tracked)
            return
        if view is not None and not view.empty and not self._is_namesake(tracked, view):
            tracked.absent = 0
            self._apply(tracked, view)
            return
        tracked.absent += 1
        unknown = tracked.state in (OrderState.UNKNOWN, OrderState.PENDING)
        if unknown and tracked.absent >= ABSENT and _now() - tracked.sent_at >= self._window_s:
            self._tell(tracked, OrderState.REJECTED, "not_found")
        else:
            self._look_again(tracked)

    def _is_namesake(self, tracked: Tracked, view: OrderView) -> bool:
        """Whether a record of our id is of an order from before this session: a journal that was lost has let the numbers begin anew."""
        before = 0 < view.created < self._since - int(self._window_s * NS)
        return before and not tracked.venue_order_id and epoch_of(tracked.place.order_id) == self.epoch

    def _look_again(self, tracked: Tracked) -> None:
        self.look_soon(tracked, LOOKS[min(tracked.looks, len(LOOKS) - 1)] * self._window_s)

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
        self._by_venue_id[tracked.key] = tracked.place.order_id
        if tracked.state in _UNPROVEN and view.state is not OrderState.REJECTED:
            self._tell(tracked, OrderState.OPEN, "found_late" if tracked.done else "")
        self.fills.adopt(tracked.key)

    def _opened(self, tracked: Tracked, state: OrderState | None) -> None:
        if state is None:
            self._look_again(tracked)
        if tracked.state in (OrderState.PENDING, OrderState.UNKNOWN) or (state is OrderState.PARTIAL and tracked.state is not state):
            self._tell(tracked, OrderState.PARTIAL if state is OrderState.PARTIAL else OrderState.OPEN)
            if tracked.cancel_wanted:
                self._look_again(tracked)

    def _end(self, tracked: Tracked, state: OrderState, reason: str) -> None:
        if state is OrderState.REJECTED:
            if state in NEXT[tracked.state]:
                self._tell(tracked, state, reason.lower())
                return
            state = OrderState.EXPIRED  # it had rested: a stop, say, that the exchange refused once it was triggered
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
            await self.claim(symbol)
        except (BaseError, TimeoutError, Throttled) as error:
            if bad_key(error):
                raise refused_key(self._exchange) from error
            self.counts["sweep_failed"] += 1

    async def claim(self, symbol: Symbol) -> None:
        """Whose are the trades that match no order? Ask by venue order id, unless an answer of ours is still on its way."""
        awaited = any(not t.venue_order_id and t.place.symbol == symbol for t in self.live())
        for key, trades in list(self.fills.orphans.items()):
            if trades and key[0] == symbol:
                if awaited and _now() - self._orphaned.setdefault(key, _now()) < CLAIM_S:
                    continue
                view = await self.records.by_venue_id(symbol, key[1])
                self._denied[key] += view is None
                if view is None and self._denied[key] < ABSENT:
                    continue
                tracked = self.orders.get(OrderId(view.order_id)) if view is not None else None
                if tracked is None or view is None:
                    self.counts["foreign_trade"] += len(trades)
                    stray = view is not None and is_ours(view.order_id, self._instance)
                    self.fills.disown(key, f"the stray order {view.order_id}" if stray and view else "an order that is not ours")
                elif tracked.done:
                    self._revive(tracked, view)
                else:
                    self._apply(tracked, view)
        self._orphaned = {key: since for key, since in self._orphaned.items() if key in self.fills.orphans}

    def _revive(self, tracked: Tracked, view: OrderView) -> None:
        """An order that was taken for refused was accepted after all: it lives until its own record says how it ended."""
        tracked.ending, tracked.absent = None, 0
        self._identify(tracked, view)
        self._apply(tracked, view)

    def _owner(self, order: VenueKey, client_order_id: str) -> OrderId | None:
        found = self._by_venue_id.get(order) or self._past.get(order)
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
            self._ended[tracked.place.symbol] = _now() + self._window_s
        place = tracked.place
        filled = tracked.reported if tracked.reported is not None else tracked.filled
        self._outbox.put(OrderUpdate(UNSTAMPED, place.order_id, place.symbol, state, tracked.venue_order_id, filled, reason))

    def _prune(self) -> None:
        if len(self.orders) <= 2 * KEPT:
            return
        ended = [order_id for order_id, tracked in self.orders.items() if tracked.done][:KEPT]
        for order_id in ended:
            self._by_venue_id.pop(self.orders.pop(order_id).key, None)


def refused_key(exchange: Exchange) -> ConfigError:
    """The one error that ends trading at once: no call with this key will work."""
    return ConfigError(
        f"exchange.api_key: {exchange.id} refuses the key (wrong key, wrong secret, missing right or an address that is not on its "
        "list); check all four at the exchange"
    )


def _now() -> float:
    return asyncio.get_running_loop().time()
