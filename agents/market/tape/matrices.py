"""Recorded candles as whole arrays, for what looks at all bars at once: the same files and checks as the tape of candles."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from agents.core.errors import DataError
from agents.core.instruments import TIMEFRAMES, Symbol
from agents.market.tape.candles import Series, check_clock, find_candles
from agents.market.tape.checks import FIELDS, check_candles, check_times
from agents.market.tape.common import Cut, check_wanted, say


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
    chosen, found = find_candles(paths, wanted, timeframe)
    rows = [_rows(found[symbol], chosen, cut) for symbol in check_wanted(paths[0], list(found), wanted)]
    rows = [each for each in rows if len(each.times) or wanted is not None]
    if empty := [each.symbol for each in rows if not len(each.times)]:
        raise DataError(f"{', '.join(empty)}: no traded candles between {say(cut.start)} and the end asked for; leave them out")
    if not rows:
        raise DataError(f"{paths[0]} holds no candles between {say(cut.start)} and the end asked for")
    return chosen, rows


def _rows(series: Series, timeframe: str, cut: Cut) -> CandleRows:
    check_clock(series)
    frame = series.frame.filter((pl.col("time") >= cut.start) & (pl.col("time") < cut.end)).collect()
    traded = np.flatnonzero(frame["volume"].to_numpy() != 0)
    frame = frame.slice(int(traded[0]) if len(traded) else len(frame))
    times = frame["time"].to_numpy()
    if len(times):
        check_times(series.path, series.symbol, timeframe, times, frame["row"].to_numpy(), cut.allow_gaps)
        check_candles(series.path, series.symbol, frame)
    values = frame.select(pl.col(FIELDS).cast(pl.Float64)).to_numpy()
    funding = frame["funding_rate"].cast(pl.Float64).to_numpy() if "funding_rate" in frame.columns else None
    return CandleRows(series.symbol, times, np.ascontiguousarray(values), funding)


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
