"""Start and recovery are one path: the journal's end and the venue's truth become the events that a session begins with.

Pure. Each event follows from the two alone, and names the trade or transfer that it books: recovering twice adds nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

from agents.core.events import (
    UNSTAMPED,
    Adjustment,
    AdjustmentKind,
    Adopted,
    Event,
    Listing,
    OrderUpdate,
    Reconciled,
)
from agents.core.instruments import NS, ZERO, Currency, Symbol
from agents.core.ledger import Ledger, Order
from agents.core.orders import NEXT, OrderId, OrderState, epoch_of, is_ours
from daemon import opening
from daemon.left import Left, plain_cursor
from daemon.state_folder import Occupied
from daemon.venues.fills import Cursor
from daemon.venues.parse import OrderView, OwnTrade, VenueKey
from daemon.venues.reconcile import Difference, differences, explain, rounding
from daemon.venues.truth import Truth, adopted

_S = OrderState
_WAITING = frozenset({_S.PENDING, _S.UNKNOWN})
Unexplained = tuple[tuple[Currency, Decimal, Decimal], ...]
"""(currency, ledger, venue)."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a session starts with, and what has to be done at the venue first."""

    events: tuple[Event, ...]
    """In order, unstamped; they open the ledger."""
    orders: tuple[Adopted, ...] = ()
    """Orders to go on following, as they stand after `events`."""
    past: Mapping[VenueKey, OrderId] = field(default_factory=dict)
    """Ended orders of the earlier session by the exchange's id, for fills that come late."""
    strays: tuple[OrderView, ...] = ()
    """Open orders with our prefix that the journal does not know: to be cancelled."""
    foreign: tuple[OrderView, ...] = ()
    """Open orders of the account's owner: left alone."""
    differences: Unexplained = ()
    notes: tuple[str, ...] = ()
    """Sentences for the operator."""
    cursors: Mapping[Symbol, Cursor] = field(default_factory=dict)
    transfers: tuple[str, ...] = ()
    epoch: int = 1
    """The session that starts."""

    def opened_with(self) -> dict[str, Any]:
        """What the journal must keep with the session, as JSON values, for the start after it."""
        cursors = {symbol: plain_cursor(cursor) for symbol, cursor in sorted(self.cursors.items())}
        return {"cursors": cursors, "transfers": list(self.transfers)}


def recover(
    left: Left | None, truth: Truth, quote: Currency, allocation: Decimal, instance: str, *, epoch: int = 0,
    insist: bool = False,
) -> Recovery:  # fmt: skip
    """Journal and truth to events. `epoch` is the newest session that the journal knows, of whatever account.

    `insist` is the operator's word: every difference is booked as a correction.

    Raises Occupied where another daemon trades this account under our name.
    """
    if not insist:
        _require_alone(truth, instance, epoch)
    known = left.ledger.orders if left is not None else {}
    own = [view for view in truth.opened if is_ours(view.order_id, instance)]
    strays = tuple(view for view in own if _is_stray(known.get(OrderId(view.order_id))))
    foreign = tuple(view for view in truth.opened if not is_ours(view.order_id, instance))
    notes = [f"stray order {v.order_id} ({v.symbol}) is cancelled: nobody here sent it" for v in strays]
    notes += [f"manual order {v.venue_order_id} ({v.symbol}) is left alone" for v in foreign]
    if left is None:
        return _first(truth, quote, allocation, notes, strays, foreign, epoch)
    story = _Story(left, quote, instance, notes)
    trusted = insist or not truth.doubts
    story.open(truth)
    if trusted:
        story.orders(truth, insist=insist)
        story.trades(truth)
        story.ends(truth)
        story.money(truth, insist=insist)
        story.give_up(truth)
    else:
        story.orders(replace(truth, opened=(), records={}, gone=frozenset()))
        notes.append("nothing was booked: what the exchange says cannot be believed yet")
    story.capital(allocation)
    rest = story.judge(truth)
    followed = tuple(adopted(order) for order in story.followed if order.live or order.remaining)
    return Recovery(
        tuple(story.events), followed, _past(left), strays if trusted else (), foreign, rest, tuple(notes),
        dict(truth.cursors or {}) if trusted else left.cursors, tuple(sorted(story.booked)), epoch + 1,
    )  # fmt: skip


