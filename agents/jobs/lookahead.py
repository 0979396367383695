"""Whether anything known at t changes when the candles after t do: features, observations, the vector environment, decisions.

Each check makes a trace of the candles, numbers and the market time at which each is known. The candles after a cut are altered in
several ways, and the traces up to the cut must be the same bit for bit: a number that is not has seen the future. A last check
compares the features of whole histories with those of the event path, which sees one closed bar after the other.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import ConfigError, DataError
from agents.jobs.result import moment
from agents.market.history import CandleHistory

Numbers = NDArray[Any]
ALIGNMENT = "features against the event path"
LEAST_ROWS = 60
"""Fewer leave no room for a cut with something on both sides."""
WARM_ROWS = 24
TOLERANCE = 1e-4
"""Of the comparison between whole histories and the event path: float32 numbers of two orders of summation."""


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """`values` [K, ...] and the market time [K] (ns UTC) from which each row may be known; `label` names one number of a row."""

    times: NDArray[np.int64]
    values: Numbers
    label: Callable[[tuple[int, ...]], str]


Check = Callable[[CandleHistory], Trace]
Alter = Callable[[CandleHistory, int, np.random.Generator], CandleHistory]


@dataclass(frozen=True, slots=True)
class Leak:
    """A number that changed with what came after it."""

    check: str
    alteration: str
    cut: int
    """Market time, ns: all candles that close later were altered."""
    at: int
    """Market time, ns, at which the first number that changed was known."""
    what: str
    changed: int
    """How many numbers changed."""

    def sentence(self) -> str:
        """In words."""
        if not self.alteration:
            return f"{self.check}: {self.what}"
        return f"{self.check}: {self.what} of {moment(self.at)} changes when the candles after {moment(self.cut)} are altered ({self.alteration})"


@dataclass(frozen=True, slots=True)
class Lookahead:
    """What was compared, and what leaked."""

    symbols: tuple[str, ...]
    rows: int
    cuts: tuple[int, ...]
    compared: Mapping[str, int]
    """By check, how many numbers were compared in all."""
    leaks: tuple[Leak, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing leaked."""
        return not self.leaks

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "sound": self.sound,
            "symbols": list(self.symbols),
            "rows": self.rows,
            "cuts": [moment(cut) for cut in self.cuts],
            "compared": dict(self.compared),
            "leaks": [leak.sentence() for leak in self.leaks],
        }


# -- other futures -----------------------------------------------------------------------------------------------------


def shifted(history: CandleHistory, row: int, rng: np.random.Generator) -> CandleHistory:
    """After `row` every candle comes one bar early; the last stands twice."""
    del rng
    order = np.minimum(np.arange(len(history.times)) + 1, len(history.times) - 1)
    return _reordered(history, row, order)


def shuffled(history: CandleHistory, row: int, rng: np.random.Generator) -> CandleHistory:
    """After `row` the candles come in any order."""
    order = np.arange(len(history.times))
    order[row + 1 :] = rng.permutation(order[row + 1 :])
    return _reordered(history, row, order)


def disturbed(history: CandleHistory, row: int, rng: np.random.Generator) -> CandleHistory:
    """After `row` prices are 5 % and volumes three times other ones, candles as a whole, so that they stay possible."""
    shape = history.close.shape
    price, volume = np.ones(shape), np.ones(shape)
    price[row + 1 :] = np.exp(0.05 * rng.standard_normal((shape[0] - row - 1, shape[1])))
    volume[row + 1 :] = np.exp(rng.standard_normal((shape[0] - row - 1, shape[1])))
    opened, high, low, close = (values * price for values in (history.open, history.high, history.low, history.close))
    return CandleHistory(
        history.symbols, history.timeframe, history.times, opened, high, low, close, history.volume * volume, history.funding
    )


ALTERATIONS: Mapping[str, Alter] = {"shifted by one bar": shifted, "shuffled": shuffled, "disturbed": disturbed}


def _reordered(history: CandleHistory, row: int, order: NDArray[np.int64]) -> CandleHistory:
    order = np.where(np.arange(len(order)) <= row, np.arange(len(order)), order)
    fields = (history.open, history.high, history.low, history.close, history.volume)
    opened, high, low, close, volume = (values[order] for values in fields)
    funding = None if history.funding is None else history.funding[order]
    return CandleHistory(history.symbols, history.timeframe, history.times, opened, high, low, close, volume, funding)


