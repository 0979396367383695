"""The HTTP interface of a session: what it is and has done, the operator's words, and a stream of what happens. OpenAPI at /api/v1/openapi.json.

Everything is read off the session's own snapshot or record; nothing here decides. Reads are free on loopback where no token is set;
words always need one. Routes that read the session are coroutines although they wait for nothing: they must run where it runs.
"""

import asyncio
import hmac
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Response, Security, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field
from starlette.middleware.trustedhost import TrustedHostMiddleware

from agents.core.errors import DataError, TradingError
from daemon.publish.borders import Limit
from daemon.publish.health import Bounds, health
from daemon.publish.metrics import CONTENT_TYPE, Metrics
from daemon.publish.outbox import Fact, Outbox

PREFIX = "/api/v1"
HEARTBEAT_S = 15.0
"""A stream that has nothing to tell says so this often."""
HELLO_S = 5.0
"""How long a stream waits for a client to say who it is."""
LARGEST_BODY = 64 * 1024
MOST_ROWS = 1000
MOST_STREAMS = 256

Word = Callable[[Mapping[str, Any]], Mapping[str, Any]]
Rows = Annotated[int, Query(ge=1, le=MOST_ROWS, description="How many of the newest.")]


@dataclass(frozen=True, slots=True)
class Desk:
    """What the interface may ask of a session."""

    snapshot: Callable[[], Mapping[str, Any]]
    words: Mapping[str, Word]
    recent: Callable[[str, int], Sequence[Fact]]
    """The newest facts of a kind, oldest first."""
    explain: Callable[[str], Mapping[str, Any]]
    """Reads files; raises DataError for what is not there."""
    config: Callable[[], Mapping[str, Any]]
    logs: Callable[[int], Sequence[Mapping[str, Any]]]
    listen: Callable[[], AbstractContextManager[Outbox]]
    """An outbox that is filled while the context lasts."""
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Door:
    """Who may come in. Without a token reads are for everybody who reaches the port, and words for nobody."""

    token: str | None = None
    hosts: Sequence[str] = ("127.0.0.1", "localhost", "[::1]", "::1")
    """Names that a request may call us by: another name on loopback is a web page that plays tricks with DNS."""

    def knows(self, given: str | None) -> bool:
        """Whether this is the token."""
        return self.token is not None and given is not None and hmac.compare_digest(given.encode(), self.token.encode())


class Said(BaseModel):
    """What an operator says with a word."""

    model_config = ConfigDict(extra="forbid")
    reason: str = Field("operator", max_length=500, description="Why; kept in the journal.")


class Accepted(BaseModel):
    """The session's answer to a word."""

    model_config = ConfigDict(extra="allow")
    accepted: str


class Health(BaseModel):
    """Whether the session makes progress."""

    model_config = ConfigDict(extra="allow")
    healthy: bool
    problems: list[str]


class Problem(BaseModel):
    """Why not."""

    detail: str


_BEARER = HTTPBearer(auto_error=False)
_Given = Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]


def application(desk: Desk, bounds: Callable[[], Bounds], door: Door = Door()) -> FastAPI:
    """The interface of one session, as an ASGI application."""
    app = FastAPI(
        title="Quartet", version=desk.versions.get("quartet", "0"), docs_url=None, redoc_url=None, openapi_url=f"{PREFIX}/openapi.json",
        description="One trading session: what it is, what it did and why. Money is in the quote currency, quantities are decimal strings.",
    )  # fmt: skip

    def read(given: _Given) -> None:
        if door.token is not None and not door.knows(None if given is None else given.credentials):
            raise HTTPException(401, "this needs the token of http.token as a bearer token", {"WWW-Authenticate": "Bearer"})

    def command(given: _Given) -> None:
        if door.token is None:
            raise HTTPException(403, "words need a token: set QUARTET__HTTP__TOKEN, or use `quartet halt` on this machine")
        read(given)

    refused: dict[int | str, dict[str, Any]] = {401: {"model": Problem}, 403: {"model": Problem}}
    free, open_to, words = APIRouter(), APIRouter(dependencies=[Depends(read)], responses={401: refused[401]}), APIRouter(
        dependencies=[Depends(command)], responses={**refused, 400: {"model": Problem}, 409: {"model": Problem}, 413: {"model": Problem}}
    )
    _free(free, desk, bounds)
    _reads(open_to, desk)
    _words(words, desk)
    for router in (free, open_to, words):
        app.include_router(router, prefix=PREFIX)
    metrics = Metrics(desk.snapshot)

    @app.get("/metrics", dependencies=[Depends(read)], responses={401: refused[401]}, response_class=Response, tags=["metrics"])
    async def get_metrics() -> Response:
        """What Prometheus scrapes."""
        return Response(metrics.render(), media_type=CONTENT_TYPE)

    _stream(app, desk, door)
    app.add_middleware(Limit, largest=LARGEST_BODY)
    if door.token is None:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*door.hosts])
    return app


