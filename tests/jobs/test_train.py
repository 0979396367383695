"""A training run: killed and taken up again, relabelled in hindsight, refused when it cannot be, and served by what it was made for."""

import json
import os
import signal
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from agents.core.errors import ConfigError, DataError, ModelError, SpecMismatch
from agents.core.instruments import NS
from agents.desk.decision import EngineConfig
from agents.desk.priors import tighten
from agents.desk.risk import Risk
from agents.desk.short_term import ShortTerm
from agents.jobs.datasets import offline_rings
from agents.jobs.train import TrainConfig, train
from agents.jobs.train_files import CHECKPOINT, kept_rows
from agents.jobs.train_long_term import LongTermConfig
from agents.jobs.train_relabel import relabelled
from agents.jobs.train_rollouts import Rollout, ScaledFee, SyntheticRounds, TapeRounds, columns
from agents.jobs.trials import TrialLog
from agents.jobs.weight_files import load_weights
from agents.learning.sac import SACConfig
from agents.market.frictions import FixedLatency, Frictions, MakerTakerFee
from agents.market.observation import ACTION_SIZES, SPEC_HASH, SPECS, STATE_SIZES, Observation
from agents.market.synthetic_candles import random_walk_history
from agents.serving import labels
from agents.serving.actors import Actors
from daemon.cli import main
from tests.weights import payload as some_weights

ROOT = Path(__file__).parents[2]
SMALL = SACConfig(policy_hiddens=(8, 8), q_hiddens=(8, 8), batch_size=16)
TINY = LongTermConfig(copies=8, round_bars=20, batch_size=16, hidden_sizes=(8, 8))
SPEC = {agent: (STATE_SIZES[agent], ACTION_SIZES[agent], SPECS[agent].hash) for agent in STATE_SIZES}


def synthetic(folder: Path, **changes) -> TrainConfig:
    engine = EngineConfig("train", 0, "USDT", (), exploration=1.0, hidden_sizes=(8, 8))
    given = {"steps": 200, "round_minutes": 3.1, "symbols": ("BTC/USDT",), "sac": SMALL, "engine": engine, "seed": 4}
    return TrainConfig("synthetic", folder, **{**given, **changes})


