"""TD3 with the same face as SACAgent."""

import math
from collections.abc import Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from agents.learning.face import Agent, folded, read_weights
from agents.learning.lenses import lenses
from agents.learning.replay import ReplayBuffer
from agents.learning.td3 import TD3, TD3Config
from agents.learning.world import Env


class TD3Agent(Agent):
    """TD3 with its replay buffer and, if given one, a gymnasium environment (name, class or instance).

    Parameters mean what they mean for `SACAgent`; the noises, in units of an action that spans 2, are TD3's own.
    """

    def __init__(
        self,
        env: str | type[Env] | Env | None = None,
        *,
        state_dim: int | None = None,
        action_dim: int | None = None,
        learning_rate: float = 3e-4,
        actor_lr: float | None = None,
        critic_lr: float | None = None,
        gamma: float = 0.99,
        tau: float = 0.005,
        exploration_noise: float = 0.1,
        target_noise: float = 0.2,
        target_noise_clip: float = 0.5,
        policy_delay: int = 2,
        reward_scale: float = 1.0,
        n_step: int = 1,
        hidden_sizes: Sequence[int] | None = None,
        policy_hiddens: Sequence[int] = (256, 256),
        q_hiddens: Sequence[int] = (256, 256),
        weight_decay: float = 0.0,
        buffer_size: int = 1_000_000,
        batch_size: int = 256,
        warmup_steps: int = 100,
        updates_per_step: int = 1,
        normalize_observations: bool = False,
        scale_returns: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(
            env, state_dim, action_dim, warmup_steps=warmup_steps, updates_per_step=updates_per_step, seed=seed, n_step=n_step, gamma=gamma
        )
        self.lenses = lenses(self.state_dim, gamma, normalize_observations, scale_returns)
        self.config = TD3Config(
            learning_rate=learning_rate, actor_lr=actor_lr, critic_lr=critic_lr, gamma=gamma, tau=tau,
            exploration_noise=exploration_noise, target_noise=target_noise, target_noise_clip=target_noise_clip,
            policy_delay=policy_delay, reward_scale=reward_scale, batch_size=batch_size,
            policy_hiddens=tuple(hidden_sizes or policy_hiddens), q_hiddens=tuple(hidden_sizes or q_hiddens), weight_decay=weight_decay,
        )  # fmt: skip
        self.td3 = self.algorithm = TD3(self.state_dim, self.action_dim, self.config, self.rng)
        self.batch_size, self.settings = batch_size, {"config": asdict(self.config)}
        self.buffer = ReplayBuffer(self.state_dim, self.action_dim, buffer_size)

    def weights(self) -> dict[str, Tensor]:
        """The actor for raw states; its constant log_std is that of the exploration noise, so that serving can sample too."""
        found = read_weights(self.td3.actor)
        found["log_std.weight"] = torch.zeros_like(found["mean.weight"])
        found["log_std.bias"] = torch.full_like(found["mean.bias"], math.log(max(self.config.exploration_noise, 1e-8)))
        return folded(found, self.lenses.values())
