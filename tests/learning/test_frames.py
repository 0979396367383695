"""Windows over frames that are stored once are what copied windows would be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.errors import DataError, NotFinite, SpecMismatch
from agents.learning.frames import FrameReplay, Window


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(9, 30), st.lists(st.integers(1, 12), min_size=1, max_size=6))
def test_every_sampled_window_is_its_episodes_last_frames(steps, capacity, episodes):
    ring, frame, expected = FrameReplay((2,), 1, steps, capacity), 0, {}
    for length in episodes:
        lived, before = [], None
        for at in range(length):
            lived.append(np.full(2, frame, np.float32))
            window = ring.push(lived[-1], first=at == 0)
            padded = [lived[0]] * max(steps - len(lived), 0) + lived[-steps:]
            np.testing.assert_array_equal(ring.window(window), padded)
            if before is not None:
                ring.add(before[0], [0.5], frame, window, done=at == length - 1)
                expected[float(frame)] = (before[1], padded)
            before, frame = (window, padded), frame + 1
    if not len(ring):
        with pytest.raises(DataError, match="empty"):
            ring.sample(1, np.random.default_rng(0))
        return
    rows = ring.sample(50, np.random.default_rng(0))
    assert rows.state.shape == (50, steps, 2)
    for state, reward, following in zip(rows.state, rows.reward, rows.next_state, strict=True):
        np.testing.assert_array_equal(state, expected[float(reward)][0])
        np.testing.assert_array_equal(following, expected[float(reward)][1])


def chain(count: int, capacity: int = 20, **last: object) -> FrameReplay:
    ring = FrameReplay((1,), 1, 3, capacity)
    windows = [ring.push([at], first=at == 0) for at in range(count)]
    for at in range(count - 1):
        ring.add(windows[at], [0.0], at, windows[at + 1], False, **(last if at == count - 2 else {}))
    return ring


def test_transitions_whose_frames_are_overwritten_are_gone():
    ring = chain(50)
    drawn = ring.sample(3000, np.random.default_rng(0))
    assert set(drawn.reward.tolist()) == set(range(32, 49))
    assert len(ring) == 17
    with pytest.raises(DataError, match="not kept"):
        ring.window(Window(20))


def test_what_was_lived_under_a_fault_is_never_sampled():
    ring = chain(6, quarantined=True)
    assert set(ring.sample(500, np.random.default_rng(0)).reward.tolist()) == {0, 1, 2, 3}


def test_memory_is_that_of_the_frames():
    ring = FrameReplay((100, 15), 4, 30, 1000)
    assert ring._frames.nbytes == 1000 * 100 * 15 * 4


def test_bad_input_is_refused():
    ring = chain(5)
    with pytest.raises(SpecMismatch, match="shape"):
        ring.push([1.0, 2.0])
    with pytest.raises(NotFinite):
        ring.push([np.nan])
    with pytest.raises(NotFinite):
        ring.add(Window(0), [np.inf], 0.0, Window(1), False)
    with pytest.raises(SpecMismatch):
        ring.add(Window(0), [0.0, 0.0], 0.0, Window(1), False)
    with pytest.raises(DataError, match="no transition"):
        ring.add(Window(0), [0.0], 0.0, Window(9), False)
    with pytest.raises(DataError, match="frame ring"):
        FrameReplay((1,), 1, 5, 10)
