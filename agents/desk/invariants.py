"""What must hold after every fact, whoever drives the engine: the invariants that can be judged from its state and its commands.

I2 position and sub-accounts are the sum of own fills and of what was carried; I4 nothing raises exposure while halted, stale or
unreconciled; I5 with every working and unknown order filled at worst the book stays inside the hard limits, and no sells add up to
more than the position. Judged from the ledger and the commands alone: neither the projection nor the planner is asked. A price that
moves or a fill that nobody foresaw may carry a book over a limit; a command may not, so I4 and I5 judge commands.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Protocol

from agents.core.events import Adjustment, Adopted, Event, Fill
from agents.core.instruments import ZERO, Side, Symbol
from agents.core.ledger import Ledger
from agents.core.orders import Amend, Cancel, Place
from agents.desk.attribution import HOUSE, Attribution
from agents.desk.decision import Effects, EngineConfig
from agents.desk.gate import known_mark
from agents.desk.limits import NO_NEW_RISK, RUNGS, RiskState
from agents.desk.wishes import ORDER
from agents.market.state import MarketState

ROUNDING = Decimal("1e-9")
"""Relative excess over a limit that is the rounding of a float."""


class Desk(Protocol):
    """The engine as the checkers see it, after the step."""

    config: EngineConfig
    market: MarketState
    ledger: Ledger
    attribution: Attribution
    risk: RiskState
    halted: bool


def violations(event: Event, effects: Effects, engine: Desk) -> list[str]:
    """What the step on `event` broke, one sentence each, empty where all holds. Reads only; costs nothing without fills and commands."""
    found: list[str] = []
    if isinstance(event, Fill | Adjustment | Adopted):
        found += sums(engine.ledger, engine.attribution)
    if effects.commands:
        found += raised(effects, engine)
        found += oversold(effects, engine.ledger)
        found += overdrawn(effects, engine)
    return found


def sums(ledger: Ledger, attribution: Attribution) -> list[str]:
    """I2: each position equals what own fills and carried holdings moved, and the sub-accounts add up to it."""
    found = []
    for symbol, instrument in ledger.instruments.items():
        position, moved = ledger.position(symbol), ledger.flows.get(instrument.base, ZERO)
        if position != moved:
            found.append(f"I2 {symbol}: position {position}, but fills and carried holdings moved {moved} {instrument.base}")
        owned = sum((attribution.position(agent, symbol) for agent in (*ORDER, HOUSE)), ZERO)
        if owned != position:
            found.append(f"I2 {symbol}: position {position}, but the sub-accounts own {owned}")
    return found


def raised(effects: Effects, engine: Desk) -> list[str]:
    """I4: no buy while halted, on a symbol with distrusted data, unreconciled, or above the ladder's `no_new_risk`."""
    found = []
    for order in _orders(effects):
        if engine.halted and not (isinstance(order, Place) and order.side is Side.SELL and order.reduce_only):
            found.append(f"I4 {order.symbol}: {_name(order)} is no reduction, but the desk is halted")
        if order.side is not Side.BUY:
            continue
        trouble = engine.market.trouble(order.symbol) if order.symbol in engine.market.symbols else "not followed"
        if trouble is not None:
            found.append(f"I4 {order.symbol}: {_name(order)} buys on data that is {trouble}")
        if not engine.risk.reconciled or order.symbol in engine.risk.unreconciled:
            found.append(f"I4 {order.symbol}: {_name(order)} buys while the account is unreconciled")
        if RUNGS.index(engine.risk.rung) >= RUNGS.index(NO_NEW_RISK):
            found.append(f"I4 {order.symbol}: {_name(order)} buys on the rung {engine.risk.rung}")
    return found


def oversold(effects: Effects, ledger: Ledger) -> list[str]:
    """I5: wherever a sell was sent, all sells that may still fill add up to no more than the position.

    An amendment replaces its order in one breath, so the two never fill both.
    """
    replaced = {c.order_id for c in effects.commands if isinstance(c, Amend)}
    found = []
    for symbol in dict.fromkeys(order.symbol for order in _orders(effects) if order.side is Side.SELL):
        sells = [o for o in ledger.live_orders(symbol) if o.place.side is Side.SELL and o.place.order_id not in replaced]
        selling, position = sum((o.remaining for o in sells), ZERO), ledger.position(symbol)
        if selling > position:
            found.append(f"I5 {symbol}: sells add up to {selling}, position {position}")
    return found


def overdrawn(effects: Effects, engine: Desk) -> list[str]:
    """I5: wherever a buy was sent, the book with every buy filled and no sell filled is within cap, gross, net, buffer and cash."""
    bought = {order.symbol for order in _orders(effects) if order.side is Side.BUY}
    if not bought:
        return []
    ledger, limits = engine.ledger, engine.config.limits
    marks = {s: mark for s in {*ledger.instruments, *bought} if (mark := known_mark(engine.market, s)) is not None}
    try:
        equity = ledger.equity(marks)
    except KeyError as missing:
        return [f"I5: a buy was sent while {missing} has no mark"]
    worst, cost = _worst(ledger, marks)
    found = [f"I5 {symbol}: bought without a mark" for symbol in bought if symbol not in marks]
    allowed = Decimal(repr(limits.position_cap)) * equity
    found += [f"I5 {s}: worst weight {worst[s] / equity:.6f} above the cap" for s in sorted(bought) if worst[s] > _up(allowed)]
    total = Decimal(repr(min(limits.gross, limits.net, 1 - limits.cash_buffer))) * equity
    if (gross := sum(worst.values(), ZERO)) > _up(total):
        found.append(f"I5: worst gross {gross:.8g} above {total:.8g}")
    if cost > _up(max(ledger.cash(), ZERO)):
        found.append(f"I5: buys would cost {cost:.8g} of {ledger.cash():.8g} in cash")
    return found


def _worst(ledger: Ledger, marks: dict[Symbol, Decimal]) -> tuple[dict[Symbol, Decimal], Decimal]:
    """(worst value by symbol, cost of every buy that may still fill), in quote. An amended buy counts beside its replacement."""
    worst = {symbol: max(ledger.position(symbol), ZERO) * mark for symbol, mark in marks.items()}
    cost = ZERO
    for order in ledger.live_orders():
        place = order.place
        if place.side is Side.BUY:
            mark = marks.get(place.symbol, ZERO)
            worst[place.symbol] = worst.get(place.symbol, ZERO) + order.remaining * max(place.price or mark, mark)
            cost += order.remaining * (place.price or mark)
    return worst, cost


def _orders(effects: Effects) -> Iterable[Place | Amend]:
    return (command for command in effects.commands if not isinstance(command, Cancel))


def _name(order: Place | Amend) -> str:
    return order.order_id if isinstance(order, Place) else order.new_order_id


def _up(limit: Decimal) -> Decimal:
    return limit * (1 + ROUNDING)
