"""Whether those who watch make decisions late: a paper session's decision latency with 100 websocket clients and 1,000 MQTT messages a second."""

import argparse
import asyncio
import json
import os
import secrets
import shutil
import socket
import sys
import tempfile
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.ingest import SYMBOLS, calm, exchange, process
from benchmarks.report import Row, main

HISTOGRAM = "quartet_decision_latency_seconds"
SETTLE_S = 2.0
"""Before each turn, so that what the last one left behind is over."""
FEWEST = 100
"""Decisions below which a 99th percentile is one decision's mood."""


@dataclass
class Latencies:
    """A histogram: decisions by upper bound in seconds, not cumulated."""

    counts: Counter[float] = field(default_factory=Counter)
    total_s: float = 0.0

    @classmethod
    def read(cls, text: str) -> "Latencies":
        """From Prometheus's text."""
        found, below = cls(), 0
        for line in text.splitlines():
            if line.startswith(f"{HISTOGRAM}_bucket"):
                bound, value = float(line.split('le="')[1].split('"')[0]), int(float(line.rsplit(" ", 1)[1]))
                found.counts[bound], below = value - below, value
            elif line.startswith(f"{HISTOGRAM}_sum"):
                found.total_s = float(line.rsplit(" ", 1)[1])
        return found

    def add(self, before: "Latencies", after: "Latencies") -> None:
        """What came between two readings."""
        self.counts.update({bound: count - before.counts[bound] for bound, count in after.counts.items()})
        self.total_s += after.total_s - before.total_s

    def quantile(self, share: float) -> float:
        """Milliseconds, taken as evenly spread within a bucket; beyond the last bound that bound."""
        rank, passed, lower = share * self.counts.total(), 0, 0.0
        for bound, count in sorted(self.counts.items()):
            if passed + count >= rank and count:
                return 1e3 * (lower if bound == float("inf") else lower + (bound - lower) * (rank - passed) / count)
            passed, lower = passed + count, bound
        return 1e3 * lower

    def mean(self) -> float:
        """Milliseconds; exact, where the quantiles know buckets only."""
        return 1e3 * self.total_s / self.counts.total()


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    """Milliseconds from a fact's stamp until the orders that follow have left, in turns; the ratio is loaded over quiet."""
    quiet, loaded = asyncio.run(_session(arguments))
    for case, found in (("quiet", quiet), ("loaded", loaded)):
        if found.counts.total() < FEWEST:
            raise SystemExit(f"only {found.counts.total()} decisions in the {case} turns; ask for more --turns or --seconds")
        print(f"  {case}: {found.counts.total()} decisions", flush=True)
    for name, ours, peer in (
        ("decision p50", loaded.quantile(0.50), quiet.quantile(0.50)),
        ("decision p99", loaded.quantile(0.99), quiet.quantile(0.99)),
        ("decision mean", loaded.mean(), quiet.mean()),
    ):
        yield Row(f"{name}, loaded over quiet", ours, "ms", peer, "quiet", ours / peer)


async def _session(arguments: argparse.Namespace) -> tuple[Latencies, Latencies]:
    quiet, loaded, token = Latencies(), Latencies(), secrets.token_hex(16)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = await stack.enter_async_context(exchange("--speed", str(arguments.speed), "--trade-rate", "20"))
        mqtt = await stack.enter_async_context(_broker(folder))
        http = _free_port()
        settings = {
            "EXCHANGE__BASE_URL": url, "EXCHANGE__SYMBOLS": json.dumps(SYMBOLS), "HTTP__PORT": str(http), "HTTP__TOKEN": token,
            "MQTT__HOST": "127.0.0.1", "MQTT__PORT": str(mqtt), "MQTT__COMMANDS": "true", "MQTT__USERNAME": "anybody",
        }  # fmt: skip
        extra = {f"QUARTET__{name}": value for name, value in settings.items()}
        await stack.enter_async_context(process("daemon", "trade", "--paper", "--state", str(folder / "state"), "--json", **extra))
        await calm(folder / "state")
        for _ in range(arguments.turns):
            await _turn(quiet, http, token, arguments.seconds)
            async with _clients(http, mqtt, token, arguments.streams, arguments.messages):
                await _turn(loaded, http, token, arguments.seconds)
    return quiet, loaded


async def _turn(into: Latencies, http: int, token: str, seconds: float) -> None:
    await asyncio.sleep(SETTLE_S)
    before = await asyncio.to_thread(_scrape, http, token)
    await asyncio.sleep(seconds)
    turn = Latencies()
    turn.add(before, await asyncio.to_thread(_scrape, http, token))
    into.add(Latencies(), turn)
    load = os.getloadavg()[0]
    print(f"  turn: {turn.counts.total()} decisions, p50 {turn.quantile(0.5):.2f} p99 {turn.quantile(0.99):.2f} ms, machine load {load:.1f}", flush=True)


def _scrape(http: int, token: str) -> Latencies:
    asked = urllib.request.Request(f"http://127.0.0.1:{http}/metrics", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(asked, timeout=10) as answer:
        return Latencies.read(answer.read().decode())


@asynccontextmanager
async def _clients(http: int, mqtt: int, token: str, streams: int, messages: float) -> AsyncIterator[None]:
    """The clients' process, from when all of them are connected; says at the end what they heard and said."""
    arguments = [str(each) for each in (http, mqtt, token, streams, messages)]
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks._outlet_clients", *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert child.stdin is not None and child.stdout is not None
        if await child.stdout.readline() != b"ready\n":
            raise SystemExit("the clients of this benchmark did not get in")
        yield
        child.stdin.close()
        heard = json.loads(await child.stdout.readline())
        print("  clients, per second: " + ", ".join(f"{value:,.0f} {name}" for name, value in heard.items()), flush=True)
        if heard["gone"] or heard["sent"] < 0.75 * messages:
            raise SystemExit("the clients could not keep up the load that this benchmark is about; the machine is too busy")
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


@asynccontextmanager
async def _broker(folder: Path) -> AsyncIterator[int]:
    """A Mosquitto on loopback; its port."""
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise SystemExit("mosquitto is not installed: install Debian's mosquitto")
    port, config = _free_port(), folder / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n", encoding="utf-8")
    child = await asyncio.create_subprocess_exec(found, "-c", str(config), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL)
    try:
        yield port
    finally:
        child.kill()
        await child.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main("outlet_load", measure, ("uvicorn", "websockets", "aiomqtt"), turns=3, seconds=15.0, streams=100, messages=1000.0, speed=4.0)
