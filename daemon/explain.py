"""The whole story of one decision or order, from the record alone: seen, wished, limited, sent, come back, learned."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from agents.core.errors import DataError
from agents.core.events import Adopted, BookSnapshot, Fill, OrderUpdate, Quote
from agents.core.orders import Amend, Cancel, Command, Place
from agents.desk.wishes import ORDER
from daemon.archive import Archive, Decided, cancelled, created
from daemon.explain_text import render
from daemon.journal import SessionRow

__all__ = ["explain", "render"]

BPS = Decimal(10_000)
LONGEST = 128
"""Characters of a name: looking for what is near to a longer one would take the processor for seconds."""
_SILENT = ("pending", "unknown")
"""States that are no answer of the exchange."""


@dataclass(frozen=True, slots=True)
class _Case:
    """What is to be explained: a decision, and the one order of it that was asked for, if any."""

    archive: Archive
    session: SessionRow
    decided: Decided
    order: str | None = None


def explain(folder: Path, what: str, session: str = "last") -> dict[str, Any]:
    """Everything that is recorded about `what`, as plain JSON values; `render` makes it a page.

    `what` is a decision's number (in `session`), SESSION:NUMBER, an order's id of ours, or the exchange's. Raises DataError, with
    the nearest names, for what is not there.
    """
    if len(what) > LONGEST or not what.isprintable():
        raise DataError(f"no decision and no order is called so: give at most {LONGEST} printable characters")
    case = _find(Archive(folder), what.strip(), session)
    decided, record = case.decided, case.decided.record
    commands = case.archive.commands_at(decided.epoch, decided.seq)
    wishes = _wishes(case)
    books = _books(case, _symbols(record, wishes, commands))
    return {
        "session": case.session.name,
        "decision": decided.number,
        "order": case.order,
        "at": decided.at,
        "market_time": record["time"],
        "spoke": record["agents"],
        "seen": {
            "market": {symbol: _seen(book, decided.at) for symbol, book in books.items()},
            "observations": record["observations"],
            "equity": record.get("equity"),
            "drawdown": record.get("drawdown"),
        },
        "because": _because(case),
        "wished": wishes,
        "limited": _limited(record),
        "refused": record["refusals"],
        "sent": _sent(case, commands, books),
        "cancels": cancelled(commands) if case.order is None else [],
        "learned": _learned(case, wishes),
        "weights": _weights(case),
        "note": _note(case, what.strip()),
    }


# -- which one ---------------------------------------------------------------------------------------------------------


def _find(archive: Archive, what: str, session: str) -> _Case:
    name, colon, number = what.rpartition(":")
    if colon and _is_number(number):
        return _decision(archive, archive.session(name), int(number))
    if what == "last":
        row = archive.session(session)
        return _decision(archive, row, archive.numbers(row.epoch)[1])
    if _is_number(what):
        row = archive.session(session)
        first, last = archive.numbers(row.epoch)
        if first <= int(what) <= last or (order := archive.called(what)) is None:
            return _decision(archive, row, int(what))
        return _order(archive, order)
    if archive.made_by(what) is not None:
        return _order(archive, what)
    if (order := archive.called(what)) is not None:
        return _order(archive, order)
    near = difflib.get_close_matches(what, archive.names(), n=3, cutoff=0.4)
    nearest = f"; the nearest are {', '.join(near)}" if near else ""
    row = archive.session(session)
    first, last = archive.numbers(row.epoch)
    raise DataError(f"no decision or order {what!r}{nearest}; session {row.name} has decisions {first} to {last}")


def _is_number(text: str) -> bool:
    """Whether this can be a decision's number; exchanges have longer ones for orders."""
    return text.isdecimal() and len(text) <= 18


def _decision(archive: Archive, row: SessionRow, number: int) -> _Case:
    decided = archive.decision(row.epoch, number)
    if decided is None:
        first, last = archive.numbers(row.epoch)
        there = f"it has decisions {first} to {last}" if last else "it made none"
        raise DataError(f"session {row.name} has no decision {number}: {there}")
    return _Case(archive, row, decided)


def _order(archive: Archive, order: str) -> _Case:
    made = archive.made_by(order)
    if made is None:
        raise DataError(f"order {order} is known by what the exchange said of it only: the session that asked for it is in another state folder")
    epoch, seq = made
    decided = archive.decision_at(epoch, seq)
    if decided is None:
        raise DataError(f"order {order} was asked for at fact {seq} of session {epoch}, whose decision is not in the journal")
    return _Case(archive, archive.session(str(epoch)), decided, order)


