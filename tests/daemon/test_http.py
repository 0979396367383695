"""The interface over HTTP: real sockets, real TLS, the published schema held against what is served."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import schemathesis
import trustme
from hypothesis import HealthCheck, settings
from schemathesis.checks import negative_data_rejection
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from agents.core.errors import ConfigError, DataError, TradingError
from daemon.publish.api import PREFIX, Desk, Door, application
from daemon.publish.http import Address, serve
from daemon.publish.outbox import Fact, Outbox, Recent
from tests.daemon.test_health_and_metrics import BOUNDS, STATUS

TOKEN = "a-token-of-some-length"
OPEN = Door()
BEARER = {"Authorization": f"Bearer {TOKEN}"}


class Session:
    """What the interface stands before: it counts words, and hands out what it is given."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []
        self.status: dict[str, Any] = dict(STATUS)
        self.recent = Recent()
        self.boxes: list[Outbox] = []

    def tell(self, fact: Fact) -> None:
        for listener in (self.recent, *self.boxes):
            listener.put(fact)

    @contextmanager
    def listen(self) -> Iterator[Outbox]:
        box = Outbox(100)
        self.boxes.append(box)
        try:
            yield box
        finally:
            self.boxes.remove(box)

    def explain(self, what: str) -> dict[str, Any]:
        if what != "1":
            raise DataError(f"there is no decision {what!r}")
        return {"decision": 1}

    def desk(self) -> Desk:
        def word(name: str) -> Any:
            def say(request: Any) -> dict[str, Any]:
                if request["reason"] == "refuse":
                    raise TradingError("not resumed: the disk is full")
                self.said.append((name, request["reason"]))
                return {"accepted": name}

            return say

        words = {name: word(name) for name in ("halt", "resume", "flatten", "cancel-all")}
        return Desk(
            lambda: self.status, words, self.recent.last, self.explain, lambda: {"mode": "x"}, lambda most: [{"event": "line"}][:most],
            self.listen, {"quartet": "0.1"},
        )  # fmt: skip


def fact(number: int) -> Fact:
    return Fact("fills", number, number, lambda: {"symbol": "BTC/USDT", "price": float("nan")})


@asynccontextmanager
async def served(session: Session, door: Door = OPEN, **address: Any) -> Any:
    async with serve(application(session.desk(), lambda: BOUNDS, door), Address("127.0.0.1", "auto", **address)) as port:
        yield port


async def test_what_may_be_read():
    session = Session()
    for number in range(1, 6):
        session.tell(fact(number))
    async with served(session) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        for name in ("ping", "version", "status", "balance", "positions", "orders", "risk", "profit", "learner", "models", "config", "logs"):
            answer = await client.get(f"{PREFIX}/{name}")
            assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json"), name
        fills = (await client.get(f"{PREFIX}/fills", params={"limit": 2})).json()
        assert [each["at"] for each in fills["recent"]] == [4, 5]
        assert fills["recent"][0]["price"] is None, "what is not finite is null"
        assert (await client.get(f"{PREFIX}/explain/1")).json() == {"decision": 1}
        missing = await client.get(f"{PREFIX}/explain/2")
        assert (missing.status_code, missing.json()["detail"]) == (404, "there is no decision '2'")
        metrics = await client.get("/metrics")
        assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert "quartet_equity 10001.5" in metrics.text
        assert (await client.get("/other")).status_code == 404


async def test_health_follows_progress_and_life_follows_decisions():
    session = Session()
    async with served(session) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}{PREFIX}") as client:
        assert (await client.get("/health")).status_code == 200
        session.status["data_age_s"] = 1000.0
        assert (await client.get("/health")).json()["problems"] == ["data_too_old"]
        assert (await client.get("/live")).status_code == 200
        session.status["decision_age_s"] = 1000.0
        assert (await client.get("/live")).status_code == 503


@pytest.mark.parametrize("word", ["halt", "resume", "flatten", "cancel-all"])
async def test_words_need_the_token(word):
    session = Session()
    async with served(session, Door(TOKEN)) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}{PREFIX}") as client:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {TOKEN}"}, {"Authorization": "Bearer"}):
            assert (await client.post(f"/{word}", json={}, headers=headers)).status_code == 401
            assert (await client.get("/status", headers=headers)).status_code == 401
        assert session.said == []
        done = await client.post(f"/{word}", json={"reason": "storm"}, headers=BEARER)
        assert (done.status_code, done.json()) == (200, {"accepted": word})
        refused = await client.post(f"/{word}", json={"reason": "refuse"}, headers=BEARER)
        assert (refused.status_code, refused.json()["detail"]) == (409, "not resumed: the disk is full")
    assert session.said == [(word, "storm")]


async def test_without_a_token_nobody_may_say_a_word():
    session = Session()
    async with served(session) as port, httpx.AsyncClient() as client:
        answer = await client.post(f"http://127.0.0.1:{port}{PREFIX}/halt", json={}, headers=BEARER)
    assert (answer.status_code, session.said) == (403, [])


