"""The kill path in the shell: a flatten is seen through at the venue's own price, and a failed record still takes orders away."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from decimal import Decimal

import pytest

from agents.core.errors import TradingError
from agents.core.events import (
    UNSTAMPED,
    Adjustment,
    AdjustmentKind,
    BookSnapshot,
    CancelAll,
    Event,
    Fill,
    Flatten,
    Halt,
    Listing,
    OrderUpdate,
    Resume,
    Stamp,
)
from agents.core.instruments import NS, ZERO, Currency, Instrument, Side, Symbol
from agents.core.orders import Cancel, Command, OrderId, OrderState, Place
from agents.desk.decision import EngineConfig
from agents.engine import Engine
from daemon import kill_path
from daemon.door import Door
from daemon.drive import drive
from daemon.latch import Latch
from daemon.operating import Operator
from daemon.segments import RecordFailed

BTC, USDT = Symbol("BTC/USDT"), Currency("USDT")
LISTED = Instrument(BTC, Currency("BTC"), USDT, Decimal("0.01"), Decimal("0.00001"), min_notional=Decimal(5))


def book(price: int) -> BookSnapshot:
    levels = [(Decimal(price - 1), Decimal(5))], [(Decimal(price + 1), Decimal(5))]
    return BookSnapshot(UNSTAMPED, BTC, 1_700_000_000 * NS, tuple(levels[0]), tuple(levels[1]))


class Market:
    """A venue whose price has fallen: it fills sells at or below its bid, confirms cancels, and tells its price when asked."""

    def __init__(self, door: Door, price: int) -> None:
        self.door, self.price, self.sent, self.asked = door, price, [], 0
        self.sent: list[Command] = []

    async def events(self) -> AsyncIterator[Event]:
        """Nothing by itself: all that it tells is pushed at the door."""
        for event in ():
            yield event

    async def send(self, command: Command) -> None:
        self.sent.append(command)
        match command:
            case Cancel():
                self.door.push(OrderUpdate(UNSTAMPED, command.order_id, BTC, OrderState.CANCELED, "1", ZERO))
            case Place(price=price) if price is not None and price <= self.price - 1:
                trade = str(len(self.sent))
                bid = Decimal(self.price - 1)
                self.door.push(Fill(UNSTAMPED, BTC, 1, command.order_id, trade, Side.SELL, bid, command.quantity, ZERO, USDT, False))
            case Place():
                self.door.push(OrderUpdate(UNSTAMPED, command.order_id, BTC, OrderState.EXPIRED, "1", ZERO))

    async def balances(self) -> dict[Currency, Decimal]:
        return {}

    async def quote(self, symbol: Symbol) -> BookSnapshot:
        self.asked += 1
        return book(self.price)

    async def settle(self, timeout_s: float) -> bool:
        return True


class Nothing:
    """A record that takes everything, and from its `until`-th commit on nothing."""

    def __init__(self, until: int = 1_000_000) -> None:
        self.commits, self.until = 0, until
        self.intents: list[Command] = []

    def append(self, event: Event) -> None:
        pass

    def intend(self, seq: int, wanted: tuple[Command, ...]) -> None:
        self.intents += wanted

    def decide(self, number: int, seq: int, at: int, record: dict[str, object]) -> None:
        pass

    def commit(self, seq: int) -> None:
        self.commits += 1
        if self.commits >= self.until:
            raise RecordFailed("no space left on device")


def owner() -> Engine:
    """An engine that holds one bitcoin bought at 50,000 and has a bid resting."""
    engine = Engine(EngineConfig("test", 1, "USDT", (BTC,), agents=()))
    facts: list[Event] = [
        Listing(Stamp(1, 1), LISTED), Adjustment(Stamp(1, 2), USDT, Decimal(100_000), AdjustmentKind.OPENING),
        Adjustment(Stamp(1, 3), USDT, Decimal(100_000), AdjustmentKind.CAPITAL),
        Fill(Stamp(1, 4), BTC, 1, OrderId("q-test-1-1-0"), "t", Side.BUY, Decimal(50_000), Decimal("0.3"), ZERO, USDT, True),
    ]  # fmt: skip
    for fact in facts:
        engine.step(fact)
    engine.ledger.record(Place(OrderId("q-test-1-1-1"), BTC, Side.BUY, Decimal("0.1"), Decimal(49_000)), Stamp(1, 5))
    engine.ledger.apply(OrderUpdate(Stamp(1, 6), OrderId("q-test-1-1-1"), BTC, OrderState.OPEN, "9", ZERO))
    return engine


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kill_path, "LOOK_S", 0.01)


async def test_a_flatten_with_stale_data_sells_at_the_price_the_venue_tells(tmp_path):
    engine, door, latch = owner(), Door(), Latch(tmp_path)
    venue = Market(door, 45_000)  # a tenth below the last book that was seen: outside its collar
    latch.set("flatten", "test", 1)
    door.push(Flatten(UNSTAMPED))
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(drive(door.events(), engine, Nothing(), venue.send, lambda _: None, lambda *_: None)),
            group.create_task(kill_path.attend(engine, door, venue, latch)),
            group.create_task(door.metronome(0.05)),
        ]
        while latch.read().kind != "halt":
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
    assert venue.asked
    assert engine.ledger.position(BTC) == 0
    assert engine.ledger.live_orders() == []
    sells = [c for c in venue.sent if isinstance(c, Place)]
    assert len(sells) > 1, "in slices"
    assert all(p.reduce_only and p.price is not None and p.price >= Decimal("0.98") * 45_000 - 1 for p in sells)


async def test_a_holding_in_a_market_that_is_not_followed_does_not_end_the_flatten_of_the_others(tmp_path):
    engine, door, latch = owner(), Door(), Latch(tmp_path)
    other = replace(LISTED, symbol=Symbol("ETH/USDT"), base=Currency("ETH"))
    for fact in (Listing(Stamp(1, 7), other), Adjustment(Stamp(1, 8), Currency("ETH"), Decimal(1), AdjustmentKind.CARRIED, "10")):
        engine.step(fact)
    venue = Market(door, 45_000)
    door.push(Flatten(UNSTAMPED))
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(drive(door.events(), engine, Nothing(), venue.send, lambda _: None, lambda *_: None)),
            group.create_task(kill_path.attend(engine, door, venue, latch)),
            group.create_task(door.metronome(0.05)),
        ]
        while engine.ledger.position(BTC):
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()


async def test_a_record_that_fails_takes_every_order_away_and_latches(tmp_path):
    engine, door, latch, emergency = owner(), Door(), Latch(tmp_path), Nothing()
    venue = Market(door, 50_000)
    unsent = Place(OrderId("q-test-1-2-0"), BTC, Side.BUY, Decimal("0.1"), Decimal(49_000))
    engine.ledger.record(unsent, Stamp(2, 7))
    async with asyncio.timeout(20):
        await kill_path.without_record(engine, door, venue, latch, lambda: emergency, (unsent,), sell=False)
    assert engine.ledger.orders[unsent.order_id].state is OrderState.REJECTED
    assert unsent not in venue.sent
    assert engine.ledger.live_orders() == []
    assert Cancel(OrderId("q-test-1-1-1"), BTC) in emergency.intents
    assert engine.ledger.position(BTC) == Decimal("0.3"), "positions are kept unless flattening is wanted"
    assert latch.read().kind == "halt"


async def test_a_record_that_fails_sells_too_where_that_is_wanted(tmp_path):
    engine, door, latch = owner(), Door(), Latch(tmp_path)
    venue = Market(door, 50_000)
    engine.market.apply(book(50_000))
    door.push(book(50_000))
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        ticking = group.create_task(door.metronome(0.05))
        await kill_path.without_record(engine, door, venue, latch, Nothing, (), sell=True)
        ticking.cancel()
    assert engine.ledger.position(BTC) == 0


async def test_a_record_that_fails_does_not_end_a_flatten(tmp_path):
    engine, door, latch = owner(), Door(), Latch(tmp_path)
    engine.step(book(50_000))
    engine.step(Flatten(Stamp(2, 7)))
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        ticking = group.create_task(door.metronome(0.05))
        await kill_path.without_record(engine, door, Market(door, 50_000), latch, Nothing, (), sell=False)
        ticking.cancel()
    assert (engine.ledger.position(BTC), latch.read().kind) == (0, "flatten")


async def test_even_without_any_record_the_orders_are_cancelled(tmp_path):
    engine, door = owner(), Door()
    venue = Market(door, 50_000)

    def none() -> Nothing:
        raise RecordFailed("nothing can be opened")

    await kill_path.without_record(engine, door, venue, Latch(tmp_path), none, (), sell=True)
    assert venue.sent == [Cancel(OrderId("q-test-1-1-1"), BTC)]


class Notes:
    """The part of Status that the operator speaks to."""

    def __init__(self) -> None:
        self.notes: dict[str, str] = {}

    def snapshot(self) -> dict[str, object]:
        return {}

    def note(self, name: str, text: str) -> None:
        self.notes[name] = text


async def _heard(door: Door) -> list[type]:
    door.close()
    return [type(event) async for event in door.events()]


async def test_the_operators_words_are_latched_before_they_are_pushed(tmp_path):
    door, latch = Door(), Latch(tmp_path)
    operator = Operator(door, latch, Notes(), asyncio.Event())  # type: ignore[arg-type]
    operator.halt({"reason": "lunch"})
    assert (latch.read().kind, latch.read().reason) == ("halt", "lunch")
    operator.flatten({})
    assert latch.read().kind == "flatten"
    operator.cancel_all({})
    assert latch.read().kind == "flatten", "cancel-all stops nothing"
    assert "goes on" in operator.halt({})["note"]
    assert latch.read().kind == "flatten", "a restart must go on selling, as this session does"
    operator.resume({})
    assert latch.read().kind == "none"
    assert await _heard(door) == [Halt, Flatten, CancelAll, Halt, Resume]


async def test_stopping_works_where_it_cannot_be_latched_and_resuming_does_not(tmp_path, monkeypatch):
    door, latch, notes = Door(), Latch(tmp_path), Notes()
    operator = Operator(door, latch, notes, asyncio.Event())  # type: ignore[arg-type]

    def full(*_: object) -> None:
        raise RecordFailed("no space left on device")

    monkeypatch.setattr(latch, "set", full)
    assert operator.halt({}) == {"accepted": "halt"}
    assert "no space" in notes.notes["latch_failed"]
    with pytest.raises(TradingError, match="not resumed"):
        operator.resume({})
    assert await _heard(door) == [Halt]
