"""Every setting of section risk reaches the limits of the engine."""

import pytest

from agents.core.errors import ConfigError
from agents.core.instruments import Symbol
from agents.desk.limits import Limits
from daemon.settings import Risk, Settings
from daemon.wiring import engine_config

OTHER = {
    "cash_buffer": 0.03, "position_cap": 0.1, "gross": 0.9, "net": 0.8, "turnover_cost_bps": 7.0, "turnover_day": 3.0, "fees_day": 0.002,
    "cvar": 0.04, "cvar_level": 0.9, "scenarios": 500, "var": 0.03, "var_level": 0.99, "var_quantile": "cornish_fisher", "cluster_cap": 0.5,
    "cluster_correlation": 0.6, "herfindahl": 0.2, "top_count": 3, "top_cap": 0.4, "liquidity_depth": 0.5, "liquidity_volume": 0.01,
    "price_collar": 0.03, "max_open_orders": 50, "max_orders_per_second": 5.0, "drawdown_warn": 0.04, "drawdown_stop": 0.08,
    "drawdown_reduce": 0.12, "drawdown_flatten": 0.16,
}  # fmt: skip


def limits_of(**changes):
    return engine_config(Settings(risk=Risk(**changes)), (Symbol("BTC/USDT"),), 1, 0.0).limits


def test_none_is_lost_on_the_way():
    assert OTHER.keys() == Risk.model_fields.keys()
    limits, plain = limits_of(**OTHER), Limits()
    for name, value in OTHER.items():
        field = {"max_open_orders": "max_order_count"}.get(name, name)
        assert getattr(limits, field) == value != getattr(plain, field), name


def test_whoever_trades_has_the_guards_on():
    limits = limits_of()
    assert (limits.cvar, limits.cluster_cap, limits.herfindahl) == (0.05, 0.6, 0.25)


def test_settings_that_contradict_each_other_start_no_session():
    with pytest.raises(ConfigError, match=r"risk\.cluster_cap 0\.1 and risk\.position_cap 0\.2 contradict"):
        limits_of(cluster_cap=0.1)
