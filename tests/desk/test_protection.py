"""A protective stop covers what other sells do not need, gives way before they take it, and never outlives its position unseen."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.events import FeedGap, Stamp
from agents.core.instruments import NS, Side
from agents.core.orders import Amend, Cancel, OrderId, OrderState, Place
from agents.desk.gate import free_inventory, is_stop
from agents.desk.limits import Limits
from agents.desk.protection import DAEMON, EXCHANGE, NOBODY, OUTLIVES_NS, Need, Protection, resting
from agents.desk.stops import Level
from agents.market.state import MarketState
from tests.desk.world import BTC, ETH, World

D = Decimal
LIMITS = Limits()
LEVEL = Level(48_500.007, 0.03)


class Guarded(World):
    """A small account whose stops can rest on the exchange."""

    def __init__(self, weight=0.1, limit_orders=False, **changes):
        super().__init__(**{"stop_orders": True, **changes})
        self.protection, self.levels, self.hits, self.needs = Protection(limit_orders), {BTC: LEVEL}, frozenset(), {}
        if weight:
            self.own(BTC, weight)

    def guard(self, planned=()):
        """One look; its commands are recorded."""
        commands = self.protection.guard(
            self.market, self.ledger, self.limits, self.context(), self.levels, self.hits, self.needs, planned
        )
        self.record([*planned, *commands])
        return commands

    def stop(self):
        """Place the stop and let the exchange take it; its order."""
        (place,) = self.guard()
        self.update(place.order_id, OrderState.OPEN)
        return self.ledger.orders[place.order_id]

    def holder(self, **how):
        return self.protection.holder(BTC, self.ledger, self.levels, **how)


def test_a_position_gets_a_stop_market_order_that_can_only_reduce():
    world = Guarded()
    (place,) = world.guard()
    assert (place.side, place.quantity, place.price, place.trigger_price) == (Side.SELL, D("0.02"), None, D("48500.00"))
    assert place.reduce_only and not place.shares and is_stop(place)
    assert world.holder() == DAEMON, "not answered yet"
    world.update(place.order_id, OrderState.OPEN)
    assert world.holder() == EXCHANGE and resting(world.ledger) == {BTC: 48500.0}
    world.later(60)
    assert world.guard() == [], "it fits"


def test_where_the_exchange_knows_limit_stops_only_the_limit_lies_a_collar_below():
    (place,) = Guarded(limit_orders=True).guard()
    assert (place.trigger_price, place.price) == (D("48500.00"), D("47530.00"))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"stop_orders": False}, "the exchange has none"),
        ({"min_notional": D(1000)}, "below the exchange's minimum"),
        ({"min_quantity": D("0.03")}, "below the exchange's minimum"),
        ({"weight": 0}, "nothing to protect"),
    ],
)
def test_where_no_stop_can_rest_the_daemon_holds_it_and_says_so(change, why):
    world = Guarded(**change)
    assert world.guard() == [], why
    assert world.holder() == DAEMON
    world.levels = {}
    assert world.holder() == NOBODY


def test_under_halt_the_daemon_acts_only_where_stops_exist():
    assert Guarded().holder(halted=True) == DAEMON
    assert Guarded(stop_orders=False).holder(halted=True) == NOBODY


@pytest.mark.parametrize("level", [Level(50_000.0, 0.03), Level(60_000.0, 0.03)])
def test_a_level_at_or_above_the_mark_is_no_stop(level):
    world = Guarded()
    world.levels = {BTC: level}
    assert world.guard() == []


def test_what_is_being_sold_after_a_hit_gets_no_stop():
    world = Guarded()
    world.hits = frozenset({BTC})
    assert world.guard() == []


def test_the_stop_covers_what_sells_and_asks_do_not_need():
    world = Guarded()
    world.needs = {BTC: Need(D("0.005"), D("0.003"))}
    (place,) = world.guard()
    assert place.quantity == D("0.012")


def test_working_and_planned_sells_count_and_an_amended_one_once():
    world = Guarded()
    world.order(BTC, Side.SELL, "0.004", "51000")
    ask = world.quote_order(BTC, Side.SELL, "0.003", "51000")
    planned = [
        Place(OrderId("q-test-1-1-0"), BTC, Side.SELL, D("0.001"), D(51000)),
        Amend(ask, OrderId("q-test-1-1-1"), BTC, Side.SELL, D("0.005"), D(51001)),
    ]
    (place,) = world.guard(planned)
    assert place.quantity == D("0.01") and place.order_id == "q-test-1-1-2"
    world.update(place.order_id, OrderState.OPEN)
    world.later(60)
    assert world.guard() == [], "the amendment is on its way: its two orders never fill both"
    world.update(ask, OrderState.CANCELED)
    assert world.guard() == []


def test_a_sell_that_needs_the_holding_makes_the_stop_smaller_first():
    world = Guarded()
    stop = world.stop()
    world.needs = {BTC: Need(sell=D("0.01"))}
    assert world.guard() == [Cancel(stop.place.order_id, BTC)], "at once"
    assert free_inventory(BTC, world.ledger, ()) == 0, "nothing is free before the exchange confirms"
    world.later(6)
    assert world.guard() == []
    world.update(stop.place.order_id, OrderState.CANCELED)
    (smaller,) = world.guard()
    assert smaller.quantity == D("0.01")


def test_a_close_takes_the_stop_away():
    world = Guarded()
    stop = world.stop()
    world.needs = {BTC: Need(sell=D("0.02"))}
    assert world.guard() == [Cancel(stop.place.order_id, BTC)]
    world.update(stop.place.order_id, OrderState.CANCELED)
    world.later(60)
    assert world.guard() == []


def test_a_stop_that_the_mark_has_reached_may_work_for_a_moment():
    world = Guarded()
    stop = world.stop()
    world.needs, world.hits = {BTC: Need(sell=D("0.02"))}, frozenset({BTC})
    assert world.guard() == []
    world.later(1.9)
    assert world.guard() == []
    world.later(0.2)
    assert world.guard() == [Cancel(stop.place.order_id, BTC)]


def test_a_position_that_shrank_below_its_stop_is_answered_at_once():
    world = Guarded()
    stop = world.stop()
    world.fill(world.order(BTC, Side.SELL, "0.005", "50000"))
    assert world.guard() == [Cancel(stop.place.order_id, BTC)]


def test_an_ask_waits_for_its_share_and_jitter_moves_nothing():
    world = Guarded()
    stop = world.stop()
    world.needs = {BTC: Need(ask=D("0.01"))}
    assert world.guard() == [], "a quote is worth a message pair only now and then"
    world.later(5)
    assert world.guard() == [Cancel(stop.place.order_id, BTC)]
    world.update(stop.place.order_id, OrderState.CANCELED)
    stop = world.stop()
    assert stop.place.quantity == D("0.01")
    sent = 0
    for number in range(120):
        world.later(0.5)
        world.needs = {BTC: Need(ask=D(["0.009", "0.0115", "0.0105"][number % 3]))}
        sent += len(world.guard())
    assert sent == 0


def test_a_trailing_level_moves_the_stop_by_steps_and_seldom():
    world = Guarded()
    stop = world.stop()
    world.levels = {BTC: Level(48_600.0, 0.03)}
    world.later(60)
    assert world.guard() == [], "a fifteenth of the distance"
    world.levels = {BTC: Level(48_650.0, 0.03)}
    assert world.guard() == [Cancel(stop.place.order_id, BTC)]
    world.update(stop.place.order_id, OrderState.CANCELED)
    world.stop()
    world.levels = {BTC: Level(49_000.0, 0.03)}
    world.later(4.9)
    assert world.guard() == []
    world.later(0.2)
    assert len(world.guard()) == 1


def test_a_stop_that_could_not_be_placed_anew_stays():
    world = Guarded()
    world.stop()
    world.later(60)
    world.levels = {BTC: Level(50_001.0, 0.03)}
    assert world.guard() == []
    world.levels = {}
    assert world.guard() == []
    world.market.apply(FeedGap(Stamp(world.at), BTC, "book", "lost"))
    assert world.guard() == []


def test_a_bigger_position_gets_a_bigger_stop_after_a_while():
    world = Guarded()
    stop = world.stop()
    world.own(BTC, 0.05)
    world.later(14)
    assert world.guard() == []
    world.later(2)
    assert world.guard() == [Cancel(stop.place.order_id, BTC)]
    world.update(stop.place.order_id, OrderState.CANCELED)
    assert world.stop().place.quantity == D("0.03")


@pytest.mark.parametrize("end", [OrderState.REJECTED, OrderState.EXPIRED])
def test_a_refused_stop_is_tried_again_after_a_pause_and_held_by_the_daemon_meanwhile(end):
    world = Guarded()
    (place,) = world.guard()
    world.update(place.order_id, end)
    assert world.holder() == DAEMON
    world.later(9.9)
    assert world.guard() == []
    world.later(0.2)
    assert [c.quantity for c in world.guard()] == [D("0.02")]


@pytest.mark.parametrize("state", [OrderState.PENDING, OrderState.UNKNOWN, OrderState.CANCELING])
def test_while_a_stop_may_still_live_no_other_is_placed(state):
    world = Guarded()
    (place,) = world.guard()
    world.ledger.orders[place.order_id].state = state
    world.later(60)
    world.needs = {BTC: Need(sell=D("0.02"))}
    assert world.guard() == []


def test_a_stop_that_outlives_its_position_is_cancelled_and_told():
    world = Guarded()
    stop = world.stop()
    world.fill(world.order(BTC, Side.SELL, "0.02", "50000"))
    assert world.guard() == [Cancel(stop.place.order_id, BTC)]
    world.later(OUTLIVES_NS / NS - 0.1)
    assert world.guard() == [] and not world.ledger.anomalies
    world.later(0.2)
    assert world.guard() == [Cancel(stop.place.order_id, BTC)], "once more"
    assert world.ledger.anomalies == {"stop_outlives_position": 1}
    world.later(1)
    assert world.guard() == []
    world.update(stop.place.order_id, OrderState.CANCELED)
    world.later(60)
    assert world.guard() == [] and world.ledger.anomalies == {"stop_outlives_position": 1}


def test_of_two_stops_the_older_goes():
    world = Guarded()
    for number, quantity in ((1, D("0.002")), (2, D("0.018"))):
        place = Place(OrderId(f"q-old-1-1-{number}"), BTC, Side.SELL, quantity, None, reduce_only=True, trigger_price=D(48500))
        world.record([place])
        world.update(place.order_id, OrderState.OPEN)
    assert world.guard() == [Cancel(OrderId("q-old-1-1-1"), BTC)]


# -- beside the planner ------------------------------------------------------------------------------------------------


def test_the_planner_neither_cancels_a_stop_nor_takes_it_for_its_own_sale():
    world = Guarded(limits=replace(LIMITS, turnover_cost_bps=0.0))
    world.stop()
    planned = world.plan(world.target({BTC: 0.15}))
    assert [(c.side, c.quantity) for c in planned.commands] == [(Side.BUY, D("0.01"))], "and it is no self-trade"
    assert planned.needs == {BTC: Need()}
    assert world.plan(world.target({ETH: 0.0})).commands == (), "not wished for: held, and so is its stop"
    world.market = MarketState((ETH,))
    assert world.plan(world.target({ETH: 0.0})).commands == (), "without a price it is needed most"


def test_a_planned_sale_waits_for_the_stop_and_says_what_it_needs():
    world = Guarded(limits=replace(LIMITS, turnover_cost_bps=0.0))
    stop = world.stop()
    target = world.target({BTC: 0.05}, quotes={BTC: (0.001, 0.001, 0.0, 0.02)})
    planned = world.step(target)
    assert planned.commands == () and {r.reason for r in planned.refusals} == {"no_room", "below_min_notional"}
    assert planned.needs == {BTC: Need(D("0.01"), D("0.004"))}
    world.needs = planned.needs
    assert world.guard() == [Cancel(stop.place.order_id, BTC)]
    world.update(stop.place.order_id, OrderState.CANCELED)
    world.later(6)
    planned = world.plan(target)
    commands = world.guard(planned.commands)
    assert [c.quantity for c in planned.commands] == [D("0.01"), D("0.00399")]
    assert [c.quantity for c in commands] == [D("0.006")]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_sells_never_add_up_to_more_than_the_position_whatever_happens(data):
    amending = {}
    world = Guarded(weight=0.15, amend=data.draw(st.booleans()), limits=replace(LIMITS, turnover_cost_bps=0.0))
    for _ in range(data.draw(st.integers(3, 14))):
        world.later(data.draw(st.sampled_from([0.5, 1.5, 6, 20])))
        world.hits = frozenset(data.draw(st.sampled_from([(), (), (BTC,)])))
        target = world.target(
            {BTC: 0.0 if world.hits else data.draw(st.sampled_from([0.0, 0.05, 0.12, 0.15, 0.2]))},
            quotes={} if world.hits else {BTC: (0.001, 0.001, 0.01, data.draw(st.sampled_from([0.0, 0.01, 0.03])))},
        )
        planned = world.plan(target)
        world.needs = planned.needs
        world.levels = {BTC: Level(data.draw(st.sampled_from([48_500.0, 49_000.0, 49_700.0])), 0.03)}
        commands = [*planned.commands, *world.guard(planned.commands)]
        replaced = {c.order_id for c in commands if isinstance(c, Amend)}
        sells = [o for o in world.ledger.live_orders(BTC) if o.place.side is Side.SELL and o.place.order_id not in replaced]
        if any(not isinstance(c, Cancel) and c.side is Side.SELL for c in commands):
            assert sum(o.remaining for o in sells) <= world.ledger.position(BTC)
        amending |= {c.order_id: c.new_order_id for c in commands if isinstance(c, Amend)}
        for old, new in list(amending.items()):  # one breath: the old order ends and the new one stands, or the new one never comes
            if (answer := data.draw(st.sampled_from(["wait", "done", "too late"]))) == "done":
                world.update(old, OrderState.CANCELED)
                world.update(new, OrderState.OPEN)
            elif answer == "too late":
                world.fill(old)
                world.update(new, OrderState.REJECTED)
            if answer != "wait":
                del amending[old]
        for order in world.ledger.live_orders(BTC):
            order_id, quantity = order.place.order_id, order.remaining
            if order_id in amending or order_id in amending.values():
                continue
            match data.draw(st.sampled_from(["wait", "open", "part", "fill", "cancel", "reject", "unknown"])):
                case "open" if order.state is not OrderState.CANCELING:
                    world.update(order_id, OrderState.OPEN)
                case "part" if (half := (quantity / 2).quantize(D("0.00001"))) > 0:
                    world.fill(order_id, half, order.place.price or D(48_000))
                case "fill":
                    world.fill(order_id, quantity, order.place.price or D(48_000))
                case "cancel" if order.state is OrderState.CANCELING:
                    world.update(order_id, OrderState.CANCELED)
                case "reject" if order.state is OrderState.PENDING:
                    world.update(order_id, OrderState.REJECTED)
                case "unknown" if order.state in (OrderState.PENDING, OrderState.CANCELING):
                    world.update(order_id, OrderState.UNKNOWN)
        assert world.ledger.position(BTC) >= 0
