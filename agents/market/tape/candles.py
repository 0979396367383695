"""Recorded candles: files of one symbol or panels of many, checked row by row and merged in time."""

import heapq
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from operator import itemgetter
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agents.core.errors import DataError, Gap
from agents.core.events import Bar, Event, FeedGap, Stamp
from agents.core.instruments import NS, TIMEFRAMES, Symbol
from agents.market.tape.common import (
    Cut,
    Tape,
    batches,
    check_wanted,
    decimal_places,
    infer_instrument,
    parse_name,
    say,
    scan,
    spot_name,
)

_TIMES = ("timestamp", "time", "open_time", "date", "datetime")
_OHLCV = ("open", "high", "low", "close", "volume")


@dataclass(frozen=True, slots=True)
class Series:
    """Candles of one symbol: a file, or the rows of a panel."""

    path: Path
    symbol: Symbol
    frame: pl.LazyFrame
    """Columns time (ns), open, high, low, close, volume and, where the file has it, funding_rate."""


def open_candles(path: Path, files: list[Path], wanted: tuple[Symbol, ...] | None, timeframe: str | None, cut: Cut) -> Tape:
    chosen, group = choose_candles(path, files, wanted, timeframe)
    by_symbol = {series.symbol: series for series in group}
    symbols = check_wanted(path, list(by_symbol), wanted)
    length = TIMEFRAMES[chosen]
    inside = (pl.col("time") >= cut.start) & (pl.col("time") < cut.end)
    instruments, spans = {}, []
    for symbol in symbols:
        series = by_symbol[symbol] = Series(by_symbol[symbol].path, symbol, by_symbol[symbol].frame.filter(inside))
        instruments[symbol] = infer_instrument(
            symbol, decimal_places(series.frame, _OHLCV[:4]), decimal_places(series.frame, ["volume"]), series.path
        )
        times = series.frame.select("time").collect()["time"].to_numpy()
        if len(times):
            check_times(series, chosen, times, cut.allow_gaps)
            spans.append((int(times[0]), int(times[-1]) + length))
    if not spans:
        raise DataError(f"{path} holds no candles between {say(cut.start)} and the end asked for: widen --from and --to")

    def events() -> Iterator[Event]:
        streams = [_bar_stream(by_symbol[s], i, chosen) for i, s in enumerate(symbols)]
        for seq, (at, _, make) in enumerate(heapq.merge(*streams, key=itemgetter(0, 1)), start=1):
            yield make(Stamp(at, seq))

    return Tape("candles", symbols, instruments, chosen, min(a for a, _ in spans), max(b for _, b in spans), events)


def choose_candles(
    path: Path, files: list[Path], wanted: tuple[Symbol, ...] | None, timeframe: str | None
) -> tuple[str, list[Series]]:
    """The timeframe, and the series of one folder, with most of the wanted symbols, then most symbols. Raises DataError for none."""
    groups: dict[tuple[str, str], list[Series]] = {}
    for file in files:
        for frame_name, series in series_of(file, named_only=path.is_dir()):
            groups.setdefault((str(file.parent), frame_name), []).append(series)
    groups = {key: g for key, g in groups.items() if timeframe in (None, key[1])}
    if not groups:
        hint = f" of {timeframe}" if timeframe else ""
        raise DataError(f"{path} holds no candles{hint}: files need the columns timestamp, open, high, low, close and volume")

    def worth(item: tuple[tuple[str, str], list[Series]]) -> tuple[int, int, int]:
        found = {series.symbol for series in item[1]}
        return len(found & set(wanted or ())), len(found), TIMEFRAMES[item[0][1]]

    (_, chosen), group = max(groups.items(), key=worth)
    return chosen, group


def series_of(path: Path, named_only: bool) -> Iterator[tuple[str, Series]]:
    """(timeframe, series) of every symbol in a candle file; none if a file found in a folder is something else."""
    named = parse_name(path)
    words = re.split(r"[-_]", named[1] if named else path.stem.lower())
    length = next((word for word in words if word in TIMEFRAMES), None)
    if named_only and (length is None or "mark" in words or "rate" in words):
        return
    frame = scan(path)
    columns = frame.collect_schema()
    time = next((name for name in _TIMES if name in columns), None)
    if time is None or any(name not in columns for name in _OHLCV):
        if named_only:
            return
        raise DataError(
            f"{path} is no candle file: it needs timestamp, open, high, low, close, volume; it has {', '.join(columns)}"
        )
    frame = frame.with_columns(_time_ns(frame, time).alias("time"))
    length = length or _spacing(path, frame)
    kept = ("time", *_OHLCV, *(name for name in ("funding_rate",) if name in columns))
    if "symbol" not in columns:
        if named is None:
            raise DataError(f"{path}: the name does not tell the symbol; call it like btc_usdt-1h{path.suffix}")
        yield length, Series(path, named[0], frame.select(kept))
        return
    for symbol in frame.select("symbol").unique().sort("symbol").collect()["symbol"].to_list():
        yield length, Series(path, spot_name(symbol), frame.filter(pl.col("symbol") == symbol).select(kept))


