"""The same engine over a recorded market and the exchange in memory, synchronously, as fast as it goes."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from agents.core.errors import DataError
from agents.core.events import (
    MARKET_EVENTS,
    UNSTAMPED,
    Adjustment,
    AdjustmentKind,
    Bar,
    Event,
    Fill,
    Listing,
    NewWeights,
    Stamp,
    Tick,
    stamped,
)
from agents.core.instruments import NS, Currency, Instrument
from agents.core.orders import Command, Place
from agents.desk.decision import Decision, EngineConfig
from agents.desk.wishes import ORDER
from agents.engine import Engine
from agents.jobs.recorder import Recorder
from agents.jobs.result import RunResult, moment
from agents.jobs.weights import complete, joined
from agents.market.exchange import SimulatedExchange
from agents.market.frictions import Frictions
from agents.market.history import CandleHistory
from agents.market.observation import SPEC_HASH
from agents.market.tape import Tape, open_tape
from agents.market.tape.memory import history_tape
from agents.serving.actors import Actors

TOLERANCE = 1e-12
"""Of the capital: sub-accounts are exact, and the rest is one rounding to 28 digits."""
_COUNTED = (
    "events", "decisions", "orders", "fills", "fees", "turnover", "equity", "drawdown", "pnl", "ledger_difference", "refused_data",
)  # fmt: skip
LEAST_CANDLES = 30
"""Fewer tell nothing: no volatility, no look-back of any agent is filled by them."""
WARM_UP_NS = 100 * 86_400 * NS
"""Longer than the longest look-back of any agent (96 days)."""
MOST_SAMPLES = 100_000
"""Samples of a run over books, at most; over candles every closing is one."""

Source = Path | Sequence[Path] | CandleHistory


@dataclass(slots=True)
class Tally:
    """What a run counted."""

    events: int = 0
    bars: int = 0
    orders: int = 0
    fills: int = 0


class Backtest:
    """One engine, one simulated exchange, one clock: the time of the facts."""

    def __init__(
        self, config: EngineConfig, instruments: list[Instrument], capital: Decimal, frictions: Frictions,
        *, weights: bytes | None = None, sample_ns: int = NS,
    ) -> None:
        quote = Currency(config.quote)
        self.engine = Engine(config)
        self.exchange = SimulatedExchange(instruments, frictions, {quote: capital})
        self.recorder = Recorder(self.engine)
        self.tally = Tally()
        self.decisions = dict.fromkeys(ORDER, 0)
        self.curve: list[tuple[int, float]] = []
        """(market time ns, equity) at each decision of the slow agents."""
        self._seq = self._next_tick = self._now = self._sampled = self._next_sample = 0
        self._sample_ns = sample_ns
        self._opening: list[Event] = [
            *(Listing(UNSTAMPED, instrument) for instrument in instruments),
            Adjustment(UNSTAMPED, quote, capital, AdjustmentKind.OPENING),
            Adjustment(UNSTAMPED, quote, capital, AdjustmentKind.CAPITAL),
        ]
        if weights is not None:
            self._opening.append(_weights_event(weights))

    def remember(self, facts: Iterator[Event]) -> int:
        """Tell the engine what was before the run, as a session's history: nothing is listed yet, so nobody decides. Returns how many."""
        count = 0
        for event in facts:
            count += 1
            self._seq += 1
            self.engine.step(stamped(event, Stamp(event.stamp.at, self._seq)))
        return count

    def run(self, facts: Iterator[Event], tick_ns: int = NS, watch: Callable[[int], None] | None = None) -> None:
        """Feed every fact, and a tick per `tick_ns` of market time between them; may be called again to go on.

        `watch` is told the market time of every sample.
        """
        for event in facts:
            now = event.stamp.at
            if now > self._now:
                if self._now >= self._next_sample:
                    self._sample()
                    if watch is not None:
                        watch(self._now)
                self._now = now
            while self._opening:
                self._step(self._opening.pop(0), now)
            if now >= self._next_tick:
                self._step(Tick(UNSTAMPED), now)
                self._next_tick = now + tick_ns
            self.feed(event, now)

    def _sample(self) -> None:
        """Note the account after all facts so far, once a time."""
        if self._now > self._sampled:
            self.recorder.sample(self._now)
        self._sampled, self._next_sample = self._now, self._now + self._sample_ns

    def feed(self, event: Event, now: int) -> None:
        """One fact of the market, and what it causes at the exchange."""
        for due in self.exchange.advance(now):
            self._step(due, now)
        self._step(event, now)
        if isinstance(event, MARKET_EVENTS):
            for caused in self.exchange.on_market(event):
                self._step(caused, now)

    def _step(self, event: Event, now: int, send: bool = True) -> None:
        self._seq += 1
        effects = self.engine.step(stamped(event, Stamp(now, self._seq)))
        self.tally.events += 1
        self.tally.bars += isinstance(event, Bar)
        if isinstance(event, Fill):
            self.tally.fills += 1
            self.heard(event)
        for command in effects.commands if send else ():
            self.tally.orders += isinstance(command, Place)
            self.send(command, now)
        if effects.decision is not None:
            self._note(effects.decision)

    def heard(self, fill: Fill) -> None:
        """What is kept of a fill; a run that wants more of it says so here."""
        self.recorder.closings.fill(fill)

    def send(self, command: Command, now: int) -> None:
        """Put a command on its way."""
        self.exchange.send(command, now)

    def _note(self, decision: Decision) -> None:
        self.recorder.decision(decision)
        for agent in decision.agents:
            self.decisions[agent] += 1
        if decision.equity is not None and decision.agents != ("market_making",):
            self.curve.append((decision.time, decision.equity))

    def ledger_difference(self) -> Decimal:
        """Sum over currencies of what the ledger and the exchange differ by."""
        ours, theirs = self.engine.ledger.balances, self.exchange.balances()
        return sum((abs(ours[c] - theirs.get(c, Decimal(0))) for c in {*ours, *theirs}), Decimal(0))

    def report(self) -> dict[str, Any]:
        """Plain JSON values: counts, money, and whether ledger and exchange agree."""
        engine = self.engine
        equity = engine.equity()
        return {
            "events": self.tally.events,
            "decisions": self.decisions,
            "orders": self.tally.orders,
            "fills": self.tally.fills,
            "fees": float(engine.fees_in_quote()),
            "turnover": float(engine.ledger.turnover),
            "equity": equity,
            "drawdown": engine.risk.drawdown,
            "pnl": {"account": None if equity is None else equity - float(engine.ledger.capital), "agents": engine.profits()},
            "ledger_difference": float(self.ledger_difference()),
            "refused_data": dict(engine.market.refused),
        }

    def _hear_out(self) -> None:
        """Let what is on its way arrive, and its reports be heard; nothing new is sent any more."""
        while (due := self.exchange.next_due) is not None:
            for report in self.exchange.advance(due):
                self._step(report, due, send=False)

    def result(self, meta: Mapping[str, Any]) -> RunResult:
        """End the run, and say what it came to. `meta` is what the caller knows of it; what was counted is added.

        Raises DataError where the agents' profits do not add up to the account's, or the ledger differs from the exchange: such
        a run must not be believed.
        """
        self._hear_out()
        self._sample()
        counted = {**meta, **self.report(), "bars": self.tally.bars, "problems": dict(self.engine.problems)}
        made = self.recorder.result(
            fills=self.tally.fills, orders=self.tally.orders, ledger_difference=self.ledger_difference(), meta=counted
        )
        if made.ledger_difference or made.attribution_difference > TOLERANCE * made.capital:
            raise DataError(
                f"the books do not agree (ledger {made.ledger_difference:g}, attribution {made.attribution_difference:g}):"
                " please report this run, its figures mean nothing"
            )
        return made


