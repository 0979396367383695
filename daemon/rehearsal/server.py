"""The rehearsal exchange as a server on loopback: its socket, its TLS and its end."""

import asyncio
import ssl
from collections.abc import Callable

from aiohttp import web

from agents.core.errors import ConfigError
from daemon.door import MonotonicClock
from daemon.rehearsal.config import RehearsalConfig
from daemon.rehearsal.exchange import CLOSE_WITHIN_S, RehearsalServer
from daemon.rehearsal.faults.exchange import FaultyServer
from daemon.rehearsal.listener import Listener


async def serve(
    config: RehearsalConfig,
    ready: Callable[[dict[str, object]], None],
    ended: Callable[[], None] = lambda: None,
    clock: Callable[[], int] | None = None,
) -> None:
    """Serve until cancelled, or until a tape has ended and `linger_s` has passed.

    `ready` is told the greeting (port, symbols, key pair) once the server listens, `ended` that the market is over.
    Raises ConfigError when the port is taken, DataError when the tape can't be read.
    """
    tls = _tls(config)
    server = (FaultyServer if config.faults else RehearsalServer)(config, clock or MonotonicClock())
    runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=CLOSE_WITHIN_S)
    await runner.setup()
    listener = Listener(runner, config.port, tls)
    try:
        await listener.open()
        ready(server.greeting(listener.port))
        await server.run(listener)
        ended()
        await asyncio.sleep(config.linger_s or 0.0)
    finally:
        await server.close()
        await runner.cleanup()


def _tls(config: RehearsalConfig) -> ssl.SSLContext | None:
    if config.certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(config.certificate, config.private_key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"certificate {config.certificate} and its key cannot be used ({error}); give PEM files that fit together") from error
    return context
