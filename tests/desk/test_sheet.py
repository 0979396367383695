"""The order sheet counts everything that may fill, and what it has promised itself."""

from decimal import Decimal

import pytest

from agents.core.instruments import Side
from agents.core.orders import Place
from agents.desk.limits import Limits
from agents.desk.sheet import Sheet
from tests.desk.world import BTC, ETH, SOL, World

FREE = Limits(turnover_cost_bps=0.0, max_order_notional=1.0)
SHARES = (("long_term", 1.0), ("house", 0.0))


def sheet(world, gross=1.0):
    safe = world.project(world.target({BTC: 0.0, ETH: 0.0, SOL: 0.0}, gross=gross))
    return Sheet(safe, world.market, world.ledger, world.limits, world.context())


def room(paper, symbol, price):
    return paper.room(paper.ledger.instruments[symbol], Decimal(price))


def test_room_shrinks_with_everything_that_may_fill():
    world = World(limits=FREE)
    assert room(sheet(world), BTC, 50000) == Decimal("0.04")
    assert room(sheet(world), BTC, 60000) == Decimal("0.2") * 10000 / 60000, "a dear buy weighs what it costs"
    assert room(sheet(world), BTC, 40000) == Decimal("0.04"), "and a cheap one what it will be worth"
    world.own(BTC, 0.1)
    assert room(sheet(world), BTC, 50000) == Decimal("0.02")
    world.order(BTC, Side.BUY, "0.005", "50000")
    assert room(sheet(world), BTC, 50000) == Decimal("0.015")
    world.order(BTC, Side.SELL, "0.01", "50000")
    assert room(sheet(world), BTC, 50000) == Decimal("0.015"), "a sale that has not filled frees nothing"


def test_what_the_plan_places_takes_room_of_its_symbol_and_of_all():
    world = World(limits=FREE)
    paper = sheet(world, gross=0.3)
    spec = world.ledger.instruments[BTC]
    assert room(paper, ETH, 2500) == Decimal("0.8")
    assert paper.place(spec, Side.BUY, Decimal("0.03"), Decimal(50000), SHARES)
    assert room(paper, BTC, 50000) == Decimal("0.01")
    assert room(paper, ETH, 2500) == Decimal("0.6"), "0.15 of 0.3 is gone"


def test_inventory_is_promised_once():
    world = World(limits=FREE)
    world.own(BTC, 0.1)
    world.order(BTC, Side.SELL, "0.005", "50000")
    paper = sheet(world)
    assert paper.free(BTC) == Decimal("0.015")
    assert paper.place(world.ledger.instruments[BTC], Side.SELL, Decimal("0.01"), Decimal(50100), SHARES)
    assert paper.free(BTC) == Decimal("0.005")
    assert not paper.place(world.ledger.instruments[BTC], Side.SELL, Decimal("0.01"), Decimal(50100), SHARES)
    assert [r.reason for r in paper.refusals] == ["exceeds_inventory"]


@pytest.mark.parametrize("why", ["halted", "distrusted"])
def test_where_nothing_may_rise_there_is_no_room(why):
    world = World(limits=FREE)
    world.state.halted = why == "halted"
    world.state.unreconciled = frozenset({BTC}) if why == "distrusted" else frozenset()
    assert room(sheet(world), BTC, 50000) == 0
    assert (room(sheet(world), ETH, 2500) == 0) == (why == "halted")


def test_ids_are_consecutive_and_refused_orders_take_none():
    world = World(limits=FREE)
    paper, spec = sheet(world), world.ledger.instruments[BTC]
    paper.place(spec, Side.BUY, Decimal("0.001"), Decimal(50000), SHARES)
    paper.place(spec, Side.BUY, Decimal("0.001"), Decimal(90000), SHARES)
    paper.place(spec, Side.BUY, Decimal("0.001"), Decimal(50000), SHARES)
    assert [c.order_id for c in paper.commands if isinstance(c, Place)] == ["q-test-1-1-0", "q-test-1-1-1"]


def test_a_cancel_is_asked_once():
    world = World(limits=FREE)
    world.order(BTC, Side.BUY, "0.005", "50000")
    paper = sheet(world)
    (order,) = paper.resting(BTC, Side.BUY, quotes=False)
    assert paper.open(order)
    paper.cancel(order)
    paper.cancel(order)
    assert len(paper.commands) == 1 and not paper.open(order)
