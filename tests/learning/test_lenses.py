"""Running moments are the batch's, fold into the first layer, and survive a checkpoint."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from agents.learning.lenses import Moments, ObservationNorm, ReturnScale
from agents.learning.replay import Rows

NUMBERS = arrays.arrays(np.float64, st.tuples(st.integers(2, 30), st.just(3)), elements=st.floats(-1e3, 1e3, width=32))


@given(NUMBERS)
@settings(deadline=None, max_examples=50)
def test_running_moments_are_those_of_all_values(values):
    moments = Moments(3)
    for value in values:
        moments.add(value)
    np.testing.assert_allclose(moments.mean, values.mean(0), rtol=1e-9, atol=1e-9)
    spread = values.std(0)
    np.testing.assert_allclose(moments.deviation, np.where(spread < 1e-4, 1.0, spread), rtol=1e-5, atol=1e-6)


def lived(norm: ObservationNorm | ReturnScale, count: int = 200) -> np.ndarray:
    states = np.random.default_rng(0).normal([5.0, -2.0, 0.0], [3.0, 0.1, 1.0], (count, 3)).astype(np.float32)
    for state in states:
        norm.observe(state, float(state[0]), False)
    return states


def test_states_and_sampled_rows_are_normalised_alike():
    norm = ObservationNorm(3)
    states = lived(norm)
    seen = norm.states(states)
    np.testing.assert_allclose(seen.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(seen.std(0), 1, rtol=1e-4)
    ones = np.ones(200, np.float32)
    rows = norm.rows(Rows(states, states[:, :1], ones, states[::-1], ones, ones))
    np.testing.assert_array_equal(rows.state, seen)
    np.testing.assert_array_equal(rows.next_state, seen[::-1])


def test_a_constant_column_stays_at_zero():
    norm = ObservationNorm(2)
    for at in range(10):
        norm.observe(np.array([7.0, at], np.float32), 0.0, False)
    assert norm.states(np.array([[7.0, 4.5]], np.float32)).tolist() == [[0.0, 0.0]]


def test_folding_gives_raw_states_the_same_product():
    norm = ObservationNorm(3)
    states = lived(norm)
    rng = np.random.default_rng(1)
    weight, bias = rng.standard_normal((4, 3)).astype(np.float32), rng.standard_normal(4).astype(np.float32)
    folded, offset = norm.fold(weight, bias)
    np.testing.assert_allclose(states @ folded.T + offset, norm.states(states) @ weight.T + bias, rtol=1e-4, atol=1e-4)


def test_rewards_are_in_units_of_the_discounted_return():
    scale, gamma, rng = ReturnScale(0.9), 0.9, np.random.default_rng(0)
    total, totals = 0.0, []
    for at in range(300):
        reward, ended = 50 * rng.standard_normal(), at % 10 == 9
        scale.observe(np.zeros(1, np.float32), reward, ended)
        total = gamma * total + reward
        totals.append(total)
        total = 0.0 if ended else total
    column = np.array([[2.0]], np.float32)
    rows = scale.rows(Rows(column, column, np.array([50.0], np.float32), column, column[0], column[0]))
    assert rows.reward[0] == pytest.approx(50 / np.std(totals), rel=1e-5)
    np.testing.assert_array_equal(rows.state, column)


@pytest.mark.parametrize("make", [lambda: ObservationNorm(3), lambda: ReturnScale(0.9)])
def test_moments_go_on_from_a_checkpoint(make):
    one, two = make(), make()
    lived(one)
    two.load(one.tensors())
    for lens in (one, two):
        lens.observe(np.ones(3, np.float32), 4.0, False)
    for name, tensor in one.tensors().items():
        assert tensor.equal(two.tensors()[name]), name
