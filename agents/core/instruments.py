"""What is traded, and the grid that the exchange puts prices and quantities on."""

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from enum import Enum
from typing import NewType

Symbol = NewType("Symbol", str)
"""A ccxt symbol, such as BTC/USDT."""
Currency = NewType("Currency", str)

ZERO = Decimal(0)

_ROUNDING = {"down": ROUND_FLOOR, "up": ROUND_CEILING, "nearest": ROUND_HALF_EVEN}

NS = 1_000_000_000
TIMEFRAMES = {"1s": NS, "1m": 60 * NS, "5m": 300 * NS, "15m": 900 * NS, "1h": 3600 * NS, "4h": 14_400 * NS, "1d": 86_400 * NS}
"""Bar lengths in nanoseconds, by the names exchanges use."""


class Side(Enum):
    """Direction of an order, fill or aggressor; the value is the sign of the base quantity."""

    BUY = 1
    SELL = -1

    @property
    def opposite(self) -> "Side":
        return Side.SELL if self is Side.BUY else Side.BUY


@dataclass(frozen=True, slots=True)
class Instrument:
    """One spot market: its two currencies, its grid (Decimal, quote per base and base units) and its fees (fractions)."""

    symbol: Symbol
    base: Currency
    quote: Currency
    tick: Decimal
    lot: Decimal
    min_quantity: Decimal = ZERO
    max_quantity: Decimal = Decimal("1e12")
    min_notional: Decimal = ZERO
    max_notional: Decimal = Decimal("1e15")
    maker_fee: Decimal = Decimal("0.001")
    taker_fee: Decimal = Decimal("0.001")
    amend: bool = False
    """Whether the exchange can replace a resting order in one atomic request."""
    stop_orders: bool = False
    """Whether a protective stop can rest on the exchange."""

    def round_price(self, price: Decimal, direction: str = "nearest") -> Decimal:
        """Nearest grid price; `direction` is down, up or nearest."""
        return (price / self.tick).to_integral_value(_ROUNDING[direction]) * self.tick

    def round_outward(self, price: Decimal, side: Side) -> Decimal:
        """Away from the market: bids down, asks up, so that a quote never becomes more generous by rounding."""
        return self.round_price(price, "down" if side is Side.BUY else "up")

    def round_quantity(self, quantity: Decimal) -> Decimal:
        """Down to the lot: never more than was allowed."""
        return (quantity / self.lot).to_integral_value(ROUND_FLOOR) * self.lot

    def problem(self, price: Decimal, quantity: Decimal) -> str | None:
        """Why the exchange's filters would refuse this order, or None."""
        if not (price.is_finite() and quantity.is_finite()):
            return "not_finite"
        if price <= 0 or price % self.tick:
            return "price_off_tick"
        if quantity <= 0 or quantity % self.lot:
            return "quantity_off_lot"
        if quantity < self.min_quantity:
            return "below_min_quantity"
        if quantity > self.max_quantity:
            return "above_max_quantity"
        if price * quantity < self.min_notional:
            return "below_min_notional"
        if price * quantity > self.max_notional:
            return "above_max_notional"
        return None
