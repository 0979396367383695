"""The request budget that all processes of a machine share, with real processes and the real ccxt."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import ccxt
import pytest
from aiohttp import web
from hypothesis import example, given
from hypothesis import strategies as st

from agents.core.errors import Throttled
from daemon.venues import shared_window
from daemon.venues.budget import CALL, Budget, Call, Lane, budget_for, budget_of, govern, learn_limits
from daemon.venues.client import ExchangeOptions, build_client, close_client
from daemon.venues.shared_window import SharedWindow, folder
from daemon.venues.throttle import Throttle
from tests.daemon.scripted_binance import ScriptedBinance, error, scripted_binance, until

ROOT = Path(__file__).parents[2]
STEPS = st.lists(st.tuples(st.sampled_from(list(Lane)), st.floats(0.1, 8), st.floats(0, 4)), max_size=120)


def budget(limit: float = 60.0, window_s: float = 60.0, share: float = 1.0, place: Path | None = None) -> Budget:
    return Budget("host", limit, window_s, share, place)


@given(STEPS)
@example([(Lane.PROTECT, 1.0, 1.5)] * 2 + [(Lane.PROTECT, 1.0, 0.0)] * 46 + [(Lane.PROTECT, 1.0, 56.9), (Lane.PROTECT, 1.0, 1.2)])
def test_no_window_ever_holds_more_than_the_share(steps: list[tuple[Lane, float, float]]):
    kept, now, taken = budget(share=0.8), 1000.0, []
    for lane, cost, pause in steps:
        now += pause
        if kept.take(cost, lane, now) == 0.0:
            taken.append((now, cost))
        inside = sum(c for at, c in taken if at > now - 60.0)
        assert inside <= max(48.0, cost) + 1e-6


@given(STEPS)
def test_who_waits_as_long_as_told_gets_in(steps: list[tuple[Lane, float, float]]):
    kept, now = budget(), 1000.0
    for lane, cost, pause in steps:
        now += pause
        for _ in range(200):
            if (wait := kept.take(cost, lane, now)) == 0.0:
                break
            assert 0 < wait <= 61
            now += wait
        else:
            pytest.fail("never")


def test_the_protective_lane_has_room_when_the_others_are_full():
    kept = budget()
    while kept.take(1.0, Lane.DATA, 0.0) == 0.0:
        pass
    assert kept.take(1.0, Lane.DATA, 0.0) > 0
    orders = sum(kept.take(1.0, Lane.ORDER, 0.0) == 0.0 for _ in range(60))
    assert orders == 9 and kept.take(1.0, Lane.ORDER, 0.0) > 0
    assert sum(kept.take(1.0, Lane.PROTECT, 0.0) == 0.0 for _ in range(60)) == 9


def test_a_protective_call_that_must_wait_goes_before_all_others():
    kept = budget()
    kept.reported(60.0, 0.0)
    wait = kept.take(1.0, Lane.PROTECT, 30.0)
    assert 29 <= wait <= 32
    assert kept.take(1.0, Lane.DATA, 30.0 + wait) > 0  # it would fit now, and the other one comes first
    assert kept.take(1.0, Lane.PROTECT, 30.0 + wait) == 0.0


def test_a_cost_above_the_whole_budget_still_gets_its_turn():
    kept = budget(limit=5.0)
    assert kept.take(40.0, Lane.DATA, 0.0) == 0.0
    assert kept.take(40.0, Lane.DATA, 1.0) > 0
    assert kept.take(40.0, Lane.DATA, 62.0) == 0.0


def test_what_the_exchange_counts_more_than_we_do_is_somebody_elses():
    kept = budget()
    kept.take(10.0, Lane.DATA, 0.0)
    kept.reported(4.0, 0.0)
    assert kept.status(0.0)["used"] == 10.0
    kept.reported(55.0, 0.0)
    assert kept.status(0.0)["used"] == 55.0 and kept.take(1.0, Lane.ORDER, 0.0) > 0


def test_limits_are_what_the_exchange_says():
    kept = budget(limit=1200.0)
    kept.weight_per_cost = 5.0
    learn_limits(kept, [
        {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 3000},
        {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 50},
        {"rateLimitType": "ORDERS", "interval": "DAY", "intervalNum": 1, "limit": 160_000},
        {"rateLimitType": "RAW_REQUESTS", "interval": "MINUTE", "intervalNum": 5, "limit": 61_000},
    ])  # fmt: skip
    assert kept.limit == 600.0
    assert kept.order_limits == {"x-mbx-order-count-10s": 50.0, "x-mbx-order-count-1d": 160_000.0}


# ---- one file, several processes

WORKER = """
import sys, time
from pathlib import Path
from daemon.venues.budget import Budget, Lane
kept = Budget("host", 600.0, 60.0, 1.0, Path(sys.argv[1]))
taken = 0
for _ in range(int(sys.argv[2])):
    taken += kept.take(1.0, Lane.PROTECT, float(sys.argv[3])) == 0.0
