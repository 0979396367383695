"""What each agent may still spend today: its part of buys and its fees, in quote. Sells reduce on spot, and are never cut.

The joint target is cut before the projection, each agent's increases alike, so that what is left is shared over its symbols as it
wished. Orders that still work are promises: what they may buy is taken off before new ones are made, and the gate refuses what is
beyond. State is the day's beginning in figures of the sub-accounts, a function of the facts; as with the account's own turnover
budget, a new session begins the day anew.
"""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from math import inf, isfinite

from agents.core.instruments import TIMEFRAMES, ZERO, Instrument, Symbol
from agents.core.ledger import Ledger
from agents.desk.attribution import Attribution
from agents.desk.coordination.params import AgentBudget, Budgets
from agents.desk.gate import Allowance, promise
from agents.desk.limits import Limits
from agents.desk.projection import Bound
from agents.desk.wishes import MARKET_MAKING, Target

DAY = TIMEFRAMES["1d"]
NO_ALLOWANCES: Mapping[str, Allowance] = {}
ROUNDING = 1e-9
"""Relative excess over a budget that is the rounding of a float."""


class DayBudgets:
    """The budgets of one market day: how much is left after fills, what of a target fits, and what orders may still ask for."""

    def __init__(self, budgets: Budgets) -> None:
        self._bounded: dict[str, AgentBudget] = budgets.bounded()
        self._day = -1
        self._bought: dict[str, Decimal] = {}
        self._fees: dict[str, Decimal] = {}

    def left(self, now: int, attribution: Attribution, marks: Mapping[Symbol, Decimal], equity: Decimal) -> dict[str, Allowance]:
        """By agent with a budget what its fills of this market day have left of it, in quote; below zero where they went beyond.

        Budgets are fractions of present `equity`. Empty where nobody has a budget, and where nothing is left that could be spent.
        """
        if not self._bounded or equity <= 0:
            return {}
        bought, fees = attribution.bought(), attribution.spent(marks)
        if now // DAY != self._day:
            self._day, self._bought, self._fees = now // DAY, bought, fees
        result = {}
        for agent, budget in self._bounded.items():
            turnover, paid = bought[agent] - self._bought[agent], fees[agent] - self._fees[agent]
            result[agent] = Allowance(
                None if budget.turnover is None else Decimal(repr(budget.turnover)) * equity - turnover,
                None if budget.fees is None else Decimal(repr(budget.fees)) * equity - paid,
            )
        return result

    def cut(
        self, target: Target, left: Mapping[str, Allowance], attribution: Attribution, marks: Mapping[Symbol, Decimal], equity: Decimal,
        instruments: Mapping[Symbol, Instrument], limits: Limits,
    ) -> tuple[Target, tuple[Bound, ...]]:  # fmt: skip
        """The same target with each agent's increases inside what is left, and the budgets that bound.

        An increase is what the agent's part of a weight is above what its sub-account holds, and for the market maker its bids
        besides. No part is cut below what is held and nothing is ever raised. The price of a bound is what one more unit of it
        (a fraction of equity) would lower the tracking term of the projection's objective by.
        """
        bounds: list[Bound] = []
        for agent, allowance in left.items():
            increases = _increases(agent, target, attribution, marks, equity)
            bids = {s: q.bid_size for s, q in target.quotes.items() if q.bid_size > 0} if agent == MARKET_MAKING else {}
            kept, name, wanted = _share(allowance, increases, bids, equity, instruments)
            if kept < 1.0:
                target = _shrunk(target, agent, kept, increases, bids)
                squares = limits.tracking * sum(i * i for i in increases.values()) + limits.quote_tracking * sum(b * b for b in bids.values())
                bounds.append(Bound(f"{agent}.{name}", None, (1.0 - kept) * squares / wanted))
        return target, tuple(bounds)

    def allowances(self, left: Mapping[str, Allowance], ledger: Ledger) -> Mapping[str, Allowance]:
        """`left` less what working buys may still spend: what a plan may ask for."""
        if not left:
            return NO_ALLOWANCES
        free = {agent: replace(allowance) for agent, allowance in left.items()}
        for order in ledger.live_orders():
            if (instrument := ledger.instruments.get(order.place.symbol)) is not None:
                for agent, (value, fee) in promise(order, instrument).items():
                    if agent in free:
                        free[agent].take(value, fee)
        return free


def _increases(
    agent: str, target: Target, attribution: Attribution, marks: Mapping[Symbol, Decimal], equity: Decimal
) -> dict[Symbol, float]:
    """By symbol what the agent wishes above what it holds, in fractions of equity; only what is above 0."""
    found = {}
    for symbol, parts in target.contributions.items():
        part = parts.get(agent, 0.0)
        if symbol in marks and isfinite(part):
            held = float(attribution.position(agent, symbol) * marks[symbol] / equity)
            if part > held:
                found[symbol] = part - held
    return found


def _share(
    allowance: Allowance, increases: Mapping[Symbol, float], bids: Mapping[Symbol, float], equity: Decimal,
    instruments: Mapping[Symbol, Instrument],
) -> tuple[float, str, float]:  # fmt: skip
    """(part of the increases that fits, the tighter budget's name, what was wanted of it in fractions of equity)."""
    turnover = sum(increases.values()) + sum(bids.values())
    rates = {s: (float(max(i.taker_fee, ZERO)), float(max(i.maker_fee, ZERO))) for s, i in instruments.items()}
    fees = sum(size * rates[s][0] for s, size in increases.items() if s in rates) + sum(b * rates[s][1] for s, b in bids.items() if s in rates)
    best = (1.0, "", 0.0)
    for name, wanted, left in (("turnover", turnover, allowance.turnover), ("fees", fees, allowance.fees)):
        room = inf if left is None else max(float(left / equity), 0.0)
        if wanted > room * (1.0 + ROUNDING) and room / wanted < best[0]:
            best = (room / wanted, name, wanted)
    return best


def _shrunk(target: Target, agent: str, kept: float, increases: Mapping[Symbol, float], bids: Mapping[Symbol, float]) -> Target:
    weights, contributions, quotes = dict(target.weights), dict(target.contributions), dict(target.quotes)
    for symbol, size in increases.items():
        parts = {**contributions[symbol], agent: contributions[symbol][agent] - (1.0 - kept) * size}
        contributions[symbol], weights[symbol] = parts, sum(parts.values())
    for symbol, bid in bids.items():
        quotes[symbol] = replace(quotes[symbol], bid_size=bid * kept)
    return replace(target, weights=weights, contributions=contributions, quotes=quotes)
