"""The way out works whatever is broken: stale data, failing agents, a dead solver, orders of unknown fate, an impatient operator."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

import agents.engine as engine_module
from agents.core.errors import NotFinite
from agents.core.events import UNSTAMPED, BookSnapshot, Flatten, Halt, OrderUpdate, Reconciled, Resume, RiskRestored, Stamp, Tick
from agents.core.instruments import NS, Currency, Side
from agents.core.orders import Cancel, OrderId, OrderState, Place
from agents.desk import safety
from agents.desk.gate import is_stop
from agents.engine import Engine
from tests.engine_world import BTC, CONFIG, ETH, START, World, buys, cancels, places, stops
from tests.test_engine_stops import held, hold, live_stop, stopped

D = Decimal


class Panic(BaseException):
    """What the solver's Rust raises is no Exception."""


def book(world: World, mid: Decimal) -> BookSnapshot:
    mid = mid.quantize(D("0.01"))
    return BookSnapshot(Stamp(world.now), BTC, world.now, ((mid - D("0.01"), D(5)),), ((mid + D("0.01"), D(5)),))


def flat(world: World) -> bool:
    return not safety.sellable(BTC, world.engine.market, world.engine.ledger, CONFIG.limits)


def agree(world: World) -> bool:
    """Whether ledger and exchange know the same money."""
    theirs = world.run.exchange.balances()
    return all(world.engine.ledger.balances[c] == amount for c, amount in theirs.items())


def test_flatten_takes_the_stop_away_before_it_sells_and_stays_flat() -> None:
    world = held()
    stop = live_stop(world)
    assert stop is not None
    first = world.tell(Flatten(UNSTAMPED, "test"))
    assert stop.place.order_id in cancels(first)
    free = world.engine.ledger.position(BTC) - stop.place.quantity
    assert sum((p.quantity for p in places(first) if p.symbol == BTC), D(0)) <= free, "what the stop holds waits for its end"
    sent = world.pass_time(60)
    assert flat(world) and world.engine.flat() and all(p.reduce_only and p.side is Side.SELL for p in places(sent))
    assert not stops(sent) and agree(world) and world.violations == []
    dust = world.engine.dust()
    assert set(dust) <= {BTC, ETH} and all(0 < q < D("0.01") for q in dust.values())
    assert places(world.pass_time(30)) == [], "dust is the end"


def test_flatten_twice_and_a_halt_in_between_change_nothing() -> None:
    world = held()
    for event in (Flatten(UNSTAMPED, "a"), Flatten(UNSTAMPED, "b"), Halt(UNSTAMPED, "c"), Flatten(UNSTAMPED, "d")):
        world.tell(event)
        world.pass_time(0.25)
    world.pass_time(60)
    assert flat(world) and world.violations == [] and world.engine.flattening and agree(world)
    world.tell(Resume(UNSTAMPED))
    assert not world.engine.halted and not world.engine.flattening
    hold(world)
    assert buys(world.pass_time(60)), "resume means what it says"


@pytest.mark.parametrize("fall", ["0.05", "0.30"])
def test_with_a_dead_feed_the_venues_own_price_finishes_it(fall: str) -> None:
    world = held()
    mark = world.engine.market.mark(BTC)
    assert mark is not None
    low = mark * (1 - D(fall))
    world.silence(30)
    world.run.exchange.on_market(book(world, low))
    world.tell(Flatten(UNSTAMPED, "test"))
    sold = [p for p in places(world.silence(10)) if p.symbol == BTC]
    assert len(sold) > 3 and not flat(world), "slices at the old price find nobody, and are tried again"
    assert all(p.price is not None and p.price >= mark * D("0.979") for p in sold), "never below the collar of the price that is known"
    for _ in range(40):
        world.run.feed(book(world, low), world.now)
        world.silence(1)
    assert flat(world) and agree(world) and world.violations == []


