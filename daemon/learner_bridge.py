"""Stands in the learner's place in the daemon's process tree, and hands its frames over to a learner on another machine through Redis.

To the session it is a learner: the same frames by the same pipes, the same supervision, the same checks of weights. Rows lie in a
bounded stream until the far side (`quartet learner --redis URL`) takes them; each is taken at most once.
"""

import argparse
import asyncio
import os
import sys
from contextlib import suppress

from redis.exceptions import RedisError

from daemon import learner_frames
from daemon.publish.learner_streams import LearnerStreams
from daemon.publish.redis import RedisOptions, connect

WAIT_S = 1.0


def main() -> None:
    """Serve until the input ends; exit code 0, or 1 where Redis fails: the session starts us again."""
    parser = argparse.ArgumentParser(prog="python -m daemon.learner_bridge", description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--instance", required=True)
    parser.add_argument("--username")
    parser.add_argument("--ca-file")
    parser.add_argument("--state", help="taken and not used: the far side has a folder of its own")
    given = parser.parse_args()
    options = RedisOptions(given.url, given.instance, "", given.username, os.environ.get("QUARTET__REDIS__PASSWORD"), given.ca_file)
    output = os.dup(1)
    os.dup2(2, 1)
    sys.exit(asyncio.run(_serve(options, output)))


async def _serve(options: RedisOptions, output: int) -> int:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    transport, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, os.fdopen(output, "wb", 0))
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    code = 0
    try:
        async with connect(options) as client:
            streams = LearnerStreams(client, options)
            first = await learner_frames.read(reader)
            if first is None:
                raise OSError("the input ended before it said anything")
            last = await streams.last_answer()  # before we are heard of: what is said to us comes after
            await streams.configure(learner_frames.pack(first.kind, first.header, first.body))
            async with asyncio.TaskGroup() as group:
                listening = group.create_task(_listen(streams, writer, last))
                while (frame := await learner_frames.read(reader)) is not None:
                    await streams.send(learner_frames.pack(frame.kind, frame.header, frame.body))
                listening.cancel()
    except* (RedisError, OSError, TimeoutError) as errors:
        sys.stderr.write(f"redis: {errors.exceptions[0]}\n")
        code = 1
    return code


async def _listen(streams: LearnerStreams, writer: asyncio.StreamWriter, last: bytes) -> None:
    if (weights := await streams.newest_weights()) is not None:
        writer.write(weights)
    while True:
        for number, frame in await streams.answers(last, WAIT_S):
            writer.write(frame)
            last = number
        with suppress(ConnectionError):
            async with asyncio.timeout(30):
                await writer.drain()


if __name__ == "__main__":
    main()
