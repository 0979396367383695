"""The rehearsal exchange with faults: the same parts, each able to misbehave."""

import asyncio
from collections.abc import Callable

from aiohttp import web

from agents.market.exchange import SimulatedExchange
from daemon.rehearsal.account import Account
from daemon.rehearsal.calls import TABLE
from daemon.rehearsal.config import RehearsalConfig
from daemon.rehearsal.connection import Connection
from daemon.rehearsal.exchange import TICK_NS, RehearsalServer
from daemon.rehearsal.faults import control
from daemon.rehearsal.faults.account import FaultyAccount
from daemon.rehearsal.faults.actions import Ground
from daemon.rehearsal.faults.borders import spoiled_rest, spoiled_websocket
from daemon.rehearsal.faults.calls import Spoiled, faulty_table
from daemon.rehearsal.faults.plan import Plan
from daemon.rehearsal.faults.publisher import FaultyPublisher
from daemon.rehearsal.faults.streams import FaultyHub, FaultyUserStreams
from daemon.rehearsal.listener import Listener
from daemon.rehearsal.rest import serve_rest
from daemon.rehearsal.streams import Hub
from daemon.rehearsal.user_stream import UserStreams
from daemon.rehearsal.ws_api import answer

ANSWER_FIRST_S = 0.05
"""A restart waits so long, so that whoever asked for it has the answer."""


class FaultyServer(RehearsalServer):
    """One exchange that misbehaves on request. `clock` gives real nanoseconds UTC."""

    def __init__(self, config: RehearsalConfig, clock: Callable[[], int]) -> None:
        self._plan = Plan(clock)
        self._faulty_users, self._faulty_hub = FaultyUserStreams(self._plan), FaultyHub(self._plan)
        self._restarts: asyncio.Queue[float] = asyncio.Queue(maxsize=8)
        super().__init__(config, clock)
        self._faulty_publisher = FaultyPublisher(self._plan, self._hub, self._markets)
        self._publisher = self._faulty_publisher
        self._over_rest, self._over_websocket = faulty_table(TABLE, self._plan, "rest"), faulty_table(TABLE, self._plan, "websocket")
        self._ground = Ground(self._venue, self._floor, self._hub, self._faulty_users, self._faulty_publisher, self._restarts.put_nowait)

    def real_ms(self) -> int:
        armed = self._plan.holds("clock_offset")
        return super().real_ms() + (round(armed.detail("offset_ms")) if armed else 0)

    def tick(self) -> None:
        armed = self._plan.by_the_second(TICK_NS / 1e9)
        if armed is not None:
            control.act(self._plan, self._ground, armed)
        super().tick()

    async def run(self, listener: Listener) -> None:
        async with asyncio.TaskGroup() as group:
            restarts = group.create_task(self._restart(listener))
            await super().run(listener)
            restarts.cancel()

    async def _restart(self, listener: Listener) -> None:
        while True:
            seconds = await self._restarts.get()
            await asyncio.sleep(ANSWER_FIRST_S)
            await listener.shut_for(seconds)

    def _make_streams(self) -> tuple[UserStreams, Hub]:
        return self._faulty_users, self._faulty_hub

    def _make_account(self, exchange: SimulatedExchange) -> Account:
        return FaultyAccount(self._plan, exchange, self._markets, self.real_ms, self._users.emit, self._source.absorb)

    def _open_doors(self, router: web.UrlDispatcher) -> None:
        control.open_doors(router, self._plan, self._ground)
        super()._open_doors(router)

    async def _rest(self, request: web.Request) -> web.StreamResponse:
        try:
            return await serve_rest(request, self._venue, self._over_rest)
        except Spoiled as spoiled:
            self._users.flush()
            return await spoiled_rest(request, spoiled, self._venue.budget.headers())

    def _respond(self, connection: Connection, text: str) -> None:
        try:
            connection.send(answer(self._venue, self._over_websocket, self._users, connection, text))
        except Spoiled as spoiled:
            spoiled_websocket(connection, spoiled, text)
