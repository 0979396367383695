"""Frames come out as they went in, and nothing else comes out."""

import asyncio
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.errors import DataError
from agents.market.observation import Experience
from daemon import learner_frames as frames


def stream(data: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    return reader


async def all_frames(data: bytes) -> list[frames.Frame]:
    reader, found = stream(data), []
    while (frame := await frames.read(reader)) is not None:
        found.append(frame)
    return found


def experience(agent: str, at: int, state: int = 3, action: int = 2) -> Experience:
    wide = lambda width, value: np.full(width, value, np.float32)  # noqa: E731
    marks = {"time": 10**18 + at, "elapsed": 1.5, "version": at, "quarantined": at % 3 == 0}
    return Experience(wide(state, at), wide(action, -at), at / 2, wide(state, at + 1), at % 2 == 0, agent, None, **marks)


@given(st.lists(st.tuples(st.sampled_from(["status", "weights"]), st.dictionaries(st.text(max_size=5), st.integers()), st.binary(max_size=200))))
def test_frames_come_out_as_they_went_in(given_frames):
    data = b"".join(frames.pack(*one) for one in given_frames)
    found = asyncio.run(all_frames(data))
    assert found == [(kind, {k: v for k, v in header.items() if k != "kind"}, body) for kind, header, body in given_frames]


@given(st.lists(st.sampled_from(["risk", "long_term"]), max_size=300))
def test_rows_come_out_as_they_went_in(agents):
    sizes = {"risk": (3, 2), "long_term": (5, 4)}
    rows = [experience(agent, at, *sizes[agent]) for at, agent in enumerate(agents)]
    found = asyncio.run(all_frames(frames.pack_experiences(rows)))
    assert all(frame.header["rows"] <= frames.ROWS_PER_FRAME for frame in found)
    for agent in sizes:
        parts = [columns for name, columns in map(frames.unpack_experiences, found) if name == agent]
        mine = [row for row in rows if row.agent == agent]
        if mine:
            state, action, reward, following, done, elapsed, time, version, quarantined = (np.concatenate(column) for column in zip(*parts, strict=True))
            np.testing.assert_array_equal(state, [row.state for row in mine])
            np.testing.assert_array_equal(action, [row.action for row in mine])
            np.testing.assert_array_equal(following, [row.next_state for row in mine])
            assert reward.tolist() == [row.reward for row in mine]
            assert done.tolist() == [float(row.done) for row in mine]
            assert elapsed.tolist() == [row.elapsed for row in mine]
            assert time.tolist() == [row.time for row in mine]
            assert version.tolist() == [row.version for row in mine]
            assert quarantined.tolist() == [float(row.quarantined) for row in mine]


@pytest.mark.parametrize("data", [
    frames.pack("status")[:-1],
    frames.pack("status")[:3],
    frames.pack("weights", body=b"12345")[:-1],
    struct.pack("<II", 5, 0) + b"[1,2]",
    struct.pack("<II", 2, 0) + b"{}",
    struct.pack("<II", 4, 0) + b"\xff\xfe\x00\x00",
    struct.pack("<II", frames.MAX_HEADER + 1, 0),
    struct.pack("<II", 2, frames.MAX_BODY + 1),
    b"Traceback (most recent call last):\n",
])  # fmt: skip
async def test_what_is_not_a_frame_is_refused(data):
    with pytest.raises(DataError):
        await frames.read(stream(data))


async def test_an_end_between_frames_is_no_error():
    assert await frames.read(stream(b"")) is None


@pytest.mark.parametrize("header", [
    {},
    {"agent": "risk", "rows": 1, "state": 3},
    {"agent": "risk", "rows": 2, "state": 3, "action": 2},
    {"agent": "risk", "rows": "1", "state": 3, "action": 2},
    {"agent": "risk", "rows": -1, "state": 3, "action": 2},
    {"agent": "risk", "rows": 1.0, "state": 3, "action": 2},
])  # fmt: skip
def test_rows_whose_sizes_disagree_are_refused(header):
    body = asyncio.run(all_frames(frames.pack_experiences([experience("risk", 1)])))[0].body
    with pytest.raises(DataError):
        frames.unpack_experiences(frames.Frame("experiences", header, body))


def test_a_frame_over_the_bounds_is_not_even_made():
    with pytest.raises(DataError, match="bounds"):
        frames.pack("status", {"error": "x" * frames.MAX_HEADER})
