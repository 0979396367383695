"""Settings to the plain values that rooms take. Knows no mode."""

import sys
from decimal import Decimal
from typing import Any

from agents.core.instruments import Symbol
from agents.desk.coordinator import AgentBudget, Budgets, CoordinatorParams
from agents.desk.decision import EngineConfig
from agents.desk.limits import Limits
from agents.desk.rewards import RewardParams, RewardTerms
from agents.market.frictions import (
    BackQueue,
    CandleBook,
    FixedLatency,
    Frictions,
    FrontQueue,
    MakerTakerFee,
    NoImpact,
    ProRataQueue,
    Queue,
    SquareRootImpact,
)
from agents.market.observation import ACTION_SIZES, SPEC_HASH, SPECS, STATE_SIZES
from daemon.learner import LearnerOptions
from daemon.learner_data import require_offline
from daemon.settings import Settings


def engine_config(settings: Settings, symbols: tuple[Symbol, ...], epoch: int, exploration: float) -> EngineConfig:
    """All that the engine's decisions depend on besides the facts."""
    learning, agents = settings.reinforcement_learning, settings.agents
    return EngineConfig(
        instance=settings.instance, epoch=epoch, quote=settings.capital.quote, symbols=symbols, agents=agents.enabled,
        limits=limits_of(settings), prior=agents.prior, hidden_sizes=learning.hidden_sizes,
        exploration=exploration,
        rewards=reward_params(settings), seed=learning.seed, market_making_cadence_s=agents.market_making_s,
        requote_after_s=agents.requote_ms / 1000, stale_after_s=settings.feed.stale_after_s, coordinator=_coordinator(settings),
    )  # fmt: skip


def limits_of(settings: Settings) -> Limits:
    """The hard limits."""
    risk = settings.risk
    return Limits(
        cash_buffer=risk.cash_buffer, position_cap=risk.position_cap, gross=risk.gross, net=risk.net,
        turnover_cost_bps=risk.turnover_cost_bps, price_collar=risk.price_collar, max_order_count=risk.max_open_orders,
        max_orders_per_second=risk.max_orders_per_second, drawdown_warn=risk.drawdown_warn, drawdown_stop=risk.drawdown_stop,
        drawdown_reduce=risk.drawdown_reduce, drawdown_flatten=risk.drawdown_flatten, turnover_day=risk.turnover_day, fees_day=risk.fees_day,
        cvar=risk.cvar, cvar_level=risk.cvar_level, scenarios=risk.scenarios, var=risk.var, var_level=risk.var_level,
        var_quantile=risk.var_quantile, cluster_cap=risk.cluster_cap, cluster_correlation=risk.cluster_correlation,
        herfindahl=risk.herfindahl, top_count=risk.top_count, top_cap=risk.top_cap, liquidity_depth=risk.liquidity_depth,
        liquidity_volume=risk.liquidity_volume,
    )  # fmt: skip


def _coordinator(settings: Settings) -> CoordinatorParams:
    chosen, given = settings.coordinator, settings.coordinator.budgets
    budgets = Budgets(*(AgentBudget(budget.turnover, budget.fees) for budget in (given.long_term, given.short_term, given.market_making)))
    return CoordinatorParams(
        inventory_limit=chosen.inventory_limit, silent_gross=chosen.silent_gross, silent_budget=chosen.silent_budget,
        strategy=chosen.strategy, period_s=chosen.period_s, memory_days=chosen.memory_days, trust=chosen.trust,
        sharpe_scale=chosen.sharpe_scale, band=chosen.band, gate_floor=chosen.gate_floor, budgets=budgets,
    )  # fmt: skip


def reward_params(settings: Settings) -> RewardParams:
    """What the agents are paid for."""
    rewards = settings.rewards
    terms = RewardTerms(rewards.long_term, rewards.short_term, rewards.market_making, rewards.risk)
    return RewardParams(
        volatility_target=rewards.volatility_target, risk_aversion=rewards.risk_aversion, alias=rewards.alias,
        worst_drawdown=rewards.worst_drawdown, reward_scale=settings.reinforcement_learning.reward_scale, clip=rewards.clip, terms=terms,
        moment_memory=rewards.moment_memory, cvar_level=rewards.cvar_level, prediction_bonus=rewards.prediction_bonus,
        drawdown_penalty=rewards.drawdown_penalty,
    )  # fmt: skip


def frictions(settings: Settings) -> Frictions:
    """What simulated orders meet on their way."""
    paper = settings.paper
    fees = [None if bps is None else Decimal(repr(bps)) / 10_000 for bps in (paper.maker_fee_bps, paper.taker_fee_bps)]
    latency = FixedLatency(int(paper.latency_ms * 1e6), int(paper.latency_ms * 1e6))
    queues: dict[str, Queue] = {"pro_rata": ProRataQueue(), "front": FrontQueue(), "back": BackQueue()}
    impact = SquareRootImpact() if paper.impact == "square_root" else NoImpact()
    return Frictions(MakerTakerFee(*fees), latency, queues[paper.queue], impact, "quote", CandleBook())


def learner_options(settings: Settings, config: EngineConfig) -> LearnerOptions:
    """What the learner process is told. Raises ConfigError for offline data that cannot be used."""
    learning = settings.reinforcement_learning
    specs = tuple((agent, STATE_SIZES[agent], ACTION_SIZES[agent], SPECS[agent].hash) for agent in config.agents)
    require_offline(learning.offline_data, specs)
    return LearnerOptions(
        settings.state_dir / "learner", specs, SPEC_HASH, learning_rate=learning.learning_rate, batch_size=learning.batch_size,
        replay_buffer_size=learning.replay_buffer_size, gamma=learning.gamma, tau=learning.tau, alpha=learning.alpha,
        automatic_entropy_tuning=learning.automatic_entropy_tuning, hidden_sizes=learning.hidden_sizes,
        update_to_data=learning.update_to_data, min_rows=learning.min_rows, publish_every_s=learning.publish_every_s,
        seed=learning.seed, device=learning.device, offline_data=tuple(str(path.absolute()) for path in learning.offline_data),
        options=learning.options.model_dump(), **_elsewhere(settings),
    )  # fmt: skip


def _elsewhere(settings: Settings) -> dict[str, Any]:
    """How to reach a learner on another machine; nothing where it learns here."""
    redis = settings.redis
    if settings.reinforcement_learning.where == "here" or redis.url is None:
        return {}
    more = [("--username", redis.username), ("--ca-file", None if redis.ca_file is None else str(redis.ca_file))]
    words = [word for name, value in more if value is not None for word in (name, value)]
    command = (sys.executable, "-m", "daemon.learner_bridge", "--url", redis.url, "--instance", settings.instance, *words)
    secret = {} if redis.password is None else {"QUARTET__REDIS__PASSWORD": redis.password.get_secret_value()}
    return {"command": command, "environment": secret}
