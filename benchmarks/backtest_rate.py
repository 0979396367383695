"""Bars per second of a backtest: an equal simple rule here and in other backtesters, then the whole line with four agents."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from agents.core.events import Event
from agents.core.instruments import Instrument
from agents.desk.decision import EngineConfig
from agents.jobs.backtest import Backtest
from agents.jobs.rule import crossing, run_rule
from agents.market.exchange import SimulatedExchange
from agents.market.frictions import CandleBook, FixedLatency, Frictions, MakerTakerFee
from agents.market.history import FIELDS, CandleHistory, load_history
from agents.market.state import MarketState
from agents.market.synthetic_candles import random_walk_history
from agents.market.tape.memory import history_tape
from benchmarks.report import Row, main

CAPITAL, STAKE, FEE, FAST, SLOW = 10_000.0, 1_000.0, 0.001, 24, 96
ROOT = Path(__file__).parents[1]
PEERS = {"backtesting": "backtesting_py.py", "freqtrade": "freqtrade_bot.py", "nautilus_trader": "nautilus.py"}
"""Package -> script. Each lives in an environment of its own, build/peers/PACKAGE, which `make bench-setup` makes."""
COMPILED = frozenset({"nautilus_trader"})
"""Not pure Python: shown, and not what the promise is about."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One backtester's run. Seconds are of the processor, without reading the candles."""

    seconds: float
    bars: int
    trades: int
    equity: float
    version: str = ""


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    """Bars per CPU second on one core. QUARTET_DATA names the folder of recorded markets; without it the candles are synthetic."""
    history = _history(arguments.bars)
    print(f"    moving averages of {FAST} and {SLOW} hours, {STAKE:g} a trade at market, fee {FEE:.1%}, {len(history.times)} candles")
    ours = _ours(history)
    _tell("ours", ours)
    peers = dict(_peers(history))
    for name, peer in peers.items():
        _tell(f"{name} {peer.version}", peer)
        _agree(name, ours, peer)
    mine = ours.bars / ours.seconds
    for name, peer in peers.items():
        rate = peer.bars / peer.seconds
        yield Row("rule on exchange and ledger", mine, "bars/s", rate, f"{name} {peer.version}", mine / rate)
    pure = {name: peer.bars / peer.seconds for name, peer in peers.items() if name not in COMPILED}
    if pure:
        best = max(pure, key=pure.__getitem__)
        yield Row("vs fastest pure Python", mine, "bars/s", pure[best], f"{best} {peers[best].version}", mine / pure[best])
    else:
        yield Row("rule on exchange and ledger", mine, "bars/s")
    yield Row("rule, every candle fed to all rooms", *_everything(history))
    yield from _line(arguments.symbols, arguments.line_bars)
    yield from _growth(arguments.line_bars)


def _history(bars: int) -> CandleHistory:
    """Candles around a price of one, so that whole units are small enough for every peer."""
    if root := os.environ.get("QUARTET_DATA"):
        found = load_history([Path(root) / "ohlcv/binance_usdm/btc_usdt-1h.parquet"])
        found = found.rows(max(len(found.times) - bars, 0), len(found.times))
        scale = float(10.0 ** np.ceil(np.log10(found.close.max())))
    else:
        found = random_walk_history(1, bars, 7)
        scale = float(found.close[0, 0])
    opened, high, low, close = (np.round(getattr(found, name) / scale, 6) for name in FIELDS[:4])
    return CandleHistory(found.symbols, found.timeframe, found.times, opened, high, low, close, np.round(found.volume * scale, 1))


def _frictions() -> Frictions:
    """The peers' world: no spread but a tick, deep books, equal fees, orders that arrive after the closing."""
    fee = Decimal(repr(FEE))
    return Frictions(MakerTakerFee(fee, fee), FixedLatency(1), candles=CandleBook(half_spread=Decimal(0), depth=Decimal(1)))


def _ours(history: CandleHistory) -> Outcome:
    instruments = history_tape(history).instruments
    start = time.process_time()
    made = run_rule(crossing(history, FAST, SLOW, STAKE), history, Decimal(repr(CAPITAL)), _frictions(), instruments)
    seconds = time.process_time() - start
    return Outcome(seconds, len(history.times), len(made.trades.profits), float(made.equity[-1]))


