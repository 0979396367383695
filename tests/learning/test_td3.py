"""TD3 does what the paper says, and its agent has SACAgent's face."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from agents import TD3Agent
from agents.core.errors import ConfigError, Diverged, SpecMismatch
from agents.learning.losses import Batch
from agents.learning.replay import Rows
from agents.learning.td3 import TD3, TD3Config
from agents.serving.actors import Actors
from tests.learning.corridor import Corridor

NETS = {"policy_hiddens": (16, 16), "q_hiddens": (16, 16)}
SMALL = NETS | {"batch_size": 32, "buffer_size": 1000, "warmup_steps": 20}


def rows(seed: int, count: int = 32, elapsed: float = 1.0) -> Rows:
    rng = np.random.default_rng(seed)
    make = lambda *shape: rng.standard_normal(shape, np.float32)  # noqa: E731
    done = (rng.random(count) < 0.5).astype(np.float32)
    return Rows(make(count, 3), np.tanh(make(count, 2)), make(count), make(count, 3), done, np.full(count, elapsed, np.float32))


def td3(seed: int = 0, **changes: float) -> TD3:
    return TD3(3, 2, TD3Config(**NETS, **changes), np.random.default_rng(seed))


def test_the_actor_and_the_targets_wait_for_every_second_update():
    made = td3()
    parts = (made.actor, made.actor_target, made.target, made.critic)
    before = [[p.clone() for p in part.parameters()] for part in parts]

    def moved() -> list[bool]:
        return [any(not torch.equal(o, n) for o, n in zip(old, part.parameters(), strict=True)) for old, part in zip(before, parts, strict=True)]

    assert "actor_loss" not in made.update(rows(1))
    assert moved() == [False, False, False, True]
    assert "actor_loss" in made.update(rows(2))
    assert moved() == [True, True, True, True]


def test_targets_follow_by_tau():
    made = td3(policy_delay=1, tau=0.1)
    before = [p.clone() for p in made.actor_target.parameters()]
    made.update(rows(1))
    for old, target, actor in zip(before, made.actor_target.parameters(), made.actor.parameters(), strict=True):
        torch.testing.assert_close(target, old + 0.1 * (actor - old))


def test_the_target_is_the_smaller_critic_at_a_smoothed_action():
    """With smoothing off it can be computed by hand; with it on, noise is clipped and actions stay in bounds."""
    made, batch = td3(target_noise=0.0, gamma=0.9), rows(1, elapsed=2.0)
    tensors = [torch.from_numpy(column) for column in batch]
    action = made.actor_target(tensors[3])
    value = made.target(tensors[3], action).amin(0)
    torch.testing.assert_close(made._target(Batch(*tensors)), tensors[2] + (1 - tensors[4]) * 0.9**2 * value)
    seen = []
    noisy = td3(target_noise=1e6, target_noise_clip=0.3)
    noisy.target.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[1]))
    noisy._target(Batch(*tensors))
    assert seen[0].abs().max() <= 0.3 + 1e-6 and seen[0].abs().min() > 0.29
    noisy.config = replace(noisy.config, target_noise_clip=3.0)
    noisy._target(Batch(*tensors))
    assert seen[1].abs().max() == 1


def test_a_bandit_with_a_known_best_action_is_learned():
    rng = np.random.default_rng(0)
    made = TD3(1, 1, TD3Config(learning_rate=1e-2, **NETS), rng)
    for _ in range(200):
        state, action = (rng.uniform(-1, 1, (64, 1)).astype(np.float32) for _ in range(2))
        ones = np.ones(64, np.float32)
        made.update(Rows(state, action, -10 * (action[:, 0] - state[:, 0] / 2) ** 2, state, ones, ones))
    states = np.linspace(-0.9, 0.9, 19, dtype=np.float32)[:, None]
    assert np.abs(made.act(states)[:, 0] - states[:, 0] / 2).mean() < 0.12


def test_exploration_is_noise_within_bounds():
    made = td3(exploration_noise=0.5)
    states = np.zeros((2000, 3), np.float32)
    assert not made.act(states).any()
    explored = made.act(states, explore=True)
    assert np.abs(explored).max() <= 1
    assert 0.4 < explored.std() < 0.5


def test_learning_goes_on_from_saved_tensors_as_if_never_interrupted():
    made = td3(4)
    made.update(rows(1))
    saved, state = {name: tensor.clone() for name, tensor in made.tensors().items()}, made.rng.bit_generator.state
    made.update(rows(2))
    again = td3(77)
    again.load(saved)
    again.rng.bit_generator.state, again.updates = state, 1
    again.update(rows(2))
    for name, tensor in made.tensors().items():
        assert torch.equal(tensor, again.tensors()[name]), name
    with pytest.raises(SpecMismatch, match="other sizes"):
        TD3(4, 2, TD3Config(**NETS), np.random.default_rng(0)).load(saved)


def test_a_loss_that_is_not_finite_takes_no_step():
    made = td3()
    before = {name: tensor.clone() for name, tensor in made.tensors().items()}
    with pytest.raises(Diverged):
        made.update(rows(1)._replace(reward=np.full(32, 1e30, np.float32)))
    assert all(torch.equal(before[name], tensor) for name, tensor in made.tensors().items())


@pytest.mark.parametrize("wrong", [{"gamma": 1.5}, {"tau": 0.0}, {"learning_rate": 0.0}, {"policy_delay": 0}, {"exploration_noise": -1.0}])
def test_senseless_settings_are_named(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        TD3Config(**wrong)


@pytest.mark.parametrize("options", [{}, {"n_step": 2, "normalize_observations": True, "scale_returns": True}])
def test_the_agent_learns_is_saved_and_is_served(options, tmp_path):
    agent = TD3Agent(env=Corridor, learning_rate=3e-3, gamma=0.9, seed=1, **options, **SMALL)
    agent.train(1, 400)
    assert np.mean(agent.evaluate(20)) > -3.0
    agent.save(tmp_path)
    other = TD3Agent(env=Corridor, seed=9, **options, **SMALL)
    other.restore(tmp_path)
    state = np.array([0.7], np.float32)
    np.testing.assert_array_equal(agent.compute_action(state, explore=True), other.compute_action(state, explore=True))
    states = np.linspace(-2, 2, 21, dtype=np.float32)[:, None]
    served = Actors.from_payload(agent.payload(spec="s"), "s")
    np.testing.assert_allclose(served.act("agent", states), agent.actions(states), atol=1e-5)
    spread = served.sample("agent", np.zeros((4000, 1), np.float32), np.random.default_rng(0), 1.0)
    assert 0.01 < spread.std() < 0.12
