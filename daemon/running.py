"""One session at work: the tasks that run side by side, how they end, and the closing account. Knows no mode."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import structlog

from agents.core.errors import TradingError, Unreachable, VenueError
from agents.core.events import UNSTAMPED, Adjustment, AdjustmentKind, Bar, BookSnapshot, Event, Flatten, Halt, Listing, Trade
from agents.core.instruments import Currency, Instrument, Symbol
from agents.desk.decision import Effects
from agents.desk.limits import require_affordable
from agents.engine import Engine
from agents.market.observation import Experience
from daemon import kill_path
from daemon.door import Door
from daemon.drive import Record, Unsent, drive
from daemon.journal import Journal
from daemon.latch import Latch
from daemon.segments import RecordFailed
from daemon.status import Status
from daemon.venues.base import Venue
from daemon.venues.reconcile import differences

log = structlog.get_logger()

TICK_S = 0.25
SYNC_S = 1.0
"""A power loss costs at most this much of the market's flow."""
SHOW_S = 0.5
LEARNER_STOP_S = 10.0
LAST_LOOK_S = 3.0
"""What the end of a session has at least for the last fills and the comparison, however long the orders took."""


class Learner(Protocol):
    """The learning side as the session sees it: it can be dead, and nothing here waits for it."""

    status: dict[str, Any]

    def offer(self, experiences: Sequence[Experience]) -> None: ...
    async def run(self) -> None: ...
    async def stop(self, timeout: float) -> None: ...


class Account(Venue, Protocol):
    """A venue whose account can be asked."""

    async def balances(self) -> Mapping[Currency, Decimal]: ...
    async def quote(self, symbol: Symbol) -> BookSnapshot | None: ...
    async def settle(self, timeout_s: float) -> bool: ...
    async def close(self) -> None: ...


Background = Callable[[Callable[[], None]], Awaitable[None]]
Watcher = Callable[[], Coroutine[Any, Any, None]]


async def _at_once() -> None:
    """Nobody has to be waited for."""


async def inline(work: Callable[[], None]) -> None:
    """Do it here and now, for loops that have no threads beside them."""
    work()


def _no_emergency() -> Record:
    raise RecordFailed("there is no emergency record")


@dataclass(frozen=True, slots=True)
class Ending:
    """How a session ends: what becomes of positions, and how long (real seconds) it may take from the word to stop."""

    flatten: bool = False
    timeout_s: float = 20.0
    flatten_on_record_failure: bool = False


@dataclass(slots=True)
class Parts:
    """What a session is made of. `watchers` run beside it; the session ends when `stop` is set."""

    folder: Path
    door: Door
    engine: Engine
    journal: Journal
    venue: Account
    learner: Learner
    status: Status
    latch: Latch
    opening: Sequence[Event]
    stop: asyncio.Event
    watchers: list[Watcher] = field(default_factory=list)
    ending: Ending = Ending()
    mirrors: Sequence[Callable[[Event, Effects], None]] = ()
    """Told of every fact and of what came of it, after the orders have left; they return at once."""
    reload: Callable[[], None] | None = None
    """Reads the settings again; says itself how that went."""
    farewell: Callable[[], Awaitable[None]] = _at_once
    """Gives those who mirror outward a moment for what is still to be told."""
    emergency: Callable[[], Record] = _no_emergency
    """Opens the record that works when the disk is full."""
    feed_ended: bool = False
    """Set when the venue has no more facts."""
    background: Background = inline
    """Where slow file work goes."""


async def run(parts: Parts, duration: float | None, show: Callable[[dict[str, Any]], None] | None) -> dict[str, Any]:
    """Trade until `parts.stop` is set or `duration` real seconds have passed; return the summary.

    Raises the first TradingError that ended the session. Where the record or the engine failed, orders were cancelled before as far as
    the venue could be reached; where the venue itself failed, the watchdog process does it.
    """
    try:
        async with asyncio.TaskGroup() as group:
            _open(parts)
            beside = [group.create_task(task) for task in _tasks(parts, show)]
            driver = group.create_task(_guarded_drive(parts))
            data_was_due = await _ended(parts, duration)
            difference = await _wind_down(parts)
            parts.door.close()
            await driver
            await parts.learner.stop(LEARNER_STOP_S)
            await parts.farewell()
            for task in beside:
                task.cancel()
    except BaseExceptionGroup as errors:
        raise _first(errors) from errors
    summary = parts.status.summary(difference)
    parts.journal.close(parts.door.last, summary)
    if data_was_due and not parts.engine.market.now:
        raise Unreachable("the exchange sent no market data at all: see the log for what it answered, and check exchange.base_url")
    return summary


async def _ended(parts: Parts, duration: float | None) -> bool:
    """Wait for the end; whether it was the time's or the feed's, and not somebody's word that may come before the first fact."""
    try:
        async with asyncio.timeout(duration):
            await parts.stop.wait()
    except TimeoutError:
        return True
    return parts.feed_ended


def _open(parts: Parts) -> None:
    """What the session begins with: what was recovered, and the operator's last word if it still stands."""
    for event in parts.opening:
        parts.door.push(event)
    latched = parts.latch.read()
    if latched.kind != "none":
        log.warning("latched", kind=latched.kind, reason=latched.reason, mend="quartet resume")
        parts.door.push((Flatten if latched.kind == "flatten" else Halt)(UNSTAMPED, f"latched: {latched.reason}"))


