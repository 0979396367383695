"""A candle history on integer grids: closes, displayed lots and volumes as the exchange in memory would count them, exactly.

Decimals of the rooms become whole numbers of a common unit here, so that the fast lane adds and compares without rounding. Where a
float says too little to tell which side of a grid line a number lies on, Decimal decides.
"""

from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.instruments import Instrument
from agents.desk.sheet import VOLUME_BARS
from agents.market.frictions import CandleBook
from agents.market.history import CandleHistory, Floats

MOST_PLACES = 9
"""Decimal places up to which floats are put on the grid in one go."""
NEAR = 1e-14
"""Relative distance from a grid line below which a float does not tell the side."""


@dataclass(frozen=True, eq=False)
class Grid:
    """[T, N] tables. One unit of money is 10^-`places`."""

    places: int
    closes: list[list[int]]
    """In units of 10^-`price_places`."""
    price_places: int
    shown: NDArray[np.int64]
    """Lots that one level of the imagined book shows."""
    asks: NDArray[Any]
    """[T, N, levels] prices in ticks of the book around each close, best first; int64, or Python integers where they are longer."""
    bids: NDArray[Any]
    """The same; what is not above 0 is no level."""
    most: NDArray[Any]
    """[T, N] the highest price in ticks that a buy may reach."""
    least: NDArray[Any]
    """[T, N] the lowest price in ticks that a sell may reach."""
    marks: Floats
    volumes: Floats
    """Mean volume of the last bars in base units, as the planner takes it once it has seen as many."""


def lay(history: CandleHistory, instruments: tuple[Instrument, ...], model: CandleBook, reach: Decimal) -> Grid:
    """The grid of a history without holes; orders reach `reach` (a fraction) from the mark."""
    closes, price_places = _whole(history.close)
    tick_places, lot_places = (max(map(places_of, values)) for values in zip(*((i.tick, i.lot) for i in instruments), strict=True))
    per_tick = [10 ** (price_places - places_of(i.tick)) if places_of(i.tick) <= price_places else 0 for i in instruments]
    longer = [10 ** max(places_of(i.tick) - price_places, 0) for i in instruments]
    ticks = [Fraction(1, each) if each else Fraction(more) for each, more in zip(per_tick, longer, strict=True)]
    whole = np.array(closes, dtype=object)
    spread, far = Fraction(model.half_spread), Fraction(reach)
    asks = np.stack([_up(whole, ticks, 1 + spread * step) for step in range(1, model.levels + 1)], axis=-1)
    bids = np.stack([_down(whole, ticks, 1 - spread * step) for step in range(1, model.levels + 1)], axis=-1)
    bids[..., 0] = np.minimum(bids[..., 0], asks[..., 0] - 1)
    for step in range(1, model.levels):
        asks[..., step] = np.maximum(asks[..., step], asks[..., step - 1] + 1)
        bids[..., step] = np.minimum(bids[..., step], bids[..., step - 1] - 1)
    least = np.maximum(_up(whole, ticks, 1 - far), 1)
    return Grid(
        max(max(price_places, tick_places) + lot_places, 8), closes, price_places, _shown(history, instruments, model), _short(asks),
        _short(bids), _short(np.maximum(_down(whole, ticks, 1 + far), 1)), _short(least), history.close, _recent(history.volume),
    )  # fmt: skip


def _down(whole: NDArray[Any], ticks: list[Fraction], factor: Fraction) -> NDArray[Any]:
    """Closes times `factor` in ticks, rounded down, [T, N]."""
    parts = [each * factor for each in ticks]
    return np.asarray(whole * np.array([p.numerator for p in parts], object) // np.array([p.denominator for p in parts], object))


def _up(whole: NDArray[Any], ticks: list[Fraction], factor: Fraction) -> NDArray[Any]:
    return -_down(-whole, ticks, factor)


def _short(values: NDArray[Any]) -> NDArray[Any]:
    """As int64 where they are small enough."""
    return values.astype(np.int64) if (values < 2**62).all() else values


def places_of(value: Decimal) -> int:
    """Decimal places of a number."""
    exponent = value.normalize().as_tuple().exponent
    return max(-exponent, 0) if isinstance(exponent, int) else 0


def _whole(values: Floats) -> tuple[list[list[int]], int]:
    """Every value as a whole number of 10^-places, and the places: as few as keep all of them exact."""
    for places in range(MOST_PLACES):
        scaled = np.rint(values * 10.0**places)
        if (np.abs(scaled) < 2**53).all() and (scaled / 10.0**places == values).all():
            return scaled.astype(np.int64).tolist(), places
    exact = [[Decimal(repr(value)) for value in row] for row in values.tolist()]
    places = max(places_of(value) for row in exact for value in row)
    return [[int(value.scaleb(places)) for value in row] for row in exact], places


def _shown(history: CandleHistory, instruments: tuple[Instrument, ...], model: CandleBook) -> NDArray[np.int64]:
    lots = np.array([float(instrument.lot) for instrument in instruments])
    wide = history.volume * (float(model.depth) / model.levels) / lots
    result: NDArray[np.int64] = np.floor(wide).astype(np.int64)
    near = np.abs(wide - np.rint(wide)) <= NEAR * np.maximum(wide, 1.0) * 10
    for row, column in np.argwhere(near).tolist():
        instrument = instruments[column]
        shown = instrument.round_quantity(Decimal(repr(float(history.volume[row, column]))) * model.depth / model.levels)
        result[row, column] = int(shown / instrument.lot)
    return result


def _recent(volume: Floats) -> Floats:
    """Mean over the last VOLUME_BARS rows, fewer at the start."""
    width = min(VOLUME_BARS, len(volume))
    sums: Any = np.lib.stride_tricks.sliding_window_view(volume, width, axis=0).mean(-1)
    head = [volume[: row + 1].mean(axis=0) for row in range(width - 1)]
    return np.vstack([*head, sums]) if head else np.asarray(sums)
