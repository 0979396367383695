"""Several steps as one transition, so that rewards travel faster; for offline data and simulation.

The row's elapsed time is that of its steps together, so that the learner's discount gamma ** elapsed is the right one even
for the shorter rows at the end of an episode.
"""

import math
from collections import deque
from typing import NamedTuple

from agents.core.errors import NotFinite
from agents.learning.replay import Floats


class Transition(NamedTuple):
    """What a replay buffer keeps; `done` only for a termination."""

    state: Floats
    action: Floats
    reward: float
    next_state: Floats
    done: bool
    elapsed: float = 1.0


class NStep:
    """Joins each transition with the n - 1 that follow: reward sum gamma^t r (t the time elapsed before), last next state.

    The target lacks the importance correction for actions that a later policy would not take (Hessel et al. 2018, section 3).
    """

    def __init__(self, n: int, gamma: float) -> None:
        self.n, self.gamma = n, gamma
        self._waiting: deque[Transition] = deque()

    def push(self, transition: Transition, ended: bool) -> list[Transition]:
        """The rows that are complete with this one; all that wait when the episode `ended`, by termination or by time limit. Raises NotFinite."""
        sums = (float(part.sum()) for part in (transition.state, transition.action, transition.next_state))
        if not math.isfinite(sum(sums) + transition.reward + transition.elapsed):
            raise NotFinite("a transition holds a NaN or an infinity")
        self._waiting.append(transition)
        ready = []
        while self._waiting and (ended or len(self._waiting) == self.n):
            ready.append(self._joined())
            self._waiting.popleft()
        return ready

    def _joined(self) -> Transition:
        first, last = self._waiting[0], self._waiting[-1]
        reward, elapsed = 0.0, 0.0
        for one in self._waiting:
            reward += self.gamma**elapsed * one.reward
            elapsed += one.elapsed
        return Transition(first.state, first.action, reward, last.next_state, last.done, elapsed)