def _first(
    truth: Truth, quote: Currency, allocation: Decimal, notes: list[str], strays: tuple[OrderView, ...], foreign: tuple[OrderView, ...],
    epoch: int,
) -> Recovery:  # fmt: skip
    """No session of this account before: what is there is the owner's, and the allocation of it is ours."""
    rest = _doubtful(truth, truth.balances, quote)
    note = "; ".join([*truth.doubts, *(() if truth.steady else (MOVING,))])
    listings = [Listing(UNSTAMPED, instrument) for _, instrument in sorted((truth.instruments or {}).items())]
    events: list[Event] = [*listings, *opening.fresh(quote, allocation, truth.balances), Reconciled(UNSTAMPED, rest, note)]
    transfers = tuple(sorted(transfer.transfer_id for transfer in truth.transfers))
    return Recovery(
        tuple(events), (), {}, strays if not truth.doubts else (), foreign, rest, (*notes, *truth.doubts),
        dict(truth.cursors or {}), transfers, epoch + 1,
    )  # fmt: skip


LIVELY_NS = 60 * NS
"""An order of ours that is younger shows a daemon at work: one that is dead places none."""
MOVING = "the balances moved while they were read"


def _doubtful(truth: Truth, ledger: Mapping[Currency, Decimal], quote: Currency) -> Unexplained:
    """The one entry that stands for a truth that is none, where the totals themselves do not differ."""
    if not truth.doubts and truth.steady:
        return ()
    return ((quote, ledger.get(quote, ZERO), truth.balances.get(quote, ZERO)),)


def _require_alone(truth: Truth, instance: str, epoch: int) -> None:
    views = [*truth.opened, *(truth.owners or {}).values()]
    for view in views:
        if not is_ours(view.order_id, instance) or (number := epoch_of(view.order_id)) is None or number <= epoch:
            continue
        if not epoch:  # no journal at all: it was lost, or this folder is new and somebody else is at work
            if view.created and 0 <= truth.at - view.created < LIVELY_NS:
                age = (truth.at - view.created) // NS
                raise Occupied(
                    f"order {view.order_id} on the exchange is {age} s old, and no session of this state folder sent it: another daemon "
                    "trades this account under the same `instance`. Stop it, or name its state folder with --state; if that folder is lost, "
                    "start again in a minute"
                )
            continue
        raise Occupied(
            f"order {view.order_id} on the exchange is of session {number}, but the journal here knows {epoch} of them: another "
            f"daemon trades this account as instance {instance!r}, or the journal was restored from a backup. Stop that daemon or "
            "give this one another `instance`; after a restored backup run `quartet reconcile --apply`"
        )


def _is_stray(order: Order | None) -> bool:
    """Whether an open order of our prefix is none that we go on with: nobody asked for it, or it has ended in our book."""
    return order is None or (order.state.done and _S.OPEN not in NEXT[order.state])


def _past(left: Left) -> dict[VenueKey, OrderId]:
    return {(order.place.symbol, order.venue_order_id): order_id for order_id, order in left.ledger.orders.items() if order.venue_order_id and not order.live}


