"""A curriculum climbs with skill and never past the market; novelty fades with visits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.errors import ConfigError, NotFinite
from agents.desk.rewards import CountBonus, Curriculum, CurriculumParams, RandomNetworkBonus, Stage, make_bonus

QUICK = CurriculumParams(stages=3, patience=4, memory=2.0)


def test_it_begins_easy_and_ends_at_the_real_market() -> None:
    curriculum = Curriculum(QUICK)
    assert curriculum.stage == Stage(0, 0.0, 0.5) and not curriculum.passed
    seen = [curriculum.update(1.0) for _ in range(20)]
    assert seen[3] == Stage(1, 0.5, 0.75) and seen[2].number == 0  # four good episodes, not three
    assert seen[7] == Stage(2, 1.0, 1.0) == seen[-1] and curriculum.passed


def test_each_stage_is_earned_anew_and_may_be_lost() -> None:
    curriculum = Curriculum(QUICK)
    for _ in range(4):
        curriculum.update(5.0)
    assert [curriculum.update(-0.5).number for _ in range(10)] == [1] * 10  # neither good nor bad enough
    numbers = [curriculum.update(-9.0).number for _ in range(12)]
    assert numbers[0] == 0 or numbers[1] == 0
    assert set(numbers[2:]) == {0}


def test_what_is_no_number_is_counted_and_changes_nothing() -> None:
    curriculum = Curriculum(QUICK)
    before = curriculum.state()
    for value in (float("nan"), float("inf")):
        curriculum.update(value)
    assert curriculum.state() == before and curriculum.dropped == 2


def test_a_run_goes_on_where_it_stood() -> None:
    one, two = Curriculum(QUICK), Curriculum(QUICK)
    for value in (1.0, 2.0, 1.0, 0.5, 1.0):
        one.update(value)
    two.restore(one.state())
    assert [one.update(1.0) for _ in range(5)] == [two.update(1.0) for _ in range(5)]
    with pytest.raises(ConfigError, match="stage 7"):
        two.restore((7, 0.0, 0))


@given(st.lists(st.floats(-3, 3), max_size=60), st.integers(1, 6))
def test_factors_are_never_harder_than_the_market(values: list[float], stages: int) -> None:
    curriculum = Curriculum(CurriculumParams(stages=stages, patience=2, memory=1.0))
    for value in values:
        before, stage = curriculum.number, curriculum.update(value)
        assert 0.0 <= stage.costs <= 1.0 and 0.5 <= stage.volatility <= 1.0 and abs(stage.number - before) <= 1
    assert stages > 1 or curriculum.stage == Stage(0, 1.0, 1.0)


@pytest.mark.parametrize("changes", [{"stages": 0}, {"demote": 0.5}, {"first_volatility": 0.0}, {"first_costs": 2.0}, {"memory": float("nan")}])
def test_senseless_curricula_are_refused(changes: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        CurriculumParams(**changes)


# -- novelty -----------------------------------------------------------------------------------------------------------


def test_a_count_falls_by_the_root_of_visits_and_tells_states_apart() -> None:
    bonus = CountBonus(6)
    rng = np.random.default_rng(0)
    bonus.bonus(rng.normal(size=(2000, 6)))  # so that whitening stands still
    place = np.full(6, 2.0)
    seen = [float(bonus.bonus(place)) for _ in range(4)]
    assert np.array(seen) / seen[0] == pytest.approx([(n + round(seen[0] ** -2)) ** -0.5 / seen[0] for n in range(4)])
    assert float(bonus.bonus(-place)) > seen[-1]


def test_the_predictor_gets_used_to_what_it_sees_and_not_to_the_rest() -> None:
    bonus, rng = RandomNetworkBonus(8), np.random.default_rng(0)
    usual, strange = rng.normal(size=(64, 8)) * 0.3 + 1.0, rng.normal(size=(64, 8)) * 0.3 - 3.0
    first = bonus.bonus(np.concatenate([usual, strange])).mean()
    for _ in range(300):
        bonus.bonus(usual)
    after = bonus.bonus(usual).mean()
    assert first == pytest.approx(1.0) and after < 0.1
    assert bonus.bonus(strange).mean() > 10 * after


@pytest.mark.parametrize("kind", ["count", "random_network"])
def test_bonuses_have_the_shape_of_the_rows_and_repeat_with_the_seed(kind: str) -> None:
    states = np.random.default_rng(1).normal(size=(4, 3, 7)).astype(np.float32)
    one, two, other = make_bonus(kind, 7, 5), make_bonus(kind, 7, 5), make_bonus(kind, 7, 6)
    values = [bonus.bonus(states) for bonus in (one, two, other)]
    assert values[0].shape == (4, 3) and (values[0] >= 0).all()
    np.testing.assert_array_equal(values[0], values[1])
    assert one.bonus(states[:0]).shape == (0, 3)
    with pytest.raises(NotFinite):
        one.bonus(np.full((1, 7), np.nan))


def test_an_unknown_bonus_is_refused() -> None:
    with pytest.raises(ConfigError, match="count, random_network"):
        make_bonus("luck", 3)