# -- the search --------------------------------------------------------------------------------------------------------


def search(
    history: CandleHistory, checks: Mapping[str, Check], cuts: int = 3, seed: int = 0, alterations: Mapping[str, Alter] = ALTERATIONS,
    progress: Callable[[float], None] | None = None,
) -> Lookahead:  # fmt: skip
    """Every check against every alteration after each of `cuts` random rows. Raises DataError for a history too short to cut."""
    rows = len(history.times)
    if rows < LEAST_ROWS:
        raise DataError(f"{rows} candles leave no room for a cut with something on both sides; give at least {LEAST_ROWS}")
    if cuts < 1:
        raise ConfigError(f"{cuts} cuts: at least one")
    rng = np.random.default_rng(seed)
    places = sorted({int(row) for row in rng.integers(rows // 3, rows - rows // 8, cuts)})
    compared = dict.fromkeys(checks, 0)
    leaks: list[Leak] = []
    whole = {name: check(history) for name, check in checks.items()}
    todo, done = len(places) * len(alterations) * len(checks), 0
    for row in places:
        for title, alter in alterations.items():
            other = alter(history, row, rng)
            for name, check in checks.items():
                number, leak = _compare(name, title, int(history.closings[row]), whole[name], check(other))
                compared[name] += number
                leaks += [] if leak is None else [leak]
                done += 1
                if progress is not None:
                    progress(done / todo)
    return Lookahead(
        tuple(str(s) for s in history.symbols), rows, tuple(int(history.closings[row]) for row in places), compared, tuple(leaks)
    )


def _compare(check: str, alteration: str, cut: int, whole: Trace, other: Trace) -> tuple[int, Leak | None]:
    """(how many numbers were compared, the first that changed)."""
    before, after = (trace.values[trace.times <= cut] for trace in (whole, other))
    times = whole.times[whole.times <= cut]
    if before.shape != after.shape or not np.array_equal(times, other.times[other.times <= cut]):
        return before.size, Leak(check, alteration, cut, int(times[-1]) if len(times) else cut, "the timing", before.size)
    same = before == after
    if before.dtype.kind == "f":
        same |= np.isnan(before) & np.isnan(after)
    if same.all():
        return before.size, None
    place = tuple(int(i) for i in np.argwhere(~same)[0])
    return before.size, Leak(check, alteration, cut, int(times[place[0]]), whole.label(place[1:]), int((~same).sum()))


def digests(times: Sequence[int], records: Sequence[str], what: str) -> Trace:
    """A trace of texts, each known at its time: compared by their hashes."""
    numbers = [int.from_bytes(hashlib.sha256(record.encode()).digest()[:7], "big") for record in records]
    return Trace(np.array(times, dtype=np.int64), np.array(numbers, dtype=np.int64), lambda place: what)


def columns_label(names: Sequence[str], symbols: Sequence[str]) -> Callable[[tuple[int, ...]], str]:
    """Labels of rows [symbols, names]."""
    return lambda place: f"{names[place[1]]} of {symbols[place[0]]}"


def aligned(batch: Trace, path: Trace) -> Iterator[Leak]:
    """Where two traces of the same numbers, made bar by bar and all at once, differ at the same times by more than rounding.

    Not judged in the first WARM_ROWS: differences between symbols are rounding there, and rounding is ranked.
    """
    common, left, right = np.intersect1d(batch.times[WARM_ROWS:], path.times, return_indices=True)
    left = left + WARM_ROWS
    if not len(common):
        raise DataError("the two traces have no time in common: nothing was compared")
    one, two = batch.values[left].astype(np.float64), path.values[right].astype(np.float64)
    wrong = ~np.isclose(one, two, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
    if wrong.any():
        place = tuple(int(i) for i in np.argwhere(wrong)[0])
        at = int(common[place[0]])
        said = f"{batch.label(place[1:])} of {moment(at)} is {one[place]:g} over the whole history and {two[place]:g} bar by bar"
        yield Leak(ALIGNMENT, "", at, at, said, int(wrong.sum()))

