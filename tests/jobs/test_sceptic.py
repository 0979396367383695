"""The sceptic's markets tell those who know from those who peek, and both from those who do not know."""

import json

import numpy as np
import pytest

from agents.core.errors import DataError
from agents.environment.kernel import VectorCosts
from agents.jobs.contenders import FREE as UNLIMITED
from agents.jobs.sceptic import FREE, Market, by_weights, known_rule, null_market, planted_alpha, spot_rule, spot_share

SMALL = Market(symbols=4, years=1.0, timeframe="4h")
SEEDS = (0, 1, 2)


def test_nobody_wins_the_null_market_without_costs():
    verdict = null_market(by_weights(lambda h: np.full(h.close.shape, 0.2), costs=FREE), market=SMALL, seeds=SEEDS)
    assert verdict.passed and verdict.mean.low < 0.0 < verdict.mean.high
    assert verdict.years == pytest.approx(3.0, abs=0.05) and json.dumps(verdict.to_dict())


def test_trading_for_nothing_loses_there_and_passes():
    rng = np.random.default_rng(0)
    verdict = null_market(by_weights(lambda h: rng.uniform(0, 0.2, h.close.shape), limits=UNLIMITED), market=SMALL, seeds=SEEDS)
    assert verdict.passed and verdict.mean.high < 0.0


def test_who_knows_the_next_bar_does_not_pass_the_null_market():
    def peek(history):
        following = np.vstack([history.close[1:] / history.open[1:] - 1.0, np.zeros((1, len(history.symbols)))])
        return np.where(following > 0.005, 0.2, 0.0)

    verdict = null_market(by_weights(peek, limits=UNLIMITED), market=SMALL, seeds=SEEDS)
    assert not verdict.passed and verdict.sharpe.low > 3.0


@pytest.mark.parametrize("sharpe", [2.0, -3.0])
def test_the_known_rule_finds_what_was_planted(sharpe):
    verdict = planted_alpha(known_rule, sharpe=sharpe, market=SMALL, seeds=(0, 1, 2, 3, 4, 5))
    assert verdict.passed and verdict.planted == verdict.expected == sharpe
    assert verdict.recovered == pytest.approx(1.0, abs=0.6) and json.dumps(verdict.to_dict())


def test_spot_without_shorts_finds_the_share_that_the_formula_says():
    for correlation in (0.0, 0.5):
        market = Market(symbols=6, years=2.0, timeframe="4h", correlation=correlation)
        share = spot_share(market)
        verdict = planted_alpha(
            lambda h, x: spot_rule(h, x, limits=UNLIMITED), sharpe=6.0, half_life=6.0, expected=6.0 * share, market=market, seeds=range(6)
        )
        assert verdict.passed and verdict.sharpe.estimate == pytest.approx(6.0 * share, rel=0.25)
    assert spot_share(Market(correlation=0.0)) == pytest.approx(0.5**0.5)
    assert spot_share() < 0.5


def test_who_knows_nothing_or_the_opposite_or_pays_for_it_does_not_recover_it():
    for rule in (lambda h, x: -known_rule(h, x), lambda h, x: known_rule(h, np.roll(x, 500, axis=0))):
        assert not planted_alpha(rule, sharpe=4.0, market=SMALL, seeds=SEEDS).passed
    dear = planted_alpha(
        lambda h, x: spot_rule(h, x, costs=VectorCosts(fee_bps=40.0), limits=UNLIMITED), sharpe=4.0, half_life=2.0, market=SMALL, seeds=SEEDS
    )
    assert not dear.passed and dear.sharpe.high < 0.0


def test_a_part_of_what_was_expected_is_not_enough():
    verdict = planted_alpha(known_rule, sharpe=4.0, expected=10.0, market=SMALL, seeds=SEEDS)
    assert not verdict.passed and verdict.sharpe.low > 0.0


def test_a_late_account_finds_less():
    on_time, late = (
        planted_alpha(lambda h, x, bars=bars: spot_rule(h, x, limits=UNLIMITED, delay_bars=bars), sharpe=6.0, half_life=1.0, market=SMALL, seeds=SEEDS)
        for bars in (1, 4)
    )
    assert late.sharpe.estimate < on_time.sharpe.estimate / 2


def test_returns_of_another_length_are_refused():
    with pytest.raises(DataError, match="returns"):
        null_market(lambda h: np.zeros(3), market=SMALL, seeds=(0,))