def _free(router: APIRouter, desk: Desk, bounds: Callable[[], Bounds]) -> None:
    """What a load balancer may ask without saying who it is."""

    @router.get("/ping")
    async def ping() -> dict[Literal["status"], Literal["pong"]]:
        """Whether the process answers."""
        return {"status": "pong"}

    @router.get("/health", responses={200: {"model": Health}, 503: {"model": Health}})
    async def get_health() -> JSONResponse:
        """Whether the session makes progress: fresh data, fresh decisions, a recent look at the account, a learner that lives."""
        well, body = health(desk.snapshot(), bounds())
        return _json(body, 200 if well else 503)

    @router.get("/live", responses={200: {"model": Health}, 503: {"model": Health}})
    async def live() -> JSONResponse:
        """Whether the process should be left alone: it decides, whether or not it may trade."""
        _, body = health(desk.snapshot(), bounds())
        stuck = [problem for problem in body["problems"] if problem.startswith("decision_too_old")]
        return _json({"healthy": not stuck, "problems": stuck}, 503 if stuck else 200)


def _reads(router: APIRouter, desk: Desk) -> None:
    def part(*names: str) -> JSONResponse:
        status = desk.snapshot()
        return _json({name: status.get(name) for name in names}, 200)

    reader = ThreadPoolExecutor(1, "explain")  # the loop's own threads sync the tape and look up names: they are not for readers to fill

    @router.get("/version")
    async def version() -> Mapping[str, str]:
        """What runs here."""
        return desk.versions

    @router.get("/status", responses=_OBJECT)
    async def status() -> JSONResponse:
        """All that the session says of itself."""
        return _json(desk.snapshot(), 200)

    @router.get("/balance", responses=_OBJECT)
    async def balance() -> JSONResponse:
        """Equity, cash, capital and fees."""
        return part("equity", "peak_equity", "cash", "capital", "fees")

    @router.get("/positions", responses=_OBJECT)
    async def positions() -> JSONResponse:
        """What is held, and the stops that protect it."""
        return part("positions", "stops")

    @router.get("/orders", responses=_OBJECT)
    async def orders(limit: Rows = 100) -> JSONResponse:
        """Live orders, and what happened to the last ones."""
        status = desk.snapshot()
        return _json({"open": status.get("open_orders"), "unknown": status.get("unknown_orders"), "recent": _told(desk, "orders", limit)}, 200)

    @router.get("/fills", responses=_OBJECT)
    async def fills(limit: Rows = 100) -> JSONResponse:
        """The last executions."""
        return _json({"total": desk.snapshot().get("fills"), "recent": _told(desk, "fills", limit)}, 200)

    @router.get("/decisions", responses=_OBJECT)
    async def decisions(limit: Rows = 20) -> JSONResponse:
        """The last decisions with their wishes, limits and orders."""
        return _json({"total": desk.snapshot().get("decisions"), "recent": _told(desk, "decisions", limit)}, 200)

    @router.get("/explain/{what}", responses={**_OBJECT, 404: {"model": Problem}, 504: {"model": Problem}})
    async def explain(what: str) -> JSONResponse:
        """The whole story of a decision (its number), or of an order (its id, ours or the exchange's)."""
        try:
            async with asyncio.timeout(10):
                return _json(await asyncio.get_running_loop().run_in_executor(reader, desk.explain, what), 200)
        except DataError as error:
            raise HTTPException(404, str(error)) from None
        except TimeoutError:
            raise HTTPException(504, "reading the record took longer than ten seconds; use `quartet explain`") from None

    @router.get("/risk", responses=_OBJECT)
    async def risk() -> JSONResponse:
        """The drawdown ladder, what bound the last target and what it cost, what was refused."""
        return part("rung", "drawdown", "peak_equity", "bound", "refused", "halted", "flattening", "reconciled", "stops")

    @router.get("/profit", responses=_OBJECT)
    async def profit() -> JSONResponse:
        """Profit of the account and of each agent."""
        return part("pnl", "equity", "capital", "drawdown")

    @router.get("/learner", responses=_OBJECT)
    async def learner() -> JSONResponse:
        """How learning goes."""
        return part("learner")

    @router.get("/models", responses=_OBJECT)
    async def models() -> JSONResponse:
        """Which weights decide."""
        learned = desk.snapshot().get("learner") or {}
        return _json({name: learned.get(name) for name in ("version", "published_version", "weights_swapped", "state")}, 200)

    @router.get("/config", responses=_OBJECT)
    async def config() -> JSONResponse:
        """The settings in force, secrets left out."""
        return _json(desk.config(), 200)

    @router.get("/logs", responses=_OBJECT)
    async def logs(limit: Rows = 100) -> JSONResponse:
        """The last lines of the log."""
        return _json({"lines": list(desk.logs(limit))}, 200)


