"""Book and print features: running sums equal their definitions over all messages, and mean what their names say."""

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.events import BookSnapshot, Stamp
from agents.core.instruments import NS, Symbol
from agents.market.book import Book
from agents.market.columns import DEPTH_COLUMNS, FLOW_COLUMNS
from agents.market.flow import GRID, Flow, intensity

F = {name: number for number, name in enumerate(FLOW_COLUMNS)}
D = {name: number - 2 for number, name in enumerate(DEPTH_COLUMNS)}
START = 1_600_000_000 * NS
PRINTS = st.lists(
    st.tuples(st.floats(0, 20), st.floats(90, 110), st.floats(0.01, 10), st.sampled_from([-1, 1])), min_size=1, max_size=40
)
BOOKS = st.lists(
    st.tuples(st.floats(0.05, 3), st.integers(9900, 10100), st.floats(0.1, 9), st.integers(1, 20), st.floats(0.1, 9)),
    min_size=2,
    max_size=60,
)


def book_of(bid=99.0, ask=101.0, bid_size=2.0, ask_size=2.0, levels=10):
    sides = [
        tuple((Decimal(str(price + sign * step)), Decimal(str(size))) for step in range(levels))
        for price, size, sign in ((bid, bid_size, -1), (ask, ask_size, 1))
    ]
    book = Book()
    book.apply(BookSnapshot(Stamp(START), Symbol("A/USDT"), START, sides[0], sides[1]))
    return book


def show(flow, book, now=START, at=START, fallback=1e-4):
    return flow.columns(book, now, at, fallback)


@settings(max_examples=60)
@given(PRINTS)
def test_print_sums_by_definition(prints):
    """Batch twin: each sum is sum of x exp(-(T - t) / tau)."""
    flow, times, time = Flow(), [], START
    for pause, price, quantity, sign in prints:
        time += int(pause * NS)
        times.append(time)
        flow.on_trade(time, price, quantity, sign)
    notional = np.array([price * quantity for _, price, quantity, _ in prints])
    signs = np.array([sign for *_, sign in prints])
    ages = (time - np.array(times)) / NS
    for tau, signed, total in ((5, flow.signed_5, flow.total_5), (30, flow.signed_30, flow.total_30), (60, flow.signed_60, flow.total_60)):
        weights = np.exp(-ages / tau)
        assert signed == pytest.approx(float(weights @ (signs * notional)), rel=1e-9, abs=1e-9)
        assert total == pytest.approx(float(weights @ notional), rel=1e-9)
    assert flow.buys + flow.sells == pytest.approx(float(np.exp(-ages / 60).sum()), rel=1e-9)


@settings(max_examples=60)
@given(BOOKS)
def test_book_sums_by_definition(updates):
    """Batch twin of spread, order-flow imbalance (Cont, Kukanov, Stoikov 2014) and volatility on a grid of a second or more."""
    flow, rows, time = Flow(), [], START
    for pause, bid, bid_size, width, ask_size in updates:
        time += int(pause * NS)
        row = (time, bid / 100, bid_size, (bid + width) / 100, ask_size)
        rows.append(row)
        flow.on_book(*row)
    times, bids, bid_sizes, asks, ask_sizes = (np.array(column) for column in zip(*rows, strict=True))
    mids, ages = (bids + asks) / 2, (time - times) / NS
    flows = (
        (bids[1:] >= bids[:-1]) * bid_sizes[1:] - (bids[1:] <= bids[:-1]) * bid_sizes[:-1]
        - (asks[1:] <= asks[:-1]) * ask_sizes[1:] + (asks[1:] >= asks[:-1]) * ask_sizes[:-1]
    )  # fmt: skip
    assert flow.ofi == pytest.approx(float(np.exp(-ages[1:] / 10) @ flows), rel=1e-9, abs=1e-9)
    lengths = np.diff(times) / NS
    stood = np.exp(-ages[1:] / 60) * (1 - np.exp(-lengths / 60))
    spreads = (asks - bids)[:-1] / 2 / mids[:-1]
    assert flow.spread == pytest.approx(float(stood @ spreads / stood.sum()), rel=1e-9)
    grid = [0]
    for number in range(len(rows)):
        if times[number] - times[grid[-1]] >= NS:
            grid.append(number)
    if len(grid) > 1:
        seconds, moves = np.diff(times[grid]) / NS, np.diff(np.log(mids[grid]))
        kept = np.exp(-(times[grid[-1]] - times[grid[1:]]) / NS / 90) * (1 - np.exp(-seconds / 90))
        assert flow.square == pytest.approx(float(kept @ (moves**2 / seconds) / kept.sum()), rel=1e-9, abs=1e-18)


