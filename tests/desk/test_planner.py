"""What is sent, what is not and why; and the laws that hold whatever stands in the books."""

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.core.events import Bar, BookSnapshot, Stamp
from agents.core.instruments import NS, Side, Symbol
from agents.core.orders import Amend, Cancel, OrderState, Place, TimeInForce
from agents.desk.gate import is_quote
from agents.desk.limits import Limits
from agents.desk.planner import WAIT_NS
from agents.desk.wishes import Style
from tests.desk.world import BTC, ETH, SOL, World

FREE = Limits(turnover_cost_bps=0.0, max_order_notional=1.0)
PATIENT, NORMAL, URGENT = Style(0.2, 1.0, 0.05), Style(0.6, 0.0, 0.05), Style(0.9, 0.0, 0.05)
QUOTE = (0.001, 0.001, 0.02, 0.02)


def placed(planned, quotes=False):
    return [c for c in planned.commands if isinstance(c, Place) and is_quote(c) is quotes]


def cancelled(planned):
    return [c.order_id for c in planned.commands if isinstance(c, Cancel)]


def reasons(planned):
    return [r.reason for r in planned.refusals]


# -- directional orders ------------------------------------------------------------------------------------------------


def test_a_gap_becomes_one_order_for_the_missing_quantity():
    world = World(limits=FREE)
    (order,) = placed(world.plan(world.target({BTC: 0.1}, style=NORMAL)))
    assert (order.symbol, order.side, order.price, order.quantity) == (BTC, Side.BUY, Decimal(50000), Decimal("0.02"))
    assert order.order_id == "q-test-1-1-0" and order.shares == (("long_term", 0.02), ("house", 0.0)) and not order.reduce_only


@pytest.mark.parametrize(
    ("style", "price", "time_in_force", "post_only"),
    [
        (PATIENT, "49995.00", TimeInForce.GTC, True),
        (NORMAL, "50000.00", TimeInForce.GTC, False),
        (URGENT, "50105.01", TimeInForce.IOC, False),
        (Style(0.2, -2.0, 0.05), "50004.99", TimeInForce.GTC, True),
        (Style(0.6, -1.0, 0.05), "50005.00", TimeInForce.GTC, False),
        (Style(0.6, 2.0, 0.05), "49990.00", TimeInForce.GTC, False),
    ],
)
def test_urgency_and_offset_choose_price_and_kind(style, price, time_in_force, post_only):
    world = World(limits=FREE)
    (order,) = placed(world.plan(world.target({BTC: 0.1}, style=style)))
    assert (order.price, order.time_in_force, order.post_only) == (Decimal(price), time_in_force, post_only)


def test_a_sale_mirrors_a_purchase():
    world = World(limits=FREE)
    world.own(BTC, 0.1)
    (order,) = placed(world.plan(world.target({BTC: 0.0}, style=URGENT)))
    assert (order.side, order.quantity, order.time_in_force) == (Side.SELL, Decimal("0.02"), TimeInForce.IOC)
    assert order.price == Decimal("49895.01"), "20 bps through the bid, rounded outward"


def test_the_price_never_leaves_the_collar():
    world = World(limits=replace(FREE, price_collar=0.0005))
    (order,) = placed(world.plan(world.target({BTC: 0.1}, style=URGENT)))
    assert order.price == Decimal(50025)


@pytest.mark.parametrize("state", [OrderState.PENDING, OrderState.OPEN, OrderState.PARTIAL, OrderState.UNKNOWN, OrderState.CANCELING])
def test_what_is_on_its_way_is_not_asked_for_again(state):
    world = World(limits=FREE)
    order_id = world.order(BTC, Side.BUY, "0.02", "50000", OrderState.OPEN)
    if state is OrderState.PENDING:
        world.ledger.orders[order_id].state = state
    else:
        world.update(order_id, state)
    assert world.plan(world.target({BTC: 0.1}, style=NORMAL)).commands == ()


def test_only_the_rest_is_ordered():
    world = World(limits=FREE)
    world.own(BTC, 0.02)
    world.order(BTC, Side.BUY, "0.005", "50000")
    (order,) = placed(world.plan(world.target({BTC: 0.1}, style=NORMAL)))
    assert order.quantity == Decimal("0.011")


