"""Market-data websockets: who listens to which stream, and the SUBSCRIBE, UNSUBSCRIBE and LIST requests."""

from collections.abc import Callable, Iterable

import orjson
from aiohttp import WSMsgType, web

from daemon.rehearsal.connection import Connection, frame

MAX_STREAMS = 1024
"""Streams on one connection, as documented."""


class Hub:
    """Subscriptions of all market-data clients. A message is encoded once for raw and once for combined readers."""

    def __init__(self) -> None:
        self.connections: set[Connection] = set()
        self._listeners: dict[str, set[Connection]] = {}
        self.version = 0
        """Changes with every subscription, so that publishers may keep lists of what is wanted."""

    def wanted(self, stream: str) -> bool:
        return stream in self._listeners

    def wanted_streams(self) -> Iterable[str]:
        return self._listeners.keys()

    def subscribe(self, connection: Connection, streams: Iterable[str]) -> None:
        for stream in streams:
            connection.streams.add(stream)
            self._listeners.setdefault(stream, set()).add(connection)
        self.version += 1

    def unsubscribe(self, connection: Connection, streams: Iterable[str]) -> None:
        for stream in list(streams):
            connection.streams.discard(stream)
            listeners = self._listeners.get(stream)
            if listeners is not None:
                listeners.discard(connection)
                if not listeners:
                    del self._listeners[stream]
        self.version += 1

    def drop(self, connection: Connection) -> None:
        self.unsubscribe(connection, connection.streams)
        self.connections.discard(connection)

    def publish(self, stream: str, make: Callable[[], object]) -> None:
        """Queue one message for everyone who listens; `make` is not called when nobody does."""
        if stream not in self._listeners:
            return
        self.distribute(stream, orjson.dumps(make()))

    def distribute(self, stream: str, payload: bytes) -> None:
        """Queue one encoded message for everyone who listens."""
        listeners = self._listeners.get(stream, ())
        raw = combined = b""
        for connection in listeners:
            if connection.combined:
                combined = combined or frame(b'{"stream":"' + stream.encode() + b'","data":' + payload + b"}")
                connection.add(combined)
            else:
                raw = raw or frame(payload)
                connection.add(raw)

    def flush(self) -> None:
        for connection in self.connections:
            connection.flush()


async def serve_streams(request: web.Request, hub: Hub) -> web.WebSocketResponse:
    """One market-data connection: `/ws`, `/ws/<stream>/<stream>`, `/stream?streams=a/b`, and ccxt's `/stream/ws/<n>`."""
    connection = await Connection.accept(request)
    connection.combined = request.path.rstrip("/") == "/stream"
    hub.connections.add(connection)
    try:
        hub.subscribe(connection, _streams_of_url(request))
        async for message in connection.socket:
            if message.type is WSMsgType.TEXT:
                connection.send(answer(hub, connection, message.data))
            elif message.type is WSMsgType.BINARY:
                connection.send(_refusal(3, "Invalid JSON: expected value at line 1 column 1", None))
    finally:
        hub.drop(connection)
    return connection.socket


def _streams_of_url(request: web.Request) -> list[str]:
    named = request.query.get("streams", "")
    if request.path.startswith("/ws/"):
        named = request.match_info.get("streams", "")
    return [name for name in named.split("/") if "@" in name][:MAX_STREAMS]


def answer(hub: Hub, connection: Connection, text: str) -> dict[str, object]:
    """The answer to one request of a market-data client."""
    try:
        request = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return _refusal(3, f"Invalid JSON: {error}", None)
    if not isinstance(request, dict):
        return _refusal(2, "Invalid request: expected a JSON object", None)
    request_id = request.get("id")
    method, params = request.get("method"), request.get("params", [])
    if method == "LIST_SUBSCRIPTIONS":
        return {"result": sorted(connection.streams), "id": request_id}
    if not isinstance(params, list):
        return _refusal(2, "Invalid request: params must be an array", request_id)
    if method == "SET_PROPERTY" and len(params) == 2 and params[0] == "combined" and isinstance(params[1], bool):
        connection.combined = params[1]
        return {"result": None, "id": request_id}
    if method == "GET_PROPERTY" and params == ["combined"]:
        return {"result": connection.combined, "id": request_id}
    if method not in ("SUBSCRIBE", "UNSUBSCRIBE"):
        return _refusal(2, f"Invalid request: unknown variant `{method}`", request_id)
    if not params or not all(isinstance(name, str) and name for name in params):
        return _refusal(2, "Invalid request: invalid stream", request_id)
    if method == "UNSUBSCRIBE":
        hub.unsubscribe(connection, params)
    elif len(connection.streams | set(params)) > MAX_STREAMS:
        return _refusal(2, f"Invalid request: more than {MAX_STREAMS} streams", request_id)
    else:
        hub.subscribe(connection, params)
    return {"result": None, "id": request_id}


def _refusal(code: int, message: str, request_id: object) -> dict[str, object]:
    return {"error": {"code": code, "msg": message}, "id": request_id}
