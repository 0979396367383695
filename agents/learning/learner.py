"""The learner of all agents: experiences in, updates, and weights that are checked before anyone may act on them.

It holds one SAC and one replay ring for each agent, takes as many updates as the ratio limiter allows, and publishes actors
whose actions on recent states lie within a bounded distance of those published before. It has no clock: the process that
owns it says when to publish and when to flush.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from agents.core.errors import ConfigError, Diverged, SpecMismatch
from agents.learning import checkpoint
from agents.learning.fast import FastSAC
from agents.learning.products import Products
from agents.learning.replay import ReplayBuffer
from agents.learning.sac import SAC, SACConfig
from agents.models.actors import GaussianActor

FORMAT = "quartet-actors-1"
"""The metadata key of a payload, read by agents/serving: JSON with version and spec. Names `{agent}.{layer}.weight` and `.bias` (torch's orientation), layers 0, 1, ..., mean, log_std."""
_HALVINGS = 8


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """An agent as the learner sees it: a name, two sizes, and the hash of what the state's columns mean."""

    name: str
    state_dim: int
    action_dim: int
    hash: str = ""


@dataclass(frozen=True, slots=True)
class LearnerConfig:
    sac: SACConfig = field(default_factory=SACConfig)
    replay_buffer_size: int = 1_000_000
    """Rows kept for each agent; the file is sparse, so that only rows that exist take room."""
    minimum_rows: int = 32
    """Rows that an agent must have before it learns; small, because a market maker on one symbol gets 12 a minute."""
    updates_per_row: float = 4.0
    """At most so many updates for each new row: more wear out a network on the same data (AGENTS.md, RLPD)."""
    max_drift: float = 0.25
    """Largest root mean square change of the mean action between two publications; actions span 2."""
    probe_rows: int = 64
    """The newest states of each agent, on which the drift is measured."""

    def __post_init__(self) -> None:
        for name in ("replay_buffer_size", "minimum_rows", "updates_per_row", "max_drift", "probe_rows"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above 0, not {getattr(self, name)}")


@dataclass(frozen=True, slots=True)
class Published:
    """What went out: its number, safetensors bytes, their SHA-256, and by agent how far the mean action moved."""

    version: int
    payload: bytes
    digest: str
    drift: dict[str, float]


class Learner:
    """All agents' learning. With a `directory` it resumes what lies there and keeps rings and checkpoints in it; `products`
    says which libraries multiply.

    Raises SpecMismatch when files there were made for other specs or sizes, ModelError when no checkpoint is sound.
    """

    def __init__(
        self,
        specs: Sequence[AgentSpec],
        config: LearnerConfig | None = None,
        seed: int = 0,
        directory: Path | None = None,
        spec: str | None = None,
        products: Products | None = None,
    ) -> None:
        self.specs = {one.name: one for one in specs}
        self.config, self.directory = config or LearnerConfig(), directory
        self.spec = hashlib.sha256(repr(sorted(self.specs.items())).encode()).hexdigest() if spec is None else spec
        self.rng = np.random.default_rng(seed)
        self.version = 0
        self.notice = ""
        """What went wrong with the last checkpoint, if it was not the last one that could be resumed."""
        self.agents: dict[str, SAC] = {
            one.name: FastSAC(one.state_dim, one.action_dim, self.config.sac, self.rng, products) for one in specs
        }
        self._published = {name: _weights(sac.actor) for name, sac in self.agents.items()}
        self.rings = {one.name: self._ring(one) for one in specs}
        if directory is not None and (directory / checkpoint.CURRENT).exists():
            self._resume(directory)

    def _ring(self, spec: AgentSpec) -> ReplayBuffer:
        path = None if self.directory is None else self.directory / f"{spec.name}.ring"
        return ReplayBuffer(spec.state_dim, spec.action_dim, self.config.replay_buffer_size, path, f"{self.spec}|{spec.hash}")

    @property
    def updates(self) -> int:
        """Gradient steps taken, over all agents."""
        return sum(sac.updates for sac in self.agents.values())

    @property
    def experiences(self) -> int:
        """Rows ever added, over all agents."""
        return sum(ring.committed for ring in self.rings.values())

    def add(self, agent: str, *columns: Any) -> int:
        """Append transitions: state, action, reward, next_state, done, elapsed, time, version, as `ReplayBuffer.add` takes them.

        Raises SpecMismatch (unknown agent, wrong shape), NotFinite, OSError (disk full); then nothing was added.
        """
        if agent not in self.rings:
            raise SpecMismatch(f"no agent named {agent!r}; known are {', '.join(self.rings)}")
        return self.rings[agent].add(*columns)

    def step(self) -> dict[str, dict[str, float]] | None:
        """One update of every agent that may take one; by agent what there is to watch. None when nobody may.

        Raises Diverged; the networks are then unfit to go on, and the last checkpoint is the way back.
        """
        infos = {name: self._update(name) for name in self.agents if self._may_update(name)}
        return infos or None

    def _may_update(self, name: str) -> bool:
        ring = self.rings[name]
        limit = self.config.updates_per_row * ring.committed
        return len(ring) >= self.config.minimum_rows and self.agents[name].updates + 1 <= limit

    def _update(self, name: str) -> dict[str, float]:
        ring = self.rings[name]
        return self.agents[name].update(ring.sample(min(self.config.sac.batch_size, len(ring)), self.rng))

    def publish(self) -> Published:
        """The next version of the actors, committed to the checkpoint first so that no number is ever used twice.

        Where an actor has moved further than `max_drift`, what is published lies on the way from the last publication to
        it. Raises Diverged when weights are not finite, OSError when they cannot be saved; the last version then stands.
        """
        candidate, drift = {}, {}
        for name, sac in self.agents.items():
            candidate[name], drift[name] = self._towards(name, sac.actor)
        before = self.version, self._published
        self.version, self._published = self.version + 1, candidate
        try:
            self.save()
        except OSError:
            self.version, self._published = before
            raise
        payload = self.payload()
        return Published(self.version, payload, hashlib.sha256(payload).hexdigest(), drift)

    def payload(self) -> bytes:
        """The last published actors as safetensors bytes; equal weights and version give equal bytes."""
        named = {f"{agent}.{name}": tensor for agent, tensors in self._published.items() for name, tensor in tensors.items()}
        return safetensors.torch.save(named, {FORMAT: json.dumps({"version": self.version, "spec": self.spec})})

    def _towards(self, name: str, actor: GaussianActor) -> tuple[dict[str, Tensor], float]:
        last, new = self._published[name], _weights(actor)
        if not all(bool(torch.isfinite(tensor).all()) for tensor in new.values()):
            raise Diverged(f"the {name} actor's weights are not finite; nothing was published")
        states = torch.from_numpy(np.ascontiguousarray(self.rings[name].latest(self.config.probe_rows).state))
        if not len(states):
            return new, 0.0
        was = _act(last, states)
        share = 1.0
        for _ in range(_HALVINGS):
            moved = new if share == 1.0 else {key: torch.lerp(last[key], new[key], share) for key in new}
            drift = float((_act(moved, states) - was).square().mean().sqrt())
            if drift <= self.config.max_drift:
                return moved, drift
            share /= 2
        return last, 0.0

    def save(self) -> None:
        """Commit networks, optimisers, counts and the random stream. Raises OSError; the last checkpoint then stands."""
        if self.directory is None:
            return
        tensors = {f"{agent}/{name}": tensor for agent, sac in self.agents.items() for name, tensor in sac.tensors().items()}
        for agent, weights in self._published.items():
            tensors |= {f"{agent}/published.{name}": tensor for name, tensor in weights.items()}
        meta = {
            "spec": self.spec,
            "version": self.version,
            "updates": {name: sac.updates for name, sac in self.agents.items()},
            "rng": self.rng.bit_generator.state,
        }
        checkpoint.save(self.directory, tensors, meta)

    def _resume(self, directory: Path) -> None:
        tensors, meta, self.notice = checkpoint.load_last_good(directory)
        if meta["spec"] != self.spec or set(meta["updates"]) != set(self.agents):
            raise SpecMismatch(f"{directory} was learned for another observation spec; move it away to start anew")
        for name, sac in self.agents.items():
            own = {key.removeprefix(f"{name}/"): tensor for key, tensor in tensors.items() if key.startswith(f"{name}/")}
            published = {key.removeprefix("published."): own.pop(key) for key in list(own) if key.startswith("published.")}
            sac.load(own)
            sac.updates, self._published[name] = int(meta["updates"][name]), published
        self.version = int(meta["version"])
        self.rng.bit_generator.state = meta["rng"]

    def flush(self) -> None:
        """Make all rows safe against a power cut; takes as long as the disk does."""
        for ring in self.rings.values():
            ring.flush()

    def close(self) -> None:
        """Save and let go of the files."""
        self.save()
        for ring in self.rings.values():
            ring.close()


def average(infos: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Each figure's mean over the agents that report it."""
    names = {name for info in infos.values() for name in info}
    return {name: math.fsum(i[name] for i in infos.values() if name in i) / sum(name in i for i in infos.values()) for name in names}


def _weights(actor: GaussianActor) -> dict[str, Tensor]:
    """Copies, by the names of the payload."""
    return {name.removeprefix("layers."): tensor.clone() for name, tensor in actor.state_dict().items()}


def _act(weights: dict[str, Tensor], states: Tensor) -> Tensor:
    values = states
    for at in range((len(weights) - 4) // 2):
        values = torch.relu(torch.nn.functional.linear(values, weights[f"{at}.weight"], weights[f"{at}.bias"]))
    return torch.tanh(torch.nn.functional.linear(values, weights["mean.weight"], weights["mean.bias"]))
