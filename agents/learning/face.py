"""What every agent shows its users: train, compute_action, remember, learn, evaluate, save, restore, payload."""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import safetensors.torch
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from agents.core.errors import ConfigError, SpecMismatch
from agents.learning import checkpoint
from agents.learning.guards import examine
from agents.learning.learner import FORMAT
from agents.learning.lenses import Lens
from agents.learning.n_step import NStep, Transition
from agents.learning.parts import Algorithm
from agents.learning.replay import Floats, Rows
from agents.learning.world import Env, World, flat

HEALTH_EVERY = 100
"""Updates between two looks at the life of the actor's hidden units, which cost as much as an update of a small network."""
PROBES = 64
"""States on which it is looked at."""


class Buffer(Protocol):
    """What an agent needs of a replay buffer."""

    capacity: int

    def add(self, state: Any, action: Any, reward: Any, next_state: Any, done: Any, elapsed: Any, /) -> int: ...
    def sample(self, size: int, rng: np.random.Generator, /) -> Rows: ...


class Player(ABC):
    """The loop of play, and what it needs of an agent. With no environment an agent is fed by `remember` and `learn`.

    Actions are in (-1, 1); `train` and `compute_action` map them onto the environment's box.
    """

    def __init__(
        self,
        env: str | type[Env] | Env | None,
        state_dim: int | None,
        action_dim: int | None,
        *,
        warmup_steps: int,
        updates_per_step: int,
        seed: int,
    ) -> None:
        if warmup_steps < 1 or updates_per_step < 1:
            raise ConfigError("warmup_steps and updates_per_step must be at least 1")
        self.world = None if env is None else World(env)
        if self.world is not None:
            state_dim, action_dim = self.world.state_dim, self.world.action_dim
        if state_dim is None or action_dim is None:
            raise ConfigError(f"{type(self).__name__} needs an environment, or state_dim and action_dim")
        self.state_dim, self.action_dim = state_dim, action_dim
        self.warmup_steps, self.updates_per_step, self.steps = warmup_steps, updates_per_step, 0
        self.rng = np.random.default_rng(seed)
        self._state: Floats | None = None
        self._return = 0.0

    @abstractmethod
    def actions(self, states: Floats, explore: bool = False) -> Floats:
        """Actions in (-1, 1) for raw states (n, state_dim)."""

    @abstractmethod
    def remember(
        self,
        state: ArrayLike,
        action: ArrayLike,
        reward: float,
        next_state: ArrayLike,
        done: bool,
        elapsed: float = 1.0,
        truncated: bool = False,
    ) -> None:
        """Keep one transition; `action` in (-1, 1), `done` only for a termination, `truncated` for a time limit."""

    @abstractmethod
    def learn(self) -> dict[str, float]:
        """One update; returns what there is to watch. Raises DataError while nothing is remembered."""

    def train(self, num_iterations: int = 1, steps_per_iteration: int = 100) -> list[dict[str, float]]:
        """Play and learn, `updates_per_step` updates a step after the warm-up of uniform actions; a row of figures an iteration.

        `return` is the mean return of the episodes that ended in the iteration (NaN when none did). Raises ConfigError
        without an environment, Diverged when a loss is not finite.
        """
        if self.world is None:
            raise ConfigError("train needs an environment; without one call remember and learn")
        return [self._iteration(self.world, steps_per_iteration) for _ in range(num_iterations)]

    def _iteration(self, world: World, steps: int) -> dict[str, float]:
        returns: list[float] = []
        info: dict[str, float] = {}
        for _ in range(steps):
            ended = self._play(world)
            if ended is not None:
                returns.append(ended)
            if self.steps >= self.warmup_steps:
                for _ in range(self.updates_per_step):
                    info = self.learn()
        return info | {"steps": float(self.steps), "return": float(np.mean(returns)) if returns else math.nan}

    def _play(self, world: World) -> float | None:
        """One step; the return of the episode if it ended."""
        if self._state is None:
            seed = int(self.rng.integers(2**31)) if self.steps == 0 else None
            self._state, self._return = world.reset(seed), 0.0
        if self.steps < self.warmup_steps:
            action = self.rng.uniform(-1, 1, self.action_dim).astype(np.float32)
        else:
            action = self.actions(self._state[None], explore=True)[0]
        following, reward, terminated, truncated = world.step(action)
        self.remember(self._state, action, reward, following, terminated, truncated=truncated)
        self._return += reward
        self.steps += 1
        self._state = None if terminated or truncated else following
        return self._return if self._state is None else None

    def compute_action(self, observation: Any, explore: bool = False) -> Floats:
        """The action for one observation (or gymnasium's (observation, info)), in the environment's box; in (-1, 1) without one."""
        action = self.actions(flat(observation, self.state_dim)[None], explore)[0]
        return action if self.world is None else self.world.to_box(action)

    def evaluate(self, episodes: int = 10, seed: int = 0) -> list[float]:
        """Returns of whole episodes under the mean action, in an environment of its own; equal seeds start equally."""
        if self.world is None:
            raise ConfigError("evaluate needs an environment")
        return returns(self.world.another(), self.actions, episodes, seed)


def returns(world: World, actions: Any, episodes: int, seed: int) -> list[float]:
    """The return of each of `episodes` episodes played with actions(states (1, n)) -> (1, m)."""
    found = []
    for episode in range(episodes):
        state, total, ended = world.reset(seed + episode), 0.0, False
        while not ended:
            state, reward, terminated, truncated = world.step(actions(state[None])[0])
            total, ended = total + reward, terminated or truncated
        found.append(total)
    return found


