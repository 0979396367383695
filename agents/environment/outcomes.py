"""What one step of a portfolio brought, in floats; the same record whether the rooms or the fast lane played it."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core.instruments import Symbol

Floats = NDArray[np.float64]


class Filled(NamedTuple):
    """One execution: signed base quantity, price and fee in quote."""

    symbol: Symbol
    quantity: float
    price: float
    fee: float


@dataclass(slots=True)
class Played:
    """One step, [n] by symbol. Profit and costs are in quote; profits add up to the change of equity."""

    equity: float
    """At the end of the step."""
    weights: Floats
    """At the end, fractions of the equity there."""
    held: Floats
    """What was held over the step, at the decision's marks, fractions of the equity then."""
    profit: Floats
    """Net of costs."""
    costs: Floats
    """Fees, and what fills were worse than the decision's mark."""
    returns: Floats
    """Of the marks."""
    elapsed_ns: int
    turnover: float
    """Notional traded over the equity at the decision."""
    fills: list[Filled] = field(default_factory=list)
    bound: tuple[tuple[str, Symbol | None], ...] = ()
    """Limits that held the wish back, with the symbol where it is one's own."""
    terminated: bool = False
    """The ladder has flattened the account, or nothing is left of it."""
    truncated: bool = False
    """The market has ended."""
