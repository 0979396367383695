"""The market maker on recorded books: how often its quotes are filled, what they capture, and what the price does afterwards.

A few minutes of book prove no profit: they show mechanics, the order of magnitude of adverse selection, and how much of it all
hangs on the model of the queue.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import DataError
from agents.core.events import MARKET_EVENTS, BookSnapshot, Event, Fill
from agents.core.instruments import NS, ZERO, Instrument, Side, Symbol
from agents.core.orders import Cancel, Command, OrderId, Place
from agents.desk.decision import EngineConfig
from agents.desk.gate import is_quote
from agents.desk.wishes import MARKET_MAKING
from agents.jobs.backtest import Backtest
from agents.jobs.result import moment
from agents.market.exchange import SimulatedExchange
from agents.market.frictions import BackQueue, Frictions, FrontQueue, ProRataQueue, Queue
from agents.market.tape import Tape, open_tape

QUEUES: dict[str, Queue] = {"back": BackQueue(), "pro_rata": ProRataQueue(), "front": FrontQueue()}
HORIZONS_S = (1, 5, 30)
CAUTION = "Minutes of book prove no profit: what is measured here is mechanics (fill rates, adverse selection) under a stated model of the queue."
TOUCH, FREE = "touch", "glft_free"
CLUSTER_NS = 5 * NS
"""Fills within so long of each other are one observation in the standard errors."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MarkOuts:
    """One quoter in one symbol of one session under one queue model. Money is in basis points of notional, signed so that more is better
    for us; `markout` is the mid after so many seconds against the fill price, `adverse` how far the mid moved against the fill."""

    session: str
    symbol: str
    quoter: str
    """touch (one smallest order at each best price, no agent), glft (the prior), glft_free (the prior where makers pay no fee), trained."""
    queue: str
    minutes: float
    quotes: int
    filled_quotes: int
    fills: int
    fill_rate: float | None
    """Part of the quotes that were filled at all."""
    fills_a_minute: float
    notional: float
    captured: float | None
    """Mid at the fill against the fill price: the half-spread earned before the market answers."""
    fee: float | None
    """Maker fee paid; negative is a rebate."""
    markout: dict[str, float | None] = field(default_factory=dict)
    error: dict[str, float | None] = field(default_factory=dict)
    """Standard errors of `markout`, clustered in time."""
    adverse: dict[str, float | None] = field(default_factory=dict)


def mark_outs(
    config: EngineConfig, sessions: Sequence[Path], capital: Decimal, frictions: Frictions,
    *, symbols: Sequence[str] | None = None, weights: bytes | None = None, start: int | None = None, end: int | None = None,
    allow_gaps: bool = False, progress: Callable[[float], None] | None = None,
) -> dict[str, Any]:
    """Run every quoter over every session under every queue model; plain JSON values, with the sentence that belongs to them.

    `config` gives limits and cadences; its agents are replaced by the market maker alone. Raises DataError for a tape without books.
    """  # fmt: skip
    rows: list[MarkOuts] = []
    quoters = [TOUCH, "glft", FREE, *(["trained"] if weights is not None else [])]
    steps = len(sessions) * len(QUEUES) * len(quoters)
    for path in sessions:
        tape = open_tape(path, start, end, symbols, allow_gaps=allow_gaps)
        if tape.kind == "candles":
            raise DataError(f"{path} holds candles, and mark-outs need books: give a session (*-deltas.parquet) or a recorded tape")
        for name, queue in QUEUES.items():
            met = replace(frictions, queue=queue)
            for quoter in quoters:
                listed = [replace(each, maker_fee=ZERO) if quoter == FREE else each for each in tape.instruments.values()]
                served = weights if quoter == "trained" else None
                seen = _touch(tape, met) if quoter == TOUCH else _engine(config, tape, listed, capital, met, served)
                rows += [_row(str(path), tape, symbol, quoter, name, seen) for symbol in tape.symbols]
                if progress is not None:
                    progress(len(rows) / len(tape.symbols) / steps)
    return {"caution": CAUTION, "horizons_s": list(HORIZONS_S), "latency": repr(frictions.latency), "rows": [asdict(row) for row in rows]}


@dataclass(slots=True)
class _Seen:
    """What one run showed: mids by symbol, quotes placed, and their fills."""

    times: dict[Symbol, list[int]] = field(default_factory=dict)
    mids: dict[Symbol, list[float]] = field(default_factory=dict)
    quotes: dict[OrderId, Place] = field(default_factory=dict)
    fills: list[Fill] = field(default_factory=list)

    def watch(self, events: Iterator[Event]) -> Iterator[Event]:
        """The same events, with the mids noted."""
        for event in events:
            if isinstance(event, BookSnapshot) and event.bids and event.asks:
                self.times.setdefault(event.symbol, []).append(event.time)
                self.mids.setdefault(event.symbol, []).append(float(event.bids[0][0] + event.asks[0][0]) / 2.0)
            yield event


class _Watched(Backtest):
    """A backtest that keeps its quotes and their fills."""

    seen: _Seen

    def heard(self, fill: Fill) -> None:
        Backtest.heard(self, fill)
        if fill.order_id in self.seen.quotes:
            self.seen.fills.append(fill)

    def send(self, command: Command, now: int) -> None:
        if isinstance(command, Place) and is_quote(command):
            self.seen.quotes[command.order_id] = command
        Backtest.send(self, command, now)


def _engine(
    config: EngineConfig, tape: Tape, instruments: list[Instrument], capital: Decimal, frictions: Frictions, weights: bytes | None
) -> _Seen:
    alone = replace(config, symbols=tuple(str(s) for s in tape.symbols), agents=(MARKET_MAKING,), candles_only=False)
    run = _Watched(alone, instruments, capital, frictions, weights=weights)
    run.seen = _Seen()
    run.run(run.seen.watch(tape.events()))
    return run.seen


