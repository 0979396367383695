"""The door: one order, one stamp, a bounded inbox that forgets only what is superseded."""

import asyncio
from collections.abc import Iterator
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from agents.core.events import UNSTAMPED, BookSnapshot, Event, Tick, Trade
from agents.core.instruments import Side, Symbol
from daemon.door import Door

BTC, ETH = Symbol("BTC/USDT"), Symbol("ETH/USDT")
ONE = Decimal(1)


def trade(number: int) -> Trade:
    return Trade(UNSTAMPED, BTC, number, str(number), ONE, ONE, Side.BUY)


def book(symbol: Symbol, price: int) -> BookSnapshot:
    return BookSnapshot(UNSTAMPED, symbol, price, ((Decimal(price), ONE),), ((Decimal(price + 1), ONE),))


def ticking() -> Iterator[int]:
    now = 1000
    while True:
        yield now
        now += 7


async def drain(door: Door) -> list[Event]:
    door.close()
    return [event async for event in door.events()]


async def test_stamps_are_given_once_and_in_order() -> None:
    clock = ticking()
    door = Door(clock=lambda: next(clock), first=5)
    for number in range(3):
        await door.put(trade(number))
    out = await drain(door)
    assert [(e.stamp.at, e.stamp.seq) for e in out] == [(1000, 5), (1007, 6), (1014, 7)]


async def test_a_newer_book_replaces_the_waiting_one_of_its_symbol_only() -> None:
    door = Door(clock=lambda: 1)
    for event in (book(BTC, 10), book(ETH, 20), trade(1), book(BTC, 11)):
        await door.put(event)
    out = await drain(door)
    assert [(type(e).__name__, getattr(e, "time", None)) for e in out] == [("BookSnapshot", 20), ("Trade", 1), ("BookSnapshot", 11)]
    assert door.coalesced == 1
    assert [e.stamp.seq for e in out] == [1, 2, 3], "what was superseded leaves no hole in the sequence"


async def test_a_full_inbox_makes_the_bringer_wait_and_loses_nothing() -> None:
    door = Door(clock=lambda: 1, capacity=4)
    taken: list[Event] = []

    async def bring() -> None:
        for number in range(50):
            await door.put(trade(number))
        door.close()

    async def take() -> None:
        async for event in door.events():
            assert door.depth <= 4
            taken.append(event)
            await asyncio.sleep(0)

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(bring())
        group.create_task(take())
    assert [e.time for e in taken if isinstance(e, Trade)] == list(range(50))


@given(st.lists(st.tuples(st.sampled_from(["trade", "btc", "eth", "tick"]), st.integers(1, 99))))
def test_trades_and_ticks_always_come_through_and_books_end_with_the_latest(brought: list[tuple[str, int]]) -> None:
    async def run() -> list[Event]:
        door = Door(clock=lambda: 1)
        for kind, n in brought:
            made: Event = {"trade": trade(n), "btc": book(BTC, n), "eth": book(ETH, n), "tick": Tick(UNSTAMPED)}[kind]
            await door.put(made)
        return await drain(door)

    out = asyncio.run(run())
    assert [e.time for e in out if isinstance(e, Trade)] == [n for kind, n in brought if kind == "trade"]
    assert sum(isinstance(e, Tick) for e in out) == sum(kind == "tick" for kind, _ in brought)
    for symbol, name in ((BTC, "btc"), (ETH, "eth")):
        last = [n for kind, n in brought if kind == name][-1:]
        assert [e.time for e in out if isinstance(e, BookSnapshot) and e.symbol == symbol] == last
