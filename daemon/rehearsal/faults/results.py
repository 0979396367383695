"""Answers whose content is wrong: fields missing, orders not yet shown, fills denied, somebody else's orders."""

from collections.abc import Callable

from daemon.rehearsal import errors
from daemon.rehearsal.faults.catalogue import Border
from daemon.rehearsal.faults.plan import Armed, Facts, Plan
from daemon.rehearsal.venue import Venue

Row = dict[str, object]
Alteration = Callable[[Armed, object, Venue], object]
_ZERO = "0.00000000"
FOREIGN_ID = 900_000_001
"""Order ids of the other account start here."""


def altered(result: object, plan: Plan, facts: Facts, venue: Venue) -> object:
    """The answer after every fault of its content; raises -2013 for an order that is not shown yet."""
    for armed in plan.candidates(Border.RESULT, facts):
        changed = _ALTERATIONS[armed.kind.name](armed, result, venue)
        if changed != result:
            plan.count(armed)
            result = changed
        if changed is None:
            raise errors.no_such_order()
    return result


def _each(result: object, change: Callable[[Row], Row | None]) -> object:
    """The rows of a list, or the one object, changed; None takes a row out (an object: there is no such order)."""
    if isinstance(result, list):
        return [row for row in map(change, result) if row is not None]
    return change(result) if isinstance(result, dict) else result


def _none_fields(armed: Armed, result: object, venue: Venue) -> object:
    fields = armed.details["fields"]
    blank = dict.fromkeys(fields if isinstance(fields, list) else [str(fields)])
    return _each(result, lambda row: {name: blank.get(name, value) if name in blank else value for name, value in row.items()})


def _order_unseen(armed: Armed, result: object, venue: Venue) -> object:
    shown_from = venue.real_ms() - armed.detail("lag_s") * 1000
    return _each(result, lambda row: None if _time(row) > shown_from else row)


def _time(row: Row) -> float:
    value = row.get("time")
    return float(value) if isinstance(value, int) else 0.0


def denied(row: Row) -> Row:
    """An order's row as if it had not filled: an order that is still open is new, one that filled was canceled."""
    if row.get("executedQty") in (_ZERO, None):
        return row
    done = row["status"] != "PARTIALLY_FILLED"
    changed = {**row, "status": "CANCELED" if done else "NEW", "executedQty": _ZERO, "cummulativeQuoteQty": _ZERO}
    return changed | {"fills": []} if "fills" in row else changed


def _ends_unfilled(armed: Armed, result: object, venue: Venue) -> object:
    return _each(result, denied)


def _foreign_orders(armed: Armed, result: object, venue: Venue) -> object:
    if not isinstance(result, list):
        return _foreign(FOREIGN_ID, venue)
    rows = [_foreign(FOREIGN_ID + number, venue) for number in range(round(armed.detail("rows")))]
    return rows if armed.details["instead"] else result + rows


def _foreign(order_id: int, venue: Venue) -> Row:
    public = next(iter(venue.markets))
    price, now = public.reference() or 1, venue.real_ms()
    return {
        "symbol": public.market_id, "orderId": order_id, "orderListId": -1, "clientOrderId": f"web_{order_id}",
        "price": f"{price:.8f}", "origQty": "1.00000000", "executedQty": _ZERO, "origQuoteOrderQty": _ZERO,
        "cummulativeQuoteQty": _ZERO, "status": "NEW", "timeInForce": "GTC", "type": "LIMIT", "side": "BUY",
        "stopPrice": _ZERO, "icebergQty": _ZERO, "time": now, "updateTime": now, "isWorking": True, "workingTime": now,
        "selfTradePreventionMode": "NONE",
    }  # fmt: skip


_ALTERATIONS: dict[str, Alteration] = {
    "none_fields": _none_fields,
    "order_unseen": _order_unseen,
    "ends_unfilled": _ends_unfilled,
    "foreign_orders": _foreign_orders,
    "key_withdraws": lambda armed, result, venue: _each(result, lambda row: {**row, "enableWithdrawals": True}),
}