def test_orders_of_unknown_fate_block_no_more_than_their_own_quantity() -> None:
    world = held()
    ledger = world.engine.ledger
    world.tell(Halt(UNSTAMPED, "quiet"))
    world.pass_time(20)
    lost = Place(OrderId("q-test-1-zz-0"), BTC, Side.SELL, D("0.004"), D(200_000))
    buy = Place(OrderId("q-test-1-zz-1"), BTC, Side.BUY, D("0.001"), D(50_000))
    send, told = world.run.exchange.send, list[object]()
    world.run.exchange.send = lambda c, now: (told.append(c) if c.order_id in (lost.order_id, buy.order_id) else send(c, now))  # type: ignore[method-assign]
    for place in (lost, buy):
        ledger.record(place, Stamp(world.now))
        world.tell(OrderUpdate(UNSTAMPED, place.order_id, BTC, OrderState.UNKNOWN))
    world.tell(Flatten(UNSTAMPED, "test"))
    world.pass_time(40)
    assert ledger.position(BTC) == D("0.004"), "the rest is sold though no cancel was answered"
    assert 3 <= cancels(told).count(lost.order_id) <= 6, "an unanswered cancel is sent again, not all the time"
    world.tell(OrderUpdate(UNSTAMPED, lost.order_id, BTC, OrderState.CANCELED))
    world.pass_time(20)
    assert flat(world) and world.violations == []


def test_a_stop_whose_cancel_is_never_answered_is_not_sold_twice() -> None:
    world = held()
    stop = live_stop(world)
    assert stop is not None
    send = world.run.exchange.send
    world.run.exchange.send = lambda c, now: None if isinstance(c, Cancel) else send(c, now)  # type: ignore[method-assign]
    world.tell(Flatten(UNSTAMPED, "test"))
    world.pass_time(30)
    assert world.engine.ledger.position(BTC) >= stop.place.quantity and world.violations == []
    world.run.exchange.send = send  # type: ignore[method-assign]
    world.pass_time(60)
    assert flat(world) and world.violations == [] and agree(world)


# -- failing minds -----------------------------------------------------------------------------------------------------


def fail(error: BaseException) -> Callable[..., Any]:
    def raising(*_: object, **__: object) -> Any:
        raise error

    return raising


BREAKS = [
    ("project", ZeroDivisionError("1/0")),
    ("project", Panic("called `Option::unwrap()` on a `None` value")),
    ("coordinate", KeyError("BTC/USDT")),
    ("plan", ValueError("shape")),
    ("plan", MemoryError()),
]


