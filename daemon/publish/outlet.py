"""What every outlet has in common: it connects, delivers from its outbox, and after a failure comes back on its own, saying so once each way."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol

import structlog

from daemon.publish.outbox import Fact, Outbox

Deliver = Callable[[Sequence[Fact]], Awaitable[None]]
"""Hands facts over, or raises one of the outlet's failures; an empty sequence is a heartbeat."""
Pump = Callable[[Deliver], Coroutine[Any, Any, None]]

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
MOST = 256
"""Facts of one delivery."""

_log = structlog.get_logger()


class Service(Protocol):
    """The far side: a broker or a server that may be slow, down or wrong."""

    name: str
    failures: tuple[type[Exception], ...]
    """What a broken connection, a refusal or a silence raises there."""

    async def session(self, pump: Pump) -> None:
        """Connect, call `pump` with what delivers, and disconnect. Raises one of `failures`."""
        ...


class Outlet:
    """One service and its outbox. `run` never ends by itself and never raises, whatever the service did."""

    def __init__(self, service: Service, outbox: Outbox, *, heartbeat_s: float = 1.0, patience_s: float = 5.0) -> None:
        self.outbox, self._service = outbox, service
        self._heartbeat_s, self._patience_s = heartbeat_s, patience_s
        self._pause_s = FIRST_PAUSE_S
        self._up = False
        self._told: str | None = None
        """The failure that was logged, until there is a delivery again."""
        self.failures = 0
        self._expected: tuple[type[Exception], ...] = (*service.failures, OSError, TimeoutError)

    @property
    def status(self) -> dict[str, Any]:
        """Plain JSON values."""
        box = self.outbox
        return {"up": self._up, "depth": len(box), "delivered": box.delivered, "lost": box.lost, "failures": self.failures, "error": self._told}

    async def run(self) -> None:
        """Deliver until cancelled."""
        while True:
            async with asyncio.TaskGroup() as group:  # keeps our cancellation where hanging up fails, and its error takes the cancellation's place
                group.create_task(self._session())
            await asyncio.sleep(self._pause_s)
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    async def _session(self) -> None:
        """From one connection to its end."""
        try:
            await self._service.session(self._pump)
        except* self._expected as errors:
            self._failed(first(errors))
        except* Exception as errors:  # noqa: BLE001 - a mistake, of ours or of the library: it must not end trading either
            self._failed(first(errors), unexpected=True)

    async def _pump(self, deliver: Deliver) -> None:
        while True:
            batch = await self.outbox.batch(MOST, self._heartbeat_s)
            async with asyncio.timeout(self._patience_s):
                await deliver(batch.facts)
            unless_cancelled()
            self.outbox.done(batch)
            self._delivered()

    def _delivered(self) -> None:
        if self._told is not None:
            _log.info("outlet_recovered", outlet=self._service.name, lost=self.outbox.lost)
        self._up, self._told, self._pause_s = True, None, FIRST_PAUSE_S

    def _failed(self, error: Exception, unexpected: bool = False) -> None:
        self._up = False
        self.failures += 1
        said = f"{type(error).__name__}: {error}".rstrip(": ")
        if self._told is None:
            _log.warning("outlet_down", outlet=self._service.name, error=said, exc_info=error if unexpected else None)
        self._told = said


def unless_cancelled() -> None:
    """Raises CancelledError where this task was cancelled and did not notice: before Python 3.12 `asyncio.wait_for`, which brokers' clients use,
    forgets a cancellation that meets its answer. Such a task would hold up the end of a session for ever."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def first(errors: ExceptionGroup[Exception]) -> Exception:
    """The first of a group, however deep: one sentence says enough."""
    error = errors.exceptions[0]
    return first(error) if isinstance(error, ExceptionGroup) else error
