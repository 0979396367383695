"""Facts on their way outward: bounded, so that nobody who listens can make the trading loop wait. What does not fit is lost, oldest first."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import orjson


@dataclass(frozen=True)
class Fact:
    """One thing to tell. `number` rises within a session; the body is built when the first listener wants it, off the decision path."""

    kind: str
    at: int
    """Stamp in nanoseconds."""
    number: int
    build: Callable[[], Mapping[str, Any]] = field(repr=False, compare=False)

    @cached_property
    def body(self) -> Mapping[str, Any]:
        """Plain JSON values; of a fact that cannot be told, why not."""
        try:
            return self.build()
        except Exception as error:  # noqa: BLE001 - a mistake in telling one fact must not keep the others back
            return {"untold": f"{type(error).__name__}: {error}"}

    @cached_property
    def text(self) -> str:
        """The fact as one JSON object, made once however many listen."""
        return encode({"kind": self.kind, "at": self.at, "number": self.number, **self.body}).decode()


def encode(value: Any) -> bytes:
    """Any value as JSON: what is not finite is null, what JSON lacks is text, and what cannot be told at all says why."""
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    except orjson.JSONEncodeError as error:  # half a character of an exchange's answer, a number without end
        return orjson.dumps({"untold": str(error)})


class Outbox:
    """The last `limit` facts that one outlet has not delivered yet, in order."""

    def __init__(self, limit: int = 4096) -> None:
        self._limit = limit
        self._facts: deque[Fact] = deque()
        self._first = 0
        """How many facts have left the front, delivered or lost."""
        self._news = asyncio.Event()
        self.lost = self.delivered = 0

    def __len__(self) -> int:
        return len(self._facts)

    def put(self, fact: Fact) -> None:
        """Returns at once. The oldest fact gives way where there is no room, even one that is being delivered: it may arrive."""
        if len(self._facts) >= self._limit:
            self._facts.popleft()
            self._first += 1
            self.lost += 1
        self._facts.append(fact)
        self._news.set()

    async def batch(self, most: int, within_s: float) -> "Batch":
        """Up to `most` of the oldest facts, as soon as there are any; none after `within_s`. They stay until `done`."""
        if not self._facts:
            self._news.clear()
            try:
                async with asyncio.timeout(within_s):
                    await self._news.wait()
            except TimeoutError:
                return Batch((), self._first)
        facts = tuple(self._facts[at] for at in range(min(most, len(self._facts))))
        return Batch(facts, self._first + len(facts))

    def done(self, batch: "Batch") -> None:
        """The batch has arrived."""
        while self._first < batch.end and self._facts:
            self._facts.popleft()
            self._first += 1
        self.delivered += len(batch.facts)


class Recent:
    """The last facts of each kind, for whoever asks later."""

    def __init__(self, keep: int = 1000) -> None:
        self._keep = keep
        self._facts: dict[str, deque[Fact]] = {}

    def put(self, fact: Fact) -> None:
        """Returns at once."""
        self._facts.setdefault(fact.kind, deque(maxlen=self._keep)).append(fact)

    def last(self, kind: str, most: int) -> list[Fact]:
        """Up to `most` of the newest, oldest first."""
        kept = self._facts.get(kind, ())
        return list(kept)[-most:]


@dataclass(frozen=True, slots=True)
class Batch:
    """What is to be delivered next, and where in the sequence of all facts it ends."""

    facts: Sequence[Fact]
    end: int
