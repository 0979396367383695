import io

import pytest
from rich.console import Console

from daemon.view import LiveView, closing, render, words

STATUS = {
    "session": "20240718T000000Z", "mode": "m", "exchange": "rehearsal", "uptime_s": 75.0, "ready": True, "halted": False,
    "data_age_s": 0.2, "decision_age_s": 2.0, "equity": 10_012.34, "drawdown": 0.0123, "cash": 5000.0, "orders": 12, "fills": 7,
    "inbox_depth": 3, "pnl": {"account": 12.34},
    "positions": [
        {"symbol": "BTC/USDT", "quantity": "0.03", "average_price": 60_000.5, "mark": 61_000.0, "weight": 0.183, "pnl": 30.0},
        {"symbol": "DOGE/USDT", "quantity": "0", "average_price": 0.0, "mark": 0.1, "weight": 0.0, "pnl": 0.0},
    ],
    "open_orders": [
        {"symbol": "ETH/USDT", "side": "buy", "price": "3000.1", "quantity": "0.5", "filled": "0", "state": "open", "agent": "market_making"}
        for _ in range(30)
    ],
    "decisions": {"long_term": 2, "short_term": 60, "market_making": 700, "risk": 61},
    "wishes": {
        "long_term": {"BTC/USDT": {"weight": 0.18, "exposure": 0.4}, "ETH/USDT": {"weight": 0.1}},
        "short_term": {"BTC/USDT": {"weight": 0.01, "urgency": 0.5}},
        "market_making": {"BTC/USDT": {"bid_offset": 0.0005, "ask_offset": 0.0007}},
        "risk": {"": {"gross_multiplier": 0.91, "budget_multiplier": 0.9}},
    },
    "bound": [{"name": "position_cap", "symbol": "BTC/USDT", "price": 0.1}], "refused": {"collar": 2},
    "feed": {"stale": ["XRP/USDT"], "rebuilds": 0},
    "learner": {"state": "running", "updates": 1234, "experiences": 5678, "version": 9, "weights_swapped": 8, "restarts": 0,
                "critic_loss": 0.7, "actor_loss": -0.4, "entropy": 1.3,
                "agents": {"risk": {"critic_loss": 0.51, "actor_loss": -0.3, "entropy": 1.25, "alpha": 0.19}}},
}  # fmt: skip


def drawn(status, height=40, width=120):
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=False)
    console.print(render(status, height))
    return console.file.getvalue()


@pytest.mark.parametrize(
    "part",
    ["data age 0.2 s", "10,012.34", "1.23 %", "BTC/USDT", "18.30 %", "ETH/USDT", "market_making (700)", "gross_multiplier +0.9100",
     "position_cap BTC/USDT", "collar 2", "XRP/USDT", "updates 1,234", "version 9", "critic loss risk 0.510", "entropy risk 1.250"],
)  # fmt: skip
def test_the_screen_shows(part):
    assert part in drawn(STATUS)


def test_what_is_not_held_is_no_position():
    assert "DOGE" not in drawn(STATUS)


def test_halted_is_said():
    assert "HALTED" in drawn(STATUS | {"halted": True})
    assert "HALTED" not in drawn(STATUS)


@pytest.mark.parametrize("height", [26, 40, 60])
def test_it_fits_the_terminal(height):
    assert drawn(STATUS, height).count("\n") <= height


def test_what_does_not_fit_is_counted():
    assert "more" in drawn(STATUS, 30)


@pytest.mark.parametrize("missing", [None, *STATUS])
def test_any_key_may_be_missing_or_none(missing):
    assert "Quartet" in drawn({} if missing is None else {key: value for key, value in STATUS.items() if key != missing})
    assert "Quartet" in drawn(STATUS if missing is None else STATUS | {missing: None})


def test_markup_in_a_value_is_text():
    status = STATUS | {"refused": {"[bold]x[/]": 1}, "positions": [STATUS["positions"][0] | {"symbol": "[red]A/B"}]}
    assert "[bold]x[/]" in drawn(status)
    assert "[red]A/B" in drawn(status)


def test_the_live_view_draws_and_ends():
    console = Console(file=io.StringIO(), force_terminal=True, width=120, height=40)
    with LiveView(console) as show:
        show(STATUS)
        show({})
    assert "10,012.34" in console.file.getvalue()


def test_the_learner_as_a_whole_where_no_agent_spoke():
    assert "critic loss 0.700" in drawn(STATUS | {"learner": {**STATUS["learner"], "agents": {}}})


def test_it_fits_a_narrow_terminal():
    assert max(map(len, drawn(STATUS, width=80).splitlines())) <= 80
    assert drawn(STATUS, height=26, width=80).count("\n") <= 26


def test_the_closing_words_leave_out_what_only_programs_read():
    console = Console(file=io.StringIO(), width=120)
    console.print(closing({"session": "s1", "ledger_difference": 0.0, "pnl": {"account": 1.5}, "learner": STATUS["learner"], "anomalies": {}}))
    text = console.file.getvalue()
    assert [part for part in ("s1", "ledger_difference", "pnl.account", "learner.updates") if part not in text] == []
    assert "agents" not in text


def test_a_result_in_words():
    console = Console(file=io.StringIO(), width=120)
    console.print(words({"orders": 3, "pnl": {"account": 1.5, "agents": {}}, "list": ["a", "b"], "rows": [{"x": 1}], "none": None}))
    text = console.file.getvalue()
    assert [part for part in ("pnl.account", "1.5000", "a, b", "rows.0", "x 1") if part not in text] == []
