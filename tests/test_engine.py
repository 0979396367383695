"""The engine as a whole: what it does when the data, the weights, the market or the operator say no."""

from dataclasses import replace
from decimal import Decimal

import pytest

from agents.core.events import (
    UNSTAMPED,
    Adjustment,
    AdjustmentKind,
    Bar,
    BookSnapshot,
    Event,
    Fill,
    Flatten,
    Halt,
    Listing,
    NewWeights,
    Resume,
    Stamp,
    Tick,
    Trade,
    stamped,
)
from agents.core.instruments import NS, Currency, Side
from agents.core.orders import Cancel, Place
from agents.engine import Engine
from agents.market.observation import SPEC_HASH
from agents.market.synthetic import SyntheticMarket
from tests.engine_world import BTC, CONFIG, ETH, START, World, buys
from tests.weights import payload


@pytest.fixture
def world() -> World:
    made = World()
    made.pass_time(400)
    assert made.engine.ledger.symbols(), "the test needs a position"
    return made


def test_halt_cancels_at_once_and_nothing_is_placed_until_resume(world: World) -> None:
    while not world.engine.ledger.live_orders():
        world.pass_time(1)
    told = world.tell(Halt(UNSTAMPED, "test"))
    assert told
    assert all(isinstance(c, Cancel) for c in told)
    assert not [c for c in world.pass_time(30) if isinstance(c, Place)]
    assert world.engine.ledger.live_orders() == []
    world.tell(Resume(UNSTAMPED))
    assert [c for c in world.pass_time(120) if isinstance(c, Place)]


def test_flatten_sells_everything_reduce_only_and_stays_flat(world: World) -> None:
    world.tell(Flatten(UNSTAMPED, "test"))
    sent = [c for c in world.pass_time(120) if isinstance(c, Place)]
    assert sent
    assert all(c.side is Side.SELL and c.reduce_only for c in sent)
    for symbol in (BTC, ETH):
        left, instrument = world.engine.ledger.position(symbol), world.engine.ledger.instruments[symbol]
        mark = world.engine.market.mark(symbol)
        assert mark is not None
        assert left * mark < instrument.min_notional + mark * instrument.lot, "only dust may stay"


def test_the_kill_path_needs_no_mark_and_no_capital() -> None:
    engine = Engine(CONFIG)
    engine.step(Listing(Stamp(1, 1), World().market.instruments[BTC]))
    place = Place(CANCELLED, BTC, Side.BUY, Decimal(1), Decimal(100))
    engine.ledger.record(place, Stamp(2, 2))
    assert engine.step(Halt(Stamp(3, 3))).commands == (Cancel(CANCELLED, BTC),)


CANCELLED = "q-test-1-1-0"  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("body", "spec", "reason"),
    [
        (payload(1, spec="another")[0], "another", "SpecMismatch"),
        (payload(1, value=float("nan"))[0], SPEC_HASH, "Diverged"),
        (payload(1)[0][:-5], SPEC_HASH, "ModelError"),
        (b"", SPEC_HASH, "ModelError"),
    ],
)
def test_unfit_weights_are_refused_and_the_old_ones_serve_on(world: World, body: bytes, spec: str, reason: str) -> None:
    before = world.engine.actors.digest
    world.tell(NewWeights(UNSTAMPED, 9, "digest", spec, body))
    assert world.engine.actors.digest == before
    assert world.engine.problems == {f"weights_refused_{reason}": 1}
    assert world.engine.weights_version == 0
    assert world.pass_time(30), "trading goes on"


def test_fit_weights_change_what_is_decided(world: World) -> None:
    body, digest = payload(4)
    world.tell(NewWeights(UNSTAMPED, 4, digest, SPEC_HASH, body))
    assert (world.engine.weights_version, world.engine.actors.digest) == (4, digest)


def test_stale_data_takes_no_new_risk_and_reductions_go_on(world: World) -> None:
    silent = [event for event in world.events(60) if isinstance(event, Tick) or getattr(event, "symbol", ETH) == ETH]
    world.commands.clear()
    for event in silent:
        world.run.feed(event, event.stamp.at)
    late = [c for c in buys(world.commands) if c.symbol == BTC]
    early = START + (400 + 11) * NS
    placed_at = {o.place.order_id: o.created for o in world.engine.ledger.orders.values()}
    assert [c for c in late if placed_at[c.order_id] > early] == []
    assert world.engine.market.trouble(BTC) is not None


