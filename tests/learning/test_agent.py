"""The public face plays an environment, maps actions onto its box, and can be saved and restored."""

from typing import Any

import numpy as np
import pytest

from agents import SACAgent
from agents.core.errors import ConfigError, ModelError, NotFinite, SpecMismatch
from agents.learning.composed import ComposedSAC
from agents.learning.presets import PRESETS, preset
from agents.serving.actors import Actors
from agents.serving.sequences import SequenceActor
from tests.learning.corridor import Corridor, Pictures

SMALL: dict[str, Any] = {"policy_hiddens": (16, 16), "q_hiddens": [16, 16], "batch_size": 32, "buffer_size": 1000, "warmup_steps": 20}


def test_training_improves_the_return():
    agent = SACAgent(env=Corridor, learning_rate=3e-3, gamma=0.9, seed=1, **SMALL)
    history = agent.train(num_iterations=7)
    first, last = history[0]["return"], np.mean([row["return"] for row in history[-2:]])
    assert last > first + 2
    assert history[-1]["steps"] == 700
    assert agent.sac.updates == 681


def test_only_terminations_are_remembered_as_ends():
    agent = SACAgent(env=Corridor(), **SMALL)
    agent.train(1)
    rows = agent.buffer.latest(100)
    np.testing.assert_array_equal(rows.done == 1, np.abs(rows.next_state[:, 0]) < 0.05)
    assert (rows.done == 0).sum() >= 50


def test_equal_seeds_play_equally():
    one, two = (SACAgent(env=Corridor(), seed=5, **SMALL).train(1) for _ in range(2))
    assert one == two


def test_actions_lie_in_the_box_and_zero_is_its_middle():
    agent = SACAgent(env=Corridor(), **SMALL)
    np.testing.assert_allclose(agent.compute_action(np.array([0.3])), [1.0])
    explored = [agent.compute_action(np.array([0.3]), explore=True) for _ in range(50)]
    assert all(Corridor.action_space.contains(action) for action in explored)
    assert np.std(explored) > 0.1


def test_sizes_alone_make_an_agent_that_is_fed_by_hand():
    agent = SACAgent(state_dim=100, action_dim=4)
    assert agent.config.learning_rate == 3e-4
    assert (agent.config.batch_size, agent.buffer.capacity, agent.config.policy_hiddens) == (256, 1_000_000, (256, 256))
    agent.remember(np.ones(100), np.zeros(4), 1.0, np.ones(100), False)
    assert agent.learn()["reward"] == 1.0
    assert agent.compute_action(np.ones(100)).shape == (4,)
    with pytest.raises(ConfigError, match="needs an environment"):
        agent.train(1)


def test_a_saved_agent_is_restored(tmp_path):
    agent = SACAgent(env=Corridor(), **SMALL)
    agent.train(1)
    agent.save(tmp_path / "agent")
    other = SACAgent(env=Corridor(), seed=9, **SMALL)
    other.restore(str(tmp_path / "agent"))
    state = np.array([0.7], np.float32)
    np.testing.assert_array_equal(agent.compute_action(state, explore=True), other.compute_action(state, explore=True))
    assert (other.sac.updates, other.steps) == (agent.sac.updates, 100)


def test_an_agent_of_another_size_or_a_damaged_one_is_refused(tmp_path):
    SACAgent(env=Corridor(), **SMALL).save(tmp_path)
    with pytest.raises(SpecMismatch, match="another size"):
        SACAgent(state_dim=2, action_dim=1, **SMALL).restore(tmp_path)
    with pytest.raises(SpecMismatch, match="other sizes"):
        SACAgent(state_dim=1, action_dim=1, **{**SMALL, "q_hiddens": (8,)}).restore(tmp_path)
    next(tmp_path.glob("*.safetensors")).write_bytes(b"cut")
    with pytest.raises(ModelError, match="damaged"):
        SACAgent(env=Corridor(), **SMALL).restore(tmp_path)


