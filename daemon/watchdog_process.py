"""`python -m daemon.watchdog_process`: cancels a daemon's open orders when it dies without a goodbye or makes no progress.

It hears of the account and of every beat on standard input, holds its own exchange client, and shares nothing else with the
daemon. Protective stops stay: they are what guards a position while nobody else does. So do orders of later sessions and of
other people. What it did is written into the folder `watchdog` of the state folder.
"""

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from ccxt.base.errors import BaseError, InvalidNonce, OrderNotFound

from agents.core.errors import Throttled
from agents.core.instruments import NS, Symbol
from agents.core.orders import epoch_of, is_ours
from daemon.door import MonotonicClock
from daemon.venues import capabilities
from daemon.venues.client import Exchange, build_client, close_client, dials_loopback
from daemon.venues.client_ids import teach
from daemon.venues.throttle import Backoff, Throttle
from daemon.watchdog import FIRED, GOODBYE, Charge, is_protective

STEP_S = 0.5
CHARGE_WITHIN_S = 60.0
REQUEST_S = 12.0
"""Our own end to any request, a little longer than ccxt's."""
LOCAL_S = 60.0
"""A server on this machine that does not answer for so long has ended with the daemon."""
AT_A_TIME = 4
AGAIN_S = 0.1
"""After a look that found orders, until the one that shows whether they are gone."""
KEPT_ERRORS = 20
_TROUBLE = (BaseError, TimeoutError, Throttled, OSError)


class Daemon:
    """What we know of the daemon: its beats, and whether it said goodbye or its pipe closed."""

    def __init__(self) -> None:
        self.progress: int | None = None
        self.steps = 0
        """How often the progress has moved."""
        self.goodbye = self.closed = False
        self.stirred = asyncio.Event()

    async def listen(self, reader: asyncio.StreamReader) -> None:
        """Take lines until the pipe closes; each beat is answered, so that the daemon knows that we live."""
        while line := await reader.readline():
            if line == GOODBYE:
                self.goodbye = True
                break
            beat = int(line.removeprefix(b"beat "))
            if beat != self.progress:
                self.progress, self.steps = beat, self.steps + 1
            say({"alive": beat})
            self.stirred.set()
        self.closed = True
        self.stirred.set()

    async def back(self) -> None:
        """Wait until a daemon that hung makes progress again, or is gone."""
        steps = self.steps
        while self.steps == steps and not self.closed:
            self.stirred.clear()
            await self.stirred.wait()

    async def lost(self, patience_s: float) -> str:
        """Wait until the daemon is lost, and say why; empty after its goodbye.

        A step in which this very process was stopped counts for one step only: nobody could be heard meanwhile.
        """
        loop, silent_s, steps = asyncio.get_running_loop(), 0.0, self.steps
        while True:
            before = loop.time()
            self.stirred.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(STEP_S):
                    await self.stirred.wait()
            silent_s += min(loop.time() - before, 2 * STEP_S)
            if self.goodbye:
                return ""
            if self.closed:
                return "the daemon is gone, without a goodbye"
            if self.steps != steps:
                silent_s, steps = 0.0, self.steps
            if silent_s >= patience_s:
                return f"the daemon made no progress for {patience_s:g} s"