def candles(folder: Path, data: Path, **changes) -> TrainConfig:
    given = {"steps": 60, "long_term": TINY, "seed": 4, "data": (data,)}
    return TrainConfig("candles", folder, **{**given, **changes})


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """Hourly candles of two symbols on disk."""
    folder = tmp_path_factory.mktemp("candles")
    history = random_walk_history(("AAA/USDT", "BBB/USDT"), 700, 3)
    for at, symbol in enumerate(history.symbols):
        named = {name: getattr(history, name)[:, at] for name in ("open", "high", "low", "close", "volume")}
        name = symbol.lower().replace("/", "_")
        pl.DataFrame({"timestamp": history.times // 1_000_000, **named}).write_parquet(folder / f"{name}-1h.parquet")
    return folder


@pytest.fixture(scope="module")
def rollout() -> Rollout:
    """Four minutes of two coins, all agents exploring."""
    config = EngineConfig("train", 0, "USDT", (), exploration=1.0, hidden_sizes=(8,))
    stretch = SyntheticRounds(("BTC/USDT", "ETH/USDT"), 245 * NS).stretch(0, 5)
    made = Rollout(config, stretch, Decimal(10_000), Frictions(latency=FixedLatency(NS // 20)))
    made.play()
    return made


# ---- killed


RUNNER = """
import sys
from pathlib import Path
from tests.jobs.test_train import synthetic
from agents.jobs.train import train
train(synthetic(Path(sys.argv[1])), lambda done, total, figures: print(done, flush=True))
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path):
    """SIGKILL in the middle of a round: the run taken up again takes as many updates, and its weights are those of one never killed."""
    command, environment = [sys.executable, "-c", RUNNER, str(tmp_path / "killed")], {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as process:
        assert process.stdout is not None
        first = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL and 0 < first < 200
    assert not (tmp_path / "killed" / labels.WEIGHTS).exists()
    done: list[int] = []
    train(synthetic(tmp_path / "killed"), lambda updates, total, figures: done.append(updates))
    train(synthetic(tmp_path / "whole"))
    assert min(done) > first and max(done) == 200
    assert load_weights(tmp_path / "killed") == load_weights(tmp_path / "whole")
    assert Actors.from_payload(load_weights(tmp_path / "whole"), SPEC_HASH).version == 2


def test_candles_leave_weights_rows_and_a_line_in_the_run_log(tmp_path, file):
    config = candles(tmp_path / "run", file, transitions=tmp_path / "rows", trials=tmp_path / "trials.jsonl")
    train(config)
    served = Actors.from_payload(load_weights(tmp_path / "run"), SPEC_HASH)
    assert served.act("long_term", np.ones((1, 100), np.float32)).any()
    meta = json.loads((tmp_path / "run" / labels.LABEL).read_text())["meta"]
    assert meta["updates"] == 60 and meta["asked"]["seed"] == 4 and meta["asked"]["spec"] == SPEC_HASH
    assert meta["window"] == [1577836800 * NS, (1577836800 + 700 * 3600) * NS]
    rings = offline_rings([tmp_path / "rows" / "long_term.npz"], SPEC)
    assert len(rings["long_term"]) == 8 * 20 * 2
    (trial,) = TrialLog(tmp_path / "trials.jsonl").read()
    assert (trial.study, trial.seed) == ("train", 4)
    before = (tmp_path / "run" / labels.WEIGHTS).read_bytes()
    train(config)  # done already: nothing is learned again
    assert (tmp_path / "run" / labels.WEIGHTS).read_bytes() == before


def test_a_folder_of_another_run_is_refused_by_what_differs(tmp_path, file):
    train(candles(tmp_path / "run", file, steps=8))
    with pytest.raises(ConfigError, match="another seed"):
        train(candles(tmp_path / "run", file, steps=8, seed=5))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("")
    with pytest.raises(ConfigError, match="not empty"):
        train(candles(tmp_path / "other", file))


def test_rows_of_a_round_that_were_lost_end_the_run(tmp_path):
    config = synthetic(tmp_path / "run", steps=40)
    train(config)
    (tmp_path / "run" / "rows" / "round-00000.npz").write_bytes(b"torn")
    with pytest.raises(DataError, match="begin it anew"):
        train(config)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": "books"}, "use candles, tape or synthetic"),
        ({"source": "candles"}, "needs data"),
        ({"data": (Path("x"),)}, "takes no data"),
        ({"source": "tape", "data": (Path("x"), Path("y"))}, "one tape at a time"),
        ({"agents": ("nobody",)}, "no agent named"),
        ({"steps": 0}, "above 0"),
        ({"round_minutes": float("inf")}, "round_minutes at most"),
        ({"round_minutes": float("nan")}, "round_minutes at most"),
        ({"source": "candles", "data": (Path("x"),), "agents": ("risk",)}, "long-term agent alone"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, changes, words):
    with pytest.raises(ConfigError, match=words):
        TrainConfig(**{"source": "synthetic", "folder": tmp_path, **changes})


def test_data_that_cannot_be_used_is_refused(tmp_path, file):
    with pytest.raises(ConfigError, match="no file or folder"):
        train(candles(tmp_path / "a", tmp_path / "nowhere"))
    with pytest.raises(DataError, match="validate-from"):
        train(candles(tmp_path / "b", file, validate_from=NS))
    with pytest.raises(DataError, match="too few"):
        train(candles(tmp_path / "c", file, end=(1577836800 + 100 * 3600) * NS))
    with pytest.raises(ConfigError, match="is a folder; name a file in it"):
        train(candles(tmp_path / "d", file, trials=tmp_path))
    assert not (tmp_path / "d").exists()


def test_a_run_that_ended_over_its_data_may_be_asked_for_anew(tmp_path, file):
    with pytest.raises(DataError, match="too few"):
        train(candles(tmp_path / "run", file, steps=8, end=(1577836800 + 100 * 3600) * NS))
    assert (train(candles(tmp_path / "run", file, steps=8)) / "weights.safetensors").is_file()


# ---- weights


def test_weights_are_whole_or_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no weights"):
        load_weights(tmp_path)
    file = tmp_path / "own.safetensors"
    file.write_bytes(some_weights(3)[0])
    assert load_weights(file) == some_weights(3)[0]
    file.write_bytes(some_weights(3, spec="other")[0])
    with pytest.raises(SpecMismatch):
        load_weights(file)
    (tmp_path / labels.WEIGHTS).write_bytes(some_weights(3)[0])
    (tmp_path / labels.LABEL).write_bytes(labels.label(some_weights(4)[0], SPEC_HASH, {}))
    with pytest.raises(ModelError, match="not the one that its label"):
        load_weights(tmp_path)
    (tmp_path / labels.LABEL).write_bytes(labels.label(some_weights(3)[0], SPEC_HASH, {}).replace(b'"version": 3', b'"version": 4'))
    with pytest.raises(ModelError, match="checksum"):
        load_weights(tmp_path)


# ---- rollouts and hindsight


def test_a_rollout_lives_through_what_the_engine_decides(rollout):
    lived = columns(rollout.engine.lived)
    assert set(lived) == {"short_term", "market_making", "risk"}
    assert len(lived["short_term"]["reward"]) == 8 and len(lived["risk"]["reward"]) == 4
    assert all((np.diff(rows["time"]) >= 0).all() for rows in lived.values())


def test_other_tilts_of_the_short_term_agent_are_consistent(rollout):
    """The next state holds the tilt that the action wishes for, the position moved with it, and the reward is its utility."""
    lived = columns(rollout.engine.lived)
    (made,) = relabelled(rollout, lived, 1, np.random.default_rng(0))["short_term"]
    index = SPECS["short_term"].index
    state, after = made["state"].astype(float), made["next_state"].astype(float)
    wishes = ShortTerm().propose(Observation("short_term", tuple(map(str, range(8))), 0, made["state"]), made["action"])
    wished = np.array([wish.weight for wish in wishes])
    np.testing.assert_allclose(after[:, index["short_term_weight"]], wished, rtol=1e-5, atol=1e-8)
    assert np.abs(made["action"][:, 0] - lived["short_term"]["action"][:, 0]).max() > 0.1
    np.testing.assert_array_equal(made["action"][:, 1:], lived["short_term"]["action"][:, 1:])
    engine = rollout.engine
    functions, params = engine.rewards.functions, engine.rewards.params
    marks = [engine.moments[int(time)].marks for time in made["time"]]
    ends = [min(engine.moments, key=lambda t, at=at: abs(t - at)) for at in made["time"] + made["elapsed"].astype(float) * 60e9]
    following = [engine.moments[end].marks for end in ends]
    gains = np.array([b[at % 2] / a[at % 2] - 1 for at, (a, b) in enumerate(zip(marks, following, strict=True))])
    gross, long = state[:, index["risk_gross_multiplier"]], state[:, index["long_term_weight"]]
    weight, held = (
        (np.maximum(long + tilt, 0) - np.maximum(long, 0)) * gross for tilt in (wished, state[:, index["short_term_weight"]])
    )
    before = lived["short_term"]["state"].astype(float)
    stood = (np.maximum(long + before[:, index["short_term_weight"]], 0) - np.maximum(long, 0)) * gross
    assert np.abs(held - stood).max() > 1e-3
    for name, sign in (("position_weight", 1), ("cash_weight", -1)):
        np.testing.assert_allclose(state[:, index[name]], before[:, index[name]] + sign * (held - stood), rtol=1e-5, atol=1e-6)
    cost = (state[:, index["taker_fee"]] + state[:, index["half_spread"]]) * np.abs(weight - held)
    variance = state[:, index["volatility_1m"]] ** 2 * 365 * 1440
    years = made["elapsed"].astype(float) * 60 / (365 * 86_400)
    book = np.maximum(long + wished, 0) * gross
    expected = [
        functions.utility(np.array([w * g - c]), np.array([w]), np.array([b]), np.array([[v]]), y)[0]
        for w, g, c, b, v, y in zip(weight, gains, cost, book, variance, years, strict=True)
    ]
    scale = engine.rewards.scales["short_term"].value
    np.testing.assert_allclose(made["reward"], params.reward_scale * np.clip(np.array(expected) / scale, -10, 10), rtol=1e-3, atol=1e-4)


def test_other_multipliers_of_the_risk_agent_are_consistent(rollout):
    lived = columns(rollout.engine.lived)
    parts = relabelled(rollout, lived, 3, np.random.default_rng(0)).get("risk", [])
    assert parts, "nothing was held: the fixture must trade"
    index = SPECS["risk"].index
    for made in parts:
        for at in range(len(made["reward"])):
            gross, _ = Risk().prior(Observation("risk", (), 0, made["state"][at : at + 1]))
            wished = tighten(gross, made["action"][at : at + 1, 0].astype(float))[0]
            assert made["next_state"][at, index["risk_gross_multiplier"]] == pytest.approx(wished, rel=1e-5)
            assert made["state"][at, index["drawdown"]] == made["next_state"][at, index["drawdown"]]
        assert np.isfinite(made["reward"]).all()
    drawdowns = np.concatenate([made["state"][:, index["drawdown"]] for made in parts])
    assert drawdowns.std() > 0.01 and drawdowns.min() >= 0 and drawdowns.max() <= 0.2


def test_a_tape_is_played_window_by_window_and_round_again(file):
    rounds = TapeRounds(file, 100 * 3600 * NS)
    first, second, again = ([event.stamp.at for event in rounds.stretch(number, 0).facts] for number in (0, 1, 7))
    assert first == again and first[-1] <= second[0] and rounds.stretch(0, 0).candles_only


def test_a_cheaper_exchange_takes_its_share():
    market = SyntheticRounds(("BTC/USDT",), NS).stretch(0, 0)
    fee = ScaledFee(MakerTakerFee(Decimal("0.001"), Decimal("0.002")), Decimal("0.25"))
    assert fee.rate(market.instruments[0], maker=False) == Decimal("0.0005")


def test_the_curriculum_is_part_of_what_goes_on(tmp_path):
    train(synthetic(tmp_path / "run", steps=40, curriculum=True))
    _, notes = kept_rows(tmp_path / "run", 0)
    assert np.isfinite(notes["reward"]) and (tmp_path / "run" / CHECKPOINT / "checkpoint.json").is_file()


# ---- command


def test_the_command_trains_and_says_where(tmp_path, file, capsys):
    given = ["train", str(tmp_path / "run"), "--source", "candles", "--data", str(file), "--steps", "30", "--hidden-sizes", "8,8", "--json"]
    assert main(given) == 0
    said = json.loads(capsys.readouterr().out)
    assert load_weights(Path(said["weights"])) and (tmp_path / "trials.jsonl").is_file()
    assert main([*given[:-3], "--hidden-sizes", "eight", "--json"]) == 2
    assert "--hidden-sizes" in capsys.readouterr().err
