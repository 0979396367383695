"""The ledger: money is conserved, exposure is counted from the intent on, illegal moves change nothing."""

from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agents.core.events import UNSTAMPED, Adjustment, AdjustmentKind, Adopted, Fill, Listing, OrderUpdate, Stamp
from agents.core.instruments import Currency, Instrument, Side, Symbol
from agents.core.ledger import Ledger
from agents.core.orders import NEXT, Amend, Cancel, OrderId, OrderState, Place

BTC = Symbol("BTC/USDT")
LISTED = Instrument(BTC, Currency("BTC"), Currency("USDT"), Decimal("0.01"), Decimal("0.00001"))
D = Decimal


def ledger(capital: str = "10000") -> Ledger:
    book = Ledger(Currency("USDT"))
    book.apply(Listing(UNSTAMPED, LISTED))
    book.apply(Adjustment(UNSTAMPED, Currency("USDT"), D(capital), AdjustmentKind.OPENING))
    book.apply(Adjustment(UNSTAMPED, Currency("USDT"), D(capital), AdjustmentKind.CAPITAL))
    return book


def place(order_id: str = "a", side: Side = Side.BUY, quantity: str = "1", price: str = "100") -> Place:
    return Place(OrderId(order_id), BTC, side, D(quantity), D(price))


def fill(trade: str, side: Side, quantity: str, price: str, fee: str = "0", currency: str = "USDT", order: str = "a") -> Fill:
    return Fill(Stamp(5, 5), BTC, 0, OrderId(order), trade, side, D(price), D(quantity), D(fee), Currency(currency), True)


def test_intent_counts_as_exposure_before_the_venue_speaks() -> None:
    book = ledger()
    book.record(place(quantity="2"), Stamp(1, 1))
    assert book.working(BTC) == (D(2), D(0))
    book.apply(OrderUpdate(Stamp(2, 2), OrderId("a"), BTC, OrderState.UNKNOWN))
    assert book.working(BTC) == (D(2), D(0)), "an unknown order is exposure"
    book.apply(OrderUpdate(Stamp(3, 3), OrderId("a"), BTC, OrderState.REJECTED))
    assert book.working(BTC) == (D(0), D(0))


def test_a_round_trip_with_fees_in_three_currencies() -> None:
    book = ledger()
    book.record(place(quantity="1"), Stamp(1, 1))
    book.apply(fill("1", Side.BUY, "1", "100", "0.001", "BTC"))
    assert book.position(BTC) == D("0.999")
    assert book.average_price(BTC) == D(100) / D("0.999")
    book.apply(fill("2", Side.SELL, "0.5", "110", "0.055", "USDT", order="b"))
    book.apply(fill("3", Side.SELL, "0.499", "120", "0.01", "BNB", order="c"))
    assert book.position(BTC) == 0 == book.flows[Currency("BTC")]
    assert book.balances[Currency("BNB")] == D("-0.01")
    assert book.cash() == D("10000") - 100 + D("55") - D("0.055") + D("59.88")
    assert book.equity({BTC: D(1), Symbol("BNB/USDT"): D(300)}) == book.cash() - 3
    assert book.fees == {"BTC": D("0.001"), "USDT": D("0.055"), "BNB": D("0.01")}


def test_a_fill_seen_twice_moves_money_once() -> None:
    book = ledger()
    book.record(place(), Stamp(1, 1))
    for _ in range(2):
        book.apply(fill("7", Side.BUY, "0.4", "100"))
    assert book.position(BTC) == D("0.4")
    assert book.anomalies["duplicate_fill"] == 1
    assert book.working(BTC) == (D("0.6"), D(0))


def test_a_fill_after_the_cancel_still_moves_money() -> None:
    book = ledger()
    book.record(place(), Stamp(1, 1))
    book.record(Cancel(OrderId("a"), BTC), Stamp(2, 2))
    book.apply(OrderUpdate(Stamp(3, 3), OrderId("a"), BTC, OrderState.CANCELED, filled=D("0.3")))
    assert book.working(BTC) == (D("0.3"), D(0)), "a reported fill that has not arrived is exposure"
    book.apply(fill("1", Side.BUY, "0.3", "100"))
    assert book.working(BTC) == (D(0), D(0))
    assert book.position(BTC) == D("0.3")
    assert book.orders[OrderId("a")].state is OrderState.CANCELED
    assert book.live_orders() == []


def test_an_old_open_does_not_undo_a_cancel_in_flight() -> None:
    book = ledger()
    book.record(place(), Stamp(1, 1))
    book.record(Cancel(OrderId("a"), BTC), Stamp(2, 2))
    book.apply(OrderUpdate(Stamp(3, 3), OrderId("a"), BTC, OrderState.OPEN))
    assert book.orders[OrderId("a")].state is OrderState.CANCELING


