"""The update written by hand equals autograd: its gradients in double precision, its course in single."""

import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from agents.core.errors import Diverged, SpecMismatch
from agents.learning import checkpoint, products
from agents.learning.fast import FastSAC, fastest_products
from agents.learning.losses import Batch, actor_loss, critic_loss, soft_target, temperature_loss
from agents.learning.products import Products
from agents.learning.replay import Rows
from agents.learning.sac import SAC, SACConfig

AGENTS = {"long_term": (100, 4), "short_term": (80, 4), "market_making": (120, 6), "risk": (60, 2)}
SMALL = SACConfig(policy_hiddens=(32, 16), q_hiddens=(24, 32), batch_size=64)
EVERY = [Products(*names) for names in itertools.product(products.FORWARD, products.BACK, products.OUTER)]


def rows(seed: int, count: int = 64, state: int = 3, action: int = 2, **changed: np.ndarray) -> Rows:
    """Terminations among them, and elapsed times that are not 1."""
    rng = np.random.default_rng(seed)
    make = lambda *shape: rng.standard_normal(shape, np.float32)  # noqa: E731
    done, elapsed = (rng.random(count) < 0.2).astype(np.float32), rng.uniform(0.2, 3, count).astype(np.float32)
    made = Rows(make(count, state), np.tanh(make(count, action)), make(count), make(count, state), done, elapsed)
    return made._replace(**changed)


def in_double(sac: SAC, batch: Rows, noise: np.ndarray, stepped: SAC) -> dict[str, torch.Tensor]:
    """What autograd makes of the same losses in float64. The actor is judged by the critic that has been `stepped`."""
    actor, critic, target, judge = (copy.deepcopy(m).double() for m in (sac.actor, sac.critic, sac.target, stepped.critic))
    tensors = Batch(*(torch.from_numpy(np.array(column, np.float64)) for column in batch))
    tensors = tensors._replace(reward=tensors.reward * sac.config.reward_scale)
    log_alpha = sac.log_alpha.detach().double().requires_grad_()
    alpha = log_alpha.detach().exp()
    following, own = torch.from_numpy(noise.astype(np.float64)).chunk(2)
    goal = soft_target(actor, target, tensors, alpha, sac.config.gamma, following)
    loss, _ = critic_loss(critic, tensors, goal)
    named = dict(zip((f"critic.{n}" for n, _ in critic.named_parameters()), torch.autograd.grad(loss, list(critic.parameters())), strict=True))
    loss, log_prob, _ = actor_loss(actor, judge, tensors, alpha, own)
    named |= zip((f"actor.{n}" for n, _ in actor.named_parameters()), torch.autograd.grad(loss, list(actor.parameters())), strict=True)
    loss, _ = temperature_loss(log_alpha, log_prob, sac.target_entropy)
    return named | {"temperature.log_alpha": torch.autograd.grad(loss, log_alpha)[0]}


def gradient_errors(fast: FastSAC, batch: Rows) -> dict[str, float]:
    """By parameter the relative Frobenius error of one update's gradient."""
    before, state = copy.deepcopy(fast), fast.rng.bit_generator.state
    fast.update(batch)
    rng = np.random.default_rng(0)
    rng.bit_generator.state = state
    noise = rng.standard_normal((2 * len(batch.reward), fast.action_dim), np.float32)
    exact, found = in_double(before, batch, noise, fast), fast.gradients()
    assert exact.keys() == found.keys()
    return {name: float((found[name].double() - exact[name]).norm() / exact[name].norm().clamp(min=1e-12)) for name in exact}


@pytest.mark.parametrize("agent", AGENTS)
def test_the_first_gradients_equal_double_precision(agent):
    state, action = AGENTS[agent]
    fast = FastSAC(state, action, SACConfig(), np.random.default_rng(1))
    errors = gradient_errors(fast, rows(2, 256, state, action))
    assert max(errors.values()) < 1e-4, errors


