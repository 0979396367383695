"""How many exact SAC updates a second: one agent against stable-baselines3, SBX and autograd, four agents against the floor.

The floor is the time that the update's multiplications alone take at the fastest rate that any matrix library reaches here.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import gymnasium
import numpy as np
import torch

from agents.learning.fast import FastSAC, fastest_products
from agents.learning.replay import ReplayBuffer, Rows
from agents.learning.sac import SAC, SACConfig
from benchmarks.report import Row, alternate, main

AGENTS = {"long_term": (100, 4), "short_term": (80, 4), "market_making": (120, 6), "risk": (60, 2)}
STATES, ACTIONS, HIDDEN, BATCH, ROWS = 100, 4, 256, 256, 10_000
BURST = 4
"""Updates between two looks at the clock."""
COMPILED_AFTER = 30
"""Updates after which SBX has compiled all that it compiles."""


class Nothing(gymnasium.Env[np.ndarray, np.ndarray]):
    """Sizes for the peers' constructors; it is never played."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (STATES,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (ACTIONS,), np.float32)


def noise(state_dim: int, action_dim: int) -> Rows:
    """ROWS transitions for a buffer."""
    rng = np.random.default_rng(0)
    state, next_state = rng.standard_normal((2, ROWS, state_dim), np.float32)
    action = np.tanh(rng.standard_normal((ROWS, action_dim), np.float32))
    zeros = np.zeros(ROWS, np.float32)
    return Rows(state, action, rng.standard_normal(ROWS, np.float32), next_state, zeros, zeros + 1)


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    """Gradient updates a second on one thread, sampling included."""
    torch.set_num_threads(1)
    rounds = arguments.rounds
    products = fastest_products(time.perf_counter, STATES, ACTIONS, SACConfig())
    print(f"  products by {products.forward} (forward), {products.back} (back), {products.outer} (outer)", flush=True)

    def learner(make: Callable[..., SAC], state_dim: int, action_dim: int, *more: Any) -> Callable[[], None]:
        rng = np.random.default_rng(0)
        sac, ring = make(state_dim, action_dim, SACConfig(), rng, *more), ReplayBuffer(state_dim, action_dim, ROWS)
        rows = noise(state_dim, action_dim)
        ring.add(rows.state, rows.action, rows.reward, rows.next_state, rows.done, rows.elapsed)

        def burst() -> None:
            for _ in range(BURST):
                sac.update(ring.sample(BATCH, rng))

        return burst

    ours = learner(FastSAC, STATES, ACTIONS, products)
    peer = _sb3()
    yield _against("sb3", "stable-baselines3", *alternate([ours, peer], rounds, 1))
    yield _against("autograd", "own autograd path", *alternate([ours, learner(SAC, STATES, ACTIONS)], rounds, 1))
    yield from _sbx(ours, rounds)
    agents = [learner(FastSAC, *sizes, products) for sizes in AGENTS.values()]
    yield _floor(agents, rounds)


def _against(case: str, name: str, ours: np.ndarray, theirs: np.ndarray) -> Row:
    mine, other = (BURST * 1e6 / float(np.median(taken)) for taken in (ours, theirs))
    return Row(f"update vs {case}", mine, "1/s", other, name, float(np.median(theirs / ours)))


def _sb3() -> Callable[[], None]:
    try:
        from stable_baselines3 import SAC as Peer  # type: ignore[import-not-found,unused-ignore]
        from stable_baselines3.common.logger import configure  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise SystemExit("stable-baselines3 is not installed: make bench-setup installs the peers") from None
    model = Peer("MlpPolicy", Nothing(), buffer_size=ROWS, batch_size=BATCH, device="cpu", policy_kwargs={"net_arch": [256, 256]})
    model.set_logger(configure(None, []))
    buffer: Any = model.replay_buffer
    rows = noise(STATES, ACTIONS)
    buffer.observations[:, 0], buffer.next_observations[:, 0], buffer.full = rows.state, rows.next_state, True
    buffer.actions[:, 0], buffer.rewards[:, 0] = rows.action, rows.reward
    return lambda: model.train(BURST, BATCH)


