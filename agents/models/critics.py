"""The judges: two independent action values in one batched network, so that their minimum damps overestimation."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from agents.models.layers import EnsembleMLP


class TwinCritic(nn.Module):
    """(rows, state_dim), (rows, action_dim) -> action values (members, rows). Fujimoto et al. 2018: take the minimum."""

    def __init__(self, state_dim: int, action_dim: int, hidden_sizes: Sequence[int] = (256, 256), members: int = 2) -> None:
        super().__init__()
        self.network = EnsembleMLP(members, state_dim + action_dim, hidden_sizes)

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        values: Tensor = self.network(torch.cat((state, action), -1))
        return values
