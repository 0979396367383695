"""Where an episode's facts come from: candles in arrays, a recorded book, or the synthetic order-flow market."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import ConfigError, DataError
from agents.core.events import Bar, Event, Stamp
from agents.core.instruments import NS, TIMEFRAMES, Instrument, Symbol
from agents.desk.rewards import SECONDS_PER_YEAR, Covariance
from agents.market.features import HOUR
from agents.market.history import CandleHistory, hour_features, load_history
from agents.market.synthetic import SyntheticMarket
from agents.market.tape import Tape, open_tape
from agents.market.tape.memory import history_tape

SYNTHETIC = "synthetic"
FLOW_START = 1_699_999_200 * NS
"""Where the synthetic market's clock begins: any whole hour does, and this one is on a Tuesday."""
STEP_NS = NS // 4
"""How often the synthetic market shows its books where somebody quotes on them; elsewhere once a second will do."""
HISTORY_DAYS = 3
"""Days of candles before it opens: the minute features' memory, and enough hours for a volatility."""
COVARIANCE_ROWS = 24
"""Candles between two looks at the covariance that rewards count risk with: a day of hours."""
FLOW_DAYS = 366
"""Longest episode on the synthetic market, which has no end of its own."""


@dataclass(frozen=True, eq=False)
class Candles:
    """A candle history. An episode begins at the close of `row`, with `warmup` rows before it as the past."""

    history: CandleHistory
    instruments: tuple[Instrument, ...]
    candles_only = True

    @property
    def symbols(self) -> tuple[Symbol, ...]:
        return self.history.symbols

    @property
    def timeframe(self) -> str | None:
        return self.history.timeframe

    @cached_property
    def features(self) -> NDArray[np.float32] | None:
        """HOUR_COLUMNS after each row, float32 [T, N, columns]; None for candles shorter than an hour."""
        return hour_features(self.history) if self.history.length >= HOUR else None

    @cached_property
    def covariances(self) -> NDArray[np.float64]:
        """Annualised covariance of the closes' returns, exponentially weighted, as of every COVARIANCE_ROWS-th row, [blocks, N, N]."""
        returns, years = self.history.returns(), self.history.length / NS / SECONDS_PER_YEAR
        running = Covariance(len(self.symbols))
        result = np.empty((-(-len(returns) // COVARIANCE_ROWS), *running.matrix.shape))
        for row, moves in enumerate(returns):
            running.update(moves, years)
            if row % COVARIANCE_ROWS == 0:
                result[row // COVARIANCE_ROWS] = running.matrix
        return result

    @cached_property
    def bars(self) -> list[list[Event]]:
        """The rows' candles as events, by row; made once, for every episode plays the same ones."""
        rows: list[list[Event]] = [[] for _ in self.history.times]
        first, length = int(self.history.times[0]), self.history.length
        for event in history_tape(self.history).events():
            at = event.time if isinstance(event, Bar) else event.stamp.at - length
            rows[(at - first) // length].append(event)
        return rows

    def facts(self, seed: int, row: int, warmup: int) -> tuple[Iterator[Event], int]:
        del seed
        stretch = self.bars[max(row - warmup, 0) :]
        return (event for bars in stretch for event in bars), int(self.history.closings[row])


@dataclass(frozen=True, eq=False)
class Recorded:
    """A recorded book or a session's own tape, played from its beginning."""

    tape: Tape
    symbols: tuple[Symbol, ...]
    instruments: tuple[Instrument, ...]
    candles_only = False
    timeframe: str | None = None

    def facts(self, seed: int, row: int, warmup: int) -> tuple[Iterator[Event], int]:
        del seed, row, warmup
        return self.tape.events(), 0


@dataclass(frozen=True, eq=False)
class Flow:
    """The synthetic order-flow market: another one for each seed, in books and prints, without end."""

    symbols: tuple[Symbol, ...]
    instruments: tuple[Instrument, ...]
    step_ns: int
    """Market time between two books of a symbol."""
    candles_only = False
    timeframe: str | None = None

    def facts(self, seed: int, row: int, warmup: int) -> tuple[Iterator[Event], int]:
        del row, warmup
        market = SyntheticMarket(self.symbols, seed, FLOW_START, history_days=HISTORY_DAYS)
        return _flow(market, self.symbols, self.step_ns), FLOW_START


Source = Candles | Recorded | Flow
"""A market with a past: `facts` gives those of one episode in order of time, and the stamp at which its account opens."""


def _flow(market: SyntheticMarket, symbols: Sequence[Symbol], step_ns: int) -> Iterator[Event]:
    for timeframe in ("1h", "1m"):
        length = TIMEFRAMES[timeframe]
        candles = [_past(market, symbol, timeframe) for symbol in symbols]
        for bar in sorted((bar for rows in candles for bar in rows), key=lambda bar: bar.time):
            if bar.time + length <= FLOW_START:
                yield bar
    for tick in range(1, FLOW_DAYS * 86_400 * NS // step_ns):
        yield from market.step(FLOW_START + tick * step_ns)


def _past(market: SyntheticMarket, symbol: Symbol, timeframe: str) -> Iterable[Bar]:
    for ms, *values in market.history(symbol, timeframe, limit=HISTORY_DAYS * 1440):
        opened, high, low, close, volume = (Decimal(repr(value)) for value in values)
        yield Bar(Stamp(FLOW_START), symbol, ms * 1_000_000, timeframe, opened, high, low, close, volume)


def open_source(
    source: str | Path | Sequence[Path] | CandleHistory, symbols: Sequence[str] | None, start: int | None, end: int | None,
    instruments: Iterable[Instrument] | None, allow_gaps: bool, quoting: bool,
) -> Source:  # fmt: skip
    """The source of these symbols (None: all that it has), cut to market times [start, end) ns; `quoting` asks for fine books.

    Raises DataError for data that cannot be used, ConfigError for symbols or instruments that do not fit it.
    """
    given = {instrument.symbol: instrument for instrument in instruments or ()}
    if source == SYNTHETIC:
        chosen = tuple(Symbol(s) for s in (symbols or ("BTC/USDT", "ETH/USDT")))
        market = SyntheticMarket(chosen, 0, FLOW_START, history_days=1)
        return Flow(chosen, _listed(chosen, {**market.instruments, **given}), STEP_NS if quoting else NS)
    if isinstance(source, CandleHistory):
        history = source if symbols is None else source.select(symbols)
        if start is not None or end is not None:
            history = history.slice(start, end)
        return Candles(history, _listed(history.symbols, {**history_tape(history).instruments, **given}))
    paths = [Path(source)] if isinstance(source, str | Path) else [Path(path) for path in source]
    if not paths:
        raise DataError("the source is empty: give a candle file, a recorded tape, a CandleHistory, or 'synthetic'")
    tape = open_tape(paths, start, end, symbols, allow_gaps=allow_gaps)
    if not tape.symbols:
        raise DataError(f"{paths[0]} holds none of the symbols asked for")
    if tape.kind == "candles":
        history = load_history(paths, symbols, start, end, allow_gaps=allow_gaps)
        return Candles(history, _listed(history.symbols, {**history_tape(history).instruments, **tape.instruments, **given}))
    return Recorded(tape, tape.symbols, _listed(tape.symbols, {**tape.instruments, **given}))


def _listed(symbols: Sequence[Symbol], instruments: dict[Symbol, Instrument]) -> tuple[Instrument, ...]:
    listed = tuple(instruments[symbol] for symbol in symbols)
    quotes = {instrument.quote for instrument in listed}
    if len(quotes) != 1:
        raise ConfigError(f"symbols are quoted in {', '.join(sorted(quotes))}: an account has one quote currency, choose symbols= of one")
    return listed

