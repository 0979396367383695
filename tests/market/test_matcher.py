"""Price-time priority, queue position, displayed liquidity taken once, limits never broken."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.events import UNSTAMPED, BookSnapshot, Trade
from agents.core.instruments import Currency, Instrument, Side, Symbol
from agents.core.orders import OrderId
from agents.market.frictions import BackQueue, FrontQueue, ProRataQueue, Queue, SquareRootImpact
from agents.market.matcher import Execution, Matcher

D = Decimal
S = Symbol("BTC/USDT")
BTC = Instrument(S, Currency("BTC"), Currency("USDT"), D("1"), D("0.1"))
BUY, SELL = Side.BUY, Side.SELL


def levels(*pairs: tuple[float, float]) -> tuple[tuple[Decimal, Decimal], ...]:
    return tuple((D(str(price)), D(str(quantity))) for price, quantity in pairs)


def book(bids: list[tuple[float, float]], asks: list[tuple[float, float]], time: int = 0) -> BookSnapshot:
    return BookSnapshot(UNSTAMPED, S, time, levels(*bids), levels(*asks))


def trade(price: float, quantity: float, side: Side, time: int = 0) -> Trade:
    return Trade(UNSTAMPED, S, time, "1", D(str(price)), D(str(quantity)), side)


def fresh(queue: Queue | None = None) -> Matcher:
    matcher = Matcher(BTC, queue)
    matcher.on_book(book([(99, 2), (98, 5)], [(101, 1), (102, 3), (103, 10)]))
    return matcher


def place(matcher: Matcher, name: str, side: Side, quantity: float, price: float | None, rest: bool = True) -> list[Execution]:
    return matcher.place(OrderId(name), side, D(str(quantity)), None if price is None else D(str(price)), rest).executions


def brief(executions: list[Execution]) -> list[tuple[str, float, float, bool]]:
    return [(str(e.order_id), float(e.price), float(e.quantity), e.maker) for e in executions]


@pytest.mark.parametrize(
    ("side", "quantity", "price", "rest", "expected", "rested"),
    [
        (BUY, 0.5, 101, True, [("a", 101, 0.5, False)], 0),
        (BUY, 3, 102, True, [("a", 101, 1, False), ("a", 102, 2, False)], 0),
        (BUY, 9, 102, True, [("a", 101, 1, False), ("a", 102, 3, False)], 5),
        (BUY, 9, 102, False, [("a", 101, 1, False), ("a", 102, 3, False)], 0),
        (BUY, 2, None, False, [("a", 101, 1, False), ("a", 102, 1, False)], 0),
        (BUY, 1, 100, True, [], 1),
        (SELL, 3, 98, True, [("a", 99, 2, False), ("a", 98, 1, False)], 0),
        (SELL, 99, None, False, [("a", 99, 2, False), ("a", 98, 5, False)], 0),
    ],
)
def test_arriving_orders_walk_the_book(
    side: Side, quantity: float, price: float | None, rest: bool, expected: list[tuple[str, float, float, bool]], rested: float
) -> None:
    placed = fresh().place(OrderId("a"), side, D(str(quantity)), None if price is None else D(str(price)), rest)
    assert brief(placed.executions) == expected
    assert placed.rested == D(str(rested))


def test_cost_is_what_placing_then_fills() -> None:
    matcher = fresh()
    assert matcher.cost(BUY, D(3), D(102)) == (D(3), D(101 + 2 * 102))
    assert matcher.cost(BUY, D(3), D(102)) == (D(3), D(101 + 2 * 102))
    assert sum(e.quantity * e.price for e in place(matcher, "a", BUY, 3, 102)) == 305


def test_taken_liquidity_stays_taken_until_the_level_changes() -> None:
    matcher = fresh()
    assert place(matcher, "a", BUY, 1, 101)
    assert not place(matcher, "b", BUY, 1, 101, rest=False)
    matcher.on_book(book([(99, 2)], [(101, 1), (102, 3)]))
    assert not place(matcher, "c", BUY, 1, 101, rest=False)
    matcher.on_book(book([(99, 2)], [(101, 0.7), (102, 3)]))
    assert brief(place(matcher, "d", BUY, 1, 101, rest=False)) == [("d", 101, 0.7, False)]


def test_off_lot_liquidity_is_taken_in_lots() -> None:
    matcher = Matcher(BTC)
    matcher.on_book(book([], [(101, 0.27), (102, 0.04), (103, 1)]))
    assert brief(place(matcher, "a", BUY, 1, None, rest=False)) == [("a", 101, 0.2, False), ("a", 103, 0.8, False)]


def test_a_print_reaches_us_after_the_queue_ahead() -> None:
    matcher = fresh()
    place(matcher, "a", BUY, 1, 99)  # behind 2
    assert brief(matcher.on_trade(trade(99, 1.5, SELL))) == []
    assert brief(matcher.on_trade(trade(99, 0.8, SELL))) == [("a", 99, 0.3, True)]
    assert brief(matcher.on_trade(trade(99, 5, SELL))) == [("a", 99, 0.7, True)]
    assert not matcher.busy


def test_a_print_through_our_price_fills_us_first_and_at_our_price() -> None:
    matcher = fresh()
    place(matcher, "low", BUY, 1, 99)
    place(matcher, "high", BUY, 1, 100)
    assert brief(matcher.on_trade(trade(98, 1.5, SELL))) == [("high", 100, 1, True), ("low", 99, 0.5, True)]


def test_prints_of_the_other_aggressor_do_not_fill() -> None:
    matcher = fresh()
    place(matcher, "a", BUY, 1, 100)
    assert not matcher.on_trade(trade(98, 9, BUY))


def test_prints_from_before_our_arrival_do_not_fill() -> None:
    matcher = fresh()
    matcher.on_book(book([(99, 2)], [(101, 1)], time=10))
    place(matcher, "a", BUY, 1, 100)
    assert not matcher.on_trade(trade(98, 9, SELL, time=9))
    assert matcher.on_trade(trade(98, 9, SELL, time=10))


def test_equal_prices_fill_in_order_of_arrival() -> None:
    matcher = fresh()
    place(matcher, "first", SELL, 1, 100)
    place(matcher, "second", SELL, 1, 100)
    assert brief(matcher.on_trade(trade(100, 1.5, BUY))) == [("first", 100, 1, True), ("second", 100, 0.5, True)]


def test_strangers_between_two_own_orders_are_served_between_them() -> None:
    matcher = Matcher(BTC)
    matcher.on_book(book([(99, 2)], [(101, 1)]))
    place(matcher, "first", BUY, 1, 99)
    matcher.on_book(book([(99, 5)], [(101, 1)]))
    place(matcher, "second", BUY, 1, 99)
    assert brief(matcher.on_trade(trade(99, 6.5, SELL))) == [("first", 99, 1, True), ("second", 99, 0.5, True)]


@pytest.mark.parametrize(("queue", "needed"), [(ProRataQueue(), 1.0), (BackQueue(), 2.0), (FrontQueue(), 0.0)])
def test_cancellations_ahead_follow_the_queue_model(queue: Queue, needed: float) -> None:
    matcher = Matcher(BTC, queue)
    matcher.on_book(book([(99, 2)], [(101, 1)]))
    place(matcher, "a", BUY, 1, 99)
    matcher.on_book(book([(99, 6)], [(101, 1)]))  # four joined behind us
    matcher.on_book(book([(99, 3)], [(101, 1)]))  # three left from somewhere
    if needed:
        assert not matcher.on_trade(trade(99, needed, SELL))
    assert brief(matcher.on_trade(trade(99, 0.5, SELL))) == [("a", 99, 0.5, True)]


def test_prints_explain_a_smaller_level_before_cancellations_do() -> None:
    matcher = Matcher(BTC)
    matcher.on_book(book([(99, 4)], [(101, 1)]))
    place(matcher, "a", BUY, 1, 99)
    matcher.on_trade(trade(99, 2, SELL))  # two ahead are left
    matcher.on_book(book([(99, 2)], [(101, 1)]))  # and that is what the book now says
    assert not matcher.on_trade(trade(99, 2, SELL))
    assert matcher.on_trade(trade(99, 0.5, SELL))


def test_a_level_that_vanished_leaves_nobody_ahead() -> None:
    matcher = fresh()
    place(matcher, "a", BUY, 1, 99)
    matcher.on_book(book([(98, 5)], [(101, 1)]))
    matcher.on_book(book([(99, 7), (98, 5)], [(101, 1)]))
    assert brief(matcher.on_trade(trade(99, 1, SELL))) == [("a", 99, 1, True)]


def test_a_price_deeper_than_the_feed_waits_for_its_queue_to_show() -> None:
    matcher = fresh()
    place(matcher, "deep", BUY, 1, 95)
    assert not matcher.on_trade(trade(95, 9, SELL))
    matcher.on_book(book([(95, 3), (94, 1)], [(101, 1)]))
    assert brief(matcher.on_trade(trade(95, 3.5, SELL))) == [("deep", 95, 0.5, True)]


def test_a_book_that_moves_through_us_fills_us_once() -> None:
    matcher = fresh()
    place(matcher, "a", BUY, 3, 100)
    crossing = book([(97, 1)], [(99, 1), (100, 1), (101, 5)])
    assert brief(matcher.on_book(crossing)) == [("a", 100, 1, True), ("a", 100, 1, True)]
    assert not matcher.on_book(crossing)
    assert not place(matcher, "b", BUY, 1, 100, rest=False)


def test_own_orders_in_the_way_expire() -> None:
    matcher = fresh()
    place(matcher, "quote", SELL, 1, 100)
    place(matcher, "far", SELL, 1, 103)
    placed = matcher.place(OrderId("buy"), BUY, D(2), D(101), rest=True)
    assert placed.expired == ["quote"]
    assert brief(placed.executions) == [("buy", 101, 1, False)]
    assert [o.order_id for o in matcher.orders] == ["far", "buy"]


def test_crosses_sees_the_market_and_own_orders() -> None:
    matcher = fresh()
    assert matcher.crosses(BUY, D(101)) and not matcher.crosses(BUY, D(100))
    place(matcher, "quote", SELL, 1, 100)
    assert matcher.crosses(BUY, D(100))


def test_cancel_returns_the_rest_once() -> None:
    matcher = fresh()
    place(matcher, "a", BUY, 3, 101)
    assert matcher.cancel(OrderId("a")) == 2
    assert matcher.cancel(OrderId("a")) is None


def test_impact_worsens_the_price_but_never_past_the_limit() -> None:
    matcher = Matcher(BTC, impact=SquareRootImpact(D("0.02")))
    matcher.on_book(book([(99, 2)], [(101, 4)]))
    assert brief(place(matcher, "a", BUY, 1, 110)) == [("a", 103, 1, False)]
    assert not place(matcher, "b", BUY, 1, 102, rest=False)


NAN = D("nan")


@pytest.mark.parametrize(
    "bad",
    [
        book([(101, 1)], [(101, 1)]),
        book([(102, 1)], [(101, 1)]),
        book([(98, 1), (99, 1)], [(101, 1)]),
        book([(99, -1)], [(101, 1)]),
        BookSnapshot(UNSTAMPED, S, 0, ((NAN, D(1)),), levels((101, 1))),
        BookSnapshot(UNSTAMPED, S, 0, levels((99, 1)), (*levels((101, 1)), (D(102), NAN))),
    ],
)
def test_unbelievable_books_change_nothing(bad: BookSnapshot) -> None:
    matcher = fresh()
    place(matcher, "a", BUY, 1, 100)
    assert not matcher.on_book(bad)
    assert (matcher.best_bid, matcher.best_ask, matcher.refused) == (D(99), D(101), 1)


@pytest.mark.parametrize("bad", [(NAN, D(1)), (D(98), NAN), (D(-1), D(1)), (D(98), D("inf"))])
def test_unbelievable_prints_fill_nothing(bad: tuple[Decimal, Decimal]) -> None:
    matcher = fresh()
    place(matcher, "a", BUY, 1, 100)
    assert not matcher.on_trade(Trade(UNSTAMPED, S, 0, "1", bad[0], bad[1], SELL))
    assert matcher.refused == 1


prices = st.integers(95, 105)
sizes = st.integers(1, 40).map(lambda n: D(n) / 10)
orders = st.tuples(st.sampled_from([BUY, SELL]), prices.map(D), sizes)
worlds = st.one_of(
    st.tuples(st.just("print"), prices.map(D), sizes, st.sampled_from([BUY, SELL])),
    st.tuples(
        st.just("book"), st.integers(96, 104), st.lists(sizes, min_size=3, max_size=3), st.lists(sizes, min_size=3, max_size=3)
    ),
)


@given(st.lists(orders, max_size=8), st.lists(worlds, max_size=12), st.sampled_from([ProRataQueue(), BackQueue(), FrontQueue()]))
def test_priority_limits_and_liquidity(
    asked: list[tuple[Side, Decimal, Decimal]], happened: list[tuple[Any, ...]], queue: Queue
) -> None:
    """Whatever happens: a fill never leaves a better own order unfilled, breaks no limit, and uses no more than was there."""
    matcher = fresh(queue)
    for number, (side, price, quantity) in enumerate(asked):
        matcher.place(OrderId(str(number)), side, quantity, price)
    for event in happened:
        before = {o.order_id: (o.side, o.price, o.sequence, o.remaining) for o in matcher.orders}
        if event[0] == "print":
            _, price, quantity, side = event
            executions = matcher.on_trade(Trade(UNSTAMPED, S, 0, "1", price, quantity, side))
            available = quantity
            assert all(_within(e, price) for e in executions)
        else:
            _, centre, bids, asks = event
            snapshot = BookSnapshot(
                UNSTAMPED, S, 0,
                tuple((D(centre - 1 - i), q) for i, q in enumerate(bids)),
                tuple((D(centre + i), q) for i, q in enumerate(asks)),
            )  # fmt: skip
            executions = matcher.on_book(snapshot)
            available = sum(asks, D(0)) + sum(bids, D(0))
        assert sum((e.quantity for e in executions), D(0)) <= available
        filled: dict[OrderId, Decimal] = {}
        for execution in executions:
            side, price, _, remaining = before[execution.order_id]
            assert (execution.side, execution.price, execution.maker) == (side, price, True)
            assert execution.quantity > 0 and execution.quantity % BTC.lot == 0
            assert execution.quantity.as_tuple().exponent == BTC.lot.as_tuple().exponent
            filled[execution.order_id] = filled.get(execution.order_id, D(0)) + execution.quantity
            assert filled[execution.order_id] <= remaining
            for other, (other_side, other_price, sequence, wanted) in before.items():
                ahead = (-side.value * other_price, sequence) < (-side.value * price, before[execution.order_id][2])
                if other_side is side and ahead:
                    assert filled.get(other, D(0)) == wanted, f"{execution.order_id} was filled before {other}"


def _within(execution: Execution, price: Decimal) -> bool:
    """A resting order trades at its own price, which is as good for the aggressor as the print or better."""
    return execution.price >= price if execution.side is BUY else execution.price <= price
