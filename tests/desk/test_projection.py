"""The door between wishes and orders: what is bound, by what, at which price, and what happens when nothing can be known."""

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.events import FeedGap, Stamp, Trade
from agents.core.instruments import NS, Side, Symbol
from agents.core.orders import OrderState
from agents.desk.limits import FLATTEN, NO_NEW_RISK, REDUCE, Limits
from agents.desk.program import CLARABEL, SHORTCUT
from agents.desk.projection import HOLD, Bound, SafeTarget, project
from agents.desk.wishes import Quotes
from tests.desk.world import BTC, ETH, SOL, World

NAN = float("nan")
FREE = Limits(turnover_cost_bps=0.0)


def names(safe):
    return {(b.name, b.symbol) for b in safe.bound}


def worst(world, safe):
    """Largest weight of each symbol if every standing buy and every new bid fills and no sell does."""
    equity = float(world.equity())
    result = {}
    for symbol, weight in safe.weights.items():
        held = float(world.ledger.position(symbol) * world.mark(symbol)) / equity
        buys = sum(float(o.remaining * o.place.price) for o in world.ledger.live_orders(symbol) if o.place.side is Side.BUY) / equity
        bid = safe.quotes[symbol].bid_size if symbol in safe.quotes else 0.0
        result[symbol] = max(weight, held + buys) + bid
    return result


def test_a_wish_inside_the_limits_passes_unchanged():
    world = World(limits=FREE)
    safe = world.project(world.target({BTC: 0.1, ETH: 0.05, SOL: 0.0}, {BTC: (0.001, 0.001, 0.01, 0.01)}))
    assert safe.solver == SHORTCUT and safe.bound == ()
    assert safe.weights == {BTC: 0.1, ETH: 0.05, SOL: 0.0}
    assert safe.quotes == {BTC: Quotes(0.001, 0.001, 0.01, 0.0)}, "an ask needs inventory"
    assert safe.equity == 10000 and safe.marks[BTC] == 50000 and not safe.no_new_risk


def test_position_cap_binds_and_names_its_price():
    world = World(limits=FREE)
    safe = world.project(world.target({BTC: 0.5, ETH: 0.1}))
    assert safe.weights == {BTC: 0.2, ETH: 0.1}
    assert safe.bound == (Bound("position_cap", BTC, pytest.approx(0.3)),)


def test_cash_buffer_binds_the_sum_bids_included():
    symbols = tuple(Symbol(f"C{i}/USDT") for i in range(6))
    world = World(symbols=symbols, limits=FREE)
    safe = world.project(world.target(dict.fromkeys(symbols, 0.19), dict.fromkeys(symbols, (0.001, 0.001, 0.01, 0.01))))
    assert safe.solver == CLARABEL and ("cash_buffer", None) in names(safe)
    assert sum(worst(world, safe).values()) == pytest.approx(0.98, abs=1e-9)


def test_gross_multiplier_tightens_and_never_widens():
    world = World(limits=FREE)
    wide = {BTC: 0.2, ETH: 0.2, SOL: 0.2}
    tight = world.project(world.target(wide, gross=0.3))
    assert sum(tight.weights.values()) == pytest.approx(0.3) and ("gross", None) in names(tight)
    for multiplier in (1.0, 7.0, float("inf"), NAN, -1.0):
        assert sum(world.project(world.target({BTC: 9, ETH: 9, SOL: 9}, gross=multiplier)).weights.values()) <= 0.6 + 1e-9
    assert sum(world.project(world.target(wide, gross=-1.0)).weights.values()) == 0.0


def test_trading_costs_more_than_a_small_gain_so_nothing_is_traded():
    world = World()
    world.own(BTC, 0.1)
    assert world.project(world.target({BTC: 0.1009})).weights[BTC] == pytest.approx(0.1)
    assert world.project(world.target({BTC: 0.15})).weights[BTC] == pytest.approx(0.149)


def test_a_negative_wish_is_a_wish_for_nothing():
    world = World(limits=FREE)
    safe = world.project(world.target({BTC: -0.4}))
    assert safe.weights[BTC] == 0.0 and safe.bound == (Bound("long_only", BTC, pytest.approx(0.4)),)


def test_asks_come_from_inventory_owned():
    world = World(limits=FREE)
    world.own(BTC, 0.03)
    safe = world.project(world.target({BTC: 0.0}, {BTC: (0.001, 0.001, 0.01, 0.05)}))
    assert safe.quotes[BTC].ask_size == pytest.approx(0.03)


def test_working_buys_count_as_filled():
    world = World(limits=FREE)
    world.order(BTC, Side.BUY, "0.03", "50000", OrderState.UNKNOWN)
    safe = world.project(world.target({BTC: 0.0, ETH: 0.2}, {BTC: (0.001, 0.001, 0.1, 0.1)}))
    assert safe.quotes[BTC].bid_size == pytest.approx(0.05), "0.15 may fill, so the cap of 0.2 leaves 0.05"


