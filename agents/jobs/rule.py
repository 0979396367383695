"""A plain rule on candles, on the engine's own exchange and ledger, without agents: for comparisons, and as fast as candles go.

Only a candle that an order waits for reaches the exchange; all others could not change anything there. So what is traded is what the
whole tape would have traded, and the rest costs what the rule itself costs.
"""

from collections.abc import Callable, Iterable
from decimal import Decimal

import numpy as np

from agents.core.errors import DataError
from agents.core.events import UNSTAMPED, Adjustment, AdjustmentKind, Bar, Event, Fill, Listing, Stamp
from agents.core.instruments import Currency, Instrument, Side, Symbol
from agents.core.ledger import Ledger
from agents.core.orders import OrderId, Place, TimeInForce
from agents.jobs.recorder import Closings
from agents.jobs.result import Floats, RunResult, moment
from agents.market.exchange import SimulatedExchange
from agents.market.frictions import Frictions
from agents.market.history import FIELDS, CandleHistory
from agents.market.tape.memory import history_tape

Rule = Callable[[int, list[float]], Iterable[tuple[int, float]]]
"""(row that has just closed, base units held by symbol) -> market orders as (symbol's number, signed base units)."""


def run_rule(
    rule: Rule, history: CandleHistory, capital: Decimal, frictions: Frictions, instruments: dict[Symbol, Instrument] | None = None
) -> RunResult:
    """Ask the rule after every closing; its orders meet the opening of their symbol's next candle, symbol by symbol.

    Quantities are rounded down to the lot. `instruments` replaces the grids and fees inferred from the candles. Raises DataError
    where ledger and exchange end up apart.
    """
    return _Run(rule, history, capital, frictions, instruments or history_tape(history).instruments).result()


