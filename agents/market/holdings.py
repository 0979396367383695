"""What the account says, column by column: positions, working orders, stops, standing wishes, own quotes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite

import numpy as np
import numpy.typing as npt

from agents.core.instruments import ZERO, Side, Symbol
from agents.core.ledger import Ledger, Order
from agents.market.book import Book
from agents.market.columns import AGENTS, RISK_WISH, WISH_COLUMNS
from agents.market.state import MarketState

Floats = npt.NDArray[np.float64]
Wishes = Mapping[str, Mapping[Symbol, Mapping[str, float]]]

FEE = 0.001
"""Assumed while no listing says otherwise: the usual first tier."""
PORTFOLIO = Symbol("")
_QUOTER = "market_making"


def _origin(name: str) -> tuple[str, str]:
    """Whose wish a column repeats, and the number's name there: short_term_weight is `weight` of short_term."""
    for agent in AGENTS:
        if name.startswith(agent + "_"):
            return agent, name.removeprefix(agent + "_")
    raise KeyError(name)


_ORIGINS = tuple((number, *_origin(name)) for number, name in enumerate(WISH_COLUMNS))


@dataclass(slots=True)
class Context:
    """What the engine knows beyond market and ledger. Weights, fees and turnover are fractions of equity; money is in quote."""

    equity: float
    peak_equity: float
    wishes: Wishes = field(default_factory=dict)
    """agent -> symbol -> the named numbers of its standing wish; the risk agent's stand under ""."""
    stops: Mapping[Symbol, tuple[float, float]] = field(default_factory=dict)
    """symbol -> (distance as a fraction of price, age in hours)."""
    fees_paid_day: float = 0.0
    turnover_day: float = 0.0
    risk: Mapping[str, float] = field(default_factory=dict)
    """Values that replace portfolio columns of the same name, such as var_95 or headroom_gross."""
    moments: tuple[float, float] = (0.0, 0.0)
    """Running mean and square of the observing agent's own return (`RewardBook.moments`)."""

    @property
    def drawdown(self) -> float:
        """Fall from the peak, in [0, 1] while equity is positive."""
        return max(0.0, 1.0 - self.equity / self.peak_equity) if self.peak_equity > 0 else 0.0


