"""How long a decision takes: the four actors' joint forward pass against four stable-baselines3 predictions."""

import argparse
import itertools
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import gymnasium
import numpy as np

from agents.core.events import Event
from agents.core.instruments import NS, Symbol
from agents.desk.decision import Effects, EngineConfig
from agents.jobs.backtest import Backtest
from agents.market.frictions import FixedLatency, Frictions
from agents.market.synthetic import SyntheticMarket
from agents.serving.actors import Actors
from benchmarks.report import Row, alternate, main

SIZES = {"long_term": (100, 4), "market_making": (120, 6), "risk": (60, 2), "short_term": (80, 4)}
START = 1_700_000_000 * NS


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    """Joint decision of the four agents, observation given, batch of one each."""
    yield joint_vs_sb3(arguments.rounds)
    yield from observe_to_plan(arguments.seconds)


def joint_vs_sb3(rounds: int) -> Row:
    """Median and p99 of `Actors.act_joint` and of four `predict` calls, alternating; networks of 256-256 in both."""
    rng = np.random.default_rng(0)
    states = {agent: rng.standard_normal((1, size), np.float32) for agent, (size, _) in SIZES.items()}
    actors = _actors()
    models = {agent: _sb3(*size) for agent, size in SIZES.items()}

    def peer() -> None:
        for agent, model in models.items():
            model.predict(states[agent][0], deterministic=True)

    ours, theirs = alternate([lambda: actors.act_joint(states), peer], rounds, 500)
    middle, other = float(np.median(ours)), float(np.median(theirs))
    return Row("joint vs sb3", middle, "us", other, "stable-baselines3", other / middle, float(np.quantile(ours, 0.99)))


def observe_to_plan(seconds: float) -> Iterator[Row]:
    """The engine's own decisions over ten symbols of the synthetic market: observe, propose, coordinate, project, plan."""
    names = [Symbol(f"{base}/USDT") for base in ("BTC", "ETH", "SOL", "XRP", "BNB", "ADA", "DOGE", "LINK", "AVAX", "LTC")]
    market = SyntheticMarket(names, 5, START, history_days=2)
    config = EngineConfig("bench", 1, "USDT", tuple(names))
    run = Backtest(config, list(market.instruments.values()), Decimal(10_000), Frictions(latency=FixedLatency(50_000_000)))
    taken: dict[str, list[int]] = {"market maker only": [], "two agents or more": []}
    step = run.engine.step

    def timed(event: Event) -> Effects:
        start = time.perf_counter_ns()
        effects = step(event)
        spent = time.perf_counter_ns() - start
        if effects.decision is not None and effects.decision.agents:
            taken["two agents or more" if len(effects.decision.agents) > 1 else "market maker only"].append(spent)
        return effects

    run.engine.step = timed  # type: ignore[method-assign]
    facts = itertools.chain.from_iterable(market.step(START + at * NS // 2) for at in range(1, int(seconds * 2) + 1))
    run.run(facts)
    for case, durations in taken.items():
        values = np.asarray(durations) / 1e3
        yield Row(f"observe to plan, 10 symbols, {case}", float(np.median(values)), "us", p99=float(np.quantile(values, 0.99)))


def _actors() -> Actors:
    """Actors with random weights, through the same bytes that the learner publishes."""
    from agents.learning.learner import AgentSpec, Learner

    learner = Learner([AgentSpec(name, *size) for name, size in SIZES.items()])
    return Actors.from_payload(learner.payload(), learner.spec)


def _sb3(state: int, action: int) -> Any:
    try:
        import stable_baselines3  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise SystemExit("stable-baselines3 is not installed: make bench-setup installs the peers") from None
    import torch

    torch.set_num_threads(1)

    class Nothing(gymnasium.Env[np.ndarray, np.ndarray]):
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (state,), np.float32)
        action_space = gymnasium.spaces.Box(-1, 1, (action,), np.float32)

    return stable_baselines3.SAC("MlpPolicy", Nothing(), buffer_size=10, policy_kwargs={"net_arch": [256, 256]}, device="cpu")


if __name__ == "__main__":
    main("decision_latency", measure, ("numpy", "torch", "stable-baselines3"), rounds=8, seconds=1800.0)
