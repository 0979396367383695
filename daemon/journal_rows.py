"""Facts, intents and decisions as the journal's tables keep them; the emergency record keeps the same rows."""

from collections.abc import Sequence
from typing import Any

import orjson

from agents.core.codec import encode
from agents.core.events import Adopted, Event, Fill, OrderUpdate
from agents.core.orders import Command

Row = tuple[Any, ...]

ACCOUNT_KINDS = (
    "Listing", "Adjustment", "Adopted", "OrderUpdate", "Fill", "Reconciled", "RiskRestored", "Halt", "Resume", "Flatten", "CancelAll",
)  # fmt: skip
"""Facts from which the account is rebuilt; weights, which are most of a journal's bytes, are not among them."""
INSERTS = {
    "contents": "INSERT OR IGNORE INTO contents (digest, body) VALUES (?, ?)",
    "facts": "INSERT INTO facts (epoch, seq, at, kind, body, order_id) VALUES (?, ?, ?, ?, ?, ?)",
    "commands": "INSERT INTO commands (epoch, seq, leg, order_id, body) VALUES (?, ?, ?, ?, ?)",
    "decisions": "INSERT INTO decisions (epoch, number, seq, at, body) VALUES (?, ?, ?, ?, ?)",
    "lessons": "INSERT OR IGNORE INTO lessons (epoch, agent, time, version, body) VALUES (?, ?, ?, ?, ?)",
}


def order_of(event: Event) -> str | None:
    """The order that a fact is about."""
    match event:
        case OrderUpdate(order_id=order_id) | Fill(order_id=order_id):
            return order_id
        case Adopted(place=place):
            return place.order_id
        case _:
            return None


def fact_row(epoch: int, event: Event) -> Row:
    """A fact as the table keeps it."""
    row = encode(event)
    return (epoch, event.stamp.seq, event.stamp.at, row[0], orjson.dumps(row).decode(), order_of(event))


def command_rows(epoch: int, seq: int, wanted: Sequence[Command]) -> list[Row]:
    """Intents as the table keeps them."""
    return [(epoch, seq, leg, command.order_id, orjson.dumps(encode(command)).decode()) for leg, command in enumerate(wanted)]


def decision_row(epoch: int, number: int, seq: int, at: int, record: dict[str, Any]) -> Row:
    """A decision record (plain JSON values) as the table keeps it."""
    return (epoch, number, seq, at, orjson.dumps(record).decode())
