"""Which faults strike: counts, ends, matches, chance. The clock is given."""

from typing import Any

import pytest

from agents.core.errors import ConfigError
from daemon.rehearsal.faults.catalogue import KINDS, Border
from daemon.rehearsal.faults.control import listed
from daemon.rehearsal.faults.plan import Plan, matches
from daemon.rehearsal.faults.results import altered

SECOND = 1_000_000_000
PLACE = {"call": "order.place", "over": "rest", "security": "signed", "symbol": "BTCUSDT", "side": "BUY"}


class Time:
    now = 0

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def plan(time: Time) -> Plan:
    return Plan(time)


def strikes(plan: Plan, facts: dict[str, str] = PLACE, border: Border = Border.CALL) -> str | None:
    armed = plan.strike(border, facts)
    return armed.kind.name if armed else None


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({}, True),
        ({"call": "order.place"}, True),
        ({"call": "order.*"}, True),
        ({"call": "*"}, True),
        ({"call": ["order.cancel", "order.place"]}, True),
        ({"call": "order.cancel"}, False),
        ({"call": "order.place", "side": "SELL"}, False),
        ({"newClientOrderId": "*"}, False),
    ],
)
def test_what_matches(match: dict[str, Any], expected: bool) -> None:
    assert matches(match, PLACE) is expected


def test_a_fault_strikes_once_unless_told_otherwise(plan: Plan) -> None:
    plan.arm({"fault": "empty_answer"})
    assert [strikes(plan) for _ in range(2)] == ["empty_answer", None]
    plan.arm({"fault": "empty_answer", "count": 2})
    assert [strikes(plan) for _ in range(3)] == ["empty_answer", "empty_answer", None]
    assert plan.struck["empty_answer"] == 3 and plan.active() == []


def test_a_fault_with_an_end_strikes_until_then(plan: Plan, time: Time) -> None:
    plan.arm({"fault": "http_502", "seconds": 2})
    assert strikes(plan) == strikes(plan) == "http_502"
    time.now = 2 * SECOND - 1
    assert strikes(plan) == "http_502" and plan.active()[0]["fault"] == "http_502"
    time.now = 2 * SECOND
    assert strikes(plan) is None and plan.active() == []


def test_the_oldest_strikes_first_and_only_where_it_matches(plan: Plan) -> None:
    plan.arm({"fault": "http_500", "match": {"side": "SELL"}})
    plan.arm({"fault": "http_502"})
    plan.arm({"fault": "http_504"})
    assert [strikes(plan) for _ in range(3)] == ["http_502", "http_504", None]
    assert strikes(plan, {**PLACE, "side": "SELL"}) == "http_500"


def test_a_state_holds_until_cleared(plan: Plan) -> None:
    plan.arm({"fault": "clock_offset", "offset_ms": 5})
    plan.arm({"fault": "empty_answer"})
    assert plan.holds("clock_offset") is plan.holds("clock_offset") is not None
    plan.clear("clock_offset")
    assert plan.holds("clock_offset") is None and strikes(plan) == "empty_answer"
    plan.arm({"fault": "empty_answer"})
    plan.clear()
    assert strikes(plan) is None


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        ({}, "there is no fault None"),
        ({"fault": "emty_answer"}, "the nearest is empty_answer"),
        ({"fault": "empty_answer", "cuont": 1}, "has no cuont"),
        ({"fault": "empty_answer", "count": 0}, "whole number"),
        ({"fault": "empty_answer", "count": True}, "whole number"),
        ({"fault": "empty_answer", "count": 1.5}, "whole number"),
        ({"fault": "empty_answer", "seconds": "soon"}, "give a number"),
        ({"fault": "empty_answer", "seconds": float("nan")}, "give a number"),
        ({"fault": "empty_answer", "match": "BTCUSDT"}, "give an object"),
        ({"fault": "empty_answer", "match": {"symbol": {}}}, "give a text"),
        ({"fault": "answer_late", "delay_s": "long"}, "give a number"),
        ({"fault": "random", "among": ["nothing"]}, "there is no fault 'nothing'"),
    ],
)
def test_what_cannot_be_switched_on(plan: Plan, request_: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        plan.arm(request_)
    assert plan.active() == []


def story(time: Time, seed: int, calls: int = 400, others: int = 0) -> list[str | None]:
    plan = Plan(time)
    plan.arm({"fault": "random", "rate": 0.2, "seed": seed})
    told = []
    for number in range(calls):
        time.now = number * 10 * SECOND
        told.append(strikes(plan))
        if number < others:
            strikes(plan, {"channel": "depth"}, Border.STREAM)
    return told


def test_chance_is_decided_by_its_seed_and_by_each_border_alone(time: Time) -> None:
    once = story(time, 5)
    assert once == story(time, 5) == story(time, 5, others=100) and once != story(time, 6)
    named = [name for name in once if name]
    assert 40 < len(named) < 120
    assert {KINDS[name].border for name in named} == {Border.CALL} and all(KINDS[name].chance for name in named)
    assert not {"key_2015", "filter_1013"} & set(named) and len(set(named)) > 8


def test_chance_strikes_every_call_and_a_ban_lasts(time: Time) -> None:
    plan = Plan(time)
    plan.arm({"fault": "random", "rate": 1, "among": ["banned_418", "http_502"]})
    lookup = {"call": "order.status", "over": "rest", "security": "signed"}
    while strikes(plan, lookup) != "banned_418":
        assert plan.struck["http_502"]
    banned_at = time.now
    assert {strikes(plan, lookup) for _ in range(20)} == {"banned_418"}
    assert [row["seconds"] for row in plan.active()] == [None, 2]
    time.now = banned_at + 2 * SECOND
    assert {strikes(plan, lookup) for _ in range(20)} >= {"http_502"}


def test_chance_among_named_ones(time: Time) -> None:
    plan = Plan(time)
    plan.arm({"fault": "random", "rate": 1, "among": ["filter_1013", "private_lost"]})
    assert strikes(plan) == "filter_1013" and strikes(plan, {"event": "executionReport"}, Border.PRIVATE) == "private_lost"
    assert strikes(plan, {"channel": "depth"}, Border.STREAM) is None


def test_a_second_of_chance_switches_states_on(time: Time) -> None:
    plan = Plan(time)
    plan.arm({"fault": "random", "rate": 0.5, "seed": 1})
    drawn = [armed.kind.name for _ in range(1000) if (armed := plan.by_the_second(0.1))]
    assert 20 < len(drawn) < 90
    assert {"stream_silent", "stream_drop", "private_drop"} <= set(drawn) and "restart" not in drawn and "deposit" not in drawn
    assert {row["fault"] for row in plan.active()} <= {"random", "stream_silent", "crossed_book"}


def test_every_fault_is_listed_and_each_answer_that_is_altered_counts(plan: Plan) -> None:
    assert set(listed(plan)["faults"]) == set(KINDS)  # type: ignore[call-overload]
    plan.arm({"fault": "ends_unfilled"})
    whole = {"status": "NEW", "executedQty": "0.00000000"}
    venue: Any = None
    assert altered(whole, plan, {"call": "order.status"}, venue) == whole and plan.struck["ends_unfilled"] == 0
    filled = {"status": "FILLED", "executedQty": "1.00000000", "cummulativeQuoteQty": "5.00000000"}
    assert altered(filled, plan, {"call": "order.status"}, venue) == {
        "status": "CANCELED", "executedQty": "0.00000000", "cummulativeQuoteQty": "0.00000000",
    }  # fmt: skip
    assert plan.struck["ends_unfilled"] == 1
