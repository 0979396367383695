"""A learner on another machine, as far as it knows: a real Redis between the session's side and the far side, both real processes."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redis import Redis

from agents.core.events import NewWeights
from agents.market.observation import ACTION_SIZES, SPEC_HASH, SPECS, STATE_SIZES, Experience
from daemon.learner import LearnerClient, LearnerOptions
from daemon.learner_far import serve
from daemon.publish.redis import RedisOptions
from tests.servers import Server, redis_server

RISK = ("risk", STATE_SIZES["risk"], ACTION_SIZES["risk"], SPECS["risk"].hash)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Server]:
    server = redis_server(tmp_path)
    server.start()
    yield server
    server.kill()


def rows(first: int, count: int) -> list[Experience]:
    rng = np.random.default_rng(first)
    states = rng.standard_normal((count + 1, STATE_SIZES["risk"]), np.float32)
    actions = rng.uniform(-1, 1, (count, ACTION_SIZES["risk"])).astype(np.float32)
    return [
        Experience(states[at], actions[at], float(actions[at, 0]), states[at + 1], False, agent="risk", time=first + at, elapsed=1.0)
        for at in range(count)
    ]  # fmt: skip


@asynccontextmanager
async def learning(redis: Server, folder: Path) -> AsyncIterator[tuple[LearnerClient, list[NewWeights]]]:
    """The session's side."""
    url = f"redis://127.0.0.1:{redis.port}"
    weights: list[NewWeights] = []
    options = LearnerOptions(
        folder, (RISK,), SPEC_HASH, batch_size=16, hidden_sizes=(16, 16), min_rows=16, publish_every_s=1.0, replay_buffer_size=10_000,
        first_backoff_s=0.2, command=(sys.executable, "-m", "daemon.learner_bridge", "--url", url, "--instance", "main"),
    )  # fmt: skip
    client = LearnerClient(options, weights.append, lambda: 0)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(client.run())
        try:
            yield client, weights
        finally:
            await client.stop(2.0)
            await task


@asynccontextmanager
async def far(redis: Server, folder: Path) -> AsyncIterator[None]:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(serve(RedisOptions(f"redis://127.0.0.1:{redis.port}", "main", "", timeout_s=5.0), folder, stop))
        try:
            yield
        finally:
            stop.set()


async def until(true: Callable[[], Any], seconds: float = 90.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.05)


async def test_rows_go_out_and_weights_come_in_through_redis_and_survive_every_end(redis, tmp_path):
    async with far(redis, tmp_path / "far"):
        async with learning(redis, tmp_path / "near") as (client, weights):
            client.offer(rows(0, 200))
            await until(lambda: weights and client.status["experiences"] == 200)
            first = weights[-1]
            assert first.spec == SPEC_HASH
            await _kill_the_process()
            offered = await _offer_until(client, 200, 300)
            redis.kill()
            redis.start()
            offered = await _offer_until(client, offered, client.status["experiences"] + 100)
            assert client.status["experiences"] <= offered, "nothing is learned from twice"
            await until(lambda: weights[-1].version > first.version)
        async with learning(redis, tmp_path / "near") as (later, newer):
            await until(lambda: newer)
            assert newer[-1].version >= weights[-1].version, "the last weights are there at once"
            assert later.status["weights_refused"] == 0


async def _offer_until(client: LearnerClient, offered: int, learned: int) -> int:
    """Offer rows until so many were learned from, for those on their way to a process that dies are lost; returns how many were offered."""
    async with asyncio.timeout(90):
        while client.status["experiences"] < learned:
            client.offer(rows(offered, 20))
            offered += 20
            await asyncio.sleep(0.5)
    return offered


async def _kill_the_process() -> None:
    """SIGKILL to the learner process on the far side."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, ValueError, IndexError):
                continue
            if b"daemon.learner_process" in words and parent == os.getpid():
                os.kill(int(entry.name), signal.SIGKILL)
                return
    pytest.fail("no learner process runs here")


async def test_frames_that_nobody_takes_stay_bounded(redis, tmp_path):
    async with learning(redis, tmp_path) as (client, weights):
        for number in range(40):
            client.offer(rows(number * 200, 200))
        await until(lambda: not client.status["queued"])
        assert Redis(port=redis.port).xlen("quartet:main:learner:in") <= 512
        assert weights == []
