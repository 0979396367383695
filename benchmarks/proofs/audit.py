"""Holds the journal of a daemon against the truth of the rehearsal exchange that it traded on: every fill, order and coin."""

import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from agents.core.errors import TradingError
from agents.core.events import Adjustment, AdjustmentKind, Adopted, Event, Fill, Reconciled
from agents.core.instruments import Side
from agents.core.orders import Amend, Place, is_ours
from daemon.journal import JournalReader, SessionRow

ZERO = Decimal(0)
OPEN = ("NEW", "PARTIALLY_FILLED")
TradeKey = tuple[str, str]
"""(market id, trade id)."""
_OF_ACCOUNT = (AdjustmentKind.OPENING, AdjustmentKind.DEPOSIT, AdjustmentKind.WITHDRAWAL, AdjustmentKind.CORRECTION, AdjustmentKind.FEE)
_UNCALLED_FOR = (AdjustmentKind.DEPOSIT, AdjustmentKind.WITHDRAWAL, AdjustmentKind.CORRECTION)


@dataclass(frozen=True, slots=True)
class Truth:
    """The account as the exchange has it: total by currency, its rows of orders and of trades."""

    balances: Mapping[str, Decimal]
    orders: Sequence[Mapping[str, Any]]
    trades: Sequence[Mapping[str, Any]]

    @property
    def keys(self) -> dict[TradeKey, Mapping[str, Any]]:
        return {(row["symbol"], str(row["id"])): row for row in self.trades}

    def open_orders(self, instance: str, *, stops: bool = True) -> list[Mapping[str, Any]]:
        """Those of ours that rest; protective stops among them unless they are left out."""
        ours = [row for row in self.orders if row["status"] in OPEN and is_ours(row["clientOrderId"], instance)]
        return ours if stops else [row for row in ours if not row["type"].startswith("STOP")]


def truth(base_url: str) -> Truth:
    """Asked over REST, at one moment of the exchange; no fault touches the answer."""
    with urllib.request.urlopen(f"{base_url}/rehearsal/account", timeout=10) as answer:
        told = orjson.loads(answer.read())
    balances = {currency: Decimal(row["free"]) + Decimal(row["locked"]) for currency, row in told["balances"].items()}
    return Truth(balances, told["orders"], told["trades"])


@dataclass(slots=True)
class Books:
    """What the journal says, over all sessions and of its last one."""

    last: SessionRow
    fills: list[Fill]
    """Of all sessions."""
    intents: Counter[str]
    """Client order ids that any session meant to send."""
    events: list[Event]
    """Of the last session, without the market's flow."""
    ordered: set[str]
    """Client order ids that the last session placed or adopted."""
    placed: list[tuple[int, Place]]
    """What the last session meant to place, with the fact that caused it."""

    @property
    def recovered(self) -> bool:
        """Whether the last session came as far as its own word on the account."""
        return any(isinstance(event, Reconciled) for event in self.events)


def books(folder: Path) -> Books:
    """Read all of it. Raises DataError where a row cannot be read."""
    reader = JournalReader(folder)
    rows = reader.sessions()
    fills, intents, ordered, events, placed = [], Counter[str](), set[str](), list[Event](), list[tuple[int, Place]]()
    for row in rows:
        placed = []
        events = list(reader.facts(row.epoch))
        ordered = {event.place.order_id for event in events if isinstance(event, Adopted)}
        fills += [event for event in events if isinstance(event, Fill)]
        for seq, command in reader.commands(row.epoch):
            if isinstance(command, Place):
                placed.append((seq, command))
            order_id = command.order_id if isinstance(command, Place) else command.new_order_id if isinstance(command, Amend) else None
            if order_id is not None:
                intents[order_id] += 1
                ordered.add(order_id)
    return Books(rows[-1], fills, intents, events, ordered, placed)


def audit(found: Books, before: Truth | None, now: Truth, instance: str) -> list[str]:
    """Sentences of what is wrong. `before` is the exchange just before the last session started, `now` is just after its end."""
    wrong = [*_orders(found, now, instance), *_fills(found, before, now), *_bold(found)]
    if found.recovered:
        wrong += _money(found, now)
    for event in found.events:
        if isinstance(event, Adjustment) and event.kind in _UNCALLED_FOR:
            wrong.append(f"{found.last.name}: {event.kind.value} of {event.amount} {event.currency} that never happened ({event.note})")
    return wrong


def doubts(found: Books) -> list[str]:
    """Where the last session could not explain a difference. Under faults that is right: an exchange that hides a trade for seconds must be
    doubted, and until it is clear only risk may be reduced (`audit` sees to that)."""
    unclear = [event for event in found.events if isinstance(event, Reconciled) and event.differences]
    return [f"{found.last.name}: unexplained difference {event.differences} {event.note}" for event in unclear]


