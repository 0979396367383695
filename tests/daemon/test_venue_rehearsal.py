"""The link on the rehearsal exchange with its faults on, under Binance's own names: what is called refused is not there, ever."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

import ccxt
import pytest

from agents.core.errors import ConfigError
from agents.core.instruments import Side, Symbol
from agents.core.orders import OrderId, Place
from daemon.venues.budget import Budget, Lane, govern
from daemon.venues.client import silence_logins
from daemon.venues.link import Link, LinkOptions
from daemon.venues.outcomes import NotSent, Outcome, judge_answer, judge_error
from daemon.venues.parse import parse_order
from daemon.venues.throttle import Throttle
from tests.daemon.scripted_binance import until
from tests.rehearsal_faults import Rehearsal, rehearsal

BTC = Symbol("BTC/USDT")


class Account:
    """One account's link, over the one or the other way."""

    exchange: Rehearsal
    client: Any
    link: Link
    throttle: Throttle
    price: Decimal
    failure: Exception | None = None

    async def connected(self) -> None:
        """Have the websocket stand."""
        self.client.open()
        connection = self.client.client(self.client.urls["api"]["ws"]["ws-api"]["spot"])
        await connection.connect(self.client.session, self.client.ws_dial_delay(connection.url))

    async def create(self, number: int, **more: Any) -> Outcome:
        place = replace(Place(OrderId(f"q-main-1-{number}-0"), BTC, Side.BUY, Decimal("0.001"), self.price), **more)
        try:
            return judge_answer(parse_order(await self.link.transport.create(place)), place.order_id).outcome
        except Exception as failure:  # noqa: BLE001 - judged, as the desk of orders does
            self.failure = failure
            return judge_error(failure).outcome


@asynccontextmanager
async def account(over: str, timeout_s: float = 1.0, **options: Any) -> AsyncIterator[Account]:
    async with rehearsal(tls=True, symbols=(BTC,)) as exchange:
        found = Account()
        found.exchange, found.client, found.throttle = exchange, exchange.ccxt(), Throttle(timeout_s, lane=Lane.PROTECT)
        govern(found.client, Budget("api.binance.com", 1200.0, 60.0, 1.0, None))
        silence_logins(found.client)
        found.link = Link(found.client, found.throttle, LinkOptions(over, **options))
        await found.client.load_markets()
        await found.link.start()
        book = await found.client.fetch_order_book(BTC, 5)
        found.price = Decimal(str(round(book["bids"][0][0] * 0.95, 2)))
        if over == "websocket":
            await found.connected()
        yield found


OUTCOMES = {
    "": Outcome.ACCEPTED, "none_fields": Outcome.ACCEPTED,
    "accepted_reset": Outcome.UNKNOWN, "no_answer": Outcome.UNKNOWN, "empty_answer": Outcome.UNKNOWN, "not_json": Outcome.UNKNOWN,
    "timeout_1007": Outcome.UNKNOWN, "http_500": Outcome.UNKNOWN, "http_502": Outcome.UNKNOWN, "http_504": Outcome.UNKNOWN,
    "http_403": Outcome.UNKNOWN, "answered_duplicate": Outcome.UNKNOWN,
    "overload_1008": Outcome.REJECTED, "filter_1013": Outcome.REJECTED, "key_2015": Outcome.FATAL, "throttled_429": Outcome.REJECTED,
}  # fmt: skip


@pytest.mark.parametrize("over", ["websocket", "rest"])
async def test_each_fault_has_its_outcome_by_either_way_and_the_exchange_has_what_it_says(over: str):
    async with account(over, timeout_s=0.5) as a:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)  # ccxt's reader throws at `not_json`
        for number, (fault, outcome) in enumerate(OUTCOMES.items(), 1):
            if over == "websocket":
                await a.connected()
            if fault:
                await a.exchange.faults.on(fault)
            a.failure = None
            assert await a.create(number) is outcome, (fault, a.failure)
            there = await a.exchange.faults.order(f"q-main-1-{number}-0")
            if outcome is not Outcome.UNKNOWN:
                assert (there is not None) is (outcome is Outcome.ACCEPTED), fault
            if fault:
                assert await a.exchange.faults.struck(fault) == 1, fault
        names = [order["clientOrderId"] for order in (await a.exchange.faults.truth())["orders"]]
        assert len(names) == len(set(names))
        status = a.link.transport.status
        assert status["rest"] == (len(OUTCOMES) if over == "rest" else 0) and status["fallen_back"] == 0


async def test_a_clock_that_jumps_by_an_hour_sends_nothing_new_and_comes_back():
    async with account("rest") as a:
        assert await a.create(1) is Outcome.ACCEPTED
        running = asyncio.ensure_future(a.link.run())
        try:
            await a.exchange.faults.on("clock_offset", offset_ms=3_600_000)
            assert await a.create(2) is Outcome.REJECTED
            assert isinstance(a.failure, ccxt.InvalidNonce)
            assert await a.create(3) is Outcome.REJECTED
            assert isinstance(a.failure, NotSent) and a.failure.reason == "clock"
            await until(lambda: a.link.clock.beyond)
            raw = await a.link.transport.cancel("", BTC, "q-main-1-1-0")
            assert raw["status"] == "canceled"
            assert await a.create(4) is Outcome.REJECTED
            await a.exchange.faults.off("clock_offset")
            with pytest.raises(ccxt.InvalidNonce):  # still signed by the hour
                await a.throttle.call(a.client, a.client.fetch_balance)
            await until(lambda: a.link.clock.usable)
            assert await a.create(5) is Outcome.ACCEPTED
        finally:
            running.cancel()
            await asyncio.wait({running})
        orders = {order["clientOrderId"]: order["status"] for order in (await a.exchange.faults.truth())["orders"]}
        assert orders == {"q-main-1-1-0": "CANCELED", "q-main-1-5-0": "NEW"}


async def test_a_server_whose_clock_is_elsewhere_is_not_traded_on():
    async with account("rest") as a:
        await a.exchange.faults.on("clock_offset", offset_ms=-5000)
        with pytest.raises(ConfigError, match=r"5\.\d s ahead of binance"):
            await a.link.start()


async def test_a_ban_is_heeded_to_its_end_and_then_trading_goes_on():
    async with account("websocket", timeout_s=3.0) as a:
        await a.exchange.faults.on("banned_418", retry_after_s=1)
        assert await a.create(1) is Outcome.REJECTED
        assert 0 < a.throttle.banned_s() <= 1.1
        assert await a.create(2) is Outcome.REJECTED
        assert isinstance(a.failure, NotSent)
        before = asyncio.get_running_loop().time()
        await a.throttle.call(a.client, lambda: a.client.fetch_open_orders(BTC), urgent=True)
        assert asyncio.get_running_loop().time() - before > 0.3
        assert await a.create(3) is Outcome.ACCEPTED
        assert await a.exchange.faults.struck("banned_418") == 1


async def test_limits_are_learned_and_the_weight_that_the_exchange_counts_is_believed():
    async with account("rest") as a:
        budget = a.link.status["budget"]
        assert budget["limit"] == pytest.approx(6000.0) and budget["used"] > 5
