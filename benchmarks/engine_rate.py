"""How fast the whole line runs over recorded markets, and whether its cost grows in step with events and symbols."""

import argparse
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np

from agents.core.events import Bar, Event
from agents.core.instruments import NS, Instrument, Symbol
from agents.desk.decision import EngineConfig
from agents.jobs.backtest import Backtest
from agents.market.frictions import CandleBook, FixedLatency, Frictions
from agents.market.synthetic import SyntheticMarket
from agents.market.tape import open_tape
from benchmarks.report import Row, main

DATA = Path(os.environ.get("QUARTET_DATA", Path(__file__).parents[2] / "shared" / "data"))
CAPITAL = Decimal(10_000)
START = 1_700_000_000 * NS


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    """Events per second over recorded books, bars per second over candles, and two fits."""
    if DATA.is_dir():
        yield from recorded_books(arguments.minutes)
        yield from recorded_candles(arguments.days)
    else:
        print(f"  recorded cases left out: no market data in {DATA}; name its folder by QUARTET_DATA")
    yield from growth(arguments.seconds)


def recorded_books(minutes: float) -> Iterator[Row]:
    """The BTC and ETH session of 2024-07-18: `ours` with decisions, `peer` the reading of the tape alone."""
    tape = open_tape(DATA / "book" / "binance_usdm", None, None)
    first = next(iter(tape.events())).stamp.at
    tape = open_tape(DATA / "book" / "binance_usdm", None, first + int(minutes * 60 * NS))
    events = list(tape.events())
    run = _backtest([str(s) for s in tape.symbols], list(tape.instruments.values()))
    seconds = _timed(run, events)
    reading = _reading(tape.events())
    yield Row("recorded books", len(events) / seconds, "events/s", len(events) / reading, "tape reading alone", p99=None)
    yield Row("recorded books, of real time", minutes * 60 / seconds, "x")


def recorded_candles(days: float) -> Iterator[Row]:
    """Eight symbols of 1 h candles, all agents but the market maker."""
    start = 1_672_531_200 * NS
    tape = open_tape(DATA / "ohlcv" / "binance", start, start + int(days * 86_400 * NS), timeframe="1h", allow_gaps=True)
    events = list(tape.events())
    bars = sum(isinstance(event, Bar) for event in events)
    run = _backtest([str(s) for s in tape.symbols], list(tape.instruments.values()), candles=True)
    yield Row(f"candles 1h, {len(tape.symbols)} symbols", bars / _timed(run, events), "bars/s")


def growth(seconds: float) -> Iterator[Row]:
    """CPU microseconds per event as the run gets longer, and per symbol-second as there are more symbols (synthetic market)."""
    lengths = (0.25, 0.5, 1.0)
    spent = [_synthetic(4, seconds * share) for share in lengths]
    counts = np.array([count for count, _ in spent], dtype=float)
    yield _fit("cost against events", counts, np.array([cost for _, cost in spent]))
    symbols = (1, 2, 4, 8)
    costs = np.array([_synthetic(n, seconds / 4)[1] for n in symbols])
    yield _fit("cost against symbols", np.array(symbols, dtype=float), costs)


def _fit(case: str, x: np.ndarray, y: np.ndarray) -> Row:
    """Exponent b of cost = a x^b by least squares on logarithms; 1 is linear. `ours` is b, the line is printed."""
    exponent, offset = np.polyfit(np.log(x), np.log(y), 1)
    points = ", ".join(f"{n:g}: {cost:.2f} s" for n, cost in zip(x, y, strict=True))
    print(f"    {case}: {np.exp(offset):.3g} * x^{exponent:.2f}   ({points})")
    return Row(case, float(exponent), "exponent", 1.0, "linear", float(exponent))


def _synthetic(symbols: int, seconds: float) -> tuple[int, float]:
    names = [Symbol(f"{base}/USDT") for base in ("BTC", "ETH", "SOL", "XRP", "BNB", "ADA", "DOGE", "LINK")][:symbols]
    market = SyntheticMarket(names, 5, START, history_days=2)
    events: list[Event] = list(
        itertools.chain.from_iterable(market.step(START + step * NS // 2) for step in range(1, int(seconds * 2) + 1))
    )
    return len(events), _timed(_backtest([str(s) for s in names], list(market.instruments.values())), events)


def _backtest(symbols: Sequence[str], instruments: list[Instrument], *, candles: bool = False) -> Backtest:
    config = EngineConfig("bench", 1, "USDT", tuple(symbols), candles_only=candles)
    return Backtest(config, instruments, CAPITAL, Frictions(latency=FixedLatency(50_000_000), candles=CandleBook()))


def _timed(run: Backtest, events: list[Event]) -> float:
    start = time.process_time()
    run.run(iter(events))
    return time.process_time() - start


def _reading(events: Iterator[Event]) -> float:
    start = time.process_time()
    for _ in events:
        pass
    return time.process_time() - start


if __name__ == "__main__":
    main("engine_rate", measure, ["numpy", "clarabel", "polars"], minutes=2.0, days=60.0, seconds=240.0)
