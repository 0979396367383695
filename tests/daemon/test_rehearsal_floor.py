"""Orders on the rehearsal floor: scripted market events in, what the owner and the public are told out."""

from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.events import BookSnapshot, MarketEvent, Stamp, Trade
from agents.core.instruments import Currency, Instrument, Side, Symbol
from agents.market.exchange import SimulatedExchange
from agents.market.frictions import Frictions
from daemon.rehearsal import trade_calls
from daemon.rehearsal.account import Account
from daemon.rehearsal.candles import HistoryRow
from daemon.rehearsal.errors import ApiError
from daemon.rehearsal.floor import Floor
from daemon.rehearsal.limits import Budget
from daemon.rehearsal.market import Markets
from daemon.rehearsal.protocol import Access, Params
from daemon.rehearsal.venue import Venue

BTC, USDT, SYMBOL = Currency("BTC"), Currency("USDT"), Symbol("BTC/USDT")
LISTING = Instrument(SYMBOL, BTC, USDT, tick=Decimal("0.01"), lot=Decimal("0.001"), min_notional=Decimal(5))
START = 1_700_000_000_000_000_000
REAL_MS = 1_800_000_000_000
SECOND = 1_000_000_000


class Script:
    """A source that says what it is told to say."""

    instruments = {SYMBOL: LISTING}  # noqa: RUF012 - a constant of the test
    start = START
    ended = False

    def __init__(self) -> None:
        self.due: list[MarketEvent] = []
        self.absorbed: list[tuple[Side, Decimal]] = []

    def step(self, to: int) -> Sequence[MarketEvent]:
        due, self.due = self.due, []
        return due

    def history(self, symbol: Symbol, interval: str, end_ms: int, limit: int) -> list[HistoryRow]:
        return []

    def absorb(self, symbol: Symbol, side: Side, quantity: Decimal) -> None:
        self.absorbed.append((side, quantity))


class Desk:
    """A floor with its script, the events told to the owner, and calls by their names."""

    def __init__(self) -> None:
        self.script, self.told = Script(), list[dict[str, Any]]()
        exchange = SimulatedExchange([LISTING], Frictions(fee_currency="received"), {USDT: Decimal(10_000), BTC: Decimal(5)})
        markets = Markets(self.script.instruments, self.script.start, self.script)
        account = Account(exchange, markets, lambda: REAL_MS, self.told.append, self.script.absorb)
        self.floor = Floor(self.script, exchange, markets, account)
        budget = Budget(10**9, 10**9, lambda: REAL_MS)
        self.venue = Venue(self.floor.markets, self.floor.account, budget, Access("", "", lambda: REAL_MS), lambda: REAL_MS)
        self.public = self.floor.markets.find("BTCUSDT")
        self._now = START

    def book(self, bid: str = "99.99", ask: str = "100.01", quantity: str = "2") -> None:
        self._now += SECOND
        step, size = Decimal("0.01"), Decimal(quantity)
        bids = tuple((Decimal(bid) - i * step, size) for i in range(5))
        asks = tuple((Decimal(ask) + i * step, size) for i in range(5))
        self.script.due.append(BookSnapshot(Stamp(self._now), SYMBOL, self._now, bids, asks))
        self.floor.step(self._now)

    def trade(self, price: str, quantity: str, side: Side) -> None:
        self._now += SECOND
        self.script.due.append(Trade(Stamp(self._now), SYMBOL, self._now, "1", Decimal(price), Decimal(quantity), side))
        self.floor.step(self._now)

    def place(self, side: str, quantity: str, price: str | None = None, **more: str) -> dict[str, Any]:
        given = {"symbol": "BTCUSDT", "side": side, "quantity": quantity, "type": "MARKET" if price is None else "LIMIT"}
        if price is not None:
            given |= {"price": price, "timeInForce": "GTC"}
        given |= more
        answer = trade_calls.place(self.venue, Params({name: value for name, value in given.items() if value}))
        assert isinstance(answer, dict)
        return answer

    def reports(self) -> list[tuple[str, str]]:
        return [(event["x"], event["X"]) for event in self.told if event["e"] == "executionReport"]


@pytest.fixture
def desk() -> Desk:
    made = Desk()
    made.book()
    return made


