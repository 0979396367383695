"""Runs a recorded session again through the same loop and engine, and names the first difference."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
from pydantic import TypeAdapter

from agents.core.errors import DataError, ReplayDiffers
from agents.core.events import Event
from agents.core.orders import Command
from agents.desk.decision import Effects, EngineConfig
from agents.engine import Engine
from agents.market.observation import Experience
from daemon.drive import drive
from daemon.journal import JournalReader
from daemon.venues.recorded import RecordedVenue

_CONFIG = TypeAdapter(EngineConfig)


def engine_config(recorded: dict[str, Any]) -> EngineConfig:
    """The engine configuration as the journal keeps it. Raises DataError when it is another version's."""
    try:
        return _CONFIG.validate_python(recorded)
    except ValueError as error:
        raise DataError(f"the session was recorded with another engine configuration ({error}): replay it with that version") from error


class Ended(Exception):
    """The record of a killed session ends here: what came after it never became durable, and nothing was sent."""


class Comparison:
    """A record that writes nothing: it holds each decision against the one in the journal."""

    def __init__(self, decisions: Sequence[tuple[int, int, dict[str, Any]]], killed: bool = False) -> None:
        """`killed`: the session did not end in order; the decision that it died of may be on no disk, and neither sent anything."""
        self._decisions = {number: (seq, record) for number, seq, record in decisions}
        self._killed = killed
        self.decisions = self.commands = 0

    def append(self, event: Event) -> None:
        """Nothing to write: it is there already."""

    def intend(self, seq: int, wanted: tuple[Command, ...]) -> None:
        """Commands are compared by the recorded venue; here they are counted."""
        self.commands += len(wanted)

    def decide(self, number: int, seq: int, at: int, record: dict[str, Any]) -> None:
        """Compare; raises ReplayDiffers naming the decision and the field."""
        if number not in self._decisions and self._killed and self.decisions == len(self._decisions):
            raise Ended
        self.decisions += 1
        if number not in self._decisions:
            raise ReplayDiffers(f"decision {number} at fact {seq} is extra: the journal has none of that number")
        was, old = self._decisions[number]
        new = orjson.loads(orjson.dumps(record))
        if was != seq:
            raise ReplayDiffers(f"decision {number} was made at fact {was}, and now at fact {seq}")
        for name in old.keys() | new.keys():
            if old.get(name) != new.get(name):
                raise ReplayDiffers(f"decision {number} at fact {seq} differs in {name}: was {old.get(name)!r:.200}, now {new.get(name)!r:.200}")

    def commit(self, seq: int) -> None:
        """Nothing to write."""

    def finish(self) -> None:
        """Raises ReplayDiffers when decisions are missing."""
        if self.decisions < len(self._decisions):
            missing = min(number for number in self._decisions if number > self.decisions)
            raise ReplayDiffers(f"decision {missing} is missing: the journal has {len(self._decisions)}, the replay {self.decisions}")


def replay(state: Path, session: str, watch: Callable[[Event, Engine], None] | None = None) -> dict[str, Any]:
    """Counts of decisions and commands, whether they are equal, and the first difference or None.

    `watch` sees the engine after each fact. Raises DataError where the record itself is incomplete.
    """
    reader = JournalReader(state)
    row = reader.session(session)
    engine = Engine(engine_config(row.config["engine"]))
    comparison = Comparison(list(reader.decisions(row.epoch, row.cut)), killed=row.summary is None)
    venue = RecordedVenue(reader.events(row), (command for _, command in reader.commands(row.epoch, row.cut)))
    difference: str | None = None

    def tell(event: Event, _: Effects) -> None:
        if watch is not None:
            watch(event, engine)

    try:
        asyncio.run(drive(venue.events(), engine, comparison, venue.send, _ignore, tell))
        comparison.finish()
    except Ended:
        pass
    except ReplayDiffers as error:
        difference = str(error)
    return {
        "session": row.name,
        "decisions": comparison.decisions,
        "commands": comparison.commands,
        "equal": difference is None,
        "first_difference": difference,
    }


def _ignore(_: Sequence[Experience]) -> None:
    """Nobody learns from a replay."""

