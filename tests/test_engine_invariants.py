"""Whatever an exchange answers and whatever a market does: I2, I4 and I5 hold after every step of the engine."""

import copy
from decimal import Decimal
from functools import cache

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from agents.core.events import (
    BookSnapshot,
    CancelAll,
    Event,
    FeedGap,
    Fill,
    Flatten,
    Halt,
    OrderUpdate,
    Reconciled,
    Resume,
    Stamp,
    Tick,
    Trade,
    stamped,
)
from agents.core.instruments import NS, Currency, Side, Symbol
from agents.core.ledger import Order
from agents.core.orders import Amend, Cancel, Command, OrderId, OrderState, Place, TimeInForce
from agents.desk.decision import Effects
from agents.desk.gate import is_stop
from agents.desk.invariants import violations
from agents.engine import Engine
from tests.engine_world import BTC, ETH, World

D = Decimal
USDT = Currency("USDT")
S = OrderState


def orders(world: World) -> list[Order]:
    return world.engine.ledger.live_orders()


@cache
def warm(stop_orders: bool) -> tuple[Engine, int]:
    """An engine that has traded for a while, and the time it has; to be copied."""
    world = World(stop_orders=stop_orders)
    world.until(lambda: len(world.engine.held()) == 2 and len(orders(world)) > 2 and all(o.state is S.OPEN for o in orders(world)))
    del world.engine.step
    return world.engine, world.now


class Moody:
    """An exchange that answers as it likes, within what an exchange can do; and a market that goes where it likes."""

    def __init__(self, stop_orders: bool) -> None:
        engine, self.now = warm(stop_orders)
        self.engine: Engine = copy.deepcopy(engine)
        self.mids = {s: self.engine.market.mark(s) or D(1) for s in (BTC, ETH)}
        self.amending: dict[OrderId, OrderId] = {}
        self.cancelled: set[OrderId] = set()
        self.trades = self.seq = 10**6
        self.found: list[str] = []

    def step(self, event: Event) -> None:
        self.seq += 1
        effects = self.engine.step(stamped(event, Stamp(self.now, self.seq)))
        self.found += [f"{type(event).__name__}: {v}" for v in violations(event, effects, self.engine)]
        for command in effects.commands:
            self.note(command, effects)

    def note(self, command: Command, effects: Effects) -> None:
        if isinstance(command, Amend):
            self.amending[command.order_id] = command.new_order_id
        elif isinstance(command, Cancel):
            self.cancelled.add(command.order_id)

    def update(self, order_id: OrderId, state: OrderState) -> None:
        self.step(OrderUpdate(Stamp(0), order_id, self.engine.ledger.orders[order_id].place.symbol, state))

    def fill(self, order_id: OrderId, quantity: Decimal) -> None:
        place = self.engine.ledger.orders[order_id].place
        self.trades += 1
        price = self.mids[place.symbol] if place.price is None else place.price
        fee = (price * quantity * D("0.001")).quantize(D("1e-8"))
        self.step(Fill(Stamp(0), place.symbol, self.now, order_id, str(self.trades), place.side, price, quantity, fee, USDT, False))

    def book(self, symbol: Symbol, move: str) -> None:
        tick = self.engine.ledger.instruments[symbol].tick
        mid = self.mids[symbol] = (self.mids[symbol] * D(move) / tick).to_integral_value() * tick
        at = Stamp(0)
        self.step(BookSnapshot(at, symbol, self.now, ((mid - tick, D(9)), (mid - 9 * tick, D(9))), ((mid + tick, D(9)), (mid + 9 * tick, D(9)))))
        self.trades += 1
        self.step(Trade(at, symbol, self.now, str(self.trades), mid, D("0.01"), Side.SELL))

    def answer(self, order_id: OrderId, mood: str) -> None:
        """One word of the exchange about one order, where it can be said."""
        order = self.engine.ledger.orders[order_id]
        if order_id in self.amending:
            self._amended(order_id, self.amending[order_id], mood)
        elif order_id in self.amending.values() or mood == "silence":
            return
        elif order.state.done:
            self.fill(order_id, order.remaining)
        elif mood == "part" and (half := self.engine.ledger.instruments[order.place.symbol].round_quantity(order.remaining / 2)) > 0:
            self.fill(order_id, half)
        elif mood == "fill":
            self.fill(order_id, order.remaining)
        elif mood == "lost" and order.state in (S.PENDING, S.CANCELING):
            self.update(order_id, S.UNKNOWN)
        elif mood == "refuse" and order.state in (S.PENDING, S.UNKNOWN) and order_id not in self.cancelled:
            self.update(order_id, S.REJECTED)
        elif order_id in self.cancelled:
            self.update(order_id, S.CANCELED)
        elif order.place.time_in_force is TimeInForce.IOC:
            self.update(order_id, S.EXPIRED)
        elif order.state in (S.PENDING, S.UNKNOWN):
            self.update(order_id, S.PARTIAL if order.filled else S.OPEN)

    def _amended(self, old: OrderId, new: OrderId, mood: str) -> None:
        """In one breath: the old order ends and the new one stands, or the old one was filled and the new one never comes."""
        if mood == "silence":
            return
        del self.amending[old]
        if mood == "fill":
            self.fill(old, self.engine.ledger.orders[old].remaining)
            self.update(new, S.REJECTED)
        else:
            self.update(old, S.CANCELED)
            self.update(new, S.OPEN)


