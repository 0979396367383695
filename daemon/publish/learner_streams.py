"""The two streams between a daemon and a learner elsewhere. Both are bounded; positions move on before a row is used, so none is used twice."""

from typing import Any

from redis.asyncio import Redis

from daemon.publish.redis import RedisOptions

MOST_FRAMES = 512
"""Frames of up to 128 rows that wait for the learner: some 60 MB."""
MOST_ANSWERS = 256
BEGINNING = b"0-0"
_MOVE_ON = """
if (redis.call('GET', KEYS[1]) or '0-0') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
return 1
"""
"""Moves the position on only from where it was read: one step for the server."""


class LearnerStreams:
    """Both sides' access. Raises RedisError for what Redis refuses or does not answer."""

    def __init__(self, client: Redis, options: RedisOptions) -> None:
        self._client = client
        key = options.key
        self._rows, self._said = key("learner:in"), key("learner:out")
        self._configured, self._taken, self._weights = key("learner:configure"), key("learner:taken"), key("learner:weights")

    # -- the daemon's side -----------------------------------------------------------------------------------------

    async def configure(self, frame: bytes) -> None:
        """What the learner is told; a new one has it begin anew."""
        await self._client.set(self._configured, frame)

    async def send(self, frame: bytes) -> None:
        """Rows; the oldest give way."""
        await self._client.xadd(self._rows, {"frame": frame}, maxlen=MOST_FRAMES, approximate=False)

    async def last_answer(self) -> bytes:
        """Where the far side's words stand now."""
        last: Any = await self._client.xrevrange(self._said, count=1)
        return bytes(last[0][0]) if last else BEGINNING

    async def newest_weights(self) -> bytes | None:
        """The frame of the last weights, if there were any."""
        return await self._get(self._weights)

    async def answers(self, after: bytes, wait_s: float) -> list[tuple[bytes, bytes]]:
        """(id, frame) of what the far side said since `after`; waits a moment for it."""
        return await self._read(self._said, after, wait_s, 64)

    # -- the learner's side ----------------------------------------------------------------------------------------

    async def configuration(self) -> bytes | None:
        """What we are told, if a daemon was there."""
        return await self._get(self._configured)

    async def rows(self, wait_s: float) -> list[bytes]:
        """Frames that nobody has taken; from here on they are taken, whatever becomes of us."""
        before = await self._get(self._taken) or BEGINNING
        found = await self._read(self._rows, before, wait_s, 16)
        if not found:
            return []
        moved: Any = self._client.eval(_MOVE_ON, 1, self._taken, before, found[-1][0])
        return [frame for _, frame in found] if await moved else []  # none where another learner has taken them meanwhile

    async def say(self, frame: bytes, weights: bool) -> None:
        """A frame to the daemon; weights are kept besides, for one that comes later."""
        if weights:
            await self._client.set(self._weights, frame)
        await self._client.xadd(self._said, {"frame": frame}, maxlen=MOST_ANSWERS, approximate=False)

    async def _get(self, key: str) -> bytes | None:
        found: Any = await self._client.get(key)
        return None if found is None else bytes(found)

    async def _read(self, stream: str, after: bytes, wait_s: float, most: int) -> list[tuple[bytes, bytes]]:
        found: Any = await self._client.xread({stream: after}, count=most, block=int(wait_s * 1000))
        return [(bytes(number), bytes(fields[b"frame"])) for _, entries in found or () for number, fields in entries]
