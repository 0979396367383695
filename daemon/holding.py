"""The lease while a session lives: renewed, watched, told to the engine, given back at an orderly end.

While too little of it is left the engine opens nothing and takes away what rests; when another has it, the session ends.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import structlog

from agents.core.errors import TradingError
from agents.core.events import UNSTAMPED, Event, Leased
from daemon.lease import LOST, Lease

log = structlog.get_logger()

LOOK_S = 0.1


class LeaseLost(TradingError):
    """Another daemon may trade this account now."""


class Holding:
    """One session's. `now` is the lease's own clock, in seconds."""

    def __init__(self, lease: Lease, now: Callable[[], float]) -> None:
        self._lease, self._now = lease, now
        self._alive_until = 0.0
        self._tell: Callable[[Event], None] | None = None
        self._stop: Callable[[], None] = lambda: None
        self._told = True
        self._over = asyncio.Event()
        self.lost = ""
        """Why the lease is gone for good; empty while it is not."""

    @property
    def epoch(self) -> int:
        """The number of the session that trades under this lease."""
        return self._lease.epoch

    @property
    def status(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**self._lease.status, "lost": self.lost}

    def may_live_s(self) -> float:
        """Seconds for which what is signed now may be taken by the exchange."""
        left_s = 0.0 if self.lost else self._lease.left_s()
        self._alive_until = max(self._alive_until, self._now() + left_s)
        return left_s

    def attach(self, tell: Callable[[Event], None], stop: Callable[[], None]) -> None:
        """From now on there is a session: `tell` is its door, `stop` ends it in order. Raises LeaseLost where it is too late."""
        if self.lost:
            raise LeaseLost(self.lost)
        self._tell, self._stop = tell, stop

    def outrun(self, reason: str = "a later session has written what is left to a standby") -> None:
        """There is proof that another daemon trades: this one ends."""
        if not self.lost:
            self.lost = f"the lease is lost: {reason}; started again, this daemon stands by"
            log.error("lease_is_lost", reason=reason)
            if self._tell is not None and self._told:
                self._tell(Leased(UNSTAMPED, False))
            self._told = False
            self._over.set()
            self._stop()

    async def release(self) -> None:
        """Give it back once what was signed has expired."""
        await asyncio.sleep(max(self._alive_until - self._now(), 0.0))
        await self._lease.release()

    async def keep(self) -> None:
        """Renew and watch until the lease is lost. Raises LeaseLost where there is no session yet that could end in order."""
        async with asyncio.TaskGroup() as tasks:
            beside = [tasks.create_task(self._renew()), tasks.create_task(self._watch())]
            await self._over.wait()
            for task in beside:
                task.cancel()
        if self._tell is None:
            raise LeaseLost(self.lost)

    async def _renew(self) -> None:
        pause_s = self._lease.terms.renew_s
        while True:
            began = self._now()
            await self._lease.renew()
            if self._lease.epoch == LOST:
                self.outrun("another daemon has it, or nobody renewed it in time")
                return
            await asyncio.sleep(max(pause_s - (self._now() - began), pause_s / 4))

    async def _watch(self) -> None:
        """Tell the engine when too little is left to begin anything, and when there is enough again."""
        while True:
            held = self._lease.left_s() >= self._lease.terms.margin_s
            if held != self._told and self._tell is not None and not self.lost:
                self._told = held
                (log.info if held else log.warning)("lease_held_again" if held else "lease_runs_out", left_s=round(self._lease.left_s(), 2))
                self._tell(Leased(UNSTAMPED, held))
            await asyncio.sleep(LOOK_S)


@asynccontextmanager
async def kept(holding: Holding) -> AsyncIterator[Holding]:
    """Keep the lease while the context lasts, and give it back after an orderly end. After a failure it runs out by itself: what was
    signed may be alive. Raises LeaseLost at the end where it was lost.
    """
    try:
        async with asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(holding.keep())
            yield holding
            keeping.cancel()
    except BaseExceptionGroup as errors:
        raise _only(errors) from errors
    if holding.lost:
        raise LeaseLost(holding.lost)
    await holding.release()


def _only(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """What the body or the lease raised; the lease's word where both did."""
    found: BaseException = errors.subgroup(LeaseLost) or errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
