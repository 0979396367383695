"""The run log: every configuration that was ever tried on a history, so that a result can be deflated by what it was chosen from.

One JSON object a line, only ever appended, synchronised before a result is told. A configuration counts once however often it runs and
with however many seeds: chance is repeated, a choice is not. Deleting lines makes results look better than they are.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agents.core.errors import ConfigError, DataError


@dataclass(frozen=True, slots=True)
class Trial:
    """One configuration, run once. `study` names the question, such as the history and the agent; choices are made within one."""

    study: str
    configuration: Mapping[str, Any]
    seed: int | None
    stage: str
    """What it was looked at on: validation, or test."""
    figures: Mapping[str, float]
    """Results; `sharpe` per year wherever there is one."""
    curve: tuple[float, ...] = ()
    """Daily returns where a choice among trials is to be judged later."""

    def __post_init__(self) -> None:
        if self.stage not in ("validation", "test"):
            raise ConfigError(f"trial stage {self.stage!r}: use validation or test")

    @property
    def key(self) -> str:
        """Equal for equal study and configuration, whatever the seed and the order of keys."""
        text = json.dumps([self.study, self.configuration], sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class TrialLog:
    """The file at `path`; it need not exist yet. Several processes may append: a line is written in one call."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, trial: Trial) -> None:
        """Write one trial and synchronise it. A line that a crash cut short is closed first, so it spoils nothing but itself."""
        line = json.dumps(
            {
                "study": trial.study, "configuration": dict(trial.configuration), "seed": trial.seed, "stage": trial.stage,
                "figures": dict(trial.figures), "curve": list(trial.curve), "key": trial.key,
            },
            sort_keys=True, default=str,
        )  # fmt: skip
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else "\n" + line
            file.write(line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> list[Trial]:
        """All trials, oldest first. A line cut short by a crash is left out; raises DataError for a line that was changed."""
        if not self.path.exists():
            return []
        found = []
        for number, text in enumerate(self.path.read_bytes().split(b"\n"), 1):
            try:
                row = json.loads(text)
                trial = Trial(row["study"], row["configuration"], row["seed"], row["stage"], row["figures"], tuple(row["curve"]))
            except ValueError:
                continue  # empty, or torn by a crash: it never was a whole line
            except (KeyError, TypeError):
                raise DataError(f"{self.path}, line {number}: not a trial; this log is written by quartet alone") from None
            if trial.key != row.get("key"):
                raise DataError(f"{self.path}, line {number}: was changed after it was written; restore the log") from None
            found.append(trial)
        return found

    def count(self, study: str) -> int:
        """Configurations tried in a study so far, at least 1."""
        return max(len({trial.key for trial in self.read() if trial.study == study}), 1)

    def curves(self, study: str, stage: str) -> dict[str, np.ndarray]:
        """The newest curve of each configuration looked at in a stage, by key; those of another length than the newest are left out."""
        found = {trial.key: np.asarray(trial.curve) for trial in self.read() if (trial.study, trial.stage) == (study, stage) and trial.curve}
        length = len(found[list(found)[-1]]) if found else 0
        return {key: curve for key, curve in found.items() if len(curve) == length}

    def variance(self, study: str, stage: str, figure: str = "sharpe") -> float | None:
        """Variance of a figure over configurations looked at in one stage, each by its mean over seeds; None for fewer than two."""
        values: dict[str, list[float]] = {}
        for trial in self.read():
            if (trial.study, trial.stage) == (study, stage) and figure in trial.figures:
                values.setdefault(trial.key, []).append(float(trial.figures[figure]))
        if len(values) < 2:
            return None
        return float(np.var([np.mean(each) for each in values.values()], ddof=1))
