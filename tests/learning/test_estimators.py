"""Distributions of returns: what is pooled, what is learned, what the actor climbs."""

import pytest
import torch

from agents.learning.estimators import TruncatedQuantiles, TwinMinimum


def test_the_smaller_of_two_is_believed():
    outputs = torch.tensor([[[1.0], [5.0]], [[3.0], [2.0]]])
    assert TwinMinimum().pool(outputs).tolist() == [[1.0], [2.0]]
    loss, error = TwinMinimum().loss(outputs, torch.tensor([[2.0], [2.0]]))
    assert loss.tolist() == [1.0, 4.5]
    assert error.tolist() == [1.0, 1.5]


def test_the_largest_quantiles_of_all_critics_are_dropped():
    outputs = torch.tensor([[[9.0, 1.0, 5.0]], [[8.0, 2.0, 7.0]]])
    assert TruncatedQuantiles(3, 1).pool(outputs).tolist() == [[1.0, 2.0, 5.0, 7.0]]


def test_the_quantile_loss_is_smallest_at_the_quantiles():
    """Atoms moved by gradient descent end where the samples' quantiles are."""
    torch.manual_seed(0)
    samples = torch.randn(1, 512) * 10
    atoms = torch.zeros(1, 1, 5, requires_grad=True)
    step = torch.optim.Adam([atoms], lr=0.3)
    for _ in range(600):
        step.zero_grad()
        TruncatedQuantiles(5).loss(atoms, samples)[0].sum().backward()
        step.step()
    expected = torch.quantile(samples[0], torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9]))
    torch.testing.assert_close(atoms.detach()[0, 0], expected, rtol=0, atol=0.5)


def test_a_careful_actor_climbs_the_worst_tail():
    outputs = torch.tensor([[[4.0, 1.0, 3.0, 2.0]], [[40.0, 10.0, 30.0, 20.0]]])
    assert TruncatedQuantiles(4, 1).climb(outputs).tolist() == [pytest.approx(13.75)]
    assert TruncatedQuantiles(4, 1, tail=0.5).climb(outputs).tolist() == [pytest.approx((1 + 2 + 10 + 20) / 4)]
    assert TruncatedQuantiles(4, 1, tail=0.01).climb(outputs).tolist() == [pytest.approx(5.5)]
