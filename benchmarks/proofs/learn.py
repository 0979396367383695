"""Does the learner learn? Pendulum and HalfCheetah over several seeds, beside stable-baselines3; table and curves for docs/learning.md.

Every run is kept as one JSON file, so that an interrupted proof goes on where it was: `make learn-proof`. Runs are played side by
side, one thread each, the longest first.
"""

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import matplotlib as mpl
import numpy as np
import torch

from agents.learning.agent import SACAgent
from agents.learning.face import returns
from agents.learning.world import World

ROOT = Path(__file__).parents[2]
BEGIN, END = "<!-- measured: written by make learn-proof -->", "<!-- end of measured -->"


@dataclass(frozen=True, slots=True)
class Task:
    """`settings` are SACAgent's. `floor` is what the median of the last evaluations must reach."""

    name: str
    steps: int
    seeds: int
    floor: float
    every: int
    episodes: int
    settings: dict[str, Any]
    peers: int = 0


TASKS = {
    "pendulum": Task("Pendulum-v1", 10_000, 5, -200, 1_000, 20, {"learning_rate": 1e-3}),
    "halfcheetah": Task(
        "HalfCheetah-v5", 50_000, 3, 2_500, 5_000, 10,
        {"learning_rate": 1e-3, "warmup_steps": 1_000, "normalize_observations": True}, peers=1,
    ),
}  # fmt: skip


@dataclass(slots=True)
class Run:
    """One learning curve: mean return of the evaluation episodes after so many steps."""

    task: str
    who: str
    seed: int
    steps: list[int] = field(default_factory=list)
    means: list[float] = field(default_factory=list)
    deviations: list[float] = field(default_factory=list)
    seconds: float = 0.0


