"""An evaluation looks at the test once, trains on nothing that it judges by, counts its tries, and says no more than its intervals."""

import json
from dataclasses import replace

import numpy as np
import pytest

from agents.core.errors import ConfigError, DataError
from agents.jobs.evaluate import Study, Training, evaluate, features_of, repeat, walk
from agents.jobs.evaluate_suite import controls, load_study_history, make_study, named, repetition
from agents.jobs.evaluate_tables import NOT_CLAIMED, document, verdicts
from agents.jobs.evaluate_training import long_term_training
from agents.jobs.sceptic import Market
from agents.jobs.train_long_term import LongTermConfig
from agents.jobs.trials import TrialLog
from agents.jobs.walk_forward import WalkForward
from agents.jobs.weights import joined
from agents.market.history import CandleHistory
from agents.market.synthetic_candles import random_walk_history

PLAN = WalkForward(train=500, test=24 * 22, purge=200, embargo=24, look_back=48)
HISTORY = random_walk_history(2, PLAN.least + PLAN.test, seed=3)
SMALL = LongTermConfig(steps=6, hidden_sizes=(8,), copies=4, round_bars=32, batch_size=16)


def study(**more) -> Study:
    return Study("made-up", HISTORY, PLAN, resamples=100, **more)


def idle() -> Training:
    """Seeds that stay their prior."""
    return Training({"agent": "idle"}, lambda lesson: lambda seed: joined({}))


def altered(history: CandleHistory, first: int, factor: float = 3.0) -> CandleHistory:
    wild = {name: getattr(history, name).copy() for name in ("open", "high", "low", "close")}
    for values in wild.values():
        values[first:] *= factor
    return replace(history, **wild)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    log = TrialLog(tmp_path_factory.mktemp("log") / "trials.jsonl")
    training = long_term_training(SMALL, log.path.parent / "kept", guarded=False)
    return evaluate(study(), training, (0, 1), log, earlier=(0,)), log, training


def test_the_report_is_plain_and_whole(whole):
    found, log, _ = whole
    report = json.loads(json.dumps(found.report))
    assert len(found.weights) == 2 == len(report["agent"]["seeds"])
    names = {row["name"] for row in report["standings"]}
    assert names == {"buy_and_hold", "equal_weight", "inverse_volatility", "prior (trend)", "prior (sign)", "shipped desk, prior (trend)"}
    assert [row["multiple"] for row in report["agent"]["costs"]] == [0.0, 1.0, 2.0, 4.0]
    assert [fold["number"] for fold in report["folds"]] == [1, 2]
    assert "standings" in report["folds"][0] and "standings" not in report["folds"][1]
    assert report["choosing"]["trials"] == 1 == log.count("made-up")
    assert {trial.stage for trial in log.read()} == {"validation", "test"}
    assert 0.0 <= report["choosing"]["deflated_sharpe"] <= report["choosing"]["probabilistic_sharpe"] <= 1.0


def test_the_page_says_what_the_intervals_say(whole):
    report = {"command": "quartet evaluate", "main": whole[0].report, "repeats": []}
    page = document(report)
    for line in NOT_CLAIMED:
        assert line in page
    assert "quartet evaluate" in page and "| own prior |" in page and "## Not claimed" in page
    own = report["main"]["agent"]["against_prior"]["equal_volatility"]
    for decided, word in ((1, "is ahead of"), (0, "cannot be told from"), (-1, "is behind")):
        own["decided"] = decided
        assert any(f"the trained long-term agent {word} its own prior" in said for said in verdicts(report))


def test_the_page_takes_recorded_books_and_controls(whole):
    row = {
        "session": "btc.parquet 2024", "symbol": "BTC/USDT", "quoter": "glft", "queue": "back", "minutes": 8.0, "quotes": 10, "fill_rate": 0.5,
        "captured": 0.5, "fee": 2.0, "markout": {"1s": -0.25, "5s": None}, "error": {"1s": 0.125, "5s": None},
    }  # fmt: skip
    books = {"caution": "Minutes of book prove no profit.", "horizons_s": [1, 5], "rows": [row]}
    known = {"text": "Made up.", "rows": [{"name": "null", "expected": "nothing", "found": "1 %", "passed": False}]}
    page = document({"command": "quartet evaluate", "main": whole[0].report, "books": books, "controls": known, "notes": ["a remark"]})
    assert "| btc | BTC/USDT | glft | back | 8.0 | 10 | 50.0 % | 0.50 | 2.00 | -0.25 ± 0.12 |  |" in page
    assert "| null | nothing | 1 % | **failed** |" in page and "- a remark" in page


def test_more_tries_deflate(whole, tmp_path):
    _, log, _ = whole
    other = TrialLog(tmp_path / "trials.jsonl")
    for number, trial in enumerate(log.read()):
        other.append(trial)
        if trial.curve and trial.stage == "validation":
            other.append(replace(trial, configuration={"other": number}, curve=tuple(np.roll(trial.curve, 5))))
    found = evaluate(study(multiples=(1.0,)), idle(), (0,), other).report["choosing"]
    assert found["trials"] == 3  # two on validation, and the one that was judged
    assert found["overfitting"]["trials"] == 2


