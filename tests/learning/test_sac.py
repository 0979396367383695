"""One update does what the paper says, equal seeds learn equally, and a tiny problem is solved."""

import numpy as np
import pytest
import torch

from agents.core.errors import ConfigError, Diverged, SpecMismatch
from agents.learning.replay import Rows
from agents.learning.sac import SAC, SACConfig

SMALL = SACConfig(policy_hiddens=(32, 32), q_hiddens=(32, 32), batch_size=64)


def rows(rng: np.random.Generator, count: int = 64, state: int = 3, action: int = 2, **changed: np.ndarray) -> Rows:
    make = lambda *shape: rng.standard_normal(shape, np.float32)  # noqa: E731
    ones, zeros = np.ones(count, np.float32), np.zeros(count, np.float32)
    made = Rows(make(count, state), np.tanh(make(count, action)), make(count), make(count, state), zeros, ones)
    return made._replace(**changed)


def test_equal_seeds_learn_equally_and_others_differ():
    def learned(seed: int) -> dict[str, torch.Tensor]:
        sac = SAC(3, 2, SMALL, np.random.default_rng(seed))
        for _ in range(3):
            sac.update(rows(np.random.default_rng(9)))
        return sac.tensors()

    one, two, other = learned(1), learned(1), learned(2)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["actor.mean.weight"], other["actor.mean.weight"])


def test_the_global_random_stream_is_left_alone():
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    SAC(3, 2, SMALL, np.random.default_rng(0)).update(rows(np.random.default_rng(0)))
    assert torch.equal(torch.randn(3), expected)


def test_the_target_critics_follow_by_tau():
    sac = SAC(3, 2, SMALL, np.random.default_rng(0))
    before = [p.clone() for p in sac.target.parameters()]
    sac.update(rows(np.random.default_rng(1)))
    for old, target, critic in zip(before, sac.target.parameters(), sac.critic.parameters(), strict=True):
        torch.testing.assert_close(target, old + 0.005 * (critic - old))


def test_the_actor_step_leaves_the_critic_alone():
    """With a critic that cannot move, only the actor and the temperature change."""
    sac = SAC(3, 2, SACConfig(critic_lr=1e-30, policy_hiddens=(8,), q_hiddens=(8,)), np.random.default_rng(0))
    critic = [p.clone() for p in sac.critic.parameters()]
    actor = [p.clone() for p in sac.actor.parameters()]
    sac.update(rows(np.random.default_rng(1)))
    assert all(torch.equal(a, b) for a, b in zip(critic, sac.critic.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(actor, sac.actor.parameters(), strict=True))


def test_a_fixed_temperature_stays():
    sac = SAC(3, 2, SACConfig(alpha=0.7, automatic_entropy_tuning=False, policy_hiddens=(8,), q_hiddens=(8,)), np.random.default_rng(0))
    for _ in range(3):
        info = sac.update(rows(np.random.default_rng(1)))
    assert info["alpha"] == pytest.approx(0.7)


def test_rewards_are_scaled():
    one, ten = (SAC(3, 2, SACConfig(reward_scale=s, policy_hiddens=(8,), q_hiddens=(8,)), np.random.default_rng(0)) for s in (1, 10))
    batch = rows(np.random.default_rng(1))
    assert ten.update(batch)["reward"] == pytest.approx(10 * one.update(batch)["reward"], rel=1e-5)


def test_a_loss_that_is_not_finite_takes_no_step():
    sac = SAC(3, 2, SMALL, np.random.default_rng(0))
    before = {name: tensor.clone() for name, tensor in sac.tensors().items()}
    with pytest.raises(Diverged, match="a loss became inf; the step was not taken"):
        sac.update(rows(np.random.default_rng(1), reward=np.full(64, 1e30, np.float32)))
    assert all(torch.equal(before[name], tensor) for name, tensor in sac.tensors().items())
    assert sac.updates == 0


def test_learning_goes_on_from_saved_tensors_as_if_never_interrupted():
    rng = np.random.default_rng(4)
    sac = SAC(3, 2, SMALL, rng)
    sac.update(rows(np.random.default_rng(1)))
    saved, state = {name: tensor.clone() for name, tensor in sac.tensors().items()}, rng.bit_generator.state
    sac.update(rows(np.random.default_rng(2)))
    again = SAC(3, 2, SMALL, np.random.default_rng(77))
    again.load(saved)
    again.rng.bit_generator.state = state
    again.update(rows(np.random.default_rng(2)))
    for name, tensor in sac.tensors().items():
        assert torch.equal(tensor, again.tensors()[name]), name


def test_tensors_of_another_size_are_refused():
    saved = SAC(3, 2, SMALL, np.random.default_rng(0)).tensors()
    with pytest.raises(SpecMismatch, match="other sizes"):
        SAC(4, 2, SMALL, np.random.default_rng(0)).load(saved)


@pytest.mark.parametrize("wrong", [{"gamma": 1.5}, {"tau": 0.0}, {"learning_rate": 0.0}, {"alpha": -1.0}, {"batch_size": 0}])
def test_senseless_settings_are_named(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SACConfig(**wrong)


def test_a_bandit_with_a_known_best_action_is_learned():
    """Reward -(a - s/2)^2: the best action depends on the state, and the mean must find it."""
    rng = np.random.default_rng(0)
    config = SACConfig(learning_rate=3e-3, alpha=0.05, policy_hiddens=(32, 32), q_hiddens=(32, 32))
    sac = SAC(1, 1, config, rng)
    for _ in range(500):
        state = rng.uniform(-1, 1, (128, 1)).astype(np.float32)
        action = rng.uniform(-1, 1, (128, 1)).astype(np.float32)
        reward = -10 * (action[:, 0] - state[:, 0] / 2) ** 2
        done = np.ones(128, np.float32)
        sac.update(Rows(state, action, reward, state, done, np.ones(128, np.float32)))
    states = np.linspace(-0.9, 0.9, 19, dtype=np.float32)[:, None]
    assert np.abs(sac.act(states)[:, 0] - states[:, 0] / 2).mean() < 0.08


def test_a_linear_regulator_is_learned_through_its_future():
    """x' = x + a/2, reward -x^2: the action costs nothing now, so only a bootstrapped value can teach to push towards 0."""
    rng = np.random.default_rng(1)
    config = SACConfig(learning_rate=3e-3, alpha=0.02, gamma=0.8, tau=0.05, policy_hiddens=(32, 32), q_hiddens=(32, 32))
    sac = SAC(1, 1, config, rng)
    for _ in range(600):
        state = rng.uniform(-1.5, 1.5, (128, 1)).astype(np.float32)
        action = rng.uniform(-1, 1, (128, 1)).astype(np.float32)
        following = state + action / 2
        ones = np.ones(128, np.float32)
        sac.update(Rows(state, action, -(state[:, 0] ** 2), following, 0 * ones, ones))
    states = np.array([[-1.2], [-0.8], [0.8], [1.2]], np.float32)
    assert (sac.act(states)[:, 0] * np.sign(states[:, 0]) < -0.6).all()