def _note(case: _Case, what: str) -> str:
    """A number may be a decision's and an order's at once."""
    if what.isdecimal() and case.order is None and (order := case.archive.called(what)) is not None:
        return f"the exchange calls an order {what} as well: quartet explain {order}"
    return ""


# -- what was seen and wished ------------------------------------------------------------------------------------------


def _wishes(case: _Case) -> list[dict[str, Any]]:
    """The wishes that the decision was made of: its own, and of agents that did not speak their latest before it."""
    found = [_wish(wish, case.decided, case.decided) for wish in case.decided.record["wishes"]]
    if case.decided.record.get("target") is None:
        return found  # the kill path asks nobody
    spoke = {wish["agent"] for wish in found}
    for agent in ORDER:
        if agent not in spoke and (earlier := case.archive.wished_before(case.decided.epoch, case.decided.number, agent)) is not None:
            found += [_wish(wish, earlier, case.decided) for wish in earlier.record["wishes"] if wish["agent"] == agent]
    return found


def _wish(wish: Mapping[str, Any], made: Decided, now: Decided) -> dict[str, Any]:
    numbers = {name: value for name, value in wish.items() if name not in ("agent", "symbol", "action")}
    age = (now.record["time"] - made.record["time"]) / 1e9
    return {
        "agent": wish["agent"], "symbol": wish["symbol"], "action": wish["action"], "numbers": numbers,
        "decision": made.number, "market_time": made.record["time"], "age_s": age,
    }  # fmt: skip


def _symbols(record: Mapping[str, Any], wishes: Sequence[Mapping[str, Any]], commands: Sequence[Command]) -> list[str]:
    named = [*record.get("target", {}), *(wish["symbol"] for wish in wishes), *(command.symbol for command in commands)]
    return sorted({symbol for symbol in named if symbol})


def _books(case: _Case, symbols: Sequence[str]) -> dict[str, Quote | BookSnapshot]:
    return case.archive.books_at(case.session.name, case.decided.seq, symbols)


def _touch(book: Quote | BookSnapshot) -> tuple[Decimal, Decimal] | None:
    if isinstance(book, Quote):
        return book.bid, book.ask
    return (book.bids[0][0], book.asks[0][0]) if book.bids and book.asks else None


def _mid(book: Quote | BookSnapshot | None) -> Decimal | None:
    touch = _touch(book) if book is not None else None
    return None if touch is None else (touch[0] + touch[1]) / 2


def _seen(book: Quote | BookSnapshot, at: int) -> dict[str, Any]:
    age = (at - book.stamp.at) / 1e9
    if (touch := _touch(book)) is None:
        return {"bid": None, "ask": None, "mid": None, "spread_bps": None, "age_s": age}
    bid, ask = touch
    mid = (bid + ask) / 2
    return {"bid": str(bid), "ask": str(ask), "mid": str(mid), "spread_bps": float((ask - bid) / mid * BPS) if mid else None, "age_s": age}


def _because(case: _Case) -> dict[str, Any] | None:
    """The operator's word behind a decision of the kill path."""
    if case.decided.record.get("solver") != "kill_path":
        return None
    word = case.archive.operator_before(case.decided.epoch, case.decided.seq)
    return None if word is None else {"word": type(word).__name__.lower(), "reason": getattr(word, "reason", ""), "at": word.stamp.at}


def _limited(record: Mapping[str, Any]) -> dict[str, Any]:
    target, safe = record.get("target", {}), record.get("safe", {})
    return {
        "solver": record.get("solver"),
        "rung": record.get("rung"),
        "weights": {
            symbol: {"wished": target.get(symbol), "allowed": safe.get(symbol)} for symbol in sorted({*target, *safe})
        },
        "bound": record.get("bound", []),
        "trusted": record.get("trusted", {}),
        "reasons": record.get("reasons", {}),
    }  # fmt: skip


# -- what was sent, what came back -------------------------------------------------------------------------------------


def _sent(case: _Case, commands: Sequence[Command], books: Mapping[str, Quote | BookSnapshot]) -> list[dict[str, Any]]:
    orders = [(name, command) for name, command in created(commands) if case.order in (None, name)]
    return [_life(case, name, command, _mid(books.get(command.symbol))) for name, command in orders]


