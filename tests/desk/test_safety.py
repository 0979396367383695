"""The kill path works on an account in any state and only ever reduces."""

from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.events import FeedGap, Stamp
from agents.core.instruments import Side
from agents.core.orders import Cancel, OrderId, OrderState, Place, TimeInForce
from agents.desk.limits import Limits
from agents.desk.safety import cancel_all, dust, flatten, is_flat, loose_ends, wind_down
from tests.desk.world import BTC, ETH, SOL, World

LIMITS = Limits()


def sell_out(world, steps=60, **how):
    """Wind down against a venue that confirms cancels and fills sells at their price; the number of steps it took."""
    for step in range(steps):
        if is_flat(world.market, world.ledger, LIMITS):
            return step
        world.later(1.5)
        commands = wind_down(world.market, world.ledger, LIMITS, world.context(), **how)
        world.record(commands)
        for command in commands:
            if isinstance(command, Cancel):
                world.update(command.order_id, OrderState.CANCELED)
            else:
                world.fill(command.order_id)
    return None


def test_cancel_all_asks_for_each_live_order_once():
    world = World()
    ids = [world.order(BTC, Side.BUY, "0.001", "49000", state) for state in (OrderState.OPEN, OrderState.UNKNOWN, OrderState.PENDING)]
    world.order(BTC, Side.BUY, "0.001", "49000", OrderState.CANCELING)
    world.order(BTC, Side.BUY, "0.001", "49000", OrderState.CANCELED)
    assert cancel_all(world.ledger) == [Cancel(order_id, BTC) for order_id in ids]


def test_flatten_sells_slices_inside_the_collar():
    world = World()
    world.own(BTC, 0.18)
    world.own(ETH, 0.0604)
    sells = flatten(world.market, world.ledger, LIMITS, world.context())
    assert [(p.symbol, p.side, p.time_in_force, p.reduce_only) for p in sells] == [
        (BTC, Side.SELL, TimeInForce.IOC, True), (ETH, Side.SELL, TimeInForce.IOC, True),
    ]  # fmt: skip
    assert [p.price for p in sells] == [Decimal(49000), Decimal(2450)]
    assert sells[0].quantity == Decimal("0.0204"), "a tenth of the capital at the collar's edge"
    assert sells[1].quantity == world.ledger.position(ETH)
    assert len({p.order_id for p in sells}) == 2


def test_nothing_is_sold_into_our_own_bid():
    world = World()
    world.own(BTC, 0.1)
    bid = world.order(BTC, Side.BUY, "0.001", "49900")
    assert wind_down(world.market, world.ledger, LIMITS, world.context()) == [Cancel(bid, BTC)]
    lost = World()
    lost.own(BTC, 0.1)
    lost.order(BTC, Side.BUY, "0.001", "49900", OrderState.UNKNOWN)
    assert [type(c) for c in wind_down(lost.market, lost.ledger, LIMITS, lost.context())] == [Cancel, Place]


def test_winding_down_speaks_once_per_cooldown():
    world = World()
    world.own(BTC, 0.1)
    assert wind_down(world.market, world.ledger, LIMITS, world.context())
    assert not wind_down(world.market, world.ledger, LIMITS, world.context())
    world.later(1.5)
    assert wind_down(world.market, world.ledger, LIMITS, world.context())


def test_inventory_promised_to_a_sell_is_not_sold_twice():
    world = World()
    quantity = world.own(BTC, 0.1)
    world.order(BTC, Side.SELL, quantity, "51000", OrderState.CANCELING)
    assert flatten(world.market, world.ledger, LIMITS, world.context()) == []


def test_stale_data_is_no_reason_to_stay():
    world = World()
    world.own(BTC, 0.1)
    world.at += 3_600_000_000_000
    world.market.apply(FeedGap(Stamp(world.at), SOL, "book", "lost"))
    assert len(flatten(world.market, world.ledger, LIMITS, world.context())) == 1


