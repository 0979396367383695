"""The forward pass of an actor behind a CNN and LSTM, in numpy: sequences of cross-sections in, actions out."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from agents.core.errors import Diverged, ModelError, NotFinite, SpecMismatch

Floats = NDArray[np.float32]

SEQUENCE_FORMAT = "quartet-sequence-actor-1"
"""The one metadata key of such a payload; its value is JSON with `version`, `spec` and `shape` (time_steps, assets, features)."""


class SequenceActor:
    """One actor over (rows, time_steps, assets, features) or the same flattened. Actions are in (-1, 1) and float32."""

    def __init__(self, tensors: Mapping[str, Floats], shape: tuple[int, int, int], version: int, digest: str) -> None:
        self.shape, self.version, self.digest = shape, version, digest
        try:
            self._norm = tensors["norm.mean"], tensors["norm.deviation"]
            self._convolutions = [_windows(w, b) for w, b in _pairs(tensors, "convolutions.{}.weight", "convolutions.{}.bias")]
            self._recurrent = [
                (tensors[f"recurrent.{at}.weight_ih_l0"].T.copy(), tensors[f"recurrent.{at}.weight_hh_l0"].T.copy(), bias)
                for at, bias in enumerate(_sums(tensors, "recurrent.{}.bias_ih_l0", "recurrent.{}.bias_hh_l0"))
            ]
            self._pool = _last_step if "pool.query.weight" not in tensors else _attention(
                tensors["pool.key.weight"].T.copy(), tensors["pool.key.bias"], tensors["pool.query.weight"][0]
            )  # fmt: skip
            layers = [(tensors["output.weight"], tensors["output.bias"]), *_pairs(tensors, "{}.weight", "{}.bias")]
            self._layers = [(weight.T.copy(), bias) for weight, bias in layers]
            self._mean = tensors["mean.weight"].T.copy(), tensors["mean.bias"]
        except (KeyError, ValueError) as error:
            raise ModelError(f"the weights are not those of a sequence actor: {error}") from None

    @classmethod
    def from_payload(cls, payload: bytes, spec: str) -> "SequenceActor":
        """An actor out of safetensors bytes. Raises ModelError (not readable), SpecMismatch (another spec), Diverged (not finite)."""
        try:
            tensors = safetensors.numpy.load(payload)
            length = int.from_bytes(payload[:8], "little")
            meta = json.loads(json.loads(payload[8 : 8 + length])["__metadata__"][SEQUENCE_FORMAT])
            made_for, shape, version = meta["spec"], tuple(meta["shape"]), int(meta["version"])
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"the weights cannot be read: {error}") from None
        if made_for != spec:
            raise SpecMismatch(f"the weights were made for observation spec {made_for!r}, not {spec!r}")
        if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
            raise Diverged("a weight holds a NaN or an infinity")
        return cls(tensors, shape, version, hashlib.sha256(payload).hexdigest())

    def act(self, sequences: Floats) -> Floats:
        """tanh of the mean, (rows, actions). Raises SpecMismatch (shape), NotFinite."""
        rows, (steps, assets, features) = len(sequences), self.shape
        if sequences.dtype != np.float32 or sequences.size != rows * math.prod(self.shape):
            raise SpecMismatch(f"sequences must be float32 (rows, {steps}, {assets}, {features}), not {sequences.dtype} {sequences.shape}")
        mean, deviation = self._norm
        with np.errstate(invalid="ignore", over="ignore"):
            values = ((sequences.reshape(rows, -1) - mean) / deviation).reshape(rows * steps, assets, features)
            for weight, bias in self._convolutions:
                values = _convolve(values, weight, bias)
            values = values.transpose(0, 2, 1).reshape(rows, steps, -1)
            for inputs, state, bias in self._recurrent:
                values = _remember(values, inputs, state, bias)
            values = self._pool(values)
            for weight, bias in self._layers:
                values = np.maximum(values @ weight + bias, 0)
            weight, bias = self._mean
            actions: Floats = np.tanh(values @ weight + bias)
        if not math.isfinite(float(actions.sum())):
            raise NotFinite("the policy's action is not finite; its observation is not")
        return actions


def _pairs(tensors: Mapping[str, Floats], first: str, second: str) -> list[tuple[Floats, Floats]]:
    found: list[tuple[Floats, Floats]] = []
    while first.format(len(found)) in tensors:
        found.append((tensors[first.format(len(found))], tensors[second.format(len(found))]))
    return found


def _sums(tensors: Mapping[str, Floats], first: str, second: str) -> list[Floats]:
    return [one + two for one, two in _pairs(tensors, first, second)]


def _windows(weight: Floats, bias: Floats) -> tuple[Floats, Floats]:
    """torch's (outputs, inputs, 3) as one matrix (3 inputs, outputs), for three neighbours laid side by side."""
    outputs, inputs, width = weight.shape
    return np.ascontiguousarray(weight.transpose(2, 1, 0).reshape(width * inputs, outputs)), bias


def _convolve(values: Floats, weight: Floats, bias: Floats) -> Floats:
    """ReLU of a convolution of width 3 across the assets, zeros beyond the ends: (n, assets, inputs) -> (n, assets, outputs)."""
    padded = np.pad(values, ((0, 0), (1, 1), (0, 0)))
    beside = np.concatenate((padded[:, :-2], padded[:, 1:-1], padded[:, 2:]), axis=2)
    maps: Floats = np.maximum(beside @ weight + bias, 0)
    return maps


def _remember(values: Floats, inputs: Floats, state: Floats, bias: Floats) -> Floats:
    """An LSTM over (rows, steps, inputs) -> its hidden states (rows, steps, units). Gates as torch orders them: i, f, g, o."""
    rows, steps, _ = values.shape
    units = state.shape[0]
    hidden, cell = np.zeros((rows, units), np.float32), np.zeros((rows, units), np.float32)
    given = values @ inputs + bias
    found = np.empty((rows, steps, units), np.float32)
    for step in range(steps):
        gates = given[:, step] + hidden @ state
        let_in, keep, show = (_sigmoid(gates[:, at * units : (at + 1) * units]) for at in (0, 1, 3))
        cell = keep * cell + let_in * np.tanh(gates[:, 2 * units : 3 * units])
        hidden = show * np.tanh(cell)
        found[:, step] = hidden
    return found


def _last_step(values: Floats) -> Floats:
    return values[:, -1]


def _attention(key: Floats, bias: Floats, query: Floats) -> Callable[[Floats], Floats]:
    """(rows, steps, units) -> (rows, units), the steps weighted by softmax(query tanh(key value))."""

    def pool(values: Floats) -> Floats:
        scores = np.tanh(values @ key + bias) @ query
        weights = np.exp(scores - scores.max(1, keepdims=True))
        weights /= weights.sum(1, keepdims=True)
        pooled: Floats = (weights[:, None] @ values)[:, 0]
        return pooled

    return pool


def _sigmoid(values: Floats) -> Floats:
    squashed: Floats = np.float32(0.5) * (np.tanh(np.float32(0.5) * values) + np.float32(1))
    return squashed
