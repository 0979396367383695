"""The whole engine played in simulation for the sake of what its agents live through: books, prints or candles in, transitions out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import DataError
from agents.core.events import Bar, Event, Stamp
from agents.core.instruments import NS, TIMEFRAMES, Instrument, Symbol
from agents.desk.decision import Effects, EngineConfig
from agents.desk.wishes import MARKET_MAKING
from agents.engine import Engine
from agents.jobs.backtest import Backtest
from agents.jobs.recorder import Recorder
from agents.market.frictions import Fee, Frictions
from agents.market.observation import Experience
from agents.market.synthetic import SyntheticMarket
from agents.market.tape import open_tape

START = 1_699_999_200 * NS
"""A whole hour at which the synthetic markets open."""
STEP_NS = NS // 2
"""Market time between two books of the synthetic market: the market maker requotes no faster."""
PAST_DAYS = 3
"""Candles that are told before a synthetic market opens: the minute features' memory, and hours enough for a volatility."""
Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Stretch:
    """One round's market."""

    symbols: tuple[Symbol, ...]
    instruments: tuple[Instrument, ...]
    facts: Iterator[Event]
    candles_only: bool


class Market(Protocol):
    """Where rounds come from; equal numbers and seeds give equal facts."""

    def stretch(self, number: int, seed: int) -> Stretch: ...


@dataclass(frozen=True, slots=True)
class SyntheticRounds:
    """Another synthetic order-flow market for each round, `length_ns` long after its candles of the past."""

    symbols: tuple[str, ...]
    length_ns: int

    def stretch(self, number: int, seed: int) -> Stretch:
        market = SyntheticMarket(self.symbols, seed, START, history_days=PAST_DAYS)
        return Stretch(tuple(market.instruments), tuple(market.instruments.values()), self._facts(market), candles_only=False)

    def _facts(self, market: SyntheticMarket) -> Iterator[Event]:
        yield from _past(market)
        for now in range(START + STEP_NS, START + self.length_ns + 1, STEP_NS):
            yield from market.step(now)


@dataclass(frozen=True, slots=True)
class TapeRounds:
    """Windows of a recorded tape, one after the other and round again. Raises DataError for a tape that cannot be used."""

    path: Path
    length_ns: int
    start: int | None = None
    end: int | None = None
    symbols: tuple[str, ...] | None = None
    allow_gaps: bool = False

    def stretch(self, number: int, seed: int) -> Stretch:
        del seed
        whole = open_tape(self.path, self.start, self.end, self.symbols, allow_gaps=self.allow_gaps)
        windows = max(1, (whole.end - whole.start) // self.length_ns)
        begin = whole.start + number % windows * self.length_ns
        cut = open_tape(self.path, begin, min(begin + self.length_ns, whole.end), self.symbols, allow_gaps=self.allow_gaps)
        return Stretch(cut.symbols, tuple(cut.instruments.values()), iter(cut.events()), cut.kind == "candles")


def _past(market: SyntheticMarket) -> Iterator[Event]:
    bars = []
    for timeframe in ("1h", "1m"):
        for symbol in market.instruments:
            for ms, *values in market.history(symbol, timeframe, limit=PAST_DAYS * 1440):
                opened, high, low, close, volume = (Decimal(repr(value)) for value in values)
                if ms * 1_000_000 + TIMEFRAMES[timeframe] <= START:
                    bars.append(Bar(Stamp(START), symbol, ms * 1_000_000, timeframe, opened, high, low, close, volume))
    yield from sorted(bars, key=lambda bar: bar.time + TIMEFRAMES[bar.timeframe])


@dataclass(frozen=True, slots=True)
class Moment:
    """The book at a decision of a slow agent: marks and weights (of equity) by symbol, [N], and the gross multiplier in force."""

    marks: NDArray[np.float64]
    weights: NDArray[np.float64]
    multiplier: float


class TellingEngine(Engine):
    """An engine that keeps what its agents lived through, and how the book stood at the slow agents' decisions."""

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(config)
        self.lived: list[Experience] = []
        self.moments: dict[int, Moment] = {}
        """By market time."""

    def step(self, event: Event) -> Effects:
        effects = super().step(event)
        self.lived += effects.experiences
        decision = effects.decision
        if decision is not None and decision.equity and any(agent != MARKET_MAKING for agent in decision.agents):
            self.moments[decision.time] = self._moment(decision.equity)
        return effects

    def _moment(self, equity: float) -> Moment:
        marks = np.array([float(mark) if (mark := self.market.mark(symbol)) is not None else np.nan for symbol in self.symbols])
        held = np.array([float(self.ledger.position(symbol)) for symbol in self.symbols])
        wish = self.standing.risk
        return Moment(marks, np.nan_to_num(held * marks) / equity, wish.gross_multiplier if wish is not None else 1.0)


class Rollout(Backtest):
    """A backtest for learning: the same engine and exchange, and the experiences kept."""

    def __init__(
        self, config: EngineConfig, stretch: Stretch, capital: Decimal, frictions: Frictions, weights: bytes | None = None
    ) -> None:
        config = replace(config, symbols=tuple(map(str, stretch.symbols)), candles_only=stretch.candles_only)
        super().__init__(config, list(stretch.instruments), capital, frictions, weights=weights)
        self.engine: TellingEngine = TellingEngine(config)
        self.recorder = Recorder(self.engine)
        self._facts = stretch.facts

    def play(self) -> list[Experience]:
        """To the end of the stretch; what was lived, in order of time."""
        self.run(self._facts)
        return self.engine.lived


@dataclass(frozen=True, slots=True)
class ScaledFee:
    """Another fee times a factor: a curriculum's cheaper exchange."""

    fee: Fee
    factor: Decimal

    def rate(self, instrument: Instrument, maker: bool) -> Decimal:
        return self.fee.rate(instrument, maker) * self.factor


def columns(rows: list[Experience]) -> dict[str, Columns]:
    """By agent the columns of `agents.learning.datasets`, in order of time. Quarantined rows are left out: there is nothing to keep them for."""
    found: dict[str, list[Experience]] = {}
    for row in rows:
        if not row.quarantined:
            found.setdefault(row.agent, []).append(row)
    return {agent: _columns(sorted(own, key=lambda row: row.time)) for agent, own in found.items()}


def _columns(rows: list[Experience]) -> Columns:
    def wide(name: str) -> NDArray[np.float32]:
        return np.asarray([getattr(row, name) for row in rows], np.float32)

    floats = {name: wide(name) for name in ("state", "action", "reward", "next_state", "done", "elapsed")}
    return floats | {name: np.asarray([getattr(row, name) for row in rows], np.int64) for name in ("time", "version")}


def merged(parts: Sequence[Mapping[str, NDArray[Any]]]) -> Columns:
    """Several data sets of one agent as one, in order of time. Raises DataError for none."""
    if not parts:
        raise DataError("there are no transitions to join")
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    order = np.argsort(joined["time"], kind="stable")
    return {name: values[order] for name, values in joined.items()}
