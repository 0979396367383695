"""What was lived in one round of play on bars, and batches of it: a market time, a copy of the account, then one of its symbols."""

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import Diverged
from agents.learning.replay import Floats, Rows

Flags = NDArray[np.bool_]


class Playground(Protocol):
    """Copies of a market: states [E, N, columns], actions [E, N, actions], rewards [E, N]; a copy that ended starts anew at its next step."""

    @property
    def kernel(self) -> Any:
        """Its `row` [E] is the bar at which each copy stands."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Floats, dict[str, Any]]: ...
    def step(self, actions: Floats, /) -> tuple[Floats, NDArray[Any], Flags, Flags, dict[str, Any]]: ...


class Policy(Protocol):
    """Raw actions (rows, actions) for states (rows, columns)."""

    def __call__(self, states: Floats, /) -> Floats: ...


@dataclass(frozen=True, slots=True)
class Round:
    """M steps of E copies of N symbols, float32. What a copy's first step after its end led to is no transition, and is not `lived`."""

    states: Floats
    """[M + 1, E, N, columns]."""
    actions: Floats
    """[M, E, N, actions]."""
    rewards: Floats
    """[M, E, N]."""
    ended: Flags
    """[M, E]: nothing follows, because the account is ruined."""
    lived: Flags
    """[M, E, N]."""
    bars: NDArray[np.int64]
    """[M, E]: the bar at whose close each copy decided."""

    @property
    def rows(self) -> int:
        return int(self.lived.sum())

    def without(self, exogenous: NDArray[np.float64]) -> "tuple[Round, float]":
        """The same round with `b * exogenous[bar]` [T, N] taken off the rewards, and b, the least-squares multiple.

        What does not depend on actions or positions changes no policy's advantage, only its noise (Dietterich, Trimponias, Chen 2018,
        "Discovering and removing exogenous state variables and rewards for reinforcement learning").
        """
        values = np.where(self.lived, exogenous[self.bars], 0.0)
        share = float((values * self.rewards).sum() / max(float(np.square(values).sum()), 1e-300))
        return replace(self, rewards=(self.rewards - share * values).astype(np.float32)), share

    def transitions(self, scale: float, elapsed: float, closings: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """All that was lived as columns in order of time, which is that of `closings` [T] by bar; rewards times `scale`."""
        step, copy, symbol = np.nonzero(self.lived)
        order = np.argsort(self.bars[step, copy], kind="stable")
        step, copy, symbol = step[order], copy[order], symbol[order]
        return {
            "state": self.states[step, copy, symbol], "action": self.actions[step, copy, symbol],
            "reward": self.rewards[step, copy, symbol] * np.float32(scale), "next_state": self.states[step + 1, copy, symbol],
            "done": self.ended[step, copy].astype(np.float32), "elapsed": np.full(len(step), elapsed, np.float32),
            "time": closings[self.bars[step, copy]], "version": np.zeros(len(step), np.int64),
        }  # fmt: skip

    def batch(self, size: int, rng: np.random.Generator, scale: float, elapsed: float) -> Rows:
        """`size` transitions: times and copies uniformly with replacement, and a symbol of each; rewards times `scale`."""
        places = np.flatnonzero(self.lived.any(axis=2))
        drawn = places[rng.integers(0, len(places), size)]
        step, copy = np.divmod(drawn, self.ended.shape[1])
        # The n-th of a row's symbols, n uniform below how many there are.
        there = self.lived[step, copy]
        nth = (rng.random(size) * there.sum(axis=1)).astype(np.int64)
        symbol = np.argmax(np.cumsum(there, axis=1) > nth[:, None], axis=1)
        rewards = self.rewards[step, copy, symbol] * np.float32(scale)
        return Rows(
            self.states[step, copy, symbol], self.actions[step, copy, symbol], rewards, self.states[step + 1, copy, symbol],
            self.ended[step, copy].astype(np.float32), np.full(size, elapsed, np.float32),
        )  # fmt: skip


def play(ground: Playground, policy: Policy, steps: int, seed: int) -> Round:
    """One round of `steps` bars from fresh starts. Raises Diverged when the world hands on something that is not finite."""
    states, _ = ground.reset(seed=seed)
    copies, width, columns = states.shape
    seen = np.empty((steps + 1, copies, width, columns), np.float32)
    rewards = np.empty((steps, copies, width), np.float32)
    ended, lived, bars = np.zeros((steps, copies), bool), np.zeros((steps, copies, width), bool), np.zeros((steps, copies), np.int64)
    actions: Floats | None = None
    seen[0], over = states, np.zeros(copies, bool)
    for at in range(steps):
        chosen = policy(seen[at].reshape(-1, columns)).reshape(copies, width, -1)
        if actions is None:
            actions = np.empty((steps, *chosen.shape), np.float32)
        actions[at], bars[at] = chosen, ground.kernel.row
        seen[at + 1], rewards[at], terminated, truncated, info = ground.step(chosen)
        lived[at] = _listed(info, (copies, width)) & ~over[:, None]
        ended[at], over = terminated, terminated | truncated
    assert actions is not None
    if not (np.isfinite(seen).all() and np.isfinite(rewards).all()):
        raise Diverged("a state or a reward of the environment is not finite; nothing was learned from it")
    return Round(seen, actions, rewards, ended, lived, bars)


def _listed(info: dict[str, Any], shape: tuple[int, int]) -> Flags:
    """[E, N]: symbols that had a candle at the decision; where there was none nobody decided."""
    listed = info.get("listed")
    return np.ones(shape, bool) if listed is None else np.asarray(listed, bool)


class ReturnScale:
    """Root mean square of the discounted returns of all copies and symbols (Engstrom et al. 2020): the unit of rewards."""

    def __init__(self, gamma: float) -> None:
        self.gamma, self.square, self.count = gamma, 0.0, 0.0

    @property
    def value(self) -> float:
        return float(np.sqrt(self.square)) or 1.0

    def extend(self, played: Round, elapsed: float) -> None:
        """Take a round's rewards, each copy's own from its start on."""
        returns, keep = np.zeros(played.rewards.shape[1:]), self.gamma**elapsed
        for rewards, lived in zip(played.rewards.astype(np.float64), played.lived, strict=True):
            returns = np.where(lived, keep * returns + rewards, 0.0)
            if (count := float(lived.sum())) > 0:
                self.count += count
                self.square += (float(np.square(returns[lived]).mean()) - self.square) * count / self.count
