"""The synthetic market: determined by its seed, sane, correlated, clustered, and kind enough to patient quotes."""

import time
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.errors import ConfigError, DataError
from agents.core.events import BookSnapshot, Fill, MarketEvent, Trade
from agents.core.instruments import NS, TIMEFRAMES, Currency, Side, Symbol
from agents.core.orders import Cancel, OrderId, Place
from agents.market.exchange import SimulatedExchange
from agents.market.frictions import Frictions, NoFee
from agents.market.synthetic import SyntheticMarket
from agents.market.synthetic_assets import KNOWN

D = Decimal
ALL = tuple(KNOWN)
BTC = Symbol("BTC/USDT")
START = 1_760_000_000 * NS + 123_456_789
"""In the middle of a minute, to be unkind."""


def market(seed: int = 7, symbols: tuple[str, ...] = ALL, days: int = 1, **rest: float) -> SyntheticMarket:
    return SyntheticMarket(symbols, seed, START, history_days=days, **rest)  # type: ignore[arg-type]


def run(market: SyntheticMarket, seconds: int, step_s: float = 6.0) -> list[MarketEvent]:
    events: list[MarketEvent] = []
    for number in range(1, int(seconds / step_s) + 1):
        events += market.step(START + int(number * step_s * NS))
    return events


@pytest.fixture(scope="module")
def hour() -> list[MarketEvent]:
    return run(market(), 3600)


def middles(events: list[MarketEvent]) -> dict[Symbol, np.ndarray]:
    books: dict[Symbol, list[float]] = {}
    for e in events:
        if isinstance(e, BookSnapshot):
            books.setdefault(e.symbol, []).append(float(e.bids[0][0] + e.asks[0][0]) / 2)
    return {symbol: np.array(values) for symbol, values in books.items()}


def test_the_seed_decides_everything() -> None:
    first, second, other = (run(market(seed), 120) for seed in (7, 7, 8))
    assert first == second
    assert first != other
    assert market(7).history(BTC, "1h") == market(7).history(BTC, "1h") != market(8).history(BTC, "1h")


@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(1, 60_000), max_size=12))
def test_how_it_is_stepped_does_not_matter(cuts: list[int]) -> None:
    whole, cut = market(symbols=("BTC/USDT", "ETH/USDT"), days=1), market(symbols=("BTC/USDT", "ETH/USDT"), days=1)
    events = [e for ms in sorted(set(cuts)) for e in cut.step(START + ms * 1_000_000)] + cut.step(START + 61 * NS)
    once = whole.step(START + 61 * NS)
    assert [e for e in events if isinstance(e, Trade)] == [e for e in once if isinstance(e, Trade)]
    assert events[-2:] == once[-2:]


def test_time_that_stands_still_brings_nothing() -> None:
    m = market()
    assert m.step(START) == []
    assert m.step(START + NS)
    assert m.step(START + NS) == []


def test_events_are_in_order_and_on_the_grid(hour: list[MarketEvent]) -> None:
    instruments, last, ids = market().instruments, 0, dict.fromkeys(map(Symbol, ALL), 0)
    for e in hour:
        assert e.stamp.at == e.time >= last
        last = e.stamp.at
        instrument = instruments[e.symbol]
        if isinstance(e, Trade):
            assert e.price > 0 and e.price % instrument.tick == 0
            assert e.quantity > 0 and e.quantity % instrument.lot == 0
            assert int(e.trade_id) == ids[e.symbol] + 1
            ids[e.symbol] += 1
        elif isinstance(e, BookSnapshot):
            assert len(e.bids) == len(e.asks) == 20
            assert e.bids[0][0] < e.asks[0][0]
            assert all(a[0] > b[0] > 0 for a, b in pairwise(e.bids)) and all(a[0] < b[0] for a, b in pairwise(e.asks))
            assert all(q > 0 and q % instrument.lot == 0 and p % instrument.tick == 0 for p, q in e.bids + e.asks)


