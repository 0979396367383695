"""The exchange's own dead-man switch: it cancels the account's orders when our heartbeat stops, whatever has become of us."""

import asyncio
from typing import Any

import structlog
from ccxt.base.errors import BaseError

from agents.core.errors import Throttled
from daemon.venues.client import Exchange
from daemon.venues.throttle import Throttle

log = structlog.get_logger(__name__)

SHORTEST_S, LONGEST_S = 10.0, 120.0
"""What the strictest exchange that has such a switch takes."""
STOP_S = 3.0
"""Patience with switching it off: the end of a session does not wait longer."""
BEATS = 3
"""Heartbeats in the time after which it fires: two may be lost."""


class DeadMan:
    """Keeps the switch of one account from firing for as long as `run` runs. `after_s` is when it fires without us."""

    def __init__(self, exchange: Exchange, throttle: Throttle, after_s: float) -> None:
        self._exchange, self._throttle = exchange, throttle
        self.after_s = min(max(after_s, SHORTEST_S), LONGEST_S)
        self.armed = False
        self._failures = self._beats = 0

    @property
    def status(self) -> dict[str, Any]:
        """For the session's view."""
        return {"armed": self.armed, "after_s": self.after_s, "beats": self._beats, "failures": self._failures}

    async def run(self) -> None:
        """Beat until cancelled. A beat that fails alarms and is tried again soon; it never ends trading."""
        failing = False
        while True:
            try:
                await self._set(self.after_s)
            except (BaseError, TimeoutError, Throttled) as error:
                self._failures += 1
                if not failing:
                    log.error("dead_man_failed", exchange=self._exchange.id, error=f"{type(error).__name__}: {error}"[:200])
                failing = True
                await asyncio.sleep(self.after_s / BEATS / BEATS)
                continue
            if failing:
                log.warning("dead_man_back", exchange=self._exchange.id)
            failing, self.armed = False, True
            self._beats += 1
            await asyncio.sleep(self.after_s / BEATS)

    async def stop(self) -> None:
        """Switch it off: what rests now rests because we want it to. A failure is told, not raised."""
        if not self.armed:
            return
        try:
            async with asyncio.timeout(STOP_S):
                await self._set(0.0)
            self.armed = False
        except (BaseError, TimeoutError, Throttled) as error:
            log.error("dead_man_not_stopped", fires_in_s=self.after_s, error=f"{type(error).__name__}: {error}"[:200])

    async def _set(self, after_s: float) -> None:
        switch = self._exchange.cancel_all_orders_after
        await self._throttle.call(self._exchange, lambda: switch(int(after_s * 1000)), urgent=True, wait_for_ban=False)
