"""How late a timer of 1 ms comes in the trading process, while the learner learns and while it has nothing to do."""

import argparse
import asyncio
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from agents.market.observation import ACTION_SIZES, SPEC_HASH, SPECS, STATE_SIZES, Experience
from benchmarks.report import Row, main
from daemon.learner import LearnerClient, LearnerOptions

ROWS = 2000
"""For each agent; with four updates a row there is more to learn than there is time."""


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    """Microseconds of lateness, in turns of a few seconds; the ratio is learning over idle."""
    idle, learning, updates = asyncio.run(_session(arguments.turns, arguments.seconds))
    print(f"  {updates} updates were made; {os.cpu_count()} processors", flush=True)
    for share in (50, 99, 99.9):
        quiet, busy = float(np.percentile(idle, share)), float(np.percentile(learning, share))
        yield Row(f"lateness p{share:g}, learning over idle", busy, "us", quiet, "idle", busy / quiet)
        yield Row(f"whole turn of 1 ms p{share:g}, learning over idle", 1000 + busy, "us", 1000 + quiet, "idle", (1000 + busy) / (1000 + quiet))


async def _session(turns: int, seconds: float) -> tuple[np.ndarray, np.ndarray, int]:
    idle: list[float] = []
    learning: list[float] = []
    updates = 0
    for _ in range(turns):
        idle += await _lateness(seconds)
        with tempfile.TemporaryDirectory() as folder:
            late, made = await _beside_learner(Path(folder), seconds)
        learning += late
        updates += made
    return np.array(idle) * 1e6, np.array(learning) * 1e6, updates


async def _beside_learner(folder: Path, seconds: float) -> tuple[list[float], int]:
    specs = tuple((agent, size, ACTION_SIZES[agent], SPECS[agent].hash) for agent, size in STATE_SIZES.items())
    client = LearnerClient(LearnerOptions(folder, specs, SPEC_HASH, publish_every_s=3.0, replay_buffer_size=10_000), lambda event: None, lambda: 0)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(client.run())
        for agent, size in STATE_SIZES.items():
            client.offer(_rows(agent, size))
        async with asyncio.timeout(120):
            while not client.status["updates"]:
                await asyncio.sleep(0.1)
        before = client.status["updates"]
        late = await _lateness(seconds)
        made = client.status["updates"] - before
        await client.stop(0.5)
        await task
    return late, made


def _rows(agent: str, size: int) -> list[Experience]:
    rng = np.random.default_rng(0)
    states = rng.standard_normal((ROWS + 1, size), np.float32)
    actions = rng.uniform(-1, 1, (ROWS, ACTION_SIZES[agent])).astype(np.float32)
    return [
        Experience(states[at], actions[at], float(actions[at, 0]), states[at + 1], False, agent, None, at) for at in range(ROWS)
    ]


async def _lateness(seconds: float) -> list[float]:
    """Seconds by which each sleep of 1 ms was late."""
    loop, late = asyncio.get_running_loop(), []
    end = loop.time() + seconds
    while (start := loop.time()) < end:
        await asyncio.sleep(0.001)
        late.append(loop.time() - start - 0.001)
    return late


if __name__ == "__main__":
    main("loop_disturbance", measure, ("numpy", "torch"), turns=3, seconds=4.0)
