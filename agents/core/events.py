"""Everything that can happen. An event is a fact: frozen, stamped once at the door, never edited.

`stamp` is when the fact entered the house (wall clock, or market time offline). `time` is the exchange's own market time in
nanoseconds UTC; on a rehearsal exchange it may run faster than the stamps. Cadences and elapsed times use `time`,
freshness and timeouts use `stamp`.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from decimal import Decimal
from enum import Enum
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

from agents.core.instruments import Currency, Instrument, Side, Symbol
from agents.core.orders import OrderId, OrderState, Place


class Stamp(NamedTuple):
    """When a fact entered the house: nanoseconds UTC, then order of arrival (one sequence over journal and tape)."""

    at: int
    seq: int = 0


UNSTAMPED = Stamp(0, 0)
Level = tuple[Decimal, Decimal]
"""(price, quantity)."""


@dataclass(frozen=True, slots=True)
class Quote:
    stamp: Stamp
    symbol: Symbol
    time: int
    bid: Decimal
    bid_quantity: Decimal
    ask: Decimal
    ask_quantity: Decimal


@dataclass(frozen=True, slots=True)
class Trade:
    """A public print; `side` is the aggressor's."""

    stamp: Stamp
    symbol: Symbol
    time: int
    trade_id: str
    price: Decimal
    quantity: Decimal
    side: Side


@dataclass(frozen=True, slots=True)
class BookSnapshot:
    """The top of the book, best first; copied, never shared with a client's cache."""

    stamp: Stamp
    symbol: Symbol
    time: int
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]


@dataclass(frozen=True, slots=True)
class BookDelta:
    """Level changes with absolute quantities, 0 removes; from tapes and raw captures only."""

    stamp: Stamp
    symbol: Symbol
    time: int
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    first_id: int
    final_id: int


@dataclass(frozen=True, slots=True)
class Bar:
    """A closed candle; `time` is its opening."""

    stamp: Stamp
    symbol: Symbol
    time: int
    timeframe: str
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal


@dataclass(frozen=True, slots=True)
class Funding:
    stamp: Stamp
    symbol: Symbol
    time: int
    rate: Decimal


@dataclass(frozen=True, slots=True)
class FeedGap:
    """The venue lost messages of one symbol: distrust the book until the next snapshot, and bars until repaired."""

    stamp: Stamp
    symbol: Symbol
    channel: str
    reason: str


@dataclass(frozen=True, slots=True)
class Listing:
    """An instrument's grid and fees, at start and whenever the exchange changes them."""

    stamp: Stamp
    instrument: Instrument


@dataclass(frozen=True, slots=True)
class OrderUpdate:
    """What is known of one order's state. `filled` is informative only: money moves by Fill alone."""

    stamp: Stamp
    order_id: OrderId
    symbol: Symbol
    state: OrderState
    venue_order_id: str = ""
    filled: Decimal | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Fill:
    """One own execution, unique by (symbol, trade_id). `fee` is what was paid, in `fee_currency`; negative is a rebate."""

    stamp: Stamp
    symbol: Symbol
    time: int
    order_id: OrderId
    trade_id: str
    side: Side
    price: Decimal
    quantity: Decimal
    fee: Decimal
    fee_currency: Currency
    maker: bool


@dataclass(frozen=True, slots=True)
class Balance:
    """The venue's own word on one currency; compared with the ledger, never copied into it."""

    stamp: Stamp
    currency: Currency
    total: Decimal
    free: Decimal


class AdjustmentKind(Enum):
    OPENING = "opening"
    CAPITAL = "capital"
    """How much of the quote currency this instance may use; moves no balance."""
    DEPOSIT = "deposit"
    WITHDRAWAL = "withdrawal"
    FEE = "fee"
    FUNDING = "funding"
    CORRECTION = "correction"
    CARRIED = "carried"
    """What an earlier session of this state folder left in our book; moves no balance. `note` is the average price.

    Negative takes out of the book, at its average price, what the account's owner has taken out of the account.
    """
    CARRIED_FEE = "carried_fee"
    """A fee in a third currency that an earlier session paid: it still counts in equity; moves no balance."""