@pytest.mark.parametrize("hiddens", [((8,), (16,)), ((16,), (8, 8, 8)), ((7, 5, 3), (9,))])
@pytest.mark.parametrize("batch", [1, 33])
def test_any_depth_width_and_batch(hiddens, batch):
    config = replace(SMALL, policy_hiddens=hiddens[0], q_hiddens=hiddens[1], reward_scale=3.0)
    fast = FastSAC(5, 1, config, np.random.default_rng(0))
    for seed in range(3):
        fast.update(rows(seed, 40, 5, 1))
    errors = gradient_errors(fast, rows(7, batch, 5, 1))
    assert max(errors.values()) < 1e-4, errors


@pytest.mark.parametrize("log_std", [-30.0, 5.0])
def test_a_clamped_deviation_has_no_gradient_of_its_own(log_std):
    fast = FastSAC(3, 2, SMALL, np.random.default_rng(0))
    with torch.no_grad():
        fast.actor.log_std.bias.fill_(log_std)
    errors = gradient_errors(fast, rows(1))
    assert float(fast.gradients()["actor.log_std.weight"].abs().max()) == 0
    assert max(error for name, error in errors.items()) < 1e-4, errors


@pytest.mark.parametrize("chosen", EVERY, ids=lambda p: f"{p.forward}-{p.back}-{p.outer}")
def test_every_library_gives_the_same_gradients(chosen):
    errors = gradient_errors(FastSAC(17, 3, SMALL, np.random.default_rng(1), chosen), rows(2, 64, 17, 3))
    assert max(errors.values()) < 1e-4, errors


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"weight_decay": 0.1},
        {"automatic_entropy_tuning": False, "alpha": 0.7},
        {"reward_scale": 5.0, "gamma": 0.9, "tau": 0.5, "actor_lr": 1e-3, "critic_lr": 2e-3, "alpha_lr": 5e-3, "target_entropy": -0.5},
    ],
)
def test_it_takes_the_course_of_the_autograd_path(changed):
    config = replace(SMALL, **changed)
    slow, fast = (make(3, 2, config, np.random.default_rng(5)) for make in (SAC, FastSAC))
    for seed in range(12):
        one, two = slow.update(rows(seed)), fast.update(rows(seed))
        assert list(one) == list(two)
        assert two == pytest.approx(one, rel=2e-3, abs=2e-4)
    for name, tensor in slow.tensors().items():
        torch.testing.assert_close(fast.tensors()[name], tensor, rtol=1e-2, atol=1e-4, msg=lambda m, name=name: f"{name}: {m}")
    assert slow.rng.bit_generator.state == fast.rng.bit_generator.state
    assert slow.updates == fast.updates == 12


def test_either_path_goes_on_from_the_others_checkpoint(tmp_path):
    slow, fast = (make(3, 2, SMALL, np.random.default_rng(5)) for make in (SAC, FastSAC))
    for sac in (slow, fast):
        for seed in range(3):
            sac.update(rows(seed))
    checkpoint.save(tmp_path / "slow", slow.tensors(), {})
    checkpoint.save(tmp_path / "fast", fast.tensors(), {})
    crossed_slow, crossed_fast = SAC(3, 2, SMALL, np.random.default_rng(0)), FastSAC(3, 2, SMALL, np.random.default_rng(0))
    crossed_slow.load(checkpoint.load(tmp_path / "fast")[0])
    crossed_fast.load(checkpoint.load(tmp_path / "slow")[0])
    for sac in (slow, fast, crossed_slow, crossed_fast):
        sac.rng = np.random.default_rng(8)
        sac.update(rows(9))
    for sac in (fast, crossed_slow, crossed_fast):
        assert sac.tensors().keys() == slow.tensors().keys()
        for name, tensor in slow.tensors().items():
            torch.testing.assert_close(sac.tensors()[name], tensor, rtol=1e-3, atol=2e-5)


