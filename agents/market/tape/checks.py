"""What makes a candle file unbelievable. Every complaint names the file, the row and what to do about it."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agents.core.errors import DataError, Gap
from agents.core.instruments import NS, TIMEFRAMES, Symbol
from agents.market.tape.common import say

Times = NDArray[np.int64]
Floats = NDArray[np.float64]

FIELDS = ("open", "high", "low", "close", "volume")
JUMP = 20.0
"""A candle that opens this many times above or below the close before it was recorded in another unit."""
EARLIEST, LATEST = 946_684_800 * NS, 4_102_444_800 * NS
"""The years 2000 to 2100: times outside are of another unit, or no times at all."""


def check_times(
    path: Path, symbol: Symbol, timeframe: str, times: Times, rows: NDArray[np.int64], allow_gaps: bool
) -> None:
    """Raises DataError for opening times (ns) that are none, out of order or off the grid, and Gap for missing candles.

    `rows` are their numbers in the file, counted from 1 without a header.
    """
    length, steps = TIMEFRAMES[timeframe], np.diff(times)
    if len(far := np.flatnonzero((times < EARLIEST) | (times >= LATEST))):
        raise DataError(
            f"{path} row {rows[far[0]]}: this {symbol} candle would be of {_said(int(times[far[0]]))}; its time is in no known unit:"
            " write all times in one (s, ms, us or ns since 1970), or as ISO dates"
        )
    if len(back := np.flatnonzero(steps <= 0)):
        row, time = rows[back[0] + 1], say(int(times[back[0] + 1]))
        if steps[back[0]] == 0:
            raise DataError(f"{path} row {row}: the {symbol} candle of {time} UTC repeats itself; drop duplicate rows")
        raise DataError(f"{path} row {row}: {symbol} steps back to {time} UTC; sort the rows by time")
    if len(steps) and (other := _named(int(np.median(steps)))) not in (None, timeframe):
        raise DataError(
            f"{path}: the {symbol} candles are {other} apart, and not {timeframe}; rename it like btc_usdt-{other}{path.suffix}"
        )
    if len(off := np.flatnonzero(times % length)):
        raise DataError(
            f"{path} row {rows[off[0]]}: the {symbol} candle of {_said(int(times[off[0]]))} does not open on the {timeframe} grid (UTC);"
            " round its times down, or drop the row"
        )
    if len(holes := np.flatnonzero(steps != length)) and not allow_gaps:
        first, until = say(int(times[holes[0]]) + length), say(int(times[holes[0] + 1]))
        more = f", and {len(holes) - 1} more holes" if len(holes) > 1 else ""
        raise Gap(
            f"{path} row {rows[holes[0] + 1]}: no {symbol} {timeframe} candles from {first} until {until} UTC{more};"
            " fill them, choose a stretch without, or allow gaps (--allow-gaps)"
        )


def check_candles(path: Path, symbol: Symbol, frame: pl.DataFrame, before: float | None = None) -> float | None:
    """Raises DataError for a candle (columns row, time and FIELDS) that cannot have been; returns the last close.

    `before` is the close before the first row, for the jump from it.
    """
    matrix = frame.select(pl.col(FIELDS).cast(pl.Float64)).to_numpy()
    opened, high, low, close, volume = matrix.T
    laws: Mapping[str, NDArray[np.bool_]] = {
        "a number is missing or not finite": ~np.isfinite(matrix).all(axis=1),
        "a price is not above zero": matrix[:, :4].min(axis=1) <= 0,
        "the volume is negative": volume < 0,
        "the high is below the low": high < low,
        "the high is below open or close": high < np.maximum(opened, close),
        "the low is above open or close": low > np.minimum(opened, close),
    }
    broken = np.logical_or.reduce(list(laws.values()))
    if broken.any():
        row = int(np.argmax(broken))
        why = next(name for name, bad in laws.items() if bad[row])
        raise DataError(
            f"{path} row {frame['row'][row]}: the {symbol} candle of {say(frame['time'][row])} UTC is impossible: {why}"
            f" {matrix[row].tolist()}; mend the row or leave it out"
        )
    _check_units(path, symbol, frame, opened, close, before)
    return float(close[-1]) if len(close) else before


def _check_units(path: Path, symbol: Symbol, frame: pl.DataFrame, opened: Floats, close: Floats, before: float | None) -> None:
    """Raises DataError where the price of one candle is not in the unit of the one before."""
    if not len(close):
        return
    earlier = np.concatenate([[opened[0] if before is None else before], close[:-1]])
    if len(wild := np.flatnonzero(np.abs(np.log(opened / earlier)) > np.log(JUMP))):
        row = int(wild[0])
        raise DataError(
            f"{path} row {frame['row'][row]}: {symbol} closes at {earlier[row]:g} and opens at {opened[row]:g} at"
            f" {say(frame['time'][row])} UTC; part of the file is in another unit (cents, or a redenominated coin): convert it,"
            " or choose a stretch without"
        )


def _named(length: int) -> str | None:
    return next((name for name, ns in TIMEFRAMES.items() if ns == length), None)


def _said(time: int) -> str:
    """A time to the millisecond, for times that are off by less than a second."""
    return f"{str(np.datetime64(time // 1_000_000, 'ms')).replace('T', ' ')} UTC"
