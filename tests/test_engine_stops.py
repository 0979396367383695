"""Protective stops through the whole engine: they rest, follow, give way, sell, survive a halt and a restart."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import pytest

from agents.core.events import (
    UNSTAMPED,
    Adjustment,
    AdjustmentKind,
    Adopted,
    BookSnapshot,
    CancelAll,
    Halt,
    Resume,
    Stamp,
    Trade,
)
from agents.core.instruments import NS, Currency, Side, Symbol
from agents.core.ledger import Order
from agents.core.orders import OrderId, OrderState, Place
from agents.desk import safety
from agents.desk.gate import is_stop
from agents.desk.wishes import LONG_TERM, LongTermWish
from tests.engine_world import BTC, CONFIG, ETH, World, buys, cancels, places, stops

D = Decimal


def live_stop(world: World, symbol: Symbol = BTC) -> Order | None:
    return next((o for o in world.engine.ledger.live_orders(symbol) if is_stop(o.place) and o.state is OrderState.OPEN), None)


def stopped(**config: object) -> World:
    """A market maker that owns a large holding from an earlier session, so that asks and a stop both want it."""
    world = World(replace(CONFIG, **config), stop_orders=True)  # type: ignore[arg-type]
    world.run.exchange.account.deposit(Currency("BTC"), D("0.015"))
    world.pass_time(2)
    world.tell(Adjustment(UNSTAMPED, Currency("BTC"), D("0.015"), AdjustmentKind.OPENING))
    world.tell(Adjustment(UNSTAMPED, Currency("BTC"), D("0.015"), AdjustmentKind.CARRIED, "96000"))
    return world


def wish(symbol: Symbol, now: int, weight: float = 0.1, distance: float = 0.01) -> LongTermWish:
    return LongTermWish(symbol, now, now + 7200 * NS, (0.0,) * 4, 0.5, weight, 50.0, (1.0, 0.0, 0.0), distance)


def held(**config: object) -> World:
    """The same once the long-term agent wants to keep it and its stop rests on the exchange."""
    world = stopped(**config)
    hold(world)
    world.until(lambda: live_stop(world) is not None)
    return world


def hold(world: World) -> None:
    want = wish(BTC, world.engine.market.now)
    world.engine.standing.post([want])
    world.engine.stops.wish(want)


def fall(world: World, fraction: str, seconds: int = 4) -> list[object]:
    """The market falls by `fraction` and prints there; commands of the next seconds."""
    mark = world.engine.market.mark(BTC)
    assert mark is not None
    mid = (mark * (1 - D(fraction))).quantize(D("0.01"))
    world.commands.clear()
    for step in range(seconds * 4):
        world.now += NS // 4
        at = Stamp(world.now)
        bids, asks = ((mid - D("0.01"), D(5)),), ((mid + D("0.01"), D(5)),)
        world.run.feed(BookSnapshot(at, BTC, world.now, bids, asks), world.now)
        world.run.feed(Trade(at, BTC, world.now, f"fall-{fraction}-{step}-{world.now}", mid, D("0.01"), Side.SELL), world.now)
    return list(world.commands)


def test_a_position_is_protected_on_the_exchange_beside_the_asks_and_without_chatter() -> None:
    world = held()
    stop = live_stop(world)
    assert stop is not None and stop.place.reduce_only and stop.place.price is None
    assert world.engine.held()[BTC] == "exchange"
    assert world.run.exchange.balance(Currency("BTC"))[1] >= stop.place.quantity, "the exchange holds it too"
    sent = stops(world.pass_time(120))
    assert len(sent) <= 24, "at most one placing in five seconds"
    assert world.violations == [] and world.engine.problems == {} and not world.engine.ledger.anomalies
    assert world.run.exchange.balances() == {c: b for c, b in world.engine.ledger.balances.items() if c in world.run.exchange.balances()}


def test_without_stop_orders_the_daemon_holds_it() -> None:
    world = World()
    world.until(lambda: bool(world.engine.held()))
    assert set(world.engine.held().values()) == {"daemon"}
    world.tell(Halt(UNSTAMPED, "test"))
    assert set(world.engine.held().values()) == {"none"}


def test_a_fall_sells_by_the_stop_and_the_symbol_stays_at_zero_until_the_agent_speaks() -> None:
    world = held(agents=("short_term", "market_making", "risk"))
    stop = live_stop(world)
    assert stop is not None
    sent = fall(world, "0.015")
    done = world.engine.ledger.orders[stop.place.order_id]
    assert done.state is OrderState.FILLED and done.filled == stop.place.quantity, "the exchange sold before the daemon could"
    assert BTC in world.engine.stops.hits()
    assert not [p for p in buys(sent) if p.symbol == BTC]
    assert not [p for p in buys(world.pass_time(30)) if p.symbol == BTC]
    assert world.engine.ledger.position(BTC) * 96_000 < 20, "the daemon sold the rest, but for what is not worth its cost"
    assert not stops(world.commands) and world.violations == []
    hold(world)
    world.until(lambda: bool([p for p in buys(world.commands) if p.symbol == BTC]), 120)


def test_a_print_that_fires_the_stop_counts_though_the_mark_never_came_down() -> None:
    world = held(agents=("short_term", "market_making", "risk"))
    stop = live_stop(world)
    assert stop is not None and stop.place.trigger_price is not None
    world.run.feed(Trade(Stamp(world.now), BTC, world.now, "wick", stop.place.trigger_price, D("0.001"), Side.SELL), world.now)
    assert not stop.live and BTC in world.engine.stops.hits()
    assert not [p for p in buys(world.pass_time(20)) if p.symbol == BTC] and world.violations == []


def test_halt_keeps_stops_and_lets_them_cover_everything() -> None:
    world = held()
    stop = live_stop(world)
    assert stop is not None
    told = world.tell(Halt(UNSTAMPED, "test"))
    assert stop.place.order_id not in cancels(told) and places(told) == []
    sent = world.pass_time(40)
    assert places(sent) == stops(sent), "nothing but stops"
    left = world.engine.ledger.live_orders()
    assert left and all(is_stop(order.place) for order in left)
    covering = live_stop(world)
    assert covering is not None and covering.place.quantity == world.engine.ledger.instruments[BTC].round_quantity(world.engine.ledger.position(BTC))
    assert world.engine.held()[BTC] == "exchange" and world.violations == []
    assert safety.loose_ends(world.engine.ledger, keep_stops=True) == [] and safety.loose_ends(world.engine.ledger) == left
    fall(world, "0.015")
    assert world.engine.ledger.position(BTC) < D("0.0002"), "a halt does not switch protection off"


def test_halt_takes_stops_away_where_they_shall_not_be_kept() -> None:
    world = held(keep_stops=False)
    stop = live_stop(world)
    assert stop is not None and stop.place.order_id in cancels(world.tell(Halt(UNSTAMPED, "test")))
    assert places(world.pass_time(30)) == [] and world.engine.ledger.live_orders() == []


def test_under_halt_the_daemon_sells_where_a_hit_stop_could_not_rest() -> None:
    world = held()
    world.tell(Halt(UNSTAMPED, "test"))
    world.pass_time(1)
    world.engine.stops.fire(BTC, world.engine.market.now)
    world.pass_time(10)
    assert not safety.sellable(BTC, world.engine.market, world.engine.ledger, CONFIG.limits)
    assert world.violations == []


def test_cancel_all_takes_every_order_once_and_trading_goes_on() -> None:
    world = held()
    live = {o.place.order_id for o in world.engine.ledger.live_orders()}
    assert set(cancels(world.tell(CancelAll(UNSTAMPED, "test")))) == live
    assert not world.engine.halted
    world.until(lambda: live_stop(world) is not None, 60)
    assert world.violations == []


def test_cancel_all_under_halt_lasts_until_resume() -> None:
    world = held()
    world.tell(Halt(UNSTAMPED, "test"))
    world.pass_time(5)
    assert cancels(world.tell(CancelAll(UNSTAMPED, "test")))
    assert places(world.pass_time(30)) == [] and world.engine.ledger.live_orders() == []
    world.tell(Resume(UNSTAMPED))
    hold(world)
    world.until(lambda: live_stop(world) is not None, 120)


def test_cancel_all_costs_no_agent_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    world = held()
    passed = dict(world.engine._cadence.passed)
    monkeypatch.setattr(world.engine.market, "closed", lambda timeframe: 10**30)
    world.tell(CancelAll(UNSTAMPED, "test"))
    assert world.engine._cadence.passed == passed


def adopt(world: World, trigger: str, quantity: str = "0.015") -> OrderId:
    """A stop that an earlier session left on the exchange."""
    place = Place(OrderId("q-test-0-9-0"), BTC, Side.SELL, D(quantity), None, reduce_only=True, trigger_price=D(trigger))
    world.run.exchange.submit(place, world.now)
    world.tell(Adopted(UNSTAMPED, place, OrderState.OPEN, "1", D(0), D(0), world.now))
    return place.order_id


def test_an_adopted_stop_goes_on_and_is_never_lowered_by_the_restart() -> None:
    world = stopped()
    mark = world.engine.market.mark(BTC)
    assert mark is not None
    near = (mark * D("0.997")).quantize(D("0.01"))
    order_id = adopt(world, str(near))
    assert world.engine.held()[BTC] == "exchange"
    hold(world)
    world.pass_time(60)
    assert world.engine.stops.prices()[BTC].price >= float(near) * 0.9999
    triggers = [p.trigger_price for p in stops(world.commands) if p.symbol == BTC]
    assert all(t is not None and t >= near * D("0.999") for t in triggers)
    assert world.engine.ledger.orders[order_id].place.trigger_price == near and world.violations == []


def adopted(side: Side, quantity: str, away: str, shares: tuple[tuple[str, float], ...], post_only: bool) -> Callable[[World], OrderId]:
    def make(world: World) -> OrderId:
        mark = world.engine.market.mark(BTC)
        assert mark is not None
        price = (mark * D(away)).quantize(D("0.01"))
        place = Place(OrderId("q-test-0-8-0"), BTC, side, D(quantity), price, post_only=post_only, shares=shares)
        world.run.exchange.submit(place, world.now)
        world.tell(Adopted(UNSTAMPED, place, OrderState.OPEN, "1", D(0), D(0), world.now))
        return place.order_id

    return make


@pytest.mark.parametrize(
    "make",
    [
        adopted(Side.BUY, "0.001", "0.97", ((LONG_TERM, 0.001), ("house", 0.0)), False),
        adopted(Side.SELL, "0.002", "1.03", (), False),
        adopted(Side.BUY, "0.001", "0.97", (("market_making", 0.001),), True),
        adopted(Side.SELL, "0.002", "1.03", (("market_making", -0.002),), True),
    ],
)
def test_an_adopted_order_is_worked_like_an_own_one(make: Callable[[World], OrderId]) -> None:
    world = stopped()
    order_id = make(world)
    assert order_id in {o.place.order_id for o in world.engine.ledger.live_orders(BTC)}, "it counts as exposure"
    world.pass_time(90)
    assert not world.engine.ledger.orders[order_id].live, "its price is stale: cancelled or replaced"
    assert world.violations == [] and ETH in world.engine.symbols
