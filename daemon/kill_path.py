"""The last resort in the shell: sees a flatten through to the end, and takes orders away when the record or the engine fails.

Needs no learner, no agent, no solver and no market data of its own: where a price is stale it asks the venue.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Protocol

import structlog

from agents.core.errors import VenueError
from agents.core.events import UNSTAMPED, BookSnapshot, Flatten, Halt, OrderUpdate
from agents.core.instruments import Currency, Symbol
from agents.core.orders import Command, OrderState, Place
from agents.desk import safety
from agents.engine import Engine
from daemon.door import Door
from daemon.drive import Record, Unsent, drive
from daemon.latch import Latch
from daemon.segments import RecordFailed
from daemon.venues.base import Venue

log = structlog.get_logger()

LOOK_S = 0.5
QUOTE_S = 5.0
"""How long the venue may take to tell a price."""
WITHOUT_RECORD_S = 60.0
LAST_CANCEL_S = 5.0


class Account(Venue, Protocol):
    """What the kill path asks of a venue."""

    async def balances(self) -> Mapping[Currency, Decimal]: ...
    async def quote(self, symbol: Symbol) -> BookSnapshot | None: ...
    async def settle(self, timeout_s: float) -> bool: ...


def unsettled(engine: Engine) -> list[str]:
    """Orders that should be gone when nothing more is wanted; protective stops that rest may stay."""
    keep = engine.config.keep_stops and not engine.flattening
    return [order.place.order_id for order in safety.loose_ends(engine.ledger, keep)]


def settled(engine: Engine, *, flat: bool) -> bool:
    """Whether the word to halt has been carried out, and with `flat` whether nothing that can be sold is held."""
    if not engine.halted or unsettled(engine):
        return False
    return not flat or safety.is_flat(engine.market, engine.ledger, engine.config.limits)


async def attend(engine: Engine, door: Door, venue: Account, latch: Latch) -> None:
    """While a flatten is under way: bring the venue's own prices where ours are stale, verify the end, and latch it."""
    verified = False
    while True:
        await asyncio.sleep(LOOK_S)
        if not engine.flattening:
            verified = False
            continue
        for symbol in engine.ledger.symbols():
            if symbol in engine.market.symbols and engine.market.trouble(symbol) is not None:
                await _bring_price(symbol, door, venue)
        if not verified and settled(engine, flat=True):
            verified = True
            held = {s: str(engine.ledger.position(s)) for s in engine.ledger.symbols()}
            log.warning("flat", dust=held)
            if latch.read().kind == "flatten":
                _latch(latch, "halt", "flattened; resume when you have looked at the account", door.now())


async def _bring_price(symbol: Symbol, door: Door, venue: Account) -> None:
    try:
        async with asyncio.timeout(QUOTE_S):
            book = await venue.quote(symbol)
    except (VenueError, TimeoutError) as error:
        log.warning("no_price_from_venue", symbol=symbol, error=str(error)[:200])
        return
    if book is not None:
        door.push(book)


async def without_record(
    engine: Engine, door: Door, venue: Account, latch: Latch, emergency: Callable[[], Record], unsent: Sequence[Command], *, sell: bool
) -> None:
    """The disk takes no more: go on with the preallocated record until every order is gone, and all is sold where wanted."""
    sell = sell or engine.flattening
    _latch(latch, "flatten" if sell else "halt", "the record could not be written", door.now())
    for command in unsent:
        if isinstance(command, Place):
            door.push(OrderUpdate(UNSTAMPED, command.order_id, command.symbol, OrderState.REJECTED, "", Decimal(0), "not_recorded"))
    door.push((Flatten if sell else Halt)(UNSTAMPED, "the record could not be written"))
    try:
        record = emergency()
        async with asyncio.timeout(WITHOUT_RECORD_S), asyncio.TaskGroup() as group:
            driver = group.create_task(drive(door.events(), engine, record, venue.send, lambda _: None, lambda *_: None))
            while door.depth or not settled(engine, flat=sell):
                await asyncio.sleep(0.05)
            driver.cancel()
    except* (Unsent, RecordFailed, TimeoutError, VenueError) as errors:
        log.error("kill_path_cut_short", errors=[str(error) for error in errors.exceptions])
    await without_engine(engine, venue)


async def without_engine(engine: Engine, venue: Account) -> None:
    """Cancel every order that the ledger knows (cancels need no intent), and give the venue time to do it."""
    for cancel in safety.cancel_all(engine.ledger):
        with suppress(VenueError):
            await venue.send(cancel)
    with suppress(VenueError, TimeoutError):
        await venue.settle(LAST_CANCEL_S)


def _latch(latch: Latch, kind: str, reason: str, at: int) -> None:
    try:
        latch.set(kind, reason, at)  # type: ignore[arg-type]  # one of the latch's three words
    except RecordFailed as error:
        log.error("latch_failed", error=str(error))
