"""One engine, whoever drives it: a session, a second engine over what it recorded, and its replay decide the same."""

import asyncio
from dataclasses import asdict, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from agents.core.events import UNSTAMPED, Event, Halt, NewWeights, Resume, Tick
from agents.core.instruments import NS, Currency, Symbol
from agents.core.orders import Command
from agents.desk.decision import Effects, EngineConfig
from agents.engine import Engine
from agents.market.exchange import SimulatedExchange
from agents.market.frictions import FixedLatency, Frictions
from agents.market.observation import SPEC_HASH
from daemon import opening
from daemon.door import Door
from daemon.drive import drive
from daemon.journal import Journal, JournalReader
from daemon.replay import engine_config, replay
from daemon.venues.simulated import SimulatedVenue
from tests.rehearsal_feed import SyntheticFeed
from tests.weights import payload

SYMBOLS = (Symbol("BTC/USDT"), Symbol("ETH/USDT"))
USDT = Currency("USDT")
CAPITAL = Decimal(10_000)


def config(**changes: Any) -> EngineConfig:
    return replace(EngineConfig("test", 1, "USDT", SYMBOLS, exploration=0.1, hidden_sizes=(8,)), **changes)


class Session:
    """A whole session in memory and on disk, in market time, without the network."""

    def __init__(self, folder: Path, seconds: float) -> None:
        self.feed = SyntheticFeed(SYMBOLS, seconds)
        self.door = Door(clock=self.feed.clock)
        self.exchange = SimulatedExchange([], Frictions(latency=FixedLatency(NS // 20)), {USDT: CAPITAL})
        self.venue = SimulatedVenue(self.feed, self.exchange, self.feed.clock)
        self.journal = Journal(folder, "test", 1, {"engine": asdict(config())})
        self.engine = Engine(config())
        self.effects: list[Effects] = []

    async def run(self) -> None:
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(self._bring())
            group.create_task(drive(self.door.events(), self.engine, self.journal, self.venue.send, lambda _: None, self._note))
        self.journal.close(self.door.last, {})

    async def _bring(self) -> None:
        """Everything that can come through the door: market, capital, ticks, weights, an operator."""
        for adjustment in opening.fresh(USDT, CAPITAL, {USDT: CAPITAL}):
            self.door.push(adjustment)
        count = 0
        async for event in self.venue.events():
            await self.door.put(event)
            count += 1
            if count % 50 == 0:
                self.door.push(Tick(UNSTAMPED))
            if count == 3000:
                body, digest = payload(1)
                self.door.push(NewWeights(UNSTAMPED, 1, digest, SPEC_HASH, body))
            if count == 6000:
                self.door.push(Halt(UNSTAMPED, "test"))
            if count == 6500:
                self.door.push(Resume(UNSTAMPED, "test"))
        self.door.close()

    def _note(self, event: Event, effects: Effects) -> None:
        self.effects.append(effects)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Session]:
    folder = tmp_path_factory.mktemp("state")
    made = Session(folder, seconds=400)
    asyncio.run(made.run())
    return folder, made


def test_the_session_was_worth_replaying(session: tuple[Path, Session]) -> None:
    _, made = session
    decided = {agent for effects in made.effects if effects.decision for agent in effects.decision.agents}
    assert decided == {"long_term", "short_term", "market_making", "risk"}
    assert made.engine.ledger.fill_count > 5
    assert any(effects.swapped for effects in made.effects)
    assert sum(len(effects.experiences) for effects in made.effects) > 50
    assert made.exchange.balances() == {c: b for c, b in made.engine.ledger.balances.items() if c in made.exchange.balances()}


def test_a_second_engine_over_the_recorded_facts_does_the_same(session: tuple[Path, Session]) -> None:
    folder, made = session
    reader = JournalReader(folder)
    row = reader.session("last")
    engine = Engine(engine_config(row.config["engine"]))
    commands: list[Command] = []
    records = []
    for event in reader.events(row):
        effects = engine.step(event)
        commands += effects.commands
        if effects.decision is not None:
            records.append(orjson.dumps(effects.decision.record()))
    assert commands == [command for effects in made.effects for command in effects.commands]
    assert records == [orjson.dumps(e.decision.record()) for e in made.effects if e.decision is not None]
    assert engine.ledger.balances == made.engine.ledger.balances
    assert engine.equity() == made.engine.equity()


def test_its_replay_is_equal_and_counts_what_was_done(session: tuple[Path, Session]) -> None:
    folder, made = session
    result = replay(folder, "last")
    assert result["equal"], result["first_difference"]
    assert result["decisions"] == sum(effects.decision is not None for effects in made.effects)
    assert result["commands"] == sum(len(effects.commands) for effects in made.effects) > 20


@pytest.mark.parametrize(("change", "named"), [({"exploration": 0.2}, "decision"), ({"seed": 5}, "decision"), ({"epoch": 2}, "command")])
def test_another_engine_is_told_apart_by_the_first_difference(
    session: tuple[Path, Session], change: dict[str, Any], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = session
    monkeypatch.setattr("daemon.replay.engine_config", lambda recorded: replace(engine_config(recorded), **change))
    result = replay(folder, "last")
    assert not result["equal"]
    assert "differs" in result["first_difference"]