def test_spreads_are_a_few_ticks_or_basis_points(hour: list[MarketEvent]) -> None:
    instruments = market().instruments
    for e in hour:
        if isinstance(e, BookSnapshot):
            spread = e.asks[0][0] - e.bids[0][0]
            assert spread <= max(3 * instruments[e.symbol].tick, D("0.0006") * e.asks[0][0])


def test_levels_stay_between_snapshots() -> None:
    books = [e for e in run(market(), 60, 0.1) if isinstance(e, BookSnapshot) and e.symbol == BTC]
    kept = [len(set(a.bids) & set(b.bids)) for a, b in pairwise(books)]
    assert np.mean(kept) > 18


def test_prices_move_as_much_as_they_should(hour: list[MarketEvent]) -> None:
    for p in middles(hour).values():
        assert abs(np.log(p[-1] / p[0])) < 0.1
        assert 1e-4 < np.std(np.diff(np.log(p[::10]))) < 5e-3


def test_coins_move_together_and_nothing_runs_away() -> None:
    m = market(symbols=("BTC/USDT", "ETH/USDT"), trade_rate=0.2)
    prices = middles([e for n in range(1, 145) for e in m.step(START + n * 300 * NS) if isinstance(e, BookSnapshot)])
    returns = [np.diff(np.log(p)) for p in prices.values()]
    assert np.corrcoef(returns)[0, 1] > 0.3
    assert all(abs(np.log(p[-1] / p[0])) < 0.3 for p in prices.values())


