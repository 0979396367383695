"""Unmodified ccxt.pro against the rehearsal exchange, which runs as the process that users run."""

import asyncio
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import ccxt.pro
import orjson
import pytest
from ccxt.base import errors

ROOT = Path(__file__).parents[2]
SYMBOL = "BTC/USDT"
SPEED = 60
WITHIN_S = 10.0
Client = Any


@pytest.fixture(scope="module")
def greeting() -> Iterator[dict[str, Any]]:
    """The server process's hello: port, symbols, key pair. It ends when its standard input closes."""
    arguments = ["--speed", str(SPEED), "--symbols", "BTC/USDT,ETH/USDT", "--balance", "USDT=100000", "--balance", "ETH=10"]
    process = subprocess.Popen(
        [sys.executable, "-m", "daemon.rehearsal", *arguments], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    yield orjson.loads(process.stdout.readline())
    process.stdin.close()
    assert process.wait(timeout=10) == 0
    process.stdout.close()


def point_at(client: Client, port: int) -> None:
    """Every URL of an unmodified ccxt object to a local server, as its documentation of `urls` allows."""
    address = f"127.0.0.1:{port}"
    api = client.urls["api"]
    for name, url in api.items():
        if isinstance(url, str):
            api[name] = re.sub(r"^https?://[^/]+", f"http://{address}", url)
    api["ws"]["spot"] = f"ws://{address}/stream/ws"
    api["ws"]["ws-api"]["spot"] = f"ws://{address}/ws-api/v3"


@pytest.fixture
async def connect(greeting: dict[str, Any]) -> AsyncIterator[Callable[..., Client]]:
    """Makes clients, and closes them afterwards."""
    made: list[Client] = []

    def make(**settings: Any) -> Client:
        options = {"fetchMarkets": {"types": ["spot"]}, "fetchMargins": False, "fetchCurrencies": False}
        credentials = {"apiKey": greeting["api_key"], "secret": greeting["secret"]}
        client = ccxt.pro.binance({**credentials, "options": options, "enableRateLimit": False, **settings})
        client.timeout_on_exit = 0  # milliseconds that ccxt waits for its sockets; nothing is lost on loopback
        point_at(client, greeting["port"])
        made.append(client)
        return client

    yield make
    for client in made:
        await client.close()


@pytest.fixture
async def client(connect: Callable[..., Client]) -> Client:
    made = connect()
    await made.load_markets()
    return made


async def soon(awaitable: Any) -> Any:
    async with asyncio.timeout(WITHIN_S):
        return await awaitable


async def best(client: Client, symbol: str = SYMBOL) -> tuple[float, float]:
    book = await client.fetch_order_book(symbol, 5)
    return book["bids"][0][0], book["asks"][0][0]


# -- market data -------------------------------------------------------------------------------------------------------


async def test_markets_carry_the_filters(client: Client) -> None:
    market = client.market(SYMBOL)
    assert set(client.symbols) == {"BTC/USDT", "ETH/USDT"}
    assert market["spot"] and market["active"]
    assert market["precision"]["price"] > 0 and market["precision"]["amount"] > 0
    assert market["limits"]["cost"]["min"] > 0


async def test_default_options_load_too(connect: Callable[..., Client]) -> None:
    """ccxt's own start-up calls (currencies, margin pairs, futures) find what they ask for."""
    client = connect(options={})
    await client.load_markets()
    assert SYMBOL in client.markets and "USDT" in client.currencies


async def test_server_time_is_real(client: Client) -> None:
    assert abs(await client.fetch_time() - client.milliseconds()) < 1000


@pytest.mark.parametrize(("timeframe", "length_ms"), [("1m", 60_000), ("15m", 900_000), ("1h", 3_600_000), ("1d", 86_400_000)])
async def test_history_is_on_the_grid_without_holes(client: Client, timeframe: str, length_ms: int) -> None:
    rows = await client.fetch_ohlcv(SYMBOL, timeframe, limit=100)
    times = [row[0] for row in rows]
    assert len(rows) == 100
    assert times == list(range(times[0], times[0] + 100 * length_ms, length_ms)) and times[0] % length_ms == 0
    for _, opened, high, low, close, volume in rows:
        assert low <= min(opened, close) <= max(opened, close) <= high and volume >= 0


async def test_history_pages_forward_into_the_live_market(client: Client) -> None:
    """Paging by startTime meets every minute once, and arrives at the candle that is open now."""
    latest = (await client.fetch_ohlcv(SYMBOL, "1m", limit=1))[0][0]
    since, times = latest - 1500 * 60_000, []
    while rows := await client.fetch_ohlcv(SYMBOL, "1m", since=since, limit=1000):
        times += [row[0] for row in rows]
        since = times[-1] + 60_000
    assert times == list(range(times[0], times[0] + len(times) * 60_000, 60_000))
    assert len(times) >= 1501 and times[-1] >= latest


async def test_candles_agree_between_timeframes(client: Client) -> None:
    hours = await client.fetch_ohlcv(SYMBOL, "1h", limit=4)
    minutes = {row[0]: row for row in await client.fetch_ohlcv(SYMBOL, "1m", since=hours[0][0], limit=1000)}
    for time, opened, high, low, close, volume in hours[:3]:
        inside = [minutes[t] for t in range(time, time + 3_600_000, 60_000)]
        assert opened == inside[0][1] and close == inside[-1][4]
        assert high == max(row[2] for row in inside) and low == min(row[3] for row in inside)
        assert volume == pytest.approx(sum(row[5] for row in inside), rel=1e-4)


async def test_120_days_of_history(client: Client) -> None:
    rows = await client.fetch_ohlcv(SYMBOL, "1d", limit=200)
    assert len(rows) >= 120


async def test_watch_order_book_agrees_with_snapshots(client: Client) -> None:
    """The book kept from diffs is the book that the server shows at the same update id."""
    await soon(client.watch_order_book(SYMBOL))
    agreed = 0
    for _ in range(30):
        raw = await client.publicGetDepth({"symbol": "BTCUSDT", "limit": 100})
        nonce = int(raw["lastUpdateId"])
        book = client.orderbooks[SYMBOL]
        while book["nonce"] < nonce:
            book = await soon(client.watch_order_book(SYMBOL))
        if book["nonce"] == nonce:
            assert [[float(x) for x in level] for level in raw["bids"]] == [list(level) for level in book["bids"]][:100]
            assert [[float(x) for x in level] for level in raw["asks"]] == [list(level) for level in book["asks"]][:100]
            agreed += 1
        await soon(client.watch_order_book(SYMBOL))
        if agreed >= 3:
            break
    assert agreed >= 3
    assert book["bids"][0][0] < book["asks"][0][0]


async def test_watch_trades_misses_none_and_runs_on_market_time(client: Client) -> None:
    seen: dict[int, int] = {}
    async with asyncio.timeout(WITHIN_S):
        while len(seen) < 25:
            for trade in await client.watch_trades(SYMBOL):
                seen[int(trade["id"])] = trade["timestamp"]
    ids = sorted(seen)
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert [seen[i] for i in ids] == sorted(seen.values())
    listed = await client.fetch_trades(SYMBOL, limit=1000)
    assert set(ids) <= {int(trade["id"]) for trade in listed}


async def test_market_time_runs_at_the_speed(client: Client) -> None:
    first = await soon(client.watch_order_book(SYMBOL))
    market, loop = first["timestamp"], asyncio.get_running_loop()
    while first["timestamp"] is None:
        first = await soon(client.watch_order_book(SYMBOL))
    market, real = first["timestamp"], loop.time()
    while loop.time() - real < 1.0:
        book = await soon(client.watch_order_book(SYMBOL))
    ratio = (book["timestamp"] - market) / 1000 / (loop.time() - real)
    assert SPEED * 0.75 < ratio < SPEED * 1.25


async def test_watch_ohlcv_closes_minutes(client: Client) -> None:
    """At speed 60 a minute closes every second; what was streamed is what klines tell afterwards."""
    opened: set[int] = set()
    async with asyncio.timeout(WITHIN_S):
        while len(opened) < 3:
            opened |= {row[0] for row in await client.watch_ohlcv(SYMBOL, "1m")}
    closed = sorted(opened)[1]
    streamed = next(row for row in client.ohlcvs[SYMBOL]["1m"] if row[0] == closed)
    assert [list(streamed)] == await client.fetch_ohlcv(SYMBOL, "1m", since=closed, limit=1)


async def test_tickers(client: Client) -> None:
    ticker = await client.fetch_ticker(SYMBOL)
    assert ticker["low"] <= ticker["last"] <= ticker["high"] and ticker["bid"] < ticker["ask"]
    assert set(await client.fetch_tickers()) == {"BTC/USDT", "ETH/USDT"}
    quotes = await soon(client.watch_bids_asks([SYMBOL]))
    assert quotes[SYMBOL]["bid"] < quotes[SYMBOL]["ask"]
    assert (await soon(client.watch_ticker(SYMBOL)))["last"] > 0


# -- orders ------------------------------------------------------------------------------------------------------------


async def test_limit_order_life(client: Client) -> None:
    bid, _ = await best(client)
    price = bid * 0.9
    placed = await client.create_order(SYMBOL, "limit", "buy", 0.01, price, {"clientOrderId": "life-1"})
    assert placed["status"] == "open" and placed["filled"] == 0 and placed["clientOrderId"] == "life-1"
    balance = await client.fetch_balance()
    assert balance["USDT"]["used"] == pytest.approx(float(client.price_to_precision(SYMBOL, price)) * 0.01)
    assert [order["id"] for order in await client.fetch_open_orders(SYMBOL)] == [placed["id"]]
    found = await client.fetch_order("", SYMBOL, {"clientOrderId": "life-1"})
    assert found["id"] == placed["id"] and abs(found["timestamp"] - client.milliseconds()) < 5000
    canceled = await client.cancel_order(placed["id"], SYMBOL)
    assert canceled["status"] == "canceled" and canceled["clientOrderId"] != "life-1"
    assert (await client.fetch_order(placed["id"], SYMBOL))["status"] == "canceled"
    assert (await client.fetch_balance())["USDT"]["used"] == 0
    assert placed["id"] in {order["id"] for order in await client.fetch_orders(SYMBOL)}


async def test_post_only_is_refused_when_it_would_take(client: Client) -> None:
    bid, ask = await best(client)
    with pytest.raises(errors.ExchangeError, match="immediately match"):
        await client.create_order(SYMBOL, "limit", "buy", 0.01, ask * 1.01, {"postOnly": True})
    rests = await client.create_order(SYMBOL, "limit", "buy", 0.01, bid * 0.95, {"postOnly": True})
    assert rests["postOnly"] and (await client.fetch_order(rests["id"], SYMBOL))["type"] == "limit"
    await client.cancel_all_orders(SYMBOL)
    assert await client.fetch_open_orders(SYMBOL) == []


async def test_immediate_orders_end_at_once(client: Client) -> None:
    bid, ask = await best(client)
    none = await client.create_order(SYMBOL, "limit", "buy", 0.01, bid * 0.9, {"timeInForce": "IOC"})
    assert none["status"] == "expired" and none["filled"] == 0
    some = await client.create_order(SYMBOL, "limit", "buy", 0.001, ask * 1.01, {"timeInForce": "IOC"})
    assert some["status"] == "closed" and some["filled"] == 0.001
    huge = await client.create_order(SYMBOL, "limit", "buy", 0.9, ask, {"timeInForce": "FOK"})
    assert huge["filled"] in (0, 0.9)


async def test_market_order_moves_the_money_and_its_fee(client: Client) -> None:
    before = await client.fetch_balance()
    order = await client.create_order(SYMBOL, "market", "buy", 0.02)
    assert order["status"] == "closed" and order["filled"] == 0.02 and order["trades"]
    after = await client.fetch_balance()
    fee = sum(trade["fee"]["cost"] for trade in order["trades"])
    assert {trade["fee"]["currency"] for trade in order["trades"]} == {"BTC"} and fee > 0
    assert after["BTC"]["total"] - before["BTC"]["total"] == pytest.approx(0.02 - fee, abs=1e-9)
    assert before["USDT"]["total"] - after["USDT"]["total"] == pytest.approx(order["cost"], abs=1e-6)
    mine = [trade for trade in await client.fetch_my_trades(SYMBOL, limit=100) if trade["order"] == order["id"]]
    assert sum(trade["amount"] for trade in mine) == pytest.approx(0.02)
    assert all(trade["takerOrMaker"] == "taker" and abs(trade["timestamp"] - client.milliseconds()) < 5000 for trade in mine)
    sold = await client.create_order(SYMBOL, "market", "sell", 0.019)
    assert {trade["fee"]["currency"] for trade in sold["trades"]} == {"USDT"}


async def test_market_buy_by_quote_amount(client: Client) -> None:
    order = await client.create_market_buy_order_with_cost(SYMBOL, 500)
    assert order["status"] == "closed" and 450 < order["cost"] <= 500


async def test_own_trades_by_cursor(client: Client) -> None:
    for _ in range(3):
        await client.create_order(SYMBOL, "market", "buy", 0.001)
    every = await client.fetch_my_trades(SYMBOL, limit=1000)
    ids = [int(trade["id"]) for trade in every]
    assert ids == sorted(set(ids)) and len(ids) >= 3
    page = await client.fetch_my_trades(SYMBOL, None, 2, {"fromId": ids[-3]})
    assert [int(trade["id"]) for trade in page] == ids[-3:-1]
    since = every[-1]["timestamp"]
    assert int((await client.fetch_my_trades(SYMBOL, since=since))[-1]["id"]) == ids[-1]


async def test_own_executions_are_public_prints(client: Client) -> None:
    order = await client.create_order(SYMBOL, "market", "buy", 0.003)
    public = {trade["id"]: trade for trade in await client.fetch_trades(SYMBOL, limit=100)}
    for trade in order["trades"]:
        assert public[trade["id"]]["amount"] == trade["amount"] and public[trade["id"]]["side"] == "buy"


async def test_edit_order_replaces_atomically(client: Client) -> None:
    bid, _ = await best(client)
    old = await client.create_order(SYMBOL, "limit", "buy", 0.01, bid * 0.9)
    new = await client.edit_order(old["id"], SYMBOL, "limit", "buy", 0.02, bid * 0.91)
    assert new["id"] != old["id"] and new["amount"] == 0.02
    assert [order["id"] for order in await client.fetch_open_orders(SYMBOL)] == [new["id"]]
    with pytest.raises(errors.ExchangeError, match="-2022"):
        await client.edit_order(old["id"], SYMBOL, "limit", "buy", 0.02, bid * 0.91)
    await client.cancel_order(new["id"], SYMBOL)


async def test_fees(client: Client) -> None:
    fees = await client.fetch_trading_fees()
    assert fees[SYMBOL]["maker"] > 0 and fees[SYMBOL]["taker"] > 0
    assert (await client.fetch_trading_fee(SYMBOL))["taker"] == fees[SYMBOL]["taker"]


# -- user stream -------------------------------------------------------------------------------------------------------


async def test_user_stream_tells_orders_trades_and_balances(client: Client) -> None:
    bid, _ = await best(client)
    orders = asyncio.ensure_future(client.watch_orders(SYMBOL))
    await soon(client.authenticate())
    await asyncio.sleep(0)
    placed = await client.create_order(SYMBOL, "limit", "buy", 0.01, bid * 0.9, {"clientOrderId": "watched-1"})
    told = (await soon(orders))[-1]
    assert told["id"] == placed["id"] and told["status"] == "open" and told["clientOrderId"] == "watched-1"
    orders = asyncio.ensure_future(client.watch_orders(SYMBOL))
    await asyncio.sleep(0)
    await client.cancel_order(placed["id"], SYMBOL)
    told = (await soon(orders))[-1]
    assert told["status"] == "canceled" and told["clientOrderId"] == "watched-1"
    trades = asyncio.ensure_future(client.watch_my_trades(SYMBOL))
    balance = asyncio.ensure_future(client.watch_balance())
    await asyncio.sleep(0)
    bought = await client.create_order(SYMBOL, "market", "buy", 0.004)
    mine = (await soon(trades))[-1]
    assert mine["order"] == bought["id"] and mine["takerOrMaker"] == "taker" and mine["fee"]["currency"] == "BTC"
    assert (await soon(balance))["BTC"]["free"] > 0


async def test_orders_over_the_websocket_api(client: Client) -> None:
    bid, _ = await best(client)
    placed = await soon(client.create_order_ws(SYMBOL, "limit", "buy", 0.01, bid * 0.9, {"clientOrderId": "ws-1"}))
    assert placed["status"] == "open" and placed["clientOrderId"] == "ws-1"
    assert (await soon(client.fetch_order_ws(placed["id"], SYMBOL)))["id"] == placed["id"]
    assert [order["id"] for order in await soon(client.fetch_open_orders_ws(SYMBOL))] == [placed["id"]]
    moved = await soon(client.edit_order_ws(placed["id"], SYMBOL, "limit", "buy", 0.01, bid * 0.91))
    gone = await soon(client.cancel_order_ws(moved["id"], SYMBOL))
    assert gone["status"] == "canceled"
    balances = (await soon(client.fetch_balance_ws()))["info"]["balances"]
    assert float(next(row["free"] for row in balances if row["asset"] == "USDT")) > 0
    assert await soon(client.fetch_my_trades_ws(SYMBOL)) is not None
    assert len(await soon(client.fetch_ohlcv_ws(SYMBOL, "1m", limit=5))) == 5


# -- refusals ----------------------------------------------------------------------------------------------------------


async def test_refusals_of_orders(client: Client) -> None:
    bid, _ = await best(client)
    first = await client.create_order(SYMBOL, "limit", "buy", 0.01, bid * 0.9, {"clientOrderId": "twice"})
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"newClientOrderId": "twice"}, "-2010", "Duplicate order sent."),
        ({"quantity": "100"}, "-2010", "Account has insufficient balance for requested action."),
        ({"price": f"{bid * 0.9:.2f}1"}, "-1013", "Filter failure: PRICE_FILTER"),
        ({"price": "1.00"}, "-1013", "Filter failure: PERCENT_PRICE_BY_SIDE"),
        ({"quantity": "0.00000001"}, "-1013", "Filter failure: LOT_SIZE"),
        ({"quantity": "0.00001"}, "-1013", "Filter failure: NOTIONAL"),
        ({"quantity": "0.000000001"}, "-1111", "too much precision"),
        ({"symbol": "NOSUCH"}, "-1121", "Invalid symbol."),
        ({"side": "HOLD"}, "-1117", "Invalid side."),
        ({"type": "STOP"}, "-1116", "Invalid orderType."),
        ({"timeInForce": "GTX"}, "-1115", "Invalid timeInForce."),
        ({"quantity": None}, "-1102", "Mandatory parameter 'quantity'"),
        ({"quantity": "-1"}, "-1100", "Illegal characters found in parameter 'quantity'"),
    ]
    good = {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTC", "quantity": "0.01"}
    good["price"] = client.price_to_precision(SYMBOL, bid * 0.9)
    for change, code, words in cases:
        request = {name: value for name, value in {**good, **change}.items() if value is not None}
        with pytest.raises(errors.BaseError) as refusal:
            await client.privatePostOrder(request)
        assert code in str(refusal.value) or words in str(refusal.value), (change, str(refusal.value))
        assert words in str(refusal.value), (change, str(refusal.value))
    await client.cancel_order(first["id"], SYMBOL)
    with pytest.raises(errors.BaseError, match="Unknown order sent"):
        await client.cancel_order(first["id"], SYMBOL)
    with pytest.raises(errors.BaseError, match="Order does not exist"):
        await client.fetch_order("99", SYMBOL)


async def test_refusals_of_access(connect: Callable[..., Client]) -> None:
    wrong_secret = connect(secret="x" * 64)
    with pytest.raises(errors.AuthenticationError, match="-1022"):
        await wrong_secret.fetch_balance()
    unknown_key = connect(apiKey="a" * 64)
    with pytest.raises(errors.AuthenticationError, match="-2015"):
        await unknown_key.fetch_balance()
    short_key = connect(apiKey="short")
    with pytest.raises(errors.AuthenticationError, match="-2014"):
        await short_key.fetch_balance()
    late = connect()
    late.nonce = lambda: late.milliseconds() - 60_000
    with pytest.raises(errors.InvalidNonce, match="-1021"):
        await late.fetch_balance()
    early = connect()
    early.nonce = lambda: early.milliseconds() + 60_000
    with pytest.raises(errors.InvalidNonce, match="-1021"):
        await early.fetch_balance()
    over_websocket = connect(secret="x" * 64)
    await over_websocket.load_markets()
    with pytest.raises((errors.AuthenticationError, KeyError)) as refusal:  # ccxt trips over its own cleaning up
        await soon(over_websocket.watch_orders(SYMBOL))
    assert "-1022" in str(refusal.value.__context__ or refusal.value)
