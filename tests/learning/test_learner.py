"""Four sizes learn side by side, no faster than rows come, and only sound weights go out."""

import dataclasses

import numpy as np
import pytest
import torch

from agents.core.errors import ConfigError, Diverged, NotFinite, SpecMismatch
from agents.learning.composed import ComposedSAC
from agents.learning.fast import FastSAC
from agents.learning.guards import Guards, Refused
from agents.learning.learner import AgentSpec, Learner, LearnerConfig, average
from agents.learning.options import Options
from agents.learning.replay import ReplayBuffer
from agents.learning.sac import SACConfig
from agents.serving.actors import Actors

SPECS = [AgentSpec("risk", 6, 2), AgentSpec("short_term", 8, 4)]
SMALL = SACConfig(learning_rate=1e-2, policy_hiddens=(16, 16), q_hiddens=(16, 16), batch_size=32)
CONFIG = LearnerConfig(SMALL, replay_buffer_size=500, minimum_rows=16)


def feed(learner: Learner, agent: str, count: int, seed: int = 0) -> None:
    spec, rng = learner.specs[agent], np.random.default_rng(seed)
    state, following = rng.standard_normal((2, count, spec.state_dim))
    action = np.tanh(rng.standard_normal((count, spec.action_dim)))
    learner.add(agent, state, action, -np.abs(action).sum(1), following, np.zeros(count), np.ones(count))


def test_an_agent_learns_when_it_has_enough_rows_and_not_before():
    learner = Learner(SPECS, CONFIG)
    feed(learner, "risk", 15)
    assert learner.step() is None
    feed(learner, "risk", 1)
    assert set(learner.step()) == {"risk"}
    feed(learner, "short_term", 20)
    assert set(learner.step()) == {"risk", "short_term"}


@pytest.mark.parametrize("ratio", [0.5, 2.0, 4.0])
def test_updates_never_outrun_the_rows(ratio):
    learner = Learner(SPECS, LearnerConfig(SMALL, 500, minimum_rows=4, updates_per_row=ratio))
    for _ in range(3):
        feed(learner, "risk", 10)
        while learner.step() is not None:
            pass
        assert learner.updates == int(ratio * learner.experiences)


def test_the_figures_are_there_to_watch():
    learner = Learner(SPECS, CONFIG)
    feed(learner, "risk", 20)
    info = learner.step()["risk"]
    assert {"critic_loss", "actor_loss", "alpha", "entropy", "q_mean", "td_error", "reward", "actor_gradient"} <= set(info)
    assert all(np.isfinite(list(info.values())))
    assert average({"a": {"x": 1.0}, "b": {"x": 3.0, "y": 5.0}}) == {"x": 2.0, "y": 5.0}


def test_bad_rows_are_refused_and_change_nothing():
    learner = Learner(SPECS, CONFIG)
    zeros = np.zeros((1, 6))
    with pytest.raises(SpecMismatch, match="no agent named 'x'"):
        learner.add("x", zeros, zeros, [0.0], zeros, [0.0])
    with pytest.raises(SpecMismatch, match="action"):
        learner.add("risk", zeros, zeros, [0.0], zeros, [0.0])
    with pytest.raises(NotFinite):
        learner.add("risk", zeros, [[0.0, np.nan]], [0.0], zeros, [0.0])
    assert learner.experiences == 0


def test_a_new_learner_publishes_the_prior():
    learner = Learner(SPECS, CONFIG)
    actors = Actors.from_payload(learner.publish().payload, learner.spec)
    assert actors.version == 1
    assert not actors.act("risk", np.ones((3, 6), np.float32)).any()
    wide = actors.sample("risk", np.full((4000, 6), 1e6, np.float32), np.random.default_rng(0))
    assert np.arctanh(wide).std() == pytest.approx(1.0, abs=0.05)


def test_what_is_published_is_what_was_learned():
    learner = Learner(SPECS, CONFIG)
    feed(learner, "risk", 40)
    for _ in range(5):
        learner.step()
    published = learner.publish()
    state = np.random.default_rng(5).standard_normal((9, 6), np.float32)
    ours = Actors.from_payload(published.payload, learner.spec).act("risk", state)
    np.testing.assert_allclose(ours, learner.act("risk", state), atol=1e-5)
    assert ours.any()
    assert published.digest == Actors.from_payload(published.payload, learner.spec).digest


