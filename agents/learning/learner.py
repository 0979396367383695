"""The learner of all agents: experiences in, updates, and weights that are checked before anyone may act on them.

It holds one SAC and one replay ring for each agent, takes as many updates as the ratio limiter allows, and publishes actors
whose actions on recent states lie within a bounded distance of those published before. It has no clock: the process that
owns it says when to publish and when to flush.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from agents.core.errors import ConfigError, Diverged, SpecMismatch
from agents.learning import checkpoint
from agents.learning.composed import ComposedSAC
from agents.learning.datasets import draw, joined, mixed
from agents.learning.fast import FastSAC
from agents.learning.guards import Guards, Weights, examine, prior
from agents.learning.options import Options
from agents.learning.priorities import PrioritizedReplay
from agents.learning.products import Products
from agents.learning.replay import Floats, ReplayBuffer
from agents.learning.sac import SAC, SACConfig
from agents.learning.scales import ColumnScale, NoScale

FORMAT = "quartet-actors-1"
"""The metadata key of a payload, read by agents/serving: JSON with version and spec. Names `{agent}.{layer}.weight` and `.bias` (torch's orientation), layers 0, 1, ..., mean, log_std."""
_APART = ("published.", "scale.")
"""What a checkpoint holds of each agent besides its SAC."""
_HEALTH_EVERY = 100
"""Updates of an agent between two looks at the life of its hidden units, which cost as much as an update."""


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
    """At most so many updates for each new row: more wear out a network on the same data (RLPD, Ball et al. 2023)."""
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    """Where networks learn; auto takes a GPU where torch sees one. On a GPU products are in bfloat16."""
    guards: Guards = field(default_factory=Guards)
    probe_rows: int = 64
    """The newest states of each agent, on which candidates are judged."""
    sample_by_time: bool = True
    """Draw market times and a row of each, because the symbols of one time are about one sample."""
    normalize_observations: bool = True
    """Without it columns of different sizes make the critic diverge (docs/learning.md, "Stability")."""
    options: Mapping[str, Options] = field(default_factory=dict)
    """By agent what is changed about its SAC. Columns are scaled here and rewards where they are made, so that the two scalings
    of the options are not for this learner."""
    accumulate: int = 1
    """Batches whose gradients make one update."""

    def __post_init__(self) -> None:
        for name in ("replay_buffer_size", "minimum_rows", "updates_per_row", "probe_rows", "accumulate"):
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
    """All agents' learning. With a `directory` it resumes what lies there and keeps rings and checkpoints in it, or without
    `keep_rows` the checkpoints alone; `products` says which libraries multiply.

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
        offline: Mapping[str, ReplayBuffer] | None = None,
        *,
        keep_rows: bool = True,
    ) -> None:
        self.specs = {one.name: one for one in specs}
        self.config, self.directory, self._keep_rows = config or LearnerConfig(), directory, keep_rows
        self.spec = hashlib.sha256(repr(sorted(self.specs.items())).encode()).hexdigest() if spec is None else spec
        self.rng = np.random.default_rng(seed)
        self.offline = dict(offline or {})
        """Rings by agent from which half of each batch is drawn; they never count as new rows."""
        self.version = 0
        self.notice = ""
        """What went wrong with the last checkpoint, if it was not the last one that could be resumed."""
        self.device = found_device(self.config.device)
        self.agents = {one.name: self._algorithm(one, products) for one in specs}
        scale = ColumnScale if self.config.normalize_observations else NoScale
        self.scales = {one.name: scale(one.state_dim) for one in specs}
        self.health: dict[str, dict[str, float]] = {name: {} for name in self.agents}
        """By agent what the last look found: share of dormant units, effective rank, saturation, entropy."""
        self._published = {name: prior(self._weights(name)) for name in self.agents}
        self.rings = {one.name: self._ring(one) for one in specs}
        self._granted = dict.fromkeys(self.agents, 0)
        """Updates by agent that were allowed besides what its rows allow."""
        self._seen = dict.fromkeys(self.agents, 0)
        """How many rows of each ring its scale has seen."""
        self._seen_offline: dict[str, str] = {}
        """By agent the fingerprint of the offline rows that its scale has seen."""
        if directory is not None and (directory / checkpoint.CURRENT).exists():
            self._resume(directory)
        for name in self.agents:
            self._measure_offline(name)
            self._measure(name)
        self._good = self._state()

    def _algorithm(self, spec: AgentSpec, products: Products | None) -> SAC | ComposedSAC:
        given = spec.state_dim, spec.action_dim, self.config.sac, self.rng
        options = self._options(spec.name)
        if options.plain and self.config.accumulate == 1 and self.device == "cpu":
            return FastSAC(*given, products)
        options = replace(options, mixed_precision=options.mixed_precision or self.device == "cuda")
        return ComposedSAC(*given, options, micro_batch=self.config.sac.batch_size, device=self.device)

    def _options(self, agent: str) -> Options:
        return self.config.options.get(agent, Options())

    def _ring(self, spec: AgentSpec) -> ReplayBuffer:
        path = self.directory / f"{spec.name}.ring" if self.directory is not None and self._keep_rows else None
        given = spec.state_dim, spec.action_dim, self.config.replay_buffer_size, path, f"{self.spec}|{spec.hash}"
        options = self._options(spec.name)
        if not options.prioritized_replay:
            return ReplayBuffer(*given)
        return PrioritizedReplay(*given, exponent=options.priority_exponent, correction=options.priority_correction)

    @property
    def updates(self) -> int:
        """Gradient steps taken, over all agents."""
        return sum(sac.updates for sac in self.agents.values())

    @property
    def experiences(self) -> int:
        """Rows ever added, over all agents."""
        return sum(ring.committed for ring in self.rings.values())

    @property
    def behind(self) -> int:
        """Updates that may be taken and were not yet, over all agents."""
        return sum(max(int(self._allowed(name)) - sac.updates, 0) for name, sac in self.agents.items() if self._may_update(name))

    def _allowed(self, name: str) -> float:
        return self.config.updates_per_row * self.rings[name].learnable + self._granted[name]

    def allow(self, agent: str, updates: int) -> None:
        """Let an agent take so many updates besides those that its rows allow: for pre-training on rows that are all there is."""
        self._granted[agent] += max(0, math.ceil(self.agents[agent].updates + updates - self._allowed(agent)))

    def add(self, agent: str, *columns: Any) -> int:
        """Append transitions: state, action, reward, next_state, done, elapsed, time, version, quarantined, as `ReplayBuffer.add` takes them.

        Raises SpecMismatch (unknown agent, wrong shape), NotFinite, OSError (disk full); then nothing was added.
        """
        if agent not in self.rings:
            raise SpecMismatch(f"no agent named {agent!r}; known are {', '.join(self.rings)}")
        count = self.rings[agent].add(*columns)
        self._measure(agent)
        return count

    def restore(self, agent: str, *columns: Any) -> int:
        """Append rows that this learner had seen before it was saved: they are in its checkpoint's scales already. Raises as `add`."""
        count = self.rings[agent].add(*columns)
        self._seen[agent] = self.rings[agent].committed
        return count

    def _measure(self, agent: str) -> None:
        """Let the scale see what the ring holds and it has not seen; what was lived under a fault is left out."""
        for rows in self.rings[agent].since(self._seen[agent]):
            self.scales[agent].extend(rows.state)
        self._seen[agent] = self.rings[agent].committed

    def _measure_offline(self, agent: str) -> None:
        """The same for the offline rows, once however often the learner resumes."""
        ring = self.offline.get(agent)
        if ring is None or self._seen_offline.get(agent) == (found := ring.fingerprint()):
            return
        for rows in ring.since(0):
            self.scales[agent].extend(rows.state)
        self._seen_offline[agent] = found

    def act(self, agent: str, states: Floats) -> Floats:
        """What the newest actor does, published or not: mean actions (rows, actions) for raw states (rows, columns)."""
        return self.agents[agent].act(self.scales[agent].states(states))

    def step(self) -> dict[str, dict[str, float]] | None:
        """One update of every agent that may take one; by agent what there is to watch. None when nobody may.

        Raises Diverged; the networks are then unfit to go on, and the last checkpoint is the way back.
        """
        infos = {name: self._update(name) for name in self.agents if self._may_update(name)}
        return infos or None

    def _may_update(self, name: str) -> bool:
        return self.rings[name].usable >= self.config.minimum_rows and self.agents[name].updates + 1 <= self._allowed(name)

    def _update(self, name: str) -> dict[str, float]:
        sac = self.agents[name]
        ring, offline = self.rings[name], self.offline.get(name)
        size, by_time = self.config.sac.batch_size * self.config.accumulate, self.config.sample_by_time
        if isinstance(ring, PrioritizedReplay) and isinstance(sac, ComposedSAC):
            info = self._update_by_priority(name, sac, ring, size)
        else:
            if offline is not None:
                rows = mixed(offline, ring, size, self.rng, by_time)
            else:
                rows = draw(ring, min(size, ring.usable), self.rng, by_time)
            info = sac.update(self.scales[name].rows(rows))
        if sac.updates % _HEALTH_EVERY == 1:
            self.health[name] = examine(self._weights(name), self._probes(name))
        return info | self.health[name]

    def _update_by_priority(self, name: str, sac: ComposedSAC, ring: PrioritizedReplay, size: int) -> dict[str, float]:
        """Online rows as they surprised; offline rows, half of the batch, as they come."""
        offline = self.offline.get(name)
        half = size // 2 if offline is not None and offline.usable else 0
        rows, weights, slots = ring.sample_weighted(min(size - half, ring.usable), self.rng)
        if offline is not None and half:
            rows = joined(rows, draw(offline, half, self.rng, self.config.sample_by_time))
            weights = np.concatenate((weights, np.ones(half, np.float32)))
        info, errors = sac.update_weighted(self.scales[name].rows(rows), weights)
        ring.learned(slots, errors[: len(slots)])
        return info

    def _probes(self, name: str) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.rings[name].latest(self.config.probe_rows).state))

    def _weights(self, name: str) -> Weights:
        """Copies of an actor's weights by the names of the payload, for raw states."""
        own = {key.removeprefix("layers."): tensor.cpu().clone() for key, tensor in self.agents[name].actor.state_dict().items()}
        return self.scales[name].fold(own)

    def publish(self) -> Published:
        """The next version of the actors, committed to the checkpoint first so that no number is ever used twice.

        Where an actor has moved further than the guards allow, what is published lies on the way from the last publication
        to it. Raises Diverged when weights are not finite, Refused when a candidate is unfit to act, OSError when they cannot
        be saved; the last version then stands.
        """
        candidate, drift = {}, {}
        for name in self.agents:
            candidate[name], drift[name] = self._candidate(name)
        before = self.version, self._published
        self.version, self._published = self.version + 1, candidate
        try:
            self.save()
        except OSError:
            self.version, self._published = before
            raise
        self._good = self._state()
        payload = self.payload()
        return Published(self.version, payload, hashlib.sha256(payload).hexdigest(), drift)

    def payload(self, *, newest: bool = False) -> bytes:
        """The last published actors, or the `newest` whether published or not, as safetensors bytes; equal ones give equal bytes."""
        actors = {agent: self._weights(agent) for agent in self.agents} if newest else self._published
        named = {f"{agent}.{name}": tensor for agent, tensors in actors.items() for name, tensor in tensors.items()}
        return safetensors.torch.save(named, {FORMAT: json.dumps({"version": self.version, "spec": self.spec})})

    def _candidate(self, name: str) -> tuple[Weights, float]:
        new, states = self._weights(name), self._probes(name)
        if not all(bool(torch.isfinite(tensor).all()) for tensor in new.values()):
            raise Diverged(f"the {name} actor's weights are not finite; nothing was published")
        if not len(states):
            return self._published[name], 0.0
        self.health[name] = examine(new, states)
        self.config.guards.judge(name, self.health[name])
        moved, drift, _ = self.config.guards.approach(self._published[name], new, states)
        return moved, drift

    def revert(self) -> None:
        """Back to the networks and optimisers of the last publication (or of the start), in memory; chance goes on, so that
        the same steps are not taken again."""
        tensors, updates = self._good
        for name, sac in self.agents.items():
            sac.load(_below(tensors, f"{name}/"))
            sac.updates = updates[name]

    def _state(self) -> tuple[dict[str, Tensor], dict[str, int]]:
        return {name: tensor.clone() for name, tensor in self._tensors().items()}, {n: sac.updates for n, sac in self.agents.items()}

    def _tensors(self) -> dict[str, Tensor]:
        return {f"{agent}/{name}": tensor for agent, sac in self.agents.items() for name, tensor in sac.tensors().items()}

    def save(self) -> None:
        """Commit networks, optimisers, counts and the random stream. Raises OSError; the last checkpoint then stands."""
        if self.directory is None:
            return
        tensors = self._tensors()
        for agent, weights in self._published.items():
            tensors |= {f"{agent}/published.{name}": tensor for name, tensor in weights.items()}
            tensors |= {f"{agent}/scale.{name}": tensor for name, tensor in self.scales[agent].tensors().items()}
        meta = {
            "spec": self.spec,
            "version": self.version,
            "updates": {name: sac.updates for name, sac in self.agents.items()},
            "seen": self._seen,
            "granted": self._granted,
            "seen_offline": self._seen_offline,
            "rng": self.rng.bit_generator.state,
        }
        checkpoint.save(self.directory, tensors, meta)

    def _resume(self, directory: Path) -> None:
        tensors, meta, self.notice = checkpoint.load_last_good(directory)
        if meta["spec"] != self.spec or set(meta["updates"]) != set(self.agents):
            raise SpecMismatch(f"{directory} was learned for another observation spec; move it away to start anew")
        for name, sac in self.agents.items():
            own = _below(tensors, f"{name}/")
            apart = {part: {key.removeprefix(part): own.pop(key) for key in list(own) if key.startswith(part)} for part in _APART}
            sac.load(own)
            self.scales[name].load(apart["scale."])
            sac.updates, self._published[name] = int(meta["updates"][name]), apart["published."]
            self._seen[name] = min(int(meta.get("seen", {}).get(name, self.scales[name].count)), self.rings[name].committed)
        self._seen_offline = dict(meta.get("seen_offline", {}))
        self._granted |= meta.get("granted", {})
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


def found_device(wished: str) -> str:
    """cpu or cuda. Raises ConfigError when cuda is asked for and torch sees none."""
    present = torch.cuda.is_available()
    if wished == "cuda" and not present:
        raise ConfigError("reinforcement_learning.device is cuda, but torch sees no GPU; set it to auto or cpu")
    return "cuda" if present and wished != "cpu" else "cpu"


def average(infos: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Each figure's mean over the agents that report it."""
    names = {name for info in infos.values() for name in info}
    return {name: math.fsum(i[name] for i in infos.values() if name in i) / sum(name in i for i in infos.values()) for name in names}


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