@pytest.mark.parametrize(("arguments", "words"), [
    ({}, "state_dim and action_dim"),
    ({"env": "CartPole-v1"}, "boxes"),
    ({"state_dim": 3, "action_dim": 1, "learning_rat": 1.0}, "learning_rat"),
    ({"state_dim": 3, "action_dim": 1, "num_workers": 2}, "num_workers"),
    ({"state_dim": 3, "action_dim": 1, "num_gpus": 4}, "num_gpus"),
    ({"state_dim": 3, "action_dim": 1, "framework": "tf"}, "framework"),
    ({"state_dim": 3, "action_dim": 1, "n_step": 0}, "n_step"),
    ({"state_dim": 3, "action_dim": 1, "warmup_steps": 0}, "warmup_steps"),
    ({"state_dim": 3, "action_dim": 1, "batch_size": 100, "train_batch_size": 256}, "multiple"),
    ({"env": Pictures((4, 2, 2)), "time_steps": 3, "assets": 2, "features": 2}, "time_steps"),
    ({"action_dim": 1, "buffer_size": 10**9}, "buffer_size"),
])  # fmt: skip
def test_what_cannot_work_is_said_at_once(arguments, words):
    with pytest.raises(ConfigError, match=words):
        SACAgent(**arguments)


def test_every_parameter_of_the_papers_has_its_default():
    agent = SACAgent(state_dim=3, action_dim=2)
    config = agent.config
    assert (config.gamma, config.tau, config.alpha, config.target_entropy) == (0.99, 0.005, 0.2, "auto")
    assert (config.q_hiddens, config.policy_hiddens, config.weight_decay, config.reward_scale) == ((256, 256), (256, 256), 0.0, 1.0)
    assert agent.sac.target_entropy == -2.0
    assert agent.batch_size == 256
    assert agent.options.plain


def test_rates_are_the_learning_rate_unless_they_are_given():
    def rates(**given):
        sac = SACAgent(state_dim=3, action_dim=2, learning_rate=1e-3, **given).sac
        return [one.param_groups[0]["lr"] for one in (sac._actor_step, sac._critic_step, sac._alpha_step)]

    assert rates() == [1e-3, 1e-3, 1e-3]
    assert rates(actor_lr=1e-4, critic_lr=2e-4, alpha_lr=3e-4) == [1e-4, 2e-4, 3e-4]


def test_an_environment_may_be_a_name():
    agent = SACAgent("Pendulum-v1", **SMALL)
    assert (agent.state_dim, agent.action_dim) == (3, 1)
    assert agent.world is not None and agent.world.env.unwrapped.spec.id == "Pendulum-v1"


def test_the_pair_that_reset_gives_is_an_observation_too():
    agent = SACAgent(env=Corridor(), **SMALL)
    observation = Corridor().reset(seed=3)
    np.testing.assert_array_equal(agent.compute_action(observation), agent.compute_action(observation[0]))
    with pytest.raises(ConfigError, match="2 numbers, expected 1"):
        agent.compute_action(np.zeros(2))
    with pytest.raises(NotFinite):
        agent.compute_action(np.array([np.nan]))


def test_evaluation_leaves_the_episode_in_play_alone():
    agent = SACAgent(env=Corridor(), **SMALL)
    agent.train(1, 5)
    at, steps = agent.world.env.at, agent.world.env.steps
    first = agent.evaluate(3, seed=4)
    assert first == agent.evaluate(3, seed=4) and len(first) == 3
    assert (agent.world.env.at, agent.world.env.steps) == (at, steps)


def test_a_name_that_is_no_preset_is_said():
    with pytest.raises(ConfigError, match="portfolio_weekly"):
        preset("portfolio_daily")


def test_presets_make_agents():
    weekly = SACAgent(state_dim=9, action_dim=3, **preset("portfolio_weekly", seed=3))
    assert (weekly.config.policy_hiddens, weekly.config.q_hiddens, weekly.batch_size) == ((64, 64), (64, 64), 64)
    assert (weekly.buffer.capacity, weekly.config.weight_decay) == (10_000, 1e-4)
    for name in ("cross_section", "classifier"):
        agent = SACAgent(action_dim=10, **preset(name, buffer_size=10))
        given = PRESETS[name]
        assert agent.state_dim == given["time_steps"] * given["assets"] * given["features"]
        assert agent.compute_action(np.zeros(agent.state_dim)).shape == (10,)


