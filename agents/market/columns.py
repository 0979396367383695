"""What each agent sees, column by column. Weights and buffers belong to one list of names; its hash travels with them.

Columns come in blocks: what the bars say, what the book and the prints say, what the account says, what the other agents wish.
Nobody fills `reserved_NN` yet: they are zero. Numbers are raw (not squashed) unless the name says rank, share or sign.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

from agents.core.errors import SpecMismatch

AGENTS = ("long_term", "short_term", "market_making", "risk")
"""In the order of their wishes."""
STATE_SIZES = {"long_term": 100, "short_term": 80, "market_making": 120, "risk": 60}
ACTION_SIZES = {"long_term": 4, "short_term": 4, "market_making": 6, "risk": 2}
VERSION = 2
"""Raised when a column keeps its name but changes its meaning: in 2 a `reserved_NN` stands two places further on where the moments
of the own return stand."""

HOUR_COLUMNS = (
    # trend (Baz et al. 2015), in units of its own rolling deviation
    "macd_z_8_24", "macd_z_16_48", "macd_z_32_96", "trend_8_24", "trend_16_48", "trend_32_96", "return_12m_sign",
    # log returns over deviation
    "momentum_1h", "momentum_4h", "momentum_1d", "momentum_7d", "momentum_30d", "momentum_90d", "momentum_365d",
    # ranks over the symbols, in [-.5, .5]
    "rank_momentum_1d", "rank_momentum_7d", "rank_momentum_30d", "rank_momentum_90d", "rank_macd_z_16_48",
    "rank_volatility", "rank_volume",
    # size and shape of the moves
    "volatility_1h", "volatility_1h_fast", "volatility_1h_slow", "volatility_trend", "range_volatility_1h", "atr_1h",
    "skewness", "tail_weight", "downside_share", "autocorrelation_1h",
    # where the price stands
    "drawdown_30d", "drawdown_365d", "range_position_30d", "range_position_365d", "distance_ema_1d", "distance_ema_8d", "rsi_14h",
    # volume
    "volume_z", "volume_trend", "illiquidity",
    # the common factor
    "beta", "residual_volatility_1h", "correlation_mean", "market_return_1h", "market_momentum_1d", "market_momentum_7d",
    "market_momentum_30d", "market_volatility_1h", "market_breadth", "market_dispersion", "effective_bets", "correlation_top",
    # how much history all this rests on: share of 90 days
    "history_share",
)  # fmt: skip
"""Per symbol, from bars of an hour and longer; changes only when one closes."""

MINUTE_COLUMNS = (
    # Ornstein-Uhlenbeck on the cumulated beta residual (Avellaneda & Lee 2010)
    "ou_kappa", "ou_gap", "ou_sigma", "ou_score", "ou_half_life_share",
    "volatility_1m", "volatility_1m_fast", "volatility_1m_slow", "volatility_trend_1m", "range_volatility_1m",
    "return_1m", "return_5m", "return_15m", "return_60m", "return_240m", "return_1440m",
    "volume_1m", "volume_1m_notional", "volume_z_1m", "volume_trend_1m",
    "autocorrelation_1m", "distance_ema_5m", "distance_ema_60m", "distance_ema_240m", "range_position_60m", "range_position_1440m",
    "beta_1m", "market_return_1m", "market_return_15m", "market_volatility_1m", "rank_return_15m", "rank_return_60m",
)  # fmt: skip
"""Per symbol, from bars of a minute. `volume_1m_notional` is over equity."""

CLOCK_COLUMNS = ("minute_of_day_sin", "minute_of_day_cos", "day_of_week_sin", "day_of_week_cos")

FLOW_COLUMNS = (
    "half_spread", "half_spread_mean", "volatility_1s", "microprice_offset", "trade_imbalance_1m", "trade_flow", "trade_rate",
    "order_flow_imbalance", "toxicity_z", "markout_5s", "last_trade_offset", "book_age_s", "book_trusted",
)  # fmt: skip
"""Per symbol, from the book's top and the prints."""