def test_amend_keeps_the_shares_and_counts_both_until_confirmed() -> None:
    book = ledger()
    book.record(Place(OrderId("a"), BTC, Side.BUY, D(1), D(100), post_only=True, shares=(("market_making", 1.0),)), Stamp(1, 1))
    book.record(Amend(OrderId("a"), OrderId("b"), BTC, Side.BUY, D(2), D(99)), Stamp(2, 2))
    assert book.working(BTC) == (D(3), D(0))
    assert book.orders[OrderId("b")].place.shares == (("market_making", 1.0),)
    assert book.orders[OrderId("b")].place.post_only


def test_coins_that_were_there_before_are_not_ours() -> None:
    book = ledger()
    book.apply(Adjustment(UNSTAMPED, Currency("BTC"), D(5), AdjustmentKind.OPENING))
    assert book.position(BTC) == 0
    assert book.balances[Currency("BTC")] == 5


def test_carried_positions_move_no_balance() -> None:
    book = ledger()
    book.apply(Adjustment(UNSTAMPED, Currency("BTC"), D(2), AdjustmentKind.CARRIED, note="90"))
    book.apply(Adjustment(UNSTAMPED, Currency("USDT"), D(-180), AdjustmentKind.CARRIED))
    assert (book.position(BTC), book.average_price(BTC), book.cash()) == (D(2), D(90), D(9820))
    assert book.balances[Currency("BTC")] == 0


def test_a_position_without_a_mark_has_no_value() -> None:
    book = ledger()
    book.apply(fill("1", Side.BUY, "1", "100"))
    with pytest.raises(KeyError):
        book.equity({})


FILLS = st.lists(
    st.tuples(st.sampled_from(Side), st.integers(1, 500), st.integers(1, 10_000), st.integers(0, 50), st.sampled_from(["BTC", "USDT", "BNB"]))
)


@example([(Side.SELL, 5, 10, 0, "USDT"), (Side.BUY, 5, 10, 0, "USDT")])
@given(FILLS)
def test_balances_are_openings_plus_every_flow(rows: list[tuple[Side, int, int, int, str]]) -> None:
    book, expected = ledger(), {"USDT": D(10_000), "BTC": D(0), "BNB": D(0)}
    for number, (side, quantity, price, fee, currency) in enumerate(rows):
        book.apply(fill(str(number), side, str(quantity), str(price), str(fee), currency))
        expected["BTC"] += side.value * quantity
        expected["USDT"] -= side.value * quantity * price
        expected[currency] -= fee
    assert {c: book.balances[Currency(c)] for c in expected} == expected
    foreign = sum(fee for _, _, _, fee, currency in rows if currency == "BNB")
    assert book.flows[Currency("BTC")] == expected["BTC"]
    assert book.foreign_fees[Currency("BNB")] == foreign


MOVES = st.lists(st.one_of(st.sampled_from(OrderState), st.just("cancel"), st.integers(1, 4)), max_size=12)


@given(MOVES)
def test_whatever_the_venue_says_states_only_move_along_the_table(moves: list[object]) -> None:
    book = ledger()
    book.record(place(quantity="10"), Stamp(0, 0))
    order = book.orders[OrderId("a")]
    for number, move in enumerate(moves):
        before, filled = order.state, order.filled
        match move:
            case OrderState():
                book.apply(OrderUpdate(Stamp(number, number), OrderId("a"), BTC, move))
            case "cancel":
                book.record(Cancel(OrderId("a"), BTC), Stamp(number, number))
            case int():
                book.apply(fill(str(number), Side.BUY, str(move), "100"))
                assert order.filled == filled + move, "money always moves"
        assert order.state is before or order.state in NEXT[before]
        assert (order in book.live_orders()) == (order.live or order.remaining > 0)


def test_an_adopted_order_counts_as_exposure_and_takes_only_the_fills_that_were_missing() -> None:
    book = ledger()
    book.apply(Adjustment(UNSTAMPED, Currency("BTC"), D("0.4"), AdjustmentKind.CARRIED, note="100"))
    place = Place(OrderId("q-main-1-7-0"), BTC, Side.BUY, D(1), D(100))
    book.apply(Adopted(Stamp(9), place, OrderState.PARTIAL, "77", D("0.4"), D("0.5"), 3))
    assert book.working(BTC) == (D("0.6"), D(0))
    book.apply(Fill(Stamp(10), BTC, 1, place.order_id, "t2", Side.BUY, D(100), D("0.6"), D(0), Currency("USDT"), True))
    assert book.orders[place.order_id].state is OrderState.FILLED
    assert book.position(BTC) == D(1)
    assert book.live_orders() == []
    book.apply(Adopted(Stamp(11), place, OrderState.PARTIAL, "77", D(0), D(0), 3))
    assert book.anomalies["adopted_twice"] == 1
    assert book.live_orders() == []
