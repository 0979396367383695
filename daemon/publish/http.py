"""Serves the HTTP interface by uvicorn, in the session's own loop: loopback unless somebody has thought about who may come in."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import AF_INET, AF_INET6, SO_REUSEADDR, SOCK_STREAM, SOL_SOCKET, socket
from typing import Literal

import structlog
import uvicorn
from fastapi import FastAPI

from agents.core.errors import ConfigError

USUAL_PORT = 8080
START_S = 10.0

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen; with a certificate and its key, by TLS."""

    host: str
    port: int | Literal["auto", "off"]
    certificate: Path | None = None
    key: Path | None = None


class _Server(uvicorn.Server):
    """The session takes the signals; it ends the server, not the other way round."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serve(app: FastAPI, address: Address) -> AsyncIterator[int | None]:
    """Serve while the context lasts; gives the port, or None when off.

    Raises ConfigError when a port was asked for by number and is taken (`auto` then takes another), and for a certificate that
    cannot be used.
    """
    if address.port == "off":
        yield None
        return
    _check(address)
    with _bound(address) as listening:
        port = int(listening.getsockname()[1])
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="off", ws_max_size=64 * 1024, ws_max_queue=8, ws_ping_interval=20.0,
            timeout_graceful_shutdown=1, server_header=False, date_header=False, backlog=128,
            ssl_certfile=address.certificate, ssl_keyfile=address.key,
        )  # fmt: skip
        server = _Server(config)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(_served(server, listening))
            async with asyncio.timeout(START_S):
                while not server.started and not task.done():
                    await asyncio.sleep(0.005)
            _log.info("http_listening", host=address.host, port=port, tls=address.certificate is not None)
            try:
                yield port
            finally:
                server.should_exit = True


async def _served(server: uvicorn.Server, listening: socket) -> None:
    """Raises nothing: a server that fails ends itself, not the session."""
    try:
        await server.serve(sockets=[listening])
    except Exception as error:  # noqa: BLE001 - whatever a request or the library brought about
        _log.exception("http_failed", error=f"{type(error).__name__}: {error}")


def _check(address: Address) -> None:
    if address.certificate is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(address.certificate, address.key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"http.tls_certificate {address.certificate} with http.tls_key {address.key}: {error.strerror or error}; mend the files") from None


@contextmanager
def _bound(address: Address) -> Iterator[socket]:
    choices = (USUAL_PORT, 0) if address.port == "auto" else (int(address.port),)
    for choice in choices:
        listening = socket(AF_INET6 if ":" in address.host else AF_INET, SOCK_STREAM)
        try:
            listening.setsockopt(SOL_SOCKET, SO_REUSEADDR, 1)
            listening.bind((address.host, choice))
            listening.listen(128)
        except OSError as error:
            listening.close()
            reason = error.strerror or str(error)
            continue
        with listening:
            yield listening
        return
    raise ConfigError(f"http.port: cannot listen on {address.host}:{choices[-1]} ({reason}); free it, or set http.port to another, auto or off")
