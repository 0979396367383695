"""An ensemble's forward pass in numpy: the members' mean actions, weighted."""

import json
from collections.abc import Mapping

import numpy as np

from agents.core.errors import ModelError
from agents.serving.actors import FORMAT, Actors, Floats


class EnsembleActors:
    """Several actors over the same state that act as one. Actions are in (-1, 1) and float32."""

    def __init__(self, actors: Actors, weights: Mapping[str, float]) -> None:
        if set(weights) != set(actors.sizes) or min(weights.values()) < 0 or abs(sum(weights.values()) - 1) > 1e-6:
            raise ModelError(f"the ensemble's weights {dict(weights)} do not fit its members {', '.join(actors.sizes)}")
        if len(set(actors.sizes.values())) != 1:
            raise ModelError("the ensemble's members differ in their states or actions")
        self.actors, self.weights = actors, {name: np.float32(weight) for name, weight in weights.items()}

    @classmethod
    def from_payload(cls, payload: bytes, spec: str) -> "EnsembleActors":
        """Members and weights out of safetensors bytes. Raises ModelError, SpecMismatch and Diverged as `Actors` does."""
        actors = Actors.from_payload(payload, spec)
        length = int.from_bytes(payload[:8], "little")
        meta = json.loads(json.loads(payload[8 : 8 + length])["__metadata__"][FORMAT])
        weights = meta.get("ensemble")
        if not isinstance(weights, dict) or not all(isinstance(weight, float) for weight in weights.values()):
            raise ModelError("the weights are not those of an ensemble")
        return cls(actors, weights)

    @property
    def version(self) -> int:
        return self.actors.version

    @property
    def digest(self) -> str:
        return self.actors.digest

    def act(self, matrix: Floats) -> Floats:
        """Actions (rows, actions) for states (rows, columns). Raises SpecMismatch (shape), NotFinite."""
        total = np.zeros((len(matrix), next(iter(self.actors.sizes.values()))[1]), np.float32)
        for name, weight in self.weights.items():
            total += weight * self.actors.act(name, matrix)
        return total
