"""Tapes: candles, book sessions and recorded segments, whole and damaged."""

import json
import os
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from agents.core.codec import encode
from agents.core.errors import DataError, Gap
from agents.core.events import Bar, BookSnapshot, Event, FeedGap, Listing, Stamp, Trade
from agents.core.instruments import NS, Currency, Instrument, Side, Symbol
from agents.market.fold import BookFold
from agents.market.tape import open_tape

D = Decimal
HOUR = 3600 * NS
T0 = 1_700_000_000 * NS // HOUR * HOUR
BTC, ETH = Symbol("BTC/USDT"), Symbol("ETH/USDT")
DATA = Path(os.environ.get("QUARTET_DATA", Path(__file__).parents[2] / "../shared/data"))
recorded = pytest.mark.skipif(not DATA.is_dir(), reason="the recorded market data is not here; set QUARTET_DATA to its folder")


# -- candles -----------------------------------------------------------------------------------------------------------


def candles(count: int, start: int = T0, step: int = HOUR, price: float = 100.0) -> pl.DataFrame:
    times = [(start + i * step) // 1_000_000 for i in range(count)]
    rows = [(t, price + i, price + i + 2.5, price + i - 1, price + i + 1, 10.25 + i) for i, t in enumerate(times)]
    return pl.DataFrame(rows, schema=["timestamp", "open", "high", "low", "close", "volume"], orient="row")


def bars(events: list[Event]) -> list[Bar]:
    return [e for e in events if isinstance(e, Bar)]


def test_one_candle_file(tmp_path: Path) -> None:
    candles(3).write_parquet(tmp_path / "btc_usdt-1h.parquet")
    tape = open_tape(tmp_path / "btc_usdt-1h.parquet")
    assert (tape.kind, tape.symbols, tape.timeframe, tape.start, tape.end) == ("candles", (BTC,), "1h", T0, T0 + 3 * HOUR)
    assert list(tape.events()) == list(tape.events())
    first = next(tape.events())
    assert first == Bar(Stamp(T0 + HOUR, 1), BTC, T0, "1h", D("100.0"), D("102.5"), D("99.0"), D("101.0"), D("10.25"))
    listing = tape.instruments[BTC]
    assert (listing.tick, listing.lot, listing.min_notional, listing.base) == (D("0.1"), D("0.01"), D(5), "BTC")


def test_a_folder_is_merged_in_time_and_cut(tmp_path: Path) -> None:
    candles(4).write_parquet(tmp_path / "btc_usdt-1h.parquet")
    candles(3, T0 + HOUR, price=5).write_parquet(tmp_path / "eth_usdt-1h.parquet")
    candles(4, step=60 * NS).write_parquet(tmp_path / "btc_usdt-1m.parquet")
    candles(4).rename({"volume": "turnover"}).write_parquet(tmp_path / "btc_usdt-1h-mark.parquet")
    tape = open_tape(tmp_path, T0 + HOUR, T0 + 3 * HOUR)
    events = bars(list(tape.events()))
    assert [(e.symbol, (e.time - T0) // HOUR, e.stamp.seq) for e in events] == [
        (BTC, 1, 1),
        (ETH, 1, 2),
        (BTC, 2, 3),
        (ETH, 2, 4),
    ]
    assert open_tape(tmp_path, symbols=["ETH/USDT"]).symbols == (ETH,)
    assert open_tape(tmp_path, timeframe="1m").timeframe == "1m"
    with pytest.raises(DataError, match="holds no SOL/USDT; it holds BTC/USDT, ETH/USDT"):
        open_tape(tmp_path, symbols=["SOL/USDT"])
    with pytest.raises(DataError, match="no candles between"):
        open_tape(tmp_path, T0 + 99 * HOUR)


@pytest.mark.parametrize("unit", [1, 1000, 10**6, 10**9])
@pytest.mark.parametrize("suffix", ["csv", "feather", "parquet"])
def test_units_of_time_and_file_types(tmp_path: Path, unit: int, suffix: str) -> None:
    frame = candles(3).with_columns(pl.col("timestamp") // 1000 * unit)
    path = tmp_path / f"BTC_USDT_USDT-1h-futures.{suffix}"
    getattr(frame, {"csv": "write_csv", "feather": "write_ipc", "parquet": "write_parquet"}[suffix])(path)
    assert [e.time for e in bars(list(open_tape(path).events()))] == [T0, T0 + HOUR, T0 + 2 * HOUR]


def test_dates_as_text_or_type(tmp_path: Path) -> None:
    typed = candles(3).with_columns(pl.from_epoch("timestamp", "ms").alias("date")).drop("timestamp")
    typed.write_parquet(tmp_path / "btc_usdt-1h.parquet")
    typed.with_columns(pl.col("date").dt.strftime("%Y-%m-%d %H:%M:%S")).write_csv(tmp_path / "btc_usdt-1h.csv")
    for name in ("btc_usdt-1h.parquet", "btc_usdt-1h.csv"):
        assert next(iter(bars(list(open_tape(tmp_path / name).events())))).time == T0


def test_a_panel_names_perpetuals_as_spot(tmp_path: Path) -> None:
    panel = pl.concat([candles(3).with_columns(symbol=pl.lit(name)) for name in ("BTC/USDC:USDC", "ETH/USDC:USDC")])
    panel.write_parquet(tmp_path / "some-1h-panel.parquet")
    tape = open_tape(tmp_path / "some-1h-panel.parquet")
    assert tape.symbols == ("BTC/USDC", "ETH/USDC")
    assert [e.symbol for e in bars(list(tape.events()))] == ["BTC/USDC", "ETH/USDC"] * 3


def test_a_hole_is_an_error_or_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "btc_usdt-1h.parquet"
    candles(6).filter(~pl.col("timestamp").is_in([(T0 + i * HOUR) // 1_000_000 for i in (2, 3)])).write_parquet(path)
    with pytest.raises(
        Gap, match=r"btc_usdt-1h\.parquet row 3: no BTC/USDT 1h candles from 2023-11-15 00:00:00 until 2023-11-15 02:00:00"
    ):
        open_tape(path)
    kinds = [type(e).__name__ for e in open_tape(path, allow_gaps=True).events()]
    assert kinds == ["Bar", "Bar", "FeedGap", "Bar", "Bar"]
    assert open_tape(path, T0 + 4 * HOUR).start == T0 + 4 * HOUR


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"close": float("nan")}, "impossible"),
        ({"low": -1.0}, "impossible"),
        ({"high": 90.0}, "impossible"),
        ({"volume": -1.0}, "impossible"),
        ({"timestamp": T0 // 1_000_000}, "repeats itself"),
        ({"timestamp": T0 // 1_000_000 + 3_600_001}, "does not open on the 1h grid"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = tmp_path / "btc_usdt-1h.parquet"
    row = pl.int_range(pl.len()) == 1
    frame = candles(2).with_columns([pl.when(row).then(pl.lit(v)).otherwise(pl.col(k)).alias(k) for k, v in change.items()])
    frame.write_parquet(path)
    with pytest.raises(DataError, match=words) as caught:
        list(open_tape(path).events())
    assert "btc_usdt-1h.parquet" in str(caught.value)


def test_useless_paths_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_tape(tmp_path / "nowhere")
    with pytest.raises(DataError, match="holds no tape"):
        open_tape(tmp_path)
    (tmp_path / "btc_usdt-1h.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match="cannot be read"):
        open_tape(tmp_path / "btc_usdt-1h.parquet")
    (tmp_path / "news.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="no candle file"):
        open_tape(tmp_path / "news.csv")
    with pytest.raises(DataError, match="end before it starts"):
        open_tape(tmp_path, 5, 5)


# -- books -------------------------------------------------------------------------------------------------------------

Row = tuple[int, int, bool, int, float, float]
"""(local s, final id, snapshot, side, price, quantity)"""
SNAPSHOT: list[Row] = [(2, 5, True, 1, 99.9, 2.0), (2, 5, True, 1, 99.8, 1.0), (2, 5, True, -1, 100.1, 3.0)]
EARLY: list[Row] = [(0, 3, False, 1, 50.0, 9.0), (1, 6, False, -1, 100.2, 4.0)]


def session(folder: Path, rows: list[Row], trades: list[tuple[int, int, float, float, bool]], coin: str = "btc") -> Path:
    """A recorded session: deltas under book/, trades in the sibling tree."""
    names = ["local_ns", "final_id", "is_snapshot", "side", "price", "qty"]
    frame = pl.DataFrame([(r[0] * NS + T0, *r[1:]) for r in rows], schema=names, orient="row").with_columns(
        event_ms=pl.col("local_ns") // 1_000_000 + 1500, first_id=pl.col("final_id"), side=pl.col("side").cast(pl.Int8)
    )
    prints = pl.DataFrame(
        [(t[0] * NS + T0, *t[1:]) for t in trades],
        schema={"local_ns": pl.Int64, "trade_id": pl.Int64, "price": pl.Float64, "qty": pl.Float64, "is_buyer_maker": pl.Boolean},
        orient="row",
    ).with_columns(event_ms=pl.col("local_ns") // 1_000_000 + 1500)
    for part, content in (("book", frame), ("trades", prints)):
        (folder / part / "venue").mkdir(parents=True, exist_ok=True)
        content.write_parquet(
            folder / part / "venue" / f"{coin}_usdt-20231115-{'deltas' if part == 'book' else 'trades'}.parquet"
        )
    return folder / "book" / "venue" / f"{coin}_usdt-20231115-deltas.parquet"


TRADES = [(2, 10, 99.9, 0.5, True), (3, 11, 100.1, 0.25, False)]


def test_a_session_is_folded_from_its_snapshot_on(tmp_path: Path) -> None:
    path = session(
        tmp_path, [*EARLY, *SNAPSHOT, (3, 7, False, 1, 99.9, 0.0), (3, 7, False, 1, 99.7, 2.5), (4, 7, False, 1, 99.9, 1)], TRADES
    )
    tape = open_tape(path)
    assert (tape.kind, tape.symbols, tape.instruments[BTC].tick, tape.instruments[BTC].lot) == (
        "book",
        (BTC,),
        D("0.1"),
        D("0.01"),
    )
    events = list(tape.events())
    books = [e for e in events if isinstance(e, BookSnapshot)]
    assert books[0].bids == ((D("99.9"), D(2)), (D("99.8"), D(1)))
    assert books[0].asks == ((D("100.1"), D(3)), (D("100.2"), D(4)))  # the early change that the snapshot does not hold
    assert books[1].bids == ((D("99.8"), D(1)), (D("99.7"), D("2.5")))
    assert len(books) == 2  # the last message is old news
    assert books[0].time == books[0].stamp.at == T0 + 3500 * 1_000_000
    prints = [e for e in events if isinstance(e, Trade)]
    assert [(t.trade_id, t.price, t.quantity, t.side) for t in prints] == [
        ("10", D("99.9"), D("0.5"), Side.SELL), ("11", D("100.1"), D("0.25"), Side.BUY)
    ]  # fmt: skip
    assert [e.stamp.seq for e in events] == [1, 2, 3, 4]


def test_two_symbols_of_one_session_and_a_cut(tmp_path: Path) -> None:
    session(tmp_path, SNAPSHOT, TRADES)
    session(tmp_path, [*SNAPSHOT, (4, 8, False, 1, 99.0, 1.0)], TRADES, coin="eth")
    tape = open_tape(tmp_path)
    assert tape.symbols == (BTC, ETH)
    ats = [e.stamp.at for e in tape.events()]
    assert len(ats) == 7 and ats == sorted(ats)
    assert [type(e) for e in open_tape(tmp_path, T0 + 5 * NS).events()] == [BookSnapshot]
    assert open_tape(tmp_path, symbols=["ETH/USDT"]).symbols == (ETH,)


@pytest.mark.parametrize(
    ("rows", "trades", "words"),
    [
        ([*SNAPSHOT, (30, 7, False, 1, 99.7, 1.0)], TRADES, "a hole in the book between"),
        ([*SNAPSHOT, (3, 7, False, 1, 100.4, 1.0)], TRADES, "a hole in the book between"),
        (SNAPSHOT, [TRADES[0], (3, 14, 100.1, 1, False)], "trades 11 to 13"),
    ],
)
def test_holes_in_sessions(tmp_path: Path, rows: list[Row], trades: list[Any], words: str) -> None:
    path = session(tmp_path, rows, trades)
    with pytest.raises(Gap, match=words) as caught:
        list(open_tape(path).events())
    assert "20231115" in str(caught.value)
    assert sum(isinstance(e, FeedGap) for e in open_tape(path, allow_gaps=True).events()) == 1


def test_sessions_that_cannot_be_rebuilt(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no snapshot rows"):
        open_tape(session(tmp_path / "a", EARLY, TRADES))
    path = session(tmp_path / "b", SNAPSHOT, TRADES)
    (tmp_path / "b/trades/venue/btc_usdt-20231115-trades.parquet").unlink()
    with pytest.raises(DataError, match="no trades beside it"):
        open_tape(path)
    with pytest.raises(DataError, match="negative or not a number"):
        list(open_tape(session(tmp_path / "c", [*SNAPSHOT, (3, 7, False, 1, 99.7, -1.0)], TRADES)).events())


@given(st.lists(st.tuples(st.sampled_from([1, -1]), st.integers(1, 40), st.integers(0, 5)), max_size=80))
def test_folding_equals_a_dictionary(changes: list[tuple[int, int, int]]) -> None:
    fold, plain = BookFold(D("0.1"), D("0.01")), {1: dict[int, int](), -1: dict[int, int]()}
    for number, (side, tick, lots) in enumerate(changes):
        fold.apply([side], [tick], [lots])
        plain[side][tick] = lots
        if number % 3:
            fold.bids.top(3)
    bids = sorted(((t, n) for t, n in plain[1].items() if n), reverse=True)
    asks = sorted((t, n) for t, n in plain[-1].items() if n)
    assert fold.bids.top(5) == tuple((t * D("0.1"), n * D("0.01")) for t, n in bids[:5])
    assert fold.asks.top(5) == tuple((t * D("0.1"), n * D("0.01")) for t, n in asks[:5])
    assert fold.crossed == bool(bids and asks and bids[0][0] >= asks[0][0])


# -- segments ----------------------------------------------------------------------------------------------------------


def segment(path: Path, events: list[Event]) -> Path:
    text = "".join(json.dumps(encode(e)) + "\n" for e in events).encode()
    path.write_bytes(zstandard.ZstdCompressor().compress(text) if path.suffix == ".zst" else text)
    return path


def print_at(second: int, symbol: Symbol = BTC, price: str = "100.5") -> Trade:
    return Trade(Stamp(5, 9), symbol, T0 + second * NS, str(second), D(price), D("0.25"), Side.BUY)


def test_segments_are_read_in_order_and_restamped(tmp_path: Path) -> None:
    segment(tmp_path / "000000000001.jsonl.zst", [print_at(1), print_at(3), print_at(2)])
    segment(tmp_path / "000000000004.jsonl", [print_at(4), print_at(5, ETH, "20")])
    tape = open_tape(tmp_path)
    assert (tape.kind, tape.symbols, tape.instruments[BTC].tick, tape.instruments[ETH].lot) == (
        "segments",
        (BTC, ETH),
        D("0.1"),
        D("0.01"),
    )
    assert [(e.stamp.at - T0) // NS for e in tape.events()] == [1, 3, 3, 4, 5]
    assert [e.stamp.seq for e in tape.events()] == [1, 2, 3, 4, 5]
    late = open_tape(tmp_path, T0 + 5 * NS, symbols=["ETH/USDT"])
    assert [e.symbol for e in late.events() if isinstance(e, Trade)] == [ETH]


def test_a_listing_in_a_segment_is_believed(tmp_path: Path) -> None:
    listing = Instrument(BTC, Currency("BTC"), Currency("USDT"), D("0.05"), D("0.001"), min_notional=D(10))
    path = segment(tmp_path / "1.jsonl", [Listing(Stamp(1), listing), print_at(1)])
    tape = open_tape(path)
    assert tape.instruments == {BTC: listing}
    assert [type(e) for e in tape.events()] == [Listing, Trade]


@pytest.mark.parametrize("cut", [5, 30])
def test_a_cut_segment_is_named_with_its_line(tmp_path: Path, cut: int) -> None:
    path = segment(tmp_path / "1.jsonl", [print_at(1), print_at(2)])
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError, match=r"1\.jsonl line 2 cannot be read"):
        list(open_tape(path).events())


def test_an_empty_segment_is_no_tape(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no market events"):
        open_tape(segment(tmp_path / "1.jsonl", []))


# -- recorded data -----------------------------------------------------------------------------------------------------


@recorded
def test_the_recorded_session_of_bitcoin_and_ether() -> None:
    tape = open_tape(DATA)
    assert (tape.kind, tape.symbols) == ("book", (BTC, ETH))
    assert {s: (i.tick, i.lot) for s, i in tape.instruments.items()} == {
        BTC: (D("0.1"), D("0.001")),
        ETH: (D("0.01"), D("0.001")),
    }
    trades = books = at = 0
    begun = time.process_time()
    for e in tape.events():
        assert e.stamp.at >= at
        at = e.stamp.at
        if isinstance(e, BookSnapshot):
            books += 1
            assert e.bids[0][0] < e.asks[0][0] and len(e.bids) == len(e.asks) == 20
        else:
            trades += 1
    assert time.process_time() - begun < 7.6  # 760,000 changes at 100,000 a second
    assert trades == 10_701 + 13_655 and books > 17_900


@recorded
def test_the_folded_book_agrees_with_the_recorded_best_prices() -> None:
    best = pl.read_parquet(DATA / "book/binance_usdm/btc_usdt-20240718-bbo.parquet")
    changes = pl.read_parquet(DATA / "book/binance_usdm/btc_usdt-20240718-deltas.parquet")
    ids = dict(zip((changes["event_ms"] * 1_000_000).to_list(), changes["final_id"].to_list(), strict=True))
    quotes = {row[0]: row[1:] for row in best.select("update_id", "bid_price", "bid_qty", "ask_price", "ask_qty").iter_rows()}
    agreed = 0
    for e in open_tape(DATA, symbols=["BTC/USDT"]).events():
        if isinstance(e, BookSnapshot) and ids.get(e.time) in quotes:
            assert tuple(float(x) for level in (e.bids[0], e.asks[0]) for x in level) == quotes[ids[e.time]]
            agreed += 1
    assert agreed > 50


@recorded
def test_eight_symbols_of_recorded_candles() -> None:
    start = int(datetime(2023, 4, 1, tzinfo=UTC).timestamp()) * NS
    tape = open_tape(DATA / "ohlcv/binance", start)
    assert len(tape.symbols) == 8 and tape.timeframe == "1h"
    events = list(tape.events())
    assert len(events) == (tape.end - start) // HOUR * 8
    with pytest.raises(Gap, match="more holes"):
        open_tape(DATA / "ohlcv/binance")