def test_the_other_direction_is_cancelled_first_and_counted_until_confirmed():
    world = World(limits=FREE)
    world.own(BTC, 0.1)
    selling = world.order(BTC, Side.SELL, "0.01", "50010")
    first = world.step(world.target({BTC: 0.15}, style=NORMAL))
    assert cancelled(first) == [selling] and [p.side for p in placed(first)] == [Side.BUY]
    assert first.commands[0] == Cancel(selling, BTC), "cancels are sent first"


def test_too_much_on_its_way_is_cancelled_and_the_rest_placed_after_the_confirmation():
    world = World(limits=FREE)
    order_id = world.order(BTC, Side.BUY, "0.02", "50000")
    target = world.target({BTC: 0.05}, style=NORMAL)
    first = world.step(target)
    assert cancelled(first) == [order_id] and not placed(first)
    world.later(2)
    assert world.step(target).commands == (), "not confirmed: it may still fill"
    world.answer(first.commands)
    (order,) = placed(world.step(target))
    assert order.quantity == Decimal("0.01")


def test_a_stale_price_is_replaced_and_a_near_one_left_in_the_queue():
    world = World(limits=FREE)
    near = world.order(BTC, Side.BUY, "0.02", "49980")
    target = world.target({BTC: 0.1}, style=NORMAL)
    assert world.plan(target).commands == ()
    world.book(BTC, "50200")
    assert cancelled(world.plan(target)) == [near]


def test_a_limit_order_that_nobody_takes_is_finished_by_taking_and_a_patient_one_waits_on():
    world = World(limits=FREE)
    target = world.target({BTC: 0.1}, style=NORMAL)
    (waiting,) = placed(world.step(target))
    world.answer([waiting])
    world.later(WAIT_NS / NS - 1)
    assert world.plan(target).commands == ()
    world.later(1)
    told = world.step(target)
    assert cancelled(told) == [waiting.order_id] and not placed(told)
    world.answer(told.commands)
    world.later(2)
    (taking,) = placed(world.step(target))
    assert taking.time_in_force is TimeInForce.IOC
    world.answer([taking])
    world.later(2)
    (again,) = placed(world.plan(target))
    assert again.time_in_force is TimeInForce.GTC, "hurry ends with the order that was hurried"
    patient = World(limits=FREE)
    patient.order(BTC, Side.BUY, "0.02", "49995.00", post_only=True)
    patient.later(10 * WAIT_NS / NS)
    assert patient.plan(patient.target({BTC: 0.1}, style=PATIENT)).commands == ()


def test_a_just_placed_order_that_died_is_not_placed_again_at_once():
    world = World(limits=FREE)
    target = world.target({BTC: 0.1}, style=URGENT)
    first = world.step(target)
    world.answer(first.commands)
    world.later(0.2)
    assert world.step(target).commands == ()
    world.later(1.0)
    assert len(placed(world.step(target))) == 1


def test_dust_is_refused_by_name():
    world = World(limits=FREE)
    world.own(BTC, 0.1)
    assert reasons(world.plan(world.target({BTC: 0.1003}, style=NORMAL))) == ["below_min_notional"]
    assert world.plan(world.target({BTC: 0.1}, style=NORMAL)).refusals == ()


def test_no_tail_is_left_that_could_not_be_sold():
    world = World(limits=replace(FREE, max_order_notional=0.05))
    quantity = world.own(BTC, 0.0503)
    (order,) = placed(world.plan(world.target({BTC: 0.0}, style=NORMAL)))
    assert order.quantity == quantity
    world.later(2)
    (order,) = placed(world.plan(world.target({BTC: 0.0004}, style=NORMAL)))
    assert order.quantity == quantity, "four dollars could not be traded away later"


def test_displayed_depth_limits_a_slice():
    world = World(limits=FREE)
    world.book(BTC, depth="400")
    (order,) = placed(world.plan(world.target({BTC: 0.1}, style=URGENT)))
    assert order.quantity == Decimal("0.01"), "a quarter of five levels of 400"