DEPTH_COLUMNS = (
    "intensity_a", "intensity_k",
    "imbalance_1", "imbalance_2", "imbalance_3", "imbalance_4", "imbalance_5", "imbalance_10",
    "bid_distance_2", "bid_distance_3", "bid_distance_4", "bid_distance_5", "bid_distance_10",
    "ask_distance_2", "ask_distance_3", "ask_distance_4", "ask_distance_5", "ask_distance_10",
    "bid_depth_1", "bid_depth_2", "bid_depth_3", "bid_depth_4", "bid_depth_5", "bid_depth_10",
    "ask_depth_1", "ask_depth_2", "ask_depth_3", "ask_depth_4", "ask_depth_5", "ask_depth_10",
    "tick_fraction", "spread_ticks", "return_1s", "return_5s", "return_30s", "flow_5s", "flow_30s", "buy_rate", "sell_rate",
    "trade_size_mean", "volume_rate", "microprice_momentum", "volatility_10s",
)  # fmt: skip
"""Per symbol, deeper into the book; depths are log1p of quote notional."""

POSITION_COLUMNS = (
    "position_weight", "working_buy_weight", "working_sell_weight", "unrealised_return", "maker_fee", "taker_fee",
)  # fmt: skip
OWN_COLUMNS = ("own_return_mean", "own_return_square")
"""Running moments of the agent's own return in units of its volatility target, where its reward is a differential ratio; else zeros."""
STOP_COLUMNS = ("stop_distance", "stop_age_h")
ACCOUNT_COLUMNS = ("cash_weight", "gross", "drawdown", "turnover_day", "fees_day")
LONG_TERM_WISH = ("long_term_exposure", "long_term_weight", "long_term_precision", "long_term_stop_distance")
LONG_TERM_HORIZON = ("long_term_horizon_short", "long_term_horizon_middle", "long_term_horizon_long")
SHORT_TERM_WISH = ("short_term_tilt", "short_term_weight", "short_term_urgency", "short_term_precision")
MARKET_MAKING_WISH = (
    "market_making_bid_offset", "market_making_ask_offset", "market_making_bid_size", "market_making_ask_size",
    "market_making_inventory_target", "market_making_pull",
)  # fmt: skip
RISK_WISH = ("risk_gross_multiplier", "risk_budget_multiplier")
QUEUE_COLUMNS = (
    "inventory", "inventory_gap", "quote_bid_distance", "quote_ask_distance", "quote_bid_size", "quote_ask_size",
    "queue_bid_share", "queue_ask_share",
)  # fmt: skip
"""Own resting quotes: fractional distances from the mid, sizes over equity, own share of the displayed size at that price."""

PORTFOLIO_COLUMNS = (
    "portfolio_volatility", "var_95", "cvar_95", "var_95_history", "cvar_95_history", "drawdown", "gross", "net", "cash_weight",
    "concentration", "largest_weight", "position_count", "effective_bets", "correlation_top", "correlation_mean",
    "portfolio_beta", "diversification", "working_buy_weight", "working_sell_weight",
    "headroom_gross", "headroom_cash", "turnover_day", "fees_day",
    "wish_gross", "wish_net", "wish_distance", "wished_volatility", "quote_gross",
    "market_volatility_1h", "market_volatility_trend", "market_return_1h", "market_momentum_1d", "market_momentum_7d",
    "market_breadth", "market_dispersion", "market_tail_weight", "market_illiquidity", "market_half_spread", "market_toxicity_z",
    "market_volatility_1m", "market_return_15m", "untrusted_share", "untrusted_weight", "unrealised_return", "stop_distance_mean",
)  # fmt: skip
"""One row for the whole book; weights are fractions of equity, risk numbers of one day unless annualised."""


WISH_COLUMNS = (*LONG_TERM_WISH, *LONG_TERM_HORIZON, *SHORT_TERM_WISH, *MARKET_MAKING_WISH)

Block = tuple[str, tuple[str, ...]]
"""Who computes it, and the names taken from there, in order."""