class _Run:
    """The account of one rule."""

    def __init__(
        self, rule: Rule, history: CandleHistory, capital: Decimal, frictions: Frictions, instruments: dict[Symbol, Instrument]
    ) -> None:
        self.history, self.rule, self.capital = history, rule, capital
        quote = instruments[history.symbols[0]].quote
        self.exchange = SimulatedExchange(instruments.values(), frictions, {quote: capital})
        self.ledger = Ledger(quote)
        self.closings = Closings(history.symbols, quote)
        self.held = [0.0] * len(history.symbols)
        self.fills: list[tuple[int, int, float, float, float, float]] = []
        """(row, symbol's number, base change, quote change, fee, notional)"""
        self.orders = 0
        self._lots = [instruments[symbol] for symbol in history.symbols]
        self._waiting: dict[int, list[tuple[int, Place]]] = {}
        """By symbol the orders that its next candle will meet, and when they were sent."""
        self._row = 0
        self._start(quote)
        self._run()

    def _start(self, quote: Currency) -> None:
        opening: list[Event] = [Listing(UNSTAMPED, each) for each in self._lots]
        opening += [Adjustment(UNSTAMPED, quote, self.capital, kind) for kind in (AdjustmentKind.OPENING, AdjustmentKind.CAPITAL)]
        for event in opening:
            self.ledger.apply(event)

    def _run(self) -> None:
        rule, held, waiting = self.rule, self.held, self._waiting
        closings = self.history.closings.tolist()
        for row, now in enumerate(closings):
            self._row = row
            if waiting:
                self._trade(row, now)
            for column, units in rule(row, held):
                self._order(column, units, now)

    def _trade(self, row: int, now: int) -> None:
        """Send what waits, each symbol's just before its candle, and show the exchange that candle."""
        history = self.history
        for column in sorted(self._waiting):
            if not history.listed[row, column]:
                continue
            for sent, place in self._waiting.pop(column):
                self.ledger.record(place, Stamp(sent))
                self.exchange.send(place, sent)
            values = (Decimal(repr(float(getattr(history, name)[row, column]))) for name in FIELDS)
            bar = Bar(Stamp(now), history.symbols[column], int(history.times[row]), history.timeframe, *values)
            self._hear(self.exchange.on_market(bar))
        self._hear(self.exchange.advance(now))

    def _order(self, column: int, units: float, now: int) -> None:
        quantity = self._lots[column].round_quantity(Decimal(repr(abs(units))))
        if not quantity:
            return
        self.orders += 1
        side = Side.BUY if units > 0 else Side.SELL
        place = Place(OrderId(f"rule-{self.orders}"), self.history.symbols[column], side, quantity, None, TimeInForce.IOC)
        self._waiting.setdefault(column, []).append((now, place))

    def _hear(self, reports: Iterable[Event]) -> None:
        for report in reports:
            self.ledger.apply(report)
            if isinstance(report, Fill):
                self._book(report)

    def _book(self, fill: Fill) -> None:
        column, sign = self.history.symbols.index(fill.symbol), fill.side.value
        notional, in_quote = float(fill.price * fill.quantity), fill.fee_currency == self.ledger.quote
        fee = float(fill.fee) if in_quote else float(fill.fee * fill.price)
        base = sign * float(fill.quantity) - (0.0 if in_quote else float(fill.fee))
        self.fills.append((self._row, column, base, -sign * notional - (fee if in_quote else 0.0), fee, notional))
        self.held[column] = float(self.ledger.position(fill.symbol))
        self.closings.fill(fill)

    def result(self) -> RunResult:
        """Curves from the fills: between two of them nothing moves but prices."""
        history, capital = self.history, float(self.capital)
        made = np.array(self.fills, dtype=np.float64).reshape(-1, 6)
        rows, columns = made[:, 0].astype(np.int64), made[:, 1].astype(np.int64)
        units = np.zeros((len(history.times), len(history.symbols)))
        np.add.at(units, (rows, columns), made[:, 2])
        moved = np.zeros((len(history.times), 3))
        np.add.at(moved, rows, made[:, 3:6])
        units, moved = np.cumsum(units, axis=0), np.cumsum(moved, axis=0)
        values = np.where(units != 0.0, units * history.marks, 0.0)
        equity = capital + moved[:, 0] + values.sum(axis=1)
        self._agree()
        return RunResult(
            symbols=history.symbols, times=history.closings, equity=equity, exposure=values / equity[:, None], cash=capital + moved[:, 0],
            fees=moved[:, 1], turnover=moved[:, 2], fills=len(made), orders=self.orders, capital=capital,
            pnl_by_agent={"rule": float(equity[-1]) - capital}, costs_by_agent={"rule": float(moved[-1, 1])}, risk_by_agent={},
            ledger_difference=0.0, attribution_difference=0.0, trades=self.closings.trades(), marks=history.marks,
            pnl_curves={"rule": equity - capital},
            meta={"kind": "candles", "timeframe": history.timeframe, "from": moment(int(history.times[0])), "bars": int(history.listed.sum()),
                  "to": moment(int(history.closings[-1]))},
        )  # fmt: skip

    def _agree(self) -> None:
        theirs, ours = self.exchange.balances(), self.ledger.balances
        if any(ours[c] != theirs.get(c, Decimal(0)) for c in {*ours, *theirs}):
            raise DataError("ledger and exchange differ: please report this run, its figures mean nothing")


def crossing(history: CandleHistory, fast: int, slow: int, stake: float) -> Rule:
    """Hold `stake` (quote, at the closing) of a symbol while its fast moving average of closings is above the slow one."""
    above = moving_average(history.close, fast) > moving_average(history.close, slow)
    wanted, closes = above.T.tolist(), history.close.T.tolist()
    columns = range(len(history.symbols))

    def rule(row: int, held: list[float]) -> Iterable[tuple[int, float]]:
        orders = []
        for column in columns:
            if wanted[column][row]:
                if not held[column]:
                    orders.append((column, float(int(stake / closes[column][row]))))
            elif held[column]:
                orders.append((column, -held[column]))
        return orders

    return rule


def moving_average(values: Floats, length: int) -> Floats:
    """Mean of the last `length` rows, NaN before there are as many, [T, N]."""
    result = np.full_like(values, np.nan)
    if len(values) >= length:
        windows = np.lib.stride_tricks.sliding_window_view(values, length, axis=0)
        result[length - 1 :] = windows.mean(axis=-1)
    return result
