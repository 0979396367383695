"""One moment of an episode as the environment tells it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.market.observation import Experience


@dataclass(slots=True)
class Moment:
    """What gymnasium's `step` returns, by name."""

    observation: NDArray[np.float32]
    info: dict[str, Any]
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    experiences: list[Experience] = field(default_factory=list)
    """The engine's own rows of an agent's last action, one a symbol."""
