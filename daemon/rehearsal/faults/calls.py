"""The exchange's calls with faults around them; what REST and the websocket API have in common."""

from collections.abc import Callable
from dataclasses import replace

from daemon.rehearsal import errors
from daemon.rehearsal.calls import Call, Table
from daemon.rehearsal.faults.catalogue import Border
from daemon.rehearsal.faults.plan import Armed, Facts, Plan
from daemon.rehearsal.faults.results import altered
from daemon.rehearsal.protocol import Params
from daemon.rehearsal.venue import Venue

_UNKNOWN_STATUS = "Timeout waiting for response from backend server. Send status unknown; execution status unknown."
_OVERLOADED = "Server is currently overloaded with other requests. Please try again in a few minutes."


class Spoiled(Exception):
    """An answer that does not arrive as it should; the border that the request came through knows how that looks."""

    def __init__(self, armed: Armed, result: object) -> None:
        super().__init__(armed.kind.name)
        self.armed = armed
        self.result = result
        """The honest answer; None where the call was not performed."""


def faulty_table(table: Table, plan: Plan, over: str) -> Table:
    """The same calls with the plan's faults; `over` is `rest` or `websocket`."""
    return Table.of(_around(call, plan, over) for call in table.by_path.values())


def _around(call: Call, plan: Plan, over: str) -> Call:
    function = call.function

    def faulty(venue: Venue, params: Params) -> object:
        facts: Facts = {**params.values, "call": call.name, "over": over, "security": call.security.value}
        armed = plan.strike(Border.CALL, facts)
        if armed is not None:
            _refuse(armed, plan, venue)
        if armed is not None and not armed.details.get("executed", True):
            raise Spoiled(armed, None)
        result = altered(function(venue, params), plan, facts, venue)
        if armed is None:
            return result
        if armed.kind.name == "answered_duplicate":
            raise errors.duplicate_order()
        raise Spoiled(armed, result)

    return replace(call, function=faulty)


_REFUSALS: dict[str, Callable[[Armed, Plan, Venue], errors.ApiError]] = {
    "overload_1008": lambda armed, plan, venue: errors.ApiError(-1008, _OVERLOADED, 503),
    "filter_1013": lambda armed, plan, venue: errors.filter_failure(str(armed.details["filter"])),
    "key_2015": lambda armed, plan, venue: errors.key_refused(),
    "throttled_429": lambda armed, plan, venue: errors.too_much_weight(venue.budget.weight_limit, _retry_after(armed, plan)),
    "banned_418": lambda armed, plan, venue: errors.banned(venue.real_ms() + 1000 * _retry_after(armed, plan), _retry_after(armed, plan)),
}
"""What is refused before it is performed."""


def _refuse(armed: Armed, plan: Plan, venue: Venue) -> None:
    refusal = _REFUSALS.get(armed.kind.name)
    if refusal is not None:
        raise refusal(armed, plan, venue)


def _retry_after(armed: Armed, plan: Plan) -> int:
    """Whole seconds: to the end of the fault where it has one."""
    left = plan.seconds_left(armed)
    return max(1, round(armed.detail("retry_after_s")) if left is None else int(left) + 1)


def unknown_status() -> errors.ApiError:
    """-1007, which says that nobody knows."""
    return errors.ApiError(-1007, _UNKNOWN_STATUS, 503)
