"""Each checker names the command that breaks its law, and is silent where everything holds."""

from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace

import pytest

from agents.core.events import Adjustment, AdjustmentKind, FeedGap, Fill, Stamp, Tick
from agents.core.instruments import Currency, Side, Symbol
from agents.core.orders import Amend, Cancel, OrderId, OrderState, Place
from agents.desk.decision import Effects, EngineConfig
from agents.desk.invariants import violations
from agents.desk.limits import Limits
from tests.desk.world import BTC, ETH, SOL, USDT, World

D = Decimal
TICK = Tick(Stamp(1))


def desk(world, halted=False):
    config = EngineConfig("test", 1, "USDT", (BTC, ETH, SOL), limits=world.limits)
    return SimpleNamespace(
        config=config, market=world.market, ledger=world.ledger, attribution=world.attribution, risk=world.state, halted=halted
    )  # fmt: skip


def broken(world, *commands, event=TICK, halted=False):
    """Record the commands and judge them."""
    world.record(commands)
    return violations(event, Effects(tuple(commands)), desk(world, halted))


def buy(quantity="0.01", price="50000", **changes):
    return Place(OrderId(changes.pop("name", "q-test-1-1-0")), BTC, Side.BUY, D(quantity), D(price), **changes)


def sell(quantity="0.01", **changes):
    return replace(buy(quantity, "50100", **changes), side=Side.SELL)


def test_an_order_within_every_limit_is_no_violation():
    world = World()
    world.own(ETH, 0.1)
    assert broken(world, buy("0.04")) == []
    assert broken(World(), Cancel(OrderId("q-test-1-1-9"), BTC), halted=True) == []


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda w: w.market.apply(FeedGap(Stamp(w.at), BTC, "book", "lost")), "gapped"),
        (lambda w: setattr(w.state, "reconciled", False), "unreconciled"),
        (lambda w: setattr(w.state, "unreconciled", frozenset({BTC})), "unreconciled"),
        (lambda w: setattr(w.state, "rung", "no_new_risk"), "no_new_risk"),
        (lambda w: setattr(w.state, "rung", "flatten"), "flatten"),
    ],
)
def test_i4_a_buy_where_nothing_may_rise(spoil, word):
    world = World()
    world.own(BTC, 0.05)
    spoil(world)
    (found,) = broken(world, buy("0.001"))
    assert found.startswith("I4 BTC/USDT: q-test-1-1-0") and word in found
    assert broken(world, sell("0.001", name="q-test-1-1-1")) == [], "a reduction goes on"


def test_i4_under_halt_only_reduce_only_sells():
    world = World()
    world.own(BTC, 0.05)
    assert [v[:2] for v in broken(world, buy("0.001"), halted=True)] == ["I4"]
    assert [v[:2] for v in broken(world, sell("0.001", name="q-test-1-1-1"), halted=True)] == ["I4"]
    assert broken(world, sell("0.001", name="q-test-1-1-2", reduce_only=True), halted=True) == []


def test_i5_sells_add_up_to_no_more_than_the_position():
    world = World()
    world.own(BTC, 0.1)
    stop = replace(sell("0.015", name="q-test-1-1-3", reduce_only=True), price=None, trigger_price=D(48000))
    assert broken(world, stop) == []
    (found,) = broken(world, sell("0.006"))
    assert found == "I5 BTC/USDT: sells add up to 0.021, position 0.02"


def test_i5_an_amended_sell_counts_once():
    world = World()
    world.own(BTC, 0.1)
    old = world.quote_order(BTC, Side.SELL, "0.02", "51000")
    assert broken(world, Amend(old, OrderId("q-test-1-1-1"), BTC, Side.SELL, D("0.02"), D(51001))) == []


def test_i5_buys_filled_at_worst_stay_inside_cap_gross_and_cash():
    assert broken(World(), buy("0.0401")) == ["I5 BTC/USDT: worst weight 0.200500 above the cap"]
    world = World()
    world.order(BTC, Side.BUY, "0.03", "50000", OrderState.UNKNOWN)
    assert len(broken(world, buy("0.011"))) == 1, "an unknown order counts"
    world = World(limits=Limits(gross=0.3))
    world.own(ETH, 0.15)
    assert [v[:14] for v in broken(world, buy("0.0301"))] == ["I5: worst gros"]
    world = World()
    world.apply(Adjustment(Stamp(world.at), USDT, D(-9_000), AdjustmentKind.CARRIED))
    assert "cash" in broken(world, buy("0.021"))[-1]


def test_i5_a_buy_without_a_mark():
    world = World()
    found = broken(world, replace(buy(), symbol=Symbol("XRP/USDT")))
    assert found == ["I4 XRP/USDT: q-test-1-1-0 buys on data that is not followed", "I5 XRP/USDT: bought without a mark"]


def test_i2_positions_and_sub_accounts_are_the_sum_of_fills():
    world = World()
    world.own(BTC, 0.1)
    fill = Fill(Stamp(world.at), BTC, world.at, OrderId("x"), "t", Side.BUY, D(50000), D("0.001"), D(0), USDT, True)
    world.ledger.apply(fill)
    (found,) = broken(world, event=fill)
    assert found == "I2 BTC/USDT: position 0.021, but the sub-accounts own 0.02"
    world.attribution.apply(fill, (), {})
    assert broken(world, event=fill) == []
    world.ledger.flows[Currency("BTC")] += 1
    assert broken(world, event=fill)[0].startswith("I2 BTC/USDT: position 0.021, but fills and carried holdings moved 1.021")