def minutes(world, symbol, volume, count=5):
    start = world.at // (60 * NS) * 60 * NS
    mark = world.mark(symbol)
    for back in range(count, 0, -1):
        world.apply(Bar(Stamp(world.at), symbol, start - back * 60 * NS, "1m", mark, mark, mark, mark, Decimal(volume)))


def test_participation_bounds_what_is_traded_in_a_minute():
    world = World(limits=FREE)
    minutes(world, BTC, "0.1")
    target = world.target({BTC: 0.1}, style=URGENT)
    (order,) = placed(world.step(target))
    assert order.quantity == Decimal("0.005"), "5 % of 0.1"
    world.fill(order.order_id)
    world.later(5)
    assert reasons(world.step(target)) == ["participation"]
    world.at += 60 * NS
    world.book(BTC)
    assert [o.quantity for o in placed(world.step(target))] == [Decimal("0.005")]


def test_a_market_without_volume_gets_one_smallest_order_a_minute():
    world = World(limits=FREE)
    minutes(world, BTC, "0.00001")
    target = world.target({BTC: 0.1}, style=URGENT)
    (order,) = placed(world.step(target))
    assert order.quantity == Decimal("0.0001")
    world.fill(order.order_id)
    world.later(5)
    assert reasons(world.step(target)) == ["participation"]


def test_what_must_be_sold_does_not_wait_for_volume():
    world = World(limits=FREE)
    quantity = world.own(BTC, 0.1)
    minutes(world, BTC, "0.001")
    world.state.halted = True
    assert [o.quantity for o in placed(world.plan(world.target({BTC: 0.0}, style=URGENT)))] == [quantity]


def test_the_largest_order_is_a_share_of_equity():
    world = World(limits=replace(FREE, max_order_notional=0.05))
    (order,) = placed(world.plan(world.target({BTC: 0.2}, style=NORMAL)))
    assert order.quantity == Decimal("0.01")


def test_symbols_that_left_the_target_are_cancelled_and_kept():
    world = World(limits=FREE)
    world.own(SOL, 0.1)
    buy, sell = world.order(SOL, Side.BUY, "1", "100"), world.order(SOL, Side.SELL, "1", "101")
    planned = world.plan(world.target({BTC: 0.0}))
    assert set(cancelled(planned)) == {buy, sell} and not placed(planned)


@pytest.mark.parametrize("why", ["halted", "stale", "drawdown"])
def test_no_new_risk_cancels_buys_and_lets_sales_go_on(why):
    world = World(limits=FREE)
    world.own(BTC, 0.1)
    buy = world.order(ETH, Side.BUY, "0.1", "2500")
    bid = world.quote_order(ETH, Side.BUY, "0.1", "2490")
    if why == "stale":
        world.at += 60_000_000_000
        world.market.at = world.at
    elif why == "drawdown":
        world.state.peak_equity, world.state.capital = 11500.0, 10000.0
    world.state.halted = why == "halted"
    planned = world.plan(world.target({BTC: 0.05, ETH: 0.2}, {ETH: QUOTE}, NORMAL))
    assert set(cancelled(planned)) == {buy, bid}
    (order,) = placed(planned)
    assert (order.symbol, order.side, order.reduce_only) == (BTC, Side.SELL, True) and not placed(planned, quotes=True)


def test_a_book_that_stands_above_its_limits_withdraws_its_buys():
    world = World(limits=FREE)
    world.own(BTC, 0.18)
    bid = world.quote_order(BTC, Side.BUY, "0.0044", "49950")
    wanted = world.target({BTC: 0.18}, {BTC: (0.001, 0.001, 0.022, 0.0)})
    assert cancelled(world.plan(wanted)) == [bid], "0.202 of equity, were it filled"


def test_sales_are_sent_before_purchases():
    world = World(limits=FREE)
    world.own(SOL, 0.1)
    orders = placed(world.plan(world.target({BTC: 0.1, SOL: 0.0, ETH: 0.1}, style=NORMAL)))
    assert [o.symbol for o in orders] == [SOL, BTC, ETH]