def _tasks(parts: Parts, show: Callable[[dict[str, Any]], None] | None) -> list[Any]:
    tasks = [
        _pump(parts),
        parts.door.metronome(TICK_S),
        parts.learner.run(),
        _sync(parts),
        kill_path.attend(parts.engine, parts.door, parts.venue, parts.latch),
        *(watcher() for watcher in parts.watchers),
    ]
    if show is not None:
        tasks.append(_show(parts.status, show))
    return tasks


async def _pump(parts: Parts) -> None:
    """The venue's facts to the door; a feed that ends, ends the session."""
    unpriced: dict[Symbol, Instrument] = {}
    async with aclosing(parts.venue.events()) as events:  # type: ignore[type-var]  # an async generator, by a wider type
        async for event in events:
            if isinstance(event, Listing):
                unpriced[event.instrument.symbol] = event.instrument
                _require_affordable(parts, event.instrument, None)
            elif unpriced and isinstance(event, Bar | Trade) and event.symbol in unpriced:
                price = event.close if isinstance(event, Bar) else event.price
                _require_affordable(parts, unpriced.pop(event.symbol), price)
            await parts.door.put(event)
    parts.feed_ended = True
    parts.stop.set()


def _require_affordable(parts: Parts, instrument: Instrument, price: Decimal | None) -> None:
    """Before anything is decided: raises ConfigError for a symbol whose smallest order is above the position cap."""
    capital = sum((a.amount for a in parts.opening if isinstance(a, Adjustment) and a.kind is AdjustmentKind.CAPITAL), Decimal(0))
    marks = {instrument.symbol: price} if price is not None else {}
    require_affordable({instrument.symbol: instrument}, marks, capital, parts.engine.config.limits)


async def _guarded_drive(parts: Parts) -> None:
    def tell(event: Event, effects: Effects) -> None:
        parts.status.tell(event, effects)
        for mirror in parts.mirrors:
            try:
                mirror(event, effects)
            except Exception as error:  # whoever listens may be wrong in any way: the orders have left, and trading goes on
                if "mirror_failed" not in parts.status.notes:
                    log.exception("mirror_failed")
                    parts.status.note("mirror_failed", f"{type(error).__name__}: {error}")
        if not parts.status.ready and (effects.decision is not None or _idle(parts)):
            parts.status.ready = True
            log.info("ready", session=parts.journal.name)

    def teach(experiences: Sequence[Experience]) -> None:
        parts.journal.learn(experiences)  # so that explain can say what a decision was worth
        parts.learner.offer(experiences)

    engine, door = parts.engine, parts.door
    try:
        await drive(door.events(), engine, parts.journal, parts.venue.send, teach, tell)
    except Unsent as failure:
        log.error("record_failed", error=str(failure.error))
        await kill_path.without_record(
            engine, door, parts.venue, parts.latch, parts.emergency, failure.commands, sell=parts.ending.flatten_on_record_failure
        )
        raise failure.error from failure
    except Exception:  # a mistake of ours in the loop itself: orders must not outlive it
        await kill_path.without_engine(engine, parts.venue)
        raise


def _idle(parts: Parts) -> bool:
    """Prices are there, and nothing will be decided before somebody says so: that is as ready as such a session gets."""
    silent = parts.engine.halted or not parts.engine.config.agents
    return silent and parts.engine.market.now > 0 and not parts.stop.is_set()


async def _wind_down(parts: Parts) -> Mapping[Currency, Decimal] | None:
    """Cancel what rests, sell what is held where that is wanted, take in the last fills, compare with the venue.

    None when the venue cannot be asked.
    """
    engine, door, ending, loop = parts.engine, parts.door, parts.ending, asyncio.get_running_loop()
    word = Flatten if (ending.flatten or engine.flattening) and engine.leased else Halt
    door.push(word(UNSTAMPED, "the session ends"))
    until = loop.time() + ending.timeout_s
    with suppress(TimeoutError):
        async with asyncio.timeout_at(until):
            while door.depth or not kill_path.settled(engine, flat=word is Flatten):
                await asyncio.sleep(0.05)
    if left := kill_path.unsettled(engine):
        log.error("orders_left", orders=left)
    if word is Flatten and (held := engine.ledger.symbols()):
        log.warning("positions_left", symbols=held)
    try:
        until = max(until, loop.time() + LAST_LOOK_S)
        async with asyncio.timeout_at(until):  # one end to it all: what is banned or silent would be waited for without end
            await parts.venue.settle(until - loop.time() - LAST_LOOK_S / 2)
            while door.depth:
                await asyncio.sleep(0.02)
            theirs = await parts.venue.balances()
    except (VenueError, TimeoutError) as error:
        log.error("venue_unreachable_at_the_end", error=str(error))
        return None
    return {found.currency: abs(found.amount) for found in differences(engine.ledger.balances, theirs)}


async def _sync(parts: Parts) -> None:
    while True:
        await asyncio.sleep(SYNC_S)
        try:
            await parts.background(parts.journal.sync)
        except (RecordFailed, OSError) as error:  # the next commit meets it too, and knows what to do
            log.error("tape_not_synced", error=str(error))


async def _show(status: Status, show: Callable[[dict[str, Any]], None]) -> None:
    while True:
        show(status.snapshot())
        await asyncio.sleep(SHOW_S)


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first of our own errors, else the first of any: one sentence for one user."""
    ours = errors.subgroup(TradingError)
    found: BaseException = ours if ours is not None else errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


def stop_on_signals(stop: asyncio.Event, reload: Callable[[], None] | None = None) -> None:
    """Ctrl-C, SIGTERM and a terminal that goes away end a session in order; SIGHUP to one without a terminal has it read its settings again."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, stop.set if reload is None or sys.stdin.isatty() else reload)
