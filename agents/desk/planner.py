"""From a safe target to commands: what is missing, less what is already on its way, cut to what the market and the limits bear."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import ROUND_CEILING, Decimal

from agents.core.instruments import NS, ZERO, Instrument, Side, Symbol
from agents.core.ledger import Ledger, Order
from agents.core.orders import Command, TimeInForce
from agents.desk.attribution import HOUSE
from agents.desk.gate import Refusal, is_quote, is_stop
from agents.desk.limits import Limits, smallest_notional
from agents.desk.projection import SafeTarget
from agents.desk.protection import Need
from agents.desk.quoting import quote
from agents.desk.sheet import PlanContext, PlanMemory, Shares, Sheet
from agents.desk.wishes import Style
from agents.market.state import MarketState

__all__ = ["Plan", "PlanContext", "PlanMemory", "Refusal", "plan"]

PATIENT, URGENT = 0.4, 0.8
"""Urgency below the first is worked post-only, above the second immediate-or-cancel, between as a limit order."""
STALE_MOVE = Decimal("0.0005")
"""A directional order is replaced when its price is more than 5 bps (and two ticks) from where it would be placed now."""
WAIT_NS = 20 * NS
"""A limit order that nobody took for so long is finished by taking; a post-only one waits as long as it is wished."""
EXCESS = Decimal("1.2")
"""Working quantity may exceed the need by a fifth before it is cancelled: drift of the mark is no reason to leave the queue."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Commands in the order in which they shall be sent, and what was wanted but not asked for."""

    commands: tuple[Command, ...]
    refusals: tuple[Refusal, ...]
    needs: Mapping[Symbol, Need] = field(default_factory=dict)
    """What sells need of each holding whose protective stop may rest on the exchange."""


def plan(safe: SafeTarget, market: MarketState, ledger: Ledger, limits: Limits, context: PlanContext) -> Plan:
    """Commands that move the account towards `safe`.

    Every order that may still fill counts as filled when room is measured, a cancel frees nothing before the venue confirms,
    and an order for the same need is not sent twice. Cancels come first, then sells, buys and quotes. Writes the throttle
    stamps of `context.memory` and lets agents that wish against each other trade inside (`context.attribution`).
    """
    sheet = Sheet(safe, market, ledger, limits, context)
    instruments = [ledger.instruments[s] for s in safe.weights if s in ledger.instruments and s in safe.marks]
    known = {instrument.symbol for instrument in instruments}
    for symbol, orders in sheet.orders.items():
        for order in orders:
            if (symbol not in known and not is_stop(order.place)) or (order.place.side is Side.BUY and sheet.overdrawn(symbol)):
                sheet.cancel(order)
    needs = {instrument.symbol: _need(sheet, instrument) for instrument in instruments}
    for instrument in sorted(instruments, key=lambda each: needs[each.symbol] > 0):  # stable: sells first
        _work(sheet, instrument, needs[instrument.symbol])
    stamps = context.memory.quoted
    for instrument in sorted(instruments, key=lambda each: stamps.get(each.symbol, 0)):  # who waited longest goes first
        quote(sheet, instrument)
    cancels_first = sorted(sheet.commands, key=lambda command: command.order_id not in sheet.cancelled)
    wanted = {i.symbol: _selling(sheet, i, needs[i.symbol]) for i in instruments if i.stop_orders}
    return Plan(tuple(cancels_first), tuple(sheet.refusals), wanted)


def _need(sheet: Sheet, instrument: Instrument) -> Decimal:
    """Signed base quantity between the position and the safe weight; a weight too small to be traded away again is nothing."""
    mark = sheet.safe.marks[instrument.symbol]
    value = Decimal(repr(sheet.safe.weights[instrument.symbol])) * sheet.safe.equity
    wanted = value / mark if value >= max(smallest_notional(instrument, mark), sheet.least_notional) else ZERO
    return wanted - sheet.ledger.position(instrument.symbol)


def _selling(sheet: Sheet, instrument: Instrument, need: Decimal) -> Need:
    """Base quantities that the safe target sells by and by; what is too small for an order is not waited for."""
    symbol, mark = instrument.symbol, sheet.safe.marks[instrument.symbol]
    quotes = sheet.safe.quotes.get(symbol)
    asked = ZERO if quotes is None or sheet.context.halted else Decimal(repr(quotes.ask_size)) * sheet.safe.equity / mark
    least = max(smallest_notional(instrument, mark), sheet.least_notional) / mark
    return Need(-need if -need >= least else ZERO, asked if asked >= least else ZERO)


