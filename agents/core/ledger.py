"""What we own and what we have asked for. Built from fills and adjustments alone, so the journal can always rebuild it.

Two views of the same money: `balances` mirrors the venue's whole account, `flows` is what our own fills moved. Positions,
cash and equity come from `flows` and `capital`, so coins that the account's owner holds besides are never ours to sell.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from agents.core.events import Adjustment, AdjustmentKind, Adopted, Event, Fill, Listing, OrderUpdate, Stamp
from agents.core.instruments import ZERO, Currency, Instrument, Side, Symbol
from agents.core.orders import NEXT, Amend, Cancel, Command, OrderId, OrderState, Place

KEEP_DONE = 4096
"""Finished orders kept for late fills and attribution; older ones live in the journal only."""


@dataclass(slots=True)
class Order:
    """One order of ours as far as it is known. Times are stamps in nanoseconds."""

    place: Place
    state: OrderState
    venue_order_id: str
    filled: Decimal
    """Sum of the fills that arrived."""
    reported: Decimal
    """What the venue says was filled; more than `filled` means that fills are still on their way."""
    created: int
    updated: int

    @property
    def live(self) -> bool:
        return not self.state.done

    @property
    def remaining(self) -> Decimal:
        """Base quantity that may still fill, or whose fills are still missing."""
        if self.live:
            return max(self.place.quantity - self.filled, ZERO)
        return max(self.reported - self.filled, ZERO)


@dataclass(slots=True)
class _Holding:
    quantity: Decimal = ZERO
    average: Decimal = ZERO
    realised: Decimal = ZERO

    def buy(self, quantity: Decimal, cost: Decimal) -> None:
        if quantity <= 0:
            return
        held, self.quantity = self.quantity, self.quantity + quantity
        if held < 0:  # the venue says that we sold what we did not have: what we buy now fills that hole first
            self.average = cost / quantity
        else:
            self.average = (self.average * held + cost) / self.quantity

    def sell(self, quantity: Decimal, price: Decimal) -> None:
        self.realised += (price - self.average) * quantity
        self.quantity -= quantity


class Ledger:
    """Account of one instance in one quote currency."""

    def __init__(self, quote: Currency) -> None:
        self.quote = quote
        self.capital = ZERO
        self.instruments: dict[Symbol, Instrument] = {}
        self.balances: defaultdict[Currency, Decimal] = defaultdict(Decimal)
        self.flows: defaultdict[Currency, Decimal] = defaultdict(Decimal)
        self.fees: defaultdict[Currency, Decimal] = defaultdict(Decimal)
        self.foreign_fees: defaultdict[Currency, Decimal] = defaultdict(Decimal)
        """Fees paid in a currency that is neither side of the market: the account's, but no part of a position."""
        self.turnover = ZERO
        """Sum of price times quantity of all own fills, in quote."""
        self.bought = ZERO
        """The part of `turnover` that raised a position."""
        self.orders: dict[OrderId, Order] = {}
        self.anomalies: Counter[str] = Counter()
        """Facts that did not fit: illegal moves, strangers, duplicates. Counted, never silently dropped."""
        self.fill_count = 0
        self._holdings: defaultdict[Symbol, _Holding] = defaultdict(_Holding)
        self._by_symbol: defaultdict[Symbol, dict[OrderId, Order]] = defaultdict(dict)
        self._seen_fills: set[tuple[Symbol, str]] = set()
        self._done: list[OrderId] = []

    # -- facts -----------------------------------------------------------------------------------------------------

    def apply(self, event: Event) -> None:
        """Take one fact. Facts that do not concern the account are ignored."""
        match event:
            case Fill():
                self._fill(event)
            case OrderUpdate():
                self._update(event)
            case Adjustment():
                self._adjust(event)
            case Adopted():
                self._adopt(event)
            case Listing(instrument=instrument):
                self.instruments[instrument.symbol] = instrument
            case _:
                pass

    def record(self, command: Command, stamp: Stamp) -> None:
        """Take one intent: it counts as exposure from now on, whatever the venue will say."""
        match command:
            case Place():
                self._open(command, stamp)
            case Cancel(order_id=order_id):
                if (order := self.orders.get(order_id)) is not None:
                    self._move(order, OrderState.CANCELING, stamp)
            case Amend():
                old = self.orders.get(command.order_id)
                shares = old.place.shares if old else ()
                if old is not None:
                    self._move(old, OrderState.CANCELING, stamp)
                post_only = old.place.post_only if old else False
                self._open(
                    Place(
                        command.new_order_id, command.symbol, command.side, command.quantity, command.price,
                        post_only=post_only, shares=shares,
                    ),
                    stamp,
                )  # fmt: skip

    def _open(self, place: Place, stamp: Stamp) -> None:
        order = Order(place, OrderState.PENDING, "", ZERO, ZERO, stamp.at, stamp.at)
        self.orders[place.order_id] = order
        self._by_symbol[place.symbol][place.order_id] = order

    def _adopt(self, event: Adopted) -> None:
        """Take over an order of an earlier session as it stood; the fills in `filled` are in the carried position already."""
        place = event.place
        if place.order_id in self.orders:
            self.anomalies["adopted_twice"] += 1
            return
        order = Order(place, event.state, event.venue_order_id, event.filled, event.reported, event.created, event.stamp.at)
        self.orders[place.order_id] = order
        if order.live or order.remaining:
            self._by_symbol[place.symbol][place.order_id] = order

    def _fill(self, fill: Fill) -> None:
        if (fill.symbol, fill.trade_id) in self._seen_fills:
            self.anomalies["duplicate_fill"] += 1
            return
        instrument = self.instruments.get(fill.symbol)
        if instrument is None:
            self.anomalies["fill_without_listing"] += 1
            return
        self._seen_fills.add((fill.symbol, fill.trade_id))
        self.fill_count += 1
        signed, notional = fill.side.value * fill.quantity, fill.price * fill.quantity
        for book in (self.balances, self.flows):
            book[instrument.base] += signed
            book[instrument.quote] -= fill.side.value * notional
        self.turnover += notional
        self.bought += notional if fill.side is Side.BUY else ZERO
        self._pay(fill, instrument)
        holding, fee_in_base = self._holdings[fill.symbol], fill.fee if fill.fee_currency == instrument.base else ZERO
        if fill.side is Side.BUY:
            holding.buy(fill.quantity - fee_in_base, notional)
        else:
            holding.sell(fill.quantity + fee_in_base, fill.price)
        if (order := self.orders.get(fill.order_id)) is None:
            self.anomalies["fill_of_unknown_order"] += 1
        else:
            order.filled += fill.quantity
            full = order.filled >= order.place.quantity
            if full or not order.state.done:
                self._move(order, OrderState.FILLED if full else OrderState.PARTIAL, fill.stamp)
            if order.state.done and not order.remaining:
                self._by_symbol[fill.symbol].pop(fill.order_id, None)

    def _pay(self, fill: Fill, instrument: Instrument) -> None:
        self.fees[fill.fee_currency] += fill.fee
        self.balances[fill.fee_currency] -= fill.fee
        if fill.fee_currency in (instrument.base, instrument.quote):
            self.flows[fill.fee_currency] -= fill.fee
        else:
            self.foreign_fees[fill.fee_currency] += fill.fee

    def _update(self, update: OrderUpdate) -> None:
        if (order := self.orders.get(update.order_id)) is None:
            self.anomalies["update_of_unknown_order"] += 1
            return
        order.venue_order_id = update.venue_order_id or order.venue_order_id
        if update.filled is not None:
            order.reported = max(order.reported, update.filled)
        self._move(order, update.state, update.stamp)

    def _move(self, order: Order, state: OrderState, stamp: Stamp) -> None:
        if state is order.state:
            order.updated = stamp.at
            return
        if order.state is OrderState.CANCELING and state in (OrderState.OPEN, OrderState.PARTIAL):
            order.updated = stamp.at  # still being cancelled: an old "open" on the wire is no answer to the cancel
            return
        if state not in NEXT[order.state]:
            self.anomalies[f"illegal_{order.state.value}_to_{state.value}"] += 1
            return
        was_done, order.state, order.updated = order.state.done, state, stamp.at
        if state.done and not was_done:
            self._finish(order)
        elif was_done and not state.done:
            self._by_symbol[order.place.symbol][order.place.order_id] = order

    def _finish(self, order: Order) -> None:
        if not order.remaining:
            self._by_symbol[order.place.symbol].pop(order.place.order_id, None)
        self._done.append(order.place.order_id)
        if len(self._done) > 2 * KEEP_DONE:
            for order_id in self._done[:KEEP_DONE]:
                if (old := self.orders.get(order_id)) is not None and old.state.done and not old.remaining:
                    del self.orders[order_id]
            del self._done[:KEEP_DONE]

    def _adjust(self, adjustment: Adjustment) -> None:
        match adjustment.kind:
            case AdjustmentKind.CAPITAL:
                self.capital += adjustment.amount
            case AdjustmentKind.CARRIED:
                self.flows[adjustment.currency] += adjustment.amount
                symbol = Symbol(f"{adjustment.currency}/{self.quote}")
                if adjustment.currency != self.quote and adjustment.amount > 0:
                    price = Decimal(adjustment.note or "0")
                    self._holdings[symbol].buy(adjustment.amount, price * adjustment.amount)
                elif adjustment.currency != self.quote:
                    self._holdings[symbol].quantity += adjustment.amount
            case AdjustmentKind.CARRIED_FEE:
                self.foreign_fees[adjustment.currency] += adjustment.amount
            case _:
                self.balances[adjustment.currency] += adjustment.amount

    # -- questions -------------------------------------------------------------------------------------------------

    def position(self, symbol: Symbol) -> Decimal:
        """Own base quantity; never negative on spot unless the venue says that we sold what we did not have."""
        return self._holdings[symbol].quantity if symbol in self._holdings else ZERO

    def average_price(self, symbol: Symbol) -> Decimal:
        """Average cost of the position in quote, base-currency fees included; 0 when flat."""
        return self._holdings[symbol].average if self.position(symbol) > 0 else ZERO

    def realised(self, symbol: Symbol) -> Decimal:
        """Realised profit in quote by average cost, before fees in quote."""
        return self._holdings[symbol].realised if symbol in self._holdings else ZERO

    def unrealised(self, symbol: Symbol, mark: Decimal) -> Decimal:
        """Profit in quote that selling at `mark` would realise."""
        return (mark - self.average_price(symbol)) * self.position(symbol)

    def symbols(self) -> list[Symbol]:
        """Symbols with a position, in order of first fill."""
        return [symbol for symbol, holding in self._holdings.items() if holding.quantity]

    def live_orders(self, symbol: Symbol | None = None) -> list[Order]:
        """Orders that are not done (PENDING, OPEN, PARTIAL, UNKNOWN, CANCELING), or whose fills are missing."""
        books = self._by_symbol.values() if symbol is None else (self._by_symbol.get(symbol, {}),)
        return [order for book in books for order in book.values() if order.live or order.remaining]

    def working(self, symbol: Symbol) -> tuple[Decimal, Decimal]:
        """(buy, sell) base quantity that may still fill."""
        buy = sell = ZERO
        for order in self._by_symbol.get(symbol, {}).values():
            if order.place.side is Side.BUY:
                buy += order.remaining
            else:
                sell += order.remaining
        return buy, sell

    def cash(self) -> Decimal:
        """Quote currency that is ours: capital plus what our fills moved."""
        return self.capital + self.flows[self.quote]

    def equity(self, marks: Mapping[Symbol, Decimal]) -> Decimal:
        """Cash plus positions at `marks`, less fees in other currencies where a mark values them.

        Raises KeyError for a position without a mark: an unknown price is not zero.
        """
        total = self.cash()
        for symbol, holding in self._holdings.items():
            if holding.quantity:
                total += holding.quantity * marks[symbol]
        for currency, fee in self.foreign_fees.items():
            total -= fee * marks.get(Symbol(f"{currency}/{self.quote}"), ZERO)
        return total
