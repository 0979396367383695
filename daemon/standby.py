"""Waiting for the lease: a daemon that could trade and does not, says so, and knows what the one that trades would leave to it."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import structlog

from agents.core.errors import DataError, Unreachable
from agents.core.instruments import NS
from daemon import control, left_plain
from daemon.errors import TimedOut
from daemon.latch import Latch
from daemon.lease import Lease, Terms
from daemon.left_plain import Inherited
from daemon.service import Manager

log = structlog.get_logger()

BEAT_S = 1.0
READ_AGAIN_S = 0.5
PATIENCE_MS = 120_000
"""How long the service manager may wait for us after each beat, as long as it is told."""


def terms(length_s: float) -> Terms:
    """A fifth of the lease between two renewals, and a fifth as the margin."""
    return Terms(length_s, length_s / 5, length_s / 5)


class Standby:
    """Waits for one lease. `labels` say who we are."""

    def __init__(self, lease: Lease, labels: Mapping[str, str], now: Callable[[], int]) -> None:
        self._lease, self._labels, self._now = lease, labels, now
        self._since = now()
        self.stopped = asyncio.Event()

    def snapshot(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "session": "standby", **self._labels, "standby": True, "ready": False, "uptime_s": (self._now() - self._since) / NS,
            "lease": self._lease.status,
        }  # fmt: skip

    def answers(self, latch: Latch) -> dict[str, control.Answer]:
        """The operator's words that mean something here."""

        def stop(_: Mapping[str, Any]) -> dict[str, Any]:
            self.stopped.set()
            return {"accepted": "stop"}

        def halt(request: Mapping[str, Any]) -> dict[str, Any]:
            latch.set("halt", str(request.get("reason", "operator")), self._now())
            return {"accepted": "halt", "note": "this daemon stands by: it will not trade when it takes over, until resume"}

        def resume(request: Mapping[str, Any]) -> dict[str, Any]:
            latch.set("none", str(request.get("reason", "operator")), self._now())
            return {"accepted": "resume", "note": "this daemon stands by"}

        return {"status": lambda _: self.snapshot(), "stop": stop, "halt": halt, "resume": resume}

    @asynccontextmanager
    async def shown(self, folder: Path, manager: Manager, latch: Latch, follower: "Follower") -> AsyncIterator[None]:
        """Answer on the control socket, keep the service manager patient and follow the holder, while the context lasts."""
        async with control.serve(folder, self.answers(latch)), asyncio.TaskGroup() as tasks:
            beside = [tasks.create_task(self._beat(manager)), tasks.create_task(follower.run())]
            yield
            for task in beside:
                task.cancel()

    async def _beat(self, manager: Manager) -> None:
        said = False
        while True:
            await asyncio.sleep(BEAT_S)
            if not said:
                log.info("standby", what="another daemon trades this account, or Redis has just begun; this one waits for the lease")
                said = True
            manager.tell(STATUS="standby: another daemon trades this account", EXTEND_TIMEOUT_USEC=PATIENCE_MS * 1000)

    async def acquired(self, newest: Callable[[], int], patience_s: float | None) -> int | None:
        """The lease's epoch once it is ours; None where we were told to stop. Raises TimedOut after `patience_s`.

        `newest` is the newest session that anybody here has heard of: an epoch that is not above it is given back.
        """
        waiting = await _first(self._above(newest), self.stopped.wait(), patience_s)
        if waiting is TimedOut:
            raise TimedOut("another daemon holds the lease on this account (redis.lease): stop it first, or give the word to it")
        if self.stopped.is_set():
            await self._lease.release()  # it may have come in the same moment
            return None
        return self._lease.epoch

    async def _above(self, newest: Callable[[], int]) -> None:
        while True:
            await self._lease.acquire(newest() + 1)
            if self._lease.epoch > newest():
                return
            await self._lease.release()  # Redis has forgotten what we know


async def _first(one: Any, other: Any, patience_s: float | None) -> Any:
    """Wait for the first of two; the class TimedOut where neither came in time."""
    async with asyncio.TaskGroup() as tasks:
        both = [tasks.create_task(one), tasks.create_task(other)]
        done, _ = await asyncio.wait(both, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
        for task in both:
            task.cancel()
    return None if done else TimedOut


class Follower:
    """Reads, while standing by, what the holder leaves; remembers the newest, should Redis forget it."""

    def __init__(self, read: Callable[[], Awaitable[tuple[int, bytes] | None]], known: int) -> None:
        self._read, self.known = read, known
        self._kept: tuple[int, bytes] | None = None

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            with suppress(Unreachable, TimeoutError):  # the lease says so
                await self.look()
            await asyncio.sleep(READ_AGAIN_S)

    async def look(self) -> None:
        """Read once. Raises Unreachable."""
        found = await self._read()
        if found is not None and (self._kept is None or found[0] >= self._kept[0]):
            self._kept = found
            self.known = max(self.known, found[0])

    def inherited(self, epoch: int) -> Inherited:
        """What the session `epoch` goes on from. Raises DataError for what cannot be read."""
        if self._kept is None:
            return Inherited(epoch, None)
        legacy = left_plain.read(self._kept[1])
        if legacy.left.epoch != self._kept[0]:
            raise DataError("what the last holder of the lease left in Redis is stamped wrongly: start from its own state folder")
        return Inherited(epoch, legacy.left, legacy.origin, legacy.latch)


def holder_name(machine: str) -> str:
    """Who we are, for the lease: unique for each start."""
    return f"{machine}-{os.getpid()}-{os.urandom(4).hex()}"
