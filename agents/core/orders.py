"""What we may ask of an exchange, and every move that an order's state may make."""

from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import NewType

from agents.core.instruments import Side, Symbol

OrderId = NewType("OrderId", str)
"""Our client order id: instance, epoch, decision, leg. Deterministic, so a replay makes the same."""


class OrderState(Enum):
    PENDING = "pending"
    """The intent is durable and on its way; the exchange has not spoken."""
    OPEN = "open"
    PARTIAL = "partial"
    UNKNOWN = "unknown"
    """Sent, outcome unknown: counts as exposure until evidence comes."""
    CANCELING = "canceling"
    FILLED = "filled"
    CANCELED = "canceled"
    EXPIRED = "expired"
    REJECTED = "rejected"
    DUST = "dust"
    """What is left is too small for the exchange to trade."""

    @property
    def done(self) -> bool:
        return self in DONE


DONE = frozenset({OrderState.FILLED, OrderState.CANCELED, OrderState.EXPIRED, OrderState.REJECTED, OrderState.DUST})

_S = OrderState
_ENDS = {_S.FILLED, _S.CANCELED, _S.EXPIRED, _S.DUST}
NEXT: dict[OrderState, frozenset[OrderState]] = {
    _S.PENDING: frozenset({_S.OPEN, _S.PARTIAL, _S.UNKNOWN, _S.CANCELING, _S.REJECTED} | _ENDS),
    _S.UNKNOWN: frozenset({_S.OPEN, _S.PARTIAL, _S.CANCELING, _S.REJECTED} | _ENDS),
    _S.OPEN: frozenset({_S.PARTIAL, _S.CANCELING, _S.UNKNOWN} | _ENDS),
    _S.PARTIAL: frozenset({_S.PARTIAL, _S.CANCELING, _S.UNKNOWN} | _ENDS),
    _S.CANCELING: frozenset({_S.OPEN, _S.PARTIAL, _S.UNKNOWN, _S.REJECTED} | _ENDS),
    # A fill that is learned after the end is a fact about money, not about state: the ledger takes it, the end stands;
    # only the kind of end may be corrected by better evidence.
    _S.CANCELED: frozenset({_S.FILLED}),
    _S.EXPIRED: frozenset({_S.FILLED}),
    _S.REJECTED: frozenset({_S.FILLED, _S.OPEN}),
    _S.FILLED: frozenset(),
    _S.DUST: frozenset({_S.FILLED}),
}
"""Legal moves. What is absent is illegal: the ledger keeps the old state and counts the attempt."""


class TimeInForce(Enum):
    GTC = "GTC"
    IOC = "IOC"


@dataclass(frozen=True, slots=True)
class Place:
    """A new order. `price` None means a market order; quantity in base units."""

    order_id: OrderId
    symbol: Symbol
    side: Side
    quantity: Decimal
    price: Decimal | None
    time_in_force: TimeInForce = TimeInForce.GTC
    post_only: bool = False
    reduce_only: bool = False
    shares: tuple[tuple[str, float], ...] = ()
    """Who this order is for: (agent, signed base quantity wished), for attribution."""
    trigger_price: Decimal | None = None
    """A protective stop: it sleeps until the last price reaches this one, then is a limit order at `price`, or a market order."""


@dataclass(frozen=True, slots=True)
class Amend:
    """Replace a resting order atomically, where the market can."""

    order_id: OrderId
    new_order_id: OrderId
    symbol: Symbol
    side: Side
    quantity: Decimal
    price: Decimal


@dataclass(frozen=True, slots=True)
class Cancel:
    order_id: OrderId
    symbol: Symbol


Command = Place | Amend | Cancel

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


def base36(number: int) -> str:
    """Lower-case base 36 of a non-negative integer."""
    text = ""
    while True:
        number, rest = divmod(number, 36)
        text = _DIGITS[rest] + text
        if not number:
            return text


def client_order_id(instance: str, epoch: int, decision: int, leg: int) -> OrderId:
    """`q-<instance>-<epoch>-<decision>-<leg>`: at most 36 characters of the alphabet that every large exchange takes.

    `instance` is cut to eight characters; epoch counts the sessions of a state folder.
    """
    return OrderId(f"q-{instance[:8]}-{base36(epoch)}-{base36(decision)}-{base36(leg)}")


def epoch_of(order_id: str) -> int | None:
    """The session that made a client order id of ours; None where it is not one."""
    parts = order_id.split("-")
    if len(parts) != 5 or parts[0] != "q":
        return None
    try:
        return int(parts[2], 36)
    except ValueError:
        return None


def is_ours(order_id: str, instance: str) -> bool:
    """Whether a client order id carries this instance's prefix."""
    return order_id.startswith(f"q-{instance[:8]}-")