def test_prints_come_in_bursts_and_their_side_persists(hour: list[MarketEvent]) -> None:
    trades = [e for e in hour if isinstance(e, Trade) and e.symbol == BTC]
    assert 2000 < len(trades) < 6500
    counts = np.bincount([(t.time - START) // (5 * NS) for t in trades], minlength=720)
    assert counts.var() > 1.4 * counts.mean()  # a Poisson process has 1
    sides = np.array([t.side.value for t in trades])
    assert np.mean(sides[1:] * sides[:-1]) > 0.1
    assert 0.4 < np.mean(sides > 0) < 0.6


def test_echoes_cross_the_borders_of_blocks(hour: list[MarketEvent]) -> None:
    seconds = np.array([(e.time - START) // NS % 10 for e in hour if isinstance(e, Trade)])
    assert np.mean(seconds < 2) == pytest.approx(np.mean(seconds >= 8), rel=0.1)


def test_the_trade_rate_is_a_parameter() -> None:
    counts = [sum(isinstance(e, Trade) for e in run(market(trade_rate=rate), 60)) for rate in (1.0, 20.0)]
    assert 10 < counts[1] / counts[0] < 40


def test_past_and_present_join() -> None:
    m = market()
    last = m.history(BTC, "1m")[-1]
    book = next(e for e in m.step(START + NS) if isinstance(e, BookSnapshot))
    assert float(book.bids[0][0]) == pytest.approx(last[4], rel=0.003)
    assert last[0] * 1_000_000 + 60 * NS == START - START % (60 * NS)


@pytest.mark.parametrize("timeframe", ["1m", "5m", "15m", "1h", "4h", "1d"])
def test_history_is_on_the_grid_and_consistent(timeframe: str) -> None:
    m = market(days=3)
    length_ms = TIMEFRAMES[timeframe] // 1_000_000
    rows = m.history(BTC, timeframe)
    minutes = m.history(BTC, "1m", limit=10**6)
    assert len(minutes) == 3 * 1440
    assert [row[0] for row in rows] == list(range(rows[0][0], rows[-1][0] + 1, length_ms)) and rows[0][0] % length_ms == 0
    for open_ms, opened, high, low, close, volume in rows[-3:]:
        inside = [r for r in minutes if open_ms <= r[0] < open_ms + length_ms]
        assert (opened, close) == (inside[0][1], inside[-1][4])
        assert (high, low) == (max(r[2] for r in inside), min(r[3] for r in inside))
        assert volume == pytest.approx(sum(r[5] for r in inside))
        assert low <= min(opened, close) <= max(opened, close) <= high


def test_history_ends_before_its_end() -> None:
    m = market(days=3)
    rows = m.history(BTC, "1h")
    end = rows[-2][0] * 1_000_000
    assert m.history(BTC, "1h", end=end, limit=5) == rows[-7:-2]
    assert m.history(BTC, "1h", end=end + 1, limit=5) == rows[-6:-1]
    assert m.history(BTC, "1h", end=0) == [] == m.history(BTC, "1h", limit=0)
    with pytest.raises(DataError, match="1s"):
        m.history(BTC, "1s")


def test_hourly_returns_are_fat_tailed_and_clustered() -> None:
    returns = np.diff(np.log([row[4] for row in market(days=120).history(BTC, "1h", limit=5000)]))
    assert 0.25 < returns.std() * np.sqrt(8766) < 0.8
    centred = returns - returns.mean()
    assert np.mean(centred**4) / centred.var() ** 2 > 3.7
    size = np.abs(centred)
    assert np.corrcoef(size[1:], size[:-1])[0, 1] > 0.05


def test_absorbing_an_order_moves_the_price_and_most_of_it_comes_back() -> None:
    moved = []
    for quantity in (D(0), D(50)):
        m = market(symbols=("BTC/USDT",))
        m.step(START + NS)
        if quantity:
            m.absorb(BTC, Side.BUY, quantity)
        moved.append([float(m.step(START + s * NS)[-1].asks[0][0]) for s in (2, 300)])  # type: ignore[union-attr]
    soon, late = np.array(moved[1]) / np.array(moved[0]) - 1
    assert soon > 0.0005 and 0 < late < 0.5 * soon


@pytest.mark.parametrize("symbols", [("FOO/USDT",), (), ("BTC/USDT", "BTC/USDT")])
def test_unknown_symbols_are_named(symbols: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"exchange\.symbols"):
        market(symbols=symbols)


def test_quotes_of_five_basis_points_are_filled_on_both_sides() -> None:
    """Post-only quotes around the middle, moved once a market minute, small against the flow."""
    m = market(symbols=("BTC/USDT", "SOL/USDT"))
    exchange = SimulatedExchange(m.instruments.values(), Frictions(fee=NoFee()), {Currency("USDT"): D(100_000)})
    for currency in ("BTC", "SOL"):
        exchange.account.deposit(Currency(currency), D(100))
    fills: dict[tuple[Symbol, Side], int] = {}
    number = 0
    for step in range(1, 601):
        now = START + step * 6 * NS
        for e in m.step(now):
            for report in exchange.on_market(e):
                if isinstance(report, Fill):
                    fills[report.symbol, report.side] = fills.get((report.symbol, report.side), 0) + 1
            if isinstance(e, BookSnapshot) and step % 10 == 1:
                for order in exchange.open_orders(e.symbol):
                    exchange.submit(Cancel(order.place.order_id, e.symbol), now)
                instrument, middle = m.instruments[e.symbol], (e.bids[0][0] + e.asks[0][0]) / 2
                for side in Side:
                    number += 1
                    price = instrument.round_outward(middle * (1 - side.value * D("0.0005")), side)
                    quantity = instrument.round_quantity(D(200) / price)
                    exchange.submit(Place(OrderId(str(number)), e.symbol, side, quantity, price, post_only=True), now)
    assert len(fills) == 4 and min(fills.values()) >= 5, fills


def test_building_and_stepping_are_quick() -> None:
    """In processor time, bounds several times above what is needed."""
    begun = time.process_time()
    m = market(days=120)
    assert time.process_time() - begun < 3.0
    steps = []
    for number in range(1, 101):
        begun = time.process_time()
        m.step(START + number * 6 * NS)
        steps.append(time.process_time() - begun)
    assert np.median(steps) < 0.003
