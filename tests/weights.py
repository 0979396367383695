"""Actor weights for tests, in the format that the learner publishes."""

import hashlib
import json

import numpy as np
from safetensors.numpy import save

from agents.market.observation import ACTION_SIZES, AGENTS, SPEC_HASH, STATE_SIZES
from agents.serving.actors import FORMAT


def payload(version: int, seed: int = 1, hidden: int = 8, spec: str = SPEC_HASH, value: float | None = None) -> tuple[bytes, str]:
    """(safetensors bytes, SHA-256) of small random actors; `value` puts one number into every tensor."""
    rng = np.random.default_rng(seed)
    tensors: dict[str, np.ndarray] = {}
    for agent in AGENTS:
        sizes = {"0": (hidden, STATE_SIZES[agent]), "mean": (ACTION_SIZES[agent], hidden), "log_std": (ACTION_SIZES[agent], hidden)}
        for layer, shape in sizes.items():
            tensors[f"{agent}.{layer}.weight"] = (0.1 * rng.standard_normal(shape)).astype(np.float32)
            tensors[f"{agent}.{layer}.bias"] = np.zeros(shape[0], np.float32)
    if value is not None:
        for tensor in tensors.values():
            tensor.flat[0] = value
    body = save(tensors, {FORMAT: json.dumps({"version": version, "spec": spec})})
    return body, hashlib.sha256(body).hexdigest()
