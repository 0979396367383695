"""A decision and its record: enough to explain every order. And what decisions depend on besides the facts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from agents.core.events import Stamp
from agents.core.instruments import Symbol
from agents.core.orders import Command
from agents.desk.coordination.params import DEFAULT, CoordinatorParams
from agents.desk.gate import Refusal
from agents.desk.limits import Limits
from agents.desk.projection import Bound, SafeTarget
from agents.desk.rewards import RewardParams
from agents.desk.wishes import LONG_TERM, MARKET_MAKING, ORDER, RISK, SHORT_TERM, Target, Wish
from agents.market.observation import Experience, Observation

_AGENT_OF = {"LongTermWish": LONG_TERM, "ShortTermWish": SHORT_TERM, "MarketMakingWish": MARKET_MAKING, "RiskWish": RISK}


def _agent(wish: Wish) -> str:
    return _AGENT_OF[type(wish).__name__]


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Everything that the engine's decisions depend on besides the facts; recorded with each session."""

    instance: str
    epoch: int
    quote: str
    symbols: tuple[str, ...]
    agents: tuple[str, ...] = ORDER
    limits: Limits = field(default_factory=Limits)
    prior: str = "analytic"
    """analytic, or none for all agents."""
    without_prior: tuple[str, ...] = ()
    """Agents whose action 0 means nothing, while the others keep their priors: for finding out what a prior is worth."""
    hidden_sizes: tuple[int, ...] = (256, 256)
    exploration: float = 0.0
    """Noise on the actions as a fraction of the policy's own spread; 0 serves the mean action."""
    rewards: RewardParams = field(default_factory=RewardParams)
    seed: int = 0
    market_making_cadence_s: float = 5.0
    requote_after_s: float = 0.5
    """Least stamp time between two plans without a new wish."""
    stale_after_s: float = 10.0
    candles_only: bool = False
    """Whether the market has no books: then a closed candle is news, else it is history."""
    keep_stops: bool = True
    """Whether protective stops stay on the exchange, and follow their levels, while halted; a session that ends so leaves them there."""
    stop_limit_orders: bool = False
    """Whether protective stops are stop-limit orders: for exchanges that know no stop-market order."""
    coordinator: CoordinatorParams = DEFAULT
    """How the four wishes are joined, and what each agent may spend in a day."""


@dataclass(slots=True)
class Sitting:
    """One decision while it is being made: what was known when it began, and what was seen and said so far."""

    stamp: Stamp
    due: tuple[str, ...]
    swapped: bool
    symbols: tuple[Symbol, ...]
    marks: dict[Symbol, Decimal]
    equity: Decimal
    today: tuple[float, float, float]
    """Turnover, buys and fees in quote since the market day began."""
    inventory: dict[Symbol, float]
    """The market maker's own, in fractions of equity."""
    faults: frozenset[Symbol]
    failed: int
    """Failed turns of agents before it began."""
    observations: dict[str, Observation] = field(default_factory=dict)
    wishes: list[Wish] = field(default_factory=list)
    experiences: list[Experience] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Decision:
    """Why the engine asked for what it asked: enough to explain every order. `safe` is None on the kill path, which needs none."""

    number: int
    stamp: Stamp
    time: int
    agents: tuple[str, ...]
    commands: tuple[Command, ...]
    refusals: tuple[Refusal, ...] = ()
    observations: Mapping[str, str] = field(default_factory=dict)
    weights: tuple[int, str] = (0, "")
    wishes: tuple[Wish, ...] = ()
    target: Target | None = None
    safe: SafeTarget | None = None
    equity: float | None = None
    drawdown: float = 0.0
    cuts: tuple[Bound, ...] = ()
    """Agents' own budgets that held them back before the projection."""
    trusted: Mapping[str, float] = field(default_factory=dict)
    """What the coordinator has made of each agent's say; empty where it learns nothing."""

    @property
    def bound(self) -> tuple[Bound, ...]:
        """The limits that held the wish back, with their prices: budgets of agents, named after them, then what the projection kept."""
        return (*self.cuts, *self.safe.bound) if self.safe is not None else self.cuts

    def record(self) -> dict[str, Any]:
        """Plain JSON values; floats unrounded, so that two records are equal only if the decisions were."""
        limited: dict[str, Any] = {"solver": "kill_path"}
        if self.target is not None and self.safe is not None:
            limited = {
                "target": dict(self.target.weights),
                "safe": dict(self.safe.weights),
                "solver": self.safe.solver,
                "rung": self.safe.rung,
                "reasons": dict(self.safe.reasons),
                "bound": [{"name": b.name, "symbol": b.symbol, "price": b.price} for b in self.bound],
                "risk": dict(self.safe.risk),
            }
        return {
            "time": self.time,
            "agents": list(self.agents),
            "observations": dict(self.observations),
            "weights": {"version": self.weights[0], "digest": self.weights[1]},
            "wishes": [{"agent": _agent(w), "symbol": w.symbol, "action": list(w.action), **w.numbers()} for w in self.wishes],
            **limited,
            **({"trusted": dict(self.trusted)} if self.trusted else {}),
            "refusals": [{"symbol": r.symbol, "side": r.side.name.lower(), "reason": r.reason, "detail": r.detail} for r in self.refusals],
            "orders": [c.order_id for c in self.commands],
            "equity": self.equity,
            "drawdown": self.drawdown,
        }


@dataclass(frozen=True, slots=True)
class Effects:
    """What one fact led to."""

    commands: tuple[Command, ...] = ()
    experiences: tuple[Experience, ...] = ()
    decision: Decision | None = None
    swapped: bool = False


NOTHING = Effects()
