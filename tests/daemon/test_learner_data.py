"""Offline data and options reach the learner process from the configuration, and what cannot be used is said before the session starts."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from agents.core.errors import ConfigError
from agents.jobs.datasets import write_transitions
from agents.market.observation import ACTION_SIZES, SPECS, STATE_SIZES
from daemon.settings import Settings
from daemon.wiring import engine_config, learner_options


def dataset(path: Path, agent: str = "risk", schema: str = SPECS["risk"].hash) -> Path:
    states = np.zeros((8, STATE_SIZES["risk"]))
    write_transitions(path, agent, schema, {
        "state": states, "action": np.zeros((8, ACTION_SIZES["risk"])), "reward": np.zeros(8), "next_state": states, "done": np.zeros(8),
    })  # fmt: skip
    return path


def told(**learning: object):
    settings = Settings(reinforcement_learning=learning)
    return learner_options(settings, engine_config(settings, settings.exchange.symbols, 1, 0.0))


def test_files_and_options_are_told_as_plain_values(tmp_path):
    path = dataset(tmp_path / "x.npz")
    found = told(offline_data=str(path), options={"layer_norm": True, "risk_cvar": 0.25})
    assert found.offline_data == (str(path),)
    assert (found.options["layer_norm"], found.options["risk_cvar"], found.options["crossq"]) == (True, 0.25, False)
    assert told().offline_data == ()


@pytest.mark.parametrize(("spoil", "words"), [
    (lambda path: path.unlink(), "cannot be read"),
    (lambda path: path.write_bytes(path.read_bytes()[:200]), "cannot be read"),
    (lambda path: dataset(path, schema="f" * 64), "made for other columns of risk"),
    (lambda path: dataset(path, agent="somebody"), "holds rows of agent 'somebody'"),
])  # fmt: skip
def test_a_file_that_cannot_be_used_is_named_at_once(tmp_path, spoil, words):
    path = dataset(tmp_path / "x.npz")
    spoil(path)
    with pytest.raises(ConfigError, match=rf"reinforcement_learning.offline_data: .*x\.npz: .*{words}"):
        told(offline_data=(path,))


@pytest.mark.parametrize("wrong", [{"crossq": True, "layer_norm": True}, {"quantiles": 2}, {"risk_cvar": 0}, {"accumulate": 0}, {"sbx": True}])
def test_options_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValidationError):
        Settings(reinforcement_learning={"options": wrong})
