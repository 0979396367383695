"""How long a decision takes: the four actors' joint forward pass against four stable-baselines3 predictions."""

import argparse
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np

from agents.serving.actors import Actors
from benchmarks.report import Row, alternate, main

SIZES = {"long_term": (100, 4), "market_making": (120, 6), "risk": (60, 2), "short_term": (80, 4)}


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    """Joint decision of the four agents, observation given, batch of one each."""
    yield joint_vs_sb3(arguments.rounds)


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
    main("decision_latency", measure, ("numpy", "torch", "stable-baselines3"), rounds=8)
