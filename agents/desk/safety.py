"""The kill path: cancel everything, sell what we hold, say when nothing is left. Needs no agent, no weights and no solver.

Kept the simplest code of the house. It reads the ledger and one price per symbol, and what it sells can only reduce.
"""

from collections.abc import Mapping
from decimal import Decimal

from agents.core.instruments import ZERO, Instrument, Side, Symbol
from agents.core.ledger import Ledger
from agents.core.orders import Cancel, Command, OrderState, Place, TimeInForce, client_order_id
from agents.desk.gate import free_inventory, known_mark
from agents.desk.limits import Limits, smallest_notional
from agents.desk.sheet import PlanContext
from agents.market.state import MarketState


def cancel_all(ledger: Ledger) -> list[Cancel]:
    """A cancel for every live order that has none on its way, unknown ones included: cancelling what never was is harmless."""
    return [
        Cancel(order.place.order_id, order.place.symbol)
        for order in ledger.live_orders()
        if order.live and order.state is not OrderState.CANCELING
    ]


def flatten(market: MarketState, ledger: Ledger, limits: Limits, context: PlanContext,
            marks: Mapping[Symbol, Decimal] | None = None) -> list[Place]:  # fmt: skip
    """Reduce-only immediate-or-cancel sells of all that is owned and free, one slice per symbol and step, at the collar's edge.

    `marks` are the venue's own prices, for when market data is stale; else the market state's marks. A position without any
    price and one below the smallest legal order stay where they are: see `is_flat`.
    """
    places: list[Place] = []
    for symbol in ledger.symbols():
        if (priced := _priced(symbol, market, ledger, limits, marks or {})) is None or _awaits_cancel(symbol, ledger):
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
    commands: list[Command] = [*cancel_all(ledger), *flatten(market, ledger, limits, context)]
    if commands:
        memory.worked[stamp] = context.at
    return commands


def is_flat(market: MarketState, ledger: Ledger, limits: Limits) -> bool:
    """No live order, and no position that the exchange would still take an order for."""
    return not ledger.live_orders() and not any(sellable(symbol, market, ledger, limits) for symbol in ledger.symbols())


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


def _awaits_cancel(symbol: Symbol, ledger: Ledger) -> bool:
    """Whether an own buy still stands that a sell could trade with. An unknown one may never be answered: no reason to wait."""
    return any(o.live and o.place.side is Side.BUY and o.state is not OrderState.UNKNOWN for o in ledger.live_orders(symbol))
