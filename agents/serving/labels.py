"""What lies beside a file of weights and says which bytes they are, where they come from, and that nothing has changed since."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from agents.core.errors import ModelError
from agents.serving.actors import Actors

WEIGHTS, LABEL = "weights.safetensors", "weights.json"
"""How the two files are called."""


def label(payload: bytes, spec: str, meta: Mapping[str, Any]) -> bytes:
    """The label of actor weights as JSON; `meta` are plain values. Raises ModelError, SpecMismatch, Diverged for weights that cannot serve."""
    actors = Actors.from_payload(payload, spec)
    body = {"digest": actors.digest, "version": actors.version, "spec": spec, "meta": dict(meta)}
    return json.dumps({"sha256": _checksum(body), **body}, indent=1).encode()


def read(text: bytes, name: str) -> dict[str, Any]:
    """`digest`, `version`, `spec` and `meta` of the label called `name` in errors. Raises ModelError when it is damaged."""
    try:
        record = json.loads(text)
        stated = record.pop("sha256")
        if stated != _checksum(record):
            raise ModelError(f"{name} is damaged: its checksum is wrong; write the weights again")
        return {key: record[key] for key in ("digest", "version", "spec", "meta")}
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(f"{name} is damaged: not the JSON that was written ({error})") from None


def check(payload: bytes, found: Mapping[str, Any], name: str) -> None:
    """Raises ModelError when `payload`, called `name`, is not what its label says."""
    if hashlib.sha256(payload).hexdigest() != found["digest"]:
        raise ModelError(f"{name} is damaged: cut short, altered or not the one that its label was written for")


def _checksum(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
