"""The one port that the exchange listens on."""

import asyncio
import ssl
from contextlib import suppress

from aiohttp import web

from agents.core.errors import ConfigError

HOST = "127.0.0.1"
TRY_AGAIN_S = 0.1


class Listener:
    """Opens and shuts the port; a port that was free once is kept over shutting."""

    def __init__(self, runner: web.AppRunner, port: int, tls: ssl.SSLContext | None) -> None:
        self.port = port
        self._runner = runner
        self._tls = tls
        self._site: web.TCPSite | None = None

    async def open(self) -> None:
        """Listen; raises ConfigError when the port is taken."""
        site = web.TCPSite(self._runner, HOST, self.port, ssl_context=self._tls, reuse_address=True)
        try:
            await site.start()
        except OSError as error:
            with suppress(RuntimeError):
                await site.stop()
            raise ConfigError(f"port {self.port} on {HOST} cannot be used ({error.strerror}); choose another, or 0 for any") from error
        self._site = site
        self.port = site.port

    async def shut_for(self, seconds: float) -> None:
        """Cut every connection and refuse new ones for a while, as a server does that is restarted."""
        if self._site is not None:
            await self._site.stop()
            self._site = None
        if self._runner.server is not None:
            for connection in self._runner.server.connections:
                transport = connection.transport
                if transport is not None:
                    transport.abort()
        await asyncio.sleep(seconds)
        while self._site is None:
            try:
                await self.open()
            except ConfigError:  # somebody's outgoing connection has the number for a moment
                await asyncio.sleep(TRY_AGAIN_S)
