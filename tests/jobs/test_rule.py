"""A plain rule: what sleeping candles would have done to it is nothing."""

from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.events import Bar, Fill, Stamp
from agents.core.instruments import NS, Currency, Side
from agents.core.orders import OrderId, Place, TimeInForce
from agents.jobs.rule import Rule, crossing, moving_average, run_rule
from agents.market.exchange import SimulatedExchange
from agents.market.frictions import CandleBook, FixedLatency, Frictions, MakerTakerFee, SquareRootImpact
from agents.market.history import CandleHistory
from agents.market.synthetic_candles import random_walk_history
from agents.market.tape.memory import history_tape

CAPITAL = Decimal(10_000)
FREE = Frictions(MakerTakerFee(Decimal("0.001"), Decimal("0.001")), FixedLatency(1), candles=CandleBook(half_spread=Decimal(0), depth=Decimal(1)))


def awake(rule: Rule, history: CandleHistory, frictions: Frictions) -> list[tuple[int, str, str, str, str]]:
    """Fills of the same rule where the exchange sees every candle."""
    tape = history_tape(history)
    exchange = SimulatedExchange(tape.instruments.values(), frictions, {Currency("USDT"): CAPITAL})
    (symbol,), held, fills, count = history.symbols, [0.0], [], 0
    for row, event in enumerate(e for e in tape.events() if isinstance(e, Bar)):
        reports = exchange.on_market(event) + exchange.advance(event.stamp.at)
        for fill in (report for report in reports if isinstance(report, Fill)):
            fills.append((row, fill.side.name, str(fill.price), str(fill.quantity), str(fill.fee)))
            held[0] += fill.side.value * float(fill.quantity)
        for _, units in rule(row, held):
            count += 1
            side = Side.BUY if units > 0 else Side.SELL
            quantity = tape.instruments[symbol].round_quantity(Decimal(repr(abs(units))))
            exchange.send(Place(OrderId(str(count)), symbol, side, quantity, None, TimeInForce.IOC), event.stamp.at)
    return fills


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.integers(2, 12), st.sampled_from([1, NS, 60 * NS]), st.booleans())
def test_sleeping_candles_change_nothing(seed: int, fast: int, latency: int, impact: bool) -> None:
    history = random_walk_history(1, 120, seed, volatility=2.0)
    frictions = replace(FREE, latency=FixedLatency(latency), candles=CandleBook(), **({"impact": SquareRootImpact()} if impact else {}))
    made = run_rule(crossing(history, fast, 3 * fast, 1_000.0), history, CAPITAL, frictions)
    wide = awake(crossing(history, fast, 3 * fast, 1_000.0), history, frictions)
    assert made.fills == len(wide)
    paid = sum(Decimal(fee) for *_, fee in wide)
    cash = CAPITAL - sum((1 if side == "BUY" else -1) * Decimal(price) * Decimal(units) for _, side, price, units, _ in wide) - paid
    assert made.cash[-1] == pytest.approx(float(cash), abs=1e-6)
    assert made.fees[-1] == pytest.approx(float(paid), abs=1e-9)


def test_orders_meet_the_next_opening_with_fee_and_grid() -> None:
    history = random_walk_history(2, 40, 1)

    def rule(row: int, held: list[float]) -> Iterable[tuple[int, float]]:
        return {3: [(0, 2.0), (1, 1.0)], 10: [(0, -held[0])]}.get(row, [])

    made = run_rule(rule, history, CAPITAL, FREE)
    bought, sold = history.open[4], history.open[11, 0]
    tick = float(history_tape(history).instruments[history.symbols[0]].tick)
    assert made.exposure[3].tolist() == [0.0, 0.0]
    assert made.exposure[4] * made.equity[4] == pytest.approx(np.array([2.0, 1.0]) * history.close[4], rel=1e-12)
    assert made.fees[4] == pytest.approx(0.001 * (2.0 * bought[0] + bought[1]), abs=1e-6)
    assert made.equity[-1] == pytest.approx(
        10_000 - made.fees[-1] + 2.0 * (sold - tick - bought[0]) + history.close[-1, 1] - bought[1], abs=1e-6
    )
    assert made.trades.symbols.tolist() == [0]
    assert made.trades.profits[0] == pytest.approx(2.0 * (sold - tick - bought[0]) - 0.002 * (bought[0] + sold - tick), abs=1e-5)


def test_an_order_waits_for_a_candle_that_is_missing() -> None:
    history = random_walk_history(1, 40, 1)
    values = [getattr(history, name).copy() for name in ("open", "high", "low", "close", "volume")]
    for array in values:
        array[4:7] = np.nan
    holed = CandleHistory(history.symbols, "1h", history.times, *values)
    made = run_rule(lambda row, held: [(0, 1.0)] if row == 3 else [], holed, CAPITAL, FREE)
    assert np.flatnonzero(made.exposure[:, 0])[0] == 7
    assert made.cash[7] == pytest.approx(10_000 - 1.001 * history.open[7, 0], abs=1e-6)


def test_moving_average() -> None:
    values = np.arange(12.0).reshape(6, 2)
    average = moving_average(values, 3)
    assert np.isnan(average[:2]).all()
    assert average[2:].tolist() == [[2.0, 3.0], [4.0, 5.0], [6.0, 7.0], [8.0, 9.0]]
    assert np.isnan(moving_average(values, 7)).all()


def test_what_cannot_be_paid_is_not_bought() -> None:
    history = random_walk_history(1, 20, 1)
    made = run_rule(lambda row, held: [(0, 1e6)] if row == 3 else [], history, CAPITAL, FREE)
    assert (made.fills, made.orders, made.equity[-1]) == (0, 1, 10_000)


def test_stamps_of_reports_that_are_late() -> None:
    history = random_walk_history(1, 40, 1)
    late = replace(FREE, latency=FixedLatency(1, NS))
    made = run_rule(lambda row, held: [(0, 1.0)] if row == 3 else [], history, CAPITAL, late)
    assert made.fills == 1
    assert Stamp(int(history.closings[4])).at == made.times[np.flatnonzero(made.exposure[:, 0])[0]]
