"""Candles of many symbols as whole arrays on one clock, and the hourly features over them: what training and evaluation read."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from agents.core.errors import DataError
from agents.core.instruments import TIMEFRAMES, Symbol
from agents.market.batch import hour_history
from agents.market.features import DAY, HOUR
from agents.market.hour_rows import hour_rows
from agents.market.tape.matrices import panel, read_candles

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Times = npt.NDArray[np.int64]

FIELDS = ("open", "high", "low", "close", "volume")


@dataclass(frozen=True, eq=False)
class CandleHistory:
    """Candles of N symbols in T equally spaced rows. A symbol without a candle in a row has NaN there: prices are never invented.

    Prices are in quote, volumes in base units, `funding` the fraction that a long pays for the row (None: spot). Raises
    DataError, naming symbol and row, for what cannot be a candle.
    """

    symbols: tuple[Symbol, ...]
    timeframe: str
    times: Times
    """int64 [T]: opening times, ns UTC."""
    open: Floats
    high: Floats
    low: Floats
    close: Floats
    volume: Floats
    funding: Floats | None = None

    def __post_init__(self) -> None:
        if self.timeframe not in TIMEFRAMES:
            raise DataError(f"timeframe {self.timeframe!r}: use one of {', '.join(TIMEFRAMES)}")
        if not self.symbols or len(set(self.symbols)) != len(self.symbols):
            raise DataError(f"symbols {self.symbols}: at least one, each once")
        shape = (len(self.times), len(self.symbols))
        for name in (*FIELDS, "funding"):
            values = getattr(self, name)
            if values is not None and values.shape != shape:
                raise DataError(f"{name} has shape {values.shape}, times and symbols say {shape}")
        steps = np.diff(self.times)
        if not len(self.times) or (len(bad := np.flatnonzero(steps != self.length)) > 0):
            where = f"row {int(bad[0]) + 1}" if len(self.times) else "the start: there is none"
            raise DataError(f"candles are not {self.timeframe} apart at {where}; a missing candle is a row of NaN")
        self._check()

    def _check(self) -> None:
        there = ~np.isnan(self.close)
        opened, high, low, close, volume = (getattr(self, name) for name in FIELDS)
        with np.errstate(invalid="ignore"):
            sound = np.isfinite(opened) & np.isfinite(high) & np.isfinite(volume) & (low > 0) & (volume >= 0)
            sound &= (high >= np.maximum(opened, close)) & (low <= np.minimum(opened, close))
        gone = np.isnan(opened) & np.isnan(high) & np.isnan(low) & np.isnan(volume)
        bad = np.argwhere(~np.where(there, sound, gone))
        if len(bad):
            row, column = bad[0].tolist()
            candle = [float(getattr(self, name)[row, column]) for name in FIELDS]
            raise DataError(f"the {self.symbols[column]} candle in row {row} is impossible: {candle}")

    # -- questions -------------------------------------------------------------------------------------------------

    @property
    def length(self) -> int:
        """Nanoseconds of one row."""
        return TIMEFRAMES[self.timeframe]

    @property
    def closings(self) -> Times:
        """int64 [T]: when each row closes and is known, ns UTC."""
        return self.times + self.length

    @property
    def periods_per_year(self) -> float:
        """Rows in 365 days."""
        return 365.0 * DAY / self.length

    @cached_property
    def listed(self) -> Flags:
        """bool [T, N]: where a symbol has a candle."""
        flags: Flags = ~np.isnan(self.close)
        return flags

    @cached_property
    def marks(self) -> Floats:
        """Last known close at the end of each row, [T, N]; NaN before a symbol's first candle."""
        last = np.maximum.accumulate(np.where(self.listed, np.arange(len(self.times))[:, None], -1), axis=0)
        return np.where(last >= 0, np.take_along_axis(self.close, np.maximum(last, 0), axis=0), np.nan)

    def returns(self) -> Floats:
        """Simple returns from close to close, [T, N]; a move over a gap falls on the candle after it, 0 where there is none."""
        result = np.zeros_like(self.close)
        before, now = self.marks[:-1], self.marks[1:]
        np.divide(now, before, out=result[1:], where=~np.isnan(before))
        result[1:] -= ~np.isnan(before)
        return result

    def slice(self, start: int | None = None, end: int | None = None) -> "CandleHistory":
        """Rows that open in [start, end), market times in ns. Raises DataError if there are none."""
        first = 0 if start is None else int(np.searchsorted(self.times, start))
        stop = len(self.times) if end is None else int(np.searchsorted(self.times, end))
        return self.rows(first, stop)

    def rows(self, first: int, stop: int) -> "CandleHistory":
        """Rows [first, stop)."""
        if stop <= first:
            raise DataError(f"no candles are left between row {first} and row {stop} of {len(self.times)}")
        opened, high, low, close, volume = (getattr(self, name)[first:stop] for name in FIELDS)
        funding = None if self.funding is None else self.funding[first:stop]
        return CandleHistory(self.symbols, self.timeframe, self.times[first:stop], opened, high, low, close, volume, funding)

    def select(self, symbols: Sequence[str]) -> "CandleHistory":
        """The same rows of some symbols, in their order. Raises DataError for a stranger."""
        if missing := [symbol for symbol in symbols if symbol not in self.symbols]:
            raise DataError(f"no candles of {', '.join(missing)}; there are {', '.join(self.symbols)}")
        columns = [self.symbols.index(Symbol(symbol)) for symbol in symbols]
        opened, high, low, close, volume = (getattr(self, name)[:, columns] for name in FIELDS)
        chosen = tuple(self.symbols[column] for column in columns)
        funding = None if self.funding is None else self.funding[:, columns]
        return CandleHistory(chosen, self.timeframe, self.times, opened, high, low, close, volume, funding)

    def require(self, rows: int) -> "CandleHistory":
        """Itself. Raises DataError, naming them, if symbols have fewer than `rows` candles: too few to learn or judge by."""
        count = self.listed.sum(axis=0)
        if few := [f"{symbol} ({number})" for symbol, number in zip(self.symbols, count.tolist(), strict=True) if number < rows]:
            raise DataError(f"too few candles of {', '.join(few)}: at least {rows} are needed; leave the symbols out or load more")
        return self


