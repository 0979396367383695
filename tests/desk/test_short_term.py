"""The short-term agent: it tilts only when the edge pays for the trade, and never beyond its band."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.desk.priors import reversion
from agents.desk.short_term import ShortTerm, ShortTermParams
from agents.desk.wishes import ShortTermWish
from tests.desk.observed import act, observed, wild

unit = st.floats(-1.0, 1.0, width=32)
actions = st.tuples(unit, unit, unit, unit)


def propose(*action: float, agent: ShortTerm | None = None, **columns: float) -> ShortTermWish:
    (wish,) = (agent or ShortTerm()).propose(observed("short_term", **columns), act(*action))
    return wish


def test_action_zero_is_the_prior() -> None:
    wish = propose(0, 0, 0, 0)
    mean, variance = reversion(np.array([0.05]), np.array([-0.012]), np.array([0.0006]), 15.0)
    edge = mean[0] - 2 * (0.001 + 0.0001)
    band = 0.25 * 0.2 / (0.0008 * np.sqrt(525_600) * np.sqrt(2))
    assert edge > 0
    assert wish.tilt == pytest.approx(0.98 * np.tanh(edge / (100 * variance[0]) / band), rel=1e-4)
    assert wish.weight == pytest.approx(wish.tilt * band, rel=1e-5)
    assert (wish.urgency, wish.offset, wish.participation, wish.precision) == (0.5, 0.0, 0.05, 1.0)


def test_it_leans_against_the_gap_and_only_when_costs_are_covered() -> None:
    assert propose(0, 0, 0, 0, ou_gap=-0.012).tilt > 0 > propose(0, 0, 0, 0, ou_gap=0.012).tilt
    assert propose(0, 0, 0, 0, ou_gap=-0.002).tilt == 0.0
    assert propose(0, 0, 0, 0, ou_gap=-0.002, maker_fee=0.0).tilt > 0.0
    assert propose(0, 0, 0, 0, ou_kappa=0.0).tilt == 0.0
    once = ShortTerm(ShortTermParams(cost_multiple=1.0))
    assert propose(0, 0, 0, 0, ou_gap=-0.004).tilt == 0.0 < propose(0, 0, 0, 0, agent=once, ou_gap=-0.004).tilt


def test_without_a_prior_it_is_plain() -> None:
    plain = ShortTerm(ShortTermParams(prior="none"))
    assert propose(0, 0, 0, 0, agent=plain).tilt == 0.0
    assert propose(-1, 0, 0, 0, agent=plain).tilt == pytest.approx(-np.tanh(0.5))
    with pytest.raises(ValueError, match="use reversion or none"):
        ShortTermParams(prior="")


@given(actions, unit)
def test_each_action_acts_in_its_direction(action: tuple[float, ...], other: float) -> None:
    for place, name in enumerate(("tilt", "urgency", "offset", "participation")):
        low, high = sorted((action[place], other))
        values = []
        for value in (low, high):
            changed = list(action)
            changed[place] = value
            values.append(getattr(propose(*changed), name))
        assert values[0] <= values[1]


def test_a_full_urgency_takes_and_none_waits() -> None:
    assert (propose(0, -1, 0, 0).urgency, propose(0, 1, 0, 0).urgency) == (0.0, 1.0)


@settings(max_examples=200)
@given(st.integers(0, 2**32 - 1), actions, st.sampled_from(["reversion", "none"]))
def test_any_finite_observation_and_any_action_stay_in_bounds(seed: int, action: tuple[float, ...], prior: str) -> None:
    with np.errstate(all="raise", under="ignore"):
        wishes = ShortTerm(ShortTermParams(prior=prior)).propose(wild("short_term", seed), act(*action, rows=3))
    for wish in wishes:
        assert -1.0 < wish.tilt < 1.0
        assert abs(wish.weight) <= 0.25
        assert 0.0 <= wish.urgency <= 1.0
        assert -2.0 <= wish.offset <= 2.0
        assert 0.0125 <= wish.participation <= 0.15
        assert all(np.isfinite(value) for value in wish.numbers().values())
