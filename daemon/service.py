"""Speaks with the service manager: ready once we trade, alive while facts are handled, stopping, reloading. Silent where nobody listens.

The protocol is sd_notify(3): datagrams of `KEY=value` lines to the socket that NOTIFY_SOCKET names.
"""

import asyncio
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

LONGEST_BEAT_S = 5.0
"""How often progress is looked at where no watchdog asks for more."""


@dataclass(frozen=True, slots=True)
class Manager:
    """The service manager's socket; `address` None where there is none."""

    address: str | None = None
    watchdog_s: float | None = None
    """The manager kills us after so long without a beat."""

    def tell(self, **words: str | int) -> None:
        """Say `KEY=value` lines. A manager that does not listen is no reason to stop."""
        if self.address is None:
            return
        text = "\n".join(f"{key}={value}" for key, value in words.items())
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.setblocking(False)
            channel.sendto(text.encode(), "\0" + self.address[1:] if self.address.startswith("@") else self.address)


def manager(environ: Mapping[str, str], pid: int) -> Manager:
    """What the environment says of the manager. A watchdog that was meant for another process is none."""
    address = environ.get("NOTIFY_SOCKET") or None
    asked, whose = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID")
    ours = asked.isdigit() and int(asked) > 0 and whose in (None, str(pid))
    return Manager(address, int(asked) / 1e6 if ours else None)


class Service:
    """A watcher of a session. The watchdog's beat means that facts went through the engine since the last one."""

    def __init__(self, of: Manager, handled: Callable[[], int], snapshot: Callable[[], Mapping[str, Any]]) -> None:
        self._manager, self._handled, self._snapshot = of, handled, snapshot
        self._ready = False

    async def run(self) -> None:
        """Beat until cancelled; then say that we stop."""
        if self._manager.address is None:
            return
        pause = min(LONGEST_BEAT_S, (self._manager.watchdog_s or LONGEST_BEAT_S * 3) / 3)
        seen = -1
        try:
            while True:
                handled = self._handled()
                if handled != seen:
                    seen = handled
                    self._manager.tell(WATCHDOG=1)
                status = self._snapshot()
                if status.get("ready") and not self._ready:
                    self._ready = True
                    self._manager.tell(READY=1)
                self._manager.tell(STATUS=_sentence(status))
                await asyncio.sleep(pause if self._ready else min(pause, 0.2))
        finally:
            self._manager.tell(STOPPING=1, STATUS="cancelling orders and closing the record")

    def reloading(self) -> None:
        """The configuration is being read again; `reloaded` says when it is done. Nothing is said before we are ready: it would mean that we are."""
        if self._ready:
            self._manager.tell(RELOADING=1, MONOTONIC_USEC=int(asyncio.get_running_loop().time() * 1e6))

    def reloaded(self) -> None:
        """The configuration that was read is in force, or the old one still is."""
        if self._ready:
            self._manager.tell(READY=1)


def _sentence(status: Mapping[str, Any]) -> str:
    if not status.get("ready"):
        return "starting: waiting for the account and for prices"
    equity, halted = status.get("equity"), "halted, " if status.get("halted") else ""
    worth = "unknown" if equity is None else f"{equity:.2f}"
    return f"{halted}equity {worth}, drawdown {status.get('drawdown') or 0.0:.2%}, {len(status.get('open_orders') or [])} orders open"
