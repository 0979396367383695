"""The agents that users know: SAC with its buffer and options, which also plays a gymnasium environment."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from functools import partial
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from agents.core.errors import ConfigError
from agents.learning.composed import ComposedSAC
from agents.learning.face import Agent, Buffer, folded, read_weights
from agents.learning.fast import FastSAC
from agents.learning.guards import examine
from agents.learning.lenses import ObservationNorm, lenses
from agents.learning.options import Options
from agents.learning.priorities import PrioritizedReplay
from agents.learning.replay import Floats, ReplayBuffer
from agents.learning.sac import SAC, SACConfig
from agents.learning.sequence_replay import SequenceReplay
from agents.learning.world import Env
from agents.models.extractors import CNNLSTMFeatureExtractor

SEQUENCE_FORMAT = "quartet-sequence-actor-1"
"""The metadata key of a payload with an extractor, read by agents/serving/sequences."""


class SACAgent(Agent):
    """SAC with its replay buffer and, if given one, a gymnasium environment (name, class or instance).

    Without an environment give `state_dim` and `action_dim`, feed it with `remember` and call `learn`. Where observations
    are sequences, (time_steps, assets, features), a CNN and an LSTM stand in front, with `attention` over the steps behind them;
    so they do when neither an environment nor `state_dim` is given. Sequences that overlap are kept by their frames.

    `learning_rate` sets all rates that are not given. `train_batch_size` beyond `batch_size` accumulates gradients over
    several batches. `hidden_sizes` sets `policy_hiddens` and `q_hiddens`. `num_workers`, `framework`: only 0 and "torch"
    exist here, and `num_gpus` is 0 or 1. `options` are the fields of `agents.learning.options.Options`, all off by default.
    Raises ConfigError.
    """

    def __init__(
        self,
        env: str | type[Env] | Env | None = None,
        *,
        state_dim: int | None = None,
        action_dim: int | None = None,
        time_steps: int = 30,
        assets: int = 100,
        features: int = 15,
        cnn_filters: Sequence[int] = (64, 32, 16),
        lstm_units: Sequence[int] = (128, 64),
        dropout_rate: float = 0.2,
        output_dim: int = 64,
        attention: bool = False,
        learning_rate: float = 3e-4,
        actor_lr: float | None = None,
        critic_lr: float | None = None,
        alpha_lr: float | None = None,
        gamma: float = 0.99,
        tau: float = 0.005,
        init_alpha: float = 0.2,
        automatic_entropy_tuning: bool = True,
        target_entropy: float | Literal["auto"] = "auto",
        reward_scale: float = 1.0,
        n_step: int = 1,
        hidden_sizes: Sequence[int] | None = None,
        policy_hiddens: Sequence[int] = (256, 256),
        q_hiddens: Sequence[int] = (256, 256),
        weight_decay: float = 0.0,
        buffer_size: int = 1_000_000,
        batch_size: int = 256,
        train_batch_size: int | None = None,
        warmup_steps: int = 100,
        num_workers: int = 0,
        num_gpus: int = 0,
        framework: str = "torch",
        seed: int = 0,
        **options: Any,
    ) -> None:
        self.options = _options(options)
        _supported(num_workers, num_gpus, framework)
        shape = (time_steps, assets, features)
        if env is None and state_dim is None and action_dim is not None:
            state_dim, sequences = int(np.prod(shape)), True
        else:
            sequences = False
        super().__init__(
            env, state_dim, action_dim, warmup_steps=warmup_steps, updates_per_step=self.options.updates_per_step, seed=seed,
            n_step=n_step, gamma=gamma,
        )  # fmt: skip
        sequences = sequences or (self.world is not None and _is_sequence(self.world.state_shape, shape))
        self.lenses = lenses(self.state_dim, gamma, self.options.normalize_observations, self.options.scale_returns)
        self.config = SACConfig(
            learning_rate=learning_rate, actor_lr=actor_lr, critic_lr=critic_lr, alpha_lr=alpha_lr, gamma=gamma, tau=tau,
            alpha=init_alpha, automatic_entropy_tuning=automatic_entropy_tuning, target_entropy=target_entropy,
            reward_scale=reward_scale, batch_size=batch_size, policy_hiddens=tuple(hidden_sizes or policy_hiddens),
            q_hiddens=tuple(hidden_sizes or q_hiddens), weight_decay=weight_decay,
        )  # fmt: skip
        self.batch_size = batch_size if train_batch_size is None else train_batch_size
        if self.batch_size % batch_size:
            raise ConfigError(f"train_batch_size must be a multiple of batch_size, not {train_batch_size} and {batch_size}")
        self._shape = shape if sequences else None
        front = partial(CNNLSTMFeatureExtractor, *shape, cnn_filters, lstm_units, dropout_rate, output_dim, attention)
        self.sac = self._learner(front if sequences else None, n_step, num_gpus)
        self.algorithm = self.sac
        self.settings = {"config": asdict(self.config), "options": asdict(self.options)}
        self.buffer = _buffer(self.state_dim, self.action_dim, buffer_size, self.options, self._shape)

    def _learner(self, front: Callable[[], CNNLSTMFeatureExtractor] | None, n_step: int, num_gpus: int) -> SAC | ComposedSAC:
        """The update written by hand where it can be, else the composed one."""
        sizes = self.state_dim, self.action_dim, self.config, self.rng
        batch = self.config.batch_size
        if self.options.plain and front is None and n_step == 1 and self.batch_size == batch and not num_gpus:
            return FastSAC(*sizes)
        return ComposedSAC(
            *sizes, self.options, self._shape, front, batch, entropy_per_decision=n_step > 1, device="cuda" if num_gpus else "cpu"
        )

    def learn(self) -> dict[str, float]:
        if not isinstance(self.buffer, PrioritizedReplay) or not isinstance(self.sac, ComposedSAC):
            return super().learn()
        rows, weights, slots = self.buffer.sample_weighted(self.batch_size, self.rng)
        info, errors = self.sac.update_weighted(self._seen(rows), weights)
        self.buffer.learned(slots, errors)
        return info | self._look(rows)

    def health(self, states: Floats) -> dict[str, float]:
        if not isinstance(self.sac, ComposedSAC):
            return super().health(states)
        for lens in self.lenses.values():
            states = lens.states(states)
        return examine(read_weights(self.sac.actor), self.sac.features(states))

    def weights(self) -> dict[str, Tensor]:
        """The actor for raw states. Raises ConfigError for one behind a CNN and LSTM, which has a payload of its own."""
        if self._shape is not None:
            raise ConfigError("an actor behind a CNN and LSTM cannot be a member of an ensemble's payload")
        return folded(read_weights(self.sac.actor), self.lenses.values())

    def payload(self, name: str = "agent", version: int = 1, spec: str = "") -> bytes:
        """The actor as safetensors bytes; behind a CNN and LSTM it is `agents.serving.sequences` that reads them, else `.actors`."""
        if self._shape is None or not isinstance(self.sac, ComposedSAC):
            return super().payload(name, version, spec)
        norm = self.lenses.get("observation_norm")
        mean, deviation = (norm.mean, norm.deviation) if isinstance(norm, ObservationNorm) else (np.zeros(1), np.ones(1))
        tensors = {"norm.mean": torch.from_numpy(np.float32(mean)), "norm.deviation": torch.from_numpy(np.float32(deviation))}
        encoder = {name: tensor.detach().cpu().contiguous() for name, tensor in self.sac.critic.encoder.state_dict().items()}
        encoder = {name.removeprefix("sequence."): tensor for name, tensor in encoder.items()}
        meta = {"version": version, "spec": spec, "shape": self._shape}
        return safetensors.torch.save(tensors | encoder | read_weights(self.sac.actor), {SEQUENCE_FORMAT: json.dumps(meta)})


def _options(given: Mapping[str, Any]) -> Options:
    known = [field.name for field in fields(Options)]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ConfigError(f"unknown option {unknown[0]}; options are {', '.join(known)}")
    return Options(**given)


def _supported(num_workers: int, num_gpus: int, framework: str) -> None:
    if framework != "torch":
        raise ConfigError(f"framework must be torch, not {framework}")
    if num_workers != 0:
        raise ConfigError(f"num_workers must be 0, not {num_workers}: an agent plays in its own process")
    if num_gpus not in (0, 1):
        raise ConfigError(f"num_gpus must be 0 or 1, not {num_gpus}")


def _is_sequence(observed: tuple[int, ...], shape: tuple[int, int, int]) -> bool:
    """Whether the extractor belongs in front; raises ConfigError when sequences have another shape than the one configured."""
    if len(observed) != 3:
        return False
    if observed != shape:
        raise ConfigError(f"observations are sequences {observed}, but time_steps, assets and features say {shape}")
    return True


def _buffer(state_dim: int, action_dim: int, capacity: int, options: Options, shape: tuple[int, ...] | None) -> Buffer:
    """Sequences are kept by their frames, unless they are drawn by priority."""
    try:
        if shape is not None and not options.prioritized_replay:
            return SequenceReplay(shape, action_dim, capacity)
        if options.prioritized_replay:
            return PrioritizedReplay(
                state_dim, action_dim, capacity, exponent=options.priority_exponent, correction=options.priority_correction
            )
        return ReplayBuffer(state_dim, action_dim, capacity)
    except MemoryError:
        size = capacity * 8 * state_dim / 2**30
        raise ConfigError(f"buffer_size {capacity} needs {size:.0f} GiB for observations of {state_dim} numbers; make it smaller") from None