def ours(task: Task, seed: int) -> Iterator[list[float]]:
    """Evaluations of one SACAgent, `task.every` steps apart."""
    agent = SACAgent(env=task.name, seed=seed, **task.settings)
    for _ in range(task.steps // task.every):
        agent.train(1, task.every)
        yield agent.evaluate(task.episodes, seed=10_000)


def sb3(task: Task, seed: int) -> Iterator[list[float]]:
    """The same of stable-baselines3's SAC under the same settings, observations normalised by its own wrapper."""
    from stable_baselines3 import SAC
    from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

    settings = task.settings
    inner = DummyVecEnv([lambda: gymnasium.make(task.name)])
    played = VecNormalize(inner, norm_obs=settings.get("normalize_observations", False), norm_reward=False, gamma=0.99)
    model = SAC(
        "MlpPolicy", played, learning_rate=settings["learning_rate"], learning_starts=settings.get("warmup_steps", 100), seed=seed, device="cpu"
    )
    world = World(task.name)
    middle = world.to_box(np.zeros(world.action_dim, np.float32))
    half = world.to_box(np.ones(world.action_dim, np.float32)) - middle

    def actions(states: np.ndarray) -> np.ndarray:
        boxed, _ = model.predict(played.normalize_obs(states), deterministic=True)
        return np.asarray((boxed - middle) / half, np.float32)

    for turn in range(task.steps // task.every):
        model.learn(task.every, reset_num_timesteps=turn == 0)
        yield returns(world, actions, task.episodes, 10_000)


PLAYERS: dict[str, Callable[[Task, int], Iterator[list[float]]]] = {"quartet": ours, "stable-baselines3": sb3}


def play(task: Task, key: str, who: str, seed: int, folder: Path) -> Run:
    """One run, from its file if it was finished before with the same settings."""
    file = folder / f"{key}-{who}-{seed}.json"
    stamp = json.loads(json.dumps(asdict(task)))
    if file.exists():
        kept = json.loads(file.read_text())
        if kept["settings"] == stamp:
            return Run(**kept["run"])
    run, start = Run(key, who, seed), time.perf_counter()
    for found in PLAYERS[who](task, seed):
        run.steps.append((len(run.steps) + 1) * task.every)
        run.means.append(statistics.fmean(found))
        run.deviations.append(statistics.pstdev(found))
        run.seconds = time.perf_counter() - start
        print(f"  {key} {who} seed {seed}: {run.steps[-1]:>6} steps {run.means[-1]:>9.1f}  {run.seconds:>6.0f} s", flush=True)
    unfinished = file.with_suffix(".part")
    unfinished.write_text(json.dumps({"settings": stamp, "run": asdict(run)}, indent=1) + "\n")
    unfinished.replace(file)
    return run


def table(runs: list[Run]) -> str:
    """Markdown: a row for each task and player."""
    lines = ["| task | who | last evaluation, by seed | median | at least | time a run |", "|---|---|---|---|---|---|"]
    for key, task in TASKS.items():
        for who in PLAYERS:
            own = [run for run in runs if (run.task, run.who) == (key, who)]
            if own:
                last = [run.means[-1] for run in own]
                wanted = f"{task.floor:,.0f}" if who == "quartet" else ""
                seconds = statistics.median(run.seconds for run in own)
                by_seed = ", ".join(f"{value:,.0f}" for value in last)
                title = f"{task.name}, {task.steps:,} steps"
                lines.append(f"| {title} | {who} | {by_seed} | {statistics.median(last):,.0f} | {wanted} | {seconds:,.0f} s |")
    return "\n".join(lines)


def curves(runs: list[Run], folder: Path) -> None:
    """One PNG a task: every seed thin, their median thick."""
    mpl.use("Agg")
    from matplotlib import pyplot

    for key in {run.task for run in runs}:
        figure, axes = pyplot.subplots(figsize=(6.4, 3.6), dpi=110)
        for who, colour in zip(PLAYERS, ("tab:blue", "tab:orange"), strict=True):
            own = [run for run in runs if (run.task, run.who) == (key, who)]
            for run in own:
                axes.plot(run.steps, run.means, color=colour, alpha=0.35, linewidth=1)
            if own:
                axes.plot(own[0].steps, np.median([run.means for run in own], axis=0), color=colour, linewidth=2, label=f"{who} ({len(own)})")
        axes.axhline(TASKS[key].floor, color="grey", linestyle=":", linewidth=1)
        axes.set(title=TASKS[key].name, xlabel="environment steps", ylabel="mean return, deterministic")
        axes.legend(loc="lower right")
        figure.tight_layout()
        figure.savefig(folder / f"learning-{key}.png", metadata={"Software": None})
        pyplot.close(figure)


def publish(runs: list[Run], docs: Path) -> None:
    """Put the table between the marks in docs/learning.md, and the curves beside it."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "gymnasium", "mujoco", "stable-baselines3"))
    page = docs / "learning.md"
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    measured = f"{BEGIN}\n{table(runs)}\n\nPython {platform.python_version()}, {versions}; one thread.\n{END}"
    page.write_text(before + measured + after)
    curves(runs, docs)


def main() -> int:
    """Exit code 1 when a median misses its floor."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proofs.learn", description=__doc__)
    parser.add_argument("--only", choices=list(TASKS), help="one task")
    parser.add_argument("--runs", type=Path, default=ROOT / "build" / "learn-proof", help="where runs are kept")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="where learning.md is")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="runs side by side; default: one a processor")
    arguments = parser.parse_args()
    arguments.runs.mkdir(parents=True, exist_ok=True)
    wanted = [
        (task, key, who, seed, arguments.runs)
        for key, task in TASKS.items() if arguments.only in (None, key)
        for who, seeds in (("stable-baselines3", task.peers), ("quartet", task.seeds))
        for seed in range(seeds)
    ]  # fmt: skip
    wanted.sort(key=lambda one: one[0].steps, reverse=True)
    with ProcessPoolExecutor(arguments.jobs, multiprocessing.get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        runs = list(pool.map(play, *zip(*wanted, strict=True)))
    if arguments.only is None:
        publish(runs, arguments.docs)
    print(table(runs))
    missed = 0
    for key in {run.task for run in runs}:
        median = statistics.median(run.means[-1] for run in runs if (run.task, run.who) == (key, "quartet"))
        missed += median < TASKS[key].floor
    return int(missed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
