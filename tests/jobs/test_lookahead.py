"""A search for lookahead finds what was planted and nothing where there is nothing."""

import json
from dataclasses import replace

import numpy as np
import pytest

from agents.core.errors import ConfigError, DataError
from agents.core.instruments import Symbol
from agents.desk.decision import EngineConfig
from agents.jobs.lookahead import ALIGNMENT, ALTERATIONS, Trace, aligned, columns_label, digests, search
from agents.jobs.lookahead_checks import (
    DECISIONS,
    FEATURES,
    FRICTIONS,
    MINUTES,
    OBSERVATIONS,
    VECTOR,
    all_checks,
    decision_trace,
    hour_trace,
    lookahead,
    path_trace,
)
from agents.market.columns import HOUR_COLUMNS
from agents.market.history import hour_features
from agents.market.synthetic_candles import random_walk_history
from agents.market.tape.memory import history_tape
from daemon.cli import main

CONFIG = EngineConfig("look", 0, "USDT", ())
HISTORY = random_walk_history(2, 90, seed=3)
RSI = HOUR_COLUMNS.index("rsi_14h")


def leaking(spoil):
    """Hour features with one column spoiled by `spoil(column of floats [T, N])`."""

    def trace(history):
        values = hour_features(history).astype(np.float64)
        values[..., RSI] = spoil(values[..., RSI])
        return Trace(history.closings, values, columns_label(HOUR_COLUMNS, history.symbols))

    return trace


@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: np.vstack([x[1:], x[-1:]]),  # one bar too early
        lambda x: (x - x.mean(0)) / (x.std(0) + 1e-9),  # scaled by the whole sample
        lambda x: np.flip(np.maximum.accumulate(np.flip(x, 0), 0), 0),  # the best of what is to come
        lambda x: np.where(np.arange(len(x))[:, None] < 2, x[-1], x),  # two rows filled from the end
    ],
)  # fmt: skip
def test_a_planted_leak_is_found_and_named(spoil):
    found = search(HISTORY, {"clean": hour_trace, "planted": leaking(spoil)}, cuts=2)
    assert not found.sound and {leak.check for leak in found.leaks} == {"planted"}
    assert all("rsi_14h of S00" in leak.sentence() and leak.at <= leak.cut for leak in found.leaks)
    assert found.to_json()["sound"] is False and "rsi_14h" in json.dumps(found.to_json())


def test_one_bar_of_the_future_is_seen_at_the_cut_itself():
    found = search(HISTORY, {"planted": leaking(lambda x: np.vstack([x[1:], x[-1:]]))}, cuts=3)
    assert {leak.at for leak in found.leaks} == set(found.cuts) and all(leak.changed <= 2 for leak in found.leaks)


def test_nothing_is_found_where_everything_is_known_in_time():
    found = lookahead(HISTORY, CONFIG, cuts=1, seed=1)
    assert found.sound and found.leaks == ()
    assert set(found.compared) == {FEATURES, MINUTES, OBSERVATIONS, VECTOR, DECISIONS, ALIGNMENT}
    assert all(number > 100 for number in found.compared.values())


def test_late_listings_and_holes_are_searched_too():
    late = {name: getattr(HISTORY, name).copy() for name in ("open", "high", "low", "close", "volume")}
    for values in late.values():
        values[:30, 1] = np.nan
        values[50:53, 0] = np.nan
    history = replace(HISTORY, **late)
    checks = all_checks(history, CONFIG)
    assert MINUTES not in checks
    assert search(history, {FEATURES: checks[FEATURES]}, cuts=2).sound


class Prophet:
    """A policy that is told the whole history: it wishes by the next return."""

    def __init__(self, history):
        following = np.vstack([history.returns()[1:], np.zeros((1, len(history.symbols)))])
        self.records = [f"{row > 0}" for row in following[:, 0]]


