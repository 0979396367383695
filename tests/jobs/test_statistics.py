"""Statistics give the papers' own figures, keep their laws on any curve, and refuse what cannot be judged."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from agents.core.errors import ConfigError, DataError
from agents.jobs import statistics as s

CURVES = arrays(np.float64, st.integers(24, 90), elements=st.floats(-0.25, 0.25).map(lambda x: round(x, 6)))
YEAR_OF_250 = 250.0


def noise(rows: int, seed: int, mean: float = 0.0, deviation: float = 0.02) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=rows)
    return mean + deviation * (drawn - drawn.mean()) / drawn.std(ddof=1)


# -- figures by hand


def test_a_curve_in_figures():
    returns = np.array([0.10, -0.20, 0.05, 0.10])
    found = s.performance(returns, periods=4.0)
    assert found.growth == pytest.approx(1.1 * 0.8 * 1.05 * 1.1 - 1.0)
    assert found.mean == pytest.approx(0.05)
    assert found.volatility == pytest.approx(2.0 * np.std(returns, ddof=1))
    assert found.sharpe == pytest.approx(found.mean / found.volatility)
    assert found.t == pytest.approx(found.sharpe)  # one year
    assert found.sortino == pytest.approx(0.05 / 4 / math.sqrt(0.04 / 4) * 2.0)
    assert found.max_drawdown == pytest.approx(0.2)
    assert found.calmar == pytest.approx(found.growth / 0.2)


def test_the_evidence_that_time_gives():
    for years, ratio in ((30 / 365, 7.0), (10 / 12, 2.2), (1.0, 2.0), (7.0, 0.75)):
        assert s.t_statistic(ratio, years) == pytest.approx(2.0, abs=0.03)


def test_ruin_is_for_good():
    returns = np.array([0.5, -1.5, 3.0])
    assert s.equity_curve(returns).tolist() == [1.0, 1.5, 0.0, 0.0]
    assert (s.max_drawdown(returns), s.growth(returns)) == (1.0, -1.0)


def test_a_curve_that_does_not_move_has_no_ratio():
    for value in (0.0, 1e-4, 0.1):
        still = s.performance(np.full(100, value))
        assert (still.sharpe, still.volatility, still.sortino, still.calmar) == (0.0, 0.0, 0.0, 0.0)


def test_days_are_cut_at_midnight():
    hour = 3600 * 10**9
    times = np.arange(20, 20 + 30, dtype=np.int64) * hour  # closings from 20:00 of the first day
    returns = np.full(30, 0.01)
    ends, days = s.compounded(times, returns)
    assert (ends // (24 * hour)).tolist() == [1, 2, 3]
    assert days == pytest.approx([1.01**5 - 1, 1.01**24 - 1, 0.01])


@given(CURVES)
def test_compounding_loses_nothing(returns):
    times = np.arange(len(returns), dtype=np.int64) * 3600 * 10**9
    _, days = s.compounded(times, returns)
    assert np.prod(1 + days) == pytest.approx(np.prod(1 + returns), rel=1e-9)


@given(CURVES, st.floats(0.1, 3.0))
def test_laws_of_a_curve(returns, scale):
    found = s.performance(returns)
    assert all(math.isfinite(value) for value in found.to_dict().values())
    assert 0.0 <= found.max_drawdown <= 1.0
    assert s.sharpe(returns * scale) == pytest.approx(found.sharpe, rel=1e-6, abs=1e-6)
    assert s.sharpe(-returns) == pytest.approx(-found.sharpe, rel=1e-9, abs=1e-9)
    assert s.sharpe(returns, 4 * s.DAYS) == pytest.approx(2 * found.sharpe)
    assert (found.sortino > 0) == (found.sharpe > 0) or found.sortino == 0.0 or abs(found.mean) < 1e-9
    assert s.max_drawdown(np.maximum(returns, 0.0)) == 0.0


@pytest.mark.parametrize("bad", [[0.1, math.nan], [math.inf, 0.1], [[0.1, 0.2]], []])
def test_refuses_what_is_no_curve(bad):
    with pytest.raises(DataError):
        s.performance(bad)


# -- the papers' figures


def test_probabilistic_sharpe_as_published():
    # Bailey and Lopez de Prado (2012), section 4: 24 months at .458 a month, normal and as skewed as it was.
    assert s.probabilistic_sharpe(0.458, 24) == pytest.approx(0.982, abs=5e-4)
    assert s.probabilistic_sharpe(0.458, 24, -2.448, 10.164) == pytest.approx(0.913, abs=5e-4)


def test_deflated_sharpe_as_published():
    # Bailey and Lopez de Prado (2014), "A numerical example": 1,250 days of Sharpe ratio 2.5 a year, 100 tries of variance 1/2 a year.
    ratio, variance = 2.5 / math.sqrt(YEAR_OF_250), 0.5 / YEAR_OF_250
    assert s.expected_best(100, variance) == pytest.approx(0.1132, abs=5e-5)
    for trials, skewness, kurtosis, published in ((100, -3.0, 10.0, 0.9004), (46, -3.0, 10.0, 0.9505), (88, 0.0, 3.0, 0.9505)):
        hurdle = s.expected_best(trials, variance)
        assert s.probabilistic_sharpe(ratio, 1250, skewness, kurtosis, hurdle) == pytest.approx(published, abs=1e-4)


def test_the_track_record_that_is_needed_is_believed():
    rows = s.least_track_record(0.1, -1.0, 6.0, level=0.95)
    assert s.probabilistic_sharpe(0.1, math.ceil(rows), -1.0, 6.0) == pytest.approx(0.95, abs=1e-3)
    assert s.least_track_record(-0.1) == math.inf


@given(st.integers(1, 500), st.integers(1, 500))
def test_more_tries_deserve_less_belief(few, more):
    returns = noise(400, 3, mean=0.002)
    low, high = sorted((few, more))
    assert s.deflated_sharpe(returns, high) <= s.deflated_sharpe(returns, low)
    assert s.deflated_sharpe(returns, 1) == pytest.approx(s.probabilistic_sharpe(*_args(returns)))
    assert s.deflated_sharpe(returns, high, variance=0.0) == s.deflated_sharpe(returns, high)  # never below chance


def _args(returns):
    ratio, skewness, kurtosis = s.moments(returns)
    return ratio, len(returns), skewness, kurtosis


def test_the_best_of_many_worthless_tries_is_as_good_as_expected():
    rng = np.random.default_rng(5)
    tables = rng.normal(size=(400, 250, 40))
    best = (tables.mean(1) / tables.std(1, ddof=1)).max(1).mean()
    assert best == pytest.approx(s.expected_best(40, 1 / 249), rel=0.04)


def test_a_result_was_tried_at_least_once():
    with pytest.raises(ConfigError, match="0 trials"):
        s.expected_best(0, 1.0)


# -- intervals


def test_what_moved_both_cancels():
    market = noise(500, 1, deviation=0.03)
    ours = market + noise(500, 2, mean=0.0004, deviation=0.002)
    paired = s.paired_intervals(ours, market, resamples=400)
    alone = s.mean_interval(ours, resamples=400)
    assert paired["mean"].decided == 1
    assert alone["mean"].decided == 0
    assert paired["mean"].estimate == pytest.approx(0.0004 * 365, rel=1e-6)
    assert paired["mean"].below < 0.025


def test_more_appetite_is_no_skill():
    market = noise(400, 4, mean=0.001)
    found = s.paired_intervals(3.0 * market, market, resamples=200)
    assert found["mean"].estimate == pytest.approx(2 * 0.001 * 365, rel=1e-6)
    for name in ("sharpe", "equal_volatility"):
        assert (found[name].low, found[name].high) == pytest.approx((0.0, 0.0), abs=1e-9)
        assert found[name].decided == 0


@settings(max_examples=15, deadline=None)
@given(CURVES, st.integers(0, 9))
def test_turned_round_the_interval_turns_round(returns, seed):
    other = np.roll(returns, 3) * 0.5
    there = s.paired_intervals(returns, other, resamples=50, seed=seed, block=3.0)
    back = s.paired_intervals(other, returns, resamples=50, seed=seed, block=3.0)
    for name in ("mean", "sharpe"):
        assert there[name].estimate == pytest.approx(-back[name].estimate, rel=1e-9, abs=1e-12)
        assert there[name].low == pytest.approx(-back[name].high, rel=1e-9, abs=1e-9)
        assert there[name].low <= there[name].high


def test_a_seed_decides_the_interval():
    ours, theirs = noise(200, 6), noise(200, 7)
    first, second, other = (s.paired_intervals(ours, theirs, resamples=100, seed=n) for n in (1, 1, 2))
    assert first == second != other


def test_dependent_returns_ask_for_longer_blocks_and_wider_bounds():
    free = noise(1500, 8)
    held = np.convolve(noise(1519, 9), np.ones(20) / 20, "valid")
    assert s.block_length(held) > 3 * s.block_length(free)
    short = s.mean_interval(held, resamples=300)["mean"]
    naive = s.paired_intervals(held, np.zeros_like(held), resamples=300, block=1.0)["mean"]
    assert short.high - short.low > 2 * (naive.high - naive.low)


def test_blocks_follow_signs_that_persist_and_volatility_that_clusters():
    rng = np.random.default_rng(10)
    signs = np.where(np.cumsum(rng.random(750) < 0.05) % 2, 1.0, -1.0)
    signs = np.concatenate([signs, -signs])  # of mean 0, so that squares know nothing of them
    loud = np.repeat(rng.choice([0.01, 0.05], 30), 50)
    assert s.block_length(0.01 * signs + noise(1500, 11, deviation=1e-4)) > 5.0
    assert s.block_length(loud * rng.normal(size=1500)) > 5.0
    assert s.block_length(noise(1500, 12)) < 4.0


def test_the_interval_covers_what_is_true_about_as_often_as_it_says():
    missed = 0
    for seed in range(60):
        drawn = np.random.default_rng(seed).normal(0.001, 0.02, size=250)
        found = s.paired_intervals(drawn, np.zeros(250), resamples=150, seed=seed, block=1.0)["mean"]
        missed += not found.low <= 0.365 <= found.high
    assert missed <= 9  # 3 expected at 95 %


def test_curves_of_different_length_are_no_pair():
    with pytest.raises(DataError, match="one length"):
        s.paired_intervals(noise(50, 1), noise(51, 1))


def test_seeds_that_disagree_widen_the_interval():
    theirs = noise(300, 20)
    alike = np.stack([theirs + 0.0005] * 6, axis=1)
    apart = alike + 0.004 * np.array([-1.0, 1.0, -1.0, 1.0, -1.0, 1.0])
    sure, unsure = (s.paired_intervals(table, theirs, resamples=300)["mean"] for table in (alike, apart))
    assert sure.estimate == pytest.approx(unsure.estimate) == pytest.approx(0.0005 * 365)
    assert (sure.decided, unsure.decided) == (1, 0)
    assert s.paired_intervals(alike[:, :1], theirs, resamples=50) == s.paired_intervals(alike[:, 0], theirs, resamples=50)


# -- overfitting and seeds


def test_choosing_among_worthless_tries_is_chance_and_among_one_good_try_is_not():
    rng = np.random.default_rng(11)
    worthless = np.mean([s.overfitting(rng.normal(size=(320, 12)), 8).probability for _ in range(60)])
    assert worthless == pytest.approx(0.5, abs=0.08)
    table = rng.normal(size=(640, 12)) * 0.02
    table[:, 4] += 0.004
    found = s.overfitting(table, 16)
    assert (found.splits, found.trials) == (12_870, 12)
    assert found.probability < 0.05
    assert found.loss < 0.05


def test_what_only_one_period_favours_is_overfitted():
    """Each try shines in one eighth of time alone and loses elsewhere: the best inside is never the best outside."""
    table = np.full((160, 8), -0.001) + np.random.default_rng(2).normal(size=(160, 8)) * 1e-4
    for n in range(8):
        table[20 * n : 20 * n + 20, n] += 0.02
    found = s.overfitting(table, 8)
    assert found.probability > 0.95
    assert found.loss > 0.95


def test_tries_alike_are_worth_nothing_to_choose_from():
    table = np.repeat(noise(200, 1)[:, None], 5, axis=1)
    assert s.overfitting(table, 8).probability == 1.0


@pytest.mark.parametrize(("shape", "blocks"), [((100, 1), 8), ((10, 3), 8), ((100,), 8)])
def test_overfitting_needs_tries_and_rows(shape, blocks):
    with pytest.raises(DataError, match="at least two tries over 16 periods"):
        s.overfitting(np.zeros(shape), blocks)


def test_overfitting_needs_an_even_number_of_blocks():
    with pytest.raises(ConfigError, match="even"):
        s.overfitting(np.zeros((100, 3)), 7)


def test_seeds_in_figures():
    found = s.dispersion([1.0, 2.0, 3.0, 4.0])
    assert (found.seeds, found.mean, found.median, found.least, found.most) == (4, 2.5, 2.5, 1.0, 4.0)
    assert found.high - found.mean == pytest.approx(3.182446 * np.std([1, 2, 3, 4], ddof=1) / 2, rel=1e-5)
    assert s.dispersion([1.0]).high == math.inf
