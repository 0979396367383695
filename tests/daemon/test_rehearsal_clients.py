"""Two clients that know nothing of ccxt find the exchange that they expect: account, order life, account stream, depth by the book."""

import asyncio
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest

from tests.rehearsal_faults import Rehearsal, rehearsal

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # python-binance names a class of websockets that is on its way out
    import binance
    from binance.ws.depthcache import DepthCacheManager
    from binance_common.configuration import ConfigurationRestAPI, ConfigurationWebSocketAPI, ConfigurationWebSocketStreams
    from binance_common.errors import BadRequestError
    from binance_sdk_spot.spot import Spot

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
"""Both clients use what aiohttp and websockets will drop."""
SYMBOL, MARKET_ID = "BTC/USDT", "BTCUSDT"
QUIET = 20.0


@pytest.fixture
async def exchange() -> AsyncIterator[Rehearsal]:
    async with rehearsal(symbols=(SYMBOL,)) as made:
        yield made


async def soon(awaitable: Any) -> Any:
    async with asyncio.timeout(QUIET):
        return await awaitable


def reports(event: dict[str, Any]) -> tuple[str, str, str]:
    return event["c"], event["x"], event["X"]


# -- python-binance ----------------------------------------------------------------------------------------------------


class PythonBinance(binance.AsyncClient):
    """The client with its addresses changed, as its own documentation does for other top-level domains."""

    def __init__(self, exchange: Rehearsal, **settings: Any) -> None:
        self.API_URL = f"{exchange.base_url}/api"
        self.MARGIN_API_URL = f"{exchange.base_url}/sapi"
        self.WS_API_URL = f"ws://127.0.0.1:{exchange.port}/ws-api/v3"
        super().__init__(exchange.api_key, exchange.secret, **settings)
        self.ws_api.TIMEOUT = 0.5  # seconds that its closing waits for one more message


@pytest.fixture
async def python_binance(exchange: Rehearsal) -> AsyncIterator[Any]:
    made = PythonBinance(exchange)
    yield made
    await made.close_connection()


def sockets(exchange: Rehearsal, client: Any) -> Any:
    made = binance.BinanceSocketManager(client)
    made.STREAM_URL = f"ws://127.0.0.1:{exchange.port}/"
    return made


async def test_python_binance_knows_the_market_and_the_account(python_binance: Any) -> None:
    info = await python_binance.get_symbol_info(MARKET_ID)
    assert info["baseAsset"] == "BTC" and {"STOP_LOSS", "LIMIT_MAKER"} <= set(info["orderTypes"])
    assert (await python_binance.get_asset_balance("USDT"))["free"] == "100000.00000000"
    assert (await python_binance.get_account())["canTrade"] is True
    assert await python_binance.get_account_api_permissions()
    assert len(await python_binance.get_historical_klines(MARKET_ID, "1m", "3 hours ago UTC", limit=100)) > 0
    assert await python_binance.get_deposit_history() == await python_binance.get_withdraw_history() == []


async def test_python_binance_lives_through_orders(exchange: Rehearsal, python_binance: Any) -> None:
    client = python_binance
    bid = float((await client.get_order_book(symbol=MARKET_ID))["bids"][0][0])
    placed = await client.order_limit_buy(symbol=MARKET_ID, quantity="0.01", price=f"{bid * 0.9:.2f}", newClientOrderId="pb-1")
    assert placed["status"] == "NEW" and [order["orderId"] for order in await client.get_open_orders()] == [placed["orderId"]]
    assert (await client.get_order(symbol=MARKET_ID, origClientOrderId="pb-1"))["orderId"] == placed["orderId"]
    with pytest.raises(binance.BinanceAPIException, match="Duplicate"):
        await client.order_limit_buy(symbol=MARKET_ID, quantity="0.01", price=f"{bid * 0.9:.2f}", newClientOrderId="pb-1")
    canceled = await client.cancel_order(symbol=MARKET_ID, orderId=placed["orderId"])
    assert canceled["status"] == "CANCELED" and canceled["origClientOrderId"] == "pb-1"
    bought = await client.order_market_buy(symbol=MARKET_ID, quantity="0.02")
    assert bought["status"] == "FILLED"
    mine = await client.get_my_trades(symbol=MARKET_ID)
    assert sum(Decimal(trade["qty"]) for trade in mine) == Decimal("0.02")
    stop = await client.create_order(symbol=MARKET_ID, side="SELL", type="STOP_LOSS", quantity="0.01", stopPrice=f"{bid * 0.9:.2f}")
    assert (await client.get_order(symbol=MARKET_ID, orderId=stop["orderId"]))["isWorking"] is False
    await client.cancel_order(symbol=MARKET_ID, orderId=stop["orderId"])
    over_ws = await soon(client.ws_create_order(symbol=MARKET_ID, side="BUY", type="LIMIT", timeInForce="GTC", quantity="0.01", price=f"{bid * 0.9:.2f}"))
    assert (await soon(client.ws_get_order(symbol=MARKET_ID, orderId=over_ws["orderId"])))["status"] == "NEW"
    assert (await soon(client.ws_cancel_order(symbol=MARKET_ID, orderId=over_ws["orderId"])))["status"] == "CANCELED"


