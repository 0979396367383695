"""The request budget of one exchange, shared by all processes of this machine: who may call now, and who must let others go first.

Costs and limits are ccxt's own (its rate limit counts `cost` units per window), corrected by what the exchange reports. ccxt awaits
`throttle(cost)` before each request, so no request goes around this. Nothing is sent while the exchange wants silence.
"""

import asyncio
import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import structlog

from agents.core.errors import Throttled
from daemon.venues.shared_window import SLOTS, PrivateWindow, SharedWindow, folder

log = structlog.get_logger(__name__)

UNKNOWN_WINDOW_S, CCXT_DEFAULT_S = 1.0, 60.0
"""ccxt's window of a minute is its default: where the exchange is not known to count by the minute, a minute's calls are not spent at once."""
WEIGHT_PER_COST = {"binance": 5.0}
"""Units of the exchange's own weight in one unit of ccxt's cost, where they differ."""
ORDER_PATIENCE_S = 1.0
"""How long a new order may wait for budget: an older one is another order."""
DEFAULT_BAN_S = 10.0
"""Pause after a 429 without Retry-After."""
HARD_BAN_S = 120.0
"""Pause after a 418 without Retry-After: the exchange has already banned this address; its shortest ban is two minutes."""
LONGEST_BAN_S = 3 * 86_400.0


class Lane(Enum):
    """Who asks. The value is the part of the budget up to which this lane may fill it: the rest is kept for the lanes above."""

    DATA = 0.7
    """Market data by polling, listings, history."""
    ORDER = 0.85
    """New orders."""
    PROTECT = 1.0
    """Cancels, look-ups of orders, fills, balances, the clock, heartbeats."""


@dataclass(slots=True)
class Call:
    """One call into ccxt: in which lane it runs, and what it has sent so far."""

    lane: Lane = Lane.DATA
    sent: int = 0
    wrote: bool = False
    """Whether a request that can change something has left."""
    last_wrote: bool = False
    """Whether the last request that left is such a one."""
    punished: bool = False
    """Whether an answer to it was a 429 or 418, and has been taken note of."""


CALL: ContextVar[Call | None] = ContextVar("call", default=None)
"""The call that the running task is in, for the hooks inside the ccxt object."""
_BUDGETS: "WeakValueDictionary[tuple[str, Path | None], Budget]" = WeakValueDictionary()


class Budget:
    """The budget of one host. `limit` is in ccxt's cost units per window of `window_s`; `share` is the part of it that we use."""

    def __init__(self, host: str, limit: float, window_s: float, share: float, place: Path | None) -> None:
        self.host, self.window_s, self.share = host, window_s, share
        self.limit = limit
        self.weight_per_cost = 1.0
        self.order_limits: dict[str, float] = {}
        """Header of an order count -> how many orders the exchange takes in that interval."""
        self.waits = 0
        slot_s = window_s / (SLOTS - 1)  # the oldest slot is let go as a whole: one more, so that nothing goes before its time
        self._window: PrivateWindow | SharedWindow = PrivateWindow(slot_s)
        if place is not None:
            try:
                self._window = SharedWindow(place / f"{_file_name(host)}.budget", slot_s)
            except OSError as error:
                log.warning("budget_not_shared", host=host, reason=str(error))
        self.shared = isinstance(self._window, SharedWindow)

    def take(self, cost: float, lane: Lane, now: float) -> float:
        """Spend `cost` and return 0, or spend nothing and return the seconds after which to ask again."""
        with self._window.held() as window:
            window.advance(now)
            if (pause := window.banned_until - now) > 0:
                return pause
            if lane is Lane.ORDER and (pause := window.orders_until - now) > 0:
                return pause
            if lane is not Lane.PROTECT and (pause := window.urgent_until - now) > 0:
                return pause
            room, used = self.limit * self.share * lane.value, window.used
            if used + cost <= room or used <= 0:
                window.add(cost)
                return 0.0
            self.waits += 1
            wait = window.until_free(min(used + cost - room, used), now)
            if lane is Lane.PROTECT:
                window.urgent_until = now + wait + window.slot_s
            return wait

    def reported(self, used: float, now: float) -> None:
        """The exchange's own count for its current interval, in cost units: more than ours means that others call, too."""
        with self._window.held() as window:
            window.advance(now)
            if used > window.used:
                window.add(used - window.used)

    def ban(self, pause_s: float, now: float) -> None:
        """The exchange wants silence: for every process of this machine."""
        with self._window.held() as window:
            window.bans += 1
            window.banned_until = max(window.banned_until, now + min(max(pause_s, 0.5), LONGEST_BAN_S))

    def hold_orders(self, pause_s: float, now: float) -> None:
        """No new order for a while; everything else goes on."""
        with self._window.held() as window:
            window.orders_until = max(window.orders_until, now + pause_s)

    def banned_s(self, now: float) -> float:
        """Seconds until calls are allowed again, 0 when they are."""
        with self._window.held() as window:
            return max(0.0, window.banned_until - now)

    def status(self, now: float) -> dict[str, Any]:
        """For the session's view."""
        with self._window.held() as window:
            window.advance(now)
            return {
                "used": round(window.used, 2), "limit": round(self.limit * self.share, 2), "window_s": self.window_s,
                "banned_s": round(max(0.0, window.banned_until - now), 1), "bans": window.bans, "waits": self.waits,
                "shared": self.shared, "unlocked": self._window.contended,
            }  # fmt: skip