def test_open_quotes_are_replaced_and_do_not_count_twice():
    world = World(limits=FREE)
    world.quote_order(BTC, Side.BUY, "0.03", "50000")
    safe = world.project(world.target({BTC: 0.0}, {BTC: (0.001, 0.001, 0.15, 0.1)}))
    assert safe.quotes[BTC].bid_size == pytest.approx(0.15)


@pytest.mark.parametrize("state", [OrderState.PENDING, OrderState.UNKNOWN, OrderState.CANCELING])
def test_quotes_that_cannot_be_replaced_count(state):
    world = World(limits=FREE)
    order_id = world.quote_order(BTC, Side.BUY, "0.03", "50000")
    world.ledger.orders[order_id].state = state
    safe = world.project(world.target({BTC: 0.0}, {BTC: (0.001, 0.001, 0.15, 0.1)}))
    assert safe.quotes[BTC].bid_size == pytest.approx(0.05)


@pytest.mark.parametrize("distrust", ["stale", "gapped", "halted", "unreconciled", "symbol_unreconciled"])
def test_no_new_risk_lets_a_weight_only_fall(distrust):
    world = World(limits=FREE)
    world.own(BTC, 0.1)
    match distrust:
        case "stale":
            world.at += 60 * NS
            world.market.apply(FeedGap(Stamp(world.at), Symbol("OTHER/USDT"), "book", ""))
        case "gapped":
            world.apply(Trade(Stamp(world.at), BTC, world.at, "1", world.mark(BTC), Decimal(1), Side.BUY))
            world.market.book(BTC).distrust()
            world.apply(FeedGap(Stamp(world.at), BTC, "book", "lost"))
        case "halted":
            world.state.halted = True
        case "unreconciled":
            world.state.reconciled = False
        case _:
            world.state.unreconciled = frozenset({BTC})
    up = world.project(world.target({BTC: 0.2}, {BTC: (0.001, 0.001, 0.01, 0.01)}))
    assert up.weights[BTC] <= 0.1 + 1e-12 and BTC in up.no_new_risk and not up.quotes
    assert ("no_new_risk", BTC) in names(up)
    assert world.project(world.target({BTC: 0.04})).weights[BTC] == pytest.approx(0.04)


@pytest.mark.parametrize(
    "poison",
    [
        {"weights": {BTC: NAN, ETH: 0.1}},
        {"weights": {BTC: float("inf"), ETH: 0.1}},
        {"quotes": {BTC: Quotes(NAN, 0.1, 0.1, 0.1)}},
        {"quotes": {BTC: Quotes(0.1, 0.1, float("-inf"), 0.1)}},
    ],
)
def test_a_number_that_is_none_holds_its_symbol_and_only_that(poison):
    world = World(limits=FREE)
    world.own(BTC, 0.1)
    safe = world.project(replace(world.target({BTC: 0.2, ETH: 0.1}), **poison))
    assert safe.weights == {BTC: pytest.approx(0.1), ETH: pytest.approx(0.1)}
    assert safe.reasons == {BTC: "not_finite"} and BTC not in safe.quotes


def test_a_multiplier_that_is_no_number_stops_all_new_risk():
    world = World(limits=FREE)
    safe = world.project(world.target({BTC: 0.2, ETH: 0.1}, gross=NAN))
    assert safe.weights == {BTC: 0.0, ETH: 0.0} and set(safe.reasons.values()) == {"not_finite"}


def test_an_account_that_cannot_be_valued_is_held():
    world = World(symbols=(BTC, ETH))
    world.own(BTC, 0.1)
    blind = World(symbols=(ETH,))
    safe = project(world.target({ETH: 0.1}), blind.market, world.ledger, world.limits, world.state)
    assert safe.solver == HOLD and safe.weights == {} and safe.equity == 0
    assert safe.reasons[ETH] == "equity_unknown"


def test_equity_below_zero_is_held():
    world = World(capital="0")
    assert world.project(world.target({BTC: 0.1})).solver == HOLD


def test_what_is_held_and_not_wished_for_is_held():
    world = World(limits=FREE)
    world.own(SOL, 0.1)
    safe = world.project(world.target({BTC: 0.1}))
    assert safe.weights == {BTC: pytest.approx(0.1), SOL: pytest.approx(0.1)} and safe.reasons == {SOL: "not_wished"}


@pytest.mark.parametrize(("loss", "rung", "weight"), [(0.12, NO_NEW_RISK, 0.1), (0.16, REDUCE, 0.1), (0.25, FLATTEN, 0.0)])
def test_the_ladder_stands_around_the_program(loss, rung, weight):
    world = World(limits=FREE)
    quantity = world.own(BTC, 0.1)
    world.project(world.target({BTC: 0.1}))
    world.ledger.flows["USDT"] -= Decimal(str(loss)) * 10000
    safe = world.project(world.target({BTC: 0.2}, {BTC: (0.001, 0.001, 0.01, 0.01)}))
    assert safe.rung == rung and safe.reasons[BTC] == "drawdown"
    held = float(quantity * 50000 / safe.equity)
    assert safe.weights[BTC] == pytest.approx(min(held, 0.2) if weight else 0.0)
    assert (BTC in safe.quotes) == (rung != FLATTEN)
    assert all(q.bid_size == 0 for q in safe.quotes.values())


