"""What unmodified ccxt does when streams go wrong: market data and the account's own."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import pytest
from ccxt.base import errors

from tests.rehearsal_faults import Rehearsal, rehearsal, watching

SYMBOL, MARKET_ID = "BTC/USDT", "BTCUSDT"
QUIET = 20.0
SILENCE = 0.7
"""Longer than any stream of this market pauses."""
Client = Any


@pytest.fixture
async def exchange() -> AsyncIterator[Rehearsal]:
    async with rehearsal(symbols=(SYMBOL,)) as made:
        yield made


@pytest.fixture
async def client(exchange: Rehearsal) -> Client:
    made = exchange.ccxt()
    await made.load_markets()
    return made


async def soon(awaitable: Any) -> Any:
    async with asyncio.timeout(QUIET):
        return await awaitable


async def hangs(watch: Any) -> bool:
    """Whether a watch says nothing for a while; it is left waiting, as cancelling poisons others."""
    task = _left_alone(watch)
    done, _ = await asyncio.wait({task}, timeout=SILENCE)
    return not done


async def hangs_alone(exchange: Rehearsal, stream: str, watch: Any) -> bool:
    """Whether a watch says nothing while somebody else hears three ticks of its stream."""
    async with aiohttp.ClientSession() as session, session.ws_connect(f"ws://127.0.0.1:{exchange.port}/ws/{stream}") as other:
        task = _left_alone(watch)
        ticks: set[int] = set()
        while len(ticks) < 3:
            ticks.add((await soon(other.receive_json()))["E"])
        return not task.done()


def _left_alone(watch: Any) -> asyncio.Future[Any]:
    task: asyncio.Future[Any] = asyncio.ensure_future(watch)
    task.add_done_callback(lambda task: task.cancelled() or task.exception())
    return task


async def failure(watch: Callable[[], Any]) -> Any:
    """Watch until it raises."""
    async with asyncio.timeout(QUIET):
        while True:
            await watch()


async def resumes(client: Client, watch: Any) -> Any:
    """The next two books after a failure: fresh, and going on."""
    book = await soon(watch())
    nonce = book["nonce"]
    while (book := await soon(watch()))["nonce"] == nonce:
        pass
    return book


# -- market data -------------------------------------------------------------------------------------------------------


async def test_a_dropped_connection_raises_once_and_the_next_call_reconnects(exchange: Rehearsal, client: Client) -> None:
    await soon(client.watch_order_book(SYMBOL))
    assert await exchange.faults.on("stream_drop") == {"cut": 1}
    with pytest.raises(errors.NetworkError):
        await failure(lambda: client.watch_order_book(SYMBOL))
    book = await resumes(client, lambda: client.watch_order_book(SYMBOL))
    assert book["bids"][0][0] < book["asks"][0][0]


async def test_a_silent_server_that_answers_pings_is_waited_for_without_end(exchange: Rehearsal) -> None:
    client = exchange.ccxt(options={})
    client.options["ws"] = {**client.options.get("ws", {}), "keepAlive": 100}
    await soon(client.watch_trades(SYMBOL))
    await exchange.faults.on("stream_silent", seconds=60)
    async with asyncio.timeout(QUIET):
        while not await hangs(client.watch_trades(SYMBOL)):
            pass
    assert all(connection.connected for connection in client.clients.values())
    await exchange.faults.off("stream_silent")
    await soon(client.watch_trades(SYMBOL))


@pytest.mark.parametrize("fault", ["diff_skipped", "diffs_swapped"])
async def test_a_broken_sequence_of_diffs_raises_and_the_next_call_resynchronises(
    exchange: Rehearsal, client: Client, fault: str
) -> None:
    await resumes(client, lambda: client.watch_order_book(SYMBOL))
    await exchange.faults.on(fault, match={"symbol": MARKET_ID})
    with pytest.raises(errors.ChecksumError) as seen:
        await failure(lambda: client.watch_order_book(SYMBOL))
    assert isinstance(seen.value, errors.InvalidNonce) and isinstance(seen.value, errors.NetworkError)
    assert await exchange.faults.struck(fault) == 1
    await resumes(client, lambda: client.watch_order_book(SYMBOL))


@pytest.mark.parametrize(("fault", "watch"), [("garbage_frame", "trades"), ("list_frame", "trades"), ("bare_kline", "ohlcv")])
async def test_a_malformed_message_hangs_the_stream_and_nobody_is_told(
    exchange: Rehearsal, client: Client, fault: str, watch: str
) -> None:
    """The handler's exception ends ccxt's reading of that connection; it stays open, and the watch waits."""

    def next_one() -> Any:
        return client.watch_trades(SYMBOL) if watch == "trades" else client.watch_ohlcv(SYMBOL, "1m")

    await soon(next_one())
    await exchange.faults.on(fault, match={"symbol": MARKET_ID})
    async with asyncio.timeout(QUIET):
        while not await exchange.faults.struck(fault):
            await asyncio.wait({asyncio.ensure_future(next_one())}, timeout=0.05)
    stream = f"{MARKET_ID.lower()}@{'trade' if watch == 'trades' else 'kline_1m'}"
    async with asyncio.timeout(QUIET):
        while not await hangs_alone(exchange, stream, next_one()):
            pass
    assert all(connection.connected for connection in client.clients.values())


async def test_a_restarting_server_refuses_dials(exchange: Rehearsal, client: Client) -> None:
    await soon(client.watch_trades(SYMBOL))
    await exchange.faults.on("restart", seconds=1.5)
    with pytest.raises(errors.NetworkError):
        await failure(lambda: client.watch_trades(SYMBOL))
    with pytest.raises(errors.NetworkError):
        await client.fetch_time()
    async with asyncio.timeout(QUIET):
        while True:
            try:
                assert await client.watch_trades(SYMBOL)
                break
            except errors.NetworkError:
                await asyncio.sleep(0)
    await client.fetch_time()


async def test_one_cancelled_reader_of_a_shared_watch_cancels_the_other(client: Client) -> None:
    """No fault of the server: ccxt shares one future."""
    first = await watching(client, client.watch_orders(SYMBOL), f"orders:{SYMBOL}")
    second = asyncio.ensure_future(client.watch_orders(SYMBOL))
    for _ in range(20):
        await asyncio.sleep(0)  # the second waits for what the first waits for
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await soon(second)


async def test_a_burst_is_coalesced(exchange: Rehearsal, client: Client) -> None:
    before = (await resumes(client, lambda: client.watch_order_book(SYMBOL)))["nonce"]
    wakes = 0
    burst = asyncio.ensure_future(exchange.faults.on("burst", count=30_000))
    async with asyncio.timeout(3 * QUIET):
        while (await client.watch_order_book(SYMBOL))["nonce"] < before + 30_000:
            wakes += 1
    assert (await burst) == {"sent": 30_000}
    assert wakes < 1_000


async def test_a_crossed_book_is_shown_as_it_is(exchange: Rehearsal, client: Client) -> None:
    await resumes(client, lambda: client.watch_order_book(SYMBOL))
    await exchange.faults.on("crossed_book", seconds=60)
    async with asyncio.timeout(QUIET):
        while (book := await client.watch_order_book(SYMBOL))["bids"][0][0] < book["asks"][0][0]:
            pass
    snapshot = await client.fetch_order_book(SYMBOL, 5)
    assert snapshot["bids"][0][0] > snapshot["asks"][0][0]
    await exchange.faults.off("crossed_book")
    async with asyncio.timeout(QUIET):
        while (book := await client.watch_order_book(SYMBOL))["bids"][0][0] > book["asks"][0][0]:
            pass


# -- the account's stream ----------------------------------------------------------------------------------------------


class Listener:
    """Every event of the account's stream, raw, in order of arrival."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket

    async def reports(self, count: int) -> list[tuple[str, str]]:
        """(client id, execution type) of the next `count` executionReports."""
        found: list[tuple[str, str]] = []
        async with asyncio.timeout(QUIET):
            while len(found) < count:
                event = (await self._socket.receive_json()).get("event", {})
                if event.get("e") == "executionReport":
                    found.append((event["C"] or event["c"], event["x"]))
        return found


