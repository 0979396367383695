"""The rehearsal exchange itself: two clocks, the tick, and the doors that it is asked through."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal

from aiohttp import WSCloseCode, web

from agents.core.instruments import Currency
from agents.market.exchange import SimulatedExchange
from agents.market.frictions import Frictions
from daemon.rehearsal.account import Account
from daemon.rehearsal.calls import TABLE
from daemon.rehearsal.config import RehearsalConfig
from daemon.rehearsal.connection import Connection
from daemon.rehearsal.floor import Floor
from daemon.rehearsal.limits import Budget
from daemon.rehearsal.listener import Listener
from daemon.rehearsal.market import Markets
from daemon.rehearsal.protocol import Access
from daemon.rehearsal.publisher import Publisher
from daemon.rehearsal.rest import serve_rest
from daemon.rehearsal.source import Source, open_source
from daemon.rehearsal.streams import Hub, serve_streams
from daemon.rehearsal.user_stream import UserStreams
from daemon.rehearsal.venue import Venue
from daemon.rehearsal.ws_api import answer, serve_ws_api

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
        self._users, self._hub = self._make_streams()
        self._source: Source = open_source(config, self._real_start)
        exchange = SimulatedExchange(self._source.instruments.values(), Frictions(fee_currency="received"), self._balances())
        self._markets = Markets(self._source.instruments, self._source.start, self._source)
        self._floor = Floor(self._source, exchange, self._markets, self._make_account(exchange))
        self._publisher = Publisher(self._hub, self._markets)
        self._venue = Venue(
            markets=self._markets,
            account=self._floor.account,
            budget=Budget(config.weight_limit, config.order_limit, self.real_ms),
            access=Access(config.api_key, config.secret, self.real_ms),
            real_ms=self.real_ms,
            started_ms=self._real_start // 1_000_000,
        )
        self._real_at = self._real_start

    # What faults replace, and nothing else does.

    def _make_streams(self) -> tuple[UserStreams, Hub]:
        return UserStreams(), Hub()

    def _make_account(self, exchange: SimulatedExchange) -> Account:
        return Account(exchange, self._markets, self.real_ms, self._users.emit, self._source.absorb)

    async def _rest(self, request: web.Request) -> web.StreamResponse:
        return await serve_rest(request, self._venue, TABLE)

    def _respond(self, connection: Connection, text: str) -> None:
        connection.send(answer(self._venue, TABLE, self._users, connection, text))

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
        self._floor.step(self._markets.now + round(elapsed * self._config.speed))
        self._users.flush()
        self._publisher.tick(now // 1_000_000)

    async def run(self, listener: Listener) -> None:
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

        self._open_doors(application.router)
        return application

    def _open_doors(self, router: web.UrlDispatcher) -> None:
        async def rest(request: web.Request) -> web.StreamResponse:
            response = await self._rest(request)
            self._users.flush()
            return response

        async def streams(request: web.Request) -> web.StreamResponse:
            return await serve_streams(request, self._hub)

        async def ws_api(request: web.Request) -> web.StreamResponse:
            return await serve_ws_api(request, self._users, self._respond)

        router.add_get("/ws-api/v3", ws_api)
        for path in ("/ws", "/stream", "/ws/{streams:.*}", "/stream/ws", "/stream/ws/{streams:.*}", "/stream/{streams:.*}"):
            router.add_get(path, streams)
        router.add_route("*", "/{path:.*}", rest)

    async def close(self) -> None:
        """Say goodbye to every websocket."""
        leaving = [*self._hub.connections, *self._users.connections]
        closes = (c.socket.close(code=WSCloseCode.GOING_AWAY, message=b"bye") for c in leaving)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await asyncio.gather(*closes, return_exceptions=True)