@pytest.mark.parametrize("price", ["NaN", "Infinity", "-5", "0"])
def test_impossible_prices_never_become_a_mark_or_an_order(world: World, price: str) -> None:
    before = world.engine.market.mark(BTC)
    bad = Decimal(price)
    world.tell(Trade(UNSTAMPED, BTC, world.now, "x", bad, Decimal(1), Side.BUY))
    world.tell(BookSnapshot(UNSTAMPED, BTC, world.now, ((bad, Decimal(1)),), ((bad, Decimal(1)),)))
    assert sum(world.engine.market.refused.values()) >= 2
    after = world.engine.market.mark(BTC)
    assert before is not None
    assert after is not None
    assert abs(after / before - 1) < Decimal("0.001")
    world.pass_time(20)
    assert all(place.price is None or place.price.is_finite() for place in (c for c in world.commands if isinstance(c, Place)))


def test_without_capital_nothing_is_asked_for() -> None:
    market = SyntheticMarket([BTC, ETH], 11, START, history_days=2)
    engine = Engine(CONFIG)
    for instrument in market.instruments.values():
        engine.step(Listing(Stamp(START, 1), instrument))
    for seq, event in enumerate(market.step(START + 60 * NS), start=2):
        assert engine.step(stamped(event, Stamp(event.stamp.at, seq))).commands == ()


def test_a_fill_told_twice_moves_neither_money_nor_profit(world: World) -> None:
    engine = world.engine
    fill = Fill(UNSTAMPED, BTC, world.now, CANCELLED, "t-1", Side.BUY, Decimal(60_000), Decimal("0.001"), Decimal("0.1"), Currency("USDT"), True)
    world.tell(fill)
    once = (dict(engine.ledger.balances), engine.profits())
    world.tell(fill)
    assert (dict(engine.ledger.balances), engine.profits()) == once
    equity = engine.equity()
    assert equity is not None
    assert sum(engine.profits().values()) == pytest.approx(equity - 10_000, abs=1e-9)


def test_profits_of_agents_always_sum_to_the_account(world: World) -> None:
    for _ in range(5):
        world.pass_time(40)
        equity = world.engine.equity()
        assert equity is not None
        assert sum(world.engine.profits().values()) == pytest.approx(equity - 10_000, abs=1e-6)


def test_a_crash_climbs_the_ladder_to_flat(world: World) -> None:
    held = [s for s in (BTC, ETH) if world.engine.ledger.position(s) > 0]
    world.tell(Adjustment(UNSTAMPED, Currency("USDT"), Decimal(-9000), AdjustmentKind.CARRIED, "a loss from elsewhere"))
    world.pass_time(90)
    assert world.engine.risk.rung == "flatten"
    for symbol in held:
        mark = world.engine.market.mark(symbol)
        assert mark is not None
        assert world.engine.ledger.position(symbol) * mark < 20
    assert not buys(world.pass_time(30))


def test_agents_that_are_left_out_say_nothing() -> None:
    world = World(replace(CONFIG, agents=("short_term", "risk")))
    world.pass_time(200)
    assert world.run.decisions["market_making"] == world.run.decisions["long_term"] == 0
    assert world.run.decisions["short_term"] >= 3


def test_what_was_carried_over_is_neither_valued_nor_sold_at_the_prices_of_history() -> None:
    world = World()
    engine, instrument = world.engine, world.market.instruments[BTC]
    facts: list[Event] = [
        *(Listing(UNSTAMPED, listed) for listed in world.market.instruments.values()),
        Adjustment(UNSTAMPED, Currency("USDT"), Decimal(10_000), AdjustmentKind.CAPITAL),
        Adjustment(UNSTAMPED, instrument.base, Decimal("0.05"), AdjustmentKind.CARRIED, "60000"),
    ]
    for symbol in (BTC, ETH):
        for row in world.market.history(symbol, "1m", limit=120):
            prices = [2 * Decimal(repr(float(x))) for x in row[1:5]]
            facts.append(Bar(UNSTAMPED, symbol, int(row[0]) * 1_000_000, "1m", *prices, Decimal(1)))
    for seq, fact in enumerate(facts, start=1):
        effects = engine.step(stamped(fact, Stamp(START - NS, seq)))
        assert effects.commands == ()
        assert effects.decision is None
    assert engine.risk.peak_equity == 0, "an old price is no equity"
    assert engine.step(Flatten(Stamp(START, 9999))).commands, "the operator may sell at once all the same"
