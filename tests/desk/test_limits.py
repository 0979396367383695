"""Limits that contradict each other are refused by name; the ladder climbs at once and comes down by rule."""

from decimal import Decimal

import pytest

from agents.core.errors import ConfigError
from agents.desk.limits import CALM, FLATTEN, NO_NEW_RISK, REDUCE, WARN, Limits, RiskState, require_affordable
from tests.desk.world import BTC, SOL, instrument


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("cash_buffer", -0.1), ("cash_buffer", float("nan")), ("position_cap", 1.5), ("gross", 2.0), ("net", 1.01), ("tracking", 0.0),
        ("allow_short", True), ("drawdown_stop", 0.01), ("drawdown_flatten", 1.5), ("price_collar", 0.0), ("max_order_count", 0),
        ("turnover_cost_bps", float("inf")),
    ],
)  # fmt: skip
def test_bad_limits_name_the_field(field, value):
    with pytest.raises(ConfigError, match=r"^risk\." + {"max_order_count": "max_open_orders"}.get(field, "drawdown_" if "drawdown" in field else field)):
        Limits(**{field: value})


def climb(state, equities, capital=100.0):
    return [state.mark(equity, capital, Limits()) for equity in equities]


def test_the_ladder_climbs_with_the_drawdown_from_the_peak():
    assert climb(RiskState(), [100, 120, 115, 113, 107, 101, 95, 130]) == [CALM, CALM, CALM, WARN, NO_NEW_RISK, REDUCE, FLATTEN, FLATTEN]


def test_rungs_are_latched_until_the_drawdown_is_small_again():
    assert climb(RiskState(), [100, 89, 91, 94, 96]) == [CALM, NO_NEW_RISK, NO_NEW_RISK, NO_NEW_RISK, CALM]
    assert climb(RiskState(), [100, 84, 91, 94, 96]) == [CALM, REDUCE, REDUCE, REDUCE, CALM]
    assert climb(RiskState(), [100, 94, 96, 100]) == [CALM, WARN, CALM, CALM]


def test_flatten_is_left_by_the_operator_only():
    state = RiskState()
    climb(state, [100, 79, 100])
    assert state.rung == FLATTEN
    climb(state, [80])
    state.release()
    assert (state.rung, state.drawdown) == (CALM, 0.0) and state.peak_equity == pytest.approx(80)
    assert climb(state, [80]) == [CALM]


def test_money_added_is_no_profit_and_money_taken_no_loss():
    state = RiskState()
    state.mark(100.0, 100.0, Limits())
    assert state.mark(50.0, 50.0, Limits()) == CALM
    assert state.mark(150.0, 150.0, Limits()) == CALM and state.peak_equity == 150.0
    assert state.mark(134.0, 150.0, Limits()) == NO_NEW_RISK


@pytest.mark.parametrize("equity", [float("nan"), float("inf"), float("-inf")])
def test_an_unknown_equity_changes_nothing(equity):
    state = RiskState()
    climb(state, [100, 89])
    assert state.mark(equity, 100.0, Limits()) == NO_NEW_RISK and state.peak_equity == 100


def test_equity_of_nothing_flattens():
    assert RiskState().mark(0.0, 100.0, Limits()) == FLATTEN


def test_a_minimum_notional_above_the_cap_is_refused_with_the_mend():
    marks = {BTC: Decimal(50000), SOL: Decimal(100)}
    listed = {s: instrument(s) for s in marks}
    require_affordable(listed, marks, Decimal(25), Limits())
    with pytest.raises(ConfigError, match=r"capital\.allocation to at least 25, raise risk\.position_cap") as error:
        require_affordable(listed, marks, Decimal("24.9"), Limits())
    assert "BTC/USDT" in str(error.value)
    coarse = {BTC: instrument(BTC, lot=Decimal("0.01"))}
    with pytest.raises(ConfigError, match="no order below 500"):
        require_affordable(coarse, marks, Decimal(1000), Limits())
    require_affordable(coarse, {}, Decimal(1000), Limits())
