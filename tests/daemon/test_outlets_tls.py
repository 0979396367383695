"""Mirrors over TLS, as a user whom an ACL holds, against a real Redis and a real Mosquitto; certificates that have expired, are another's, or are nobody's."""

import asyncio
import datetime
import ssl
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
import trustme
from redis import Redis

from daemon.publish.lease_store import RedisLease
from daemon.publish.left_store import RedisLeft
from daemon.publish.mqtt import MqttMirror, MqttOptions, Words
from daemon.publish.outbox import Outbox
from daemon.publish.outlet import Outlet
from daemon.publish.redis import RedisMirror, RedisOptions, connect
from tests.daemon.test_outlets import Desk, fact, listener, running, until
from tests.servers import Server, free_port, mosquitto

PASSWORD = "a long password"
RIGHTS = ("~quartet:*", "+@read", "+@write", "+@transaction", "+@scripting", "+@connection", "+info")
"""What docs/operations.md tells an operator to give."""
ACL = "user desk\ntopic write quartet/main/#\ntopic read quartet/main/command/#\nuser guest\ntopic read quartet/main/fill\n"
PAST = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
ROOM = 10


@dataclass(frozen=True)
class Authority:
    """Who signs what the servers show; `shown` is read by a server when it starts."""

    folder: Path
    own: trustme.CA

    @property
    def trusted(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def shown(self) -> Path:
        return self.folder / "server.pem"

    def show(self, how: str) -> None:
        """Lay out a certificate that is `right`, `expired`, `untrusted` or of `another` host."""
        signer = trustme.CA() if how == "untrusted" else self.own
        leaf = signer.issue_cert("another.example" if how == "another" else "127.0.0.1", not_after=PAST if how == "expired" else None)
        leaf.private_key_and_cert_chain_pem.write_to_path(self.shown)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path, trustme.CA())
    made.own.cert_pem.write_to_path(made.trusted)
    made.show("right")
    return made


def tls_redis(authority: Authority, *rights: str) -> Server:
    """Redis that speaks TLS only, to the user `desk` only."""
    port, pem = free_port(), str(authority.shown)
    secure = ("--tls-port", str(port), "--tls-cert-file", pem, "--tls-key-file", pem, "--tls-auth-clients", "no")
    users = ("--user", "default", "off", "--user", "desk", "on", f">{PASSWORD}", *rights)
    return Server("redis-server", ("--port", "0", "--bind", "127.0.0.1", "--dir", str(authority.folder), "--save", "", *secure, *users), port)


def tls_mosquitto(authority: Authority) -> Server:
    """Mosquitto that speaks TLS only, to the users of its files only."""
    passwords, acl = authority.folder / "passwords", authority.folder / "acl"
    passwords.touch(mode=0o600)
    for user in ("desk", "guest"):
        subprocess.run(["mosquitto_passwd", "-b", str(passwords), user, PASSWORD], check=True, capture_output=True)
    acl.write_text(ACL, encoding="utf-8")
    acl.chmod(0o600)
    files = (f"certfile {authority.shown}", f"keyfile {authority.shown}", f"password_file {passwords}", f"acl_file {acl}")
    return mosquitto(authority.folder, "allow_anonymous false", *files, "user root")


def redis_options(authority: Authority, port: int) -> RedisOptions:
    return RedisOptions(f"rediss://127.0.0.1:{port}", "main", "a", "desk", PASSWORD, str(authority.trusted), timeout_s=2.0)


def to_redis(authority: Authority, port: int) -> Outlet:
    return Outlet(RedisMirror(redis_options(authority, port), lambda: {"ready": True}), Outbox(ROOM), heartbeat_s=0.05, patience_s=2.0)


def to_mqtt(authority: Authority, port: int, desk: Desk | None = None) -> Outlet:
    options = MqttOptions("127.0.0.1", port, "quartet", "main", "a", "desk", PASSWORD, True, authority.trusted, commands=True, timeout_s=2.0)
    words = Words({} if desk is None else {"halt": desk.halt}, None)
    return Outlet(MqttMirror(options, words, lambda: {"ready": True}), Outbox(ROOM), heartbeat_s=0.05, patience_s=2.0)


def told(authority: Authority, port: int) -> list[int]:
    """The numbers in the stream of fills, read over TLS."""
    with Redis("127.0.0.1", port, username="desk", password=PASSWORD, ssl=True, ssl_ca_certs=str(authority.trusted)) as client:
        entries: Any = client.xrange("quartet:main:fills")
    return [orjson.loads(entry[b"data"])["number"] for _, entry in entries]


