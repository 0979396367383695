"""Journal and truth become the opening of the next session: nothing lost, nothing twice, whatever happened in between."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.events import (
    Adjustment,
    AdjustmentKind,
    Adopted,
    Fill,
    Halt,
    OrderUpdate,
    Reconciled,
    Resume,
    RiskRestored,
    Stamp,
    stamped,
)
from agents.core.instruments import Currency, Side, Symbol
from agents.core.orders import OrderId, OrderState
from daemon.left import cursor_of, left_behind, plain_cursor
from daemon.recovery import Recovery, recover
from daemon.state_folder import Occupied
from daemon.venues.base import Outbox
from daemon.venues.fills import Cursor, FillReader
from daemon.venues.parse import OrderView, OwnTrade, Transfer
from daemon.venues.reconcile import explain
from daemon.venues.throttle import Throttle
from daemon.venues.truth import Truth
from tests.daemon.recovery_world import ALLOCATION, BNB, BTC, COIN, SECOND, START, USDT, World, fills, opened

D = Decimal
FEES = st.sampled_from([(USDT, D("0.02")), (COIN, D("0.0001")), (BNB, D("0.003")), (USDT, D("-0.01")), (USDT, D(0))])
STEP = st.fixed_dictionaries({
    "what": st.sampled_from(["place", "place", "fill", "fill", "fill", "cancel", "manual", "transfer", "die"]),
    "side": st.sampled_from(Side), "price": st.integers(90, 110), "quantity": st.integers(1, 400).map(lambda n: D(n) / 1000),
    "part": st.sampled_from([D(1), D("0.5"), D("0.25")]), "which": st.integers(0, 50), "fee": FEES, "wait": st.integers(0, 90),
    "arrives": st.booleans(), "told": st.booleans(), "listed": st.just(True),
})  # fmt: skip


def live(world_or: Recovery | World) -> dict[str, tuple[Side, Decimal, Decimal, str]]:
    ledger = opened(world_or) if isinstance(world_or, Recovery) else world_or.whole
    return {o.place.order_id: (o.place.side, o.filled, o.remaining, o.venue_order_id) for o in ledger.live_orders() if o.live}


def lived(steps: list[dict[str, object]]) -> World:
    """A world after these steps. Once the daemon is dead nothing is told any more, and nothing placed."""
    world = World()
    for step in steps:
        act(world, step)
    return world


def act(world: World, step: dict[str, object]) -> None:
    world.now += int(step["wait"]) * SECOND  # type: ignore[call-overload]
    if step["wait"]:
        world.listen()
    told = bool(step["told"]) or world.alive is False
    open_orders = [order for order in world.orders if order.status == "open"]
    match step["what"]:
        case "place" if world.alive:
            world.place(step["side"], step["price"], step["quantity"], arrives=step["arrives"], acknowledged=told)  # type: ignore[arg-type]
        case "fill" if open_orders:
            order = open_orders[step["which"] % len(open_orders)]  # type: ignore[operator]
            left = order.quantity - order.filled
            world.execute(order, left * step["part"] if left * step["part"] % D("0.001") == 0 else left, step["fee"], told=told)  # type: ignore[operator,arg-type]
        case "cancel" if open_orders and world.alive:
            order = open_orders[step["which"] % len(open_orders)]  # type: ignore[operator]
            if order.client_id.startswith("q-main"):
                world.cancel(order, arrives=bool(step["arrives"]), told=told)
        case "manual":
            order = world.accept(f"by-hand-{len(world.orders)}", Side.BUY, D(step["price"]), step["quantity"])  # type: ignore[arg-type]
            world.execute(order, order.quantity, step["fee"], told=told)  # type: ignore[arg-type]
        case "transfer":
            currency = (USDT, COIN, BNB)[int(step["which"]) % 3]  # type: ignore[call-overload]
            world.transfer(currency, step["quantity"], listed=bool(step["listed"]), told=told)  # type: ignore[arg-type]
        case "die":
            world.alive = False


@settings(max_examples=120)
@given(st.lists(STEP, max_size=40))
def test_a_restart_reaches_the_state_of_a_daemon_that_never_stopped(steps: list[dict[str, object]]) -> None:
    world = lived(steps)
    recovery = world.recover()
    ledger = opened(recovery)
    assert recovery.differences == ()
    assert isinstance(recovery.events[-1], Reconciled)
    assert {c: b for c, b in ledger.balances.items() if b} == {c: b for c, b in world.balances.items() if b}
    assert ledger.position(BTC) == world.whole.position(BTC)
    assert ledger.cash() == world.whole.cash()
    assert ledger.foreign_fees == world.whole.foreign_fees
    marks = {BTC: D(100)}
    assert ledger.equity(marks) == world.whole.equity(marks)
    reached = {name: seen for name, seen in live(world).items() if any(o.client_id == name for o in world.orders)}
    assert live(recovery) == reached
    assert not any("illegal" in word or "duplicate" in word for word in ledger.anomalies)


@settings(max_examples=80)
@given(st.lists(STEP, max_size=40), st.lists(STEP, max_size=20))
def test_recovering_twice_adds_nothing_and_a_third_session_finds_all_again(first: list[dict[str, object]], then: list[dict[str, object]]) -> None:
    world = lived(first)
    recovery = world.recover()
    assert world.recover().events == recovery.events
    again = world.restart(recovery)
    twice = again.recover()
    assert [e for e in twice.events if isinstance(e, Fill | OrderUpdate)] == []
    assert {e.kind for e in twice.events if isinstance(e, Adjustment)} <= {
        AdjustmentKind.OPENING, AdjustmentKind.CARRIED, AdjustmentKind.CARRIED_FEE, AdjustmentKind.CAPITAL,
    }  # fmt: skip
    assert opened(twice).balances == opened(recovery).balances
    assert live(twice) == live(recovery)
    for step in then:
        act(again, step)
    third = opened(again.recover())
    assert {c: b for c, b in third.balances.items() if b} == {c: b for c, b in again.balances.items() if b}
    assert (third.position(BTC), third.cash()) == (again.whole.position(BTC), again.whole.cash())


@settings(max_examples=50)
@given(st.lists(STEP, max_size=30), st.dictionaries(st.sampled_from([USDT, COIN, BNB]), st.integers(-500, 500).map(lambda n: D(n) / 1000)))
def test_what_nothing_explains_is_told_to_the_last_digit(steps: list[dict[str, object]], lost: dict[object, Decimal]) -> None:
    world = lived(steps)
    left = world.left()
    truth = world.truth(left)
    venue = {c: truth.balances.get(c, D(0)) + lost.get(c, D(0)) for c in (USDT, COIN, BNB)}
    recovery = recover(left, replace(truth, balances=venue, transfers=()), USDT, ALLOCATION, "main", epoch=1)
    ledger = opened(recovery)
    told = {currency: (ours, theirs) for currency, ours, theirs in recovery.differences}
    for currency in (USDT, COIN, BNB):
        ours, theirs = told.get(currency, (ledger.balances[currency], ledger.balances[currency]))
        assert ours == ledger.balances[currency]
        assert theirs == venue[currency]
    insisted = recover(left, replace(truth, balances=venue, transfers=()), USDT, ALLOCATION, "main", epoch=1, insist=True)
    assert insisted.differences == ()
    assert {c: opened(insisted).balances[c] for c in (USDT, COIN, BNB)} == venue


# -- one difference at a time ------------------------------------------------------------------------------------------


def dead_with_an_order(**more: object) -> World:
    world = World()
    world.place(Side.BUY, 100, D("0.4"), arrives=True, acknowledged=True)
    world.alive = False
    return world


def updates(recovery: Recovery) -> list[tuple[str, str]]:
    return [(e.state.value, e.reason) for e in recovery.events if isinstance(e, OrderUpdate)]


def test_an_order_that_filled_in_parts_while_we_were_dead() -> None:
    world = dead_with_an_order()
    world.execute(world.orders[0], D("0.1"), (BNB, D("0.001")), told=False)
    world.execute(world.orders[0], D("0.1"), (COIN, D("0.0001")), told=False)
    recovery = world.recover()
    assert fills(recovery) == ["100", "101"]
    assert updates(recovery) == [("partial", "recovered")]
    (order,) = recovery.orders
    assert (order.state, order.filled, order.venue_order_id) == (OrderState.PARTIAL, D("0.2"), "1")
    assert opened(recovery).position(BTC) == D("0.1999")
    assert opened(recovery).foreign_fees == {BNB: D("0.001")}


def test_an_order_that_filled_wholly_or_was_cancelled_is_not_followed_any_more() -> None:
    world = dead_with_an_order()
    world.execute(world.orders[0], D("0.1"), (USDT, D(0)), told=False)
    world.orders[0].status = "canceled"
    recovery = world.recover()
    assert (updates(recovery), recovery.orders) == ([("canceled", "recovered")], ())
    world = dead_with_an_order()
    world.execute(world.orders[0], D("0.4"), (USDT, D(0)), told=False)
    ledger = opened(world.recover())
    assert ledger.orders[OrderId("q-main-1-1-0")].state is OrderState.FILLED
    assert world.recover().orders == ()


def test_fills_that_never_came_are_exposure_until_the_operator_books_the_difference() -> None:
    world = dead_with_an_order()
    world.facts.append(stamped(OrderUpdate(Stamp(0), OrderId("q-main-1-1-0"), BTC, OrderState.FILLED, "1", D("0.4")), Stamp(world.now, 99)))
    world.orders[0].status, world.orders[0].filled = "closed", D("0.4")
    world.balances[COIN] += D("0.4")
    waiting = world.recover()
    assert [order.place.order_id for order in waiting.orders] == ["q-main-1-1-0"]
    assert waiting.differences
    booked = world.recover(insist=True)
    assert (booked.orders, booked.differences, opened(booked).live_orders()) == ((), (), [])
    assert opened(booked).balances[COIN] == world.balances[COIN]


def test_an_order_that_rested_and_was_refused_in_the_end_is_over() -> None:
    world = dead_with_an_order()
    world.orders[0].status = "rejected"  # a stop that the exchange refused once it was triggered
    recovery = world.recover()
    assert (updates(recovery), recovery.orders) == ([("expired", "recovered")], ())


def test_an_intent_that_never_arrived_is_rejected_only_after_the_window_and_is_exposure_until_then() -> None:
    world = World()
    world.place(Side.BUY, 100, D("0.4"), arrives=False, acknowledged=False)
    left = world.left()
    truth = world.truth(left)
    looking = recover(left, replace(truth, gone=frozenset()), USDT, ALLOCATION, "main", epoch=1)
    (order,) = looking.orders
    assert (order.state, opened(looking).working(BTC)) == (OrderState.UNKNOWN, (D("0.4"), D(0)))
    waited = recover(left, truth, USDT, ALLOCATION, "main", epoch=1)
    assert updates(waited) == [("rejected", "not_found")]
    assert opened(waited).working(BTC) == (D(0), D(0))


def test_an_intent_without_an_answer_that_did_arrive_is_adopted_as_it_is() -> None:
    world = World()
    world.place(Side.SELL, 110, D("0.4"), arrives=True, acknowledged=False)
    world.alive = False
    recovery = world.recover()
    adopted = [event for event in recovery.events if isinstance(event, Adopted)]
    assert [(a.state, a.venue_order_id) for a in adopted] == [(OrderState.UNKNOWN, "1")]
    assert updates(recovery) == [("open", "recovered")]


def test_a_cancel_that_may_never_have_left_can_be_asked_for_again() -> None:
    world = World()
    order = world.place(Side.BUY, 100, D("0.4"), arrives=True, acknowledged=True)
    assert order is not None
    world.cancel(order, arrives=False, told=False)
    assert world.left().ledger.orders[OrderId(order.client_id)].state is OrderState.CANCELING
    (followed,) = world.recover().orders
    assert followed.state is OrderState.OPEN


def test_canceled_and_filled_zero_but_there_are_trades() -> None:
    world = dead_with_an_order()
    world.execute(world.orders[0], D("0.1"), (USDT, D(0)), told=False)
    world.orders[0].status, world.orders[0].filled = "canceled", D(0)
    recovery = world.recover()
    assert (fills(recovery), updates(recovery), opened(recovery).position(BTC)) == (["100"], [("canceled", "recovered")], D("0.1"))


def test_an_end_is_not_told_before_its_fills_are_in() -> None:
    world = dead_with_an_order()
    world.execute(world.orders[0], D("0.4"), (USDT, D(0)), told=False)
    left = world.left()
    recovery = recover(left, replace(world.truth(left), trades=()), USDT, ALLOCATION, "main", epoch=1)
    (order,) = recovery.orders
    assert (order.state, order.filled, order.reported) == (OrderState.OPEN, D(0), D("0.4"))
    assert recovery.differences  # money has moved that nothing explains yet


def test_a_late_fill_of_an_order_that_ended_before_the_crash_is_ours() -> None:
    world = World()
    order = world.place(Side.BUY, 100, D("0.4"), arrives=True, acknowledged=True)
    assert order is not None
    world.cancel(order, arrives=True, told=True)
    world.alive = False
    world.execute(order, D("0.1"), (USDT, D(0)), told=False)
    recovery = world.recover()
    ledger = opened(recovery)
    assert (fills(recovery), ledger.position(BTC), ledger.anomalies) == (["100"], D("0.1"), {})


def test_strays_go_manual_orders_stay_and_both_are_told() -> None:
    world = dead_with_an_order()
    world.accept("q-main-1-9-0", Side.BUY, D(90), D(1))
    world.accept("by-hand", Side.SELL, D(200), D(1))
    world.accept("q-other-1-1-0", Side.SELL, D(200), D(1))
    recovery = world.recover()
    assert [view.order_id for view in recovery.strays] == ["q-main-1-9-0"]
    assert [view.order_id for view in recovery.foreign] == ["by-hand", "q-other-1-1-0"]
    assert any("stray order q-main-1-9-0" in note for note in recovery.notes)
    assert any("manual order 3" in note for note in recovery.notes)


def test_fills_of_a_stray_are_the_accounts_and_not_ours() -> None:
    world = dead_with_an_order()
    stray = world.accept("q-main-1-9-0", Side.BUY, D(90), D(1))
    world.execute(stray, D(1), (USDT, D("0.1")), told=False)
    left = world.left()
    truth = world.truth(left)
    recovery = recover(left, truth, USDT, ALLOCATION, "main", epoch=1)
    assert (fills(recovery), opened(recovery).position(BTC), recovery.differences) == ([], D(0), ())
    corrections = [e for e in recovery.events if isinstance(e, Adjustment) and e.kind is AdjustmentKind.CORRECTION]
    assert all("trade 100 of BTC/USDT" in c.note and "the stray order q-main-1-9-0" in c.note for c in corrections)
    known = recover(replace(left, earlier=frozenset({"q-main-1-9-0"})), truth, USDT, ALLOCATION, "main", epoch=1)
    assert fills(known) == ["100"]


def test_an_order_that_ended_in_our_book_and_is_open_at_the_exchange_is_cancelled() -> None:
    world = dead_with_an_order()
    world.alive = True
    world.hear(OrderUpdate(Stamp(0), OrderId("q-main-1-1-0"), BTC, OrderState.CANCELED, "1", D(0)))
    recovery = world.recover()
    assert [view.order_id for view in recovery.strays] == ["q-main-1-1-0"]
    assert recovery.orders == ()


def test_one_that_was_rejected_and_turns_up_open_lives_again() -> None:
    world = World()
    world.place(Side.BUY, 100, D("0.4"), arrives=True, acknowledged=False)
    left = left_behind(
        1, START, USDT, [*world.facts[:-1], stamped(OrderUpdate(Stamp(0), OrderId("q-main-1-1-0"), BTC, OrderState.REJECTED), Stamp(START, 99))],
        world.commands, {BTC: Cursor()}, (),
    )  # fmt: skip
    recovery = recover(left, world.truth(left), USDT, ALLOCATION, "main", epoch=1)
    assert (recovery.strays, updates(recovery), len(recovery.orders)) == ((), [("open", "recovered")], 1)


def test_deposits_and_withdrawals_are_booked_once_and_by_name() -> None:
    world = dead_with_an_order()
    world.transfer(USDT, D(500), listed=True, told=False)
    world.now += SECOND
    world.transfer(COIN, D(-1), listed=True, told=False)
    recovery = world.recover()
    booked = [(e.kind.value, e.currency, e.amount, e.note) for e in recovery.events if isinstance(e, Adjustment) and e.note.startswith("transfer")]
    assert booked == [("deposit", USDT, D(500), "transfer 0"), ("withdrawal", COIN, D(-1), "transfer 1")]
    assert recovery.transfers == ("transfer 0", "transfer 1")


def test_a_deposit_that_is_not_listed_stays_unexplained_until_the_operator_books_it() -> None:
    world = dead_with_an_order()
    world.transfer(BNB, D(5), listed=False, told=False)
    assert world.recover().differences == ((BNB, D(10), D(15)),)
    insisted = world.recover(insist=True)
    assert insisted.differences == ()
    assert "BNB corrected by 5 to 15" in insisted.notes
    assert world.restart(insisted).recover().differences == ()


def test_transfers_that_may_be_in_the_ledger_already_count_only_where_they_close_the_gap_exactly() -> None:
    old = [Transfer("deposit 1", USDT, D(100), 10), Transfer("deposit 2", USDT, D(7), 20), Transfer("deposit 3", USDT, D(50), 30)]
    assert explain({USDT: D(107)}, old, since=100) == old[:2]
    assert explain({USDT: D(106)}, old, since=100) == []
    assert explain({USDT: D(106)}, old, since=25) == old[2:]  # the newest has happened for certain
    assert explain({USDT: D(7)}, old, since=25) == old[1:2]  # or has not been credited yet
    assert explain({COIN: D(100)}, old, since=0) == []


def test_a_position_that_the_owner_sold_leaves_the_book_at_its_cost() -> None:
    world = dead_with_an_order()
    world.alive = True
    world.execute(world.orders[0], D("0.4"), (USDT, D(0)), told=True)
    world.alive = False
    sale = world.accept("by-hand", Side.SELL, D(150), D("2.3"))
    world.execute(sale, D("2.3"), (USDT, D(0)), told=False)
    ledger = opened(world.recover())
    assert (ledger.position(BTC), ledger.balances[COIN], ledger.average_price(BTC)) == (D("0.1"), D("0.1"), D(100))
    assert ledger.equity({BTC: D(100)}) == D(1000)


def test_fees_in_a_third_currency_go_on_counting_in_equity() -> None:
    world = dead_with_an_order()
    world.alive = True
    world.execute(world.orders[0], D("0.1"), (BNB, D("0.5")), told=True)
    marks = {BTC: D(100), Symbol("BNB/USDT"): D(300)}
    assert opened(world.recover()).equity(marks) == world.whole.equity(marks) == D(850)


def test_rounding_is_booked_and_a_tenth_of_a_cent_is_not_rounding() -> None:
    world = dead_with_an_order()
    left = world.left()
    truth = world.truth(left)
    noise = {**truth.balances, USDT: truth.balances[USDT] + D("1e-13")}
    recovery = recover(left, replace(truth, balances=noise), USDT, ALLOCATION, "main", epoch=1)
    assert (recovery.differences, opened(recovery).balances[USDT]) == ((), noise[USDT])
    cent = {**truth.balances, USDT: truth.balances[USDT] + D("0.001")}
    assert recover(left, replace(truth, balances=cent), USDT, ALLOCATION, "main", epoch=1).differences


# -- what must not be believed --------------------------------------------------------------------------------------------


def test_an_order_of_a_newer_session_is_another_daemon() -> None:
    world = dead_with_an_order()
    world.accept("q-main-3-1-0", Side.BUY, D(90), D(1))
    with pytest.raises(Occupied, match="another daemon trades this account"):
        world.recover()
    assert [view.order_id for view in world.recover(insist=True).strays] == ["q-main-3-1-0"]


def test_a_journal_that_was_lost_leaves_strays_and_a_first_start() -> None:
    opened_view = OrderView("7", "q-main-3-1-0", BTC, "open", D(0), D(1))
    recovery = recover(None, Truth({USDT: D(5000)}, opened=[opened_view]), USDT, ALLOCATION, "main")
    assert [view.order_id for view in recovery.strays] == ["q-main-3-1-0"]
    assert (opened(recovery).capital, recovery.differences, recovery.epoch) == (ALLOCATION, (), 1)


def test_another_accounts_orders_book_nothing_and_keep_risk_from_rising() -> None:
    world = dead_with_an_order()
    world.execute(world.orders[0], D("0.1"), (USDT, D(0)), told=False)
    world.accept("q-main-1-9-0", Side.BUY, D(90), D(1))
    left = world.left()
    doubt = "the exchange denies order q-main-1-1-0, which it had accepted as 1"
    recovery = recover(left, replace(world.truth(left), doubts=[doubt], balances={USDT: D(7)}), USDT, ALLOCATION, "main", epoch=1)
    assert fills(recovery) == []
    assert recovery.strays == ()
    assert recovery.differences
    assert recovery.cursors == left.cursors
    (order,) = recovery.orders
    assert (order.state, opened(recovery).working(BTC)) == (OrderState.OPEN, (D("0.4"), D(0)))
    last = recovery.events[-1]
    assert isinstance(last, Reconciled)
    assert doubt in last.note


def test_balances_that_would_not_stand_still_are_no_clean_account() -> None:
    world = dead_with_an_order()
    left = world.left()
    recovery = recover(left, replace(world.truth(left), steady=False), USDT, ALLOCATION, "main", epoch=1)
    assert recovery.differences == ((USDT, D(5000), D(5000)),)


# -- what is left ------------------------------------------------------------------------------------------------------


def test_the_ladder_goes_on_from_the_last_decision() -> None:
    world = World()
    left = left_behind(1, START, USDT, world.facts, [], {}, (), (50, {"equity": 900.0, "drawdown": 0.1, "rung": "no_new_risk"}))
    assert left.risk is not None
    assert (left.risk.peak_equity, left.risk.drawdown, left.risk.rung, left.risk.capital) == (1000.0, 0.1, "no_new_risk", 1000.0)
    recovery = recover(left, world.truth(left), USDT, ALLOCATION, "main", epoch=1)
    (risk,) = [event for event in recovery.events if isinstance(event, RiskRestored)]
    resumed = [*world.facts, stamped(Halt(Stamp(0)), Stamp(START, 60)), stamped(Resume(Stamp(0)), Stamp(START, 61))]
    freed = left_behind(1, START, USDT, resumed, [], {}, (), (50, {"equity": 900.0, "drawdown": 0.1, "rung": "no_new_risk"})).risk
    assert freed is not None
    assert (freed.peak_equity, freed.drawdown, freed.rung) == (900.0, 0.0, "calm")
    kept = left_behind(2, START, USDT, [stamped(risk, Stamp(START, 1))], [], {}, ()).risk
    assert kept is not None
    assert (kept.peak_equity, kept.rung) == (1000.0, "no_new_risk")


def test_capital_follows_the_allocation_as_far_as_there_is_money() -> None:
    world = dead_with_an_order()
    left = world.left()
    truth = world.truth(left)
    for allocation, capital in ((D(400), D(400)), (D(4000), D(4000)), (D(9000), D(5000))):
        assert opened(recover(left, truth, USDT, allocation, "main", epoch=1)).capital == capital


@given(st.lists(st.tuples(st.integers(0, 300_000), st.integers(1, 10_000)), max_size=60, unique_by=lambda pair: pair[1]))
def test_a_cursor_never_lets_a_told_trade_come_again(trades: list[tuple[int, int]]) -> None:
    cursor = Cursor()
    for at in range(0, len(trades), 7):
        cursor = cursor_of(plain_cursor(cursor.beyond((ms, str(number)) for ms, number in trades[at : at + 7])))
    known = {name for _, name in cursor.known}
    for ms, number in trades:
        assert str(number) in known or cursor.settled(str(number), ms, by_id=True) or cursor.settled(str(number), ms, by_id=False)


def test_the_exchanges_order_id_names_an_order_within_its_symbol_only() -> None:
    world = dead_with_an_order()
    ours = world.orders[-1]
    left = world.left()
    namesake = OwnTrade(Symbol("ETH/USDT"), "7", ours.venue_id, "", START, Side.BUY, D(10), D(3), (), True)
    truth = world.truth(left)
    truth = replace(
        truth, trades=[*truth.trades, namesake],
        balances={**truth.balances, USDT: truth.balances[USDT] - 30, Currency("ETH"): D(3)},
    )  # fmt: skip
    recovery = recover(left, truth, USDT, ALLOCATION, "main", epoch=1)
    assert fills(recovery) == [], "a manual trade of another market is none of our order's"
    assert recovery.differences == ()
    assert any("trade 7 of ETH/USDT" in note for note in recovery.notes)


async def test_a_strangers_order_of_another_market_with_the_same_id_hides_no_fill_of_ours() -> None:
    rows = {symbol: [{"id": "5", "order": "1", "symbol": symbol, "timestamp": 1_700_000_000_000, "side": "buy", "price": 10.0, "amount": 1.0,
                      "takerOrMaker": "maker", "fee": {"cost": 0.01, "currency": "USDT"}}] for symbol in ("ETH/USDT", "BTC/USDT")}  # fmt: skip

    class Exchange:
        id, has = "binance", {}

        async def fetch_my_trades(self, symbol: str, since: int | None, limit: int, params: dict[str, object]) -> list[dict[str, object]]:
            return rows[symbol]

    told: list[Fill] = []
    outbox = Outbox()
    reader = FillReader(
        Exchange(), Throttle(5.0), outbox, lambda key, _: OrderId("q-main-1-1-0") if key == ("BTC/USDT", "1") else None, told.append
    )
    for symbol in (Symbol("ETH/USDT"), BTC):
        reader.begin(symbol, Cursor())
    reader.disown(("ETH/USDT", "1"))
    await reader.sweep(Symbol("ETH/USDT"))
    assert told == []
    await reader.sweep(BTC)
    assert [(fill.symbol, fill.order_id) for fill in told] == [(BTC, "q-main-1-1-0")]
