"""Four wishes become one target: long-term weight, short-term tilt inside its band, quotes around own inventory, risk scaling.

The blend is precision-weighted: the short-term view is the long-term weight plus twice its tilt, the two views are averaged by their
precisions, and the result may not leave the band. With equal precisions the whole tilt is granted; a long-term view of four times
the precision leaves two fifths of it. On spot a negative weight is a wish for nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from agents.core.instruments import Symbol
from agents.desk.coordination.params import DEFAULT, CoordinatorParams
from agents.desk.wishes import (
    LONG_TERM,
    MARKET_MAKING,
    SHORT_TERM,
    LongTermWish,
    MarketMakingWish,
    Quotes,
    ShortTermWish,
    StandingWishes,
    Style,
    Target,
)

W = TypeVar("W", LongTermWish, ShortTermWish, MarketMakingWish)
Views = Callable[[LongTermWish | None, ShortTermWish | None], tuple[float, float]]
"""From the two directional wishes that stand to (long-term weight, granted tilt), in fractions of equity before the risk multiplier."""


def granted(tilt: float, precision: float, long_term_precision: float) -> float:
    """What remains of a tilt: the precision-weighted mean of the views `L` and `L + 2 tilt`, less `L`, inside the band `|tilt|`."""
    total = precision + long_term_precision
    return tilt * min(1.0, 2.0 * precision / total) if total > 0.0 else 0.0


def blend(long_term: LongTermWish | None, short_term: ShortTermWish | None) -> tuple[float, float]:
    """The precision-weighted blend; see the module."""
    weight, precision = (long_term.weight, long_term.precision) if long_term is not None else (0.0, 0.0)
    return weight, granted(short_term.weight, short_term.precision, precision) if short_term is not None else 0.0


def coordinate(
    wishes: StandingWishes,
    symbols: Sequence[Symbol],
    now: int,
    inventory: Mapping[Symbol, float] | None = None,
    params: CoordinatorParams = DEFAULT,
    views: Views = blend,
    quoting: float = 1.0,
) -> Target:
    """The joint target at market time `now` for all of `symbols`; expired wishes count as never made.

    `inventory` is what the market maker's sub-account owns (fractions of equity): it is part of the target, so that nobody sells
    what a quote has just bought. The gross multiplier scales weights, quote sizes and the bound on inventory; `quoting` in [0, 1]
    scales the last two besides.
    """
    risk = wishes.risk if wishes.risk is not None and wishes.risk.expires_at > now else None
    gross = risk.gross_multiplier if risk is not None else params.silent_gross
    budget = risk.budget_multiplier if risk is not None else params.silent_budget
    owned = inventory or {}
    target = Target(now, {}, {}, {}, {}, gross, budget)
    for symbol in symbols:
        long_term = _standing(wishes.long_term.get(symbol), now)
        short_term = _standing(wishes.short_term.get(symbol), now)
        market_making = _standing(wishes.market_making.get(symbol), now)
        parts = _directional(*views(long_term, short_term), gross, params.long_only)
        bound = params.inventory_limit * gross * quoting
        if kept := min(max(owned.get(symbol, 0.0), -bound), bound):
            parts[MARKET_MAKING] = kept
        target.contributions[symbol] = parts
        target.weights[symbol] = sum(parts.values())
        target.styles[symbol] = _style(short_term)
        if market_making is not None and (quotes := _quotes(market_making, gross * quoting)) is not None:
            target.quotes[symbol] = quotes
    return target


def _directional(weight: float, tilt: float, gross: float, long_only: bool) -> dict[str, float]:
    joint, weight = (weight + tilt) * gross, weight * gross
    if long_only:
        joint, weight = max(joint, 0.0), max(weight, 0.0)
    # What long-term cannot have on spot is not short-term's loss: the tilt owns the rest of the joint weight.
    return {LONG_TERM: weight, SHORT_TERM: joint - weight}


def _quotes(wish: MarketMakingWish, scale: float) -> Quotes | None:
    if wish.pull or (wish.bid_size <= 0.0 and wish.ask_size <= 0.0):
        return None
    return Quotes(wish.bid_offset, wish.ask_offset, wish.bid_size * scale, wish.ask_size * scale)


def _style(wish: ShortTermWish | None) -> Style:
    # Without a wish a symbol is traded as action 0 would trade it.
    return Style(wish.urgency, wish.offset, wish.participation) if wish is not None else Style()


def _standing(wish: W | None, now: int) -> W | None:
    return wish if wish is not None and wish.expires_at > now else None
