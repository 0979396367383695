"""The same engine over a recorded market and the exchange in memory, synchronously, as fast as it goes."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from agents.core.errors import DataError
from agents.core.events import MARKET_EVENTS, UNSTAMPED, Adjustment, AdjustmentKind, Event, Fill, Listing, Stamp, Tick, stamped
from agents.core.instruments import NS, Currency, Instrument
from agents.core.orders import Place
from agents.desk.decision import Decision, EngineConfig
from agents.desk.wishes import ORDER
from agents.engine import Engine
from agents.market.exchange import SimulatedExchange
from agents.market.frictions import Frictions
from agents.market.tape import open_tape


@dataclass(slots=True)
class Tally:
    """What a run counted."""

    events: int = 0
    bars: int = 0
    orders: int = 0
    fills: int = 0


class Backtest:
    """One engine, one simulated exchange, one clock: the time of the facts."""

    def __init__(self, config: EngineConfig, instruments: list[Instrument], capital: Decimal, frictions: Frictions) -> None:
        quote = Currency(config.quote)
        self.engine = Engine(config)
        self.exchange = SimulatedExchange(instruments, frictions, {quote: capital})
        self.tally = Tally()
        self.decisions = dict.fromkeys(ORDER, 0)
        self.curve: list[tuple[int, float]] = []
        """(market time ns, equity) at each decision of the slow agents."""
        self._seq = self._next_tick = 0
        self._opening: list[Event] = [
            *(Listing(UNSTAMPED, instrument) for instrument in instruments),
            Adjustment(UNSTAMPED, quote, capital, AdjustmentKind.OPENING),
            Adjustment(UNSTAMPED, quote, capital, AdjustmentKind.CAPITAL),
        ]

    def run(self, facts: Iterator[Event], tick_ns: int = NS) -> None:
        """Feed every fact, and a tick per `tick_ns` of market time between them; may be called again to go on."""
        for event in facts:
            now = event.stamp.at
            while self._opening:
                self._step(self._opening.pop(0), now)
            if now >= self._next_tick:
                self._step(Tick(UNSTAMPED), now)
                self._next_tick = now + tick_ns
            self.feed(event, now)

    def feed(self, event: Event, now: int) -> None:
        """One fact of the market, and what it causes at the exchange."""
        for due in self.exchange.advance(now):
            self._step(due, now)
        self._step(event, now)
        if isinstance(event, MARKET_EVENTS):
            for caused in self.exchange.on_market(event):
                self._step(caused, now)

    def _step(self, event: Event, now: int) -> None:
        self._seq += 1
        effects = self.engine.step(stamped(event, Stamp(now, self._seq)))
        self.tally.events += 1
        self.tally.fills += isinstance(event, Fill)
        for command in effects.commands:
            self.tally.orders += isinstance(command, Place)
            self.exchange.send(command, now)
        if effects.decision is not None:
            self._note(effects.decision)

    def _note(self, decision: Decision) -> None:
        for agent in decision.agents:
            self.decisions[agent] += 1
        if decision.equity is not None and decision.agents != ("market_making",):
            self.curve.append((decision.time, decision.equity))

    def report(self) -> dict[str, Any]:
        """Plain JSON values: counts, money, and whether ledger and exchange agree."""
        engine, exchange = self.engine, self.exchange
        theirs = exchange.balances()
        currencies = {*engine.ledger.balances, *theirs}
        difference = sum((abs(engine.ledger.balances[c] - theirs.get(c, Decimal(0))) for c in currencies), Decimal(0))
        equity = engine.equity()
        return {
            "events": self.tally.events,
            "decisions": self.decisions,
            "orders": self.tally.orders,
            "fills": self.tally.fills,
            "fees": float(engine.fees_in_quote()),
            "turnover": float(engine.ledger.turnover),
            "equity": equity,
            "drawdown": engine.risk.drawdown,
            "pnl": {"account": None if equity is None else equity - float(engine.ledger.capital), "agents": engine.profits()},
            "ledger_difference": float(difference),
            "refused_data": dict(engine.market.refused),
        }


def backtest(
    config: EngineConfig, data: Path, start: int | None, end: int | None, capital: Decimal, frictions: Frictions,
    *, allow_gaps: bool = False,
) -> dict[str, Any]:
    """Run over a tape between two market times (ns UTC). Raises DataError for a tape that cannot be used."""
    tape = open_tape(data, start, end, config.symbols or None, allow_gaps=allow_gaps)
    symbols = tuple(str(s) for s in tape.symbols)
    if not symbols:
        raise DataError(f"{data} holds none of the symbols asked for")
    run = Backtest(replace(config, symbols=symbols, candles_only=tape.kind == "candles"), list(tape.instruments.values()), capital, frictions)
    run.run(iter(tape.events()))
    if not run.tally.events:
        raise DataError(f"{data} holds nothing between --from and --to")
    return {"data": str(data), "kind": tape.kind, "symbols": list(symbols), **run.report()}