def test_an_account_just_large_enough_can_trade():
    world = World(capital="26", limits=Limits(turnover_cost_bps=0.0))
    (order,) = placed(world.plan(world.target({SOL: 0.2}, style=NORMAL)))
    assert order.price * order.quantity >= 5


def test_numpy_numbers_are_numbers():
    world = World(limits=FREE)
    style = Style(*(np.float64(x) for x in (0.6, 0.0, 0.05)))
    quotes = tuple(np.float32(x) for x in QUOTE)
    assert len(world.plan(world.target({BTC: np.float64(0.1)}, {BTC: quotes}, style)).commands) == 2


# -- quotes ------------------------------------------------------------------------------------------------------------


def test_a_quote_is_two_post_only_orders_rounded_outward():
    world = World(limits=FREE)
    world.own(BTC, 0.05)
    bid, ask = placed(world.plan(world.target({BTC: 0.05}, {BTC: (0.00100013, 0.00100013, 0.02, 0.02)})), quotes=True)
    assert (bid.side, bid.price, bid.quantity) == (Side.BUY, Decimal("49949.99"), Decimal("0.004"))
    assert (ask.side, ask.price, ask.quantity) == (Side.SELL, Decimal("50050.01"), Decimal("0.00399"))
    assert bid.post_only and ask.post_only and bid.shares == (("market_making", 0.004),)


def test_without_inventory_there_is_no_ask():
    world = World(limits=FREE)
    (bid,) = placed(world.plan(world.target({BTC: 0.0}, {BTC: QUOTE})), quotes=True)
    assert bid.side is Side.BUY


def test_a_quote_never_crosses_the_market():
    world = World(limits=FREE)
    (bid,) = placed(world.plan(world.target({BTC: 0.0}, {BTC: (-0.5, 0.001, 0.02, 0.02)})), quotes=True)
    assert bid.price == Decimal("50004.99")


def test_quotes_stay_until_a_change_is_worth_it():
    world = World(limits=FREE)
    target = world.target({BTC: 0.0}, {BTC: QUOTE})
    first = world.step(target)
    world.answer(first.commands)
    world.later()
    assert world.step(target).commands == ()
    world.book(BTC, "50004")
    assert world.step(target).commands == (), "under a basis point"
    world.book(BTC, "50020")
    assert cancelled(world.step(target)) == [placed(first, quotes=True)[0].order_id]
    resized = World(limits=FREE)
    resized.quote_order(BTC, Side.BUY, "0.004", "49950")
    assert resized.plan(resized.target({BTC: 0.0}, {BTC: (0.001, 0.001, 0.023, 0.02)})).commands == ()
    assert len(cancelled(resized.plan(resized.target({BTC: 0.0}, {BTC: (0.001, 0.001, 0.03, 0.02)})))) == 1


def test_requote_without_amend_waits_for_the_confirmation():
    world = World(limits=FREE)
    old = world.quote_order(BTC, Side.BUY, "0.004", "49000")
    target = world.target({BTC: 0.0}, {BTC: QUOTE})
    first = world.step(target)
    assert first.commands == (Cancel(old, BTC),)
    world.later()
    assert world.step(target).commands == ()
    world.answer(first.commands)
    (bid,) = placed(world.step(target), quotes=True)
    assert bid.price == Decimal(49950)


def test_requote_with_amend_is_one_request():
    world = World(limits=FREE, amend=True)
    old = world.quote_order(BTC, Side.BUY, "0.004", "49000")
    (amend,) = world.step(world.target({BTC: 0.0}, {BTC: QUOTE})).commands
    assert isinstance(amend, Amend)
    assert (amend.order_id, amend.price, amend.quantity, amend.side) == (old, Decimal(49950), Decimal("0.004"), Side.BUY)


def test_a_bid_that_could_stand_twice_is_not_amended():
    world = World(limits=FREE, amend=True)
    old = world.quote_order(BTC, Side.BUY, "0.03", "49000")
    wanted = world.target({BTC: 0.0}, {BTC: (0.001, 0.001, 0.15, 0.0)})
    assert world.plan(wanted).commands == (Cancel(old, BTC),), "0.15 and 0.15 is more than the cap"


