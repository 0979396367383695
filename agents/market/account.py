"""The money of one trader on a simulated exchange: what is there, what is locked by orders, what each fill moves."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from agents.core.instruments import ZERO, Currency, Instrument, Side
from agents.core.orders import OrderState, Place
from agents.market.frictions import FEE_GRID, Fee, round_fee
from agents.market.matcher import Execution

ONE = Decimal(1)


@dataclass(slots=True)
class ExchangeOrder:
    """The exchange's own record of one order. Money in quote, quantities in base, times in nanoseconds."""

    place: Place
    venue_order_id: str
    state: OrderState
    created: int
    updated: int
    """Stamps of the exchange's doings."""
    time: int
    """Market time of arrival."""
    filled: Decimal = ZERO
    notional: Decimal = ZERO
    locked: Decimal = ZERO
    fee_due: Decimal = ZERO
    """Exact; `fee_paid` is its rounding up, so that rounding costs at most one grid step an order."""
    fee_paid: Decimal = ZERO
    reason: str = ""
    asleep: bool = False
    """A stop that the last price has not reached: it is open, but in no book."""

    @property
    def remaining(self) -> Decimal:
        return self.place.quantity - self.filled


class Account:
    """Free and locked balances. They never go negative: a buy locks price times quantity (and its fee, where fees are in
    quote), a sell its quantity; what a fill pays comes out of its own order's lock."""

    def __init__(self, balances: Mapping[Currency, Decimal], fee: Fee, fee_currency: Literal["quote", "received"]) -> None:
        self._total = dict(balances)
        self._locked: dict[Currency, Decimal] = {}
        self._fee = fee
        self._received = fee_currency == "received"

    def balance(self, currency: Currency) -> tuple[Decimal, Decimal]:
        """(free, locked)."""
        locked = self._locked.get(currency, ZERO)
        return self._total.get(currency, ZERO) - locked, locked

    def totals(self) -> dict[Currency, Decimal]:
        """Free and locked together, of every currency ever held."""
        return dict(self._total)

    def deposit(self, currency: Currency, amount: Decimal) -> None:
        """Money from outside; negative withdraws."""
        self._total[currency] = self._total.get(currency, ZERO) + amount

    def reserve(self, instrument: Instrument, side: Side, quantity: Decimal, notional: Decimal) -> Decimal:
        """What an order must lock: base for a sell, quote for a buy, with the dearer fee if fees are in quote."""
        if side is Side.SELL:
            return quantity
        if self._received:
            return notional
        fee = max(self._fee.rate(instrument, True), self._fee.rate(instrument, False), ZERO)
        return notional * (ONE + fee) + FEE_GRID if fee else notional

    def lock(self, instrument: Instrument, order: ExchangeOrder, amount: Decimal) -> bool:
        """Lock `amount` for the order; False, and nothing done, if that is more than is free."""
        currency = _paid_in(instrument, order.place.side)
        free, locked = self.balance(currency)
        if amount > free:
            return False
        self._locked[currency] = locked + amount
        order.locked += amount
        return True

    def release(self, instrument: Instrument, order: ExchangeOrder) -> None:
        """Free all that the order still locks."""
        currency = _paid_in(instrument, order.place.side)
        self._locked[currency] = self._locked.get(currency, ZERO) - order.locked
        order.locked = ZERO

    def fill(self, instrument: Instrument, order: ExchangeOrder, execution: Execution) -> tuple[Decimal, Currency]:
        """Move the money of one execution, update the order's sums, and return (fee, fee currency)."""
        side, quantity, notional = execution.side, execution.quantity, execution.price * execution.quantity
        order.filled += quantity
        order.notional += notional
        in_base = self._received and side is Side.BUY
        fee_currency = instrument.base if in_base else instrument.quote
        order.fee_due += self._fee.rate(instrument, execution.maker) * (quantity if in_base else notional)
        fee = round_fee(order.fee_due) - order.fee_paid
        order.fee_paid += fee
        before = order.locked
        if side is Side.BUY:
            paid = notional if in_base else notional + fee
            self.deposit(instrument.quote, -paid)
            self.deposit(instrument.base, quantity - fee if in_base else quantity)
            if order.place.price is None:
                order.locked -= paid
            else:
                left = self.reserve(instrument, side, order.remaining, order.place.price * order.remaining)
                order.locked = min(before - paid, left) if order.remaining else ZERO
        else:
            self.deposit(instrument.base, -quantity)
            self.deposit(instrument.quote, notional - fee)
            order.locked -= quantity
        currency = _paid_in(instrument, side)
        self._locked[currency] = self._locked.get(currency, ZERO) - before + order.locked
        return fee, fee_currency


def _paid_in(instrument: Instrument, side: Side) -> Currency:
    return instrument.quote if side is Side.BUY else instrument.base
