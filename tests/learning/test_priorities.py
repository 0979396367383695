"""The sum-tree draws in proportion, and the prioritised ring keeps to what was learned."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.errors import DataError
from agents.learning.priorities import PrioritizedReplay, SumTree


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40).filter(any), st.floats(0, 1, exclude_max=True))
def test_a_point_falls_into_the_stretch_of_its_leaf(weights, point):
    tree = SumTree(len(weights))
    tree.set(np.arange(len(weights)), np.array(weights, float))
    assert tree.total == sum(weights)
    leaf = int(tree.draw(np.array([point * tree.total]))[0])
    ends = np.cumsum(weights)
    assert leaf == int(np.searchsorted(ends, point * tree.total, side="right"))


@given(st.lists(st.tuples(st.integers(0, 12), st.floats(0, 100)), min_size=1, max_size=50))
def test_changes_keep_the_total(changes):
    tree, expected = SumTree(13), np.zeros(13)
    for index, weight in changes:
        tree.set(np.array([index]), weight)
        expected[index] = weight
    assert tree.total == pytest.approx(expected.sum())
    np.testing.assert_array_equal(tree[np.arange(13)], expected)


def ring(count: int, capacity: int = 8, **options: float) -> PrioritizedReplay:
    made = PrioritizedReplay(1, 1, capacity, **options)
    for at in range(count):
        made.add(np.array([at]), np.array([0.0]), float(at), np.array([at + 1]), False)
    return made


def test_rows_are_drawn_as_they_surprised_and_weights_make_up_for_it():
    made = ring(4, exponent=1.0, correction=1.0)
    made.learned(np.arange(4), np.array([1.0, 1.0, 2.0, 4.0], np.float32))
    rows, weights, slots = made.sample_weighted(8000, np.random.default_rng(0))
    shares = np.bincount(slots, minlength=4) / 8000
    np.testing.assert_allclose(shares, [1 / 8, 1 / 8, 1 / 4, 1 / 2], atol=0.01)
    np.testing.assert_array_equal(rows.reward, slots)
    assert weights.max() == 1
    np.testing.assert_allclose(weights[slots == 3][0] / weights[slots == 0][0], 1 / 4, rtol=1e-4)


def test_no_exponent_is_plain_replay():
    made = ring(4, exponent=0.0)
    made.learned(np.arange(4), np.array([0.0, 1.0, 2.0, 100.0], np.float32))
    _, weights, slots = made.sample_weighted(4000, np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(slots) / 4000, 0.25, atol=0.01)
    np.testing.assert_allclose(weights, 1)


def test_a_new_row_counts_as_the_greatest_surprise_also_where_it_overwrites():
    made = ring(8, exponent=1.0)
    made.learned(np.arange(8), np.full(8, 0.01, np.float32))
    made.learned(np.array([3]), np.array([5.0], np.float32))
    made.add(np.array([50.0]), np.array([0.0]), 50.0, np.array([51.0]), False)
    rows, _, _ = made.sample_weighted(1000, np.random.default_rng(0))
    assert 0.4 < (rows.reward == 50).mean() < 0.6
    assert 0.4 < (rows.reward == 3).mean() < 0.6
    assert not (rows.reward == 0).any()


def test_an_empty_ring_cannot_be_sampled():
    with pytest.raises(DataError, match="empty"):
        ring(0).sample_weighted(1, np.random.default_rng(0))


def test_rows_of_a_file_count_as_new_after_opening(tmp_path):
    for _ in range(2):
        made = PrioritizedReplay(1, 1, 8, tmp_path / "ring")
        made.add(np.zeros((3, 1)), np.zeros((3, 1)), np.arange(3.0), np.zeros((3, 1)), np.zeros(3))
        made.close()
    made = PrioritizedReplay(1, 1, 8, tmp_path / "ring")
    _, _, slots = made.sample_weighted(600, np.random.default_rng(0))
    np.testing.assert_allclose(np.bincount(slots, minlength=8)[:6] / 600, 1 / 6, atol=0.02)
    made.close()