def test_an_amended_ask_may_use_the_inventory_of_the_old_one():
    world = World(limits=FREE, amend=True)
    quantity = world.own(BTC, 0.02)
    world.quote_order(BTC, Side.SELL, quantity, "51000")
    amends = [c for c in world.plan(world.target({BTC: 0.02}, {BTC: QUOTE})).commands if isinstance(c, Amend)]
    assert [a.quantity for a in amends] == [Decimal("0.00399")]


def test_requotes_are_throttled_and_pulling_is_not():
    world = World(limits=FREE, amend=True)
    target = world.target({BTC: 0.0}, {BTC: QUOTE})
    world.answer(world.step(target).commands)
    world.later(0.3)
    world.book(BTC, "50100")
    assert world.step(target).commands == ()
    world.later(0.3)
    assert len(world.step(target).commands) == 1
    world.later(0.1)
    pulled = world.step(world.target({BTC: 0.0}))
    assert len(cancelled(pulled)) == 0, "not yet open"


def test_a_second_quote_on_one_side_is_surplus():
    world = World(limits=FREE)
    world.quote_order(BTC, Side.BUY, "0.004", "49950")
    second = world.quote_order(BTC, Side.BUY, "0.004", "49950")
    assert world.plan(world.target({BTC: 0.0}, {BTC: QUOTE})).commands == (Cancel(second, BTC),)


def test_our_own_quote_is_not_the_market_we_follow():
    world = World(limits=FREE)
    world.quote_order(BTC, Side.BUY, "0.004", "49994")
    book = world.market.book(BTC)
    world.book(BTC)
    assert world.market.book(BTC).bid == Decimal(49995)
    own = ((Decimal("49999"), Decimal("0.004")), *book.bids)
    mine = world.quote_order(ETH, Side.BUY, "1", "2499")
    assert mine
    world.apply(BookSnapshot(Stamp(world.at), BTC, world.at, own, book.asks))
    world.update("q-old-1-1-0", OrderState.CANCELED)
    world.quote_order(BTC, Side.BUY, "0.004", "49999")
    planned = world.plan(world.target({BTC: 0.1, ETH: 0.0}, style=Style(0.2, 1.0, 0.05)))
    assert placed(planned)[0].price == Decimal(49995)


# -- conflicts ---------------------------------------------------------------------------------------------------------


def test_an_order_never_trades_with_our_own_quote():
    world = World(limits=FREE)
    world.own(BTC, 0.05)
    ask = world.quote_order(BTC, Side.SELL, "0.004", "50005")
    target = world.target({BTC: 0.15}, {BTC: (0.001, 0.0001, 0.0, 0.02)}, URGENT)
    first = world.step(target)
    assert cancelled(first) == [ask] and not placed(first) and reasons(first) == ["self_trade"]
    world.answer(first.commands)
    (order,) = placed(world.step(target))
    assert order.side is Side.BUY and order.time_in_force is TimeInForce.IOC


def test_message_rate_and_order_count_are_bounded():
    symbols = tuple(Symbol(f"C{i}/USDT") for i in range(8))
    world = World(symbols=symbols, limits=replace(FREE, max_orders_per_second=3))
    target = world.target(dict.fromkeys(symbols, 0.1), style=NORMAL)
    first = world.step(target)
    assert len(placed(first)) == 3 and reasons(first) == ["message_rate"] * 5
    world.later(0.5)
    assert len(placed(world.step(target))) == 0
    world.later(0.6)
    assert len(placed(world.step(target))) == 3
    crowded = World(symbols=symbols, limits=replace(FREE, max_order_count=2))
    assert len(placed(crowded.plan(crowded.target(dict.fromkeys(symbols, 0.1), style=NORMAL)))) == 2


def test_cash_in_hand_pays_for_fees_too():
    symbols = tuple(Symbol(f"C{i}/USDT") for i in range(5))
    world = World(symbols=symbols, limits=replace(FREE, cash_buffer=0.0))
    orders = placed(world.plan(world.target(dict.fromkeys(symbols, 0.2), style=NORMAL)))
    spent = sum(o.price * o.quantity * Decimal("1.001") for o in orders)
    assert Decimal(9980) < spent <= Decimal(10000)


# -- laws --------------------------------------------------------------------------------------------------------------

