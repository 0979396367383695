"""Servers of Binance's protocol that take spot streams at one path only, and trades on the account that are not ours."""

from decimal import Decimal
from types import SimpleNamespace

import pytest
from aiohttp import web

from agents.core.events import Adjustment, AdjustmentKind
from daemon.venues.base import Outbox
from daemon.venues.client import ExchangeOptions, build_client, close_client, with_stream_path
from daemon.venues.fills import FillReader
from daemon.venues.parse import parse_own_trade
from daemon.venues.throttle import Throttle


async def served(path: str | None) -> tuple[web.AppRunner, str]:
    """A server that accepts websockets at `path` and nowhere else."""

    async def accept(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.close()
        return socket

    app = web.Application()
    if path is not None:
        app.router.add_get(path, accept)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


@pytest.mark.parametrize(("path", "prefix"), [("/stream/ws/{n}", "/stream"), ("/ws/{n}", ""), (None, "/stream")])
async def test_the_path_of_spot_streams_is_found_by_asking(path: str | None, prefix: str) -> None:
    runner, base_url = await served(path)
    try:
        options = await with_stream_path(ExchangeOptions("binance", base_url))
        assert options.stream_prefix == prefix
        assert options.without_keys().stream_prefix == prefix
        exchange = build_client(options)
        assert exchange.urls["api"]["ws"]["spot"] == base_url.replace("http", "ws") + f"{prefix}/ws"
        client = exchange.client(exchange.urls["api"]["ws"]["spot"] + "/1")
        assert exchange.is_spot_url(client), "whatever the path, ccxt must take it for spot"
        await close_client(exchange)
    finally:
        await runner.cleanup()


async def test_other_exchanges_and_real_ones_are_not_asked() -> None:
    for options in (ExchangeOptions("kraken", "http://127.0.0.1:9"), ExchangeOptions("binance")):
        assert await with_stream_path(options) == options


def test_a_trade_of_somebody_elses_order_moves_the_mirror_of_the_account_and_nothing_of_ours() -> None:
    outbox = Outbox()
    reader = FillReader(SimpleNamespace(id="binance"), Throttle(1.0), outbox, lambda *_: None, lambda _: None)
    row = {
        "id": "7", "order": "99", "symbol": "BTC/USDT", "side": "sell", "price": 60_000.0, "amount": 0.01,
        "fees": [{"cost": 0.6, "currency": "USDT"}], "timestamp": 1,
    }  # fmt: skip
    reader.orphans["BTC/USDT", "99"] = [parse_own_trade(row)]
    reader.disown(("BTC/USDT", "99"))
    reader._take(parse_own_trade({**row, "id": "8", "amount": 0.02, "fees": []}))
    told = []
    while (event := outbox.take()) is not None:
        assert isinstance(event, Adjustment)
        assert event.kind is AdjustmentKind.CORRECTION
        assert "not ours" in event.note
        told.append((event.currency, event.amount))
    assert told == [
        ("BTC", Decimal("-0.01")), ("USDT", Decimal("600.000")), ("USDT", Decimal("-0.6")),
        ("BTC", Decimal("-0.02")), ("USDT", Decimal("1200.000")),
    ]  # fmt: skip