async def test_python_binance_hears_the_account(exchange: Rehearsal, python_binance: Any) -> None:
    async with sockets(exchange, python_binance).user_socket() as stream:
        await python_binance.order_market_buy(symbol=MARKET_ID, quantity="0.0001", newClientOrderId="pb-2")
        told: list[Any] = []
        while not any(event["e"] == "outboundAccountPosition" for event in told):
            told.append(await soon(stream.recv()))
        steps = [reports(event) for event in told if event["e"] == "executionReport"]
        assert steps[0] == ("pb-2", "NEW", "NEW") and steps[-1] == ("pb-2", "TRADE", "FILLED")
        await exchange.faults.on("deposit", asset="USDT", amount="5")
        while (event := await soon(stream.recv()))["e"] != "balanceUpdate":
            pass
        assert (event["a"], event["d"]) == ("USDT", "5.00000000")


async def test_python_binance_keeps_the_book(exchange: Rehearsal, python_binance: Any) -> None:
    manager = DepthCacheManager(python_binance, MARKET_ID, bm=sockets(exchange, python_binance), ws_interval=100, limit=5000)
    agreed = 0
    async with manager:
        while agreed < 3:
            cache = await soon(manager.recv())
            snapshot = await python_binance.get_order_book(symbol=MARKET_ID, limit=5000)
            while manager._last_update_id < snapshot["lastUpdateId"]:
                cache = await soon(manager.recv())
            if manager._last_update_id == snapshot["lastUpdateId"]:
                assert cache.get_bids() == [[float(price), float(quantity)] for price, quantity in snapshot["bids"]]
                assert cache.get_asks() == [[float(price), float(quantity)] for price, quantity in snapshot["asks"]]
                agreed += 1


# -- the exchange's own client -----------------------------------------------------------------------------------------


def official(exchange: Rehearsal) -> Spot:
    address, keys = f"127.0.0.1:{exchange.port}", {"api_key": exchange.api_key, "api_secret": exchange.secret}
    return Spot(
        ConfigurationRestAPI(base_path=exchange.base_url, retries=0, **keys),
        ConfigurationWebSocketAPI(stream_url=f"ws://{address}/ws-api/v3", **keys),
        ConfigurationWebSocketStreams(stream_url=f"ws://{address}/stream"),
    )


async def over_rest(call: Callable[..., Any], **arguments: Any) -> Any:
    """The client's REST side blocks; its answers are checked against its own models."""
    return (await asyncio.to_thread(call, **arguments)).data()


@asynccontextmanager
async def connected(side: Any) -> AsyncIterator[Any]:
    connection = await side.create_connection()
    try:
        yield connection
    finally:
        await connection.close_connection(close_session=True)


