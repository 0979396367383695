"""The lease against a real Redis: the thousand rounds are `make lease-proof`, a dozen of them run here."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from daemon.lease import FREE, LOST, Lease, Terms
from daemon.publish.lease_store import RedisLease
from daemon.publish.redis import RedisOptions, connect
from tests.lease_rounds import Report, judge, play
from tests.servers import Server, redis_server

TERMS = Terms(length_s=0.5, renew_s=0.1, margin_s=0.1)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    started = redis_server(tmp_path)
    started.start()
    yield started
    started.kill()


class Clock:
    """A daemon's monotonic clock that can be set forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return asyncio.get_running_loop().time() + self.ahead


Make = Callable[..., Lease]


@pytest.fixture
async def lease(server: Server) -> AsyncIterator[Make]:
    """Makes a daemon's side of the lease."""
    stores: list[RedisLease] = []

    def make(name: str, clock: Clock | None = None) -> Lease:
        stores.append(RedisLease(connect(RedisOptions(f"redis://127.0.0.1:{server.port}", "main", "", timeout_s=0.2)), "main"))
        return Lease(stores[-1], name, clock or Clock(), TERMS)

    yield make
    for store in stores:
        await store.close()


async def within(seconds: float, side: Lease, floor: int = 0) -> int:
    async with asyncio.timeout(seconds):
        return await side.acquire(floor)


def test_no_two_trade_at_once_whatever_dies_or_freezes(tmp_path):
    report = play(tmp_path, rounds=12, seed=3)
    assert (report.overlaps, report.epochs_that_fell) == ([], [])
    assert report.holders >= 3, "the misfortunes made nobody take over"


def test_the_judge_notices_two_at_once_and_an_epoch_that_fell():
    report = Report()
    judge(["a 1 1.0 2.0", "b 2 1.9 2.5", "c 2 3.0 4.0", "a 4 3.5 4.0"], report)
    assert [(one.holder, other.holder) for one, other in report.overlaps] == [("a", "b"), ("c", "a")]
    assert [(one.holder, other.holder) for one, other in report.epochs_that_fell] == [("b", "c")]


async def test_one_holds_the_other_waits_and_takes_over_after_the_end(server, lease):
    first, second = lease("first"), lease("second")
    assert await within(10, first) == 1
    assert first.left_s() <= TERMS.length_s - TERMS.margin_s
    with pytest.raises(TimeoutError):
        await within(0.3, second)
    assert second.left_s() == 0
    assert await within(10, second) == 2
    assert first.left_s() == 0, "the first one's time was over before the second one's began"
    assert await first.renew() is False
    assert first.epoch == LOST


async def test_what_is_given_back_can_be_had_at_once_and_epochs_respect_the_floor(server, lease):
    first, second = lease("first"), lease("second")
    await within(10, first, floor=41)
    assert first.epoch == 41
    await first.release()
    assert first.left_s() == 0
    assert await within(0.4, second, floor=7) == 42


async def test_a_redis_that_has_just_begun_gives_no_lease(server, lease):
    first = lease("first")
    await within(10, first)
    server.kill()
    for file in (server_folder := Path(server._command[server._command.index("--dir") + 1])).rglob("*.aof*"):
        file.unlink()
    assert server_folder.is_dir()
    server.start()
    assert Redis(port=server.port).exists("quartet:main:lease") == 0, "it has forgotten"
    second = lease("second")
    with pytest.raises(TimeoutError):
        await within(TERMS.length_s, second)
    assert await within(10, second) >= 1
    assert first.left_s() == 0


async def test_a_silent_redis_ends_the_lease_on_time_and_a_late_renewal_counts_from_before(server, lease, capfd):
    clock = Clock()
    holder = lease("first", clock)
    await within(10, holder)
    server.signal(signal.SIGSTOP)
    assert await holder.renew() is False
    assert holder.epoch == 1, "silence is no proof of loss"
    clock.ahead = TERMS.length_s - TERMS.margin_s
    assert holder.left_s() == 0
    server.signal(signal.SIGCONT)
    assert capfd.readouterr().out.count("lease_store_unreachable") == 1


async def test_nothing_is_held_before_it_is_asked_for(server, lease):
    waiting = lease("first")
    assert (waiting.epoch, waiting.left_s(), waiting.status["held"]) == (FREE, 0.0, False)
    await waiting.release()
