"""Which episodes the fast lane may play: those whose every rule it knows."""

from dataclasses import fields

from agents.core.instruments import TIMEFRAMES
from agents.desk.decision import EngineConfig
from agents.desk.limits import Limits
from agents.desk.planner import URGENT
from agents.desk.wishes import Style
from agents.environment.sources import Candles, Source
from agents.market.frictions import CandleBook, FixedLatency, Frictions, MakerTakerFee, NoFee, NoImpact, SquareRootImpact

KNOWN_LIMITS = frozenset((
    "cash_buffer", "position_cap", "gross", "net", "allow_short", "turnover_cost_bps", "turnover_day", "tracking", "quote_tracking",
    "drawdown_warn", "drawdown_stop", "drawdown_reduce", "drawdown_flatten", "reduced_gross", "price_collar", "slippage", "depth_share",
    "min_order_notional", "max_order_notional", "max_order_count", "max_orders_per_second", "cvar_level", "scenarios", "var_level",
    "var_quantile", "cluster_correlation", "top_count",
))  # fmt: skip
"""Limits that the lane keeps, and the numbers in those that are off."""
_STANDARD = Limits()


def fits(source: Source, config: EngineConfig, style: Style, frictions: Frictions) -> bool:
    """Whether this is the case that the lane knows."""
    if not isinstance(source, Candles) or not source.history.listed.all():
        return False
    n, length, limits = len(source.symbols), TIMEFRAMES[source.history.timeframe], config.limits
    asked = (getattr(limits, f.name) == getattr(_STANDARD, f.name) for f in fields(limits) if f.name not in KNOWN_LIMITS)
    latency = frictions.latency
    return (
        all(asked)
        and style.urgency > URGENT
        and isinstance(latency, FixedLatency) and 0 < latency.command < length and latency.report < length - latency.command
        and isinstance(frictions.impact, SquareRootImpact | NoImpact)
        and isinstance(frictions.fee, MakerTakerFee | NoFee)
        and frictions.fee_currency == "quote"
        and isinstance(frictions.candles, CandleBook)
        and all(not i.stop_orders and i.tick.as_tuple().digits == (1,) and i.lot.as_tuple().digits == (1,) for i in source.instruments)
        and min(limits.max_order_count, limits.max_orders_per_second) >= n
        and not config.coordinator.budgets.bounded()
    )  # fmt: skip
