"""Several agents as one: they share what they live through, each learns from it, and their mean actions are averaged.

Averaging reduces the variance that a single run of either algorithm has; the weights are equal, or are chosen by validation.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from agents.core.errors import ConfigError, SpecMismatch
from agents.learning import checkpoint
from agents.learning.agent import SACAgent
from agents.learning.face import Agent, Player, pack, returns
from agents.learning.replay import Floats
from agents.learning.td3_agent import TD3Agent
from agents.learning.world import Env

Weights = dict[str, float]


class EnsembleAgent(Player):
    """Members by name, with the face of one agent. By default one SAC and one TD3 with the given parameters.

    One member at a time explores, for a whole episode, in turn; every member remembers and learns. `members` maps a name to
    what makes it: called with state_dim, action_dim, seed and the remaining parameters.
    """

    def __init__(
        self,
        env: str | type[Env] | Env | None = None,
        *,
        state_dim: int | None = None,
        action_dim: int | None = None,
        members: Mapping[str, Callable[..., Agent]] | None = None,
        weights: Mapping[str, float] | None = None,
        warmup_steps: int = 100,
        updates_per_step: int = 1,
        seed: int = 0,
        **shared: Any,
    ) -> None:
        super().__init__(env, state_dim, action_dim, warmup_steps=warmup_steps, updates_per_step=updates_per_step, seed=seed)
        makers: Mapping[str, Callable[..., Agent]] = {"sac": SACAgent, "td3": TD3Agent} if members is None else members
        if not makers:
            raise ConfigError("an ensemble needs at least one member")
        sizes = {"state_dim": self.state_dim, "action_dim": self.action_dim}
        seeds = self.rng.integers(2**31, size=len(makers))
        self.members = {
            name: make(**sizes, seed=int(own), **shared) for (name, make), own in zip(makers.items(), seeds, strict=True)
        }
        self.weights: Weights = {}
        self.weigh(weights or dict.fromkeys(self.members, 1.0))
        self._turn = 0

    def weigh(self, weights: Mapping[str, float]) -> None:
        """Set the weights, by member; they are scaled to sum to 1. Raises ConfigError."""
        if set(weights) != set(self.members) or min(weights.values()) < 0 or not sum(weights.values()) > 0:
            raise ConfigError(f"weights must be at least 0, not all 0, and for {', '.join(self.members)}")
        total = sum(weights.values())
        self.weights = {name: weights[name] / total for name in self.members}

    def actions(self, states: Floats, explore: bool = False) -> Floats:
        """The weighted mean of the members' mean actions; to explore, the sample of the member whose turn it is."""
        if explore:
            acting: Agent = list(self.members.values())[self._turn % len(self.members)]
            return acting.actions(states, explore=True)
        return blend([member.actions(states) for member in self.members.values()], list(self.weights.values()))

    def remember(
        self,
        state: ArrayLike,
        action: ArrayLike,
        reward: float,
        next_state: ArrayLike,
        done: bool,
        elapsed: float = 1.0,
        truncated: bool = False,
    ) -> None:
        for member in self.members.values():
            member.remember(state, action, reward, next_state, done, elapsed, truncated)
        self._turn += done or truncated

    def learn(self) -> dict[str, float]:
        """One update of each member; figures as `{member}_{figure}`."""
        infos = {name: member.learn() for name, member in self.members.items()}
        return {f"{name}_{key}": value for name, info in infos.items() for key, value in info.items()}

    def validate(self, episodes: int = 5, seed: int = 0) -> dict[str, float]:
        """Choose the weights by the mean return of `episodes` equal starts in an environment of its own; the returns by candidate.

        Candidates are equal weights ("mean"), weights by rank ("rank": the best of three gets 3/6) and each member alone.
        Equal weights stay unless a candidate is better by more than the standard error of the difference, so that
        luck does not choose. Raises ConfigError without an environment.
        """
        if self.world is None:
            raise ConfigError("validate needs an environment")
        world = self.world.another()
        names = list(self.members)
        scores = {name: returns(world, member.actions, episodes, seed) for name, member in self.members.items()}
        ranked = sorted(names, key=lambda name: float(np.mean(scores[name])))
        candidates = {name: {one: float(one == name) for one in names} for name in names}
        candidates["rank"] = {name: float(ranked.index(name) + 1) for name in names}
        self.weigh(dict.fromkeys(names, 1.0))
        scores["mean"] = returns(world, self.actions, episodes, seed)
        self.weigh(candidates["rank"])
        scores["rank"] = returns(world, self.actions, episodes, seed)
        candidates["mean"] = dict.fromkeys(names, 1.0)
        best = max(scores, key=lambda name: float(np.mean(scores[name])))
        gain = np.subtract(scores[best], scores["mean"])
        error = float(gain.std(ddof=1)) / len(gain) ** 0.5 if len(gain) > 1 else 0.0
        self.weigh(candidates[best if float(gain.mean()) > error else "mean"])
        return {name: float(np.mean(found)) for name, found in scores.items()}

    def save(self, path: str | Path) -> None:
        """Write every member to a folder of its own below `path`, and then what joins them."""
        for name, member in self.members.items():
            member.save(Path(path) / name)
        meta = {"kind": type(self).__name__, "weights": self.weights, "steps": self.steps, "turn": self._turn}
        checkpoint.save(Path(path), {}, meta | {"rng": self.rng.bit_generator.state})

    def restore(self, path: str | Path) -> None:
        """Go on from a saved ensemble of the same members. Raises ModelError when it is damaged, SpecMismatch when it is another's."""
        meta = checkpoint.load(Path(path))[1]
        if meta["kind"] != type(self).__name__ or set(meta["weights"]) != set(self.members):
            raise SpecMismatch(f"{path} holds the members {', '.join(meta.get('weights', ()))}, not {', '.join(self.members)}")
        for name, member in self.members.items():
            member.restore(Path(path) / name)
        self.weigh(meta["weights"])
        self.steps, self._turn = int(meta["steps"]), int(meta["turn"])
        self.rng.bit_generator.state = meta["rng"]

    def payload(self, version: int = 1, spec: str = "") -> bytes:
        """The members' actors and their weights as safetensors bytes, which `agents.serving.ensemble` reads without torch."""
        return pack({name: member.weights() for name, member in self.members.items()}, version, spec, ensemble=self.weights)


def blend(actions: list[Floats], weights: list[float]) -> Floats:
    """sum of weight x action, in float32."""
    total = np.zeros_like(actions[0])
    for action, weight in zip(actions, weights, strict=True):
        total += np.float32(weight) * action
    return total
