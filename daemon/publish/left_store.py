"""What a standby needs to go on, in Redis: one value, stamped with its session's number, that no older session can overwrite."""

from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from agents.core.errors import Unreachable
from daemon.publish.lease_store import heed_cancellation

_WRITE = """
if tonumber(redis.call('HGET', KEYS[1], 'epoch') or '0') > tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'body', ARGV[2])
return 1
"""


class RedisLeft:
    """Raises Unreachable where Redis does not answer."""

    def __init__(self, client: Redis, instance: str) -> None:
        self._client, self._key = client, f"quartet:{instance}:left"

    async def write(self, epoch: int, body: bytes) -> bool:
        """Keep it; False where a later session has written already."""
        try:
            kept = bool(await self._client.eval(_WRITE, 1, self._key, str(epoch), body))
        except (RedisError, OSError) as error:
            heed_cancellation()
            raise Unreachable(f"redis: {error}") from error
        heed_cancellation()
        return kept

    async def read(self) -> tuple[int, bytes] | None:
        """(epoch, what was kept); None where there is nothing."""
        try:
            epoch, body = await cast(Any, self._client.hmget(self._key, ["epoch", "body"]))
        except (RedisError, OSError) as error:
            heed_cancellation()
            raise Unreachable(f"redis: {error}") from error
        heed_cancellation()
        return None if epoch is None or body is None else (int(epoch), bytes(body))

    async def close(self) -> None:
        """Hang up."""
        await self._client.aclose()
