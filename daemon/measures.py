"""How fast and how freely a session works: latencies as histograms, lag of its loop, exposure by agent, what bound. Read off, never decided by."""

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from agents.core.events import Event, NewWeights, OrderUpdate
from agents.core.instruments import NS
from agents.core.orders import OrderId, OrderState, Place
from agents.desk.decision import Effects
from agents.desk.wishes import ORDER
from agents.engine import Engine

BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds; from a decision on an idle machine to an exchange that hangs."""
LOOK_S = 0.25
MOST_WAITING = 4096
"""Orders whose acknowledgement is waited for; those beyond are not measured."""


class Histogram:
    """Counts by upper bound, in seconds."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS_S) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        """Take one duration."""
        self._counts[bisect_left(BUCKETS_S, seconds)] += 1
        self._sum += seconds

    def describe(self) -> dict[str, Any]:
        """Cumulative counts by bound, as Prometheus has them."""
        total, buckets = 0, []
        for bound, count in zip((*BUCKETS_S, float("inf")), self._counts, strict=True):
            total += count
            buckets.append(["+Inf" if bound == float("inf") else repr(bound), total])
        return {"buckets": buckets, "sum": self._sum}


class Measures:
    """One session's. `now` gives stamps in nanoseconds."""

    def __init__(self, engine: Engine, now: Callable[[], int]) -> None:
        self._engine, self._now = engine, now
        self.decision, self.acknowledgement, self.lag = Histogram(), Histogram(), Histogram()
        self.bindings: Counter[str] = Counter()
        self._risk: dict[str, float] = {}
        """What the risk layer measured of the last target."""
        self._sent: dict[OrderId, int] = {}
        self._swapped_at: int | None = None

    def tell(self, event: Event, effects: Effects) -> None:
        """Take note of one fact, once what followed from it has left."""
        match event:
            case OrderUpdate(state=state) if state is not OrderState.PENDING and (sent := self._sent.pop(event.order_id, None)) is not None:
                self.acknowledgement.add((event.stamp.at - sent) / NS)
            case NewWeights() if effects.swapped:
                self._swapped_at = event.stamp.at
            case _:
                pass
        if effects.decision is None:
            return
        self.decision.add((self._now() - event.stamp.at) / NS)
        self.bindings.update(bound.name for bound in effects.decision.bound)
        if effects.decision.safe is not None:
            self._risk = effects.decision.safe.risk
        for command in effects.commands:
            if isinstance(command, Place) and len(self._sent) < MOST_WAITING:
                self._sent[command.order_id] = event.stamp.at

    async def watch_loop(self) -> None:
        """How late the loop comes back to a task that slept."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LOOK_S
            await asyncio.sleep(LOOK_S)
            self.lag.add(max(loop.time() - due, 0.0))

    def describe(self) -> dict[str, Any]:
        """Plain JSON values; ages in seconds, weights in fractions of equity."""
        engine, now = self._engine, self._now()
        live = engine.ledger.live_orders()
        unknown = [order.created for order in live if order.state is OrderState.UNKNOWN]
        return {
            "decision_latency": self.decision.describe(),
            "acknowledgement": self.acknowledgement.describe(),
            "loop_lag": self.lag.describe(),
            "live_orders": dict(Counter(order.state.value for order in live)),
            "oldest_unknown_s": (now - min(unknown)) / NS if unknown else 0.0,
            "bindings": dict(self.bindings),
            "risk": dict(self._risk),
            "policy_age_s": None if self._swapped_at is None else (now - self._swapped_at) / NS,
            "exposure": self._exposure(),
        }

    def _exposure(self) -> list[dict[str, Any]]:
        engine, equity = self._engine, self._engine.equity()
        if not equity:
            return []
        marks = {symbol: mark for symbol in engine.symbols if (mark := engine.market.mark(symbol)) is not None}
        return [
            {"agent": agent, "symbol": symbol, "weight": float(quantity * mark / Decimal(repr(equity)))}
            for symbol, mark in marks.items()
            for agent in ORDER
            if (quantity := engine.attribution.position(agent, symbol))
        ]
