"""The exchange's clock and ours: measured, corrected, and no order by one that is wrong. ccxt is the real one."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import ccxt
import pytest
from aiohttp import web

from agents.core.errors import ConfigError, Unreachable
from agents.core.instruments import Side, Symbol
from agents.core.orders import OrderId, Place
from daemon.venues.budget import Lane
from daemon.venues.client import ExchangeOptions, build_client, close_client
from daemon.venues.clock import ExchangeClock
from daemon.venues.link import Link, LinkOptions
from daemon.venues.outcomes import NotSent
from daemon.venues.throttle import Throttle
from tests.daemon.scripted_binance import ScriptedBinance, error, until

BTC = Symbol("BTC/USDT")
HOUR_MS = 3_600_000


class TimedBinance(ScriptedBinance):
    """A server with a clock of its own that refuses requests signed with another time."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead_ms = 0.0
        self.slow_s = [0.0]
        """Delays of the answers to /time, in turn; the last repeats."""
        self.refused = 0

    def now(self) -> int:
        return int(time.time() * 1000 + self.ahead_ms)

    def _guarded(self, path: str, answer: Any) -> Any:
        guarded = super()._guarded(path, answer)

        async def timed(request: web.Request) -> web.StreamResponse:
            query = {**request.query, **(await request.post())}
            signed = query.get("timestamp")
            if signed is not None and not -1000 <= self.now() - int(str(signed)) <= 10_000:
                self.refused += 1
                return error(-1021, "Timestamp for this request is outside of the recvWindow.")
            return await guarded(request)

        return timed

    async def _time(self, request: web.Request) -> web.Response:
        delay = self.slow_s.pop(0) if len(self.slow_s) > 1 else self.slow_s[0]
        now = self.now()  # before the long way back: the middle of the round trip is wrong by half of it
        await asyncio.sleep(delay)
        return web.json_response({"serverTime": now})


@asynccontextmanager
async def account(bound_ms: float = 1000.0, every_s: float = 60.0) -> AsyncIterator[tuple[TimedBinance, Any, Link]]:
    server = TimedBinance()
    await server.start()
    exchange = build_client(ExchangeOptions("binance", server.url, api_key="key", secret="secret", timeout_ms=2000))
    link = Link(exchange, Throttle(2.0, lane=Lane.PROTECT), LinkOptions("rest", bound_ms, every_s))
    try:
        await exchange.load_markets()
        yield server, exchange, link
    finally:
        await close_client(exchange)
        await server.stop()


