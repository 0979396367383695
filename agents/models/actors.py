"""The policy: a Gaussian squashed by tanh, whose mean starts at zero so that an untrained actor is the prior."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from agents.models.layers import hidden_layers

LOG_STD_MIN, LOG_STD_MAX = -20.0, 2.0
_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class GaussianActor(nn.Module):
    """States (rows, state_dim) -> actions in (-1, 1), (rows, action_dim).

    ReLU trunk, one head for the mean (initialised at zero) and one for the log standard deviation (clamped to [-20, 2]).
    Haarnoja et al. 2018, appendix C.
    """

    def __init__(self, state_dim: int, action_dim: int, hidden_sizes: Sequence[int] = (256, 256)) -> None:
        super().__init__()
        self.state_dim, self.action_dim, self.hidden_sizes = state_dim, action_dim, tuple(hidden_sizes)
        self.layers = hidden_layers(state_dim, hidden_sizes)
        self.mean = nn.Linear(hidden_sizes[-1], action_dim)
        self.log_std = nn.Linear(hidden_sizes[-1], action_dim)
        nn.init.zeros_(self.mean.weight)
        nn.init.zeros_(self.mean.bias)

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log standard deviation before the squashing, (rows, action_dim) each."""
        values = state
        for layer in self.layers:
            values = functional.relu(layer(values))
        return self.mean(values), self.log_std(values).clamp(LOG_STD_MIN, LOG_STD_MAX)

    def act(self, state: Tensor) -> Tensor:
        """The deterministic action: tanh of the mean."""
        return torch.tanh(self(state)[0])

    def sample(self, state: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Reparametrised action (rows, action_dim) and its log-probability (rows,), from standard normal `noise`."""
        mean, log_std = self(state)
        raw = mean + log_std.exp() * noise
        return torch.tanh(raw), squashed_log_prob(raw, log_std, noise)


def squashed_log_prob(raw: Tensor, log_std: Tensor, noise: Tensor) -> Tensor:
    """log pi(tanh(raw)) in nats, summed over the action's components; `raw = mean + exp(log_std) * noise`.

    The tanh correction log(1 - tanh(u)^2) is written 2 (log 2 - u - softplus(-2u)), which stays exact where tanh(u)
    rounds to one; an executed action is never put through atanh.
    """
    normal = -0.5 * noise.square() - log_std - _HALF_LOG_TWO_PI
    correction = 2 * (math.log(2) - raw - functional.softplus(-2 * raw))
    return (normal - correction).sum(-1)
