"""ccxt on the simulated network sees what ccxt sees on a real one: the same errors, the same answers."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from ccxt.base import errors

from daemon.rehearsal.config import TEST_KEY, TEST_SECRET
from daemon.simulation.chance import Chance
from daemon.simulation.exchange import Exchange
from daemon.simulation.faults import BY_NAME, Plan, named
from daemon.simulation.front import Front
from daemon.simulation.loop import VirtualLoop
from daemon.simulation.machine import Clients, Clocks, account_options, simulated_machine
from daemon.simulation.network import Network
from daemon.simulation.run import quiet
from daemon.simulation.timeline import NS, Timeline
from tests.rehearsal_faults import rehearsal

SYMBOL = "BTC/USDT"


class World:
    """An exchange in memory, a network, and no daemon."""

    def __init__(self, seed: int = 5) -> None:
        chance = Chance(seed)
        self.timeline = Timeline()
        self.clocks = Clocks(self.timeline)
        self.exchange = Exchange((SYMBOL,), seed, self.clocks.exchange, 1.0, 5.0, {"USDT": 100_000})  # type: ignore[dict-item]
        self.plan = Plan(named("none"), chance.stream("plan"))
        self.front = Front(self.timeline, self.exchange, self.plan, chance.stream("front"))
        self.network = Network(self.timeline, self.front, self.front)
        self.clients = Clients(self.network.session)
        self.loop = VirtualLoop(self.timeline, chance.stream("loop"))
        self._tick()

    def _tick(self) -> None:
        self.exchange.tick(NS // 4)
        self.timeline.after(0.25, self._tick)

    def always(self, name: str) -> None:
        """One fault on every message."""
        self.plan._extent = {name: 1.0 / BY_NAME[name].rate}

    def never(self) -> None:
        self.plan._extent = {}

    def run(self, story: Callable[["World", Any], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            client = self.clients.build(account_options("http://127.0.0.1:9", TEST_KEY, TEST_SECRET))
            await client.load_markets()
            await asyncio.sleep(1)
            return await story(self, client)

        with quiet(), simulated_machine(self.clocks, 1):
            try:
                return self.loop.run(main())
            finally:
                self.loop.abandon()


async def place(client: Any, name: str) -> Any:
    book = await client.fetch_order_book(SYMBOL, 5)
    price = float(client.price_to_precision(SYMBOL, book["bids"][0][0] * 0.9))
    return await client.create_order(SYMBOL, "limit", "buy", 0.01, price, {"clientOrderId": name})


async def seen(work: Awaitable[Any]) -> str:
    """The error's class, or which fields of the answer are filled."""
    try:
        answer = await work
    except errors.BaseError as error:
        return type(error).__name__
    return " ".join(sorted(name for name in ("id", "status", "filled", "amount", "clientOrderId") if answer.get(name) is not None))


ALIKE = {
    # fault of the simulation -> fault of the rehearsal server, what both must look like
    "none": ("", "amount clientOrderId filled id status"),
    "late_answer": ("no_answer", "RequestTimeout"),
    "reset": ("accepted_reset", "ExchangeNotAvailable"),
    "empty_answer": ("empty_answer", "filled"),
    "overloaded": ("overload_1008", "ExchangeError"),
}


@pytest.mark.parametrize("fault", ALIKE)
def test_orders_meet_the_same_errors_as_on_a_server(fault: str):
    async def story(world: World, client: Any) -> str:
        book = await client.fetch_order_book(SYMBOL, 5)
        price = float(client.price_to_precision(SYMBOL, book["bids"][0][0] * 0.9))
        if fault != "none":
            world.always(fault)
        return await seen(client.create_order(SYMBOL, "limit", "buy", 0.01, price, {"clientOrderId": "q-sim-1-1-0"}))

    assert World().run(story) == ALIKE[fault][1]


async def test_the_server_shows_the_same():
    async with rehearsal(symbols=(SYMBOL,)) as server:
        client = server.ccxt(timeout=700)
        await client.load_markets()
        await asyncio.wait_for(client.fetch_order_book(SYMBOL, 5), 10)
        for number, (other, looks) in enumerate(ALIKE.values()):
            if other:
                await server.faults.on(other, count=1)
            assert await seen(place(client, f"alike-{number}")) == looks, other
            await server.faults.off()


