"""The local control socket in the state folder: one JSON line asks, one JSON line answers. Only this user may connect."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import orjson
import structlog

from agents.core.errors import TradingError
from daemon.errors import NotRunning, TimedOut

Answer = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Takes the request's fields, returns the answer's; synchronous, so an operator's word is one step of the loop."""

SOCKET = "control.sock"
LONGEST_REQUEST = 64 * 1024
LONGEST_ANSWER = 4 * 1024 * 1024
MOST_CLIENTS = 16
PATIENCE_S = 5.0

_log = structlog.get_logger()


@contextmanager
def _address(folder: Path) -> Iterator[str]:
    """A path for the socket that fits the kernel's 108 bytes, however deep the folder lies."""
    path = str(folder / SOCKET)
    if len(os.fsencode(path)) < 100:
        yield path
        return
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{handle}/{SOCKET}"
    finally:
        os.close(handle)


def _listen(folder: Path) -> socket.socket:
    """A listening socket of mode 0600. The caller holds the folder, so a socket left there is a dead daemon's."""
    (folder / SOCKET).unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(server.fileno(), 0o600)  # before bind: the file is never there with wider rights
        with _address(folder) as address:
            server.bind(address)
        server.listen(MOST_CLIENTS)
        server.setblocking(False)
    except OSError:
        server.close()
        raise
    return server


@asynccontextmanager
async def serve(folder: Path, commands: Mapping[str, Answer], patience_s: float = PATIENCE_S) -> AsyncIterator[None]:
    """Answer requests `{"command": NAME, ...}` with `{"ok": true, ...}` or `{"ok": false, "error": SENTENCE}`.

    A client that says nothing within `patience_s`, or more than a line's worth, is hung up on; further clients than
    `MOST_CLIENTS` are told to come back. Raises OSError when the socket cannot be made.
    """
    busy = 0

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal busy
        busy += 1
        try:
            async with asyncio.timeout(patience_s):
                line = await reader.readline()
                crowded = {"ok": False, "error": "too many clients at once; try again"}
                reply = crowded if busy > MOST_CLIENTS else _reply(commands, line)
                writer.write(orjson.dumps(reply, default=str, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")
                await writer.drain()
        except (TimeoutError, ConnectionError, ValueError, asyncio.LimitOverrunError) as error:
            _log.warning("control_client_dropped", reason=type(error).__name__)
        finally:
            busy -= 1
            writer.close()

    server = await asyncio.start_unix_server(meet, sock=_listen(folder), limit=LONGEST_REQUEST)
    try:
        yield
    finally:
        server.close()
        (folder / SOCKET).unlink(missing_ok=True)


def _reply(commands: Mapping[str, Answer], line: bytes) -> Mapping[str, Any]:
    try:
        request = orjson.loads(line)
    except orjson.JSONDecodeError:
        return {"ok": False, "error": "a request is one line of JSON"}
    if not isinstance(request, dict) or not isinstance(name := request.pop("command", None), str):
        return {"ok": False, "error": 'a request is an object with a "command"'}
    if (answer := commands.get(name)) is None:
        return {"ok": False, "error": f"there is no command {name!r}; there are {', '.join(sorted(commands))}"}
    try:
        return {"ok": True, **answer(request)}
    except TradingError as error:
        return {"ok": False, "error": str(error)}


def ask(folder: Path, command: str, patience_s: float = PATIENCE_S, **fields: Any) -> dict[str, Any]:
    """Ask the daemon of this state folder, and return its answer without `ok`. For the command line: it blocks.

    Raises NotRunning when none listens, TimedOut when it does not answer in time, TradingError when it refuses.
    """
    absent = f"no daemon runs on state folder {folder}; start one with `quartet trade`, or name its folder with --state"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(patience_s)
        try:
            with _address(folder) as address:
                client.connect(address)
            client.sendall(orjson.dumps({"command": command, **fields}) + b"\n")
            line = _read_line(client)
        except TimeoutError:
            raise TimedOut(f"the daemon on state folder {folder} did not answer within {patience_s:g} s; see its log") from None
        except PermissionError:
            raise NotRunning(f"the daemon on state folder {folder} belongs to another user; ask as that user") from None
        except OSError:
            raise NotRunning(absent) from None
    if not line:
        raise NotRunning(absent)
    answer: dict[str, Any] = orjson.loads(line)
    if not answer.pop("ok", False):
        raise TradingError(str(answer.get("error", "the daemon refused")))
    return answer


def _read_line(client: socket.socket) -> bytes:
    received = bytearray()
    while not received.endswith(b"\n") and len(received) < LONGEST_ANSWER:
        chunk = client.recv(65_536)
        if not chunk:
            break
        received += chunk
    return bytes(received)
