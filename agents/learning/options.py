"""What can be changed about SAC and is off by default, and the pieces that each choice stands for."""

from dataclasses import dataclass
from typing import Any

import torch

from agents.core.errors import ConfigError
from agents.learning.estimators import Estimator, TruncatedQuantiles, TwinMinimum
from agents.models.dressings import CROSSQ, LAYER_NORM, PLAIN, Dressing, droq


@dataclass(frozen=True, slots=True)
class Options:
    layer_norm: bool = False
    """LayerNorm between the layers of the critic."""
    droq_dropout: float = 0.0
    """Dropout in the critic, with LayerNorm (DroQ; 0.01 in the paper, with many updates a step)."""
    crossq: bool = False
    """Batch renormalisation in the critic instead of target networks."""
    quantiles: int = 0
    """Quantiles of each critic (TQC; 25 in the paper); 0 keeps expected values."""
    quantiles_dropped: int = 2
    cvar: float = 1.0
    """With quantiles: the actor climbs the mean of this worst share of them."""
    normalize_observations: bool = False
    scale_returns: bool = False
    prioritized_replay: bool = False
    priority_exponent: float = 0.6
    priority_correction: float = 0.4
    """Exponent of the importance weights (beta); it stays, as it need not reach 1 while the policy still moves."""
    max_gradient_norm: float = float("inf")
    mixed_precision: bool = False
    """Products in bfloat16; parameters, targets and losses stay float32."""
    updates_per_step: int = 1

    def __post_init__(self) -> None:
        checks = {
            "droq_dropout must be in [0, 1)": 0 <= self.droq_dropout < 1,
            "quantiles must be 0 or at least 2, and more than quantiles_dropped": not self.quantiles
            or self.quantiles > max(self.quantiles_dropped, 1),
            "quantiles_dropped must not be negative": self.quantiles_dropped >= 0,
            "cvar must be in (0, 1]": 0 < self.cvar <= 1,
            "cvar needs quantiles": self.cvar == 1 or self.quantiles > 0,
            "crossq normalises by batch; leave layer_norm and droq_dropout off": not self.crossq
            or not (self.layer_norm or self.droq_dropout),
            "priority_exponent and priority_correction must be in [0, 1]": 0 <= self.priority_exponent <= 1
            and 0 <= self.priority_correction <= 1,
            "max_gradient_norm must be above 0": self.max_gradient_norm > 0,
            "updates_per_step must be at least 1": self.updates_per_step >= 1,
        }
        for words, holds in checks.items():
            if not holds:
                raise ConfigError(words)

    @property
    def plain(self) -> bool:
        """Whether the update itself is that of plain SAC, so that the fast path can do it."""
        changed = (self.layer_norm, self.droq_dropout, self.crossq, self.quantiles, self.prioritized_replay, self.mixed_precision)
        return not any(changed) and self.max_gradient_norm == float("inf")

    def dressing(self) -> Dressing:
        if self.crossq:
            return CROSSQ
        if self.droq_dropout:
            return droq(self.droq_dropout)
        return LAYER_NORM if self.layer_norm else PLAIN

    def estimator(self) -> Estimator:
        return TruncatedQuantiles(self.quantiles, self.quantiles_dropped, self.cvar) if self.quantiles else TwinMinimum()

    def precision(self, device: str) -> Any:
        """A context in which the products run."""
        return torch.autocast(device, torch.bfloat16, enabled=self.mixed_precision)
