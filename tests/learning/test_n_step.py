"""Steps joined into rows: sums, ends, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.errors import NotFinite
from agents.learning.n_step import NStep, Transition


def step(at: int, reward: float = 1.0, done: bool = False, elapsed: float = 1.0) -> Transition:
    return Transition(np.array([at], np.float32), np.array([0.1 * at], np.float32), reward, np.array([at + 1], np.float32), done, elapsed)


def test_three_steps_make_a_row_and_the_end_lets_the_rest_go():
    joiner = NStep(3, 0.5)
    assert joiner.push(step(0, 1.0), False) == []
    assert joiner.push(step(1, 2.0), False) == []
    (row,) = joiner.push(step(2, 4.0), False)
    assert (row.state[0], row.next_state[0], row.reward, row.elapsed, row.done) == (0, 3, 1 + 1 + 1, 3.0, False)
    rest = joiner.push(step(3, 8.0, done=True), True)
    assert [(r.state[0], r.reward, r.elapsed, r.done) for r in rest] == [(1, 2 + 2 + 2, 3.0, True), (2, 4 + 4, 2.0, True), (3, 8, 1.0, True)]
    assert joiner.push(step(9), False) == []


def test_a_time_limit_keeps_its_value():
    rows = NStep(3, 0.5).push(step(0), True)
    assert [(row.elapsed, row.done) for row in rows] == [(1.0, False)]


@given(st.integers(1, 5), st.lists(st.integers(1, 12), min_size=1, max_size=4), st.floats(0.1, 1.0))
def test_no_step_is_lost_and_every_row_discounts_its_own_steps(n, episodes, gamma):
    joiner, rows, starts = NStep(n, gamma), [], []
    rng = np.random.default_rng(0)
    for length in episodes:
        rewards = rng.standard_normal(length)
        for at in range(length):
            rows += joiner.push(step(at, float(rewards[at])), at == length - 1)
            starts.append((at, length, rewards))
    assert len(rows) == len(starts)
    for row, (at, length, rewards) in zip(rows, starts, strict=True):
        span = rewards[at : min(at + n, length)]
        assert row.state[0] == at and row.elapsed == len(span) and row.next_state[0] == at + len(span)
        assert row.reward == pytest.approx(sum(gamma**t * reward for t, reward in enumerate(span)))


def test_uneven_time_discounts_by_what_passed():
    joiner = NStep(2, 0.5)
    joiner.push(step(0, 1.0, elapsed=3.0), False)
    (row,) = joiner.push(step(1, 8.0, elapsed=0.5), False)
    assert (row.reward, row.elapsed) == (1 + 0.5**3 * 8, 3.5)


def test_nothing_that_is_not_finite_is_kept():
    joiner = NStep(2, 0.5)
    with pytest.raises(NotFinite):
        joiner.push(step(0, float("nan")), False)
    assert joiner.push(step(1), True)[0].state[0] == 1
