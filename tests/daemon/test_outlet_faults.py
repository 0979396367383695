"""What a listener, a library or a fact of our own may do wrong without ending a session or keeping the other facts back."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from redis import Redis

from daemon.publish.mqtt import Words
from daemon.publish.outbox import Fact, Outbox, encode
from daemon.publish.outlet import Outlet, Pump
from tests.daemon.test_outlets import Desk, broker, fact, listener, mirror, redis, running, station, until  # noqa: F401 - fixtures
from tests.servers import Server

STRANGE = [ValueError("bad URL"), TypeError("no such option"), KeyError("x"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "no"), RuntimeError("closed"),
           AssertionError("never"), ExceptionGroup("two", [ValueError("a"), OSError("b")])]  # fmt: skip


class Faulty:
    """A service that raises once, then takes everything."""

    name = "faulty"
    failures: tuple[type[Exception], ...] = ()

    def __init__(self, error: Exception) -> None:
        self._errors, self.took = [error], 0

    async def session(self, pump: Pump) -> None:
        async def deliver(facts: Sequence[Fact]) -> None:
            if self._errors:
                raise self._errors.pop()
            self.took += len(facts)

        await pump(deliver)


@pytest.mark.parametrize("error", STRANGE, ids=lambda error: type(error).__name__)
async def test_whatever_a_library_raises_ends_nothing_and_is_said_once(error: Exception, capfd: pytest.CaptureFixture[str]) -> None:
    outbox, service = Outbox(), Faulty(error)
    outlet = Outlet(service, outbox, heartbeat_s=0.05)
    async with running(outlet):
        outbox.put(fact(1))
        await until(lambda: service.took == 1)
        await until(lambda: outlet.status["up"])
    assert outlet.failures >= 1
    said = capfd.readouterr().out
    assert (said.count("outlet_down"), said.count("outlet_recovered")) == (1, 1)


class Clinging(Faulty):
    """Hanging up fails too, while the session waits for it."""

    async def session(self, pump: Pump) -> None:
        try:
            await pump(self._take)
        finally:
            raise OSError("cannot say goodbye")

    async def _take(self, facts: Sequence[Fact]) -> None:
        self.took += len(facts)


async def test_a_session_that_ends_is_not_held_up_by_a_goodbye_that_fails() -> None:
    outbox, service = Outbox(), Clinging(OSError())
    task = asyncio.create_task(Outlet(service, outbox, heartbeat_s=0.05).run())
    outbox.put(fact(1))
    await until(lambda: service.took == 1)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=5)
    assert done, "still there"


class Forgetful(Faulty):
    """Its library takes a cancellation that meets an answer for the answer."""

    async def _take(self, facts: Sequence[Fact]) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60 if self.took else 0)
        self.took += 1

    async def session(self, pump: Pump) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(pump(self._take))


async def test_a_cancellation_that_a_library_forgets_is_remembered() -> None:
    outbox, service = Outbox(), Forgetful(OSError())
    task = asyncio.create_task(Outlet(service, outbox, heartbeat_s=0.01).run())
    await until(lambda: service.took == 1)
    await asyncio.sleep(0.05)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=5)
    assert done, "still there"


def broken() -> dict[str, Any]:
    raise ZeroDivisionError("a mistake of ours")


UNTELLABLE = [broken, lambda: {"reason": "half a \ud800 character"}, lambda: {"number": 2**70}]


async def test_a_fact_that_cannot_be_told_keeps_no_other_back(redis: Server) -> None:  # noqa: F811
    outbox, outlet = mirror(redis.port)
    async with running(outlet):
        for number, build in enumerate(UNTELLABLE, start=1):
            outbox.put(Fact("orders", number * 1_000_000, number, build))
        outbox.put(fact(9))
        await until(lambda: outbox.delivered == 4)
    assert outlet.failures == 0
    entries: Any = Redis(port=redis.port).xrange("quartet:main:orders")
    assert [list(orjson.loads(entry[b"data"])) for _, entry in entries] == [["untold"]] * 3
    assert "ZeroDivisionError" in fact_text(UNTELLABLE[0])


def fact_text(build: Any) -> str:
    return Fact("orders", 1, 1, build).text


async def test_the_same_over_mqtt(broker: Server) -> None:  # noqa: F811
    outbox, outlet = station(broker.port, Desk())
    async with listener(broker.port, "quartet/main/order") as client, running(outlet):
        for number, build in enumerate(UNTELLABLE, start=1):
            outbox.put(Fact("orders", number, number, build))
        async with asyncio.timeout(10):
            for _ in UNTELLABLE:
                async for message in client.messages:
                    assert b"untold" in bytes(message.payload)
                    break
    assert outlet.failures == 0


@pytest.mark.parametrize("value", [{1: 2}, {"a": {3, 4}}, float("inf"), object(), Path("x")])
def test_everything_else_has_some_text(value: Any) -> None:
    assert b"untold" not in encode(value)


@pytest.mark.parametrize("topic", ["quartet/other/command/halt", "quartet/main/fill", "quartet/main/command/halt", "answers/#", "$SYS/x", "answers/+/here"])
async def test_an_answer_is_no_word_no_fact_and_no_wildcard(broker: Server, topic: str) -> None:  # noqa: F811
    desk = Desk()
    outbox, outlet = station(broker.port, desk)
    async with listener(broker.port, "quartet/#", "answers/#") as client, running(outlet):
        outbox.put(fact(1))
        await until(lambda: outbox.delivered == 1)
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        properties.ResponseTopic = topic
        if not any(sign in topic for sign in "+#"):
            await client.publish("quartet/main/command/halt", orjson.dumps({"id": "1"}), qos=1, properties=properties)
            await until(lambda: desk.halts)
            properties.ResponseTopic = "answers/here"
            await client.publish("quartet/main/command/status", orjson.dumps({"id": "2"}), qos=1, properties=properties)
            async with asyncio.timeout(10):
                async for message in client.messages:
                    assert message.topic.value == "answers/here" or b'"ok"' not in bytes(message.payload)  # type: ignore[arg-type]
                    if message.topic.value == "answers/here":
                        break
        mirrored: Any = outlet._service
        assert not mirrored._may_answer(topic)
        assert mirrored._may_answer("answers/here")
        assert mirrored._may_answer("quartet/main/reply")
    assert outlet.failures == 0
    assert len(desk.halts) <= 1


def test_a_flood_of_wrong_tokens_is_said_once_each_time_and_does_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    desk = Desk()
    words = Words({"halt": desk.halt}, "right")
    for _ in range(2):
        for number in range(500):
            assert not words.carry_out("halt", orjson.dumps({"id": str(number), "token": "wrong"}), retained=False)["ok"]
        assert words.refused == 500
        assert words.carry_out("halt", orjson.dumps({"id": "1", "token": "right"}), retained=False)["ok"]
    assert capfd.readouterr().out.count("word_refused") == 2
    assert len(desk.halts) == 1