def _sbx(ours: Callable[[], None], rounds: int) -> Iterator[Row]:
    """Nothing when SBX is not installed. Both share one core, because XLA would take all there are."""
    with _one_core(), subprocess.Popen([sys.executable, "-m", "benchmarks._sbx"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None and child.stdout is not None
        taken: list[tuple[float, float]] = []
        for updates in (COMPILED_AFTER, *[BURST] * rounds):
            with suppress(BrokenPipeError):
                print(updates, file=child.stdin, flush=True)
            answer = json.loads(child.stdout.readline())
            if "error" in answer:
                print(f"  SBX left out: {answer['error']}", file=sys.stderr)
                return
            start = time.perf_counter()
            ours()
            taken.append((time.perf_counter() - start, answer["seconds"]))
        child.stdin.close()
    mine, theirs = np.asarray(taken[1:]).T * 1e6
    yield _against("sbx, one core", "SBX", mine, theirs)


@contextmanager
def _one_core() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _floor(agents: list[Callable[[], None]], rounds: int) -> Row:
    """The joint step of all agents, and its multiplications at the best rate of three libraries, taken in turns."""

    def joint() -> None:
        for agent in agents:
            agent()

    rates = dict(_products(1024, 512, 512) | _products(256, 256, 256))
    work = [flop for flop, _ in rates.values()]
    ours, *others = alternate([joint, *(call for _, call in rates.values())], rounds, 1)
    peak = max(flop / float(np.median(taken)) for flop, taken in zip(work, others, strict=True))
    milliseconds, least = float(np.median(ours)) / BURST / 1e3, sum(_multiplications(*sizes) for sizes in AGENTS.values()) / peak / 1e3
    best = max(zip(work, others, rates, strict=True), key=lambda each: each[0] / float(np.median(each[1])))[2]
    return Row("joint vs floor", milliseconds, "ms", least, f"floor at {peak / 1e3:.0f} GFLOP/s of {best}", milliseconds / least)


def _products(rows: int, inner: int, columns: int) -> dict[str, tuple[float, Callable[[], object]]]:
    """By library and shape: floating-point operations of a call, and the call, long enough to be timed."""
    left, right, out = torch.randn(rows, inner), torch.randn(inner, columns), torch.empty(rows, columns)
    a, b, c = left.numpy(), right.numpy(), out.numpy()
    transposed = right.t().contiguous()
    flop = 2.0 * rows * inner * columns
    repeats = max(1, round(3e8 / flop))
    calls: dict[str, Callable[[], object]] = {"MKL": lambda: torch.mm(left, right, out=out), "OpenBLAS": lambda: np.matmul(a, b, out=c)}
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        calls["oneDNN"] = lambda: torch.ops.mkldnn._linear_pointwise.default(left, transposed, None, "none", [], "")

    def repeated(call: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(repeats):
                call()

        return run

    return {f"{name} {rows}x{inner}x{columns}": (repeats * flop, repeated(call)) for name, call in calls.items()}


def _multiplications(state: int, action: int) -> float:
    """Floating-point operations in one agent's update: what SAC's gradients need, each row going back through one critic only."""
    trunk, first, critic = HIDDEN * HIDDEN, (state + action) * HIDDEN, HIDDEN
    heads = 2 * action * HIDDEN
    policy = 3 * (state * HIDDEN + heads) + 4 * trunk + heads
    values = 6 * (first + trunk + critic)
    fitting = 2 * (first + 2 * trunk + 2 * critic)
    through = trunk + critic + action * HIDDEN
    return 2.0 * BATCH * (policy + values + fitting + through)


if __name__ == "__main__":
    main("learner_rate", measure, ("numpy", "torch", "stable-baselines3", "sbx-rl"), rounds=30)
