"""Where a drill takes place: an exchange, real daemon processes on a state folder of their own, and an eye on the account."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import yaml

from agents.core.errors import TradingError
from agents.core.orders import is_ours
from daemon.control import ask
from daemon.errors import TimedOut
from daemon.settings import KEYS, Settings
from daemon.venues.client import Exchange
from daemon.venues.throttle import Throttle
from daemon.watchdog import is_protective

INSTANCE = "drill"
START_S = 120.0
"""From a daemon's start to its first orders: warm-up, and agents that find something to do."""
STOP_S = 60.0
LOOK_S = 0.2


@dataclass(slots=True)
class Ground:
    """One drill's place. `settings` are the user's, with the exchange's real address; `faults` where the exchange takes orders to fail."""

    settings: Settings
    folder: Path
    exchange: Exchange
    """Our own client of the account."""
    faults: str | None
    throttle: Throttle = field(default_factory=lambda: Throttle(12.0))
    running: list[Process] = field(default_factory=list)
    starts: int = 0

    @property
    def state(self) -> Path:
        """The state folder of the daemons that are drilled; never the user's."""
        return self.folder / "state"

    async def start(self, **safety: float) -> Process:
        """A daemon that trades, over the same state folder as the one before."""
        self.starts += 1
        told = self.settings.public()
        told |= {"instance": INSTANCE, "state_dir": str(self.state)}
        told["http"] = {**told["http"], "port": "off"}
        told["redis"], told["mqtt"] = {"url": None}, {"host": None}  # a drill is nobody's news
        told["safety"] = {**told["safety"], **safety}
        config = self.folder / "config.yaml"
        config.write_text(yaml.safe_dump(told, sort_keys=False), encoding="utf-8")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("QUARTET__")}
        for name in KEYS:
            if (secret := getattr(self.settings.exchange, name)) is not None:
                environment[f"QUARTET__EXCHANGE__{name.upper()}"] = secret.get_secret_value()
        with (self.folder / f"daemon-{self.starts}.log").open("wb") as words:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "daemon", "trade", "--live", "--json", "--config", str(config), stdin=DEVNULL, stdout=PIPE,
                stderr=words, env=environment,
            )  # fmt: skip
        self.running.append(process)
        return process

    async def status(self) -> dict[str, Any]:
        """The daemon's own word; empty where none answers."""
        try:
            return await asyncio.to_thread(ask, self.state, "status")
        except TradingError:
            return {}

    async def tell(self, command: str) -> dict[str, Any]:
        """The operator's word."""
        return await asyncio.to_thread(ask, self.state, command, reason="drill")

    async def kill(self, process: Process) -> None:
        """SIGKILL: no goodbye, no cancel."""
        process.send_signal(signal.SIGKILL)
        await process.wait()

    async def stop(self, process: Process) -> tuple[int, dict[str, Any]]:
        """End in order: (exit code, closing summary)."""
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_S):
                output, _ = await process.communicate()
        except TimeoutError:
            raise TimedOut(f"the daemon did not end within {STOP_S:g} s of SIGTERM; its log is in {self.folder}") from None
        return process.returncode or 0, orjson.loads(output) if output.strip() else {}

    async def end(self) -> None:
        """Nothing of the drill stays behind."""
        for process in self.running:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()

    async def open_orders(self) -> set[str]:
        """Client ids of our orders that rest at the exchange, by its own word; protective stops, which stay, left out."""
        found: set[str] = set()
        for symbol in self.settings.exchange.symbols:
            rows = await self.throttle.call(self.exchange, partial(self.exchange.fetch_open_orders, symbol))
            found |= {str(row.get("clientOrderId")) for row in rows or [] if not is_protective(row)}
        return {order_id for order_id in found if is_ours(order_id, INSTANCE)}

    async def some_orders(self) -> set[str]:
        """Wait until orders of ours rest there."""
        found: set[str] = await self.until(self.open_orders, bool, START_S, "no order came to rest")
        return found

    async def until(self, look: Callable[[], Awaitable[Any]], holds: Callable[[Any], bool], within_s: float, otherwise: str) -> Any:
        """What was seen once it holds. Raises TimedOut with `otherwise`, or where the daemon that should act has ended."""
        seen: Any = None
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not holds(seen := await look()):
                    await asyncio.sleep(LOOK_S)
                return seen
        ended = [process.returncode for process in self.running[-1:] if process.returncode not in (None, -signal.SIGKILL)]
        after = f"; the daemon had ended with code {ended[0]}" if ended else ""
        raise TimedOut(f"{otherwise} within {within_s:g} s{after}; last seen: {str(seen)[:200]}")

    async def inject(self, fault: str) -> None:
        """Have the rehearsal exchange fail in this way."""
        assert self.faults is not None
        timeout = aiohttp.ClientTimeout(total=10)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.post(self.faults, json={"fault": fault}) as answer:
            answer.raise_for_status()
