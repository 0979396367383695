"""The bricks of the networks: plain layers with torch's default initialisation, and the same for several members at once."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


def hidden_layers(inputs: int, hidden_sizes: Sequence[int]) -> nn.ModuleList:
    """Linear layers `inputs -> hidden_sizes[0] -> ...`; the caller puts a ReLU behind each."""
    sizes = [inputs, *hidden_sizes]
    return nn.ModuleList(nn.Linear(before, after) for before, after in pairwise(sizes))


class EnsembleLinear(nn.Module):
    """`members` independent linear layers in one batched product.

    Input (members, rows, inputs) or, shared by all, (rows, inputs); output (members, rows, outputs). Each member starts
    like `nn.Linear`: weight and bias uniform in +-1/sqrt(inputs).
    """

    def __init__(self, members: int, inputs: int, outputs: int) -> None:
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(members, 1, outputs).uniform_(-bound, bound))

    def forward(self, values: Tensor) -> Tensor:
        if values.dim() == 2:
            values = values.expand(self.weight.shape[0], -1, -1)
        return torch.baddbmm(self.bias, values, self.weight)


class EnsembleMLP(nn.Module):
    """`members` ReLU networks with one output each: (rows, inputs) -> (members, rows)."""

    def __init__(self, members: int, inputs: int, hidden_sizes: Sequence[int]) -> None:
        super().__init__()
        sizes = [inputs, *hidden_sizes, 1]
        pairs = pairwise(sizes)
        self.layers = nn.ModuleList(EnsembleLinear(members, before, after) for before, after in pairs)

    def forward(self, values: Tensor) -> Tensor:
        *hidden, last = self.layers
        for layer in hidden:
            values = functional.relu(layer(values))
        output: Tensor = last(values)
        return output.squeeze(-1)