STATES = [OrderState.PENDING, OrderState.OPEN, OrderState.PARTIAL, OrderState.UNKNOWN, OrderState.CANCELING]


@st.composite
def worlds(draw):
    """An account in any legal state: holdings, standing orders and quotes of every kind, thin or thick books."""
    world = World(limits=draw(st.sampled_from([Limits(), FREE, Limits(cash_buffer=0.1)])), amend=draw(st.booleans()))
    for symbol in (BTC, ETH, SOL):
        spec = world.ledger.instruments[symbol]
        mid = world.mark(symbol)
        if held := draw(st.sampled_from([0, 0.0003, 0.05, 0.19, 0.3])):
            world.own(symbol, held, mid)
        world.book(symbol, mid * draw(st.sampled_from([1, Decimal("0.9"), Decimal("1.1")])), depth=draw(st.sampled_from(["100", "1000000"])))
        free = world.ledger.position(symbol)
        for _ in range(draw(st.integers(0, 3))):
            side = draw(st.sampled_from(list(Side)))
            quantity = spec.round_quantity(draw(st.sampled_from([Decimal(20), Decimal(400)])) / mid)
            if side is Side.SELL:
                quantity = min(quantity, spec.round_quantity(free))
                free -= quantity
            price = spec.round_price(mid * (1 - side.value * Decimal(draw(st.sampled_from(["0", "0.001", "0.02"])))))
            if quantity <= 0:
                continue
            order_id = (world.quote_order if draw(st.booleans()) else world.order)(symbol, side, quantity, price)
            state = draw(st.sampled_from(STATES))
            world.ledger.orders[order_id].state = state
    world.state.halted = draw(st.booleans()) and draw(st.booleans())
    number = st.one_of(st.floats(-0.1, 0.4), st.just(float("nan")))
    weights = {s: draw(number) for s in (BTC, ETH, SOL)}
    offset = st.sampled_from([-0.01, 0.0, 0.0002, 0.001])
    quotes = {s: (draw(offset), draw(offset), draw(st.floats(0, 0.1)), draw(st.floats(0, 0.1))) for s in weights if draw(st.booleans())}
    style = draw(st.builds(Style, st.floats(0, 1), st.floats(-2, 2), st.just(0.05)))
    return world, world.target(weights, quotes, style, draw(st.sampled_from([1.0, 0.3])))


def exposures(world):
    """symbol -> quote value if every buy that may fill does and no sell does."""
    result = {}
    for symbol in world.market.symbols:
        mark = world.mark(symbol)
        value = world.ledger.position(symbol) * mark
        for order in world.ledger.live_orders(symbol):
            if order.place.side is Side.BUY:
                value += order.remaining * max(order.place.price, mark)
        result[symbol] = value
    return result


def selling(world, symbol, planned):
    """Base quantity on sale; an amended order is gone when its successor stands."""
    replaced = {c.order_id for c in planned.commands if isinstance(c, Amend)}
    orders = world.ledger.live_orders(symbol)
    return sum(o.remaining for o in orders if o.place.side is Side.SELL and o.place.order_id not in replaced)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds())
def test_whatever_fills_the_account_stays_inside_its_limits(drawn):
    world, target = drawn
    before, equity = exposures(world), world.equity()
    safe = world.project(target)
    owned = {s: world.ledger.position(s) for s in world.market.symbols}
    sold = {s: world.ledger.working(s)[1] for s in owned}
    planned = world.step(target)
    after = exposures(world)
    for symbol, value in after.items():
        assert value <= max(Decimal("0.2") * equity, before[symbol])
        if symbol in safe.no_new_risk or world.state.halted:
            assert value <= before[symbol], "I4"
        assert selling(world, symbol, planned) <= max(owned[symbol], sold[symbol])
    total = max(Decimal(repr(safe.total)) * equity, sum(before.values()))
    assert sum(after.values()) <= total * (1 + Decimal("1e-12")), "I5"
    buys = [c for c in planned.commands if isinstance(c, Place | Amend) and c.side is Side.BUY]
    if buys:
        spendable = world.ledger.cash() - Decimal(repr(world.limits.cash_buffer)) * equity
        live = [o for o in world.ledger.live_orders() if o.place.side is Side.BUY]
        assert sum(o.remaining * o.place.price for o in live) * Decimal("1.001") <= spendable * (1 + Decimal("1e-12"))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds())