def load_history(
    paths: Sequence[Path] | Path,
    symbols: Sequence[str] | None = None,
    start: int | None = None,
    end: int | None = None,
    timeframe: str | None = None,
    *,
    allow_gaps: bool = False,
) -> CandleHistory:
    """Candle files, folders of them, or panels of many symbols, cut to candles that open in market times [start, end) ns.

    A folder gives the timeframe with most of the wanted symbols. Symbols may begin and end at different times. Raises DataError
    for duplicates, impossible candles and changes of unit, and Gap for holes; with `allow_gaps` a hole is rows of NaN.
    """
    listed = [paths] if isinstance(paths, Path) else list(paths)
    chosen, rows = read_candles(listed, symbols, start, end, timeframe, allow_gaps)
    times, values, funding = panel(rows, chosen)
    opened, high, low, close, volume = values
    return CandleHistory(tuple(each.symbol for each in rows), chosen, times, opened, high, low, close, volume, funding)


def hour_features(history: CandleHistory) -> npt.NDArray[np.float32]:
    """HOUR_COLUMNS of every row as the engine would know them at its close, float32 [T, N, columns]; neutral where unknown.

    Row t uses candles up to and including t. Raises DataError for candles shorter than an hour.
    """
    if history.length < HOUR:
        raise DataError(f"hourly features need candles of an hour or longer, these are {history.timeframe}; load the 1h candles")
    arrays = (history.close, history.high, history.low, history.volume)
    if history.length == HOUR and history.listed.all():
        return hour_history(history.closings, *arrays).astype(np.float32)
    return hour_rows(history.closings, *arrays, history.listed)