print(taken, kept._window.contended)
"""


def worker(*arguments: object, script: str = WORKER) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_several_processes_together_spend_one_budget_to_the_last_unit(tmp_path: Path):
    said = [worker.communicate(timeout=30)[0].split() for worker in [worker(tmp_path, 400, 1000.0) for _ in range(4)]]
    unlocked = sum(int(contended) for _, contended in said)  # a machine so busy that a holder slept for 50 ms
    assert 600 <= sum(int(taken) for taken, _ in said) <= 600 + unlocked, said
    assert unlocked <= 16


def test_a_ban_is_known_to_a_process_that_starts_later(tmp_path: Path):
    budget(place=tmp_path).ban(50.0, 1000.0)
    assert worker(tmp_path, 5, 1049.0).communicate(timeout=30)[0].split()[0] == "0"
    assert worker(tmp_path, 5, 1050.5).communicate(timeout=30)[0].split()[0] == "5"


HOLDER = """
import sys, time
from pathlib import Path
from daemon.venues.shared_window import SharedWindow
window = SharedWindow(Path(sys.argv[1]), 1.0)
with window.held():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_dies_or_stands_still_inside_the_lock_blocks_nobody(tmp_path: Path, how: signal.Signals):
    kept = budget(place=tmp_path)
    holder = worker(tmp_path / "host.budget", script=HOLDER)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    try:
        holder.send_signal(how)
        if how is signal.SIGKILL:
            holder.wait(5)
        before = time.monotonic()
        assert kept.take(1.0, Lane.PROTECT, 0.0) == 0.0
        assert time.monotonic() - before < 0.5
        assert kept.status(0.0)["used"] == 1.0
        assert (kept.status(0.0)["unlocked"] > 0) is (how is signal.SIGSTOP)
    finally:
        holder.kill()
        holder.communicate()


@pytest.mark.parametrize("content", [b"", b"short", bytes(552), b"x" * 552, b"quartet1" + bytes(544)])
def test_a_file_that_is_broken_or_from_before_the_last_boot_starts_anew(tmp_path: Path, content: bytes):
    (tmp_path / "host.budget").write_bytes(content)
    kept = budget(place=tmp_path)
    assert kept.take(1.0, Lane.DATA, 5.0) == 0.0 and kept.status(5.0)["used"] == 1.0


def test_what_was_written_before_the_last_boot_means_nothing(tmp_path: Path):
    budget(place=tmp_path).ban(1000.0, 50.0)
    raw = bytearray((tmp_path / "host.budget").read_bytes())
    raw[8] ^= 0xFF
    (tmp_path / "host.budget").write_bytes(raw)
    assert budget(place=tmp_path).banned_s(60.0) == 0.0


