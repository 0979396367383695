"""walk-forward and evaluate on the command line: mistakes end in a sentence, and the page names the command that made it."""

import json

import pytest

from daemon.cli import main
from daemon.cli.evaluation import _command
from daemon.errors import Exit


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["evaluate", "--data", "no/such/file"], "--data: there is no file or folder no/such/file"),
        (["evaluate", "--repeat", "no/such/file"], "--repeat: there is no file or folder no/such/file"),
        (["evaluate", "--books", "no/such/file"], "--books: there is no file no/such/file"),
        (["walk-forward", "--purge-days", "30"], "purge is 720 bars: at least 8760"),
        (["walk-forward", "--seeds", "1", "--hidden", "wide"], "--hidden wide: write layer sizes such as 64,64"),
        (["walk-forward", "--seeds", "1", "--hidden=-5,3"], "--hidden -5,3: write layer sizes such as 64,64"),
        (["walk-forward", "--train-days", "nan"], "walk-forward train is nan days: give a finite number"),
        (["evaluate", "--books", "/dev/null"], "--books: there is no file /dev/null"),
        (["evaluate", "--books", __file__], "holds no mark-outs; quartet backtest --mark-outs --json writes them"),
        (["evaluate", "--markdown", "."], "--markdown: . is a folder; name a file in it, such as results.md"),
    ],
)
def test_a_mistake_ends_in_a_sentence(arguments, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == Exit.USAGE
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.iterdir())


def test_a_history_that_is_too_short_says_what_is_needed(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["walk-forward", "--embargo-days", "3000"]) == Exit.FAILED
    assert "one fold takes 93840, 8760 to train, 80760 of gap" in " ".join(capsys.readouterr().err.split())


def test_without_data_a_made_up_market_is_walked(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["walk-forward", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["study"] == "synthetic-1h"
    (fold,) = told["folds"]  # of two: the last stays unseen
    assert fold["gap_bars"] == 366 * 24
    assert {row["kind"] for row in fold["standings"]} == {"baseline", "prior"}


def test_the_command_names_the_data_folder_by_its_variable(monkeypatch):
    monkeypatch.setenv("QUARTET_DATA", "/somewhere/data/")
    monkeypatch.setattr("sys.argv", ["quartet", "evaluate", "--data", "/somewhere/data/ohlcv", "--name", "two words"])
    assert _command() == "quartet evaluate --data $QUARTET_DATA/ohlcv --name 'two words'"
