"""A network's numbers in one vector, so that Adam, the target's Polyak step and a norm are one pass each."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn


class FlatVector:
    """The parameters of `named`, moved onto one vector in that order; the modules keep views of it and go on working."""

    def __init__(self, named: Mapping[str, nn.Parameter]) -> None:
        self.shapes = {name: parameter.shape for name, parameter in named.items()}
        self._starts, end = {}, 0
        for name, shape in self.shapes.items():
            self._starts[name] = end
            end += shape.numel()
        self.values = torch.zeros(end)
        self.of = self.views(self.values)
        """The parameters by name, without autograd."""
        for name, parameter in named.items():
            self.of[name].copy_(parameter.detach())
            parameter.data = self.of[name]

    def views(self, vector: Tensor) -> dict[str, Tensor]:
        """By name the part of a vector of this layout that belongs to each parameter, in its shape."""
        return {name: vector[start : start + self.shapes[name].numel()].view(self.shapes[name]) for name, start in self._starts.items()}

    def span(self, vector: Tensor, first: str, second: str) -> Tensor:
        """Two neighbours stacked along their first axis, as one view."""
        one, two = self.shapes[first], self.shapes[second]
        start = self._starts[first]
        return vector[start : start + one.numel() + two.numel()].view(one[0] + two[0], *one[1:])


class FlatAdam:
    """Adam (Kingma & Ba 2015, defaults of torch) on a flat vector; its moments are views in `optimiser`'s own state.

    `optimiser` keeps the settings and is what checkpoints know; only its arithmetic is done here, in one fused pass.
    """

    def __init__(self, flat: FlatVector, named: Mapping[str, nn.Parameter], optimiser: torch.optim.Adam) -> None:
        self._flat, self._named, self._optimiser = flat, named, optimiser
        self.gradient = torch.zeros_like(flat.values)
        self.gradient_of = flat.views(self.gradient)
        self._first, self._second = torch.zeros_like(flat.values), torch.zeros_like(flat.values)
        self._steps = torch.zeros(len(named))
        self._step, self._count, self._array = self._steps[0], self._steps.numpy(), self.gradient.numpy()
        self._link()

    def norm(self) -> float:
        """Euclidean norm of the gradient; infinite or NaN when a component is."""
        return float(np.sqrt(np.dot(self._array, self._array)))

    def step(self) -> None:
        """Take one step along the gradient."""
        settings = self._optimiser.param_groups[0]
        beta1, beta2 = settings["betas"]
        self._count += 1
        torch._fused_adam_(
            [self._flat.values], [self.gradient], [self._first], [self._second], [], [self._step],
            lr=settings["lr"], beta1=beta1, beta2=beta2, weight_decay=settings["weight_decay"], eps=settings["eps"],
            amsgrad=False, maximize=False,
        )  # fmt: skip

    def reload(self) -> None:
        """Take over the moments that were loaded into the optimiser; none means that it has not stepped yet."""
        first, second = self._flat.views(self._first), self._flat.views(self._second)
        for at, (name, parameter) in enumerate(self._named.items()):
            state = self._optimiser.state.get(parameter) or {"step": 0.0, "exp_avg": 0.0, "exp_avg_sq": 0.0}
            self._steps[at] = state["step"]
            for view, key in ((first[name], "exp_avg"), (second[name], "exp_avg_sq")):
                view[...] = state[key]
        self._link()

    def _link(self) -> None:
        first, second = self._flat.views(self._first), self._flat.views(self._second)
        for at, (name, parameter) in enumerate(self._named.items()):
            state = {"step": self._steps[at], "exp_avg": first[name], "exp_avg_sq": second[name]}
            self._optimiser.state[parameter] = state
