"""How a spoiled answer looks through REST and through the websocket API."""

import asyncio
import socket
import struct

import orjson
from aiohttp import web

from daemon.rehearsal.connection import Connection, frame
from daemon.rehearsal.faults.calls import Spoiled, unknown_status
from daemon.rehearsal.rest import json_answer

_PAGE = "<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center></body></html>"
_PAGES = {
    "http_500": (500, "500 Internal Server Error"),
    "http_502": (502, "502 Bad Gateway"),
    "http_504": (504, "504 Gateway Time-out"),
    "http_403": (403, "403 Forbidden"),
    "not_json": (200, "Service temporarily unavailable"),
}
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of no time: closing sends RST."""
LOOKS_EVERY_S = 0.05
LONGEST_WAIT_S = 3600.0
"""What is never answered ends here, should the client wait so long."""


def reset(transport: asyncio.BaseTransport | None) -> None:
    """End the connection with RST, as a load balancer does that loses its backend."""
    if transport is None:
        return
    plug = transport.get_extra_info("socket")
    if plug is not None:
        plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    if isinstance(transport, asyncio.WriteTransport):
        transport.abort()


async def spoiled_rest(request: web.Request, spoiled: Spoiled, headers: dict[str, str]) -> web.StreamResponse:
    """The REST answer that comes instead of the honest one."""
    name = spoiled.armed.kind.name
    if name in _PAGES:
        status, title = _PAGES[name]
        return web.Response(text=_PAGE.format(title), status=status, content_type="text/html", headers=headers)
    match name:
        case "answer_late":
            await _hold(request, spoiled.armed.detail("delay_s"))
            return json_answer(spoiled.result, 200, headers)
        case "no_answer":
            await _hold(request, LONGEST_WAIT_S)
        case "accepted_reset":
            reset(request.transport)
        case "timeout_1007":
            error = unknown_status()
            return json_answer(error.body(), error.status, headers)
        case _:
            pass
    return web.Response(body=b"", status=200, headers=headers)


async def _hold(request: web.Request, seconds: float) -> None:
    """Let the client wait; over once it has left."""
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    while request.transport is not None and (left := until - loop.time()) > 0:
        await asyncio.sleep(min(left, LOOKS_EVERY_S))


def spoiled_websocket(connection: Connection, spoiled: Spoiled, text: str) -> None:
    """The same on the websocket API: what HTTP says by its status stands in the message."""
    name, request_id = spoiled.armed.kind.name, orjson.loads(text).get("id")
    match name:
        case "answer_late":
            reply = {"id": request_id, "status": 200, "result": spoiled.result}
            asyncio.get_running_loop().call_later(spoiled.armed.detail("delay_s"), connection.send, reply)
        case "no_answer":
            pass
        case "accepted_reset":
            connection.abort()
        case "empty_answer":
            connection.send({"id": request_id, "status": 200, "result": {}})
        case "not_json":
            connection.add(frame(_PAGE.format(_PAGES[name][1]).encode()))
            connection.flush()
        case "timeout_1007":
            error = unknown_status()
            connection.send({"id": request_id, "status": error.status, "error": error.body()})
        case _:
            status, title = _PAGES[name]
            connection.send({"id": request_id, "status": status, "error": {"code": -1000, "msg": title}})
