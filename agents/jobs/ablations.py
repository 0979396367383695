"""What can be switched off, by name: agents, priors, constraints, parts of the coordination, terms of the reward. Plain enumeration."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from agents.core.errors import ConfigError
from agents.desk.coordination.params import BAND, PRECISION, Budgets
from agents.desk.decision import EngineConfig
from agents.desk.rewards import NAMES
from agents.desk.wishes import LONG_TERM, MARKET_MAKING, ORDER, RISK, SHORT_TERM

AGENT, PRIOR, CONSTRAINT, COORDINATION, REWARD = "agent", "prior", "constraint", "coordination", "reward"
WITHOUT: dict[str, dict[str, Any]] = {
    "cash_buffer": {"cash_buffer": 0.0},
    "position_cap": {"position_cap": 1.0},
    "gross": {"gross": 1.0},
    "net": {"net": 1.0},
    "cost_in_objective": {"turnover_cost_bps": 0.0},
    "turnover_day": {"turnover_day": 1e6},
    "fees_day": {"fees_day": None},
    "cvar": {"cvar": None},
    "var": {"var": None},
    "cluster_cap": {"cluster_cap": None},
    "herfindahl": {"herfindahl": None},
    "top_cap": {"top_cap": None},
    "liquidity_depth": {"liquidity_depth": None},
    "liquidity_volume": {"liquidity_volume": None},
    "depth_share": {"depth_share": 1.0},
    "max_order_notional": {"max_order_notional": 1.0},
    "drawdown": dict.fromkeys(("drawdown_warn", "drawdown_stop", "drawdown_reduce", "drawdown_flatten"), 1.0),
}
"""Constraint -> the fields of Limits at which it holds nothing back. What is physical stays: no leverage, no short position."""
BOUND_AS = {"turnover_day": "turnover", "fees_day": "fees"}
"""Names under which the projection reports a constraint, where they differ."""


@dataclass(frozen=True, slots=True)
class Ablation:
    """One thing that can be switched off, and how."""

    name: str
    kind: str
    meaning: str
    """What stands in its place."""
    off: Callable[[EngineConfig], EngineConfig]
    agent: str | None = None
    """Whose voice or prior it is: without a word from it the ablation changes nothing."""
    learned: bool = False
    """Whether only retraining shows its effect: it is met while learning and never while trading."""


def ablations(config: EngineConfig) -> tuple[Ablation, ...]:
    """Everything that is switched on in `config`, in the order agents, priors, constraints, coordination, rewards."""
    return (*_agents(config), *_priors(config), *_constraints(config), *_coordination(config), *_rewards(config))


def chosen(config: EngineConfig, patterns: Sequence[str]) -> tuple[Ablation, ...]:
    """Those that a pattern names: a whole name, or its beginning up to a dot or followed by `*`. All without a pattern.

    Raises ConfigError, listing what there is, for a pattern that names nothing.
    """
    every = ablations(config)
    for pattern in patterns:
        if not any(_named(each.name, pattern) for each in every):
            why = "is not switched on here" if _known(pattern) else "is nothing that can be switched off"
            raise ConfigError(f"{pattern} {why}; there is {', '.join(each.name for each in every)}")
    return tuple(each for each in every if not patterns or any(_named(each.name, pattern) for pattern in patterns))


def _named(name: str, pattern: str) -> bool:
    begin = pattern.removesuffix("*").removesuffix(".")
    return name == begin or name.startswith(f"{begin}.") or (pattern.endswith("*") and name.startswith(begin))


def _known(pattern: str) -> bool:
    names = [f"agents.{a}" for a in ORDER] + [f"prior.{a}" for a in ORDER] + [f"risk.{c}" for c in WITHOUT] + [f"rewards.{t}" for t in NAMES]
    names += ["coordinator.strategy", "coordinator.band", "coordinator.budgets", "rewards.alias", "rewards.risk_aversion"]
    return any(_named(name, pattern) for name in names)


def _agents(config: EngineConfig) -> list[Ablation]:
    stands = {RISK: "both multipliers are 1", MARKET_MAKING: "nothing is quoted"}
    there = [agent for agent in ORDER if agent in config.agents]
    return [Ablation(f"agents.{a}", AGENT, stands.get(a, "it wishes for nothing"), partial(_without_agent, a), a) for a in there]


def _without_agent(agent: str, config: EngineConfig) -> EngineConfig:
    left = replace(config, agents=tuple(each for each in config.agents if each != agent))
    # Silence of the risk agent halves the book for safety: without the agent there is nothing to be safe from.
    return _coordinated({"silent_gross": 1.0, "silent_budget": 1.0}, left) if agent == RISK else left


def _priors(config: EngineConfig) -> list[Ablation]:
    stands = {
        LONG_TERM: "action 0 is no position", SHORT_TERM: "action 0 is no tilt", MARKET_MAKING: "action 0 quotes a fixed distance over costs",
        RISK: "action 0 halves the book",
    }  # fmt: skip
    there = [agent for agent in ORDER if agent in config.agents and agent not in config.without_prior and config.prior != "none"]
    return [Ablation(f"prior.{agent}", PRIOR, stands[agent], partial(_without_prior, agent), agent) for agent in there]


def _without_prior(agent: str, config: EngineConfig) -> EngineConfig:
    return replace(config, without_prior=(*config.without_prior, agent))


def _constraints(config: EngineConfig) -> list[Ablation]:
    found = []
    for name, free in WITHOUT.items():
        if any(getattr(config.limits, field) != value for field, value in free.items()):
            meaning = ", ".join(f"{field} {'none' if value is None else f'{value:g}'}" for field, value in free.items())
            found.append(Ablation(f"risk.{name}", CONSTRAINT, "the ladder never begins" if name == "drawdown" else meaning, partial(_freed, free)))
    return found


def _freed(fields: Mapping[str, Any], config: EngineConfig) -> EngineConfig:
    return replace(config, limits=replace(config.limits, **fields))


def _coordination(config: EngineConfig) -> list[Ablation]:
    params, found = config.coordinator, []
    if params.strategy == BAND and params.band < 1.0:
        wide = partial(_coordinated, {"band": 1.0})
        found.append(Ablation("coordinator.band", COORDINATION, "the band is as wide as the long-term weight", wide, SHORT_TERM))
    if params.strategy != PRECISION:
        plain = partial(_coordinated, {"strategy": PRECISION})
        found.append(Ablation("coordinator.strategy", COORDINATION, "the precision-weighted blend", plain))
    if params.budgets.bounded():
        found.append(Ablation("coordinator.budgets", COORDINATION, "no agent has a budget", partial(_coordinated, {"budgets": Budgets()})))
    return found


def _coordinated(changes: Mapping[str, Any], config: EngineConfig) -> EngineConfig:
    return replace(config, coordinator=replace(config.coordinator, **changes))


def _rewards(config: EngineConfig) -> list[Ablation]:
    """Of the long-term agent, the one that is retrained; its last term cannot go, for then nothing would be learned."""
    rewards, found = config.rewards, []
    if LONG_TERM not in config.agents:
        return []
    terms = {term: weight for term, weight in rewards.terms.of(LONG_TERM).items() if weight}
    for term in terms if len(terms) > 1 else ():
        left = {name: weight for name, weight in terms.items() if name != term}
        paid = partial(_rewarded, {"terms": replace(rewards.terms, long_term=left)})
        found.append(Ablation(f"rewards.{term}", REWARD, f"paid for {', '.join(left)}", paid, LONG_TERM, learned=True))
    for name, meaning in (("alias", "a wish that was cut costs nothing"), ("risk_aversion", "utility is profit alone")):
        if getattr(rewards, name):
            found.append(Ablation(f"rewards.{name}", REWARD, meaning, partial(_rewarded, {name: 0.0}), LONG_TERM, learned=True))
    return found


def _rewarded(changes: Mapping[str, Any], config: EngineConfig) -> EngineConfig:
    return replace(config, rewards=replace(config.rewards, **changes))
