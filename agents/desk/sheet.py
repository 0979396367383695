"""The order sheet of one plan: commands so far, what they may cost at worst, and the room that is left. Decimal throughout."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from agents.core.instruments import NS, ZERO, Instrument, Side, Symbol
from agents.core.ledger import Ledger, Order
from agents.core.orders import Amend, Cancel, Command, OrderId, OrderState, Place, TimeInForce, client_order_id
from agents.desk.attribution import Attribution
from agents.desk.gate import (
    Allowance,
    Refusal,
    Standing,
    buyers,
    expected_fee,
    gate,
    is_quote,
    is_stop,
    largest_notional,
    promise,
)
from agents.desk.limits import Limits, smallest_notional
from agents.desk.projection import SafeTarget
from agents.market.state import MarketState

RESTING = frozenset({OrderState.OPEN, OrderState.PARTIAL})
"""States in which an order may be cancelled or amended: PENDING has not been answered, UNKNOWN is looked up, CANCELING is on its way."""
UNLIMITED = Decimal("1e18")
VOLUME_BARS = 5
"""Bars over which recent volume is averaged: one quiet minute is no reason to stop."""

Shares = tuple[tuple[str, float], ...]


@dataclass(slots=True)
class PlanMemory:
    """Stamps that throttle: one object for the life of an engine; only `plan` and `wind_down` write it."""

    quoted: dict[Symbol, int] = field(default_factory=dict)
    """When the quotes of a symbol were last touched."""
    worked: dict[tuple[Symbol, Side], int] = field(default_factory=dict)
    """When a directional order was last placed or cancelled."""
    started: dict[Symbol, tuple[int, Decimal]] = field(default_factory=dict)
    """The present volume window of a symbol (market time over its length) and the position at its start."""
    hurried: set[tuple[Symbol, Side]] = field(default_factory=set)
    """Whose limit order waited in vain: the next one takes."""
    sent: deque[int] = field(default_factory=deque)
    """Stamps of the new orders of the last second."""

    def rate_left(self, at: int, limits: Limits) -> int:
        """How many new orders the message rate still allows at stamp `at`."""
        while self.sent and self.sent[0] <= at - NS:
            self.sent.popleft()
        return int(limits.max_orders_per_second) - len(self.sent)


@dataclass(frozen=True, slots=True)
class PlanContext:
    """Which plan this is: identity for the order ids, the stamp for every throttle."""

    decision: int
    instance: str
    epoch: int
    at: int
    memory: PlanMemory
    attribution: Attribution
    """Says who wants a directional order; agents that wish against each other trade inside first."""
    halted: bool = False
    allowances: Mapping[str, Allowance] = field(default_factory=dict)
    """What each agent's day still allows; the plan takes off what it asks for."""
    requote_after_ns: int = NS // 2
    """Least stamp time between two changes of a symbol's quotes; pulling them is never throttled."""
    cooldown_ns: int = NS
    """Least stamp time between two directional orders on one side of a symbol, and between a cancel and the next."""


@dataclass(slots=True)
class _Tally:
    """What one symbol can come to if everything fills at worst, in quote currency, and what is promised for sale, in base."""

    position: Decimal
    worst: Decimal
    selling: Decimal


