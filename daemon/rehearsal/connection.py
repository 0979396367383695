"""One websocket client: frames gathered through a tick and written at once, and a bound on what a slow reader may owe."""

import asyncio

import orjson
from aiohttp import web

MAX_BACKLOG_BYTES = 8 * 1024 * 1024
"""A client whose socket holds more than this unread is cut off: at 10 symbols that is about a minute of all streams."""
PING_INTERVAL_S = 20.0
"""Binance pings each 20 s and closes when no pong comes."""


def frame(payload: bytes) -> bytes:
    """A text message as one unmasked websocket frame (RFC 6455, section 5.2), made once for all that receive it."""
    size = len(payload)
    if size < 126:
        return b"\x81" + size.to_bytes(1, "big") + payload
    if size < 65_536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


class Connection:
    """A prepared websocket. Writes never wait: what the socket does not take at once stays in its bounded buffer."""

    def __init__(self, socket: web.WebSocketResponse, transport: asyncio.Transport) -> None:
        self.socket = socket
        self.combined = False
        self.streams: set[str] = set()
        self.cut_off = False
        self._transport = transport
        self._pending: list[bytes] = []

    @classmethod
    async def accept(cls, request: web.Request) -> "Connection":
        """Answers the upgrade. Compression stays off: frames are shared between clients and written as they are."""
        socket = web.WebSocketResponse(compress=False, heartbeat=PING_INTERVAL_S, max_msg_size=1024 * 1024)
        await socket.prepare(request)
        transport = request.transport
        if transport is None:
            raise web.HTTPBadRequest(reason="the client has gone")
        return cls(socket, transport)

    def add(self, ready: bytes) -> None:
        """Queue one finished frame for the next flush."""
        self._pending.append(ready)

    def flush(self) -> None:
        """Write what was queued with one system call; cut the client off when it has stopped reading."""
        if not self._pending:
            return
        data = b"".join(self._pending)
        self._pending.clear()
        if self.cut_off or self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() > MAX_BACKLOG_BYTES:
            self.abort()
            return
        self._transport.write(data)

    def abort(self) -> None:
        """Cut the connection without a word of goodbye."""
        self.cut_off = True
        self._transport.abort()

    def send(self, message: object) -> None:
        """Write one JSON message at once, after what was queued before it."""
        self.add(frame(orjson.dumps(message)))
        self.flush()
