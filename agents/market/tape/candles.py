"""Recorded candles: files of one symbol or panels of many, checked row by row and merged in time."""

import heapq
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from operator import itemgetter
from pathlib import Path

import polars as pl

from agents.core.errors import DataError
from agents.core.events import Bar, Event, FeedGap, Stamp
from agents.core.instruments import NS, TIMEFRAMES, Symbol
from agents.market.tape.checks import FIELDS, LATEST, check_candles, check_times
from agents.market.tape.common import (
    Cut,
    Tape,
    batches,
    check_wanted,
    collect,
    decimal_places,
    infer_instrument,
    parse_name,
    say,
    scan,
    spot_name,
)

SUFFIXES = (".parquet", ".csv", ".feather")
_TIMES = ("timestamp", "time", "open_time", "date", "datetime")


@dataclass(frozen=True, slots=True)
class Series:
    """Candles of one symbol: a file, or the rows of a panel."""

    path: Path
    symbol: Symbol
    frame: pl.LazyFrame
    """Columns row (number in the file, from 1), time (ns), open, high, low, close, volume and, where the file has it, funding_rate."""


def open_candles(paths: Sequence[Path], wanted: tuple[Symbol, ...] | None, timeframe: str | None, cut: Cut) -> Tape:
    """Candles of files and folders together. Raises DataError, and Gap for missing rows unless the cut allows them."""
    chosen, by_symbol = find_candles(paths, wanted, timeframe)
    path = paths[0]
    symbols = check_wanted(path, list(by_symbol), wanted)
    length = TIMEFRAMES[chosen]
    inside = (pl.col("time") >= cut.start) & (pl.col("time") < cut.end)
    instruments, spans, counts = {}, [], {}
    for symbol in symbols:
        check_clock(by_symbol[symbol])
        series = by_symbol[symbol] = Series(by_symbol[symbol].path, symbol, by_symbol[symbol].frame.filter(inside))
        instruments[symbol] = infer_instrument(
            symbol, decimal_places(series.frame, FIELDS[:4]), decimal_places(series.frame, ["volume"]), series.path
        )
        clock = collect(series.path, series.frame.select("row", "time"))
        times, counts[symbol] = clock["time"].to_numpy(), len(clock)
        if len(times):
            check_times(series.path, symbol, chosen, times, clock["row"].to_numpy(), cut.allow_gaps)
            spans.append((int(times[0]), int(times[-1]) + length))
    if not spans:
        raise DataError(f"{path} holds no candles between {say(cut.start)} and the end asked for: widen --from and --to")

    def events() -> Iterator[Event]:
        streams = [_bar_stream(by_symbol[s], i, chosen) for i, s in enumerate(symbols)]
        for seq, (at, _, make) in enumerate(heapq.merge(*streams, key=itemgetter(0, 1)), start=1):
            yield make(Stamp(at, seq))

    return Tape("candles", symbols, instruments, chosen, min(a for a, _ in spans), max(b for _, b in spans), events, counts)


def find_candles(
    paths: Sequence[Path], wanted: tuple[Symbol, ...] | None, timeframe: str | None
) -> tuple[str, dict[Symbol, Series]]:
    """The timeframe and the series by symbol of files and folders together. Raises DataError for none, for a symbol that stands
    in two places, and for several timeframes."""
    found: dict[Symbol, Series] = {}
    frames: dict[str, Path] = {}
    for path in paths:
        chosen, group = choose_candles(path, candle_files(path), wanted, timeframe)
        frames.setdefault(chosen, path)
        for series in group:
            if series.symbol in found and (wanted is None or series.symbol in wanted):
                raise DataError(f"{series.symbol} stands in {found[series.symbol].path} and in {series.path}: give one of them")
            found[series.symbol] = series
    if not found:
        raise DataError("no candles were asked for: give at least one file or folder")
    if len(frames) > 1:
        said = " and ".join(f"{frame} in {path}" for frame, path in frames.items())
        raise DataError(f"the candles are of several timeframes ({said}): choose one timeframe")
    return next(iter(frames)), found


def candle_files(path: Path) -> list[Path]:
    """The files that may hold candles. Raises DataError for a path that is not there."""
    if not path.exists():
        raise DataError(f"{path} does not exist: give a parquet, csv or feather file, or a folder of them")
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES and p.is_file())


