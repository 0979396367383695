"""What an exchange takes from an order on its way: fees, time, a place in the queue, a worse price. "Nothing" is an object too."""

from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal
from typing import Literal, Protocol

from agents.core.instruments import ZERO, Instrument

FEE_GRID = Decimal("1e-8")
"""Exchanges book fees in eight decimals; we round against ourselves."""


class Fee(Protocol):
    def rate(self, instrument: Instrument, maker: bool) -> Decimal:
        """Fraction of the received or paid amount."""
        ...


@dataclass(frozen=True, slots=True)
class MakerTakerFee:
    """Fractions of notional; None takes the instrument's own."""

    maker: Decimal | None = None
    taker: Decimal | None = None

    def rate(self, instrument: Instrument, maker: bool) -> Decimal:
        if maker:
            return instrument.maker_fee if self.maker is None else self.maker
        return instrument.taker_fee if self.taker is None else self.taker


@dataclass(frozen=True, slots=True)
class NoFee:
    def rate(self, instrument: Instrument, maker: bool) -> Decimal:
        return ZERO


class Latency(Protocol):
    def command_ns(self) -> int:
        """From our sending to the exchange's book."""
        ...

    def report_ns(self) -> int:
        """From the exchange's book to our ears."""
        ...


@dataclass(frozen=True, slots=True)
class FixedLatency:
    """Constant delays in nanoseconds, so that order of arrival is order of sending."""

    command: int
    report: int = 0

    def command_ns(self) -> int:
        return self.command

    def report_ns(self) -> int:
        return self.report


@dataclass(frozen=True, slots=True)
class NoLatency:
    def command_ns(self) -> int:
        return 0

    def report_ns(self) -> int:
        return 0


class Queue(Protocol):
    """Where a resting order of ours stands at its price level. Prints at the level always shorten the queue; models differ
    on what is ahead at first and on who left when the level shrinks without a print. Quantities in base units."""

    def join(self, displayed: Decimal) -> Decimal:
        """Quantity ahead of us when we arrive at a level showing `displayed`."""
        ...

    def shrink(self, ahead: Decimal, before: Decimal, after: Decimal) -> Decimal:
        """Quantity ahead once cancellations took the level from `before` to `after` < `before`."""
        ...


@dataclass(frozen=True, slots=True)
class ProRataQueue:
    """Cancellations come from everywhere in the queue in proportion (the default: neither hope nor fear)."""

    def join(self, displayed: Decimal) -> Decimal:
        return displayed

    def shrink(self, ahead: Decimal, before: Decimal, after: Decimal) -> Decimal:
        return min(ahead * after / before, after)


@dataclass(frozen=True, slots=True)
class BackQueue:
    """Pessimist: whoever cancels stood behind us as long as that is possible."""

    def join(self, displayed: Decimal) -> Decimal:
        return displayed

    def shrink(self, ahead: Decimal, before: Decimal, after: Decimal) -> Decimal:
        return min(ahead, after)


@dataclass(frozen=True, slots=True)
class FrontQueue:
    """Optimist: we are always first at our price. An upper bound for fill rates, not an estimate."""

    def join(self, displayed: Decimal) -> Decimal:
        return ZERO

    def shrink(self, ahead: Decimal, before: Decimal, after: Decimal) -> Decimal:
        return ZERO


class Impact(Protocol):
    def fraction(self, quantity: Decimal, depth: Decimal) -> Decimal:
        """By what fraction prices are worse than displayed for taking `quantity` out of `depth` displayed base units."""
        ...


@dataclass(frozen=True, slots=True)
class NoImpact:
    def fraction(self, quantity: Decimal, depth: Decimal) -> Decimal:
        return ZERO


@dataclass(frozen=True, slots=True)
class SquareRootImpact:
    """`coefficient * sqrt(quantity / depth)`: the square-root law (Toth et al. 2011), with displayed depth in the place of
    volume and the coefficient (a fraction of price) in the place of volatility."""

    coefficient: Decimal = Decimal("0.0005")

    def fraction(self, quantity: Decimal, depth: Decimal) -> Decimal:
        return self.coefficient * (quantity / depth).sqrt() if depth > 0 else self.coefficient


@dataclass(frozen=True, slots=True)
class CandleBook:
    """How a candle becomes a book and prints, where there is nothing better.

    The book shows `levels` levels a `half_spread` (fraction of price) apart from the centre and from each other; its
    quantities per side sum to `depth` of the candle's volume. The four prints share `participation` of the volume.
    """

    half_spread: Decimal = Decimal("0.0001")
    levels: int = 3
    depth: Decimal = Decimal("0.02")
    participation: Decimal = Decimal("0.1")


@dataclass(frozen=True, slots=True)
class NoCandles:
    """Candles are news, not liquidity: the feed has a book."""


@dataclass(frozen=True, slots=True)
class Frictions:
    """All that lies between a wish and a fill. `fee_currency` "received" is Binance's way: buys pay in base."""

    fee: Fee = field(default_factory=MakerTakerFee)
    latency: Latency = field(default_factory=NoLatency)
    queue: Queue = field(default_factory=ProRataQueue)
    impact: Impact = field(default_factory=NoImpact)
    fee_currency: Literal["quote", "received"] = "quote"
    candles: CandleBook | NoCandles = field(default_factory=NoCandles)


def round_fee(fee: Decimal) -> Decimal:
    """Up to the fee grid."""
    return fee.quantize(FEE_GRID, rounding=ROUND_CEILING)
