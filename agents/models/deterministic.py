"""The policy without a spread: one action for each state, as TD3 learns it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from agents.models.layers import hidden_layers


class DeterministicActor(nn.Module):
    """States (rows, state_dim) -> actions in (-1, 1), (rows, action_dim). Its mean starts at zero: the untrained actor is the prior."""

    def __init__(self, state_dim: int, action_dim: int, hidden_sizes: Sequence[int] = (256, 256)) -> None:
        super().__init__()
        self.layers = hidden_layers(state_dim, hidden_sizes)
        self.mean = nn.Linear(hidden_sizes[-1], action_dim)
        nn.init.zeros_(self.mean.weight)
        nn.init.zeros_(self.mean.bias)

    def forward(self, state: Tensor) -> Tensor:
        values = state
        for layer in self.layers:
            values = functional.relu(layer(values))
        return torch.tanh(self.mean(values))