def _bold(found: Books) -> Iterable[str]:
    """New risk taken while a difference was unexplained."""
    verdicts = [(event.stamp.seq, bool(event.differences)) for event in found.events if isinstance(event, Reconciled)]
    for seq, place in found.placed:
        last = next((doubtful for at, doubtful in reversed(verdicts) if at <= seq), False)
        if last and place.side is Side.BUY:
            yield f"{found.last.name}: order {place.order_id} buys at fact {seq}, while a difference was unexplained"


def _orders(found: Books, now: Truth, instance: str) -> Iterable[str]:
    at_venue = Counter(row["clientOrderId"] for row in now.orders if is_ours(row["clientOrderId"], instance))
    for order_id, count in at_venue.items():
        if count > 1:
            yield f"order {order_id} is {count} times at the exchange"
        if found.intents[order_id] != 1:
            yield f"order {order_id} is at the exchange, and {found.intents[order_id]} times among the intents"
    if found.recovered:
        for row in now.open_orders(instance):
            if row["clientOrderId"] not in found.ordered:
                yield f"{found.last.name}: open order {row['clientOrderId']} is neither placed nor adopted by it"


def _fills(found: Books, before: Truth | None, now: Truth) -> Iterable[str]:
    told = Counter((fill.symbol.replace("/", ""), fill.trade_id) for fill in found.fills)
    yield from (f"trade {key} is {count} times in the journal" for key, count in told.items() if count > 1)
    yield from (f"trade {key} is in the journal and not at the exchange" for key in told.keys() - now.keys.keys())
    if before is not None and found.recovered:
        lost = before.keys.keys() - told.keys()
        yield from (f"{found.last.name}: trade {key} of order {before.keys[key]['orderId']} was there at its start, and is lost" for key in sorted(lost))


def _money(found: Books, now: Truth) -> Iterable[str]:
    """The last session's ledger plus the trades that it had no time to hear of must be what the exchange has."""
    told = {(fill.symbol.replace("/", ""), fill.trade_id) for fill in found.fills}
    account, own = defaultdict[str, Decimal](Decimal), defaultdict[str, Decimal](Decimal)
    for event in found.events:
        if isinstance(event, Adjustment):
            if event.kind in _OF_ACCOUNT:
                account[event.currency] += event.amount
            elif event.kind is AdjustmentKind.CARRIED:
                own[event.currency] += event.amount
        elif isinstance(event, Fill):
            base, quote = event.symbol.split("/")
            for book in (account, own):
                book[base] += event.side.value * event.quantity
                book[quote] -= event.side.value * event.quantity * event.price
                book[event.fee_currency] -= event.fee
    bases = {fill.symbol.replace("/", ""): fill.symbol.split("/") for fill in found.fills}
    everything = defaultdict[str, Decimal](Decimal)
    for key, row in now.keys.items():
        if (pair := bases.get(row["symbol"]) or _guess(row["symbol"], now.balances)) is None:
            yield f"trade {key} is in no market that we know"
            continue
        for book in (everything,) if key in told else (everything, account, own):
            _add(book, row, *pair)
    for currency in account.keys() | now.balances.keys():
        if account[currency] != now.balances.get(currency, ZERO):
            yield f"{found.last.name}: {account[currency]} {currency} in the books, {now.balances.get(currency, ZERO)} at the exchange"
    for currency in own.keys() | everything.keys():
        if own[currency] != everything[currency]:
            yield f"{found.last.name}: our own {currency} is {own[currency]} in the books, {everything[currency]} by all trades"


def _guess(market: str, currencies: Iterable[str]) -> list[str] | None:
    return next(([market.removesuffix(quote), quote] for quote in currencies if market.endswith(quote) and market != quote), None)


def _add(book: dict[str, Decimal], row: Mapping[str, Any], base: str, quote: str) -> None:
    sign = 1 if row["isBuyer"] else -1
    book[base] += sign * Decimal(row["qty"])
    book[quote] -= sign * Decimal(row["qty"]) * Decimal(row["price"])
    book[row["commissionAsset"]] -= Decimal(row["commission"])


def replayed(folder: Path, session: str) -> str | None:
    """None where the session replays to equal decisions, else what differs."""
    from daemon.replay import replay

    try:
        told = replay(folder, session)
    except TradingError as error:
        return f"{session} does not replay: {error}"
    return None if told["equal"] else f"{session} replays differently: {told['first_difference']}"


def put(page: Path, begin: str, end: str, text: str) -> None:
    """Put what was measured between its two marks in a page."""
    head, _, rest = page.read_text(encoding="utf-8").partition(begin)
    _, found, tail = rest.partition(end)
    assert found, f"{page} has no place between {begin} and {end}"
    page.write_text(f"{head}{begin}\n{text}\n{end}{tail}", encoding="utf-8")
