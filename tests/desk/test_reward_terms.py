"""Laws of every reward term: churning earns nothing, a gain is never a loss, parts add up, and nothing that is no number gets in."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.errors import ConfigError
from agents.desk.rewards import (
    NAMES,
    TERMS,
    Outcome,
    RewardFunctions,
    RewardParams,
    RewardTerms,
    TighteningReward,
    WeightedReward,
    make_bonus,
)

HOUR = 1 / 8760
SINGLE = [name for name in NAMES if name != "exploration"]
PORTFOLIO = ["differential_sharpe", "sortino", "cvar", "drawdown"]
"""Terms of the whole portfolio's return, split by symbol."""

numbers = st.floats(-4.0, 4.0)
rows = st.lists(numbers, min_size=1, max_size=4).map(np.array)
seeds = st.integers(0, 10_000)


def judge_in_some_state(name: str, seed: int, shape: tuple[int, ...] = ()) -> WeightedReward:
    """A judge of one term that has lived through some random intervals."""
    rng = np.random.default_rng(seed)
    judge = WeightedReward(RewardParams(moment_memory=20.0), {name: 1.0}, shape)
    drift = rng.uniform(-2, 2)
    for _ in range(rng.integers(0, 30)):
        judge.judge(outcome(drift + rng.normal(size=(*shape, 2)), seed))
    return judge


def outcome(r: np.ndarray, seed: int, **changes: Any) -> Outcome:
    """Normalised returns as an hour's outcome of a book with random weights."""
    rng = np.random.default_rng(seed)
    width = r.shape[-1]
    root = rng.normal(size=(width, width))
    weights = np.broadcast_to(rng.uniform(-0.3, 0.3, width), r.shape)
    given_ = {
        "profit": r * 0.2 * np.sqrt(HOUR), "weights": weights, "returns": np.broadcast_to(rng.normal(size=width) * 0.01, r.shape),
        "covariance": root @ root.T * 0.3, "years": HOUR, "drawdown": rng.uniform(0, 0.3) * np.ones(r.shape[:-1]),
        "prediction": np.broadcast_to(rng.uniform(-1, 1, width), r.shape),
    }  # fmt: skip
    return Outcome(**{**given_, **changes})