async def test_the_official_client_lives_through_orders_over_rest(exchange: Rehearsal) -> None:
    client = official(exchange).rest_api
    info = await over_rest(client.exchange_info, symbol=MARKET_ID)
    assert info.symbols[0].base_asset == "BTC"
    account = await over_rest(client.get_account)
    assert {balance.asset: balance.free for balance in account.balances}["USDT"] == "100000.00000000"
    bid = float((await over_rest(client.depth, symbol=MARKET_ID)).bids[0][0])
    order = {"symbol": MARKET_ID, "side": "BUY", "type": "LIMIT", "time_in_force": "GTC", "quantity": 0.01, "price": round(bid * 0.9, 2)}
    assert await over_rest(client.order_test, **order) is not None
    placed = await over_rest(client.new_order, **order, new_client_order_id="sdk-1")
    assert placed.status == "NEW" and placed.client_order_id == "sdk-1"
    with pytest.raises(BadRequestError, match="Duplicate"):
        await over_rest(client.new_order, **order, new_client_order_id="sdk-1")
    found = await over_rest(client.get_order, symbol=MARKET_ID, orig_client_order_id="sdk-1")
    assert (found.order_id, found.status, found.is_working) == (placed.order_id, "NEW", True)
    assert (await over_rest(client.delete_order, symbol=MARKET_ID, order_id=placed.order_id)).status == "CANCELED"
    bought = await over_rest(client.new_order, symbol=MARKET_ID, side="BUY", type="MARKET", quantity=0.02)
    assert bought.status == "FILLED" and bought.fills
    mine = await over_rest(client.my_trades, symbol=MARKET_ID)
    assert sum(Decimal(trade.qty) for trade in mine) == Decimal("0.02")
    stop = {"symbol": MARKET_ID, "side": "SELL", "type": "STOP_LOSS_LIMIT", "time_in_force": "GTC", "quantity": 0.01}
    slept = await over_rest(client.new_order, **stop, price=round(bid * 0.9, 2), stop_price=round(bid * 0.95, 2))
    shown = await over_rest(client.get_open_orders, symbol=MARKET_ID)
    assert [(order.order_id, order.is_working) for order in shown] == [(slept.order_id, False)]


async def test_the_official_client_orders_and_listens_over_the_websocket(exchange: Rehearsal) -> None:
    told: asyncio.Queue[Any] = asyncio.Queue()
    async with connected(official(exchange).websocket_api) as api:
        subscribed = await soon(api.user_data_stream_subscribe_signature())
        subscribed.stream.on("message", told.put_nowait)
        bid = float((await soon(api.depth(symbol=MARKET_ID))).data().result.bids[0][0])
        order = {"symbol": MARKET_ID, "side": "BUY", "type": "LIMIT", "time_in_force": "GTC", "quantity": 0.01, "price": round(bid * 0.9, 2)}
        placed = (await soon(api.order_place(**order, new_client_order_id="sdk-2"))).data().result
        assert placed.status == "NEW"
        found = (await soon(api.order_status(symbol=MARKET_ID, orig_client_order_id="sdk-2"))).data().result
        assert found.order_id == placed.order_id
        assert (await soon(api.order_cancel(symbol=MARKET_ID, order_id=placed.order_id))).data().result.status == "CANCELED"
        steps: list[tuple[int, str, str]] = []
        while len(steps) < 2:
            event = (await soon(told.get())).actual_instance
            if type(event).__name__ == "ExecutionReport":
                steps.append((event.i, event.x, event.X))
        assert steps == [(placed.order_id, "NEW", "NEW"), (placed.order_id, "CANCELED", "CANCELED")]


async def test_the_official_client_keeps_the_book_by_the_documented_procedure(exchange: Rehearsal) -> None:
    """Buffer diffs, take a snapshot, drop what is older, apply what bridges it, and never miss one."""
    client, diffs = official(exchange), asyncio.Queue[Any]()
    agreed = 0
    async with connected(client.websocket_streams) as streams:
        stream = await streams.diff_book_depth(symbol=MARKET_ID.lower(), update_speed="100ms")
        stream.on("message", diffs.put_nowait)
        first = await soon(diffs.get())
        snapshot = await over_rest(client.rest_api.depth, symbol=MARKET_ID, limit=5000)
        assert snapshot.last_update_id >= first.U - 1, "the snapshot must not be older than the first diff"
        book = {"bids": dict(map(tuple, snapshot.bids)), "asks": dict(map(tuple, snapshot.asks))}
        known, diff = snapshot.last_update_id, first
        while agreed < 3:
            if diff.u > known:
                assert known + 1 >= diff.U, "a diff was missed"
                for side, levels in (("bids", diff.b), ("asks", diff.a)):
                    book[side].update((price, quantity) for price, quantity in levels)
                    for price in [price for price, quantity in book[side].items() if not float(quantity)]:
                        del book[side][price]
                known = diff.u
                shown = await over_rest(client.rest_api.depth, symbol=MARKET_ID, limit=5000)
                if shown.last_update_id == known:
                    assert book == {"bids": dict(map(tuple, shown.bids)), "asks": dict(map(tuple, shown.asks))}
                    agreed += 1
            diff = await soon(diffs.get())
