"""Offline rows that the configuration names: looked at before the session starts, so that a wrong file is said at once."""

from collections.abc import Sequence
from pathlib import Path

from agents.core.errors import ConfigError, DataError


def require_offline(paths: Sequence[Path], specs: Sequence[tuple[str, int, int, str]]) -> None:
    """Raises ConfigError for a file that is not there, is no dataset, or was made for other columns; its rows are read later."""
    if not paths:
        return
    from agents.jobs.datasets import labelled  # It brings polars, which a session without such files does not need.

    known = {agent: (state, action, schema) for agent, state, action, schema in specs}
    for path in paths:
        try:
            labelled(path, known)
        except DataError as error:
            raise ConfigError(f"reinforcement_learning.offline_data: {error}") from None
