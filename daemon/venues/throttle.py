"""Patience with an exchange: back-off after failures, silence while banned, a bound on requests at a time.

ccxt's own throttler spaces the calls of one exchange object; this adds what it lacks: `Retry-After` is honoured, nothing
is called while banned, every request has an end, and cancels never queue behind new orders.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from ccxt.base.errors import DDoSProtection, RateLimitExceeded

from agents.core.errors import Throttled

T = TypeVar("T")

DEFAULT_BAN_S = 10.0
"""Pause after a 429 without Retry-After."""
HARD_BAN_S = 120.0
"""Pause after a 418 without Retry-After: the exchange has already banned this address; its shortest ban is two minutes."""
_BANNED_UNTIL = re.compile(r"banned until (\d{13})")


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
    for name, value in dict(headers or {}).items():
        if name.lower() == "retry-after":
            try:
                return min(max(float(value), 0.5), 3 * 86_400.0)
            except ValueError:
                break
    return HARD_BAN_S if " 418 " in f" {error} " or _BANNED_UNTIL.search(str(error)) else DEFAULT_BAN_S


class Throttle:
    """The gate before all REST calls of one exchange object."""

    def __init__(self, timeout_s: float, concurrency: int = 8, urgent: int = 4) -> None:
        self._timeout_s = timeout_s
        self._lanes = {False: asyncio.Semaphore(concurrency), True: asyncio.Semaphore(urgent)}
        self._until = 0.0
        self.bans = 0

    def banned_s(self) -> float:
        """Seconds until calls are allowed again, 0 when they are."""
        return max(0.0, self._until - asyncio.get_running_loop().time())

    def heed(self, error: BaseException, headers: Any) -> None:
        """Take note of an error; if it is a ban, no call is made until it ends."""
        if (pause := ban_seconds(error, headers)) is not None:
            self.bans += 1
            self._until = max(self._until, asyncio.get_running_loop().time() + pause)

    async def call(
        self, exchange: Any, request: Callable[[], Awaitable[T]], *, urgent: bool = False, wait_for_ban: bool = True
    ) -> T:
        """One request with its own time-out, which raises TimeoutError.

        While banned it waits, or raises Throttled when `wait_for_ban` is off (nothing was sent then).
        """
        while (pause := self.banned_s()) > 0:
            if not wait_for_ban:
                raise Throttled(f"the exchange wants no request for another {pause:.0f} s")
            await asyncio.sleep(pause)
        async with self._lanes[urgent]:
            try:
                async with asyncio.timeout(self._timeout_s):
                    return await request()
            except (DDoSProtection, RateLimitExceeded) as error:
                self.heed(error, getattr(exchange, "last_response_headers", None))
                raise