@pytest.fixture
async def listener(exchange: Rehearsal, client: Client) -> AsyncIterator[Listener]:
    async with aiohttp.ClientSession() as session, session.ws_connect(f"ws://127.0.0.1:{exchange.port}/ws-api/v3") as socket:
        params = {"apiKey": exchange.api_key, "timestamp": client.milliseconds()}
        params["signature"] = client.hmac(client.rawencode(client.keysort(params)).encode(), exchange.secret.encode(), hashlib.sha256)
        await socket.send_json({"id": 1, "method": "userDataStream.subscribe.signature", "params": params})
        assert (await socket.receive_json())["status"] == 200
        yield Listener(socket)


async def place(client: Client, name: str) -> Any:
    price = (await client.fetch_order_book(SYMBOL, 5))["bids"][0][0] * 0.9
    return await client.create_order(SYMBOL, "limit", "buy", 0.001, price, {"clientOrderId": name})


REPORTS = {"event": "executionReport"}


async def test_an_event_is_lost(exchange: Rehearsal, client: Client, listener: Listener) -> None:
    await exchange.faults.on("private_lost", match=REPORTS)
    await place(client, "a")
    await place(client, "b")
    assert await listener.reports(1) == [("b", "NEW")]


async def test_an_event_comes_twice(exchange: Rehearsal, client: Client, listener: Listener) -> None:
    await exchange.faults.on("private_duplicated", match=REPORTS)
    await place(client, "a")
    await place(client, "b")
    assert await listener.reports(3) == [("a", "NEW"), ("a", "NEW"), ("b", "NEW")]