class Holdings:
    """Arrays over `symbols` ([n]), fractions of equity; all zero while equity is not positive."""

    def __init__(self, market: MarketState, ledger: Ledger, symbols: Sequence[Symbol], context: Context) -> None:
        self.market, self.ledger, self.symbols, self.context = market, ledger, tuple(symbols), context
        self.rows = market.index(self.symbols)
        self.scale = 1.0 / context.equity if context.equity > 0 and isfinite(context.equity) else 0.0
        self.marks = [float(mark) if (mark := market.mark(symbol)) is not None else 0.0 for symbol in self.symbols]
        self.weights = np.array(
            [float(ledger.position(s)) * mark * self.scale for s, mark in zip(self.symbols, self.marks, strict=True)]
        )

    def position(self) -> Floats:
        """POSITION_COLUMNS, [n, 6]."""
        rows = [self._position(n, symbol, mark) for n, (symbol, mark) in enumerate(zip(self.symbols, self.marks, strict=True))]
        return np.array(rows).reshape(-1, 6)

    def _position(self, number: int, symbol: Symbol, mark: float) -> tuple[float, ...]:
        ledger = self.ledger
        buy = sell = ZERO
        if orders := ledger.live_orders(symbol):
            buy, sell = ledger.working(symbol)
            # A stop that sleeps on the exchange is insurance, not a sale on its way: nobody shall learn to count with it.
            sell -= sum((o.remaining for o in orders if o.live and o.place.trigger_price is not None), ZERO)
        average = float(ledger.average_price(symbol))
        instrument = ledger.instruments.get(symbol)
        maker, taker = (float(instrument.maker_fee), float(instrument.taker_fee)) if instrument is not None else (FEE, FEE)
        worth = mark * self.scale
        gain = mark / average - 1.0 if average > 0 and mark > 0 else 0.0
        return float(self.weights[number]), float(buy) * worth, float(sell) * worth, gain, maker, taker

    def stop(self) -> Floats:
        """STOP_COLUMNS, [n, 2]; zeros without a stop."""
        return np.array([self.context.stops.get(symbol, (0.0, 0.0)) for symbol in self.symbols]).reshape(-1, 2)

    def gross(self) -> float:
        """Sum of all positions that have a mark, over equity; those outside `symbols` included."""
        total = float(np.abs(self.weights).sum())
        for symbol in self.ledger.symbols():
            if symbol not in self.symbols and symbol in self.market.symbols and (mark := self.market.mark(symbol)) is not None:
                total += abs(float(self.ledger.position(symbol) * mark)) * self.scale
        return total

    def account(self) -> Floats:
        """ACCOUNT_COLUMNS, [1, 5]."""
        context = self.context
        cash = float(self.ledger.cash()) * self.scale
        return np.array([[cash, self.gross(), context.drawdown, context.turnover_day, context.fees_paid_day]])

    def wish(self) -> Floats:
        """WISH_COLUMNS, [n, 17]; zeros where nobody wishes."""
        result = np.zeros((len(self.symbols), len(WISH_COLUMNS)))
        for number, agent, key in _ORIGINS:
            if standing := self.context.wishes.get(agent):
                for row, symbol in enumerate(self.symbols):
                    if (numbers := standing.get(symbol)) is not None:
                        result[row, number] = numbers.get(key, 0.0)
        return result

    def multiplier(self) -> Floats:
        """RISK_WISH, [1, 2]: the risk agent's multipliers, 1 without a wish."""
        standing = self.context.wishes.get("risk", {}).get(PORTFOLIO, {})
        return np.array([[standing.get(name.removeprefix("risk_"), 1.0) for name in RISK_WISH]])

    def own(self) -> Floats:
        """OWN_COLUMNS, [1, 2]."""
        return np.array([self.context.moments])

    def wished(self, agent: str, key: str) -> Floats:
        """One number of an agent's standing wishes, [n]; 0 where it has none."""
        standing = self.context.wishes.get(agent, {})
        return np.array([standing[symbol].get(key, 0.0) if symbol in standing else 0.0 for symbol in self.symbols])

    def queue(self) -> Floats:
        """QUEUE_COLUMNS, [n, 8]: inventory above the long-term weight, its gap to the wished one, own best quotes."""
        inventory = self.weights - self.wished("long_term", "weight")
        gap = inventory - self.wished(_QUOTER, "inventory_target")
        quotes = [self._quotes(symbol, mark) for symbol, mark in zip(self.symbols, self.marks, strict=True)]
        return np.column_stack([inventory, gap, np.array(quotes).reshape(-1, 6)])

    def _quotes(self, symbol: Symbol, mark: float) -> tuple[float, ...]:
        best: dict[Side, Order] = {}
        for order in self.ledger.live_orders(symbol):
            place = order.place
            if place.price is None or not order.live or not any(agent == _QUOTER for agent, _ in place.shares):
                continue
            known = best.get(place.side)
            if known is None or known.place.price is None or (place.price - known.place.price) * place.side.value > 0:
                best[place.side] = order
        if not best or mark <= 0:
            return (0.0,) * 6
        book = self.market.book(symbol)
        bid, ask = self._quote(best.get(Side.BUY), book, mark), self._quote(best.get(Side.SELL), book, mark)
        return bid[0], ask[0], bid[1], ask[1], bid[2], ask[2]

    def _quote(self, order: Order | None, book: Book, mark: float) -> tuple[float, float, float]:
        """(distance from the mark, size over equity, share of what is displayed at that price) of one own quote."""
        if order is None or order.place.price is None:
            return 0.0, 0.0, 0.0
        price, left, side = order.place.price, float(order.remaining), order.place.side
        displayed = next((float(q) for p, q in (book.bids if side is Side.BUY else book.asks) if p == price), 0.0)
        share = min(left / displayed, 1.0) if displayed > 0 else 0.0
        return (1.0 - float(price) / mark) * side.value, left * float(price) * self.scale, share
