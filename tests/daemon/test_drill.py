"""A drill with real processes; where it refuses to take place; what its report says."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from agents.core.errors import ConfigError, TradingError
from daemon import drill as room
from daemon.drill.ground import Ground
from daemon.drill.steps import DRILLS, Drill
from daemon.errors import Unsafe
from daemon.sources import load

KEYS = {"QUARTET__EXCHANGE__API_KEY": "abcdefgh", "QUARTET__EXCHANGE__SECRET": "s"}


def drilled(out: Path, exchange: dict[str, Any], account: str = "", only: tuple[str, ...] = ()) -> dict[str, Any]:
    settings = load(None, {"mode": "live", "exchange": {"symbols": ("BTC/USDT",), **exchange}}, KEYS if exchange.get("id") else {})
    return asyncio.run(room.drill(settings, out, account=account, only=only))


def test_a_killed_daemon_loses_its_orders_and_the_drill_says_so(tmp_path: Path) -> None:
    data = drilled(tmp_path, {}, only=("kill",))
    (step,) = data["steps"]
    assert (data["passed"], step["name"], step["passed"]) == (True, "kill", True), step
    assert "the daemon is gone, without a goodbye" in step["seen"]
    assert orjson.loads(Path(data["report"]).read_bytes()) == data
    assert Path(data["report"]).with_suffix(".txt").read_text() == room.render(data) + "\n"


@pytest.mark.parametrize(
    ("exchange", "account", "said"),
    [
        ({"id": "binance"}, "abcdefgh", "not on binance itself"),
        ({"id": "binance", "base_url": "https://203.0.113.1"}, "", "name it by --yes"),
        ({"id": "binance", "base_url": "https://203.0.113.1"}, "abcde", "name it by --yes"),
        ({"id": "binance", "base_url": "https://203.0.113.1"}, "abcdeX", "name it by --yes"),
    ],
)
def test_no_drill_where_it_could_be_meant_otherwise(tmp_path: Path, exchange: dict[str, Any], account: str, said: str) -> None:
    with pytest.raises(Unsafe, match=said):
        drilled(tmp_path, exchange, account)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_drill_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there are kill, restart, streams, latch, flatten"):
        drilled(tmp_path, {}, only=("explode",))


async def broken(_: Ground) -> tuple[str, bool]:
    raise TradingError("it exploded")


async def worse(_: Ground) -> tuple[str, bool]:
    return "two orders were lost", False


def test_what_fails_is_reported_and_the_next_drill_still_takes_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = (Drill("bang", "a bang", "silence", broken), Drill("loss", "a loss", "no loss", worse))
    monkeypatch.setattr(room, "DRILLS", made)
    data = drilled(tmp_path, {})
    assert [(step["passed"], step["seen"]) for step in data["steps"]] == [(False, "TradingError: it exploded"), (False, "two orders were lost")]
    assert data["passed"] is False
    assert "bang: FAILED" in room.render(data)
    assert "NOT all passed" in room.render(data)


def test_what_only_the_rehearsal_exchange_can_do_is_skipped_elsewhere(tmp_path: Path) -> None:
    (cut,) = (one for one in DRILLS if one.needs_faults)
    settings = load(None, {"exchange": {"symbols": ("BTC/USDT",)}}, {})
    ground = Ground(settings, tmp_path, None, None)
    step = asyncio.run(room._step(cut, ground))
    assert (step["passed"], step["seen"][:7]) == (None, "skipped")
    text = room.render({"at": "2026-01-01T00:00:00", "exchange": "x", "base_url": None, "steps": [step], "passed": True, "report": "r", "folder": "f"})
    assert "streams: skipped" in text
