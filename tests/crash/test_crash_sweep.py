"""Some lives of the crash sweep, and the audit's eyes: each kind of wrong in the books is seen."""

import os
import subprocess
import sys
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agents.core.events import Adjustment, AdjustmentKind, Event, Fill, Reconciled, Stamp
from agents.core.instruments import Currency, Side, Symbol
from agents.core.orders import OrderId, Place
from benchmarks.proofs import crash_sweep
from benchmarks.proofs.audit import Books, Truth, audit, books, doubts
from daemon.journal import SessionRow

ROOT = Path(__file__).parents[2]
OURS, OTHER = "q-main-1-1-0", "web-17"


def test_four_lives_end_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    deaths = [(12, "soon"), (1, "after"), (10, "before"), (2, "after")]
    monkeypatch.setattr(crash_sweep, "plan", lambda kills: iter(deaths[:kills]))
    monkeypatch.setattr(crash_sweep, "FAULTS", {**crash_sweep.FAULTS, "rate": 0.001})
    monkeypatch.setattr(crash_sweep, "LAST_S", 3.0)
    result = crash_sweep.sweep(4, loud=False)
    assert [life["wrong"] for life in result["lives"]] == [[]] * 5
    assert (result["clean"], result["end_clean"]) == (4, True)
    assert [life["session"][-2:] for life in result["lives"]] == ["-1", "-2", "-3", "-4", "-5"]


def test_the_plan_kills_early_and_late_in_every_moment() -> None:
    planned = list(crash_sweep.plan(200))
    assert {(commit, moment) for commit, moment in planned if commit < 9} == {(c, m) for c in range(1, 9) for m in crash_sweep.MOMENTS}
    assert {moment for commit, moment in planned if commit > 8} == set(crash_sweep.MOMENTS)
    assert max(commit for commit, _ in planned) == 40


def test_a_victim_dies_at_its_commit(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.crash import victim; from daemon.journal import Journal; from agents.core.events import *;"
        "victim.doom(2, sys.argv[1]); book = Journal(Path(sys.argv[2]), 'x', 1, {});\n"
        "for seq in (1, 2, 3): book.append(Halt(Stamp(seq, seq))); book.commit(seq)\n"
    )
    for moment, kept in (("before", 1), ("after", 2)):
        folder = tmp_path / moment
        done = subprocess.run([sys.executable, "-c", script, moment, str(folder)], cwd=ROOT, env=os.environ, check=False, timeout=60)
        assert done.returncode == -9
        assert len(books(folder).events) == kept


# -- the audit -----------------------------------------------------------------------------------------------------------


def fill(number: int, order_id: str = OURS) -> Fill:
    return Fill(Stamp(9, number), Symbol("BTC/USDT"), 9, OrderId(order_id), str(number), Side.BUY, Decimal(100), Decimal(1), Decimal("0.1"), Currency("USDT"), True)


def trade(number: int) -> dict[str, Any]:
    paid = {"commission": "0.1", "commissionAsset": "USDT"}
    return {"symbol": "BTCUSDT", "id": number, "orderId": 7, "price": "100", "qty": "1", "isBuyer": True, **paid}


def order(client_id: str = OURS, status: str = "NEW", kind: str = "LIMIT") -> dict[str, Any]:
    return {"clientOrderId": client_id, "status": status, "type": kind}


def adjustment(amount: str, kind: AdjustmentKind, currency: str = "USDT") -> Adjustment:
    return Adjustment(Stamp(1, 1), Currency(currency), Decimal(amount), kind)


def told(*fills: Fill, events: tuple[Event, ...] = (), intents: tuple[str, ...] = (OURS,), clean: bool = True,
         placed: tuple[tuple[int, Side], ...] = ()) -> Books:  # fmt: skip
    """A first session that opened with 1000 USDT."""
    verdict = Reconciled(Stamp(2, 2), () if clean else ((Currency("USDT"), Decimal(1), Decimal(2)),))
    opening = adjustment("1000", AdjustmentKind.OPENING)
    orders = [(seq, Place(OrderId(OURS), Symbol("BTC/USDT"), side, Decimal(1), Decimal(1))) for seq, side in placed]
    return Books(SessionRow(1, "s-1", 0, {}, None), list(fills), Counter(intents), [opening, verdict, *fills, *events], set(intents), orders)


