"""Every check refuses what it is for, by name, and lets the order next to it pass."""

from dataclasses import replace
from decimal import Decimal

import pytest

from agents.core.instruments import Side, Symbol
from agents.core.orders import OrderId, OrderState, Place
from agents.desk.gate import Allowance, Standing, free_inventory, gate, is_quote
from agents.desk.limits import Limits
from tests.desk.world import BTC, ETH, World

LIMITS = Limits(max_order_notional=0.2)


def place(side=Side.BUY, quantity="0.01", price="50000", **changes):
    base = Place(OrderId("q-x-1-1-0"), BTC, side, Decimal(quantity), Decimal(price) if price else None)
    return replace(base, **changes)


def verdict(order, world=None, limits=LIMITS, **standing):
    world = world or World()
    refusal = gate(order, world.market, world.ledger, limits, Standing(Decimal(10000), **standing))
    return refusal.reason if refusal else None


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        (place(), None),
        (place(symbol=Symbol("XRP/USDT")), "not_listed"),
        (place(price=None), "market_order"),
        (place(price="50000.005"), "price_off_tick"),
        (place(price="NaN"), "not_finite"),
        (place(quantity="0.000001"), "quantity_off_lot"),
        (place(quantity="0.00001"), "below_min_notional"),
        (place(quantity="0.05"), "above_max_notional"),
        (place(quantity="0.04"), None),
        (place(price="51000"), None),
        (place(price="51000.01"), "price_collar"),
        (place(price="40000"), None),
        (place(side=Side.SELL), "exceeds_inventory"),
        (place(reduce_only=True), "reduce_only"),
    ],
)
def test_a_single_order(order, reason):
    assert verdict(order) == reason


def test_a_lost_account_buys_nothing_and_may_still_sell():
    world = World()
    world.own(BTC, 0.1)
    for equity in (Decimal(0), Decimal(-5)):
        refusal = gate(place(quantity="0.0002"), world.market, world.ledger, LIMITS, Standing(equity))
        assert refusal is not None and refusal.reason == "no_equity"
        assert gate(place(Side.SELL, quantity="0.0002", reduce_only=True), world.market, world.ledger, LIMITS, Standing(equity)) is None


@pytest.mark.parametrize("share", [float("nan"), float("inf"), float("-inf")])
def test_a_share_that_is_no_number_spends_nobodys_budget_unseen(share):
    budget = {"long_term": Allowance(Decimal(10_000), None)}
    assert verdict(place(shares=(("long_term", share),)), allowances=budget) == "not_finite"


def test_a_budget_that_is_no_number_lets_nothing_be_bought():
    order = place(shares=(("long_term", 1.0),))
    for budget in (Allowance(Decimal("NaN"), None), Allowance(None, Decimal("Infinity"))):
        assert verdict(order, allowances={"long_term": budget}) == "agent_budget"


@pytest.mark.parametrize(("price", "reason"), [("49000", None), ("48999.99", "price_collar"), ("90000", None)])
def test_a_sale_may_not_be_too_cheap(price, reason):
    world = World()
    world.own(BTC, 0.1)
    assert verdict(place(Side.SELL, price=price), world) == reason


def test_a_sale_is_covered_by_what_is_owned_and_not_promised():
    world = World()
    world.own(BTC, 0.1)
    world.order(BTC, Side.SELL, "0.005", "51000", OrderState.UNKNOWN)
    assert free_inventory(BTC, world.ledger, [place(Side.SELL, "0.002")]) == Decimal("0.013")
    assert verdict(place(Side.SELL, "0.015"), world) is None
    assert verdict(place(Side.SELL, "0.01501"), world) == "exceeds_inventory"
    assert verdict(place(Side.SELL, "0.015"), world, placed=[place(Side.SELL, "0.001")]) == "exceeds_inventory"


def test_no_order_trades_with_another_of_ours():
    world = World()
    world.own(BTC, 0.1)
    world.order(BTC, Side.SELL, "0.001", "50100")
    assert verdict(place(price="50100"), world) == "self_trade"
    assert verdict(place(price="50099.99"), world) is None
    assert verdict(place(), world, placed=[place(Side.SELL, "0.001", "50000")]) == "self_trade"
    assert verdict(place(), world, placed=[place(Side.SELL, "0.001", "50000", symbol=Symbol("ETH/USDT"))]) is None


def test_halt_count_and_rate_stop_new_risk_and_let_reductions_pass():
    world = World()
    world.own(BTC, 0.1)
    exit_ = place(Side.SELL, reduce_only=True)
    for reason, standing in (("halted", {"halted": True}), ("order_count", {"open_count": 100}), ("message_rate", {"rate_left": 0})):
        assert verdict(place(), world, **standing) == reason
        assert verdict(exit_, world, **standing) is None
    assert verdict(place(Side.SELL), world, open_count=100) == "order_count"
    assert verdict(place(), world, open_count=98, placed=[place(price="49000")] * 2) == "order_count"


def test_own_floor_of_notional():
    assert verdict(place(quantity="0.0003"), limits=replace(LIMITS, min_order_notional=20.0)) == "below_min_notional"
    assert verdict(place(quantity="0.0004"), limits=replace(LIMITS, min_order_notional=20.0)) is None


def test_without_a_mark_nothing_passes():
    blind = World()
    blind.market = type(blind.market)((BTC,))
    assert verdict(place(), blind) == "no_mark"


def test_quotes_are_told_by_kind_and_owner():
    assert is_quote(place(post_only=True, shares=(("market_making", 1.0),)))
    assert not is_quote(place(shares=(("market_making", 1.0),)))
    assert not is_quote(place(post_only=True, shares=(("market_making", 1.0), ("house", 0.0))))
    assert not is_quote(place(post_only=True))


# -- stops -------------------------------------------------------------------------------------------------------------


def stop(quantity="0.01", trigger="48500", **changes):
    return replace(place(Side.SELL, quantity, None), **{"reduce_only": True, "trigger_price": Decimal(trigger), **changes})


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        (stop(), None),
        (stop("0.02"), None),
        (stop("0.02001"), "exceeds_inventory"),
        (stop(side=Side.BUY), "stop_must_reduce"),
        (stop(reduce_only=False), "stop_must_reduce"),
        (stop(trigger="48500.005"), "price_off_tick"),
        (stop(trigger="NaN"), "not_finite"),
        (stop(trigger="50000"), "would_trigger"),
        (stop("0.0001"), "below_min_notional"),
        (stop(price=Decimal(48500)), None),
        (stop(price=Decimal(47530)), None),
        (stop(price=Decimal("47529.99")), "price_collar"),
        (stop(price=Decimal("48500.01")), "price_collar"),
        (stop(price=Decimal("48000.001")), "price_off_tick"),
    ],
)
def test_a_stop_may_be_a_market_order_and_reduces_what_is_free(order, reason):
    world = World()
    world.own(BTC, 0.1)
    assert verdict(order, world, halted=True, open_count=10**6, rate_left=0) == reason


def test_a_stop_needs_a_mark_and_sleeps_where_no_order_of_ours_meets_it():
    world = World()
    world.own(BTC, 0.1)
    blind = World(symbols=(BTC,))
    blind.market = type(world.market)((ETH,))
    assert verdict(stop(), blind) == "no_mark"
    world.record([replace(stop(), order_id=OrderId("q-x-1-1-9"))])
    assert verdict(place(quantity="0.01", price="50500"), world) is None