class Sheet:
    """Collects commands, gates every new order and keeps the worst case inside the safe target's limits."""

    def __init__(self, safe: SafeTarget, market: MarketState, ledger: Ledger, limits: Limits, context: PlanContext) -> None:
        self.safe, self.market, self.ledger, self.limits, self.context = safe, market, ledger, limits, context
        self.commands: list[Command] = []
        self.refusals: list[Refusal] = []
        self.cancelled: set[OrderId] = set()
        self.orders: dict[Symbol, list[Order]] = {}
        live = ledger.live_orders()
        for order in live:
            self.orders.setdefault(order.place.symbol, []).append(order)
        rate = context.memory.rate_left(context.at, limits)
        self._standing = Standing(safe.equity, context.halted, len(live), rate, allowances=context.allowances)
        self._cap = Decimal(repr(limits.position_cap)) * safe.equity
        self._collar = Decimal(repr(limits.price_collar))
        self._leg = 0
        self._touches: dict[Symbol, tuple[Decimal, Decimal]] = {}
        self.least_notional = Decimal(repr(limits.min_order_notional))
        self._tallies = {symbol: self._tally(symbol) for symbol in {*safe.weights, *ledger.symbols(), *self.orders}}
        self._total = Decimal(repr(safe.total)) * safe.equity - sum((t.worst for t in self._tallies.values()), ZERO)
        self._cash = self._spendable(live)

    def _tally(self, symbol: Symbol) -> _Tally:
        mark, position = self.safe.marks.get(symbol, ZERO), self.ledger.position(symbol)
        tally = _Tally(position, max(position, ZERO) * mark, ZERO)
        for order in self.orders.get(symbol, ()):
            if order.place.side is Side.BUY:
                tally.worst += order.remaining * max(order.place.price or mark, mark)
            else:
                tally.selling += order.remaining
        return tally

    def _spendable(self, live: Iterable[Order]) -> Decimal:
        cash = self.ledger.cash() - Decimal(repr(self.limits.cash_buffer)) * self.safe.equity
        for order in live:
            if order.place.side is Side.BUY:
                instrument = self.ledger.instruments.get(order.place.symbol)
                price = order.place.price or self.safe.marks.get(order.place.symbol, ZERO)
                cash -= order.remaining * price * (1 + (instrument.taker_fee if instrument else ZERO))
        return cash

    # -- what is there ---------------------------------------------------------------------------------------------

    def resting(self, symbol: Symbol, side: Side, quotes: bool) -> list[Order]:
        """Live quotes, or else directional orders, on one side of a symbol, oldest first. Stops are neither."""
        orders = [order for order in self.orders.get(symbol, ()) if order.live and not is_stop(order.place)]
        return [order for order in orders if order.place.side is side and is_quote(order.place) is quotes]

    def open(self, order: Order) -> bool:
        """Whether an order rests on the venue and has no cancel on its way: only then may it be cancelled or amended."""
        return order.state in RESTING and order.place.order_id not in self.cancelled

    def touch(self, symbol: Symbol) -> tuple[Decimal, Decimal]:
        """Best bid and ask without our own orders: whoever follows his own quote chases it. The mark where a side is empty."""
        if (seen := self._touches.get(symbol)) is None:
            seen = self._touches[symbol] = self._touch(symbol)
        return seen

    def _touch(self, symbol: Symbol) -> tuple[Decimal, Decimal]:
        mark, book = self.safe.marks[symbol], self.market.book(symbol)
        own: dict[Decimal, Decimal] = {}
        for order in self.orders.get(symbol, ()):
            if order.place.price is not None and not is_stop(order.place):
                own[order.place.price] = own.get(order.place.price, ZERO) + order.remaining
        best = [mark, mark]
        for row, levels in enumerate((book.bids, book.asks)):
            best[row] = next((price for price, quantity in levels if quantity > own.get(price, ZERO)), mark)
        return (best[0], best[1]) if best[0] < best[1] else (mark, mark)

    def depth(self, symbol: Symbol, side: Side) -> Decimal:
        """Base quantity that one order may ask of the displayed other side; unlimited where no book is displayed."""
        book = self.market.book(symbol)
        levels = book.asks if side is Side.BUY else book.bids
        return sum((quantity for _, quantity in levels), ZERO) * Decimal(repr(self.limits.depth_share)) if levels else UNLIMITED

    def allowance(self, symbol: Symbol, side: Side, participation: float, least: Decimal) -> Decimal:
        """Base quantity that `participation` in recent volume still allows in this minute, after what filled in it and what works.

        Volume is the mean of the last closed minutes, of longer bars where there are no minutes; unlimited where there is none.
        However thin the market, `least` may be traded once a minute. What must be sold is not held back by volume.
        """
        if side is Side.SELL and symbol in self.safe.reasons:
            return UNLIMITED
        ring = next((ring for ring in self.market.bars(symbol).rings.values() if len(ring)), None)
        if ring is None:
            return UNLIMITED
        position, window = self.ledger.position(symbol), self.market.now // ring.length
        if self.context.memory.started.get(symbol, (None, ZERO))[0] != window:
            self.context.memory.started[symbol] = (window, position)
        done = side.value * (position - self.context.memory.started[symbol][1])
        share = Decimal(repr(float(ring.volume[-VOLUME_BARS:].mean()) * participation))
        return max(share, least) - max(done, ZERO) - sum((order.remaining for order in self.resting(symbol, side, quotes=False)), ZERO)

    def overdrawn(self, symbol: Symbol) -> bool:
        """Whether the worst case of the orders that already stand is above the cap, the total or the cash."""
        return self._tallies[symbol].worst > self._cap or self._total < 0 or self._cash < 0

    # -- room ------------------------------------------------------------------------------------------------------

    def free(self, symbol: Symbol) -> Decimal:
        """Base quantity owned that is not promised to any sell."""
        tally = self._tallies[symbol]
        return tally.position - tally.selling

    def free_without(self, order: Order) -> Decimal:
        """The same if `order`, a sell, were replaced."""
        return self.free(order.place.symbol) + order.remaining

    def largest(self, instrument: Instrument) -> Decimal:
        """Quote value of the largest single order."""
        return largest_notional(instrument, self.safe.marks[instrument.symbol], self.limits, self.safe.equity)

    def room(self, instrument: Instrument, price: Decimal) -> Decimal:
        """Largest buy in base units at `price` that keeps cap, total and cash with everything filled; 0 where nothing may rise."""
        symbol = instrument.symbol
        if symbol in self.safe.reasons or self.context.halted or symbol not in self.safe.marks:
            return ZERO
        worth = max(price, self.safe.marks[symbol])
        value = min(self._cap - self._tallies[symbol].worst, self._total, self.largest(instrument))
        return max(min(value / worth, self._cash / (price * (1 + instrument.taker_fee))), ZERO)

    def collared(self, instrument: Instrument, side: Side, price: Decimal) -> Decimal:
        """`price` pulled back inside the price collar around the mark, on the grid."""
        edge = self.safe.marks[instrument.symbol] * (1 + side.value * self._collar)
        price = min(price, edge) if side is Side.BUY else max(price, edge)
        return instrument.round_outward(price, side)

    # -- commands --------------------------------------------------------------------------------------------------

    def refuse(self, symbol: Symbol, side: Side, reason: str, detail: str = "") -> None:
        self.refusals.append(Refusal(symbol, side, reason, detail))

    def cancel(self, order: Order) -> None:
        """Ask once for an order's end; its exposure stays counted until the venue confirms."""
        if self.open(order):
            self.cancelled.add(order.place.order_id)
            self.commands.append(Cancel(order.place.order_id, order.place.symbol))

    def place(self, instrument: Instrument, side: Side, quantity: Decimal, price: Decimal, shares: Shares,
              time_in_force: TimeInForce = TimeInForce.GTC, post_only: bool = False) -> bool:  # fmt: skip
        """Add a new order if the gate lets it pass; else its refusal."""
        reduce_only = side is Side.SELL and (self.context.halted or instrument.symbol in self.safe.reasons)
        order = Place(self._next_id(), instrument.symbol, side, quantity, price, time_in_force, post_only, reduce_only, shares)
        order = self._afforded(instrument, order, price)
        if (refusal := gate(order, self.market, self.ledger, self.limits, self._standing)) is not None:
            self.refusals.append(refusal)
            return False
        self._standing.placed.append(order)
        self.commands.append(order)
        self._take(instrument, side, order.quantity, price)
        self._spend(instrument, order, price)
        return True

    def amend(self, instrument: Instrument, old: Order, quantity: Decimal, price: Decimal) -> bool:
        """Replace `old` in one request. The new order passes the same gate; the old one counts until it is confirmed gone."""
        place = old.place
        new = Place(self._next_id(), place.symbol, place.side, quantity, price, post_only=place.post_only, shares=place.shares)
        new = self._afforded(instrument, new, price, old)
        quantity = new.quantity
        if (refusal := gate(new, self.market, self.ledger, self.limits, self._standing, old)) is not None:
            self.refusals.append(refusal)
            return False
        self._standing.placed.append(new)
        self.commands.append(Amend(place.order_id, new.order_id, place.symbol, place.side, quantity, price))
        self._take(instrument, place.side, quantity - (old.remaining if place.side is Side.SELL else ZERO), price)
        self._spend(instrument, new, price, old)
        return True

    def _afforded(self, instrument: Instrument, order: Place, price: Decimal, replaces: Order | None = None) -> Place:
        """The order cut to what the budgets of those who want it allow; as it was where nothing legal would be left: the gate says why."""
        allowances = self.context.allowances
        if not allowances or not (parts := buyers(order)):
            return order
        rate, promised = expected_fee(order, instrument), promise(replaces, instrument) if replaces is not None else {}
        value = order.quantity * price
        for agent, part in parts.items():
            if (left := allowances.get(agent)) is None:
                continue
            back, fee_back = promised.get(agent, (ZERO, ZERO))
            if left.turnover is not None:
                value = min(value, (left.turnover + back) / part)
            if left.fees is not None and rate:
                value = min(value, (left.fees + fee_back) / (part * rate))
        quantity = instrument.round_quantity(max(value, ZERO) / price)
        legal = quantity * price >= max(smallest_notional(instrument, price), self.least_notional)
        return replace(order, quantity=quantity) if legal and quantity < order.quantity else order

    def _spend(self, instrument: Instrument, order: Place, price: Decimal, replaces: Order | None = None) -> None:
        """Take an order off the budgets of those who want it; an amended order's own promise comes back."""
        value, rate = order.quantity * price, expected_fee(order, instrument)
        promised = promise(replaces, instrument) if replaces is not None else {}
        for agent, part in buyers(order).items() if self.context.allowances else ():
            if (left := self.context.allowances.get(agent)) is not None:
                back, fee_back = promised.get(agent, (ZERO, ZERO))
                left.take(value * part - back, value * part * rate - fee_back)

    def _take(self, instrument: Instrument, side: Side, quantity: Decimal, price: Decimal) -> None:
        self._leg += 1
        self._standing.rate_left -= 1
        self.context.memory.sent.append(self.context.at)
        tally = self._tallies[instrument.symbol]
        if side is Side.BUY:
            worth = quantity * max(price, self.safe.marks[instrument.symbol])
            tally.worst += worth
            self._total -= worth
            self._cash -= quantity * price * (1 + instrument.taker_fee)
        else:
            tally.selling += quantity

    def _next_id(self) -> OrderId:
        return client_order_id(self.context.instance, self.context.epoch, self.context.decision, self._leg)