async def test_events_change_places(exchange: Rehearsal, client: Client, listener: Listener) -> None:
    await exchange.faults.on("private_reordered", match={**REPORTS, "execution": "NEW"})
    order = await place(client, "a")
    await client.cancel_order(order["id"], SYMBOL)
    assert await listener.reports(2) == [("a", "CANCELED"), ("a", "NEW")]


async def test_an_event_comes_late(exchange: Rehearsal, client: Client, listener: Listener) -> None:
    await exchange.faults.on("private_delayed", match=REPORTS, delay_s=1.5)
    await place(client, "a")
    await place(client, "b")
    assert await listener.reports(2) == [("b", "NEW"), ("a", "NEW")]


async def test_a_fill_that_is_denied_is_told_as_a_cancel(exchange: Rehearsal, client: Client, listener: Listener) -> None:
    await exchange.faults.on("split_fills", count=9)
    await exchange.faults.on("ends_unfilled")
    await client.create_order(SYMBOL, "market", "buy", 0.001, None, {"clientOrderId": "denied"})
    await place(client, "next")
    assert await listener.reports(3) == [("denied", "NEW"), ("denied", "CANCELED"), ("next", "NEW")]


async def test_after_the_stream_was_terminated_ccxt_waits(exchange: Rehearsal, client: Client) -> None:
    waiting = await watching(client, client.watch_orders(SYMBOL), f"orders:{SYMBOL}")
    await exchange.faults.on("private_terminated")
    await place(client, "a")
    done, _ = await asyncio.wait({waiting}, timeout=SILENCE)
    assert not done
    waiting.cancel()


async def test_events_during_a_disconnect_are_lost(exchange: Rehearsal, client: Client) -> None:
    waiting = await watching(client, client.watch_orders(SYMBOL), f"orders:{SYMBOL}")
    await exchange.faults.on("private_drop")
    with pytest.raises(errors.NetworkError):
        await soon(waiting)
    await place(client, "missed")
    waiting = await watching(client, client.watch_orders(SYMBOL), f"orders:{SYMBOL}")
    await place(client, "seen")
    assert [order["clientOrderId"] for order in await soon(waiting)] == ["seen"]


async def test_a_fill_is_told_before_the_answer_to_its_order(exchange: Rehearsal, client: Client, listener: Listener) -> None:
    await exchange.faults.on("answer_late", delay_s=1.5)
    placing = asyncio.ensure_future(client.create_order(SYMBOL, "market", "buy", 0.001, None, {"clientOrderId": "early"}))
    assert await listener.reports(2) == [("early", "NEW"), ("early", "TRADE")]
    assert not placing.done()
    assert (await soon(placing))["filled"] == 0.001
