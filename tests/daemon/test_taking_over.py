"""A start under a lease, from what another daemon left: against a server that speaks Binance's protocol, ccxt unmodified."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from agents.core.events import Adjustment, AdjustmentKind, Fill, Reconciled, Stamp
from agents.core.instruments import Currency
from agents.core.orders import OrderState
from daemon import left_plain
from daemon.errors import Unsafe
from daemon.journal import Journal, newest_epoch
from daemon.latch import Latched
from daemon.left import Left
from daemon.left_plain import Inherited
from daemon.recovery import Recovery
from daemon.starting import recovered
from daemon.state_folder import Occupied
from tests.daemon.scripted_binance import ScriptedBinance, scripted_binance
from tests.daemon.test_recovery_venue import accept, history, new_venue, opened, place

USDT = Currency("USDT")
D = Decimal


def passed_on(left: Left, epoch: int) -> Inherited:
    """What the session `epoch` finds in Redis."""
    legacy = left_plain.read(left_plain.told(left.epoch, left.at, left.ledger, left.cursors, left.risk, left.transfers, "account", Latched("none", "", 0)))
    return Inherited(epoch, legacy.left, legacy.origin, legacy.latch)


@asynccontextmanager
async def started(server: ScriptedBinance, folder: Path, inherited: Inherited, origin: str = "account", *, same: bool = False) -> AsyncIterator[Recovery]:
    venue = new_venue(server)
    try:
        yield await recovered(folder, venue, USDT, D(1000), "main", origin, same_account=same, inherited=inherited)
    finally:
        await venue.close()


async def test_what_the_holder_had_no_time_to_pass_on_is_ours_all_the_same(tmp_path) -> None:
    async with scripted_binance() as server:
        known, unknown = accept(server, "q-main-1-1-0"), accept(server, "q-main-1-2-0", "0.2")
        server.fill(known, "0.04")
        server.fill(unknown, "0.05")
        server.balances = {"USDT": "991.000", "BTC": "0.0898"}
        left = history([place(1)], [opened(known)])
        async with started(server, tmp_path, passed_on(left, 2)) as recovery:
            assert [order.place.order_id for order in recovery.orders] == ["q-main-1-1-0"]
            assert unknown["status"] == "CANCELED", "nobody knows what it was meant for"
            assert known["status"] == "PARTIALLY_FILLED"
            assert {event.order_id: event.quantity for event in recovery.events if isinstance(event, Fill)} == {
                "q-main-1-1-0": D("0.04"), "q-main-1-2-0": D("0.05"),
            }  # fmt: skip
            assert (recovery.differences, recovery.epoch) == ((), 2)
        asked = [call[:2] for call in server.calls]
        assert asked.index(("DELETE", "order")) < len(asked) - 1 - asked[::-1].index(("GET", "myTrades")), "what it traded to its end is read"


async def test_an_order_of_a_session_that_is_not_before_us_is_another_daemons(tmp_path) -> None:
    async with scripted_binance() as server:
        accept(server, "q-main-7-1-0")
        with pytest.raises(Occupied):
            async with started(server, tmp_path, passed_on(history([]), 7)):
                pass
        async with started(server, tmp_path, passed_on(history([]), 8)) as recovery:
            assert recovery.epoch == 8


async def test_what_was_left_of_another_account_needs_the_operators_word(tmp_path) -> None:
    async with scripted_binance() as server:
        order = accept(server, "q-main-1-1-0")
        inherited = passed_on(history([place(1)], [opened(order)]), 2)
        with pytest.raises(Unsafe, match="same_account"):
            async with started(server, tmp_path, inherited, "another"):
                pass
        async with started(server, tmp_path, inherited, "another", same=True) as recovery:
            assert [order.state for order in recovery.orders] == [OrderState.OPEN]


async def test_the_newer_of_the_own_journal_and_redis_counts(tmp_path) -> None:
    journal = Journal(tmp_path, "own", 1, {"origin": "account", "engine": {"quote": "USDT"}}, floor=5)
    assert journal.epoch == 5
    journal.append(Adjustment(Stamp(1, 1), USDT, D(1000), AdjustmentKind.OPENING))
    journal.append(Adjustment(Stamp(1, 2), Currency("BNB"), D(3), AdjustmentKind.OPENING))
    journal.append(Reconciled(Stamp(1, 3), ()))
    journal.commit(3)
    assert newest_epoch(tmp_path) == 5
    async with scripted_binance() as server:
        for epoch, own in ((4, True), (6, False)):
            inherited = passed_on(replace(history([]), epoch=epoch), 7)
            async with started(server, tmp_path, inherited) as recovery:
                opening = {event.currency for event in recovery.events if isinstance(event, Adjustment) and event.kind is AdjustmentKind.OPENING}
                assert ("BNB" in opening) is own, "what Redis kept of an older session is never believed"
                assert recovery.epoch == 7
    assert newest_epoch(tmp_path / "nothing") == 0
