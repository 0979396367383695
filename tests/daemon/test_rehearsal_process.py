"""The rehearsal exchange as a process: its wire beyond what ccxt uses, its tapes, its ends and its bad inputs."""

import asyncio
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import ccxt.pro
import orjson
import polars as pl
import pytest
import trustme
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from daemon.rehearsal.__main__ import parse
from daemon.rehearsal.connection import MAX_BACKLOG_BYTES, Connection, frame
from daemon.rehearsal.market import FIRST_TRADE_ID

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("QUARTET_DATA", ROOT.parent / "shared" / "data"))
WITHIN_S = 10.0
Start = Callable[..., "Server"]


class Server:
    """A running server; its standard input is the leash."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "daemon.rehearsal", *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.hello = orjson.loads(self.process.stdout.readline() or "{}")
        self.address = f"127.0.0.1:{self.hello.get('port')}"

    def wait(self, timeout: float = WITHIN_S) -> tuple[int, str, str]:
        """(exit code, rest of standard output, standard error)."""
        output, complaints = self.process.communicate(timeout=timeout)
        return self.process.returncode, output, complaints


@pytest.fixture
def start() -> Iterator[Start]:
    made: list[Server] = []

    def launch(*arguments: str) -> Server:
        made.append(Server(*arguments))
        return made[-1]

    yield launch
    for server in made:
        if server.process.poll() is None:
            server.process.kill()
        server.process.communicate()


@pytest.fixture(scope="module")
def market() -> Iterator[Server]:
    """One synthetic market for the tests that don't end it."""
    server = Server("--symbols", "BTC/USDT", "--speed", "60", "--weight-limit", "200")
    yield server
    assert server.wait()[0] == 0


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(WITHIN_S)) as made:
        yield made


# -- streams -----------------------------------------------------------------------------------------------------------


async def test_requests_of_a_stream_connection(market: Server, session: aiohttp.ClientSession) -> None:
    async def reply(request: dict[str, Any]) -> dict[str, Any]:
        await socket.send_json(request)
        while "id" not in (message := await socket.receive_json(timeout=WITHIN_S)):
            pass
        assert isinstance(message, dict)
        return message

    async with session.ws_connect(f"ws://{market.address}/ws") as socket:
        assert await reply({"method": "SUBSCRIBE", "params": ["btcusdt@trade", "btcusdt@bookTicker"], "id": 1}) == {"result": None, "id": 1}
        assert await reply({"method": "LIST_SUBSCRIPTIONS", "id": "b"}) == {"result": ["btcusdt@bookTicker", "btcusdt@trade"], "id": "b"}
        await reply({"method": "UNSUBSCRIBE", "params": ["btcusdt@trade"], "id": 3})
        assert (await reply({"method": "LIST_SUBSCRIPTIONS", "id": 4}))["result"] == ["btcusdt@bookTicker"]
        assert (await reply({"method": "SUBSCRIBE", "params": [5], "id": 5}))["error"]["code"] == 2
        assert (await reply({"method": "SHOUT", "params": [], "id": 6}))["error"]["code"] == 2
        await socket.send_str("{")
        while "error" not in (message := await socket.receive_json(timeout=WITHIN_S)):
            pass
        assert message["error"]["code"] == 3


async def test_combined_and_raw_streams(market: Server, session: aiohttp.ClientSession) -> None:
    names = ["btcusdt@depth@100ms", "btcusdt@aggTrade", "btcusdt@depth20@100ms", "btcusdt@depth", "btcusdt@miniTicker"]
    seen: dict[str, dict[str, Any]] = {}
    async with session.ws_connect(f"ws://{market.address}/stream?streams={'/'.join(names)}") as socket:
        while set(seen) < set(names):
            message = await socket.receive_json(timeout=WITHIN_S)
            seen[message["stream"]] = message["data"]
    assert set(seen) == set(names)
    assert seen["btcusdt@aggTrade"]["f"] == seen["btcusdt@aggTrade"]["l"] == seen["btcusdt@aggTrade"]["a"]
    assert len(seen["btcusdt@depth20@100ms"]["bids"]) == 20 and seen["btcusdt@depth"]["U"] <= seen["btcusdt@depth"]["u"]
    async with session.ws_connect(f"ws://{market.address}/ws/btcusdt@trade") as socket:
        assert (await socket.receive_json(timeout=WITHIN_S))["e"] == "trade"


async def test_diffs_are_continuous(market: Server, session: aiohttp.ClientSession) -> None:
    async with session.ws_connect(f"ws://{market.address}/ws/btcusdt@depth@100ms") as socket:
        last = (await socket.receive_json(timeout=WITHIN_S))["u"]
        for _ in range(8):
            message = await socket.receive_json(timeout=WITHIN_S)
            assert message["U"] == last + 1
            last = message["u"]


