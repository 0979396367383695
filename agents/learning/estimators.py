"""How action values are represented: one number and the smaller of two, or a distribution by its quantiles."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Estimator(Protocol):
    """`outputs` are a critic's, (members, rows, count)."""

    @property
    def count(self) -> int:
        """Outputs of one member."""

    def pool(self, outputs: Tensor) -> Tensor:
        """What the members agree on for the target, (rows, values): a value, or several that stand for a distribution."""

    def loss(self, outputs: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of each row against `goal` (rows, values), and how far its mean missed, (rows,) each."""

    def climb(self, outputs: Tensor) -> Tensor:
        """What the actor wants to be large, (rows,)."""


@dataclass(frozen=True, slots=True)
class TwinMinimum:
    """Expected values; the smallest of the members damps overestimation. Fujimoto et al. 2018."""

    count: int = 1

    def pool(self, outputs: Tensor) -> Tensor:
        return outputs.amin(0)

    def loss(self, outputs: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
        error = outputs - goal
        return 0.5 * error.square().sum((0, 2)), error.detach().abs().mean((0, 2))

    def climb(self, outputs: Tensor) -> Tensor:
        return outputs.amin(0).squeeze(-1)


@dataclass(frozen=True, slots=True)
class TruncatedQuantiles:
    """Quantiles of the return, the largest left out of the target. Kuznetsov et al. 2020 (TQC): 25 of each critic, 2 dropped.

    `tail` below 1 makes the actor averse to risk: it climbs the mean of the worst `tail` of the quantiles, the conditional
    value at risk at that level (Dabney et al. 2018; Urpi et al. 2021).
    """

    count: int = 25
    drop: int = 2
    tail: float = 1.0

    def pool(self, outputs: Tensor) -> Tensor:
        members, rows, count = outputs.shape
        every = outputs.transpose(0, 1).reshape(rows, members * count).sort(1).values
        return every[:, : members * (count - self.drop)]

    def loss(self, outputs: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
        """Quantile Huber loss with threshold 1 (Dabney et al. 2018, eq. 10), summed over the members."""
        count = outputs.shape[-1]
        levels = (torch.arange(count, device=outputs.device) + 0.5) / count
        gap = goal[None, :, None, :] - outputs[..., None]
        size = gap.abs()
        huber = torch.where(size <= 1, 0.5 * gap.square(), size - 0.5)
        weight = (levels[:, None] - (gap.detach() < 0).to(gap)).abs()
        missed = (outputs.detach().mean(2) - goal.mean(1)).abs().mean(0)
        return (weight * huber).mean(3).sum(2).sum(0), missed

    def climb(self, outputs: Tensor) -> Tensor:
        if self.tail == 1:
            return outputs.mean((0, 2))
        worst = max(round(self.tail * outputs.shape[-1]), 1)
        return outputs.sort(2).values[..., :worst].mean((0, 2))