def test_one_publication_moves_the_actions_by_a_bounded_amount_and_the_next_follow():
    learner = Learner(SPECS, LearnerConfig(SMALL, 500, 16, updates_per_row=50, guards=Guards(max_drift=0.05)))
    feed(learner, "risk", 40)
    with torch.no_grad():
        learner.agents["risk"].actor.mean.bias.fill_(1.0)
    states = np.ascontiguousarray(learner.rings["risk"].latest(64).state)
    goal, last = learner.act("risk", states), np.zeros((40, 2), np.float32)
    for _ in range(60):
        now = Actors.from_payload((sent := learner.publish()).payload, learner.spec).act("risk", states)
        moved = float(np.sqrt(np.square(now - last).mean()))
        assert moved == pytest.approx(sent.drift["risk"], abs=1e-5)
        assert moved <= 0.05 + 1e-5
        last = now
    np.testing.assert_allclose(last, goal, atol=0.02)


def test_weights_that_are_not_finite_are_never_published():
    learner = Learner(SPECS, CONFIG)
    before = learner.payload()
    with torch.no_grad():
        learner.agents["risk"].actor.mean.bias[0] = torch.nan
    with pytest.raises(Diverged, match="risk"):
        learner.publish()
    assert (learner.version, learner.payload()) == (0, before)


def test_an_unfit_candidate_is_refused_and_the_last_version_stands():
    learner = Learner(SPECS, CONFIG)
    feed(learner, "risk", 40)
    learner.publish()
    before = learner.payload()
    with torch.no_grad():
        learner.agents["risk"].actor.mean.bias.fill_(9.0)
    with pytest.raises(Refused, match=r"risk candidate.*saturated"):
        learner.publish()
    assert (learner.version, learner.payload()) == (1, before)


def test_the_way_back_is_to_the_last_publication_with_other_chance():
    learner = Learner(SPECS, CONFIG)
    feed(learner, "risk", 40)
    learner.step()
    learner.publish()
    good = {name: tensor.clone() for name, tensor in learner.agents["risk"].tensors().items()}
    learner.step()
    stepped = learner.agents["risk"].actor.mean.bias.clone()
    with torch.no_grad():
        learner.agents["risk"].critic.network.layers[0].weight.fill_(torch.nan)
    with pytest.raises(Diverged):
        learner.step()
    learner.revert()
    assert learner.updates == 1
    for name, tensor in good.items():
        assert torch.equal(tensor, learner.agents["risk"].tensors()[name]), name
    learner.step()
    assert not torch.equal(stepped, learner.agents["risk"].actor.mean.bias)
    assert learner.publish().version == 2


def market_like(learner: Learner, count: int) -> None:
    """Columns as a market maker sees them: one in the thousands, one a millionth of that; actions near the policy's mean."""
    rng = np.random.default_rng(5)
    size, middle = np.array([379, 700, 1, 1, 1, 2e-5]), np.array([2700, 400, 10, 0, 0, 1e-4])
    state = middle + size * rng.standard_normal((count, 6))
    action = np.tanh(0.3 * rng.standard_normal((count, 2)))
    reward = 0.5 * rng.standard_normal(count) - np.square(action).sum(1)
    learner.add("risk", state, action, reward, middle + size * rng.standard_normal((count, 6)), np.zeros(count))


@pytest.mark.parametrize("normalised", [True, False])
def test_columns_of_any_size_leave_the_learner_in_health(normalised):
    sac = SACConfig(policy_hiddens=(64, 64), q_hiddens=(64, 64), batch_size=64)
    learner = Learner(SPECS, LearnerConfig(sac, 2000, normalize_observations=normalised))
    market_like(learner, 1000)
    infos = [learner.step()["risk"] for _ in range(200)]
    saturation = np.mean([info["action_saturation"] for info in infos[-50:]])
    gradient = np.mean([info["critic_gradient"] for info in infos[-50:]])
    if normalised:
        assert saturation < 0.05
        assert gradient < 20
    else:  # What the scale is there for.
        assert gradient > 100


def test_half_of_each_batch_comes_from_the_offline_ring():
    offline = ReplayBuffer(6, 2, 100)
    offline.add(np.zeros((50, 6)), np.zeros((50, 2)), np.full(50, 8.0), np.zeros((50, 6)), np.zeros(50))
    learner = Learner(SPECS, CONFIG, offline={"risk": offline})
    states, actions = np.zeros((40, 6)), np.zeros((40, 2))
    learner.add("risk", states, actions, np.zeros(40), states, np.zeros(40))
    assert learner.step()["risk"]["reward"] == 4.0


