"""Scenarios out of closed bars: nothing invented that would widen a limit, renewed with the bars, the same in every replay."""

from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agents.core.events import Bar, Stamp
from agents.core.instruments import NS, TIMEFRAMES, Symbol
from agents.desk.clusters import correlation_of
from agents.desk.risk_model import LEAST_ROWS, STRANGER, Measures, RiskModel, RiskParams, complete, moments, returns
from agents.market.state import MarketState

HOUR = TIMEFRAMES["1h"]
A, B, C = (Symbol(f"{name}/USDT") for name in "ABC")
ALL = RiskParams(100, 0.95, 0.95, True, 0.7)
START = 400_000 * HOUR


def bar(symbol, time, close, timeframe="1h", volume="10"):
    price = Decimal(repr(round(float(close), 8)))
    return Bar(Stamp(time + TIMEFRAMES[timeframe]), symbol, time, timeframe, price, price, price, price, Decimal(volume))


def walk(rows, width, seed=1, correlation=0.5):
    rng = np.random.default_rng(seed)
    moves = np.sqrt(correlation) * rng.normal(size=(rows, 1)) + np.sqrt(1 - correlation) * rng.normal(size=(rows, width))
    return 100 * np.exp(np.cumsum(0.01 * moves, axis=0))


def market(closes, symbols, timeframe="1h"):
    """Bars of all symbols, NaN where there is none."""
    state = MarketState(symbols)
    for row, prices in enumerate(closes):
        add(state, symbols, row, prices, timeframe)
    return state


