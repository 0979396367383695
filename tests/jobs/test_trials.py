"""The run log forgets nothing: crashes cost their own line alone, choices are counted and chance is not."""

import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.core.errors import ConfigError, DataError
from agents.jobs.trials import Trial, TrialLog

ONE = Trial("spot 1h", {"steps": 1000, "hidden": [64, 64]}, 0, "validation", {"sharpe": 0.5})


def test_seeds_are_chance_and_configurations_are_choices(tmp_path):
    log = TrialLog(tmp_path / "deep" / "trials.jsonl")
    assert (log.read(), log.count("spot 1h"), log.variance("spot 1h", "validation")) == ([], 1, None)
    for seed in range(3):
        log.append(replace(ONE, seed=seed, figures={"sharpe": float(seed)}))
    log.append(replace(ONE, configuration={"hidden": [64, 64], "steps": 1000}))  # the same, in another order
    log.append(replace(ONE, configuration={"steps": 2000, "hidden": [64, 64]}, figures={"sharpe": 2.0}))
    log.append(replace(ONE, study="perpetuals 1h"))
    assert (log.count("spot 1h"), log.count("perpetuals 1h")) == (2, 1)
    log.append(replace(ONE, stage="test", figures={"sharpe": -9.0}))  # of other days: not to be compared
    assert log.variance("spot 1h", "validation") == pytest.approx(((0.875 - 1.4375) ** 2) * 2)  # means 3.5 / 4 and 2
    assert len(log.read()) == 7


def test_what_is_read_is_what_was_written(tmp_path):
    log = TrialLog(tmp_path / "trials.jsonl")
    log.append(ONE)
    assert log.read() == [ONE]


def test_curves_of_one_length_can_be_compared(tmp_path):
    log = TrialLog(tmp_path / "trials.jsonl")
    for steps, curve in ((1, (0.1, 0.2, 0.3)), (2, (0.1, 0.2)), (3, ()), (4, (0.3, 0.4)), (2, (0.5, 0.6))):
        log.append(replace(ONE, configuration={"steps": steps}, curve=curve))
    log.append(replace(ONE, configuration={"steps": 5}, curve=(0.9, 0.9), stage="test"))
    assert [curve.tolist() for curve in log.curves(ONE.study, "validation").values()] == [[0.5, 0.6], [0.3, 0.4]]
    assert log.curves("another", "validation") == {}


def test_a_run_again_does_not_count_again(tmp_path):
    log = TrialLog(tmp_path / "trials.jsonl")
    for _ in range(3):
        log.append(ONE)
    assert log.count(ONE.study) == 1


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(1, 400))
def test_a_crash_costs_its_own_line_alone(tmp_path, cut):
    path = tmp_path / f"{cut}.jsonl"
    path.unlink(missing_ok=True)
    log = TrialLog(path)
    log.append(ONE)
    whole = path.read_bytes()
    log.append(replace(ONE, seed=1))
    written = path.read_bytes()
    path.write_bytes(written[: max(len(whole), len(written) - cut)])
    torn = len(log.read())
    log.append(replace(ONE, seed=2))
    assert [trial.seed for trial in log.read()][-1] == 2
    assert len(log.read()) == torn + 1 >= 2


def test_lines_stay_lines(tmp_path):
    log = TrialLog(tmp_path / "trials.jsonl")
    log.append(ONE)
    log.append(replace(ONE, seed=1))
    assert [json.loads(line)["seed"] for line in log.path.read_text().splitlines()] == [0, 1]


def test_a_changed_line_is_noticed(tmp_path):
    log = TrialLog(tmp_path / "trials.jsonl")
    log.append(ONE)
    log.path.write_text(log.path.read_text().replace("1000", "1001"))
    with pytest.raises(DataError, match="line 1: was changed"):
        log.read()
    log.path.write_text('{"study": 3}\n')
    with pytest.raises(DataError, match="line 1: not a trial"):
        log.read()


def test_a_trial_says_what_it_was_looked_at_on():
    with pytest.raises(ConfigError, match="use validation or test"):
        replace(ONE, stage="train")
