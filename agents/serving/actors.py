"""The forward pass that decides live: the four actors in numpy, without torch.

Weights arrive as safetensors and are read, never unpickled. A joint decision (one row for each agent) runs all actors as one
stack, their inputs and outputs padded with zeros to the widest, in buffers that are allocated once.
"""

import hashlib
import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from agents.core.errors import Diverged, ModelError, NotFinite, SpecMismatch

Floats = NDArray[np.float32]

FORMAT = "quartet-actors-1"
"""The one metadata key of a payload; its value is JSON with `version` and `spec`. One key, because safetensors does not keep
the order of several, and equal weights must give equal bytes."""
LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0
_NAME = re.compile(r"(?P<agent>\w+)\.(?P<layer>\d+|mean|log_std)\.(?P<kind>weight|bias)")
_quiet = partial(np.errstate, invalid="ignore", over="ignore")
"""numpy need not warn of what `_finite` raises."""


@dataclass(frozen=True, slots=True)
class _Actor:
    """One agent's layers as (weight (inputs, outputs), bias (outputs,)): hidden ones, then the two heads."""

    hidden: tuple[tuple[Floats, Floats], ...]
    mean: tuple[Floats, Floats]
    log_std: tuple[Floats, Floats]

    @property
    def sizes(self) -> tuple[int, ...]:
        return (*(weight.shape[0] for weight, _ in self.hidden), *self.mean[0].shape)

    def trunk(self, values: Floats) -> Floats:
        for weight, bias in self.hidden:
            values = values @ weight
            values += bias
            np.maximum(values, 0, out=values)
        return values


class Actors:
    """The acting policies. Actions are in (-1, 1) and float32; equal weights and inputs give equal bits."""

    def __init__(self, actors: Mapping[str, _Actor], version: int, digest: str, spec: str) -> None:
        self._actors = dict(actors)
        self.version, self.digest, self.spec = version, digest, spec
        self._silent = frozenset(agent for agent, actor in self._actors.items() if not (actor.mean[0].any() or actor.mean[1].any()))
        """Agents whose mean is 0 whatever they see: the priors."""
        self._stack = _Stack(self._actors)

    @classmethod
    def from_payload(cls, payload: bytes, spec: str) -> "Actors":
        """Actors out of safetensors bytes. Raises ModelError (not readable), SpecMismatch (made for another spec),
        Diverged (a NaN or an infinity among them)."""
        tensors, meta = _read(payload)
        if meta.get("spec") != spec:
            raise SpecMismatch(f"the weights were made for observation spec {meta.get('spec')!r}, not {spec!r}")
        if type(meta.get("version")) is not int:
            raise ModelError("the weights carry no version number")
        return cls(_assemble(tensors), meta["version"], hashlib.sha256(payload).hexdigest(), spec)

    @classmethod
    def prior(cls, sizes: Mapping[str, tuple[int, int]], hidden: Sequence[int] = (256, 256), spec: str = "") -> "Actors":
        """Actors whose every action is 0, which is the analytic prior. `sizes` is agent -> (state size, action size)."""
        actors = {}
        for agent, (state, action) in sizes.items():
            widths = [state, *hidden]
            zeros = [(np.zeros(pair, np.float32), np.zeros(pair[1], np.float32)) for pair in itertools.pairwise(widths)]
            head = np.zeros((widths[-1], action), np.float32), np.zeros(action, np.float32)
            actors[agent] = _Actor(tuple(zeros), head, head)
        return cls(actors, 0, hashlib.sha256(f"prior|{spec}|{dict(sizes)}|{tuple(hidden)}".encode()).hexdigest(), spec)

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        """agent -> (state size, action size)."""
        return {agent: (actor.sizes[0], actor.sizes[-1]) for agent, actor in self._actors.items()}

    def act(self, agent: str, matrix: Floats) -> Floats:
        """tanh of the mean, (rows, actions), for states (rows, columns). Raises SpecMismatch (shape), NotFinite."""
        actor = self._of(agent, matrix)
        weight, bias = actor.mean
        if agent in self._silent:
            return np.zeros((len(matrix), weight.shape[1]), np.float32)
        with _quiet():
            return _finite(np.tanh(actor.trunk(matrix) @ weight + bias), agent)

    def act_joint(self, states: Mapping[str, Floats]) -> dict[str, Floats]:
        """The same for one row (1, columns) of every agent at once, (1, actions) each. Raises SpecMismatch, NotFinite."""
        return self._stack.act(states)

    def sample(self, agent: str, matrix: Floats, rng: np.random.Generator, scale: float = 1.0) -> Floats:
        """Explore: tanh(mean + scale * deviation * noise), (rows, actions); the noise comes from `rng`."""
        actor = self._of(agent, matrix)
        with _quiet():
            values = actor.trunk(matrix)
            mean, log_std = (values @ weight + bias for weight, bias in (actor.mean, actor.log_std))
            deviation = np.exp(np.clip(log_std, LOG_STD_MIN, LOG_STD_MAX))
            noise = rng.standard_normal(mean.shape, np.float32)
            return _finite(np.tanh(mean + np.float32(scale) * deviation * noise), agent)

    def _of(self, agent: str, matrix: Floats) -> _Actor:
        actor = self._actors[agent]
        if matrix.ndim != 2 or matrix.shape[1] != actor.sizes[0] or matrix.dtype != np.float32:
            raise SpecMismatch(f"{agent} takes float32 (rows, {actor.sizes[0]}), not {matrix.dtype} {matrix.shape}")
        return actor