def _time_ns(frame: pl.LazyFrame, column: str) -> pl.Expr:
    """A time column in ns UTC, whatever unit or type it has: plain numbers are told apart by their size."""
    kind = frame.collect_schema()[column]
    if kind == pl.String:
        return pl.col(column).str.to_datetime(time_unit="ns", time_zone="UTC").dt.timestamp("ns")
    if kind.is_temporal():
        return pl.col(column).cast(pl.Datetime("ns")).dt.timestamp("ns")
    first = frame.select(pl.col(column).first().cast(pl.Int64)).collect().item() or 0
    unit = next((unit for unit, below in ((NS, 1e11), (10**6, 1e14), (1000, 1e17)) if first < below), 1)
    return pl.col(column).cast(pl.Int64) * unit


def _spacing(path: Path, frame: pl.LazyFrame) -> str:
    times = frame.select("time").head(1000).collect()["time"].unique().sort().diff().drop_nulls()
    name = next((name for name, length in TIMEFRAMES.items() if len(times) and length == times.min()), None)
    if name is None:
        raise DataError(
            f"{path}: its candles are of no known timeframe ({', '.join(TIMEFRAMES)}); name it like btc_usdt-1h{path.suffix}"
        )
    return name


def _bar_stream(series: Series, rank: int, timeframe: str) -> Iterator[tuple[int, int, Callable[[Stamp], Event]]]:
    """(close time ns, rank of the symbol, maker of the event)."""
    path, symbol, length, last = series.path, series.symbol, TIMEFRAMES[timeframe], 0
    for rows in batches(series.frame):
        check_candles(path, symbol, rows)
        columns = [map(Decimal, map(repr, rows[name].cast(pl.Float64).to_list())) for name in _OHLCV]
        for time, *values in zip(rows["time"].to_list(), *columns, strict=True):
            if last and time != last + length:
                reason = f"hole in the tape: no candles from {say(last + length)} until {say(time)} UTC"
                yield last + length, rank, partial(FeedGap, symbol=symbol, channel="bars", reason=reason)
            last = time
            yield time + length, rank, partial(_bar, symbol, time, timeframe, values)


def _bar(symbol: Symbol, time: int, timeframe: str, values: list[Decimal], stamp: Stamp) -> Bar:
    return Bar(stamp, symbol, time, timeframe, *values)


def check_times(series: Series, timeframe: str, times: NDArray[np.int64], allow_gaps: bool) -> None:
    """Raises DataError for candles out of order or off the grid, and Gap for missing ones."""
    path, symbol, length = series.path, series.symbol, TIMEFRAMES[timeframe]
    steps = np.diff(times)
    if len(back := np.flatnonzero(steps <= 0)):
        here = f"from {say(int(times[back[0]]))} to {say(int(times[back[0] + 1]))} UTC"
        raise DataError(f"{path}: {symbol} steps back or repeats itself {here}; sort the rows by time and drop duplicates")
    if len(off := np.flatnonzero(times % length)):
        raise DataError(f"{path}: the {symbol} candle of {say(int(times[off[0]]))} UTC does not open on the {timeframe} grid")
    holes = np.flatnonzero(steps != length)
    if len(holes) and not allow_gaps:
        first, until = say(int(times[holes[0]]) + length), say(int(times[holes[0] + 1]))
        more = f", and {len(holes) - 1} more holes" if len(holes) > 1 else ""
        raise Gap(
            f"{path}: no {symbol} {timeframe} candles from {first} until {until} UTC{more}; fill them, or choose a stretch without"
        )


def check_candles(path: Path, symbol: Symbol, rows: pl.DataFrame) -> None:
    matrix = rows.select(pl.col(_OHLCV).cast(pl.Float64)).to_numpy()
    opened, high, low, close, volume = matrix.T
    sound = np.isfinite(matrix).all(axis=1) & (low > 0) & (volume >= 0)
    sound &= (high >= np.maximum(opened, close)) & (low <= np.minimum(opened, close))
    if not sound.all():
        row = int(np.argmin(sound))
        raise DataError(f"{path}: the {symbol} candle of {say(rows['time'][row])} UTC is impossible: {matrix[row].tolist()}")
