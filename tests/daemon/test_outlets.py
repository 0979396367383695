"""Mirrors outward against a real Redis and a real Mosquitto that are killed, frozen and restarted, and ask for passwords."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from redis import Redis

from daemon.mirror import Mirror
from daemon.publish.mqtt import MqttMirror, MqttOptions, Words, discovery
from daemon.publish.outbox import Fact, Outbox
from daemon.publish.outlet import Outlet
from daemon.publish.redis import RedisMirror, RedisOptions
from tests.servers import Server, mosquitto, redis_server

MS = 1_000_000


def fact(number: int, kind: str = "fills") -> Fact:
    return Fact(kind, number * MS, number, lambda: {"number": number, "symbol": "BTC/USDT"})


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Server]:
    server = redis_server(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Server]:
    server = mosquitto(tmp_path)
    server.start()
    yield server
    server.kill()


@asynccontextmanager
async def running(outlet: Outlet) -> AsyncIterator[None]:
    task = asyncio.create_task(outlet.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(true: Callable[[], Any], seconds: float = 15.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.01)


def mirror(port: int, session: str = "a", **more: Any) -> tuple[Outbox, Outlet]:
    outbox = Outbox()
    service = RedisMirror(RedisOptions(f"redis://127.0.0.1:{port}", "main", session, timeout_s=0.5, **more), lambda: {"ready": True, "equity": 10.0})
    return outbox, Outlet(service, outbox, heartbeat_s=0.05, patience_s=1.0)


def numbers(port: int, stream: str = "fills") -> list[int]:
    entries: Any = Redis(port=port).xrange(f"quartet:main:{stream}")
    return [orjson.loads(entry[b"data"])["number"] for _, entry in entries]


# -- the outbox -------------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from(["put", "take", "done"]), max_size=60), st.integers(1, 5), st.integers(1, 7))
def test_an_outbox_loses_the_oldest_only_and_counts_every_fact_once(steps: list[str], most: int, limit: int) -> None:
    async def play() -> None:
        outbox, put, arrived, taken = Outbox(limit), 0, list[int](), None
        for step in steps:
            if step == "put":
                put += 1
                outbox.put(fact(put))
            elif step == "take":
                taken = await outbox.batch(most, 0.0)
            elif taken is not None:
                outbox.done(taken)
                arrived += [f.number for f in taken.facts]
                taken = None
        rest = (await outbox.batch(limit, 0.0)).facts
        assert len(outbox) <= limit
        assert [f.number for f in rest] == list(range(put - len(outbox) + 1, put + 1))
        assert arrived == sorted(set(arrived)), "in order, and none twice"
        assert outbox.delivered == len(arrived)
        assert put <= outbox.delivered + outbox.lost + len(outbox)

    asyncio.run(play())


# -- Redis ------------------------------------------------------------------------------------------------------------


async def test_facts_lie_in_their_streams_in_order_and_the_latest_in_a_hash(redis: Server) -> None:
    outbox, outlet = mirror(redis.port)
    async with running(outlet):
        for number in range(1, 301):
            outbox.put(fact(number))
        outbox.put(fact(301, "orders"))
        await until(lambda: outbox.delivered == 301)
        client = Redis(port=redis.port, decode_responses=True)
        await until(lambda: client.hget("quartet:main:latest:status", "equity") == "10.0")
    assert numbers(redis.port) == list(range(1, 301))
    assert numbers(redis.port, "orders") == [301]
    assert client.hgetall("quartet:main:latest:fills") == {"number": "300", "symbol": "BTC/USDT"}


async def test_a_stream_keeps_to_its_length(redis: Server) -> None:
    outbox, outlet = mirror(redis.port, stream_length=100)
    async with running(outlet):
        for number in range(1, 1001):
            outbox.put(fact(number))
        await until(lambda: outbox.delivered == 1000)
    assert 100 <= len(numbers(redis.port)) <= 300  # Redis trims whole nodes of a hundred entries


async def test_nothing_is_lost_or_written_twice_when_redis_dies_and_comes_back(redis: Server, capfd: pytest.CaptureFixture[str]) -> None:
    outbox, outlet = mirror(redis.port)
    async with running(outlet):
        outbox.put(fact(1))
        await until(lambda: outbox.delivered == 1)
        redis.kill()
        for number in range(2, 50):
            outbox.put(fact(number))
        await until(lambda: outlet.failures >= 2)
        assert not outlet.status["up"]
        redis.start()
        await until(lambda: outbox.delivered == 49)
    assert numbers(redis.port) == list(range(1, 50))
    said = capfd.readouterr().out
    assert said.count("outlet_down") == 1
    assert said.count("outlet_recovered") == 1


async def test_a_batch_whose_answer_was_lost_is_written_once(redis: Server) -> None:
    outbox, outlet = mirror(redis.port)
    async with running(outlet):
        outbox.put(fact(1))
        await until(lambda: outbox.delivered == 1)
        redis.signal(signal.SIGSTOP)
        outbox.put(fact(2))
        await until(lambda: outlet.failures >= 1)  # sent, no answer within patience: Redis executes it when it wakes up
        redis.signal(signal.SIGCONT)
        outbox.put(fact(3))
        await until(lambda: outbox.delivered == 3)
    assert numbers(redis.port) == [1, 2, 3]


async def test_a_session_whose_clock_is_behind_still_writes_after_the_earlier_one(redis: Server) -> None:
    outbox, outlet = mirror(redis.port)
    async with running(outlet):
        outbox.put(fact(1000))
        await until(lambda: outbox.delivered == 1)
    later, second = mirror(redis.port, "b")
    async with running(second):
        later.put(fact(5))
        later.put(fact(6))
        await until(lambda: later.delivered == 2)
    assert numbers(redis.port) == [1000, 5, 6]


async def test_a_wrong_password_is_said_once_and_the_outbox_stays_bounded(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    server = redis_server(tmp_path, "--requirepass", "right")
    server.start()
    try:
        outbox = Outbox(10)
        service = RedisMirror(RedisOptions(f"redis://127.0.0.1:{server.port}", "main", "a", password="wrong"), dict)
        outlet = Outlet(service, outbox, heartbeat_s=0.05)
        async with running(outlet):
            for number in range(1, 31):
                outbox.put(fact(number))
            await until(lambda: outlet.failures >= 2)
        assert (len(outbox), outbox.lost) == (10, 20)
        assert capfd.readouterr().out.count("outlet_down") == 1
        assert "Auth" in str(outlet.status["error"])
    finally:
        server.kill()


async def test_a_full_redis_is_a_failure_that_passes(redis: Server) -> None:
    client = Redis(port=redis.port)
    outbox, outlet = mirror(redis.port)
    client.config_set("maxmemory", "1")
    async with running(outlet):
        outbox.put(fact(1))
        await until(lambda: outlet.failures >= 1)
        client.config_set("maxmemory", "0")
        await until(lambda: outbox.delivered == 1)
    assert numbers(redis.port) == [1]


# -- MQTT -------------------------------------------------------------------------------------------------------------


class Desk:
    """What words reach: it counts them."""

    def __init__(self) -> None:
        self.halts: list[str] = []

    def halt(self, request: Any) -> dict[str, Any]:
        self.halts.append(str(request.get("reason")))
        return {"accepted": "halt"}


def station(port: int, desk: Desk, **more: Any) -> tuple[Outbox, Outlet]:
    options = MqttOptions("127.0.0.1", port, "quartet", "main", "a", **{"commands": True, "timeout_s": 2.0, **more})
    words = Words({"halt": desk.halt, "status": lambda _: {"ready": True}}, options.token)
    outbox = Outbox()
    return outbox, Outlet(MqttMirror(options, words, lambda: {"ready": True, "equity": 1.0}), outbox, heartbeat_s=0.05, patience_s=2.0)


async def say(client: aiomqtt.Client, word: str, body: Any, retain: bool = False, correlation: bytes = b"7") -> dict[str, Any]:
    """Say a word and wait for its answer."""
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.ResponseTopic, properties.CorrelationData = "answers/here", correlation
    payload = body if isinstance(body, bytes) else orjson.dumps(body)
    await client.publish(f"quartet/main/command/{word}", payload, qos=1, retain=retain, properties=properties)
    async with asyncio.timeout(10):
        async for message in client.messages:
            if message.topic.value == "answers/here":
                assert message.properties is not None
                assert message.properties.CorrelationData == correlation
                answer: dict[str, Any] = orjson.loads(bytes(message.payload))  # type: ignore[arg-type]
                return answer
    raise AssertionError


@asynccontextmanager
async def listener(port: int, *topics: str, **more: Any) -> AsyncIterator[aiomqtt.Client]:
    async with aiomqtt.Client("127.0.0.1", port, protocol=aiomqtt.ProtocolVersion.V5, **more) as client:
        for topic in topics:
            await client.subscribe(topic, qos=1)
        yield client


async def test_facts_arrive_by_topic_and_in_order(broker: Server) -> None:
    outbox, outlet = station(broker.port, Desk())
    async with listener(broker.port, "quartet/main/fill") as client, running(outlet):
        for number in range(1, 101):
            outbox.put(fact(number))
        got: list[int] = []
        async with asyncio.timeout(15):
            async for message in client.messages:
                got.append(orjson.loads(bytes(message.payload))["number"])  # type: ignore[arg-type]
                if len(got) == 100:
                    break
    assert got == list(range(1, 101))


async def test_the_state_is_retained_and_a_dead_session_leaves_its_will(broker: Server) -> None:
    async def state() -> str:
        async with listener(broker.port, "quartet/main/status") as client, asyncio.timeout(10):
            async for message in client.messages:
                return str(orjson.loads(bytes(message.payload))["state"])  # type: ignore[arg-type]
        raise AssertionError

    outbox, outlet = station(broker.port, Desk())
    async with running(outlet):
        outbox.put(fact(1))
        await until(lambda: outbox.delivered == 1)
        assert await state() == "online"
    assert await state() == "stopped"
    script = (
        "import asyncio, aiomqtt, os, sys\n"
        "from daemon.publish.mqtt import MqttMirror, MqttOptions, Words\n"
        "from daemon.publish.outbox import Outbox\n"
        "async def main():\n"
        "    async def pump(deliver):\n"
        "        print('up', flush=True)\n"
        "        await asyncio.sleep(60)\n"
        f"    await MqttMirror(MqttOptions('127.0.0.1', {broker.port}, 'quartet', 'main', 'a'), Words({{}}, None), dict).session(pump)\n"
        "asyncio.run(main())\n"
    )
    victim = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=subprocess.PIPE)
    assert victim.stdout is not None
    assert await victim.stdout.readline() == b"up\n"
    victim.kill()
    await victim.wait()
    async with asyncio.timeout(10):
        while await state() != "offline":
            await asyncio.sleep(0.05)


async def test_a_word_is_carried_out_once_for_each_id(broker: Server) -> None:
    desk = Desk()
    outbox, outlet = station(broker.port, desk)
    async with listener(broker.port, "answers/here") as client, running(outlet):
        outbox.put(fact(1))
        await until(lambda: outbox.delivered == 1)
        assert await say(client, "halt", {"id": "1", "reason": "storm"}) == {"id": "1", "ok": True, "accepted": "halt"}
        assert (await say(client, "halt", {"id": "1", "reason": "storm"}))["repeated"] is True
        assert (await say(client, "status", {"id": "2"}))["ready"] is True
    assert desk.halts == ["storm"]


@pytest.mark.parametrize(
    ("word", "body", "sentence"),
    [
        ("halt", b"{", "not JSON"), ("halt", b"[]", '"id"'), ("halt", {"reason": "x"}, '"id"'), ("halt", {"id": ""}, '"id"'),
        ("sell-everything", {"id": "1"}, "no word"), ("halt", {"id": "1"}, "token"), ("halt", {"id": "1", "token": "nope"}, "token"),
    ],
)  # fmt: skip
async def test_a_bad_word_is_refused_in_a_sentence_and_does_nothing(broker: Server, word: str, body: Any, sentence: str) -> None:
    desk = Desk()
    outbox, outlet = station(broker.port, desk, token="secret" if sentence == "token" else None)
    async with listener(broker.port, "answers/here") as client, running(outlet):
        outbox.put(fact(1))
        await until(lambda: outbox.delivered == 1)
        answer = await say(client, word, body)
    assert answer["ok"] is False
    assert sentence in answer["error"]
    assert desk.halts == []


async def test_a_retained_word_and_a_huge_one_do_nothing(broker: Server) -> None:
    desk = Desk()
    async with listener(broker.port, "quartet/main/reply") as client:
        await client.publish("quartet/main/command/halt", orjson.dumps({"id": "9"}), qos=1, retain=True)
        outbox, outlet = station(broker.port, desk)
        async with running(outlet):
            async with asyncio.timeout(10):
                async for message in client.messages:
                    assert "retained" in orjson.loads(bytes(message.payload))["error"]  # type: ignore[arg-type]
                    break
            await client.publish("quartet/main/command/halt", b"x" * 10_000_000, qos=1)
            outbox.put(fact(1))
            await until(lambda: outbox.delivered == 1)
            assert outlet.failures == 0
    assert desk.halts == []


async def test_who_may_not_connect_is_not_heard_and_a_wrong_password_is_said_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    passwords = tmp_path / "passwords"
    passwords.touch(mode=0o600)
    subprocess.run(["mosquitto_passwd", "-b", str(passwords), "desk", "right"], check=True, capture_output=True)
    server = mosquitto(tmp_path, "allow_anonymous false", f"password_file {passwords}", "user root")
    server.start()
    try:
        desk = Desk()
        outbox, wrong = station(server.port, desk, username="desk", password="wrong")
        async with running(wrong):
            outbox.put(fact(1))
            await until(lambda: wrong.failures >= 2)
        assert capfd.readouterr().out.count("outlet_down") == 1
        outbox, outlet = station(server.port, desk, username="desk", password="right")
        async with running(outlet):
            outbox.put(fact(1))
            await until(lambda: outbox.delivered == 1)
            with pytest.raises(aiomqtt.MqttError):
                async with listener(server.port):
                    pytest.fail("the broker took an anonymous client")
        assert desk.halts == []
    finally:
        server.kill()


async def test_lines_of_the_log_and_messages_have_topics_and_home_assistant_finds_the_sensors(broker: Server) -> None:
    outbox, outlet = station(broker.port, Desk(), home_assistant="homeassistant")
    mirror = Mirror([outbox])
    got: dict[str, Any] = {}
    async with listener(broker.port, "quartet/main/log", "quartet/main/notify", "homeassistant/#") as client, running(outlet):
        mirror.say("log", 1, {"event": "outlet_down", "level": "warning"})
        mirror.say("notify", 2, {"title": "Quartet main", "text": "halted", "level": "warning"})
        async with asyncio.timeout(15):
            async for message in client.messages:
                got[message.topic.value] = orjson.loads(bytes(message.payload))  # type: ignore[arg-type]
                if len(got) == 7:
                    break
    assert (got["quartet/main/log"]["event"], got["quartet/main/notify"]["text"]) == ("outlet_down", "halted")
    sensor = got["homeassistant/sensor/quartet_main/equity/config"]
    assert (sensor["state_topic"], sensor["unique_id"]) == ("quartet/main/hb", "quartet_quartet_main_equity")
    assert sensor["availability"][0]["topic"] == "quartet/main/status"


async def test_a_flood_of_words_floods_no_log_and_the_next_word_is_heard(broker: Server, caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk()
    outbox, outlet = station(broker.port, desk)
    async with listener(broker.port, "answers/here") as client, running(outlet):
        outbox.put(fact(1))
        await until(lambda: outbox.delivered == 1)
        for _ in range(2000):
            await client.publish("quartet/main/command/status", b"{}", qos=0)
        async with asyncio.timeout(30):
            while not desk.halts:  # a word that met a full queue has no answer: it is said again, under the same id
                await client.publish("quartet/main/command/halt", orjson.dumps({"id": "after", "reason": "flood"}), qos=1)
                await asyncio.sleep(0.2)
    assert desk.halts == ["flood"]
    assert len([record for record in caplog.records if "queue is full" in record.message]) == 0


def test_without_a_prefix_nothing_is_announced() -> None:
    assert discovery(MqttOptions("127.0.0.1", 1883, "quartet", "main", "a")) == []


async def test_facts_that_waited_for_a_dead_broker_arrive_when_it_is_back(broker: Server) -> None:
    outbox, outlet = station(broker.port, Desk())
    async with running(outlet):
        outbox.put(fact(1))
        await until(lambda: outbox.delivered == 1)
        broker.kill()
        await until(lambda: not outlet.status["up"])
        outbox.put(fact(2))
        broker.start()
        await until(lambda: outbox.delivered == 2)
    assert outlet.status["lost"] == 0
