"""How wishes are joined, as plain numbers: part of the engine's configuration, and so of every record."""

from dataclasses import dataclass, field, fields
from math import isfinite

from agents.core.errors import ConfigError
from agents.desk.wishes import LONG_TERM, MARKET_MAKING, SHORT_TERM

PRECISION, CONFIDENCE, BAND, GATING = "precision", "confidence", "band", "gating"
STRATEGIES = (PRECISION, CONFIDENCE, BAND, GATING)
BUDGETED = (LONG_TERM, SHORT_TERM, MARKET_MAKING)
"""Agents that trade; the risk agent owns nothing."""


@dataclass(frozen=True, slots=True)
class AgentBudget:
    """What one agent may spend in a market day, in fractions of equity; None sets no bound. Sells are exempt from being cut."""

    turnover: float | None = None
    """Value of what is bought for it."""
    fees: float | None = None
    """Fees of all its fills; the next buy must fit into what is left of them at the taker's rate."""


@dataclass(frozen=True, slots=True)
class Budgets:
    """One budget an agent. Raises ConfigError, naming agent and field, for a number that is no bound."""

    long_term: AgentBudget = AgentBudget()
    short_term: AgentBudget = AgentBudget()
    market_making: AgentBudget = AgentBudget()

    def __post_init__(self) -> None:
        for agent in BUDGETED:
            budget: AgentBudget = getattr(self, agent)
            for name in ("turnover", "fees"):
                value = getattr(budget, name)
                if value is not None and not (isfinite(value) and value >= 0):
                    raise ConfigError(f"coordinator.budgets.{agent}.{name} is {value}: set a finite number that is at least 0, or none")

    def bounded(self) -> dict[str, AgentBudget]:
        """The agents that have any bound."""
        budgets = {agent: getattr(self, agent) for agent in BUDGETED}
        return {agent: budget for agent, budget in budgets.items() if budget != AgentBudget()}


@dataclass(frozen=True, slots=True)
class CoordinatorParams:
    """How wishes are joined. Raises ConfigError for what cannot be."""

    long_only: bool = True
    """Spot: the joint directional weight is never below zero."""
    inventory_limit: float = 0.05
    """Most inventory in fractions of equity that the market maker may keep; times the gross multiplier."""
    silent_gross: float = 0.5
    """Gross multiplier while no risk wish stands: silence is no licence."""
    silent_budget: float = 0.5
    strategy: str = PRECISION
    """precision, confidence, band or gating."""
    period_s: float = 3600.0
    """Market seconds over which an agent's realised value is one observation, where a strategy looks at it."""
    memory_days: float = 30.0
    """Such observations are forgotten exponentially, and count as if they reached so far back."""
    trust: float = 4.0
    """confidence: a precision is multiplied by at most this, and divided by at most this; an action has the same range."""
    sharpe_scale: float = 2.0
    """confidence: annual Sharpe ratio that agents are expected to differ by; the smaller, the longer is doubted."""
    band: float = 0.25
    """band: half-width of the short-term agent's band as a share of the long-term weight."""
    gate_floor: float = 0.1
    """gating: part of the gate that is spread evenly, so that who fell out of favour can still show what it is worth."""
    budgets: Budgets = field(default_factory=Budgets)

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise ConfigError(f"coordinator.strategy is {self.strategy!r}: use one of {', '.join(STRATEGIES)}")
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, float) and not (isfinite(value) and value >= 0):
                raise ConfigError(f"coordinator.{each.name} is {value}: set a finite number that is at least 0")
        for name in ("silent_gross", "silent_budget", "inventory_limit", "band", "gate_floor"):
            if getattr(self, name) > 1:
                raise ConfigError(f"coordinator.{name} is {getattr(self, name)}: it is a fraction, set at most 1")
        for name in ("period_s", "memory_days", "sharpe_scale"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"coordinator.{name} is {getattr(self, name)}: set it above 0")
        if self.trust < 1:
            raise ConfigError(f"coordinator.trust is {self.trust}: 1 trusts all alike, set at least 1")
        if self.memory_days * 86_400 < 2 * self.period_s:
            raise ConfigError(f"coordinator.memory_days {self.memory_days:g} is less than two coordinator.period_s ({self.period_s:g}): raise it")

    @property
    def memory(self) -> float:
        """Observations that count, at least 2."""
        return self.memory_days * 86_400 / self.period_s


DEFAULT = CoordinatorParams()
"""The precision-weighted blend on a spot account, no budgets."""
