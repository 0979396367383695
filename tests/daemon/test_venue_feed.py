"""The feed against a server that drops, stalls, skips, babbles and restarts; ccxt is the real one."""

import asyncio
import itertools
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trustme

from agents.core.errors import ConfigError
from agents.core.events import Bar, BookSnapshot, Event, FeedGap, Listing, Trade
from agents.core.instruments import TIMEFRAMES, Symbol
from daemon.venues.client import ExchangeOptions, build_client
from daemon.venues.feed import CcxtFeed, FeedOptions
from tests.daemon.scripted_binance import ScriptedBinance, listing, scripted_binance, until

BTC, ETH = Symbol("BTC/USDT"), Symbol("ETH/USDT")
QUICK = FeedOptions(history=(("1h", 3), ("1m", 5)), book_silence_s=0.4, trade_silence_s=0.4, look_s=0.05, connect_s=3, timeout_s=2)
CALM = FeedOptions(history=(("1m", 5),), connect_s=3)
E = TypeVar("E")


class Heard(list[Event]):
    """What came in, by kind."""

    feed: CcxtFeed

    def of(self, kind: type[E], symbol: Symbol | None = None) -> list[E]:
        return [e for e in self if isinstance(e, kind) and (symbol is None or getattr(e, "symbol", None) == symbol)]

    def ids(self, symbol: Symbol = BTC) -> list[int]:
        return [int(trade.trade_id) for trade in self.of(Trade, symbol)]


@asynccontextmanager
async def listening(options: ExchangeOptions, reading: FeedOptions = CALM, change: Callable[[Any], None] | None = None,
                    symbols: tuple[Symbol, ...] = (BTC, ETH)) -> AsyncIterator[Heard]:  # fmt: skip
    def factory() -> Any:
        exchange = build_client(options)
        if change is not None:
            change(exchange)
        return exchange

    heard = Heard()
    heard.feed = CcxtFeed(factory, symbols, time.time_ns, reading)

    async def read() -> None:
        async with aclosing(heard.feed.events()) as events:  # type: ignore[type-var]
            async for event in events:
                heard.append(event)

    reader = asyncio.ensure_future(read())
    try:
        yield heard
    finally:
        reader.cancel()
        await asyncio.wait({reader})


def at(server: ScriptedBinance) -> ExchangeOptions:
    return ExchangeOptions("binance", server.url, timeout_ms=2000)


async def live(server: ScriptedBinance, heard: Heard) -> None:
    """Until both streams have brought something of BTC."""
    await until(lambda: any("btcusdt@trade" in streams for streams in server.sockets.values()))
    await until(lambda: any("btcusdt@depth@100ms" in streams for streams in server.sockets.values()))
    await until(lambda: heard.of(BookSnapshot, BTC))
    await server.trade("BTCUSDT")
    await until(lambda: heard.of(Trade, BTC))


async def test_listings_first_then_closed_bars_oldest_first_then_live() -> None:
    async with scripted_binance() as server, listening(at(server), QUICK) as heard:
        await live(server, heard)
        kinds = [type(event) for event in heard]
        assert kinds[:2] == [Listing, Listing]
        assert kinds[2 : 2 + 16] == [Bar] * 16
        instrument = heard.of(Listing)[0].instrument
        assert (instrument.tick, instrument.lot, instrument.min_notional) == (Decimal("0.01"), Decimal("0.0001"), Decimal(5))
        bars = heard.of(Bar)[:16]
        ends = [bar.time + TIMEFRAMES[bar.timeframe] for bar in bars]
        assert ends == sorted(ends)
        assert ends[-1] <= time.time_ns()
        assert sum(bar.timeframe == "1h" and bar.symbol == ETH for bar in bars) == 3
        assert all(event.stamp == (0, 0) for event in heard)


async def test_no_trade_of_a_burst_is_lost() -> None:
    async with scripted_binance() as server, listening(at(server)) as heard:
        await live(server, heard)
        await server.trade("BTCUSDT", count=30_000)
        await until(lambda: len(heard.of(Trade, BTC)) >= 30_001, 20)
        assert heard.ids() == list(range(1, 30_002))