def _words(router: APIRouter, desk: Desk) -> None:
    def route(word: str, sentence: str) -> None:
        @router.post(f"/{word}", response_model=Accepted, summary=sentence, name=word)
        async def say(said: Said) -> Mapping[str, Any]:
            try:
                return desk.words[word]({"reason": said.reason})
            except TradingError as error:
                raise HTTPException(409, str(error)) from None

    sentences = {
        "halt": "Cancel every order and place none until resume; survives a restart.",
        "resume": "Trade again.",
        "flatten": "Halt, cancel every order and sell what is held; survives a restart.",
        "cancel-all": "Take every order away once.",
        "reload": "Read the configuration again and apply what may change while running.",
    }
    for word, sentence in sentences.items():
        if word in desk.words:
            route(word, sentence)


def _stream(app: FastAPI, desk: Desk, door: Door) -> None:
    streams = 0

    @app.websocket(f"{PREFIX}/events")
    async def events(socket: WebSocket) -> None:
        """What happens, a JSON object a fact. Say who you are by the Authorization header, or by `{"token": ...}` as the first message."""
        nonlocal streams
        if door.token is None and (socket.headers.get("host", "").rsplit(":", 1)[0] not in door.hosts or _foreign(socket, door)):
            await socket.close(1008, "another host's page")
            return
        await socket.accept()
        if not await _introduced(socket, door):
            await socket.close(1008, "the token is missing or wrong")
            return
        if streams >= MOST_STREAMS:
            await socket.close(1013, "too many streams")
            return
        streams += 1
        try:
            with desk.listen() as outbox:
                async with asyncio.TaskGroup() as group:
                    group.create_task(_until_gone(socket))
                    await _tell(socket, outbox)
        except* (WebSocketDisconnect, RuntimeError, OSError):
            pass  # the client is gone, in one of the ways in which starlette says so
        finally:
            streams -= 1


async def _introduced(socket: WebSocket, door: Door) -> bool:
    if door.token is None:
        return True
    scheme, _, given = socket.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return door.knows(given.strip())
    try:
        async with asyncio.timeout(HELLO_S):
            hello = orjson.loads(await socket.receive_text())
    except (TimeoutError, orjson.JSONDecodeError, WebSocketDisconnect, KeyError):
        return False
    return isinstance(hello, dict) and door.knows(str(hello.get("token", "")))


def _foreign(socket: WebSocket, door: Door) -> bool:
    """Whether a browser says that another site's page asks: websockets know no same-origin rule."""
    origin = socket.headers.get("origin")
    return origin is not None and origin.split("//", 1)[-1].rsplit(":", 1)[0] not in door.hosts


async def _until_gone(socket: WebSocket) -> None:
    """Raises WebSocketDisconnect when the client leaves; what it says meanwhile is not listened to."""
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass
    raise WebSocketDisconnect


async def _tell(socket: WebSocket, outbox: Outbox) -> None:
    lost = 0
    while True:
        batch = await outbox.batch(64, HEARTBEAT_S)
        if outbox.lost > lost:
            await socket.send_text(orjson.dumps({"kind": "lost", "count": outbox.lost - lost}).decode())
            lost = outbox.lost
        for fact in batch.facts:
            await socket.send_text(fact.text)
        if not batch.facts:
            await socket.send_text('{"kind":"hb"}')
        outbox.done(batch)


def _told(desk: Desk, kind: str, limit: int) -> list[dict[str, Any]]:
    return [{"at": fact.at, **fact.body} for fact in desk.recent(kind, limit)]


_OBJECT: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {"schema": {"type": "object"}}}}}


def _json(body: Any, status: int) -> JSONResponse:
    return _Json(body, status, headers={"Cache-Control": "no-store"})


class _Json(JSONResponse):
    """What is not finite becomes null."""

    def render(self, content: Any) -> bytes:
        return orjson.dumps(content, default=str, option=orjson.OPT_SERIALIZE_NUMPY)
