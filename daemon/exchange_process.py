"""The rehearsal exchange as a process of its own: started, found on its port, watched for the end of its market, stopped."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from agents.core.errors import ConfigError, TradingError
from agents.core.instruments import Symbol

START_WITHIN_S = 60.0
"""Making months of history for ten symbols takes a second; a cold disk can make it many."""
STOP_WITHIN_S = 5.0
USAGE = 2
"""Its exit code for what the caller must mend."""


class RehearsalExchange:
    """A running rehearsal exchange on loopback."""

    def __init__(self, process: Process, hello: Mapping[str, Any]) -> None:
        self.base_url = f"http://127.0.0.1:{hello['port']}"
        self.symbols = tuple(hello["symbols"])
        self.fees = {Symbol(s): (Decimal(maker), Decimal(taker)) for s, (maker, taker) in hello["fees"].items()}
        """What its account pays, for those who read it without a key."""
        self.api_key, self.secret = str(hello["api_key"]), str(hello["secret"])
        self._process = process
        self.ended = asyncio.Event()
        """The market is over (a tape came to its end), or the process is."""

    async def watch(self) -> None:
        """Wait for the end of its market; runs in the session's task group."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            if b'"end"' in line:
                break
        self.ended.set()


@asynccontextmanager
async def rehearsal_exchange(arguments: Sequence[str], log: Path) -> AsyncIterator[RehearsalExchange]:
    """Start `python -m daemon.rehearsal` with `arguments`; its own log goes to the file `log`.

    Raises TradingError when it does not come up, ConfigError where a setting is to blame; the message is its last words.
    """
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "daemon.rehearsal", "--port", "0", *arguments,
            stdin=PIPE, stdout=PIPE, stderr=errors, env=_without_settings(),
        )  # fmt: skip
    try:
        yield await _greeting(process, log)
    finally:
        await _stop(process)


def _without_settings() -> dict[str, str]:
    """The environment without our own variables: some of them are keys, and none of them is its business."""
    return {name: value for name, value in os.environ.items() if not name.startswith("QUARTET__")}


async def _greeting(process: Process, log: Path) -> RehearsalExchange:
    assert process.stdout is not None
    line = b""
    with suppress(TimeoutError):
        async with asyncio.timeout(START_WITHIN_S):
            line = await process.stdout.readline()
    if not line:
        words = log.read_text(errors="replace").strip().splitlines()[-1:]
        code = process.returncode if process.returncode is not None else await _ended(process)
        raise (ConfigError if code == USAGE else TradingError)(words[0] if words else "the rehearsal exchange did not start")
    return RehearsalExchange(process, orjson.loads(line))


async def _ended(process: Process) -> int | None:
    with suppress(TimeoutError):
        async with asyncio.timeout(STOP_WITHIN_S):
            return await process.wait()
    return None


async def _stop(process: Process) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_WITHIN_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