def test_the_file_is_private_and_no_link_is_followed(tmp_path: Path):
    budget(place=tmp_path).take(1.0, Lane.DATA, 0.0)
    assert (tmp_path / "host.budget").stat().st_mode & 0o777 == 0o600
    (tmp_path / "link").symlink_to(tmp_path / "host.budget")
    with pytest.raises(OSError, match="symbolic links"):
        SharedWindow(tmp_path / "link", 1.0)
    (tmp_path / "other.budget").symlink_to(tmp_path / "host.budget")
    alone = Budget("other", 60.0, 60.0, 1.0, tmp_path)
    assert not alone.shared and alone.take(1.0, Lane.DATA, 0.0) == 0.0


def test_the_folder_is_this_users_own_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert folder() == tmp_path / "quartet" and (tmp_path / "quartet").stat().st_mode & 0o777 == 0o700
    (tmp_path / "quartet").chmod(0o755)
    assert folder() is None
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "not there"))
    assert folder() is None
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr(shared_window.tempfile, "gettempdir", lambda: str(tmp_path))
    assert folder() == tmp_path / f"quartet-{os.getuid()}"


# ---- under the real ccxt


@asynccontextmanager
async def governed(place: Path | None = None, limit: float = 1200.0) -> AsyncIterator[tuple[ScriptedBinance, Any, Budget]]:
    async with scripted_binance() as server:
        exchange = build_client(ExchangeOptions("binance", server.url, api_key="key", secret="secret", timeout_ms=500))
        await exchange.load_markets()
        kept = Budget(server.url, limit, 60.0, 1.0, place)
        kept.weight_per_cost = 5.0
        if place is not None or limit != 1200.0:
            exchange.enableRateLimit = True
            govern(exchange, kept)
        try:
            yield server, exchange, budget_of(exchange) or kept
        finally:
            await close_client(exchange)


async def test_ccxt_asks_before_each_request_with_its_own_costs(tmp_path: Path):
    async with governed(tmp_path) as (_, exchange, kept):
        now = asyncio.get_running_loop().time()
        await exchange.fetch_time()
        assert kept.status(now)["used"] == pytest.approx(0.2)  # weight 1
        await exchange.fetch_balance()
        assert kept.status(now)["used"] == pytest.approx(4.2)  # weight 20


async def test_a_new_order_does_not_wait_for_budget_until_it_is_an_old_one():
    async with governed(limit=0.5) as (server, exchange, kept):
        kept.take(10.0, Lane.DATA, asyncio.get_running_loop().time())
        throttle = Throttle(5.0)
        with pytest.raises(Throttled, match="no budget"):
            await throttle.call(exchange, lambda: exchange.create_order("BTC/USDT", "limit", "buy", 1, 100), call=Call(Lane.ORDER))
        assert server.orders == [] and CALL.get() is None


@pytest.mark.parametrize(
    ("status", "headers", "low", "high"),
    [(429, {"Retry-After": "7"}, 6, 7), (418, {"retry-after": "90"}, 85, 90), (429, {}, 8, 10), (418, {}, 115, 120)],
)
async def test_after_a_429_or_418_nothing_is_sent_before_its_end_by_any_process(
    tmp_path: Path, status: int, headers: dict[str, str], low: float, high: float
):
    async with governed(tmp_path) as (server, exchange, _):
        server.refuse["account"] = lambda: error(-1003, "too many", status, **headers)
        throttle = Throttle(2.0)
        with pytest.raises(ccxt.DDoSProtection):
            await throttle.call(exchange, exchange.fetch_balance)
        assert low < throttle.banned_s() <= high and throttle.bans == 1
        before = len(server.calls)
        with pytest.raises(Throttled):
            await throttle.call(exchange, exchange.fetch_time, wait_for_ban=False)
        exchange.enableRateLimit = False  # what goes around ccxt's throttle is stopped all the same
        with pytest.raises(Throttled):
            await exchange.fetch_order_book("BTC/USDT")
        assert len(server.calls) == before
        other = Budget(server.url, 1200.0, 60.0, 1.0, tmp_path)
        assert low < other.banned_s(asyncio.get_running_loop().time()) <= high


