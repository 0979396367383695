"""What outlets are told of a session: each fact and decision as a plain record, in order. Building it is left to whoever delivers it."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from agents.core.events import Event, Fill, NewWeights, OrderUpdate
from agents.core.orders import Amend, Cancel, Command, Place
from agents.desk.decision import Decision, Effects
from daemon.publish.outbox import Fact

MOST_OF_ONE = 1024
"""Facts that follow from one event at most: numbers of facts are those of events, this far apart."""


class Listener(Protocol):
    """Whoever is told; returns at once."""

    def put(self, fact: Fact) -> None: ...


class Mirror:
    """Hands what happened to all listeners; returns at once and cannot fail a decision."""

    def __init__(self, listeners: Sequence[Listener] = ()) -> None:
        self._listeners = list(listeners)

    def add(self, listener: Listener) -> None:
        """Tell this one too, from now on."""
        self._listeners.append(listener)

    def remove(self, listener: Listener) -> None:
        """Tell it no more."""
        self._listeners.remove(listener)

    def say(self, kind: str, at: int, body: Mapping[str, Any]) -> None:
        """Tell what is no fact of the market or the account: a line of the log, a message to people. Redis has no stream for these."""
        fact = Fact(kind, at, 0, lambda: body)
        for listener in self._listeners:
            listener.put(fact)

    def tell(self, event: Event, effects: Effects) -> None:
        """Take note of one fact and of what the engine made of it."""
        if not self._listeners:
            return
        for fact in facts(event, effects):
            for listener in self._listeners:
                listener.put(fact)


def facts(event: Event, effects: Effects) -> Iterator[Fact]:
    """What of an event and its effects is told outward; most events are the market's, and tell nothing."""
    at, number = event.stamp.at, event.stamp.seq * MOST_OF_ONE
    match event:
        case Fill():
            yield Fact("fills", at, number, partial(_fill, event))
        case OrderUpdate():
            yield Fact("orders", at, number, partial(_update, event))
        case NewWeights():
            learned = {"version": event.version, "digest": event.digest, "swapped": effects.swapped}
            yield Fact("learner", at, number, lambda: learned)
        case _:
            pass
    if (decision := effects.decision) is None:
        return
    yield Fact("decisions", at, number + 1, partial(_decision, decision))
    yield Fact("risk", at, number + 1, partial(_risk, decision))
    if decision.equity is not None:
        yield Fact("equity", at, number + 1, lambda: {"equity": decision.equity, "drawdown": decision.drawdown})
    for place, command in enumerate(decision.commands[: MOST_OF_ONE - 2], start=2):
        yield Fact("orders", at, number + place, partial(_command, command, decision.number))


def _decision(decision: Decision) -> Mapping[str, Any]:
    return {"number": decision.number, **decision.record()}


def _risk(decision: Decision) -> Mapping[str, Any]:
    record = decision.record()
    return {"rung": record.get("rung"), "drawdown": decision.drawdown, "solver": record["solver"], "bound": record.get("bound", [])}


def _fill(fill: Fill) -> Mapping[str, Any]:
    return {
        "order_id": fill.order_id, "trade_id": fill.trade_id, "symbol": fill.symbol, "side": fill.side.name.lower(),
        "price": str(fill.price), "quantity": str(fill.quantity), "fee": str(fill.fee), "fee_currency": fill.fee_currency, "maker": fill.maker,
    }  # fmt: skip


def _update(update: OrderUpdate) -> Mapping[str, Any]:
    return {
        "event": "update", "order_id": update.order_id, "symbol": update.symbol, "state": update.state.value,
        "venue_order_id": update.venue_order_id, "filled": str(update.filled), "reason": update.reason,
    }  # fmt: skip


def _command(command: Command, decision: int) -> Mapping[str, Any]:
    head = {"decision": decision, "order_id": command.order_id, "symbol": command.symbol}
    match command:
        case Place(side=side, quantity=quantity, price=price):
            return {"event": "place", **head, "side": side.name.lower(), "quantity": str(quantity), "price": None if price is None else str(price)}
        case Amend(quantity=quantity, price=price):
            return {"event": "amend", **head, "new_order_id": command.new_order_id, "quantity": str(quantity), "price": str(price)}
        case Cancel():
            return {"event": "cancel", **head}
