"""Who of several daemons on one account may trade: a lease in Redis, with an epoch that rises with every holder.

What is promised rests on time, not on Redis being right. The holder counts its lease from the moment *before* it asked, by its own
monotonic clock, and stops trading a margin before the end. Redis keeps the lease for the whole of its length from a later moment, and gives
it to nobody else meanwhile. A Redis that has just been started may have forgotten a lease: for the length of one, and a margin, it gives none.
No exchange checks a fencing token, so whoever sends must sign for no longer than `left_s` (see `daemon/venues/`).

Redis has to be one server, not a cluster with automatic failover: a replica may not know of the lease. Leases after Gray and Cheriton
(1989), "Leases: an efficient fault-tolerant mechanism for distributed file cache consistency".
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import structlog

from agents.core.errors import Unreachable

log = structlog.get_logger()

FREE, LOST = 0, -1
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds. The margin covers the two clocks' difference in speed, and a send that is on its way."""

    length_s: float = 5.0
    renew_s: float = 1.0
    margin_s: float = 1.0


class Store(Protocol):
    """Where the lease lies. Each call raises Unreachable when the outcome is not known."""

    async def acquire(self, holder: str, floor: int, length_s: float, wait_s: float) -> int:
        """The new epoch, above every earlier one and at least `floor`; FREE for none: it is held, or the store began less than `wait_s` ago."""
        ...

    async def renew(self, holder: str, epoch: int, length_s: float) -> bool:
        """Whether the lease is still this holder's; then it lasts `length_s` from now."""
        ...

    async def release(self, holder: str, epoch: int) -> None:
        """Give it back."""
        ...


class Lease:
    """One daemon's side of the lease. `now` is its monotonic clock in seconds."""

    def __init__(self, store: Store, holder: str, now: Callable[[], float], terms: Terms = Terms()) -> None:
        self._store, self._holder, self._now, self.terms = store, holder, now, terms
        self.epoch = FREE
        self._until = 0.0
        self._reachable = True
        self.waited_s = 0.0

    def left_s(self) -> float:
        """Seconds for which this daemon may still trade; 0 for not at all. What is sent now must have expired by then."""
        return max(self._until - self.terms.margin_s - self._now(), 0.0) if self.epoch > FREE else 0.0

    @property
    def status(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"held": self.left_s() > 0, "epoch": max(self.epoch, 0), "left_s": round(self.left_s(), 3), "reachable": self._reachable}

    async def acquire(self, floor: int) -> int:
        """Wait until the lease is ours; returns its epoch. A store that cannot be reached is waited for."""
        began = self._now()
        while True:
            asked = self._now()
            epoch = await self._reached(self._store.acquire(self._holder, floor, self.terms.length_s, self.terms.length_s + self.terms.margin_s))
            if epoch is not None and epoch > FREE:
                self.epoch, self._until, self.waited_s = int(epoch), asked + self.terms.length_s, asked - began
                if self.left_s() > 0:  # the answer may have taken longer than the lease lasts
                    log.info("lease_acquired", epoch=self.epoch, waited_s=round(self.waited_s, 3))
                    return self.epoch
                self.epoch = FREE
            await asyncio.sleep(self.terms.renew_s / 4)

    async def renew(self) -> bool:
        """Ask once for more time; whether it was given. The lease is lost for good where another has it."""
        asked = self._now()
        renewed = await self._reached(self._store.renew(self._holder, self.epoch, self.terms.length_s))
        if renewed:
            self._until = asked + self.terms.length_s
        elif renewed is False:
            log.error("lease_lost", epoch=self.epoch)
            self.epoch = LOST
        return bool(renewed)

    async def release(self) -> None:
        """Give it back, so that a standby need not wait. Trading must have ended, and what was signed must have expired."""
        if self.epoch > FREE:
            epoch, self.epoch = self.epoch, LOST
            await self._reached(self._store.release(self._holder, epoch))

    async def _reached(self, asked: Awaitable[T]) -> T | None:
        """The answer, or None where there is none; said once each way."""
        try:
            async with asyncio.timeout(self.terms.renew_s):
                answer = await asked
        except (Unreachable, TimeoutError) as error:
            if self._reachable:
                log.warning("lease_store_unreachable", error=str(error))
            self._reachable = False
            return None
        if not self._reachable:
            log.info("lease_store_reachable")
        self._reachable = True
        return answer