def _touch(tape: Tape, frictions: Frictions) -> _Seen:
    """One smallest order at the best bid and one at the best ask, which follow the touch; never short of either coin."""
    seen = _Seen()
    rich = Decimal(10**9)
    balances = {currency: rich for each in tape.instruments.values() for currency in (each.base, each.quote)}
    exchange = SimulatedExchange(tape.instruments.values(), frictions, balances)
    standing: dict[tuple[Symbol, Side], Place] = {}
    for event in seen.watch(tape.events()):
        now = event.stamp.at
        reports = exchange.advance(now)
        if isinstance(event, MARKET_EVENTS):
            reports = reports + exchange.on_market(event)
        for report in reports:
            if isinstance(report, Fill):
                seen.fills.append(report)
        if isinstance(event, BookSnapshot) and event.bids and event.asks and event.symbol in tape.instruments:
            for side, price in ((Side.BUY, event.bids[0][0]), (Side.SELL, event.asks[0][0])):
                for command in _follow(seen, tape.instruments[event.symbol], side, price, standing, exchange):
                    exchange.send(command, now)
    return seen


def _follow(
    seen: _Seen, instrument: Instrument, side: Side, price: Decimal, standing: dict[tuple[Symbol, Side], Place], exchange: SimulatedExchange
) -> list[Command]:
    """Commands that bring the order of one side back to the touch."""
    symbol = instrument.symbol
    old = standing.get((symbol, side))
    order = exchange.order(old.order_id) if old is not None else None
    if old is not None and (order is None or not order.state.done) and old.price == price:
        return []
    least = max(instrument.min_quantity, instrument.min_notional / price)
    quantity = instrument.round_quantity(least) + instrument.lot
    place = Place(OrderId(f"t{len(seen.quotes)}"), symbol, side, quantity, price, post_only=True)
    seen.quotes[place.order_id] = standing[symbol, side] = place
    gone = old is None or (order is not None and order.state.done)
    return [place] if gone or old is None else [Cancel(old.order_id, symbol), place]


def _row(session: str, tape: Tape, symbol: Symbol, quoter: str, queue: str, seen: _Seen) -> MarkOuts:
    times, mids = np.array(seen.times.get(symbol, []), dtype=np.int64), np.array(seen.mids.get(symbol, []))
    order = np.argsort(times, kind="stable")
    times, mids = times[order], mids[order]
    fills = [fill for fill in seen.fills if fill.symbol == symbol]
    quotes = {order_id for order_id, place in seen.quotes.items() if place.symbol == symbol}
    minutes = float(times[-1] - times[0]) / (60.0 * NS) if len(times) else 0.0
    at = np.array([fill.time for fill in fills], dtype=np.int64)
    price = np.array([float(fill.price) for fill in fills])
    side = np.array([fill.side.value for fill in fills], dtype=np.float64)
    notional = np.array([float(fill.price * fill.quantity) for fill in fills])
    fees = np.array([float(fill.fee) for fill in fills])
    now = mid_at(times, mids, at - 1)
    later = {f"{h}s": mid_at(times, mids, at + h * NS) for h in HORIZONS_S}
    out = {name: 1e4 * side * (mid - price) / price for name, mid in later.items()}
    filled = len({fill.order_id for fill in fills})
    return MarkOuts(
        session=f"{Path(session).name} {moment(int(times[0]))}" if len(times) else Path(session).name,
        symbol=symbol, quoter=quoter, queue=queue, minutes=minutes, quotes=len(quotes), filled_quotes=filled, fills=len(fills),
        fill_rate=filled / len(quotes) if quotes else None,
        fills_a_minute=len(fills) / minutes if minutes else 0.0,
        notional=float(notional.sum()),
        captured=mean(1e4 * side * (now - price) / price, notional),
        fee=mean(1e4 * fees / np.maximum(notional, 1e-12), notional),
        markout={name: mean(values, notional) for name, values in out.items()},
        error={name: error(values, notional, at) for name, values in out.items()},
        adverse={name: mean(1e4 * side * (now - mid) / price, notional) for name, mid in later.items()},
    )  # fmt: skip


def mid_at(times: NDArray[np.int64], mids: Floats, when: NDArray[np.int64]) -> Floats:
    """The last mid at or before each moment; NaN before the first and after the last of them: nothing is known there."""
    if not len(times):
        return np.full(len(when), np.nan)
    place = np.searchsorted(times, when, side="right") - 1
    known = (place >= 0) & (when <= times[-1])
    return np.where(known, mids[np.maximum(place, 0)], np.nan)


def mean(values: Floats, weights: Floats) -> float | None:
    """Weighted mean of what is known; None where nothing is."""
    known = np.isfinite(values)
    total = float(weights[known].sum())
    return float((values[known] * weights[known]).sum()) / total if total > 0 else None


def error(values: Floats, weights: Floats, times: NDArray[np.int64]) -> float | None:
    """Standard error of `mean`, fills within `CLUSTER_NS` together: they share the market's move. None for fewer than five clusters."""
    known = np.isfinite(values)
    middle = mean(values, weights)
    if middle is None:
        return None
    _, groups = np.unique(times[known] // CLUSTER_NS, return_inverse=True)
    count = int(groups.max()) + 1 if len(groups) else 0
    if count < 5:
        return None
    sums = np.bincount(groups, weights[known] * (values[known] - middle), count)
    return float(np.sqrt(count / (count - 1) * (sums**2).sum()) / weights[known].sum())
