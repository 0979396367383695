"""Folds follow time: no test bar is near a training bar, tests cover the history once, and what is too short is refused by name."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.errors import ConfigError, DataError
from agents.jobs.walk_forward import ANCHORED, ROLLING, WalkForward, plan_in_days

PLANS = st.builds(
    lambda scheme, train, test, look_back, label, more, embargo: WalkForward(
        train, test, max(look_back, label) + more, embargo, scheme, look_back, label
    ),
    st.sampled_from([ANCHORED, ROLLING]), st.integers(1, 60), st.integers(1, 40), st.integers(0, 30), st.integers(0, 30),
    st.integers(0, 20), st.integers(0, 20),
)  # fmt: skip


@given(PLANS, st.integers(0, 200))
def test_no_test_bar_is_near_a_training_bar(plan, more):
    bars = plan.least + more
    for fold in plan.folds(bars):
        train, test = set(range(*fold.train)), set(range(*fold.test))
        assert train and test and max(train) < min(test)
        assert min(test) - max(train) > plan.purge + plan.embargo
        assert fold.gap == plan.gap >= max(plan.look_back, plan.label)
        assert min(train) >= 0 and max(test) < bars


@given(PLANS, st.integers(0, 200))
def test_tests_cover_the_end_of_the_history_once_and_in_order(plan, more):
    bars = plan.least + more
    folds = plan.folds(bars)
    covered = [bar for fold in folds for bar in range(*fold.test)]
    assert covered == list(range(covered[0], bars))
    assert [fold.number for fold in folds] == list(range(len(folds)))
    assert all(fold.test[1] - fold.test[0] == plan.test for fold in folds)
    # one more test would not have fitted
    assert bars - len(covered) < plan.train + plan.gap + plan.test


@given(PLANS, st.integers(0, 200))
def test_anchored_grows_and_rolling_keeps_its_length(plan, more):
    folds = plan.folds(plan.least + more)
    lengths = [fold.train[1] - fold.train[0] for fold in folds]
    if plan.scheme == ANCHORED:
        assert all(fold.train[0] == 0 for fold in folds)
        assert lengths == [lengths[0] + n * plan.test for n in range(len(folds))]
        assert lengths[0] >= plan.train
    else:
        assert set(lengths) == {plan.train}


@given(PLANS)
def test_the_shortest_history_gives_one_fold_and_a_shorter_one_is_refused(plan):
    assert len(plan.folds(plan.least)) == 1
    with pytest.raises(DataError, match=rf"one fold takes {plan.least}, {plan.train} to train, {plan.gap} of gap"):
        plan.folds(plan.least - 1)


def test_a_purge_shorter_than_the_look_back_is_refused():
    with pytest.raises(ConfigError, match=r"purge is 10 bars: at least 11, the longer of look-back \(11\) and label \(2\)"):
        WalkForward(100, 10, 10, look_back=11, label=2)
    with pytest.raises(ConfigError, match=r"at least 12"):
        WalkForward(100, 10, 10, look_back=1, label=12)


@pytest.mark.parametrize(
    ("change", "word"), [({"scheme": "shuffled"}, "scheme"), ({"train": 0}, "train"), ({"test": 0}, "test"), ({"embargo": -1}, "embargo")]
)
def test_a_plan_that_means_nothing_is_refused(change, word):
    with pytest.raises(ConfigError, match=f"walk-forward {word}"):
        WalkForward(**{"train": 10, "test": 5, "purge": 5, **change})


def test_days_become_bars():
    plan = plan_in_days(24, train=1000, test=365)
    assert (plan.train, plan.test, plan.purge, plan.embargo, plan.look_back, plan.label) == (24_000, 8760, 8760, 24, 8760, 24)
    first, second = plan.folds(24_000 + 8784 + 2 * 8760 + 7)
    assert first.to_dict() == {"number": 0, "train": (0, 24_007), "test": (32_791, 41_551), "gap": 8784}
    assert second.train == (0, 32_767)
