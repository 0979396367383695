"""One session at work: the tasks that run side by side, how they end, and the closing account. Knows no mode."""

import asyncio
import gc
import signal
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import structlog

from agents.core.errors import TradingError, Unreachable, VenueError
from agents.core.events import UNSTAMPED, Adjustment, AdjustmentKind, Bar, Event, Flatten, Halt, Listing, Resume, Trade
from agents.core.instruments import Currency, Instrument, Symbol
from agents.desk import safety
from agents.desk.decision import Effects
from agents.desk.limits import require_affordable
from agents.engine import Engine
from agents.market.observation import Experience
from daemon import control
from daemon.door import Door
from daemon.drive import drive
from daemon.journal import Journal
from daemon.segments import RecordFailed
from daemon.status import Status
from daemon.venues.base import Venue
from daemon.venues.reconcile import differences

log = structlog.get_logger()

TICK_S = 0.25
SYNC_S = 1.0
"""A power loss costs at most this much of the market's flow."""
SETTLED_S = 10.0
SHOW_S = 0.5
LEARNER_STOP_S = 10.0
SETTLE_S = 20.0
"""From the word to stop until open orders are cancelled and the last fills are in."""


class Learner(Protocol):
    """The learning side as the session sees it: it can be dead, and nothing here waits for it."""

    status: dict[str, Any]

    def offer(self, experiences: Sequence[Experience]) -> None: ...
    async def run(self) -> None: ...
    async def stop(self, timeout: float) -> None: ...


class Account(Venue, Protocol):
    """A venue whose account can be asked."""

    async def balances(self) -> Mapping[Currency, Decimal]: ...
    async def settle(self, timeout_s: float) -> bool: ...
    async def close(self) -> None: ...


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
    opening: Sequence[Adjustment]
    watchers: Sequence[Callable[[], Coroutine[Any, Any, None]]]
    stop: asyncio.Event


async def run(parts: Parts, duration: float | None, show: Callable[[dict[str, Any]], None] | None) -> dict[str, Any]:
    """Trade until `parts.stop` is set or `duration` real seconds have passed; return the summary.

    Raises the first TradingError that ended the session, after open orders were cancelled as far as the venue could be reached.
    """
    try:
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(task) for task in _tasks(parts, show)]
            driver = group.create_task(_guarded_drive(parts))
            for adjustment in parts.opening:
                parts.door.push(adjustment)
            with suppress(TimeoutError):
                async with asyncio.timeout(duration):
                    await parts.stop.wait()
            difference = await _wind_down(parts)
            parts.door.close()
            await driver
            await parts.learner.stop(LEARNER_STOP_S)
            for task in beside:
                task.cancel()
    except BaseExceptionGroup as errors:
        raise _first(errors) from errors
    summary = parts.status.summary(difference)
    parts.journal.close(parts.door.last, summary)
    if not parts.engine.market.now:
        raise Unreachable("the exchange sent no market data at all: see the log for what it answered, and check exchange.base_url")
    return summary


def _tasks(parts: Parts, show: Callable[[dict[str, Any]], None] | None) -> list[Any]:
    tasks = [
        _pump(parts),
        parts.door.metronome(TICK_S),
        parts.learner.run(),
        _sync(parts.journal),
        _settle_memory(),
        _control(parts),
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
    parts.stop.set()


def _require_affordable(parts: Parts, instrument: Instrument, price: Decimal | None) -> None:
    """Before anything is decided: raises ConfigError for a symbol whose smallest order is above the position cap."""
    capital = sum((a.amount for a in parts.opening if a.kind is AdjustmentKind.CAPITAL), Decimal(0))
    marks = {instrument.symbol: price} if price is not None else {}
    require_affordable({instrument.symbol: instrument}, marks, capital, parts.engine.config.limits)


async def _guarded_drive(parts: Parts) -> None:
    def tell(event: Event, effects: Effects) -> None:
        parts.status.tell(event, effects)
        if effects.decision is not None and not parts.status.ready:
            parts.status.ready = True
            log.info("ready", session=parts.journal.name)

    try:
        await drive(parts.door.events(), parts.engine, parts.journal, parts.venue.send, parts.learner.offer, tell)
    except RecordFailed as error:
        log.error("record_failed", error=str(error))
        await _protect(parts)
        raise


async def _protect(parts: Parts) -> None:
    """The record cannot be written: take every resting order away (cancels need no intent) and give the venue time to do it."""
    for cancel in safety.cancel_all(parts.engine.ledger):
        with suppress(VenueError):
            await parts.venue.send(cancel)
    with suppress(VenueError, TimeoutError):
        await parts.venue.settle(5.0)


async def _wind_down(parts: Parts) -> Mapping[Currency, Decimal] | None:
    """Cancel what rests, take in the last fills, compare with the venue. None when the venue cannot be asked."""
    engine, door = parts.engine, parts.door
    door.push(Halt(UNSTAMPED, "the session ends"))
    with suppress(TimeoutError):
        async with asyncio.timeout(SETTLE_S):
            while door.depth or not engine.halted or engine.ledger.live_orders():
                await asyncio.sleep(0.05)
    if left := engine.ledger.live_orders():
        log.error("orders_left", orders=[order.place.order_id for order in left])
    try:
        await parts.venue.settle(SETTLE_S)
        async with asyncio.timeout(SETTLE_S):
            while door.depth:
                await asyncio.sleep(0.02)
        theirs = await parts.venue.balances()
    except (VenueError, TimeoutError) as error:
        log.error("venue_unreachable_at_the_end", error=str(error))
        return None
    return {found.currency: abs(found.amount) for found in differences(engine.ledger.balances, theirs)}


async def _settle_memory() -> None:
    """What start-up built stays for the session: the collector need not look through it again and again."""
    gc.set_threshold(20_000, 20, 50)
    await asyncio.sleep(SETTLED_S)
    gc.freeze()


async def _sync(journal: Journal) -> None:
    while True:
        await asyncio.sleep(SYNC_S)
        await asyncio.to_thread(journal.sync)


async def _show(status: Status, show: Callable[[dict[str, Any]], None]) -> None:
    while True:
        show(status.snapshot())
        await asyncio.sleep(SHOW_S)


async def _control(parts: Parts) -> None:
    """Answer `quartet status | halt | resume | flatten | stop` until the session ends."""

    def enter(event: Halt | Resume | Flatten) -> dict[str, Any]:
        parts.door.push(event)
        return {"accepted": type(event).__name__.lower()}

    def halt(request: Mapping[str, Any]) -> dict[str, Any]:
        return enter(Halt(UNSTAMPED, str(request.get("reason", "operator"))))

    def resume(request: Mapping[str, Any]) -> dict[str, Any]:
        return enter(Resume(UNSTAMPED, str(request.get("reason", "operator"))))

    def flatten(request: Mapping[str, Any]) -> dict[str, Any]:
        return enter(Flatten(UNSTAMPED, str(request.get("reason", "operator"))))

    def stop(_: Mapping[str, Any]) -> dict[str, Any]:
        parts.stop.set()
        return {"accepted": "stop"}

    answers: dict[str, control.Answer] = {
        "status": lambda _: parts.status.snapshot(), "halt": halt, "resume": resume, "flatten": flatten, "stop": stop,
    }  # fmt: skip
    async with control.serve(parts.folder, answers):
        await asyncio.Event().wait()


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first of our own errors, else the first of any: one sentence for one user."""
    ours = errors.subgroup(TradingError)
    found: BaseException = ours if ours is not None else errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found


def stop_on_signals(stop: asyncio.Event) -> None:
    """Ctrl-C and SIGTERM end a session in order."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
