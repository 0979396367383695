"""docs/outcomes.md is what the code does, for every exception that ccxt has."""

import re
from pathlib import Path
from typing import Any

import ccxt as errors
import pytest
from ccxt.base.errors import error_hierarchy

from agents.core.errors import Throttled
from daemon.venues.outcomes import NotSent, Outcome, Unsettled, bad_key, judge_answer, judge_error, off_clock
from daemon.venues.parse import OrderView, parse_order
from daemon.venues.readers import LostStream

DOC = (Path(__file__).parents[2] / "docs" / "outcomes.md").read_text()
OURS: dict[str, type[Exception]] = {"LostStream": LostStream, "Unsettled": Unsettled, "NotSent": NotSent, "Throttled": Throttled}


def table(title: str) -> dict[str, Outcome]:
    """The first two columns under a heading."""
    section = DOC.split(f"## {title}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([^`]+)` \| (\w+) \|", section, re.MULTILINE)
    assert len(rows) == len(dict(rows)), "a row is there twice"
    return {name: Outcome(outcome) for name, outcome in rows}


def classes(tree: dict[str, Any]) -> list[str]:
    return [name for parent, below in tree.items() for name in [parent, *classes(below)]]


def coded(code: str, message: str = "something") -> str:
    return f'binance {{"code":{code},"msg":"{message}"}}'


EXCEPTIONS, CODES = table("Exceptions of ccxt"), table("Codes of Binance")
ANSWERS, REST = table("Answers that raise nothing"), table("Everything else")


def test_the_table_has_every_exception_that_ccxt_has():
    assert sorted(EXCEPTIONS) == sorted(classes(error_hierarchy))


@pytest.mark.parametrize("name", sorted(EXCEPTIONS))
def test_each_exception_is_judged_as_written(name: str):
    assert judge_error(getattr(errors, name)("binance said something")).outcome is EXCEPTIONS[name]


@pytest.mark.parametrize("code", sorted(CODES))
@pytest.mark.parametrize("kind", [errors.ExchangeError, errors.OperationFailed, errors.DDoSProtection, errors.BadRequest])
def test_each_code_is_judged_as_written_whatever_class_ccxt_gives_it(code: str, kind: type[Exception]):
    assert judge_error(kind(coded(code))).outcome is CODES[code]


def test_answers_are_judged_as_written():
    order = {"id": "7", "clientOrderId": "q-a-1-1-0", "status": "open", "symbol": "BTC/USDT"}
    answers = {
        "accepted": order, "another order": {**order, "clientOrderId": "somebody"}, "rejected": {**order, "status": "rejected"},
        "empty": {"id": None, "clientOrderId": None, "status": None, "symbol": "BTC/USDT", "filled": None},
    }  # fmt: skip
    assert {name: judge_answer(parse_order(raw), "q-a-1-1-0").outcome for name, raw in answers.items()} == ANSWERS
    assert judge_answer(OrderView("", "", "", None, None, None), "q-a-1-1-0").outcome is Outcome.UNKNOWN


@pytest.mark.parametrize("name", sorted(REST))
def test_everything_else_is_judged_as_written(name: str):
    kind = OURS.get(name) or getattr(__import__("builtins"), name)
    assert judge_error(kind("said")).outcome is REST[name]


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (errors.DDoSProtection('binance 429 Too Many Requests {"code":-1003,"msg":"x"}'), "rejected", "throttled"),
        (errors.DDoSProtection("binance 418 I'm a teapot"), "rejected", "throttled"),
        (errors.DDoSProtection("exchange <html>checking your browser 4181</html>"), "unknown", "DDoSProtection"),
        (errors.DDoSProtection(coded("-2015")), "fatal", "bad_key"),
        (errors.PermissionDenied("binance This symbol is not permitted for this account."), "rejected", "not_permitted"),
        (errors.InvalidOrder(coded("-2010", "Duplicate order sent.")), "unknown", "duplicate"),
        (errors.ExchangeError('okx {"code":"51016","msg":"Client order ID already exists."}'), "unknown", "duplicate"),
        (errors.OrderImmediatelyFillable("binance Order would trigger immediately."), "rejected", "would_trigger"),
        (errors.ExchangeError(coded("-2010", "Order would immediately match and take.")), "rejected", "would_cross"),
        (errors.BadRequest(coded("-1013", "Filter failure: LOT_SIZE")), "rejected", "filter"),
        (errors.ExchangeError(coded("-2010", "Account has insufficient balance for requested action.")), "rejected", "insufficient_balance"),
        (Unsettled(coded("-1003", "of the request after the order")), "unknown", "Unsettled"),
        (RuntimeError("a bug"), "unknown", "RuntimeError"),
        (TimeoutError(), "unknown", "timeout"),
    ],
)  # fmt: skip
def test_messages_go_before_classes(error: Exception, outcome: str, reason: str):
    verdict = judge_error(error)
    assert (verdict.outcome.value, verdict.reason) == (outcome, reason)


def test_a_filter_asks_for_the_listing_and_a_duplicate_for_a_look():
    assert judge_error(errors.BadRequest(coded("-1013", "Filter failure: NOTIONAL"))).reload
    assert not judge_error(errors.BadRequest(coded("-1102"))).reload
    assert judge_error(errors.DuplicateOrderId("x")).duplicate


def test_what_was_never_sent_says_why():
    assert judge_error(NotSent("banned", "throttled")).reason == "throttled"
    assert judge_error(NotSent("x")).reason == "not_sent"


def test_the_clock_is_told_from_the_book():
    assert off_clock(errors.InvalidNonce("x"))
    assert off_clock(errors.ExchangeError(coded("-1021")))
    assert not off_clock(errors.ChecksumError("x"))
    assert not bad_key(errors.InvalidNonce("x"))
