"""The rehearsal exchange as a server on loopback: two clocks, the tick, the doors, and its end."""

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal

from aiohttp import WSCloseCode, web

from agents.core.errors import ConfigError
from agents.core.instruments import Currency
from agents.market.exchange import SimulatedExchange
from agents.market.frictions import Frictions
from daemon.door import MonotonicClock
from daemon.rehearsal.config import RehearsalConfig
from daemon.rehearsal.floor import Floor
from daemon.rehearsal.limits import Budget
from daemon.rehearsal.protocol import Access
from daemon.rehearsal.publisher import Publisher
from daemon.rehearsal.rest import serve_rest
from daemon.rehearsal.source import Source, open_source
from daemon.rehearsal.streams import Hub, serve_streams
from daemon.rehearsal.user_stream import UserStreams
from daemon.rehearsal.venue import Venue
from daemon.rehearsal.ws_api import serve_ws_api

HOST = "127.0.0.1"
TICK_NS = 100_000_000
"""Real time between two ticks: the fastest depth stream that spot has."""
MAX_STEP_TICKS = 50
"""After a stall the market catches up at most this far in one step, then goes on from there."""
CLOSE_WITHIN_S = 2.0


class RehearsalServer:
    """One exchange. `clock` gives real nanoseconds UTC."""

    def __init__(self, config: RehearsalConfig, clock: Callable[[], int]) -> None:
        self._config = config
        self._clock = clock
        self._real_start = clock()
        self._users = UserStreams()
        self._hub = Hub()
        self._source: Source = open_source(config, self._real_start)
        exchange = SimulatedExchange(self._source.instruments.values(), Frictions(fee_currency="received"), self._balances())
        self._floor = Floor(self._source, exchange, self.real_ms, self._users.emit)
        self._publisher = Publisher(self._hub, self._floor.markets)
        self._venue = Venue(
            markets=self._floor.markets,
            account=self._floor.account,
            budget=Budget(config.weight_limit, config.order_limit, self.real_ms),
            access=Access(config.api_key, config.secret, self.real_ms),
            real_ms=self.real_ms,
        )
        self._real_at = self._real_start

    def _balances(self) -> dict[Currency, Decimal]:
        """Every currency that is traded, and what the account starts with."""
        listed = self._source.instruments.values()
        balances = {currency: Decimal(0) for listing in listed for currency in (listing.base, listing.quote)}
        return balances | {Currency(name): amount for name, amount in self._config.balances.items()}

    def greeting(self, port: int) -> dict[str, object]:
        """What a client must know: where, which symbols, and the key pair."""
        config = self._config
        listed = self._source.instruments
        fees = {symbol: [str(listing.maker_fee), str(listing.taker_fee)] for symbol, listing in listed.items()}
        return {"port": port, "symbols": list(listed), "fees": fees, "api_key": config.api_key, "secret": config.secret}

    def real_ms(self) -> int:
        return self._clock() // 1_000_000

    def tick(self) -> None:
        """Move the market to where the clock says it should be, then tell everybody."""
        now = self._clock()
        elapsed = min(now - self._real_at, MAX_STEP_TICKS * TICK_NS)
        self._real_at = now
        self._floor.step(self._floor.markets.now + round(elapsed * self._config.speed))
        self._users.flush()
        self._publisher.tick(now // 1_000_000)

    async def run(self) -> None:
        """Tick until a tape ends; the synthetic market never does."""
        loop = asyncio.get_running_loop()
        self._real_at = self._clock()
        due = loop.time()
        while not self._source.ended:
            self.tick()
            due = max(due + TICK_NS / 1e9, loop.time())
            await asyncio.sleep(due - loop.time())

    def application(self) -> web.Application:
        """All doors on one port, told apart by path."""
        application = web.Application(client_max_size=1024 * 1024)

        async def rest(request: web.Request) -> web.StreamResponse:
            response = await serve_rest(request, self._venue)
            self._users.flush()
            return response

        async def streams(request: web.Request) -> web.StreamResponse:
            return await serve_streams(request, self._hub)

        async def ws_api(request: web.Request) -> web.StreamResponse:
            return await serve_ws_api(request, self._venue, self._users)

        application.router.add_get("/ws-api/v3", ws_api)
        for path in ("/ws", "/stream", "/ws/{streams:.*}", "/stream/ws", "/stream/ws/{streams:.*}", "/stream/{streams:.*}"):
            application.router.add_get(path, streams)
        application.router.add_route("*", "/{path:.*}", rest)
        return application

    async def close(self) -> None:
        """Say goodbye to every websocket."""
        leaving = [*self._hub.connections, *self._users.connections]
        closes = (c.socket.close(code=WSCloseCode.GOING_AWAY, message=b"bye") for c in leaving)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await asyncio.gather(*closes, return_exceptions=True)


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
    server = RehearsalServer(config, clock or MonotonicClock())
    runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=CLOSE_WITHIN_S)
    await runner.setup()
    try:
        site = web.TCPSite(runner, HOST, config.port, ssl_context=tls)
        try:
            await site.start()
        except OSError as error:
            raise ConfigError(f"port {config.port} on {HOST} cannot be used ({error.strerror}); choose another, or 0 for any") from error
        ready(server.greeting(runner.addresses[0][1]))
        await server.run()
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