def test_the_rung_reduce_halves_gross():
    world = World(limits=replace(FREE, position_cap=0.5))
    world.own(BTC, 0.4)
    world.own(ETH, 0.4)
    world.project(world.target({BTC: 0.4, ETH: 0.4}))
    world.ledger.flows["USDT"] -= 1600
    safe = world.project(world.target({BTC: 0.45, ETH: 0.45}))
    assert safe.rung == REDUCE and sum(safe.weights.values()) == pytest.approx(0.5)


def test_turnover_bound_stops_increases_but_not_reductions():
    world = World(limits=replace(FREE, turnover_day=1.0))
    world.own(BTC, 0.2)
    world.state.turnover_day = 0.95
    safe = world.project(world.target({BTC: 0.0, ETH: 0.15, SOL: 0.15}))
    assert safe.weights[BTC] == pytest.approx(0.0, abs=1e-7)
    assert safe.weights[ETH] + safe.weights[SOL] == pytest.approx(0.05)
    assert ("turnover", None) in names(safe)
    world.state.turnover_day = 5.0
    assert world.project(world.target({BTC: 0.1, ETH: 0.15})).weights == {BTC: pytest.approx(0.1), ETH: pytest.approx(0.0, abs=1e-7)}


def test_a_safe_target_cannot_be_made_or_changed_elsewhere():
    world = World()
    safe = world.project(world.target({BTC: 0.1}))
    with pytest.raises(ValueError, match="seal"):
        replace(safe, weights={BTC: 9.0})
    fields = {name: getattr(safe, name) for name in SafeTarget.__dataclass_fields__ if name != "seal"}
    with pytest.raises(TypeError, match="project"):
        SafeTarget(**fields, seal=object())


weight = st.one_of(st.floats(-0.5, 1.5), st.sampled_from([NAN, float("inf"), 0.0]))
size = st.one_of(st.floats(0.0, 0.3), st.sampled_from([NAN, 0.0]))


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_whatever_is_wished_the_worst_case_is_inside_the_limits(data):
    world = World(limits=Limits(turnover_cost_bps=data.draw(st.sampled_from([0.0, 10.0]))))
    for symbol in (BTC, ETH, SOL):
        if held := data.draw(st.sampled_from([0.0, 0.05, 0.19, 0.4])):
            world.own(symbol, held)
        if buying := data.draw(st.sampled_from([0.0, 0.05])):
            quantity = world.ledger.instruments[symbol].round_quantity(Decimal(str(buying)) * 10000 / world.mark(symbol))
            world.order(symbol, Side.BUY, quantity, world.mark(symbol), data.draw(st.sampled_from([OrderState.OPEN, OrderState.UNKNOWN])))
    world.state.halted = data.draw(st.booleans())
    before = worst(world, world.project(world.target({BTC: 0.0, ETH: 0.0, SOL: 0.0})))
    weights = {s: data.draw(weight) for s in (BTC, ETH, SOL)}
    quotes = {s: (data.draw(st.floats(-0.1, 0.1)), 0.001, data.draw(size), data.draw(size)) for s in (BTC, ETH, SOL)}
    safe = world.project(world.target(weights, quotes, gross=data.draw(st.one_of(st.floats(-1, 2), st.just(NAN)))))
    after = worst(world, safe)
    held = {s: float(world.ledger.position(s) * world.mark(s) / world.equity()) for s in weights}
    for symbol, value in after.items():
        assert value <= max(0.2, before[symbol]) + 1e-9
        assert 0 <= safe.weights[symbol] <= 0.2 + 1e-12
        if symbol in safe.no_new_risk:
            assert safe.weights[symbol] <= held[symbol] + 1e-12
        if symbol in safe.quotes:
            assert 0 <= safe.quotes[symbol].ask_size <= held[symbol] + 1e-12
            assert np.isfinite(safe.quotes[symbol].bid_offset)
    assert sum(after.values()) <= max(0.98, safe.total, sum(before.values())) + 1e-9
    assert sum(safe.weights.values()) <= safe.total + 1e-9
    assert all(np.isfinite(b.price) and b.price > 0 for b in safe.bound)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-0.1, 0.5), min_size=3, max_size=3), st.floats(0.05, 1.0))
def test_projecting_a_safe_target_again_changes_nothing_at_zero_cost(wishes, gross):
    world = World(limits=FREE)
    world.own(BTC, 0.15)
    once = world.project(world.target(dict(zip((BTC, ETH, SOL), wishes, strict=True)), gross=gross))
    twice = world.project(world.target(once.weights, gross=gross))
    assert twice.weights == pytest.approx(once.weights, abs=1e-7)


def test_the_same_question_has_the_same_answer_bit_for_bit():
    def answer():
        world = World()
        world.own(BTC, 0.1)
        return world.project(world.target({BTC: 0.3, ETH: 0.19, SOL: 0.17}, {ETH: (0.001, 0.001, 0.05, 0.05)}, gross=0.4))

    assert answer() == answer()
