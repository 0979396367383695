"""The long-term agent: action 0 is the prior, actions act in their direction, and nothing leaves its bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.desk.long_term import LongTerm, LongTermParams
from agents.desk.priors import trend_response
from agents.desk.wishes import LongTermWish
from tests.desk.observed import SYMBOLS, act, observed, wild

unit = st.floats(-1.0, 1.0, width=32)
actions = st.tuples(unit, unit, unit, unit)


def propose(*action: float, agent: LongTerm | None = None, **columns: float) -> LongTermWish:
    (wish,) = (agent or LongTerm()).propose(observed("long_term", **columns), act(*action))
    return wish


def test_action_zero_is_the_prior() -> None:
    wish = propose(0, 0, 0, 0)
    prior = np.mean(trend_response(np.array([0.8, 1.1, 0.5])))
    assert wish.exposure == pytest.approx(0.98 * prior, rel=1e-6)
    assert wish.weight == pytest.approx(wish.exposure * 0.2 / (0.0064 * np.sqrt(8760) * np.sqrt(2)), rel=1e-6)
    assert (wish.precision, wish.horizon) == (1.0, pytest.approx((1 / 3, 1 / 3, 1 / 3)))
    assert wish.stop_distance == pytest.approx(3 * 0.006, rel=1e-6)


def test_a_falling_market_wishes_for_less_than_nothing() -> None:
    assert propose(0, 0, 0, 0, macd_z_8_24=-1, macd_z_16_48=-1, macd_z_32_96=-1).weight < 0


def test_the_other_priors() -> None:
    sign = LongTerm(LongTermParams(prior="sign"))
    assert propose(0, 0, 0, 0, agent=sign, return_12m_sign=-1.0).exposure == pytest.approx(-0.98)
    plain = LongTerm(LongTermParams(prior="none"))
    assert propose(0, 0, 0, 0, agent=plain).exposure == 0.0
    assert propose(1, 0, 0, 0, agent=plain).exposure == pytest.approx(np.tanh(0.5))
    with pytest.raises(ValueError, match="use trend, sign or none"):
        LongTermParams(prior="trends")


@given(actions, unit)
def test_each_action_acts_in_its_direction(action: tuple[float, ...], other: float) -> None:
    for place, name in ((0, "exposure"), (1, "precision"), (3, "stop_distance")):
        low, high = sorted((action[place], other))
        values = []
        for value in (low, high):
            changed = list(action)
            changed[place] = value
            values.append(getattr(propose(*changed), name))
        assert values[0] <= values[1]


def test_the_horizon_action_moves_exposure_to_the_look_back_it_leans_to() -> None:
    trends = {"macd_z_8_24": -1.4, "macd_z_16_48": 0.0, "macd_z_32_96": 1.4}
    assert propose(0, 0, -1, 0, **trends).exposure < -0.5
    assert propose(0, 0, 0, 0, **trends).exposure == pytest.approx(0.0, abs=1e-9)
    assert propose(0, 0, 1, 0, **trends).exposure > 0.5


@pytest.mark.parametrize(("name", "low", "high"), [("volatility_1h", 0.004, 0.02), ("effective_bets", 1.5, 6.0)])
def test_more_volatility_or_more_bets_mean_smaller_weights(name: str, low: float, high: float) -> None:
    assert propose(0, 0, 0, 0, **{name: low}).weight > propose(0, 0, 0, 0, **{name: high}).weight > 0


@settings(max_examples=200)
@given(st.integers(0, 2**32 - 1), actions, st.sampled_from(["trend", "sign", "none"]))
def test_any_finite_observation_and_any_action_stay_in_bounds(seed: int, action: tuple[float, ...], prior: str) -> None:
    with np.errstate(all="raise", under="ignore"):
        wishes = LongTerm(LongTermParams(prior=prior)).propose(wild("long_term", seed), act(*action, rows=3))
    assert [wish.symbol for wish in wishes] == list(SYMBOLS[:3])
    for wish in wishes:
        assert -1.0 < wish.exposure < 1.0
        assert -1.0 <= wish.weight <= 1.0
        assert 0.25 <= wish.precision <= 4.0
        assert sum(wish.horizon) == pytest.approx(1.0)
        assert 0.005 <= wish.stop_distance <= 0.5
        assert wish.action == action
        assert all(np.isfinite(value) for value in wish.numbers().values())


def test_rows_do_not_touch_each_other() -> None:
    both = LongTerm().propose(observed("long_term", rows=2, macd_z_8_24=[0.2, 2.0]), act(0.3, -0.2, 0.5, 0.1, rows=2))
    assert both[0] == propose(0.3, -0.2, 0.5, 0.1, macd_z_8_24=0.2)
    assert both[1].exposure == propose(0.3, -0.2, 0.5, 0.1, macd_z_8_24=2.0).exposure


def test_a_full_action_is_the_whole_reach() -> None:
    assert [propose(0, a, 0.3, 0).precision for a in (-1, 0, 1)] == [0.25, 1.0, 4.0]
    stops = [propose(0, 0.3, 0, a).stop_distance for a in (-1, 0, 1)]
    assert stops == pytest.approx([0.009, 0.018, 0.036], rel=1e-6)
