"""What can be put around the layers of a critic: nothing, normalisation, dropout. Each is a small layer for several members at once.

A `Dressing` says what stands before the first layer (`inlet`), between a linear layer and its ReLU (`inner`), and behind the
ReLU (`outer`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

Make = Callable[[int, int], nn.Module]
"""(members, width) -> a module that maps (members, rows, width) onto itself."""


def nothing(members: int, width: int) -> nn.Module:
    return nn.Identity()


@dataclass(frozen=True, slots=True)
class Dressing:
    inlet: Make = nothing
    inner: Make = nothing
    outer: Make = nothing


class EnsembleLayerNorm(nn.Module):
    """LayerNorm (Ba et al. 2016) over the last axis, with a scale and an offset of its own for each member."""

    def __init__(self, members: int, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(members, 1, width))
        self.offset = nn.Parameter(torch.zeros(members, 1, width))

    def forward(self, values: Tensor) -> Tensor:
        return functional.layer_norm(values, values.shape[-1:]) * self.scale + self.offset


class EnsembleBatchRenorm(nn.Module):
    """Batch renormalisation (Ioffe 2017) over the rows, by member, as CrossQ uses it.

    The limits of the correction open from plain batch normalisation (r = 1, d = 0) to r <= 3, |d| <= 5 over the first
    `settling` batches. In evaluation mode the running moments stand for the batch's.
    """

    def __init__(self, members: int, width: int, momentum: float = 0.01, settling: int = 10_000) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(members, 1, width))
        self.offset = nn.Parameter(torch.zeros(members, 1, width))
        self.momentum, self.settling = momentum, settling
        self.mean: Tensor
        self.variance: Tensor
        self.batches: Tensor
        self.register_buffer("mean", torch.zeros(members, 1, width))
        self.register_buffer("variance", torch.ones(members, 1, width))
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, values: Tensor) -> Tensor:
        if not self.training:
            return (values - self.mean) * torch.rsqrt(self.variance + 1e-3) * self.scale + self.offset
        mean, variance = values.mean(1, keepdim=True), values.var(1, keepdim=True, correction=0)
        deviation = (variance + 1e-3).sqrt()
        with torch.no_grad():
            running = (self.variance + 1e-3).sqrt()
            share = (self.batches / self.settling).clamp(max=1.0)
            rmax, dmax = 1 + 2 * share, 5 * share
            r = (deviation / running).clamp(1 / rmax, rmax)
            d = ((mean - self.mean) / running).clamp(-dmax, dmax)
            self.mean.lerp_(mean, self.momentum)
            self.variance.lerp_(variance, self.momentum)
            self.batches += 1
        return ((values - mean) / deviation * r + d) * self.scale + self.offset


PLAIN = Dressing()
LAYER_NORM = Dressing(inner=EnsembleLayerNorm)
"""Bounds how far values can be extrapolated. Lyle et al. 2023; Ball et al. 2023 (RLPD)."""
CROSSQ = Dressing(inlet=EnsembleBatchRenorm, outer=EnsembleBatchRenorm)
"""Bhatt et al. 2024: normalised by the joint batch of both moments, a critic needs no target network."""


def droq(rate: float) -> Dressing:
    """Hiraoka et al. 2022: dropout and then LayerNorm behind every linear layer."""

    def inner(members: int, width: int) -> nn.Module:
        return nn.Sequential(nn.Dropout(rate), EnsembleLayerNorm(members, width))

    return Dressing(inner=inner)
