"""The agent that users know: SAC with its buffer, which also plays a gymnasium environment."""

import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from agents.core.errors import ConfigError, SpecMismatch
from agents.learning import checkpoint
from agents.learning.replay import Floats, ReplayBuffer
from agents.learning.sac import SAC, SACConfig


class SACAgent:
    """SAC with its replay buffer and, if given one, a gymnasium environment (name, class or instance).

    Without an environment give `state_dim` and `action_dim`, feed it with `remember` and call `learn`. Actions are in
    (-1, 1); `train` and `compute_action` map them onto the environment's box.
    """

    def __init__(
        self,
        env: str | type | gymnasium.Env[Any, Any] | None = None,
        *,
        state_dim: int | None = None,
        action_dim: int | None = None,
        buffer_size: int = 1_000_000,
        warmup_steps: int = 100,
        seed: int = 0,
        **options: Any,
    ) -> None:
        unknown = set(options) - {field.name for field in fields(SACConfig)}
        if unknown:
            raise ConfigError(f"unknown option {min(unknown)}; known are {', '.join(f.name for f in fields(SACConfig))}")
        self.env = _environment(env)
        if self.env is not None:
            state_dim, action_dim = _sizes(self.env)
        if state_dim is None or action_dim is None:
            raise ConfigError("SACAgent needs an environment, or state_dim and action_dim")
        sizes: dict[str, Any] = {name: tuple(options[name]) for name in ("policy_hiddens", "q_hiddens") if name in options}
        options |= sizes
        self.config = SACConfig(**options)
        self.warmup_steps, self.steps = warmup_steps, 0
        self.rng = np.random.default_rng(seed)
        self.sac = SAC(state_dim, action_dim, self.config, self.rng)
        self.buffer = ReplayBuffer(state_dim, action_dim, buffer_size)
        self._state: Floats | None = None
        self._return = 0.0

    def train(self, num_iterations: int = 1, steps_per_iteration: int = 100) -> list[dict[str, float]]:
        """Play and learn, one update a step after the warm-up of uniform actions; one row of figures an iteration.

        `return` is the mean return of the episodes that ended in the iteration (NaN when none did). Raises ConfigError
        without an environment, Diverged when a loss is not finite.
        """
        if self.env is None:
            raise ConfigError("train needs an environment; without one call remember and learn")
        return [self._iteration(self.env, steps_per_iteration) for _ in range(num_iterations)]

    def _iteration(self, env: gymnasium.Env[Any, Any], steps: int) -> dict[str, float]:
        returns: list[float] = []
        info: dict[str, float] = {}
        for _ in range(steps):
            if self._state is None:
                seed = int(self.rng.integers(2**31)) if self.steps == 0 else None
                self._state, self._return = np.asarray(env.reset(seed=seed)[0], np.float32).ravel(), 0.0
            if self.steps < self.warmup_steps:
                action = self.rng.uniform(-1, 1, self.sac.action_dim).astype(np.float32)
            else:
                action = self.sac.act(self._state[None], explore=True)[0]
            observed, reward, terminated, truncated, _ = env.step(_to_box(env, action))
            following = np.asarray(observed, np.float32).ravel()
            self.remember(self._state, action, float(reward), following, terminated)
            self._return += float(reward)
            self.steps += 1
            self._state = following
            if terminated or truncated:
                returns.append(self._return)
                self._state = None
            if self.steps >= self.warmup_steps:
                info = self.learn()
        return info | {"steps": float(self.steps), "return": float(np.mean(returns)) if returns else math.nan}

    def remember(self, state: Any, action: Any, reward: float, next_state: Any, done: bool, elapsed: float = 1.0) -> None:
        """Keep one transition; `action` in (-1, 1), `done` True only for a termination. Raises NotFinite, SpecMismatch."""
        self.buffer.add(state, action, reward, next_state, done, elapsed)

    def learn(self) -> dict[str, float]:
        """One update from the buffer. Raises DataError while it is empty."""
        return self.sac.update(self.buffer.sample(self.config.batch_size, self.rng))

    def compute_action(self, observation: Any, explore: bool = False) -> NDArray[np.float32]:
        """The action for one observation, in the environment's box; in (-1, 1) without an environment."""
        action = self.sac.act(np.asarray(observation, np.float32).reshape(1, -1), explore)[0]
        return action if self.env is None else _to_box(self.env, action)

    def save(self, path: str | Path) -> None:
        """Write networks, optimisers and random stream (not the buffer) to the folder `path`, atomically."""
        shape = {"state_dim": self.sac.state_dim, "action_dim": self.sac.action_dim, "config": asdict(self.config)}
        counts = {"updates": self.sac.updates, "steps": self.steps, "rng": self.rng.bit_generator.state}
        checkpoint.save(Path(path), self.sac.tensors(), shape | counts)

    def restore(self, path: str | Path) -> None:
        """Go on from a saved agent. Raises ModelError when it is damaged, SpecMismatch when it is another's."""
        tensors, meta = checkpoint.load(Path(path))
        if (meta["state_dim"], meta["action_dim"]) != (self.sac.state_dim, self.sac.action_dim):
            raise SpecMismatch(f"{path} holds an agent of another size: {meta['state_dim']} -> {meta['action_dim']}")
        self.sac.load(tensors)
        self.sac.updates, self.steps = int(meta["updates"]), int(meta["steps"])
        self.rng.bit_generator.state = meta["rng"]


def _environment(env: str | type | gymnasium.Env[Any, Any] | None) -> gymnasium.Env[Any, Any] | None:
    if isinstance(env, str):
        return gymnasium.make(env)
    made: gymnasium.Env[Any, Any] | None = env() if isinstance(env, type) else env
    return made


def _sizes(env: gymnasium.Env[Any, Any]) -> tuple[int, int]:
    states, actions = env.observation_space, env.action_space
    if not isinstance(states, gymnasium.spaces.Box) or not isinstance(actions, gymnasium.spaces.Box):
        raise ConfigError("SACAgent needs an environment whose observations and actions are boxes")
    if not actions.is_bounded():
        raise ConfigError("SACAgent needs an environment whose actions have finite bounds")
    return int(np.prod(states.shape)), int(np.prod(actions.shape))


def _to_box(env: gymnasium.Env[Any, Any], action: Floats) -> NDArray[np.float32]:
    box = env.action_space
    assert isinstance(box, gymnasium.spaces.Box)
    low, high = box.low.ravel(), box.high.ravel()
    scaled: NDArray[np.float32] = np.clip(low + (action + 1) / 2 * (high - low), low, high).astype(np.float32)
    return scaled.reshape(box.shape)
