"""Offline transitions in files, .npz archives and parquet tables: read, written, and told which agent they are for.

Beside its columns a file may say `agent` (a name) and `schema` (the hash of that agent's observation spec): in an .npz as two
more entries, in parquet as metadata. The daemon's learner takes only files that say both.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars
from numpy.typing import ArrayLike, NDArray

from agents.core.errors import DataError
from agents.learning.datasets import append
from agents.learning.replay import ReplayBuffer

LABELS = ("agent", "schema")
Columns = dict[str, NDArray[np.generic]]
Specs = Mapping[str, tuple[int, int, str]]
"""By agent the sizes of its state and action, and the hash of its observation spec."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Whom a file's rows are for, by its own word."""

    agent: str
    schema: str


def read_transitions(path: Path, ring: ReplayBuffer) -> int:
    """Append the transitions of `path` to `ring`; returns how many. Nothing is unpickled.

    Columns are named as `agents.learning.datasets` says; in parquet, states and actions are lists or arrays. Raises DataError
    naming file and column: unreadable, missing, of another length or shape, or not finite. Nothing was added then.
    """
    return append(_read(path)[0], ring, str(path))


def labelled(path: Path, specs: Specs) -> Labelled:
    """Whom the file is for. Raises DataError when it cannot be read, does not say, or was made for other columns than `specs`."""
    return _fitting(path, _labels(path), specs)


def offline_rings(paths: Sequence[Path], specs: Specs) -> dict[str, ReplayBuffer]:
    """All rows of all files in rings in memory, by agent; files of one agent follow each other. Raises DataError as above."""
    found: dict[str, list[tuple[Path, Columns]]] = {}
    for path in paths:
        columns, labels = _read(path)
        found.setdefault(_fitting(path, labels, specs).agent, []).append((path, columns))
    rings = {}
    for agent, parts in found.items():
        state, action, schema = specs[agent]
        longest = sum(max((len(values) for values in columns.values() if values.ndim), default=0) for _, columns in parts)
        rings[agent] = ReplayBuffer(state, action, max(longest, 1), spec=schema)
        for path, columns in parts:
            append(columns, rings[agent], str(path))
    return rings


def write_transitions(path: Path, agent: str, schema: str, columns: Mapping[str, ArrayLike]) -> None:
    """Write an .npz that says whom it is for; columns as `agents.learning.datasets` names them. Raises OSError."""
    arrays: dict[str, Any] = {name: np.asarray(values) for name, values in columns.items()}
    np.savez(path, agent=np.array(agent), schema=np.array(schema), **arrays)


def _fitting(path: Path, labels: Mapping[str, str], specs: Specs) -> Labelled:
    for name in LABELS:
        if not labels.get(name):
            raise DataError(f"{path}: does not say its {name}; write it with agents.jobs.datasets.write_transitions")
    label = Labelled(labels["agent"], labels["schema"])
    if label.agent not in specs:
        raise DataError(f"{path}: holds rows of agent {label.agent!r}; those that learn are {', '.join(specs)}")
    if label.schema != specs[label.agent][2]:
        raise DataError(f"{path}: was made for other columns of {label.agent} (schema {label.schema[:12]}, not {specs[label.agent][2][:12]})")
    return label


def _read(path: Path) -> tuple[Columns, dict[str, str]]:
    labels = _labels(path)
    with _Reading(path):
        if path.suffix == ".parquet":
            return {column.name: _array(column) for column in polars.read_parquet(path)}, labels
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files if name not in LABELS}, labels


def _labels(path: Path) -> dict[str, str]:
    if path.suffix not in (".npz", ".parquet"):
        raise DataError(f"{path}: transitions are read from .npz and .parquet, not from {path.suffix or 'a name without a suffix'}")
    with _Reading(path):
        if path.suffix == ".parquet":
            return {name: value for name, value in polars.read_parquet_metadata(path).items() if name in LABELS}
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: str(archive[name]) for name in LABELS if name in archive.files}


class _Reading:
    """The parsers raise what they do (zip, zlib, polars' own) on damaged bytes; here it becomes a DataError that names the file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception):
            raise DataError(f"{self._path}: cannot be read as {self._path.suffix} ({error})") from None


def _array(column: polars.Series) -> NDArray[np.generic]:
    """Rows of lists of one length become (rows, length); of several lengths they stay objects, and are refused by their shape."""
    if isinstance(column.dtype, polars.List) and column.list.len().n_unique() == 1:
        column = column.list.to_array(int(column.list.len()[0]))
    return column.to_numpy()
