"""The exchange's own dead-man switch, by the real ccxt class of an exchange that has one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl

import pytest
from aiohttp import web

from daemon.venues.client import ExchangeOptions, build_client, close_client
from daemon.venues.dead_man import DeadMan
from daemon.venues.link import Link, LinkOptions
from daemon.venues.throttle import Throttle
from tests.daemon.scripted_binance import until


class ScriptedKraken:
    """Answers the switch and the time; remembers what it was set to."""

    def __init__(self) -> None:
        self.timeouts: list[int] = []
        self.broken = False

    async def switch(self, request: web.Request) -> web.Response:
        self.timeouts.append(int(dict(parse_qsl(await request.text()))["timeout"]))
        if self.broken:
            return web.json_response({"error": ["EService:Unavailable"]})
        return web.json_response({"error": [], "result": {"currentTime": "", "triggerTime": ""}})


@asynccontextmanager
async def kraken() -> AsyncIterator[tuple[ScriptedKraken, Any]]:
    server, app = ScriptedKraken(), web.Application()
    app.router.add_post("/0/private/CancelAllOrdersAfter", server.switch)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    exchange = build_client(ExchangeOptions("kraken", url, api_key="key", secret="c2VjcmV0", timeout_ms=500))
    exchange.set_markets([])
    exchange.markets = {"none": {}}
    exchange.markets_by_id = {"none": []}
    try:
        yield server, exchange
    finally:
        await close_client(exchange)
        await runner.cleanup()


@asynccontextmanager
async def beating(switch: DeadMan) -> AsyncIterator["asyncio.Task[None]"]:
    task = asyncio.ensure_future(switch.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_the_heart_beats_three_times_within_the_time_and_stops_on_a_graceful_end():
    async with kraken() as (server, exchange):
        switch = DeadMan(exchange, Throttle(1.0), 60.0)
        switch.after_s = 0.6  # quicker than any exchange takes: only the beat is looked at
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with beating(switch):
            await until(lambda: len(server.timeouts) == 4)
            assert 0.55 <= loop.time() - began < 1.5
        assert switch.armed and switch.status["beats"] >= 3
        await switch.stop()
        assert server.timeouts[-1] == 0 and not switch.armed


@pytest.mark.parametrize(("wished", "set_to"), [(60.0, 60), (5.0, 10), (3600.0, 120)])
async def test_it_is_set_to_what_exchanges_take(wished: float, set_to: int):
    async with kraken() as (server, exchange):
        async with beating(DeadMan(exchange, Throttle(1.0), wished)):
            await until(lambda: server.timeouts)
        assert server.timeouts == [set_to]


async def test_a_beat_that_fails_alarms_and_is_tried_again_before_it_fires(capsys: pytest.CaptureFixture[str]):
    async with kraken() as (server, exchange):
        server.broken = True
        switch = DeadMan(exchange, Throttle(1.0), 60.0)
        switch.after_s = 0.9
        async with beating(switch) as task:
            await until(lambda: len(server.timeouts) >= 2)
            assert not switch.armed and switch.status["failures"] >= 1 and not task.done()
            server.broken = False
            await until(lambda: switch.armed)
        told = capsys.readouterr().out
        assert told.count("dead_man_failed") == 1 and told.count("dead_man_back") == 1


async def test_a_failure_to_switch_it_off_is_told_and_not_raised(capsys: pytest.CaptureFixture[str]):
    async with kraken() as (server, exchange):
        switch = DeadMan(exchange, Throttle(1.0), 60.0)
        async with beating(switch):
            await until(lambda: switch.armed)
        server.broken = True
        await switch.stop()
        assert "dead_man_not_stopped" in capsys.readouterr().out


async def test_a_switch_that_was_never_armed_is_left_alone():
    async with kraken() as (server, exchange):
        await DeadMan(exchange, Throttle(1.0), 60.0).stop()
        assert server.timeouts == []


async def test_the_link_has_it_only_where_the_exchange_has_it_and_it_is_wanted():
    async with kraken() as (_, exchange):
        assert Link(exchange, Throttle(1.0), LinkOptions(dead_man_s=60.0)).dead_man is not None
        assert Link(exchange, Throttle(1.0), LinkOptions()).dead_man is None
        assert Link(exchange, Throttle(1.0), LinkOptions(dead_man_s=60.0, capabilities={"dead_man": False})).dead_man is None


async def test_the_link_runs_it_and_stops_it():
    async with kraken() as (server, exchange):
        link = Link(exchange, Throttle(1.0), LinkOptions(dead_man_s=30.0))
        link.clock.measurable = False
        task = asyncio.ensure_future(link.run())
        await until(lambda: link.status["dead_man"]["armed"])
        task.cancel()
        await asyncio.wait({task})
        await link.stop()
        assert server.timeouts == [30, 0] and link.status["dead_man"]["armed"] is False