async def test_a_page_of_another_host_reads_nothing_on_loopback():
    async with served(Session()) as port, httpx.AsyncClient() as client:
        answer = await client.get(f"http://127.0.0.1:{port}{PREFIX}/status", headers={"Host": "evil.example"})
        assert answer.status_code == 400
        with pytest.raises((ConnectionClosed, InvalidStatus)):
            async with connect(f"ws://127.0.0.1:{port}{PREFIX}/events", origin="https://evil.example") as stream:  # type: ignore[arg-type]
                await stream.recv()


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_huge_body_is_refused(chunked):
    session = Session()

    async def chunks():
        for _ in range(1024):
            yield b" " * 1024

    async with served(session, Door(TOKEN)) as port, httpx.AsyncClient() as client:
        body = chunks() if chunked else b" " * (1 << 20)
        try:
            answer = await client.post(f"http://127.0.0.1:{port}{PREFIX}/halt", content=body, headers=BEARER)  # type: ignore[arg-type]
            assert answer.status_code in (400, 413)
        except httpx.TransportError:
            assert chunked, "hung up on, where nothing was said of the length"
    assert session.said == []


async def test_a_stream_tells_what_happens_and_what_was_lost():
    session = Session()
    async with served(session, Door(TOKEN)) as port:
        async with connect(f"ws://127.0.0.1:{port}{PREFIX}/events", additional_headers=BEARER) as first, connect(f"ws://127.0.0.1:{port}{PREFIX}/events") as second:
            await second.send(orjson.dumps({"token": TOKEN}).decode())
            async with asyncio.timeout(5):
                while len(session.boxes) < 2:
                    await asyncio.sleep(0.01)
            session.tell(fact(7))
            for stream in (first, second):
                told = orjson.loads(await asyncio.wait_for(stream.recv(), 5))
                assert (told["kind"], told["number"], told["price"]) == ("fills", 7, None)
            for number in range(8, 308):
                session.tell(fact(number))
            lost = orjson.loads(await asyncio.wait_for(first.recv(), 5))
            assert lost == {"kind": "lost", "count": 200}
        async with asyncio.timeout(5):
            while session.boxes:
                await asyncio.sleep(0.01)


async def test_a_stream_without_the_token_is_closed():
    async with served(Session(), Door(TOKEN)) as port:
        for hello in ('{"token": "wrong"}', "[]", "{"):
            async with connect(f"ws://127.0.0.1:{port}{PREFIX}/events") as stream:
                await stream.send(hello)
                with pytest.raises(ConnectionClosed, match="token"):
                    await asyncio.wait_for(stream.recv(), 5)


async def test_https(tmp_path: Path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    session = Session()
    trusted = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    files = {"certificate": tmp_path / "cert.pem", "key": tmp_path / "key.pem"}
    async with served(session, Door(TOKEN), **files) as port, httpx.AsyncClient(verify=trusted) as client:
        assert (await client.get(f"https://127.0.0.1:{port}{PREFIX}/ping")).status_code == 200


async def test_a_certificate_that_cannot_be_used_is_said_so(tmp_path: Path):
    (tmp_path / "cert.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match=r"http\.tls_certificate .*mend"):
        async with served(Session(), certificate=tmp_path / "cert.pem", key=tmp_path / "cert.pem"):
            pytest.fail("served")


async def test_off_serves_nothing():
    async with serve(application(Session().desk(), lambda: BOUNDS), Address("127.0.0.1", "off")) as port:
        assert port is None


async def test_a_port_in_use_is_an_error_when_asked_for_and_none_otherwise(monkeypatch):
    app = application(Session().desk(), lambda: BOUNDS)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"http\.port: cannot listen on 127\.0\.0\.1:{number} .*free it, or set http\.port"):
            async with serve(app, Address("127.0.0.1", number)):
                pytest.fail("served")
        monkeypatch.setattr("daemon.publish.http.USUAL_PORT", number)
        async with serve(app, Address("127.0.0.1", "auto")) as port:
            assert port not in (None, number)


def test_the_published_schema_is_valid_and_names_every_route():
    paths = set(application(Session().desk(), lambda: BOUNDS, Door(TOKEN)).openapi()["paths"])
    named = "ping health live version status balance positions orders fills decisions explain/{what} risk profit learner models config logs"
    words = "halt resume flatten cancel-all"
    assert paths == {"/metrics", *(f"{PREFIX}/{name}" for name in (*named.split(), *words.split()))}


schema = schemathesis.openapi.from_asgi(f"{PREFIX}/openapi.json", application(Session().desk(), lambda: BOUNDS, Door(TOKEN)))


@schema.parametrize()
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_is_served_is_what_is_published(case):
    case.call_and_validate(headers=BEARER, excluded_checks=[negative_data_rejection])  # the token is always given, and unknown parameters are let be


async def test_readers_of_stories_fill_no_thread_that_the_session_needs():
    session, release, begun = Session(), threading.Event(), threading.Event()

    def slow(what: str) -> dict[str, Any]:
        begun.set()
        release.wait(20)
        return {"decision": what}

    session.explain = slow  # type: ignore[method-assign]
    async with served(session) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}{PREFIX}", timeout=30) as client:
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(client.get("/explain/1")) for _ in range(40)]
            while not begun.is_set():
                await asyncio.sleep(0.01)
            async with asyncio.timeout(5):
                assert await asyncio.to_thread(lambda: "there is room") == "there is room"
            release.set()
        assert {task.result().status_code for task in asked} == {200}
