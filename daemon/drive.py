"""The only loop: fact -> record -> engine -> record -> venue. It does not know which venue it drives, or why."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Protocol

from agents.core.events import Event, Tick
from agents.core.orders import Command
from agents.desk.decision import Effects
from agents.engine import Engine
from agents.market.observation import Experience
from daemon.segments import RecordFailed

BREATH = 64
"""Facts between two chances for the other tasks of the loop: a burst must not starve the readers."""


class Unsent(Exception):
    """The record failed: `commands` were decided and not sent, `error` says why."""

    def __init__(self, commands: tuple[Command, ...], error: RecordFailed) -> None:
        super().__init__(str(error))
        self.commands, self.error = commands, error


class Record(Protocol):
    """Where facts, intents and decisions are written, or compared with what was written."""

    def append(self, event: Event) -> None: ...
    def intend(self, seq: int, wanted: tuple[Command, ...]) -> None: ...
    def decide(self, number: int, seq: int, at: int, record: dict[str, Any]) -> None: ...
    def commit(self, seq: int) -> None: ...


async def drive(
    facts: AsyncIterator[Event],
    engine: Engine,
    record: Record,
    send: Callable[[Command], Awaitable[None]],
    teach: Callable[[Sequence[Experience]], None],
    tell: Callable[[Event, Effects], None],
) -> None:
    """Run until `facts` ends. A command is sent only after its intent is durable; raises Unsent where that fails.

    `teach` takes experiences, `tell` mirrors outward; both return at once and cannot fail a decision.
    """
    handled = 0
    async for event in facts:
        seq = event.stamp.seq
        record.append(event)
        effects = engine.step(event)
        if effects.decision is not None:
            record.decide(effects.decision.number, seq, event.stamp.at, effects.decision.record())
        if effects.commands or isinstance(event, Tick):
            try:
                record.intend(seq, effects.commands)
                record.commit(seq)
            except RecordFailed as error:
                raise Unsent(effects.commands, error) from error
            for command in effects.commands:
                await send(command)
        if effects.experiences:
            teach(effects.experiences)
        tell(event, effects)
        handled += 1
        if handled % BREATH == 0:
            await asyncio.sleep(0)
