"""Sub-accounts add up to the account, whatever happens; costs go to those who caused them."""

from dataclasses import replace
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.events import UNSTAMPED, Adjustment, AdjustmentKind, Fill, Listing
from agents.core.instruments import Currency, Instrument, Side, Symbol
from agents.core.ledger import Ledger
from agents.core.orders import OrderId
from agents.desk.attribution import HOUSE, REMEMBERED, Attribution, check_sums, euler, volatility
from agents.desk.wishes import ORDER

USDT, BTC, ETH, BNB = Currency("USDT"), Symbol("BTC/USDT"), Symbol("ETH/USDT"), Symbol("BNB/USDT")
D = Decimal
MARKS = {BTC: D("101"), ETH: D("10"), BNB: D("600")}


def fill(side: Side, price: str, quantity: str, fee: str = "0", currency: str = "USDT", symbol: Symbol = BTC, trade: str = "1") -> Fill:
    return Fill(UNSTAMPED, symbol, 0, OrderId("q"), trade, side, D(price), D(quantity), D(fee), Currency(currency), True)


def positions(book: Attribution, symbol: Symbol = BTC) -> dict[str, Decimal]:
    return {agent: q for agent in (*ORDER, HOUSE) if (q := book.position(agent, symbol))}


def test_a_fill_and_its_fee_are_split_pro_rata() -> None:
    book = Attribution(USDT)
    book.apply(fill(Side.BUY, "100", "4", "0.4"), (("long_term", 3.0), ("short_term", 1.0)), MARKS)
    assert positions(book) == {"long_term": D(3), "short_term": D(1)}
    assert book.fees() == {"long_term": D("0.3"), "short_term": D("0.1"), "market_making": 0, "risk": 0}
    assert book.pnl(MARKS) == {"long_term": D("2.7"), "short_term": D("0.9"), "market_making": 0, "risk": 0}


def test_opposite_wishes_cross_inside_at_mid_and_do_not_pay_the_venue() -> None:
    book = Attribution(USDT)
    book.apply(fill(Side.BUY, "102", "2", "0.2"), (("long_term", 5.0), ("short_term", -3.0)), MARKS)
    assert positions(book) == {"long_term": D(5), "short_term": D(-3)}
    assert book.fees()["short_term"] == 0
    assert book.pnl(MARKS)["short_term"] == 0  # sold at the mid, marked at the mid
    assert book.pnl(MARKS)["long_term"] == D("-2.2")


def test_half_a_fill_crosses_half() -> None:
    book = Attribution(USDT)
    book.apply(fill(Side.BUY, "101", "1"), (("long_term", 5.0), ("short_term", -3.0)), MARKS)
    assert positions(book) == {"long_term": D("2.5"), "short_term": D("-1.5")}


def test_the_market_maker_owns_its_fills() -> None:
    book = Attribution(USDT)
    book.apply(fill(Side.BUY, "100", "1", "0.001", "BTC"), (("market_making", 1.0),), MARKS)
    assert positions(book) == {"market_making": D("0.999")}
    assert book.inventory(MARKS, D(1000)) == {BTC: pytest.approx(0.999 * 101 / 1000)}


def test_a_reduction_that_nobody_wished_falls_on_those_who_hold() -> None:
    book = Attribution(USDT)
    book.apply(fill(Side.BUY, "100", "4"), (("long_term", 3.0), ("market_making", 1.0)), MARKS)
    book.apply(fill(Side.SELL, "100", "2"), (), MARKS)
    assert positions(book) == {"long_term": D("1.5"), "market_making": D("0.5")}
    book.apply(fill(Side.BUY, "100", "1"), (("stranger", 1.0),), MARKS)
    assert positions(book)[HOUSE] == 1


