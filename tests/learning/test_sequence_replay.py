"""Windows go in as flat rows and come out bit for bit, while each frame is kept once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents import SACAgent
from agents.core.errors import DataError, NotFinite, SpecMismatch
from agents.learning.n_step import NStep, Transition
from agents.learning.presets import preset
from agents.learning.sequence_replay import SequenceReplay

SHAPE = (4, 2, 3)


def episode(rng: np.random.Generator, length: int, few: bool) -> list[np.ndarray]:
    """Its windows; with `few` the frames repeat themselves, so that windows can be taken for one another."""
    make = (lambda: rng.integers(0, 2, SHAPE[1:]).astype(np.float32)) if few else (lambda: rng.standard_normal(SHAPE[1:], np.float32))
    frames = [make() for _ in range(SHAPE[0] + length)]
    return [np.stack(frames[at : at + SHAPE[0]]) for at in range(length + 1)]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 99), st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 6), st.booleans())
def test_what_is_sampled_is_what_was_added(seed, lengths, n, few):
    rng = np.random.default_rng(seed)
    ring, joiner, expected = SequenceReplay(SHAPE, 1, 1000), NStep(n, 0.9), {}
    for length in lengths:
        windows = episode(rng, length, few)
        for at in range(length):
            reward = float(10 * len(expected) + 1)
            one = Transition(windows[at].ravel(), np.zeros(1, np.float32), reward, windows[at + 1].ravel(), False)
            for row in joiner.push(one, ended=at == length - 1):
                expected[float(np.float32(row.reward))] = row
                ring.add(*row)
    assert len(ring) == sum(lengths)
    rows = ring.sample(200, rng)
    assert rows.state.shape == (200, 24)
    for state, reward, following, elapsed in zip(rows.state, rows.reward, rows.next_state, rows.elapsed, strict=True):
        row = expected[float(reward)]
        np.testing.assert_array_equal(state, row.state)
        np.testing.assert_array_equal(following, row.next_state)
        assert elapsed == row.elapsed


def test_each_frame_is_kept_once():
    ring, windows = SequenceReplay(SHAPE, 1, 1000), episode(np.random.default_rng(0), 50, few=False)
    for at in range(50):
        ring.add(windows[at], [0.0], 0.0, windows[at + 1], False)
    assert ring.frames.pushed == SHAPE[0] + 50


def test_what_is_not_sound_is_refused_whole():
    ring, good = SequenceReplay(SHAPE, 1, 10), np.zeros(24)
    bad = good.copy()
    bad[-1] = np.inf
    with pytest.raises(NotFinite, match="next_state"):
        ring.add(good, [0.0], 0.0, bad, False)
    with pytest.raises(SpecMismatch, match="state has 23 numbers"):
        ring.add(good[1:], [0.0], 0.0, good, False)
    assert ring.frames.pushed == 0
    with pytest.raises(DataError, match="empty"):
        ring.sample(1, np.random.default_rng(0))


def test_sequence_presets_keep_frames():
    agent = SACAgent(action_dim=3, **preset("cross_section"))
    assert isinstance(agent.buffer, SequenceReplay)
    assert (agent.buffer.shape, agent.buffer.capacity) == ((30, 100, 15), 100_000)
    rng = np.random.default_rng(0)
    frames = rng.standard_normal((33, 100, 15), np.float32)
    for at in range(3):
        agent.remember(frames[at : at + 30].ravel(), np.zeros(3), 1.0, frames[at + 1 : at + 31].ravel(), False)
    assert (agent.buffer.frames.pushed, len(agent.buffer)) == (33, 3)
