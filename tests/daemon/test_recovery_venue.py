"""A start against a server that speaks Binance's protocol, ccxt unmodified: what is asked, what is adopted, what is told once."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agents.core.errors import ConfigError, Unreachable
from agents.core.events import UNSTAMPED, Adjustment, AdjustmentKind, Event, Fill, OrderUpdate, Reconciled, Stamp, stamped
from agents.core.instruments import NS, Currency, Side, Symbol
from agents.core.orders import Cancel, OrderId, OrderState, Place
from daemon import starting
from daemon.by_hand import reconcile, render
from daemon.door import Door
from daemon.errors import Unsafe
from daemon.journal import Journal
from daemon.left import left_behind
from daemon.recovery import Recovery, recover
from daemon.starting import asked, recovered
from daemon.state_folder import Occupied
from daemon.venues.base import Outbox
from daemon.venues.ccxt import CcxtVenue, VenueOptions
from daemon.venues.client import ExchangeOptions, build_client
from daemon.venues.feed import CcxtFeed, FeedOptions
from daemon.venues.fills import OVERLAP_MS, PAGE, Cursor, FillReader
from daemon.venues.link import LinkOptions
from daemon.venues.orders import ABSENT
from daemon.venues.throttle import Throttle
from daemon.venues.truth import Asked, Truth
from tests.daemon.scripted_binance import ScriptedBinance, error, scripted_binance, until

BTC, USDT, COIN = Symbol("BTC/USDT"), Currency("USDT"), Currency("BTC")
D = Decimal
QUICK = VenueOptions(timeout_s=3.0, window_s=1.2, sweep_s=0.3, balance_s=0.5, link=LinkOptions(orders_over="rest"))
FIRST = Cursor()


def accept(server: ScriptedBinance, client_id: str, quantity: str = "0.1", side: str = "BUY", price: str = "100.0") -> dict[str, Any]:
    asked_for = {"symbol": "BTCUSDT", "newClientOrderId": client_id, "quantity": quantity, "price": price, "type": "LIMIT", "side": side}
    return server.add_order(asked_for)


def place(number: int, quantity: str = "0.1", side: Side = Side.BUY, epoch: int = 1) -> Place:
    return Place(OrderId(f"q-main-{epoch}-{number}-0"), BTC, side, D(quantity), D(100))


def new_venue(server: ScriptedBinance, options: VenueOptions = QUICK) -> CcxtVenue:
    account = ExchangeOptions("binance", server.url, api_key="key", secret="secret", timeout_ms=2500)
    feed = CcxtFeed(lambda: build_client(account.without_keys()), (BTC,), time.time_ns, FeedOptions(history=()))
    return CcxtVenue(feed, account, time.time_ns, "main", options)


def history(commands: Sequence[Place | Cancel], told: Sequence[Event] = (), balances: dict[str, str] | None = None) -> Any:
    """What was left: an opening, intents, and what was heard of them."""
    facts: list[Event] = []
    for currency, amount in (balances or {"USDT": "1000"}).items():
        facts.append(Adjustment(Stamp(time.time_ns(), len(facts) + 1), Currency(currency), D(amount), AdjustmentKind.OPENING))
    facts.append(Adjustment(Stamp(time.time_ns(), len(facts) + 1), USDT, D(1000), AdjustmentKind.CAPITAL))
    intents = [(len(facts), command) for command in commands]
    facts += [stamped(event, Stamp(time.time_ns(), len(facts) + 1 + n)) for n, event in enumerate(told)]
    return left_behind(1, time.time_ns(), USDT, facts, intents, {BTC: FIRST}, ())


def opened(order: dict[str, Any]) -> OrderUpdate:
    return OrderUpdate(Stamp(0), OrderId(order["clientOrderId"]), BTC, OrderState.OPEN, str(order["orderId"]), D(0))


@asynccontextmanager
async def running(venue: CcxtVenue) -> AsyncIterator[list[Event]]:
    told: list[Event] = []

    async def read() -> None:
        async with aclosing(venue.events()) as events:  # type: ignore[type-var]
            async for event in events:
                told.append(event)  # noqa: PERF401 - others read it meanwhile

    async with asyncio.TaskGroup() as tasks:
        reader = tasks.create_task(read())
        yield told
        reader.cancel()


@asynccontextmanager
async def started(server: ScriptedBinance, left: Any) -> AsyncIterator[tuple[CcxtVenue, Recovery, list[Event]]]:
    """A venue that has recovered and goes on."""
    venue = new_venue(server)
    try:
        recovery = recover(left, await venue.truth(asked(left)), USDT, D(1000), "main", epoch=1)
        await venue.adopt(recovery.orders, recovery.cursors, recovery.past, recovery.epoch)
        await venue.cancel_strays(recovery.strays)
        async with running(venue) as told:
            await until(lambda: server.users)
            yield venue, recovery, told
    finally:
        await venue.close()


def fills(events: Sequence[Event]) -> list[str]:
    return [event.trade_id for event in events if isinstance(event, Fill)]


def states(events: Sequence[Event], order_id: str) -> list[str]:
    return [event.state.value for event in events if isinstance(event, OrderUpdate) and event.order_id == order_id]


def posted(server: ScriptedBinance, method: str, path: str) -> int:
    return sum(call[:2] == (method, path) for call in server.calls)


# -- going on ------------------------------------------------------------------------------------------------------------


async def test_an_adopted_order_is_filled_and_ended_like_our_own_and_nothing_is_told_twice() -> None:
    async with scripted_binance() as server:
        order = accept(server, "q-main-1-1-0")
        server.fill(order, "0.04", fee="0.5", asset="BNB")
        left = history([place(1)], [opened(order)])
        async with started(server, left) as (_, recovery, told):
            assert fills(recovery.events) == ["500"]
            server.fill(order, "0.06")
            await until(lambda: "filled" in states(told, "q-main-1-1-0"))
            await asyncio.wait([asyncio.ensure_future(until(lambda: posted(server, "GET", "account") > 4))])
            assert fills(told) == ["501"]


async def test_an_adopted_order_is_cancelled_like_our_own() -> None:
    async with scripted_binance() as server:
        order = accept(server, "q-main-1-1-0")
        async with started(server, history([place(1)], [opened(order)])) as (venue, _, told):
            await venue.send(Cancel(OrderId("q-main-1-1-0"), BTC))
            await until(lambda: "canceled" in states(told, "q-main-1-1-0"))
            assert order["status"] == "CANCELED"


async def test_an_intent_without_an_answer_is_found_by_its_client_id_or_given_up_after_the_window() -> None:
    async with scripted_binance() as server:
        server.balances["USDT"] = "1000.0"
        order = accept(server, "q-main-1-1-0")
        order["status"] = "CANCELED"
        left = history([place(1), place(2)])
        async with started(server, left) as (_, recovery, told):
            assert states(recovery.events, "q-main-1-1-0") == ["canceled"]
            assert [o.place.order_id for o in recovery.orders] == ["q-main-1-2-0"]
            await until(lambda: states(told, "q-main-1-2-0") == ["rejected"])
            (last,) = [event for event in told if isinstance(event, OrderUpdate) and event.order_id == "q-main-1-2-0"]
            assert last.reason == "not_found"


async def test_the_window_of_an_adopted_intent_began_when_it_was_sent() -> None:
    """Else a daemon that dies again and again carries every one of them from life to life, as exposure."""
    async with scripted_binance() as server:
        venue = new_venue(server, replace(QUICK, window_s=6.0))
        recovery = recover(history([place(1), place(2)]), await venue.truth(Asked()), USDT, D(1000), "main", epoch=1)
        old, young = recovery.orders
        await venue.adopt([replace(old, created=old.created - 10 * NS), young], recovery.cursors, recovery.past, recovery.epoch)
        async with running(venue) as told:
            await until(lambda: states(told, old.place.order_id) == ["rejected"])
            assert states(told, young.place.order_id) == []
        await venue.close()


def aged(truth: Truth, seconds: int = 61) -> Truth:
    """The same as if it had been read later."""
    return replace(truth, at=truth.at + seconds * NS)


async def test_a_new_state_folder_beside_a_living_daemon_touches_nothing() -> None:
    async with scripted_binance() as server:
        order = accept(server, "q-main-3-7-0")
        venue = new_venue(server)
        truth = await venue.truth(Asked())
        with pytest.raises(Occupied, match="another daemon trades this account"):
            recover(None, truth, USDT, D(1000), "main")
        assert [view.order_id for view in recover(None, truth, USDT, D(1000), "main", insist=True).strays] == ["q-main-3-7-0"]
        assert recover(None, truth, USDT, D(1000), "other").strays == ()
        assert order["status"] == "NEW"
        await venue.close()


async def test_nothing_is_cancelled_before_recovery_says_so_and_manual_orders_never() -> None:
    async with scripted_binance() as server:
        orders = [accept(server, name) for name in ("q-main-1-7-0", "by-hand", "q-other-1-1-0")]
        venue = new_venue(server)
        assert await venue.balances() == {"USDT": 1000, "BTC": 0}
        truth = await venue.truth(Asked())
        assert [order["status"] for order in orders] == ["NEW"] * 3
        recovery = recover(None, aged(truth), USDT, D(1000), "main")
        await venue.adopt(recovery.orders, recovery.cursors, recovery.past, recovery.epoch)
        await venue.cancel_strays(recovery.strays)
        assert venue.strays == ["q-main-1-7-0"]
        assert [order["status"] for order in orders] == ["CANCELED", "NEW", "NEW"]
        await venue.close()


async def test_trades_from_before_the_first_start_are_none_of_ours() -> None:
    async with scripted_binance() as server:
        manual = accept(server, "by-hand", "9.0")
        for _ in range(3):
            server.fill(manual, "0.1")
        venue = new_venue(server)
        recovery = recover(None, await venue.truth(Asked()), USDT, D(1000), "main")
        await venue.adopt(recovery.orders, recovery.cursors, recovery.past, 1)
        async with running(venue) as told:
            await until(lambda: server.users)
            server.fill(manual, "0.2")
            await venue.sweep([BTC])
            await until(lambda: [event for event in told if isinstance(event, Adjustment)])
            assert {e.note.split(",")[0].split(" at ")[0] for e in told if isinstance(e, Adjustment)} == {"trade 503 of BTC/USDT"}
            assert fills(told) == []
        await venue.close()


# -- many, late, at the same time --------------------------------------------------------------------------------------------


async def test_more_missed_trades_than_a_page_come_each_once_whatever_their_times() -> None:
    async with scripted_binance() as server:
        order = accept(server, "q-main-1-1-0", "130.0")
        now = order["time"]
        for number in range(2 * PAGE + 203):
            server.fill(order, "0.1")["time"] = now + number // 700  # hundreds within one millisecond
        left = history([place(1, "130")], [opened(order)])
        async with started(server, left) as (venue, recovery, told):
            names = fills(recovery.events)
            assert len(names) == len(set(names)) == 2 * PAGE + 203
            server.fill(order, "0.1")
            await venue.sweep([BTC])
            await until(lambda: fills(told))
            assert fills(told) == [str(500 + 2 * PAGE + 203)]


async def test_a_trade_that_shows_up_behind_newer_ones_is_told_inside_the_overlap() -> None:
    async with scripted_binance() as server:
        order = accept(server, "q-main-1-1-0", "10.0")
        left = history([place(1, "10")], [opened(order)])
        server.fill(order, "0.1")["time"] -= 2 * OVERLAP_MS
        server.fill(order, "0.1")
        hidden = server.fill(order, "0.1")
        server.fill(order, "0.1")
        server.my_trades.remove(hidden)
        async with started(server, left) as (venue, recovery, told):
            assert fills(recovery.events) == ["500", "501", "503"]
            server.my_trades.insert(2, hidden)
            await venue.sweep([BTC])
            await until(lambda: fills(told))
            assert fills(told) == ["502"]


class TimedExchange:
    """An exchange that is asked by time: oldest first, a page at a time."""

    id = "elsewhere"
    has: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, limit: int = PAGE) -> None:
        self.rows: list[dict[str, Any]] = []
        self.limit, self.asked = limit, list[int | None]()

    def trade(self, name: str, ms: int) -> None:
        self.rows.append({"id": name, "order": "1", "symbol": BTC, "side": "buy", "price": 1.0, "amount": 1.0, "timestamp": ms})

    async def fetch_my_trades(self, symbol: str, since: int | None, limit: int, params: dict[str, Any]) -> list[dict[str, Any]]:
        self.asked.append(since)
        rows = sorted((row for row in self.rows if row["timestamp"] >= (since or 0)), key=lambda row: row["timestamp"])
        return rows[: min(limit, self.limit)]


async def test_a_time_cursor_pages_through_equal_milliseconds_and_finds_late_trades() -> None:
    exchange, outbox = TimedExchange(limit=100), Outbox()
    reader = FillReader(exchange, Throttle(1.0), outbox, lambda *_: OrderId("q-main-1-1-0"), lambda _: None)
    reader.begin(BTC, Cursor(ms=1))
    base = 1_700_000_000_000
    for number in range(1234):
        exchange.trade(f"t{number}", base + number // 90)
    assert await reader.sweep(BTC) == 1234
    exchange.trade("late", base - OVERLAP_MS // 2)
    exchange.trade("same", base + 13)
    exchange.trade("too late", base - 2 * OVERLAP_MS)
    assert await reader.sweep(BTC) == 2
    assert await reader.sweep(BTC) == 0
    told = []
    while (event := outbox.take()) is not None:
        assert isinstance(event, Fill)
        told.append(event.trade_id)
    assert len(told) == len(set(told)) == 1236


async def test_a_millisecond_with_more_trades_than_a_page_does_not_stop_the_cursor() -> None:
    exchange, outbox = TimedExchange(limit=100), Outbox()
    reader = FillReader(exchange, Throttle(1.0), outbox, lambda *_: OrderId("q-main-1-1-0"), lambda _: None)
    reader.begin(BTC, Cursor(ms=1))
    for number in range(160):
        exchange.trade(f"t{number}", 1_700_000_000_000 + (number >= 150))
    assert await reader.sweep(BTC) == 110  # an exchange that is asked by time shows no more of one millisecond than a page


def test_what_lies_beyond_a_cursor_is_known_by_name_and_a_late_one_is_not_settled() -> None:
    cursor = Cursor().beyond([(0, "1"), (1000, "2"), (OVERLAP_MS, "7"), (OVERLAP_MS + 500, "9")])
    assert (cursor.trade_id, cursor.ms) == (1, 500)
    assert cursor.known == {(1000, "2"), (OVERLAP_MS, "7"), (OVERLAP_MS + 500, "9")}
    assert not cursor.settled("8", 1000, by_id=True)
    assert cursor.settled("1", OVERLAP_MS, by_id=True)
    assert cursor.settled("x", 499, by_id=False)


async def test_what_was_settled_before_the_session_is_not_told_when_one_order_is_asked_for() -> None:
    async with scripted_binance() as server:
        order = accept(server, "q-main-1-1-0")
        first = server.fill(order, "0.04")
        first["time"] -= 2 * OVERLAP_MS
        server.fill(order, "0.01")
        told_then = [
            Fill(Stamp(0), BTC, t["time"] * 1_000_000, OrderId("q-main-1-1-0"), str(t["id"]), Side.BUY, D(100), D(t["qty"]), D(0), USDT, True)
            for t in server.my_trades
        ]
        left = history([place(1)], [opened(order), *told_then])
        assert left.cursors[BTC].trade_id == 500
        async with started(server, left) as (venue, recovery, told):
            assert fills(recovery.events) == []
            _, desk = await venue.open()
            assert await desk.fills.of_order(BTC, str(order["orderId"])) == 0
            assert fills(told) == []


async def test_canceled_and_filled_zero_with_trades_is_noticed_within_the_window() -> None:
    async with scripted_binance() as server:
        order = accept(server, "q-main-1-1-0")
        async with started(server, history([place(1)], [opened(order)])) as (_, _, told):
            server.fill(order, "0.04")
            server.my_trades, held = [], server.my_trades
            order |= {"status": "CANCELED", "executedQty": "0.00000"}
            await until(lambda: "canceled" in states(told, "q-main-1-1-0"))
            server.my_trades = held
            await until(lambda: fills(told) == ["500"])


async def test_a_thousand_open_orders_are_read_in_one_list() -> None:
    async with scripted_binance() as server:
        orders = [accept(server, f"q-main-1-{number}-0") for number in range(1, 1001)]
        left = history([place(n) for n in range(1, 1001)], [opened(order) for order in orders])
        server.calls.clear()
        venue = new_venue(server)
        truth = await venue.truth(asked(left))
        recovery = recover(left, truth, USDT, D(1000), "main", epoch=1)
        assert len(recovery.orders) == 1000
        assert posted(server, "GET", "openOrders") == 1
        assert posted(server, "GET", "order") <= 3
        for order in orders[:40]:
            order["status"] = "CANCELED"
        server.calls.clear()
        truth = await venue.truth(asked(left))
        assert len(truth.records or {}) == 40
        assert (posted(server, "GET", "allOrders"), posted(server, "GET", "order")) == (2, 3)  # the list in pages, and what checks it
        await venue.close()


# -- strays and rivals in the session ------------------------------------------------------------------------------------------


async def test_an_order_of_ours_that_nobody_knows_is_found_by_the_comparison_and_cancelled() -> None:
    async with scripted_binance() as server, started(server, history([])) as (venue, _, told):
        late = accept(server, "q-main-1-5-0")
        await venue.compare()
        assert (late["status"], venue.strays, venue.rivals) == ("CANCELED", ["q-main-1-5-0"], [])
        assert venue.status["orders"]["stray_order"] == 1
        server.fill(late, "0.1")
        await venue.sweep([BTC])
        await until(lambda: [event for event in told if isinstance(event, Adjustment)])
        assert all("the stray order q-main-1-5-0" in event.note for event in told if isinstance(event, Adjustment))


async def test_an_order_given_up_that_turns_up_is_told_open_and_cancelled() -> None:
    async with scripted_binance() as server, started(server, history([place(1)])) as (venue, _, told):
        await until(lambda: states(told, "q-main-1-1-0") == ["rejected"])
        late = accept(server, "q-main-1-1-0")
        await venue.compare()
        await until(lambda: states(told, "q-main-1-1-0")[-1] == "canceled")
        assert states(told, "q-main-1-1-0")[:2] == ["rejected", "open"]
        assert late["status"] == "CANCELED"


async def test_an_order_of_a_later_session_is_another_daemons_and_is_left_to_the_operator() -> None:
    async with scripted_binance() as server, started(server, history([])) as (venue, _, _):
        theirs = accept(server, "q-main-9-1-0")
        await venue.compare()
        assert (theirs["status"], venue.rivals, venue.strays) == ("NEW", ["q-main-9-1-0"], [])


async def test_one_made_long_after_the_start_is_another_daemons_too_and_time_is_the_exchanges() -> None:
    async with scripted_binance() as server, started(server, history([])) as (venue, _, _):
        theirs = accept(server, "q-main-1-8-0")
        theirs["time"] += 60_000
        await venue.compare()
        assert (theirs["status"], venue.rivals) == ("NEW", ["q-main-1-8-0"])


# -- what must not be believed, what does not stand still --------------------------------------------------------------------------


async def test_another_daemons_order_is_known_though_we_have_used_the_same_name() -> None:
    async with scripted_binance() as server:
        venue = new_venue(server)
        await venue.adopt([], {}, epoch=1)
        async with running(venue) as told:
            await venue.send(place(1))
            await until(lambda: "open" in states(told, "q-main-1-1-0"))
            await venue.send(Cancel(OrderId("q-main-1-1-0"), BTC))
            await until(lambda: "canceled" in states(told, "q-main-1-1-0"))
            rival = accept(server, "q-main-1-1-0")
            rival["time"] += 60_000
            await venue.compare()
            assert (venue.rivals, rival["status"]) == (["q-main-1-1-0"], "NEW")
        await venue.close()


async def test_lists_and_records_that_contradict_each_other_are_doubted() -> None:
    async with scripted_binance() as server:
        order = accept(server, "q-main-1-1-0")
        left = history([place(1)], [opened(order)])
        server.refuse["GET order"] = lambda: error(-2013, "Order does not exist.")
        venue = new_venue(server)
        truth = await venue.truth(asked(left))
        assert "lists order 1000 of BTC/USDT as open and denies it" in truth.doubts[0]
        server.orders.clear()
        truth = await venue.truth(asked(left))
        assert "denies order q-main-1-1-0, which it had accepted as 1000" in truth.doubts[0]
        assert recover(left, truth, USDT, D(1000), "main", epoch=1).differences
        await venue.close()


async def test_balances_are_read_until_they_stand_still() -> None:
    async with scripted_binance() as server:
        venue = new_venue(server)
        restless = ScriptedReads(venue, ["900.0", "800.0", "800.0"], server)
        truth = await restless.read()
        assert (truth.steady, truth.balances) == (True, {USDT: D(800)})
        truth = await ScriptedReads(venue, [f"{n}.0" for n in range(1, 30)], server).read()
        assert not truth.steady
        assert recover(history([]), truth, USDT, D(1000), "main", epoch=1).differences
        await venue.close()


class ScriptedReads:
    """Balances that change with each read."""

    def __init__(self, venue: CcxtVenue, totals: list[str], server: ScriptedBinance) -> None:
        self.venue, self.totals, self.server = venue, totals, server

    async def read(self) -> Truth:
        exchange, _ = await self.venue.open()
        fetch = type(exchange).fetch_balance

        async def next_total(*arguments: Any) -> Any:
            if self.totals:
                self.server.balances["USDT"] = self.totals.pop(0)
            return await fetch(exchange, *arguments)

        exchange.fetch_balance = next_total
        return await self.venue.truth(Asked())


async def test_deposits_and_withdrawals_are_read_where_the_exchange_tells_them() -> None:
    async with scripted_binance() as server:
        left, now = history([]), time.time_ns() // 1_000_000 + 1000
        server.deposits = [
            {"id": "7", "amount": "50", "coin": "USDT", "status": 1, "insertTime": now},
            {"id": "8", "amount": "9", "coin": "USDT", "status": 0, "insertTime": now},
        ]
        server.withdrawals = [{"id": "9", "amount": "20", "transactionFee": "1.5", "coin": "USDT", "status": 6, "applyTime": "2030-01-01 00:00:00"}]
        server.balances["USDT"] = "1028.5"
        venue = new_venue(server)
        recovery = recover(left, await venue.truth(asked(left)), USDT, D(1000), "main", epoch=1)
        booked = {e.note: e.amount for e in recovery.events if isinstance(e, Adjustment) and e.kind.value in ("deposit", "withdrawal")}
        assert booked == {"deposit 7": D(50), "withdrawal 9": D("-21.5")}
        assert recovery.differences == ()
        server.refuse["deposits"] = server.refuse["withdrawals"] = lambda: error(-1002, "You are not authorized.", 401)
        assert (await venue.truth(asked(left))).transfers == []
        await venue.close()


async def test_an_account_that_cannot_be_read_is_said_so_and_a_bad_key_by_its_setting() -> None:
    async with scripted_binance() as server:
        venue = new_venue(server)
        await venue.open()
        server.refuse["myTrades"] = lambda: error(-1000, "Unknown error.", 500)
        with pytest.raises(Unreachable, match="the account cannot be read"):
            await venue.truth(Asked())
        server.refuse["myTrades"] = lambda: error(-2015, "Invalid API-key, IP, or permissions for action.", 401)
        with pytest.raises(ConfigError, match=r"exchange\.api_key"):
            await venue.truth(Asked())
        await venue.close()


async def test_one_failed_request_does_not_keep_a_session_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted_binance() as server:
        venue = new_venue(server)

        def once() -> Any:
            del server.refuse["myTrades"]
            return error(-1000, "Unknown error.", 500)

        server.refuse["myTrades"] = once
        assert (await recovered(tmp_path, venue, USDT, D(1000), "main", "origin")).differences == ()
        assert "myTrades" not in server.refuse
        monkeypatch.setattr(starting, "PATIENCE_S", 0.4)
        server.refuse["myTrades"] = lambda: error(-1000, "Unknown error.", 500)
        with pytest.raises(Unreachable, match="the account cannot be read"):
            await recovered(tmp_path, venue, USDT, D(1000), "main", "origin")
        await venue.close()


# -- the whole path, journal included --------------------------------------------------------------------------------------------


def write(folder: Path, recovery: Recovery, commands: Sequence[Place | Cancel] = (), told: Sequence[Event] = ()) -> None:
    """A session that began with `recovery`, asked for `commands`, heard `told`, and was killed."""
    door = Door()
    journal = Journal(folder, "s", door.now(), {})
    assert journal.epoch == recovery.epoch
    journal.describe({"engine": {"quote": "USDT"}, "origin": "here", "opened_with": recovery.opened_with()})
    for number, event in enumerate([*recovery.events, *told], start=1):
        journal.append(stamped(event, Stamp(door.now(), number)))
        if number == len(recovery.events):
            journal.intend(number, tuple(commands))
    journal.commit(len(recovery.events) + len(told))
    journal._connection.close()
    journal._store.dispose()


async def start(server: ScriptedBinance, folder: Path) -> Recovery:
    venue = new_venue(server)
    try:
        return await recovered(folder, venue, USDT, D(1000), "main", "here")
    finally:
        await venue.close()


async def test_three_starts_in_a_row_carry_everything_over_and_nothing_twice(tmp_path: Path) -> None:
    async with scripted_binance() as server:
        first = await start(server, tmp_path)
        assert (first.epoch, first.differences) == (1, ())
        order = accept(server, "q-main-1-1-0")
        write(tmp_path, first, [place(1)], [opened(order)])
        server.fill(order, "0.04", fee="0", asset="USDT")
        server.balances |= {"USDT": "996.0", "BTC": "0.04"}
        second = await start(server, tmp_path)
        assert (second.epoch, fills(second.events), second.differences) == (2, ["500"], ())
        write(tmp_path, second)
        third = await start(server, tmp_path)
        assert (third.epoch, fills(third.events), third.differences) == (3, [], ())
        assert [(o.place.order_id, o.filled) for o in third.orders] == [("q-main-1-1-0", D("0.04"))]
        carried = [(e.currency, e.amount) for e in third.events if isinstance(e, Adjustment) and e.kind is AdjustmentKind.CARRIED]
        assert carried == [("BTC", D("0.04")), ("USDT", D("-4.00"))]


async def test_a_session_that_died_before_its_opening_was_written_is_passed_over(tmp_path: Path) -> None:
    async with scripted_binance() as server:
        first = await start(server, tmp_path)
        order = accept(server, "q-main-1-1-0")
        write(tmp_path, first, [place(1)], [opened(order)])
        second = await start(server, tmp_path)
        empty = Journal(tmp_path, "s", time.time_ns(), {})
        empty.describe({"engine": {"quote": "USDT"}, "origin": "here", "opened_with": second.opened_with()})
        empty._connection.close()
        empty._store.dispose()
        third = await start(server, tmp_path)
        assert (third.epoch, [o.place.order_id for o in third.orders]) == (3, ["q-main-1-1-0"])


async def test_the_journal_of_another_account_carries_nothing_over(tmp_path: Path) -> None:
    async with scripted_binance() as server:
        first = await start(server, tmp_path)
        accept(server, "q-main-1-1-0")  # of the same name by chance
        write(tmp_path, first, [place(1)], [opened({"clientOrderId": "q-main-1-1-0", "orderId": 7})])
        venue = new_venue(server)
        recovery = await recovered(tmp_path, venue, USDT, D(1000), "main", "elsewhere")
        assert (recovery.orders, recovery.epoch) == ((), 2)
        await venue.close()


async def test_what_another_account_left_is_not_forgotten_unless_it_is_dust_or_the_operator_says_that_it_is_this_one(tmp_path: Path) -> None:
    async with scripted_binance() as server:
        first = await start(server, tmp_path)
        order = accept(server, "q-main-1-1-0")
        bought = Fill(UNSTAMPED, BTC, 1, OrderId("q-main-1-1-0"), "500", Side.BUY, D(100), D("0.1"), D(0), USDT, True)
        write(tmp_path, first, [place(1)], [opened(order), bought])
        server.orders.clear()
        server.balances |= {"USDT": "990.0", "BTC": "0.1"}
        venue = new_venue(server)
        with pytest.raises(Unsafe, match=r"left 0\.1 BTC: .*same_account"):
            await recovered(tmp_path, venue, USDT, D(1000), "main", "elsewhere")
        forgotten = await recovered(tmp_path, venue, USDT, D(100_000), "main", "elsewhere")
        assert forgotten.epoch == 2, "ten dollars of a hundred thousand are dust"
        known = await recovered(tmp_path, venue, USDT, D(1000), "main", "elsewhere", same_account=True)
        carried = [(e.currency, e.amount) for e in known.events if isinstance(e, Adjustment) and e.kind is AdjustmentKind.CARRIED]
        assert (carried, known.differences) == ([("BTC", D("0.1")), ("USDT", D("-10.0"))], ())
        await venue.close()


async def test_an_open_order_that_both_know_by_both_ids_proves_the_account_whatever_its_key_is_now(tmp_path: Path) -> None:
    async with scripted_binance() as server:
        first = await start(server, tmp_path)
        order = accept(server, "q-main-1-1-0")
        write(tmp_path, first, [place(1)], [opened(order)])
        server.fill(order, "0.04", fee="0", asset="USDT")
        server.balances |= {"USDT": "996.0", "BTC": "0.04"}
        venue = new_venue(server)
        recovery = await recovered(tmp_path, venue, USDT, D(1000), "main", "the same by another key")
        await venue.close()
        assert ([o.place.order_id for o in recovery.orders], recovery.strays) == (["q-main-1-1-0"], ())
        assert (fills(recovery.events), recovery.differences, order["status"]) == (["500"], (), "PARTIALLY_FILLED")


async def test_reconcile_by_hand_says_first_what_it_would_do_and_then_does_it(tmp_path: Path) -> None:
    async with scripted_binance() as server:
        first = await start(server, tmp_path)
        order = accept(server, "q-main-1-1-0")
        accept(server, "by-hand", side="SELL", price="200")
        write(tmp_path, first, [place(1), place(2)], [opened(order)])
        stray = accept(server, "q-main-1-9-0")
        server.balances["USDT"] = "1003.0"

        async def run(apply: bool) -> dict[str, Any]:
            venue = new_venue(server)
            try:
                return await reconcile(
                    tmp_path, venue, USDT, D(1000), "main", "here", apply=apply, door=Door(), window_s=0.2,
                    describe=lambda epoch: {"engine": {"quote": "USDT"}},
                )  # fmt: skip
            finally:
                await venue.close()

        report = await run(apply=False)
        assert (report["clean"], report["strays"]) == (False, [{"order_id": "q-main-1-9-0", "symbol": "BTC/USDT"}])
        assert report["differences"] == {"USDT": {"ledger": "1000.0", "venue": "1003.0"}}
        assert (stray["status"], order["status"]) == ("NEW", "NEW")
        assert "stray order q-main-1-9-0 would be cancelled" in render(report)
        assert "manual order 1001 (BTC/USDT sell 0.1 at 200.0) is left alone" in render(report)
        assert "quartet reconcile --apply" in render(report)

        report = await run(apply=True)
        assert (stray["status"], order["status"], report["clean"]) == ("CANCELED", "NEW", True)
        assert [b["amount"] for b in report["booked"] if b["kind"] == "correction"] == ["3.0"]
        assert ("q-main-1-2-0", "rejected", "not_found") in [(o["order_id"], o["state"], o["reason"]) for o in report["orders"]]
        after = await start(server, tmp_path)
        assert (after.differences, [o.place.order_id for o in after.orders], after.epoch) == ((), ["q-main-1-1-0"], 3)
        last = after.events[-1]
        assert isinstance(last, Reconciled)


async def test_a_trade_of_an_order_that_the_exchange_denies_is_no_orphan_for_ever() -> None:
    async with scripted_binance() as server, started(server, history([])) as (venue, _, told):
        gone = accept(server, "by-hand")
        server.fill(gone, "0.1")
        server.orders.clear()
        for _ in range(ABSENT):
            assert [event for event in told if isinstance(event, Adjustment)] == []
            await venue.sweep([BTC])
        await until(lambda: [event for event in told if isinstance(event, Adjustment)])
        await venue.sweep([BTC])
        assert len([event for event in told if isinstance(event, Adjustment)]) == 3
