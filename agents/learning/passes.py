"""Forward and backward through ReLU networks, written by hand: only the products that SAC needs, and no graph.

Three habits make it cheaper than autograd. The policy's loss needs the critics' gradient with respect to the action alone, so
no critic weight gradient is formed there. Each row's minimum comes from one critic, so each row goes backwards through that
critic alone. And both states of a row go through the policy in one product.
"""

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from agents.learning.products import BACK, FORWARD, OUTER, Products
from agents.models.actors import LOG_STD_MAX, LOG_STD_MIN

Floats = NDArray[np.float32]

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
_LOWEST, _HIGHEST = np.float32(LOG_STD_MIN), np.float32(LOG_STD_MAX)
_relu_mask = torch.ops.aten.threshold_backward


class Layer(NamedTuple):
    """One layer's weight (inputs, outputs) and bias (outputs,), and where their gradients go, in the same shapes."""

    weight: Tensor
    bias: Tensor
    weight_gradient: Tensor
    bias_gradient: Tensor


class Trunk:
    """A ReLU trunk of at least one layer."""

    def __init__(self, layers: Sequence[Layer], products: Products) -> None:
        self._layers = tuple(layers)
        self._forward, self._back, self._outer = FORWARD[products.forward], BACK[products.back], OUTER[products.outer]

    def forward(self, values: Tensor) -> list[Tensor]:
        """Each layer's output, the last one last."""
        outputs = []
        for layer in self._layers:
            values = self._forward(values, layer.weight, layer.bias)
            outputs.append(values)
        return outputs

    def backward(self, inputs: Tensor, outputs: Sequence[Tensor], gradient: Tensor) -> None:
        """Fill every layer's gradients; `gradient` of the last output is (n, width) and is overwritten."""
        for at in reversed(range(len(self._layers))):
            layer = self._layers[at]
            _relu_mask.grad_input(gradient, outputs[at], 0, grad_input=gradient)
            torch.sum(gradient, 0, out=layer.bias_gradient)
            values = outputs[at - 1] if at else inputs
            if layer.weight_gradient.is_contiguous():
                self._outer(values, gradient, layer.weight_gradient)
            else:
                self._outer(gradient, values, layer.weight_gradient.t())
            if at:
                gradient = self._back(gradient, layer.weight)

    def first_gradient(self, outputs: Sequence[Tensor], gradient: Tensor) -> Tensor:
        """Gradient of what the first layer adds up, (n, its width); `gradient` (n, width) may be an expanded row."""
        for at in reversed(range(len(self._layers))):
            gradient = _relu_mask.default(gradient, outputs[at], 0)
            if at:
                gradient = self._back(gradient, self._layers[at].weight)
        return gradient


class Critic:
    """One member of the twin critics: a trunk and a last layer with one output. Its inputs are `states` columns, then the action."""

    def __init__(self, layers: Sequence[Layer], states: int, products: Products) -> None:
        *hidden, last = layers
        self._trunk = Trunk(hidden, products)
        self._from_action = layers[0].weight[states:].numpy().T
        self._weight, self._bias = last.weight.numpy()[:, 0], last.bias.numpy()
        self._weight_gradient, self._bias_gradient = last.weight_gradient.numpy()[:, 0], last.bias_gradient.numpy()
        self._row = last.weight[:, 0]

    def values(self, inputs: Tensor) -> tuple[list[Tensor], Floats]:
        """The trunk's outputs, and the values (n,)."""
        outputs = self._trunk.forward(inputs)
        values: Floats = outputs[-1].numpy() @ self._weight
        values += self._bias
        return outputs, values

    def backward(self, inputs: Tensor, outputs: Sequence[Tensor], gradient: Floats) -> None:
        """Fill the gradients of weights and biases from that of the values, (n,)."""
        np.matmul(gradient, outputs[-1].numpy(), out=self._weight_gradient)
        self._bias_gradient[0] = gradient.sum()
        self._trunk.backward(inputs, outputs, torch.from_numpy(gradient[:, None]) * self._row)

    def action_gradient(self, outputs: Sequence[Tensor], rows: NDArray[np.int64]) -> Floats:
        """Gradient of these rows' values with respect to the action, (rows, actions)."""
        chosen = [torch.from_numpy(values.numpy().take(rows, 0)) for values in outputs]
        gradient: Floats = self._trunk.first_gradient(chosen, self._row.expand_as(chosen[-1])).numpy() @ self._from_action
        return gradient


