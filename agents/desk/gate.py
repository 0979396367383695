"""The last look at an order before it is sent: simple checks that know nothing of weights, wishes or programs."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal

from agents.core.instruments import ZERO, Instrument, Side, Symbol
from agents.core.ledger import Ledger, Order
from agents.core.orders import Place
from agents.desk.limits import Limits, smallest_notional
from agents.desk.wishes import MARKET_MAKING
from agents.market.state import MarketState


@dataclass(frozen=True, slots=True)
class Refusal:
    """An order that was wanted and not made; `reason` is one word for counting, `detail` the numbers behind it."""

    symbol: Symbol
    side: Side
    reason: str
    detail: str = ""


@dataclass(slots=True)
class Standing:
    """What the gate must know besides ledger and market: the account's size and what this plan has already asked for."""

    equity: Decimal
    halted: bool = False
    open_count: int = 0
    """Live orders in the ledger, over all symbols."""
    rate_left: int = 1_000_000
    """New orders that the message rate still allows."""
    placed: list[Place] = field(default_factory=list)
    """Orders of this plan, in order; the ledger does not know them yet."""


def is_quote(place: Place) -> bool:
    """Whether an order is one side of the market maker's quote: post-only, and for nobody else."""
    return place.post_only and len(place.shares) == 1 and place.shares[0][0] == MARKET_MAKING


def is_stop(place: Place) -> bool:
    """Whether an order is a protective stop. Until it is triggered it stands in no book: it locks inventory and meets nobody.

    Once triggered it may meet an own bid; the exchange's self-trade prevention decides that, for nobody here is asked any more.
    """
    return place.trigger_price is not None


def known_mark(market: MarketState, symbol: Symbol) -> Decimal | None:
    """A finite positive mark, or None; also for symbols that the market state does not follow."""
    mark = market.mark(symbol) if symbol in market.symbols else None
    return mark if mark is not None and mark.is_finite() and mark > 0 else None


def free_inventory(symbol: Symbol, ledger: Ledger, placed: Iterable[Place]) -> Decimal:
    """Base quantity owned that no live or just planned sell has promised already."""
    promised = ledger.working(symbol)[1]
    promised += sum((p.quantity for p in placed if p.symbol == symbol and p.side is Side.SELL), ZERO)
    return ledger.position(symbol) - promised


def gate(place: Place, market: MarketState, ledger: Ledger, limits: Limits, standing: Standing,
         replaces: Order | None = None) -> Refusal | None:  # fmt: skip
    """The first reason why `place` may not be sent, or None. Reductions pass the checks on halt, count and rate.

    `replaces` is the order that an amendment takes away: its inventory is free for the new one.
    """

    def refuse(reason: str, detail: str = "") -> Refusal:
        return Refusal(place.symbol, place.side, reason, detail)

    instrument, mark = ledger.instruments.get(place.symbol), known_mark(market, place.symbol)
    if instrument is None:
        return refuse("not_listed")
    if place.trigger_price is not None:
        free = free_inventory(place.symbol, ledger, standing.placed)
        return refuse(*stopped) if (stopped := _stop(place, place.trigger_price, instrument, mark, free, limits)) else None
    if place.price is None:
        return refuse("market_order", "an order without a price has no collar")
    if mark is None:
        return refuse("no_mark")
    if (problem := instrument.problem(place.price, place.quantity)) is not None:
        return refuse(problem, f"{place.quantity} at {place.price}")
    if (reason := _size(place, place.price, mark, largest_notional(instrument, mark, limits, standing.equity), limits)) is not None:
        return refuse(reason, f"{place.quantity} at {place.price}, mark {mark}")
    free = free_inventory(place.symbol, ledger, standing.placed) + (replaces.remaining if replaces else ZERO)
    if place.side is Side.SELL and place.quantity > free:
        return refuse("exceeds_inventory", f"{place.quantity} of {free}")
    if place.reduce_only and place.side is Side.BUY:
        return refuse("reduce_only", "a buy raises a spot position")
    if (other := _crossed(place, place.price, ledger, standing.placed)) is not None:
        return refuse("self_trade", other)
    if place.side is Side.BUY or not place.reduce_only:
        if standing.halted and place.side is Side.BUY:
            return refuse("halted")
        if standing.open_count + len(standing.placed) >= limits.max_order_count:
            return refuse("order_count", f"{standing.open_count + len(standing.placed)} open")
        if standing.rate_left <= 0:
            return refuse("message_rate", f"{limits.max_orders_per_second:g} a second")
    return None


def _stop(place: Place, trigger: Decimal, instrument: Instrument, mark: Decimal | None, free: Decimal,
          limits: Limits) -> tuple[str, str] | None:  # fmt: skip
    """Why a protective stop may not be sent. Its worst price is its own limit, or none: what triggers it is the exchange's last price."""
    if place.side is not Side.SELL or not place.reduce_only:
        return "stop_must_reduce", place.side.name.lower()
    if mark is None:
        return "no_mark", ""
    if (problem := instrument.problem(trigger, place.quantity)) is not None:
        return problem, f"{place.quantity} at trigger {trigger}"
    if trigger >= mark:
        return "would_trigger", f"trigger {trigger}, mark {mark}"
    if place.price is not None and not trigger * (1 - Decimal(repr(limits.price_collar))) <= place.price <= trigger:
        return "price_collar", f"limit {place.price}, trigger {trigger}"
    if place.price is not None and (problem := instrument.problem(place.price, place.quantity)) is not None:
        return problem, f"{place.quantity} at limit {place.price}"
    if place.quantity > free:
        return "exceeds_inventory", f"{place.quantity} of {free}"
    return None


def largest_notional(instrument: Instrument, mark: Decimal, limits: Limits, equity: Decimal) -> Decimal:
    """Quote value of the largest single buy: a share of equity, but never so little that a small account could not trade at all."""
    return max(Decimal(repr(limits.max_order_notional)) * equity, 2 * smallest_notional(instrument, mark))


def _size(place: Place, price: Decimal, mark: Decimal, largest: Decimal, limits: Limits) -> str | None:
    collar, notional = Decimal(repr(limits.price_collar)), price * place.quantity
    if (place.side is Side.BUY and price > mark * (1 + collar)) or (place.side is Side.SELL and price < mark * (1 - collar)):
        return "price_collar"
    if notional < Decimal(repr(limits.min_order_notional)):
        return "below_min_notional"
    if place.side is Side.BUY and notional > largest:
        return "above_max_notional"
    return None


def _crossed(place: Place, price: Decimal, ledger: Ledger, placed: Iterable[Place]) -> str | None:
    """The own order on the other side that this one would trade with."""
    others = [order.place for order in ledger.live_orders(place.symbol) if order.live and not is_stop(order.place)]
    for other in (*others, *placed):
        if other.symbol != place.symbol or other.side is place.side:
            continue
        if other.price is None or (price - other.price) * place.side.value >= 0:
            return other.order_id
    return None
