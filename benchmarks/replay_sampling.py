"""How long a batch takes out of a full replay buffer: ours in memory and in a file, beside stable-baselines3 and cpprb."""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from agents.learning.replay import ReplayBuffer
from benchmarks.report import Row, alternate, main

STATES, ACTIONS, BATCH, SYMBOLS = 120, 4, 256, 4
CHUNK = 10_000


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    """Microseconds for a batch of 256 out of a full buffer of observations of 120 columns."""
    peers = {"sb3": _sb3, "cpprb": _cpprb}
    with tempfile.TemporaryDirectory(dir=arguments.folder or None) as folder:
        ours = {"memory": _ours(arguments.rows, None), "file": _ours(arguments.rows, Path(folder) / "ring")}
        rng = np.random.default_rng(0)
        calls: dict[str, Callable[[], object]] = {name: partial(ring.sample, BATCH, rng) for name, ring in ours.items()}
        calls["by time"] = lambda: ours["file"].sample_by_time(BATCH, rng)
        for name, make in peers.items():
            try:
                calls[name] = make(arguments.rows)
            except ImportError:
                print(f"  {name} is not installed: see benchmarks/requirements.txt", flush=True)
        taken = dict(zip(calls, alternate(list(calls.values()), arguments.rounds, 50), strict=True))
        for case in ("memory", "file", "by time"):
            middle, tail = np.median(taken[case]), np.percentile(taken[case], 99)
            yield Row(f"sample, {case}", float(middle), "us", p99=float(tail))
            for name in peers:
                if name in taken:
                    peer = float(np.median(taken[name]))
                    yield Row(f"sample, {case}", float(middle), "us", peer, name, peer / float(middle), float(tail))
        for ring in ours.values():
            ring.close()


def _chunks(rows: int) -> Iterator[tuple[np.ndarray, ...]]:
    rng = np.random.default_rng(0)
    for start in range(0, rows, CHUNK):
        count = min(CHUNK, rows - start)
        states = rng.standard_normal((count + 1, STATES), np.float32)
        actions = rng.uniform(-1, 1, (count, ACTIONS)).astype(np.float32)
        times = (start + np.arange(count)) // SYMBOLS
        yield states[:-1], actions, rng.standard_normal(count, np.float32), states[1:], np.zeros(count, np.float32), times


def _ours(rows: int, path: Path | None) -> ReplayBuffer:
    ring = ReplayBuffer(STATES, ACTIONS, rows, path)
    for states, actions, rewards, following, done, times in _chunks(rows):
        ring.add(states, actions, rewards, following, done, 1.0, times)
    return ring


def _sb3(rows: int) -> Callable[[], object]:
    from stable_baselines3.common.buffers import ReplayBuffer as Theirs

    box = lambda size: gymnasium.spaces.Box(-1, 1, (size,), np.float32)  # noqa: E731
    theirs = Theirs(rows, box(STATES), box(ACTIONS), device="cpu", n_envs=1)  # type: ignore[no-untyped-call]
    at = 0
    for states, actions, rewards, following, done, _ in _chunks(rows):
        end = at + len(states)
        theirs.observations[at:end, 0], theirs.actions[at:end, 0], theirs.rewards[at:end, 0] = states, actions, rewards
        theirs.next_observations[at:end, 0], theirs.dones[at:end, 0] = following, done
        at = end
    theirs.pos, theirs.full = 0, True
    return lambda: theirs.sample(BATCH)


def _cpprb(rows: int) -> Callable[[], object]:
    from cpprb import ReplayBuffer as Theirs

    shapes: dict[str, Any] = {"obs": {"shape": STATES}, "act": {"shape": ACTIONS}, "rew": {}, "next_obs": {"shape": STATES}, "done": {}}
    theirs = Theirs(rows, shapes)
    for states, actions, rewards, following, done, _ in _chunks(rows):
        theirs.add(obs=states, act=actions, rew=rewards, next_obs=following, done=done)
    return lambda: theirs.sample(BATCH)


if __name__ == "__main__":
    main("replay_sampling", measure, ("numpy", "stable-baselines3", "cpprb", "torch"), rows=1_000_000, rounds=20, folder="")
