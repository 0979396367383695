"""SAC's update for plain ReLU networks, without autograd: the same numbers as `agents.learning.sac`, sooner.

The losses are those of `agents.learning.losses`, differentiated by hand on flat vectors. Networks, optimisers, checkpoints and
the random stream are SAC's own, so either class goes on from what the other saved.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from agents.core.errors import Diverged
from agents.learning.flat import FlatAdam, FlatVector
from agents.learning.passes import Actor, Critic, Floats, Layer, Sample
from agents.learning.products import BACK, FORWARD, OUTER, Products
from agents.learning.replay import Rows
from agents.learning.sac import SAC, SACConfig
from agents.models.actors import GaussianActor

Info = dict[str, float]


class FastSAC(SAC):
    """SAC whose `update` is written by hand, on the CPU in float32. `products` says which library multiplies."""

    def __init__(
        self, state_dim: int, action_dim: int, config: SACConfig, rng: np.random.Generator, products: Products | None = None
    ) -> None:
        super().__init__(state_dim, action_dim, config, rng)
        self.products = products or Products()
        critic, target = (dict(module.named_parameters()) for module in (self.critic, self.target))
        actor = _actor_order(self.actor)
        flat_actor, flat_critic, flat_target = FlatVector(actor), FlatVector(critic), FlatVector(target)
        self._actor_adam = FlatAdam(flat_actor, actor, self._actor_step)
        self._critic_adam = FlatAdam(flat_critic, critic, self._critic_step)
        temperature = {"log_alpha": self.log_alpha}
        self._alpha_adam = FlatAdam(FlatVector(temperature), temperature, self._alpha_step)
        self._values, self._target_values = flat_critic.values, flat_target.values
        self._policy = _policy(flat_actor, self._actor_adam, len(config.policy_hiddens), self.products)
        self._critics = _members(flat_critic, self._critic_adam.gradient_of, state_dim, self.products)
        self._targets = _members(flat_target, flat_target.of, state_dim, self.products)
        self._array = np.zeros((0, 0), np.float32)
        self._inputs = torch.from_numpy(self._array)

    def gradients(self) -> dict[str, Tensor]:
        """The last update's gradients by the parameters' names. Views: the next update overwrites them."""
        parts = (("actor", self._actor_adam), ("critic", self._critic_adam), ("temperature", self._alpha_adam))
        return {f"{part}.{name}": gradient for part, adam in parts for name, gradient in adam.gradient_of.items()}

    def load(self, tensors: dict[str, Tensor]) -> None:
        super().load(tensors)
        self._actor_adam.reload()
        self._critic_adam.reload()
        self._alpha_adam.reload()

    def update(self, rows: Rows) -> Info:
        """As `SAC.update`, row by row and number by number; only rounding differs."""
        with np.errstate(all="ignore"), torch.no_grad():
            return self._update(rows)

    def _update(self, rows: Rows) -> Info:
        count, alpha = len(rows.reward), math.exp(self.log_alpha.item())
        reward = rows.reward * np.float32(self.config.reward_scale)
        inputs = self._take(rows)
        noise = self.rng.standard_normal((2 * count, self.action_dim), np.float32)
        outputs, sample = self._policy.sample(inputs[:, : self.state_dim], noise)
        price = np.float32(alpha) * rows.elapsed
        goal = self._goal(rows, reward, inputs[:count], sample, price)
        info = self._learn_values(inputs[count:], goal)
        own = sample.below(count)
        info |= self._learn_policy(inputs[count:], [values[count:] for values in outputs], own, price)
        info |= self._learn_temperature(_mean(own.log_prob), alpha)
        self._target_values.lerp_(self._values, self.config.tau)
        self.updates += 1
        return info | {"reward": _mean(reward)}

    def _take(self, rows: Rows) -> Tensor:
        """[next state, nothing yet] above [state, action], (2n, state_dim + action_dim): every network reads its own part."""
        count, states = len(rows.reward), self.state_dim
        if len(self._array) != 2 * count:
            self._array = np.zeros((2 * count, states + self.action_dim), np.float32)
            self._inputs = torch.from_numpy(self._array)
        self._array[:count, :states] = rows.next_state
        self._array[count:, :states], self._array[count:, states:] = rows.state, rows.action
        return self._inputs

    def _goal(self, rows: Rows, reward: Floats, inputs: Tensor, sample: Sample, price: Floats) -> Floats:
        """What the values should be, (n,): `losses.soft_target`. Puts the next actions into `inputs`."""
        count = len(reward)
        self._array[:count, self.state_dim :] = sample.action[:count]
        value = np.minimum(*(target.values(inputs)[1] for target in self._targets))
        value -= price * sample.log_prob[:count]
        goal: Floats = reward + (1 - rows.done) * np.float32(self.config.gamma) ** rows.elapsed * value
        return goal

    def _learn_values(self, inputs: Tensor, goal: Floats) -> Info:
        """Critic step: half the squared error to `goal`, averaged over rows and summed over the critics."""
        values = np.empty((len(self._critics), len(goal)), np.float32)
        errors = np.empty_like(values)
        for at, critic in enumerate(self._critics):
            outputs, values[at] = critic.values(inputs)
            np.subtract(values[at], goal, out=errors[at])
            critic.backward(inputs, outputs, errors[at] / np.float32(len(goal)))
        loss = _check("loss", 0.5 * float(np.vdot(errors, errors)) / len(goal))
        norm = _check("gradient", self._critic_adam.norm())
        self._critic_adam.step()
        spread = _mean(np.abs(values[0] - values[-1]))
        means = {"q_mean": _mean(values), "q_spread": spread, "td_error": _mean(np.abs(errors))}
        return {"critic_loss": loss, **means, "critic_gradient": norm}

    def _learn_policy(self, inputs: Tensor, outputs: list[Tensor], sample: Sample, price: Floats) -> Info:
        """Actor step: mean of price log pi - min Q, where price is alpha times elapsed; overwrites the actions in `inputs`."""
        count, action = len(price), sample.action
        self._array[count:, self.state_dim :] = action
        passes = [critic.values(inputs) for critic in self._critics]
        values = np.array([value for _, value in passes])
        lowest = values.argmin(0)
        loss = _check("loss", float(np.vdot(price, sample.log_prob)) / count - _mean(values.min(0)))
        slope = np.empty_like(action)
        for at, (critic, (hidden, _)) in enumerate(zip(self._critics, passes, strict=True)):
            rows = np.flatnonzero(lowest == at)
            slope[rows] = critic.action_gradient(hidden, rows)
        share = price / np.float32(count)
        raw = 2 * share[:, None] * action - slope / np.float32(count) * (1 - np.square(action))
        self._policy.backward(inputs[:, : self.state_dim], outputs, sample, raw, share)
        norm = _check("gradient", self._actor_adam.norm())
        self._actor_adam.step()
        return {"actor_loss": loss, "entropy": -_mean(sample.log_prob), **_spread(action), "actor_gradient": norm}

    def _learn_temperature(self, log_prob: float, alpha: float) -> Info:
        """Temperature step, on -log alpha (log pi + target entropy); `log_prob` is the batch's mean."""
        gradient = -(log_prob + self.target_entropy)
        if self.config.automatic_entropy_tuning:
            self._alpha_adam.gradient.fill_(_check("gradient", gradient))
            self._alpha_adam.step()
        return {"temperature_loss": math.log(alpha) * gradient, "alpha": alpha}


