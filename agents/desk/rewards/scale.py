"""Running estimates of one agent: the size of its returns, and the covariance of what it trades."""

import numpy as np

from agents.core.instruments import Symbol
from agents.desk.rewards.functions import Array


class RunningScale:
    """Root mean square of the discounted return, per agent, over all of its symbols (Engstrom et al. 2020, "Implementation matters").

    Starts as if it had seen `PSEUDO` returns of size 1; forgets with a memory of `MEMORY` returns.
    """

    PSEUDO = 10.0
    MEMORY = 10_000.0
    FLOOR = 0.02
    """About a quarter of one captured spread: below it silence would be mistaken for precision."""

    def __init__(self, gamma: float) -> None:
        self.gamma = gamma
        self._returns: dict[Symbol, float] = {}
        self._square, self._count = 1.0, self.PSEUDO

    @property
    def value(self) -> float:
        """What rewards are divided by."""
        return max(float(np.sqrt(self._square)), self.FLOOR)

    def update(self, symbol: Symbol, reward: float, elapsed: float) -> None:
        """Take one finite reward; `elapsed` in nominal cadences."""
        discounted = self.gamma**elapsed * self._returns.get(symbol, 0.0) + reward
        self._returns[symbol] = discounted
        self._count = min(self._count + 1.0, self.MEMORY)
        # One wild return may not own the scale for long: it enters as at most ten times what was seen so far.
        square = min(discounted * discounted, 100.0 * max(self._square, self.FLOOR**2))
        self._square += (square - self._square) / self._count


class Covariance:
    """Annualised covariance of mark returns, exponentially weighted over an agent's own decisions."""

    HALF_LIFE = 60.0
    """Decisions: an hour of minutes, two and a half days of hours."""
    START_VARIANCE, START_CORRELATION = 0.49, 0.5
    """70 % volatility and coins that move together, until the marks say otherwise."""

    def __init__(self, size: int) -> None:
        self.matrix: Array = self.START_VARIANCE * (
            (1.0 - self.START_CORRELATION) * np.eye(size) + self.START_CORRELATION * np.ones((size, size))
        )

    def update(self, returns: Array, years: float) -> None:
        """Take one vector of returns over `years`; each is clipped to ten standard deviations."""
        bound = 10.0 * np.sqrt(np.diag(self.matrix) * years)
        clipped = np.clip(returns, -bound, bound)
        decay = 0.5 ** (1.0 / self.HALF_LIFE)
        self.matrix = decay * self.matrix + (1.0 - decay) * np.outer(clipped, clipped) / years


