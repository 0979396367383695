"""Watches a run and keeps what its result is made of. It reads the engine and never touches it."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from math import nan
from typing import Any

import numpy as np

from agents.core.events import Fill
from agents.core.instruments import NS, ZERO, Currency, Symbol
from agents.core.orders import OrderId
from agents.desk.attribution import check_sums
from agents.desk.decision import Decision
from agents.desk.wishes import MARKET_MAKING
from agents.engine import Engine
from agents.jobs.result import RunResult, Trades

DAY = 86_400 * NS
HOURS_A_YEAR = 24 * 365


class Closings:
    """The trades that fills close: each order that sold, at average cost, the fees of both sides taken off."""

    def __init__(self, symbols: Sequence[Symbol], quote: Currency) -> None:
        self._index = {symbol: number for number, symbol in enumerate(symbols)}
        self._quote = quote
        self._costs = {symbol: [0.0, 0.0] for symbol in symbols}
        """By symbol (base quantity held, what it cost with fees)."""
        self._closed: dict[OrderId, tuple[int, int]] = {}
        """By order (time, symbol)."""
        self._gained: dict[OrderId, list[float]] = {}
        """By order (profit, cost of what was sold)."""

    def fill(self, fill: Fill) -> None:
        """Book one fill; a sale closes the part that it sold."""
        held = self._costs[fill.symbol]
        quantity, paid = float(fill.quantity), float(fill.quantity * fill.price)
        fee = float(fill.fee) if fill.fee_currency == self._quote else 0.0
        lost = float(fill.fee) if fill.fee_currency == fill.symbol.partition("/")[0] else 0.0
        if fill.side.value > 0:
            held[0] += quantity - lost
            held[1] += paid + fee
            return
        share = min(quantity / held[0], 1.0) if held[0] > 0 else 0.0
        cost = held[1] * share
        held[0] = max(held[0] - quantity - lost, 0.0)
        held[1] -= cost
        self._closed.setdefault(fill.order_id, (fill.time, self._index[fill.symbol]))
        row = self._gained.setdefault(fill.order_id, [0.0, 0.0])
        row[0] += paid - fee - cost
        row[1] += cost

    def trades(self) -> Trades:
        """All so far."""
        closed = np.array(list(self._closed.values()), dtype=np.int64).reshape(-1, 2)
        gained = np.array(list(self._gained.values()), dtype=np.float64).reshape(-1, 2)
        return Trades(closed[:, 0], closed[:, 1], gained[:, 0], gained[:, 1])


class Recorder:
    """Samples of one engine's account, and the trades that its fills close."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.bound: dict[str, int] = {}
        self._times: list[int] = []
        self._rows: list[tuple[float, float, float, float]] = []
        """(equity, cash, fees, turnover)"""
        self._weights: list[list[float]] = []
        self._marks: list[list[float]] = []
        self._profits: dict[str, list[tuple[int, float]]] = {}
        """By agent (number of the sample, profit): an agent may turn up late."""
        self._difference = ZERO
        self._risk: dict[str, list[float]] = {}
        """By agent its part of the account's annual volatility, once a market day."""
        self._day = -1
        self.closings = Closings(engine.symbols, engine.ledger.quote)

    def sample(self, at: int) -> None:
        """Note the account as it stands; nothing is noted while a position has no mark."""
        engine, ledger = self.engine, self.engine.ledger
        marks = {s: mark for s in engine.symbols if (mark := engine.market.mark(s)) is not None}
        try:
            equity = ledger.equity(marks)
            profits = engine.attribution.pnl(marks)
        except KeyError:
            return
        if not ledger.capital:
            return
        if at // DAY != self._day:
            self._day = at // DAY
            self._look_deeper(marks, equity)
        self._difference = max(self._difference, abs(sum(profits.values(), ZERO) - (equity - ledger.capital)))
        for agent, profit in profits.items():
            self._profits.setdefault(agent, []).append((len(self._times), float(profit)))
        held = [(ledger.position(s), marks.get(s, ZERO)) for s in engine.symbols]
        self._weights.append([float(quantity * mark / equity) if quantity and equity else 0.0 for quantity, mark in held])
        self._marks.append([float(marks[s]) if s in marks else nan for s in engine.symbols])
        self._times.append(at)
        self._rows.append((float(equity), float(ledger.cash()), float(engine.fees_in_quote()), float(ledger.turnover)))

    def _look_deeper(self, marks: Mapping[Symbol, Decimal], equity: Decimal) -> None:
        """Once a day, because it costs as much as a decision: every sum of the attribution, and whose the risk is."""
        engine = self.engine
        listed = [symbol for symbol in marks if symbol in engine.ledger.instruments]
        covariance = HOURS_A_YEAR * engine.market.covariance(listed)
        self._difference = max(self._difference, check_sums(engine.attribution, engine.ledger, marks, covariance))
        if equity > 0 and engine.ledger.symbols():
            for agent, part in engine.attribution.risk(listed, marks, equity, covariance).items():
                self._risk.setdefault(agent, []).append(part)

    def decision(self, decision: Decision) -> None:
        """Count the limits that bound in a decision of the slow agents, whose targets are weights."""
        if decision.agents == (MARKET_MAKING,):
            return
        for name in {bound.name for bound in decision.bound}:
            self.bound[name] = self.bound.get(name, 0) + 1

    def result(self, *, fills: int, orders: int, ledger_difference: Decimal, meta: Mapping[str, Any]) -> RunResult:
        """The run so far."""
        engine = self.engine
        marks = {s: mark for s in engine.symbols if (mark := engine.market.mark(s)) is not None}
        self._look_deeper(marks, engine.ledger.equity(marks))
        invested = max(map(len, self._risk.values()), default=1)
        rows = np.array(self._rows, dtype=np.float64).reshape(-1, 4)
        curves = {agent: np.zeros(len(rows)) for agent in self._profits}
        for agent, noted in self._profits.items():
            numbers, values = zip(*noted, strict=True)
            curves[agent][list(numbers)] = values
        return RunResult(
            symbols=tuple(Symbol(s) for s in engine.symbols),
            times=np.array(self._times, dtype=np.int64),
            equity=rows[:, 0], cash=rows[:, 1], fees=rows[:, 2], turnover=rows[:, 3],
            exposure=np.array(self._weights, dtype=np.float64).reshape(len(rows), len(engine.symbols)),
            marks=np.array(self._marks, dtype=np.float64).reshape(len(rows), len(engine.symbols)),
            fills=fills, orders=orders,
            pnl_by_agent=engine.profits(),
            costs_by_agent={agent: float(cost) for agent, cost in engine.attribution.costs(marks).items()},
            risk_by_agent={agent: sum(parts) / invested for agent, parts in self._risk.items()},
            ledger_difference=float(ledger_difference),
            attribution_difference=float(self._difference),
            capital=float(engine.ledger.capital),
            trades=self.closings.trades(),
            pnl_curves=curves,
            bound=dict(sorted(self.bound.items())),
            meta=dict(meta),
        )  # fmt: skip
