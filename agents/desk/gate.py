"""The last look at an order before it is sent: simple checks that know nothing of weights, wishes or programs."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from math import isfinite

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
class Allowance:
    """What may still be bought for one agent today, in quote; None sets no bound. A plan takes off what it asks for."""

    turnover: Decimal | None = None
    fees: Decimal | None = None

    def take(self, value: Decimal, fee: Decimal) -> None:
        """`value` was asked for, at an expected fee of `fee`; negative ones are given back."""
        if self.turnover is not None:
            self.turnover -= value
        if self.fees is not None:
            self.fees -= fee

    def lacks(self, value: Decimal, fee: Decimal) -> bool:
        """Whether a buy of `value` with `fee` to pay is beyond it; nothing fits into what is no number."""
        bounds = ((value, self.turnover), (fee, self.fees))
        return any(left is not None and (not left.is_finite() or asked > left) for asked, left in bounds)


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
    allowances: Mapping[str, Allowance] = field(default_factory=dict)
    """By agent what its day's budget still allows, working orders and this plan's taken off; who is not named has no budget."""


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


def buyers(place: Place) -> dict[str, Decimal]:
    """Whose money a buy spends: fractions by agent, summing to 1; nobody's for a sell, and where no agent wished for it."""
    wanted = {agent: Decimal(repr(share)) for agent, share in place.shares if share > 0} if place.side is Side.BUY else {}
    whole = sum(wanted.values(), ZERO)
    return {agent: share / whole for agent, share in wanted.items()}


def expected_fee(place: Place, instrument: Instrument) -> Decimal:
    """Fraction of its value that an order is expected to pay; a rebate is not counted on."""
    return max(instrument.maker_fee if place.post_only else instrument.taker_fee, ZERO)


def gate(place: Place, market: MarketState, ledger: Ledger, limits: Limits, standing: Standing,
         replaces: Order | None = None) -> Refusal | None:  # fmt: skip
    """The first reason why `place` may not be sent, or None; never an exception, whatever the order says.

    Orders that can only reduce pass the checks on halt, count, rate and budgets. `replaces` is the order that an amendment takes
    away: its inventory, and what it would have spent of a budget, are free for the new one.
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
    if (problem := _off_grid(instrument, place.price, place.quantity)) is not None:
        return refuse(problem, f"{place.quantity} at {place.price}")
    if not standing.equity.is_finite():
        return refuse("equity_unknown")
    if place.side is Side.BUY and standing.equity <= 0:
        return refuse("no_equity", f"equity {standing.equity}")
    if place.side is Side.BUY and not all(isfinite(share) for _, share in place.shares):
        return refuse("not_finite", "a share of an agent")
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
        if standing.halted:
            return refuse("halted", "only what is marked as reducing")
        if standing.open_count + len(standing.placed) >= limits.max_order_count:
            return refuse("order_count", f"{standing.open_count + len(standing.placed)} open")
        if standing.rate_left <= 0:
            return refuse("message_rate", f"{limits.max_orders_per_second:g} a second")
    if (spent := _beyond(place, place.price, instrument, standing.allowances, replaces)) is not None:
        return refuse("agent_budget", spent)
    return None


def _stop(place: Place, trigger: Decimal, instrument: Instrument, mark: Decimal | None, free: Decimal,
          limits: Limits) -> tuple[str, str] | None:  # fmt: skip
    """Why a protective stop may not be sent. Its worst price is its own limit, or none: what triggers it is the exchange's last price."""
    if place.side is not Side.SELL or not place.reduce_only:
        return "stop_must_reduce", place.side.name.lower()
    if mark is None:
        return "no_mark", ""
    if (problem := _off_grid(instrument, trigger, place.quantity)) is not None:
        return problem, f"{place.quantity} at trigger {trigger}"
    if trigger >= mark:
        return "would_trigger", f"trigger {trigger}, mark {mark}"
    if place.price is not None and not place.price.is_finite():
        return "not_finite", f"{place.quantity} at limit {place.price}"
    if place.price is not None and not trigger * (1 - Decimal(repr(limits.price_collar))) <= place.price <= trigger:
        return "price_collar", f"limit {place.price}, trigger {trigger}"
    if place.price is not None and (problem := _off_grid(instrument, place.price, place.quantity)) is not None:
        return problem, f"{place.quantity} at limit {place.price}"
    if place.quantity > free:
        return "exceeds_inventory", f"{place.quantity} of {free}"
    return None


def _off_grid(instrument: Instrument, price: Decimal, quantity: Decimal) -> str | None:
    """The exchange's filters, without their exception for numbers of more digits than arithmetic has."""
    try:
        return instrument.problem(price, quantity)
    except InvalidOperation:
        return "not_finite"


def _beyond(place: Place, price: Decimal, instrument: Instrument, allowances: Mapping[str, Allowance], replaces: Order | None) -> str | None:
    """Whose budget of the day a buy is beyond, with the numbers; what a replaced order had promised is free again."""
    if not allowances:
        return None
    value, rate = price * place.quantity, expected_fee(place, instrument)
    promised = promise(replaces, instrument) if replaces is not None else {}
    for agent, part in buyers(place).items():
        back, fee_back = promised.get(agent, (ZERO, ZERO))
        if agent in allowances and allowances[agent].lacks(value * part - back, value * part * rate - fee_back):
            left = allowances[agent]
            return f"{agent} would buy {value * part:.8g}, left today: {_amount(left.turnover)} of turnover, {_amount(left.fees)} of fees"
    return None


def _amount(left: Decimal | None) -> str:
    if left is None:
        return "any"
    return f"{max(left, ZERO):.8g}" if left.is_finite() else "what is no number"


def promise(order: Order, instrument: Instrument) -> dict[str, tuple[Decimal, Decimal]]:
    """(value, fee) in quote by agent of what a working buy may still spend."""
    value = order.remaining * (order.place.price or ZERO)
    rate = expected_fee(order.place, instrument)
    return {agent: (value * part, value * part * rate) for agent, part in buyers(order.place).items()}


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
