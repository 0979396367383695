"""Orders over the websocket API of a Binance-spot server that answers late, wrongly or not at all; ccxt is the real one."""

import asyncio
import gc
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any

import ccxt
import pytest
from aiohttp import WSMsgType, web

from agents.core.errors import ConfigError
from agents.core.instruments import Side, Symbol
from agents.core.orders import OrderId, Place, TimeInForce
from daemon.venues.budget import Lane
from daemon.venues.client import ExchangeOptions, build_client, close_client
from daemon.venues.link import Link, LinkOptions
from daemon.venues.outcomes import NotSent, Outcome, Unsettled, judge_answer, judge_error
from daemon.venues.parse import parse_order
from daemon.venues.readers import LostStream
from daemon.venues.throttle import Throttle
from tests.daemon.scripted_binance import ScriptedBinance, error, until

BTC = Symbol("BTC/USDT")


class TalkingBinance(ScriptedBinance):
    """The scripted server with orders over its websocket API. `on_talk` are faults of the next requests, in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.talked: list[dict[str, Any]] = []
        self.on_talk: list[Callable[[dict[str, Any], web.WebSocketResponse], dict[str, Any] | str | None]] = []
        self.deaf = False
        """No websocket can be opened."""
        self.no_user_stream = False

    async def _user(self, request: web.Request) -> web.WebSocketResponse:
        if self.deaf:
            raise web.HTTPServiceUnavailable
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        self.users.add(socket)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                said = json.loads(message.data)
                self.talked.append(said)
                answer = self.on_talk.pop(0)(said, socket) if self.on_talk and said["method"].startswith("order") else self.answer(said)
                if answer is not None:
                    await socket.send_str(answer if isinstance(answer, str) else json.dumps({"id": said["id"], **answer}))
        self.users.discard(socket)
        return socket

    def answer(self, said: dict[str, Any]) -> dict[str, Any]:
        match said["method"]:
            case "order.place":
                return {"status": 200, "result": {**self.add_order(said["params"]), "fills": []}}
            case "order.cancel":
                order = self._find({name: str(value) for name, value in said["params"].items()})
                if order is None:
                    return refusal(-2011, "Unknown order sent.")
                order["status"] = "CANCELED"
                return {"status": 200, "result": {**order, "origClientOrderId": order["clientOrderId"], "clientOrderId": "of-the-cancel"}}
            case _ if self.no_user_stream:
                return refusal(-1020, "This operation is not supported.")
        return {"status": 200, "result": {"subscriptionId": 0}}


def refusal(code: int, message: str, status: int = 400, **data: int) -> dict[str, Any]:
    return {"status": status, "error": {"code": code, "msg": message, **({"data": data} if data else {})}}


class Desk:
    """One account's link to the server."""

    server: TalkingBinance
    exchange: Any
    link: Link
    throttle: Throttle
    noise: list[dict[str, Any]]

    async def create(self, place: Place) -> Outcome:
        """Send, and judge as the desk of orders does."""
        try:
            return judge_answer(parse_order(await self.link.transport.create(place)), place.order_id).outcome
        except Exception as failure:  # noqa: BLE001 - judged, as the desk of orders does
            self.failure = failure
            return judge_error(failure).outcome

    async def connected(self) -> None:
        """Have the websocket stand."""
        url = self.exchange.urls["api"]["ws"]["ws-api"]["spot"]
        self.exchange.open()
        await self.exchange.client(url).connect(self.exchange.session, 0)

    def talked(self, method: str = "order.place") -> list[dict[str, Any]]:
        return [said["params"] for said in self.server.talked if said["method"] == method]

    def posted(self) -> list[dict[str, str]]:
        return [query for method, path, query in self.server.calls if (method, path) == ("POST", "order")]


@asynccontextmanager
async def desk(over: str = "auto", timeout_s: float = 0.3, **options: Any) -> AsyncIterator[Desk]:
    server = TalkingBinance()
    await server.start()
    loop, noise = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: noise.append(context))
    found = Desk()
    found.server, found.noise, found.throttle = server, noise, Throttle(timeout_s, lane=Lane.PROTECT)
    found.exchange = build_client(ExchangeOptions("binance", server.url, api_key="key", secret="secret", timeout_ms=500))
    found.link = Link(found.exchange, found.throttle, LinkOptions(orders_over=over, **options))
    try:
        await found.exchange.load_markets()
        await found.link.start()
        yield found
    finally:
        await close_client(found.exchange)
        await server.stop()
        loop.set_exception_handler(None)


