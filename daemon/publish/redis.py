"""What happens, mirrored into Redis: a stream for each kind of fact, a hash with the latest of each. Redis is told and never asked to decide.

Every entry carries an id made of its stamp and its number, and a stream takes only ids above its last. So a batch that is sent again,
because nobody knows whether it arrived, is written once.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from daemon.publish.outbox import Fact, encode
from daemon.publish.outlet import Pump

STREAMS = ("decisions", "orders", "fills", "risk", "equity", "learner")
MS = 1_000_000
_OLD = "equal or smaller than the target stream top item"
"""How Redis refuses an id that it has passed already."""


@dataclass(frozen=True, slots=True)
class RedisOptions:
    """Where and as whom. `url` is redis:// or, with TLS, rediss://; user and password are those of an ACL user."""

    url: str
    instance: str
    session: str
    username: str | None = None
    password: str | None = None
    ca_file: str | None = None
    stream_length: int = 10_000
    """Entries kept of each stream, roughly: Redis trims whole nodes."""
    timeout_s: float = 5.0

    def key(self, name: str) -> str:
        """The full name of one of our keys."""
        return f"quartet:{self.instance}:{name}"


def connect(options: RedisOptions) -> Redis:
    """A client that dials when it is used first. Raises ValueError for a URL that is none."""
    tls: dict[str, Any] = {"ssl_ca_certs": options.ca_file} if options.ca_file and options.url.startswith("rediss:") else {}
    return Redis.from_url(
        options.url, username=options.username, password=options.password, socket_timeout=options.timeout_s,
        socket_connect_timeout=options.timeout_s, client_name=f"quartet-{options.instance}", **tls,
    )  # fmt: skip


class RedisMirror:
    """A service for an outlet. `snapshot` describes the whole session; it is written with every heartbeat."""

    name = "redis"
    failures: tuple[type[Exception], ...] = (RedisError,)

    def __init__(self, options: RedisOptions, snapshot: Callable[[], Mapping[str, Any]]) -> None:
        self._options, self._snapshot = options, snapshot
        self._floors: dict[str, int] = {}
        """By stream the least millisecond that may be used: what an earlier session wrote stays below."""

    async def session(self, pump: Pump) -> None:
        async with connect(self._options) as client:
            for stream in STREAMS:
                if stream not in self._floors:
                    self._floors[stream] = await self._after_last(client, stream)

            async def deliver(facts: Sequence[Fact]) -> None:
                await self._deliver(client, facts)

            await pump(deliver)

    async def _after_last(self, client: Redis, stream: str) -> int:
        last = await _wait(client.xrevrange(self._options.key(stream), count=1))
        return int(bytes(last[0][0]).split(b"-")[0]) + 1 if last else 0

    async def _deliver(self, client: Redis, facts: Sequence[Fact]) -> None:
        key, latest = self._options.key, dict[str, Fact]()
        async with client.pipeline(transaction=True) as pipe:
            for fact in facts:
                if fact.kind in STREAMS:
                    number = f"{max(fact.at // MS, self._floors[fact.kind])}-{fact.number}"
                    entry = {"session": self._options.session, "at": str(fact.at), "data": encode(fact.body)}
                    pipe.xadd(key(fact.kind), cast(Any, entry), id=number, maxlen=self._options.stream_length, approximate=True)
                    latest[fact.kind] = fact
            for kind, fact in latest.items():
                pipe.hset(key(f"latest:{kind}"), mapping=cast(Any, {name: _field(value) for name, value in fact.body.items()}))
            if not facts:
                pipe.hset(key("latest:status"), mapping=cast(Any, {name: _field(value) for name, value in self._snapshot().items()}))
            for answer in await _wait(pipe.execute(raise_on_error=False)):
                if isinstance(answer, Exception) and not (isinstance(answer, ResponseError) and _OLD in str(answer)):
                    raise answer


async def _wait(answer: Awaitable[Any] | Any) -> Any:
    """redis-py types its commands for both of its clients; ours is the asynchronous one."""
    return await answer


def _field(value: Any) -> bytes:
    """Text as it is, anything else as JSON."""
    return value.encode(errors="replace") if isinstance(value, str) else encode(value)
