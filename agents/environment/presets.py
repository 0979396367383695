"""What each form stands for unless told otherwise: limits, frictions, how orders are worked, and the past it needs."""

from dataclasses import dataclass, replace
from decimal import Decimal

from agents.core.errors import ConfigError
from agents.core.instruments import NS
from agents.desk.limits import Limits
from agents.desk.wishes import ORDER, Style
from agents.environment.forms import CROSS_SECTION, EXPOSURE, PORTFOLIO_FORMS, SIGNAL, WEIGHTS
from agents.market.frictions import CandleBook, FixedLatency, Frictions, MakerTakerFee, NoCandles, SquareRootImpact

FORMS = (*PORTFOLIO_FORMS, *ORDER)
"""Every action form: four of a whole portfolio, and one for each agent."""

AT_MARKET = Style(urgency=1.0, offset=0.0, participation=0.15)
"""Immediate-or-cancel, at most 15 % of recent volume: what a portfolio wishes is done within the bar, or not at all."""
REALISTIC = Frictions(latency=FixedLatency(NS // 20), impact=SquareRootImpact(), candles=CandleBook())
"""50 ms on the way, the square-root law, the venue's own fees; on candles a book of 2 % of the volume, 1 bp from the centre."""
TEN_BPS = Decimal("0.001")
ONE_TICK = Decimal("0.00001")
"""Half a spread so small that the book's grid decides it."""
FREE_HAND = Limits(max_order_notional=1.0, max_order_count=10_000, max_orders_per_second=1e6)
"""Bounds on orders and messages protect a real account; a simulated portfolio trades its whole wish in one order a symbol."""


@dataclass(frozen=True, slots=True)
class Preset:
    """Defaults of one form."""

    limits: Limits
    frictions: Frictions = REALISTIC
    style: Style = AT_MARKET
    warmup: int = 0
    """Rows of candles before an episode that the running market must have seen."""


PRESETS: dict[str, Preset] = {
    EXPOSURE: Preset(FREE_HAND),
    WEIGHTS: Preset(
        replace(FREE_HAND, cash_buffer=0.02, position_cap=0.20, turnover_cost_bps=10.0),
        Frictions(fee=MakerTakerFee(TEN_BPS, TEN_BPS), latency=FixedLatency(NS // 20), candles=CandleBook(half_spread=ONE_TICK)),
    ),
    CROSS_SECTION: Preset(FREE_HAND),
    SIGNAL: Preset(replace(FREE_HAND, position_cap=1.0)),
    **{agent: Preset(Limits(), warmup=720) for agent in ORDER},
}


def preset(form: str) -> Preset:
    """The defaults of a form. Raises ConfigError for an unknown one."""
    if form not in PRESETS:
        raise ConfigError(f"form {form!r} is unknown: use one of {', '.join(FORMS)}")
    return PRESETS[form]


def with_candles(frictions: Frictions) -> Frictions:
    """The same frictions where candles are all there is: somebody must say how they become a book."""
    return replace(frictions, candles=CandleBook()) if isinstance(frictions.candles, NoCandles) else frictions
