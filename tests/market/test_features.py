"""Streaming and batch features are two independent computations that must agree; each formula is checked on data that it is made for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.market.batch import hour_history, minute_history
from agents.market.columns import HOUR_COLUMNS, MINUTE_COLUMNS
from agents.market.features import HOUR, MINUTE, Track, correlation, effective_bets, ranks, volatility
from agents.market.hours import HourPanel
from agents.market.minutes import MinutePanel, others
from agents.market.moments import Moments, history, weighted_sums

NOTHING = 1e-9
"""Differences of nearly equal averages carry the rounding of the averages: below this they are nothing."""
START = 1_600_000_000 // 86_400 * 86_400 * 10**9 + 7 * HOUR
H = {name: number for number, name in enumerate(HOUR_COLUMNS)}
M = {name: number for number, name in enumerate(MINUTE_COLUMNS)}


def candles(rng, rows, width, deviation):
    close = 30_000 * np.exp(np.cumsum(rng.normal(0, deviation, (rows, 1)) + rng.normal(0, deviation, (rows, width)), axis=0))
    high = close * np.exp(np.abs(rng.normal(0, deviation / 3, close.shape)))
    low = close * np.exp(-np.abs(rng.normal(0, deviation / 3, close.shape)))
    return close, high, low, rng.gamma(1.0, 10.0, close.shape)


def stream_hours(times, close, high, low, volume, at):
    panel, seen, shown = HourPanel(close.shape[1]), np.ones(close.shape[1], dtype=bool), []
    for row, time in enumerate(times):
        panel.push(int(time), close[row], high[row], low[row], volume[row], seen)
        if row in at:
            shown.append(panel.columns())
    return np.array(shown)


@pytest.mark.parametrize("width", [1, 4])
def test_hours_streaming_equals_batch(width):
    rows = 900
    data = candles(np.random.default_rng(1), rows, width, 0.008)
    times = START + HOUR * np.arange(1, rows + 1)
    at = set(range(60)) | set(range(60, rows, 13)) | {rows - 1}
    streamed = stream_hours(times, *data, at)
    np.testing.assert_allclose(streamed, hour_history(times, *data)[sorted(at)], rtol=1e-9, atol=NOTHING)


def test_hours_streaming_equals_batch_beyond_a_year():
    rows = 24 * 372
    data = candles(np.random.default_rng(2), rows, 2, 0.005)
    times = START + HOUR * np.arange(1, rows + 1)
    at = set(range(24 * 364, rows, 11))
    streamed = stream_hours(times, *data, at)
    np.testing.assert_allclose(streamed, hour_history(times, *data)[sorted(at)], rtol=1e-9, atol=NOTHING)
    assert (np.abs(streamed[-1, :, H["momentum_365d"]]) > 0).all()


@pytest.mark.parametrize("width", [1, 3])
def test_minutes_streaming_equals_batch(width):
    rows = 1600
    close, high, low, volume = candles(np.random.default_rng(3), rows, width, 0.0007)
    fallback = np.full(width, 0.012)
    panel, seen, shown = MinutePanel(width), np.ones(width, dtype=bool), []
    at = set(range(80)) | set(range(80, rows, 17)) | {rows - 1}
    for row in range(rows):
        panel.push(START + (row + 1) * MINUTE, close[row], high[row], low[row], volume[row], seen)
        if row in at:
            shown.append(panel.columns(fallback))
    batch = minute_history(close, high, low, volume, fallback)
    np.testing.assert_allclose(np.array(shown), batch[sorted(at)], rtol=1e-9, atol=NOTHING)


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60),
    st.floats(0.001, 0.9),
)
def test_moments_are_the_weighted_ones(values, alpha):
    """Mean and variance by definition: explicit normalised weights."""
    moments = Moments(np.array([alpha]), 1)
    for value in values:
        moments.push(np.array([[value]]))
    weights = (1 - alpha) ** np.arange(len(values) - 1, -1, -1)
    weights /= weights.sum()
    mean = float(weights @ values)
    assert moments.mean[0, 0] == pytest.approx(mean, rel=1e-9, abs=1e-6)
    assert moments.var[0, 0] == pytest.approx(float(weights @ (np.array(values) - mean) ** 2), rel=1e-7, abs=1e-4)
    batch = history(np.array(values)[:, None], alpha)
    assert batch[0][-1, 0] == pytest.approx(mean, rel=1e-9, abs=1e-6)


def test_moments_skip_what_is_not_seen_and_stretch_over_gaps():
    skipping, plain = Moments(np.array([0.1]), 2), Moments(np.array([0.1]), 1)
    for value in (1.0, 5.0, 2.0):
        skipping.push(np.array([[value, 99.0]]), seen=np.array([True, False]))
        plain.push(np.array([[value]]))
    assert skipping.mean[0, 0] == plain.mean[0, 0]
    assert skipping.weight[0, 1] == skipping.mean[0, 1] == 0
    stretched = Moments(np.array([0.1]), 1)
    stretched.push(np.array([[0.0]]))
    stretched.push(np.array([[1.0]]), steps=np.array([1000.0]))
    assert stretched.mean[0, 0] == pytest.approx(1.0)


def test_weighted_sums_neither_over_nor_underflow():
    values = np.ones((5000, 1))
    assert weighted_sums(values, 0.5)[-1, 0] == pytest.approx(1.0)
    assert weighted_sums(values, 1e-5)[-1, 0] == pytest.approx(1 - (1 - 1e-5) ** 5000)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=12))
def test_ranks_lie_within_half_and_keep_order(values):
    array = np.array(values)
    result = ranks(array, np.ones(len(array), dtype=bool))
    assert np.all(np.abs(result) <= 0.5) and abs(result.sum()) < 1e-9
    order = np.argsort(array, kind="stable")
    assert np.all(np.diff(result[order]) >= -1e-12)


def test_ranks_leave_out_the_inactive():
    result = ranks(np.array([3.0, 1.0, 100.0]), np.array([True, True, False]))
    assert result.tolist() == [0.5, -0.5, 0.0]


@given(st.integers(1, 8), st.integers(0, 500), st.integers(0, 2**32 - 1))
def test_correlation_is_one(width, rows, seed):
    returns = np.random.default_rng(seed).normal(0, 1, (max(rows, 1), width))
    returns[:, 0] *= 0  # a symbol that never moved
    matrix = correlation(returns.T @ returns, float(rows))
    assert np.allclose(np.diag(matrix), 1) and np.allclose(matrix, matrix.T)
    assert np.linalg.eigvalsh(matrix).min() > -1e-9
    assert 1 - 1e-9 <= effective_bets(matrix) <= width + 1e-9


def test_volatility_starts_at_the_default_and_forgets_it():
    assert volatility(np.array([0.0]), 0.0, 0.01) == pytest.approx(0.01)
    assert volatility(np.array([4e-6]), 10_000.0, 0.01) == pytest.approx(0.002, rel=0.02)
    assert volatility(np.array([0.0]), 1e12, 0.01) == pytest.approx(1e-4)


def test_a_panel_that_knows_nothing_is_neutral():
    columns = HourPanel(3).columns()
    assert np.isfinite(columns).all()
    assert np.all(columns[:, H["volatility_1h"]] == 0.01)
    neutral = [H[n] for n in ("macd_z_8_24", "return_12m_sign", "momentum_1d", "rank_momentum_7d", "skewness", "volume_z")]
    assert np.all(columns[:, neutral] == 0)
    minutes = MinutePanel(3).columns(np.full(3, 0.01))
    assert np.isfinite(minutes).all()
    assert np.allclose(minutes[:, M["volatility_1m"]], 0.01 / 60**0.5)
    assert np.all(minutes[:, [M["ou_kappa"], M["ou_gap"], M["return_5m"]]] == 0) and np.all(minutes[:, M["ou_sigma"]] > 0)


def test_a_symbol_listed_later_is_neutral_until_it_trades():
    close, high, low, volume = candles(np.random.default_rng(5), 300, 3, 0.01)
    panel = HourPanel(3)
    for row in range(300):
        seen = np.array([True, True, row >= 250])
        panel.push(START + (row + 1) * HOUR, np.where(seen, close[row], 1.0), high[row], low[row], volume[row], seen)
        assert np.isfinite(panel.columns()).all()
        if row < 250:
            assert panel.columns()[2, H["volatility_1h"]] == 0.01 and panel.columns()[2, H["rank_momentum_1d"]] == 0
    assert panel.count.tolist() == [299, 299, 49]


def test_trend_follows_the_price():
    """A steady rise has positive z at every horizon, a fall negative, and both signs of the year agree."""
    rng = np.random.default_rng(6)
    drift = np.array([0.0006, -0.0006])
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.002, (24 * 200, 2)) + drift, axis=0))
    panel, seen = HourPanel(2), np.ones(2, dtype=bool)
    for row in range(len(close)):
        panel.push(START + (row + 1) * HOUR, close[row], close[row], close[row], np.ones(2), seen)
    columns = panel.columns()
    for name in ("macd_z_8_24", "macd_z_16_48", "macd_z_32_96", "return_12m_sign", "momentum_30d", "momentum_90d"):
        assert columns[0, H[name]] > 0 > columns[1, H[name]], name
    assert columns[0, H["rank_momentum_30d"]] == 0.5
    assert columns[0, H["volatility_1h"]] == pytest.approx(0.0021, rel=0.2)
    assert columns[0, H["drawdown_365d"]] > columns[1, H["drawdown_365d"]]


def test_day_bars_alone_make_hourly_features():
    """Volatility is per sqrt(hour) whatever the bars' length."""
    close = 100 * np.exp(np.cumsum(np.random.default_rng(7).normal(0, 0.02 * 24**0.5, (500, 1)), axis=0))
    panel = HourPanel(1)
    for row in range(500):
        panel.push(START - 7 * HOUR + (row + 1) * 24 * HOUR, close[row], close[row], close[row], np.ones(1), np.ones(1, dtype=bool))
    assert panel.columns()[0, H["volatility_1h_slow"]] == pytest.approx(0.02, rel=0.25)
    assert panel.columns()[0, H["momentum_365d"]] != 0