def test_a_resting_order_is_filled_by_prints_and_shares_their_ids(desk: Desk) -> None:
    """The print that fills us is split: our part under our trade id, the rest under the next."""
    order = desk.place("BUY", "1.000", "100.00")
    desk.trade("100.00", "1.5", Side.SELL)
    first, second = desk.public.prints
    assert (first.quantity, second.quantity, second.trade_id) == (Decimal(1), Decimal("0.5"), first.trade_id + 1)
    assert desk.reports() == [("NEW", "NEW"), ("TRADE", "FILLED")]
    trade = next(event for event in desk.told if event.get("x") == "TRADE")
    assert (trade["t"], trade["m"], trade["n"], trade["N"]) == (first.trade_id, True, "0.00100000", "BTC")
    assert trade["i"] == order["orderId"] and trade["T"] == REAL_MS
    assert first.buyer_is_maker and first.market_ms == START // 1_000_000 + 2000


def test_partial_fill_then_cancel(desk: Desk) -> None:
    order = desk.place("BUY", "1.000", "100.00", newClientOrderId="mine")
    desk.trade("100.00", "0.4", Side.SELL)
    named = Params({"symbol": "BTCUSDT", "origClientOrderId": "mine"})
    canceled = trade_calls.cancel(desk.venue, named)
    assert isinstance(canceled, dict)
    assert (canceled["executedQty"], canceled["status"], canceled["origClientOrderId"]) == ("0.40000000", "CANCELED", "mine")
    assert canceled["clientOrderId"] != "mine" and canceled["orderId"] == order["orderId"]
    assert desk.reports() == [("NEW", "NEW"), ("TRADE", "PARTIALLY_FILLED"), ("CANCELED", "CANCELED")]
    last = [event for event in desk.told if event["e"] == "executionReport"][-1]
    assert last["C"] == "mine" and last["c"] == canceled["clientOrderId"]
    position = desk.told[-1]
    assert position["e"] == "outboundAccountPosition"
    assert {row["a"]: (row["f"], row["l"]) for row in position["B"]} == {
        "BTC": ("5.39960000", "0.00000000"),
        "USDT": ("9960.00000000", "0.00000000"),
    }
    with pytest.raises(ApiError, match="-2011 Unknown order sent"):
        trade_calls.cancel(desk.venue, named)


def test_a_taker_walks_the_book_and_prints(desk: Desk) -> None:
    answer = desk.place("SELL", "3.000")
    assert answer["status"] == "FILLED" and answer["cummulativeQuoteQty"] == "299.96000000"
    assert [(fill["price"], fill["qty"]) for fill in answer["fills"]] == [("99.99000000", "2.00000000"), ("99.98000000", "1.00000000")]
    assert [done.trade_id for done in desk.public.prints] == [fill["tradeId"] for fill in answer["fills"]]
    assert all(done.buyer_is_maker for done in desk.public.prints)
    assert desk.script.absorbed == [(Side.SELL, Decimal(2)), (Side.SELL, Decimal(1))]


def test_fill_or_kill_and_immediate_or_cancel(desk: Desk) -> None:
    killed = desk.place("BUY", "2.001", "100.01", timeInForce="FOK")
    assert (killed["status"], killed["executedQty"]) == ("EXPIRED", "0.00000000")
    some = desk.place("BUY", "2.001", "100.01", timeInForce="IOC")
    assert (some["status"], some["executedQty"]) == ("EXPIRED", "2.00000000")
    assert desk.reports()[-2:] == [("TRADE", "PARTIALLY_FILLED"), ("EXPIRED", "EXPIRED")]


def test_a_quote_amount_buys_what_it_can_on_the_lot(desk: Desk) -> None:
    answer = desk.place("BUY", "", quoteOrderQty="250")
    assert (answer["executedQty"], answer["origQuoteOrderQty"], answer["status"]) == ("2.49900000", "250.00000000", "FILLED")


def test_post_only_and_money(desk: Desk) -> None:
    with pytest.raises(ApiError, match="-2010 Order would immediately match"):
        desk.place("BUY", "1", "100.01", type="LIMIT_MAKER", timeInForce="")
    with pytest.raises(ApiError, match="-2010 Account has insufficient balance"):
        desk.place("SELL", "5.001", "100.02")
    assert desk.told == []


