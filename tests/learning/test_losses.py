"""The losses' values by hand, their gradients by finite differences, and time that passes unevenly."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.func import functional_call

from agents.learning.losses import Batch, actor_loss, critic_loss, soft_target, temperature_loss
from agents.models.actors import GaussianActor
from agents.models.critics import TwinCritic

N, S, A = 5, 3, 2


def batch(dtype=torch.float64, **changed) -> Batch:
    rng = np.random.default_rng(3)
    make = lambda *shape: torch.tensor(rng.standard_normal(shape), dtype=dtype)  # noqa: E731
    rows = Batch(make(N, S), torch.tanh(make(N, A)), make(N), make(N, S), torch.zeros(N, dtype=dtype), torch.ones(N, dtype=dtype))
    return rows._replace(**changed)


def networks(dtype=torch.float64):
    torch.manual_seed(1)
    actor, critic, target = GaussianActor(S, A, (7, 7)), TwinCritic(S, A, (7, 7)), TwinCritic(S, A, (7, 7))
    torch.nn.init.normal_(actor.mean.weight)
    return actor.to(dtype), critic.to(dtype), target.to(dtype)


def gradcheck(module, loss):
    """`loss(call)` with `call` the module under free parameters; numeric against analytic gradients in float64."""
    names = [name for name, _ in module.named_parameters()]
    values = tuple(parameter.detach().clone().requires_grad_() for parameter in module.parameters())

    def of(*parameters):
        return loss(dict(zip(names, parameters, strict=True)))

    return torch.autograd.gradcheck(of, values, fast_mode=True)


class Free:
    """An actor or critic whose parameters are given, with the same methods."""

    def __init__(self, module, parameters):
        self.module, self.parameters = module, parameters

    def __call__(self, *inputs):
        return functional_call(self.module, self.parameters, inputs)

    def sample(self, state, noise):
        from agents.models.actors import squashed_log_prob

        mean, log_std = self(state)
        raw = mean + log_std.exp() * noise
        return torch.tanh(raw), squashed_log_prob(raw, log_std, noise)


def test_gradients_agree_with_finite_differences():
    actor, critic, _ = networks()
    rows, noise, alpha = batch(), torch.randn(N, A, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
    goal = torch.randn(N, dtype=torch.float64)
    assert gradcheck(critic, lambda p: critic_loss(Free(critic, p), rows, goal)[0])
    assert gradcheck(actor, lambda p: actor_loss(Free(actor, p), critic, rows, alpha, noise)[0])
    log_alpha = torch.tensor(-0.5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda value: temperature_loss(value, goal, -2.0)[0], (log_alpha,))


def test_float32_gradients_agree_with_float64():
    noise, goal = torch.randn(N, A, dtype=torch.float64), torch.randn(N, dtype=torch.float64)
    gradients = []
    for dtype in (torch.float32, torch.float64):
        actor, critic, _ = networks(dtype)
        rows = batch(dtype)
        first = critic_loss(critic, rows, goal.to(dtype))[0]
        second = actor_loss(actor, critic, rows, torch.tensor(0.3, dtype=dtype), noise.to(dtype))[0]
        gradients.append(torch.autograd.grad(first, critic.parameters()) + torch.autograd.grad(second, actor.parameters()))
    for single, double in zip(*gradients, strict=True):
        assert float((single.double() - double).norm() / double.norm()) < 1e-4


def test_the_target_is_reward_plus_discounted_soft_value():
    actor, _, target = networks()
    rows, noise, alpha = batch(), torch.randn(N, A, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
    action, log_prob = actor.sample(rows.next_state, noise)
    value = target(rows.next_state, action).min(0).values - 0.3 * log_prob
    torch.testing.assert_close(soft_target(actor, target, rows, alpha, 0.9, noise), (rows.reward + 0.9 * value).detach())


def test_a_termination_has_no_future_and_a_truncation_has():
    actor, _, target = networks()
    noise, alpha = torch.zeros(N, A, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
    ended = batch(done=torch.ones(N, dtype=torch.float64))
    torch.testing.assert_close(soft_target(actor, target, ended, alpha, 0.9, noise), ended.reward)
    cut = batch()
    assert (soft_target(actor, target, cut, alpha, 0.9, noise) - cut.reward).abs().min() > 0


@given(st.floats(0.01, 20), st.floats(0.5, 0.999))
def test_discount_and_entropy_follow_elapsed_time(elapsed, gamma):
    actor, _, target = networks()
    noise, alpha = torch.ones(N, A, dtype=torch.float64) * 0.2, torch.tensor(0.3, dtype=torch.float64)
    rows = batch(elapsed=torch.full((N,), elapsed, dtype=torch.float64))
    action, log_prob = actor.sample(rows.next_state, noise)
    value = target(rows.next_state, action).min(0).values - 0.3 * elapsed * log_prob
    expected = rows.reward + math.exp(elapsed * math.log(gamma)) * value
    torch.testing.assert_close(soft_target(actor, target, rows, alpha, gamma, noise), expected.detach())


def test_the_actor_pays_for_certainty_in_proportion_to_time():
    actor, critic, _ = networks()
    noise, alpha = torch.zeros(N, A, dtype=torch.float64), torch.tensor(0.5, dtype=torch.float64)
    action, log_prob = actor.sample(batch().state, noise)
    for elapsed in (1.0, 3.0):
        rows = batch(elapsed=torch.full((N,), elapsed, dtype=torch.float64))
        loss = actor_loss(actor, critic, rows, alpha, noise)[0]
        expected = (0.5 * elapsed * log_prob - critic(rows.state, action).min(0).values).mean()
        assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-12)


@pytest.mark.parametrize(("log_prob", "sign"), [(3.0, 1), (1.0, -1)])
def test_the_temperature_rises_while_entropy_is_below_its_target(log_prob, sign):
    log_alpha = torch.tensor(0.0, requires_grad=True)
    loss, _ = temperature_loss(log_alpha, torch.full((4,), log_prob), -2.0)
    loss.backward()
    assert math.copysign(1, -float(log_alpha.grad)) == sign
