"""What unmodified ccxt does when the exchange's answers to orders go wrong: each row is what the daemon must expect.

The client dials Binance's own names over TLS, resolved to the rehearsal exchange: by rewritten URLs it maps fewer error codes.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from ccxt.base import errors

from tests.rehearsal_faults import Rehearsal, rehearsal

SYMBOL = "BTC/USDT"
QUIET = 20.0
"""Far more than loopback needs, far less than ccxt waits."""
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


async def far_below(client: Client) -> float:
    """A price at which an order rests."""
    book = await client.fetch_order_book(SYMBOL, 5)
    return float(client.price_to_precision(SYMBOL, book["bids"][0][0] * 0.9))


async def place(client: Client, client_id: str, **params: Any) -> Any:
    return await client.create_order(SYMBOL, "limit", "buy", 0.01, await far_below(client), {"clientOrderId": client_id, **params})


@pytest.mark.parametrize(
    ("fault", "raised", "details"),
    [
        ("accepted_reset", errors.ExchangeNotAvailable, {}),
        ("timeout_1007", errors.RequestTimeout, {}),
        ("http_504", errors.RequestTimeout, {}),
        ("http_500", errors.ExchangeNotAvailable, {}),
        ("http_502", errors.ExchangeNotAvailable, {}),
        ("http_403", errors.ExchangeNotAvailable, {"executed": True}),
    ],
)
async def test_an_error_that_hides_an_accepted_order(
    exchange: Rehearsal, client: Client, fault: str, raised: type[Exception], details: dict[str, Any]
) -> None:
    await exchange.faults.on(fault, **details)
    with pytest.raises(raised) as seen:
        await place(client, "hidden-1")
    assert type(seen.value) is raised
    assert (await exchange.faults.order("hidden-1"))["status"] == "NEW"
    found = await client.fetch_order("", SYMBOL, {"clientOrderId": "hidden-1"})
    assert found["status"] == "open" and found["clientOrderId"] == "hidden-1"


@pytest.mark.parametrize("fault", ["timeout_1007", "http_403", "http_500", "http_502", "http_504"])
async def test_the_same_error_without_an_order(exchange: Rehearsal, client: Client, fault: str) -> None:
    await exchange.faults.on(fault, executed=False)
    with pytest.raises(errors.NetworkError):
        await place(client, "nothing-1")
    assert await exchange.faults.order("nothing-1") is None
    with pytest.raises(errors.OrderNotFound):
        await client.fetch_order("", SYMBOL, {"clientOrderId": "nothing-1"})


async def test_an_answer_that_comes_too_late(exchange: Rehearsal, client: Client) -> None:
    await exchange.faults.on("answer_late", delay_s=30)
    price = await far_below(client)
    client.timeout = 300
    with pytest.raises(errors.RequestTimeout):
        await client.create_order(SYMBOL, "limit", "buy", 0.01, price, {"clientOrderId": "late-1"})
    client.timeout = 10_000
    assert (await client.fetch_order("", SYMBOL, {"clientOrderId": "late-1"}))["status"] == "open"


@pytest.mark.parametrize("fault", ["empty_answer", "not_json"])
async def test_an_answer_without_content_looks_like_success(exchange: Rehearsal, client: Client, fault: str) -> None:
    await exchange.faults.on(fault)
    answer = await place(client, "void-1")
    assert [answer[name] for name in ("id", "status", "amount", "price", "clientOrderId")] == [None] * 5
    assert answer["filled"] == 0  # ccxt sums an empty list of trades: it does not know
    assert (await exchange.faults.order("void-1"))["status"] == "NEW"


@pytest.mark.parametrize(("tls", "raised"), [(True, errors.OperationFailed), (False, errors.ExchangeError)])
async def test_overload_is_not_accepted(tls: bool, raised: type[Exception]) -> None:
    """ccxt maps -1008 by the exchange's own URLs only, to an error that is neither of its two large families."""
    async with rehearsal(tls=tls, symbols=(SYMBOL,)) as exchange:
        await exchange.faults.on("overload_1008")
        client = exchange.ccxt()
        with pytest.raises(errors.BaseError, match="-1008") as seen:
            await place(client, "over-1")
        assert type(seen.value) is raised
        assert await exchange.faults.order("over-1") is None


async def test_a_client_id_again_is_evidence_of_the_first(client: Client) -> None:
    await place(client, "twice-1")
    with pytest.raises(errors.InvalidOrder, match="Duplicate order sent"):
        await place(client, "twice-1")


async def test_a_first_order_may_be_called_a_duplicate(exchange: Rehearsal, client: Client) -> None:
    await exchange.faults.on("answered_duplicate")
    with pytest.raises(errors.InvalidOrder, match="Duplicate order sent"):
        await place(client, "first-1")
    assert (await exchange.faults.order("first-1"))["status"] == "NEW"


