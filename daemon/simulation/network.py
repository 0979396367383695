"""A network in memory, as far as ccxt sees one: an aiohttp session whose requests and websockets lead to the simulated exchange.

Bytes take time in both directions. A request that has left goes on to the exchange even if the process that sent it has died
meanwhile; an answer to a dead process is lost. What goes wrong on the way is decided by `Weather`.
"""

import asyncio
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol

import yarl
from aiohttp import WSMessage, WSMsgType

from daemon.simulation.timeline import Timeline


class Answer:
    """What came back to a request, as ccxt reads it."""

    def __init__(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.status, self.body = status, body
        self.content = self  # where the body is no JSON, ccxt hands on whatever stands here
        self.reason = {200: "OK"}.get(status, "Error")
        self.headers = {"Content-Type": "application/json", **(headers or {})}

    async def text(self, errors: str = "strict") -> str:
        """The body."""
        return self.body.decode(errors=errors)


class Request:
    """A request as the exchange's door reads it."""

    def __init__(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> None:
        parts = yarl.URL(url, encoded=True)
        self.method, self.path, self.raw_path = method, parts.path, parts.raw_path_qs
        self.headers = headers
        self._body = (body or b"").decode()
        self.can_read_body = bool(body)

    async def text(self) -> str:
        """The body."""
        return self._body

    @property
    def query(self) -> str:
        """The query string and the body together."""
        return f"{self.raw_path.partition('?')[2]}&{self._body}"


class Refused(Exception):
    """The exchange's end of a request that ends without an answer; carries what the client sees."""

    def __init__(self, seen: BaseException) -> None:
        super().__init__(str(seen))
        self.seen = seen


class Far(Protocol):
    """The exchange's side of the network."""

    def rest(self, request: Request) -> Answer | None:
        """Handle one request that has arrived; None sends no answer ever."""
        ...

    def dialled(self, url: str, wire: "Wire") -> None:
        """A websocket was opened."""
        ...

    def said(self, wire: "Wire", text: str) -> None:
        """A client said something on its websocket."""
        ...

    def left(self, wire: "Wire") -> None:
        """A websocket was closed, by whichever side."""
        ...


class Route(Protocol):
    """What happens to bytes on their way. Times are seconds."""

    def delay(self) -> float:
        """How long one message takes one way."""
        ...

    def dial(self) -> BaseException | None:
        """Why a new connection cannot be made just now."""
        ...

    def swallow(self, wire: "Wire", text: str) -> bool:
        """Whether a frame is lost on a line that pretends to be alive."""
        ...


class Wire:
    """One open websocket, from the exchange's side: frames go out in order, none after the line is cut."""

    def __init__(self, timeline: Timeline, route: Route, url: str, number: int) -> None:
        self._timeline, self._route = timeline, route
        self.url, self.number = url, number
        self.alive = True
        self.socket: Socket | None = None
        self._last = 0

    def __hash__(self) -> int:
        return self.number

    def push(self, text: str) -> None:
        """Send one frame towards the client, unless the line swallows it."""
        if self.alive and not self._route.swallow(self, text):
            self.deliver(WSMessage(WSMsgType.TEXT, text, ""))

    def deliver(self, message: WSMessage) -> None:
        """Send a message of any kind, after what was sent before it."""
        when = max(self._timeline.now + round(self._route.delay() * 1e9), self._last + 1)
        self._last = when
        self._timeline.at(when, lambda: self._arrive(message))

    def cut(self) -> None:
        """The line breaks: the client learns it as a closed connection."""
        if self.alive:
            self.alive = False
            if self.socket is not None:
                self.socket.lose()

    def _arrive(self, message: WSMessage) -> None:
        if self.alive and self.socket is not None:
            self.socket.hear(message)


class Socket:
    """The client's end of a websocket, with what ccxt calls on aiohttp's."""

    _conn = None  # ccxt looks into aiohttp's buffer when there is one

    def __init__(self, network: "Network", session: "Session", wire: Wire) -> None:
        self._network, self._session, self._wire = network, session, wire
        self._heard: deque[WSMessage] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self.closed = False

    async def receive(self) -> WSMessage:
        """The next message; a closed one once the line is gone."""
        while not self._heard:
            if self.closed or not self._wire.alive:
                self.closed = True
                return WSMessage(WSMsgType.CLOSE, 1006, "")
            self._waiting = asyncio.get_running_loop().create_future()
            await self._waiting
        return self._heard.popleft()

    async def send_str(self, text: str) -> None:
        """Say something to the exchange."""
        if self.closed or not self._wire.alive:
            raise ConnectionResetError("Cannot write to closing transport")
        self._network.carry(self._wire, text)

    async def ping(self) -> None:
        """Ask whether the other side is there; a line that has only gone silent still says yes."""
        if not self.closed and self._wire.alive:
            self._wire.deliver(WSMessage(WSMsgType.PONG, b"", ""))

    async def pong(self, data: bytes = b"") -> None:
        """Answer a ping."""

    async def close(self) -> None:
        """Hang up."""
        if not self.closed:
            self.closed = True
            self._wire.alive = False
            self._network.far.left(self._wire)
            self._stir()

    def hear(self, message: WSMessage) -> None:
        """A message arrives."""
        if self._session.alive and not self.closed:
            self._heard.append(message)
            self._stir()

    def lose(self) -> None:
        """The line is gone."""
        if self._session.alive:
            self._stir()

    def _stir(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(None)


class Session:
    """What ccxt takes for an aiohttp client session: one per exchange object. It dies with the process that made it."""

    def __init__(self, network: "Network") -> None:
        self._network = network
        self.alive = True
        self.headers: dict[str, str] = {}

    def get(self, url: Any, **options: Any) -> "_Exchange":
        return _Exchange(self._network, self, "GET", url, options)

    def post(self, url: Any, **options: Any) -> "_Exchange":
        return _Exchange(self._network, self, "POST", url, options)

    def put(self, url: Any, **options: Any) -> "_Exchange":
        return _Exchange(self._network, self, "PUT", url, options)

    def delete(self, url: Any, **options: Any) -> "_Exchange":
        return _Exchange(self._network, self, "DELETE", url, options)

    def ws_connect(self, url: str, **options: Any) -> "_Dial":
        return _Dial(self._network, self, url)

    async def close(self) -> None:
        """Nothing is held."""


class _Exchange:
    """One request and its answer, as an asynchronous context."""

    def __init__(self, network: "Network", session: Session, method: str, url: Any, options: Mapping[str, Any]) -> None:
        self._network, self._session = network, session
        self._request = Request(method, str(url), options.get("headers") or {}, options.get("data"))
        self._timeout = options.get("timeout")

    async def __aenter__(self) -> Answer:
        return await self._network.ask(self._session, self._request, self._timeout.total if self._timeout else None)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Nothing is held."""


class _Dial:
    """A websocket that is being opened."""

    def __init__(self, network: "Network", session: Session, url: str) -> None:
        self._network, self._session, self._url = network, session, url

    async def __aenter__(self) -> Socket:
        return await self._network.dial(self._session, self._url)

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """The socket is closed by whoever holds it."""


class Network:
    """Everything between the clients of this machine and the exchange `far`."""

    def __init__(self, timeline: Timeline, route: Route, far: Far) -> None:
        self._timeline, self.route, self.far = timeline, route, far
        self._sessions: list[Session] = []
        self._dialled = 0
        self.wires: list[Wire] = []

    def session(self) -> Session:
        """A new client session of the process that runs now."""
        session = Session(self)
        self._sessions.append(session)
        return session

    def kill(self) -> None:
        """The process is gone: nothing reaches it any more, and the exchange sees its lines break."""
        for session in self._sessions:
            session.alive = False
        self._sessions.clear()
        for wire in self.wires:
            if wire.alive:
                wire.alive = False
                self.far.left(wire)
        self.wires.clear()

    def cut(self) -> None:
        """Every open websocket breaks."""
        for wire in self.wires:
            if wire.alive:
                wire.cut()
                self.far.left(wire)
        self.wires.clear()

    async def ask(self, session: Session, request: Request, timeout_s: float | None) -> Answer:
        """Carry one request there and its answer back; raises what aiohttp raises."""
        back: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if (refused := self.route.dial()) is not None:
            await asyncio.sleep(self.route.delay())
            raise refused

        def settle(outcome: Answer | BaseException) -> None:
            if not session.alive or back.done():
                return
            if isinstance(outcome, BaseException):
                back.set_exception(outcome)
            else:
                back.set_result(outcome)

        def arrive() -> None:
            try:
                outcome: Answer | BaseException | None = self.far.rest(request)
            except Refused as error:
                outcome = error.seen
            if outcome is not None:
                self._timeline.after(self.route.delay(), lambda: settle(outcome))

        self._timeline.after(self.route.delay(), arrive)
        async with asyncio.timeout(timeout_s):
            return await back

    async def dial(self, session: Session, url: str) -> Socket:
        """Open a websocket; raises what aiohttp raises."""
        await asyncio.sleep(2 * self.route.delay())
        if (refused := self.route.dial()) is not None:
            raise refused
        self._dialled += 1
        wire = Wire(self._timeline, self.route, url, self._dialled)
        wire.socket = Socket(self, session, wire)
        self.wires = [known for known in self.wires if known.alive]
        self.wires.append(wire)
        self.far.dialled(url, wire)
        return wire.socket

    def carry(self, wire: Wire, text: str) -> None:
        """A client's words, on their way to the exchange."""
        self._timeline.after(self.route.delay(), lambda: self.far.said(wire, text) if wire.alive else None)
