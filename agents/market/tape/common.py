"""What every kind of tape needs: the tape itself, its limits in time, batches of a file, and a grid inferred from numbers."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl

from agents.core.errors import DataError
from agents.core.events import Event
from agents.core.instruments import NS, Currency, Instrument, Symbol

BATCH = 1 << 16
"""Rows a read: a few megabytes."""
MIN_NOTIONAL = Decimal(5)
_NAME = re.compile(r"^(?P<base>[a-z0-9]+)[_\-](?P<quote>[a-z]{3,5})(?:[_\-](?P=quote))?-(?P<rest>.+)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Tape:
    """A recorded market. `start` and `end` are market ns of the first and (about) the last event; `events()` may be asked
    for again and starts anew. Events carry `Stamp(market time, sequence)`, never stepping back."""

    kind: str
    """candles, book or segments."""
    symbols: tuple[Symbol, ...]
    instruments: dict[Symbol, Instrument]
    timeframe: str | None
    start: int
    end: int
    _open: Callable[[], Iterator[Event]]
    counts: Mapping[Symbol, int] = field(default_factory=dict)
    """Candles of each symbol; empty for other kinds of tape."""

    def events(self) -> Iterator[Event]:
        """Market events merged in time; FeedGap where `allow_gaps` let a hole pass. Raises Gap and DataError."""
        return self._open()


@dataclass(frozen=True, slots=True)
class Cut:
    start: int
    end: int
    allow_gaps: bool


def scan(path: Path) -> pl.LazyFrame:
    readers = {".parquet": pl.scan_parquet, ".csv": pl.scan_csv, ".feather": pl.scan_ipc}
    try:
        frame: pl.LazyFrame = readers[path.suffix](path)  # type: ignore[operator]
        frame.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(
            f"{path} cannot be read ({type(error).__name__}): the file is damaged or not what its name says"
        ) from error
    return frame


def collect(path: Path, frame: pl.LazyFrame) -> pl.DataFrame:
    """The rows. Raises DataError where the file cannot be read to its end."""
    try:
        return frame.collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path} cannot be read ({type(error).__name__}): the file is damaged or not what its name says") from error


def batches(frame: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    offset = 0
    while len(batch := frame.slice(offset, BATCH).collect()):
        yield batch
        offset += BATCH


def say(time_ns: int) -> str:
    return str(np.datetime64(time_ns // NS, "s")).replace("T", " ")


def parse_name(path: Path) -> tuple[Symbol, str] | None:
    """(symbol, what follows it) of a file name such as btc_usdt-1h.parquet or BTC_USDT_USDT-1h-futures.feather."""
    match = _NAME.match(path.stem)
    return (Symbol(f"{match['base']}/{match['quote']}".upper()), match["rest"].lower()) if match else None


def spot_name(symbol: str) -> Symbol:
    return Symbol(symbol.partition(":")[0])


def decimal_places(frame: pl.LazyFrame, columns: Sequence[str]) -> int:
    """Decimal places (at most 8) on which every value of the columns lies."""
    values = pl.concat([frame.select(pl.col(column).cast(pl.Float64).alias("v")) for column in columns]).drop_nulls()
    scaled = [pl.col("v") * 10.0**places for places in range(8)]
    off = values.select([((s - s.round()).abs().max() > 1e-3).alias(str(i)) for i, s in enumerate(scaled)]).collect().row(0)
    return next((places for places, is_off in enumerate(off) if not is_off), 8)


SPOT_FEES = (Decimal("0.001"), Decimal("0.001"))
FUTURES_FEES = (Decimal("0.0002"), Decimal("0.0005"))
"""(maker, taker) of the lowest tier on the largest exchange: a book is what it is because of what it costs to trade on it."""


def infer_instrument(symbol: Symbol, price_places: int, quantity_places: int, recorded: Path) -> Instrument:
    """A listing for a tape that has none: the grid of its numbers, and the base fees of the market it was recorded on."""
    maker, taker = FUTURES_FEES if any("usdm" in part for part in recorded.parts) else SPOT_FEES
    base, _, quote = symbol.partition("/")
    lot = Decimal(1).scaleb(-quantity_places)
    return Instrument(
        symbol,
        Currency(base),
        Currency(quote),
        Decimal(1).scaleb(-price_places),
        lot,
        min_quantity=lot,
        min_notional=MIN_NOTIONAL,
        maker_fee=maker,
        taker_fee=taker,
    )


def check_wanted(path: Path, found: Sequence[Symbol], wanted: Sequence[Symbol] | None) -> tuple[Symbol, ...]:
    if wanted is None:
        return tuple(found)
    if missing := [symbol for symbol in wanted if symbol not in found]:
        raise DataError(f"{path} holds no {', '.join(missing)}; it holds {', '.join(found)}")
    return tuple(wanted)