async def test_trades_printed_while_disconnected_are_fetched_in_order() -> None:
    async with scripted_binance() as server, listening(at(server), QUICK) as heard:
        await live(server, heard)
        await server.drop()
        await server.trade("BTCUSDT", count=5, tell=False)
        await until(lambda: any("btcusdt@trade" in streams for streams in server.sockets.values()))
        await server.trade("BTCUSDT", count=2)
        await until(lambda: 8 in heard.ids())
        assert heard.ids() == list(range(1, 9))
        assert {gap.channel for gap in heard.of(FeedGap, BTC)} == {"book"}
        await until(lambda: isinstance([e for e in heard if isinstance(e, FeedGap | BookSnapshot) and e.symbol == BTC][-1], BookSnapshot))


async def test_a_hole_larger_than_rest_can_bridge_is_told_and_its_bars_are_fetched() -> None:
    async with scripted_binance() as server, listening(at(server), QUICK) as heard:
        await live(server, heard)
        await server.drop()
        await server.trade("BTCUSDT", count=1500, tell=False)
        await until(lambda: heard.ids()[-1] == 1501)
        await until(lambda: heard.of(FeedGap))
        assert ("trades", "hole") in {(gap.channel, gap.reason) for gap in heard.of(FeedGap, BTC)}
        assert heard.ids() == [1, *range(502, 1502)]


async def test_a_silent_stream_is_found_out_and_the_client_rebuilt() -> None:
    async with scripted_binance() as server, listening(at(server), QUICK) as heard:
        await live(server, heard)
        server.mute = True
        await server.quote("BTCUSDT", "7.0")
        await until(lambda: heard.feed.rebuilds)
        server.mute = False
        await until(lambda: any("btcusdt@depth@100ms" in streams for streams in server.sockets.values()))
        await server.quote("BTCUSDT", "8.0")
        await until(lambda: heard.of(BookSnapshot, BTC)[-1].bids[0] == (99, 8))
        assert heard.of(FeedGap, BTC)


async def test_a_quiet_market_is_no_silent_stream() -> None:
    async with scripted_binance() as server, listening(at(server), QUICK) as heard:
        await live(server, heard)
        asked = len(server.calls)
        await until(lambda: sum(call[1] == "depth" for call in server.calls[asked:]) >= 3)
        assert heard.feed.rebuilds == 0
        assert not heard.of(FeedGap)


@pytest.mark.parametrize("frame", ["garbage", "[]", '{"e":"kline","s":"BTCUSDT"}', '{"e":"trade"}'])
async def test_a_malformed_frame_hangs_no_stream_for_long(frame: str) -> None:
    async with scripted_binance() as server, listening(at(server), QUICK) as heard:
        await live(server, heard)
        await server.garbage(frame)
        await server.trade("BTCUSDT", count=3)
        await server.quote("BTCUSDT", "5.5")
        await until(lambda: heard.feed.rebuilds)
        await until(lambda: heard.of(BookSnapshot, BTC)[-1].bids[0] == (99, Decimal("5.5")))
        await until(lambda: heard.ids() == [1, 2, 3, 4])


async def test_a_skipped_diff_makes_the_book_distrusted_until_the_next_snapshot() -> None:
    async with scripted_binance() as server, listening(at(server)) as heard:
        await live(server, heard)
        await server.quote("BTCUSDT", "3.0")
        await until(lambda: heard.of(BookSnapshot, BTC)[-1].bids[0] == (99, 3))
        await server.quote("BTCUSDT", "4.0", skip=3)
        gap = (await until(lambda: heard.of(FeedGap, BTC)))[0]
        assert (gap.channel, gap.reason) == ("book", "ChecksumError")
        await until(lambda: heard.of(BookSnapshot, BTC)[-1].bids[0] == (99, 4))
        assert not [e for e in heard[heard.index(gap) :] if isinstance(e, BookSnapshot) and e.symbol == BTC and e.bids[0] == (99, 3)]
        assert not heard.of(FeedGap, ETH)


async def test_a_restarted_server_is_found_again() -> None:
    async with scripted_binance() as server, listening(at(server), QUICK) as heard:
        await live(server, heard)
        await server.stop()
        await until(lambda: heard.of(FeedGap, BTC))
        await server.start()
        await until(lambda: any("btcusdt@trade" in streams for streams in server.sockets.values()), 15)
        await server.trade("BTCUSDT")
        await until(lambda: heard.ids() == [1, 2])


