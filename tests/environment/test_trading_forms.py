"""The maps of the action forms, by law."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agents.core.errors import ConfigError, NotFinite
from agents.environment.forms import CONFIDENT, action_size, checked_action, confident, exposure_weights, softmax_weights
from agents.environment.trading import TradingEnvironment
from tests.environment.trading_world import flat, walk

ACTIONS = arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(2, 12)), elements=st.floats(-3, 3))


@given(ACTIONS, st.floats(0.01, 1.0))
def test_exposures_are_shares_of_the_cap(action, cap):
    weights = exposure_weights(action, cap)
    assert (np.abs(weights) <= cap).all()
    assert (weights * action >= 0).all()
    assert np.allclose(exposure_weights(-action, cap), -weights)


@given(ACTIONS, st.floats(0.0, 0.5), st.floats(0.05, 1.0))
def test_softmax_weights_keep_cash_and_cap_and_order(action, buffer, cap):
    weights = softmax_weights(action, buffer, cap)
    assert weights.shape == (*action.shape[:-1], action.shape[-1] - 1)
    assert (weights >= 0).all()
    assert (weights <= cap + 1e-12).all()
    assert (weights.sum(axis=-1) <= 1 - buffer + 1e-12).all()
    clipped = np.clip(action, -1, 1)
    for row, wish in zip(weights.reshape(-1, weights.shape[-1]), clipped.reshape(-1, clipped.shape[-1]), strict=True):
        rising = row[np.argsort(wish[:-1], kind="stable")]
        assert (np.diff(rising) >= -1e-12).all()


@given(ACTIONS, st.integers(0, 3))
def test_a_batch_is_its_rows(action, row):
    row = min(row, len(action) - 1)
    assert np.allclose(softmax_weights(action, 0.02, 0.2)[row], softmax_weights(action[row], 0.02, 0.2), atol=1e-15)


@given(st.floats(-1, 1), st.floats(0, 1))
def test_confidence_only_takes_away(action, confidence):
    value = float(confident(np.array([action]), confidence)[0])
    assert abs(value) <= abs(action)
    assert value == action or confidence * CONFIDENT < 1


def test_all_cash_and_one_asset_can_both_be_asked_for():
    assert softmax_weights(np.array([-1.0, -1.0, 1.0]), 0.02, 1.0).sum() < 1e-3
    assert softmax_weights(np.array([1.0, -1.0, -1.0]), 0.02, 1.0)[0] == pytest.approx(0.98, abs=1e-3)


def test_the_weights_form_is_the_second_seed_s_configuration():
    env = TradingEnvironment(flat(4), form="weights", capital=10_000.0)
    seen, _ = env.reset(seed=0)
    assert seen.tolist() == [0.0] * 4 * 8 + [0.0] * 4 + [1.0]
    limits = env.config.limits
    assert (limits.cash_buffer, limits.position_cap, limits.turnover_cost_bps) == (0.02, 0.2, 10.0)
    info = env.step(np.array([1, 1, 1, 1, -1], np.float32))[4]
    assert info["weights"] == pytest.approx([0.199] * 4, abs=2e-3)  # what costs 10 bps is not worth the last 10 bps
    assert sum(f.fee for f in info["fills"]) == pytest.approx(1e-3 * sum(f.quantity * f.price for f in info["fills"]), rel=1e-6)


def test_what_others_will_fill_arrives_where_it_is_reserved():
    history = walk(2, 30)
    signals = np.arange(30 * 2 * 7, dtype=np.float32).reshape(30, 2, 7)
    forecasts = np.full((30, 2), 0.5, np.float32)
    env = TradingEnvironment(history, form="weights", signals=signals, forecasts=forecasts)
    seen, _ = env.reset(seed=0, options={"row": 3})
    assert seen[:14].tolist() == signals[3].ravel().tolist()
    assert seen[14:16].tolist() == [0.5, 0.5]


def test_a_doubtful_forecast_makes_the_signal_small():
    forecasts = np.zeros((40, 1, 4), np.float32)
    forecasts[..., 3] = 0.1
    history = flat(1)
    sure, doubtful = TradingEnvironment(history, form="signal"), TradingEnvironment(history, form="signal", forecasts=forecasts)
    weights = []
    for env in (sure, doubtful):
        env.reset(seed=0)
        weights.append(env.step(np.ones(1, np.float32))[4]["weights"][0])
    assert weights[1] == pytest.approx(0.2 * 1.0, abs=5e-3)
    assert weights[0] > 0.9


def test_the_cross_section_looks_back_thirty_bars():
    env = TradingEnvironment(walk(10, 60), form="cross_section")
    seen, info = env.reset(seed=0)
    assert info["time"] == env.source.history.closings[29]
    following = env.step(np.full(10, 0.5, np.float32))[0]
    assert np.array_equal(following[:-1, :, :-1], seen[1:, :, :-1])
    assert (following[..., -1] > 0).all()
    assert not seen[..., -1].any()


def test_sizes_and_checks():
    assert [action_size(form, n) for form, n in (("exposure", 3), ("weights", 3), ("cross_section", 12), ("signal", 1))] == [3, 4, 12, 1]
    for form, n in (("cross_section", 9), ("cross_section", 21), ("signal", 2), ("long_term", 1)):
        with pytest.raises(ConfigError):
            action_size(form, n)
    assert checked_action([2.0, -2.0], (2,)).tolist() == [1.0, -1.0]
    with pytest.raises(NotFinite):
        checked_action([0.0, float("nan")], (2,))