class _Stack:
    """All actors as one batched network. Padding is exact: a zero input times a zero weight adds nothing."""

    def __init__(self, actors: Mapping[str, _Actor]) -> None:
        chains = [[*actor.hidden, actor.mean] for actor in actors.values()]
        if len({len(chain) for chain in chains}) != 1:
            raise SpecMismatch("the agents' networks differ in depth; a joint decision needs them equal")
        count = len(chains)
        widths = [max(actor.sizes[at] for actor in actors.values()) for at in range(len(chains[0]) + 1)]
        self._input = np.zeros((count, 1, widths[0]), np.float32)
        self._layers: list[tuple[Floats, Floats, Floats]] = []
        for at, pair in enumerate(itertools.pairwise(widths)):
            weight, bias = np.zeros((count, *pair), np.float32), np.zeros((count, 1, pair[1]), np.float32)
            for member, chain in enumerate(chains):
                own, offset = chain[at]
                weight[member, : own.shape[0], : own.shape[1]], bias[member, 0, : own.shape[1]] = own, offset
            self._layers.append((weight, bias, np.zeros((count, 1, pair[1]), np.float32)))
        self._slots = [
            (agent, self._input[at, :, : actor.sizes[0]], self._layers[-1][2][at, :, : actor.sizes[-1]])
            for at, (agent, actor) in enumerate(actors.items())
        ]

    def act(self, states: Mapping[str, Floats]) -> dict[str, Floats]:
        for agent, slot, _ in self._slots:
            state = states[agent]
            if state.shape != slot.shape:
                raise SpecMismatch(f"{agent} takes one row (1, {slot.shape[1]}) in a joint decision, not {state.shape}")
            slot[:] = state
        values = self._input
        with _quiet():
            for weight, bias, out in self._layers[:-1]:
                np.matmul(values, weight, out=out)
                np.add(out, bias, out=out)
                values = np.maximum(out, 0, out=out)
            weight, bias, out = self._layers[-1]
            np.matmul(values, weight, out=out)
            np.add(out, bias, out=out)
            np.tanh(out, out=out)
            _finite(out, "joint")
        return {agent: view.copy() for agent, _, view in self._slots}


def _finite(actions: Floats, agent: str) -> Floats:
    if not math.isfinite(float(actions.sum())):
        raise NotFinite(f"the {agent} policy's action is not finite; its observation or weights are not")
    return actions


def _read(payload: bytes) -> tuple[dict[str, Floats], dict[str, Any]]:
    try:
        tensors = safetensors.numpy.load(payload)
        length = int.from_bytes(payload[:8], "little")
        meta = json.loads(json.loads(payload[8 : 8 + length]).get("__metadata__", {})[FORMAT])
    except (SafetensorError, ValueError) as error:
        raise ModelError(f"the weights cannot be read: {error}") from None
    except KeyError:
        raise ModelError(f"the weights are not of format {FORMAT!r}") from None
    if not isinstance(meta, dict):
        raise ModelError(f"the weights are not of format {FORMAT!r}")
    for name, tensor in tensors.items():
        if tensor.dtype != np.float32:
            raise ModelError(f"weight {name} is {tensor.dtype}, not float32")
        if not np.isfinite(tensor).all():
            raise Diverged(f"weight {name} holds a NaN or an infinity")
    return tensors, meta


def _assemble(tensors: Mapping[str, Floats]) -> dict[str, _Actor]:
    found: dict[str, dict[str, dict[str, Floats]]] = {}
    for name, tensor in tensors.items():
        match = _NAME.fullmatch(name)
        if match is None:
            raise ModelError(f"weight {name!r} has no place in an actor")
        found.setdefault(match["agent"], {}).setdefault(match["layer"], {})[match["kind"]] = tensor
    actors = {}
    for agent in sorted(found):
        layers = found[agent]
        order = [str(at) for at in range(len(layers) - 2)] + ["mean", "log_std"]
        try:
            pairs = [(np.ascontiguousarray(layers[at]["weight"].T), layers[at]["bias"]) for at in order]
        except KeyError as missing:
            raise ModelError(f"the weights of {agent} lack layer or part {missing}") from None
        *hidden, mean, log_std = pairs
        chain = [*hidden, mean]
        fits = all(one[0].shape[1] == two[0].shape[0] for one, two in itertools.pairwise(chain))
        if not hidden or not fits or log_std[0].shape != mean[0].shape or any(w.shape[1:] != b.shape for w, b in pairs):
            raise ModelError(f"the layers of {agent} do not fit together")
        actors[agent] = _Actor(tuple(hidden), mean, log_std)
    if not actors:
        raise ModelError("the weights hold no actor")
    return actors