def test_every_order_is_one_that_the_exchange_takes(drawn):
    world, target = drawn
    planned = world.plan(target)
    ids = [c.order_id for c in planned.commands if isinstance(c, Place)] + [c.new_order_id for c in planned.commands if isinstance(c, Amend)]
    assert len(ids) == len(set(ids)) and not set(ids) & set(world.ledger.orders)
    for command in planned.commands:
        if isinstance(command, Cancel):
            assert world.ledger.orders[command.order_id].state in (OrderState.OPEN, OrderState.PARTIAL)
            continue
        spec, mark = world.ledger.instruments[command.symbol], world.mark(command.symbol)
        assert spec.problem(command.price, command.quantity) is None
        assert command.price <= mark * Decimal("1.02") or command.side is Side.SELL
        assert command.price >= mark * Decimal("0.98") or command.side is Side.BUY
        for order in world.ledger.live_orders(command.symbol):
            if order.place.side is not command.side and order.place.order_id != command.order_id:
                assert (command.price - order.place.price) * command.side.value < 0, "would trade with ourselves"
    news = [c for c in planned.commands if not isinstance(c, Cancel)]
    for one in news:
        for other in news:
            if one.symbol == other.symbol and one.side is Side.BUY and other.side is Side.SELL:
                assert one.price < other.price


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds())
def test_a_standing_target_is_reached_and_then_left_alone(drawn):
    """Unanswered orders die, new ones fill at once: soon nothing directional is left to do, and nothing oscillates."""
    world, target = drawn
    world.state.halted = False
    target = replace(target, quotes={})
    for _ in range(12):
        world.later(1.5)
        world.answer([c for c in world.step(target).commands if isinstance(c, Cancel)])
        for order in world.ledger.live_orders():
            if order.state is OrderState.PENDING and order.place.order_id.startswith("q-test"):
                world.fill(order.place.order_id)
            elif order.state in (OrderState.PENDING, OrderState.UNKNOWN, OrderState.CANCELING):
                world.update(order.place.order_id, OrderState.CANCELED)
        for symbol in world.market.symbols:
            world.book(symbol, world.mark(symbol))
    world.later(1.5)
    assert not placed(world.plan(target))
    safe = world.project(target)
    for symbol, weight in safe.weights.items():
        buying, selling_ = world.ledger.working(symbol)
        coming = world.ledger.position(symbol) + buying - selling_
        assert float(coming * world.mark(symbol) / world.equity()) == pytest.approx(weight, abs=1.5e-3)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds())
def test_the_same_state_gives_the_same_plan(drawn):
    world, target = drawn
    first = world.plan(target)
    world.decision, world.memory.quoted, world.memory.worked = 0, {}, {}
    world.memory.sent.clear()
    second = world.plan(target)
    assert list(first.commands) == list(second.commands) and first.refusals == second.refusals


def test_where_messages_are_short_quotes_take_turns_and_none_is_given_up_in_vain():
    world = World(limits=Limits(turnover_cost_bps=0.0, max_orders_per_second=2.0))
    quotes = dict.fromkeys((BTC, ETH, SOL), (0.001, 0.001, 0.01, 0.0))
    target = world.target(dict.fromkeys(quotes, 0.0), quotes)
    first = world.step(target)
    assert [p.symbol for p in placed(first, quotes=True)] == [BTC, ETH]
    world.answer(first.commands)
    world.later(1.1)
    second = world.step(target)
    assert [p.symbol for p in placed(second, quotes=True)] == [SOL]
    world.answer(second.commands)
    for symbol in quotes:
        world.book(symbol, world.mark(symbol) * Decimal("1.01"))
    world.memory.sent.extend([world.at] * 2)
    world.later(0.6)
    assert cancelled(world.plan(target)) == [], "no budget for the new quote: the old one stays"
    world.later(1.0)
    assert len(cancelled(world.plan(target))) == 3