def place(number: int = 1, **more: Any) -> Place:
    plain = Place(OrderId(f"q-main-1-{number}-0"), BTC, Side.BUY, Decimal("0.1"), Decimal("100.00"))
    return replace(plain, **more)


async def test_an_order_goes_by_websocket_where_it_stands_and_by_rest_while_it_does_not():
    async with desk() as d:
        assert await d.create(place(1)) is Outcome.ACCEPTED
        assert len(d.posted()) == 1 and d.talked() == []
        url = d.exchange.urls["api"]["ws"]["ws-api"]["spot"]
        await until(lambda: d.exchange.clients[url].connected.done())
        assert await d.create(place(2)) is Outcome.ACCEPTED
        assert [said["newClientOrderId"] for said in d.talked()] == ["q-main-1-2-0"] and len(d.posted()) == 1
        assert d.link.transport.status == {"over": "websocket", "websocket": 1, "rest": 1, "fallen_back": 1, "given_up": 0}


async def test_only_what_binance_knows_is_said_over_the_websocket():
    known = {
        "symbol", "side", "type", "timeInForce", "price", "quantity", "newClientOrderId", "newOrderRespType", "stopPrice", "recvWindow",
        "timestamp", "apiKey", "signature", "returnRateLimits",
    }  # fmt: skip
    async with desk() as d:
        for market in d.server.listings.values():
            market["orderTypes"] += ["STOP_LOSS", "STOP_LOSS_LIMIT"]
        await d.exchange.load_markets(True)
        await d.connected()
        kinds = [
            place(1), place(2, post_only=True), place(3, time_in_force=TimeInForce.IOC), place(4, price=None),
            place(5, side=Side.SELL, price=None, trigger_price=Decimal("90.5")),
            place(6, side=Side.SELL, price=Decimal("89.50"), trigger_price=Decimal("90.5")),
        ]  # fmt: skip
        for order in kinds:
            assert await d.create(order) is Outcome.ACCEPTED, d.failure
        assert [said["type"] for said in d.talked()] == ["LIMIT", "LIMIT_MAKER", "LIMIT", "MARKET", "STOP_LOSS", "STOP_LOSS_LIMIT"]
        assert all(set(said) <= known for said in d.talked()), [set(said) - known for said in d.talked()]
        assert [said.get("timeInForce") for said in d.talked()] == ["GTC", None, "IOC", None, None, "GTC"]
        assert [said.get("stopPrice") for said in d.talked()] == [None] * 4 + ["90.5"] * 2
        for order, said in zip(kinds, d.talked(), strict=True):
            assert Decimal(said["quantity"]) == order.quantity
            assert (Decimal(said["price"]) if "price" in said else None) == order.price


async def test_the_same_orders_by_rest_are_the_same_orders():
    async with desk("rest") as d:
        for market in d.server.listings.values():
            market["orderTypes"] += ["STOP_LOSS", "STOP_LOSS_LIMIT"]
        await d.exchange.load_markets(True)
        assert await d.create(place(1, post_only=True)) is Outcome.ACCEPTED
        assert await d.create(place(2, side=Side.SELL, price=None, trigger_price=Decimal("90.5"))) is Outcome.ACCEPTED
        assert [(said["type"], said.get("stopPrice")) for said in d.posted()] == [("LIMIT_MAKER", None), ("STOP_LOSS", "90.5")]
        assert d.server.talked == []