def test_columns_without_a_book_are_neutral():
    flow, book = Flow(), Book()
    row = show(flow, book)
    assert len(row) == len(FLOW_COLUMNS) and np.isfinite(row).all()
    assert row[F["half_spread"]] == 5e-4 and row[F["volatility_1s"]] == pytest.approx(1e-4) and row[F["book_trusted"]] == 0
    assert flow.depths(book, START, 0.01, 1e-4) == (0.0,) * (len(DEPTH_COLUMNS) - 2)


def test_the_microprice_leans_to_the_thin_side():
    flow = Flow()
    flow.on_book(START, 99.0, 9.0, 101.0, 1.0)
    book = book_of(bid_size=9.0, ask_size=1.0)
    assert show(flow, book)[F["microprice_offset"]] == pytest.approx((99 * 1 + 101 * 9) / 10 / 100 - 1)
    depth = flow.depths(book, START, 0.5, 1e-4)
    assert depth[D["imbalance_1"]] == depth[D["imbalance_10"]] == pytest.approx(0.8)
    assert depth[D["bid_distance_2"]] == pytest.approx(0.02) and depth[D["ask_distance_10"]] == pytest.approx(0.10)
    assert depth[D["bid_depth_5"]] == pytest.approx(np.log1p(45 * 100)) and depth[D["spread_ticks"]] == 4
    assert depth[D["tick_fraction"]] == 0.005


def test_a_short_book_repeats_its_last_level():
    flow = Flow()
    flow.on_book(START, 99.0, 2.0, 101.0, 2.0)
    depth = flow.depths(book_of(levels=2), START, 0.0, 1e-4)
    assert depth[D["bid_distance_10"]] == depth[D["bid_distance_2"]] and depth[D["spread_ticks"]] == 0


def test_markouts_are_the_makers_loss():
    """Prices that follow the aggressor cost the maker; prices that return do not count below zero."""
    follows, returns = Flow(), Flow()
    for flow, after in ((follows, 100.1), (returns, 99.9)):
        time = START
        for _ in range(200):
            flow.on_book(time, 99.0, 1.0, 101.0, 1.0)
            flow.on_trade(time, 101.0, 1.0, 1)
            time += 5 * NS
            flow.on_book(time, after - 1, 1.0, after + 1, 1.0)
            time += NS
    assert follows.adverse() == pytest.approx(1e-3, rel=0.15) and returns.adverse() == 0


def test_markouts_wait_their_time_and_are_bounded():
    flow = Flow()
    flow.on_book(START, 99.0, 1.0, 101.0, 1.0)
    for _ in range(2000):
        flow.on_trade(START, 101.0, 1.0, 1)
    assert len(flow.pending) == 512
    flow.on_book(START + 4 * NS, 100.0, 1.0, 102.0, 1.0)
    assert flow.markout == 0 and len(flow.pending) == 512
    flow.on_book(START + 5 * NS, 100.0, 1.0, 102.0, 1.0)
    assert flow.markout > 0 and not flow.pending


def test_volatility_of_a_random_walk():
    rng, flow = np.random.default_rng(0), Flow()
    for second, mid in enumerate(100 * np.exp(np.cumsum(rng.normal(0, 2e-4, 2000)))):
        flow.on_book(START + second * NS, mid - 0.01, 1.0, mid + 0.01, 1.0)
    assert flow.volatility_1s(1e-2) > flow.volatility_1s(1e-9)
    assert flow.square == pytest.approx(4e-8, rel=0.4)
    assert flow.square_10 == pytest.approx(4e-8, rel=0.5)