class Sample(NamedTuple):
    """What the policy did on n rows: action (n, actions) and its log-probability (n,)."""

    action: Floats
    log_prob: Floats
    slope: Floats
    """How the action before its squashing grows with the log standard deviation, (n, actions): deviation times noise."""
    inside: NDArray[np.bool_]
    """Where the log standard deviation was not clamped, so that its gradient passes, (n, actions)."""

    def below(self, start: int) -> "Sample":
        """The rows from `start` on."""
        return Sample(self.action[start:], self.log_prob[start:], self.slope[start:], self.inside[start:])


class Actor:
    """The Gaussian policy: a trunk and, as one layer, the heads of mean and log standard deviation."""

    def __init__(self, hidden: Sequence[Layer], heads: Layer, products: Products) -> None:
        self._trunk = Trunk(hidden, products)
        self._weight, self._bias = heads.weight.numpy(), heads.bias.numpy()
        self._weight_gradient, self._bias_gradient = heads.weight_gradient.numpy().T, heads.bias_gradient.numpy()
        self._actions = len(self._bias) // 2

    def sample(self, states: Tensor, noise: Floats) -> tuple[list[Tensor], Sample]:
        """The trunk's outputs, and an action for each state from standard normal `noise` (n, actions)."""
        outputs = self._trunk.forward(states)
        heads = outputs[-1].numpy() @ self._weight
        heads += self._bias
        mean, unclamped = heads[:, : self._actions], heads[:, self._actions :]
        log_std = np.minimum(np.maximum(unclamped, _LOWEST), _HIGHEST)
        slope = np.exp(log_std) * noise
        raw = mean + slope
        return outputs, Sample(np.tanh(raw), _log_prob(raw, log_std, noise), slope, log_std == unclamped)

    def backward(self, states: Tensor, outputs: Sequence[Tensor], sample: Sample, raw: Floats, entropy: Floats) -> None:
        """Fill the gradients from that of the raw action (n, actions) and minus the log-deviation's own, `entropy` (n,)."""
        gradient = np.empty((len(raw), 2 * self._actions), np.float32)
        gradient[:, : self._actions] = raw
        gradient[:, self._actions :] = (raw * sample.slope - entropy[:, None]) * sample.inside
        np.matmul(gradient.T, outputs[-1].numpy(), out=self._weight_gradient)
        np.matmul(_ones(len(raw)), gradient, out=self._bias_gradient)
        self._trunk.backward(states, outputs, torch.from_numpy(gradient @ self._weight.T))


def _log_prob(raw: Floats, log_std: Floats, noise: Floats) -> Floats:
    """As `agents.models.actors.squashed_log_prob`; softplus(x) = max(x, 0) + log1p(exp(-|x|)), which cannot overflow."""
    twice = -2 * raw
    softplus = np.maximum(twice, 0) + np.log1p(np.exp(-np.abs(twice)))
    terms = -0.5 * np.square(noise) - log_std - twice + 2 * softplus
    total: Floats = terms @ _ones(raw.shape[1])
    total -= np.float32(raw.shape[1] * (_HALF_LOG_TWO_PI + 2 * math.log(2)))
    return total


@cache
def _ones(count: int) -> Floats:
    """numpy adds up a long narrow array an order slower than BLAS multiplies it by ones."""
    return np.ones(count, np.float32)