def test_what_was_carried_over_belongs_to_the_house_until_somebody_wants_it() -> None:
    book = Attribution(USDT)
    book.carry(Adjustment(UNSTAMPED, Currency("BTC"), D(2), AdjustmentKind.CARRIED, "90"))
    book.carry(Adjustment(UNSTAMPED, USDT, D("-180"), AdjustmentKind.CARRIED))
    book.carry(Adjustment(UNSTAMPED, USDT, D("1000"), AdjustmentKind.CAPITAL))
    assert book.pnl(MARKS)[HOUSE] == D(22)
    shares = book.wished_trades(BTC, {"long_term": 0.303}, 0.303, D(1000), MARKS[BTC])
    assert shares == (("long_term", pytest.approx(1.0)),)
    assert positions(book) == {"long_term": D(2)}
    assert book.pnl(MARKS)[HOUSE] == D(22)


def test_wished_trades_cross_at_once_and_leave_the_net_direction() -> None:
    book = Attribution(USDT)
    book.apply(fill(Side.BUY, "101", "2"), (("long_term", 1.0), ("short_term", 1.0)), MARKS)
    shares = book.wished_trades(BTC, {"long_term": 0.202, "short_term": 0.0}, 0.202, D(1000), MARKS[BTC])
    assert shares == ()
    assert positions(book) == {"long_term": pytest.approx(D(2))}
    more = book.wished_trades(BTC, {"long_term": 0.303, "short_term": -0.1515}, 0.1515, D(1000), MARKS[BTC])
    assert more == (("short_term", pytest.approx(-0.5)),)
    assert book.position("long_term", BTC) == pytest.approx(D(3))


def test_what_the_limits_cut_is_cut_for_all_alike() -> None:
    book = Attribution(USDT)
    shares = book.wished_trades(BTC, {"long_term": 0.3, "short_term": 0.1}, 0.2, D(1010), MARKS[BTC])
    assert dict(shares) == {"long_term": pytest.approx(1.5), "short_term": pytest.approx(0.5)}


def test_inventory_is_wished_for_only_as_far_as_it_was_granted() -> None:
    book = Attribution(USDT)
    book.apply(fill(Side.BUY, "101", "1"), (("market_making", 1.0),), MARKS)
    shares = book.wished_trades(BTC, {"long_term": 0.0, "market_making": 0.05}, 0.05, D(1010), MARKS[BTC])
    assert shares == (("market_making", pytest.approx(-0.5)),)
    assert book.wished_trades(BTC, {"market_making": 0.1}, 0.1, D(1010), MARKS[BTC]) == ()


def test_the_rounding_of_floats_is_nobodys_wish() -> None:
    book, mark, equity = Attribution(USDT), D("0.1234567"), D("98765.4321")
    book.apply(fill(Side.BUY, "0.12", "123456.7891"), (("market_making", 1.0),), {})
    kept = book.inventory({BTC: mark}, equity)[BTC]
    assert D(repr(kept)) * equity / mark != book.position("market_making", BTC)
    assert book.wished_trades(BTC, {"market_making": kept}, kept, equity, mark) == ()


agents = st.sampled_from((*ORDER, "stranger"))
shares = st.lists(st.tuples(agents, st.floats(-50, 50, allow_nan=False)), max_size=5)
fills = st.builds(
    lambda side, price, quantity, fee, currency, symbol, who: (side, price, quantity, fee, currency, symbol, tuple(who)),
    st.sampled_from(Side),
    st.decimals("0.00000001", "100000", places=8),
    st.decimals("0.00000001", "1000000", places=8),
    st.decimals("-0.01", "10", places=8),
    st.sampled_from(["USDT", "base", "BNB"]),
    st.sampled_from([BTC, ETH]),
    shares,
)
crossings = st.dictionaries(agents.filter(lambda a: a != "stranger"), st.decimals("-100", "100", places=12), max_size=4)
steps = st.lists(st.one_of(fills, crossings), max_size=12)


