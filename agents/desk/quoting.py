"""The market maker's quotes as orders: two sides, post-only, rounded outward, touched only when it is worth it."""

from decimal import Decimal

from agents.core.instruments import Instrument, Side
from agents.core.ledger import Order
from agents.desk.limits import smallest_notional
from agents.desk.sheet import Sheet
from agents.desk.wishes import MARKET_MAKING, Quotes

LEAST_TICKS = 2
LEAST_MOVE = Decimal("0.0001")
"""A quote gives up its place in the queue for two ticks and one basis point, not for less."""
LEAST_RESIZE = Decimal("0.2")


def quote(sheet: Sheet, instrument: Instrument) -> None:
    """Bring the quotes of one symbol to what the safe target wants; pulling is immediate, the rest waits for the throttle."""
    symbol, context = instrument.symbol, sheet.context
    wanted = None if context.halted else sheet.safe.quotes.get(symbol)
    waiting = context.at - context.memory.quoted.get(symbol, -context.requote_after_ns) < context.requote_after_ns
    for side in (Side.BUY, Side.SELL):
        standing = sheet.resting(symbol, side, quotes=True)
        for surplus in standing[1:]:
            sheet.cancel(surplus)
        old = standing[0] if standing else None
        ticket = _ticket(sheet, instrument, side, wanted, old) if wanted is not None else None
        if ticket is None:
            if old is not None and sheet.open(old):
                sheet.cancel(old)
                context.memory.quoted[symbol] = context.at
        elif not waiting and (old is None or sheet.open(old)):
            _bring(sheet, instrument, side, old, *ticket)


def _ticket(sheet: Sheet, instrument: Instrument, side: Side, wanted: Quotes, old: Order | None) -> tuple[Decimal, Decimal] | None:
    """(price, quantity) of one side, or None where there is nothing to quote. A quote that is too small is refused by name."""
    symbol = instrument.symbol
    size, offset = (wanted.bid_size, wanted.bid_offset) if side is Side.BUY else (wanted.ask_size, wanted.ask_offset)
    if size <= 0:
        return None
    bid, ask = sheet.touch(symbol)
    price = instrument.round_outward((bid + ask) / 2 * (1 - side.value * Decimal(repr(offset))), side)
    price = min(price, ask - instrument.tick) if side is Side.BUY else max(price, bid + instrument.tick)
    if price <= 0:
        return None
    room = sheet.room(instrument, price) if side is Side.BUY else sheet.free(symbol)
    room += old.remaining if old is not None else 0
    quantity = instrument.round_quantity(min(Decimal(repr(size)) * sheet.safe.equity / price, room))
    if quantity * price < max(smallest_notional(instrument, price), sheet.least_notional):
        sheet.refuse(symbol, side, "below_min_notional", f"quote of {quantity} at {price}")
        return None
    return price, quantity


def _bring(sheet: Sheet, instrument: Instrument, side: Side, old: Order | None, price: Decimal, quantity: Decimal) -> None:
    memory, at, symbol = sheet.context.memory, sheet.context.at, instrument.symbol
    if old is None:
        shares = ((MARKET_MAKING, float(side.value * quantity)),)
        if sheet.place(instrument, side, quantity, price, shares, post_only=True):
            memory.quoted[symbol] = at
    elif _worth_it(instrument, old, price, quantity):
        fits = side is Side.SELL or quantity <= sheet.room(instrument, price)
        if instrument.amend and fits and sheet.amend(instrument, old, quantity, price):
            memory.quoted[symbol] = at
        else:
            # Without an atomic replacement: cancel now, place once the venue has confirmed. The stamp is not renewed, so
            # the new quote may follow as soon as the old one is gone. While no new order may be sent, the old one is better.
            if memory.rate_left(at, sheet.limits) > 0:
                sheet.cancel(old)


def _worth_it(instrument: Instrument, old: Order, price: Decimal, quantity: Decimal) -> bool:
    moved = abs(price - old.place.price) if old.place.price is not None else price
    return (moved >= LEAST_TICKS * instrument.tick and moved >= LEAST_MOVE * price) or abs(quantity - old.remaining) > LEAST_RESIZE * quantity