def test_the_venues_own_price_serves_where_we_have_none():
    world = World()
    world.own(BTC, 0.05)
    blind = type(world.market)((ETH,))
    assert flatten(blind, world.ledger, LIMITS, world.context()) == []
    assert not is_flat(blind, world.ledger, LIMITS)
    (sell,) = flatten(blind, world.ledger, LIMITS, world.context(), {BTC: Decimal(40000)})
    assert sell.price == Decimal(39200)


def test_dust_is_flat():
    world = World()
    world.own(SOL, 0.0004)
    assert world.ledger.position(SOL) == Decimal("0.04") and is_flat(world.market, world.ledger, LIMITS)
    world.own(SOL, 0.0004)
    assert not is_flat(world.market, world.ledger, LIMITS)


def test_stops_stay_where_they_shall_and_only_those_that_rest_are_no_loose_end():
    world = World()
    world.own(BTC, 0.1)
    stop = Place(OrderId("q-test-1-9-0"), BTC, Side.SELL, Decimal("0.01"), None, reduce_only=True, trigger_price=Decimal(48000))
    world.record([stop])
    other = world.order(ETH, Side.BUY, "0.1", "2000")
    assert cancel_all(world.ledger, keep_stops=True) == [Cancel(other, ETH)]
    assert len(cancel_all(world.ledger)) == 2
    assert len(loose_ends(world.ledger, keep_stops=True)) == 2, "the exchange has not confirmed the stop"
    world.update(stop.order_id, OrderState.OPEN)
    assert [o.place.order_id for o in loose_ends(world.ledger, keep_stops=True)] == [other]
    assert len(loose_ends(world.ledger)) == 2


def test_flatten_can_be_kept_to_some_symbols():
    world = World()
    world.own(BTC, 0.05)
    world.own(ETH, 0.05)
    assert [p.symbol for p in flatten(world.market, world.ledger, LIMITS, world.context(), only={ETH})] == [ETH]
    assert flatten(world.market, world.ledger, LIMITS, world.context(), only=()) == []


def test_a_cancel_that_is_never_answered_is_asked_again_and_waited_for_no_longer():
    world = World()
    world.own(BTC, 0.1)
    bid = world.order(BTC, Side.BUY, "0.001", "49900")
    world.record(wind_down(world.market, world.ledger, LIMITS, world.context()))
    world.later(9)
    assert wind_down(world.market, world.ledger, LIMITS, world.context()) == []
    world.later(2)
    cancel, sell = wind_down(world.market, world.ledger, LIMITS, world.context())
    assert cancel == Cancel(bid, BTC) and sell.side is Side.SELL


def test_dust_is_named():
    world = World()
    world.own(SOL, 0.0004)
    world.own(BTC, 0.1)
    assert dust(world.market, world.ledger, LIMITS) == {SOL: Decimal("0.04")}
    assert dust(type(world.market)((ETH,)), world.ledger, LIMITS) == {}, "without a price nothing is called dust"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_every_account_is_wound_down_without_selling_what_is_not_ours(data):
    world = World(max_quantity=Decimal(data.draw(st.sampled_from(["0.3", "1000000"]))))
    for symbol in (BTC, ETH, SOL):
        if held := data.draw(st.sampled_from([0, 0.0006, 0.05, 0.19, 0.9])):
            world.own(symbol, held)
        for side in data.draw(st.lists(st.sampled_from(list(Side)), max_size=3)):
            spec = world.ledger.instruments[symbol]
            quantity = spec.round_quantity(min(world.ledger.position(symbol), 20 / world.mark(symbol))) or spec.lot
            if side is Side.BUY or quantity <= world.ledger.position(symbol) - world.ledger.working(symbol)[1]:
                world.order(symbol, side, quantity, world.mark(symbol), data.draw(st.sampled_from([OrderState.OPEN, OrderState.PENDING])))
    assert sell_out(world, 400) is not None
    assert all(world.ledger.position(s) >= 0 for s in (BTC, ETH, SOL))