async def test_a_websocket_order_without_an_answer_is_unknown_in_time_sent_once_and_its_connection_given_up():
    async with desk() as d:
        await d.connected()
        old = next(iter(d.server.users))
        d.server.on_talk = [lambda said, socket: (d.server.add_order(said["params"]), None)[1]]
        async with asyncio.timeout(2):
            assert await d.create(place(1)) is Outcome.UNKNOWN
        assert isinstance(d.failure, TimeoutError)
        assert [o["clientOrderId"] for o in d.server.orders] == ["q-main-1-1-0"] and d.posted() == []
        await until(lambda: old.closed or old not in d.server.users)
        assert await d.create(place(2)) is Outcome.ACCEPTED  # REST, while the next connection is dialled
        assert len(d.posted()) == 1
        await d.connected()
        assert await d.create(place(3)) is Outcome.ACCEPTED
        assert len(d.talked()) == 2
        await quiet(d)


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        (lambda said, socket: socket._req.transport.abort(), Outcome.UNKNOWN),
        (lambda said, socket: "garbage", Outcome.UNKNOWN),
        (lambda said, socket: "[]", Outcome.UNKNOWN),
        (lambda said, socket: {"status": 200, "result": {}}, Outcome.UNKNOWN),
        (lambda said, socket: refusal(-1007, "Timeout waiting for response from backend server.", 504), Outcome.UNKNOWN),
        (lambda said, socket: refusal(-1006, "An unexpected response was received.", 500), Outcome.UNKNOWN),
        (lambda said, socket: refusal(-1000, "An unknown error occurred while processing the request.", 500), Outcome.UNKNOWN),
        (lambda said, socket: refusal(-2010, "Duplicate order sent."), Outcome.UNKNOWN),
        (lambda said, socket: refusal(-2010, "Account has insufficient balance for requested action."), Outcome.REJECTED),
        (lambda said, socket: refusal(-2010, "Order would immediately match and take."), Outcome.REJECTED),
        (lambda said, socket: refusal(-1013, "Filter failure: LOT_SIZE"), Outcome.REJECTED),
        (lambda said, socket: refusal(-1008, "Server is currently overloaded with other requests.", 503), Outcome.REJECTED),
        (lambda said, socket: refusal(-1021, "Timestamp for this request is outside of the recvWindow."), Outcome.REJECTED),
        (lambda said, socket: refusal(-1015, "Too many new orders.", 429, serverTime=1700000000000, retryAfter=1700000001000), Outcome.REJECTED),
        (lambda said, socket: refusal(-2015, "Invalid API-key, IP, or permissions for action."), Outcome.FATAL),
    ],
)  # fmt: skip
async def test_websocket_answers_are_judged_by_the_same_table_and_never_sent_again(fault: Any, outcome: Outcome):
    async with desk() as d:
        await d.connected()
        d.server.on_talk = [fault]
        assert await d.create(place()) is outcome, d.failure
        assert len(d.talked()) == 1 and d.posted() == []
        await quiet(d)


async def test_a_ban_told_over_the_websocket_lasts_as_long_as_it_says():
    async with desk() as d:
        await d.connected()
        told = {"serverTime": 1700000000000, "retryAfter": 1700000030000}
        d.server.on_talk = [lambda said, socket: refusal(-1003, "Too much request weight used; IP banned.", 418, **told)]
        assert await d.create(place(1)) is Outcome.REJECTED
        assert 25 < d.throttle.banned_s() <= 30
        assert await d.create(place(2)) is Outcome.REJECTED
        assert isinstance(d.failure, NotSent) and d.failure.reason == "throttled"
        assert len(d.talked()) == 1 and d.posted() == []


async def test_a_cancelled_websocket_call_is_unknown_and_does_not_stop_the_sender():
    async with desk() as d:
        await d.connected()
        url = d.exchange.urls["api"]["ws"]["ws-api"]["spot"]

        def cut(said: dict[str, Any], socket: web.WebSocketResponse) -> None:
            for future in d.exchange.clients[url].futures.values():
                future.cancel()

        d.server.on_talk = [cut]
        assert await d.create(place()) is Outcome.UNKNOWN, d.failure
        assert isinstance(d.failure, LostStream)


async def test_a_cancel_goes_by_websocket_and_by_rest_where_that_fails():
    async with desk() as d:
        await d.connected()
        ids = []
        for number in (1, 2, 3):
            raw = await d.link.transport.create(place(number))
            ids.append(raw["id"])
        raw = await d.link.transport.cancel(ids[0], BTC)
        assert raw["status"] == "canceled" and d.talked("order.cancel")[0]["orderId"] == ids[0]
        d.server.on_talk = [lambda said, socket: socket._req.transport.abort()]
        assert (await d.link.transport.cancel(ids[1], BTC))["status"] == "canceled"
        d.server.deaf = True
        assert (await d.link.transport.cancel("", BTC, "q-main-1-3-0"))["status"] == "canceled"
        assert [path for method, path, _ in d.server.calls if method == "DELETE"] == ["order", "order"]
        with pytest.raises(ccxt.OrderNotFound):
            await d.link.transport.cancel("99", BTC)


async def test_no_websocket_at_all_costs_nothing_but_the_dial():
    async with desk("websocket") as d:
        d.server.deaf = True
        for number in range(1, 4):
            assert await d.create(place(number)) is Outcome.ACCEPTED
        assert len(d.posted()) == 3 and len(d.server.orders) == 3
        await quiet(d)


async def test_many_orders_at_once_over_one_connection_each_arrive_once_and_leave_nothing_behind():
    async with desk(timeout_s=5) as d:
        await d.connected()
        outcomes = await asyncio.gather(*(d.create(place(number)) for number in range(1, 51)))
        assert set(outcomes) == {Outcome.ACCEPTED}
        assert sorted(o["clientOrderId"] for o in d.server.orders) == sorted(f"q-main-1-{n}-0" for n in range(1, 51))
        (connection,) = d.exchange.clients.values()
        assert connection.subscriptions == {} and connection.futures == {}


