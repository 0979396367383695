"""A critic of composed parts: an encoder in front, dressings around the layers, several outputs for each judge."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from agents.models.dressings import PLAIN, Dressing
from agents.models.layers import EnsembleLinear


class DressedCritic(nn.Module):
    """(rows, state_dim), (rows, action_dim) -> (members, rows, outputs).

    `encoder` maps states to (rows, features) and is learned by the critic's loss alone; the actor sees its features detached.
    """

    def __init__(
        self,
        features: int,
        action_dim: int,
        hidden_sizes: Sequence[int] = (256, 256),
        members: int = 2,
        outputs: int = 1,
        dressing: Dressing = PLAIN,
        encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        sizes = [features + action_dim, *hidden_sizes]
        self.encoder = encoder or nn.Identity()
        self.inlet = dressing.inlet(members, sizes[0])
        steps = list(pairwise(sizes))
        self.layers = nn.ModuleList(EnsembleLinear(members, before, after) for before, after in steps)
        self.inner = nn.ModuleList(dressing.inner(members, width) for width in sizes[1:])
        self.outer = nn.ModuleList(dressing.outer(members, width) for width in sizes[1:])
        self.output = EnsembleLinear(members, sizes[-1], outputs)
        self.members = members

    def forward(self, state: Tensor, action: Tensor) -> Tensor:
        return self.judge(self.encoder(state), action)

    def judge(self, features: Tensor, action: Tensor) -> Tensor:
        """As `forward`, from what the encoder made of the state."""
        values = self.inlet(torch.cat((features, action), -1).expand(self.members, -1, -1))
        for layer, inner, outer in zip(self.layers, self.inner, self.outer, strict=True):
            values = outer(functional.relu(inner(layer(values))))
        output: Tensor = self.output(values)
        return output
