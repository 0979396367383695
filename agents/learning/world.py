"""A gymnasium environment as an agent sees it: flat float32 states, actions in (-1, 1)."""

import copy
import math
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from agents.core.errors import ConfigError, NotFinite
from agents.learning.replay import Floats

Env = gymnasium.Env[Any, Any]


class World:
    """An environment by name, class or instance. Raises ConfigError unless observations and actions are boxes, the latter bounded."""

    def __init__(self, env: str | type[Env] | Env) -> None:
        self._again: Callable[[], Env] = _maker(env)
        self.env = env if isinstance(env, gymnasium.Env) else self._again()
        states, actions = self.env.observation_space, self.env.action_space
        if not isinstance(states, gymnasium.spaces.Box) or not isinstance(actions, gymnasium.spaces.Box):
            raise ConfigError("an agent needs an environment whose observations and actions are boxes")
        if not actions.is_bounded():
            raise ConfigError("an agent needs an environment whose actions have finite bounds")
        self.state_shape, self._actions = states.shape, actions
        self.state_dim, self.action_dim = math.prod(states.shape), math.prod(actions.shape)
        self._low, self._high = actions.low.ravel(), actions.high.ravel()

    def another(self) -> "World":
        """The same environment in a state of its own, to evaluate in; an instance is copied."""
        return World(self._again())

    def reset(self, seed: int | None = None) -> Floats:
        """The first state of an episode, (state_dim,)."""
        return np.asarray(self.env.reset(seed=seed)[0], np.float32).ravel()

    def step(self, action: Floats) -> tuple[Floats, float, bool, bool]:
        """State (state_dim,), reward, terminated, truncated after `action` (action_dim,) in (-1, 1)."""
        observed, reward, terminated, truncated, _ = self.env.step(self.to_box(action))
        return np.asarray(observed, np.float32).ravel(), float(reward), bool(terminated), bool(truncated)

    def to_box(self, action: Floats) -> Floats:
        """An action in (-1, 1) in the environment's own bounds and shape; 0 is their middle."""
        scaled = np.clip(self._low + (action + 1) / 2 * (self._high - self._low), self._low, self._high)
        boxed: Floats = scaled.astype(np.float32).reshape(self._actions.shape)
        return boxed


def _maker(env: str | type[Env] | Env) -> Callable[[], Env]:
    if isinstance(env, str):
        name = env
        return lambda: gymnasium.make(name)
    if isinstance(env, type):
        return env
    original = env
    return lambda: copy.deepcopy(original)


def flat(observation: Any, state_dim: int) -> Floats:
    """One observation as (state_dim,); gymnasium's (observation, info) pair is taken for its first. Raises ConfigError, NotFinite."""
    if isinstance(observation, tuple) and len(observation) == 2 and isinstance(observation[1], dict):
        observation = observation[0]
    state = np.asarray(observation, np.float32).ravel()
    if state.size != state_dim:
        raise ConfigError(f"an observation has {state.size} numbers, expected {state_dim}")
    if not np.isfinite(state).all():
        raise NotFinite("an observation holds a NaN or an infinity")
    return state