def _work(sheet: Sheet, instrument: Instrument, need: Decimal) -> None:
    """One symbol's directional order: keep it, cancel it or place the next slice."""
    symbol, memory, at = instrument.symbol, sheet.context.memory, sheet.context.at
    side = Side.BUY if need > 0 else Side.SELL
    if symbol not in sheet.orders and (abs(need) < instrument.lot or (side is Side.BUY and symbol in sheet.safe.reasons)):
        return  # nothing to take away and nothing to ask for: most symbols, most of the time
    style = sheet.safe.styles.get(symbol, Style())
    if (symbol, side) in memory.hurried:
        style = replace(style, urgency=1.0)
    price = _price(sheet, instrument, side, style)
    smallest = max(smallest_notional(instrument, price), sheet.least_notional)
    unwanted = sheet.resting(symbol, side.opposite, quotes=False)
    working = sheet.resting(symbol, side, quotes=False)
    unwanted += _surplus(sheet, instrument, working, abs(need), price, smallest)
    for order in unwanted:
        sheet.cancel(order)
        memory.worked[symbol, order.place.side] = at
    if any(order in working for order in unwanted):
        return
    gap = abs(need) - sum((order.remaining for order in sheet.orders.get(symbol, ()) if _same(order, side)), ZERO)
    if gap < instrument.lot or (side is Side.BUY and symbol in sheet.safe.reasons):
        return
    if at - memory.worked.get((symbol, side), -sheet.context.cooldown_ns) < sheet.context.cooldown_ns:
        return
    if gap * price < smallest:
        sheet.refuse(symbol, side, "below_min_notional", f"{gap:.8g} at {price}")
        return
    least = (smallest / price / instrument.lot).to_integral_value(ROUND_CEILING) * instrument.lot
    allowance = sheet.allowance(symbol, side, style.participation, least)
    quantity = _slice(sheet, instrument, side, gap, price, least, allowance)
    if allowance < least:
        sheet.refuse(symbol, side, "participation", f"{gap:.8g} waits for the next minute's volume")
    elif quantity < least:
        sheet.refuse(symbol, side, "no_room", f"{gap:.8g} at {price}, room for {quantity}")
    elif not _clear(sheet, symbol, side, price):
        sheet.refuse(symbol, side, "self_trade", "own quotes in the way are cancelled first")
    elif sheet.place(instrument, side, quantity, price, _shares(sheet, symbol), *_kind(style)):
        memory.worked[symbol, side] = at
        memory.hurried.discard((symbol, side))


def _surplus(sheet: Sheet, instrument: Instrument, working: list[Order], need: Decimal, price: Decimal, smallest: Decimal) -> list[Order]:
    """Working orders on the right side that are too much, or priced where nobody would put them now."""
    surplus: list[Order] = []
    total = sum((order.remaining for order in working), ZERO)
    for order in reversed(working):  # the newest goes first: the oldest is nearest to its turn
        if total > need * EXCESS or need * price < smallest:
            total -= order.remaining
            surplus.append(order)
        elif _stale(sheet, instrument, order, price):
            surplus.append(order)
        elif not order.place.post_only and sheet.context.at - order.created >= WAIT_NS:
            surplus.append(order)
            sheet.context.memory.hurried.add((instrument.symbol, order.place.side))
    return [order for order in surplus if sheet.open(order)]


def _stale(sheet: Sheet, instrument: Instrument, order: Order, price: Decimal) -> bool:
    moved = abs(price - order.place.price) if order.place.price is not None else price
    old_enough = sheet.context.at - order.created >= sheet.context.cooldown_ns
    return old_enough and moved > 2 * instrument.tick and moved > STALE_MOVE * price


def _same(order: Order, side: Side) -> bool:
    return order.place.side is side and not is_quote(order.place) and not is_stop(order.place)


def _price(sheet: Sheet, instrument: Instrument, side: Side, style: Style) -> Decimal:
    """Where the order goes: behind the mid by the wished half-spreads, or through the touch when urgent; inside the collar."""
    bid, ask = sheet.touch(instrument.symbol)
    middle, half = (bid + ask) / 2, (ask - bid) / 2
    if style.urgency > URGENT:
        far = ask if side is Side.BUY else bid
        price = far * (1 + side.value * Decimal(repr(sheet.limits.slippage)))
    else:
        price = middle - side.value * Decimal(repr(style.offset)) * half
        if style.urgency < PATIENT:  # never crosses: one tick inside the other touch at most
            price = min(price, ask - instrument.tick) if side is Side.BUY else max(price, bid + instrument.tick)
    return max(sheet.collared(instrument, side, price), instrument.tick)


def _kind(style: Style) -> tuple[TimeInForce, bool]:
    """(time in force, post-only) of an urgency."""
    return (TimeInForce.IOC if style.urgency > URGENT else TimeInForce.GTC), style.urgency < PATIENT


def _slice(sheet: Sheet, instrument: Instrument, side: Side, gap: Decimal, price: Decimal, least: Decimal, share: Decimal) -> Decimal:
    """The part of the gap that goes out now, on the lot: `share` of volume, share of displayed depth, size, room, inventory.

    `least` is the smallest legal order: a market too thin for it still gets that one, and no rest below it is left behind.
    """
    share = min(share, max(sheet.depth(instrument.symbol, side), least), max(sheet.largest(instrument) / price, least))
    share = min(share, instrument.max_quantity, instrument.max_notional / price)
    allowed = sheet.room(instrument, price) if side is Side.BUY else sheet.free(instrument.symbol)
    if gap - share < least:
        share = gap
    return instrument.round_quantity(max(min(gap, share, allowed), ZERO))


def _clear(sheet: Sheet, symbol: Symbol, side: Side, price: Decimal) -> bool:
    """Whether no own quote stands in the way of an order at `price`; those that do are cancelled."""
    crossing = [
        order
        for order in sheet.orders.get(symbol, ())
        if order.live and order.place.side is side.opposite and is_quote(order.place)
        and (order.place.price is None or (price - order.place.price) * side.value >= 0)
    ]  # fmt: skip
    for order in crossing:
        sheet.cancel(order)
    return not crossing


def _shares(sheet: Sheet, symbol: Symbol) -> Shares:
    """Who wants this order. A share of nothing for the house tells a market maker's own inventory order from its quotes."""
    safe = sheet.safe
    contributions = safe.contributions.get(symbol, {})
    total = sum(contributions.values())
    # The safe weight may stand above a wish whose cost is not worth it: what is more than was wished for is nobody's.
    weight, contributions = (min(safe.weights[symbol], total), contributions) if total > 0 else (0.0, {})
    shares = sheet.context.attribution.wished_trades(symbol, contributions, weight, safe.equity, safe.marks[symbol])
    return shares if len(shares) != 1 else (*shares, (HOUSE, 0.0))