def _life(case: _Case, order: str, command: Command, mid: Decimal | None) -> dict[str, Any]:
    """One order from its intent to its end."""
    facts = list(case.archive.order_facts(order))
    fills = _once([fact for fact in facts if isinstance(fact, Fill)])
    updates = [fact for fact in facts if isinstance(fact, OrderUpdate)]
    answer = next((fact for fact in facts if isinstance(fact, Fill) or (isinstance(fact, OrderUpdate) and fact.state.value not in _SILENT)), None)
    quantity = sum((fill.quantity for fill in fills), Decimal(0))
    average = sum((fill.price * fill.quantity for fill in fills), Decimal(0)) / quantity if quantity else None
    fees: dict[str, Decimal] = {}
    for fill in fills:
        fees[fill.fee_currency] = fees.get(fill.fee_currency, Decimal(0)) + fill.fee
    side = command.side.value if isinstance(command, Place | Amend) else 0
    return {
        "order": order,
        "command": _asked(command),
        "venue_order": next((fact.venue_order_id for fact in reversed(facts) if isinstance(fact, OrderUpdate | Adopted) and fact.venue_order_id), ""),
        "sent_at": case.decided.at,
        "answered_ms": None if answer is None else (answer.stamp.at - case.decided.at) / 1e6,
        "updates": [
            {"at": update.stamp.at, "after_ms": (update.stamp.at - case.decided.at) / 1e6, "state": update.state.value, "reason": update.reason}
            for update in updates
        ],
        "fills": [
            {"at": fill.stamp.at, "trade": fill.trade_id, "quantity": str(fill.quantity), "price": str(fill.price), "fee": str(fill.fee),
             "fee_currency": fill.fee_currency, "maker": fill.maker}
            for fill in fills
        ],
        "filled": str(quantity),
        "average_price": None if average is None else str(average.quantize(Decimal("1e-8")).normalize()),
        "fees": {currency: str(fee) for currency, fee in fees.items()},
        "slippage_bps": float(side * (average - mid) / mid * BPS) if average is not None and mid else None,
        "end": updates[-1].state.value if updates else "filled" if fills else "no answer recorded",
        "later": _later(case, order),
    }  # fmt: skip


def _once(fills: Sequence[Fill]) -> list[Fill]:
    """The stream and the exchange's own list may both tell a fill; and an adopted order's fills may be told by two sessions."""
    return list({(fill.symbol, fill.trade_id): fill for fill in fills}.values())


def _asked(command: Command) -> dict[str, Any]:
    if isinstance(command, Cancel):
        return {"kind": "cancel", "symbol": command.symbol}
    asked = {
        "kind": type(command).__name__.lower(), "symbol": command.symbol, "side": command.side.name.lower(),
        "quantity": str(command.quantity), "price": None if command.price is None else str(command.price),
    }  # fmt: skip
    if isinstance(command, Amend):
        return {**asked, "replaces": command.order_id}
    flags = [name for name in ("post_only", "reduce_only") if getattr(command, name)]
    trigger = None if command.trigger_price is None else str(command.trigger_price)
    return {**asked, "time_in_force": command.time_in_force.value, "flags": flags, "trigger_price": trigger, "shares": dict(command.shares)}


def _later(case: _Case, order: str) -> list[dict[str, Any]]:
    """Cancels and amendments of the order, with the decisions that asked for them."""
    found = []
    for epoch, seq, command in case.archive.commands_on(order):
        if not isinstance(command, Place):
            decided = case.archive.decision_at(epoch, seq)
            after = None if decided is None else (decided.at - case.decided.at) / 1e6
            found.append({
                "kind": type(command).__name__.lower(), "session": epoch, "decision": None if decided is None else decided.number, "after_ms": after,
            })  # fmt: skip
    return found


# -- what was learned --------------------------------------------------------------------------------------------------


def _learned(case: _Case, wishes: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What each wish turned out to be worth. Nothing until its agent spoke again."""
    moments = {(wish["agent"], wish["market_time"], wish["decision"]): None for wish in wishes}
    lessons = ((agent, number, case.archive.lesson(case.decided.epoch, agent, time)) for agent, time, number in moments)
    return [{"agent": agent, "decision": number, **lesson} for agent, number, lesson in lessons if lesson is not None]


def _weights(case: _Case) -> dict[str, Any]:
    asked = case.decided.record.get("solver") != "kill_path"  # which asks no network
    then, since = case.decided.record.get("weights", {}) if asked else {}, case.archive.weights_after(case.decided.epoch, case.decided.seq)
    return {
        "then": then.get("version"),
        "digest": then.get("digest", ""),
        "now": since[-1].version if since else then.get("version"),
        "since": len(since),
        "next_after_s": (since[0].stamp.at - case.decided.at) / 1e9 if since else None,
    }
