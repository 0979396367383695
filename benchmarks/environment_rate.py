"""Whole environment steps a second on ten assets, from action to observation, reward and end, beside FinRL on the same candles."""

import argparse
import importlib.metadata
import importlib.util
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from types import ModuleType
from typing import Any

import numpy as np

from agents.desk.limits import Limits
from agents.environment.presets import FREE_HAND
from agents.environment.trading import TradingEnvironment
from agents.environment.vector import VectorTradingEnvironment
from agents.market.history import CandleHistory, hour_features
from agents.market.synthetic_candles import random_walk_history
from benchmarks.report import Row, main

ASSETS, INDICATORS, EPISODE, PER_ROUND = 10, 8, 720, 20
UNSTOPPED = replace(FREE_HAND, drawdown_stop=0.97, drawdown_reduce=0.98, drawdown_flatten=0.99)
PEER = "finrl StockTradingEnv"
FINRL_FILE = "finrl/meta/env_stock_trading/env_stocktrading.py"


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    """Environment steps a second on one core; one step of the vectorised one is one bar of one of its copies."""
    history = random_walk_history(ASSETS, arguments.bars, seed=0)
    features = hour_features(history)
    peer = _finrl(history, features)
    calls = {"event": _event(history, UNSTOPPED), "event, ladder as shipped": _event(history, FREE_HAND), "vector": _vector(history, features, arguments.copies)}
    if peer is None:
        print(f"  {PEER} is not installed: see benchmarks/requirements.txt", flush=True)
    else:
        calls[PEER] = peer
    taken = _rates(calls, arguments.rounds, {"vector": arguments.copies})
    for case in ("event", "event, ladder as shipped", "vector"):
        if peer is not None:
            yield Row(f"{case} vs finrl", taken[case], "steps/s", taken[PEER], PEER, taken[case] / taken[PEER])
        else:
            yield Row(f"{case} vs finrl", taken[case], "steps/s")
    yield from _scaling(arguments)


def _scaling(arguments: argparse.Namespace) -> Iterator[Row]:
    """The same step with more copies, bars and assets: rates fall no faster than what is computed grows."""
    calls: dict[str, Callable[[], object]] = {}
    sizes: dict[str, int] = {}
    for assets, bars, copies in ((10, 4_000, 256), (10, 4_000, 1_024), (10, 4_000, 4_096), (10, 40_000, 1_024), (5, 4_000, 1_024), (20, 4_000, 1_024), (40, 4_000, 1_024)):
        history = random_walk_history(assets, bars, seed=0)
        name = f"vector, {copies} copies, {bars} bars, {assets} assets"
        calls[name], sizes[name] = _vector(history, hour_features(history), copies), copies
    for form in ("weights", "long_term"):
        history = random_walk_history(ASSETS, 4_000, seed=0)
        name = f"vector, {form}"
        calls[name], sizes[name] = _vector(history, hour_features(history), 1_024, form), 1_024
    for name, rate in _rates(calls, max(arguments.rounds // 4, 3), sizes).items():
        yield Row(name, rate, "steps/s")


def _rates(calls: dict[str, Callable[[], object]], rounds: int, sizes: dict[str, int]) -> dict[str, float]:
    """Steps a second of processor time of each call, in turns: the median over rounds of the mean within one, so that resets count.

    Every call is single-threaded and waits for nothing; processor time leaves out what else the machine was doing.
    """
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            start = time.thread_time_ns()
            for _ in range(PER_ROUND):
                call()
            if number:  # the first round warms up
                taken[name].append((time.thread_time_ns() - start) / PER_ROUND)
    return {name: float(sizes.get(name, 1) * 1e9 / np.median(each)) for name, each in taken.items()}


def _vector(history: CandleHistory, features: np.ndarray, copies: int, form: str = "exposure") -> Callable[[], object]:
    environment = VectorTradingEnvironment(history, copies, form=form, seed=0, episode_bars=EPISODE, features=features)
    environment.reset()
    environment.action_space.seed(0)
    actions = [environment.action_space.sample() for _ in range(16)]
    count = iter(range(1 << 62))
    return lambda: environment.step(actions[next(count) % 16])


def _event(history: CandleHistory, limits: Limits) -> Callable[[], object]:
    """Every symbol wants another weight at each candle. A drawdown of a tenth closes the ladder to new risk as shipped, and then little
    is traded; the first case leaves it out, for the peer has none."""
    environment = TradingEnvironment(history, form="exposure", limits=limits, episode_steps=EPISODE, random_start=True, seed=0)
    environment.reset()
    environment.action_space.seed(0)
    actions = [environment.action_space.sample() for _ in range(4_096)]
    count = iter(range(1 << 62))

    def step() -> None:
        _, _, terminated, truncated, _ = environment.step(actions[next(count) % 4_096])
        if terminated or truncated:
            environment.reset()

    return step


def _finrl(history: CandleHistory, features: np.ndarray) -> Callable[[], object] | None:
    """The peer on the same prices, with as many indicators a symbol as our observation has; None if it is not installed."""
    if (module := _finrl_module()) is None:
        return None
    import pandas

    days = min(len(history.times), 2_000)
    names = [f"indicator_{number}" for number in range(INDICATORS)]
    rows = np.repeat(np.arange(days), ASSETS)
    columns: dict[str, Any] = {"date": history.times[:days][rows], "tic": list(history.symbols) * days, "close": history.close[:days].ravel()}
    columns |= {name: features[:days, :, number].ravel() for number, name in enumerate(names)}
    frame = pandas.DataFrame(columns, index=rows)
    environment = module.StockTradingEnv(
        df=frame, stock_dim=ASSETS, hmax=100, initial_amount=1_000_000, num_stock_shares=[0] * ASSETS, buy_cost_pct=[1e-3] * ASSETS,
        sell_cost_pct=[1e-3] * ASSETS, reward_scaling=1e-4, state_space=1 + 2 * ASSETS + INDICATORS * ASSETS, action_space=ASSETS,
        tech_indicator_list=names, print_verbosity=1 << 30,
    )  # fmt: skip
    environment.reset()
    rng = np.random.default_rng(0)
    actions = [rng.uniform(-1, 1, ASSETS) for _ in range(16)]
    count = iter(range(1 << 62))

    def step() -> None:
        with redirect_stdout(StringIO()):
            _, _, terminal, _, _ = environment.step(actions[next(count) % 16])
        if terminal:
            environment.reset()

    return step


def _finrl_module() -> ModuleType | None:
    """FinRL's one file: its package imports half of machine learning, which a step does not need."""
    try:
        path = importlib.metadata.distribution("finrl").locate_file(FINRL_FILE)
        spec = importlib.util.spec_from_file_location("finrl_env_stocktrading", str(path))
        if spec is None or spec.loader is None:
            return None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except (ImportError, OSError):
        return None
    return module


if __name__ == "__main__":
    main(
        "environment_rate", measure, ("numpy", "gymnasium", "finrl", "pandas", "stable-baselines3"), bars=4_000, copies=2_048, rounds=20
    )