def test_sequences_are_learned_through_the_extractor(tmp_path):
    agent = SACAgent(
        env=Pictures(), time_steps=3, assets=2, features=2, cnn_filters=(8,), lstm_units=(16,), dropout_rate=0.0, output_dim=16,
        learning_rate=3e-3, gamma=0.0, init_alpha=0.05, **{**SMALL, "warmup_steps": 100},
    )  # fmt: skip
    agent.train(1, 450)
    assert isinstance(agent.sac, ComposedSAC)
    assert np.mean(agent.evaluate(100)) > 0.6
    agent.save(tmp_path)
    other = SACAgent(
        env=Pictures(), time_steps=3, assets=2, features=2, cnn_filters=(8,), lstm_units=(16,), output_dim=16, seed=8, **SMALL
    )  # fmt: skip
    other.restore(tmp_path)
    seen = np.random.default_rng(0).standard_normal((3, 2, 2)).astype(np.float32)
    np.testing.assert_array_equal(agent.compute_action(seen), other.compute_action(seen))
    served = SequenceActor.from_payload(agent.payload(version=3, spec="s"), "s")
    many = np.random.default_rng(1).standard_normal((50, 3, 2, 2)).astype(np.float32)
    np.testing.assert_allclose(served.act(many), agent.actions(many.reshape(50, -1)), atol=1e-5)


@pytest.mark.parametrize("options", [
    {"normalize_observations": True, "scale_returns": True},
    {"n_step": 3},
    {"prioritized_replay": True},
    {"train_batch_size": 64},
    {"layer_norm": True, "updates_per_step": 2},
])  # fmt: skip
def test_options_improve_the_return_and_survive_a_checkpoint(options, tmp_path):
    agent = SACAgent(env=Corridor, learning_rate=3e-3, gamma=0.9, seed=1, **options, **SMALL)
    agent.train(1, 300)
    assert np.mean(agent.evaluate(20)) > -3.0
    agent.save(tmp_path)
    other = SACAgent(env=Corridor, seed=2, **options, **SMALL)
    other.restore(tmp_path)
    state = np.array([0.7], np.float32)
    np.testing.assert_array_equal(agent.compute_action(state, explore=True), other.compute_action(state, explore=True))
    served = Actors.from_payload(agent.payload(spec="s"), "s")
    mean = agent.actions(state[None])
    np.testing.assert_allclose(served.act("agent", state[None]), mean, atol=1e-5)


def test_an_agent_that_sees_otherwise_is_refused(tmp_path):
    SACAgent(env=Corridor(), normalize_observations=True, **SMALL).save(tmp_path)
    with pytest.raises(SpecMismatch, match="observation_norm"):
        SACAgent(env=Corridor(), **SMALL).restore(tmp_path)


def test_n_steps_span_their_rows_and_stop_at_a_time_limit():
    agent = SACAgent(env=Corridor(), n_step=4, **SMALL)
    agent.train(1, 19)
    elapsed = agent.buffer.latest(100).elapsed
    assert elapsed.max() == 4 and (elapsed < 4).any()
    assert len(elapsed) >= 15


def test_entropy_of_rows_that_span_steps_counts_by_decision():
    assert SACAgent(state_dim=1, action_dim=1, n_step=3, **SMALL).sac.entropy_per_decision
    assert not SACAgent(state_dim=1, action_dim=1, layer_norm=True, **SMALL).sac.entropy_per_decision


