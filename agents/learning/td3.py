"""Twin delayed deep deterministic policy gradient: the networks of one agent and one update of them.

Fujimoto et al. 2018 (arXiv 1802.09477): twin critics, smoothed target actions, an actor that moves at every second update.
"""

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from agents.core.errors import ConfigError
from agents.learning.losses import Batch, critic_loss
from agents.learning.parts import Parts, adam, descend
from agents.learning.replay import Floats, Rows
from agents.models.critics import TwinCritic
from agents.models.deterministic import DeterministicActor


@dataclass(frozen=True, slots=True)
class TD3Config:
    """Hyper-parameters; noises are in units of the action, which spans 2."""

    learning_rate: float = 3e-4
    actor_lr: float | None = None
    critic_lr: float | None = None
    gamma: float = 0.99
    """Discount per nominal cadence."""
    tau: float = 0.005
    exploration_noise: float = 0.1
    target_noise: float = 0.2
    target_noise_clip: float = 0.5
    policy_delay: int = 2
    """Updates of the critics for each of the actor and the targets."""
    reward_scale: float = 1.0
    batch_size: int = 256
    policy_hiddens: tuple[int, ...] = (256, 256)
    q_hiddens: tuple[int, ...] = (256, 256)
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        for name in ("learning_rate", "policy_delay", "batch_size"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above 0, not {getattr(self, name)}")
        for name in ("exploration_noise", "target_noise", "target_noise_clip"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must not be negative, but is {getattr(self, name)}")
        if not 0 <= self.gamma <= 1 or not 0 < self.tau <= 1:
            raise ConfigError(f"gamma must be in [0, 1] and tau in (0, 1], not {self.gamma} and {self.tau}")


class TD3:
    """Chance comes from `rng` alone, the networks' first weights included, so equal seeds learn equally."""

    def __init__(self, state_dim: int, action_dim: int, config: TD3Config, rng: np.random.Generator) -> None:
        self.state_dim, self.action_dim, self.config, self.rng = state_dim, action_dim, config, rng
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**63)))
            self.actor = DeterministicActor(state_dim, action_dim, config.policy_hiddens)
            self.critic = TwinCritic(state_dim, action_dim, config.q_hiddens)
        self.actor_target = copy.deepcopy(self.actor).requires_grad_(False)
        self.target = copy.deepcopy(self.critic).requires_grad_(False)
        self.updates = 0
        rate, decay = config.learning_rate, config.weight_decay
        self._actor_step = adam(self.actor.parameters(), config.actor_lr or rate, decay)
        self._critic_step = adam(self.critic.parameters(), config.critic_lr or rate, decay)
        modules = {"actor": self.actor, "critic": self.critic, "actor_target": self.actor_target, "target": self.target}
        self._parts = Parts(modules, {}, {"actor": self._actor_step, "critic": self._critic_step})

    def update(self, rows: Rows) -> dict[str, float]:
        """One step of the critics, and at every `policy_delay`-th update of actor and targets; returns what there is to watch.

        Raises Diverged, without taking that step, when a loss or a gradient is not finite.
        """
        batch = Batch(*(torch.from_numpy(column) for column in rows))
        batch = batch._replace(reward=batch.reward * self.config.reward_scale)
        loss, info = critic_loss(self.critic, batch, self._target(batch))
        info["critic_gradient"] = descend(self._critic_step, [loss])
        self.updates += 1
        if self.updates % self.config.policy_delay == 0:
            info |= self._actor_update(batch)
        info["reward"] = batch.reward.mean()
        return dict(zip(info, torch.stack(list(info.values())).tolist(), strict=True))

    def _target(self, batch: Batch) -> Tensor:
        """r + (1 - done) gamma^elapsed min Q'(s', a' + clipped noise), (n,). Algorithm 1 of the paper."""
        config = self.config
        with torch.no_grad():
            noise = self._noise(len(batch.reward)).mul_(config.target_noise)
            noise.clamp_(-config.target_noise_clip, config.target_noise_clip)
            action = (self.actor_target(batch.next_state) + noise).clamp_(-1, 1)
            value = self.target(batch.next_state, action).amin(0)
            goal: Tensor = batch.reward + (1 - batch.done) * config.gamma**batch.elapsed * value
        return goal

    def _actor_update(self, batch: Batch) -> dict[str, Tensor]:
        action = self.actor(batch.state)
        loss = -self.critic(batch.state, action)[0].mean()
        norm = descend(self._actor_step, [loss])
        with torch.no_grad():
            for following, leading in ((self.target, self.critic), (self.actor_target, self.actor)):
                torch._foreach_lerp_(list(following.parameters()), list(leading.parameters()), self.config.tau)
        spread = action.detach()
        return {
            "actor_loss": loss.detach(),
            "actor_gradient": norm,
            "action_mean": spread.mean(),
            "action_deviation": spread.std(0, correction=0).mean(),
            "action_saturation": (spread.abs() > 0.99).float().mean(),
        }

    def _noise(self, count: int) -> Tensor:
        return torch.from_numpy(self.rng.standard_normal((count, self.action_dim), np.float32))

    def act(self, states: Floats, explore: bool = False) -> Floats:
        """Actions in [-1, 1] for states (n, state_dim), with Gaussian noise to explore."""
        with torch.no_grad():
            action: Tensor = self.actor(torch.from_numpy(np.ascontiguousarray(states, np.float32)))
            if explore:
                action = (action + self.config.exploration_noise * self._noise(len(states))).clamp_(-1, 1)
            return action.numpy()

    def tensors(self) -> dict[str, Tensor]:
        """Everything that learning goes on from, by name. Views, not copies."""
        return self._parts.tensors()

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what `tensors()` gave. Raises SpecMismatch when the shapes or names are another network's."""
        self._parts.load(tensors)
