"""What rewards are made of: the terms by name, their weights for each agent, and the numbers in the formulas."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite

from agents.core.errors import ConfigError
from agents.core.instruments import NS
from agents.desk.wishes import LONG_TERM, MARKET_MAKING, ORDER, RISK, SHORT_TERM

CADENCES_NS = {LONG_TERM: 3600 * NS, SHORT_TERM: 60 * NS, MARKET_MAKING: 5 * NS, RISK: 60 * NS}
SECONDS_PER_YEAR = 365.0 * 86_400.0

UTILITY, SPREAD_CAPTURE, EXPLORATION = "utility", "spread_capture", "exploration"
DIFFERENTIAL_SHARPE, SORTINO, CVAR, DRAWDOWN, COSTS, HYBRID = "differential_sharpe", "sortino", "cvar", "drawdown", "costs", "hybrid"
MOMENT_TERMS = (DIFFERENTIAL_SHARPE, SORTINO)
"""Terms that need two running moments of the agent's own return in its state; the state has room for one pair."""

_DIRECTIONAL = (UTILITY, DIFFERENTIAL_SHARPE, SORTINO, CVAR, DRAWDOWN, COSTS, HYBRID)
TERMS: dict[str, tuple[str, ...]] = {
    LONG_TERM: _DIRECTIONAL,
    SHORT_TERM: _DIRECTIONAL,
    MARKET_MAKING: (SPREAD_CAPTURE, CVAR, DRAWDOWN, COSTS),
    RISK: (UTILITY, CVAR, DRAWDOWN),
}
"""By agent the terms that mean something for it. The risk agent's are differences: with its multiplier less without."""
NAMES = tuple(dict.fromkeys((*_DIRECTIONAL, SPREAD_CAPTURE, EXPLORATION)))
"""Every term; `exploration` is for simulation only and belongs to an environment, never to an agent that trades."""


def check_terms(terms: Mapping[str, float], known: tuple[str, ...] = NAMES, owner: str = "rewards") -> None:
    """Raises ConfigError for a name that is not `known`, a weight that is negative or not finite, two moment terms, or no term."""
    for name, weight in terms.items():
        if name not in known:
            why = "is for simulation only: give it to an environment" if name == EXPLORATION else "is no reward term here"
            raise ConfigError(f"{owner}: {name!r} {why}; the terms are {', '.join(known)}")
        if not isfinite(weight) or weight < 0.0:
            raise ConfigError(f"{owner}: the weight of {name} is {weight}; give a finite number that is not negative")
    if not terms:
        raise ConfigError(f"{owner}: there is no reward term; give at least one of {', '.join(known)}")
    if all(name in terms for name in MOMENT_TERMS):
        raise ConfigError(f"{owner}: {' and '.join(MOMENT_TERMS)} need the same two columns of the state; keep one of them")


@dataclass(frozen=True, slots=True)
class RewardTerms:
    """By agent: term -> weight. What stands here is summed; the defaults are the project's own."""

    long_term: Mapping[str, float] = field(default_factory=lambda: {UTILITY: 1.0})
    short_term: Mapping[str, float] = field(default_factory=lambda: {UTILITY: 1.0})
    market_making: Mapping[str, float] = field(default_factory=lambda: {SPREAD_CAPTURE: 1.0})
    risk: Mapping[str, float] = field(default_factory=lambda: {UTILITY: 1.0})

    def __post_init__(self) -> None:
        for agent in ORDER:
            check_terms(self.of(agent), TERMS[agent], f"rewards.{agent}")

    def of(self, agent: str) -> Mapping[str, float]:
        """Term -> weight of one agent."""
        terms: Mapping[str, float] = getattr(self, agent)
        return terms


@dataclass(frozen=True, slots=True)
class RewardParams:
    """Weights of the terms; per year where a time unit is needed."""

    volatility_target: float = 0.20
    """sigma_target, annualised: the unit in which rewards are counted."""
    risk_aversion: float = 5.0
    """lambda of the utility: at 20 % volatility the best book has a Sharpe ratio of lambda sigma = 1."""
    inventory_aversion: float = 1e4
    """The market maker's gamma, the same that its GLFT prior assumes."""
    alias: float = 1.0
    """lambda of `||w_executed - w_wished||^2`: a wish that the limits cut shall not look like one that they did not."""
    worst_drawdown: float = 0.20
    """Drawdown at which the risk agent's aversion would be infinite (held at ten times lambda)."""
    reward_scale: float = 5.0
    clip: float = 10.0
    """Bound on a reward in units of its running scale."""
    gamma: float = 0.99
    """Discount per nominal cadence, for the return scale only."""
    elapsed_cap: float = 20.0
    """A row that took more cadences than this saw an outage, not a consequence: it is dropped."""
    terms: RewardTerms = field(default_factory=RewardTerms)
    moment_memory: float = 100.0
    """Decisions over which the differential ratios' moments and the value at risk are averaged: 1 / eta (Moody & Saffell: .01)."""
    deviation_floor: float = 0.1
    """Least deviation of the differential ratios, in units of sigma_target sqrt(dt): an idle account is not a precise one."""
    return_clip: float = 10.0
    """Largest portfolio return that the differential ratios believe, in the same units."""
    cvar_level: float = 0.95
    prediction_bonus: float = 0.1
    """alpha of the hybrid reward: what a right and certain prediction is worth, in units of sigma_target sqrt(dt)."""
    drawdown_penalty: float = 1.0
    """Aversion to a fall below the peak, at the peak; it grows as `worst_drawdown` is used up."""

    def __post_init__(self) -> None:
        for name in ("volatility_target", "worst_drawdown", "clip", "elapsed_cap", "deviation_floor", "return_clip"):
            if not 0.0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"rewards.{name} is {getattr(self, name)}; give a positive number")
        for name in ("risk_aversion", "inventory_aversion", "alias", "prediction_bonus", "drawdown_penalty"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"rewards.{name} is {getattr(self, name)}; give a finite number that is not negative")
        if not 0.0 < self.reward_scale < float("inf") or not 0.0 <= self.gamma <= 1.0:
            raise ConfigError(f"rewards.reward_scale is {self.reward_scale} and gamma {self.gamma}; the first is positive, the second in [0, 1]")
        if not self.moment_memory > 1.0:
            raise ConfigError(f"rewards.moment_memory is {self.moment_memory}; it is a number of decisions above 1")
        if not 0.0 < self.cvar_level < 1.0:
            raise ConfigError(f"rewards.cvar_level is {self.cvar_level}; it lies between 0 and 1, such as 0.95")


STANDARD = RewardParams()
"""The project's own rewards."""