def _mean(values: Floats) -> float:
    return float(np.add.reduce(values, None)) / values.size


def _spread(action: Floats) -> Info:
    """Mean, deviation over the rows and share near a bound of the actions (n, actions)."""
    ones = np.ones(len(action), np.float32)
    middle = ones @ action / np.float32(len(action))
    deviation = np.sqrt(ones @ np.square(action - middle) / np.float32(len(action)))
    saturated = float(np.count_nonzero(np.abs(action) > np.float32(0.99)) / action.size)
    return {"action_mean": _mean(middle), "action_deviation": _mean(deviation), "action_saturation": saturated}


def _check(what: str, value: float) -> float:
    if not math.isfinite(value):
        raise Diverged(f"a {what} became {value}; the step was not taken")
    return value


def _actor_order(actor: GaussianActor) -> dict[str, nn.Parameter]:
    """The heads' weights and then their biases last, so that both heads are one layer."""
    named = dict(actor.named_parameters())
    heads = ("mean.weight", "log_std.weight", "mean.bias", "log_std.bias")
    return {name: named[name] for name in (*(name for name in named if name not in heads), *heads)}


def _policy(flat: FlatVector, adam: FlatAdam, depth: int, products: Products) -> Actor:
    """torch keeps these weights as (outputs, inputs), hence the transposed views."""
    hidden = []
    for at in range(depth):
        weight, bias = f"layers.{at}.weight", f"layers.{at}.bias"
        hidden.append(Layer(flat.of[weight].t(), flat.of[bias], adam.gradient_of[weight].t(), adam.gradient_of[bias]))
    weights, biases = ("mean.weight", "log_std.weight"), ("mean.bias", "log_std.bias")
    both = [flat.span(vector, *names) for vector in (flat.values, adam.gradient) for names in (weights, biases)]
    return Actor(hidden, Layer(both[0].t(), both[1], both[2].t(), both[3]), products)


def _members(flat: FlatVector, gradients: dict[str, Tensor], states: int, products: Products) -> list[Critic]:
    """The twins as two networks. Targets have no gradients: they are given their own values and never go backwards."""
    names = list(flat.of)
    pairs = list(zip(names[::2], names[1::2], strict=True))
    return [
        Critic([Layer(flat.of[w][at], flat.of[b][at, 0], gradients[w][at], gradients[b][at, 0]) for w, b in pairs], states, products)
        for at in range(len(flat.of[names[0]]))
    ]


def fastest_products(timer: Callable[[], float], state_dim: int, action_dim: int, config: SACConfig, rounds: int = 4) -> Products:
    """The libraries with which an update of these sizes is fastest here; takes about half a second at the default widths.

    Measured on whole updates, because a product that runs alone finds its operands in a cache that it would not have. `timer`
    counts up in any unit. The candidates take turns and their best times count, so that a busy machine disturbs all alike.
    """
    rng = np.random.default_rng(0)
    rows = _noise_rows(config.batch_size, state_dim, action_dim, rng)
    chosen = Products()
    for field, choices in zip(("forward", "back", "outer"), (tuple(FORWARD), tuple(BACK), tuple(OUTER)), strict=True):
        candidates = [replace(chosen, **{field: name}) for name in choices]
        learners = [FastSAC(state_dim, action_dim, config, rng, products) for products in candidates]
        for learner in learners:
            learner.update(rows)
        best = [math.inf] * len(learners)
        for _ in range(rounds):
            for at, learner in enumerate(learners):
                start = timer()
                learner.update(rows)
                best[at] = min(best[at], timer() - start)
        chosen = candidates[best.index(min(best))]
    return chosen


def _noise_rows(count: int, state_dim: int, action_dim: int, rng: np.random.Generator) -> Rows:
    state, next_state = rng.standard_normal((2, count, state_dim), np.float32)
    action = np.tanh(rng.standard_normal((count, action_dim), np.float32))
    zeros = np.zeros(count, np.float32)
    return Rows(state, action, rng.standard_normal(count, np.float32), next_state, zeros, zeros + 1)