def test_a_decision_that_knows_the_next_bar_is_found():
    def prophecy(history):
        return digests(history.closings.tolist(), Prophet(history).records, "the decision")

    found = search(HISTORY, {"prophet": prophecy}, cuts=3)
    assert not found.sound and found.leaks[0].what == "the decision" and found.leaks[0].at == found.leaks[0].cut


def test_a_time_of_acting_that_depends_on_the_future_is_found():
    def picky(history):
        last = history.close[-1, 0] / history.close[0, 0]
        times = np.where(np.arange(len(history.times)) % 7 == 0, history.times, history.closings) if last > ratio else history.closings
        return digests(times.tolist(), ["buy"] * len(times), "the decision")

    ratio = HISTORY.close[-1, 0] / HISTORY.close[0, 0] * 0.999
    found = search(HISTORY, {"picky": picky}, cuts=2)
    assert {leak.what for leak in found.leaks} == {"the timing"}


def test_decisions_are_compared_with_all_that_they_record():
    trace = decision_trace(HISTORY, CONFIG, history_tape(HISTORY), FRICTIONS)
    again = decision_trace(HISTORY, CONFIG, history_tape(HISTORY), FRICTIONS)
    np.testing.assert_array_equal(trace.values, again.values)
    other = decision_trace(HISTORY, replace(CONFIG, limits=replace(CONFIG.limits, position_cap=0.002)), history_tape(HISTORY), FRICTIONS)
    assert len(trace.values) > 80 and not np.array_equal(trace.values, other.values)


def test_features_of_a_bar_that_has_not_closed_are_told_from_the_event_path():
    batch, path = hour_trace(HISTORY), path_trace(HISTORY)
    assert list(aligned(batch, path)) == []
    early = Trace(batch.times, np.concatenate([batch.values[1:], batch.values[-1:]]), batch.label)
    (leak,) = aligned(early, path)
    assert leak.check == ALIGNMENT and "over the whole history and" in leak.sentence()
    with pytest.raises(DataError, match="no time in common"):
        list(aligned(batch, Trace(path.times + 1, path.values, path.label)))


@pytest.mark.parametrize("name", ALTERATIONS)
def test_alterations_change_the_future_and_nothing_else(name):
    row = 50
    other = ALTERATIONS[name](HISTORY, row, np.random.default_rng(0))
    for field in ("open", "high", "low", "close", "volume"):
        before, after = getattr(HISTORY, field), getattr(other, field)
        np.testing.assert_array_equal(before[: row + 1], after[: row + 1])
        assert (before[row + 1 : -1] != after[row + 1 : -1]).mean() > 0.9
    np.testing.assert_array_equal(other.times, HISTORY.times)


def test_too_little_to_search_is_an_error():
    with pytest.raises(DataError, match="room for a cut"):
        search(HISTORY.rows(0, 59), {})
    with pytest.raises(ConfigError, match="at least one"):
        search(HISTORY, {}, cuts=0)


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_answers_and_says_by_its_exit_code_whether_the_future_leaks(monkeypatch, capsys):
    words = ["lookahead", "--bars", "60", "--cuts", "1", "--symbols", "BTC/USDT", "--json"]
    assert main(words) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["sound"] and answer["symbols"] == [Symbol("BTC/USDT")] and answer["rows"] == 60

    from agents.jobs import lookahead_checks

    honest = lookahead_checks.hour_features
    monkeypatch.setattr(lookahead_checks, "all_checks", lambda *_: {FEATURES: lookahead_checks.hour_trace})
    monkeypatch.setattr(lookahead_checks, "hour_features", lambda history: np.roll(honest(history), -1, axis=0))
    assert main(words) == 1
    out, err = capsys.readouterr()
    assert not json.loads(out)["sound"] and err.startswith("quartet: the future is seen: hour features: ")


def test_a_file_that_is_not_there_is_said(capsys):
    assert main(["lookahead", "--data", "nowhere.parquet"]) == 2
    assert "no file or folder nowhere.parquet" in capsys.readouterr().err
