"""A tape of a live feed: what the door stamped, in segments."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Any

from agents.core.events import Event
from daemon.door import Door
from daemon.segments import SegmentWriter

SYNC_S = 1.0


async def tape_feed(
    facts: AsyncIterator[Event], door: Door, writer: SegmentWriter, stop: asyncio.Event, duration: float | None,
    watcher: Callable[[], Coroutine[Any, Any, None]],
) -> dict[str, Any]:  # fmt: skip
    """Write `facts` until `stop`, `duration` seconds or their end; counts by kind. Raises RecordFailed."""
    counts: Counter[str] = Counter()

    async def pump() -> None:
        async for event in facts:
            await door.put(event)
        stop.set()

    async def write() -> None:
        async for event in door.events():
            writer.append(event)
            counts[type(event).__name__] += 1

    async def sync() -> None:
        while True:
            await asyncio.sleep(SYNC_S)
            writer.write(door.last)
            await asyncio.to_thread(writer.sync)

    try:
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(task) for task in (pump(), sync(), watcher())]
            written = group.create_task(write())
            with suppress(TimeoutError):
                async with asyncio.timeout(duration):
                    await stop.wait()
            door.close()
            await written
            for task in beside:
                task.cancel()
    finally:
        writer.close(door.last)
    return {"facts": sum(counts.values()), "kinds": dict(counts), "folder": str(writer.folder)}
