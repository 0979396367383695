"""Weights of single agents as one set that the engine takes: who is not named keeps its prior."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import safetensors.numpy

from agents.core.errors import ConfigError, ModelError
from agents.jobs.weight_files import load_weights
from agents.market.observation import ACTION_SIZES, SPEC_HASH, STATE_SIZES
from agents.serving.actors import FORMAT, Actors


def joined(weights: Mapping[str, bytes], version: int = 1) -> bytes:
    """One payload out of payloads by agent; each must hold the agent that it is given for.

    Agents that are not given act 0, which is their analytic prior. Raises ModelError, SpecMismatch or Diverged for weights that
    cannot serve, and ModelError where two networks differ in depth.
    """
    tensors: dict[str, np.ndarray] = {}
    for agent, payload in weights.items():
        if agent not in STATE_SIZES:
            raise ModelError(f"there is no agent {agent!r}; weights are for {', '.join(STATE_SIZES)}")
        Actors.from_payload(payload, SPEC_HASH)
        own = {name: tensor for name, tensor in safetensors.numpy.load(payload).items() if name.startswith(f"{agent}.")}
        if not own:
            raise ModelError(f"the weights given for {agent} hold no {agent}")
        tensors |= own
    depths = {sum(name.startswith(f"{agent}.") and name.endswith(".weight") for name in tensors) - 2 for agent in weights}
    if len(depths) > 1:
        raise ModelError(f"the networks differ in depth ({sorted(depths)} hidden layers), and one decision needs them equal")
    depth = depths.pop() if depths else 1
    for agent in STATE_SIZES:
        if agent not in weights:
            tensors |= _prior(agent, depth)
    return safetensors.numpy.save(tensors, {FORMAT: json.dumps({"version": version, "spec": SPEC_HASH})})


def _prior(agent: str, depth: int, width: int = 1) -> dict[str, np.ndarray]:
    """A network of zeros: its action is 0 whatever it sees."""
    inputs = [STATE_SIZES[agent], *[width] * depth]
    shapes = {str(at): (width, inputs[at]) for at in range(depth)}
    shapes |= dict.fromkeys(("mean", "log_std"), (ACTION_SIZES[agent], width))
    made = {f"{agent}.{layer}.weight": np.zeros(shape, np.float32) for layer, shape in shapes.items()}
    return made | {f"{agent}.{layer}.bias": np.zeros(shape[0], np.float32) for layer, shape in shapes.items()}


def complete(payload: bytes) -> bytes:
    """The same weights with the priors of the agents that they lack. Raises what `joined` does."""
    held = Actors.from_payload(payload, SPEC_HASH).sizes
    return payload if set(held) >= set(STATE_SIZES) else joined(dict.fromkeys(held, payload))


def read_weights(texts: Sequence[str]) -> dict[str, bytes] | bytes | None:
    """Payloads from paths: `PATH` for all agents together, or `AGENT=PATH` for one each; None for none.

    A path is a file of weights or the folder of a training run. Raises ConfigError for a path without weights and for a mixture, and
    what `load_weights` raises for weights that cannot serve.
    """
    named = [text.partition("=") for text in texts]
    single = [text for text in texts if text.partition("=")[0] not in STATE_SIZES]
    if not texts:
        return None
    if len(single) == len(texts) == 1:
        return complete(load_weights(Path(texts[0])))
    if single:
        agents = ", ".join(STATE_SIZES)
        raise ConfigError(f"--weights {single[0]}: give one path for all agents, or AGENT=PATH for each (agents are {agents})")
    return {agent: load_weights(Path(path)) for agent, _, path in named}
