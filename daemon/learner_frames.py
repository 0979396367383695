"""How the session and its learner process talk: frames over a pipe, a JSON header and raw arrays; nothing unpickles.

A frame is two little-endian uint32 (length of header, length of body), the header (a JSON object with `kind`) and the body.
Both lengths are bounded, so that neither side can be made to take memory without end.
"""

import asyncio
import json
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import DataError
from agents.market.observation import Experience

MAX_HEADER = 1 << 16
MAX_BODY = 64 << 20
ROWS_PER_FRAME = 128
_LENGTHS = struct.Struct("<II")

Columns = tuple[NDArray[Any], ...]


class Frame(NamedTuple):
    """`kind` is configure or experiences (to the learner), status, weights or fault (from it)."""

    kind: str
    header: dict[str, Any]
    body: bytes


def pack(kind: str, header: dict[str, Any] | None = None, body: bytes = b"") -> bytes:
    """The bytes of one frame. Raises DataError when it is over the bounds."""
    head = json.dumps({**(header or {}), "kind": kind}).encode()
    if len(head) > MAX_HEADER or len(body) > MAX_BODY:
        raise DataError(f"a {kind} frame of {len(head)} + {len(body)} bytes is over the bounds")
    return _LENGTHS.pack(len(head), len(body)) + head + body


async def read(stream: asyncio.StreamReader) -> Frame | None:
    """The next frame, or None when the stream has ended between two. Raises DataError on anything that is not a frame."""
    try:
        lengths = await stream.readexactly(_LENGTHS.size)
    except asyncio.IncompleteReadError as cut:
        if cut.partial:
            raise DataError("the stream ended within a frame") from None
        return None
    head, body = _LENGTHS.unpack(lengths)
    if head > MAX_HEADER or body > MAX_BODY:
        raise DataError(f"a frame claims {head} + {body} bytes, which is over the bounds")
    try:
        header = json.loads(await stream.readexactly(head))
        payload = await stream.readexactly(body)
        return Frame(header.pop("kind"), header, payload)
    except asyncio.IncompleteReadError:
        raise DataError("the stream ended within a frame") from None
    except (ValueError, KeyError, AttributeError, TypeError):
        raise DataError("a frame's header is not a JSON object with a kind") from None


def pack_experiences(experiences: Sequence[Experience]) -> bytes:
    """Frames of at most ROWS_PER_FRAME rows, one agent each; an agent's rows keep their order."""
    by_agent: dict[str, list[Experience]] = {}
    for experience in experiences:
        by_agent.setdefault(experience.agent, []).append(experience)
    return b"".join(
        _pack_rows(agent, rows[start : start + ROWS_PER_FRAME])
        for agent, rows in by_agent.items()
        for start in range(0, len(rows), ROWS_PER_FRAME)
    )


def _pack_rows(agent: str, rows: Sequence[Experience]) -> bytes:
    marks = np.array([(row.time, row.version) for row in rows], np.int64)
    scalars = np.array([(row.reward, row.done, row.elapsed, row.quarantined) for row in rows], np.float32)
    state, action, following = (
        np.asarray([getattr(row, name) for row in rows], np.float32) for name in ("state", "action", "next_state")
    )
    header = {"agent": agent, "rows": len(rows), "state": state.shape[1], "action": action.shape[1]}
    return pack("experiences", header, b"".join(part.tobytes() for part in (marks, state, action, following, scalars)))


def unpack_experiences(frame: Frame) -> tuple[str, Columns]:
    """The agent, and the columns in the order of `ReplayBuffer.add`. Raises DataError when sizes disagree."""
    try:
        agent, rows, state, action = (frame.header[name] for name in ("agent", "rows", "state", "action"))
        shapes = [(rows, 2), (rows, state), (rows, action), (rows, state), (rows, 4)]
        sizes = [one * two * (8 if at == 0 else 4) for at, (one, two) in enumerate(shapes)]
        whole = all(type(number) is int and number > 0 for number in (rows, state, action))
        if not whole or sum(sizes) != len(frame.body):
            raise DataError(f"an experiences frame of {len(frame.body)} bytes claims {sum(sizes)}")
    except (KeyError, TypeError, ValueError):
        raise DataError("an experiences frame lacks its sizes") from None
    parts, offset = [], 0
    for at, (shape, size) in enumerate(zip(shapes, sizes, strict=True)):
        kind = np.int64 if at == 0 else np.float32
        parts.append(np.frombuffer(frame.body, kind, shape[0] * shape[1], offset).reshape(shape))
        offset += size
    marks, states, actions, following, scalars = parts
    return str(agent), (states, actions, scalars[:, 0], following, scalars[:, 1], scalars[:, 2], marks[:, 0], marks[:, 1], scalars[:, 3])