def test_what_is_trained_knows_nothing_that_it_is_judged_by(tmp_path):
    base = study()
    fold = base.folds[-1]
    other = replace(base, history=altered(HISTORY, fold.test[0] - PLAN.embargo))
    payloads = []
    for each in (base, other):
        lesson = each.lesson(fold, features_of(each.history))
        assert lesson.until == fold.test[0] - PLAN.embargo and lesson.train == fold.train
        payloads.append(long_term_training(SMALL).lessons(lesson)(1))
    assert payloads[0] == payloads[1]
    near = replace(base, history=altered(HISTORY, fold.train[1] - 200))
    assert long_term_training(SMALL, guarded=False).lessons(near.lesson(fold, features_of(near.history)))(1) != payloads[0]


def test_the_test_fold_stays_unseen_until_it_is_judged(tmp_path):
    base = study()
    rows = []
    for each in (base, replace(base, history=altered(HISTORY, base.folds[-1].test[0]))):
        log = TrialLog(tmp_path / f"{len(rows)}.jsonl")
        rows.append(walk(each, features_of(each.history), idle(), (0,), log))
        assert [trial.stage for trial in log.read()] == ["validation", "validation"]
    assert rows[0] == rows[1]
    assert len(rows[0]) == len(base.folds) - 1
    with pytest.raises(DataError, match="too short"):
        walk(replace(base, history=HISTORY.rows(0, PLAN.least + 5)), None, None, (), TrialLog(tmp_path / "none"))


def test_weights_are_kept_and_taken_again(whole, tmp_path):
    found, log, _ = whole
    kept = sorted((log.path.parent / "kept").glob("*.safetensors"))
    assert len(kept) == 3  # two seeds of the test, one of the fold before
    lesson = study().lesson(study().folds[-1], features_of(HISTORY))
    again = long_term_training(SMALL, log.path.parent / "kept", guarded=False)
    broken = replace(lesson, features=np.zeros((0, 0, 0), np.float32))  # nothing is trained: it could not
    assert again.lessons(broken)(0) == found.weights[0]
    assert long_term_training(SMALL, tmp_path, guarded=False).lessons(lesson)(0) == found.weights[0]


def test_an_agent_that_is_its_prior_is_not_ahead_of_it(tmp_path):
    section = evaluate(study(multiples=(1.0,)), idle(), (0, 1, 2), TrialLog(tmp_path / "trials.jsonl")).report["agent"]
    for measure in section["against_prior"].values():
        assert measure["decided"] == 0 and abs(measure["estimate"]) < 1e-9
    assert section["dispersion"]["sharpe"]["deviation"] < 1e-9


def test_weights_are_repeated_on_other_candles():
    other = replace(study(), name="others", history=random_walk_history(3, 24 * 32, seed=9))
    report = repeat(other, {0: joined({})}, 24 * 8)
    assert report["years"] == pytest.approx((24 * 24 - 1) / 8760)
    assert len(report["agent"]["seeds"]) == 1
    assert report["agent"]["against"]["prior (trend)"]["sharpe"]["decided"] == 0


def test_minutes_are_judged_by_the_short_term_prior():
    base = random_walk_history(2, 1500, seed=2, timeframe="1m")
    report = repeat(replace(study(), history=base), {0: joined({})}, 100)
    assert "agent" not in report and report["intervals"] == {}  # two days give none
    assert {row["name"] for row in report["standings"]} == {*("buy_and_hold", "equal_weight", "inverse_volatility"), "prior (short-term)"}


def test_controls_pass_on_an_honest_pipeline_and_fail_on_one_that_looks_ahead():
    market = Market(symbols=4, years=0.3)
    found = controls({}, study().costs, market=market)
    assert [row["passed"] for row in found["rows"]] == [True] * len(found["rows"])
    assert len(found["rows"]) == 4


def test_studies_are_made_of_files_and_refuse_what_is_too_short(tmp_path):
    days = {"train": 60.0, "test": 30.0, "purge": 365.0, "embargo": 1.0}
    path = tmp_path / "a_usdt-1h.parquet"
    _written(path, random_walk_history(1, 24 * 100, seed=1))
    with pytest.raises(DataError, match=r"one fold takes 10944, 1440 to train, 8784 of gap .* and 720 to test"):
        make_study([path], None, days, "anchored", fee_bps=10.0, half_spread_bps=1.0, resamples=100)
    with pytest.raises(ConfigError, match="purge"):
        make_study([path], None, {**days, "purge": 30.0}, "anchored", fee_bps=10.0, half_spread_bps=1.0, resamples=100)
    assert named([path], load_study_history([path])) == "a_usdt-1h"
    again = repetition(path, study(), {0: joined({})})
    assert again["study"] == "a_usdt-1h" and len(again["agent"]["seeds"]) == 1
    assert again["window"][0][:10] == "2020-01-31"  # 30 % of the candles are warm-up


def _written(path, history):
    import polars

    columns = {name: getattr(history, name)[:, 0] for name in ("open", "high", "low", "close", "volume")}
    polars.DataFrame({"timestamp": history.times // 1_000_000, **columns}).write_parquet(path)


def test_the_difference_is_that_of_the_seeds_mean(whole):
    section = whole[0].report["agent"]
    mean = np.mean([row["mean"] for row in section["seeds"]])
    assert section["against_prior"]["mean"]["estimate"] == pytest.approx(mean - section["prior"]["mean"], abs=1e-9)
