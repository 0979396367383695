"""Virtual time: asyncio as it is, without sleeping, in an order that the seed chooses and repeats."""

import asyncio
import random
import time

import pytest

from daemon.simulation.loop import Crashed, Stuck, VirtualLoop
from daemon.simulation.run import quiet
from daemon.simulation.timeline import NS, Timeline


def loop(seed: int = 1, timeline: Timeline | None = None) -> VirtualLoop:
    return VirtualLoop(timeline or Timeline(), random.Random(seed))


async def day() -> list[str]:
    """Timeouts, groups, queues, threads, generators: what the daemon uses."""
    told: list[str] = []
    queue: asyncio.Queue[str] = asyncio.Queue(2)

    async def worker(name: str, pause: float) -> None:
        for _ in range(3):
            await asyncio.sleep(pause)
            await queue.put(name)

    async with asyncio.TaskGroup() as group:
        group.create_task(worker("a", 1.0))
        group.create_task(worker("b", 2.5))
        told += [await queue.get() for _ in range(6)]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3600):
            await asyncio.Event().wait()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.sleep(1e9), 3600)
    told.append(await asyncio.to_thread(lambda: "inline"))
    return told


def test_hours_pass_in_no_time():
    began, timeline = time.perf_counter(), Timeline()
    assert loop(timeline=timeline).run(day()) == ["a", "a", "b", "a", "b", "b", "inline"]
    assert time.perf_counter() - began < 1.0
    assert 7207.5 < timeline.seconds < 7208


def order(seed: int) -> list[int]:
    async def main() -> list[int]:
        told: list[int] = []

        async def step(number: int) -> None:
            for _ in range(4):
                await asyncio.sleep(0)
                told.append(number)

        async with asyncio.TaskGroup() as group:
            for number in range(5):
                group.create_task(step(number))
        return told

    return loop(seed).run(main())


def test_the_seed_chooses_the_order_of_tasks_and_repeats_it():
    assert order(1) == order(1)
    assert len({tuple(order(seed)) for seed in range(20)}) > 10


def test_what_asyncio_promises_is_kept():
    async def main() -> tuple[list[int], list[int]]:
        soon: list[int] = []
        later: list[int] = []
        running = asyncio.get_running_loop()
        for number in range(50):
            running.call_soon(soon.append, number)
            running.call_later(0.5 + number * 1e-6, later.append, number)
        await asyncio.sleep(2)
        return soon, later

    for seed in range(10):
        assert loop(seed).run(main()) == (list(range(50)), list(range(50)))


def test_arrivals_from_the_world_keep_their_order_through_a_standstill():
    timeline = Timeline()
    heard: list[int] = []
    for number in range(20):
        timeline.at(NS + number, lambda number=number: heard.append(number))

    async def main() -> None:
        await asyncio.sleep(0.5)
        timeline.now += 10 * NS  # the process stood still: everything is due at once
        await asyncio.sleep(1)

    loop(timeline=timeline).run(main())
    assert heard == list(range(20))


def test_waiting_for_nothing_is_named():
    with pytest.raises(Stuck):
        loop().run(asyncio.Event().wait())


def test_a_crash_runs_no_cleanup():
    cleaned: list[str] = []

    async def main() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            cleaned.append("main")

    async def doomed() -> None:
        asyncio.get_running_loop().crash_after(1)
        async with asyncio.TaskGroup() as group:
            group.create_task(main())
            await asyncio.sleep(1)

    with quiet():  # what is left of the dead is let go in here
        dying = loop()
        with pytest.raises(Crashed):
            dying.run(doomed())
        dying.abandon()
        assert cleaned == []
        assert any(not task.done() for task in dying.tasks)
        del dying
