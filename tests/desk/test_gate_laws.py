"""Whatever an order says: the gate answers, and what passes keeps every law at once."""

from dataclasses import replace
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.instruments import Side, Symbol
from agents.core.orders import OrderId, OrderState, Place
from agents.desk.gate import Allowance, Standing, buyers, expected_fee, free_inventory, gate, is_stop, largest_notional, promise
from agents.desk.limits import Limits
from tests.desk.world import BTC, ETH, World

D = Decimal
LIMITS = Limits(max_order_notional=0.2, max_order_count=5)
MARK, TICK, LOT = D(50000), D("0.01"), D("0.00001")


def world():
    """Half a coin's worth is owned, a sell and a buy stand in the book, and a stop sleeps."""
    made = World()
    made.own(BTC, 0.4)
    made.order(BTC, Side.SELL, "0.01", "50100")
    made.order(BTC, Side.BUY, "0.01", "49900", OrderState.UNKNOWN)
    stop = Place(OrderId("q-x-1-1-8"), BTC, Side.SELL, D("0.01"), None, reduce_only=True, trigger_price=D(45000))
    made.record([stop])
    return made


WORLD = world()
odd = st.sampled_from([D("NaN"), D("sNaN"), D("Infinity"), D("-Infinity"), D(0), D(-1), D("1e400"), D("1e-400"), D("123456789012345678901234567890.01")])
prices = st.one_of(odd, st.integers(4_000_000, 6_000_000).map(lambda cents: cents * TICK), st.decimals("0.000001", "1000000", places=6))
quantities = st.one_of(odd, st.integers(1, 20_000).map(lambda lots: lots * LOT), st.decimals("0.0000001", "10", places=7))
shares = st.lists(st.tuples(st.sampled_from(["long_term", "short_term", "market_making", "house"]), st.floats(-5, 5)), max_size=3).map(tuple)
wild = st.builds(
    lambda symbol, side, quantity, price, post, reduce, trigger, who: Place(
        OrderId("q-x-1-2-0"), symbol, side, quantity, price, post_only=post, reduce_only=reduce, trigger_price=trigger, shares=who
    ),
    st.sampled_from([BTC, BTC, BTC, ETH, Symbol("XRP/USDT")]), st.sampled_from(Side), quantities, st.none() | prices, st.booleans(),
    st.booleans(), st.none() | prices, shares,
)  # fmt: skip
sane = st.builds(
    lambda side, lots, cents, post, reduce, who: Place(
        OrderId("q-x-1-2-0"), BTC, side, lots * LOT, cents * TICK, post_only=post, reduce_only=reduce, shares=who
    ),
    st.sampled_from(Side), st.integers(1, 5_000), st.integers(4_890_000, 5_110_000), st.booleans(), st.booleans(), shares,
)  # fmt: skip
buys = st.builds(
    lambda lots, cents, post, who: Place(OrderId("q-x-1-2-0"), BTC, Side.BUY, lots * LOT, cents * TICK, post_only=post, shares=who),
    st.integers(500, 3_500), st.integers(4_900_000, 5_010_500), st.booleans(),
    st.lists(st.tuples(st.sampled_from(["long_term", "short_term", "market_making"]), st.floats(-1, 5)), min_size=1, max_size=3).map(tuple),
)  # fmt: skip
stops = st.builds(
    lambda lots, cents, limit: Place(
        OrderId("q-x-1-2-0"), BTC, Side.SELL, lots * LOT, limit, reduce_only=True, trigger_price=cents * TICK
    ),
    st.integers(1, 5_000), st.integers(4_000_000, 5_100_000), st.none() | prices,
)  # fmt: skip
orders = st.one_of(wild, sane, buys, buys, stops)
amounts = st.none() | st.decimals("-10", "3000", places=2)
allowances = st.dictionaries(st.sampled_from(["long_term", "short_term", "market_making"]), st.builds(Allowance, amounts, amounts), max_size=3)
standings = st.builds(
    Standing, st.sampled_from([*[D(10000)] * 6, D(10), D("NaN")]), st.sampled_from([*[False] * 4, True]), st.integers(0, 6), st.integers(0, 5),
    st.just([]), allowances,
)  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(orders, standings)
def test_what_passes_keeps_every_law(place, standing):
    refusal = gate(place, WORLD.market, WORLD.ledger, LIMITS, standing)
    if refusal is not None:
        assert refusal.reason and (refusal.symbol, refusal.side) == (place.symbol, place.side)
        return
    instrument = WORLD.ledger.instruments[place.symbol]
    free = free_inventory(place.symbol, WORLD.ledger, standing.placed)
    if place.side is Side.SELL:
        assert place.quantity <= free
    if is_stop(place):
        assert place.side is Side.SELL and place.reduce_only and place.trigger_price < WORLD.mark(place.symbol)
        return
    mark, notional = WORLD.mark(place.symbol), place.price * place.quantity
    assert place.price % instrument.tick == 0 and place.quantity % instrument.lot == 0 and notional >= instrument.min_notional
    assert place.side is Side.SELL or place.price <= mark * D("1.02")
    assert place.side is Side.BUY or place.price >= mark * D("0.98")
    others = [o.place for o in WORLD.ledger.live_orders(place.symbol) if o.place.side is not place.side and not is_stop(o.place)]
    assert all((place.price - other.price) * place.side.value < 0 for other in others)
    if place.side is Side.SELL and place.reduce_only:
        return
    assert not place.reduce_only and not standing.halted and standing.open_count < LIMITS.max_order_count and standing.rate_left > 0
    if place.side is Side.BUY:
        assert notional <= largest_notional(instrument, mark, LIMITS, standing.equity)
        for agent, part in buyers(place).items():
            left = standing.allowances.get(agent, Allowance())
            assert left.turnover is None or notional * part <= left.turnover
            assert left.fees is None or notional * part * expected_fee(place, instrument) <= left.fees


