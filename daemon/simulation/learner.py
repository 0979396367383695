"""A learner that is never well for long: good weights, weights that must not serve, silence, death. It learns nothing."""

import asyncio
import hashlib
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from safetensors.numpy import save

from agents.core.events import UNSTAMPED, NewWeights
from agents.market.observation import ACTION_SIZES, AGENTS, SPEC_HASH, STATE_SIZES, Experience
from agents.serving.actors import FORMAT

HIDDEN = (8, 8)
PAUSE_S = (10.0, 60.0)
KINDS = ("good", "good", "good", "nan", "infinite", "garbage", "foreign", "again")
TEMPERS = ("lively", "dead", "hung", "poisonous")
"""What a learner may be like: lively sends all kinds, dead ends at once, hung never speaks, poisonous sends only bad weights."""


def weights(version: int, rng: random.Random, kind: str = "good") -> NewWeights:
    """Small random actors for all agents, spoiled as `kind` says."""
    numbers = np.random.default_rng(rng.getrandbits(64))
    tensors: dict[str, Any] = {}
    for agent in AGENTS:
        widths = (STATE_SIZES[agent], *HIDDEN)
        layers = {str(at): (widths[at + 1], widths[at]) for at in range(len(HIDDEN))}
        layers |= dict.fromkeys(("mean", "log_std"), (ACTION_SIZES[agent], HIDDEN[-1]))
        for layer, shape in layers.items():
            tensors[f"{agent}.{layer}.weight"] = (0.2 * numbers.standard_normal(shape)).astype(np.float32)
            tensors[f"{agent}.{layer}.bias"] = np.zeros(shape[0], np.float32)
    if kind in ("nan", "infinite"):
        spoiled = tensors[rng.choice(sorted(tensors))]
        spoiled.flat[rng.randrange(spoiled.size)] = np.nan if kind == "nan" else np.inf
    spec = "f" * len(SPEC_HASH) if kind == "foreign" else SPEC_HASH
    body = save(tensors, {FORMAT: json.dumps({"version": version, "spec": spec})})
    if kind == "garbage":
        body = body[: rng.randrange(1, len(body))]
    return NewWeights(UNSTAMPED, version, hashlib.sha256(body).hexdigest(), spec, body)


class ScriptedLearner:
    """Stands where the learner process stands; hands weights to the door itself, so that the engine must judge them."""

    def __init__(self, rng: random.Random, deliver: Callable[[NewWeights], None], temper: str) -> None:
        self._rng, self._deliver, self._temper = rng, deliver, temper
        self._version = 0
        self._last: NewWeights | None = None
        self.rows = 0
        self.status: dict[str, Any] = {
            "state": temper, "pid": None, "restarts": 0, "updates": 0, "experiences": 0, "version": 0, "queued": 0, "dropped": 0,
        }  # fmt: skip

    def offer(self, experiences: Sequence[Experience]) -> None:
        """Count the rows; a hung or dead learner takes them as well as any."""
        self.rows += len(experiences)

    async def run(self) -> None:
        """Send weights from time to time, as the temper has it."""
        if self._temper == "dead":
            return
        while True:
            await asyncio.sleep(self._rng.uniform(*PAUSE_S))
            if self._temper == "hung":
                continue
            kind = self._rng.choice(KINDS if self._temper == "lively" else KINDS[3:-1])
            if kind != "again" or self._last is None:
                self._version += 1
                self._last = weights(self._version, self._rng, "good" if kind == "again" else kind)
            self._deliver(self._last)

    async def stop(self, timeout: float = 0.0) -> None:
        """Nothing to save."""