def budget_for(exchange: Any, host: str, share: float, place: Path | None) -> Budget:
    """The one budget of a host in this process; `place` None keeps it to this process."""
    found = _BUDGETS.get((host, place))
    if found is None:
        window_s = float(getattr(exchange, "rollingWindowSize", 0) or 0) / 1000 or 2.0
        if window_s == CCXT_DEFAULT_S and not exchange.id.startswith("binance"):
            window_s = UNKNOWN_WINDOW_S
        found = Budget(host, max(window_s * 1000 / exchange.rateLimit, 1.0), window_s, share, place)
        found.weight_per_cost = WEIGHT_PER_COST.get(exchange.id, 1.0)
        _BUDGETS[host, place] = found
    return found


def shared_place(wanted: bool) -> Path | None:
    """Where budgets are shared between processes, or None; says so once where that cannot be."""
    if not wanted:
        return None
    place = folder()
    if place is None:
        log.warning("budget_not_shared", reason="no private folder in XDG_RUNTIME_DIR or the temporary folder")
    return place


def govern(exchange: Any, budget: Budget) -> None:
    """Make a ccxt object ask the budget before each request and tell it of each answer.

    `throttle` and `on_rest_response` are ccxt's own hooks; `fetch` is wrapped so that a call knows whether anything has left.
    """
    fetch, on_rest_response = exchange.fetch, exchange.on_rest_response

    async def throttle(cost: float | None = None) -> None:
        call = CALL.get() or Call()
        patience = ORDER_PATIENCE_S if call.lane is Lane.ORDER else float("inf")
        while (wait := budget.take(1.0 if cost is None else float(cost), call.lane, _now())) > 0:
            if wait > patience:
                raise Throttled(f"{budget.host}: no budget for a new order within {ORDER_PATIENCE_S:g} s")
            pause = min(wait, 1.0)
            patience -= pause
            await asyncio.sleep(pause)

    async def fetched(url: str, method: str = "GET", headers: Any = None, body: Any = None) -> Any:
        if (pause := budget.banned_s(_now())) > 0:
            raise Throttled(f"{budget.host} wants no request for another {pause:.0f} s")
        if (call := CALL.get()) is not None:
            call.sent += 1
            call.last_wrote = method != "GET"
            call.wrote = call.wrote or call.last_wrote
        return await fetch(url, method, headers, body)

    def answered(status: int, reason: str, url: str, method: str, headers: Mapping[str, str], *rest: Any) -> Any:
        _observe(budget, status, {name.lower(): value for name, value in headers.items()})
        return on_rest_response(status, reason, url, method, headers, *rest)

    exchange.throttle, exchange.fetch, exchange.on_rest_response = throttle, fetched, answered
    exchange.shared_budget = budget


def budget_of(exchange: Any) -> Budget | None:
    """The budget that governs a ccxt object, if one does."""
    found = getattr(exchange, "shared_budget", None)
    return found if isinstance(found, Budget) else None


def learn_limits(budget: Budget, rate_limits: list[Mapping[str, Any]]) -> None:
    """Take Binance's `rateLimits` in place of ccxt's guess."""
    seconds = {"SECOND": 1, "MINUTE": 60, "HOUR": 3600, "DAY": 86_400}
    for row in rate_limits:
        kind, number = row.get("rateLimitType"), int(row.get("intervalNum", 1))
        length = seconds.get(str(row.get("interval")), 0) * number
        if kind == "REQUEST_WEIGHT" and length:
            budget.limit = float(row["limit"]) / budget.weight_per_cost * budget.window_s / length
        elif kind == "ORDERS" and length:
            letter = str(row["interval"])[0].lower()
            budget.order_limits[f"x-mbx-order-count-{number}{letter}"] = float(row["limit"])


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header with small letters, or None."""
    try:
        return float(headers["retry-after"])
    except (KeyError, ValueError):
        return None


def _observe(budget: Budget, status: int, headers: Mapping[str, str]) -> None:
    now = _now()
    if status in (418, 429):
        pause = retry_after(headers)
        budget.ban(pause if pause is not None else (HARD_BAN_S if status == 418 else DEFAULT_BAN_S), now)
        if (call := CALL.get()) is not None:
            call.punished = True
    used = headers.get("x-mbx-used-weight-1m", "")
    if used.isdigit():
        budget.reported(float(used) / budget.weight_per_cost, now)
    for name, limit in budget.order_limits.items():
        count = headers.get(name, "")
        if count.isdigit() and float(count) >= limit * budget.share:
            budget.hold_orders(1.0, now)
            log.warning("order_count_high", host=budget.host, header=name, count=int(count), limit=int(limit))


def _file_name(host: str) -> str:
    return re.sub(r"[^a-zA-Z0-9.-]", "_", host)[:100]


def _now() -> float:
    return asyncio.get_running_loop().time()
