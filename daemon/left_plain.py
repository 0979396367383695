"""What a session leaves, as JSON values and back: the facts from which another daemon rebuilds its ledger, and what stands beside them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import orjson

from agents.core.codec import decode, encode
from agents.core.errors import DataError
from agents.core.events import UNSTAMPED, Adjustment, AdjustmentKind, Adopted, Event, Listing, RiskRestored
from agents.core.instruments import Currency, Symbol
from agents.core.ledger import Ledger, Order
from daemon.latch import Kind, Latched
from daemon.left import Left, cursor_of, plain_cursor
from daemon.venues.fills import Cursor

ENDED = 256
"""Ended orders that are told as well, the newest: fills of theirs may come late."""


@dataclass(frozen=True, slots=True)
class Legacy:
    """What a daemon leaves to whoever trades after it. `origin` is the account (`daemon/opening.py`)."""

    left: Left
    origin: str
    latch: Latched


@dataclass(frozen=True, slots=True)
class Inherited:
    """What the session that starts under a lease is given: its number, and what the last holder left, where anybody did."""

    epoch: int
    left: Left | None
    origin: str = ""
    latch: Latched | None = None


def told(
    epoch: int, at: int, ledger: Ledger, cursors: Mapping[Symbol, Cursor], risk: RiskRestored | None, transfers: Iterable[str],
    origin: str, latch: Latched,
) -> bytes:  # fmt: skip
    """One JSON object."""
    kept = {
        "epoch": epoch, "at": at, "quote": ledger.quote, "fills": ledger.fill_count, "facts": [encode(fact) for fact in facts(ledger)],
        "cursors": {symbol: plain_cursor(cursor) for symbol, cursor in cursors.items()}, "transfers": sorted(transfers),
        "risk": None if risk is None else encode(risk), "origin": origin, "latch": [latch.kind, latch.reason, latch.at],
    }  # fmt: skip
    return orjson.dumps(kept)


def read(body: bytes) -> Legacy:
    """The same back. Raises DataError for what cannot be believed."""
    try:
        kept = orjson.loads(body)
        ledger = Ledger(Currency(kept["quote"]))
        for row in kept["facts"]:
            ledger.apply(_fact(row))
        ledger.fill_count = int(kept["fills"])
        cursors = {Symbol(symbol): cursor_of(row) for symbol, row in kept["cursors"].items()}
        risk = None if kept["risk"] is None else _fact(kept["risk"])
        if not (risk is None or isinstance(risk, RiskRestored)):
            raise ValueError("risk")
        kind, reason, at = kept["latch"]
        if kind not in get_args(Kind):
            raise ValueError("latch")
        left = Left(int(kept["epoch"]), int(kept["at"]), ledger, cursors, risk, frozenset(map(str, kept["transfers"])))
        return Legacy(left, str(kept["origin"]), Latched(kind, str(reason), int(at)))
    except (KeyError, TypeError, ValueError, AttributeError, DataError) as error:
        raise DataError(f"what the last holder of the lease left in Redis cannot be read ({error!r}): start from its own state folder") from error


def facts(ledger: Ledger) -> Iterator[Event]:
    """What makes an empty ledger like this one, as far as the next session goes on from it."""
    for _, instrument in sorted(ledger.instruments.items()):
        yield Listing(UNSTAMPED, instrument)
    for currency, amount in sorted(ledger.balances.items()):
        if amount:
            yield Adjustment(UNSTAMPED, currency, amount, AdjustmentKind.OPENING)
    for symbol in sorted(ledger.symbols()):
        price = str(ledger.average_price(symbol))
        yield Adjustment(UNSTAMPED, ledger.instruments[symbol].base, ledger.position(symbol), AdjustmentKind.CARRIED, price)
    if moved := ledger.flows[ledger.quote]:
        yield Adjustment(UNSTAMPED, ledger.quote, moved, AdjustmentKind.CARRIED)
    for currency, fee in sorted(ledger.foreign_fees.items()):
        yield Adjustment(UNSTAMPED, currency, fee, AdjustmentKind.CARRIED_FEE)
    if ledger.capital:
        yield Adjustment(UNSTAMPED, ledger.quote, ledger.capital, AdjustmentKind.CAPITAL)
    for order in _orders(ledger):
        yield Adopted(UNSTAMPED, order.place, order.state, order.venue_order_id, order.filled, order.reported, order.created)


def _orders(ledger: Ledger) -> list[Order]:
    """All that may still fill, and of the others the newest."""
    open_now = {order.place.order_id for order in ledger.live_orders()}
    ended = [order for order_id, order in ledger.orders.items() if order_id not in open_now]
    return [*ended[-ENDED:], *(order for order_id, order in ledger.orders.items() if order_id in open_now)]


def _fact(row: list[Any]) -> Event:
    fact = decode(row)
    if not hasattr(fact, "stamp"):
        raise ValueError(f"{row[0]} is no fact")
    return fact  # type: ignore[return-value]  # requests have no stamp
