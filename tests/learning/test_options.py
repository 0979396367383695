"""The composed update is SAC's own without options, and each option does what its paper says."""

import dataclasses

import numpy as np
import pytest
import torch

from agents.core.errors import ConfigError, Diverged
from agents.learning.bootstraps import Joint
from agents.learning.composed import ComposedSAC
from agents.learning.losses import Batch
from agents.learning.options import Options
from agents.learning.replay import Rows
from agents.learning.sac import SAC, SACConfig

SMALL = SACConfig(policy_hiddens=(16, 16), q_hiddens=(16, 16), batch_size=32)
VARIANTS = [
    {"layer_norm": True},
    {"droq_dropout": 0.1},
    {"crossq": True},
    {"quantiles": 7},
    {"quantiles": 8, "cvar": 0.25},
    {"mixed_precision": True},
    {"max_gradient_norm": 0.5},
]


def rows(seed: int, count: int = 32, elapsed: float = 1.0) -> Rows:
    rng = np.random.default_rng(seed)
    make = lambda *shape: rng.standard_normal(shape, np.float32)  # noqa: E731
    done = (rng.random(count) < 0.2).astype(np.float32)
    return Rows(make(count, 3), np.tanh(make(count, 2)), make(count), make(count, 3), done, np.full(count, elapsed, np.float32))


def composed(seed: int = 0, config: SACConfig = SMALL, micro_batch: int | None = None, **options: object) -> ComposedSAC:
    return ComposedSAC(3, 2, config, np.random.default_rng(seed), Options(**options), micro_batch=micro_batch)


def same_as(plain: SAC) -> ComposedSAC:
    """A composed agent with the networks of a plain one, before the first update."""
    made = composed(config=plain.config)
    made.actor.load_state_dict(plain.actor.state_dict())
    for one in (made.critic, made.bootstrap.target):
        for own, other in zip(one.parameters(), plain.critic.parameters(), strict=True):
            own.data.copy_(other)
    return made


