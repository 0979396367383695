"""The matrix products of a hand-written backward pass, by each library at hand.

torch brings two (its default, MKL on x86, and oneDNN) and numpy a third (OpenBLAS). Which is fastest depends on the processor,
on the shapes and on which operand is transposed, sometimes by a factor of two.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Forward = Callable[[Tensor, Tensor, Tensor], Tensor]
"""values (n, inputs), weight (inputs, outputs), bias (outputs,) -> relu(values @ weight + bias), (n, outputs)."""
Back = Callable[[Tensor, Tensor], Tensor]
"""gradient (n, outputs), weight (inputs, outputs) -> gradient @ weight.T, (n, inputs)."""
Outer = Callable[[Tensor, Tensor, Tensor], None]
"""values (n, inputs), gradient (n, outputs), out (inputs, outputs): out becomes values.T @ gradient."""


def _mkl_forward(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.addmm(bias, values, weight).relu_()


def _mkl_back(gradient: Tensor, weight: Tensor) -> Tensor:
    return torch.mm(gradient, weight.t())


def _mkl_outer(values: Tensor, gradient: Tensor, out: Tensor) -> None:
    torch.mm(values.t(), gradient, out=out)


def _onednn_forward(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise.default(values, weight.t(), bias, "relu", [], "")
    return product


def _onednn_back(gradient: Tensor, weight: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise.default(gradient, weight, None, "none", [], "")
    return product


def _onednn_outer(values: Tensor, gradient: Tensor, out: Tensor) -> None:
    out.copy_(torch.ops.mkldnn._linear_pointwise.default(values.t(), gradient.t(), None, "none", [], ""))


def _openblas_forward(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    product = np.matmul(values.numpy(), weight.numpy())
    product += bias.numpy()
    return torch.from_numpy(product).relu_()


def _openblas_back(gradient: Tensor, weight: Tensor) -> Tensor:
    return torch.from_numpy(np.matmul(gradient.numpy(), weight.numpy().T))


def _openblas_outer(values: Tensor, gradient: Tensor, out: Tensor) -> None:
    np.matmul(values.numpy().T, gradient.numpy(), out=out.numpy())


def _has_onednn() -> bool:
    """The fused linear is an operator of torch's own compiler, so a build without oneDNN lacks it."""
    return hasattr(torch.ops.mkldnn, "_linear_pointwise")


FORWARD: dict[str, Forward] = {"mkl": _mkl_forward, "openblas": _openblas_forward}
BACK: dict[str, Back] = {"mkl": _mkl_back, "openblas": _openblas_back}
OUTER: dict[str, Outer] = {"mkl": _mkl_outer, "openblas": _openblas_outer}
if _has_onednn():
    FORWARD["onednn"], BACK["onednn"], OUTER["onednn"] = _onednn_forward, _onednn_back, _onednn_outer


@dataclass(frozen=True, slots=True)
class Products:
    """Which library does what, by name: keys of FORWARD, BACK and OUTER. OpenBLAS is the one with the cheapest call."""

    forward: str = "openblas"
    back: str = "openblas"
    outer: str = "openblas"