def exchange(*trades: dict[str, Any], orders: tuple[dict[str, Any], ...] = (), usdt: str | None = None) -> Truth:
    spent = Decimal("100.1") * len(trades)
    return Truth({"USDT": Decimal(usdt) if usdt else 1000 - spent, "BTC": Decimal(len(trades))}, list(orders), list(trades))


NOTHING = exchange()


@pytest.mark.parametrize(
    ("found", "before", "now"),
    [
        (told(), NOTHING, NOTHING),
        (told(fill(1)), NOTHING, exchange(trade(1), orders=(order(status="FILLED"),))),
        (told(fill(1)), exchange(trade(1)), exchange(trade(1), trade(2))),  # the second came in the last moment
        (told(), NOTHING, exchange(orders=(order(), order(OTHER), order(OTHER)))),
        (told(clean=False, placed=((1, Side.BUY), (3, Side.SELL))), NOTHING, NOTHING),  # in doubt from fact 2 on
        (told(events=(Reconciled(Stamp(4, 4), ()),), clean=False, placed=((5, Side.BUY),)), NOTHING, NOTHING),
    ],
)
def test_books_that_are_right(found: Books, before: Truth, now: Truth) -> None:
    assert audit(found, before, now, "main") == []


@pytest.mark.parametrize(
    ("found", "before", "now", "said"),
    [
        (told(), exchange(trade(1)), exchange(trade(1)), "was there at its start, and is lost"),
        (told(fill(1), fill(1)), NOTHING, exchange(trade(1)), "is 2 times in the journal"),
        (told(fill(1)), NOTHING, NOTHING, "not at the exchange"),
        (told(), NOTHING, exchange(orders=(order(), order())), "is 2 times at the exchange"),
        (told(intents=()), NOTHING, exchange(orders=(order(status="CANCELED"),)), "0 times among the intents"),
        (told(intents=(OURS, OURS)), NOTHING, exchange(orders=(order(),)), "2 times among the intents"),
        (told(events=(adjustment("5", AdjustmentKind.DEPOSIT),)), NOTHING, NOTHING, "that never happened"),
        (told(events=(adjustment("-5", AdjustmentKind.CORRECTION),)), NOTHING, exchange(usdt="995"), "that never happened"),
        (told(clean=False, placed=((3, Side.BUY),)), NOTHING, NOTHING, "buys at fact 3, while a difference was unexplained"),
        (told(), NOTHING, exchange(usdt="999"), "1000 USDT in the books, 999 at the exchange"),
        (told(events=(adjustment("2", AdjustmentKind.CARRIED, "BTC"),)), NOTHING, NOTHING, "our own BTC is 2 in the books, 0 by all trades"),
    ],
)
def test_books_that_are_wrong(found: Books, before: Truth, now: Truth, said: str) -> None:
    assert any(said in sentence for sentence in audit(found, before, now, "main"))


def test_a_doubt_is_told() -> None:
    assert "unexplained difference" in doubts(told(clean=False))[0]
    assert doubts(told()) == []


def test_an_open_order_that_nobody_follows_is_seen() -> None:
    found = told()
    found.ordered.clear()
    assert "neither placed nor adopted" in audit(found, NOTHING, exchange(orders=(order(),)), "main")[0]


def test_protective_stops_may_stay() -> None:
    now = exchange(orders=(order(kind="STOP_LOSS_LIMIT"), order("q-main-1-1-1")))
    assert len(now.open_orders("main")) == 2
    assert [row["clientOrderId"] for row in now.open_orders("main", stops=False)] == ["q-main-1-1-1"]
