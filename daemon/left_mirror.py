"""Keeps in Redis what a standby needs to go on: written soon after each fill and order change, off the decision path.

What is written is consistent: it is put together between two facts, when ledger and cursors agree upon what was told.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import structlog

from agents.core.errors import Unreachable
from agents.core.events import (
    UNSTAMPED,
    Adjustment,
    AdjustmentKind,
    Adopted,
    Event,
    Fill,
    Flatten,
    Halt,
    OrderUpdate,
    Resume,
    RiskRestored,
)
from agents.core.instruments import Symbol
from agents.core.ledger import Ledger
from agents.desk.decision import Effects
from agents.engine import Engine
from daemon.latch import Latch
from daemon.left_plain import told
from daemon.venues.fills import Cursor, trade_key
from daemon.venues.parse import noted_trade

log = structlog.get_logger()

SOONEST_S, LATEST_S = 0.1, 1.0
LAST_WORD_S = 2.0
_NEWS = (Fill, OrderUpdate, Adjustment, Adopted, Halt, Resume, Flatten)
Write = Callable[[int, bytes], Awaitable[bool]]


class LeftMirror:
    """One session's. `last` is the number of the last fact that was handed to the engine, `outrun` is called where a later session writes."""

    def __init__(
        self, write: Write, engine: Engine, epoch: int, origin: str, latch: Latch, cursors: Mapping[Symbol, Cursor],
        transfers: Iterable[str], last: Callable[[], int], outrun: Callable[[], None],
    ) -> None:  # fmt: skip
        self._write, self._engine, self._epoch, self._origin, self._latch = write, engine, epoch, origin, latch
        self._cursors, self._transfers = dict(cursors), set(transfers)
        self._last, self._outrun = last, outrun
        self._seen = self._at = 0
        self._news = asyncio.Event()
        self._failing = False
        self.written = 0

    @property
    def status(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"written": self.written, "failing": self._failing}

    def tell(self, event: Event, effects: Effects) -> None:
        """Take note of one fact that the engine has handled; returns at once."""
        self._seen, self._at = event.stamp.seq, event.stamp.at
        self._note(event)
        if effects.commands or isinstance(event, _NEWS):
            self._news.set()

    def _note(self, event: Event) -> None:
        match event:
            case Fill():
                self._reached(event.symbol, trade_key(event))
            case Adjustment(kind=AdjustmentKind.DEPOSIT | AdjustmentKind.WITHDRAWAL):
                self._transfers.add(event.note)
            case Adjustment(kind=AdjustmentKind.CORRECTION) if (found := noted_trade(event.note)) is not None:
                self._reached(found[0], (found[2], found[1]))

    def _reached(self, symbol: Symbol, trade: tuple[int, str]) -> None:
        self._cursors[symbol] = self._cursors.get(symbol, Cursor()).beyond([trade])

    async def open(self, events: Iterable[Event], at: int) -> None:
        """Before the first order: what the session begins with. Raises Unreachable."""
        ledger, risk = Ledger(self._engine.ledger.quote), None
        for event in events:
            ledger.apply(event)
            self._note(event)
            risk = event if isinstance(event, RiskRestored) else risk
        self._at = at
        await self._keep(told(self._epoch, at, ledger, self._cursors, risk, self._transfers, self._origin, self._latch.read()))

    async def run(self) -> None:
        """Write until cancelled. A Redis that does not answer is said once each way; the lease knows what to do about it."""
        while True:
            try:
                async with asyncio.timeout(LATEST_S):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            try:
                await self.write()
            except Unreachable as error:
                if not self._failing:
                    log.warning("left_not_written", error=str(error))
                self._failing = True
            else:
                if self._failing:
                    log.info("left_written_again")
                self._failing = False
            await asyncio.sleep(SOONEST_S)

    async def write(self) -> None:
        """Write what is left now. Raises Unreachable."""
        if not self._seen:
            return
        while self._last() != self._seen:  # a fact is being handled: the ledger may have it, and the cursors not yet
            await asyncio.sleep(0.002)
        engine = self._engine
        body = told(self._epoch, self._at, engine.ledger, self._cursors, _risk(engine), self._transfers, self._origin, self._latch.read())
        await self._keep(body)

    async def farewell(self) -> None:
        """The last word, for a while."""
        try:
            async with asyncio.timeout(LAST_WORD_S):
                await self.write()
        except (Unreachable, TimeoutError) as error:
            log.warning("left_not_written", error=str(error))

    async def _keep(self, body: bytes) -> None:
        try:
            kept = await self._write(self._epoch, body)
        except TimeoutError as error:
            raise Unreachable(f"redis: {error}") from error
        if kept:
            self.written += 1
        else:
            self._outrun()


def _risk(engine: Engine) -> RiskRestored | None:
    """The risk layer's memory, once it has one."""
    risk, capital = engine.risk, float(engine.ledger.capital)
    if not (math.isfinite(risk.peak_equity) and risk.peak_equity > 0 and capital > 0):
        return None
    return RiskRestored(UNSTAMPED, float(risk.peak_equity), capital, float(risk.drawdown), str(risk.rung))
