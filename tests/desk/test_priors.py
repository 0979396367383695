"""The action maps and the formulas, against their own definitions and limits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.errors import NotFinite, SpecMismatch
from agents.desk import priors
from tests.desk.observed import act, observed

unit = st.floats(-1.0, 1.0)


def one(x: float) -> np.ndarray:
    return np.array([x])


@given(unit)
def test_no_action_leaves_a_signed_prior_but_for_the_shrink(p: float) -> None:
    assert priors.bend(one(p), one(0.0))[0] == pytest.approx(0.98 * p, abs=1e-12)


@given(unit, unit, unit)
def test_a_larger_action_never_lowers_a_signed_exposure(p: float, a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert priors.bend(one(p), one(low))[0] <= priors.bend(one(p), one(high))[0] + 1e-12
    assert abs(priors.bend(one(p), one(a))[0]) < 1.0


@given(st.floats(1e-6, 1e3), unit)
def test_a_positive_prior_is_moved_by_a_power(x: float, a: float) -> None:
    assert priors.scale(one(x), one(a), 4.0)[0] == pytest.approx(x * 4.0**a)
    assert priors.scale(one(x), one(0.0), 4.0)[0] == x


def test_trend_response_rises_then_fades_and_is_odd() -> None:
    z = np.linspace(0.0, 8.0, 801)
    y = priors.trend_response(z)
    peak = z[np.argmax(y)]
    assert peak == pytest.approx(np.sqrt(2.0), abs=0.01)
    assert y.max() == pytest.approx(np.sqrt(2.0) * np.exp(-0.5) / 0.89, rel=1e-4)
    assert np.array_equal(priors.trend_response(-z), -y)
    assert y[-1] < 1e-5


@given(unit)
def test_horizon_weights_are_a_distribution_that_leans_with_the_action(a: float) -> None:
    w = priors.horizon_weights(one(a), 2.0)[0]
    assert w.sum() == pytest.approx(1.0)
    assert (w > 0).all()
    assert priors.horizon_weights(one(0.0), 2.0)[0] == pytest.approx([1 / 3] * 3)
    if a > 1e-6:
        assert w[0] < w[1] < w[2]


def test_unit_weight_gives_independent_bets_the_target_volatility() -> None:
    sigma = np.array([0.4, 0.8, 0.6, 1.0])
    w = priors.unit_weight(sigma, 4.0, 0.2, 0.0, 1.0)
    assert np.sqrt(((w * sigma) ** 2).sum()) == pytest.approx(0.2)
    assert priors.unit_weight(one(0.0), 1.0, 0.2, 0.0, 1.0)[0] == 1.0


@given(st.floats(1e-4, 5.0), st.floats(-0.1, 0.1), st.floats(1e-5, 0.1), st.floats(0.1, 120.0))
def test_reversion_is_the_exact_ornstein_uhlenbeck_step(kappa: float, gap: float, sigma: float, h: float) -> None:
    mean, variance = priors.reversion(one(kappa), one(gap), one(sigma), h)
    assert mean[0] == pytest.approx(-(1 - np.exp(-kappa * h)) * gap, rel=1e-9, abs=1e-15)
    assert variance[0] == pytest.approx(sigma**2 * (1 - np.exp(-2 * kappa * h)) / (2 * kappa), rel=1e-9)


def test_reversion_without_reversion_is_a_random_walk() -> None:
    mean, variance = priors.reversion(one(0.0), one(0.05), one(0.002), 15.0)
    assert mean[0] == 0.0
    assert variance[0] == pytest.approx(0.002**2 * 15.0)


@given(st.floats(-1, 1), st.floats(0, 1))
def test_soft_takes_the_cost_off_and_never_turns_the_sign(x: float, cost: float) -> None:
    y = priors.soft(one(x), one(cost))[0]
    assert y * x >= 0.0
    assert abs(y) == pytest.approx(max(abs(x) - cost, 0.0))


def test_glft_is_the_papers_formula() -> None:
    a, k, sigma, gamma, delta, xi = 1.3, 1500.0, 2e-4, 800.0, 0.02, 800.0
    half, slope = priors.glft(one(a), one(k), one(sigma), one(0.0), gamma, delta)
    c1 = np.log(1 + xi * delta / k) / (xi * delta)
    c2 = np.sqrt(gamma / (2 * a * delta * k) * (1 + xi * delta / k) ** (k / (xi * delta) + 1))
    assert half[0] == pytest.approx(c1 + delta * sigma * c2 / 2, rel=1e-12)
    assert slope[0] == pytest.approx(sigma * c2, rel=1e-12)


def test_glft_without_risk_aversion_is_the_monopolists_half_spread() -> None:
    half, _ = priors.glft(one(1.0), one(2000.0), one(1e-4), one(0.0), 1e-6, 0.01)
    assert half[0] == pytest.approx(1 / 2000.0, rel=1e-3)


def test_a_cost_thins_the_flow_that_carries_the_inventory() -> None:
    cost = 0.001
    with_cost = priors.glft(one(1.0), one(2000.0), one(1e-4), one(cost), 1e4, 0.01)
    thinned = priors.glft(one(np.exp(-2.0)), one(2000.0), one(1e-4), one(0.0), 1e4, 0.01)
    assert with_cost[0][0] == pytest.approx(thinned[0][0] + cost)
    assert with_cost[1][0] == pytest.approx(thinned[1][0])
    far = priors.glft(one(1.0), one(1e5), one(1e-4), one(cost), 1e4, 0.01)
    assert far[1][0] == pytest.approx(priors.glft(one(np.exp(-6.0)), one(1e5), one(1e-4), one(0.0), 1e4, 0.01)[1][0])


@given(st.floats(-10, 10), unit)
def test_tighten_is_always_below_one_and_never_loosens_by_more_than_its_clip(p: float, a: float) -> None:
    m = priors.tighten(one(p), one(a))[0]
    assert 0.0 < m < 1.0
    assert priors.tighten(one(p), one(0.0))[0] == pytest.approx(min(max(p, 0.02), 0.9))


def test_cushion_scales_to_the_target_and_closes_at_the_worst_drawdown() -> None:
    assert priors.volatility_cushion(one(0.4), one(0.0), 0.2, 0.2)[0] == pytest.approx(0.5)
    assert priors.volatility_cushion(one(0.1), one(0.05), 0.2, 0.2)[0] == pytest.approx(0.75)
    assert priors.volatility_cushion(one(0.1), one(0.3), 0.2, 0.2)[0] == 0.0
    assert priors.volatility_cushion(one(0.0), one(0.0), 0.2, 0.2)[0] == 1.0


def test_actions_are_checked_before_use() -> None:
    seen = observed("short_term", rows=2)
    with pytest.raises(SpecMismatch, match="shape"):
        priors.checked_actions(seen, act(0, 0, 0, 0, rows=1), "short_term", 4)
    with pytest.raises(SpecMismatch, match="short_term"):
        priors.checked_actions(seen, act(0, 0, 0, 0, rows=2), "long_term", 4)
    with pytest.raises(NotFinite):
        priors.checked_actions(seen, act(0, np.nan, 0, 0, rows=2), "short_term", 4)
    assert priors.checked_actions(seen, act(3, 0, 0, -2, rows=2), "short_term", 4).tolist() == [[1, 0, 0, -1]] * 2
