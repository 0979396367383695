"""What the journal says at the end of the last session of an account: where the next one goes on from."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agents.core.errors import DataError
from agents.core.events import UNSTAMPED, Adjustment, AdjustmentKind, Event, Fill, Reconciled, Resume, RiskRestored, Stamp
from agents.core.instruments import Currency, Symbol
from agents.core.ledger import Ledger
from agents.core.orders import Command, OrderId, Place
from daemon.journal import JournalReader, SessionRow
from daemon.venues.fills import Cursor, trade_key
from daemon.venues.parse import noted_trade

CALM = "calm"
"""The rung that an operator's resume leads to."""


@dataclass(frozen=True, slots=True)
class Left:
    """An account at the end of its last session. `at` is the last moment that session is known to have lived (ns)."""

    epoch: int
    at: int
    ledger: Ledger
    """With every order whose intent was committed, whatever became of it."""
    cursors: Mapping[Symbol, Cursor]
    """How far own trades were told."""
    risk: RiskRestored | None = None
    transfers: frozenset[str] = frozenset()
    """Deposits and withdrawals that are booked already, by the notes they were booked under."""
    earlier: frozenset[str] = frozenset()
    """Client ids of older sessions' orders whose trades turned up now; they are ours as well."""


def left_in(reader: JournalReader, origin: str) -> Left | None:
    """What the latest session of the account `origin` left; None when the journal has none. Raises DataError for a damaged one.

    A session that died before its opening was committed has sent nothing, and knows less than the one before it.
    """
    for row in reversed(reader.sessions()):
        if row.config.get("origin") == origin:
            facts = list(reader.account_facts(row.epoch))
            if "opened_with" not in row.config or any(isinstance(event, Reconciled) for event in facts):
                return _left_in(reader, row, facts)
    return None


def _left_in(reader: JournalReader, row: SessionRow, facts: Iterable[Event]) -> Left:
    opened: Mapping[str, Any] = row.config.get("opened_with") or {}
    try:
        cursors = {Symbol(symbol): cursor_of(kept) for symbol, kept in opened.get("cursors", {}).items()}
        quote = Currency(row.config["engine"]["quote"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"session {row.name} has a configuration that cannot be read ({error!r}): restore the latest backup") from error
    decided = _last_word(reader, row.epoch)
    return left_behind(row.epoch, row.started_at, quote, facts, reader.commands(row.epoch), cursors, opened.get("transfers", ()), decided)


def left_behind(
    epoch: int, started_at: int, quote: Currency, facts: Iterable[Event], commands: Iterable[tuple[int, Command]],
    cursors: Mapping[Symbol, Cursor], transfers: Iterable[str], decided: tuple[int, Mapping[str, Any]] | None = None,
) -> Left:  # fmt: skip
    """The same from facts and committed commands, each in order. `decided` is the last decision with an equity, and its fact."""
    ledger, at = Ledger(quote), started_at
    told: dict[Symbol, set[tuple[int, str]]] = {}
    booked = set(transfers)
    restored: RiskRestored | None = None
    resumed = -1
    waiting = iter(commands)
    upcoming = next(waiting, None)
    for event in facts:
        while upcoming is not None and upcoming[0] < event.stamp.seq:
            ledger.record(upcoming[1], Stamp(at, upcoming[0]))
            upcoming = next(waiting, None)
        ledger.apply(event)
        at = max(at, event.stamp.at)
        match event:
            case Fill():
                told.setdefault(event.symbol, set()).add(trade_key(event))
            case Adjustment(kind=AdjustmentKind.DEPOSIT | AdjustmentKind.WITHDRAWAL):
                booked.add(event.note)
            case Adjustment(kind=AdjustmentKind.CORRECTION) if (found := noted_trade(event.note)) is not None:
                told.setdefault(found[0], set()).add((found[2], found[1]))
            case RiskRestored():
                restored = event
            case Resume():
                resumed = event.stamp.seq
    while upcoming is not None:
        ledger.record(upcoming[1], Stamp(at, upcoming[0]))
        upcoming = next(waiting, None)
    reached = {symbol: _reached(cursors.get(symbol), told.get(symbol, set())) for symbol in cursors.keys() | told.keys()}
    return Left(epoch, at, ledger, reached, _risk(ledger, decided, restored, resumed), frozenset(booked))


def _reached(opening: Cursor | None, told: set[tuple[int, str]]) -> Cursor:
    if opening is None:  # a journal from before cursors were kept: what lies before our own first trade is none of ours
        numbers = [int(trade_id) for _, trade_id in told if trade_id.isdigit()]
        opening = Cursor(min(numbers, default=1) - 1, min((ms for ms, _ in told), default=0))
    return opening.beyond(told)


def _last_word(reader: JournalReader, epoch: int) -> tuple[int, Mapping[str, Any]] | None:
    """The session's last decision that knew the equity, with its fact's number."""
    found: tuple[int, Mapping[str, Any]] | None = None
    for _, seq, record in reader.decisions(epoch):
        if record.get("equity") is not None:
            found = seq, record
    return found


def _risk(ledger: Ledger, decided: tuple[int, Mapping[str, Any]] | None, restored: RiskRestored | None, resumed: int) -> RiskRestored | None:
    """The drawdown ladder at its last decision; where none was made, as the session itself had been given it."""
    capital = float(ledger.capital)
    if decided is None:
        return restored
    seq, record = decided
    equity, drawdown, rung = float(record["equity"]), float(record.get("drawdown") or 0.0), str(record.get("rung") or CALM)
    if not (math.isfinite(equity) and math.isfinite(drawdown) and drawdown < 1):
        return restored
    if resumed > seq:
        drawdown, rung = 0.0, CALM
    return RiskRestored(UNSTAMPED, equity / (1 - drawdown), capital, drawdown, rung)


def cursor_of(kept: Any) -> Cursor:
    """A cursor from its plain form. Raises TypeError or ValueError."""
    trade_id, ms, known = kept
    return Cursor(int(trade_id), int(ms), frozenset((int(at), str(name)) for at, name in known))


def plain_cursor(cursor: Cursor) -> list[Any]:
    """A cursor as JSON values."""
    return [cursor.trade_id, cursor.ms, sorted([at, name] for at, name in cursor.known)]


def known_orders(reader: JournalReader, names: Iterable[str], epochs: Mapping[str, int]) -> dict[OrderId, Place]:
    """Of these client order ids those that a session of this journal has asked for; `epochs` tells which session that would be."""
    wanted = set(names)
    found: dict[OrderId, Place] = {}
    for epoch in sorted({epochs[name] for name in wanted}):
        for _, command in reader.commands(epoch):
            if isinstance(command, Place) and command.order_id in wanted:
                found[command.order_id] = command
    return found
