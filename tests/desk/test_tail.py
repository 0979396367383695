"""CVaR as the mean of the worst, its planes from below, the pool that stays small, and the quantile as a cone."""

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from agents.desk import tail as module
from agents.desk.tail import Quantile, Tail, quantile_multiple, tail_means

shares = st.sampled_from([0.05, 0.1, 0.33, 0.5, 1.0])


@st.composite
def tails(draw, rows=(1, 60), width=(1, 5)):
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    shape = draw(st.integers(*rows)), draw(st.integers(*width))
    return Tail(np.round(rng.standard_t(3, shape) * 0.02, draw(st.sampled_from([2, 12]))), draw(shares))


books = st.lists(st.floats(-1.0, 1.0), min_size=5, max_size=5).map(np.array)


@settings(max_examples=60, deadline=None)
@given(tails(), books)
def test_it_is_what_rockafellar_and_uryasev_minimise(tail, book):
    book, zeta = book[: tail.scenarios.shape[1]], cp.Variable()
    losses = -tail.scenarios @ book
    problem = cp.Problem(cp.Minimize(zeta + cp.sum(cp.pos(losses - zeta)) / (tail.share * len(losses))))
    problem.solve(solver=cp.CLARABEL)
    assert tail.value(book) == pytest.approx(problem.value, abs=1e-7)


@settings(max_examples=100, deadline=None)
@given(tails(), books, books)
def test_a_plane_touches_at_its_book_and_lies_below_everywhere(tail, here, there):
    n = tail.scenarios.shape[1]
    value, plane, probabilities = tail.plane(here[:n])
    assert value == pytest.approx(tail.value(here[:n]), abs=1e-12) and plane @ here[:n] == pytest.approx(value, abs=1e-12)
    assert plane @ there[:n] <= tail.value(there[:n]) + 1e-12
    assert probabilities.sum() == pytest.approx(1.0) and probabilities.max() <= 1 / (tail.share * len(tail.scenarios)) + 1e-12


@settings(max_examples=60, deadline=None)
@given(tails(), st.lists(st.floats(0.0, 1.0), min_size=5, max_size=5).map(np.array))
def test_what_is_held_alone_bounds_what_is_held_together(tail, book):
    book = book[: tail.scenarios.shape[1]]
    assert tail.value(book) <= tail.alone @ book + 1e-12


def test_the_tail_counts_its_last_loss_in_part():
    losses = np.array([1.0, 2.0, 3.0, 4.0])
    assert tail_means(losses, 0.25) == 4.0
    assert tail_means(losses, 0.375) == pytest.approx((4 + 0.5 * 3) / 1.5)
    assert tail_means(losses, 0.01) == 4.0 and tail_means(losses, 1.0) == 2.5


@pytest.mark.parametrize("scenarios", [np.full((3, 2), np.nan), np.array([[0.1, np.inf]]), np.empty((0, 2)), np.zeros(3)])
def test_scenarios_that_are_none_are_refused(scenarios):
    with pytest.raises(ValueError, match="complete them first"):
        Tail(scenarios, 0.05)


def test_idle_planes_leave_the_pool_and_it_never_overflows():
    rng = np.random.default_rng(1)
    tail = Tail(rng.normal(size=(50, 3)), 0.1)
    fresh = [tail.plane(rng.normal(size=3))[1:] for _ in range(3)]
    tail.remember(np.zeros(0, dtype=bool), fresh)
    for _ in range(module.PATIENCE):
        tail.remember(np.array([True, False, False]), [])
    assert len(tail.planes) == 3
    tail.remember(np.array([True, False, False]), [])
    assert len(tail.planes) == 1 and np.array_equal(tail.planes[0], fresh[0][0])
    many = [tail.plane(rng.normal(size=3))[1:] for _ in range(module.POOL + 9)]
    tail.remember(np.array([True]), many[:2])
    tail.remember(np.array([True, False, True]), many[2 : module.POOL])
    assert len(tail.planes) == module.POOL and np.array_equal(tail.planes[0], fresh[0][0])
    tail.remember(np.ones(module.POOL, dtype=bool), many)
    assert len(tail.planes) == module.POOL


def test_planes_of_an_older_hour_are_valid_in_the_next():
    rng = np.random.default_rng(2)
    history = rng.standard_t(3, (80, 3))
    old, new = Tail(history[:60], 0.1), Tail(history[5:65], 0.1)
    old.remember(np.zeros(0, dtype=bool), [old.plane(book)[1:] for book in rng.normal(size=(8, 3))])
    new.inherit(old, 5)
    assert len(new.planes) == 8
    for book in rng.normal(size=(200, 3)):
        assert (new.planes @ book).max() <= new.value(book) + 1e-12
    book = np.array([0.3, 0.2, 0.1])
    one, following = Tail(history[:60], 0.1), Tail(history[1:61], 0.1)
    one.remember(np.zeros(0, dtype=bool), [one.plane(book)[1:]])
    following.inherit(one, 1)
    assert following.planes[0] @ book == pytest.approx(following.value(book), rel=0.2), "nearly as tight as it was"
    other = Tail(history[:59], 0.1)
    other.inherit(old, 1)
    assert not len(other.planes)


def test_the_quantile_is_that_of_the_normal_distribution():
    factor = np.linalg.cholesky(np.array([[0.04, 0.01], [0.01, 0.09]]))
    spread = Quantile(factor, np.array([0.01, 0.0]), quantile_multiple(0.99))
    book = np.array([0.5, 0.25])
    deviation = np.sqrt(book @ factor @ factor.T @ book)
    assert spread.value(book) == pytest.approx(-norm.ppf(0.01, 0.005, deviation))
    with pytest.raises(ValueError, match="finite"):
        Quantile(np.full((2, 2), np.nan), np.zeros(2), 1.6)
    with pytest.raises(ValueError, match="positive"):
        Quantile(factor, np.zeros(2), -1.0)


@settings(max_examples=100, deadline=None)
@given(st.floats(0.5, 0.999), st.floats(-5, 5), st.floats(-2, 30))
def test_moments_never_shorten_the_quantile(level, skewness, kurtosis):
    assert quantile_multiple(level, skewness, kurtosis) >= norm.ppf(level) - 1e-9


def test_cornish_and_fisher_stretch_it():
    z = norm.ppf(0.99)
    expected = z + (z * z - 1) * 0.5 / 6 + (z**3 - 3 * z) * 3 / 24 - (2 * z**3 - 5 * z) * 0.25 / 36
    assert quantile_multiple(0.99, -0.5, 3.0) == pytest.approx(expected)