class Agent(Player):
    """A player with one algorithm, one replay buffer, and lenses before it."""

    algorithm: Algorithm
    buffer: Buffer
    batch_size: int
    settings: Mapping[str, Any]
    """What was configured, for the checkpoint's reader."""

    def __init__(self, *arguments: Any, n_step: int, gamma: float, lenses: Mapping[str, Lens] | None = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        if n_step < 1:
            raise ConfigError(f"n_step must be at least 1, not {n_step}")
        self.lenses: Mapping[str, Lens] = lenses or {}
        self._joiner = NStep(n_step, gamma)
        self._health: dict[str, float] = {}

    def actions(self, states: Floats, explore: bool = False) -> Floats:
        for lens in self.lenses.values():
            states = lens.states(states)
        return self.algorithm.act(states, explore)

    def remember(
        self,
        state: ArrayLike,
        action: ArrayLike,
        reward: float,
        next_state: ArrayLike,
        done: bool,
        elapsed: float = 1.0,
        truncated: bool = False,
    ) -> None:
        """Keep one transition. Raises NotFinite, SpecMismatch; then nothing was kept."""
        one = Transition(np.asarray(state, np.float32), np.asarray(action, np.float32), reward, np.asarray(next_state, np.float32), done, elapsed)
        for name, values, size in (
            ("state", one.state, self.state_dim), ("action", one.action, self.action_dim), ("next_state", one.next_state, self.state_dim),
        ):  # fmt: skip
            if values.size != size:
                raise SpecMismatch(f"a transition's {name} has {values.size} numbers, expected {size}")
        for row in self._joiner.push(one, done or truncated):
            self.buffer.add(*row)
        for lens in self.lenses.values():
            lens.observe(one.state, reward, done or truncated)

    def learn(self) -> dict[str, float]:
        rows = self.buffer.sample(self.batch_size, self.rng)
        return self.algorithm.update(self._seen(rows)) | self._look(rows)

    def _seen(self, rows: Rows) -> Rows:
        for lens in self.lenses.values():
            rows = lens.rows(rows)
        return rows

    def _look(self, rows: Rows) -> dict[str, float]:
        """How alive the actor is (see `guards.examine`) on the first of the batch's raw states; found anew every HEALTH_EVERY updates."""
        if not self._health or self.algorithm.updates % HEALTH_EVERY == 0:
            self._health = self.health(np.ascontiguousarray(rows.state[:PROBES]))
        return self._health

    def health(self, states: Floats) -> dict[str, float]:
        """Share of dormant units, effective rank, saturation and entropy of the actor on raw states (n, state_dim)."""
        return examine(self.weights(), torch.from_numpy(states))

    def save(self, path: str | Path) -> None:
        """Write networks, optimisers, moments and random stream (not the buffer) to the folder `path`, atomically."""
        tensors = self.algorithm.tensors()
        for name, lens in self.lenses.items():
            tensors |= {f"{name}.{part}": tensor for part, tensor in lens.tensors().items()}
        meta = {
            "kind": type(self).__name__,
            "state_dim": self.state_dim,
            "action_dim": self.action_dim,
            "settings": dict(self.settings),
            "lenses": sorted(self.lenses),
            "updates": self.algorithm.updates,
            "steps": self.steps,
            "rng": self.rng.bit_generator.state,
        }
        checkpoint.save(Path(path), tensors, meta)

    def restore(self, path: str | Path) -> None:
        """Go on from a saved agent. Raises ModelError when it is damaged, SpecMismatch when it is another's."""
        tensors, meta = checkpoint.load(Path(path))
        if (meta["state_dim"], meta["action_dim"]) != (self.state_dim, self.action_dim):
            raise SpecMismatch(f"{path} holds an agent of another size: {meta['state_dim']} -> {meta['action_dim']}")
        if (meta["kind"], meta["lenses"]) != (type(self).__name__, sorted(self.lenses)):
            raise SpecMismatch(f"{path} holds a {meta['kind']} that sees through {meta['lenses']}, not this {type(self).__name__}")
        self.algorithm.load(tensors)
        for name, lens in self.lenses.items():
            lens.load({key.removeprefix(f"{name}."): tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")})
        self.algorithm.updates, self.steps = int(meta["updates"]), int(meta["steps"])
        self.rng.bit_generator.state = meta["rng"]

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """The actor by the names of a payload (0.weight, 0.bias, ..., mean, log_std), for raw states."""

    def payload(self, name: str = "agent", version: int = 1, spec: str = "") -> bytes:
        """The actor as safetensors bytes, which `agents.serving` reads without torch."""
        return pack({name: self.weights()}, version, spec)


def pack(actors: Mapping[str, Mapping[str, Tensor]], version: int, spec: str, **more: Any) -> bytes:
    """Actors by name as one payload; `more` goes into its metadata."""
    named = {f"{name}.{key}": tensor.contiguous() for name, tensors in actors.items() for key, tensor in tensors.items()}
    return safetensors.torch.save(named, {FORMAT: json.dumps({"version": version, "spec": spec} | more)})


def read_weights(actor: torch.nn.Module) -> dict[str, Tensor]:
    """Copies of an actor's tensors by the names of a payload."""
    return {name.removeprefix("layers."): tensor.detach().cpu().clone() for name, tensor in actor.state_dict().items()}


def folded(weights: dict[str, Tensor], lenses: Iterable[Lens]) -> dict[str, Tensor]:
    """The same actor for raw states: what the lenses do becomes part of its first layer."""
    weight, bias = weights["0.weight"].numpy(), weights["0.bias"].numpy()
    for lens in reversed(list(lenses)):
        weight, bias = lens.fold(weight, bias)
    return weights | {"0.weight": torch.from_numpy(weight), "0.bias": torch.from_numpy(bias)}