def add(state, symbols, row, prices, timeframe="1h"):
    for symbol, price in zip(symbols, prices, strict=True):
        if np.isfinite(price):
            state.apply(bar(symbol, START // TIMEFRAMES[timeframe] * TIMEFRAMES[timeframe] + row * TIMEFRAMES[timeframe], price, timeframe))


def test_returns_are_those_of_the_last_closed_bars():
    closes = walk(130, 2)
    state = market(closes, (A, B))
    found = returns(state, (A, B), "1h", 100)
    assert np.allclose(found, np.diff(np.log(np.round(closes[-101:], 8)), axis=0))
    assert np.allclose(returns(state, (B, A), "1h", 10), found[-10:, ::-1])


def test_a_hole_is_unknown_and_its_move_counts_whole_where_the_next_bar_stands():
    closes = walk(60, 2)
    closes[50:53, 1] = np.nan
    found = returns(market(closes, (A, B)), (A, B), "1h", 20)
    holes = np.isnan(found[:, 1])
    assert holes.sum() == 3 and not np.isnan(found[:, 0]).any()
    assert found[~holes, 1].sum() == pytest.approx(np.log(closes[-1, 1] / closes[39, 1]), abs=1e-6)


def test_a_strangers_returns_are_never_milder_than_the_known():
    log = np.diff(np.log(walk(201, 3)), axis=0)
    log[:190, 2] = np.nan
    scenarios, strangers = complete(log, HOUR)
    assert strangers == (False, False, True)
    known, stranger = scenarios[:, :2], scenarios[:, 2]
    assert np.sqrt((stranger**2).mean()) >= STRANGER * np.sqrt((known**2).mean(0)).max() * 0.9
    own = np.expm1(log[190:, 2]) * 24**0.5
    assert (stranger[190:] <= own + 1e-12).all(), "its own bad hours stand"
    assert np.corrcoef(stranger[:190], known[:190].mean(1))[0, 1] > 0.98, "and it hedges nothing"


def test_with_no_history_at_all_everything_moves_as_one():
    scenarios, strangers = complete(np.full((100, 3), np.nan), HOUR)
    assert all(strangers) and np.ptp(scenarios, axis=1).max() == 0
    assert 0.04 < np.sqrt((scenarios[:, 0] ** 2).mean()) < 0.06, "one percent an hour is five a day"


def test_what_never_moved_is_a_stranger_too():
    log = np.diff(np.log(walk(101, 2)), axis=0)
    log[:, 1] = 0.0
    scenarios, strangers = complete(log, HOUR)
    assert strangers == (False, True) and scenarios[:, 1].min() <= scenarios[:, 0].min()


@settings(max_examples=80, deadline=None)
@given(arrays(np.float64, st.tuples(st.integers(2, 60), st.integers(1, 4)), elements=st.one_of(st.floats(-3, 3), st.just(np.nan), st.just(np.inf))))
def test_scenarios_are_finite_and_lose_no_more_than_everything(log):
    scenarios, strangers = complete(log, HOUR)
    assert np.isfinite(scenarios).all() and scenarios.min() >= -1 and scenarios.shape == log.shape and len(strangers) == log.shape[1]
    assert (scenarios.mean(0) <= 1e-9).all() or scenarios.min() == -1, "no gain is counted on"


def test_longer_bars_are_blown_up_less():
    log = np.diff(np.log(walk(101, 1)), axis=0)
    hourly, daily = complete(log, HOUR)[0], complete(log, 24 * HOUR)[0]
    assert np.allclose(hourly, daily * 24**0.5)


def test_measures_are_made_only_of_what_is_asked_for():
    state, model = market(walk(120, 2), (A, B)), RiskModel()
    assert model.measures(state, (A, B), RiskParams()) == Measures()
    assert model.measures(state, (), ALL) == Measures()
    found = model.measures(state, (A, B), RiskParams(100, 0.95))
    assert found.tail is not None and found.quantile is None and found.covariance is None


def test_they_are_renewed_when_a_bar_closes_and_the_matrices_when_a_day_does():
    closes, symbols = walk(240, 2), (A, B)
    state, model = market(closes[:200], symbols), RiskModel()
    first = model.measures(state, symbols, ALL)
    assert model.measures(state, symbols, ALL) is first
    assert not len(first.tail.planes)
    first.tail.remember(np.zeros(0, dtype=bool), [first.tail.plane(np.array([0.5, 0.5]))[1:]])
    seen = [first]
    for row in range(200, 230):
        add(state, symbols, row, closes[row])
        seen.append(model.measures(state, symbols, ALL))
    assert len({id(one.tail) for one in seen}) == 31 and len({id(one.covariance) for one in seen}) == 2
    assert len(seen[1].tail.planes) == 1, "planes outlive the hour"
    assert np.ptp(seen[1].tail.scenarios[:-1] - seen[0].tail.scenarios[1:], axis=0).max() < 1e-12, "the same but for their mean"


def test_a_replay_measures_the_same_bit_by_bit():
    def run():
        closes = walk(150, 3)
        closes[:140, 2] = np.nan
        state, model = market(closes, (A, B, C)), RiskModel()
        return model.measures(state, (A, B, C), ALL)

    one, other = run(), run()
    assert np.array_equal(one.tail.scenarios, other.tail.scenarios) and np.array_equal(one.covariance, other.covariance)
    assert np.array_equal(one.groups, other.groups) and one.quantile.quantile == other.quantile.quantile


def test_history_that_comes_late_is_taken_up():
    closes, model = walk(200, 2), RiskModel()
    state = market(closes[150:], (A, B))
    few = model.measures(state, (A, B), ALL)
    late = market(closes, (A, B))
    many = model.measures(late, (A, B), ALL)
    assert np.isclose(many.tail.scenarios[-1], few.tail.scenarios[-1], atol=0.02).all() and many.tail is not few.tail
    assert np.allclose(many.tail.scenarios, complete(np.diff(np.log(np.round(closes[-101:], 8)), axis=0), HOUR)[0])
    assert model.measures(late, (A, B), RiskParams(120, 0.95)).tail.scenarios.shape == (120, 2)


def test_a_symbol_that_is_not_followed_is_a_stranger():
    found = RiskModel().measures(market(walk(120, 1), (A,)), (A, C), ALL)
    assert found.strangers == (False, True) and np.isfinite(found.covariance).all()


def test_days_serve_where_there_are_no_hours():
    state = market(walk(LEAST_ROWS + 20, 2), (A, B), "1d")
    found = RiskModel().measures(state, (A, B), RiskParams(60, 0.95))
    assert found.strangers == (False, False)
    assert np.sqrt((found.tail.scenarios**2).mean()) == pytest.approx(0.01, rel=0.3)


def test_perfectly_correlated_symbols_are_one_cluster():
    closes = np.repeat(walk(120, 1), 3, axis=1)
    found = RiskModel().measures(market(closes, (A, B, C)), (A, B, C), ALL)
    assert found.groups.tolist() == [0, 0, 0]
    assert correlation_of(found.covariance).min() > 0.95
    book = np.array([0.2, 0.2, 0.2])
    assert found.tail.value(book) == pytest.approx(found.tail.alone @ book)
    assert found.quantile.value(book) == pytest.approx(found.quantile.alone @ book, rel=0.02)


def test_moments_of_a_skewed_book():
    rng = np.random.default_rng(3)
    skewness, kurtosis = moments(-rng.exponential(size=(20_000, 1)))
    assert skewness == pytest.approx(-2, abs=0.2) and kurtosis == pytest.approx(6, abs=1.5)
    assert moments(np.zeros((10, 2))) == (0.0, 0.0)


def test_stamps_are_hours():
    assert HOUR == 3600 * NS
