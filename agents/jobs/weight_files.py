"""Weights as a training run or a saved system left them: read without torch, believed only as far as their label goes."""

from pathlib import Path

from agents.core.errors import ConfigError
from agents.market.observation import SPEC_HASH
from agents.serving import labels
from agents.serving.actors import Actors


def load_weights(path: Path, spec: str = SPEC_HASH) -> bytes:
    """The payload in a file of weights, or in the folder of a training run or of saved agents.

    Raises ConfigError where there is none, ModelError for one that is damaged or not what its label says, SpecMismatch for one made
    for other columns, Diverged for numbers that are not finite.
    """
    file = path / labels.WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(f"{path} holds no {labels.WEIGHTS}: name the folder of a finished `quartet train`, or a safetensors file")
    payload = file.read_bytes()
    beside = file.with_name(labels.LABEL)
    if file.name == labels.WEIGHTS and beside.is_file():
        labels.check(payload, labels.read(beside.read_bytes(), str(beside)), str(file))
    Actors.from_payload(payload, spec)
    return payload
