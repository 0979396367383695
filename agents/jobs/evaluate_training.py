"""How evaluation trains the long-term agent: one fold's past for all seeds, and payloads kept in a folder so that a broken run goes on."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agents.environment.vector import LONGEST_LOOK
from agents.jobs.evaluate import Lesson, Training
from agents.jobs.train_long_term import PLAIN, Judge, LongTermConfig, LongTermTraining
from agents.jobs.trials import Trial


def long_term_training(config: LongTermConfig, kept: Path | None = None, *, guarded: bool = True) -> Training:
    """Training with `config`; payloads are read from and written to the folder `kept`, by what they were trained with and on.

    A guarded run picks its best look at the fold's gap, which is the prior where none beats it; else the newest weights are judged.
    """
    plain = {name: value for name, value in asdict(config).items() if name != "options"}
    given, usual = asdict(config.options), asdict(PLAIN)
    plain |= {"options": {name: value for name, value in given.items() if value != usual[name]}, "guarded": guarded}

    def lessons(lesson: Lesson) -> Callable[[int], bytes]:
        return _Pupil(config, plain, lesson, kept).learn

    return Training({"agent": "long_term", **plain}, lessons)


class _Pupil:
    """One fold: what all seeds share is made once, and only if a seed has to be trained."""

    def __init__(self, config: LongTermConfig, plain: Mapping[str, Any], lesson: Lesson, kept: Path | None) -> None:
        self.config, self.plain, self.lesson, self.kept = config, plain, lesson, kept
        self._judge: Judge | None = None

    def learn(self, seed: int) -> bytes:
        path = None if self.kept is None else self.kept / f"{self._key()}-{seed}.safetensors"
        if path is not None and path.exists():
            return path.read_bytes()
        payload = self._train(seed)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            part.write_bytes(payload)
            part.replace(path)
        return payload

    def _key(self) -> str:
        lesson = self.lesson
        seen = lesson.history.rows(lesson.train[0], lesson.until)
        words = repr((seen.symbols, lesson.train, lesson.until, lesson.costs, lesson.desk))
        digest = hashlib.sha256(seen.close.tobytes() + words.encode()).hexdigest()
        return Trial(digest, self.plain, None, "validation", {}).key

    def _train(self, seed: int) -> bytes:
        lesson = self.lesson
        first, stop = lesson.train
        if self._judge is None and self.plain["guarded"]:
            warm = max(stop - LONGEST_LOOK, 0)
            begins = int(lesson.history.times[stop])
            self._judge = Judge(lesson.history.rows(warm, lesson.until), begins, lesson.costs, self._world(warm, lesson.until))
        training = LongTermTraining(
            self.config, lesson.history.rows(first, stop), seed, self._judge, lesson.costs, self._world(first, stop)
        )
        while not training.done:
            training.round()
        return training.payload()

    def _world(self, first: int, stop: int) -> dict[str, Any]:
        """The environment in which the agent is judged: its limits, its prior, and the risk agent away."""
        desk = self.lesson.desk
        return {"features": self.lesson.features[first:stop], "limits": desk.limits, "risk": desk.risk, "params": desk.params}