@settings(max_examples=100, deadline=None)
@given(st.integers(100, 39_000), st.integers(4_900_000, 6_000_000), standings.filter(lambda s: s.equity.is_finite()))
def test_a_sale_that_is_marked_as_reducing_always_passes(lots, cents, standing):
    place = Place(OrderId("q-x-1-2-0"), BTC, Side.SELL, lots * LOT, cents * TICK, reduce_only=True, shares=(("short_term", -1.0),))
    refusal = gate(place, WORLD.market, WORLD.ledger, LIMITS, standing)
    assert refusal is None or refusal.reason in ("exceeds_inventory", "self_trade")
    assert (refusal is None) == (place.quantity <= free_inventory(BTC, WORLD.ledger, ()) and place.price > D(49900))


def budgeted(quantity="0.01", left=None, fees=None, shares=(("long_term", 3.0), ("short_term", 1.0)), replaces=None, **changes):
    place = Place(OrderId("q-x-1-2-0"), ETH, Side.BUY, D(quantity), D(2500), shares=shares, **changes)
    allowed = {"short_term": Allowance(None if left is None else D(left), None if fees is None else D(fees))}
    return gate(place, WORLD.market, WORLD.ledger, LIMITS, Standing(D(10000), allowances=allowed), replaces)


def test_a_buy_spends_the_budgets_of_those_who_want_it_in_their_parts():
    assert budgeted(left="6.25") is None  # a quarter of 25
    refusal = budgeted(left="6.24")
    assert refusal.reason == "agent_budget" and "short_term would buy 6.2500, left today: 6.24 of turnover, any of fees" in refusal.detail
    assert budgeted(fees="0.00625") is None and budgeted(fees="0.00624").reason == "agent_budget"  # 10 bps
    assert budgeted(left="0", shares=(("long_term", 1.0), ("short_term", -1.0))) is None
    assert budgeted(left="0", shares=()) is None


def test_an_amendment_gives_back_what_the_old_order_had_promised():
    made = World()
    old = made.ledger.orders[made.order(ETH, Side.BUY, "0.008", "2500", shares=(("short_term", 1.0),))]
    assert promise(old, made.ledger.instruments[ETH]) == {"short_term": (D(20), D("0.02"))}
    only = (("short_term", 1.0),)
    assert budgeted(left="5", shares=only).reason == "agent_budget"
    assert budgeted(left="5", shares=only, replaces=old) is None
    assert budgeted(left="4.99", shares=only, replaces=old).reason == "agent_budget"


def test_a_maker_is_expected_to_pay_the_makers_fee_and_no_rebate_is_counted_on():
    instrument = replace(WORLD.ledger.instruments[ETH], maker_fee=D("-0.0001"))
    place = Place(OrderId("q-x-1-2-0"), ETH, Side.BUY, D(1), D(2500))
    assert (expected_fee(place, instrument), expected_fee(replace(place, post_only=True), instrument)) == (D("0.001"), D(0))


def test_while_halted_only_what_is_marked_as_reducing_passes():
    sale = Place(OrderId("q-x-1-2-0"), BTC, Side.SELL, D("0.01"), D(50000))
    verdicts = [gate(p, WORLD.market, WORLD.ledger, LIMITS, Standing(D(10000), halted=True)) for p in (sale, replace(sale, reduce_only=True))]
    assert verdicts[0] is not None and verdicts[0].reason == "halted" and verdicts[1] is None