def test_rewards_are_learned_in_units_of_the_return():
    agent = SACAgent(state_dim=1, action_dim=1, scale_returns=True, **SMALL)
    for at in range(40):
        agent.remember([at], [0], 100.0 * (-1) ** at, [at], False, truncated=True)
    assert agent.lenses["return_scale"]._return == 0
    agent.buffer.sample = lambda size, rng: agent.buffer.latest(2)
    agent.buffer.add([0], [0], 100.0, [0], True)
    agent.buffer.add([0], [0], 100.0, [0], True)
    assert agent.learn()["reward"] == pytest.approx(1.0, rel=1e-3)


def test_states_are_learned_from_as_they_are_acted_on():
    agent = SACAgent(state_dim=1, action_dim=1, normalize_observations=True, **SMALL)
    for at in range(40):
        agent.remember([1000 + at], [0], 0.0, [1000 + at], False)
    seen = []
    agent.sac.update = lambda rows: seen.append(rows) or {}
    agent.learn()
    assert np.abs(seen[0].state).max() < 3 and np.abs(seen[0].next_state).max() < 3


def test_surprises_change_what_is_drawn():
    agent = SACAgent(env=Corridor(), prioritized_replay=True, **SMALL)
    agent.train(1, 40)
    assert len(np.unique(agent.buffer._tree[np.arange(40)])) > 5


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_not_remembered(bad):
    agent = SACAgent(state_dim=2, action_dim=1, **SMALL)
    for arguments in [([bad, 0], [0], 1.0, [0, 0]), ([0, 0], [bad], 1.0, [0, 0]), ([0, 0], [0], bad, [0, 0]), ([0, 0], [0], 1.0, [0, bad])]:
        with pytest.raises(NotFinite):
            agent.remember(*arguments, False)
    assert len(agent.buffer) == 0


@pytest.mark.parametrize("n_step", [1, 3])
def test_a_bad_transition_does_not_spoil_those_that_follow(n_step):
    agent = SACAgent(state_dim=2, action_dim=1, **{**SMALL, "n_step": n_step})
    good = ([0, 0], [0], 1.0, [0, 0])
    for bad in [([0], [0], 1.0, [0, 0]), ([0, 0], [0, 0], 1.0, [0, 0]), ([0, 0], [0], 1.0, [0, 0, 0])]:
        with pytest.raises(SpecMismatch, match="a transition's"):
            agent.remember(*bad, False)
    with pytest.raises(NotFinite):
        agent.remember([0, 0], [np.nan], 1.0, [0, 0], False)
    for _ in range(4):
        agent.remember(*good, False)
    agent.remember(*good, True)
    assert len(agent.buffer) == 5


class Broken(Corridor):
    """An environment that speaks nonsense at its twentieth step."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what, self.taken = what, 0

    def step(self, action):
        observed, reward, *ends, more = super().step(action)
        self.taken += 1
        if self.taken == 20:
            observed, reward = (observed * np.nan, reward) if self.what == "observation" else (observed, np.inf)
        return observed, reward, *ends, more


@pytest.mark.parametrize("what", ["observation", "reward"])
def test_an_environment_that_speaks_nonsense_is_said_and_nothing_of_it_is_kept(what):
    agent = SACAgent(env=Broken(what), **SMALL)
    with pytest.raises(NotFinite, match="NaN or an infinity"):
        agent.train(1, 40)
    assert len(agent.buffer) == 19
    assert np.isfinite(agent.buffer.latest(100).state).all()


@pytest.mark.parametrize("changed", [{}, {"normalize_observations": True}, {"layer_norm": True}, {"prioritized_replay": True}])
def test_each_update_tells_what_there_is_to_watch(changed):
    agent = SACAgent(env=Corridor, **SMALL, **changed)
    info = agent.train(1, 30)[-1]
    wanted = {"reward", "entropy", "alpha", "q_mean", "q_spread", "td_error", "action_mean", "action_deviation", "action_saturation",
              "critic_gradient", "actor_gradient", "effective_rank", "dormant_share"}  # fmt: skip
    assert wanted <= set(info)
    assert all(type(value) is float for value in info.values())
    assert 1 <= info["effective_rank"] <= 32
    assert agent.learn()["effective_rank"] == info["effective_rank"]
