"""`quartet reconcile` without a running daemon: says what the next start would do, and does it on the operator's word."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from agents.core.events import Adjustment, AdjustmentKind, Event, Fill, OrderUpdate
from agents.core.instruments import Currency
from daemon.door import Door
from daemon.journal import Journal
from daemon.left import Left
from daemon.recovery import Recovery, recover
from daemon.starting import (
    Account,
    asked,
    hand_over,
    of_this_account,
    what_was_left,
    with_earlier,
)
from daemon.state_folder import Occupied

WINDOW_S = 15.0
"""How long an order that the exchange denies is looked for before it is closed: longer than a signed request stays valid."""
_MOVES = frozenset({AdjustmentKind.DEPOSIT, AdjustmentKind.WITHDRAWAL, AdjustmentKind.CORRECTION, AdjustmentKind.FEE})
Describe = Callable[[int], Mapping[str, Any]]
"""The journal's configuration of a session with that epoch: engine, settings, versions."""


async def reconcile(
    folder: Path, venue: Account, quote: Currency, allocation: Decimal, instance: str, origin: str, *, apply: bool, door: Door,
    describe: Describe, name: str = "reconcile", window_s: float = WINDOW_S,
) -> dict[str, Any]:  # fmt: skip
    """What a start would find and do, as JSON values. The folder must be held and no daemon running.

    With `apply` strays are cancelled, orders that the exchange denies over the window are closed, and whatever nothing explains is
    booked as a correction: a session of its own in the journal, from which the next start goes on. Raises what a start raises.
    """
    reader, left, epoch = what_was_left(folder, origin)
    left, truth = await of_this_account(
        reader, left, lambda known: venue.truth(asked(known, window_s if apply else 0.0)), allocation if apply else None
    )
    complete = with_earlier(reader, left, truth, instance)
    refused = ""
    try:
        recovery = recover(complete, truth, quote, allocation, instance, epoch=epoch, insist=apply)
    except Occupied as error:
        refused = str(error)
        recovery = recover(complete, truth, quote, allocation, instance, epoch=epoch, insist=True)
    if not apply:
        return _described(recovery, left, applied=False, refused=refused)
    report = _described(recovery, left, applied=True)
    await hand_over(venue, recovery)
    if recovery.strays:  # what they traded before they were gone is part of the truth
        truth = replace(await venue.truth(asked(left)), gone=truth.gone)
        recovery = recover(with_earlier(reader, left, truth, instance), truth, quote, allocation, instance, epoch=epoch, insist=True)
        report = {**_described(recovery, left, applied=True), "strays": report["strays"]}
    kept = {**describe(recovery.epoch), "origin": origin, "opened_with": recovery.opened_with()}
    report["session"] = await _written(folder, name, door, recovery.events, kept)
    return report


async def _written(folder: Path, name: str, door: Door, events: tuple[Event, ...], config: dict[str, Any]) -> str:
    """A session that consists of its opening."""
    journal = Journal(folder, name, door.now(), {})
    journal.describe(config)
    for event in events:
        door.push(event)
    door.close()
    async with asyncio.timeout(60.0):
        async for event in door.events():
            journal.append(event)
    journal.close(door.last, {"session": journal.name, "reconciled": True})
    return journal.name


def _described(recovery: Recovery, left: Left | None, *, applied: bool, refused: str = "") -> dict[str, Any]:
    updates = [event for event in recovery.events if isinstance(event, OrderUpdate)]
    moves = [event for event in recovery.events if isinstance(event, Adjustment) and event.kind in _MOVES]
    return {
        "applied": applied,
        "refused": refused,
        "last_session": left.epoch if left is not None else None,
        "clean": not recovery.differences and not refused,
        "differences": {c: {"ledger": str(ours), "venue": str(theirs)} for c, ours, theirs in recovery.differences},
        "fills": [
            {"order_id": f.order_id, "symbol": f.symbol, "trade_id": f.trade_id, "side": f.side.name.lower(), "price": str(f.price),
             "quantity": str(f.quantity)} for f in recovery.events if isinstance(f, Fill)
        ],
        "orders": [{"order_id": u.order_id, "symbol": u.symbol, "state": u.state.value, "reason": u.reason} for u in updates],
        "followed": [order.place.order_id for order in recovery.orders],
        "strays": [{"order_id": v.order_id, "symbol": v.symbol} for v in recovery.strays],
        "manual_orders": [_manual(v) for v in recovery.foreign],
        "booked": [{"currency": a.currency, "amount": str(a.amount), "kind": a.kind.value, "note": a.note} for a in moves],
        "notes": list(recovery.notes),
    }  # fmt: skip


def _manual(view: Any) -> dict[str, Any]:
    return {
        "venue_order_id": view.venue_order_id, "symbol": view.symbol, "side": view.side.name.lower() if view.side else None,
        "price": None if view.price is None else str(view.price), "quantity": None if view.quantity is None else str(view.quantity),
    }  # fmt: skip


def render(report: Mapping[str, Any]) -> str:
    """The same for a person, from `reconcile` here or from a running daemon."""
    would = "" if report.get("applied") else "would be "
    strays = [stray["order_id"] if isinstance(stray, Mapping) else stray for stray in report.get("strays", ())]
    differences = report.get("differences", {}).items()
    lines = [
        *(f"refused: {sentence}" for sentence in [report.get("refused")] if sentence),
        *(f"missed fill {would}booked: {f['side']} {f['quantity']} {f['symbol']} at {f['price']} ({f['order_id']})" for f in report.get("fills", ())),
        *(f"order {o['order_id']} ({o['symbol']}) is {o['state']} ({o['reason']})" for o in report.get("orders", ())),
        *(f"stray order {name} {would}cancelled" for name in strays),
        *(f"manual order {o['venue_order_id']} ({o['symbol']} {o['side']} {o['quantity']} at {o['price']}) is left alone"
          for o in report.get("manual_orders", ())),
        *(f"{would}booked: {m['amount']} {m['currency']} as {m['kind']} ({m['note'] or 'no note'})" for m in report.get("booked", ())),
        *(f"correction {would}booked: {amount} {currency}" for currency, amount in report.get("corrections", {}).items()),
        *(f"unexplained: {c} is {totals['ledger']} in the ledger and {totals['venue']} on the exchange" for c, totals in differences),
        *(f"another daemon's order {name} is open: stop that daemon, or give one of them another `instance`" for name in report.get("rivals", ())),
    ]  # fmt: skip
    if report.get("clean") and not report.get("refused"):
        lines.append("clean: ledger and exchange agree")
    elif not report.get("applied"):
        lines.append("only risk is reduced while this stands; `quartet reconcile --apply` books it as it is on the exchange")
    return "\n".join(lines)