def _peers(history: CandleHistory) -> Iterator[tuple[str, Outcome]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "candles.csv"
        columns = {"timestamp": history.times // 1_000_000, **{name: getattr(history, name)[:, 0] for name in FIELDS}}
        pl.DataFrame(columns).write_csv(path)
        words = [str(path), str(FAST), str(SLOW), str(STAKE), str(FEE), str(CAPITAL)]
        for package, script in PEERS.items():
            python = ROOT / "build/peers" / package / "bin/python"
            if not python.exists():
                print(f"    {package} is not installed: run `make bench-setup`")
                continue
            done = subprocess.run(
                [str(python), str(ROOT / "benchmarks/peers" / script), *words], capture_output=True, text=True, check=False
            )
            if done.returncode:
                print(f"    {package} failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
                continue
            said: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
            yield package, Outcome(said["cpu"], said["bars"], said["trades"], said["equity"], said["version"])


def _tell(name: str, made: Outcome) -> None:
    print(f"    {name}: {made.trades} trades, final equity {made.equity:,.2f}, {made.seconds:.2f} s CPU", flush=True)


def _agree(name: str, ours: Outcome, peer: Outcome) -> None:
    """The work is equal only if its result is: trades within one in a hundred (and the one still open), equity within half a percent
    of the capital, for some fill at the closing and others at the next opening."""
    if abs(ours.trades - peer.trades) > 1 + 0.01 * ours.trades or abs(ours.equity - peer.equity) > 0.005 * CAPITAL:
        print(f"    {name} does not agree with ours: this is no equal work", file=sys.stderr)


def _everything(history: CandleHistory) -> tuple[float, str]:
    """The same rule with every candle as an event through exchange and market state, features of all agents included."""
    tape = history_tape(history)
    events = list(tape.events())
    rule, exchange = crossing(history, FAST, SLOW, STAKE), SimulatedExchange(tape.instruments.values(), _frictions(), {})
    state, held = MarketState(tape.symbols), [0.0] * len(tape.symbols)
    start = time.process_time()
    for row, event in enumerate(events):
        exchange.on_market(event)
        state.apply(event)
        for column, units in rule(row, held):
            held[column] += units
    return len(events) / (time.process_time() - start), "bars/s"


def _line(symbols: int, bars: int) -> Iterator[Row]:
    """The whole line: four agents, projection, planner, exchange."""
    history = random_walk_history(symbols, bars, 11)
    yield Row(f"four agents, {symbols} symbols of 1 h", symbols * bars / _four(history), "bars/s")


def _growth(bars: int) -> Iterator[Row]:
    """Exponents of cost against bars and symbols; 1 is linear, less is better."""
    lengths = [bars // 2, bars, 2 * bars]
    yield _fit("four agents, cost against bars", lengths, [_four(random_walk_history(4, n, 11)) for n in lengths])
    widths = [2, 4, 8]
    yield _fit("four agents, cost against symbols", widths, [_four(random_walk_history(n, bars // 2, 11)) for n in widths])
    lengths = [12_500, 25_000, 50_000, 100_000]
    yield _fit("rule, cost against bars", lengths, [_rule(1, n) for n in lengths])
    widths = [1, 2, 4, 8]
    yield _fit("rule, cost against symbols", widths, [_rule(n, 20_000) for n in widths])


def _fit(case: str, x: list[int], y: list[float]) -> Row:
    """Exponent b of cost = a x^b by least squares on logarithms."""
    exponent, offset = np.polyfit(np.log(x), np.log(y), 1)
    points = ", ".join(f"{n}: {cost:.2f} s" for n, cost in zip(x, y, strict=True))
    print(f"    {case}: {np.exp(offset):.3g} * x^{exponent:.2f}   ({points})", flush=True)
    return Row(case, float(exponent), "exponent", 1.0, "linear", float(exponent))


def _rule(symbols: int, bars: int) -> float:
    return _ours(random_walk_history(symbols, bars, 7)).seconds


def _four(history: CandleHistory) -> float:
    """CPU seconds of the four agents over a history."""
    tape = history_tape(history)
    events: list[Event] = list(tape.events())
    config = EngineConfig("bench", 1, "USDT", tuple(str(s) for s in tape.symbols), candles_only=True)
    listed: list[Instrument] = list(tape.instruments.values())
    run = Backtest(config, listed, Decimal(10_000), Frictions(latency=FixedLatency(50_000_000), candles=CandleBook()), sample_ns=1)
    start = time.process_time()
    run.run(iter(events))
    return time.process_time() - start


if __name__ == "__main__":
    main("backtest_rate", measure, ["numpy", "polars", "clarabel"], bars=50_000, symbols=8, line_bars=2_000)
