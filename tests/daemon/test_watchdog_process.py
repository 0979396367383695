"""The watchdog with real processes: who holds the orders is killed or stopped, and the orders at the exchange go away."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ccxt.pro
import pytest

from agents.core.instruments import Symbol
from agents.core.orders import client_order_id
from daemon import watchdog
from daemon.exchange_process import rehearsal_exchange
from daemon.venues.client import Exchange, ExchangeOptions, build_client, close_client
from daemon.watchdog import FIRED, Charge, Watchdog
from daemon.watchdog_process import Daemon, Rescue, serve

ROOT = Path(__file__).parents[2]
BTC = Symbol("BTC/USDT")
PATIENCE_S, WINDOW_S = 1.5, 0.8
BOUND_S = 8.0
"""Patience, a look and a cancel take two seconds; the rest is a busy machine's."""


class Parent:
    """A process that runs the watchdog client."""

    def __init__(self, charge: Charge, at_end: str) -> None:
        secrets = {"QUARTET__EXCHANGE__SECRET": charge.account.secret, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.daemon.guarded", at_end], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, env=os.environ | secrets,
        )  # fmt: skip
        assert self.process.stdin is not None
        self.process.stdin.write(charge.line())
        self.process.stdin.flush()
        self.pids: set[int] = set()

    def until(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        assert self.process.stdout is not None
        patience = threading.Timer(3 * BOUND_S, self.process.kill)
        patience.start()
        try:
            return self._until(self.process.stdout, holds)
        finally:
            patience.cancel()

    def _until(self, lines: Iterable[bytes], holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        for line in lines:
            if not line.startswith(b"{"):
                continue  # a word of the log
            status = json.loads(line)
            self.pids |= {status["pid"]} - {None}
            if holds(status):
                return dict(status)
        raise AssertionError("it never came to hold")

    def watching(self) -> int:
        return int(self.until(lambda status: status["state"] == "watching")["pid"])


@pytest.fixture
def parent() -> Iterator[Callable[..., Parent]]:
    made: list[Parent] = []

    def start(charge: Charge, at_end: str = "rest") -> Parent:
        made.append(Parent(charge, at_end))
        return made[-1]

    yield start
    for one in made:
        one.process.kill()
        one.process.communicate()
        for pid in one.pids:
            with_care(pid)


def with_care(pid: int) -> None:
    """No watchdog of ours outlives its test."""
    try:
        if b"watchdog_process" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    except OSError:
        pass


@asynccontextmanager
async def market(folder: Path) -> AsyncIterator[tuple[ExchangeOptions, Exchange]]:
    """An exchange process, the account's options and a client of its own."""
    async with rehearsal_exchange(["--symbols", BTC, "--speed", "1"], folder / "rehearsal.log") as server:
        options = ExchangeOptions("rehearsal", server.base_url, api_key=server.api_key, secret=server.secret)
        client = build_client(options)
        try:
            await client.load_markets()
            yield options, client
        finally:
            await close_client(client)


async def rest(client: Exchange, epoch: int, legs: int, instance: str = "main") -> list[str]:
    """Orders far below the market, which nobody will take."""
    made: list[str] = [client_order_id(instance, epoch, 1, leg) for leg in range(legs)]
    price = float(client.price_to_precision(BTC, (await client.fetch_ticker(BTC))["last"] * 0.7))
    for order_id in made:
        await client.create_order(BTC, "limit", "buy", 0.001, price, {"clientOrderId": order_id})
    return made


async def open_ids(client: Exchange) -> set[str]:
    return {order["clientOrderId"] for order in await client.fetch_open_orders(BTC)}


async def until_open(client: Exchange, wanted: set[str]) -> None:
    async with asyncio.timeout(BOUND_S):
        while await open_ids(client) != wanted:
            await asyncio.sleep(0.05)


async def until_ended(pid: int) -> None:
    async with asyncio.timeout(BOUND_S):
        while Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text():
            await asyncio.sleep(0.05)


def reports(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted((folder / "watchdog").glob("*.json"))]


def charged(options: ExchangeOptions, folder: Path, epoch: int = 3) -> Charge:
    return Charge(options, "main", epoch, (BTC,), folder, PATIENCE_S, WINDOW_S)


async def test_when_the_daemon_is_killed_its_orders_are_cancelled_and_no_others(tmp_path: Path, parent: Callable[..., Parent]) -> None:
    async with market(tmp_path) as (options, client):
        holder = parent(charged(options, tmp_path))
        pid = holder.watching()
        for place in ("cmdline", "environ"):
            assert options.secret.encode() not in Path(f"/proc/{pid}/{place}").read_bytes()
        doomed = await rest(client, 3, 2) + await rest(client, 2, 1)
        others = set(await rest(client, 4, 1)) | set(await rest(client, 3, 1, "other"))
        assert await open_ids(client) == {*doomed, *others}
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(pid, number)  # what a supervisor or a terminal sends to the whole group: only the daemon's word counts
        holder.process.kill()
        await until_open(client, others)
        late = await rest(client, 3, 1, "main")  # what was on its way when the daemon died, if the exchange takes it now
        assert late[0] in doomed
        await until_open(client, others)
        await until_ended(pid)
        (report,) = reports(tmp_path)
        assert report["outcome"] == "nothing of ours is open"
        assert report["reason"] == "the daemon is gone, without a goodbye"
        assert (report["orders"].keys(), report["left_alone"]) == ({*doomed}, {"of_a_later_session": 1, "foreign": 1})
        assert report["seconds"] >= WINDOW_S


async def test_when_the_daemon_is_stopped_its_orders_go_and_when_it_goes_on_it_is_watched_again(tmp_path: Path, parent: Callable[..., Parent]) -> None:
    async with market(tmp_path) as (options, client):
        holder = parent(charged(options, tmp_path))
        pid = holder.watching()
        await rest(client, 3, 2)
        holder.process.send_signal(signal.SIGSTOP)
        await until_open(client, set())
        holder.process.send_signal(signal.SIGCONT)
        assert holder.until(lambda status: status["fired"] == 1 and status["state"] == "watching")["pid"] == pid
        assert reports(tmp_path)[0]["reason"] == f"the daemon made no progress for {PATIENCE_S:g} s"
        again = await rest(client, 3, 1)
        assert await open_ids(client) == set(again)
        holder.process.kill()
        await until_open(client, set())
        await until_ended(pid)
        assert len(reports(tmp_path)) == 2


async def test_after_a_goodbye_nothing_is_touched_and_a_killed_watchdog_is_replaced(tmp_path: Path, parent: Callable[..., Parent]) -> None:
    async with market(tmp_path) as (options, client):
        holder = parent(charged(options, tmp_path))
        first = holder.watching()
        os.kill(first, signal.SIGKILL)
        second = holder.until(lambda status: status["restarts"] == 1 and status["state"] == "watching")["pid"]
        assert second != first
        kept = set(await rest(client, 3, 1))
        holder.process.terminate()
        assert holder.process.wait(BOUND_S) == 0
        await until_ended(second)
        assert await open_ids(client) == kept
        assert reports(tmp_path) == []


async def test_a_session_that_ends_with_orders_leaves_them_to_the_watchdog(tmp_path: Path, parent: Callable[..., Parent]) -> None:
    async with market(tmp_path) as (options, client):
        holder = parent(charged(options, tmp_path), "open")
        pid = holder.watching()
        await rest(client, 3, 1)
        holder.process.terminate()
        assert holder.process.wait(BOUND_S) == 0
        await until_open(client, set())
        await until_ended(pid)
        assert reports(tmp_path)[0]["cancelled"] == 1


class Scripted:
    """An exchange that fails as told before it works; asked in ccxt's words."""

    id, last_response_headers = "scripted", None
    has = {"fetchTime": True}  # noqa: RUF012 - ccxt's own shape

    def __init__(self, rows: list[dict[str, Any]], troubles: list[Exception]) -> None:
        self.rows, self.troubles, self.corrected = rows, troubles, 0
        self.cancelled: list[str] = []
        self.markets: dict[str, Any] = {}

    async def load_markets(self) -> None:
        self._stumble()
        self.markets = {BTC: {}}

    async def load_time_difference(self) -> None:
        self.corrected += 1

    async def fetch_open_orders(self, symbol: str) -> list[dict[str, Any]]:
        self._stumble()
        return list(self.rows)

    async def cancel_order(self, order_id: str, symbol: str) -> None:
        self._stumble()
        self.rows = [row for row in self.rows if row["id"] != order_id]
        self.cancelled.append(order_id)

    def _stumble(self) -> None:
        if self.troubles:
            raise self.troubles.pop(0)


def row(number: int, **more: Any) -> dict[str, Any]:
    return {"id": str(number), "clientOrderId": client_order_id("main", 3, 1, number), "side": "buy", "price": 1.0, "amount": 1.0, "filled": 0.0} | more


async def test_trouble_at_the_exchange_is_outlasted_and_protective_stops_stay(tmp_path: Path) -> None:
    troubles = [ccxt.pro.NetworkError("down"), ccxt.pro.InvalidNonce("-1021"), TimeoutError()]
    stop = row(2, triggerPrice=50.0)
    exchange = Scripted([row(1), stop, row(3)], troubles)
    charge = replace(charged(ExchangeOptions("scripted"), tmp_path), window_s=0.1)
    rescue = Rescue(charge, Daemon(), exchange, lambda: 1_700_000_000_000_000_000)
    assert await rescue.run("the daemon is gone, without a goodbye")
    assert (sorted(exchange.cancelled), exchange.rows, exchange.corrected) == (["1", "3"], [stop], 1)
    (report,) = reports(tmp_path)
    assert report["left_alone"] == {"protective_stop": 1}
    assert report["at"] == "2023-11-14T22:13:20+00:00"
    assert [text.split()[2 if " orders:" in text else 1] for text in report["errors"]] == ["NetworkError", "InvalidNonce", "TimeoutError"]


async def test_an_exchange_that_stays_away_is_given_up_in_the_end_and_said_so(tmp_path: Path) -> None:
    charge = replace(charged(ExchangeOptions("scripted"), tmp_path), window_s=0.0, give_up_s=0.3)
    exchange = Scripted([row(1)], [ccxt.pro.NetworkError("down") for _ in range(99)])
    assert not await Rescue(charge, Daemon(), exchange, lambda: 0).run("gone")
    assert reports(tmp_path)[0]["outcome"].startswith("given up")


async def test_a_daemon_that_goes_on_in_the_middle_of_it_keeps_its_new_orders(tmp_path: Path) -> None:
    daemon = Daemon()
    exchange = Scripted([row(1)], [])
    rescue = Rescue(replace(charged(ExchangeOptions("scripted"), tmp_path), window_s=60.0), daemon, exchange, lambda: 0)
    daemon.steps += 1
    assert not await rescue.run("hung")
    assert reports(tmp_path)[0]["outcome"] == "the daemon is back"


async def test_a_pipe_that_closes_before_a_charge_came_is_no_daemon_lost() -> None:
    reader = asyncio.StreamReader()
    reader.feed_eof()
    assert await serve(reader) == 0 != FIRED


async def test_beats_without_progress_are_no_life() -> None:
    reader, daemon = asyncio.StreamReader(), Daemon()
    async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as group:
        hearing = group.create_task(daemon.listen(reader))
        waiting = group.create_task(daemon.lost(1.2))
        while not waiting.done():
            reader.feed_data(b"beat 7\n")
            await asyncio.sleep(0.05)
        assert waiting.result() == "the daemon made no progress for 1.2 s"
        hearing.cancel()


async def test_time_in_which_nobody_could_be_heard_is_not_held_against_the_daemon() -> None:
    """After this process itself was stopped, the daemon's beats are in the pipe: they are read before anything is judged."""
    reader, daemon, loop = asyncio.StreamReader(), Daemon(), asyncio.get_running_loop()
    ahead = 0.0
    clock, loop.time = loop.time, lambda: clock() + ahead  # type: ignore[method-assign]
    async with asyncio.TaskGroup() as group:
        hearing = group.create_task(daemon.listen(reader))
        waiting = group.create_task(daemon.lost(5.0))
        await asyncio.sleep(0)
        ahead = 3600.0
        await asyncio.sleep(0.1)
        reader.feed_data(b"beat 8\n")
        await asyncio.sleep(0.1)
        assert not waiting.done()
        reader.feed_data(b"goodbye\n")
        assert await waiting == ""
        hearing.cancel()


@pytest.mark.parametrize(
    ("script", "reason"),
    [("print('no word of ours', flush=True); raise SystemExit(7)", "it ended with code 7"), ("import time; time.sleep(60)", "it said nothing for 0.3 s")],
)
async def test_a_watchdog_that_dies_or_hangs_is_replaced_at_a_growing_distance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    monkeypatch.setattr(watchdog, "SILENCE_S", 0.3)
    monkeypatch.setattr(watchdog, "BEAT_S", 0.1)
    monkeypatch.setattr(watchdog, "EXIT_S", 0.2)
    pauses, ended = [], asyncio.Event()
    monkeypatch.setattr(watchdog, "FIRST_BACKOFF_S", 0.01)

    def noted(event: str, **words: Any) -> None:
        if event == "watchdog_ended":
            pauses.append((words["reason"], words["restart_in_s"]))
            if len(pauses) == 3:
                ended.set()

    monkeypatch.setattr(watchdog, "log", SimpleNamespace(error=noted, info=noted))
    charge = charged(ExchangeOptions("rehearsal", "http://127.0.0.1:9"), tmp_path)
    guard = Watchdog(charge, lambda: 1, lambda: True, (sys.executable, "-S", "-c", script))
    async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as group:
        running = group.create_task(guard.run())
        await ended.wait()
        running.cancel()
    assert pauses == [(reason, 0.01), (reason, 0.02), (reason, 0.04)]
    assert guard.status["state"] == "off"


def test_a_charge_is_one_line_and_comes_back_whole(tmp_path: Path) -> None:
    account = ExchangeOptions("binance", "https://x.test", tmp_path / "ca.pem", "key", "secret", "word", 5000, "")
    charge = Charge(account, "desk", 7, (BTC, Symbol("ETH/USDT")), tmp_path, 3.0, 4.0, 5.0)
    assert charge.line().count(b"\n") == 1
    assert Charge.from_line(charge.line()) == charge
