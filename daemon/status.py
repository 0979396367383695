"""What a session can say about itself, for the view, the control socket, HTTP, metrics and the closing summary."""

from collections import Counter
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import structlog

from agents.core.events import Event, Fill, NewWeights, OrderUpdate
from agents.core.instruments import NS, Currency
from agents.core.orders import OrderState, Place
from agents.desk import safety
from agents.desk.decision import Effects
from agents.desk.wishes import ORDER
from agents.engine import Engine
from daemon.door import Door

log = structlog.get_logger()


class Status:
    """Counts what passes and describes what is; never touches a decision."""

    def __init__(self, name: str, labels: Mapping[str, str], engine: Engine, door: Door, learner: Callable[[], Mapping[str, Any]]) -> None:
        self._name, self._labels, self._engine, self._door, self._learner = name, dict(labels), engine, door, learner
        self._started = door.now()
        self._last_market = self._last_decision = 0
        self.decisions: Counter[str] = Counter()
        self.orders = self.fills = self.weights_swapped = 0
        self.order_states: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self._bound: list[dict[str, Any]] = []
        self.ready = False
        self.handled = 0
        """Facts that went through the engine: what the service manager takes for progress."""
        self._problems = 0
        self.rebuilds: Callable[[], int] = lambda: 0
        self.details: dict[str, Callable[[], Mapping[str, Any]]] = {}
        """Further rooms that describe themselves, by name."""
        self.notes: dict[str, str] = {}

    def tell(self, event: Event, effects: Effects) -> None:
        """Take note of one fact and of what the engine made of it."""
        self.handled += 1
        match event:
            case Fill():
                self.fills += 1
            case OrderUpdate(state=OrderState() as state):
                self.order_states[state.value] += 1
            case NewWeights() if effects.swapped:
                self.weights_swapped += 1
            case _:
                pass
        self.orders += sum(isinstance(command, Place) for command in effects.commands)
        if len(self._engine.problems) > self._problems:
            self._problems = len(self._engine.problems)
            log.error("engine_problem", problems=dict(self._engine.problems))
        if (decision := effects.decision) is not None:
            self._last_decision = decision.stamp.at
            self.decisions.update(decision.agents)
            self.refused.update(refusal.reason for refusal in decision.refusals)
            self._bound = [{"name": b.name, "symbol": b.symbol, "price": b.price} for b in decision.bound]

    def note(self, name: str, text: str) -> None:
        """Remember a trouble that must be seen."""
        self.notes[name] = text
        log.error(name, error=text)

    def snapshot(self) -> dict[str, Any]:
        """Plain JSON values; ages in seconds, money in quote currency, quantities as decimal strings."""
        engine, now = self._engine, self._door.now()
        ledger, market = engine.ledger, engine.market
        marks = {s: m for s in engine.symbols if (m := market.mark(s)) is not None}
        equity = engine.equity()
        return {
            "session": self._name,
            **self._labels,
            "started_at": self._started,
            "uptime_s": (now - self._started) / NS,
            "market_time": market.now,
            "data_age_s": (now - market.at) / NS if market.at else None,
            "decision_age_s": (now - self._last_decision) / NS if self._last_decision else None,
            "inbox_depth": self._door.depth,
            "coalesced": self._door.coalesced,
            "halted": engine.halted,
            "flattening": engine.flattening,
            "reconciled": engine.risk.reconciled,
            "stops": engine.held(),
            "problems": dict(engine.problems),
            "ready": self.ready,
            "notes": dict(self.notes),
            **{name: _described(describe) for name, describe in self.details.items()},
            "equity": equity,
            "peak_equity": engine.risk.peak_equity,
            "drawdown": engine.risk.drawdown,
            "rung": engine.risk.rung,
            "cash": float(ledger.cash()),
            "capital": float(ledger.capital),
            "positions": [
                {
                    "symbol": s,
                    "quantity": str(ledger.position(s)),
                    "average_price": float(ledger.average_price(s)),
                    "mark": float(marks[s]) if s in marks else None,
                    "weight": float(ledger.position(s) * marks[s]) / equity if s in marks and equity else None,
                    "pnl": float(ledger.unrealised(s, marks[s]) + ledger.realised(s)) if s in marks else None,
                }
                for s in ledger.symbols()
            ],
            "open_orders": [
                {
                    "order_id": o.place.order_id,
                    "symbol": o.place.symbol,
                    "side": o.place.side.name.lower(),
                    "price": None if o.place.price is None else str(o.place.price),
                    "quantity": str(o.place.quantity),
                    "filled": str(o.filled),
                    "state": o.state.value,
                    "agent": "+".join(agent for agent, _ in o.place.shares) or "safety",
                }
                for o in ledger.live_orders()
            ],
            "decisions": {agent: self.decisions[agent] for agent in ORDER},
            "wishes": engine.standing.numbers(market.now),
            "bound": self._bound,
            "learner": self._learned(),
            "orders": self.orders,
            "fills": self.fills,
            "order_states": dict(self.order_states),
            "unknown_orders": sum(o.state is OrderState.UNKNOWN for o in ledger.live_orders()),
            "fees": {currency: str(fee) for currency, fee in ledger.fees.items()},
            "pnl": self._profit(),
            "refused": dict(self.refused),
            "refused_data": dict(market.refused),
            "anomalies": dict(ledger.anomalies),
            "feed": {"stale": [s for s in engine.symbols if market.trouble(s)], "rebuilds": self.rebuilds()},
        }

    def _learned(self) -> dict[str, Any]:
        return {**self._learner(), "weights_swapped": self.weights_swapped, "version": self._engine.weights_version}

    def _profit(self) -> dict[str, Any]:
        equity = self._engine.equity()
        account = None if equity is None else equity - float(self._engine.ledger.capital)
        return {"account": account, "agents": self._engine.profits()}

    def summary(self, difference: Mapping[Currency, Decimal] | None) -> dict[str, Any]:
        """The closing account. `difference` is |ledger - venue| by currency, None when the venue could not be asked."""
        return {
            "session": self._name,
            "mode": self._labels["mode"],
            "exchange": self._labels["exchange"],
            "duration_s": round((self._door.now() - self._started) / NS, 3),
            "decisions": {agent: self.decisions[agent] for agent in ORDER},
            "orders": self.orders,
            "fills": self.fills,
            "fees": float(self._engine.fees_in_quote()),
            "fees_without_price": sorted(c for c, fee in self._engine.ledger.fees.items() if fee and not self._engine.priced(c)),
            "fees_by_currency": {currency: str(fee) for currency, fee in self._engine.ledger.fees.items()},
            "equity": self._engine.equity(),
            "drawdown": self._engine.risk.drawdown,
            "pnl": self._profit(),
            "ledger_difference": None if difference is None else float(sum(difference.values(), Decimal(0))),
            "ledger_differences": {c: str(d) for c, d in (difference or {}).items() if d},
            "open_orders": len(safety.loose_ends(self._engine.ledger, keep_stops=True)),
            "stops_kept": [o.place.order_id for o in self._engine.ledger.live_orders() if o.place.trigger_price is not None],
            "sellable": [s for s in self._engine.ledger.symbols() if safety.sellable(s, self._engine.market, self._engine.ledger, self._engine.config.limits)],
            "refused": dict(self.refused),
            "refused_data": dict(self._engine.market.refused),
            "anomalies": dict(self._engine.ledger.anomalies),
            "learner": self._learned(),
        }


def _described(describe: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """What a room says of itself, or why it cannot."""
    try:
        return dict(describe())
    except Exception as error:  # noqa: BLE001 - whatever it is, the status is asked for by what must not end: the service's beat, health, the view
        return {"error": f"{type(error).__name__}: {error}"}
