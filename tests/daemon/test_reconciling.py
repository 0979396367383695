"""The ledger held against the venue in a session: quiet moments only, explained where it can be, told where it persists."""

import asyncio
import random
from collections.abc import Iterable
from contextlib import suppress
from decimal import Decimal

from agents.core.events import Adjustment, AdjustmentKind, Event, Fill, Listing, OrderUpdate, Reconciled, Stamp, stamped
from agents.core.instruments import Currency, Side, Symbol
from agents.core.ledger import Ledger
from agents.core.orders import OrderId, OrderState, Place
from daemon import opening
from daemon.reconciling import PERSISTENT, Reconciler
from daemon.simulation.loop import VirtualLoop
from daemon.simulation.timeline import Timeline
from daemon.venues.parse import Transfer
from tests.daemon.recovery_world import BNB, BTC, COIN, LISTED, SECOND, START, USDT

D = Decimal


class Venue:
    """What the venue says, as the test sets it; `swept` is told at the next sweep."""

    def __init__(self) -> None:
        self.totals = {USDT: D(5000), COIN: D(2), BNB: D(10)}
        self.moving: list[tuple[Currency, Decimal]] = []
        self.swept: list[Event] = []
        self.asked: list[str] = []
        self.listed: list[Transfer] = []
        self.strays: list[str] = []
        self.rivals: list[str] = []
        self.denied: list[str] = []
        self.waiting = 0
        self.tell = lambda event: None

    async def balances(self) -> dict[Currency, Decimal]:
        self.asked.append("balances")
        if self.moving:
            currency, amount = self.moving.pop(0)
            self.totals[currency] += amount
        return dict(self.totals)

    async def sweep(self, symbols: Iterable[Symbol]) -> None:
        self.asked += [f"sweep {symbol}" for symbol in symbols]
        for event in self.swept:
            self.tell(event)  # type: ignore[func-returns-value]
        self.swept.clear()

    async def compare(self) -> None:
        self.asked.append("compare")

    async def transfers(self, since: int) -> list[Transfer]:
        self.asked.append("transfers")
        return self.listed

    def close_denied(self) -> None:
        self.denied.clear()


class House:
    """A ledger behind a door that takes facts at once."""

    def __init__(self, told: tuple[tuple[Currency, Decimal, Decimal], ...] = ()) -> None:
        self.venue, self.ledger, self.told, self.halted = Venue(), Ledger(USDT), list[Event](), list[str]()
        self.venue.tell = self.tell  # type: ignore[method-assign,assignment]
        self.now = START
        self.ledger.apply(Listing(Stamp(0), LISTED))
        for adjustment in opening.fresh(USDT, D(1000), self.venue.totals):
            self.ledger.apply(adjustment)
        self.reconciler = Reconciler(
            self.venue, self.ledger, self.tell, lambda: 0, lambda: self.now, self.halted.append, told=told, booked=["deposit 1"]
        )

    def tell(self, event: Event) -> None:
        self.told.append(event)
        self.ledger.apply(stamped(event, Stamp(self.now, len(self.told))))

    @property
    def said(self) -> list[tuple[tuple[Currency, Decimal, Decimal], ...]]:
        return [event.differences for event in self.told if isinstance(event, Reconciled)]

    async def look(self, times: int = 1) -> None:
        for _ in range(times):
            self.now += 10 * SECOND
            await self.reconciler.look()


async def test_an_account_that_agrees_costs_two_reads_and_says_nothing() -> None:
    house = House()
    await house.look(5)
    assert (house.told, house.venue.asked) == ([], ["compare", "balances"] * 5)
    assert house.reconciler.status()["age_s"] == 0
    house.now += 7 * SECOND
    status = house.reconciler.status()
    assert (status["age_s"], status["mismatches"], status["clean"], status["looks"]) == (7, 0, True, 5)


