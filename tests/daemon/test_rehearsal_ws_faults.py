"""Orders over the websocket API under faults, by unmodified ccxt: its errors are not the ones that REST raises."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from ccxt.base import errors

from tests.rehearsal_faults import Rehearsal, rehearsal

SYMBOL = "BTC/USDT"
QUIET = 20.0
SILENCE = 0.3
Client = Any


@pytest.fixture
async def exchange() -> AsyncIterator[Rehearsal]:
    async with rehearsal(tls=True, symbols=(SYMBOL,)) as made:
        yield made


@pytest.fixture
async def client(exchange: Rehearsal) -> Client:
    made = exchange.ccxt()
    await made.load_markets()
    return made


async def low(client: Client, share: float = 0.9) -> float:
    return round((await client.fetch_order_book(SYMBOL, 5))["bids"][0][0] * share, 2)


def placing(client: Client, price: float, client_id: str) -> Any:
    return client.create_order_ws(SYMBOL, "limit", "buy", 0.001, price, {"clientOrderId": client_id})


@pytest.mark.parametrize(
    ("fault", "raised", "accepted"),
    [
        ("accepted_reset", errors.NetworkError, True),
        ("timeout_1007", errors.RequestTimeout, True),
        ("http_500", errors.OperationFailed, True),
        ("http_403", errors.OperationFailed, False),
        ("overload_1008", errors.ExchangeError, False),
        ("answered_duplicate", errors.InvalidOrder, True),
        ("filter_1013", errors.BadRequest, False),
        ("key_2015", errors.AuthenticationError, False),
        ("throttled_429", errors.RateLimitExceeded, False),
        ("banned_418", errors.RateLimitExceeded, False),
    ],
)
async def test_errors_of_the_websocket(
    exchange: Rehearsal, client: Client, fault: str, raised: type[Exception], accepted: bool
) -> None:
    price = await low(client)
    await exchange.faults.on(fault, match={"over": "websocket"})
    with pytest.raises(errors.BaseError) as seen:
        await asyncio.wait_for(placing(client, price, "ws-1"), QUIET)
    assert type(seen.value) is raised
    assert (await exchange.faults.order("ws-1") is not None) is accepted


async def test_a_ban_says_until_when(exchange: Rehearsal, client: Client) -> None:
    price = await low(client)
    await exchange.faults.on("banned_418", retry_after_s=30, match={"over": "websocket"})
    with pytest.raises(errors.RateLimitExceeded) as seen:
        await asyncio.wait_for(placing(client, price, "ws-1"), QUIET)
    body = orjson.loads(str(seen.value).removeprefix("binance "))
    assert 20_000 < body["data"]["retryAfter"] - client.milliseconds() <= 30_000


async def test_an_answer_without_content_looks_like_success(exchange: Rehearsal, client: Client) -> None:
    price = await low(client)
    await exchange.faults.on("empty_answer")
    answer = await asyncio.wait_for(placing(client, price, "ws-1"), QUIET)
    assert [answer[name] for name in ("id", "status", "amount", "clientOrderId")] == [None] * 4
    assert (await exchange.faults.order("ws-1"))["status"] == "NEW"


async def test_a_late_answer_comes_to_its_own_request(exchange: Rehearsal, client: Client) -> None:
    price = await low(client)
    await exchange.faults.on("answer_late", delay_s=1.5)
    first = asyncio.ensure_future(placing(client, price, "ws-1"))
    second = await asyncio.wait_for(placing(client, price, "ws-2"), QUIET)
    assert not first.done() and second["clientOrderId"] == "ws-2"
    assert (await asyncio.wait_for(first, QUIET))["clientOrderId"] == "ws-1"


async def test_what_is_not_json_ends_every_call_of_that_connection(exchange: Rehearsal, client: Client) -> None:
    """ccxt's handler throws, the connection stays, nobody reads it any more."""
    price = await low(client)
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    await exchange.faults.on("not_json")
    calls = [asyncio.ensure_future(placing(client, price, "ws-1"))]
    await asyncio.wait(calls, timeout=SILENCE)
    calls.append(asyncio.ensure_future(client.fetch_open_orders_ws(SYMBOL)))
    done, _ = await asyncio.wait(calls, timeout=SILENCE)
    assert not done and (await exchange.faults.order("ws-1"))["status"] == "NEW"
    for call in calls:
        call.cancel()


async def test_the_whole_order_api_over_the_websocket(exchange: Rehearsal, client: Client) -> None:
    price, trigger = await low(client), await low(client, 0.95)
    stop = await asyncio.wait_for(client.create_order_ws(SYMBOL, "market", "sell", 0.01, None, {"stopLossPrice": trigger}), QUIET)
    found = await asyncio.wait_for(client.fetch_order_ws(stop["id"], SYMBOL), QUIET)
    assert (found["status"], found["triggerPrice"], found["info"]["type"]) == ("open", trigger, "STOP_LOSS")
    assert (await asyncio.wait_for(client.cancel_order_ws(stop["id"], SYMBOL), QUIET))["status"] == "canceled"
    old = await asyncio.wait_for(placing(client, price, "ws-1"), QUIET)
    new = await asyncio.wait_for(client.edit_order_ws(old["id"], SYMBOL, "limit", "buy", 0.002, price), QUIET)
    assert [order["id"] for order in await asyncio.wait_for(client.fetch_open_orders_ws(SYMBOL), QUIET)] == [new["id"]]
    await asyncio.wait_for(client.cancel_all_orders_ws(SYMBOL), QUIET)
    bought = await asyncio.wait_for(client.create_order_ws(SYMBOL, "market", "buy", 0.001), QUIET)
    assert {trade["order"] for trade in await asyncio.wait_for(client.fetch_my_trades_ws(SYMBOL), QUIET)} == {bought["id"]}
    assert len(await asyncio.wait_for(client.fetch_orders_ws(SYMBOL), QUIET)) == 4
