"""A portfolio played through all rooms of the desk: event by event, on any market."""

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

import numpy as np

from agents.core.events import Fill
from agents.core.instruments import Currency, Symbol
from agents.desk.decision import EngineConfig
from agents.desk.limits import FLATTEN
from agents.desk.wishes import Style
from agents.environment.desk import Portfolio
from agents.environment.outcomes import Filled, Floats, Played
from agents.environment.sources import Source
from agents.environment.stage import Stage
from agents.market.frictions import Frictions


class Rooms:
    """One account at a time: `reset` opens it and plays to the first question, `play` answers one and plays to the next."""

    def __init__(self, source: Source, config: EngineConfig, style: Style, capital: Decimal, frictions: Frictions, warmup: int) -> None:
        self.source, self.config, self.style, self.capital = source, config, style, capital
        self.frictions, self.warmup = frictions, warmup
        self.symbols = source.symbols

    def reset(self, seed: int, row: int) -> bool:
        """Whether a first question came."""
        facts, opens_at = self.source.facts(seed, row, self.warmup)
        self.desk = Portfolio(replace(self.config, seed=seed), self.style, self.source.timeframe)
        self.stage = Stage(self.desk, self.source.instruments, self.capital, self.frictions, facts, opens_at)
        self._run: Iterator[None] = self.stage.run()
        return self._go_on()

    def _go_on(self) -> bool:
        for _ in self._run:
            return True
        return False

    @property
    def equity(self) -> float:
        """Marked equity in quote."""
        return self.desk.equity() or 0.0

    @property
    def drawdown(self) -> float:
        """From the peak, as a fraction."""
        return self.desk.risk.drawdown

    @property
    def now(self) -> int:
        """Market time in ns."""
        return self.desk.market.now

    def weights(self) -> Floats:
        """Held now, [n], fractions of equity."""
        return self._positions() * self.marks() / self.equity if self.equity > 0 else np.zeros(len(self.symbols))

    def marks(self) -> Floats:
        """Mark prices, [n]; 0 where nothing is known."""
        market = self.desk.market
        return np.array([float(market.mark(symbol) or 0) for symbol in self.symbols])

    def _positions(self) -> Floats:
        return np.array([float(self.desk.ledger.position(symbol)) for symbol in self.symbols])

    def play(self, wish: Floats) -> Played:
        """Wish for weights [n] now, and live until the next question. Raises RuntimeError after the end."""
        desk, stage = self.desk, self.stage
        equity, marks, held, began = float(desk.sitting.equity), self.marks(), self._positions(), self.now
        stage.fills.clear()
        effects = desk.answer(dict(zip(self.symbols, wish.tolist(), strict=True)))
        stage.answered(effects)
        going = self._go_on()
        after, position = self.marks(), self._positions()
        fills = [self._filled(fill, marks) for fill in stage.fills]
        spent, slipped, fees, turnover = self._sums(fills, marks)
        bound = tuple((b.name, b.symbol) for b in effects.decision.bound) if effects.decision is not None else ()
        return Played(
            equity=self.equity, weights=self.weights(), held=position * marks / equity, profit=position * after - held * marks - spent,
            costs=fees + slipped, returns=np.where(marks > 0, after / np.where(marks > 0, marks, 1.0) - 1.0, 0.0),
            elapsed_ns=self.now - began, turnover=turnover / equity, fills=fills, bound=bound,
            terminated=desk.risk.rung == FLATTEN or self.equity <= 0, truncated=not going,
        )  # fmt: skip

    def _filled(self, fill: Fill, marks: Floats) -> Filled:
        """Fees in base are told in quote at the fill's price."""
        in_base = fill.fee_currency != Currency(self.config.quote)
        fee = float(fill.fee) * (float(fill.price) if in_base else 1.0)
        return Filled(fill.symbol, float(fill.quantity) * fill.side.value, float(fill.price), fee)

    def _sums(self, fills: list[Filled], marks: Floats) -> tuple[Floats, Floats, Floats, float]:
        """([n] what left the cash, [n] slippage against the marks, [n] fees, notional over all), in quote."""
        spent, slipped, fees, turnover = (*(np.zeros(len(self.symbols)) for _ in range(3)), 0.0)
        for symbol, quantity, price, fee in fills:
            row = self.symbols.index(Symbol(symbol))
            spent[row] += quantity * price
            slipped[row] += quantity * (price - marks[row])
            fees[row] += fee
            if quantity < 0 or self.frictions.fee_currency == "quote":
                spent[row] += fee  # else it was taken out of what was bought, and is missing there
            turnover += abs(quantity) * price
        return spent, slipped, fees, turnover