SOURCES: dict[str, tuple[str, ...]] = {
    "hour": HOUR_COLUMNS,
    "minute": MINUTE_COLUMNS,
    "clock": CLOCK_COLUMNS,
    "flow": FLOW_COLUMNS,
    "depth": DEPTH_COLUMNS,
    "position": POSITION_COLUMNS,
    "own": OWN_COLUMNS,
    "stop": STOP_COLUMNS,
    "account": ACCOUNT_COLUMNS,
    "wish": WISH_COLUMNS,
    "multiplier": RISK_WISH,
    "queue": QUEUE_COLUMNS,
    "portfolio": PORTFOLIO_COLUMNS,
}
"""Every block's columns as its source computes them."""

LAYOUT: dict[str, tuple[Block, ...]] = {
    "long_term": (
        ("hour", HOUR_COLUMNS),
        ("clock", CLOCK_COLUMNS),
        ("flow", ("half_spread",)),
        ("position", POSITION_COLUMNS),
        ("stop", STOP_COLUMNS),
        ("account", ACCOUNT_COLUMNS),
        ("wish", (*LONG_TERM_WISH, *LONG_TERM_HORIZON, "short_term_weight")),
        ("multiplier", RISK_WISH),
        ("own", OWN_COLUMNS),
    ),
    "short_term": (
        ("minute", MINUTE_COLUMNS),
        ("clock", CLOCK_COLUMNS),
        ("flow", FLOW_COLUMNS),
        ("hour", ("volatility_1h", "momentum_1d", "momentum_7d")),
        ("position", POSITION_COLUMNS),
        ("account", ("cash_weight", "drawdown")),
        ("wish", (*LONG_TERM_WISH, *SHORT_TERM_WISH)),
        ("multiplier", RISK_WISH),
        ("own", OWN_COLUMNS),
    ),
    "market_making": (
        ("flow", FLOW_COLUMNS),
        ("depth", DEPTH_COLUMNS),
        ("queue", QUEUE_COLUMNS),
        ("clock", CLOCK_COLUMNS[:2]),
        ("minute", ("volatility_1m", "return_1m", "return_5m", "return_15m", "ou_score")),
        ("hour", ("volatility_1h",)),
        ("position", POSITION_COLUMNS),
        ("account", ("cash_weight", "gross", "drawdown")),
        ("wish", (*LONG_TERM_WISH, *SHORT_TERM_WISH, *MARKET_MAKING_WISH)),
        ("multiplier", RISK_WISH),
    ),
    "risk": (
        ("portfolio", PORTFOLIO_COLUMNS),
        ("clock", CLOCK_COLUMNS),
        ("multiplier", RISK_WISH),
    ),
}
"""By agent: its blocks from left to right; what is left of its size is reserved."""


def _names(agent: str) -> tuple[str, ...]:
    names = [name for _, block in LAYOUT[agent] for name in block]
    spare = STATE_SIZES[agent] - len(names)
    if spare < 0 or len(set(names)) != len(names):
        raise SpecMismatch(f"{agent}: {len(names)} columns do not fit {STATE_SIZES[agent]}, or a name stands twice")
    return (*names, *(f"reserved_{number:02d}" for number in range(spare)))


@dataclass(frozen=True)
class ObservationSpec:
    """One agent's column names, in order. `hash` changes with any name, their order, or the version."""

    agent: str
    columns: tuple[str, ...]
    version: int = VERSION

    @property
    def size(self) -> int:
        return len(self.columns)

    @cached_property
    def index(self) -> dict[str, int]:
        """Column name -> position."""
        return {name: number for number, name in enumerate(self.columns)}

    @cached_property
    def hash(self) -> str:
        """SHA-256 in hex of agent, version and names."""
        return hashlib.sha256("\n".join((self.agent, str(self.version), *self.columns)).encode()).hexdigest()


SPECS: dict[str, ObservationSpec] = {agent: ObservationSpec(agent, _names(agent)) for agent in AGENTS}
"""By agent."""

SPEC_HASH = hashlib.sha256("\n".join(SPECS[agent].hash for agent in AGENTS).encode()).hexdigest()
"""Over all four: what weights and buffers carry."""
