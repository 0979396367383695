"""Messages to people: when, how often, and through a real service on loopback."""

import asyncio
import json
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from daemon.notify import HOUR, Manners, Notifier, by_apprise, conditions

MINUTE = HOUR // 60
NOON = 12 * HOUR


class Town:
    """A session's status, its clock, and who was told what."""

    def __init__(self, manners: Manners, at: int = NOON, taken: bool = True) -> None:
        self.status: dict[str, Any] = {"ready": True, "rung": "calm"}
        self.at, self.taken = at, taken
        self.told: list[tuple[str, str]] = []
        self.notifier = Notifier("Quartet main", manners, self.send, lambda: self.status, lambda: self.at)

    async def send(self, title: str, text: str, level: str) -> bool:
        self.told.append((level, text))
        return self.taken

    async def look(self, minutes: float = 1.0, **status: Any) -> None:
        self.at += int(minutes * MINUTE)
        self.status |= status
        await self.notifier.look()


async def test_a_condition_is_told_once_and_once_when_it_is_over():
    town = Town(Manners())
    for _ in range(5):
        await town.look(halted=True)
    for _ in range(5):
        await town.look(halted=False)
    assert town.told == [("warning", "halted: no order is placed until resume"), ("warning", "over: halted: no order is placed until resume")]


async def test_what_comes_and_goes_is_not_told_each_time():
    town = Town(Manners(again_s=900))
    for _ in range(20):
        await town.look(0.1, halted=True)
        await town.look(0.1, halted=False)
    assert len(town.told) == 2
    await town.look(20, halted=True)
    assert len(town.told) == 3


@given(st.lists(st.sampled_from(["halted", "flattening", "reduce", "calm", "notes"]), max_size=80))
def test_a_storm_ends_after_so_many_messages_an_hour(storm):
    async def play() -> list[str]:
        town = Town(Manners(level="info", again_s=0, most_an_hour=5))
        for number, each in enumerate(storm):
            change = {"notes": {f"n{number}": "x"}} if each == "notes" else {"rung": each} if each in ("reduce", "calm") else {each: number % 2 == 0}
            await town.look(0.5, **change)
        return [level for level, _ in town.told]

    levels = asyncio.run(play())
    assert sum(level != "critical" for level in levels) <= 5


async def test_in_quiet_hours_only_the_critical_is_told_and_the_rest_in_the_morning():
    town = Town(Manners(quiet=(22 * 60, 7 * 60)), at=23 * HOUR)
    await town.look(halted=True)
    await town.look(rung="flatten", drawdown=0.21)
    assert town.told == [("critical", "drawdown 21.0%: the ladder stands at flatten")]
    await town.look(60 * 9)
    assert town.told[1] == ("warning", "halted: no order is placed until resume")
    assert town.notifier.status["kept"] == 0


async def test_a_level_that_nobody_listens_to_is_not_told():
    town = Town(Manners(level="critical"))
    await town.look(halted=True)
    await town.look(halted=False)
    assert town.told == []


async def test_a_service_that_fails_or_raises_is_counted_and_ends_nothing():
    town = Town(Manners(), taken=False)
    await town.look(halted=True)
    assert (town.notifier.sent, town.notifier.failed) == (0, 1)

    async def broken(title: str, text: str, level: str) -> bool:
        raise RuntimeError("no such host")

    notifier = Notifier("t", Manners(), broken, lambda: {"halted": True}, lambda: NOON)
    await notifier.look()
    assert notifier.failed == 1


def test_conditions_of_a_calm_session_are_none():
    assert conditions({"ready": True, "rung": "calm", "data_age_s": 0.1, "reconciled": True, "measures": {"oldest_unknown_s": 0.0}}) == {}
    assert conditions({}) == {}


async def test_apprise_reaches_a_real_service():
    got: list[dict[str, Any]] = []

    async def take(request: web.Request) -> web.Response:
        got.append(json.loads(await request.text()))
        return web.Response()

    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        port = runner.addresses[0][1]
        assert await by_apprise([f"json://127.0.0.1:{port}/"])("Quartet main", "halted", "critical")
    finally:
        await runner.cleanup()
    assert (got[0]["title"], got[0]["message"], got[0]["type"]) == ("Quartet main", "halted", "failure")


def test_an_unknown_service_is_named_without_its_secrets():
    with pytest.raises(ValueError, match=r"apprise knows no service for nonsense://\.\.\.") as caught:
        by_apprise(["nonsense://token@host"])
    assert "token" not in str(caught.value)


async def test_a_storm_of_warnings_keeps_nothing_critical_back():
    town = Town(Manners(most_an_hour=2, again_s=1))
    for halted in (True, False, True, False):
        await town.look(halted=halted)
    assert town.notifier.withheld > 0
    before = len(town.told)
    await town.look(rung="flatten", drawdown=0.21)
    assert [level for level, _ in town.told[before:]] == ["critical"]


async def test_what_no_service_took_is_told_again_with_longer_and_longer_pauses():
    town = Town(Manners(), taken=False)
    await town.look(rung="flatten", drawdown=0.21)
    for _ in range(60):
        await town.look(1)
    assert 4 <= len(town.told) <= 8
    assert town.notifier.status["kept"] == 1
    town.taken = True
    for _ in range(60):
        await town.look(1)
    assert (town.notifier.sent, town.notifier.status["kept"]) == (1, 0)
    assert town.told[-1] == ("critical", "drawdown 21.0%: the ladder stands at flatten")


async def test_what_is_over_before_it_was_taken_is_told_as_over():
    town = Town(Manners(), taken=False)
    await town.look(halted=True)
    town.taken = True
    await town.look(2, halted=False)
    assert town.told[1:] == [("warning", "over: halted: no order is placed until resume")]


async def test_a_snapshot_that_fails_ends_no_watcher():
    looks = 0

    def snapshot() -> dict[str, Any]:
        nonlocal looks
        looks += 1
        raise ZeroDivisionError

    notifier = Notifier("t", Manners(), Town(Manners()).send, snapshot, lambda: NOON)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await notifier.run()
    assert (looks, notifier.mistakes) == (1, 1)


def test_a_learner_that_is_started_again_and_again_is_told_to_who_listens():
    assert conditions({"learner": {"state": "restarting"}})["learner"].level == "info"
    assert conditions({"learner": {"state": "learning"}}) == {}
