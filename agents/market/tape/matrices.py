"""Recorded candles as whole arrays, for what looks at all bars at once: the same files and checks as the tape of candles."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agents.core.errors import DataError
from agents.core.instruments import NS, TIMEFRAMES, Symbol
from agents.market.tape.candles import Series, check_candles, check_times, choose_candles
from agents.market.tape.common import Cut, check_wanted, say

FIELDS = ("open", "high", "low", "close", "volume")
JUMP = 20.0
"""A candle that opens this many times above or below the close before it was recorded in another unit."""
EARLIEST = 946_684_800 * NS
"""Times before the year 2000 are of another unit, or no times at all."""
_SUFFIXES = (".parquet", ".csv", ".feather")


@dataclass(frozen=True, slots=True, eq=False)
class CandleRows:
    """One symbol's candles in time order: `times` int64 [rows] (open, ns), `values` float64 [rows, 5] of FIELDS."""

    symbol: Symbol
    times: NDArray[np.int64]
    values: NDArray[np.float64]
    funding: NDArray[np.float64] | None


def read_candles(
    paths: Sequence[Path], symbols: Sequence[str] | None, start: int | None, end: int | None, timeframe: str | None, allow_gaps: bool
) -> tuple[str, list[CandleRows]]:
    """(timeframe, one entry a symbol) of files and folders together, cut to candles that open in [start, end) ns.

    Without `symbols` all that are found. Candles before a symbol's first volume are prices from before its listing and left out.
    Raises DataError, in one sentence, for anything that cannot be believed; Gap for missing rows unless `allow_gaps`.
    """
    cut = Cut(start or 0, end if end is not None else 1 << 62, allow_gaps)
    if cut.start >= cut.end:
        raise DataError("the candles are asked to end before they start: exchange start and end")
    wanted = tuple(Symbol(symbol) for symbol in symbols) if symbols else None
    found: dict[Symbol, Series] = {}
    frames: dict[str, Path] = {}
    for path in paths:
        chosen, group = choose_candles(path, _files(path), wanted, timeframe)
        frames[chosen] = path
        for series in group:
            if series.symbol in found and (wanted is None or series.symbol in wanted):
                raise DataError(f"{series.symbol} stands in {found[series.symbol].path} and in {series.path}: give one of them")
            found[series.symbol] = series
    if not found:
        raise DataError("no candles were asked for: give at least one file or folder")
    if len(frames) > 1:
        said = " and ".join(f"{frame} in {path}" for frame, path in frames.items())
        raise DataError(f"the candles are of several timeframes ({said}): choose one timeframe")
    chosen = next(iter(frames))
    rows = [_rows(found[symbol], chosen, cut) for symbol in check_wanted(paths[0], list(found), wanted)]
    rows = [each for each in rows if len(each.times) or wanted is not None]
    if empty := [each.symbol for each in rows if not len(each.times)]:
        raise DataError(f"{', '.join(empty)}: no traded candles between {say(cut.start)} and the end asked for; leave them out")
    if not rows:
        raise DataError(f"{paths[0]} holds no candles between {say(cut.start)} and the end asked for")
    return chosen, rows


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise DataError(f"{path} does not exist: give a parquet, csv or feather file, or a folder of them")
    return [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix in _SUFFIXES and p.is_file())


def _rows(series: Series, timeframe: str, cut: Cut) -> CandleRows:
    frame = series.frame.filter((pl.col("time") >= cut.start) & (pl.col("time") < cut.end)).collect()
    traded = np.flatnonzero(frame["volume"].to_numpy() != 0)
    frame = frame.slice(int(traded[0]) if len(traded) else len(frame))
    times = frame["time"].to_numpy()
    if len(times):
        if times.min() < EARLIEST:
            raise DataError(f"{series.path}: {series.symbol} has a candle of {say(int(times.min()))} UTC; its times are in no known unit")
        check_times(series, timeframe, times, cut.allow_gaps)
        check_candles(series.path, series.symbol, frame)
    values = frame.select(pl.col(FIELDS).cast(pl.Float64)).to_numpy()
    _check_units(series, times, values)
    funding = frame["funding_rate"].cast(pl.Float64).to_numpy() if "funding_rate" in frame.columns else None
    return CandleRows(series.symbol, times, np.ascontiguousarray(values), funding)


def _check_units(series: Series, times: NDArray[np.int64], values: NDArray[np.float64]) -> None:
    """Raises DataError where the price of one candle is not in the unit of the one before."""
    moved = np.abs(np.log(values[1:, 0] / values[:-1, 3])) if len(values) else np.zeros(0)
    if len(wild := np.flatnonzero(moved > np.log(JUMP))):
        row = int(wild[0]) + 1
        raise DataError(
            f"{series.path}: {series.symbol} closes at {values[row - 1, 3]:g} and opens at {values[row, 0]:g} at {say(int(times[row]))} UTC;"
            " part of the file is in another unit (cents, or a redenominated coin): convert it, or choose a stretch without"
        )


def panel(rows: Sequence[CandleRows], timeframe: str) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64] | None]:
    """(times [T], values [5, T, N], funding [T, N] or None) on one equally spaced grid; NaN where a symbol has no candle."""
    length = TIMEFRAMES[timeframe]
    first = min(int(each.times[0]) for each in rows)
    last = max(int(each.times[-1]) for each in rows)
    times = np.arange(first, last + length, length, dtype=np.int64)
    values = np.full((len(FIELDS), len(times), len(rows)), np.nan)
    funding = np.full((len(times), len(rows)), np.nan)
    for column, each in enumerate(rows):
        place = (each.times - first) // length
        values[:, place, column] = each.values.T
        if each.funding is not None:
            funding[place, column] = each.funding
    return times, values, funding if any(each.funding is not None for each in rows) else None
