"""What an algorithm learns with, by name: networks, free parameters and optimisers, and how they go into a checkpoint and back."""

from collections.abc import Iterable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from agents.core.errors import Diverged, SpecMismatch
from agents.learning.replay import Floats, Rows


class Algorithm(Protocol):
    """What SAC, its composed form and TD3 have in common."""

    state_dim: int
    action_dim: int
    updates: int

    def update(self, rows: Rows) -> dict[str, float]: ...
    def act(self, states: Floats, explore: bool = False) -> Floats: ...
    def tensors(self) -> dict[str, Tensor]: ...
    def load(self, tensors: dict[str, Tensor]) -> None: ...


class Parts:
    """Named networks, free parameters and Adam optimisers; names within are `{part}.{tensor}` and `{part}_adam.{index}.{moment}`."""

    def __init__(
        self, modules: Mapping[str, nn.Module], free: Mapping[str, nn.Parameter], optimisers: Mapping[str, torch.optim.Adam]
    ) -> None:
        self.modules, self.free, self.optimisers = dict(modules), dict(free), dict(optimisers)

    def tensors(self) -> dict[str, Tensor]:
        """Everything that learning goes on from. Views, not copies."""
        found = {name: parameter.detach() for name, parameter in self.free.items()}
        for part, module in self.modules.items():
            found |= {f"{part}.{name}": tensor for name, tensor in module.state_dict().items()}
        for part, optimiser in self.optimisers.items():
            for index, parameter in enumerate(optimiser.param_groups[0]["params"]):
                found |= {f"{part}_adam.{index}.{name}": value for name, value in optimiser.state[parameter].items()}
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors()` gave. Raises SpecMismatch when the shapes or names are another network's."""
        try:
            for part, module in self.modules.items():
                module.load_state_dict(_below(tensors, f"{part}."))
            with torch.no_grad():
                for name, parameter in self.free.items():
                    parameter.copy_(tensors[name])
        except (RuntimeError, KeyError) as error:
            raise SpecMismatch(f"the saved networks have other sizes than the configured ones: {error}") from None
        for part, optimiser in self.optimisers.items():
            for index, parameter in enumerate(optimiser.param_groups[0]["params"]):
                moments = _below(tensors, f"{part}_adam.{index}.")
                optimiser.state[parameter] = {name: moment.to(parameter.device) for name, moment in moments.items()}


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor.clone() for name, tensor in tensors.items() if name.startswith(prefix)}


def adam(parameters: Iterable[nn.Parameter], rate: float, weight_decay: float = 0.0) -> torch.optim.Adam:
    return torch.optim.Adam(parameters, lr=rate, weight_decay=weight_decay, fused=True)


def descend(optimiser: torch.optim.Adam, losses: Iterable[Tensor], largest: float = float("inf")) -> Tensor:
    """One step down the sum of `losses`, each differentiated as it comes, so that only one graph is held at a time.

    Touches this optimiser's own parameters only; the gradient's norm is clipped to `largest`. Returns the norm before.
    Raises Diverged, without a step, when a loss or a gradient is not finite.
    """
    parameters = optimiser.param_groups[0]["params"]
    total: list[Tensor] = []
    for loss in losses:
        if not torch.isfinite(loss):
            raise Diverged(f"a loss became {loss.item()}; the step was not taken")
        gradients = list(torch.autograd.grad(loss, parameters))
        if total:
            torch._foreach_add_(total, gradients)
        else:
            total = gradients
    norm: Tensor = torch.stack(torch._foreach_norm(total)).norm()
    if not torch.isfinite(norm):
        raise Diverged(f"a gradient became {norm.item()}; the step was not taken")
    if norm > largest:
        torch._foreach_mul_(total, largest / norm)
    for parameter, gradient in zip(parameters, total, strict=True):
        parameter.grad = gradient
    optimiser.step()
    return norm
