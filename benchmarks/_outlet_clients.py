"""Those who listen to a daemon and talk to its broker: websocket clients and a publisher, one process, until it is killed."""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack

import aiomqtt
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

NONSENSE = b'{"id": ""}'
"""A word that the daemon must read, refuse and answer, and that can do no harm."""


async def play(http: int, mqtt: int, token: str, streams: int, messages: float) -> None:
    """Prints `ready`, and at the end of standard input what was heard and said per second; goes on until it is killed."""
    counts: Counter[str] = Counter()
    async with AsyncExitStack() as stack:
        headers = {"Authorization": f"Bearer {token}"}
        listeners = [
            await stack.enter_async_context(connect(f"ws://127.0.0.1:{http}/api/v1/events", additional_headers=headers)) for _ in range(streams)
        ]
        broker = await stack.enter_async_context(aiomqtt.Client("127.0.0.1", mqtt, protocol=aiomqtt.ProtocolVersion.V5))
        await broker.subscribe("quartet/main/reply")
        tasks = [asyncio.create_task(_listen(listener, counts)) for listener in listeners]
        tasks += [asyncio.create_task(_answers(broker, counts)), asyncio.create_task(_talk(broker, messages, counts))]
        print("ready", flush=True)
        start = time.monotonic()
        await asyncio.to_thread(sys.stdin.read)
        spent = time.monotonic() - start
        print(json.dumps({name: counts[name] / spent for name in ("facts", "sent", "answers")} | {"gone": counts["gone"]}), flush=True)
        await asyncio.gather(*tasks)


async def _listen(stream: ClientConnection, counts: Counter[str]) -> None:
    try:
        async for _ in stream:
            counts["facts"] += 1
    except ConnectionClosed:
        pass
    counts["gone"] += 1


async def _answers(broker: aiomqtt.Client, counts: Counter[str]) -> None:
    async for _ in broker.messages:
        counts["answers"] += 1


async def _talk(broker: aiomqtt.Client, rate: float, counts: Counter[str]) -> None:
    """`rate` messages a second at QoS 0; what a late turn of the loop left out is caught up with."""
    start = time.monotonic()
    while True:
        await asyncio.sleep(0.002)
        while counts["sent"] < (time.monotonic() - start) * rate:
            await broker.publish("quartet/main/command/status", NONSENSE)
            counts["sent"] += 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name, kind in (("http", int), ("mqtt", int), ("token", str), ("streams", int), ("messages", float)):
        parser.add_argument(name, type=kind)
    asyncio.run(play(**vars(parser.parse_args())))