class _Story:
    """Events as they are told, and the ledger that they make."""

    def __init__(self, left: Left, quote: Currency, instance: str, notes: list[str]) -> None:
        self.left, self.quote, self.instance, self.notes = left, quote, instance, notes
        self.ledger = Ledger(quote)
        self.events: list[Event] = []
        self.booked = set(left.transfers)
        self.followed: list[Order] = []
        self._views: dict[OrderId, OrderView] = {}
        self._by_venue_id: dict[VenueKey, OrderId] = {(o.place.symbol, o.venue_order_id): order_id for order_id, o in left.ledger.orders.items() if o.venue_order_id}

    def tell(self, event: Event) -> None:
        self.events.append(event)
        self.ledger.apply(event)

    def _adjust(self, currency: Currency, amount: Decimal, kind: AdjustmentKind, note: str = "") -> None:
        if amount:
            self.tell(Adjustment(UNSTAMPED, currency, amount, kind, note))

    def open(self, truth: Truth) -> None:
        """The earlier ledger again: listings, mirror, positions with their cost, and what trading has moved."""
        old = self.left.ledger
        for _, instrument in sorted({**old.instruments, **(truth.instruments or {})}.items()):
            self.tell(Listing(UNSTAMPED, instrument))
        for currency, amount in sorted(old.balances.items()):
            self._adjust(currency, amount, AdjustmentKind.OPENING)
        for symbol in sorted(old.symbols()):
            base, price = old.instruments[symbol].base, old.average_price(symbol)
            self._adjust(base, old.position(symbol), AdjustmentKind.CARRIED, str(price))
        self._adjust(self.quote, old.flows[self.quote], AdjustmentKind.CARRIED, "what trading has moved so far")
        for currency, fee in sorted(old.foreign_fees.items()):
            self._adjust(currency, fee, AdjustmentKind.CARRIED_FEE)

    def capital(self, allocation: Decimal) -> None:
        """The allocation, as far as there is money of the account's that our trading has not moved; and the ladder it is held to."""
        flows = self.ledger.flows[self.quote]
        owned = self.ledger.balances[self.quote] - flows
        self._adjust(self.quote, max(min(allocation, owned), -flows), AdjustmentKind.CAPITAL)
        if self.left.risk is not None:
            self.tell(self.left.risk)

    def orders(self, truth: Truth, *, insist: bool = False) -> None:
        """Take over what lives, and what has ended without all of its fills; fills that never came are waited for until `insist`."""
        listed, keys = {view.order_id: view for view in truth.opened}, {view.key: view for view in truth.opened}
        traded, named = {trade.order_key for trade in truth.trades}, {trade.order_id for trade in truth.trades}
        for order_id, order in sorted(self.left.ledger.orders.items(), key=lambda item: (item[1].created, item[0])):
            key = order.place.symbol, order.venue_order_id
            opened = (keys.get(key) if order.venue_order_id else None) or listed.get(order_id)
            view = opened or (truth.records or {}).get(order_id)
            late = order_id in named or (order.venue_order_id != "" and key in traded)
            if not (order.live or (order.remaining and not insist) or late or opened is not None):
                continue
            if view is not None:
                self._views[order_id] = view
                self._by_venue_id.setdefault((order.place.symbol, view.venue_order_id), order_id)
            name = order.venue_order_id or (view.venue_order_id if view is not None else "")
            state = self._start_state(order)
            self.tell(Adopted(UNSTAMPED, order.place, state, name, order.filled, order.reported, order.created))
            self.followed.append(self.ledger.orders[order_id])

    def _start_state(self, order: Order) -> OrderState:
        """An order on its way is of unknown outcome now; a cancel on its way may never have left."""
        if order.state in _WAITING or (order.state is _S.CANCELING and not order.venue_order_id):
            return _S.UNKNOWN
        if order.state is _S.CANCELING:
            return _S.PARTIAL if order.filled else _S.OPEN
        return order.state

    def trades(self, truth: Truth) -> None:
        """What was traded meanwhile: ours as fills, all other as money that is none of ours."""
        for trade in truth.trades:
            owner = self._owner(trade, truth.owners or {})
            if owner is not None:
                self.tell(trade.fill(owner))
                for fee in trade.further_fees():
                    self.tell(fee)
                continue
            view = (truth.owners or {}).get(trade.order_key)
            stray = view is not None and is_ours(view.order_id, self.instance)
            whose = f"the stray order {view.order_id}" if stray and view is not None else "an order that is not ours"
            self.notes.append(f"trade {trade.trade_id} of {trade.symbol} ({trade.side.name.lower()} {trade.quantity}) belongs to {whose}")
            for correction in trade.corrections(whose):
                self.tell(correction)

    def _owner(self, trade: OwnTrade, owners: Mapping[VenueKey, OrderView]) -> OrderId | None:
        """The client id of the trade's order, if this journal has ever asked for it."""
        found = self._by_venue_id.get(trade.order_key)
        if found is None and (name := trade.order_id or getattr(owners.get(trade.order_key), "order_id", "")):
            ours = name in self.left.ledger.orders or name in self.left.earlier
            return OrderId(name) if ours else None
        return found

    def ends(self, truth: Truth) -> None:
        """What became of the orders, told after their fills."""
        for order in self.followed:
            order_id, view = order.place.order_id, self._views.get(order.place.order_id)
            if view is not None:
                self._end(order, view)
            elif order_id in truth.gone and order.live:
                reason = "not_found" if not order.venue_order_id else "denied"
                state = _S.CANCELED if order.venue_order_id else _S.REJECTED
                self._update(order, state, order.filled, reason)
                self.notes.append(f"order {order_id} is closed: the exchange does not know it")

    def _end(self, order: Order, view: OrderView) -> None:
        filled, state = max(view.filled or ZERO, order.filled), view.state
        if state is _S.REJECTED and state not in NEXT[order.state] and order.live:
            state = _S.EXPIRED  # it had rested: a stop, say, that the exchange refused once it was triggered
        if state is not None and state.done:
            if filled > order.filled or (state is _S.FILLED and not order.filled):  # its last trades are not told yet
                state = _S.PARTIAL if order.filled else _S.OPEN
        elif state is not None:
            state = _S.PARTIAL if filled else _S.OPEN
        if state is None or (state is order.state and filled <= order.reported):
            return
        if state is not order.state and state not in NEXT[order.state]:
            return  # an older word than what we know
        self._update(order, state, filled, "recovered")

    def _update(self, order: Order, state: OrderState, filled: Decimal, reason: str) -> None:
        place = order.place
        self.tell(OrderUpdate(UNSTAMPED, place.order_id, place.symbol, state, order.venue_order_id, filled, reason))

    def money(self, truth: Truth, *, insist: bool) -> None:
        """Deposits, withdrawals and rounding; on the operator's word everything else as well."""
        missing = {d.currency: d.amount for d in self._differences(truth)}
        unbooked = [transfer for transfer in truth.transfers if transfer.transfer_id not in self.booked]
        for transfer in explain(missing, unbooked, self.left.at):
            self.tell(transfer.adjustment())
            self.booked.add(transfer.transfer_id)
            self.notes.append(f"{transfer.transfer_id}: {transfer.amount} {transfer.currency}")
        allowed = self._rounding(truth)
        for found in differences(self.ledger.balances, truth.balances):
            if abs(found.amount) <= allowed.get(found.currency, ZERO):
                self._adjust(found.currency, found.amount, AdjustmentKind.CORRECTION, "rounding")
            elif insist:
                note = f"correction after session {self.left.epoch}"
                self._adjust(found.currency, found.amount, AdjustmentKind.CORRECTION, note)
                self.notes.append(f"{found.currency} corrected by {found.amount} to {found.venue}")

    def give_up(self, truth: Truth) -> None:
        """Coins that the owner has taken out of the account are no position of ours any more; they leave the book at their cost."""
        for symbol in sorted(self.ledger.symbols()):
            base = self.ledger.instruments[symbol].base
            for change in opening.given_up(self.ledger, symbol, truth.balances):
                self.tell(change)
                if change.currency == base:
                    self.notes.append(f"{-change.amount} {base} of our position are no longer in the account: taken out of the book at cost")

    def judge(self, truth: Truth) -> Unexplained:
        """The closing word: what is left unexplained."""
        rest = tuple((d.currency, d.ledger, d.venue) for d in self._differences(truth))
        rest = rest or _doubtful(truth, self.ledger.balances, self.quote)
        words = list(truth.doubts) + ([] if truth.steady else [MOVING])
        self.notes += truth.doubts
        self.tell(Reconciled(UNSTAMPED, rest, "; ".join(words)[:400]))
        return rest

    def _differences(self, truth: Truth) -> tuple[Difference, ...]:
        return differences(self.ledger.balances, truth.balances, self._rounding(truth))

    def _rounding(self, truth: Truth) -> dict[Currency, Decimal]:
        fills = self.left.ledger.fill_count + self.ledger.fill_count
        return rounding({**self.ledger.balances, **truth.balances}, self.ledger.instruments, fills)
