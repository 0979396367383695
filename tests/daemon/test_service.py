"""What a service manager hears, over a real datagram socket."""

import asyncio
import socket
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest

from daemon.service import Manager, Service, manager


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(address)
        server.setblocking(False)
        yield address, server


def heard(server: socket.socket) -> list[str]:
    words: list[str] = []
    while True:
        try:
            words += server.recv(4096).decode().splitlines()
        except BlockingIOError:
            return words


async def watch(service: Service, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        await service.run()


async def test_ready_is_said_when_we_trade_and_stopping_at_the_end(listening):
    address, server = listening
    status: dict[str, Any] = {"ready": False}
    service = Service(Manager(address, 0.3), lambda: 1, lambda: status)
    with pytest.raises(TimeoutError):
        await watch(service, 0.3)
    before = heard(server)
    assert "READY=1" not in before
    assert "STATUS=starting: waiting for the account and for prices" in before
    assert "STOPPING=1" in before
    status |= {"ready": True, "equity": 10_000.0, "drawdown": 0.01, "halted": True, "open_orders": [1, 2]}
    with pytest.raises(TimeoutError):
        await watch(service, 0.3)
    assert heard(server).count("READY=1") == 1
    service.reloading()
    service.reloaded()
    words = heard(server)
    assert (words[0], words[-1]) == ("RELOADING=1", "READY=1")
    assert words[1].startswith("MONOTONIC_USEC=")


async def test_the_watchdog_hears_a_beat_only_when_facts_went_through(listening):
    address, server = listening
    handled = chain([5, 5, 5], repeat(6))
    with pytest.raises(TimeoutError):
        await watch(Service(Manager(address, 0.06), lambda: next(handled), lambda: {"ready": True}), 0.3)
    assert heard(server).count("WATCHDOG=1") == 2


def test_what_the_environment_says():
    assert manager({}, 1) == Manager(None, None)
    assert manager({"NOTIFY_SOCKET": "@a", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 7) == Manager("@a", 30.0)
    assert manager({"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, 7) == Manager("/s", None)
    assert manager({"NOTIFY_SOCKET": "/s", "WATCHDOG_USEC": "nonsense"}, 7) == Manager("/s", None)


async def test_a_manager_that_is_gone_harms_nobody(tmp_path):
    lost = Service(Manager(str(tmp_path / "nobody"), 0.05), lambda: 1, lambda: {"ready": True})
    with pytest.raises(TimeoutError):
        await watch(lost, 0.1)
    await Service(Manager(), lambda: 1, dict).run()


async def test_a_reload_before_we_are_ready_does_not_say_that_we_are(listening):
    address, server = listening
    service = Service(Manager(address, 0.3), lambda: 1, lambda: {"ready": False})
    service.reloading()
    service.reloaded()
    assert heard(server) == []
