"""The kill path: cancel everything, sell what we hold, say when nothing is left. Needs no agent, no weights and no solver.

Kept the simplest code of the house. It reads the ledger and one price per symbol, and what it sells can only reduce.
"""

from collections.abc import Collection, Mapping
from decimal import Decimal

from agents.core.instruments import NS, ZERO, Instrument, Side, Symbol
from agents.core.ledger import Ledger, Order
from agents.core.orders import Cancel, Command, OrderState, Place, TimeInForce, client_order_id
from agents.desk.gate import free_inventory, is_stop, known_mark
from agents.desk.limits import Limits, smallest_notional
from agents.desk.sheet import RESTING, PlanContext
from agents.market.state import MarketState

PATIENCE_NS = 10 * NS
"""A cancel that nobody answered for so long is sent again, and waited for no longer."""


def cancel_all(ledger: Ledger, keep_stops: bool = False) -> list[Cancel]:
    """A cancel for every live order that has none on its way, unknown ones included: cancelling what never was is harmless.

    Protective stops only ever reduce: `keep_stops` leaves them where they are.
    """
    return [
        Cancel(order.place.order_id, order.place.symbol)
        for order in ledger.live_orders()
        if order.live and order.state is not OrderState.CANCELING and not (keep_stops and is_stop(order.place))
    ]


def loose_ends(ledger: Ledger, keep_stops: bool = False) -> list[Order]:
    """Orders that a session must not leave behind: every live one, but for the stops that rest where `keep_stops` wants them to."""
    return [order for order in ledger.live_orders() if not (keep_stops and is_stop(order.place) and order.state in RESTING)]


def flatten(market: MarketState, ledger: Ledger, limits: Limits, context: PlanContext,
            marks: Mapping[Symbol, Decimal] | None = None, only: Collection[Symbol] | None = None) -> list[Place]:  # fmt: skip
    """Reduce-only immediate-or-cancel sells of all that is owned and free, one slice per symbol and step, at the collar's edge.

    `marks` are the venue's own prices, for when market data is stale; else the market state's marks. `only` restricts the sale to
    some symbols. A position without any price and one below the smallest legal order stay where they are: see `is_flat`, `dust`.
    """
    places: list[Place] = []
    for symbol in ledger.symbols():
        if only is not None and symbol not in only:
            continue
        if (priced := _priced(symbol, market, ledger, limits, marks or {})) is None or _awaits_cancel(symbol, ledger, context.at):
            continue
        instrument, price = priced
        quantity = min(free_inventory(symbol, ledger, ()), instrument.max_quantity, instrument.max_notional / price)
        part = Decimal(repr(limits.max_order_notional)) * max(ledger.capital, ZERO) / price
        if part < quantity and min(part, quantity - part) * price >= 2 * smallest_notional(instrument, price):
            quantity = part  # a slice, and what it leaves can be sold later
        quantity = instrument.round_quantity(max(quantity, ZERO))
        if instrument.problem(price, quantity) is None:
            order_id = client_order_id(context.instance, context.epoch, context.decision, len(places))
            places.append(Place(order_id, symbol, Side.SELL, quantity, price, TimeInForce.IOC, reduce_only=True))
    return places


def wind_down(market: MarketState, ledger: Ledger, limits: Limits, context: PlanContext) -> list[Command]:
    """One step of cancel and flatten; repeat until `is_flat`. It speaks at most once per cooldown."""
    stamp, memory = (Symbol(""), Side.SELL), context.memory
    if context.at - memory.worked.get(stamp, -context.cooldown_ns) < context.cooldown_ns:
        return []
    commands: list[Command] = [*cancel_all(ledger), *_again(ledger, context.at), *flatten(market, ledger, limits, context)]
    if commands:
        memory.worked[stamp] = context.at
    return commands


def is_flat(market: MarketState, ledger: Ledger, limits: Limits) -> bool:
    """No live order, and no position that the exchange would still take an order for."""
    return not ledger.live_orders() and not any(sellable(symbol, market, ledger, limits) for symbol in ledger.symbols())


def dust(market: MarketState, ledger: Ledger, limits: Limits) -> dict[Symbol, Decimal]:
    """What flattening leaves: positions, in base units, that the exchange takes no order for. They are terminal until they grow."""
    held = {symbol: ledger.position(symbol) for symbol in ledger.symbols()}
    return {s: q for s, q in held.items() if q > 0 and not sellable(s, market, ledger, limits)}


def sellable(symbol: Symbol, market: MarketState, ledger: Ledger, limits: Limits) -> bool:
    """Whether the exchange would take an order for what is held of a symbol; what is held without a known price counts as such."""
    if (priced := _priced(symbol, market, ledger, limits, {})) is None:
        return ledger.position(symbol) > 0
    instrument, price = priced
    return instrument.problem(price, instrument.round_quantity(ledger.position(symbol))) is None


def _priced(symbol: Symbol, market: MarketState, ledger: Ledger, limits: Limits,
            marks: Mapping[Symbol, Decimal]) -> tuple[Instrument, Decimal] | None:  # fmt: skip
    """The instrument and the collar's lower edge on the grid; None where no price is known."""
    instrument, mark = ledger.instruments.get(symbol), marks.get(symbol) or known_mark(market, symbol)
    if instrument is None or mark is None:
        return None
    price = instrument.round_price(mark * (1 - Decimal(repr(limits.price_collar))), "up")
    return instrument, price


def _awaits_cancel(symbol: Symbol, ledger: Ledger, at: int) -> bool:
    """Whether an own buy still stands that a sell could trade with. What may never be answered is no reason to wait: an unknown
    order, or one whose cancel has been on its way for long (the exchange's self-trade prevention is left, then)."""
    buys = [order for order in ledger.live_orders(symbol) if order.live and order.place.side is Side.BUY]
    return any(o.state is not OrderState.UNKNOWN and not _overdue(o, at) for o in buys)


def _again(ledger: Ledger, at: int) -> list[Cancel]:
    """Cancels whose answer is overdue, once more: asking twice is harmless."""
    return [Cancel(o.place.order_id, o.place.symbol) for o in ledger.live_orders() if _overdue(o, at)]


def _overdue(order: Order, at: int) -> bool:
    return order.state is OrderState.CANCELING and at - order.updated >= PATIENCE_NS
