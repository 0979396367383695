"""Critics of composed parts: shapes, and what each dressing does to the values."""

import numpy as np
import pytest
import torch

from agents.models.dressed import DressedCritic
from agents.models.dressings import CROSSQ, LAYER_NORM, PLAIN, Dressing, EnsembleBatchRenorm, EnsembleLayerNorm, droq


@pytest.mark.parametrize("dressing", [PLAIN, LAYER_NORM, CROSSQ, droq(0.5)])
def test_members_are_independent_and_have_as_many_outputs_as_asked_for(dressing):
    critic = DressedCritic(3, 2, (8, 8), members=3, outputs=5, dressing=dressing)
    values = critic(torch.randn(7, 3), torch.randn(7, 2))
    assert values.shape == (3, 7, 5)
    gradient = torch.autograd.grad(values[1].sum(), critic.output.weight)[0]
    assert gradient[1].any() and not gradient[0].any() and not gradient[2].any()


def test_layer_norm_bounds_how_far_values_run():
    torch.manual_seed(0)
    near, far = torch.randn(5, 3), torch.randn(5, 3)
    for dressing, bounded in ((PLAIN, False), (LAYER_NORM, True)):
        critic = DressedCritic(3, 2, (32, 32), dressing=dressing)
        grown = critic(1e5 * far, torch.zeros(5, 2)).abs().max() / critic(near, torch.zeros(5, 2)).abs().max()
        assert (grown < 10) == bounded


def test_layer_norm_is_torchs():
    own, other = EnsembleLayerNorm(2, 6), torch.nn.LayerNorm(6)
    values = torch.randn(2, 4, 6)
    torch.testing.assert_close(own(values), other(values))


def test_batch_renorm_starts_as_batch_norm_and_ends_on_the_running_moments():
    norm = EnsembleBatchRenorm(1, 1, momentum=0.1, settling=100)
    batch = 3 + 2 * torch.randn(1, 256, 1)
    first = norm(batch)
    assert first.mean().abs() < 1e-5 and first.std(correction=0).item() == pytest.approx(1, abs=1e-3)
    for _ in range(300):
        norm(batch)
    assert norm.mean.item() == pytest.approx(batch.mean().item(), rel=1e-3)
    shifted = norm(batch + 2)  # within the limits, so what counts is the running mean, not the batch's own
    assert shifted.mean().item() == pytest.approx(2 / batch.std(correction=0).item(), rel=0.12)
    norm.eval()
    torch.testing.assert_close(norm(batch[:, :1]), (batch[:, :1] - norm.mean) / (norm.variance + 1e-3).sqrt())


def test_dropout_is_for_learning_only():
    critic = DressedCritic(3, 2, (64,), dressing=droq(0.5))
    states, actions = torch.randn(4, 3), torch.randn(4, 2)
    assert not torch.equal(critic(states, actions), critic(states, actions))
    critic.eval()
    assert torch.equal(critic(states, actions), critic(states, actions))


def test_dressings_stand_where_they_say():
    seen = []

    def mark(name):
        class Mark(torch.nn.Module):
            def forward(self, values):
                seen.append((name, values.shape[-1], bool((values < 0).any())))
                return values

        return lambda members, width: Mark()

    DressedCritic(3, 2, (64,), dressing=Dressing(mark("inlet"), mark("inner"), mark("outer")))(torch.randn(9, 3), torch.randn(9, 2))
    assert seen == [("inlet", 5, True), ("inner", 64, True), ("outer", 64, False)]


def test_an_encoder_stands_in_front_of_the_state_only():
    encoder = torch.nn.Linear(10, 3)
    critic = DressedCritic(3, 2, (8,), encoder=encoder)
    states, actions = torch.randn(4, 10), torch.randn(4, 2)
    torch.testing.assert_close(critic(states, actions), critic.judge(encoder(states), actions))
    assert np.array_equal([id(p) for p in critic.encoder.parameters()], [id(p) for p in encoder.parameters()])