async def test_a_snapshot_is_a_copy_and_unchanged_books_are_not_repeated_at_once() -> None:
    async with scripted_binance() as server, listening(at(server)) as heard:
        await live(server, heard)
        first = heard.of(BookSnapshot, BTC)[-1]
        await server.quote("BTCUSDT", "1.0")
        await server.quote("BTCUSDT", "2.0")
        await until(lambda: heard.of(BookSnapshot, BTC)[-1].bids[0] == (99, 2))
        assert first.bids[0] == (99, 1)
        tops = [(book.bids, book.asks) for book in heard.of(BookSnapshot, BTC)]
        assert all(a != b for a, b in itertools.pairwise(tops))


def without(*names: str) -> Callable[[Any], None]:
    def change(exchange: Any) -> None:
        for name in names:
            exchange.has[name] = False

    return change


async def test_what_is_not_streamed_is_polled() -> None:
    reading = FeedOptions(history=(("1m", 2),), poll_s=0.05)
    change = without("watchTrades", "watchOrderBook")
    async with scripted_binance() as server, listening(at(server), reading, change) as heard:
        await server.trade("BTCUSDT", count=3, tell=False)
        await until(lambda: heard.of(BookSnapshot, ETH))
        await server.trade("BTCUSDT", count=2, tell=False)
        await until(lambda: heard.ids()[-1:] == [5])
        await server.quote("ETHUSDT", "9.0", tell=False)
        await until(lambda: heard.of(BookSnapshot, ETH)[-1].bids[0] == (99, 9))
        assert not server.sockets


async def test_one_stream_a_symbol_where_the_exchange_has_no_other() -> None:
    change = without("watchTradesForSymbols", "watchOrderBookForSymbols")
    async with scripted_binance() as server, listening(at(server), CALM, change) as heard:
        await live(server, heard)
        await until(lambda: len(server.sockets) == 4)


async def test_tls_by_resolver_leaves_the_real_names() -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("api.binance.com", "stream.binance.com").configure_cert(context)
    with authority.cert_pem.tempfile() as pem:
        async with scripted_binance(context) as server:
            options = ExchangeOptions("binance", f"https://127.0.0.1:{server.port}", Path(pem), timeout_ms=2000)
            async with listening(options) as heard:
                await live(server, heard)
                assert {host.split(":")[0] for host in server.hosts} == {"api.binance.com", "stream.binance.com"}


@pytest.mark.parametrize(
    ("symbols", "word"),
    [((Symbol("BTC/USDC"),), "did you mean .*BTC/USDT"), ((Symbol("XYZ/ABC"),), "none like it"), ((Symbol("ETH/USDT"),), "suspended")],
)
async def test_a_symbol_that_cannot_be_traded_is_a_clear_error(symbols: tuple[Symbol, ...], word: str) -> None:
    async with scripted_binance() as server:
        server.listings["ETHUSDT"] = listing("ETHUSDT", "BREAK")
        feed = CcxtFeed(lambda: build_client(at(server)), symbols, time.time_ns, CALM)
        with pytest.raises(ConfigError, match=f"exchange.symbols.*{word}"):
            await anext(feed.events())


async def test_an_unknown_timeframe_is_a_clear_error() -> None:
    async with scripted_binance() as server:
        feed = CcxtFeed(lambda: build_client(at(server)), (BTC,), time.time_ns, FeedOptions(history=(("2m", 5),)))
        with pytest.raises(ConfigError, match=r"timeframe '2m'.*1m"):
            await anext(feed.events())


async def test_changed_filters_are_told_after_a_reload() -> None:
    async with scripted_binance() as server, listening(at(server)) as heard:
        await live(server, heard)
        server.listings["BTCUSDT"]["filters"][0]["tickSize"] = "0.10"
        heard.feed.reload_markets()
        await until(lambda: [e for e in heard.of(Listing) if e.instrument.tick == Decimal("0.1")])
        assert len(heard.of(Listing)) == 3


async def test_closing_the_events_releases_everything() -> None:
    async with scripted_binance() as server:
        async with listening(at(server)) as heard:
            await live(server, heard)
        await until(lambda: not server.sockets)
