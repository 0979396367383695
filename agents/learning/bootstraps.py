"""Where the value of the next state comes from: a copy of the critic that follows slowly, or the critic itself."""

import copy
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from agents.learning.losses import Batch
from agents.models.dressed import DressedCritic


class Bootstrap(Protocol):
    """`values` gives the critic's outputs for the batch, with gradient, and those for the next states, without."""

    judging: bool
    """Whether the critic stays in training mode while the actor learns from it."""

    def modules(self) -> Mapping[str, nn.Module]: ...
    def values(self, critic: DressedCritic, batch: Batch, next_action: Tensor) -> tuple[Tensor, Tensor]: ...
    def follow(self, critic: DressedCritic) -> None: ...


class Polyak:
    """A target network that moves by `tau` towards the critic after each update. Lillicrap et al. 2016."""

    judging = True

    def __init__(self, critic: DressedCritic, tau: float) -> None:
        self.target, self.tau = copy.deepcopy(critic).requires_grad_(False), tau

    def modules(self) -> Mapping[str, nn.Module]:
        return {"target": self.target}

    def values(self, critic: DressedCritic, batch: Batch, next_action: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            following: Tensor = self.target(batch.next_state, next_action)
        return critic(batch.state, batch.action), following

    def follow(self, critic: DressedCritic) -> None:
        with torch.no_grad():
            torch._foreach_lerp_(list(self.target.parameters()), list(critic.parameters()), self.tau)


class Joint:
    """No target network: both moments pass through the critic as one batch, whose normalisation sees them alike (CrossQ)."""

    judging = False

    def modules(self) -> Mapping[str, nn.Module]:
        return {}

    def values(self, critic: DressedCritic, batch: Batch, next_action: Tensor) -> tuple[Tensor, Tensor]:
        states, actions = torch.cat((batch.state, batch.next_state)), torch.cat((batch.action, next_action))
        now, following = critic(states, actions).chunk(2, 1)
        return now, following.detach()

    def follow(self, critic: DressedCritic) -> None:
        pass
