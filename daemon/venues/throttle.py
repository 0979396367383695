"""Patience with an exchange: back-off after failures, silence while banned, a bound on requests at a time.

The budget (`daemon/venues/budget.py`) paces and remembers bans for all processes; this is the gate of one account or feed in front of it:
every request has an end and a lane, nothing is called while banned, and cancels never queue behind new orders.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp
from ccxt.base.errors import BadResponse, BaseError, DDoSProtection, NetworkError, RateLimitExceeded

from agents.core.errors import Throttled
from daemon.venues.budget import (
    CALL,
    DEFAULT_BAN_S,
    HARD_BAN_S,
    LONGEST_BAN_S,
    ORDER_PATIENCE_S,
    Budget,
    Call,
    Lane,
    budget_of,
    retry_after,
)

T = TypeVar("T")

_BANNED_UNTIL = re.compile(r"banned until (\d{13})")
_TOLD_NOW, _TOLD_UNTIL = re.compile(r'"serverTime":\s*(\d{13})'), re.compile(r'"retryAfter":\s*(\d{13})')
"""What a websocket API tells in place of a Retry-After header, in milliseconds of the exchange's clock."""


class Backoff:
    """Delays that double from `first` to `limit` seconds, until something works."""

    def __init__(self, first: float = 0.25, limit: float = 30.0) -> None:
        self._first, self._limit = first, limit
        self.failures = 0

    def failed(self) -> float:
        """Count one more failure; seconds to wait before the next attempt."""
        self.failures += 1
        return min(self._first * 2.0 ** min(self.failures - 1, 20), self._limit)

    def worked(self) -> bool:
        """Start again from the shortest delay; whether there had been failures."""
        had = self.failures > 0
        self.failures = 0
        return had


def ban_seconds(error: BaseException, headers: Any) -> float | None:
    """How long the exchange wants silence (seconds), or None when the error is not about too many requests.

    A refused key is no ban, although ccxt raises it as one once the key has worked before.
    """
    if not isinstance(error, DDoSProtection | RateLimitExceeded) or "-2015" in str(error):
        return None
    told = retry_after({name.lower(): value for name, value in dict(headers or {}).items()})
    if told is None and (now := _TOLD_NOW.search(str(error))) and (until := _TOLD_UNTIL.search(str(error))):
        told = (int(until[1]) - int(now[1])) / 1000
    if told is not None:
        return min(max(told, 0.5), LONGEST_BAN_S)
    return HARD_BAN_S if " 418 " in f" {error} " or _BANNED_UNTIL.search(str(error)) else DEFAULT_BAN_S


class Throttle:
    """The gate before all calls of one account or feed. `lane` is where its calls run unless they say otherwise."""

    def __init__(self, timeout_s: float, concurrency: int = 8, urgent: int = 4, lane: Lane = Lane.DATA) -> None:
        self.timeout_s = timeout_s
        self._lane = lane
        self._lanes = {False: asyncio.Semaphore(concurrency), True: asyncio.Semaphore(urgent)}
        self._until = 0.0
        self._budgets: list[Budget] = []
        self.bans = 0
        self.listener: Callable[[BaseError], None] | None = None
        """Hears every other error that ccxt raises."""

    def banned_s(self) -> float:
        """Seconds until calls are allowed again, 0 when they are; also when another process of this machine was told so."""
        now = asyncio.get_running_loop().time()
        return max(0.0, self._until - now, *(budget.banned_s(now) for budget in self._budgets))

    def heed(self, error: BaseException, headers: Any) -> None:
        """Take note of an error; if it is a ban, no call is made until it ends."""
        if (pause := ban_seconds(error, headers)) is not None:
            now = asyncio.get_running_loop().time()
            self.bans += 1
            self._until = max(self._until, now + pause)
            for budget in self._budgets:
                budget.ban(pause, now)

    async def call(
        self, exchange: Any, request: Callable[[], Awaitable[T]], *, urgent: bool = False, wait_for_ban: bool = True,
        call: Call | None = None,
    ) -> T:  # fmt: skip
        """One request with its own time-out, which raises TimeoutError. `call` names its lane and learns what was sent.

        While banned it waits, or raises Throttled when `wait_for_ban` is off (nothing was sent then).
        """
        call = call or Call(Lane.PROTECT if urgent else self._lane)
        self._know(exchange)
        while (pause := self.banned_s()) > 0:
            if not wait_for_ban:
                raise Throttled(f"the exchange wants no request for another {pause:.0f} s")
            await asyncio.sleep(pause)
        async with self._turn(urgent, call.lane):
            token = CALL.set(call)
            try:
                async with asyncio.timeout(self.timeout_s):
                    return await request()
            except (DDoSProtection, RateLimitExceeded) as error:
                if call.punished:  # the answer itself was heard, with its headers
                    self.bans += 1
                else:
                    self.heed(error, getattr(exchange, "last_response_headers", None))
                raise
            except BaseError as error:
                if self.listener is not None:
                    self.listener(error)
                raise
            except TimeoutError:
                raise
            except (aiohttp.ClientError, ConnectionError) as error:
                # aiohttp's own, where a websocket is written to while it closes: ccxt passes it on as it is
                raise NetworkError(f"{exchange.id}: {error!r}") from error
            except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
                # ccxt's parsers throw these at an answer without a body, or with a page in place of JSON
                raise BadResponse(f"{exchange.id}: an answer that cannot be read ({error!r})") from error
            finally:
                CALL.reset(token)

    @asynccontextmanager
    async def _turn(self, urgent: bool, lane: Lane) -> AsyncIterator[None]:
        """A place among the calls that run at a time; a new order does not wait for one until it is an old order."""
        try:
            async with asyncio.timeout(ORDER_PATIENCE_S if lane is Lane.ORDER else None):
                await self._lanes[urgent].acquire()
        except TimeoutError:
            raise Throttled(f"{ORDER_PATIENCE_S:g} s in the queue of requests") from None
        try:
            yield
        finally:
            self._lanes[urgent].release()

    def _know(self, exchange: Any) -> None:
        budget = budget_of(exchange)
        if budget is not None and budget not in self._budgets:
            self._budgets.append(budget)