async def test_fills_that_never_come_hide_their_difference_for_a_minute_and_no_longer() -> None:
    house = House()
    place = Place(OrderId("q-main-1-1-0"), BTC, Side.BUY, D("0.4"), D(100))
    house.ledger.record(place, Stamp(house.now, 1))
    house.tell(OrderUpdate(Stamp(0), place.order_id, BTC, OrderState.FILLED, "1", D("0.4"), "fills_missing"))
    house.venue.totals[COIN] += D("0.4")
    house.venue.totals[USDT] -= 40
    await house.look(5)
    assert house.said == [], "they may still come"
    await house.look(4)
    assert house.said == [((COIN, D(2), D("2.4")), (USDT, D(5000), D(4960)))]


async def test_a_difference_is_told_after_it_persisted_and_taken_back_when_it_is_gone() -> None:
    house = House()
    house.venue.totals[BNB] += 3
    await house.look(2)
    assert (house.said, house.reconciler.status()["watched"]) == ([], [BNB])
    await house.look(4)
    assert house.said == [((BNB, D(10), D(13)),)]
    assert house.reconciler.status()["differences"] == {"BNB": {"ledger": "10", "venue": "13"}}
    house.venue.totals[BNB] -= 3
    await house.look(3)
    assert house.said == [((BNB, D(10), D(13)),), ()]


async def test_one_that_comes_and_goes_is_not_told() -> None:
    house = House()
    for _ in range(4):
        house.venue.totals[BNB] += 3
        await house.look(PERSISTENT - 1)
        house.venue.totals[BNB] -= 3
        await house.look()
    assert house.said == []


async def test_what_the_start_left_unexplained_is_taken_back_by_one_clean_look() -> None:
    house = House(told=((USDT, D(1), D(2)),))
    await house.look(2)
    assert house.said == [()]


async def test_a_missed_fill_is_found_by_the_sweep_and_is_no_difference() -> None:
    house = House()
    house.ledger.record(Place(OrderId("q-main-1-1-0"), BTC, Side.BUY, D(1), D(100)), Stamp(START, 1))
    house.tell(OrderUpdate(Stamp(0), OrderId("q-main-1-1-0"), BTC, OrderState.OPEN, "7", D(0)))
    house.venue.totals[COIN] += 1
    house.venue.totals[USDT] -= 100
    house.venue.swept = [Fill(Stamp(0), BTC, START, OrderId("q-main-1-1-0"), "5", Side.BUY, D(100), D(1), D(0), USDT, True)]
    await house.look(4)
    assert house.said == []
    assert house.ledger.position(BTC) == 1
    assert house.venue.asked.count("sweep BTC/USDT") == 1


async def test_currencies_that_move_or_have_an_order_on_its_way_are_left_for_a_quieter_moment() -> None:
    house = House()
    house.venue.totals[BNB] += 1
    house.venue.moving = [(BNB, D("0.1"))] * 20
    await house.look(4)
    assert house.said == []
    house = House()
    house.venue.totals[COIN] += 1
    house.ledger.record(Place(OrderId("q-main-1-1-0"), BTC, Side.BUY, D(1), D(100)), Stamp(START, 1))
    await house.look(5)
    assert house.said == []
    house.tell(OrderUpdate(Stamp(0), OrderId("q-main-1-1-0"), BTC, OrderState.REJECTED))
    await house.look(PERSISTENT)
    assert house.said == [((COIN, D(2), D(3)),)]


async def test_facts_that_have_not_reached_the_ledger_are_waited_for() -> None:
    house = House()
    house.venue.totals[COIN] += 1
    house.venue.waiting = 1

    async def arrives() -> None:
        while "sweep BTC/USDT" not in house.venue.asked:
            await asyncio.sleep(0)
        house.tell(Adjustment(Stamp(0), COIN, D(1), AdjustmentKind.CORRECTION, "trade 9 of BTC/USDT at 0, an order that is not ours"))
        house.venue.waiting = 0

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(arrives())
        await house.look()
    assert house.reconciler.status()["watched"] == []
    await house.look(PERSISTENT)
    assert house.said == []


