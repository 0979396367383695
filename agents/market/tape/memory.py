"""A candle history as a tape: the same bars, one event after the other, for whatever takes events."""

import heapq
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import partial
from operator import itemgetter
from pathlib import Path

import numpy as np

from agents.core.events import Bar, Event, FeedGap, Stamp
from agents.core.instruments import Instrument, Symbol
from agents.market.history import CandleHistory, Floats
from agents.market.tape.common import Tape, infer_instrument

Row = tuple[int, int, Callable[[Stamp], Event]]
PLACES = 8


def history_tape(history: CandleHistory) -> Tape:
    """The tape; grids are inferred from the numbers and fees are those of spot, as for a file.

    A row of NaN before a symbol's first candle is nothing, one after it a FeedGap.
    """
    symbols = history.symbols
    listed = history.listed
    instruments = {symbol: _instrument(history, column) for column, symbol in enumerate(symbols)}
    counts = dict(zip(symbols, listed.sum(axis=0).tolist(), strict=True))
    there = np.flatnonzero(listed.any(axis=1))
    start = int(history.times[there[0]]) if len(there) else 0
    end = int(history.times[there[-1]]) + history.length if len(there) else 0

    def events() -> Iterator[Event]:
        streams = [_bars(history, column) for column in range(len(symbols))]
        for seq, (at, _, make) in enumerate(heapq.merge(*streams, key=itemgetter(0, 1)), start=1):
            yield make(Stamp(at, seq))

    return Tape("candles", symbols, instruments, history.timeframe, start, end, events, counts)


def _bars(history: CandleHistory, column: int) -> Iterator[Row]:
    symbol, length, frame = history.symbols[column], history.length, history.timeframe
    rows = np.flatnonzero(history.listed[:, column])
    fields = (history.open, history.high, history.low, history.close, history.volume)
    columns = [map(Decimal, map(repr, values[rows, column].tolist())) for values in fields]
    last = 0
    for time, *values in zip(history.times[rows].tolist(), *columns, strict=True):
        if last and time != last + length:
            yield last + length, column, partial(FeedGap, symbol=symbol, channel="bars", reason="hole in the history")
        last = time
        yield time + length, column, partial(_bar, symbol, time, frame, values)


def _bar(symbol: Symbol, time: int, timeframe: str, values: list[Decimal], stamp: Stamp) -> Bar:
    return Bar(stamp, symbol, time, timeframe, *values)


def _instrument(history: CandleHistory, column: int) -> Instrument:
    prices = np.concatenate([history.open[:, column], history.high[:, column], history.low[:, column], history.close[:, column]])
    return infer_instrument(history.symbols[column], _places(prices), _places(history.volume[:, column]), Path())


def _places(values: Floats) -> int:
    """Decimal places (at most 8) on which every value lies."""
    known = values[~np.isnan(values)]
    scaled = (known * 10.0**places for places in range(PLACES))
    return next((places for places, s in enumerate(scaled) if not (np.abs(s - np.round(s)) > 1e-3).any()), PLACES)