@pytest.mark.parametrize(
    ("name", "raised"), [("NOTIONAL", errors.BadRequest), ("MAX_NUM_ORDERS", errors.BadRequest), ("LOT_SIZE", errors.InvalidOrder)]
)
async def test_a_filter_failure_is_a_bad_request(exchange: Rehearsal, client: Client, name: str, raised: type[Exception]) -> None:
    await exchange.faults.on("filter_1013", filter=name)
    with pytest.raises(raised) as seen:
        await place(client, "filtered-1")
    assert type(seen.value) is raised
    assert await exchange.faults.order("filtered-1") is None


async def test_a_key_that_ends_looks_temporary(exchange: Rehearsal, client: Client) -> None:
    await client.fetch_balance()
    await exchange.faults.on("key_2015", seconds=60)
    for call in (client.fetch_balance(), client.fetch_open_orders(SYMBOL)):
        with pytest.raises(errors.DDoSProtection) as seen:
            await call
        assert isinstance(seen.value, errors.NetworkError) and "-2015" in str(seen.value)
    await client.fetch_time()


@pytest.mark.parametrize(("fault", "status"), [("throttled_429", 429), ("banned_418", 418)])
async def test_too_many_requests_say_when_to_come_back(exchange: Rehearsal, client: Client, fault: str, status: int) -> None:
    await exchange.faults.on(fault, retry_after_s=17)
    with pytest.raises(errors.DDoSProtection, match=str(status)):
        await client.fetch_balance()
    assert client.last_response_headers["Retry-After"] == "17"
    await exchange.faults.on(fault, seconds=30)
    with pytest.raises(errors.DDoSProtection):
        await client.fetch_time()
    assert 20 <= int(client.last_response_headers["Retry-After"]) <= 30


@pytest.mark.parametrize("offset_ms", [20_000, -20_000])
async def test_a_clock_that_is_off(exchange: Rehearsal, client: Client, offset_ms: int) -> None:
    await exchange.faults.on("clock_offset", offset_ms=offset_ms)
    with pytest.raises(errors.InvalidNonce, match="-1021"):
        await client.fetch_balance()
    assert abs(await client.fetch_time() - client.milliseconds() - offset_ms) < 1000
    await client.load_time_difference()
    await client.fetch_balance()
    await exchange.faults.off("clock_offset")  # the server's clock jumps
    with pytest.raises(errors.InvalidNonce):
        await client.fetch_balance()


async def test_an_order_that_is_not_shown_yet(exchange: Rehearsal, client: Client) -> None:
    placed = await place(client, "unseen-1")
    bought = await client.create_order(SYMBOL, "market", "buy", 0.001)
    await exchange.faults.on("order_unseen", seconds=60, lag_s=60)
    with pytest.raises(errors.OrderNotFound):
        await client.fetch_order("", SYMBOL, {"clientOrderId": "unseen-1"})
    assert await client.fetch_open_orders(SYMBOL) == []
    assert await client.fetch_my_trades(SYMBOL) == []
    await exchange.faults.off("order_unseen")
    assert (await client.fetch_order("", SYMBOL, {"clientOrderId": "unseen-1"}))["id"] == placed["id"]
    assert {trade["order"] for trade in await client.fetch_my_trades(SYMBOL)} == {bought["id"]}


async def test_a_cancel_answers_with_an_id_of_its_own(client: Client) -> None:
    placed = await place(client, "cancel-1")
    canceled = await client.cancel_order(placed["id"], SYMBOL)
    assert canceled["id"] == placed["id"] and canceled["clientOrderId"] not in ("cancel-1", None)


async def test_an_order_over_the_websocket_that_is_never_answered(exchange: Rehearsal, client: Client) -> None:
    price = await far_below(client)
    await exchange.faults.on("no_answer", match={"over": "websocket"})
    placing = asyncio.ensure_future(client.create_order_ws(SYMBOL, "limit", "buy", 0.01, price, {"clientOrderId": "mute-1"}))
    async with asyncio.timeout(QUIET):
        while await exchange.faults.order("mute-1") is None:
            await asyncio.sleep(0)
    again = await asyncio.wait_for(client.fetch_order_ws("", SYMBOL, {"clientOrderId": "mute-1"}), QUIET)
    assert again["status"] == "open" and not placing.done()
    placing.cancel()


async def test_fields_that_are_none_are_unknown(exchange: Rehearsal, client: Client) -> None:
    await exchange.faults.on("none_fields")
    answer = await place(client, "bare-1")
    assert answer["id"] and [answer[name] for name in ("status", "amount", "price", "side")] == [None] * 4
    assert answer["filled"] == 0  # nothing is known of it


async def test_an_order_that_filled_and_says_it_was_canceled(exchange: Rehearsal, client: Client) -> None:
    await exchange.faults.on("ends_unfilled")
    answer = await client.create_order(SYMBOL, "market", "buy", 0.002)
    assert (answer["status"], answer["filled"]) == ("canceled", 0)
    found = await client.fetch_order(answer["id"], SYMBOL)
    assert (found["status"], found["filled"]) == ("canceled", 0)
    mine = [trade for trade in await client.fetch_my_trades(SYMBOL) if trade["order"] == answer["id"]]
    assert sum(trade["amount"] for trade in mine) == pytest.approx(0.002)
    assert (await client.fetch_balance())["BTC"]["total"] > 1.0019