def test_it_goes_on_from_its_own_checkpoint_bit_by_bit():
    rng = np.random.default_rng(4)
    fast = FastSAC(3, 2, SMALL, rng)
    fast.update(rows(1))
    saved, state = {name: tensor.clone() for name, tensor in fast.tensors().items()}, rng.bit_generator.state
    fast.update(rows(2))
    again = FastSAC(3, 2, SMALL, np.random.default_rng(77))
    again.load(saved)
    again.rng.bit_generator.state = state
    again.update(rows(2))
    for name, tensor in fast.tensors().items():
        assert torch.equal(tensor, again.tensors()[name]), name


def test_a_checkpoint_from_before_the_first_update_starts_adam_anew():
    fresh = {name: tensor.clone() for name, tensor in SAC(3, 2, SMALL, np.random.default_rng(5)).tensors().items()}
    fast = FastSAC(3, 2, SMALL, np.random.default_rng(0))
    fast.update(rows(0))
    fast.load(fresh)
    other = FastSAC(3, 2, SMALL, np.random.default_rng(5))
    fast.rng = np.random.default_rng(6)
    other.rng = np.random.default_rng(6)
    assert fast.update(rows(1)) == other.update(rows(1))
    assert all(torch.equal(tensor, other.tensors()[name]) for name, tensor in fast.tensors().items())


def test_tensors_of_another_size_are_refused():
    saved = FastSAC(3, 2, SMALL, np.random.default_rng(0)).tensors()
    with pytest.raises(SpecMismatch, match="other sizes"):
        FastSAC(4, 2, SMALL, np.random.default_rng(0)).load(saved)


@pytest.mark.parametrize("broken", [np.float32(1e30), np.float32(np.nan)])
def test_a_loss_that_is_not_finite_takes_no_step(broken):
    fast = FastSAC(3, 2, SMALL, np.random.default_rng(0))
    before = {name: tensor.clone() for name, tensor in fast.tensors().items()}
    with pytest.raises(Diverged, match="the step was not taken"):
        fast.update(rows(1, reward=np.full(64, broken)))
    assert all(torch.equal(before[name], tensor) for name, tensor in fast.tensors().items())
    assert fast.updates == 0


def test_far_out_actions_stay_finite():
    """tanh rounds to one there; an atanh or a log(1 - a^2) would be infinite."""
    fast = FastSAC(3, 2, SMALL, np.random.default_rng(0))
    with torch.no_grad():
        fast.actor.mean.bias.fill_(60.0)
    assert max(gradient_errors(fast, rows(1)).values()) < 1e-4


def test_the_modules_are_the_flat_vectors():
    """What acts and what is published is what the update moved."""
    fast = FastSAC(3, 2, SMALL, np.random.default_rng(0))
    states = np.ones((4, 3), np.float32)
    before, weights = fast.act(states), fast.actor.mean.weight.clone()
    for seed in range(5):
        fast.update(rows(seed))
    assert not np.array_equal(before, fast.act(states))
    assert not torch.equal(weights, fast.actor.mean.weight)


def test_the_fastest_libraries_are_found(monkeypatch):
    """A timer that charges by the libraries that were called between two looks."""
    price = {"forward": {"mkl": 1, "openblas": 3}, "back": {"mkl": 3, "openblas": 1}, "outer": {"mkl": 1, "openblas": 3}}
    spent = [0.0]
    for kind, table in (("forward", products.FORWARD), ("back", products.BACK), ("outer", products.OUTER)):
        for name, product in list(table.items()):
            cost = price[kind].get(name, 9)

            def charged(*tensors, product=product, cost=cost):
                spent[0] += cost
                return product(*tensors)

            monkeypatch.setitem(table, name, charged)
    assert fastest_products(lambda: spent[0], 3, 2, SMALL, rounds=2) == Products("mkl", "openblas", "mkl")
