"""The risk agent can only tighten, and tightens more the worse things are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.desk.risk import Risk, RiskParams
from agents.desk.wishes import PORTFOLIO, RiskWish
from tests.desk.observed import act, observed, wild

unit = st.floats(-1.0, 1.0, width=32)


def propose(*action: float, agent: Risk | None = None, **columns: float) -> RiskWish:
    (wish,) = (agent or Risk()).propose(observed("risk", **columns), act(*action))
    return wish


def test_action_zero_is_the_prior() -> None:
    wish = propose(0, 0)
    assert wish.gross_multiplier == pytest.approx(0.2 / 0.3 * (1 - 0.02 / 0.2), rel=1e-6)
    assert wish.budget_multiplier == pytest.approx(0.9)
    assert wish.symbol == PORTFOLIO


def test_a_calm_book_is_left_nearly_alone_and_a_spent_drawdown_closes_it() -> None:
    assert propose(0, 0, wished_volatility=0.05, drawdown=0.0).gross_multiplier == pytest.approx(0.9)
    assert propose(0, 0, wished_volatility=0.05, drawdown=0.2).gross_multiplier == pytest.approx(0.02)
    assert propose(1, 0, wished_volatility=0.05, drawdown=0.2).gross_multiplier < 0.15


def test_a_wish_beyond_the_gross_limit_is_counted_at_the_limit() -> None:
    once = propose(0, 0, wished_volatility=0.6, wish_gross=1.0, drawdown=0.0)
    thrice = propose(0, 0, wished_volatility=1.8, wish_gross=3.0, drawdown=0.0)
    assert thrice.gross_multiplier == pytest.approx(once.gross_multiplier, rel=1e-5)
    assert once.gross_multiplier == pytest.approx(1 / 3, rel=1e-5)


@pytest.mark.parametrize(("name", "low", "high"), [("wished_volatility", 0.25, 0.8), ("drawdown", 0.0, 0.1)])
def test_worse_numbers_mean_a_smaller_book(name: str, low: float, high: float) -> None:
    assert propose(0, 0, **{name: low}).gross_multiplier > propose(0, 0, **{name: high}).gross_multiplier


def test_without_a_prior_it_is_even() -> None:
    wish = propose(0, 0, agent=Risk(RiskParams(prior="none")))
    assert (wish.gross_multiplier, wish.budget_multiplier) == (0.5, 0.5)
    with pytest.raises(ValueError, match="use cushion or none"):
        RiskParams(prior="x")


@given(unit, unit, unit)
def test_each_action_acts_in_its_direction(first: float, second: float, other: float) -> None:
    low, high = sorted((first, other))
    assert propose(low, second).gross_multiplier <= propose(high, second).gross_multiplier
    low, high = sorted((second, other))
    assert propose(first, low).budget_multiplier <= propose(first, high).budget_multiplier


@settings(max_examples=200)
@given(st.integers(0, 2**32 - 1), unit, unit, st.sampled_from(["cushion", "none"]))
def test_any_finite_observation_and_any_action_only_tighten(seed: int, first: float, second: float, prior: str) -> None:
    with np.errstate(all="raise", under="ignore"):
        (wish,) = Risk(RiskParams(prior=prior)).propose(wild("risk", seed), act(first, second))
    assert 0.0 < wish.gross_multiplier < 1.0
    assert 0.0 < wish.budget_multiplier < 1.0
