"""Columns of any size look alike to a network, and folding gives the same network for raw states."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from agents.learning.guards import policy
from agents.learning.replay import Rows
from agents.learning.scales import ColumnScale, NoScale
from agents.models.actors import GaussianActor

SIZES = np.array([1e-5, 1.0, 379.0, 0.0, 1e-9], np.float32)
MEANS = np.array([2e-4, 0.0, 2700.0, 7.0, 1e-3], np.float32)


def states(count: int, seed: int = 0) -> np.ndarray:
    return (MEANS + SIZES * np.random.default_rng(seed).standard_normal((count, 5))).astype(np.float32)


def test_small_and_large_columns_become_alike_and_constant_ones_keep_their_unit():
    scale, seen = ColumnScale(5), states(5000)
    scale.extend(seen)
    found = scale.states(seen)
    np.testing.assert_allclose(found.std(0)[:3], 1.0, rtol=0.01)
    np.testing.assert_allclose(found.mean(0)[:3], 0.0, atol=0.01)
    assert scale.unit[3:].tolist() == [1.0, 1.0]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=8))
def test_batches_of_any_size_give_the_moments_of_all(counts):
    seen, scale, at = states(sum(counts), 3), ColumnScale(5), 0
    for count in counts:
        scale.extend(seen[at : at + count])
        at += count
    whole = ColumnScale(5)
    whole.extend(seen)
    assert scale.count == whole.count == at
    np.testing.assert_allclose(scale.mean, whole.mean, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(scale.unit, whole.unit, rtol=1e-4)


def test_nothing_that_was_seen_lies_far_out_however_rare():
    scale, seen = ColumnScale(1), np.zeros((10_000, 1), np.float32)
    seen[-1] = 1.0
    scale.extend(seen)
    assert float(np.abs(scale.states(seen)).max()) < 10.001


def test_the_folded_network_does_to_raw_states_what_the_inner_does_to_scaled_ones():
    torch.manual_seed(0)
    actor, scale = GaussianActor(5, 2, (16, 16)), ColumnScale(5)
    torch.nn.init.normal_(actor.mean.weight)
    scale.extend(states(1000))
    raw = states(50, 9)
    own = {name.removeprefix("layers."): tensor for name, tensor in actor.state_dict().items()}
    with torch.no_grad():
        inner = actor(torch.from_numpy(scale.states(raw)))
    for ours, theirs in zip(policy(scale.fold(own), torch.from_numpy(raw)), inner, strict=True):
        np.testing.assert_allclose(ours.detach(), theirs, atol=2e-4)


def test_its_memory_goes_through_a_checkpoint():
    scale, again = ColumnScale(5), ColumnScale(5)
    scale.extend(states(100))
    again.load(scale.tensors())
    scale.extend(states(50, 1))
    again.extend(states(50, 1))
    assert again.count == 150
    assert again.mean.tobytes() == scale.mean.tobytes()
    assert again.unit.tobytes() == scale.unit.tobytes()


def test_no_scale_changes_nothing():
    scale, raw = NoScale(5), states(3)
    scale.extend(raw)
    ones = np.ones(3, np.float32)
    rows = Rows(raw, raw[:, :2], ones, raw, ones, ones)
    assert scale.count == 3
    assert scale.rows(rows).state is raw
    weights = {"0.weight": torch.ones(2, 5), "0.bias": torch.ones(2)}
    assert scale.fold(weights) is weights