def test_reversion_is_found_where_it_is_and_only_there():
    """Residuals of the first half revert with kappa .05 a minute, those of the second half walk at random."""
    rng = np.random.default_rng(8)
    rows, width = 3000, 10
    level = np.zeros((rows, width))
    for row in range(1, rows):
        level[row, :5] = level[row - 1, :5] * np.exp(-0.05) + rng.normal(0, 5e-4, 5)
    level[:, 5:] = np.cumsum(rng.normal(0, 5e-5, (rows, 5)), axis=0)
    close = 100 * np.exp(level + np.cumsum(rng.normal(0, 1e-3, (rows, 1)), axis=0))
    panel, seen = MinutePanel(width), np.ones(width, dtype=bool)
    for row in range(rows):
        panel.push(START + (row + 1) * MINUTE, close[row], close[row], close[row], np.ones(width), seen)
    columns = panel.columns(np.full(width, 0.01))
    assert np.median(columns[:5, M["ou_kappa"]]) == pytest.approx(0.05, rel=0.6)
    assert np.allclose(columns[:5, M["ou_sigma"]], 5e-4, rtol=0.3)
    assert np.all(np.abs(columns[:, M["ou_score"]]) <= 8)
    gap = level[-1, :5] - level[-1, :5].mean()
    assert np.corrcoef(columns[:5, M["ou_gap"]], gap)[0, 1] > 0.5


