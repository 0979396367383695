"""The traces that a search for lookahead compares, and the search over all of them that `quartet lookahead` runs."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from functools import partial

import numpy as np
from numpy.typing import NDArray

from agents.core.events import Bar, Stamp
from agents.core.instruments import Currency
from agents.core.ledger import Ledger
from agents.desk.decision import Decision, EngineConfig
from agents.environment.vector import LONG_TERM, VectorTradingEnvironment
from agents.jobs.backtest import Backtest
from agents.jobs.lookahead import ALIGNMENT, Check, Lookahead, Trace, aligned, columns_label, digests, search
from agents.market.batch import minute_history
from agents.market.columns import HOUR_COLUMNS, MINUTE_COLUMNS, SPECS
from agents.market.features import HOUR, VOLATILITY_1H
from agents.market.frictions import CandleBook, Frictions
from agents.market.history import CandleHistory, hour_features
from agents.market.observation import Context, observe
from agents.market.state import MarketState
from agents.market.tape import Tape
from agents.market.tape.memory import history_tape

FEATURES, MINUTES, OBSERVATIONS, VECTOR, DECISIONS = "hour features", "minute features", "observations", "vector environment", "decisions"
FRICTIONS = Frictions(candles=CandleBook())
"""Books are imagined around candles, so that orders fill."""
_SEEN_BY = ("long_term", "short_term")


def hour_trace(history: CandleHistory) -> Trace:
    """HOUR_COLUMNS of the whole history at once."""
    return Trace(history.closings, hour_features(history), columns_label(HOUR_COLUMNS, history.symbols))


def minute_trace(history: CandleHistory) -> Trace:
    """MINUTE_COLUMNS of the whole history at once; its rows are taken for minutes, whatever their length."""
    fallback = np.full(len(history.symbols), VOLATILITY_1H)
    values = minute_history(history.close, history.high, history.low, history.volume, fallback)
    return Trace(history.closings, values, columns_label(MINUTE_COLUMNS, history.symbols))


def observation_trace(history: CandleHistory) -> Trace:
    """What agents without an account see on the event path after each row, and the hour columns unrounded before them."""
    rows = []
    for market in _lived(history):
        ledger, context = Ledger(Currency("USDT")), Context(1.0, 1.0)
        rows.append(np.hstack([observe(agent, market, ledger, history.symbols, context).matrix for agent in _SEEN_BY]))
    names = [f"{agent}'s {name}" for agent in _SEEN_BY for name in SPECS[agent].columns]
    return Trace(history.closings, np.array(rows), columns_label(names, history.symbols))


def path_trace(history: CandleHistory) -> Trace:
    """HOUR_COLUMNS as the event path computes them bar by bar."""
    rows = [market.hour_columns().astype(np.float32) for market in _lived(history)]
    return Trace(history.closings, np.array(rows), columns_label(HOUR_COLUMNS, history.symbols))


def vector_trace(history: CandleHistory, seed: int = 0) -> Trace:
    """Observations of the vector environment under random actions, and the reward that came with each."""
    count = len(history.times) - 2
    world = VectorTradingEnvironment(history, 1, form=LONG_TERM, episode_bars=count, randomise=False, seed=seed)
    rng, width = np.random.default_rng(seed), len(history.symbols)
    seen, _ = world.reset()
    rows = [np.hstack([seen[0], np.zeros((width, 1), np.float32)])]
    for _ in range(count):
        actions = rng.uniform(-1.0, 1.0, (1, width, 4)).astype(np.float32)
        seen, rewards, terminated, _, _ = world.step(actions)
        rows.append(np.hstack([seen[0], rewards[0][:, None]]))
        if terminated.any():
            break
    names = (*SPECS[LONG_TERM].columns, "the reward")
    return Trace(history.closings[: len(rows)], np.array(rows), columns_label(names, history.symbols))


class _Witness(Backtest):
    """A run that keeps the record of every decision."""

    def __init__(self, config: EngineConfig, tape: Tape, frictions: Frictions, weights: bytes | None) -> None:
        super().__init__(config, list(tape.instruments.values()), Decimal(10_000), frictions, weights=weights)
        self.times: list[int] = []
        self.records: list[str] = []

    def _note(self, decision: Decision) -> None:
        super()._note(decision)
        self.times.append(decision.time)
        self.records.append(json.dumps(decision.record(), sort_keys=True, default=str))


def decision_trace(history: CandleHistory, config: EngineConfig, listing: Tape, frictions: Frictions, weights: bytes | None = None) -> Trace:
    """The engine's decisions in a simulated run, with all that they record: observations, wishes, limits, orders.

    The listing (price grids) is that of the unaltered candles: on an exchange it is known beforehand, and inferred from other
    candles it would differ.
    """
    tape = replace(history_tape(history), instruments=listing.instruments)
    chosen = replace(config, symbols=tuple(str(s) for s in history.symbols), candles_only=True)
    run = _Witness(chosen, tape, frictions, weights)
    run.run(iter(tape.events()))
    return digests(run.times, run.records, "the decision")


def all_checks(
    history: CandleHistory, config: EngineConfig, frictions: Frictions | None = None, weights: bytes | None = None
) -> dict[str, Check]:
    """Every check that these candles allow: hour features need an hour or longer, minute features no holes."""
    checks: dict[str, Check] = {}
    if history.length >= HOUR:
        checks |= {FEATURES: hour_trace, VECTOR: vector_trace}
    if history.listed.all():
        checks[MINUTES] = minute_trace
    listing = history_tape(history)
    checks[OBSERVATIONS] = observation_trace
    checks[DECISIONS] = partial(
        decision_trace, config=config, listing=listing, frictions=frictions or FRICTIONS, weights=weights
    )
    return checks


def lookahead(
    history: CandleHistory, config: EngineConfig, frictions: Frictions | None = None, *, weights: bytes | None = None,
    cuts: int = 3, seed: int = 0, progress: Callable[[float], None] | None = None,
) -> Lookahead:  # fmt: skip
    """All checks over these candles, and the features against the event path. Raises DataError for too few candles."""
    found = search(history, all_checks(history, config, frictions, weights), cuts, seed, progress=progress)
    if history.length != HOUR:
        return found
    batch = hour_trace(history)
    return replace(
        found, leaks=(*found.leaks, *aligned(batch, path_trace(history))), compared={**found.compared, ALIGNMENT: batch.values.size}
    )


def _lived(history: CandleHistory) -> Iterator[MarketState]:
    """The market after each row: closed bars become known, those of one row together."""
    market = MarketState(history.symbols)
    for row in range(len(history.times)):
        for column in np.flatnonzero(history.listed[row]).tolist():
            market.apply(_bar(history, row, column))
        yield market


def _bar(history: CandleHistory, row: int, column: int) -> Bar:
    fields: tuple[NDArray[np.float64], ...] = (history.open, history.high, history.low, history.close, history.volume)
    values = [Decimal(repr(float(field[row, column]))) for field in fields]
    return Bar(Stamp(int(history.closings[row])), history.symbols[column], int(history.times[row]), history.timeframe, *values)
