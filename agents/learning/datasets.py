"""Offline data: transitions from elsewhere, checked column by column before a row enters a ring; half of a batch may come from them."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from agents.core.errors import DataError, TradingError
from agents.learning.replay import ReplayBuffer, Rows

REQUIRED = ("state", "action", "reward", "next_state", "done")
OPTIONAL = ("elapsed", "time", "version", "quarantined")
OTHER_NAMES = {
    "state": ("observations", "observation", "states", "obs"),
    "action": ("actions", "act"),
    "reward": ("rewards", "rew"),
    "next_state": ("next_observations", "next_observation", "next_states", "next_obs"),
    "done": ("terminals", "terminated", "terminal", "dones"),
}
"""What others call the same columns (D4RL, Minari, stable-baselines3). Where a time limit is told apart, `done` is termination."""


def append(columns: Mapping[str, ArrayLike], ring: ReplayBuffer, source: str) -> int:
    """Append `columns` (names as in REQUIRED, OPTIONAL or OTHER_NAMES, rows first) to `ring`; `source` names them in errors.

    Rows are put in order of their time, where they have one. Raises DataError naming source and column.
    """
    found = {name: _column(name, columns, source) for name in REQUIRED}
    found |= {name: np.asarray(columns[name]) for name in OPTIONAL if name in columns}
    count = len(found["state"])
    widths = {"state": ring.state_dim, "next_state": ring.state_dim, "action": ring.action_dim}
    for name, values in found.items():
        expected = (count, widths[name]) if name in widths else (count,)
        if values.shape != expected:
            raise DataError(f"{source}: column {name} has shape {values.shape}, expected {expected}")
        if values.dtype.kind not in "fiub":
            raise DataError(f"{source}: column {name} holds {values.dtype}, not numbers")
        if not np.isfinite(values).all():
            row = int(np.argmin(np.isfinite(values).reshape(count, -1).all(1)))
            raise DataError(f"{source}: column {name} holds a NaN or an infinity in row {row}")
    if (beyond := np.abs(found["action"]).reshape(count, -1) > 1).any():
        raise DataError(f"{source}: column action leaves [-1, 1] in row {int(np.argmax(beyond.any(1)))}; scale it to the agent's own span")
    if "time" in found:
        order = np.argsort(found["time"], kind="stable")
        found = {name: values[order] for name, values in found.items()}
    try:
        return ring.add(**found)
    except TradingError as error:
        raise DataError(f"{source}: {error}") from None


def _column(name: str, columns: Mapping[str, ArrayLike], source: str) -> np.ndarray:
    for known in (name, *OTHER_NAMES[name]):
        if known in columns:
            values = np.asarray(columns[known])
            if name in ("reward", "done") and values.ndim == 2 and values.shape[1] == 1:
                return values[:, 0]
            return values
    raise DataError(f"{source}: column {name} is missing; it holds {', '.join(columns) or 'nothing'}")


def mixed(offline: ReplayBuffer, online: ReplayBuffer, size: int, rng: np.random.Generator, by_time: bool = True) -> Rows:
    """Half of `size` rows from each, the odd one from `online`; all from one while the other is empty. Ball et al. 2023 (RLPD).

    Raises DataError when both are empty.
    """
    half = size // 2 if online.usable else size
    if not offline.usable:
        half = 0
    return joined(*(draw(ring, count, rng, by_time) for ring, count in ((offline, half), (online, size - half)) if count))


def draw(ring: ReplayBuffer, count: int, rng: np.random.Generator, by_time: bool) -> Rows:
    """`count` rows, by market time or one like the other."""
    return ring.sample_by_time(count, rng) if by_time else ring.sample(count, rng)


def joined(first: Rows, *more: Rows) -> Rows:
    """One batch, its parts in this order."""
    return Rows(*(np.concatenate(parts) for parts in zip(first, *more, strict=True))) if more else first