def run_backtest(
    config: EngineConfig, data: Source, start: int | None, end: int | None, capital: Decimal, frictions: Frictions,
    *, weights: Mapping[str, bytes] | bytes | None = None, allow_gaps: bool = False, progress: Callable[[float], None] | None = None,
    warm_up_ns: int = WARM_UP_NS,
) -> RunResult:
    """Run over recorded markets between two market times (ns UTC); all symbols of the data unless the configuration names some.

    `data` is a tape (file or folder), several of candles, or a candle history. `weights` are payloads by agent, or one payload for
    all; who has none serves its prior. Candles of `warm_up_ns` before `start`, where there are any, fill the features as a session's
    history does, and nobody decides on them. `progress` is told which part of the market's time is done, in [0, 1]. Raises DataError for
    data that cannot be used, ModelError for weights that cannot.
    """
    tape = _tape(data, start, end, config.symbols, allow_gaps)
    _enough(data, tape)
    config = replace(config, symbols=tuple(str(s) for s in tape.symbols), candles_only=tape.kind == "candles")
    payload = None if weights is None else complete(weights) if isinstance(weights, bytes) else joined(weights)
    every = 1 if config.candles_only else max(NS, (tape.end - tape.start) // MOST_SAMPLES)
    run = Backtest(config, list(tape.instruments.values()), capital, frictions, weights=payload, sample_ns=every)
    remembered = run.remember(_earlier(data, start, tape, warm_up_ns))
    run.run(iter(tape.events()), watch=None if progress is None else _share(tape, progress))
    if not run.tally.events:
        raise DataError(f"{_said(data)} holds nothing between --from and --to")
    made = run.result(
        {
            "data": [str(path) for path in _paths(data)], "kind": tape.kind, "timeframe": tape.timeframe,
            "from": moment(tape.start), "to": moment(tape.end), "warm_up_candles": remembered, "config": asdict(config), "frictions": repr(frictions),
            "weights": None if payload is None else hashlib.sha256(payload).hexdigest(),
        }
    )  # fmt: skip
    if progress is not None:
        progress(1.0)
    return made


def _tape(data: Source, start: int | None, end: int | None, symbols: Sequence[str], allow_gaps: bool) -> Tape:
    if isinstance(data, CandleHistory):
        chosen = data.select(symbols) if symbols else data
        return history_tape(chosen if start is None and end is None else chosen.slice(start, end))
    return open_tape(data, start, end, symbols or None, allow_gaps=allow_gaps)


def _earlier(data: Source, start: int | None, tape: Tape, warm_up_ns: int) -> Iterator[Event]:
    """Candles from before the window; holes in them are no matter, for nothing is traded there."""
    if start is None or tape.kind != "candles" or warm_up_ns <= 0:
        return iter(())
    try:
        return _tape(data, start - warm_up_ns, start, tape.symbols, allow_gaps=True).events()
    except DataError:  # there is nothing before: the features begin empty, as they would in a market that has just opened
        return iter(())


def _enough(data: Source, tape: Tape) -> None:
    """Raises DataError where there is nothing to learn from: no symbol, or hardly a candle of one."""
    if not tape.symbols:
        raise DataError(f"{_said(data)} holds none of the symbols asked for")
    for symbol, count in tape.counts.items():
        if count < LEAST_CANDLES:
            raise DataError(
                f"{_said(data)} holds {count} candles of {symbol} in this window, and a backtest needs {LEAST_CANDLES}:"
                " widen --from and --to, or leave the symbol out by --symbols"
            )


def _paths(data: Source) -> list[Path]:
    return [] if isinstance(data, CandleHistory) else [data] if isinstance(data, Path) else list(data)


def _said(data: Source) -> str:
    return ", ".join(str(path) for path in _paths(data)) or "the history"


def backtest(
    config: EngineConfig, data: Source, start: int | None, end: int | None, capital: Decimal, frictions: Frictions,
    *, allow_gaps: bool = False,
) -> dict[str, Any]:
    """The counts and the money of `run_backtest` as plain JSON values."""
    return summary(run_backtest(config, data, start, end, capital, frictions, allow_gaps=allow_gaps))


def summary(made: RunResult) -> dict[str, Any]:
    """What a run counted, as plain JSON values."""
    meta = made.meta
    data = meta["data"][0] if len(meta["data"]) == 1 else list(meta["data"])
    return {"data": data, "kind": meta["kind"], "symbols": list(made.symbols)} | {name: meta[name] for name in _COUNTED}


def _share(tape: Tape, progress: Callable[[float], None]) -> Callable[[int], None]:
    """Market times to parts of the whole, told once a percent."""
    told = 0

    def watch(now: int) -> None:
        nonlocal told
        done = min(100 * (now - tape.start) // max(tape.end - tape.start, 1), 99)
        if done > told:
            told = done
            progress(done / 100)

    return watch


def _weights_event(payload: bytes) -> NewWeights:
    """Raises ModelError, SpecMismatch or Diverged for weights that the engine would refuse."""
    actors = Actors.from_payload(payload, SPEC_HASH)
    return NewWeights(UNSTAMPED, actors.version, actors.digest, SPEC_HASH, payload)