async def test_a_deposit_is_booked_by_its_name_and_only_once() -> None:
    house = House()
    house.venue.totals[USDT] += 250
    house.venue.listed = [Transfer("deposit 1", USDT, D(100), START - SECOND), Transfer("deposit 2", USDT, D(250), START + SECOND)]
    await house.look(6)
    booked = [(e.kind, e.amount, e.note) for e in house.told if isinstance(e, Adjustment)]
    assert booked == [(AdjustmentKind.DEPOSIT, D(250), "deposit 2")]
    assert house.said == []
    house.venue.totals[USDT] += 250  # as much again, and nothing that says where from
    await house.look(6)
    assert house.said == [((USDT, D(5250), D(5500)),)]


async def test_coins_that_the_owner_withdrew_leave_the_position_at_its_cost() -> None:
    house = House()
    house.tell(Fill(Stamp(0), BTC, START, OrderId("a"), "1", Side.BUY, D(100), D(4), D(0), USDT, True))
    house.venue.totals = {USDT: D(4600), COIN: D(1), BNB: D(10)}
    house.venue.listed = [Transfer("withdrawal 1", COIN, D(-5), START + SECOND)]
    await house.look(2)
    assert (house.ledger.position(BTC), house.ledger.balances[COIN], house.ledger.cash()) == (D(1), D(1), D(900))
    assert house.said == []


async def test_the_operators_word_books_what_stands_and_the_next_look_is_clean() -> None:
    house = House()
    house.venue.totals[BNB] += 3
    house.venue.denied = ["q-main-1-1-0"]
    await house.look(PERSISTENT)
    report = house.reconciler.report()
    assert (report["corrections"], report["applied"], report["clean"]) == ({"BNB": "3"}, False, False)
    assert house.ledger.balances[BNB] == 10
    assert house.reconciler.apply()["corrections"] == {"BNB": "3"}
    await house.look()
    assert (house.ledger.balances[BNB], house.said[-1], house.venue.denied) == (D(13), (), [])


async def test_orders_that_the_exchange_denies_keep_risk_from_rising_until_it_finds_them_again() -> None:
    house = House()
    house.venue.denied = ["q-main-1-1-0"]
    await house.look(3)
    assert house.said == [((USDT, D(5000), D(5000)),)]
    assert "denies 1 orders" in next(event.note for event in house.told if isinstance(event, Reconciled))
    house.venue.denied = []
    await house.look(2)
    assert house.said[1:] == [()]


async def test_another_daemon_under_our_name_halts_this_one_once() -> None:
    house = House()
    house.venue.rivals = ["q-main-9-1-0"]
    await house.look(3)
    assert len(house.halted) == 1
    assert "another daemon trades this account" in house.halted[0]


async def test_a_venue_that_cannot_be_reached_makes_the_last_look_older_and_is_no_difference() -> None:
    house = House()
    await house.look()

    async def gone() -> dict[Currency, Decimal]:
        raise TimeoutError

    house.venue.balances = gone  # type: ignore[method-assign]
    await house.look(5)
    status = house.reconciler.status()
    assert (status["age_s"], status["failed"], house.said) == (50, 5, [])


def test_after_a_look_that_failed_the_next_comes_soon_and_after_a_good_one_at_its_time() -> None:
    house, looked = House(), list[float]()
    well = house.venue.balances

    async def shaky() -> dict[Currency, Decimal]:
        looked.append(asyncio.get_running_loop().time())
        if len(looked) == 2:
            raise TimeoutError
        return await well()

    house.venue.balances = shaky  # type: ignore[method-assign]

    async def minute() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(45):
                await house.reconciler.run()

    loop = VirtualLoop(Timeline(), random.Random(1))
    begun = loop.time()
    loop.run(minute())
    assert [round(at - begun) for at in looked] == [10, 20, 22, 32, 42]
