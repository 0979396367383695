"""Shrunk covariances are positive definite whatever comes; what moves alike is one cluster; bets are counted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.desk.clusters import clusters, correlation_of, effective_bets, shrunk_covariance


@pytest.mark.parametrize(
    "returns",
    [
        np.zeros((50, 3)),
        np.ones((50, 3)) * 0.01,
        np.outer(np.sin(np.arange(60.0)), np.ones(4)),
        np.random.default_rng(0).normal(size=(5, 40)),
        np.random.default_rng(0).normal(size=(250, 1)),
        np.full((2, 2), 1e-9),
    ],
    ids=["nothing", "constant", "equal", "more columns than rows", "one", "tiny"],
)
def test_every_covariance_has_a_factor(returns):
    covariance = shrunk_covariance(returns)
    assert np.isfinite(covariance).all() and np.array_equal(covariance, covariance.T)
    factor = np.linalg.cholesky(covariance)
    assert np.allclose(factor @ factor.T, covariance, atol=1e-18)
    labels = clusters(correlation_of(covariance), 0.7)
    assert labels.shape == (returns.shape[1],) and labels[0] == 0


def test_it_is_shrunk_towards_equal_variances_and_no_correlation():
    rng = np.random.default_rng(1)
    returns = rng.normal(size=(30, 8)) * np.linspace(0.01, 0.05, 8)
    sample, shrunk = returns.T @ returns / 30, shrunk_covariance(returns)
    off = ~np.eye(8, dtype=bool)
    assert np.abs(shrunk[off]).sum() < np.abs(sample[off]).sum()
    assert np.ptp(np.diagonal(shrunk)) < np.ptp(np.diagonal(sample)) and np.trace(shrunk) == pytest.approx(np.trace(sample), rel=1e-6)


def test_what_moves_alike_is_one_cluster_in_the_order_of_its_first_member():
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(2, 400))
    returns = np.column_stack([second, first, second, first, rng.normal(size=400)]) + 0.2 * rng.normal(size=(400, 5))
    assert clusters(np.corrcoef(returns.T), 0.7).tolist() == [0, 1, 0, 1, 2]
    assert clusters(np.ones((3, 3)), 0.999).tolist() == [0, 0, 0]
    assert clusters(np.eye(3), 0.7).tolist() == [0, 1, 2]
    assert clusters(np.array([[1.0, -0.95], [-0.95, 1.0]]), 0.7).tolist() == [0, 1], "a hedge is another bet"


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(0, 1000))
def test_bets_lie_between_one_and_their_number(n, seed):
    rng = np.random.default_rng(seed)
    mixed = rng.uniform(0, 1, (n, n + 1))  # no negative correlation
    covariance = mixed @ mixed.T + 1e-6 * np.eye(n)
    weights = rng.uniform(0.01, 1, n)
    assert 1 - 1e-9 <= effective_bets(weights, covariance) <= n + 1e-9


def test_bets_of_books_that_one_can_count():
    assert effective_bets(np.full(4, 0.25), np.eye(4)) == pytest.approx(4)
    assert effective_bets(np.full(4, 0.25), np.ones((4, 4))) == pytest.approx(1)
    assert effective_bets(np.array([0.5, 0, 0, 0]), np.eye(4)) == pytest.approx(1) and effective_bets(np.zeros(4), np.eye(4)) == 0
