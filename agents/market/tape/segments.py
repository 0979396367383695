"""Segments that Quartet recorded: one JSON row an event, plain or compressed."""

import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from itertools import islice
from pathlib import Path

import zstandard

from agents.core.codec import decode
from agents.core.errors import DataError
from agents.core.events import Bar, BookSnapshot, Event, Level, Listing, Stamp, Trade
from agents.core.instruments import TIMEFRAMES, Instrument, Symbol
from agents.core.orders import Command
from agents.market.tape.common import Cut, Tape, check_wanted, infer_instrument

LOOK = 20_000
"""Rows looked at to learn what is in the tape."""


def open_segments(files: list[Path], wanted: tuple[Symbol, ...] | None, cut: Cut) -> Tape:
    instruments: dict[Symbol, Instrument] = {}
    numbers: dict[Symbol, list[list[Decimal]]] = {}
    times = []
    for event in islice(_rows(files), LOOK):
        match event:
            case Listing(instrument=instrument):
                instruments[instrument.symbol] = instrument
            case BookSnapshot():
                levels: tuple[Level, ...] = event.bids + event.asks
                _collect(numbers, event.symbol, [p for p, _ in levels], [q for _, q in levels])
            case Trade():
                _collect(numbers, event.symbol, [event.price], [event.quantity])
            case Bar():
                _collect(numbers, event.symbol, [event.open, event.high, event.low, event.close], [event.volume])
            case _:
                pass
        if isinstance(event, Trade | BookSnapshot):
            times.append(event.time)
    for symbol, (prices, quantities) in numbers.items():
        instruments.setdefault(symbol, infer_instrument(symbol, _places(prices), _places(quantities), files[0]))
    if not instruments:
        raise DataError(f"{files[0]} holds no market events")
    symbols = check_wanted(files[0].parent, list(instruments), wanted)

    def events() -> Iterator[Event]:
        at = seq = 0
        for event in _rows(files):
            symbol = event.instrument.symbol if isinstance(event, Listing) else getattr(event, "symbol", None)
            time = getattr(event, "time", at)
            closing = time + TIMEFRAMES.get(event.timeframe, 0) if isinstance(event, Bar) else time
            if symbol in symbols and (cut.start <= time < cut.end or isinstance(event, Listing)):
                at, seq = max(at, closing), seq + 1
                yield replace(event, stamp=Stamp(at, seq))

    return Tape(
        "segments", symbols, {s: instruments[s] for s in symbols}, None,
        max(min(times, default=0), cut.start), cut.end, events,
    )  # fmt: skip


def _collect(
    numbers: dict[Symbol, list[list[Decimal]]], symbol: Symbol, prices: list[Decimal], quantities: list[Decimal]
) -> None:
    known = numbers.setdefault(symbol, [[], []])
    known[0] += prices
    known[1] += quantities


def _places(values: list[Decimal]) -> int:
    """Decimal places that the values use, at most 8."""
    exponents = [value.normalize().as_tuple().exponent for value in values if value.is_finite()]
    return min(max((-e for e in exponents if isinstance(e, int)), default=0), 8) if exponents else 0


def _rows(files: Sequence[Path]) -> Iterator[Event]:
    """Events of the segments, in order of the files' names."""
    for path in sorted(files, key=lambda p: p.name):
        number = 0
        try:
            for line in _lines(path):
                number += 1
                event = decode(json.loads(line))
                if not isinstance(event, Command):
                    yield event
        except (ValueError, TypeError, LookupError, DataError, EOFError, zstandard.ZstdError) as error:
            raise DataError(f"{path} line {number} cannot be read ({error}): the tape is cut or damaged there") from error


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as raw:
        if path.suffix == ".zst":
            reader = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
            yield from (line.encode() for line in io.TextIOWrapper(reader, encoding="utf-8"))
        else:
            yield from raw
