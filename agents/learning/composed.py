"""SAC put together from parts: any critic, estimator, bootstrap and encoder, by autograd.

With no option taken it is `agents.learning.sac.SAC` number for number, which a test holds it to.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from agents.core.errors import ConfigError
from agents.learning.bootstraps import Bootstrap, Joint, Polyak
from agents.learning.losses import Batch, temperature_loss
from agents.learning.options import Options
from agents.learning.parts import Parts, adam, descend
from agents.learning.replay import Floats, Rows
from agents.learning.sac import SACConfig
from agents.models.actors import GaussianActor
from agents.models.dressed import DressedCritic
from agents.models.extractors import CNNLSTMFeatureExtractor, Unflattened

Chunk = tuple[Batch, Tensor]
"""Rows and the weight of each in the loss."""


class ComposedSAC:
    """Networks, optimisers and update of one agent. `front` makes the extractor that reads a state as a sequence of `shape`.

    `micro_batch` splits each update's rows, so that only so many are differentiated at once. `entropy_per_decision` counts
    one decision's entropy at the bootstrapped state whatever time the row spans, which is right for n-step rows.
    Raises ConfigError when `device` is not there.
    """

    def __init__(
        self,
        state_dim: int,
        action_dim: int,
        config: SACConfig,
        rng: np.random.Generator,
        options: Options,
        shape: Sequence[int] | None = None,
        front: Callable[[], CNNLSTMFeatureExtractor] | None = None,
        micro_batch: int | None = None,
        entropy_per_decision: bool = False,
        device: str = "cpu",
    ) -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise ConfigError("num_gpus asks for a GPU, but torch sees none; set it to 0")
        self.state_dim, self.action_dim, self.config, self.rng, self.options = state_dim, action_dim, config, rng, options
        self.micro_batch, self.entropy_per_decision, self.device = micro_batch, entropy_per_decision, device
        self.estimator = options.estimator()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(rng.integers(2**63)))
            encoder = None if front is None else Unflattened(shape or (), front())
            width = state_dim if encoder is None else encoder.sequence.output_dim
            self.actor = GaussianActor(width, action_dim, config.policy_hiddens).to(device)
            critic = DressedCritic(width, action_dim, config.q_hiddens, 2, self.estimator.count, options.dressing(), encoder)
        self.critic = critic.to(device)
        self.bootstrap: Bootstrap = Joint() if options.crossq else Polyak(self.critic, config.tau)
        self.log_alpha = nn.Parameter(torch.tensor(math.log(config.alpha), device=device))
        self.target_entropy = -float(action_dim) if config.target_entropy == "auto" else float(config.target_entropy)
        self.updates = 0
        rate, decay = config.learning_rate, config.weight_decay
        self._actor_step = adam(self.actor.parameters(), config.actor_lr or rate, decay)
        self._critic_step = adam(self.critic.parameters(), config.critic_lr or rate, decay)
        self._alpha_step = adam([self.log_alpha], config.alpha_lr or rate)
        modules = {"actor": self.actor, "critic": self.critic, **self.bootstrap.modules()}
        steps = {"actor": self._actor_step, "critic": self._critic_step, "alpha": self._alpha_step}
        self._parts = Parts(modules, {"log_alpha": self.log_alpha}, steps)

    def update(self, rows: Rows) -> dict[str, float]:
        """One step of critic, actor and temperature; raises Diverged, without that step, when a number is not finite."""
        return self.update_weighted(rows, np.ones(len(rows.reward), np.float32))[0]

    def update_weighted(self, rows: Rows, weights: Floats) -> tuple[dict[str, float], Floats]:
        """The same with a weight (n,) on each row's critic loss; also the rows' absolute TD errors (n,)."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(self.rng.integers(2**63)))
            info, errors = self._update(list(self._chunks(rows, weights)), len(rows.reward))
        self.updates += 1
        values = torch.stack([value.float() for value in info.values()]).tolist()
        return dict(zip(info, values, strict=True)), errors.cpu().numpy()

    def _chunks(self, rows: Rows, weights: Floats) -> Iterator[Chunk]:
        size = self.micro_batch or len(rows.reward)
        columns = [torch.from_numpy(np.ascontiguousarray(column)).to(self.device) for column in (*rows, weights)]
        for start in range(0, len(columns[0]), size):
            *part, weight = (column[start : start + size] for column in columns)
            batch = Batch(*part)
            yield batch._replace(reward=batch.reward * self.config.reward_scale), weight

    def _update(self, chunks: list[Chunk], count: int) -> tuple[dict[str, Tensor], Tensor]:
        alpha, info = self.log_alpha.detach().exp(), {}
        errors: list[Tensor] = []
        values: list[Tensor] = []
        losses: list[Tensor] = []
        log_probs: list[Tensor] = []
        actions: list[Tensor] = []

        def judged(batch: Batch, weight: Tensor) -> Tensor:
            loss, error, value = self._critic_loss(batch, alpha)
            errors.append(error)
            values.append(value)
            losses.append((loss * weight).sum() / count)
            return losses[-1]

        def acted(batch: Batch) -> Tensor:
            loss, log_prob, action = self._actor_loss(batch, alpha)
            log_probs.append(log_prob)
            actions.append(action)
            losses.append(loss.sum() / count)
            return losses[-1]

        self.critic.train()
        info["critic_gradient"] = descend(self._critic_step, (judged(*c) for c in chunks), self.options.max_gradient_norm)
        info["critic_loss"] = torch.stack(losses).detach().sum()
        losses.clear()
        self.critic.train(self.bootstrap.judging)
        info["actor_gradient"] = descend(self._actor_step, (acted(batch) for batch, _ in chunks), self.options.max_gradient_norm)
        info["actor_loss"] = torch.stack(losses).detach().sum()
        log_prob = torch.cat(log_probs)
        loss, more = temperature_loss(self.log_alpha, log_prob, self.target_entropy)
        if self.config.automatic_entropy_tuning:
            descend(self._alpha_step, [loss])
        self.bootstrap.follow(self.critic)
        missed, value, action = torch.cat(errors), torch.cat(values, 1), torch.cat(actions)
        info |= more | {
            "q_mean": value.mean(),
            "q_spread": (value[0] - value[-1]).abs().mean(),
            "td_error": missed.mean(),
            "entropy": -log_prob.mean(),
            "action_mean": action.mean(),
            "action_deviation": action.std(0, correction=0).mean(),
            "action_saturation": (action.abs() > 0.99).float().mean(),
            "reward": torch.cat([batch.reward for batch, _ in chunks]).mean(),
        }
        return info, missed

    def _critic_loss(self, batch: Batch, alpha: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """By row the loss and the absolute TD error, (n,), and the members' values (members, n)."""
        with self.options.precision(self.device):
            with torch.no_grad():
                action, log_prob = self._sample(self.critic.encoder(batch.next_state))
            outputs, following = self.bootstrap.values(self.critic, batch, action)
        with torch.no_grad():
            rate = torch.ones_like(batch.elapsed) if self.entropy_per_decision else batch.elapsed
            value = self.estimator.pool(following.float()) - (alpha * rate * log_prob)[:, None]
            discount = (1 - batch.done) * self.config.gamma**batch.elapsed
            goal = batch.reward[:, None] + discount[:, None] * value
        loss, error = self.estimator.loss(outputs.float(), goal)
        return loss, error, outputs.detach().float().mean(2)

    def _actor_loss(self, batch: Batch, alpha: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """By row the loss and the log-probability, (n,), and the action (n, action_dim); the last two detached."""
        with self.options.precision(self.device):
            with torch.no_grad():
                features = self.critic.encoder(batch.state)
            action, log_prob = self._sample(features)
            outputs = self.critic.judge(features, action)
        rate = torch.ones_like(batch.elapsed) if self.entropy_per_decision else batch.elapsed
        loss = alpha * rate * log_prob - self.estimator.climb(outputs.float())
        return loss, log_prob.detach(), action.detach()

    def _sample(self, features: Tensor) -> tuple[Tensor, Tensor]:
        noise = self.rng.standard_normal((len(features), self.action_dim), np.float32)
        action, log_prob = self.actor.sample(features, torch.from_numpy(noise).to(self.device))
        return action, log_prob.float()

    def features(self, states: Floats) -> Tensor:
        """What the actor sees of states (n, state_dim)."""
        self.critic.eval()
        with torch.no_grad():
            found: Tensor = self.critic.encoder(torch.from_numpy(np.ascontiguousarray(states, np.float32)).to(self.device))
        return found.cpu()

    def act(self, states: Floats, explore: bool = False) -> Floats:
        """Actions in (-1, 1) for states (n, state_dim): the mean, or a sample."""
        self.critic.eval()
        with torch.no_grad():
            features = self.critic.encoder(torch.from_numpy(np.ascontiguousarray(states, np.float32)).to(self.device))
            action = self._sample(features)[0] if explore else self.actor.act(features)
        return action.cpu().numpy()

    def tensors(self) -> dict[str, Tensor]:
        """Everything that learning goes on from, by name. Views, not copies."""
        return {name: tensor.cpu() for name, tensor in self._parts.tensors().items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Go on from what `tensors()` gave. Raises SpecMismatch when the shapes or names are another network's."""
        self._parts.load(tensors)
