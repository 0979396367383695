"""Offline transitions out of files: .npz archives and parquet tables."""

import io
from pathlib import Path

import numpy as np
import polars
from numpy.typing import NDArray

from agents.core.errors import DataError
from agents.learning.datasets import append
from agents.learning.replay import ReplayBuffer


def read_transitions(path: Path, ring: ReplayBuffer) -> int:
    """Append the transitions of `path` to `ring`; returns how many. Nothing is unpickled.

    Columns are named as `agents.learning.datasets` says; in parquet, states and actions are lists or arrays. Raises DataError
    naming file and column: unreadable, missing, of another length or shape, or not finite. Nothing was added then.
    """
    readers = {".npz": _npz, ".parquet": _parquet}
    if path.suffix not in readers:
        raise DataError(f"{path}: transitions are read from {' and '.join(readers)}, not from {path.suffix or 'a name without a suffix'}")
    try:
        columns = readers[path.suffix](path)
    except Exception as error:  # noqa: BLE001 The readers raise what their parsers do (zip, zlib, polars' own) on damaged bytes.
        raise DataError(f"{path}: cannot be read as {path.suffix} ({error})") from None
    return append(columns, ring, str(path))


def _npz(path: Path) -> dict[str, NDArray[np.generic]]:
    with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def _parquet(path: Path) -> dict[str, NDArray[np.generic]]:
    return {column.name: _array(column) for column in polars.read_parquet(path)}


def _array(column: polars.Series) -> NDArray[np.generic]:
    """Rows of lists of one length become (rows, length); of several lengths they stay objects, and are refused by their shape."""
    if isinstance(column.dtype, polars.List) and column.list.len().n_unique() == 1:
        column = column.list.to_array(int(column.list.len()[0]))
    return column.to_numpy()
