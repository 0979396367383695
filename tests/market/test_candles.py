"""A candle told as a market says what the candle says."""

from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.events import Bar, BookSnapshot, Stamp, Trade
from agents.core.instruments import NS, Currency, Instrument, Symbol
from agents.market.candles import candle_book, candle_events, candle_path, candle_prints
from agents.market.frictions import CandleBook

D = Decimal
S = Symbol("BTC/USDT")
BTC = Instrument(S, Currency("BTC"), Currency("USDT"), D("0.1"), D("0.001"))
prices = st.integers(1, 10_000).map(lambda n: D(n) / 10)


@st.composite
def bars(draw: st.DrawFn) -> Bar:
    values = [draw(prices) for _ in range(4)]
    volume = D(draw(st.integers(0, 10_000))) / 100
    return Bar(Stamp(0), S, 3600 * NS * draw(st.integers(0, 99)), "1h", values[0], max(values), min(values), values[3], volume)


@given(bars())
def test_the_prints_are_the_candle(bar: Bar) -> None:
    events = candle_events(bar, BTC)
    prints = [e for e in events if isinstance(e, Trade)]
    if prints:
        assert (prints[0].price, prints[-1].price) == (bar.open, bar.close)
        assert (max(p.price for p in prints), min(p.price for p in prints)) == (bar.high, bar.low)
        assert bar.volume - 4 * BTC.lot < sum(p.quantity for p in prints) <= bar.volume
    assert [e.stamp.at for e in events] == sorted(e.stamp.at for e in events)
    assert events[-1] == Bar(Stamp(bar.time + 3600 * NS), *[getattr(bar, n) for n in Bar.__slots__[1:]])
    assert all(bar.time <= e.time < bar.time + 3600 * NS for e in events)
    assert len({p.trade_id for p in prints}) == len(prints)


@given(centre=prices, volume=st.integers(0, 1000).map(D))
def test_the_book_is_around_the_price(centre: Decimal, volume: Decimal) -> None:
    book = candle_book(S, 5, centre, volume, BTC, CandleBook(levels=4))
    assert isinstance(book, BookSnapshot)
    if not volume:
        assert book.bids == book.asks == ()
        return
    assert all(bid < centre for bid, _ in book.bids) and all(ask > centre for ask, _ in book.asks)
    for side, sign in ((book.bids, -1), (book.asks, 1)):
        assert all(sign * (b[0] - a[0]) > 0 for a, b in pairwise(side))
        assert sum(q for _, q in side) <= volume * CandleBook().depth
        assert all(p > 0 and p % BTC.tick == 0 and q % BTC.lot == 0 for p, q in side)


@pytest.mark.parametrize(("close", "path"), [("11", ["10", "8", "12", "11"]), ("9", ["10", "12", "8", "9"])])
def test_the_nearer_extreme_comes_first(close: str, path: list[str]) -> None:
    bar = Bar(Stamp(0), S, 0, "1h", D(10), D(12), D(8), D(close), D(4))
    assert [price for price, _ in candle_path(bar)] == [D(p) for p in path]


def test_a_share_of_the_volume() -> None:
    bar = Bar(Stamp(0), S, 0, "1h", D(10), D(12), D(8), D(11), D(4))
    assert [p.quantity for p in candle_prints(bar, BTC, D("0.1"))] == [D("0.1")] * 4
    assert candle_prints(bar, BTC, D("0.0001")) == []