async def test_a_reader_that_stops_reading_is_cut_off() -> None:
    """What it may owe is bounded; the server neither waits for it nor keeps more."""
    cut: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def pour(request: web.Request) -> web.WebSocketResponse:
        connection = await Connection.accept(request)
        ready, poured = frame(b"x" * 60_000), 0
        while not connection.cut_off and poured < 10 * MAX_BACKLOG_BYTES:
            connection.add(ready)
            connection.flush()
            poured += len(ready)
            await asyncio.sleep(0)
        cut.set_result(poured)
        return connection.socket

    application = web.Application()
    application.router.add_get("/ws", pour)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    with socket.create_connection(runner.addresses[0]) as sleeper:
        sleeper.sendall(
            b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        async with asyncio.timeout(WITHIN_S):
            poured = await cut
        assert MAX_BACKLOG_BYTES < poured < 4 * MAX_BACKLOG_BYTES  # the system's own socket buffers come on top
    await runner.cleanup()


# -- REST --------------------------------------------------------------------------------------------------------------


async def test_weight_is_told_and_enforced(market: Server, session: aiohttp.ClientSession) -> None:
    used = 0
    for _ in range(60):
        async with session.get(f"http://{market.address}/api/v3/exchangeInfo") as response:
            told = int(response.headers["X-MBX-USED-WEIGHT-1M"])
            body = await response.json()
            if response.status == 429:
                assert body["code"] == -1003 and told > 200
                assert 1 <= int(response.headers["Retry-After"]) <= 60
                return
            assert response.status == 200 and (told == used + 20 or told <= 20)
            used = told
    pytest.fail("the budget was never enforced")


async def test_unknown_paths(market: Server, session: aiohttp.ClientSession) -> None:
    async with session.get(f"http://{market.address}/api/v9/nothing") as response:
        assert response.status == 404
    async with session.delete(f"http://{market.address}/api/v3/time") as response:
        assert response.status == 405


# -- the exchange's own names over TLS ---------------------------------------------------------------------------------


class Here(AbstractResolver):
    """Sends every host name to one local port."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        return [ResolveResult(hostname=host, host="127.0.0.1", port=self._port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        pass


async def test_ccxt_with_its_own_urls_over_tls(start: Start, tmp_path: Path) -> None:
    """Untouched URLs, names resolved to us, a private CA: so ccxt maps the spot error codes too."""
    authority = trustme.CA()
    certificate = authority.issue_cert("api.binance.com", "stream.binance.com", "ws-api.binance.com")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    certificate.cert_chain_pems[0].write_to_path(chain)
    certificate.private_key_pem.write_to_path(key)
    server = start("--symbols", "BTC/USDT", "--certificate", str(chain), "--private-key", str(key))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    options = {"fetchMarkets": {"types": ["spot"]}, "fetchMargins": False, "fetchCurrencies": False}
    credentials = {"apiKey": server.hello["api_key"], "secret": server.hello["secret"]}
    connector = aiohttp.TCPConnector(resolver=Here(server.hello["port"]), ssl=context)
    client = ccxt.pro.binance({**credentials, "options": options, "enableRateLimit": False})
    client.timeout_on_exit = 0
    client.session = aiohttp.ClientSession(connector=connector)
    try:
        await client.load_markets()
        async with asyncio.timeout(WITHIN_S):
            book = await client.watch_order_book("BTC/USDT")
            watched = asyncio.ensure_future(client.watch_orders("BTC/USDT"))
            await client.authenticate()
            price = book["bids"][0][0] * 0.9
            placed = await client.create_order("BTC/USDT", "limit", "buy", 0.01, price)
            assert (await watched)[-1]["id"] == placed["id"]
        with pytest.raises(ccxt.OrderImmediatelyFillable):
            await client.create_order("BTC/USDT", "limit", "buy", 0.01, book["asks"][0][0] * 1.01, {"postOnly": True})
        with pytest.raises(ccxt.InsufficientFunds):
            await client.create_order("BTC/USDT", "limit", "buy", 10, price)
        with pytest.raises(ccxt.OrderNotFound):
            await client.cancel_order("1", "BTC/USDT")
    finally:
        await client.close()
        await client.session.close() if client.session else None


# -- tapes -------------------------------------------------------------------------------------------------------------

TAPE_START_NS = 1_700_000_000_000_000_000


def write_tape(folder: Path, seconds: int) -> None:
    """A book session of one symbol: a snapshot, a changed bid each 100 ms, a print each second."""
    deltas, trades = [], []

    def level(at: int, update: int, side: int, price: float, quantity: float, snapshot: bool = False) -> None:
        deltas.append(
            {"local_ns": at, "event_ms": at // 1_000_000, "first_id": update, "final_id": update, "is_snapshot": snapshot}
            | {"side": side, "price": price, "qty": quantity}
        )

    for i in range(5):
        level(TAPE_START_NS, 1, 1, 100.0 - i / 10, 5.0, snapshot=True)
        level(TAPE_START_NS, 1, -1, 100.1 + i / 10, 5.0, snapshot=True)
    for tick in range(1, seconds * 10 + 1):
        level(TAPE_START_NS + tick * 100_000_000, tick + 1, 1, 100.0, 1.0 + tick % 7)
    for second in range(seconds):
        at = TAPE_START_NS + second * 1_000_000_000 + 50_000_000
        trades.append({"local_ns": at, "event_ms": at // 1_000_000, "trade_id": second + 1, "price": 100.1, "qty": 0.5, "is_buyer_maker": False})
    pl.DataFrame(deltas).write_parquet(folder / "btc_usdt-20231114-deltas.parquet")
    pl.DataFrame(trades).write_parquet(folder / "btc_usdt-20231114-trades.parquet")


async def test_a_tape_is_served_in_its_own_time_and_ends_the_server(start: Start, session: aiohttp.ClientSession, tmp_path: Path) -> None:
    write_tape(tmp_path, seconds=6)
    server = start("--data", str(tmp_path), "--speed", "4", "--linger", "0.2")
    assert server.hello["symbols"] == ["BTC/USDT"]
    async with session.ws_connect(f"ws://{server.address}/ws/btcusdt@trade") as socket:
        prints = [orjson.loads(message.data) async for message in socket]
    assert [done["T"] for done in prints] == [prints[0]["T"] + i * 1000 for i in range(len(prints))]
    assert prints[-1]["T"] == TAPE_START_NS // 1_000_000 + 5050 and len(prints) >= 4
    code, output, _ = server.wait()
    assert code == 0 and orjson.loads(output) == {"end": True}


@pytest.mark.skipif(not (DATA / "book").is_dir(), reason="no recorded books: set QUARTET_DATA to the data folder")
async def test_recorded_books_of_two_coins(start: Start, session: aiohttp.ClientSession) -> None:
    """The real session of 2024-07-18, hurried: never crossed on the wire, no recorded print lost."""
    recorded = len(pl.read_parquet(DATA / "trades" / "binance_usdm" / "eth_usdt-20240718-trades.parquet"))
    server = start("--data", str(DATA), "--speed", "150", "--linger", "0")
    assert server.hello["symbols"] == ["BTC/USDT", "ETH/USDT"]
    ids: list[int] = []
    async with session.ws_connect(f"ws://{server.address}/stream?streams=ethusdt@trade/btcusdt@bookTicker") as socket:
        async for message in socket:
            data = orjson.loads(message.data)["data"]
            if data.get("e") == "trade":
                ids.append(data["t"])
            else:
                assert float(data["b"]) < float(data["a"])
    assert ids == list(range(ids[0], FIRST_TRADE_ID + recorded)) and len(ids) > 0.8 * recorded
    assert server.wait()[0] == 0


# -- ends and bad input ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_well(start: Start, number: signal.Signals) -> None:
    server = start("--symbols", "BTC/USDT")
    server.process.send_signal(number)
    assert server.wait()[0] == 0


def test_a_taken_port(start: Start, market: Server) -> None:
    code, output, complaint = start("--port", str(market.hello["port"]), "--symbols", "BTC/USDT").wait()
    assert (code, output) == (2, "") and f"port {market.hello['port']}" in complaint and "Traceback" not in complaint


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--symbols", "FOO/USDT"], "FOO/USDT"),
        (["--data", "/nowhere/at/all"], "/nowhere/at/all"),
        (["--certificate", "/nowhere.pem"], "/nowhere.pem"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_2(start: Start, arguments: list[str], words: str) -> None:
    code, output, complaint = start(*arguments).wait()
    assert (code, output) == (2, "") and words in complaint and "Traceback" not in complaint


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--balance", "USDT"], "CURRENCY=AMOUNT"),
        (["--balance", "USDT=-5"], "CURRENCY=AMOUNT"),
        (["--balance", "USDT=nan"], "CURRENCY=AMOUNT"),
        (["--speed", "0"], "positive"),
        (["--speed", "inf"], "positive"),
        (["--trade-rate", "fast"], "--trade-rate"),
    ],
)
def test_bad_usage_is_one_sentence_and_exit_2(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    with pytest.raises(SystemExit) as end:
        parse(arguments)
    assert end.value.code == 2 and words in capsys.readouterr().err


def test_the_command_line_becomes_the_configuration() -> None:
    config = parse(["--symbols", "BTC/USDT, ETH/USDT", "--balance", "USDT=5", "--balance", "BTC=0.5", "--data", "tape"])
    assert (config.symbols, config.balances) == (("BTC/USDT", "ETH/USDT"), {"USDT": Decimal(5), "BTC": Decimal("0.5")})
    assert config.speed == 1.0 and parse([]).speed == 60.0
    assert len(config.api_key) == len(config.secret) == 64