@pytest.mark.parametrize("elapsed", [1.0, 2.5])
def test_without_options_it_is_sac_number_for_number(elapsed):
    plain = SAC(3, 2, dataclasses.replace(SMALL, weight_decay=1e-3), np.random.default_rng(0))
    made = same_as(plain)
    for seed in range(3):
        plain.rng, made.rng = np.random.default_rng(seed), np.random.default_rng(seed)
        plain.rng.integers(2**63)  # the composed update draws a seed for dropout first
        expected, info = plain.update(rows(seed, elapsed=elapsed)), made.update(rows(seed, elapsed=elapsed))
        assert info == pytest.approx({name: expected[name] for name in info}, rel=2e-4, abs=1e-6)
    for own, other in zip(made.actor.parameters(), plain.actor.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", VARIANTS)
def test_every_option_learns_a_bandit(options):
    """Reward -(a - s/2)^2: the mean action must come near s/2."""
    config = SACConfig(learning_rate=1e-2, alpha=0.05, policy_hiddens=(16, 16), q_hiddens=(16, 16))
    sac = ComposedSAC(1, 1, config, np.random.default_rng(0), Options(**options))
    rng = np.random.default_rng(1)
    for _ in range(150):
        state = rng.uniform(-1, 1, (64, 1)).astype(np.float32)
        action = rng.uniform(-1, 1, (64, 1)).astype(np.float32)
        ones = np.ones(64, np.float32)
        info = sac.update(Rows(state, action, -10 * (action[:, 0] - state[:, 0] / 2) ** 2, state, ones, ones))
    assert all(np.isfinite(value) for value in info.values())
    states = np.linspace(-0.9, 0.9, 19, dtype=np.float32)[:, None]
    assert np.abs(sac.act(states)[:, 0] - states[:, 0] / 2).mean() < 0.15


@pytest.mark.parametrize("options", VARIANTS)
def test_learning_goes_on_from_saved_tensors_as_if_never_interrupted(options):
    sac = composed(4, **options)
    sac.update(rows(1))
    saved, state = {name: tensor.clone() for name, tensor in sac.tensors().items()}, sac.rng.bit_generator.state
    sac.update(rows(2))
    again = composed(77, **options)
    again.load(saved)
    again.rng.bit_generator.state = state
    again.update(rows(2))
    for name, tensor in sac.tensors().items():
        assert torch.equal(tensor, again.tensors()[name]), name


def test_without_targets_the_critic_judges_both_moments_and_learns_from_one():
    critic = composed(crossq=True).critic.eval()
    batch = Batch(*(torch.from_numpy(np.ascontiguousarray(column)) for column in rows(1)))
    action = torch.zeros_like(batch.action)
    now, following = Joint().values(critic, batch, action)
    torch.testing.assert_close(now, critic(batch.state, batch.action))
    torch.testing.assert_close(following, critic(batch.next_state, action))
    assert now.requires_grad and not following.requires_grad


def test_dropout_leaves_the_global_random_stream_alone():
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    composed(droq_dropout=0.1).update(rows(0))
    assert torch.equal(torch.randn(3), expected)


def test_accumulated_micro_batches_give_the_whole_batch_its_step():
    whole, parts = composed(), composed(micro_batch=8)
    for made in (whole, parts):
        made.rng = np.random.default_rng(3)
        made.actor.log_std.weight.data.zero_()
        made.actor.log_std.bias.data.fill_(-20)  # no noise, so that its order does not matter
    one, two = whole.update(rows(1)), parts.update(rows(1))
    assert two["critic_gradient"] == pytest.approx(one["critic_gradient"], rel=1e-4)
    assert two["actor_gradient"] == pytest.approx(one["actor_gradient"], rel=1e-4)
    for own, other in zip(whole.critic.parameters(), parts.critic.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)


def test_clipped_gradients_are_no_longer_than_asked_for():
    sac = composed(max_gradient_norm=0.01)
    assert sac.update(rows(1))["critic_gradient"] > 0.01
    norms = [torch.stack([p.grad.norm() for p in part.parameters()]).norm() for part in (sac.critic, sac.actor)]
    assert norms == pytest.approx([0.01, 0.01], rel=1e-4)


def test_row_weights_scale_the_critic_loss_and_errors_come_back_by_row():
    one, two = composed(), composed()
    info, errors = one.update_weighted(rows(1), np.ones(32, np.float32))
    other, again = two.update_weighted(rows(1), np.full(32, 0.5, np.float32))
    assert other["critic_loss"] == pytest.approx(info["critic_loss"] / 2, rel=1e-5)
    np.testing.assert_allclose(errors, again, rtol=1e-5)
    assert errors.shape == (32,)
    assert errors.mean() == pytest.approx(info["td_error"], rel=1e-5)


def test_entropy_may_count_by_decision_where_rows_span_several():
    """With all rewards and values at zero the target is the entropy bonus alone, so it shows what the bonus was scaled by."""
    def loss(by_decision: bool) -> float:
        sac = ComposedSAC(3, 2, SMALL, np.random.default_rng(0), Options(), entropy_per_decision=by_decision)
        for part in (sac.critic, sac.bootstrap.target):
            part.output.weight.data.zero_()
            part.output.bias.data.zero_()
        batch = rows(1, elapsed=3.0)
        return sac.update(batch._replace(reward=np.zeros(32, np.float32)))["td_error"]

    assert loss(False) == pytest.approx(3 * loss(True), rel=1e-4)


def test_what_is_not_finite_takes_no_step():
    sac = composed(layer_norm=True)
    before = {name: tensor.clone() for name, tensor in sac.tensors().items()}
    with pytest.raises(Diverged, match="the step was not taken"):
        sac.update(rows(1)._replace(reward=np.full(32, 1e30, np.float32)))
    assert all(torch.equal(before[name], tensor) for name, tensor in sac.tensors().items())
    assert sac.updates == 0


@pytest.mark.parametrize(("wrong", "words"), [
    ({"droq_dropout": 1.0}, "droq_dropout"),
    ({"quantiles": 1}, "quantiles"),
    ({"quantiles": 2}, "quantiles_dropped"),
    ({"quantiles": 8, "cvar": 0.0}, "cvar"),
    ({"cvar": 0.5}, "cvar needs quantiles"),
    ({"crossq": True, "layer_norm": True}, "crossq"),
    ({"max_gradient_norm": 0.0}, "max_gradient_norm"),
    ({"updates_per_step": 0}, "updates_per_step"),
    ({"priority_exponent": 2.0}, "priority_exponent"),
])  # fmt: skip
def test_options_that_make_no_sense_are_named(wrong, words):
    with pytest.raises(ConfigError, match=words):
        Options(**wrong)


def test_a_gpu_that_is_not_there_is_said():
    if torch.cuda.is_available():
        pytest.skip("a GPU is there")
    with pytest.raises(ConfigError, match="num_gpus"):
        ComposedSAC(3, 2, SMALL, np.random.default_rng(0), Options(), device="cuda")
