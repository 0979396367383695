"""Orders against a server that answers late, wrongly, twice or not at all; ccxt is the real one."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web

from agents.core.errors import ConfigError
from agents.core.events import Balance, Event, Fill, OrderUpdate
from agents.core.instruments import Side, Symbol
from agents.core.orders import Cancel, OrderId, OrderState, Place, TimeInForce
from daemon.venues.ccxt import CcxtVenue, VenueOptions
from daemon.venues.client import ExchangeOptions, build_client
from daemon.venues.feed import CcxtFeed, FeedOptions
from daemon.venues.link import LinkOptions
from tests.daemon.scripted_binance import ScriptedBinance, error, scripted_binance, until

BTC = Symbol("BTC/USDT")
BY_REST = LinkOptions(orders_over="rest")  # orders over the websocket: test_venue_transport.py
QUICK = VenueOptions(timeout_s=0.6, window_s=1.2, sweep_s=0.3, balance_s=0.5, link=BY_REST)
Fault = Callable[[dict[str, str], web.Request], Awaitable[web.StreamResponse | None]]


class Told(list[Event]):
    """Everything the venue told, with what concerns orders picked out."""

    venue: CcxtVenue
    failure: BaseException | None = None

    def states(self, order_id: str = "q-main-1-1-0") -> list[str]:
        return [e.state.value for e in self if isinstance(e, OrderUpdate) and e.order_id == order_id]

    def last(self, order_id: str = "q-main-1-1-0") -> OrderUpdate:
        return [e for e in self if isinstance(e, OrderUpdate) and e.order_id == order_id][-1]

    def story(self) -> list[str]:
        """Order states and fills in the order of telling."""
        return [e.state.value if isinstance(e, OrderUpdate) else "fill" for e in self if isinstance(e, OrderUpdate | Fill)]

    @property
    def fills(self) -> list[Fill]:
        return [e for e in self if isinstance(e, Fill)]


@asynccontextmanager
async def trading(options: VenueOptions = QUICK) -> AsyncIterator[tuple[ScriptedBinance, Told]]:
    async with scripted_binance() as server:
        account = ExchangeOptions("binance", server.url, api_key="key", secret="secret", timeout_ms=500)
        feed = CcxtFeed(lambda: build_client(account.without_keys()), (BTC,), time.time_ns, FeedOptions(history=()))
        told = Told()
        told.venue = CcxtVenue(feed, account, time.time_ns, "main", options)

        async def read() -> None:
            try:
                async with aclosing(told.venue.events()) as events:  # type: ignore[type-var]
                    async for event in events:
                        told.append(event)
            except ConfigError as failure:
                told.failure = failure

        await told.venue.open()
        reader = asyncio.ensure_future(read())
        await until(lambda: server.users)
        try:
            yield server, told
        finally:
            reader.cancel()
            await asyncio.wait({reader})
            await told.venue.close()


def place(number: int = 1, price: str = "100.0", quantity: str = "0.1", **more: Any) -> Place:
    return Place(OrderId(f"q-main-1-{number}-0"), BTC, Side.BUY, Decimal(quantity), Decimal(price), **more)


def answer(code: int, message: str, status: int = 400, accept: bool = False, **headers: str) -> Callable[[ScriptedBinance], Fault]:
    """The exchange says an error, having taken the order or not."""

    def of(server: ScriptedBinance) -> Fault:
        async def fault(query: dict[str, str], request: web.Request) -> web.StreamResponse:
            if accept:
                server.add_order(query)
            return error(code, message, status, **headers)

        return fault

    return of


def body(text: str, status: int = 200, accept: bool = True) -> Callable[[ScriptedBinance], Fault]:
    """Not what an exchange should say."""

    def of(server: ScriptedBinance) -> Fault:
        async def fault(query: dict[str, str], request: web.Request) -> web.StreamResponse:
            if accept:
                server.add_order(query)
            return web.Response(text=text, status=status)

        return fault

    return of


def late(server: ScriptedBinance) -> Fault:
    async def fault(query: dict[str, str], request: web.Request) -> web.StreamResponse | None:
        server.add_order(query)
        await asyncio.sleep(1.0)
        return web.json_response({})

    return fault


def reset(server: ScriptedBinance) -> Fault:
    async def fault(query: dict[str, str], request: web.Request) -> web.StreamResponse | None:
        server.add_order(query)
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    return fault


def nothing(server: ScriptedBinance) -> Fault:
    async def fault(query: dict[str, str], request: web.Request) -> web.StreamResponse | None:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    return fault


@pytest.mark.parametrize(
    "fault",
    [
        late, reset, body(""), body("<html>"), body("", 500), body("oops", 502), body("<html>", 403), body("", 504),
        answer(-1007, "Timeout waiting for response.", 503, accept=True), answer(-1006, "Status unknown.", 500, accept=True),
        answer(-1000, "Unknown error.", 400, accept=True), answer(-2010, "Duplicate order sent.", 400, accept=True),
        body('{"orderId": '), body("[]"), body('{"clientOrderId": "other", "orderId": 7, "symbol": "BTCUSDT", "status": "NEW"}'),
    ],
)  # fmt: skip
async def test_what_may_have_been_accepted_is_unknown_until_it_is_found(fault: Callable[[ScriptedBinance], Fault]) -> None:
    async with trading() as (server, told):
        server.on_order.append(fault(server))
        await told.venue.send(place())
        await until(lambda: "open" in told.states())
        assert told.states() == ["unknown", "open"]
        assert told.last().venue_order_id == "1000"
        assert sum(call[:2] == ("POST", "order") for call in server.calls) == 1


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (answer(-1013, "Filter failure: NOTIONAL"), "filter"),
        (answer(-1013, "Filter failure: LOT_SIZE"), "filter"),
        (answer(-2010, "Account has insufficient balance for requested action."), "insufficient_balance"),
        (answer(-2010, "Order would immediately match and take."), "would_cross"),
        (answer(-1008, "Server is currently overloaded.", 503), "overloaded"),
        (answer(-1021, "Timestamp for this request is outside of the recvWindow."), "clock"),
        (answer(-1100, "Illegal characters found in parameter."), "malformed"),
        (answer(-1015, "Too many new orders.", 400), "throttled"),
    ],
)
async def test_a_refusal_is_final_and_says_why(fault: Callable[[ScriptedBinance], Fault], reason: str) -> None:
    async with trading() as (server, told):
        server.on_order.append(fault(server))
        await told.venue.send(place())
        await until(told.states)
        assert told.states() == ["rejected"]
        assert told.last().reason == reason


async def test_absence_is_believed_only_after_several_looks_over_the_window() -> None:
    async with trading() as (server, told):
        server.on_order.append(nothing(server))
        sent = time.monotonic()
        await told.venue.send(place())
        await until(lambda: "rejected" in told.states())
        assert told.states() == ["unknown", "rejected"]
        assert told.last().reason == "not_found"
        assert time.monotonic() - sent >= QUICK.window_s
        assert sum(call[:2] == ("GET", "order") for call in server.calls) >= 4


async def test_an_order_that_turns_up_late_is_found_before_the_window_ends() -> None:
    async with trading() as (server, told):
        server.on_order.append(nothing(server))
        await told.venue.send(place())
        await until(lambda: sum(call[:2] == ("GET", "order") for call in server.calls) >= 2)
        server.add_order({"symbol": "BTCUSDT", "newClientOrderId": "q-main-1-1-0", "quantity": "0.1", "price": "100.0", "type": "LIMIT",
                          "side": "BUY"})  # fmt: skip
        await until(lambda: "open" in told.states())
        assert told.states() == ["unknown", "open"]


@pytest.mark.parametrize("headers", [{"Retry-After": "1"}, {}])
async def test_too_many_requests_means_silence(headers: dict[str, str]) -> None:
    async with trading() as (server, told):
        server.on_order.append(answer(-1003, "Too much request weight used.", 429, **headers)(server))
        await told.venue.send(place(1))
        await until(told.states)
        asked = len(server.calls)
        await told.venue.send(place(2))
        await until(lambda: told.states("q-main-1-2-0"))
        assert (told.last().reason, told.last("q-main-1-2-0").reason) == ("throttled", "throttled")
        assert len([call for call in server.calls[asked:] if call[1] not in ("depth", "trades")]) == 0
        if headers:
            await until(lambda: any(call[1] == "account" for call in server.calls[asked:]))
            await told.venue.send(place(3))
            await until(lambda: "open" in told.states("q-main-1-3-0"))


async def test_a_refused_key_ends_trading_with_one_clear_sentence() -> None:
    async with trading() as (server, told):
        server.on_order.append(answer(-2015, "Invalid API-key, IP, or permissions for action.", 401)(server))
        await told.venue.send(place())
        await until(lambda: told.failure)
        assert isinstance(told.failure, ConfigError)
        assert "exchange.api_key" in str(told.failure)
        assert told.states() == ["rejected"]


async def test_a_key_that_never_worked_is_refused_at_the_start() -> None:
    async with scripted_binance() as server:
        server.refuse["account"] = lambda: error(-2015, "Invalid API-key, IP, or permissions for action.", 401)
        account = ExchangeOptions("binance", server.url, api_key="key", secret="secret", timeout_ms=500)
        feed = CcxtFeed(lambda: build_client(account.without_keys()), (BTC,), time.time_ns, FeedOptions(history=()))
        venue = CcxtVenue(feed, account, time.time_ns, "main", QUICK)
        with pytest.raises(ConfigError, match=r"exchange\.api_key"):
            await venue.balances()
        await venue.close()


async def test_the_end_of_an_order_is_told_after_its_fills() -> None:
    async with trading() as (server, told):
        await told.venue.send(place())
        await until(lambda: "open" in told.states())
        order = server.orders[0]
        await server.report(order, server.fill(order, "0.04"))
        await until(lambda: told.fills)
        await server.report(order, server.fill(order, "0.06", fee="0.5", asset="BNB"))
        await until(lambda: "filled" in told.states())
        story = told.story()
        assert (story[0], story[-1], story.count("fill")) == ("open", "filled", 2)
        first, second = told.fills
        assert (first.quantity, first.fee, first.fee_currency, first.maker) == (Decimal("0.04"), Decimal("0.0001"), "BTC", True)
        assert (second.quantity, second.fee, second.fee_currency) == (Decimal("0.06"), Decimal("0.5"), "BNB")
        assert first.order_id == second.order_id == "q-main-1-1-0"


async def test_fills_are_found_without_any_hint() -> None:
    async with trading() as (server, told):
        await told.venue.send(place())
        await until(lambda: "open" in told.states())
        server.fill(server.orders[0], "0.10")
        await until(lambda: "filled" in told.states())
        assert told.story() == ["open", "fill", "filled"]


async def test_a_fill_that_comes_before_the_acknowledgement_is_kept_for_it() -> None:
    async with trading() as (server, told):

        async def slow(query: dict[str, str], request: web.Request) -> web.StreamResponse:
            order = server.add_order(query)
            await server.report(order, server.fill(order, "0.10"))
            await asyncio.sleep(0.2)
            return web.json_response({**order, "status": "NEW", "executedQty": "0.0", "fills": []})

        server.on_order.append(slow)
        await told.venue.send(place())
        await until(lambda: "filled" in told.states())
        assert told.story() == ["open", "fill", "filled"]


async def test_hints_twice_out_of_order_and_after_the_cancel_make_each_fill_once() -> None:
    async with trading() as (server, told):
        await told.venue.send(place(quantity="0.3"))
        await until(lambda: "open" in told.states())
        order = server.orders[0]
        first = server.fill(order, "0.1")
        early = dict(order)
        second = server.fill(order, "0.1")
        for state, trade in ((order, second), (early, first), (order, second), (early, first), (early, None)):
            await server.report(state, trade)
        await until(lambda: len(told.fills) == 2)
        await told.venue.send(Cancel(OrderId("q-main-1-1-0"), BTC))
        await until(lambda: "canceled" in told.states())
        last = server.fill(order, "0.05")  # it had happened before the cancel, and is told after it
        order["status"] = "CANCELED"
        await server.report(order, last)
        await server.report(early, first)
        await until(lambda: len(told.fills) == 3)
        await told.venue.sweep([BTC])
        assert [fill.trade_id for fill in told.fills] == ["500", "501", "502"]
        assert told.states()[-1] == "canceled"


async def test_a_private_stream_that_is_terminated_costs_time_and_no_fill() -> None:
    async with trading() as (server, told):
        await told.venue.send(place())
        await until(lambda: "open" in told.states())
        for socket in list(server.users):
            await socket.send_str('{"subscriptionId": 0, "event": {"e": "eventStreamTerminated", "E": 1}}')
        server.fill(server.orders[0], "0.04")
        await until(lambda: len(told.fills) == 1)
        server.fill(server.orders[0], "0.06")
        await until(lambda: "filled" in told.states())
        assert told.story()[-1] == "filled"


async def test_an_order_that_nobody_was_told_of_is_followed_from_its_own_record() -> None:
    async with trading() as (server, told):
        for user in list(server.users):
            await user.close()
        await told.venue.send(place())
        await until(lambda: "open" in told.states())
        server.orders[0] |= {"status": "EXPIRED"}
        await until(lambda: "expired" in told.states())


async def test_an_immediate_order_is_filled_and_expired_from_its_answer() -> None:
    async with trading() as (server, told):

        async def at_once(query: dict[str, str], request: web.Request) -> web.StreamResponse:
            assert query["timeInForce"] == "IOC"
            order = server.add_order(query)
            server.fill(order, "0.03")
            order["status"] = "EXPIRED"
            return web.json_response({**order, "fills": []})

        server.on_order.append(at_once)
        await told.venue.send(place(time_in_force=TimeInForce.IOC))
        await until(lambda: "expired" in told.states())
        assert told.story() == ["open", "fill", "expired"]


async def test_a_post_only_order_is_sent_as_one() -> None:
    async with trading() as (server, told):
        await told.venue.send(place(post_only=True))
        await until(lambda: "open" in told.states())
        sent = next(call[2] for call in server.calls if call[:2] == ("POST", "order"))
        assert (sent["type"], sent["newClientOrderId"], sent["quantity"], sent["price"]) == ("LIMIT_MAKER", "q-main-1-1-0", "0.1", "100")


async def test_a_cancel_is_matched_by_what_was_asked_not_by_its_answer() -> None:
    async with trading() as (server, told):
        await told.venue.send(place())
        await until(lambda: "open" in told.states())
        server.fill(server.orders[0], "0.04")
        await told.venue.send(Cancel(OrderId("q-main-1-1-0"), BTC))
        await until(lambda: "canceled" in told.states())
        assert told.story()[-2:] == ["fill", "canceled"]
        assert told.last().filled == Decimal("0.04")


async def test_cancelling_what_is_gone_finds_out_how_it_ended() -> None:
    async with trading() as (server, told):
        await told.venue.send(place())
        await until(lambda: "open" in told.states())
        server.fill(server.orders[0], "0.10")
        await told.venue.send(Cancel(OrderId("q-main-1-1-0"), BTC))
        await until(lambda: "filled" in told.states())
        assert told.story() == ["open", "fill", "filled"]


async def test_an_unknown_order_is_cancelled_as_soon_as_it_turns_up() -> None:
    async with trading() as (server, told):
        server.on_order.append(late(server))
        await told.venue.send(place())
        await told.venue.send(Cancel(OrderId("q-main-1-1-0"), BTC))
        await until(lambda: "canceled" in told.states())
        assert server.orders[0]["status"] == "CANCELED"


async def test_a_cancel_survives_lost_connections() -> None:
    async with trading() as (server, told):
        await told.venue.send(place())
        await until(lambda: "open" in told.states())
        failures = [web.Response(status=502), web.Response(status=502)]
        server.refuse["DELETE order"] = lambda: failures.pop() if failures else server.refuse.clear() or web.Response(status=502)  # type: ignore[func-returns-value]
        await told.venue.send(Cancel(OrderId("q-main-1-1-0"), BTC))
        await until(lambda: "canceled" in told.states())


async def test_missing_fills_are_looked_for_and_in_the_end_reported_missing() -> None:
    async with trading() as (server, told):
        await told.venue.send(place())
        await until(lambda: "open" in told.states())
        server.orders[0] |= {"status": "FILLED", "executedQty": "0.10000"}
        await until(lambda: "filled" in told.states())
        assert told.last().reason == "fills_missing"
        assert told.last().filled == Decimal("0.1")


async def test_a_fill_that_is_told_after_the_end_still_comes() -> None:
    async with trading() as (server, told):
        await told.venue.send(place(1))
        await told.venue.send(place(2, price="90.0"))
        await until(lambda: "open" in told.states("q-main-1-2-0"))
        order = next(o for o in server.orders if o["clientOrderId"] == "q-main-1-1-0")
        order["status"] = "CANCELED"
        await until(lambda: "canceled" in told.states())
        assert not told.fills
        server.fill(order, "0.05")
        await until(lambda: told.fills)
        assert told.fills[0].order_id == "q-main-1-1-0"


async def test_trades_of_the_past_and_of_others_are_not_ours() -> None:
    async with trading() as (server, told):
        manual = server.add_order({"symbol": "BTCUSDT", "newClientOrderId": "by-hand", "quantity": "0.1", "price": "90",
                                   "type": "LIMIT", "side": "BUY"})  # fmt: skip
        await told.venue.send(place())
        await until(lambda: "open" in told.states())
        await server.report(manual, server.fill(manual, "0.10"))
        server.fill(server.orders[1], "0.10")
        await until(lambda: "filled" in told.states())
        assert [fill.order_id for fill in told.fills] == ["q-main-1-1-0"]


async def test_balances_are_told_and_settling_waits_for_the_last_fill() -> None:
    async with trading(VenueOptions(sweep_s=60, balance_s=0.2, link=BY_REST)) as (server, told):
        await until(lambda: [e for e in told if isinstance(e, Balance)])
        await told.venue.send(place())
        await until(lambda: "open" in told.states())
        server.fill(server.orders[0], "0.10")
        assert await told.venue.settle(5)
        await until(lambda: "filled" in told.states())


async def test_settling_gives_up_when_an_order_stays() -> None:
    async with trading() as (_, told):
        await told.venue.send(place())
        await until(lambda: "open" in told.states())
        assert not await told.venue.settle(0.5)


async def test_trading_goes_on_when_the_private_stream_is_cut() -> None:
    async with trading() as (server, told):
        await server.drop()
        await told.venue.send(place())
        await until(lambda: "open" in told.states())
        server.fill(server.orders[0], "0.10")
        await until(lambda: "filled" in told.states())
        await until(lambda: server.users)


async def test_a_full_outbox_refuses_unsent() -> None:
    async with trading(VenueOptions(queue=1, senders=1, link=BY_REST)) as (server, told):
        for number in range(1, 6):
            await told.venue.send(place(number))
        await until(lambda: [e for e in told if isinstance(e, OrderUpdate) and e.reason == "outbox_full"])
        await until(lambda: any(e.state is OrderState.OPEN for e in told if isinstance(e, OrderUpdate)))
        assert len({call[2]["newClientOrderId"] for call in server.calls if call[:2] == ("POST", "order")}) < 5


async def test_an_order_that_rested_and_was_refused_in_the_end_is_over() -> None:
    async with trading() as (server, told):
        await told.venue.send(place())
        await until(lambda: "open" in told.states())
        server.orders[0]["status"] = "REJECTED"  # some exchanges refuse a stop once it is triggered
        await until(lambda: "expired" in told.states())
        assert await told.venue.settle(5)


async def test_an_order_that_is_cancelled_before_its_turn_is_never_sent() -> None:
    async with trading(VenueOptions(timeout_s=3, senders=1, sweep_s=60, link=BY_REST)) as (server, told):
        server.on_order.append(late(server))
        await told.venue.send(place(1))
        await until(lambda: server.orders)
        await told.venue.send(place(2))
        await told.venue.send(Cancel(OrderId("q-main-1-2-0"), BTC))
        await until(lambda: "rejected" in told.states("q-main-1-2-0"))
        assert told.last("q-main-1-2-0").reason == "not_wanted"
        assert [order["clientOrderId"] for order in server.orders] == ["q-main-1-1-0"]


async def test_an_order_that_waited_too_long_for_its_turn_is_not_sent_unless_it_reduces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("daemon.venues.orders.TOO_LATE_S", 0.2)
    async with trading(VenueOptions(timeout_s=3, senders=1, sweep_s=60, link=BY_REST)) as (server, told):
        server.on_order.append(late(server))
        for number in (1, 2):
            await told.venue.send(place(number))
        await told.venue.send(replace(place(3), side=Side.SELL, reduce_only=True))
        await until(lambda: "open" in told.states("q-main-1-3-0"))
        assert told.last("q-main-1-2-0").reason == "too_late"
        assert [order["clientOrderId"] for order in server.orders] == ["q-main-1-1-0", "q-main-1-3-0"]


async def test_cancels_that_are_asked_for_again_and_again_leave_room_for_the_next_command() -> None:
    async with trading(VenueOptions(timeout_s=3, cancellers=1, queue=4, sweep_s=0.05, link=BY_REST)) as (server, told):
        stuck = asyncio.Event()
        server.refuse["DELETE order"] = lambda: stuck.set() or web.Response(status=502)  # type: ignore[func-returns-value]
        for number in (1, 2, 3):
            await told.venue.send(place(number, price=f"{90 + number}.0"))
            await until(lambda name=f"q-main-1-{number}-0": "open" in told.states(name))
        async with asyncio.timeout(1):
            for _ in range(10):
                for number in (1, 2, 3):
                    await told.venue.send(Cancel(OrderId(f"q-main-1-{number}-0"), BTC))
        await until(stuck.is_set)


async def test_an_order_of_the_same_name_from_before_a_journal_was_lost_is_no_evidence() -> None:
    async with trading() as (server, told):
        old = server.add_order({"symbol": "BTCUSDT", "newClientOrderId": "q-main-1-1-0", "quantity": "0.1", "price": "50",
                                "type": "LIMIT", "side": "BUY"})  # fmt: skip
        old |= {"status": "FILLED", "executedQty": "0.10000", "time": old["time"] - 3_600_000}
        await told.venue.adopt([], {}, epoch=1)
        server.on_order.append(nothing(server))
        await told.venue.send(place())
        await until(lambda: "rejected" in told.states() or "filled" in told.states())
        assert (told.states(), told.last().reason) == (["unknown", "rejected"], "not_found")


async def test_a_fill_of_an_order_that_was_told_as_never_found_is_booked_and_the_order_lives_again() -> None:
    async with trading() as (server, told):
        server.on_order.append(nothing(server))
        await told.venue.send(place())
        await until(lambda: "rejected" in told.states())
        late = server.add_order({"symbol": "BTCUSDT", "newClientOrderId": "q-main-1-1-0", "quantity": "0.1", "price": "100",
                                 "type": "LIMIT", "side": "BUY"})  # fmt: skip
        server.fill(late, "0.1")
        await told.venue.sweep([BTC])
        await until(lambda: "filled" in told.states())
        assert told.states() == ["unknown", "rejected", "open", "filled"]
        assert [(fill.order_id, fill.quantity) for fill in told.fills] == [("q-main-1-1-0", Decimal("0.1"))]


async def test_look_ups_that_hang_leave_room_for_the_next_order() -> None:
    async with trading(VenueOptions(timeout_s=2.5, window_s=1.2, sweep_s=60, link=BY_REST)) as (server, told):
        exchange, _ = await told.venue.open()

        async def hang(*_: object, **__: object) -> None:
            await asyncio.Event().wait()

        exchange.fetch_order = hang
        server.on_order += [nothing(server)] * 10
        for number in range(1, 11):
            await told.venue.send(place(number))
        await until(lambda: all("unknown" in told.states(f"q-main-1-{number}-0") for number in range(1, 11)))
        await asyncio.sleep(2.8)  # the first looks have timed out, and all others are due
        await told.venue.send(replace(place(11), side=Side.SELL, reduce_only=True))
        await until(lambda: told.states("q-main-1-11-0"))
        assert told.states("q-main-1-11-0") == ["open"]