def test_returns_look_back_over_the_samples():
    flow = Flow()
    for second in range(40):
        flow.on_book(START + second * NS, 99.0 + second, 1.0, 101.0 + second, 1.0)
    depth = flow.depths(book_of(), START + 39 * NS, 0.01, 1e-4)
    assert depth[D["return_1s"]] == pytest.approx(np.log(139 / 138)) and depth[D["return_30s"]] == pytest.approx(np.log(139 / 109))


def test_toxicity_rises_when_flow_turns_one_sided():
    flow, time = Flow(), START
    rng = np.random.default_rng(1)
    for second in range(1200):
        time += NS
        flow.on_book(time, 99.0, 1.0, 101.0, 1.0)
        for _ in range(3):
            flow.on_trade(time, 100.0, float(rng.gamma(1)), 1 if second > 1120 or rng.random() < 0.5 else -1)
    row = show(flow, book_of(), now=time)
    assert row[F["toxicity_z"]] > 2 and row[F["trade_imbalance_1m"]] > 0.5 and row[F["trade_flow"]] > 0


def test_rates_fade_while_nothing_is_printed():
    flow = Flow()
    for second in range(600):
        flow.on_trade(START + second * NS, 100.0, 1.0, 1)
    now = START + 599 * NS
    assert show(flow, Book(), now=now)[F["trade_rate"]] == pytest.approx(1.0, rel=0.02)
    assert show(flow, Book(), now=now + 600 * NS)[F["trade_rate"]] < 1e-3


@pytest.mark.parametrize(("a", "k"), [(0.5, 1500.0), (2.0, 4000.0), (0.05, 800.0)])
def test_intensity_is_recovered(a, k):
    """Windows drawn from the law itself: P(reached d in T) = 1 - exp(-A T exp(-k d))."""
    windows, length = 40_000, 2.0
    draws = -np.log(1 - np.random.default_rng(2).random(windows))
    reach = np.log(a * length / draws) / k
    hits = (reach[:, None] >= GRID).sum(0).astype(float)
    fitted = intensity(hits[None], np.array([float(windows)]), np.array([windows * length]))
    assert fitted[0][0] == pytest.approx(a, rel=0.1) and fitted[1][0] == pytest.approx(k, rel=0.1)


def test_intensity_without_windows_is_the_stated_one():
    a, k = intensity(np.zeros((2, len(GRID))), np.zeros(2), np.zeros(2))
    assert np.allclose(a, 0.1) and np.allclose(k, 2000)


def test_windows_count_excursions_on_both_sides():
    flow = Flow()
    flow.on_book(START, 99.99, 1.0, 100.01, 1.0)
    flow.on_trade(START, 100.0, 1.0, 1)
    flow.on_book(START + NS, 99.99, 1.0, 100.01, 1.0)  # a first whole window begins here
    flow.on_trade(START + NS, 100.055, 1.0, 1)
    flow.on_trade(START + NS, 99.975, 1.0, -1)
    before = flow.hits.copy()
    flow.on_book(START + 2 * NS, 99.99, 1.0, 100.01, 1.0)
    keep = np.exp(-1 / 600)
    reached = (GRID <= 5.5e-4).astype(float) + (GRID <= 2.5e-4)
    np.testing.assert_allclose(flow.hits - before * keep, reached, atol=1e-12)
    assert flow.window_weight == pytest.approx(2 * keep + 2)


def test_a_long_silence_says_nothing_of_intensity():
    flow = Flow()
    for time in (START, START + NS, START + 60 * NS):
        flow.on_book(time, 99.99, 1.0, 100.01, 1.0)
        flow.on_trade(time, 100.05, 1.0, 1)
    assert flow.window_weight == 2.0 and flow.seconds == 60.0
