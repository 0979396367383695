"""The policy's density is right, its start is the prior, and its far tails are finite."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents.models.actors import LOG_STD_MAX, LOG_STD_MIN, GaussianActor, squashed_log_prob


def test_an_untrained_actor_is_the_prior():
    actor = GaussianActor(5, 3, (16, 16))
    assert torch.count_nonzero(actor.act(torch.randn(7, 5))) == 0


def test_the_density_of_the_squashed_action_integrates_to_one():
    actions = torch.linspace(-1, 1, 200_001, dtype=torch.float64)[1:-1]
    raw = torch.atanh(actions)
    mean, log_std = 0.4, torch.tensor(-0.7, dtype=torch.float64)
    noise = (raw - mean) / log_std.exp()
    density = squashed_log_prob(raw[:, None], log_std.expand(len(raw), 1), noise[:, None]).exp()
    assert float(torch.trapezoid(density, actions)) == pytest.approx(1.0, abs=1e-4)


@given(st.floats(-4, 4), st.floats(-3, 1), st.floats(-2, 2))
def test_the_softplus_form_equals_the_textbook_form(mean, log_std, noise):
    tensors = [torch.tensor([[value]], dtype=torch.float64) for value in (mean, log_std, noise)]
    raw = tensors[0] + tensors[1].exp() * tensors[2]
    normal = torch.distributions.Normal(tensors[0], tensors[1].exp()).log_prob(raw)
    textbook = (normal - torch.log1p(-torch.tanh(raw) ** 2)).sum()
    if abs(float(raw)) < 8:
        assert float(squashed_log_prob(raw, tensors[1], tensors[2])) == pytest.approx(float(textbook), rel=1e-6, abs=1e-5)


def test_the_log_probability_stays_finite_where_tanh_rounds_to_one():
    raw = torch.tensor([[-60.0], [60.0]])
    assert torch.isfinite(squashed_log_prob(raw, torch.zeros(2, 1), torch.zeros(2, 1))).all()


def test_the_deviation_is_clamped():
    actor = GaussianActor(2, 2, (4,))
    with torch.no_grad():
        actor.log_std.bias.copy_(torch.tensor([100.0, -100.0]))
    log_std = actor(torch.zeros(1, 2))[1]
    np.testing.assert_allclose(log_std.detach().numpy(), [[LOG_STD_MAX, LOG_STD_MIN]], atol=1e-5)


def test_the_sample_is_the_mean_moved_by_the_noise():
    actor = GaussianActor(3, 2, (8,))
    state, noise = torch.randn(6, 3), torch.randn(6, 2)
    mean, log_std = actor(state)
    action, _ = actor.sample(state, noise)
    torch.testing.assert_close(action, torch.tanh(mean + log_std.exp() * noise))