@asynccontextmanager
async def running(link: Link) -> AsyncIterator[None]:
    task = asyncio.ensure_future(link.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()


def place(number: int = 1) -> Place:
    return Place(OrderId(f"q-main-1-{number}-0"), BTC, Side.BUY, Decimal("0.1"), Decimal("100.00"))


@pytest.mark.parametrize("ahead_ms", [-400.0, 0.0, 700.0])
async def test_the_offset_is_measured_and_every_signed_request_is_right(ahead_ms: float):
    async with account(10_000.0) as (server, exchange, link):
        server.ahead_ms = ahead_ms * 5
        await link.start()
        assert link.clock.offset_ms == pytest.approx(-ahead_ms * 5, abs=50)
        assert exchange.nonce() == pytest.approx(server.now(), abs=50)
        await exchange.fetch_balance()
        assert server.refused == 0 and link.clock.usable


async def test_without_the_correction_the_same_request_is_refused():
    async with account() as (server, exchange, _):
        server.ahead_ms = 20_000
        with pytest.raises(ccxt.InvalidNonce):
            await exchange.fetch_balance()


async def test_the_answer_by_the_shortest_way_counts():
    async with account(10_000.0) as (server, _, link):
        server.slow_s = [0.2, 0.2, 0.0, 0.2, 0.2]
        await link.start()
        assert abs(link.clock.offset_ms or 1e9) < 30 and link.clock.error_ms < 50


async def test_a_slow_answer_is_no_proof_of_a_wrong_clock():
    async with account(bound_ms=50.0) as (server, _, link):
        server.slow_s = [0.2]
        await link.start()
        assert (link.clock.offset_ms or 0) > 50 and not link.clock.beyond and link.clock.usable


@pytest.mark.parametrize(("ahead_ms", "word"), [(-HOUR_MS, "ahead of"), (5000, "behind")])
async def test_a_machine_whose_clock_is_wrong_does_not_start(ahead_ms: float, word: str):
    async with account() as (server, _, link):
        server.ahead_ms = ahead_ms
        with pytest.raises(ConfigError, match=rf"{word} binance's.*max_clock_offset_ms.*timedatectl"):
            await link.start()


async def test_an_exchange_that_does_not_tell_its_time_is_unreachable():
    async with account() as (server, _, link):
        server.refuse["time"] = lambda: error(-1000, "no", 500)
        with pytest.raises(Unreachable, match="does not tell its time"):
            await link.start()


async def test_one_lost_answer_at_the_start_is_no_reason_to_stay_away():
    async with account() as (server, _, link):
        lost = [error(-1000, "no", 500)]
        server.refuse["time"] = lambda: (server.refuse.pop("time"), lost.pop())[1]
        await link.start()
        assert link.clock.usable


async def test_a_refused_time_stops_new_orders_until_it_is_measured_again_at_once():
    async with account(HOUR_MS * 2) as (server, _, link):
        await link.start()
        async with running(link):
            server.ahead_ms = 60_000
            with pytest.raises(ccxt.InvalidNonce):
                await link.transport.create(place(1))
            with pytest.raises(NotSent, match="clock"):
                await link.transport.create(place(2))
            async with asyncio.timeout(2):
                await until(lambda: link.clock.usable)
            assert link.clock.offset_ms == pytest.approx(-60_000, abs=100)
            await link.transport.create(place(3))
        assert [o["clientOrderId"] for o in server.orders] == ["q-main-1-3-0"]


async def test_a_clock_that_jumps_back_an_hour_sends_no_order_cancels_all_the_same_and_trades_when_it_is_right_again():
    async with account() as (server, exchange, link):
        await link.start()
        raw = await link.transport.create(place(1))
        true_clock = exchange.milliseconds
        async with running(link):
            exchange.milliseconds = lambda: int(time.time() * 1000) - HOUR_MS
            with pytest.raises(NotSent) as refused:  # seen at once, before any request
                await link.transport.create(place(2))
            assert refused.value.reason == "clock" and server.refused == 0
            await until(lambda: link.clock.beyond)
            assert link.clock.status["offset_ms"] == pytest.approx(-HOUR_MS, abs=200) and not link.clock.usable
            assert (await link.transport.cancel(raw["id"], BTC))["status"] == "canceled"  # signed with the exchange's time
            with pytest.raises(NotSent):
                await link.transport.create(place(3))
            exchange.milliseconds = true_clock
            await until(lambda: link.clock.usable)
            assert (await link.transport.create(place(4)))["status"] == "open"
        assert [o["clientOrderId"] for o in server.orders] == ["q-main-1-1-0", "q-main-1-4-0"] and server.refused == 0


async def test_a_jump_is_seen_without_anybody_asking():
    async with account() as (_, exchange, link):
        await link.start()
        async with running(link):
            exchange.milliseconds = lambda: int(time.time() * 1000) + HOUR_MS
            await until(lambda: link.clock.beyond, 3.0)


async def test_a_lost_measurement_keeps_the_last_one():
    async with account(every_s=0.05) as (server, _, link):
        await link.start()
        async with running(link):
            server.refuse["time"] = lambda: error(-1000, "no", 500)
            await until(lambda: sum(path == "time" for _, path, _ in server.calls) > 5)
            assert link.clock.usable


async def test_an_exchange_without_a_clock_is_taken_as_it_is():
    class Mute:
        id, has, options = "mute", {"fetchTime": False}, {}

        def nonce(self) -> int:
            return 1

    clock = ExchangeClock(Mute(), Throttle(1.0), 1000.0)
    await clock.start()
    assert clock.usable and clock.status == {"measurable": False, "usable": True}
    await clock.run()


@pytest.mark.parametrize(("now", "expected"), [(1_700_000_000_000, 1_699_999_995_000), (1_700_000_000, 1_699_999_995), (17, 17)])
async def test_an_exchange_without_a_time_difference_gets_its_nonce_corrected(now: int, expected: int):
    class Plain:
        id, has = "plain", {"fetchTime": True}
        options: dict[str, Any] = {}  # noqa: RUF012

        def nonce(self) -> int:
            return now

        def milliseconds(self) -> int:
            return 1_700_000_000_000

        async def fetch_time(self) -> int:
            return 1_699_999_995_000

    exchange = Plain()
    clock = ExchangeClock(exchange, Throttle(1.0), 10_000.0)
    await clock.measure()
    await clock.measure()
    assert exchange.nonce() == pytest.approx(expected, abs=5 if now > 1e11 else 0)
