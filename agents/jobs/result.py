"""What one run over recorded facts came to: curves, trades, who earned what, and whether the books agree."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.instruments import Symbol

Floats = NDArray[np.float64]
Times = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Trades:
    """Closed trades: each order that sold, against the average cost of what it sold. M rows in order of their first fill.

    A position that is sold by three orders is three trades, and one that is still held is none.
    """

    times: Times
    """Market time of the first fill, ns UTC, [M]."""
    symbols: NDArray[np.int64]
    """Index into the run's symbols, [M]."""
    profits: Floats
    """Quote currency, after the fees of both sides, [M]."""
    notionals: Floats
    """Cost of what was sold, quote currency, [M]."""


NO_TRADES = Trades(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0), np.zeros(0))


@dataclass(frozen=True, slots=True, eq=False)
class RunResult:
    """One run, sampled K times: at every closing of candles, at every second of a book. Money is in quote currency."""

    symbols: tuple[Symbol, ...]
    times: Times
    """Market time, ns UTC, rising, [K]."""
    equity: Floats
    """Marked equity, [K]."""
    exposure: Floats
    """Position at its mark over equity, [K, N]."""
    cash: Floats
    """[K]."""
    fees: Floats
    """All fees since the start, valued at present marks, [K]."""
    turnover: Floats
    """Notional of all fills since the start, [K]."""
    fills: int
    orders: int
    pnl_by_agent: Mapping[str, float]
    """Adds up to the last equity less the capital."""
    costs_by_agent: Mapping[str, float]
    """Fees and slippage against the mark at the decision; positive is paid."""
    risk_by_agent: Mapping[str, float]
    """Part of the account's expected annual volatility (a fraction), on average over the days that held anything; may be negative."""
    ledger_difference: float
    """Sum over currencies of what ledger and exchange differ by; 0 unless something is wrong."""
    attribution_difference: float
    """Largest difference between the agents' sums and the account's own: profits at every sample; costs, fees, positions and risk
    once a day."""
    capital: float
    trades: Trades = NO_TRADES
    marks: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    """Mark prices, NaN where a symbol has none yet, [K, N]."""
    pnl_curves: Mapping[str, Floats] = field(default_factory=dict)
    """Profit by agent, [K] each."""
    bound: Mapping[str, int] = field(default_factory=dict)
    """In how many decisions each limit held the wish back."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Plain values: data, kind, timeframe, decisions by agent, events, problems, configuration."""

    @property
    def drawdown(self) -> Floats:
        """Fall from the highest equity so far, capital included, as a fraction in [0, 1], [K]."""
        peak = np.maximum(np.maximum.accumulate(self.equity), self.capital)
        return np.asarray(1.0 - self.equity / peak) if len(self.equity) else np.zeros(0)

    @property
    def years(self) -> float:
        """Market time between the first and the last sample."""
        return float(self.times[-1] - self.times[0]) / (365.25 * 86_400e9) if len(self.times) else 0.0

    def returns(self) -> Floats:
        """Simple returns of equity from sample to sample, [K - 1]."""
        return np.asarray(self.equity[1:] / self.equity[:-1] - 1.0) if len(self.equity) > 1 else np.zeros(0)

    def resample(self, ns: int) -> "RunResult":
        """The same run with the last sample of every `ns` of market time: for daily returns, and for figures."""
        last = np.flatnonzero(np.diff(self.times // ns, append=np.iinfo(np.int64).max))
        return replace(
            self,
            times=self.times[last],
            equity=self.equity[last],
            exposure=self.exposure[last],
            cash=self.cash[last],
            marks=self.marks[last],
            fees=self.fees[last],
            turnover=self.turnover[last],
            pnl_curves={agent: curve[last] for agent, curve in self.pnl_curves.items()},
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, every curve in full; `resample` first where that is too much. Times are ISO 8601, UTC."""
        return {
            "symbols": list(self.symbols),
            "capital": self.capital,
            "times": [moment(at) for at in self.times.tolist()],
            "equity": self.equity.tolist(),
            "drawdown": self.drawdown.tolist(),
            "exposure": {symbol: self.exposure[:, i].tolist() for i, symbol in enumerate(self.symbols)},
            "cash": self.cash.tolist(),
            "fees": self.fees.tolist(),
            "turnover": self.turnover.tolist(),
            "pnl_curves": {agent: curve.tolist() for agent, curve in self.pnl_curves.items()},
            "fills": self.fills,
            "orders": self.orders,
            "pnl_by_agent": dict(self.pnl_by_agent),
            "costs_by_agent": dict(self.costs_by_agent),
            "risk_by_agent": dict(self.risk_by_agent),
            "bound": dict(self.bound),
            "trades": {
                "times": [moment(at) for at in self.trades.times.tolist()],
                "symbols": [self.symbols[i] for i in self.trades.symbols.tolist()],
                "profits": self.trades.profits.tolist(),
                "notionals": self.trades.notionals.tolist(),
            },
            "ledger_difference": self.ledger_difference,
            "attribution_difference": self.attribution_difference,
            "meta": dict(self.meta),
        }


def moment(at: int) -> str:
    """Nanoseconds UTC as ISO 8601, to the second."""
    return datetime.fromtimestamp(at // 1_000_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
