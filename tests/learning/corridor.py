"""A small environment for agents: quick, and its answer is known."""

import gymnasium
import numpy as np


class Corridor(gymnasium.Env[np.ndarray, np.ndarray]):
    """Push a point to the origin; ends there (termination) or after ten steps (truncation). The box is lopsided on purpose."""

    observation_space = gymnasium.spaces.Box(-2, 2, (1,), np.float32)
    action_space = gymnasium.spaces.Box(np.float32([-1.0]), np.float32([3.0]), dtype=np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.steps = self.np_random.uniform(-1.5, 1.5), 0
        return np.array([self.at], np.float32), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.at, self.steps = float(np.clip(self.at + (action[0] - 1) / 4, -2, 2)), self.steps + 1
        return np.array([self.at], np.float32), -abs(self.at), abs(self.at) < 0.05, self.steps >= 10, {}


class Pictures(gymnasium.Env[np.ndarray, np.ndarray]):
    """Sequences (steps, assets, features): go long when the first feature of the last step is up, short when it is down."""

    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, shape: tuple[int, int, int] = (3, 2, 2)) -> None:
        self.observation_space = gymnasium.spaces.Box(-5, 5, shape, np.float32)

    def _see(self):
        self.seen = self.np_random.standard_normal(self.observation_space.shape).astype(np.float32)
        return self.seen

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._see(), {}

    def step(self, action):
        reward = float(action[0] * np.sign(self.seen[-1, 0, 0]))
        return self._see(), reward, True, False, {}
