"""The lease in Redis: three scripts, each one step for the server, so that no two clients can meet between a look and a write."""

import asyncio
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from agents.core.errors import Unreachable

_ACQUIRE = """
local started = tonumber(string.match(redis.call('INFO', 'server'), 'uptime_in_seconds:(%d+)'))
if started < tonumber(ARGV[4]) then return 0 end
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local epoch = math.max(tonumber(redis.call('GET', KEYS[2]) or '0') + 1, tonumber(ARGV[2]))
redis.call('SET', KEYS[2], epoch)
redis.call('SET', KEYS[1], ARGV[1] .. ':' .. epoch, 'PX', ARGV[3])
return epoch
"""
_RENEW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] .. ':' .. ARGV[2] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] .. ':' .. ARGV[2] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class RedisLease:
    """A lease's store. Whole seconds of uptime are all that Redis tells, so the wait after its start is rounded up by one."""

    def __init__(self, client: Redis, instance: str) -> None:
        self._client = client
        self._keys = [f"quartet:{instance}:lease", f"quartet:{instance}:epoch"]

    async def acquire(self, holder: str, floor: int, length_s: float, wait_s: float) -> int:
        return int(await self._run(_ACQUIRE, holder, floor, _ms(length_s), int(wait_s) + 2))

    async def renew(self, holder: str, epoch: int, length_s: float) -> bool:
        return bool(await self._run(_RENEW, holder, epoch, _ms(length_s)))

    async def release(self, holder: str, epoch: int) -> None:
        await self._run(_RELEASE, holder, epoch)

    async def close(self) -> None:
        """Hang up."""
        await self._client.aclose()

    async def _run(self, script: str, *arguments: Any) -> Any:
        try:
            answer = await self._client.eval(script, len(self._keys), *self._keys, *(str(each) for each in arguments))
        except (RedisError, OSError) as error:
            heed_cancellation()
            raise Unreachable(f"redis: {error}") from error
        heed_cancellation()
        return answer


def heed_cancellation() -> None:
    """Raise CancelledError where the running task was cancelled and the client has kept that to itself."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