@pytest.mark.parametrize(("room", "error"), BREAKS)
def test_a_failing_room_takes_no_risk_and_leaves_the_stops(room: str, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    world = held()
    if room == "coordinate":
        monkeypatch.setattr(type(world.engine.coordinator), room, fail(error))
    else:
        monkeypatch.setattr(engine_module, room, fail(error))
    sent = world.pass_time(10)
    assert places(sent) == stops(sent) and world.engine.problems[f"decision_failed_{type(error).__name__}"] > 5
    assert all(is_stop(o.place) for o in world.engine.ledger.live_orders()), "quotes and working orders are gone"
    assert live_stop(world) is not None and world.violations == []
    world.tell(Flatten(UNSTAMPED, "test"))
    world.pass_time(60)
    assert flat(world) and world.violations == []


def test_with_a_dead_solver_a_hit_stop_and_the_ladder_still_sell(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.until(lambda: bool(world.engine.held()))
    (symbol, *_) = world.engine.held()
    monkeypatch.setattr(engine_module, "project", fail(RuntimeError()))
    world.engine.stops.fire(symbol, world.engine.market.now)
    world.pass_time(20)
    assert not safety.sellable(symbol, world.engine.market, world.engine.ledger, CONFIG.limits)
    ladder = held()
    ladder.engine.risk.rung = "flatten"
    ladder.pass_time(60)
    assert flat(ladder) and ladder.violations == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_who_stops_the_process_is_not_held_up(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    world = held()
    monkeypatch.setattr(engine_module, "project", fail(error))
    with pytest.raises(type(error)):
        world.pass_time(5)


def test_an_agent_that_fails_is_not_heard_and_the_others_only_reduce_in_that_step(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.pass_time(10)
    act, said = world.engine._council.act, dict(world.engine.standing.short_term)

    def broken(agent: str, *rest: Any) -> Any:
        if agent == "short_term":
            raise IndexError("row")
        return act(agent, *rest)

    monkeypatch.setattr(world.engine._council, "act", broken)
    deciding: list[tuple[tuple[str, ...], frozenset[Any]]] = []
    step = world.engine.step

    def noting(event: Any) -> Any:
        effects = step(event)
        if effects.decision is not None and effects.decision.safe is not None:
            deciding.append((effects.decision.agents, effects.decision.safe.no_new_risk))
        return effects

    monkeypatch.setattr(world.engine, "step", noting)
    world.pass_time(130)
    with_it = [closed for agents, closed in deciding if "short_term" in agents]
    assert len(with_it) >= 2 and all(closed == {BTC, ETH} for closed in with_it)
    assert any(not closed for agents, closed in deciding if "short_term" not in agents), "and only in that step"
    assert world.engine.problems == {"agent_failed_short_term_IndexError": world.engine.failed} and world.engine.failed >= 2
    assert world.engine.standing.market_making, "the others are heard"
    assert world.engine.standing.short_term == said and world.violations == []


def test_an_observation_that_is_not_finite_silences_its_agent_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    monkeypatch.setattr(engine_module, "observe", fail(NotFinite("x")))
    world.pass_time(70)
    assert world.engine.failed == 0 and world.engine.problems["observation_not_finite_short_term"] >= 1


# -- reduce-only -------------------------------------------------------------------------------------------------------


def test_an_unexplained_difference_means_reduce_only_until_it_is_explained() -> None:
    world = held()
    world.pass_time(10)
    told = world.tell(Reconciled(UNSTAMPED, ((Currency("BTC"), D("0.015"), D("0.014")),), "someone sold"))
    working = [o for o in world.engine.ledger.live_orders() if o.place.side is Side.BUY and o.state is not OrderState.CANCELING]
    assert working == [] and not buys(told), "bids are taken away at once"
    assert live_stop(world) is not None, "what only reduces stays"
    assert not buys(world.pass_time(60))
    assert any(o.place.side is Side.SELL for o in world.engine.ledger.live_orders())
    world.tell(Reconciled(UNSTAMPED, ()))
    assert buys(world.pass_time(60)) and world.violations == []


@pytest.mark.parametrize(("rung", "drawdown"), [("no_new_risk", 0.11), ("reduce", 0.16), ("flatten", 0.25)])
def test_a_restored_ladder_goes_on_where_it_was(rung: str, drawdown: float) -> None:
    world = stopped()
    equity = world.engine.equity()
    assert equity is not None
    world.tell(RiskRestored(UNSTAMPED, equity / (1 - drawdown), 10_000.0, drawdown, rung))
    assert not buys(world.pass_time(60))
    assert world.engine.risk.rung == rung and world.engine.risk.drawdown == pytest.approx(drawdown, abs=0.01)
    assert flat(world) is (rung == "flatten") and world.violations == []


def test_a_kill_before_anything_is_known_is_harmless() -> None:
    engine = Engine(replace(CONFIG, symbols=(BTC,)))
    for seq, event in enumerate((Flatten(UNSTAMPED), Tick(UNSTAMPED), Halt(UNSTAMPED), Resume(UNSTAMPED), Tick(UNSTAMPED))):
        assert engine.step(replace(event, stamp=Stamp(START + seq * NS, seq))).commands == ()
    assert engine.flat() and engine.dust() == {} and engine.held() == {}