# -- churning and sign -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SINGLE)
@given(seeds, st.lists(st.floats(0.0, 1.0), min_size=1, max_size=4).map(np.array), st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_a_round_trip_at_an_unchanged_price_is_never_rewarded(name: str, seed: int, paid: np.ndarray, share: float) -> None:
    judge, cost = judge_in_some_state(name, seed), paid * 0.2 * np.sqrt(HOUR)
    still = outcome(np.zeros(len(paid)), seed, returns=np.zeros(len(paid)))
    churned = outcome(-paid, seed, returns=np.zeros(len(paid)), cost=cost * share)
    held, traded = judge.judge(still, remember=False).sum(), judge.judge(churned, remember=False).sum()
    assert traded <= held + 1e-12
    if name in ("utility", "spread_capture", "hybrid"):
        assert traded == pytest.approx(held - paid.sum())
    if name == "costs":
        assert traded == pytest.approx(-share * paid.sum()) and held == 0.0


@pytest.mark.parametrize("name", SINGLE)
@given(seeds, rows, st.floats(0.0, 3.0))
@settings(max_examples=30, deadline=None)
def test_a_profit_more_is_never_a_lower_reward(name: str, seed: int, r: np.ndarray, more: float) -> None:
    judge = judge_in_some_state(name, seed)
    better = r.copy()
    better[seed % len(r)] += more
    before = judge.judge(outcome(r, seed), remember=False).sum()
    assert judge.judge(outcome(better, seed), remember=False).sum() >= before - 1e-9 * max(abs(before), 1.0)


def test_the_published_ratio_would_reward_less_for_a_huge_gain_and_more_for_a_huge_loss() -> None:
    functions = RewardFunctions()
    for sign in (1.0, -1.0):
        mean, square = np.array(0.5 * sign), np.array(1.0)
        at, beyond = (functions.differential_sharpe(np.array([sign * r]), mean, square)[0] for r in (2.0, 6.0))
        assert beyond == pytest.approx(at)
        inside = functions.differential_sharpe(np.array([sign * 1.5]), mean, square)[0]
        assert sign * inside < sign * at


# -- adding up ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PORTFOLIO)
@given(seeds, rows)
@settings(max_examples=30, deadline=None)
def test_parts_by_symbol_add_up_to_the_portfolios_value(name: str, seed: int, r: np.ndarray) -> None:
    judge = judge_in_some_state(name, seed)
    whole = judge.judge(outcome(r.sum(keepdims=True), seed, drawdown=0.1), remember=False)
    parts = judge.judge(outcome(r, seed, drawdown=0.1), remember=False)
    assert parts.shape == r.shape
    assert parts.sum() == pytest.approx(whole[0], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("name", SINGLE)
@given(seeds)
@settings(max_examples=6, deadline=None)
def test_any_number_of_leading_dimensions(name: str, seed: int) -> None:
    r = np.random.default_rng(seed).normal(size=(3, 2, 4))
    drawdown = np.random.default_rng(seed).uniform(0, 0.3, (3, 2))
    whole = WeightedReward(RewardParams(), {name: 1.0}, (3, 2))
    together = [whole.judge(outcome(k * r, seed, drawdown=drawdown)) for k in (1.0, -2.0, 0.5)]
    for place in np.ndindex(3, 2):
        alone = WeightedReward(RewardParams(), {name: 1.0})
        for k, values in zip((1.0, -2.0, 0.5), together, strict=True):
            value = alone.judge(outcome(k * r[place], seed, drawdown=drawdown[place]))
            np.testing.assert_allclose(values[place], value, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose([m[place] for m in whole.moments()], alone.moments())


def test_a_covariance_for_each_copy_and_one_for_all_mean_the_same() -> None:
    rng = np.random.default_rng(0)
    root, book, profit = rng.normal(size=(3, 3)), rng.normal(size=(5, 3)), rng.normal(size=(5, 3))
    functions, covariance = RewardFunctions(), root @ root.T
    one = functions.utility(profit, book, book, covariance, HOUR)
    np.testing.assert_allclose(functions.utility(profit, book, book, np.broadcast_to(covariance, (5, 3, 3)), HOUR), one)
    np.testing.assert_allclose(functions.utility(profit[2], book[2], book[2], covariance, HOUR), one[2])


@given(rows, seeds, st.floats(0, 3), st.floats(0, 3))
@settings(max_examples=25, deadline=None)
def test_several_terms_are_a_weighted_sum(r: np.ndarray, seed: int, one: float, two: float) -> None:
    params, seen = RewardParams(), outcome(r, seed)
    both = WeightedReward(params, {"utility": one, "drawdown": two}).judge(seen)
    parts = [WeightedReward(params, {name: 1.0}).judge(seen) for name in ("utility", "drawdown")]
    np.testing.assert_allclose(both, one * parts[0] + two * parts[1], atol=1e-12)


# -- units -------------------------------------------------------------------------------------------------------------


@given(st.floats(1e-8, 1.0), numbers, st.floats(0.05, 1.0))
def test_a_gain_of_one_target_deviation_is_one_over_any_time(years: float, z: float, target: float) -> None:
    functions = RewardFunctions(RewardParams(volatility_target=target, risk_aversion=0.0, prediction_bonus=0.0))
    gain, flat = np.array([z * target * np.sqrt(years)]), np.zeros(1)
    for value in (
        functions.normalised(gain, years), functions.utility(gain, flat, flat, np.eye(1), years), functions.hybrid(gain, flat, flat, years)
    ):  # fmt: skip
        assert value[0] == pytest.approx(z, abs=1e-12)


@given(seeds, st.floats(1e-6, 1e-3), st.floats(1e-6, 1e-3))
def test_utility_in_money_adds_up_over_time(seed: int, first: float, second: float) -> None:
    rng, functions = np.random.default_rng(seed), RewardFunctions()
    w, root, gains = rng.normal(size=3), rng.normal(size=(3, 3)), rng.normal(size=(2, 3))
    covariance = root @ root.T

    def money(gain: np.ndarray, years: float) -> np.ndarray:
        return functions.utility(gain, w, w, covariance, years) * np.sqrt(years)

    whole = money(gains.sum(0), first + second)
    np.testing.assert_allclose(money(gains[0], first) + money(gains[1], second), whole, rtol=1e-9, atol=1e-9)


# -- ratios that learn online ------------------------------------------------------------------------------------------


@given(st.floats(-0.5, 0.5), st.floats(0.3, 3.0), st.floats(-1.0, 1.0))
@settings(max_examples=100)
def test_differential_sharpe_is_the_derivative_of_the_averaged_ratio(mean: float, deviation: float, r: float) -> None:
    square = mean**2 + deviation**2

    def ratio(eta: float) -> float:
        a, b = mean + eta * (r - mean), square + eta * (r * r - square)
        return a / np.sqrt(b - a * a)

    value = RewardFunctions().differential_sharpe(np.array([r]), mean, square)[0]
    if mean * r <= square:
        assert value == pytest.approx((ratio(1e-5) - ratio(-1e-5)) / 2e-5, rel=1e-4, abs=1e-5)


@given(st.floats(-0.5, 0.5), st.floats(0.3, 3.0), st.floats(-0.5, 1.0))
@settings(max_examples=100)
def test_sortino_is_the_derivative_of_the_averaged_ratio(mean: float, downside: float, r: float) -> None:
    def ratio(eta: float) -> float:
        square = downside**2 + eta * (min(r, 0.0) ** 2 - downside**2)
        return (mean + eta * (r - mean)) / np.sqrt(square)

    value = RewardFunctions().sortino(np.array([r]), mean, downside**2)[0]
    if mean * min(r, 0.0) <= downside**2:
        assert value == pytest.approx((ratio(1e-5) - ratio(-1e-5)) / 2e-5, rel=1e-4, abs=1e-5)


def test_the_rewards_add_up_to_the_change_of_the_ratio() -> None:
    """Over many intervals the sum of eta D is the ratio's own path: that is what the learner climbs."""
    rng = np.random.default_rng(0)
    params = RewardParams(moment_memory=2000.0)
    judge = WeightedReward(params, {"differential_sharpe": 1.0})
    judge._mean, judge._square = np.array(0.0), np.array(1.0)
    climbed = 0.0
    for r in rng.normal(0.3, 1.0, 6000):
        climbed += judge.judge(outcome(np.array([r]), 0))[0] / params.moment_memory
    mean, square = judge.moments()
    assert climbed == pytest.approx(mean / np.sqrt(square - mean**2), abs=0.01)
    assert 0.2 < climbed < 0.4


@pytest.mark.parametrize("name", ["differential_sharpe", "sortino"])
def test_no_variance_and_wild_returns_are_safe(name: str) -> None:
    functions = RewardFunctions()
    formula = getattr(functions, name)
    idle = formula(np.array([0.3, 0.0]), 0.0, 0.0)
    assert idle.tolist() == pytest.approx([3.0, 0.0])  # the floor is a tenth
    for r in (1e300, -1e300, 0.0):
        for mean in (-1.0, 0.0, 1e-300, 1.0):
            assert np.isfinite(formula(np.array([r, 0.0]), mean, 0.0)).all()
            assert np.isfinite(functions.moments(np.array([r]), mean, 0.0)).all()


def test_moments_follow_the_returns_and_count_losses_only_where_asked() -> None:
    functions = RewardFunctions(RewardParams(moment_memory=4.0))
    assert functions.moments(np.array([1.0, 1.0]), 0.0, 0.0) == (0.5, 1.0)
    assert functions.moments(np.array([2.0]), 0.0, 0.0, downside=True) == (0.5, 0.0)
    assert functions.moments(np.array([-2.0]), 0.0, 0.0, downside=True) == (-0.5, 1.0)


def test_a_judge_keeps_the_moments_of_its_own_ratio_and_a_symbol_without_a_mark_spoils_none() -> None:
    for name, square in (("differential_sharpe", 1.75), ("sortino", 0.75)):
        judge = WeightedReward(RewardParams(moment_memory=4.0), {name: 1.0})
        ahead = judge.ahead(outcome(np.array([2.0, np.nan]), 0).profit, HOUR)
        judge.judge(outcome(np.array([2.0]), 0))
        assert [float(moment) for moment in judge.moments()] == pytest.approx([0.5, square])
        assert ahead == judge.moments()


def test_copies_are_restarted_one_by_one() -> None:
    judge = WeightedReward(RewardParams(), {"sortino": 1.0, "cvar": 1.0}, (2,))
    fresh, start = judge.moments(), judge.value_at_risk
    judge.judge(outcome(-3.0 * np.ones((2, 1)), 0))
    mean, square = judge.moments()
    judge.restart(np.array([True, False]))
    assert judge.moments()[0].tolist() == [fresh[0][0], mean[1]] and judge.moments()[1].tolist() == [fresh[1][0], square[1]]
    assert judge.value_at_risk[0] == start[0] < judge.value_at_risk[1]


# -- penalties ---------------------------------------------------------------------------------------------------------


def test_the_tail_penalty_and_the_threshold_add_up_to_the_expected_shortfall() -> None:
    functions = RewardFunctions(RewardParams(cvar_level=0.9))
    window = np.random.default_rng(0).normal(size=500)
    threshold = np.quantile(-window, 0.9, method="inverted_cdf")
    penalties = functions.cvar(window[:, None], threshold)[:, 0]
    assert threshold - penalties.mean() == pytest.approx(functions.expected_shortfall(window))
    assert functions.expected_shortfall(window) == pytest.approx(np.sort(-window)[-50:].mean())
    assert functions.expected_shortfall(window[None, :7] * np.ones((3, 1))).shape == (3,)


def test_the_threshold_finds_the_quantile() -> None:
    functions, rng = RewardFunctions(RewardParams(moment_memory=400.0)), np.random.default_rng(0)
    zeta, last = 0.3, []
    for r in rng.normal(size=40_000):
        zeta = float(functions.value_at_risk(np.array([r]), zeta))
        last.append(zeta)
    assert np.mean(last[20_000:]) == pytest.approx(1.645, abs=0.08)
    assert functions.value_at_risk(np.array([5.0]), 0.0) == 0.0


def test_a_fall_costs_more_the_deeper_it_begins_and_a_rise_earns_nothing() -> None:
    functions = RewardFunctions()
    at = [float(functions.drawdown(np.array([-1.0]), depth)[0]) for depth in (0.0, 0.1, 0.15)]
    assert at[0] == -1.0 > at[1] > at[2]
    assert not functions.drawdown(np.array([0.5, 0.7]), 0.15).any()
    assert np.isfinite(functions.drawdown(np.array([-1.0]), 5.0)).all()


def test_a_prediction_pays_by_its_confidence_when_the_market_agrees() -> None:
    functions = RewardFunctions()
    nothing = np.zeros(4)
    bonus = functions.hybrid(nothing, np.array([0.01, 0.01, -0.01, 0.0]), np.array([0.5, -0.5, -1.0, 1.0]), HOUR)
    assert bonus.tolist() == pytest.approx([0.05, -0.05, 0.1, 0.0])


@given(st.floats(0.05, 0.95), numbers, st.floats(0, 0.19), st.sampled_from(["cvar", "drawdown"]))
def test_tightening_is_judged_by_what_the_loss_would_have_been(multiplier: float, z: float, drawdown: float, name: str) -> None:
    judge = TighteningReward(RewardParams(), {name: 1.0})
    held, rho = np.array([0.3 * multiplier]), np.array([z * 0.2 * np.sqrt(HOUR) * 20])
    value = judge.judge(multiplier, held, rho, np.eye(1), drawdown, HOUR)
    assert (value >= 0.0 and (value > 0.0) == (z < 0 and (name == "drawdown" or -z * 0.3 * 20 > 1.645))) or abs(z) < 1e-6
    assert TighteningReward(RewardParams(), {name: 1.0}).judge(1.0, held, rho, np.eye(1), drawdown, HOUR) == 0.0


def test_the_threshold_of_the_risk_agent_follows_its_losses() -> None:
    judge = TighteningReward(RewardParams(moment_memory=10.0), {"cvar": 1.0})
    start = judge.value_at_risk
    values = [judge.judge(0.5, np.array([0.2]), np.array([-0.1]), np.eye(1), 0.0, HOUR) for _ in range(20)]
    assert judge.value_at_risk > start and values[-1] < values[0]  # what was held now falls short of the threshold as well
    assert all(value > 0.0 for value in values)


# -- what is no number -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_symbol_without_numbers_is_dropped_and_counted_and_spoils_nobody(name: str, bad: float) -> None:
    judge, twin = judge_in_some_state(name, 3), judge_in_some_state(name, 3)
    r = np.array([0.5, bad, -1.0])
    values = judge.judge(outcome(r, 3))
    assert np.isnan(values[1]) and np.isfinite(values[[0, 2]]).all() and judge.dropped == 1
    clean = outcome(np.array([0.5, 0.0, -1.0]), 3)
    weights = np.where([True, False, True], clean.weights, 0.0)
    expected = twin.judge(Outcome(clean.profit, weights, clean.returns, clean.covariance, HOUR, None, 0.0, clean.drawdown, clean.prediction))
    np.testing.assert_allclose(values[[0, 2]], expected[[0, 2]])
    assert np.isfinite(judge.moments()).all() and np.isfinite(judge.value_at_risk)
    assert twin.moments() == judge.moments() and twin.value_at_risk == judge.value_at_risk


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ({"sharpe": 1.0}, "'sharpe' is no reward term here; the terms are utility, differential_sharpe, sortino, cvar, drawdown, costs, hybrid"),
        ({"exploration": 1.0}, "simulation only"),
        ({"spread_capture": 1.0}, "no reward term"),
        ({}, "at least one of utility"),
        ({"utility": float("nan")}, "weight of utility is nan"),
        ({"utility": -1.0}, "not negative"),
        ({"sortino": 1.0, "differential_sharpe": 0.5}, "same two columns"),
    ],
)  # fmt: skip
def test_terms_that_cannot_be_are_refused_with_the_names_of_those_that_can(terms: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=f"rewards.long_term: .*{words}"):
        RewardTerms(long_term=terms)


@pytest.mark.parametrize("agent", sorted(TERMS))
def test_no_agent_that_trades_can_be_given_an_exploration_bonus(agent: str) -> None:
    with pytest.raises(ConfigError, match="simulation only: give it to an environment"):
        RewardTerms(**{agent: {"exploration": 0.1}})
    with pytest.raises(ConfigError, match="simulation only"):
        WeightedReward(RewardParams(), {"utility": 1.0, "exploration": 0.1})


def test_an_environment_may_pay_for_novelty() -> None:
    judge = WeightedReward(RewardParams(), {"utility": 0.0, "exploration": 0.5}, (3,), make_bonus("count", 5))
    states = np.random.default_rng(0).normal(size=(3, 5))
    first, again = (judge.judge(outcome(np.zeros((3, 2)), 0, states=states)) for _ in range(2))
    np.testing.assert_allclose(first.sum(axis=-1), 0.5)
    assert again.sum() < first.sum()
    per_symbol = judge.judge(outcome(np.zeros((3, 2)), 0, states=np.ones((3, 2, 5))))
    assert per_symbol.shape == (3, 2)


@pytest.mark.parametrize(
    ("name", "value"),
    [("volatility_target", 0.0), ("cvar_level", 1.0), ("moment_memory", 1.0), ("deviation_floor", float("nan")), ("clip", float("inf")),
     ("risk_aversion", -5.0), ("alias", -1.0), ("inventory_aversion", float("nan")), ("reward_scale", float("nan"))],
)
def test_numbers_without_sense_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"rewards.{name}"):
        RewardParams(**{name: value})