MOODS = ["good", "good", "good", "silence", "part", "fill", "lost", "refuse"]
WORDS = st.sampled_from(
    [Halt(Stamp(0)), Resume(Stamp(0)), Resume(Stamp(0)), CancelAll(Stamp(0)), Flatten(Stamp(0)), FeedGap(Stamp(0), BTC, "book", "lost"),
     Reconciled(Stamp(0), ((USDT, D(1), D(2)),)), Reconciled(Stamp(0), ())]
)  # fmt: skip
MOVES = st.sampled_from(["1", "1", "1.0004", "0.9996", "1.003", "0.997", "0.985"])


@pytest.mark.parametrize("stop_orders", [True, False])
@settings(max_examples=30, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(data=st.data())
def test_no_mood_of_an_exchange_breaks_an_invariant(stop_orders: bool, data: st.DataObject) -> None:
    world = Moody(stop_orders)
    for _ in range(data.draw(st.integers(5, 25))):
        world.now += data.draw(st.sampled_from([1, 2, 4, 8, 40])) * NS // 4
        blind = data.draw(st.sampled_from([(), (), (), (BTC,), (BTC, ETH)]))
        for symbol in (BTC, ETH):
            if symbol not in blind:
                world.book(symbol, data.draw(MOVES))
        if data.draw(st.integers(0, 5)) == 0:
            world.step(data.draw(WORDS))
        world.step(Tick(Stamp(0)))
        for order in list(world.engine.ledger.live_orders()):
            if order.live or order.remaining:
                world.answer(order.place.order_id, data.draw(st.sampled_from(MOODS)))
        assert world.found == []
        assert world.engine.problems == {}
        assert all(world.engine.ledger.position(s) >= 0 for s in (BTC, ETH))
        assert not any(name.startswith("illegal") for name in world.engine.ledger.anomalies), "the exchange above says only what can be said"
    settle(world)


def settle(world: Moody) -> None:
    """Once the exchange behaves again, flattening ends flat, and no stop is left."""
    world.step(Flatten(Stamp(0)))
    for _ in range(120):
        world.now += NS
        for symbol in (BTC, ETH):
            world.book(symbol, "1")
        world.step(Tick(Stamp(0)))
        for order in list(world.engine.ledger.live_orders()):
            sells = order.place.side is Side.SELL and order.place.order_id not in world.cancelled and not is_stop(order.place)
            world.answer(order.place.order_id, "fill" if sells else "good")
        if world.engine.flat():
            break
    assert world.engine.flat() and world.found == []


def test_the_moody_exchange_reaches_what_it_should() -> None:
    """The example above would prove little if nothing were bought, sold and stopped in it."""
    world = Moody(stop_orders=True)
    kinds: set[str] = set()
    note = world.note

    def noting(command: Command, effects: Effects) -> None:
        kinds.add("stop" if isinstance(command, Place) and is_stop(command) else type(command).__name__)
        note(command, effects)

    world.note = noting  # type: ignore[method-assign]
    for number in range(300):
        world.now += NS // 2
        for symbol in (BTC, ETH):
            world.book(symbol, ("1.0002", "0.9998")[number // 10 % 2])
        world.step(Tick(Stamp(0)))
        for order in list(world.engine.ledger.live_orders()):
            world.answer(order.place.order_id, MOODS[number % len(MOODS)])
    assert {"stop", "Place", "Amend"} <= kinds and world.found == []


def test_a_planner_that_oversold_would_be_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkers see through the engine: a sheet that forgets what is promised breaks I5 in the same step."""
    monkeypatch.setattr("agents.desk.sheet.Sheet.free", lambda self, symbol: self.ledger.position(symbol))
    monkeypatch.setattr("agents.desk.sheet.gate", lambda *_: None)
    world = World(stop_orders=True)
    world.pass_time(300)
    assert any(v.startswith("I5") for v in world.violations)