@dataclass(frozen=True, slots=True)
class Adjustment:
    """Money that moved without a fill of ours."""

    stamp: Stamp
    currency: Currency
    amount: Decimal
    kind: AdjustmentKind
    note: str = ""


@dataclass(frozen=True, slots=True)
class Adopted:
    """An order of an earlier session of this account, which lives or whose fills are not all in. Only a start tells it.

    `filled` is the part whose fills are in the carried position already; later fills add to it. `created` is its old stamp.
    """

    stamp: Stamp
    place: Place
    state: OrderState
    venue_order_id: str
    filled: Decimal
    reported: Decimal
    created: int


@dataclass(frozen=True, slots=True)
class Reconciled:
    """Ledger held against venue, after all that can be explained was told: what differs, as (currency, ledger, venue).

    With nothing in it the account is clean; with anything only risk may be reduced.
    """

    stamp: Stamp
    differences: tuple[tuple[Currency, Decimal, Decimal], ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class RiskRestored:
    """The risk layer's memory of the earlier session: a restart is no way out of a drawdown. Equities in quote currency."""

    stamp: Stamp
    peak_equity: float
    capital: float
    drawdown: float
    rung: str


@dataclass(frozen=True, slots=True)
class Tick:
    """The metronome: time passes even when nothing happens."""

    stamp: Stamp


@dataclass(frozen=True, slots=True)
class Forecast:
    """A model's view of one symbol's return over a horizon; fills `reserved_*` columns once a forecaster exists."""

    stamp: Stamp
    symbol: Symbol
    time: int
    horizon_ns: int
    mean: float
    deviation: float


@dataclass(frozen=True, slots=True)
class NewWeights:
    """Actor weights for all four agents. `payload` is safetensors, `digest` its SHA-256, `spec` the ObservationSpec hash."""

    stamp: Stamp
    version: int
    digest: str
    spec: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Halt:
    """Operator: no exposure-raising order until Resume."""

    stamp: Stamp
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Resume:
    stamp: Stamp
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Flatten:
    """Operator: halt, cancel everything, sell what we hold."""

    stamp: Stamp
    reason: str = ""


@dataclass(frozen=True, slots=True)
class CancelAll:
    """Operator: take every order away once; what is decided afterwards may place again."""

    stamp: Stamp
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Reload:
    """Operator: other limits are in force from here on. `limits` is a JSON object of all fields of the risk layer's limits; empty: as before."""

    stamp: Stamp
    reason: str = ""
    limits: str = ""


@dataclass(frozen=True, slots=True)
class Leased:
    """Of several daemons on one account this one may trade (`held`), or not just now: then nothing new, and what rests goes."""

    stamp: Stamp
    held: bool


MarketEvent = Quote | Trade | BookSnapshot | BookDelta | Bar | Funding
"""High-rate facts: they go to the tape. All others go to the journal."""
Operator = Halt | Resume | Flatten | CancelAll | Reload
Account = OrderUpdate | Fill | Balance | Adjustment | Adopted | Reconciled | RiskRestored
Event = MarketEvent | FeedGap | Listing | Account | Tick | Forecast | NewWeights | Operator | Leased

MARKET_EVENTS = (Quote, Trade, BookSnapshot, BookDelta, Bar, Funding)

E = TypeVar("E", bound=Event)


_REST: dict[type, Callable[[Any], Any]] = {}


def stamped(event: E, stamp: Stamp) -> E:
    """The same fact with its stamp, which is every event's first field. Only the door and offline exchanges call this."""
    kind = type(event)
    rest = _REST.get(kind)
    if rest is None:
        names = [field.name for field in fields(kind)][1:]
        # dataclasses.replace says the same in six times the time, and this runs for every fact that comes in.
        rest = _REST[kind] = attrgetter(*names) if len(names) > 1 else lambda fact: tuple(getattr(fact, name) for name in names)
    return kind(stamp, *rest(event))
