"""One life of the daemon: the same parts that a real session is made of, on simulated machine, disk and network."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from agents.core.events import Event
from agents.core.instruments import Currency, Symbol
from agents.desk.decision import Effects, EngineConfig
from agents.engine import Engine
from daemon import opening
from daemon.door import Door
from daemon.emergency import EmergencyRecord
from daemon.journal import Journal
from daemon.latch import Latch
from daemon.operating import Operator
from daemon.reconciling import Reconciler
from daemon.recovery import Recovery
from daemon.rehearsal.config import TEST_KEY, TEST_SECRET
from daemon.running import Ending, Parts, run
from daemon.simulation.disk import Disk
from daemon.simulation.learner import HIDDEN, ScriptedLearner
from daemon.simulation.machine import Clients, Clocks, account_options
from daemon.starting import recovered
from daemon.status import Status
from daemon.venues.ccxt import CcxtVenue, VenueOptions
from daemon.venues.feed import CcxtFeed, FeedOptions
from daemon.venues.link import LinkOptions

QUOTE = Currency("USDT")
INSTANCE = "sim"
HISTORY = (("1h", 48), ("1m", 90))
COALESCE_S = 0.1


class JudgedEngine(Engine):
    """The engine, with somebody who looks at each step before anything is recorded or sent."""

    def __init__(self, config: EngineConfig, judge: Callable[[Event, Effects, Engine], None]) -> None:
        super().__init__(config)
        self._judge = judge

    def step(self, event: Event) -> Effects:
        effects = super().step(event)
        self._judge(event, effects, self)
        return effects


@dataclass(slots=True)
class Machine:
    """What outlives the process: folder, disk, clocks, the way to the exchange."""

    folder: Path
    disk: Disk
    clocks: Clocks
    clients: Clients
    symbols: tuple[Symbol, ...]
    address: str
    allocation: Decimal = Decimal(10_000)
    seed: int = 0
    cadence_s: float = 5.0
    orders_over: str = "auto"
    stops: bool = True
    """Whether protective stops rest on the exchange."""
    sell_without_record: bool = False
    stop_within_s: float = 20.0


@dataclass(slots=True)
class Life:
    """One process, from start to its end of whatever kind."""

    machine: Machine
    judge: Callable[[Event, Effects, Engine], None]
    learner_rng: random.Random
    temper: str
    parts: Parts | None = None
    operator: Operator | None = None
    journal: Journal | None = None
    reconciler: Reconciler | None = None
    kept: list[Any] = field(default_factory=list)
    """Held, so that nothing of a killed process is cleaned up."""

    async def live(self, opened: Callable[["Life"], None]) -> dict[str, Any]:
        """Start, trade until stopped, end; the summary. Raises what a session raises."""
        parts = self.parts = await self._compose()
        opened(self)
        try:
            return await run(parts, None, None)
        finally:
            await parts.venue.close()

    async def _compose(self) -> Parts:
        machine = self.machine
        door = Door(machine.clocks.steady())
        public, private = account_options(machine.address), account_options(machine.address, TEST_KEY, TEST_SECRET)
        feed = CcxtFeed(
            lambda: machine.clients.build(public), machine.symbols, door.now, FeedOptions(depth=10, history=HISTORY, coalesce_s=COALESCE_S, stop_orders=machine.stops)
        )
        venue = CcxtVenue(feed, private, door.now, INSTANCE, VenueOptions(link=LinkOptions(machine.orders_over)), machine.clients.build)
        origin = opening.identity((private.id, private.base_url or "", private.api_key))
        try:
            recovery = await recovered(machine.folder, venue, QUOTE, machine.allocation, INSTANCE, origin)
            machine.disk.require_room()
            return self._parts(door, venue, recovery, origin)
        except BaseException:
            await venue.close()
            raise

    def _parts(self, door: Door, venue: CcxtVenue, recovery: Recovery, origin: str) -> Parts:
        machine, folder = self.machine, self.machine.folder
        journal = self.journal = Journal(folder, f"s{door.now()}", door.now(), {})
        machine.disk.place_under(journal)
        config = self.config(journal.epoch)
        kept = {"origin": origin, "opened_with": recovery.opened_with()}
        journal.describe({"engine": asdict(config), "settings": {}, "versions": {}, **kept})
        engine = JudgedEngine(config, self.judge)
        learner = ScriptedLearner(self.learner_rng, door.push, self.temper)
        labels = {"mode": "", "exchange": "", "instance": INSTANCE, "quote": QUOTE}
        status = Status(journal.name, labels, engine, door, lambda: learner.status)
        stop, latch, emergency = asyncio.Event(), Latch(folder), EmergencyRecord(folder)
        machine.disk.listen_to(emergency)
        operator = self.operator = Operator(door, latch, status, stop)
        reconciler = self.reconciler = Reconciler(
            venue, engine.ledger, door.push, lambda: door.depth, door.now, lambda reason: operator.halt({"reason": reason}),
            told=recovery.differences, booked=recovery.transfers,
        )  # fmt: skip

        def in_an_emergency() -> EmergencyRecord:
            emergency.take_over(journal)
            return emergency

        ending = Ending(timeout_s=machine.stop_within_s, flatten_on_record_failure=machine.sell_without_record)
        return Parts(
            folder, door, engine, journal, venue, learner, status, latch, recovery.events, stop, watchers=[reconciler.run],
            ending=ending, emergency=in_an_emergency,
        )  # fmt: skip

    def config(self, epoch: int) -> EngineConfig:
        """The engine's configuration: all four agents with small networks."""
        machine = self.machine
        return EngineConfig(
            instance=INSTANCE, epoch=epoch, quote=QUOTE, symbols=machine.symbols, hidden_sizes=HIDDEN, exploration=0.1,
            seed=machine.seed, market_making_cadence_s=machine.cadence_s,
        )  # fmt: skip