@settings(max_examples=150, deadline=None)
@given(steps, st.decimals("0.00000001", "100000", places=8))
def test_sub_accounts_add_up_exactly_to_the_ledger(history: list[object], mark: Decimal) -> None:
    ledger, book = Ledger(USDT), Attribution(USDT)
    ledger.apply(Adjustment(UNSTAMPED, USDT, D(1000), AdjustmentKind.CAPITAL))
    for symbol in (BTC, ETH):
        base = Currency(symbol.split("/")[0])
        ledger.apply(Listing(UNSTAMPED, Instrument(symbol, base, USDT, D("1e-8"), D("1e-8"))))
    exact = D(0)
    for number, step in enumerate(history):
        if isinstance(step, dict):
            left = book.cross(BTC, step, mark)
            assert len({q > 0 for q in left.values()}) <= 1
            continue
        side, price, quantity, fee, currency, symbol, who = step  # type: ignore[misc]
        paid_in = symbol.split("/")[0] if currency == "base" else currency
        fee = min(fee, quantity) if currency == "base" else fee
        with localcontext(prec=60):
            exact -= side.value * price * quantity
            exact -= fee if currency == "USDT" else fee * 600 if currency == "BNB" else 0
        event = fill(side, str(price), str(quantity), str(fee), paid_in, symbol, str(number))
        ledger.apply(event)
        book.apply(event, who, MARKS)
    marks = {BTC: mark, ETH: D("10"), BNB: D("600")}
    for symbol in (BTC, ETH):
        assert sum(book.position(agent, symbol) for agent in (*ORDER, HOUSE)) == ledger.flows[Currency(symbol.split("/")[0])]
    with localcontext(prec=60):  # what each fill moved, summed without rounding
        assert sum(book.pnl(marks).values()) == exact + sum(ledger.flows[Currency(s.split("/")[0])] * marks[s] for s in (BTC, ETH))
    assert sum(book.pnl(marks).values()) == pytest.approx(ledger.equity(marks) - ledger.capital, abs=D("1e-12"), rel=D("1e-24"))
    with localcontext(prec=60):
        assert sum(book.costs(marks).values()) == book.account_cost(marks)
    if ledger.equity(marks) > 1:
        covariance = np.array([[0.5, 0.3, 0.0], [0.3, 0.9, 0.1], [0.0, 0.1, 0.4]])[:2, :2]
        differences = book.differences(ledger, marks, covariance)
        assert differences["fees"] == differences["positions"] == 0
        size = max(abs(ledger.flows[Currency(s.split("/")[0])]) * marks[s] for s in (BTC, ETH)) + ledger.equity(marks)
        assert check_sums(book, ledger, marks, covariance) <= D("1e-12") * size
        assert sum(book.risk((BTC, ETH), marks, ledger.equity(marks), covariance).values()) >= -1e-12


def test_an_unknown_price_is_not_zero() -> None:
    book = Attribution(USDT)
    book.apply(fill(Side.BUY, "100", "1"), (("long_term", 1.0),), MARKS)
    with pytest.raises(KeyError):
        book.pnl({})


# -- cost and risk -----------------------------------------------------------------------------------------------------


def test_a_cost_is_fee_and_slippage_against_the_mark_at_the_decision() -> None:
    book = Attribution(USDT)
    book.ask(OrderId("q"), D("100"))
    book.apply(fill(Side.BUY, "102", "4", "0.4"), (("long_term", 3.0), ("short_term", 1.0)), MARKS)
    assert book.costs(MARKS) == {"long_term": D("6.3"), "short_term": D("2.1"), "market_making": 0, "risk": 0}
    assert book.account_cost(MARKS) == D("8.4")
    assert book.bought() == {"long_term": D(306), "short_term": D(102), "market_making": 0, "risk": 0}


