"""`quartet learner --redis URL`: the learner process on a machine of its own, fed through Redis, kept alive here."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog
from redis.exceptions import RedisError

from agents.core.errors import DataError
from daemon import learner_frames
from daemon.publish.learner_streams import LearnerStreams
from daemon.publish.redis import RedisOptions, connect
from daemon.settings import Settings
from daemon.state_folder import held

log = structlog.get_logger()

WAIT_S = 0.5
AGAIN_S = 2.0
END_S = 30.0
PROCESS = (sys.executable, "-m", "daemon.learner_process")


async def serve_settings(settings: Settings) -> dict[str, Any]:
    """As `serve`, of the settings' Redis, instance and state folder, until Ctrl-C or SIGTERM. Raises Occupied for a folder in use."""
    redis, stop = settings.redis, asyncio.Event()
    assert redis.url is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    options = RedisOptions(
        redis.url, settings.instance, "", redis.username, None if redis.password is None else redis.password.get_secret_value(),
        None if redis.ca_file is None else str(redis.ca_file),
    )  # fmt: skip
    folder = settings.state_dir / "learner"
    with held(settings.state_dir):
        await serve(options, folder, stop)
    return {"ended": "learner"}


async def serve(options: RedisOptions, state: Path, stop: asyncio.Event) -> None:
    """Learn for whichever daemon writes into these streams, until `stop`. Redis may come and go, and so may the process."""
    state.mkdir(parents=True, exist_ok=True)
    down = False
    while not stop.is_set():
        try:
            async with connect(options) as client:
                streams = LearnerStreams(client, options)
                if (configuration := await streams.configuration()) is not None:
                    if down:
                        log.info("redis_reachable")
                        down = False
                    await _life(streams, configuration, state, stop)
        except* (RedisError, OSError, TimeoutError) as errors:
            if not down:
                log.warning("redis_unreachable", error=str(errors.exceptions[0]))
            down = True
        with suppress(TimeoutError):
            async with asyncio.timeout(AGAIN_S):
                await stop.wait()


async def _life(streams: LearnerStreams, configuration: bytes, state: Path, stop: asyncio.Event) -> None:
    """One learner process, until it ends, is told something else, or is to stop."""
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))}
    environment = {name: value for name, value in environment.items() if not name.startswith("QUARTET__")}  # no password of anybody's
    process = await asyncio.create_subprocess_exec(*PROCESS, "--state", str(state.absolute()), stdin=PIPE, stdout=PIPE, env=environment)
    log.info("learner_started", pid=process.pid)
    try:
        async with asyncio.TaskGroup() as group:
            answering = group.create_task(_answer(streams, process))
            feeding = group.create_task(_feed(streams, process, configuration, stop))
            await asyncio.wait((answering, feeding), return_when=asyncio.FIRST_COMPLETED)
            feeding.cancel()
            if process.stdin is not None:
                process.stdin.close()  # asks it to save and end
            with suppress(TimeoutError):
                async with asyncio.timeout(END_S):
                    await process.wait()
            answering.cancel()
    finally:
        if process.returncode is None:
            process.kill()
        log.info("learner_ended", code=await process.wait())


async def _feed(streams: LearnerStreams, process: Process, configuration: bytes, stop: asyncio.Event) -> None:
    stream = process.stdin
    assert stream is not None
    with suppress(ConnectionError):  # it died, and _answer sees the end of its words
        stream.write(configuration)
        while not stop.is_set() and await streams.configuration() == configuration:
            for frame in await streams.rows(WAIT_S):
                stream.write(frame)
            async with asyncio.timeout(60):
                await stream.drain()


async def _answer(streams: LearnerStreams, process: Process) -> None:
    assert process.stdout is not None
    with suppress(DataError):  # cut off within a frame: it was killed
        while (frame := await learner_frames.read(process.stdout)) is not None:
            await streams.say(learner_frames.pack(frame.kind, frame.header, frame.body), weights=frame.kind == "weights")