@pytest.mark.parametrize(
    ("set_up", "asked", "looks"),
    [
        (lambda w: w.front.throttle(w.timeline.now + 30 * NS, banned=False), "fetch_balance", "DDoSProtection"),
        (lambda w: w.front.throttle(w.timeline.now + 30 * NS, banned=True), "fetch_balance", "DDoSProtection"),
        (lambda w: setattr(w.clocks, "machine_error", 3600 * NS), "fetch_balance", "InvalidNonce"),
        (lambda w: setattr(w.clocks, "machine_error", -3600 * NS), "fetch_balance", "InvalidNonce"),
        (lambda w: setattr(w.front, "down_until", w.timeline.now + 30 * NS), "fetch_balance", "ExchangeNotAvailable"),
        (lambda w: setattr(w.front, "key_refused_until", w.timeline.now + 30 * NS), "fetch_balance", "DDoSProtection"),
    ],
)
def test_the_rest_of_the_table(set_up: Callable[[World], None], asked: str, looks: str):
    async def story(world: World, client: Any) -> str:
        await client.fetch_balance()  # the key has worked before
        set_up(world)
        return await seen(getattr(client, asked)())

    assert World().run(story) == looks


def test_lookups_of_orders():
    async def story(world: World, client: Any) -> list[str]:
        told = [await seen(client.fetch_order("", SYMBOL, {"clientOrderId": "q-sim-1-9-0"}))]
        await place(client, "q-sim-1-2-0")
        told.append(await seen(place(client, "q-sim-1-2-0")))
        found = await client.fetch_order("", SYMBOL, {"clientOrderId": "q-sim-1-2-0"})
        cancelled = await client.cancel_order(found["id"], SYMBOL)
        return [*told, found["status"], cancelled["status"], str(cancelled["clientOrderId"] == "q-sim-1-2-0")]

    assert World().run(story) == ["OrderNotFound", "InvalidOrder", "open", "canceled", "False"]


def test_queries_that_lag_show_the_past():
    async def story(world: World, client: Any) -> tuple[str, int, int, int]:
        world.front.lag(world.timeline.now + 60 * NS)
        world.front.lags_s = dict.fromkeys(world.front.lags_s, 5.0)
        await place(client, "q-sim-1-3-0")
        missing = await seen(client.fetch_order("", SYMBOL, {"clientOrderId": "q-sim-1-3-0"}))
        before = len(await client.fetch_open_orders(SYMBOL))
        locked = (await client.fetch_balance())["USDT"]["used"]
        await asyncio.sleep(6)
        return missing, before, locked, len(await client.fetch_open_orders(SYMBOL))

    assert World().run(story) == ("OrderNotFound", 0, 0.0, 1)


def test_a_stream_lives_breaks_and_comes_back():
    async def story(world: World, client: Any) -> list[str]:
        told = []
        await client.watch_order_book(SYMBOL)
        world.network.cut()
        told.append(await seen(client.watch_order_book(SYMBOL)))
        book = await client.watch_order_book(SYMBOL)
        told.append(str(book["bids"][0][0] < book["asks"][0][0]))
        world.front.hush(100)
        try:
            async with asyncio.timeout(50):
                while True:
                    await client.watch_order_book(SYMBOL)
        except TimeoutError:
            told.append("silence is no error: nobody says anything")
        return told

    assert World().run(story) == ["NetworkError", "True", "silence is no error: nobody says anything"]


def test_a_request_that_has_left_arrives_although_its_sender_died():
    async def story(world: World, client: Any) -> None:
        book = await client.fetch_order_book(SYMBOL, 5)
        price = float(client.price_to_precision(SYMBOL, book["bids"][0][0] * 0.9))
        running = asyncio.get_running_loop()
        kept = running.create_task(client.create_order(SYMBOL, "limit", "buy", 0.01, price, {"clientOrderId": "q-sim-1-4-0"}))
        await asyncio.sleep(0.001)
        world.network.kill()
        assert not kept.done()
        raise KeyboardInterrupt

    world = World()
    with pytest.raises(KeyboardInterrupt):
        world.run(story)
    end = world.timeline.now + NS
    while (due := world.timeline.due) is not None and due < end:
        world.timeline.now = max(world.timeline.now, due)
        action = world.timeline.take()
        assert action is not None
        action()
    assert [order.client_id for order in world.exchange.account.open_orders()] == ["q-sim-1-4-0"]
