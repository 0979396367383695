"""What it costs to take in a market: CPU of the trading process against a bare ccxt reader of the same streams; and a burst."""

import argparse
import asyncio
import itertools
import json
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from agents.core.errors import TradingError
from agents.core.events import Trade
from agents.market.tape import open_tape
from benchmarks.report import Row, main
from daemon import control

SYMBOLS = [f"{base}/USDT" for base in ("BTC", "ETH", "SOL", "XRP", "BNB", "ADA", "DOGE", "LINK", "AVAX", "LTC")]
BURST = 30_000
BURST_S = 8.0
"""Ten symbols at 20 trades a market second each and speed 60 print 12,000 a second, as far as the machine can."""
QUIET: list[str] = []
"""The agents of the case without decisions."""


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    """CPU seconds per second of three processes that read one exchange at the same time, and the trades of a burst."""
    yield from asyncio.run(paced(arguments.seconds))
    yield asyncio.run(burst())


async def paced(seconds: float) -> list[Row]:
    """10 symbols, each 10 books and 20 trades a second."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = await stack.enter_async_context(exchange("--speed", "1", "--trade-rate", "20"))
        bare = await stack.enter_async_context(process("benchmarks.bare_reader", url, *SYMBOLS))
        alone = await stack.enter_async_context(session(url, folder / "alone", QUIET))
        whole = await stack.enter_async_context(session(url, folder / "whole", None))
        for name in ("alone", "whole"):
            await calm(folder / name)
        before = [cpu(child) for child in (bare, alone, whole)]
        await asyncio.sleep(seconds)
        peer, ours, deciding = ((cpu(child) - start) / seconds for child, start in zip((bare, alone, whole), before, strict=True))
    name = "bare ccxt reader"
    return [
        Row("paced", 1e3 * ours, "CPU ms/s", 1e3 * peer, name, ours / peer),
        Row("paced with decisions", 1e3 * deciding, "CPU ms/s", 1e3 * peer, name, deciding / peer),
    ]


async def burst() -> Row:
    """Far more trades than the session can follow, until 30,000 and more wait: `ours` is how many of them are missing."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        async with AsyncExitStack() as market:
            url = await market.enter_async_context(exchange("--speed", "60", "--trade-rate", "20"))
            child = await stack.enter_async_context(session(url, folder, QUIET))
            await calm(folder, waiting=10**9)
            await asyncio.sleep(BURST_S)
        await calm(folder, stale=True)
        child.terminate()
        await child.communicate()
        ids: defaultdict[str, list[int]] = defaultdict(list)
        for tape in (folder / "tape").iterdir():
            for event in open_tape(tape, allow_gaps=True).events():
                if isinstance(event, Trade):
                    ids[event.symbol].append(int(event.trade_id))
    received = sum(map(len, ids.values()))
    if received < BURST:
        raise SystemExit(f"only {received} trades came in; the machine is too busy for this benchmark")
    lost = sum(b - a - 1 for found in ids.values() for a, b in itertools.pairwise(found))
    twice = sum(b <= a for found in ids.values() for a, b in itertools.pairwise(found))
    return Row("burst of 30,000 trades", lost + twice, "lost or doubled", received, "trades recorded")


@asynccontextmanager
async def exchange(*arguments: str) -> AsyncIterator[str]:
    """A rehearsal exchange of ten symbols; its URL."""
    async with process("daemon.rehearsal", "--port", "0", "--symbols", ",".join(SYMBOLS), *arguments) as child:
        assert child.stdout is not None
        yield f"http://127.0.0.1:{json.loads(await child.stdout.readline())['port']}"


@asynccontextmanager
async def session(url: str, folder: Path, agents: Sequence[str] | None) -> AsyncIterator[asyncio.subprocess.Process]:
    """A paper session on that exchange. Its learner is another process, and not counted."""
    settings: dict[str, Any] = {"EXCHANGE__BASE_URL": url, "EXCHANGE__SYMBOLS": json.dumps(SYMBOLS), "HTTP__PORT": "off"}
    if agents is not None:
        settings["AGENTS__ENABLED"] = json.dumps(list(agents))
    extra = {f"QUARTET__{name}": value for name, value in settings.items()}
    async with process("daemon", "trade", "--paper", "--state", str(folder), "--json", **extra) as child:
        yield child


@asynccontextmanager
async def process(module: str, *arguments: str, **environment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m module`, killed at the end."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, **environment},
    )  # fmt: skip
    try:
        yield child
    finally:
        if child.returncode is None:
            child.terminate()
        await child.communicate()


async def calm(folder: Path, *, waiting: int = 100, stale: bool = False) -> None:
    """Wait until a session has read its history, sees every market (unless `stale`) and has less than `waiting` facts before it."""
    for _ in range(300):
        await asyncio.sleep(0.5)
        try:
            status = await asyncio.to_thread(control.ask, folder, "status")
        except TradingError:
            continue
        if status["market_time"] and status["inbox_depth"] < waiting and (stale or not status["feed"]["stale"]):
            return
    raise SystemExit("a session did not come up in time; the machine is too busy for this benchmark")


def cpu(child: asyncio.subprocess.Process) -> float:
    """CPU seconds of one process, its children left out."""
    if child.returncode is not None:
        raise SystemExit(f"a process of the benchmark ended with {child.returncode}")
    times = psutil.Process(child.pid).cpu_times()
    return float(times.user + times.system)


if __name__ == "__main__":
    main("ingest", measure, packages=("ccxt", "aiohttp", "orjson"), seconds=15.0)