async def test_redis_is_told_over_tls_by_a_user_with_the_rights_that_the_manual_names(authority: Authority) -> None:
    server = tls_redis(authority, *RIGHTS)
    server.start()
    try:
        outlet = to_redis(authority, server.port)
        async with running(outlet):
            for number in range(1, ROOM + 1):
                outlet.outbox.put(fact(number))
            await until(lambda: outlet.outbox.delivered == ROOM)
        assert outlet.failures == 0
        assert told(authority, server.port) == list(range(1, ROOM + 1))
    finally:
        server.kill()


async def test_the_same_rights_are_enough_for_the_lease_and_for_what_a_holder_leaves(authority: Authority) -> None:
    server = tls_redis(authority, *RIGHTS)
    server.start()
    try:
        async with connect(redis_options(authority, server.port)) as client:
            lease, left = RedisLease(client, "main"), RedisLeft(client, "main")
            async with asyncio.timeout(10):
                while not (epoch := await lease.acquire("desk", 7, 60.0, 0.0)):  # none from a Redis that has just begun
                    await asyncio.sleep(0.05)
            assert epoch == 7
            assert await lease.renew("desk", 7, 60.0)
            assert await left.write(7, b"a book")
            assert await left.read() == (7, b"a book")
            await lease.release("desk", 7)
            assert not await lease.renew("desk", 7, 60.0)
    finally:
        server.kill()


async def test_a_user_without_our_keys_is_refused_and_that_is_said_once(authority: Authority, capfd: pytest.CaptureFixture[str]) -> None:
    server = tls_redis(authority, "~others:*", "+@all")
    server.start()
    try:
        outlet = to_redis(authority, server.port)
        async with running(outlet):
            for number in range(1, 3 * ROOM + 1):
                outlet.outbox.put(fact(number))
            await until(lambda: outlet.failures >= 2)
        assert (len(outlet.outbox), outlet.outbox.lost, outlet.outbox.delivered) == (ROOM, 2 * ROOM, 0)
        assert "NoPermission" in str(outlet.status["error"])
        assert capfd.readouterr().out.count("outlet_down") == 1
    finally:
        server.kill()


async def test_mqtt_over_tls_hears_whom_the_broker_lets_speak(authority: Authority) -> None:
    server, desk = tls_mosquitto(authority), Desk()
    server.start()
    try:
        outlet = to_mqtt(authority, server.port, desk)
        context = ssl.create_default_context(cafile=str(authority.trusted))
        guest = {"username": "guest", "password": PASSWORD, "tls_context": context}
        async with listener(server.port, "quartet/main/fill", **guest) as client, running(outlet):
            await client.publish("quartet/main/command/halt", orjson.dumps({"id": "1", "reason": "a guest"}), qos=1)
            outlet.outbox.put(fact(1))
            async with asyncio.timeout(10):
                message = await anext(aiter(client.messages))
            assert orjson.loads(bytes(message.payload))["number"] == 1
            async with listener(server.port, **(guest | {"username": "desk"})) as operator:
                await operator.publish("quartet/main/command/halt", orjson.dumps({"id": "2", "reason": "the operator"}), qos=1)
                await until(lambda: desk.halts)
        assert desk.halts == ["the operator"]
        assert outlet.failures == 0
    finally:
        server.kill()


SENTENCES = {"expired": "certificate has expired", "untrusted": "unable to get local issuer certificate", "another": "127.0.0.1"}


@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")  # paho leaves a socket whose handshake failed to the garbage collector
@pytest.mark.parametrize("how", SENTENCES)
@pytest.mark.parametrize(
    ("serve", "connect"),
    [(lambda authority: tls_redis(authority, *RIGHTS), to_redis), (tls_mosquitto, to_mqtt)], ids=["redis", "mqtt"],
)  # fmt: skip
async def test_a_bad_certificate_is_said_once_and_the_right_one_is_enough(
    authority: Authority, capfd: pytest.CaptureFixture[str], how: str,
    serve: Callable[[Authority], Server], connect: Callable[[Authority, int], Outlet],
) -> None:  # fmt: skip
    authority.show(how)
    server = serve(authority)
    server.start()
    try:
        outlet = connect(authority, server.port)
        task = asyncio.create_task(outlet.run())
        for number in range(1, 3 * ROOM + 1):
            outlet.outbox.put(fact(number))
        await until(lambda: outlet.failures >= 2)
        assert SENTENCES[how] in str(outlet.status["error"])
        assert (len(outlet.outbox), outlet.outbox.lost, outlet.outbox.delivered) == (ROOM, 2 * ROOM, 0)
        server.kill()
        authority.show("right")
        server.start()
        await until(lambda: outlet.outbox.delivered == ROOM)
        assert outlet.status["up"] and not task.done(), "nothing came out of run"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        said = capfd.readouterr().out
        assert (said.count("outlet_down"), said.count("outlet_recovered"), said.count("Traceback")) == (1, 1, 0), said
    finally:
        server.kill()
