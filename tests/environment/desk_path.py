"""The event-driven desk over candles, one decision a bar, with fills that the test makes: a second opinion on the arrays."""

from decimal import Decimal

import numpy as np

from agents.core.events import Adjustment, AdjustmentKind, Bar, Fill, Listing, Stamp
from agents.core.instruments import Currency, Instrument, Side, Symbol
from agents.core.ledger import Ledger
from agents.core.orders import OrderId
from agents.desk.coordinator import coordinate
from agents.desk.limits import RiskState
from agents.desk.long_term import LongTerm
from agents.desk.projection import project
from agents.desk.risk import Risk
from agents.desk.stops import Stops
from agents.desk.wishes import StandingWishes
from agents.market.features import DAY
from agents.market.observation import Context, observe
from agents.market.state import MarketState

USDT = Currency("USDT")


def exact(number) -> Decimal:
    return Decimal(repr(float(number)))


def instrument(symbol, fee="0.001", tick="1e-8", lot="1e-10", least="0"):
    base = Currency(symbol.split("/")[0])
    return Instrument(
        Symbol(symbol), base, USDT, Decimal(tick), Decimal(lot), min_quantity=Decimal(lot), min_notional=Decimal(least),
        maker_fee=Decimal(fee), taker_fee=Decimal(fee),
    )  # fmt: skip


def bars(history, row, shift=0):
    """The events of one row, stamped at its close."""
    end = int(history.closings[row]) + shift
    for column, symbol in enumerate(history.symbols):
        if history.listed[row, column]:
            values = [exact(getattr(history, name)[row, column]) for name in ("open", "high", "low", "close", "volume")]
            yield Bar(Stamp(end), symbol, int(history.times[row]), history.timeframe, *values)


class DeskPath:
    """Market, ledger, long-term and risk agent, coordinator and projection; `trade` fills what the safe target asks for."""

    def __init__(self, history, limits, costs, capital=10_000.0):
        self.history, self.limits, self.costs = history, limits, costs
        self.market, self.ledger = MarketState(history.symbols), Ledger(USDT)
        self.standing, self.stops, self.state = StandingWishes(), Stops(), RiskState()
        self.long_term, self.risk = LongTerm(), Risk()
        self.day, self.sums, self.number, self.watched = -1, (0.0, 0.0, 0.0), 0, None
        for symbol in history.symbols:
            self.apply(Listing(Stamp(0), instrument(symbol, str(Decimal(str(costs.fee_bps)) / 10_000))))
        for kind in (AdjustmentKind.OPENING, AdjustmentKind.CAPITAL):
            self.apply(Adjustment(Stamp(0), USDT, exact(capital), kind))

    def apply(self, event):
        self.market.apply(event)
        self.ledger.apply(event)

    def marks(self):
        return {s: mark for s in self.history.symbols if (mark := self.market.mark(s)) is not None}

    def equity(self):
        return float(self.ledger.equity(self.marks()))

    def weights(self):
        marks, equity = self.marks(), self.equity()
        return np.array([float(self.ledger.position(s) * marks[s]) / equity for s in self.history.symbols])

    def context(self):
        equity, ledger = self.equity(), self.ledger
        sums = (float(ledger.turnover), float(ledger.bought), float(sum(ledger.fees.values())))
        if self.market.now // DAY != self.day:
            self.day, self.sums = self.market.now // DAY, sums
        turnover, bought, fees = (now - then for now, then in zip(sums, self.sums, strict=True))
        self.state.mark(equity, float(ledger.capital), self.limits)
        self.state.turnover_day = bought / equity
        return Context(
            equity, self.state.peak_equity, self.standing.numbers(self.market.now), self.stops.levels(self.market.now),
            turnover_day=turnover / equity, fees_paid_day=fees / equity,
        )  # fmt: skip

    def live(self, row):
        """The bars of one row become known."""
        for bar in bars(self.history, row):
            self.apply(bar)

    def see(self):
        """What the long-term agent sees now."""
        context = self.context()
        self.stops.watch(self.market, self.ledger)
        context.stops = self.stops.levels(self.market.now)
        return observe("long_term", self.market, self.ledger, self.history.symbols, context)

    def decide(self, seen, actions, tighter=(0.0, 0.0)):
        """(wishes, gross multiplier, safe weights) of raw actions [N, 4] of the long-term and [2] of the risk agent."""
        wishes = self.long_term.propose(seen, actions.astype(np.float32))
        self.standing.post(wishes)
        for wish in wishes:
            self.stops.wish(wish)
        self.watched = observe("risk", self.market, self.ledger, self.history.symbols, self.context())
        (risk,) = self.risk.propose(self.watched, np.array([tighter], np.float32))
        self.standing.post([risk])
        target = coordinate(self.standing, self.history.symbols, self.market.now)
        safe = project(target, self.market, self.ledger, self.limits, self.state)
        return wishes, risk.gross_multiplier, np.array([safe.weights[s] for s in self.history.symbols])

    def trade(self, row, safe):
        """Fill the way to `safe` around the opening of `row`: sells first, at half a spread, fees in quote."""
        marks, equity = self.marks(), self.equity()
        change = (safe - self.weights()) * equity
        half = self.costs.half_spread_bps * 1e-4
        for column in np.argsort(change):
            symbol = self.history.symbols[column]
            quantity = exact(abs(change[column]) / float(marks[symbol]))
            side = Side.BUY if change[column] > 0 else Side.SELL
            if safe[column] == 0.0:
                quantity = self.ledger.position(symbol)
            if quantity <= 0:
                continue
            price = exact(self.history.open[row, column] * (1 + side.value * half))
            fee = price * quantity * exact(self.costs.fee_bps * 1e-4)
            self.number += 1
            at = int(self.history.times[row])
            self.apply(Fill(Stamp(at), symbol, at, OrderId(f"o{self.number}"), str(self.number), side, price, quantity, fee, USDT, False))
