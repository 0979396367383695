"""The exchange in memory: filters, money, latency, candles; and laws over random lives of an account."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.errors import DataError
from agents.core.events import Bar, BookDelta, BookSnapshot, Fill, Listing, OrderUpdate, Quote, Stamp, Tick, Trade
from agents.core.instruments import NS, Currency, Instrument, Side, Symbol
from agents.core.orders import Amend, Cancel, Command, OrderId, OrderState, Place, TimeInForce
from agents.market.exchange import KEEP_DONE, Report, SimulatedExchange
from agents.market.frictions import CandleBook, FixedLatency, Frictions, NoCandles, NoFee

D = Decimal
S = Symbol("BTC/USDT")
BTC, USDT = Currency("BTC"), Currency("USDT")
LISTING = Instrument(
    S, BTC, USDT, D("1"), D("0.1"), min_quantity=D("0.1"), max_quantity=D(50), min_notional=D(20),
    maker_fee=D("0.001"), taker_fee=D("0.002"),
)  # fmt: skip
BUY, SELL = Side.BUY, Side.SELL
IOC = TimeInForce.IOC


def book(bids: list[tuple[float, float]], asks: list[tuple[float, float]], at: int = 1) -> BookSnapshot:
    sides = (tuple((D(str(p)), D(str(q))) for p, q in side) for side in (bids, asks))
    return BookSnapshot(Stamp(at), S, at, *sides)


def trade(price: float, quantity: float, side: Side, at: int = 2) -> Trade:
    return Trade(Stamp(at), S, at, "1", D(str(price)), D(str(quantity)), side)


def place(name: str, side: Side, quantity: str, price: str | None, **rest: object) -> Place:
    return Place(OrderId(name), S, side, D(quantity), None if price is None else D(price), **rest)  # type: ignore[arg-type]


def fresh(frictions: Frictions | None = None, usdt: str = "1000", btc: str = "5") -> SimulatedExchange:
    exchange = SimulatedExchange([LISTING], frictions or Frictions(), {USDT: D(usdt), BTC: D(btc)})
    exchange.on_market(book([(99, 2), (98, 5)], [(101, 1), (102, 3)]))
    return exchange


def brief(reports: list[Report]) -> list[str]:
    return [
        f"{r.order_id} fill {float(r.quantity):g}@{r.price}"
        if isinstance(r, Fill)
        else f"{r.order_id} {r.state.value} {r.reason}".strip()
        for r in reports
    ]


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (place("a", BUY, "0", "100"), "quantity_off_lot"),
        (place("a", BUY, "0.15", "100"), "quantity_off_lot"),
        (place("a", BUY, "1", "100.5"), "price_off_tick"),
        (place("a", BUY, "1", "NaN"), "not_finite"),
        (place("a", BUY, "0.1", "100"), "below_min_notional"),
        (place("a", SELL, "51", "100"), "above_max_quantity"),
        (place("a", BUY, "20", "100"), "insufficient_balance"),
        (place("a", SELL, "6", "110"), "insufficient_balance"),
        (place("a", BUY, "1", "101", post_only=True), "would_cross"),
        (place("a", BUY, "1", "100", post_only=True, time_in_force=IOC), "post_only_must_rest"),
        (place("a", BUY, "1", None, post_only=True), "post_only_must_rest"),
        (place("a", BUY, "1", "100", reduce_only=True), "reduce_only_buy"),
        (Place(OrderId("a"), Symbol("FOO/USDT"), BUY, D(1), D(1)), "unknown_symbol"),
    ],
)
def test_refusals_cost_nothing(command: Place, reason: str) -> None:
    exchange = fresh()
    assert brief(exchange.submit(command, 5)) == [f"a rejected {reason}"]
    assert exchange.balances() == {USDT: D(1000), BTC: D(5)}
    assert not exchange.open_orders() and exchange.balance(USDT)[1] == exchange.balance(BTC)[1] == 0


def test_market_orders_need_a_market() -> None:
    exchange = SimulatedExchange([LISTING], Frictions(), {USDT: D(1000)})
    assert brief(exchange.submit(place("a", BUY, "1", None), 5)) == ["a rejected no_liquidity"]


def test_the_same_client_id_is_refused_even_after_the_end() -> None:
    exchange = fresh()
    exchange.submit(place("a", BUY, "1", "100"), 5)
    assert brief(exchange.submit(place("a", BUY, "1", "100"), 6)) == ["a rejected duplicate_order_id"]
    exchange.submit(Cancel(OrderId("a"), S), 7)
    assert brief(exchange.submit(place("a", BUY, "1", "100"), 8)) == ["a rejected duplicate_order_id"]


def test_a_limit_order_takes_rests_and_is_filled_as_maker() -> None:
    exchange = fresh()
    assert brief(exchange.submit(place("a", BUY, "2", "101"), 5)) == ["a open", "a fill 1@101", "a partial"]
    free, locked = exchange.balance(USDT)
    assert locked == D("101.202") + D("1e-8") and free + locked == 1000 - 101 - D("0.202")
    fills = [r for r in exchange.on_market(trade(100, 9, SELL)) if isinstance(r, Fill)]
    assert [(f.maker, f.fee, f.fee_currency, f.time) for f in fills] == [(True, D("0.101"), USDT, 2)]
    assert exchange.balances() == {USDT: 1000 - 202 - D("0.303"), BTC: D(7)}
    assert exchange.balance(USDT)[1] == 0
    order = exchange.order(OrderId("a"))
    assert order is not None and (order.state, order.filled, order.notional) == (OrderState.FILLED, D(2), D(202))
    assert exchange.order_by_venue_id(order.venue_order_id) is order


def test_fees_in_the_received_currency() -> None:
    exchange = fresh(Frictions(fee_currency="received"))
    fill = next(r for r in exchange.submit(place("a", BUY, "1", None), 5) if isinstance(r, Fill))
    assert (fill.fee, fill.fee_currency) == (D("0.002"), BTC)
    fill = next(r for r in exchange.submit(place("b", SELL, "1", None), 5) if isinstance(r, Fill))
    assert (fill.fee, fill.fee_currency) == (D("0.198"), USDT)
    assert exchange.balances() == {BTC: D(5) - D("0.002"), USDT: 1000 - 101 + 99 - D("0.198")}


@pytest.mark.parametrize("price", ["102", None])
def test_what_an_ioc_or_market_order_leaves_expires(price: str | None) -> None:
    exchange = fresh(usdt="10000")
    reports = exchange.submit(place("a", BUY, "9", price, time_in_force=IOC), 5)
    assert brief(reports)[-1] == "a expired no_liquidity"
    assert exchange.balances()[BTC] == 9 and exchange.balance(USDT)[1] == 0


def test_a_market_buy_that_costs_more_than_there_is_is_refused() -> None:
    exchange = fresh(usdt="101")
    assert brief(exchange.submit(place("a", BUY, "1", None), 5)) == ["a rejected insufficient_balance"]


def test_cancel_frees_and_says_how_it_stands() -> None:
    exchange = fresh()
    exchange.submit(place("a", BUY, "2", "101"), 5)
    cancel = Cancel(OrderId("a"), S)
    reports = exchange.submit(cancel, 6)
    assert brief(reports) == ["a canceled"]
    assert isinstance(reports[0], OrderUpdate) and reports[0].filled == 1
    assert exchange.balance(USDT)[1] == 0
    assert brief(exchange.submit(cancel, 7)) == ["a canceled already_done"]
    assert brief(exchange.submit(Cancel(OrderId("x"), S), 7)) == ["x canceled unknown_order"]
    exchange.submit(place("b", BUY, "1", "102"), 8)
    assert brief(exchange.submit(Cancel(OrderId("b"), S), 9)) == ["b filled already_done"]


def test_amend_replaces_in_one_step() -> None:
    exchange = fresh()
    exchange.submit(place("a", BUY, "9", "100", post_only=True), 5)
    amend = Amend(OrderId("a"), OrderId("b"), S, BUY, D(9), D(99))
    assert brief(exchange.submit(amend, 6)) == ["a canceled", "b open"]
    crossing = Amend(OrderId("b"), OrderId("c"), S, BUY, D(1), D(101))
    assert brief(exchange.submit(crossing, 7)) == ["b canceled", "c rejected would_cross"]
    assert brief(exchange.submit(crossing, 8)) == ["b canceled already_done", "c rejected amended_order_is_done"]
    assert exchange.balance(USDT) == (D(1000), D(0))


def test_own_quotes_in_the_way_expire() -> None:
    exchange = fresh()
    exchange.submit(place("quote", SELL, "1", "100"), 5)
    assert brief(exchange.submit(place("buy", BUY, "1", "101"), 6))[:2] == ["buy open", "quote expired self_trade_prevention"]
    assert exchange.balance(BTC)[1] == 0


def test_commands_and_news_take_their_time() -> None:
    exchange = fresh(Frictions(latency=FixedLatency(10, 5)))
    exchange.send(place("a", BUY, "1", "101"), 100)
    assert exchange.next_due == 110
    assert not exchange.advance(109) and not exchange.open_orders()
    assert not exchange.advance(110) and exchange.balances()[BTC] == 6
    assert exchange.next_due == 115
    reports = exchange.advance(115)
    assert brief(reports) == ["a open", "a fill 1@101", "a filled"]
    assert {r.stamp.at for r in reports} == {115} and exchange.next_due is None


def test_news_is_heard_with_the_market_event_of_its_moment() -> None:
    exchange = fresh(Frictions(latency=FixedLatency(10, 5)))
    exchange.send(place("a", BUY, "1", "101"), 100)
    assert exchange.on_market(trade(100, 1, SELL, at=114)) == []
    assert len(exchange.on_market(trade(100, 1, SELL, at=115))) == 3


def test_a_command_meets_the_book_of_its_arrival() -> None:
    exchange = fresh(Frictions(latency=FixedLatency(10)))
    exchange.send(place("a", BUY, "1", "103"), 100)
    assert not exchange.on_market(book([(101, 1)], [(103, 1)], at=109))
    assert brief(exchange.on_market(book([(1, 1)], [(2, 1)], at=111)))[1] == "a fill 1@103"


def test_who_acts_on_a_fact_does_not_trade_with_the_book_before_it() -> None:
    exchange = fresh()
    exchange.send(place("a", BUY, "1", "105"), 7)
    assert brief(exchange.on_market(book([(103, 1)], [(104, 1)], at=7)))[1] == "a fill 1@104"


def test_quotes_listings_and_strangers() -> None:
    exchange = fresh()
    exchange.on_market(Quote(Stamp(3), S, 3, D(98), D(1), D(100), D(2)))
    assert exchange.matcher(S).best_ask == 100
    assert exchange.on_market(Tick(Stamp(4))) == []
    assert exchange.on_market(Trade(Stamp(4), Symbol("FOO/USDT"), 4, "1", D(1), D(1), BUY)) == []
    ether = Instrument(Symbol("ETH/USDT"), Currency("ETH"), USDT, D(1), D(1))
    exchange.on_market(Listing(Stamp(5), ether))
    assert brief(exchange.submit(Place(OrderId("e"), ether.symbol, BUY, D(1), D(9)), 6)) == ["e open"]
    with pytest.raises(DataError, match="folded"):
        exchange.on_market(BookDelta(Stamp(6), S, 6, (), (), 1, 1))


def test_finished_orders_are_forgotten_in_the_end() -> None:
    exchange = fresh()
    for number in range(2 * KEEP_DONE + 1):
        exchange.submit(place(str(number), BUY, "0", "100"), number)
    assert exchange.order(OrderId("0")) is None and exchange.order(OrderId(str(2 * KEEP_DONE))) is not None


# -- stops -------------------------------------------------------------------------------------------------------------


def stop(name: str, quantity: str, trigger: str, price: str | None = None, side: Side = SELL, **rest: object) -> Place:
    return place(name, side, quantity, price, reduce_only=side is SELL, trigger_price=D(trigger), **rest)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (stop("a", "1", "100"), "would_trigger"),
        (stop("a", "1", "101"), "would_trigger"),
        (stop("a", "1", "95.5"), "price_off_tick"),
        (stop("a", "1", "NaN"), "not_finite"),
        (stop("a", "1", "-5"), "price_off_tick"),
        (stop("a", "1", "95", "94.5"), "price_off_tick"),
        (stop("a", "0.2", "95"), "below_min_notional"),
        (stop("a", "6", "95"), "insufficient_balance"),
        (stop("a", "1", "95", side=BUY), "stop_must_sell"),
        (stop("a", "1", "95", "94", post_only=True), "would_cross"),
    ],
)
def test_stops_that_are_refused(command: Place, reason: str) -> None:
    exchange = fresh()
    exchange.on_market(trade(100, 1, BUY))
    assert brief(exchange.submit(command, 5)) == [f"a rejected {reason}"]
    assert exchange.balance(BTC) == (D(5), D(0))


def test_before_the_first_trade_the_bid_says_whether_a_stop_would_trigger() -> None:
    exchange = fresh()
    assert brief(exchange.submit(stop("a", "1", "99"), 5)) == ["a rejected would_trigger"]
    assert brief(exchange.submit(stop("b", "1", "98"), 5)) == ["b open"]


def test_a_stop_sleeps_outside_the_book_and_locks_what_it_will_sell() -> None:
    exchange = fresh()
    exchange.on_market(book([(99, 1)], [(101, 1)], 4))
    exchange.submit(stop("a", "4", "95"), 5)
    assert exchange.balance(BTC) == (D(1), D(4)), "all of it, however little is displayed now"
    assert exchange.matcher(S).orders == []
    order = exchange.order(OrderId("a"))
    assert order is not None and order.asleep and order.state is OrderState.OPEN
    assert brief(exchange.submit(place("b", SELL, "2", "110"), 6)) == ["b rejected insufficient_balance"]
    assert exchange.on_market(book([(90, 5)], [(91, 5)], 7)) == [], "a book is no trade"
    assert exchange.on_market(trade(96, 1, SELL, 8)) == []
    assert exchange.on_market(trade(float("nan"), 1, SELL, 9)) == []
    assert brief(exchange.submit(Cancel(OrderId("a"), S), 10)) == ["a canceled"]
    assert exchange.balance(BTC) == (D(5), D(0))
    assert exchange.on_market(trade(95, 1, SELL, 11)) == []


def test_a_woken_market_stop_takes_what_is_there_and_the_rest_expires() -> None:
    exchange = fresh()
    exchange.submit(stop("a", "4", "97"), 5)
    exchange.on_market(book([(96, 1), (95, 2)], [(98, 1)], 6))
    heard = exchange.on_market(trade(97, 1, SELL, 7))
    assert brief(heard) == ["a open", "a fill 1@96", "a partial", "a fill 2@95", "a partial", "a expired no_liquidity"]
    assert exchange.balance(BTC) == (D(2), D(0))


def test_a_woken_limit_stop_rests_at_its_limit() -> None:
    exchange = fresh()
    exchange.submit(stop("a", "4", "97", "96"), 5)
    exchange.on_market(book([(96, 1), (95, 2)], [(98, 1)], 6))
    assert brief(exchange.on_market(trade(96, 1, SELL, 7))) == ["a open", "a fill 1@96", "a partial"]
    assert [(o.price, o.remaining) for o in exchange.matcher(S).orders] == [(D(96), D(3))]
    assert brief(exchange.on_market(trade(97, 9, BUY, 8))) == ["a fill 3@96", "a filled"]


def test_the_highest_trigger_is_reached_first() -> None:
    exchange = fresh()
    exchange.submit(stop("low", "1", "96"), 5)
    exchange.submit(stop("high", "1", "97"), 5)
    exchange.submit(stop("far", "1", "90"), 5)
    heard = [r.order_id for r in exchange.on_market(trade(95, 1, SELL, 7))]
    assert list(dict.fromkeys(heard)) == ["high", "low"]


def test_a_print_from_before_a_stop_came_does_not_wake_it() -> None:
    exchange = fresh()
    exchange.on_market(trade(100, 1, BUY, 10))
    exchange.submit(stop("a", "1", "97"), 11)
    assert exchange.on_market(trade(96, 1, SELL, 9)) == []
    assert brief(exchange.on_market(trade(96, 1, SELL, 12)))[0] == "a open"


def test_a_woken_stop_never_trades_with_an_own_bid() -> None:
    exchange = fresh()
    exchange.submit(place("bid", BUY, "1", "100"), 5)
    exchange.submit(stop("a", "1", "97"), 5)
    assert brief(exchange.on_market(trade(97, 0.1, BUY, 7))) == ["a open", "bid expired self_trade_prevention", "a fill 1@99", "a filled"]


# -- candles -----------------------------------------------------------------------------------------------------------

HOUR = 3600 * NS


def bar(number: int, opened: float, high: float, low: float, close: float, volume: float = 400) -> Bar:
    values = (D(str(v)) for v in (opened, high, low, close, volume))
    return Bar(Stamp((number + 1) * HOUR), S, number * HOUR, "1h", *values)


def with_candles(**rest: object) -> SimulatedExchange:
    frictions = Frictions(fee=NoFee(), candles=CandleBook(half_spread=D("0.01"), depth=D("0.1")), **rest)  # type: ignore[arg-type]
    return SimulatedExchange([LISTING], frictions, {USDT: D(10_000), BTC: D(50)})


def test_candles_fill_resting_orders_inside_their_range_only() -> None:
    exchange = with_candles()
    exchange.on_market(bar(0, 100, 101, 99, 100))
    exchange.submit(place("in", BUY, "1", "97"), HOUR)
    exchange.submit(place("out", BUY, "1", "95"), HOUR)
    assert brief(exchange.on_market(bar(1, 100, 103, 96, 102))) == ["in fill 1@97", "in filled"]


def test_a_command_on_its_way_meets_the_opening_of_the_next_candle() -> None:
    exchange = with_candles(latency=FixedLatency(NS))
    exchange.on_market(bar(0, 100, 101, 99, 100))
    exchange.send(place("a", BUY, "1", None), HOUR)
    assert brief(exchange.on_market(bar(1, 110, 120, 109, 120)))[1] == "a fill 1@112"


def test_acting_on_a_candle_never_trades_inside_it() -> None:
    exchange = with_candles()
    exchange.on_market(bar(0, 100, 101, 99, 100))
    exchange.send(place("a", BUY, "1", None), 2 * HOUR)
    assert brief(exchange.on_market(bar(1, 100, 130, 99, 120)))[1] == "a fill 1@122"


def test_participation_caps_what_a_candle_fills() -> None:
    exchange = with_candles()
    exchange.on_market(bar(0, 100, 101, 99, 100))
    exchange.submit(place("a", SELL, "50", "105"), HOUR)
    exchange.on_market(bar(1, 100, 110, 99, 101))
    order = exchange.order(OrderId("a"))
    assert order is not None and order.filled == D(400) * D("0.1") / 4  # the one print that goes up there


def test_without_volume_nothing_trades() -> None:
    exchange = with_candles()
    exchange.on_market(bar(0, 100, 101, 99, 100, volume=0))
    assert brief(exchange.submit(place("a", BUY, "1", None), HOUR)) == ["a rejected no_liquidity"]


def test_a_candle_that_falls_through_a_stop_sells_at_its_trigger_and_one_that_opens_below_at_the_opening() -> None:
    exchange = with_candles()
    exchange.on_market(bar(0, 100, 101, 99, 100))
    exchange.submit(stop("a", "1", "95"), HOUR)
    exchange.submit(stop("b", "1", "80"), HOUR)
    assert brief(exchange.on_market(bar(1, 99, 102, 90, 93)))[:2] == ["a open", "a fill 1@94"]
    assert brief(exchange.on_market(bar(2, 70, 75, 65, 66)))[:2] == ["b open", "b fill 1@69"]


def test_the_last_price_of_a_candle_that_nobody_traded_in_counts() -> None:
    exchange = with_candles()
    exchange.on_market(bar(0, 100, 101, 99, 100))
    assert brief(exchange.submit(stop("a", "1", "100"), HOUR)) == ["a rejected would_trigger"]
    assert brief(exchange.submit(stop("b", "1", "99"), HOUR)) == ["b open"], "at the bid, but below the last price"


@pytest.mark.parametrize("candles", [NoCandles(), CandleBook()])
def test_bars_are_no_liquidity_where_a_book_is(candles: NoCandles | CandleBook) -> None:
    exchange = fresh(Frictions(candles=candles))
    exchange.submit(place("a", BUY, "1", "90"), 5)
    assert exchange.on_market(bar(1, 50, 50, 50, 50)) == []
    assert exchange.matcher(S).best_bid == 99


def test_only_the_smallest_timeframe_moves_the_market() -> None:
    exchange = with_candles()
    minute = Bar(Stamp(HOUR), S, HOUR - 60 * NS, "1m", *(D(v) for v in (100, 100, 100, 100, 400)))
    exchange.on_market(minute)
    exchange.on_market(bar(0, 50, 50, 50, 50))
    assert exchange.matcher(S).best_bid == 99


# -- laws --------------------------------------------------------------------------------------------------------------

quantities = st.integers(1, 60).map(lambda n: D(n) / 10)
actions = st.lists(
    st.one_of(
        st.tuples(
            st.just("place"), st.sampled_from([BUY, SELL]), quantities, st.none() | st.integers(94, 106).map(D),
            st.sampled_from(["gtc", "ioc", "post"]),
        ),
        st.tuples(st.just("stop"), quantities, st.none() | st.integers(94, 99).map(D), st.integers(94, 100).map(D)),
        st.tuples(st.just("cancel"), st.integers(0, 20)),
        st.tuples(st.just("amend"), st.integers(0, 20), quantities, st.integers(94, 106).map(D)),
        st.tuples(st.just("trade"), st.integers(94, 106), quantities, st.sampled_from([BUY, SELL])),
        st.tuples(st.just("book"), st.integers(96, 104), st.lists(quantities, min_size=2, max_size=4)),
    ),
    max_size=30,
)  # fmt: skip


def live(exchange: SimulatedExchange, todo: list[tuple[Any, ...]], delayed: bool) -> list[list[Report]]:
    """One life: each action a step of time; commands travel if `delayed`, reports are gathered by step."""
    heard, placed = [], 0
    sent: dict[int, Command] = {}
    for at, (kind, *rest) in enumerate(todo, start=10):
        command: Command | None = None
        match kind, rest:
            case "place", [side, quantity, price, how]:
                command = Place(
                    OrderId(str(placed)), S, side, quantity, price,
                    time_in_force=IOC if how == "ioc" else TimeInForce.GTC, post_only=how == "post",
                )  # fmt: skip
                sent[placed], placed = command, placed + 1
            case "stop", [quantity, price, trigger]:
                command = stop(str(placed), str(quantity), str(trigger), None if price is None else str(price))
                sent[placed], placed = command, placed + 1
            case "cancel", [number]:
                command = Cancel(OrderId(str(number)), S)
            case "amend", [number, quantity, price]:
                old = sent.get(number)
                command = Amend(OrderId(str(number)), OrderId(str(placed)), S, getattr(old, "side", BUY), quantity, price)
                sent[placed], placed = command, placed + 1
            case "trade", [price, quantity, side]:
                heard.append(exchange.on_market(Trade(Stamp(at), S, at, str(at), D(price), quantity, side)))
            case "book", [centre, sizes]:
                heard.append(exchange.on_market(_around(centre, sizes, at)))
        if command is not None and delayed:
            exchange.send(command, at)
            heard.append(exchange.advance(at))
        elif command is not None:
            heard.append(exchange.submit(command, at))
        _check_money(exchange)
    heard.append(exchange.advance(10_000))
    return heard


def _around(centre: int, sizes: list[Decimal], at: int) -> BookSnapshot:
    bids = tuple((D(centre - 1 - i), q) for i, q in enumerate(sizes))
    return BookSnapshot(Stamp(at), S, at, bids, tuple((D(centre + i), q) for i, q in enumerate(sizes)))


def _check_money(exchange: SimulatedExchange) -> None:
    for currency in (USDT, BTC):
        free, locked = exchange.balance(currency)
        assert free >= 0 and locked >= 0
        side = BUY if currency == USDT else SELL
        assert locked == sum((o.locked for o in exchange.open_orders() if o.place.side is side), D(0))


@pytest.mark.parametrize("fee_currency", ["quote", "received"])
@settings(max_examples=150, deadline=None)
@given(todo=actions, delayed=st.booleans())
def test_money_moves_by_fills_and_fees_alone(fee_currency: str, todo: list[tuple[Any, ...]], delayed: bool) -> None:
    frictions = Frictions(latency=FixedLatency(3, 2) if delayed else FixedLatency(0), fee_currency=fee_currency)  # type: ignore[arg-type]
    exchange = fresh(frictions)
    reports = [report for step in live(exchange, todo, delayed) for report in step]
    expected = {USDT: D(1000), BTC: D(5)}
    limits = {}
    filled: dict[OrderId, Decimal] = {}
    for report in reports:
        if isinstance(report, OrderUpdate):
            assert report.filled is None or report.filled == filled.get(report.order_id, D(0))
            continue
        expected[BTC] += report.side.value * report.quantity
        expected[USDT] -= report.side.value * report.quantity * report.price
        expected[report.fee_currency] -= report.fee
        filled[report.order_id] = filled.get(report.order_id, D(0)) + report.quantity
        order = exchange.order(report.order_id)
        assert order is not None
        limits[report.order_id] = order.place
        place = order.place
        assert place.price is None or (report.price <= place.price if place.side is BUY else report.price >= place.price)
        assert not (place.post_only and not report.maker)
        assert filled[report.order_id] <= place.quantity
    assert exchange.balances() == expected
    for order in exchange.open_orders():
        exchange.submit(Cancel(order.place.order_id, S), 20_000)
    assert exchange.balance(USDT)[1] == exchange.balance(BTC)[1] == 0


@settings(max_examples=100, deadline=None)
@given(
    fee=st.integers(0, 10**7).map(lambda n: D(n).scaleb(-10)),
    parts=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 4)), min_size=1, max_size=30),
)
def test_a_buy_of_everything_never_overdraws(fee: Decimal, parts: list[tuple[int, int]]) -> None:
    """Many small fills, each rounding its fee up, some at better prices, out of exactly what the order locked."""
    listing = replace(LISTING, maker_fee=fee, taker_fee=fee, tick=D("0.0001"), min_notional=D(0))
    quantity = D(sum(lots for lots, _ in parts)) / 10
    price = D("101.0003")
    exchange = SimulatedExchange([listing], Frictions(), {})
    exchange.account.deposit(USDT, exchange.account.reserve(listing, BUY, quantity, price * quantity))
    asks = tuple((price - D("0.0004") + D(ticks) / 10_000, D(lots) / 10) for lots, ticks in parts[:1])
    exchange.on_market(BookSnapshot(Stamp(1), S, 1, (), asks))
    assert brief(exchange.submit(place("a", BUY, str(quantity), str(price)), 2))[0] == "a open"
    for at, (lots, _) in enumerate(parts[1:], start=3):
        exchange.on_market(Trade(Stamp(at), S, at, "1", price - 1, D(lots) / 10, SELL))
        _check_money(exchange)
    order = exchange.order(OrderId("a"))
    assert order is not None and order.state is OrderState.FILLED
    assert exchange.balance(USDT)[0] >= 0 and exchange.balance(USDT)[1] == 0


@settings(max_examples=50, deadline=None)
@given(todo=actions, delayed=st.booleans())
def test_the_same_life_is_lived_twice(todo: list[tuple[Any, ...]], delayed: bool) -> None:
    first, second = (live(fresh(Frictions(latency=FixedLatency(3, 2))), todo, delayed) for _ in range(2))
    assert first == second


@settings(max_examples=100, deadline=None)
@given(todo=actions)
def test_takers_take_no_more_than_is_displayed(todo: list[tuple[Any, ...]]) -> None:
    exchange = fresh()
    taken: dict[tuple[Side, Decimal], Decimal] = {}
    shown = {(SELL, D(101)): D(1), (SELL, D(102)): D(3), (BUY, D(99)): D(2), (BUY, D(98)): D(5)}
    steps = live(exchange, todo, delayed=False)
    for action, reports in zip(todo, steps, strict=False):
        if action[0] == "book":
            _, centre, sizes = action
            new = {(SELL, D(centre + i)): q for i, q in enumerate(sizes)}
            new |= {(BUY, D(centre - 1 - i)): q for i, q in enumerate(sizes)}
            taken = {key: quantity for key, quantity in taken.items() if new.get(key) == shown.get(key)}
            shown = new
        for fill in reports:
            if isinstance(fill, Fill) and not fill.maker:
                key = (fill.side.opposite, fill.price)
                taken[key] = taken.get(key, D(0)) + fill.quantity
                assert taken[key] <= shown[key]
