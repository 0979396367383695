"""The public face plays an environment, maps actions onto its box, and can be saved and restored."""

from typing import Any

import gymnasium
import numpy as np
import pytest

from agents import SACAgent
from agents.core.errors import ConfigError, ModelError, SpecMismatch

SMALL: dict[str, Any] = {"policy_hiddens": (16, 16), "q_hiddens": [16, 16], "batch_size": 32, "buffer_size": 1000, "warmup_steps": 20}


class Corridor(gymnasium.Env[np.ndarray, np.ndarray]):
    """Push a point to the origin; ends there (termination) or after ten steps (truncation). The box is lopsided on purpose."""

    observation_space = gymnasium.spaces.Box(-2, 2, (1,), np.float32)
    action_space = gymnasium.spaces.Box(np.float32([-1.0]), np.float32([3.0]), dtype=np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.steps = self.np_random.uniform(-1.5, 1.5), 0
        return np.array([self.at], np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.at, self.steps = float(np.clip(self.at + (action[0] - 1) / 4, -2, 2)), self.steps + 1
        return np.array([self.at], np.float32), -abs(self.at), abs(self.at) < 0.05, self.steps >= 10, {}


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
])  # fmt: skip
def test_what_cannot_work_is_said_at_once(arguments, words):
    with pytest.raises(ConfigError, match=words):
        SACAgent(**arguments)