def test_client_ids_are_free_again_after_the_end(desk: Desk) -> None:
    desk.place("BUY", "1", "99.00", newClientOrderId="again")
    with pytest.raises(ApiError, match="-2010 Duplicate order sent"):
        desk.place("BUY", "1", "99.00", newClientOrderId="again")
    trade_calls.cancel_all(desk.venue, Params({"symbol": "BTCUSDT"}))
    second = desk.place("BUY", "1", "99.00", newClientOrderId="again")
    found = trade_calls.status(desk.venue, Params({"symbol": "BTCUSDT", "origClientOrderId": "again"}))
    assert isinstance(found, dict) and found["orderId"] == second["orderId"]


@pytest.mark.parametrize(("mode", "attempted"), [("STOP_ON_FAILURE", "NOT_ATTEMPTED"), ("ALLOW_FAILURE", "SUCCESS")])
def test_replacing_an_order_that_is_gone(desk: Desk, mode: str, attempted: str) -> None:
    given = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "1", "price": "99"}
    request = Params({**given, "cancelReplaceMode": mode, "cancelOrderId": "5"})
    with pytest.raises(ApiError) as refusal:
        trade_calls.cancel_replace(desk.venue, request)
    assert refusal.value.code == (-2022 if mode == "STOP_ON_FAILURE" else -2021)
    assert refusal.value.data is not None and refusal.value.data["newOrderResult"] == attempted


moves = st.one_of(
    st.tuples(st.just("place"), st.sampled_from(["BUY", "SELL"]), st.integers(1, 4000), st.integers(-6, 6)),
    st.tuples(st.just("market"), st.sampled_from(["BUY", "SELL"]), st.integers(1, 4000), st.just(0)),
    st.tuples(st.just("trade"), st.sampled_from(["BUY", "SELL"]), st.integers(1, 5000), st.integers(-4, 4)),
    st.tuples(st.just("book"), st.just(""), st.integers(100, 4000), st.integers(-5, 5)),
    st.tuples(st.just("cancel"), st.just(""), st.just(0), st.just(0)),
)


@given(st.lists(moves, max_size=25))
@settings(max_examples=60, deadline=None)
def test_money_trades_and_prints_agree(script: list[tuple[str, str, int, int]]) -> None:
    """Balances are opening plus own trades less commissions; every own trade is one public print; print ids are contiguous."""
    desk = Desk()
    desk.book()
    for what, side, size, offset in script:
        quantity, price = str(Decimal(size) / 1000), str(Decimal(100) + Decimal(offset) / 100)
        with suppress(ApiError):  # such as filters and money: a refused request must leave no trace
            if what == "place":
                desk.place(side, quantity, price)
            elif what == "market":
                desk.place(side, quantity)
            elif what == "trade":
                desk.trade(price, quantity, Side[side])
            elif what == "book":
                bid = Decimal(100) + Decimal(offset) / 100
                desk.book(str(bid), str(bid + Decimal("0.02")), quantity)
            else:
                trade_calls.cancel_all(desk.venue, Params({"symbol": "BTCUSDT"}))
    money = {BTC: Decimal(5), USDT: Decimal(10_000)}
    trades = desk.floor.account.trades("BTCUSDT")
    for trade in trades:
        sign = 1 if trade.is_buyer else -1
        money[BTC] += sign * trade.quantity
        money[USDT] -= sign * trade.quantity * trade.price
        money[trade.commission_asset] -= trade.commission
    held = {currency: free + locked for currency, free, locked in desk.floor.account.balances()}
    assert held == money
    assert all(free >= 0 and locked >= 0 for _, free, locked in desk.floor.account.balances())
    prints = {done.trade_id: done for done in desk.public.prints}
    assert list(prints) == list(range(min(prints, default=0), min(prints, default=0) + len(prints)))
    for trade in trades:
        assert (prints[trade.trade_id].price, prints[trade.trade_id].quantity) == (trade.price, trade.quantity)
        assert prints[trade.trade_id].buyer_is_maker == (trade.is_buyer == trade.is_maker)
    reported = [event["t"] for event in desk.told if event.get("x") == "TRADE"]
    assert reported == [trade.trade_id for trade in trades]
    for order in desk.floor.account.orders("BTCUSDT"):
        assert order.filled == sum((t.quantity for t in trades if t.order_id == order.order_id), Decimal(0))
        assert order.open == (order in desk.floor.account.open_orders())
