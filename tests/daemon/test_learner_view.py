"""The learner's past is kept within a bound, and shown from a daemon or from what one left behind."""

import io
import json
import sys
import types

import pytest
from rich.console import Console

from agents.core.errors import ConfigError
from daemon import cli, learner_view
from daemon.errors import NotRunning
from daemon.learner_history import NAME, History, read


def record(updates: int) -> dict:
    figures = {"reward": updates / 3, "alpha": 0.2, "critic_loss": 1.0}
    return {"at": updates, "version": 1, "updates": updates, "experiences": 5, "withheld": "", "reverts": 0, "error": "", "agents": {"risk": figures}}


def test_the_file_is_bounded_and_still_spans_the_whole_past(tmp_path):
    history = History(tmp_path, most_lines=40)
    for updates in range(1000):
        history.append(record(updates))
        assert len((tmp_path / NAME).read_text().splitlines()) <= 40
    kept = [one["updates"] for one in read(tmp_path)]
    assert kept[0] == 0
    assert kept[-1] > 900
    assert kept == sorted(kept)
    assert len(kept) >= 20
    assert not list(tmp_path.glob("*.tmp"))


def test_a_torn_line_is_left_out_and_the_next_writer_goes_on(tmp_path):
    History(tmp_path).append(record(1))
    with open(tmp_path / NAME, "a") as file:
        file.write('{"updates": 2, "agen\n[1]\n{"agents": 3}\n')
    History(tmp_path).append(record(3))
    assert [one["updates"] for one in read(tmp_path)] == [1, 3]
    assert read(tmp_path / "nowhere") == []


def left_behind(state, count: int = 3) -> None:
    (state / "learner").mkdir(parents=True)
    history = History(state / "learner")
    for updates in range(1, count + 1):
        history.append(record(updates))


def test_the_command_shows_what_the_last_daemon_left(tmp_path, capsys):
    left_behind(tmp_path)
    assert cli.main(["learner", "--state", str(tmp_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["source"], found["updates"], found["agents"]["risk"]["reward"]) == ("history", 3, 1.0)
    assert cli.main(["learner", "--state", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "risk" in shown
    assert "td_error" not in shown


def test_without_daemon_and_history_the_exit_code_says_so(tmp_path, capsys):
    with pytest.raises(NotRunning):
        learner_view.look(tmp_path)
    assert cli.main(["learner", "--state", str(tmp_path)]) == 3
    assert "no daemon runs" in capsys.readouterr().err


def test_a_running_daemon_is_asked_first(tmp_path, monkeypatch):
    left_behind(tmp_path)
    monkeypatch.setattr(learner_view, "ask", lambda folder, command: {"learner": {"updates": 77, "agents": {}, "state": "learning"}})
    found = learner_view.look(tmp_path)
    assert (found["source"], found["updates"]) == ("daemon", 77)
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(learner_view.table(found))
    assert "77" in console.export_text()


def test_curves_are_a_picture(tmp_path):
    pytest.importorskip("matplotlib")
    left_behind(tmp_path)
    assert cli.main(["learner", "--state", str(tmp_path), "--png", str(tmp_path / "out.png")]) == 0
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")


def test_what_curves_need_is_said(tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="no learning to draw"):
        learner_view.curves([record(1)], tmp_path / "x.png")
    monkeypatch.setitem(sys.modules, "matplotlib", types.ModuleType("matplotlib"))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"pip install 'quartet\[plot\]'"):
        learner_view.curves([record(1), record(2)], tmp_path / "x.png")
