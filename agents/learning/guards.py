"""Whether an actor may be let out: what it does on probe states, and how far that is from what acts now.

Takes weights by the names of a payload (`0.weight` ... `mean`, `log_std`, torch's orientation), for raw states.
"""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional

from agents.core.errors import ConfigError, ModelError
from agents.models.actors import LOG_STD_MAX, LOG_STD_MIN

Weights = dict[str, Tensor]

SATURATED = 0.99
_DORMANT = 0.025
"""A unit whose mean activity is below this share of its layer's. Sokar et al. 2023."""
_HALVINGS = 8
_QUANTILES = torch.special.ndtri((torch.arange(32, dtype=torch.float64) + 0.5) / 32).float()
"""Equally likely standard normal numbers, so that an entropy needs no chance."""


class Refused(ModelError):
    """A candidate is unfit to act; the message says which agent's and why."""


@dataclass(frozen=True, slots=True)
class Guards:
    """Bounds on a candidate. The first two shorten the step towards it, the others refuse it."""

    max_drift: float = 0.25
    """Root mean square change of the mean action between two publications; actions span 2."""
    max_divergence: float = 5.0
    """Kullback-Leibler divergence from the acting policy, nats per action component: a tenth of the spread costs 1.8."""
    max_saturation: float = 0.5
    """Share of mean actions beyond .99, where the squashing leaves no gradient to come back by."""
    min_entropy: float = -5.0
    """Nats per action component; the automatic target is -1, and no squashed policy is above .69."""
    max_dormant: float = 0.95
    """Share of hidden units that hardly ever fire. Sokar et al. 2023."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if not (value > 0 or (one.name == "min_entropy" and math.isfinite(value))):
                raise ConfigError(f"{one.name} must be above 0, not {value}")

    def judge(self, agent: str, health: dict[str, float]) -> None:
        """Raises Refused for what `examine` found."""
        for name, words, wrong in (
            ("policy_saturation", "of its mean actions are saturated", health["policy_saturation"] > self.max_saturation),
            ("policy_entropy", "nats per action component: its entropy has collapsed", health["policy_entropy"] < self.min_entropy),
            ("dormant_share", "of its hidden units are dormant", health["dormant_share"] > self.max_dormant),
        ):
            if wrong:
                raise Refused(f"the {agent} candidate was refused: {health[name]:.3g} {words}")

    def approach(self, last: Weights, new: Weights, states: Tensor) -> tuple[Weights, float, float]:
        """The furthest point on the way from `last` to `new` within both bounds on `states`, its drift and its divergence."""
        share = 1.0
        if not any(last[f"mean.{kind}"].any() for kind in ("weight", "bias")):
            last = prior(new)  # On the prior any trunk will do, and the way from the candidate's own is straight.
        before = policy(last, states)
        for _ in range(_HALVINGS):
            moved = new if share == 1.0 else {name: torch.lerp(last[name], new[name], share) for name in new}
            after = policy(moved, states)
            drift = float((torch.tanh(after[0]) - torch.tanh(before[0])).square().mean().sqrt())
            apart = divergence(before, after)
            if drift <= self.max_drift and apart <= self.max_divergence:
                return moved, drift, apart
            share /= 2
        return last, 0.0, 0.0


def prior(weights: Weights) -> Weights:
    """The same trunk with heads of zeros: every mean action is 0, which is the prior, with deviation 1."""
    return {name: torch.zeros_like(tensor) if name.startswith(("mean", "log_std")) else tensor for name, tensor in weights.items()}


def hidden(weights: Weights, states: Tensor) -> list[Tensor]:
    """Each hidden layer's outputs (rows, units) for raw states (rows, size)."""
    values, found = states, []
    for at in range((len(weights) - 4) // 2):
        values = torch.relu(functional.linear(values, weights[f"{at}.weight"], weights[f"{at}.bias"]))
        found.append(values)
    return found


def policy(weights: Weights, states: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log standard deviation before the squashing, (rows, actions) each."""
    return _heads(weights, hidden(weights, states)[-1])


def _heads(weights: Weights, features: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_std = (functional.linear(features, weights[f"{head}.weight"], weights[f"{head}.bias"]) for head in ("mean", "log_std"))
    return mean, log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)


def divergence(one: tuple[Tensor, Tensor], two: tuple[Tensor, Tensor]) -> float:
    """KL(two || one) in nats per action component, averaged over rows; the squashing, being one-to-one, changes nothing of it."""
    (mean_1, log_1), (mean_2, log_2) = one, two
    terms = log_1 - log_2 + 0.5 * ((2 * (log_2 - log_1)).exp() + ((mean_2 - mean_1) / log_1.exp()).square() - 1)
    return float(terms.mean())


def examine(weights: Weights, states: Tensor) -> dict[str, float]:
    """An actor's state of health on raw states (rows, size): saturation and spread of its actions, life of its hidden units.

    `effective_rank` is exp of the entropy of the normalised singular values of the last hidden layer (Roy & Vetterli 2007); it
    is at most the number of rows.
    """
    layers = hidden(weights, states)
    mean, log_std = _heads(weights, layers[-1])
    raw = mean[..., None] + log_std.exp()[..., None] * _QUANTILES
    correction = 2 * (math.log(2) - raw - functional.softplus(-2 * raw))
    entropy = log_std + 0.5 * math.log(2 * math.pi * math.e) + correction.mean(-1)
    activity = [layer.mean(0) for layer in layers]
    asleep = torch.cat([one <= _DORMANT * one.mean() for one in activity])
    singular = torch.linalg.svdvals(layers[-1])
    share = singular / singular.sum().clamp(min=1e-12)
    return {
        "policy_saturation": float((torch.tanh(mean).abs() > SATURATED).float().mean()),
        "policy_entropy": float(entropy.mean()),
        "dormant_share": float(asleep.float().mean()),
        "effective_rank": float(torch.special.entr(share).sum().exp()),
    }
