"""Bars out of prints, bars out of bars, and repairs: every way leads to the same candles."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.instruments import NS, TIMEFRAMES
from agents.market.bars import CHAIN, Bars, Ring, Row

MINUTE = 60 * NS
HOUR = 60 * MINUTE
START = 1_599_955_200 * NS  # midnight


def row(number, close=1.0, length=MINUTE, volume=1.0):
    return Row(START + number * length, close, close + 1, close - 0.5, close, volume)


def test_prints_make_minutes():
    bars = Bars()
    for second, price in ((0, 10.0), (10, 12.0), (59, 11.0), (60, 13.0), (200, 9.0)):
        assert bars.trade(START + second * NS, price, 2.0)
    bars.close_until(START + 4 * MINUTE)
    assert bars["1m"].time.tolist() == [START, START + MINUTE, START + 3 * MINUTE]
    assert bars["1m"].values.tolist() == [[10, 12, 10, 11, 6], [13, 13, 13, 13, 2], [9, 9, 9, 9, 2]]


def test_a_late_print_changes_the_kept_bar_and_touches_nothing_that_was_seen():
    bars = Bars()
    bars.trade(START, 10.0, 1.0)
    bars.close_until(START + MINUTE)
    bars.touched.clear()
    assert not bars.trade(START + 30 * NS, 14.0, 1.0)
    assert bars["1m"].values.tolist() == [[10, 14, 10, 14, 2]] and not bars.touched


def test_the_exchange_repairs_ours_and_ours_never_its():
    bars = Bars()
    bars.trade(START, 10.0, 1.0)
    bars.close_until(START + MINUTE)
    assert bars.put("1m", row(0, 20.0)) == "repaired"
    bars.trade(START + MINUTE, 30.0, 1.0)
    assert bars.put("1m", row(1, 21.0)) == "appended"
    bars.close_until(START + 2 * MINUTE)
    assert bars["1m"].close.tolist() == [20.0, 21.0]
    assert bars.put("1m", row(1, 21.0)) == "same"


def test_a_repair_reaches_the_longer_bars():
    bars = Bars()
    for number in range(60):
        bars.trade(START + number * MINUTE, 10.0, 1.0)
    bars.close_until(START + HOUR)
    assert len(bars["15m"]) == 4 and bars["1h"].high.tolist() == [10.0]
    bars.touched.clear()
    bars.put("1m", Row(START + 20 * MINUTE, 10.0, 50.0, 10.0, 10.0, 1.0))
    assert bars["15m"].high.tolist() == [10, 50, 10, 10] and bars["1h"].high.tolist() == [50.0]
    assert bars.touched == {"1m": START + 20 * MINUTE, "5m": START + 20 * MINUTE, "15m": START + 15 * MINUTE, "1h": START}


def test_the_exchanges_longer_bar_stands_over_the_sum():
    bars = Bars()
    bars.put("1h", row(0, 5.0, HOUR, volume=999.0))
    for number in range(60):
        bars.put("1m", row(number, 10.0))
    assert bars["1h"].volume.tolist() == [999.0] and bars["15m"].volume.tolist() == [15.0] * 4


def test_history_that_comes_late_is_put_in_its_place():
    bars = Bars()
    for number in (5, 3, 4, 0):
        bars.put("1m", row(number, float(number + 1)))
    assert bars["1m"].close.tolist() == [1.0, 4.0, 5.0, 6.0]
    assert bars["1m"].last == row(5, 6.0)


def test_a_hole_closes_the_longer_bar_with_what_there_is():
    bars = Bars()
    bars.put("1m", row(3, 7.0))
    bars.close_until(START + 14 * MINUTE)
    assert len(bars["15m"]) == 0
    bars.close_until(START + 15 * MINUTE)
    assert bars["15m"].values.tolist() == [[7.0, 8.0, 6.5, 7.0, 1.0]]
    bars.put("1m", row(40, 9.0))
    assert bars["15m"].time.tolist() == [START]


def test_hours_alone_make_days():
    bars = Bars()
    for number in range(48):
        bars.put("1h", row(number, float(number + 1), HOUR))
    assert bars["1d"].close.tolist() == [24.0, 48.0] and bars["1d"].volume.tolist() == [24.0, 24.0]
    assert bars["4h"].open.tolist()[:3] == [1.0, 5.0, 9.0] and len(bars["15m"]) == 0


def test_a_ring_is_bounded_and_ordered():
    ring = Ring(MINUTE, 5)
    for number in range(23):
        ring.put(row(number, float(number + 1)), True)
    assert ring.close.tolist() == [19.0, 20.0, 21.0, 22.0, 23.0] and len(ring) == 5
    assert ring.put(row(0), True) == "ignored"
    assert [r.close for r in ring.since(START + 21 * MINUTE)] == [22.0, 23.0]
    assert ring.first == START + 18 * MINUTE


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3 * 86_400), st.integers(1, 50)), min_size=1, max_size=120), st.booleans())
def test_every_longer_bar_is_the_sum_of_its_prints(prints, stepwise):
    """Whatever the gaps between prints, each bar of each timeframe equals the one made from its prints directly."""
    prints = sorted(prints, key=lambda pair: pair[0])
    bars = Bars()
    for second, price in prints:
        if stepwise:
            bars.close_until(START + second * NS // MINUTE * MINUTE)
        bars.trade(START + second * NS, float(price), 1.0)
    bars.close_until(START + 4 * 86_400 * NS)
    for timeframe in CHAIN:
        length = TIMEFRAMES[timeframe]
        buckets: dict[int, list[float]] = {}
        for second, price in prints:
            time = START + second * NS
            buckets.setdefault(time - time % length, []).append(float(price))
        assert bars[timeframe].time.tolist() == list(buckets)
        expected = [[p[0], max(p), min(p), p[-1], len(p)] for p in buckets.values()]
        np.testing.assert_allclose(bars[timeframe].values, expected)


@settings(max_examples=40)
@given(st.permutations(list(range(40))), st.integers(3, 50))
def test_any_order_of_arrival_gives_the_same_ring(order, capacity):
    ring = Ring(MINUTE, capacity)
    for number in order:
        ring.put(row(number, float(number + 1)), True)
    kept = ring.close.tolist()
    assert kept == sorted(kept) and len(kept) == min(capacity, 40) and kept[-1] == 40.0
    if capacity >= 40:
        assert kept == [float(number + 1) for number in range(40)]
