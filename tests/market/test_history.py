"""Candles as arrays: what is loaded equals the files, what cannot be believed is named, features equal the engine's."""

import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from agents.core.errors import DataError, Gap
from agents.core.instruments import Symbol
from agents.market.batch import hour_history
from agents.market.features import HOUR
from agents.market.history import CandleHistory, hour_features, load_history
from agents.market.hour_rows import hour_rows

START = 1_640_995_200_000  # 2022-01-01 in ms
NS_PER_MS = 10**6


def table(rows=60, seed=0, start=START, step=3_600_000, price=100.0):
    rng = np.random.default_rng(seed)
    close = price * np.exp(np.cumsum(rng.normal(0, 0.01, rows)))
    opened = np.concatenate([[price], close[:-1]])
    return pl.DataFrame({
        "timestamp": start + step * np.arange(rows), "open": opened, "high": np.maximum(opened, close) * 1.002,
        "low": np.minimum(opened, close) * 0.998, "close": close, "volume": rng.gamma(2.0, 5.0, rows),
    })  # fmt: skip


def write(folder: Path, name: str, frame: pl.DataFrame) -> Path:
    path = folder / f"{name}.parquet"
    frame.write_parquet(path)
    return path


def history(rows=300, width=3, seed=0, first=()):
    """A synthetic hourly history; symbol i begins in row first[i]."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, (rows, 1)) + rng.normal(0, 0.01, (rows, width)), axis=0))
    opened = np.vstack([np.full(width, 100.0), close[:-1]])
    values = [opened, np.maximum(opened, close) * 1.003, np.minimum(opened, close) * 0.997, close, rng.gamma(2.0, 5.0, (rows, width))]
    for column, row in enumerate(first):
        for each in values:
            each[:row, column] = np.nan
    times = (START * NS_PER_MS + HOUR * np.arange(rows)).astype(np.int64)
    return CandleHistory(tuple(Symbol(f"S{i}/USDT") for i in range(width)), "1h", times, *values)


def test_a_folder_and_its_files_are_the_same_arrays(tmp_path):
    a, b = table(seed=1), table(40, seed=2, start=START + 20 * 3_600_000)
    paths = [write(tmp_path, "btc_usdt-1h", a), write(tmp_path, "eth_usdt-1h", b)]
    folder, files = load_history(tmp_path), load_history(paths)
    assert folder.symbols == files.symbols == ("BTC/USDT", "ETH/USDT") and folder.timeframe == "1h"
    assert np.array_equal(folder.close[:, 0], a["close"].to_numpy()) and np.array_equal(folder.times // NS_PER_MS, a["timestamp"].to_numpy())
    assert np.isnan(folder.close[:20, 1]).all() and np.array_equal(folder.volume[20:, 1], b["volume"].to_numpy())
    assert np.array_equal(folder.close, files.close, equal_nan=True)
    assert load_history(tmp_path, ["ETH/USDT"]).symbols == ("ETH/USDT",)
    cut = load_history(tmp_path, start=(START + 5 * 3_600_000) * NS_PER_MS, end=(START + 9 * 3_600_000) * NS_PER_MS, symbols=["BTC/USDT"])
    assert cut.close[:, 0].tolist() == a["close"][5:9].to_list()


@pytest.mark.parametrize("unit", [1_000, 1, 1 / 1_000, 1 / 1_000_000])
def test_times_in_any_unit_are_understood(tmp_path, unit):
    frame = table().with_columns((pl.col("timestamp") / unit).cast(pl.Int64))
    loaded = load_history(write(tmp_path, "btc_usdt-1h", frame))
    assert loaded.times[0] == START * NS_PER_MS


def test_a_panel_has_funding_and_no_prices_before_the_listing(tmp_path):
    a, b = table(seed=1), table(seed=2)
    b = b.with_columns(pl.when(pl.int_range(pl.len()) < 7).then(0.0).otherwise(pl.col("volume")).alias("volume"))
    frames = [f.with_columns(pl.lit(s).alias("symbol"), pl.lit(1e-5).alias("funding_rate")) for f, s in ((a, "A/USDC:USDC"), (b, "B/USDC:USDC"))]
    loaded = load_history(write(tmp_path, "perps-1h-panel", pl.concat(frames)))
    assert loaded.symbols == ("A/USDC", "B/USDC")
    assert loaded.listed.sum(axis=0).tolist() == [60, 53] and not loaded.listed[:7, 1].any()
    assert loaded.funding is not None and np.nansum(loaded.funding) == pytest.approx(113e-5)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda f: pl.concat([f[:20], f[25:]]), Gap, "no BTC/USDT 1h candles from 2022-01-01 20:00:00"),
        (lambda f: pl.concat([f[:20], f[19:]]), DataError, "repeats itself"),
        (lambda f: f[::-1], DataError, "steps back"),
        (lambda f: f.with_columns(pl.col("timestamp") + 60_000), DataError, "does not open on the 1h grid"),
        (lambda f: f.with_columns((pl.col("timestamp") // 86_400_000).cast(pl.Int64)), DataError, "no known unit"),
        (lambda f: pl.concat([f[:30], f[30:].with_columns(pl.col("open", "high", "low", "close") * 100)]), DataError, "another unit"),
        (lambda f: f.with_columns(pl.col("high") * 0.5), DataError, "impossible"),
        (lambda f: f.with_columns(pl.lit(0.0).alias("volume")), DataError, "no candles"),
        (lambda f: f.with_columns(pl.when(pl.int_range(pl.len()) == 9).then(float("nan")).otherwise(pl.col("close")).alias("close")), DataError, "impossible"),
    ],
)
def test_what_cannot_be_believed_is_named(tmp_path, change, error, says):
    path = write(tmp_path, "btc_usdt-1h", change(table()))
    with pytest.raises(error, match=says):
        load_history(path)


def test_mixed_timeframes_and_strangers_are_named(tmp_path):
    hour, minute = write(tmp_path, "btc_usdt-1h", table()), write(tmp_path, "eth_usdt-1m", table(step=60_000))
    with pytest.raises(DataError, match="several timeframes"):
        load_history([hour, minute])
    with pytest.raises(DataError, match="holds no XRP/USDT"):
        load_history(hour, ["XRP/USDT"])
    with pytest.raises(DataError, match="does not exist"):
        load_history(tmp_path / "none.parquet")
    with pytest.raises(DataError, match="give one of them"):
        load_history([hour, hour])


def test_a_hole_that_is_allowed_invents_no_price(tmp_path):
    frame = table()
    loaded = load_history(write(tmp_path, "btc_usdt-1h", pl.concat([frame[:20], frame[25:]])), allow_gaps=True)
    assert len(loaded.times) == 60 and not loaded.listed[20:25].any() and np.isnan(loaded.open[20:25]).all()
    moves = loaded.returns()[:, 0]
    assert (moves[20:25] == 0).all() and np.prod(1 + moves) == pytest.approx(frame["close"][-1] / frame["close"][0])
    assert moves[25] == pytest.approx(frame["close"][25] / frame["close"][19] - 1)


def test_a_history_refuses_what_is_none():
    good = history(10)
    with pytest.raises(DataError, match="not 1h apart at row 4"):
        CandleHistory(good.symbols, "1h", np.delete(good.times, 4), *(np.delete(getattr(good, n), 4, 0) for n in ("open", "high", "low", "close", "volume")))
    bad = good.low.copy()
    bad[3, 1] = np.nan
    with pytest.raises(DataError, match="S1/USDT candle in row 3"):
        CandleHistory(good.symbols, "1h", good.times, good.open, good.high, bad, good.close, good.volume)
    with pytest.raises(DataError, match=r"S2/USDT .10.*at least 50"):
        history(100, first=(0, 0, 90)).require(50)


def test_minutes_have_no_hourly_features():
    good = history(10)
    minutes = good.times[0] + 60 * 10**9 * np.arange(10)
    short = CandleHistory(good.symbols, "1m", minutes, good.open, good.high, good.low, good.close, good.volume)
    with pytest.raises(DataError, match="load the 1h candles"):
        hour_features(short)


def test_features_of_a_ragged_history_equal_the_complete_ones():
    full = history(400, 3)
    arrays = (full.closings, full.close, full.high, full.low, full.volume)
    np.testing.assert_allclose(hour_rows(*arrays, full.listed), hour_history(*arrays), rtol=2e-6, atol=1e-7)


def test_features_of_late_listings_look_at_nothing_that_comes_later():
    late = history(500, 3, first=(0, 0, 260))
    features = hour_features(late)
    assert np.isfinite(features).all()
    np.testing.assert_array_equal(hour_features(late.rows(0, 300))[290], features[290])


@pytest.mark.skipif("QUARTET_DATA" not in os.environ, reason="QUARTET_DATA names no folder of recorded markets")
def test_recorded_candles_load():
    folder = Path(os.environ["QUARTET_DATA"])
    spot = load_history(folder / "ohlcv" / "binance", timeframe="1h", allow_gaps=True)
    assert len(spot.symbols) == 8 and spot.listed.sum(axis=0).max() == 65_590
    panel = load_history(folder / "multi_asset" / "hyperliquid-1h-panel.parquet")
    assert len(panel.symbols) == 42 and panel.funding is not None and np.isfinite(panel.funding[panel.listed]).all()