def test_rows_taken_under_a_fault_neither_allow_updates_nor_move_the_scale():
    learner = Learner(SPECS, CONFIG)
    states = np.full((40, 6), 1e5)
    learner.add("risk", states, np.zeros((40, 2)), np.zeros(40), states, np.zeros(40), 1.0, 0, 0, 1)
    assert learner.step() is None
    feed(learner, "risk", 16)
    while learner.step() is not None:
        pass
    assert learner.updates == 4 * 16
    assert learner.scales["risk"].count == 16
    assert np.abs(learner.scales["risk"].mean).max() < 2


def offline_ring(value: float) -> ReplayBuffer:
    offline = ReplayBuffer(6, 2, 100)
    states = np.random.default_rng(1).normal(value, 1.0, (50, 6))
    offline.add(states, np.zeros((50, 2)), np.zeros(50), states, np.zeros(50))
    return offline


def test_offline_rows_are_in_the_scale_once_however_often_it_resumes(tmp_path):
    for turn in range(3):
        learner = Learner(SPECS, CONFIG, directory=tmp_path, offline={"risk": offline_ring(100.0)})
        feed(learner, "risk", 10, seed=turn)
        assert learner.scales["risk"].count == 50 + 10 * (turn + 1)
        learner.close()
    assert learner.scales["risk"].mean == pytest.approx(np.full(6, 5000 / 80), abs=1.0)
    other = Learner(SPECS, CONFIG, directory=tmp_path, offline={"risk": offline_ring(200.0)})
    assert other.scales["risk"].count == 130
    other.close()


def test_offline_rows_allow_no_update():
    learner = Learner(SPECS, CONFIG, offline={"risk": offline_ring(0.0)})
    assert learner.step() is None
    feed(learner, "risk", 16)
    while learner.step() is not None:
        pass
    assert learner.updates == 4 * 16


OPTIONS = [
    {"layer_norm": True},
    {"droq_dropout": 0.05},
    {"crossq": True},
    {"quantiles": 8, "cvar": 0.25},
    {"prioritized_replay": True},
    {"max_gradient_norm": 0.5},
    {"mixed_precision": True},
]


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize("changed", OPTIONS)
def test_an_agents_options_are_its_own_and_it_publishes_and_resumes(tmp_path, changed, offline):
    config = dataclasses.replace(CONFIG, options={"risk": Options(**changed)})
    more = {"risk": offline_ring(0.0)} if offline else {}
    learner = Learner(SPECS, config, directory=tmp_path, offline=more)
    assert (type(learner.agents["risk"]), type(learner.agents["short_term"])) == (ComposedSAC, FastSAC)
    for agent in learner.specs:
        feed(learner, agent, 40)
    for _ in range(3):
        assert {"q_spread", "td_error", "effective_rank"} <= set(learner.step()["risk"])
    published = learner.publish()
    state = np.random.default_rng(5).standard_normal((9, 6), np.float32)
    served = Actors.from_payload(published.payload, learner.spec).act("risk", state)
    assert served.any()
    np.testing.assert_allclose(served, learner.act("risk", state), atol=1e-5)
    learner.step()
    learner.close()
    again = Learner(SPECS, config, directory=tmp_path, offline=more)
    assert (again.updates, again.payload()) == (8, published.payload)
    np.testing.assert_array_equal(again.act("risk", state), learner.act("risk", state))
    assert again.step() is not None


def test_accumulated_batches_make_one_update():
    learner = Learner(SPECS, dataclasses.replace(CONFIG, accumulate=3))
    feed(learner, "risk", 200)
    seen = []
    update = learner.agents["risk"].update
    learner.agents["risk"].update = lambda rows: (seen.append(len(rows.reward)), update(rows))[1]
    learner.step()
    assert seen == [96]
    assert learner.agents["risk"].micro_batch == 32


def test_rows_that_surprise_are_drawn_more_often():
    learner = Learner(SPECS, dataclasses.replace(CONFIG, options={"risk": Options(prioritized_replay=True)}))
    states = np.zeros((100, 6))
    reward = np.where(np.arange(100) < 5, 50.0, 0.0)
    learner.add("risk", states, np.zeros((100, 2)), reward, states, np.ones(100))
    for _ in range(20):
        learner.step()
    ring = learner.rings["risk"]
    drawn = ring.sample_weighted(2000, np.random.default_rng(0))[0].reward
    assert (drawn > 0).mean() > 0.15


