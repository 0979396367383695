"""How a session ends: in the time that it was given, whatever the exchange does."""

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from types import SimpleNamespace

import pytest

from agents.core.events import UNSTAMPED, BookSnapshot, Event, Halt
from agents.core.instruments import Currency, Symbol
from agents.desk.decision import EngineConfig
from agents.engine import Engine
from daemon import running
from daemon.door import Door
from daemon.drive import drive
from daemon.running import Ending


class Silent:
    """An exchange that wants no request: whoever asks, waits."""

    async def settle(self, timeout_s: float) -> bool:
        await asyncio.sleep(timeout_s)
        return False

    async def balances(self) -> Mapping[Currency, Decimal]:
        await asyncio.Event().wait()
        raise AssertionError


class Nothing:
    """A record that takes everything."""

    def append(self, *_: object) -> None: ...
    def intend(self, *_: object) -> None: ...
    def decide(self, *_: object) -> None: ...
    def commit(self, *_: object) -> None: ...


async def test_a_session_ends_in_its_time_while_the_exchange_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "LAST_LOOK_S", 0.2)
    engine, door = Engine(EngineConfig("test", 1, "USDT", (Symbol("BTC/USDT"),), agents=())), Door()
    parts = SimpleNamespace(engine=engine, door=door, venue=Silent(), ending=Ending(timeout_s=0.5))

    async def send(_: object) -> None: ...

    driver = asyncio.ensure_future(drive(door.events(), engine, Nothing(), send, lambda _: None, lambda *_: None))
    async with asyncio.timeout(5):
        assert await running._wind_down(parts) is None  # type: ignore[arg-type]  # the four that it looks at
    assert engine.halted
    driver.cancel()


@pytest.mark.parametrize(("opening", "ready"), [((), False), ((Halt(UNSTAMPED, "latched"),), True)])
async def test_a_latched_session_is_ready_once_prices_are_there_and_a_mirror_that_fails_ends_nothing(opening: tuple[Event, ...], ready: bool) -> None:
    engine, door = Engine(EngineConfig("test", 1, "USDT", (Symbol("BTC/USDT"),))), Door()
    notes: dict[str, str] = {}
    status = SimpleNamespace(ready=False, notes=notes, note=notes.__setitem__, tell=lambda *_: None)

    def mistaken(*_: object) -> None:
        assert not status.ready
        raise ZeroDivisionError("a mistake in telling")

    parts = SimpleNamespace(
        engine=engine, door=door, status=status, mirrors=(mistaken,), journal=Nothing(), venue=SimpleNamespace(send=None), learner=None, stop=asyncio.Event()
    )
    parts.journal.name = "s"
    for event in opening:
        door.push(event)
    door.close()
    await running._guarded_drive(parts)  # type: ignore[arg-type]  # what it looks at
    assert not status.ready, "no prices yet"
    parts.door = later = Door(first=2)
    later.push(BookSnapshot(UNSTAMPED, Symbol("BTC/USDT"), 1_000_000_000, ((Decimal(10), Decimal(1)),), ((Decimal(11), Decimal(1)),)))
    later.close()
    await running._guarded_drive(parts)  # type: ignore[arg-type]
    assert status.ready is ready
    assert notes == {"mirror_failed": "ZeroDivisionError: a mistake in telling"}
