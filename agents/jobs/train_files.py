"""What a training run leaves in its folder, whole or not at all: weights with their label, rows by round, and what the run was asked for."""

import hashlib
import io
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import ConfigError, DataError, ModelError
from agents.learning.checkpoint import write
from agents.market.observation import SPEC_HASH
from agents.serving import labels

RUN, CHECKPOINT, ROWS = "run.json", "checkpoint", "rows"


def keep_weights(folder: Path, payload: bytes, meta: Mapping[str, Any]) -> None:
    """Write weights and their label, the label first: between the two the old weights are refused, and never the new ones believed."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / labels.LABEL, labels.label(payload, SPEC_HASH, meta))
    write(folder / labels.WEIGHTS, payload)


def begin(folder: Path, asked: Mapping[str, Any]) -> bool:
    """Note in `folder` what the run is; True when it goes on with one that was begun there. One that left nothing else is forgotten.

    Raises ConfigError when the folder holds a run with other settings, or something else.
    """
    text = json.dumps(asked, sort_keys=True, indent=1, default=str)
    file = folder / RUN
    if file.is_file():
        before = _known(file)
        now = json.loads(text)
        if before != now and [each.name for each in folder.iterdir()] == [RUN]:
            write(file, text.encode())  # it ended before its first round, mostly over its data: there is nothing to go on with
            return False
        if before != now:
            names = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
            raise ConfigError(
                f"{folder} holds a run with another {', '.join(names)}: give the same settings to go on with it, or another folder"
            )
        return True
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty and holds no training run: name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    write(file, text.encode())
    return False


def _known(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_bytes())
    except ValueError as error:
        raise ModelError(f"{file} is damaged ({error}): name a new folder") from None
    return dict(found)


def keep_rows(folder: Path, number: int, rows: Mapping[str, Mapping[str, NDArray[Any]]], notes: Mapping[str, float]) -> None:
    """One round's transitions by agent, and plain numbers about it."""
    data = io.BytesIO()
    named: dict[str, Any] = {f"{agent}/{name}": values for agent, columns in rows.items() for name, values in columns.items()}
    named |= {f"/{name}": np.float64(value) for name, value in notes.items()}
    np.savez(data, **named)
    (folder / ROWS).mkdir(exist_ok=True)
    write(_round(folder, number), data.getvalue())


def kept_rows(folder: Path, number: int) -> tuple[dict[str, dict[str, NDArray[Any]]], dict[str, float]]:
    """What `keep_rows` wrote. Raises DataError when the file is missing or damaged: then the run cannot be gone on with."""
    file = _round(folder, number)
    rows: dict[str, dict[str, NDArray[Any]]] = {}
    notes: dict[str, float] = {}
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as archive:
            for key in archive.files:
                agent, _, name = key.partition("/")
                if agent:
                    rows.setdefault(agent, {})[name] = archive[key]
                else:
                    notes[name] = float(archive[key])
    except Exception as error:  # noqa: BLE001  numpy, zip and zlib raise what they like on damaged bytes
        raise DataError(f"{file} cannot be read ({error}): the run cannot go on, begin it anew in another folder") from None
    return rows, notes


def _round(folder: Path, number: int) -> Path:
    return folder / ROWS / f"round-{number:05d}.npz"


def digest(path: Path) -> str:
    """SHA-256 over the names and sizes of a file or of all files in a folder: enough to notice other data, quick enough to ask."""
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    text = "\n".join(f"{file.relative_to(path.parent)} {file.stat().st_size}" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()


def versions() -> dict[str, str]:
    """What numbers depend on besides the seed."""
    from importlib.metadata import version

    return {"python": platform.python_version(), **{name: version(name) for name in ("numpy", "torch", "safetensors")}}
