"""Saved learning that is either whole or refused: safetensors for numbers, JSON for the rest, nothing unpickles.

A checkpoint is a folder. The tensors lie in a file named by its own SHA-256; `checkpoint.json` names it, carries everything
else and a checksum of itself, and is renamed into place last, which is the commit. The one before is kept as
`previous.json` with its tensors. Every file is written as temp + fsync + rename, so that a full disk or a lost power line
leaves the last good state.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from agents.core.errors import ModelError

CURRENT, PREVIOUS = "checkpoint.json", "previous.json"


def save(folder: Path, tensors: dict[str, Tensor], meta: dict[str, Any]) -> str:
    """Commit `tensors` and `meta` (JSON-able) to `folder`; returns the tensors' SHA-256. Raises OSError, and then the last stands."""
    folder.mkdir(parents=True, exist_ok=True)
    data = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
    digest = hashlib.sha256(data).hexdigest()
    write(folder / f"{digest}.safetensors", data)
    body = {"tensors": digest, "meta": meta}
    record = json.dumps({"sha256": _digest(body), **body}, indent=1).encode()
    current = folder / CURRENT
    if _named(current):
        write(folder / PREVIOUS, current.read_bytes())
    write(current, record)
    _sweep(folder)
    return digest


def load(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The last committed tensors and meta. Raises FileNotFoundError when there is none, ModelError when it is damaged."""
    return _read(folder / CURRENT)


def load_last_good(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """Like `load`, but a damaged checkpoint gives way to the one before it; the third value says why, or is empty.

    Raises FileNotFoundError when there is none, ModelError when neither is sound.
    """
    try:
        return *_read(folder / CURRENT), ""
    except ModelError as damaged:
        try:
            return *_read(folder / PREVIOUS), f"{damaged}; went back to the one before"
        except FileNotFoundError:
            raise damaged from None


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    meta, digest = _record(path)
    file = path.parent / f"{digest}.safetensors"
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise ModelError(f"checkpoint {path} is damaged: {file.name} is missing") from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise ModelError(f"checkpoint {file} is damaged: cut short or altered (its SHA-256 is not its name)")
    try:
        return safetensors.torch.load(data), meta
    except SafetensorError as error:
        raise ModelError(f"checkpoint {file} is damaged: {error}") from None


def _record(path: Path) -> tuple[dict[str, Any], str]:
    try:
        record = json.loads(path.read_bytes())
        stated = record.pop("sha256")
        if stated != _digest(record):
            raise ModelError(f"checkpoint {path} is damaged: its checksum is wrong")
        return record["meta"], record["tensors"]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"checkpoint {path} is damaged: not the JSON that was written ({error})") from None


def _named(path: Path) -> str:
    """Which tensors a record names; none when there is no sound record."""
    try:
        return _record(path)[1]
    except (FileNotFoundError, ModelError):
        return ""


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def write(path: Path, data: bytes) -> None:
    """A whole file or none: temp + fsync + rename. Raises OSError, and then what was there before stands."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _sweep(folder: Path) -> None:
    """Remove tensors that neither record names, and what an interrupted save left."""
    named = {_named(folder / CURRENT), _named(folder / PREVIOUS)}
    for file in (*folder.glob("*.safetensors"), *folder.glob("*.tmp")):
        if file.suffix == ".tmp" or file.stem not in named:
            file.unlink()