async def test_a_ban_told_to_a_request_of_ccxts_own_counts_too():
    async with governed() as (server, exchange, kept):
        server.refuse["depth"] = lambda: error(-1003, "banned", 418, **{"Retry-After": "33"})
        with pytest.raises(ccxt.DDoSProtection):
            await exchange.fetch_order_book("BTC/USDT")
        assert 30 < kept.banned_s(asyncio.get_running_loop().time()) <= 33


async def test_a_ban_ends_by_itself_and_calls_go_on():
    async with governed() as (server, exchange, _):
        server.refuse["account"] = lambda: error(-1003, "too many", 429, **{"Retry-After": "0.5"})
        throttle = Throttle(2.0)
        with pytest.raises(ccxt.DDoSProtection):
            await throttle.call(exchange, exchange.fetch_balance)
        server.refuse.clear()
        before = asyncio.get_running_loop().time()
        assert (await throttle.call(exchange, exchange.fetch_balance))["USDT"]["total"] == 1000.0
        assert asyncio.get_running_loop().time() - before >= 0.4


async def test_the_weight_and_the_order_count_that_the_exchange_reports_are_believed():
    async with governed() as (server, exchange, kept):
        now = asyncio.get_running_loop().time()
        kept.order_limits = {"x-mbx-order-count-10s": 50.0}
        headers = {"X-MBX-USED-WEIGHT-1M": "3000", "X-MBX-ORDER-COUNT-10S": "45"}
        server.refuse["time"] = lambda: web.json_response({"serverTime": 1}, headers=headers)
        await exchange.fetch_time()
        assert kept.status(now)["used"] == pytest.approx(600.0)
        assert kept.take(0.2, Lane.ORDER, now) > 0 and kept.take(0.2, Lane.PROTECT, now) == 0.0


async def test_on_loopback_nobody_is_slowed_and_no_file_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    async with governed() as (_, exchange, kept):
        assert not exchange.enableRateLimit and kept is budget_of(exchange) and not kept.shared
        kept.limit = 1.0
        for _ in range(5):
            await exchange.fetch_balance()  # of 4 units each
        assert kept.waits == 0
        assert list(tmp_path.iterdir()) == []


async def test_a_real_exchange_shares_its_file_between_objects_and_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    one, two, other = (build_client(ExchangeOptions(name)) for name in ("binance", "binance", "kraken"))
    assert budget_of(one) is budget_of(two) and budget_of(one) is not budget_of(other)
    assert (tmp_path / "quartet" / "api.binance.com.budget").exists()
    assert one.enableRateLimit
    for exchange in (one, two, other):
        await close_client(exchange)


async def test_windows_are_the_exchanges_own_where_ccxt_knows_them():
    for name, limit, window_s in (("binance", 1200, 60), ("kraken", 10, 10), ("okx", 2000 / 110, 2), ("cryptocom", 100, 1), ("bybit", 250, 5)):
        exchange = getattr(ccxt.async_support, name)()
        kept = budget_for(exchange, f"{name}.test", 0.8, None)
        assert (kept.limit, kept.window_s) == (pytest.approx(limit), window_s)
        await exchange.close()


async def test_protective_calls_do_not_queue_behind_new_orders():
    async with governed() as (server, exchange, _):
        gate = asyncio.Event()

        async def held(query: Any, request: Any) -> Any:
            await gate.wait()

        server.on_order = [held] * 8
        throttle = Throttle(5.0, concurrency=8)

        async def order(number: int) -> Any:
            params = {"clientOrderId": f"q-a-1-{number}-0"}
            request = lambda: exchange.create_order("BTC/USDT", "limit", "buy", 1, 100, params)  # noqa: E731
            return await throttle.call(exchange, request, call=Call(Lane.ORDER))

        exchange.timeout = 5000
        tasks = [asyncio.ensure_future(order(number)) for number in range(9)]
        await until(lambda: not server.on_order)
        assert await throttle.call(exchange, exchange.fetch_time, urgent=True)
        with pytest.raises(Throttled, match="queue"):
            await tasks[8]
        gate.set()
        assert len(await asyncio.gather(*tasks[:8])) == 8 and len(server.orders) == 8
