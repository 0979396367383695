"""The decision stream with and without listeners is equal: every body built at once or late, every status, metric and notice made on the way."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from agents.core.events import UNSTAMPED, Event, Reload
from agents.desk.decision import Effects
from agents.desk.limits import Limits
from agents.engine import Engine
from daemon.door import Door
from daemon.journal import JournalReader
from daemon.measures import Measures
from daemon.mirror import Mirror
from daemon.notify import conditions
from daemon.publish.metrics import Metrics
from daemon.publish.outbox import Outbox, Recent
from daemon.replay import engine_config, replay
from daemon.status import Status
from tests.test_one_path import Session


class Reloaded(Session):
    """A session whose operator lowers a limit on the way."""

    def _note(self, event: Event, effects: Effects) -> None:
        super()._note(event, effects)
        if len(self.effects) == 2000:
            self.door.push(Reload(UNSTAMPED, "calmer", json.dumps(asdict(replace(Limits(), position_cap=0.03)))))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Reloaded]:
    folder = tmp_path_factory.mktemp("mirrors")
    made = Reloaded(folder, seconds=200)
    asyncio.run(made.run())
    return folder, made


class Listeners:
    """Everything that a session tells, of one engine; `late` builds the bodies only when all is over."""

    def __init__(self, engine: Engine, late: bool) -> None:
        self.recent, self.small, self.large = Recent(10_000), Outbox(3), Outbox(100_000)
        self.mirror = Mirror([self.recent, self.small, self.large])
        self.measures = Measures(engine, lambda: engine.market.now)
        self.status = Status("s", {"mode": "m", "exchange": "e", "instance": "i"}, engine, Door(clock=lambda: engine.market.now), dict)
        self.status.details["measures"] = self.measures.describe
        self.metrics, self.late, self.texts = Metrics(self.status.snapshot), late, list[str]()

    def tell(self, event: Event, effects: Effects) -> None:
        self.status.tell(event, effects)
        self.measures.tell(event, effects)
        self.mirror.tell(event, effects)
        if effects.decision is not None and not self.late:
            self.texts += [fact.text for fact in self.recent.last("decisions", 1)]
            conditions(self.status.snapshot())
            self.metrics.render()


def run(config: Any, events: list[Event], late: bool | None) -> tuple[list[tuple[Any, ...]], Listeners | None]:
    """What a fresh engine decides on the facts, with listeners or (`late` None) without."""
    engine = Engine(config)
    listeners = None if late is None else Listeners(engine, late)
    decided: list[tuple[Any, ...]] = []
    for event in events:
        effects = engine.step(event)
        if listeners is not None:
            listeners.tell(event, effects)
        record = None if effects.decision is None else orjson.dumps(effects.decision.record(), default=str)
        taught = [(e.agent, e.time, e.reward, str(e.state), str(e.action)) for e in effects.experiences]
        decided.append((effects.commands, record, taught))
    return decided, listeners


def told(listeners: Listeners) -> Mapping[str, list[str]]:
    return {kind: [fact.text for fact in listeners.recent.last(kind, 10_000)] for kind in ("decisions", "orders", "fills", "risk", "equity", "learner")}


def test_decisions_with_and_without_listeners_are_equal_and_bodies_do_not_age(recorded: tuple[Path, Reloaded]) -> None:
    folder, made = recorded
    reader = JournalReader(folder)
    row = reader.session("last")
    config, events = engine_config(row.config["engine"]), list(reader.events(row))
    alone, _ = run(config, events, None)
    assert sum(record is not None for _, record, _ in alone) > 20, "nothing to compare"
    at_once, first = run(config, events, late=False)
    late, second = run(config, events, late=True)
    assert alone == at_once
    assert alone == late
    assert first is not None
    assert second is not None
    assert told(first) == told(second), "a body that is built later says the same"
    assert first.small.lost > 0
    assert made.engine.ledger.fill_count == len(told(second)["fills"]) > 0
    assert not any("untold" in text for texts in told(first).values() for text in texts)


def test_a_session_whose_limits_were_reloaded_replays_equal_and_keeps_to_them(recorded: tuple[Path, Reloaded]) -> None:
    folder, made = recorded
    assert made.engine.config.limits.position_cap == 0.03
    assert made.engine.problems == {}
    after = [e.decision.safe for e in made.effects[2200:] if e.decision is not None and e.decision.safe is not None]
    assert after
    assert max(weight for safe in after for weight in safe.weights.values()) <= 0.03 + 1e-9
    result = replay(folder, "last")
    assert result["equal"], result["first_difference"]