class Rescue:
    """Cancels what a lost daemon left open at the exchange, and keeps the account of it."""

    def __init__(self, charge: Charge, daemon: Daemon, exchange: Exchange, clock: Callable[[], int]) -> None:
        self._charge, self._daemon, self._exchange, self._clock = charge, daemon, exchange, clock
        self._throttle = Throttle(REQUEST_S, AT_A_TIME, AT_A_TIME)
        self._steps = daemon.steps
        self._orders: dict[str, dict[str, Any]] = {}
        self._left: Counter[str] = Counter()
        self._errors: list[str] = []
        self._looks = 0

    async def run(self, reason: str) -> bool:
        """Until nothing of ours is open and nothing can arrive any more; False when time is up or the daemon is back."""
        loop = asyncio.get_running_loop()
        started, pause, trouble = loop.time(), Backoff(0.25, 2.0), Backoff(0.25, 15.0)
        path = self._charge.folder / "watchdog" / f"{_moment(self._clock()):%Y%m%dT%H%M%S.%fZ}.json"
        say({"fired": reason, "report": str(path)})
        at = self._clock()

        def tell(outcome: str) -> None:
            _report(path, self._account(reason, at, outcome, loop.time() - started))

        tell("cancelling")
        while True:
            open_left = await self._look()
            passed = loop.time() - started
            if open_left == 0 and passed >= self._charge.window_s:
                tell("nothing of ours is open")
                return True
            if self._daemon.steps != self._steps:
                tell("the daemon is back")
                return False
            if passed >= self._charge.give_up_s:
                tell("given up: look at the account on the exchange")
                return False
            if open_left == 0:
                await asyncio.sleep(min(pause.failed(), self._charge.window_s - passed))
            elif open_left is None:
                await asyncio.sleep(trouble.failed())
            else:
                pause.worked()
                trouble.worked()
                await asyncio.sleep(AGAIN_S)
            tell("cancelling")

    async def _look(self) -> int | None:
        """Cancel what is open and in our care; how many were, or None where the exchange could not be asked for all."""
        self._looks += 1
        self._left.clear()
        found: list[tuple[Symbol, Mapping[str, Any]]] = []
        try:
            await self.prepare()
            for symbol in self._charge.symbols:
                rows = await self._call(partial(self._exchange.fetch_open_orders, symbol))
                found += [(symbol, row) for row in rows or [] if self._in_our_care(row)]
        except _TROUBLE as error:
            await self._note("open orders", error)
            return None
        async with asyncio.TaskGroup() as group:
            for symbol, row in found:
                group.create_task(self._cancel(symbol, row))
        return len(found)

    def _in_our_care(self, row: Mapping[str, Any]) -> bool:
        order_id, charge = str(row.get("clientOrderId") or ""), self._charge
        epoch = epoch_of(order_id)
        if not is_ours(order_id, charge.instance) or epoch is None:
            self._left["foreign"] += 1
        elif epoch > charge.epoch:
            self._left["of_a_later_session"] += 1
        elif is_protective(row):
            self._left["protective_stop"] += 1
        else:
            return True
        return False

    async def _cancel(self, symbol: Symbol, row: Mapping[str, Any]) -> None:
        order_id = str(row["clientOrderId"])
        names = ("id", "side", "price", "amount", "filled")
        entry = self._orders.setdefault(order_id, {"symbol": symbol, **{name: row.get(name) for name in names}, "cancelled": False})
        try:
            await self._call(lambda: self._exchange.cancel_order(str(row["id"]), symbol))
        except OrderNotFound:
            pass  # it ended by itself; the next look tells
        except _TROUBLE as error:
            await self._note(order_id, error)
            return
        entry["cancelled"] = True

    async def prepare(self) -> None:
        """Load what a request needs, where it is not loaded yet. Raises what ccxt raises."""
        if not self._exchange.markets:
            await self._call(self._exchange.load_markets)

    async def _call(self, request: Callable[[], Any]) -> Any:
        return await self._throttle.call(self._exchange, request, urgent=True)

    async def _note(self, what: str, error: BaseException) -> None:
        text = f"{what}: {type(error).__name__} {error}"[:300]
        complain(text)
        self._errors = [*self._errors, text][-KEPT_ERRORS:]
        if isinstance(error, InvalidNonce) and self._exchange.has.get("fetchTime"):
            with suppress(*_TROUBLE):
                await self._call(self._exchange.load_time_difference)

    def _account(self, reason: str, at: int, outcome: str, seconds: float) -> dict[str, Any]:
        charge = self._charge
        return {
            "at": _moment(at).isoformat(), "reason": reason, "outcome": outcome, "seconds": round(seconds, 3), "looks": self._looks,
            "exchange": charge.account.id, "base_url": charge.account.base_url, "instance": charge.instance, "epoch": charge.epoch,
            "symbols": charge.symbols, "cancelled": sum(order["cancelled"] for order in self._orders.values()),
            "orders": self._orders, "left_alone": dict(self._left), "errors": self._errors,
        }  # fmt: skip


def say(word: dict[str, Any]) -> None:
    """A line to the daemon, which may be gone, or stopped and not reading."""
    with suppress(OSError):
        os.write(1, orjson.dumps(word) + b"\n")


def complain(text: str) -> None:
    """A line for people, into the log file that is our standard error."""
    with suppress(OSError):
        os.write(2, f"watchdog: {text}\n".encode())


def _moment(at: int) -> datetime:
    return datetime.fromtimestamp(at / NS, UTC)


def _report(path: Path, account: dict[str, Any]) -> None:
    """Whole or not at all; a disk that takes nothing must not keep us from cancelling."""
    temporary = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(orjson.dumps(account, default=str, option=orjson.OPT_INDENT_2))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        complain(f"{path} cannot be written ({error.strerror}): {orjson.dumps(account, default=str).decode()}")


async def serve(reader: asyncio.StreamReader) -> int:
    """Watch one daemon to its end. 0: we never had to act; FIRED: we had, and nothing is left open; 1: look at the account."""
    async with asyncio.timeout(CHARGE_WITHIN_S):
        line = await reader.readline()
    if not line or line == GOODBYE:
        return 0
    charge, daemon = Charge.from_line(line), Daemon()
    if dials_loopback(charge.account):
        charge = replace(charge, give_up_s=min(charge.give_up_s, LOCAL_S))
    exchange = build_client(charge.account)
    if (rule := capabilities.read(exchange, charge.capabilities).client_id) is not None:
        teach(exchange, rule)
    try:
        async with asyncio.TaskGroup() as group:
            hearing = group.create_task(daemon.listen(reader))
            warming = group.create_task(_warm(charge, daemon, exchange))
            fired = done = False
            while reason := await daemon.lost(charge.patience_s):
                warming.cancel()
                gone = daemon.closed
                fired, done = True, await Rescue(charge, daemon, exchange, MonotonicClock()).run(reason)
                if gone:
                    break
                await daemon.back()
            hearing.cancel()
            warming.cancel()
    finally:
        await close_client(exchange)
    return FIRED if done else int(fired)


async def _warm(charge: Charge, daemon: Daemon, exchange: Exchange) -> None:
    """Load the markets while there is time; where that fails, it is tried again when it matters."""
    try:
        await Rescue(charge, daemon, exchange, MonotonicClock()).prepare()
    except _TROUBLE as error:
        complain(f"markets: {type(error).__name__} {error}"[:300])


async def _main() -> int:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    os.set_blocking(1, False)
    return await serve(reader)


def main() -> int:
    """Signals do not end it: a supervisor that stops the daemon sends them to us too, and the daemon's last word is the pipe's."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    return asyncio.run(_main())


if __name__ == "__main__":
    sys.exit(main())