async def test_a_server_without_a_user_stream_is_told_of_once_and_asyncio_complains_of_nothing():
    async with desk() as d:
        d.server.no_user_stream = True
        with pytest.raises((ccxt.BaseError, KeyError)):  # ccxt itself stumbles over a refused login
            await d.exchange.watch_orders()
        d.server.deaf = True
        await d.server.drop()
        await until(lambda: not d.exchange.clients)
        with pytest.raises((ccxt.BaseError, KeyError)):  # ccxt itself stumbles over a refused login
            await d.exchange.watch_orders()
        await quiet(d)


async def test_other_lost_exceptions_are_still_told():
    async with desk() as d:
        await d.connected()
        (connection,) = d.exchange.clients.values()
        connection.future("something else")
        connection.reject(ccxt.NetworkError("unheard"), "something else")
        await collected()
        assert [str(context.get("exception")) for context in d.noise] == ["unheard"]


async def test_nothing_is_sent_by_a_clock_that_is_not_known_to_be_right():
    async with desk() as d:
        d.link.clock.heard(ccxt.InvalidNonce("binance"))
        assert await d.create(place()) is Outcome.REJECTED
        assert isinstance(d.failure, NotSent) and d.failure.reason == "clock"
        assert d.posted() == [] and d.talked() == []
        raw = await d.link.transport.cancel("", BTC, "q-main-1-9-0") if d.server.add_order(
            {"symbol": "BTCUSDT", "newClientOrderId": "q-main-1-9-0", "quantity": "1", "type": "LIMIT", "side": "BUY"}
        ) else {}
        assert raw["status"] == "canceled"
        sale = place(77, side=Side.SELL, reduce_only=True)
        assert await d.create(sale) is Outcome.ACCEPTED, "what reduces risk is tried"


async def test_silence_asked_for_between_two_requests_of_one_order_leaves_it_unknown():
    async with desk("rest") as d:
        create = d.exchange.create_order

        async def twice(*arguments: Any) -> Any:
            await create(*arguments)
            return await d.exchange.fetch_order("none", BTC)

        d.exchange.create_order = twice
        d.server.refuse["GET order"] = lambda: error(-1003, "too many", 429, **{"Retry-After": "1"})
        assert await d.create(place()) is Outcome.UNKNOWN, d.failure
        assert isinstance(d.failure, Unsettled) and len(d.server.orders) == 1


async def test_an_id_that_does_not_fit_is_refused_unsent():
    async with desk("rest", capabilities={"client_id": "plain32"}) as d:
        assert await d.create(place(1, order_id=OrderId("q-abcdefgh-zzzzzzz-zzzzzzzzz-zzzz"))) is Outcome.REJECTED
        assert isinstance(d.failure, NotSent) and d.failure.reason == "client_id" and d.posted() == []


async def test_another_spelling_is_spoken_outward_and_ours_inward():
    async with desk("rest", capabilities={"client_id": "letters32"}) as d:
        raw = await d.link.transport.create(place(7))
        assert d.server.orders[0]["clientOrderId"] == "qZmainZ1Z7Z0" and raw["clientOrderId"] == "q-main-1-7-0"
        found = await d.exchange.fetch_order("", BTC, {"clientOrderId": "q-main-1-7-0"})
        assert found["clientOrderId"] == "q-main-1-7-0"
        assert [o["clientOrderId"] for o in await d.exchange.fetch_open_orders(BTC)] == ["q-main-1-7-0"]
        assert (await d.link.transport.cancel("", BTC, "q-main-1-7-0"))["status"] == "canceled"


async def test_a_link_refuses_an_exchange_that_lacks_what_orders_need_before_it_dials():
    async with desk() as d:
        before = len(d.server.calls)
        with pytest.raises(ConfigError, match=r"binance lacks .*own trades"):
            Link(d.exchange, d.throttle, LinkOptions(capabilities={"own_trades": False}))
        assert len(d.server.calls) == before


async def collected() -> None:
    """Let what was thrown away be found."""
    for _ in range(5):
        await asyncio.sleep(0)
    gc.collect()
    await asyncio.sleep(0)


async def quiet(d: Desk) -> None:
    await close_client(d.exchange)
    d.exchange.clients = {}
    await collected()
    assert [str(context) for context in d.noise if "never retrieved" in context["message"]] == []