def check_clock(series: Series) -> None:
    """Raises DataError for a row whose time is missing or cannot be read: no window would contain it."""
    lost = collect(series.path, series.frame.filter(pl.col("time").is_null()).select("row").head(1))
    if len(lost):
        raise DataError(f"{series.path} row {lost['row'][0]}: this {series.symbol} candle has no time that can be read; write it or drop the row")


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
    frame = scan(path).with_row_index("row", offset=1)
    columns = frame.collect_schema()
    time = next((name for name in _TIMES if name in columns), None)
    if time is None or any(name not in columns for name in FIELDS):
        if named_only:
            return
        raise DataError(
            f"{path} is no candle file: it needs timestamp, open, high, low, close, volume; it has {', '.join(list(columns)[1:])}"
        )
    frame = frame.with_columns(_time_ns(path, frame, time).alias("time"), *_numbers(path, frame))
    length = length or _spacing(path, frame)
    kept = ("row", "time", *FIELDS, *(name for name in ("funding_rate",) if name in columns))
    if "symbol" not in columns:
        if named is None:
            raise DataError(f"{path}: the name does not tell the symbol; call it like btc_usdt-1h{path.suffix}")
        yield length, Series(path, named[0], frame.select(kept))
        return
    for symbol in collect(path, frame.select("symbol").unique().sort("symbol"))["symbol"].to_list():
        yield length, Series(path, spot_name(symbol), frame.filter(pl.col("symbol") == symbol).select(kept))


def _time_ns(path: Path, frame: pl.LazyFrame, column: str) -> pl.Expr:
    """A time column in ns UTC, whatever unit or type it has: plain numbers are told apart by their size. Null where it is no time."""
    kind = frame.collect_schema()[column]
    if kind == pl.String:
        return pl.col(column).str.to_datetime(time_unit="ns", time_zone="UTC", strict=False).dt.timestamp("ns")
    if kind.is_temporal():
        return pl.col(column).cast(pl.Datetime("ns")).dt.timestamp("ns")
    if not kind.is_numeric():
        raise DataError(f"{path}: column {column} is of type {kind} and no time; write milliseconds since 1970, or ISO dates")
    first = collect(path, frame.select(pl.col(column).drop_nulls().first().cast(pl.Int64, strict=False))).item() or 0
    unit = next((unit for unit, below in ((NS, 1e11), (10**6, 1e14), (1000, 1e17)) if first < below), 1)
    raw = pl.col(column).cast(pl.Int64, strict=False)
    # What is too late for any unit is left too late: the product would wrap around to a time that looks possible.
    return pl.when(raw >= LATEST // unit).then(LATEST).otherwise(raw * unit)


def _numbers(path: Path, frame: pl.LazyFrame) -> list[pl.Expr]:
    """Prices and volumes that are written as text, as numbers; null where they are none."""
    kinds = frame.collect_schema()
    for name in FIELDS:
        if not (kinds[name].is_numeric() or kinds[name] in (pl.String, pl.Null)):
            raise DataError(f"{path}: column {name} is of type {kinds[name]} and no number; write plain numbers")
    return [pl.col(name).cast(pl.Float64, strict=False) for name in FIELDS if kinds[name] == pl.String]


def _spacing(path: Path, frame: pl.LazyFrame) -> str:
    times = collect(path, frame.select("time").head(1000))["time"].unique().sort().diff().drop_nulls()
    name = next((name for name, length in TIMEFRAMES.items() if len(times) and length == times.min()), None)
    if name is None:
        raise DataError(
            f"{path}: its candles are of no known timeframe ({', '.join(TIMEFRAMES)}); name it like btc_usdt-1h{path.suffix}"
        )
    return name


def _bar_stream(series: Series, rank: int, timeframe: str) -> Iterator[tuple[int, int, Callable[[Stamp], Event]]]:
    """(close time ns, rank of the symbol, maker of the event)."""
    path, symbol, length, last = series.path, series.symbol, TIMEFRAMES[timeframe], 0
    close: float | None = None
    for rows in batches(series.frame):
        close = check_candles(path, symbol, rows, close)
        columns = [map(Decimal, map(repr, rows[name].cast(pl.Float64).to_list())) for name in FIELDS]
        for time, *values in zip(rows["time"].to_list(), *columns, strict=True):
            if last and time != last + length:
                reason = f"hole in the tape: no candles from {say(last + length)} until {say(time)} UTC"
                yield last + length, rank, partial(FeedGap, symbol=symbol, channel="bars", reason=reason)
            last = time
            yield time + length, rank, partial(_bar, symbol, time, timeframe, values)


def _bar(symbol: Symbol, time: int, timeframe: str, values: list[Decimal], stamp: Stamp) -> Bar:
    return Bar(stamp, symbol, time, timeframe, *values)