def test_each_update_tells_how_alive_the_network_is():
    learner = Learner(SPECS, CONFIG)
    feed(learner, "risk", 40)
    info = learner.step()["risk"]
    assert {"effective_rank", "dormant_share", "policy_saturation", "policy_entropy"} <= set(info)
    assert learner.step()["risk"]["effective_rank"] == info["effective_rank"]


def learned(tmp_path, rounds: int = 4) -> Learner:
    learner = Learner(SPECS, CONFIG, seed=3, directory=tmp_path)
    feed(learner, "risk", 30)
    feed(learner, "short_term", 30)
    for _ in range(rounds):
        learner.step()
    return learner


def release(learner: Learner) -> None:
    """Let go of the files as a killed process does: without saving."""
    for ring in learner.rings.values():
        ring.close()


def test_a_resumed_learner_goes_on_as_if_never_stopped(tmp_path):
    learner = learned(tmp_path)
    published = learner.publish()
    learner.step()
    expected = {name: tensor.clone() for name, tensor in learner.agents["risk"].tensors().items()}
    release(learner)
    again = Learner(SPECS, CONFIG, seed=99, directory=tmp_path)
    assert (again.version, again.updates, again.experiences) == (1, 8, 60)
    assert again.payload() == published.payload
    again.step()
    for name, tensor in expected.items():
        assert torch.equal(tensor, again.agents["risk"].tensors()[name]), name


def test_a_damaged_checkpoint_is_reported_and_the_one_before_resumed(tmp_path):
    learner = learned(tmp_path)
    learner.publish()
    learner.step()
    learner.publish()
    release(learner)
    (tmp_path / "checkpoint.json").write_text("{}")
    again = Learner(SPECS, CONFIG, directory=tmp_path)
    assert again.version == 1
    assert "went back" in again.notice


def test_nothing_goes_out_that_could_not_be_saved(tmp_path, monkeypatch):
    learner = learned(tmp_path)
    learner.publish()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("agents.learning.checkpoint.save", full)
    before = learner.payload()
    learner.step()
    with pytest.raises(OSError, match="No space"):
        learner.publish()
    assert (learner.version, learner.payload()) == (1, before)
    monkeypatch.undo()
    assert learner.publish().version == 2


@pytest.mark.parametrize(("specs", "spec"), [
    ([AgentSpec("risk", 6, 2, "other"), SPECS[1]], None),
    (SPECS, "other"),
])  # fmt: skip
def test_what_was_learned_for_other_columns_is_refused(tmp_path, specs, spec):
    learner = learned(tmp_path)
    learner.close()
    with pytest.raises(SpecMismatch, match="another observation spec"):
        Learner(specs, CONFIG, directory=tmp_path, spec=spec)


def test_another_width_of_the_networks_is_refused(tmp_path):
    learned(tmp_path).close()
    wide = LearnerConfig(SACConfig(policy_hiddens=(8, 8), q_hiddens=(8, 8)), 500)
    with pytest.raises(SpecMismatch, match="other sizes"):
        Learner(SPECS, wide, directory=tmp_path)


def test_a_gpu_that_is_not_there_is_said_and_auto_goes_without(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="torch sees no GPU"):
        Learner(SPECS, LearnerConfig(SMALL, 500, device="cuda"))
    assert Learner(SPECS, LearnerConfig(SMALL, 500, device="auto")).device == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_a_gpu_learns_publishes_and_resumes(tmp_path):
    config = LearnerConfig(SMALL, 500, minimum_rows=16, device="auto")
    learner = Learner(SPECS, config, directory=tmp_path)
    feed(learner, "risk", 40)
    for _ in range(5):
        learner.step()
    payload = learner.publish().payload
    assert Actors.from_payload(payload, learner.spec).act("risk", np.ones((2, 6), np.float32)).any()
    learner.close()
    again = Learner(SPECS, config, directory=tmp_path)
    assert again.payload() == payload
    assert again.step() is not None


def test_senseless_settings_are_named():
    with pytest.raises(ConfigError, match="updates_per_row"):
        LearnerConfig(updates_per_row=0)
