"""A session's side of the lease and of what it leaves, against a real Redis."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest

from agents.core.errors import DataError, Unreachable
from agents.core.events import Adjustment, AdjustmentKind, Event, Fill, Leased, Listing, Stamp
from agents.core.instruments import Currency, Instrument, Side, Symbol
from agents.core.ledger import Ledger
from agents.core.orders import OrderId
from agents.desk.decision import NOTHING, EngineConfig
from agents.engine import Engine
from daemon import control, left_plain
from daemon.errors import TimedOut
from daemon.holding import Holding, LeaseLost, kept
from daemon.latch import Latch
from daemon.lease import Lease, Terms
from daemon.left_mirror import LeftMirror
from daemon.publish.lease_store import RedisLease
from daemon.publish.left_store import RedisLeft
from daemon.publish.redis import RedisOptions, connect
from daemon.service import Manager
from daemon.standby import Follower, Standby
from daemon.venues.fills import Cursor
from tests.servers import Server, redis_server

TERMS = Terms(length_s=1.0, renew_s=0.2, margin_s=0.2)
BTC, USDT, COIN = Symbol("BTC/USDT"), Currency("USDT"), Currency("BTC")
D = Decimal


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = redis_server(tmp_path_factory.mktemp("redis"))
    started.start()
    yield started
    started.kill()


@asynccontextmanager
async def stores(server: Server, instance: str) -> AsyncIterator[tuple[RedisLease, RedisLeft]]:
    reach = RedisOptions(f"redis://127.0.0.1:{server.port}", instance, "", timeout_s=0.5)
    lease, left = RedisLease(connect(reach), instance), RedisLeft(connect(reach), instance)
    try:
        yield lease, left
    finally:
        await lease.close()
        await left.close()


class Session:
    """What a holding tells: facts and the word to stop."""

    def __init__(self) -> None:
        self.facts: list[Event] = []
        self.stopped = asyncio.Event()
        self.told = asyncio.Event()

    def push(self, event: Event) -> None:
        self.facts.append(event)
        self.told.set()

    async def next(self) -> Event:
        async with asyncio.timeout(20):
            await self.told.wait()
        self.told.clear()
        return self.facts[-1]


def now() -> float:
    return asyncio.get_running_loop().time()


async def acquired(store: RedisLease, name: str) -> Lease:
    lease = Lease(store, name, now, TERMS)
    async with asyncio.timeout(30):
        await lease.acquire(1)
    return lease


async def test_a_silent_redis_is_told_the_engine_in_time_and_its_return_too(server):
    async with stores(server, "silent") as (store, _):
        session = Session()
        lease = await acquired(store, "a")
        holding = Holding(lease, now)
        async with kept(holding):
            holding.attach(session.push, session.stopped.set)
            assert 0 < holding.may_live_s() <= TERMS.length_s - TERMS.margin_s
            server.signal(signal.SIGSTOP)
            try:
                told = await session.next()
            finally:
                server.signal(signal.SIGCONT)
            assert isinstance(told, Leased) and not told.held and lease.left_s() < TERMS.margin_s
            first = await session.next()
            if not session.stopped.is_set():  # the answer came before the lease was over
                assert isinstance(first, Leased) and first.held
                holding.outrun("the test is over")
            with pytest.raises(LeaseLost):
                holding.attach(session.push, session.stopped.set)
            holding.lost = ""


async def test_when_another_has_it_the_session_ends_in_order_and_says_why_at_last(server):
    async with stores(server, "lost") as (store, _):
        session = Session()
        lease = await acquired(store, "a")
        holding = Holding(lease, now)
        with pytest.raises(LeaseLost, match="another daemon has it"):  # noqa: PT012
            async with kept(holding):
                holding.attach(session.push, session.stopped.set)
                await store.release("a", lease.epoch)
                other = await acquired(store, "b")
                async with asyncio.timeout(20):
                    await session.stopped.wait()
                assert [event.held for event in session.facts if isinstance(event, Leased)] == [False]
                assert holding.may_live_s() == 0.0 and other.left_s() > 0
        assert await store.renew("b", other.epoch, 1.0), "the loser has given back nothing"


async def _taken_away(store: RedisLease, lease: Lease) -> None:
    await store.release("a", lease.epoch)
    await acquired(store, "b")
    await asyncio.Event().wait()


async def test_lost_before_there_is_a_session_it_breaks_the_start_off(server):
    async with stores(server, "early") as (store, _):
        lease = await acquired(store, "a")
        with pytest.raises(LeaseLost):
            async with kept(Holding(lease, now)):
                await _taken_away(store, lease)


async def test_given_back_only_when_what_was_signed_has_expired_and_never_after_a_failure(server):
    async with stores(server, "end") as (store, _):
        lease = await acquired(store, "a")
        holding = Holding(lease, now)
        async with kept(holding):
            signed_until = now() + holding.may_live_s()
        assert now() >= signed_until - 0.01
        assert await store.acquire("b", 1, 1.0, 0.0) > 0, "it is free at once"
        async with stores(server, "failed") as (other, _):
            failed = await acquired(other, "a")
            with pytest.raises(ZeroDivisionError):
                async with kept(Holding(failed, now)):
                    raise ZeroDivisionError
            assert await other.renew("a", failed.epoch, 1.0), "nobody knows what is on its way: it runs out by itself"


# -- what is left -------------------------------------------------------------------------------------------------------


def listed() -> Listing:
    return Listing(Stamp(1, 1), Instrument(BTC, COIN, USDT, D("0.01"), D("0.001")))


def fill(number: int, seq: int) -> Fill:
    return Fill(Stamp(9, seq), BTC, 5_000_000_000, OrderId("q-left-3-1-0"), str(number), Side.BUY, D(100), D("0.1"), D(0), USDT, True)


class World:
    """A mirror over an engine that is told facts by hand."""

    def __init__(self, left: RedisLeft, folder: Path, epoch: int) -> None:
        self.engine, self.last, self.outrun = Engine(EngineConfig("left", epoch, "USDT", (BTC,), hidden_sizes=(8,))), 0, 0
        latch = Latch(folder)
        self.mirror = LeftMirror(left.write, self.engine, epoch, "account", latch, {BTC: Cursor(7)}, (), lambda: self.last, self._outrun)

    def _outrun(self) -> None:
        self.outrun += 1

    def handle(self, event: Event, *, whole: bool = True) -> None:
        self.last = event.stamp.seq
        self.engine.ledger.apply(event)
        if whole:
            self.mirror.tell(event, NOTHING)


async def test_what_is_written_has_a_fill_in_book_and_cursor_or_in_neither(server, tmp_path):
    async with stores(server, "whole") as (_, left):
        world = World(left, tmp_path, 3)
        world.handle(listed())
        world.handle(fill(11, 2))
        world.handle(fill(12, 3), whole=False)  # the engine has it, the mirror has not been told yet
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(world.mirror.write())
            await asyncio.sleep(0.02)
            assert not writing.done() and await left.read() is None
            world.mirror.tell(fill(12, 3), NOTHING)
        epoch, body = await left.read() or (0, b"")
        kept_now = left_plain.read(body).left
        assert epoch == kept_now.epoch == 3
        assert kept_now.ledger.position(BTC) == D("0.2")
        assert {name for _, name in kept_now.cursors[BTC].known} == {"11", "12"}


async def test_an_older_session_cannot_write_over_a_later_one_and_learns_that_it_is_over(server, tmp_path):
    async with stores(server, "fence") as (_, left):
        later, older = World(left, tmp_path, 5), World(left, tmp_path, 4)
        opening = [listed(), Adjustment(Stamp(1, 2), USDT, D(100), AdjustmentKind.OPENING)]
        await later.mirror.open(opening, 9)
        await older.mirror.open(opening, 10)
        assert (later.outrun, older.outrun) == (0, 1)
        assert (await left.read() or (0, b""))[0] == 5
        follower = Follower(left.read, 2)
        await follower.look()
        given = follower.inherited(6)
        assert follower.known == 5 and given.left is not None and given.left.ledger.balances[USDT] == D(100)
        await left.write(7, left_plain.told(6, 1, Ledger(USDT), {}, None, (), "account", Latch(tmp_path).read()))
        await follower.look()
        with pytest.raises(DataError, match="stamped wrongly"):
            follower.inherited(8)


async def test_without_redis_nothing_is_opened_and_a_running_session_only_says_so(tmp_path, server):
    dead = RedisOptions("redis://127.0.0.1:1", "dead", "", timeout_s=0.5)
    left = RedisLeft(connect(dead), "dead")
    world = World(left, tmp_path, 3)
    with pytest.raises(Unreachable):
        await world.mirror.open([listed()], 1)
    world.handle(listed())
    await world.mirror.farewell()
    assert world.mirror.written == 0
    await left.close()


# -- standing by --------------------------------------------------------------------------------------------------------


async def test_whoever_waits_for_the_lease_can_be_cancelled_at_any_moment(server):
    async with stores(server, "cancelled") as (store, _):
        await acquired(store, "a")
        for moment in range(24):
            lease = Lease(store, "b", now, Terms(30.0, 0.2, 0.2))
            async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
                waiting = tasks.create_task(lease.acquire(1))
                for _ in range(moment):
                    await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.wait({waiting}, timeout=0.1)
                assert waiting.done(), f"the cancellation {moment} turns after the start was swallowed"


async def test_a_standby_says_so_takes_the_operators_words_and_takes_over_above_what_it_knows(server, tmp_path):
    async with stores(server, "standby") as (store, left):
        holder = await acquired(store, "a")
        lease = Lease(store, "b", now, TERMS)
        standby, follower, latch = Standby(lease, {"instance": "standby"}, lambda: 0), Follower(left.read, 40), Latch(tmp_path)
        async with standby.shown(tmp_path, Manager(), latch, follower):
            with pytest.raises(TimedOut):
                async with kept(Holding(holder, now)):
                    await standby.acquired(lambda: follower.known, 0.5)
            said = await asyncio.to_thread(control.ask, tmp_path, "status")
            assert said["standby"] and not said["lease"]["held"] and not said["ready"]
            await asyncio.to_thread(control.ask, tmp_path, "halt", reason="not now")
            assert latch.read().kind == "halt" and latch.read().reason == "not now"
            async with asyncio.timeout(30):
                assert await standby.acquired(lambda: follower.known, None) == 41
            await lease.release()
            await acquired(store, "c")
            again = Standby(Lease(store, "d", now, TERMS), {}, lambda: 0)
            other = tmp_path / "d"
            other.mkdir()
            async with again.shown(other, Manager(), latch, follower):
                await asyncio.to_thread(control.ask, other, "stop")
                assert await again.acquired(lambda: 0, None) is None
