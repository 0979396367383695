"""The two streams between a daemon and a learner elsewhere, on a real Redis."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.exceptions import RedisError

from daemon.publish.learner_streams import MOST_FRAMES, LearnerStreams
from daemon.publish.redis import RedisOptions, connect
from tests.servers import Server, redis_server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    started = redis_server(tmp_path)
    started.start()
    yield started
    started.kill()


def options(server: Server) -> RedisOptions:
    return RedisOptions(f"redis://127.0.0.1:{server.port}", "main", "", timeout_s=1.0)


async def take(server: Server, taken: list[bytes], empty: int = 3) -> None:
    """One learner, until it has found nothing a few times."""
    async with connect(options(server)) as client:
        streams = LearnerStreams(client, options(server))
        while empty:
            found = await streams.rows(0.05)
            taken += found
            empty -= not found


async def test_two_learners_at_once_share_the_rows_and_none_is_used_twice(server: Server) -> None:
    async with connect(options(server)) as client:
        streams = LearnerStreams(client, options(server))
        frames = [b"%d" % number for number in range(300)]
        for frame in frames:
            await streams.send(frame)
    taken: list[bytes] = []
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(take(server, taken, empty=30))
    assert sorted(taken, key=int) == frames


async def test_a_frame_whose_answer_was_lost_is_not_sent_again(server: Server) -> None:
    async with connect(options(server)) as client:
        streams = LearnerStreams(client, options(server))
        await streams.send(b"1")
        server.signal(signal.SIGSTOP)
        with pytest.raises((RedisError, TimeoutError)):
            await streams.send(b"2")
        server.signal(signal.SIGCONT)
    taken: list[bytes] = []
    await take(server, taken)
    assert taken in ([b"1"], [b"1", b"2"])


async def test_rows_that_nobody_takes_stay_bounded_and_the_oldest_give_way(server: Server) -> None:
    async with connect(options(server)) as client:
        streams = LearnerStreams(client, options(server))
        for number in range(MOST_FRAMES + 10):
            await streams.send(b"%d" % number)
    taken: list[bytes] = []
    await take(server, taken)
    assert taken == [b"%d" % number for number in range(10, MOST_FRAMES + 10)]