def test_one_symbol_alone_reverts_on_its_own_return():
    panel = MinutePanel(1)
    prices = 100 * np.exp(0.001 * np.sin(np.arange(400) / 3))
    for row, price in enumerate(prices):
        panel.push(START + (row + 1) * MINUTE, *(np.array([price]),) * 3, np.ones(1), np.ones(1, dtype=bool))
    columns = panel.columns(np.array([0.01]))
    assert columns[0, M["ou_kappa"]] > 0 and np.sign(columns[0, M["ou_gap"]]) == np.sign(prices[-1] - 100)


def test_track_keeps_the_last_rows_and_finds_them_by_time():
    track = Track(3, 1)
    for time in range(1, 11):
        track.append(time, np.array([float(time)]))
    assert track.times.tolist() == [8, 9, 10] and len(track) == 3
    assert track.at(9, 0) == [9.0] and track.at(100, 0) == [10.0]
    assert track.at(7, 0) is None and track.at(9, 10) is None
    assert track.after(8)[:, 0].tolist() == [9.0, 10.0]


def test_alternating_returns_have_negative_autocorrelation():
    panel = HourPanel(1)
    for row in range(200):
        price = np.array([100.0 * (1.01 if row % 2 else 1.0)])
        panel.push(START + (row + 1) * HOUR, price, price, price, np.ones(1), np.ones(1, dtype=bool))
    assert panel.columns()[0, H["autocorrelation_1h"]] < -0.5


def test_a_random_walk_mostly_shows_no_reversion():
    """Without Kendall's correction nearly every walk would seem to revert."""
    rng = np.random.default_rng(9)
    width = 40
    close = 100 * np.exp(np.cumsum(rng.normal(0, 5e-4, (1500, width)), axis=0))
    panel, seen = MinutePanel(width), np.ones(width, dtype=bool)
    for row in range(len(close)):
        panel.push(START + (row + 1) * MINUTE, close[row], close[row], close[row], np.ones(width), seen)
    kappa = panel.columns(np.full(width, 0.01))[:, M["ou_kappa"]]
    assert (kappa == 0).mean() > 0.4 and np.median(kappa) < 0.005


def test_the_market_of_a_symbol_is_all_others():
    moved = np.array([True, True, True, False])
    assert others(np.array([1.0, 2.0, 6.0, 0.0]), moved).tolist() == [4.0, 3.5, 1.5, 3.0]
    assert others(np.array([1.0]), np.array([True])).tolist() == [0.0]
