"""The three losses of SAC. Each returns (loss, info); the caller steps and logs.

Elapsed time: `elapsed` is dt / tau, the time from a row's state to its next state in units of the agent's nominal cadence.
The discount is gamma ** elapsed, and entropy is a rate: alpha * elapsed is what one decision earns per nat. The time until
the decision after next is not in the row, so the row's own elapsed time stands for it. With elapsed = 1 this is plain SAC.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from agents.models.actors import GaussianActor
from agents.models.critics import TwinCritic

Info = dict[str, Tensor]


class Batch(NamedTuple):
    """Rows of experience: state (n, s), action (n, a), reward (n,), next_state (n, s), done (n,), elapsed (n,).

    `done` is 1 only where the world ended (termination). A row cut off by a time limit has done = 0 and its true next state,
    so that its value is still bootstrapped.
    """

    state: Tensor
    action: Tensor
    reward: Tensor
    next_state: Tensor
    done: Tensor
    elapsed: Tensor


def soft_target(actor: GaussianActor, target: TwinCritic, batch: Batch, alpha: Tensor, gamma: float, noise: Tensor) -> Tensor:
    """r + (1 - done) gamma^elapsed (min Q'(s', a') - alpha elapsed log pi(a'|s')), (n,). Haarnoja et al. 2018, eq. 6."""
    with torch.no_grad():
        action, log_prob = actor.sample(batch.next_state, noise)
        value = target(batch.next_state, action).amin(0) - alpha * batch.elapsed * log_prob
        target_value: Tensor = batch.reward + (1 - batch.done) * gamma**batch.elapsed * value
        return target_value


def critic_loss(critic: TwinCritic, batch: Batch, target: Tensor) -> tuple[Tensor, Info]:
    """Half the squared error to `target` (n,), averaged over rows and summed over the critics."""
    values = critic(batch.state, batch.action)
    error = values - target
    loss = 0.5 * error.square().mean(1).sum()
    info = {
        "critic_loss": loss.detach(),
        "q_mean": values.detach().mean(),
        "q_spread": (values[0] - values[-1]).detach().abs().mean(),
        "td_error": error.detach().abs().mean(),
    }
    return loss, info


def actor_loss(
    actor: GaussianActor, critic: TwinCritic, batch: Batch, alpha: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor, Info]:
    """Mean of alpha elapsed log pi(a|s) - min Q(s, a); also the log-probabilities (n,), detached, for the temperature."""
    action, log_prob = actor.sample(batch.state, noise)
    loss = (alpha * batch.elapsed * log_prob - critic(batch.state, action).amin(0)).mean()
    spread = action.detach()
    info = {
        "actor_loss": loss.detach(),
        "entropy": -log_prob.detach().mean(),
        "action_mean": spread.mean(),
        "action_deviation": spread.std(0, correction=0).mean(),
        "action_saturation": (spread.abs() > 0.99).float().mean(),
    }
    return loss, log_prob.detach(), info


def temperature_loss(log_alpha: Tensor, log_prob: Tensor, target_entropy: float) -> tuple[Tensor, Info]:
    """-log alpha (log pi + target entropy): raises alpha while the policy's entropy (nats a decision) is below its target."""
    loss = -(log_alpha * (log_prob + target_entropy).mean())
    return loss, {"temperature_loss": loss.detach(), "alpha": log_alpha.detach().exp()}
