"""What an operator may say to a running session over the control socket; every word that stops trading is latched on disk first."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agents.core.errors import TradingError
from agents.core.events import UNSTAMPED, CancelAll, Flatten, Halt, Resume
from daemon import control
from daemon.door import Door
from daemon.latch import Kind, Latch
from daemon.segments import RecordFailed
from daemon.status import Status

Request = Mapping[str, Any]


class Operator:
    """The commands of one session."""

    def __init__(self, door: Door, latch: Latch, status: Status, stop: asyncio.Event) -> None:
        self._door, self._latch, self._status, self._stop = door, latch, status, stop
        self.answers: dict[str, control.Answer] = {
            "status": lambda _: status.snapshot(), "halt": self.halt, "resume": self.resume, "flatten": self.flatten,
            "cancel-all": self.cancel_all, "stop": self.stop,
        }  # fmt: skip

    async def listen(self, folder: Path) -> None:
        """Answer on the control socket until cancelled."""
        async with control.serve(folder, self.answers):
            await asyncio.Event().wait()

    def halt(self, request: Request) -> dict[str, Any]:
        """Cancel every order and place none until resume; survives a restart. A flatten that is latched goes on: only resume ends it."""
        reason, flattening = _reason(request), self._latch.read().kind == "flatten"
        if not flattening:
            self._latch_or_say("halt", reason)
        self._door.push(Halt(UNSTAMPED, reason))
        return {"accepted": "halt", **({"note": "a flatten is under way and goes on; resume ends it"} if flattening else {})}

    def flatten(self, request: Request) -> dict[str, Any]:
        """Halt, cancel every order and sell what is held; survives a restart."""
        reason = _reason(request)
        self._latch_or_say("flatten", reason)
        self._door.push(Flatten(UNSTAMPED, reason))
        return {"accepted": "flatten"}

    def resume(self, request: Request) -> dict[str, Any]:
        """Trade again. Raises TradingError where the latch cannot be released: then a restart would stop again."""
        reason = _reason(request)
        try:
            self._latch.set("none", reason, self._door.now())
        except RecordFailed as error:
            raise TradingError(f"not resumed: {error}") from error
        self._door.push(Resume(UNSTAMPED, reason))
        return {"accepted": "resume"}

    def cancel_all(self, request: Request) -> dict[str, Any]:
        """Take every order away once."""
        self._door.push(CancelAll(UNSTAMPED, _reason(request)))
        return {"accepted": "cancel-all"}

    def stop(self, _: Request) -> dict[str, Any]:
        """End the session in order."""
        self._stop.set()
        return {"accepted": "stop"}

    def _latch_or_say(self, kind: Kind, reason: str) -> None:
        """Stopping goes on even where the word cannot be kept; it is said then."""
        try:
            self._latch.set(kind, reason, self._door.now())
        except RecordFailed as error:
            self._status.note("latch_failed", str(error))


def _reason(request: Request) -> str:
    return str(request.get("reason", "operator"))
