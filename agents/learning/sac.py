"""Soft actor-critic: the networks of one agent and one update of them.

Haarnoja et al. 2018 (arXiv 1812.05905): tanh-squashed Gaussian actor, twin critics, target critics, automatic temperature.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from agents.core.errors import ConfigError, Diverged, SpecMismatch
from agents.learning.losses import Batch, actor_loss, critic_loss, soft_target, temperature_loss
from agents.learning.replay import Floats, Rows
from agents.models.actors import GaussianActor
from agents.models.critics import TwinCritic


@dataclass(frozen=True, slots=True)
class SACConfig:
    """Hyper-parameters. `actor_lr`, `critic_lr` and `alpha_lr` default to `learning_rate`."""

    learning_rate: float = 3e-4
    actor_lr: float | None = None
    critic_lr: float | None = None
    alpha_lr: float | None = None
    gamma: float = 0.99
    """Discount per nominal cadence."""
    tau: float = 0.005
    """Polyak step of the target critics."""
    alpha: float = 0.2
    """Temperature at the start, or throughout without automatic tuning."""
    automatic_entropy_tuning: bool = True
    target_entropy: float | Literal["auto"] = "auto"
    """Nats a decision; auto is minus the number of action components."""
    reward_scale: float = 1.0
    batch_size: int = 256
    policy_hiddens: tuple[int, ...] = (256, 256)
    q_hiddens: tuple[int, ...] = (256, 256)
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        positive = {"learning_rate": self.learning_rate, "alpha": self.alpha, "batch_size": self.batch_size}
        for name, value in positive.items():
            if not value > 0:
                raise ConfigError(f"{name} must be above 0, not {value}")
        if not 0 <= self.gamma <= 1 or not 0 < self.tau <= 1:
            raise ConfigError(f"gamma must be in [0, 1] and tau in (0, 1], not {self.gamma} and {self.tau}")


class SAC:
    """The networks and optimisers of one agent, and its update.

    Chance comes from `rng` alone, the networks' first weights included, so equal seeds learn equally.
    """

    def __init__(self, state_dim: int, action_dim: int, config: SACConfig, rng: np.random.Generator) -> None:
        self.state_dim, self.action_dim, self.config, self.rng = state_dim, action_dim, config, rng
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**63)))
            self.actor = GaussianActor(state_dim, action_dim, config.policy_hiddens)
            self.critic = TwinCritic(state_dim, action_dim, config.q_hiddens)
        self.target = copy.deepcopy(self.critic).requires_grad_(False)
        self.log_alpha = nn.Parameter(torch.tensor(math.log(config.alpha)))
        self.target_entropy = -float(action_dim) if config.target_entropy == "auto" else float(config.target_entropy)
        self.updates = 0
        rate = config.learning_rate
        self._actor_step = self._adam(self.actor.parameters(), config.actor_lr or rate, config.weight_decay)
        self._critic_step = self._adam(self.critic.parameters(), config.critic_lr or rate, config.weight_decay)
        self._alpha_step = self._adam([self.log_alpha], config.alpha_lr or rate, 0.0)

    @staticmethod
    def _adam(parameters: Iterator[nn.Parameter] | list[nn.Parameter], rate: float, weight_decay: float) -> torch.optim.Adam:
        return torch.optim.Adam(parameters, lr=rate, weight_decay=weight_decay, fused=True)

    def update(self, rows: Rows) -> dict[str, float]:
        """One gradient step of critics, actor and temperature on `rows`; returns what there is to watch.

        Raises Diverged, without taking that step, when a loss or a gradient is not finite.
        """
        batch = Batch(*(torch.from_numpy(column) for column in rows))
        batch = batch._replace(reward=batch.reward * self.config.reward_scale)
        alpha = self.log_alpha.detach().exp()
        target = soft_target(self.actor, self.target, batch, alpha, self.config.gamma, self._noise(batch))
        loss, info = critic_loss(self.critic, batch, target)
        info["critic_gradient"] = self._step(self._critic_step, loss)
        loss, log_prob, more = actor_loss(self.actor, self.critic, batch, alpha, self._noise(batch))
        info |= more
        info["actor_gradient"] = self._step(self._actor_step, loss)
        loss, more = temperature_loss(self.log_alpha, log_prob, self.target_entropy)
        info |= more
        if self.config.automatic_entropy_tuning:
            self._step(self._alpha_step, loss)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.target.parameters()), list(self.critic.parameters()), self.config.tau)
        self.updates += 1
        info["reward"] = batch.reward.mean()
        return dict(zip(info, torch.stack(list(info.values())).tolist(), strict=True))

    def _noise(self, batch: Batch) -> Tensor:
        return torch.from_numpy(self.rng.standard_normal((len(batch.reward), self.action_dim), np.float32))

    @staticmethod
    def _step(optimiser: torch.optim.Adam, loss: Tensor) -> Tensor:
        """Step on the gradients of this optimiser's own parameters only; returns their norm."""
        if not torch.isfinite(loss):
            raise Diverged(f"a loss became {loss.item()}; the step was not taken")
        parameters = optimiser.param_groups[0]["params"]
        gradients = torch.autograd.grad(loss, parameters)
        norm: Tensor = torch.stack(torch._foreach_norm(gradients)).norm()
        if not torch.isfinite(norm):
            raise Diverged(f"a gradient became {norm.item()}; the step was not taken")
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        optimiser.step()
        return norm

    def act(self, states: Floats, explore: bool = False) -> Floats:
        """Actions in (-1, 1) for states (n, state_dim): the mean, or a sample."""
        with torch.no_grad():
            tensor = torch.from_numpy(np.ascontiguousarray(states, np.float32))
            if not explore:
                return self.actor.act(tensor).numpy()
            noise = torch.from_numpy(self.rng.standard_normal((len(states), self.action_dim), np.float32))
            return self.actor.sample(tensor, noise)[0].numpy()

    def tensors(self) -> dict[str, Tensor]:
        """Everything that learning goes on from, by name: networks, temperature, optimiser moments. Views, not copies."""
        found = {"log_alpha": self.log_alpha.detach()}
        for part, module in self._modules():
            found |= {f"{part}.{name}": tensor for name, tensor in module.state_dict().items()}
        for part, optimiser in self._optimisers():
            for index, parameter in enumerate(optimiser.param_groups[0]["params"]):
                found |= {f"{part}_adam.{index}.{name}": value for name, value in optimiser.state[parameter].items()}
        return found

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what `tensors()` gave. Raises SpecMismatch when the shapes or names are another network's."""
        tensors = {name: tensor.clone() for name, tensor in tensors.items()}
        try:
            for part, module in self._modules():
                own = {name.removeprefix(f"{part}."): value for name, value in tensors.items() if name.startswith(f"{part}.")}
                module.load_state_dict(own)
            with torch.no_grad():
                self.log_alpha.copy_(tensors["log_alpha"])
        except (RuntimeError, KeyError) as error:
            raise SpecMismatch(f"the saved networks have other sizes than the configured ones: {error}") from None
        for part, optimiser in self._optimisers():
            for index, parameter in enumerate(optimiser.param_groups[0]["params"]):
                start = f"{part}_adam.{index}."
                optimiser.state[parameter] = {n.removeprefix(start): v for n, v in tensors.items() if n.startswith(start)}

    def _modules(self) -> tuple[tuple[str, nn.Module], ...]:
        return ("actor", self.actor), ("critic", self.critic), ("target", self.target)

    def _optimisers(self) -> tuple[tuple[str, torch.optim.Adam], ...]:
        return ("actor", self._actor_step), ("critic", self._critic_step), ("alpha", self._alpha_step)