def test_a_maker_is_paid_its_slippage_and_without_a_decision_the_mark_of_the_fill_judges() -> None:
    book = Attribution(USDT)
    book.apply(fill(Side.SELL, "103", "2", "0.001", "BTC"), (("market_making", -1.0),), MARKS)
    assert book.costs(MARKS)["market_making"] == D("-4") + D("0.103")
    assert book.bought()["market_making"] == 0
    book.apply(fill(Side.BUY, "9", "1", symbol=Symbol("SOL/USDT"), trade="2"), (("market_making", 1.0),), MARKS)
    assert book.account_cost(MARKS) == D("-3.897")  # no mark at all: the fill's own price


def test_fees_in_third_currencies_are_costs_at_their_mark_and_carried_ones_are_the_houses() -> None:
    book, ledger = Attribution(USDT), Ledger(USDT)
    carried = Adjustment(UNSTAMPED, Currency("BNB"), D("0.5"), AdjustmentKind.CARRIED_FEE)
    ledger.apply(Listing(UNSTAMPED, Instrument(BTC, Currency("BTC"), USDT, D("0.01"), D("0.001"))))
    event = fill(Side.BUY, "101", "1", "0.01", "BNB")
    for taker in (book.carry, ledger.apply):
        taker(carried)
    ledger.apply(event)
    book.apply(event, (("long_term", 1.0),), MARKS)
    assert book.spent(MARKS)["long_term"] == D(6) and book.costs(MARKS) == {"long_term": D(6), "short_term": 0, "market_making": 0, "risk": 0}
    assert book.pnl(MARKS)[HOUSE] == D(-300) and check_sums(book, ledger, MARKS) == 0


def test_the_memory_of_decisions_is_bounded_and_the_oldest_goes() -> None:
    book = Attribution(USDT)
    for number in range(REMEMBERED + 1):
        book.ask(OrderId(str(number)), D(90))
    book.apply(replace(fill(Side.BUY, "101", "1"), order_id=OrderId("0")), (("long_term", 1.0),), MARKS)
    assert book.account_cost(MARKS) == 0
    book.apply(replace(fill(Side.BUY, "101", "1", trade="2"), order_id=OrderId("1")), (("long_term", 1.0),), MARKS)
    assert book.account_cost(MARKS) == 11


def test_the_parts_of_risk_are_eulers_and_who_hedges_has_a_negative_one() -> None:
    covariance = np.array([[0.36, 0.18], [0.18, 0.25]])
    weights = {"long_term": np.array([0.5, 0.2]), "short_term": np.array([-0.1, 0.0]), "market_making": np.zeros(2)}
    parts, book = euler(weights, covariance), np.array([0.4, 0.2])
    assert sum(parts.values()) == pytest.approx(volatility(book, covariance)) and parts["short_term"] < 0 == parts["market_making"]
    step = 1e-6  # by the definition: what a little more of the agent adds
    more = volatility(book + step * weights["long_term"], covariance)
    assert parts["long_term"] == pytest.approx((more - volatility(book, covariance)) / step, rel=1e-4)
    assert euler({"long_term": np.zeros(2)}, covariance) == {"long_term": 0.0}


def test_a_difference_is_noticed() -> None:
    book, ledger = Attribution(USDT), Ledger(USDT)
    ledger.apply(Listing(UNSTAMPED, Instrument(BTC, Currency("BTC"), USDT, D("0.01"), D("0.001"))))
    ledger.apply(Adjustment(UNSTAMPED, USDT, D(1000), AdjustmentKind.CAPITAL))
    event = fill(Side.BUY, "100", "1", "0.1")
    ledger.apply(event)
    assert book.differences(ledger, {BTC: D(101)}) == {
        "pnl": D("-0.9"), "costs": 0, "fees": D("0.1"), "positions": 1, "risk": pytest.approx(D("-0.101"), rel=D("0.01")),
    }  # fmt: skip
    book.apply(event, (("long_term", 1.0),), MARKS)
    assert check_sums(book, ledger, {BTC: D(101)}) <= D("1e-15")
