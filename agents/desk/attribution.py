"""Who earned what: a virtual sub-account per agent. Exact Decimal, so that the sub-accounts always add up to the account.

A fill belongs to the agents that wished in its direction, pro rata, with its fee; agents that wished the other way trade with them
inside, at the mid and without cost. The market maker owns its own fills. What nobody wished for (positions carried over from
an earlier session, trades without shares) stands in the house account, which always wishes to be flat.

What a fill cost is its fee and its slippage against the mark at the decision that asked for it; a maker's slippage is negative, for it
is paid. Risk is divided by Euler's rule, so profit, cost and risk of the sub-accounts each sum to the account's.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from agents.core.events import Adjustment, AdjustmentKind, Fill
from agents.core.instruments import ZERO, Currency, Side, Symbol
from agents.core.ledger import Ledger
from agents.core.orders import OrderId
from agents.desk.wishes import MARKET_MAKING, ORDER

HOUSE = "house"
Shares = Iterable[tuple[str, float]]
Floats = NDArray[np.float64]

REMEMBERED = 4096
"""Orders whose mark at the decision is kept for their fills; what fills later than that is judged by the mark of its fill."""

_GRID = Decimal("1e-12")
"""Finest part of a quantity or a fee; the last part takes the remainder, so parts always add up."""
_NOISE = Decimal("1e-9")
"""Relative change of a holding that is rounding of floats, not a wish."""
_EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)
"""Wide enough that no product of a price and a quantity is ever rounded."""


@dataclass(slots=True)
class Line:
    """One agent in one symbol: base quantity, quote cash it moved (fees in quote included) and fees in other currencies."""

    quantity: Decimal = ZERO
    cash: Decimal = ZERO
    fees: Decimal = ZERO
    """Fees in quote and base at fill price; informative, already in `cash` and `quantity`."""
    foreign: dict[Currency, Decimal] = field(default_factory=dict)
    """Fees in third currencies, carried ones included: part of no cash, so they are valued when asked."""
    paid: dict[Currency, Decimal] = field(default_factory=dict)
    """Fees of own fills by currency, as told."""
    slippage: Decimal = ZERO
    """Quote value that fills lost against their reference; informative, already in `cash`."""
    bought: Decimal = ZERO
    """Quote value of venue buys; what crosses inside is not counted."""

    def trade(self, quantity: Decimal, price: Decimal) -> None:
        """Buy (positive) or sell (negative) at a price, without cost."""
        self.quantity += quantity
        self.cash -= quantity * price


class Attribution:
    """Sub-accounts of all agents and of the house, in one quote currency. Give it every fill that the ledger took, once."""

    def __init__(self, quote: Currency) -> None:
        self.quote = quote
        self._lines: dict[str, dict[Symbol, Line]] = {agent: {} for agent in (*ORDER, HOUSE)}
        self._carried = ZERO
        self._asked: dict[OrderId, Decimal] = {}
        self._fees = self._slipped = ZERO
        """Fees (quote, and base at fill price) and slippage of whole fills: what the agents' parts must sum to."""
        self._foreign: dict[Currency, Decimal] = {}

    # -- facts -----------------------------------------------------------------------------------------------------

    def carry(self, adjustment: Adjustment) -> None:
        """What an earlier session left, and the fees it paid in third currencies, belong to the house; the rest is nobody's trade."""
        symbol = Symbol(f"{adjustment.currency}/{self.quote}")
        if adjustment.kind is AdjustmentKind.CARRIED and adjustment.currency == self.quote:
            self._carried += adjustment.amount
        elif adjustment.kind is AdjustmentKind.CARRIED:
            self._line(HOUSE, symbol).quantity += adjustment.amount
        elif adjustment.kind is AdjustmentKind.CARRIED_FEE:
            fees = self._line(HOUSE, symbol).foreign
            fees[adjustment.currency] = fees.get(adjustment.currency, ZERO) + adjustment.amount

    def ask(self, order_id: OrderId, mark: Decimal) -> None:
        """Remember the mark at the decision that asked for an order: its fills are judged by it."""
        self._asked[order_id] = mark
        if len(self._asked) > REMEMBERED:
            del self._asked[next(iter(self._asked))]

    def apply(self, fill: Fill, shares: Shares, marks: Mapping[Symbol, Decimal]) -> None:
        """Book one fill of an order placed for `shares` (agent, signed base quantity).

        Without shares in the fill's direction a reduction falls on those who hold, pro rata, and anything else on the house.
        """
        with localcontext(_EXACT):
            sign = fill.side.value
            wished = [(agent, Decimal(repr(share)) * sign) for agent, share in shares if agent in self._lines]
            along = [(agent, share) for agent, share in wished if share > 0]
            against = [(agent, -share) for agent, share in wished if share < 0]
            net = sum((s for _, s in along), ZERO) - sum((s for _, s in against), ZERO)
            if not along:
                along = self._holders(fill.symbol, fill.side)
            elif against and net > 0:
                crossed = sum((s for _, s in against), ZERO) * min(fill.quantity / net, Decimal(1))
                self._cross(fill.symbol, along, against, crossed.quantize(_GRID) * sign, marks.get(fill.symbol, fill.price))
            self._book(fill, along, self._asked.get(fill.order_id) or marks.get(fill.symbol, fill.price))

    def cross(self, symbol: Symbol, wished: Mapping[str, Decimal], mid: Decimal) -> dict[str, Decimal]:
        """Let opposite wishes (signed base quantities) trade inside at the mid; what remains is all in the net direction."""
        with localcontext(_EXACT):
            buys = [(agent, q) for agent, q in wished.items() if q > 0]
            sells = [(agent, -q) for agent, q in wished.items() if q < 0]
            bought, sold = sum((q for _, q in buys), ZERO), sum((q for _, q in sells), ZERO)
            moved = self._cross(symbol, buys, sells, min(bought, sold), mid)
            rest = {agent: q - moved.get(agent, ZERO) for agent, q in wished.items()}
        return {agent: q for agent, q in rest.items() if q}

    def wished_trades(
        self, symbol: Symbol, contributions: Mapping[str, float], weight: float, equity: Decimal, mark: Decimal
    ) -> tuple[tuple[str, float], ...]:
        """Shares for the next order: cross inside what can be, and say what each agent still wants of the venue.

        `contributions` are the target's by agent, `weight` is what the risk layer left of their sum: all are cut alike.
        """
        total = sum(contributions.values())
        cut = min(weight / total, 1.0) if total > 0 else 0.0  # a held weight above the wish is nobody's new wish
        wished: dict[str, Decimal] = {}
        for agent in (*ORDER, HOUSE):
            goal = Decimal(repr(contributions.get(agent, 0.0) * cut)) * equity / mark
            owned = self.position(agent, symbol)
            if abs(goal - owned) > _NOISE * max(abs(goal), abs(owned)):
                wished[agent] = (goal - owned).quantize(_GRID)
        return tuple((agent, float(q)) for agent, q in self.cross(symbol, wished, mark).items())

    # -- questions -------------------------------------------------------------------------------------------------

    def line(self, agent: str, symbol: Symbol) -> Line:
        """The agent's line in one symbol; an empty one where it never traded. Read only."""
        return self._lines[agent].get(symbol) or Line()

    def position(self, agent: str, symbol: Symbol) -> Decimal:
        """Base quantity that the agent owns; may be negative where it sold another agent's coins."""
        return self.line(agent, symbol).quantity

    def inventory(self, marks: Mapping[Symbol, Decimal], equity: Decimal) -> dict[Symbol, float]:
        """The market maker's own weights, for the coordinator and its quotes; symbols without a mark are left out."""
        lines = self._lines[MARKET_MAKING].items()
        return {s: float(line.quantity * marks[s] / equity) for s, line in lines if line.quantity and s in marks and equity > 0}

    def pnl(self, marks: Mapping[Symbol, Decimal]) -> dict[str, Decimal]:
        """Profit by agent in quote; the values add up exactly to the account's equity less its capital.

        Raises KeyError for a position without a mark. The house is named only if it has anything.
        """
        with localcontext(_EXACT):
            result = {agent: sum((self._value(s, line, marks) for s, line in self._lines[agent].items()), ZERO) for agent in ORDER}
            house = sum((self._value(s, line, marks) for s, line in self._lines[HOUSE].items()), self._carried)
        if house or self._lines[HOUSE]:
            result[HOUSE] = house
        return result

    def fees(self) -> dict[str, Decimal]:
        """Fees by agent in quote (base-currency fees at fill price, other currencies not counted)."""
        return {agent: sum((line.fees for line in lines.values()), ZERO) for agent, lines in self._lines.items() if agent != HOUSE}

    def bought(self) -> dict[str, Decimal]:
        """Quote value of what was bought on the venue for each agent; sells and what crossed inside are not in it."""
        return {agent: sum((line.bought for line in self._lines[agent].values()), ZERO) for agent in ORDER}

    def spent(self, marks: Mapping[Symbol, Decimal]) -> dict[str, Decimal]:
        """Fees of own fills by agent in quote, the house's too: base at the fill's price, third currencies at `marks` (0 without one)."""
        with localcontext(_EXACT):
            return {agent: sum((self._spent(s, line, marks) for s, line in lines.items()), ZERO) for agent, lines in self._lines.items()}

    def costs(self, marks: Mapping[Symbol, Decimal]) -> dict[str, Decimal]:
        """Fees (as in `spent`) and slippage by agent in quote, the house named where it paid any; they sum to `account_cost`."""
        with localcontext(_EXACT):
            slipped = {agent: sum((line.slippage for line in lines.values()), ZERO) for agent, lines in self._lines.items()}
            costs = {agent: fees + slipped[agent] for agent, fees in self.spent(marks).items()}
        return {agent: cost for agent, cost in costs.items() if agent != HOUSE or cost}

    def account_cost(self, marks: Mapping[Symbol, Decimal]) -> Decimal:
        """Fees and slippage of all fills as the account paid them, summed apart from the agents' parts."""
        with localcontext(_EXACT):
            return self._fees + self._slipped + self._worth(self._foreign, marks)

    def weights(self, symbols: Sequence[Symbol], marks: Mapping[Symbol, Decimal], equity: Decimal) -> dict[str, Floats]:
        """What each sub-account holds in fractions of equity, float64 [symbols]; a symbol without a mark is 0. The house only if it holds."""
        rows = {
            agent: np.array([float(self.position(agent, s) * marks[s] / equity) if s in marks else 0.0 for s in symbols], dtype=np.float64)
            for agent in (*ORDER, HOUSE)
        }
        return {agent: row for agent, row in rows.items() if agent != HOUSE or row.any()}

    def risk(self, symbols: Sequence[Symbol], marks: Mapping[Symbol, Decimal], equity: Decimal, covariance: Floats) -> dict[str, float]:
        """Each agent's part of the book's volatility, in the unit of `covariance` [symbols, symbols] (annualised: a fraction a year).

        The parts sum to the account's `sqrt(w' Sigma w)`; one may be negative, where an agent hedges the others. See `euler`.
        """
        return euler(self.weights(symbols, marks, equity), covariance)

    def differences(self, ledger: Ledger, marks: Mapping[Symbol, Decimal], covariance: Floats | None = None) -> dict[str, Decimal]:
        """What the sub-accounts' sums and the account's own figures differ by: all 0 but for the last digits of a division.

        `pnl` against the ledger's equity less its capital and `costs` against whole fills, in quote; `fees` against the ledger's own by
        currency and `positions` in base units, the largest; `risk`, a fraction, against the volatility of the ledger's positions under
        `covariance` ([listed symbols of `marks`] squared; without one independent and 100 %). Raises KeyError for a position without a
        mark.
        """
        symbols = [symbol for symbol in marks if symbol in ledger.instruments]
        equity = ledger.equity(marks)
        with localcontext(_EXACT):
            pnl = sum(self.pnl(marks).values(), ZERO) - (equity - ledger.capital)
            costs = sum(self.costs(marks).values(), ZERO) - self.account_cost(marks)
            fees = [abs(self._paid_in(currency) - fee) for currency, fee in ledger.fees.items()]
            owned = [sum((self.position(agent, s) for agent in (*ORDER, HOUSE)), ZERO) - ledger.position(s) for s in symbols]
        risk = ZERO
        if equity > 0 and symbols:
            matrix = np.eye(len(symbols)) if covariance is None else covariance
            book = np.array([float(ledger.position(s) * marks[s] / equity) for s in symbols])
            parts = sum(self.risk(symbols, marks, equity, matrix).values())
            risk = Decimal(repr(parts - volatility(book, matrix)))
        return {"pnl": pnl, "costs": costs, "fees": max(fees, default=ZERO), "positions": max(map(abs, owned), default=ZERO), "risk": risk}

    def foreign_value(self, line: Line, marks: Mapping[Symbol, Decimal]) -> Decimal:
        """What fees in third currencies are worth in quote; 0 for a currency without a mark, as in the ledger."""
        return self._worth(line.foreign, marks)

    def _worth(self, fees: Mapping[Currency, Decimal], marks: Mapping[Symbol, Decimal]) -> Decimal:
        return sum((fee * marks.get(Symbol(f"{currency}/{self.quote}"), ZERO) for currency, fee in fees.items()), ZERO)

    def _spent(self, symbol: Symbol, line: Line, marks: Mapping[Symbol, Decimal]) -> Decimal:
        own = (self.quote, symbol.split("/")[0])
        return line.fees + self._worth({currency: fee for currency, fee in line.paid.items() if currency not in own}, marks)

    def _paid_in(self, currency: Currency) -> Decimal:
        return sum((line.paid.get(currency, ZERO) for lines in self._lines.values() for line in lines.values()), ZERO)

    # -- bookings --------------------------------------------------------------------------------------------------

    def _line(self, agent: str, symbol: Symbol) -> Line:
        return self._lines[agent].setdefault(symbol, Line())

    def _value(self, symbol: Symbol, line: Line, marks: Mapping[Symbol, Decimal]) -> Decimal:
        held = line.quantity * marks[symbol] if line.quantity else ZERO
        return line.cash + held - self.foreign_value(line, marks)

    def _holders(self, symbol: Symbol, side: Side) -> list[tuple[str, Decimal]]:
        held = [(agent, -side.value * self.position(agent, symbol)) for agent in (*ORDER, HOUSE)]
        return [(agent, q) for agent, q in held if q > 0] or [(HOUSE, Decimal(1))]

    def _book(self, fill: Fill, along: list[tuple[str, Decimal]], reference: Decimal) -> None:
        base = fill.symbol.split("/")[0]
        quantities, fees = _split(fill.quantity, along), _split(fill.fee, along)
        lost = fill.side.value * (fill.price - reference)
        self._slipped += lost * fill.quantity
        if fill.fee_currency in (self.quote, base):
            self._fees += fill.fee if fill.fee_currency == self.quote else fill.fee * fill.price
        else:
            self._foreign[fill.fee_currency] = self._foreign.get(fill.fee_currency, ZERO) + fill.fee
        for agent, quantity in quantities.items():
            line, fee = self._line(agent, fill.symbol), fees[agent]
            line.trade(fill.side.value * quantity, fill.price)
            line.slippage += lost * quantity
            line.bought += quantity * fill.price if fill.side is Side.BUY else ZERO
            line.paid[fill.fee_currency] = line.paid.get(fill.fee_currency, ZERO) + fee
            if fill.fee_currency == self.quote:
                line.cash -= fee
                line.fees += fee
            elif fill.fee_currency == base:
                line.quantity -= fee
                line.fees += fee * fill.price
            elif fee:
                line.foreign[fill.fee_currency] = line.foreign.get(fill.fee_currency, ZERO) + fee

    def _cross(
        self, symbol: Symbol, along: list[tuple[str, Decimal]], against: list[tuple[str, Decimal]], quantity: Decimal, mid: Decimal
    ) -> dict[str, Decimal]:
        moved: dict[str, Decimal] = {}
        if quantity:
            for agents, sign in ((along, 1), (against, -1)):
                for agent, part in _split(quantity, agents).items():
                    self._line(agent, symbol).trade(sign * part, mid)
                    moved[agent] = sign * part
        return moved


def _split(total: Decimal, weights: list[tuple[str, Decimal]]) -> dict[str, Decimal]:
    """Parts of `total` in proportion to positive weights; they add up exactly, the last takes the remainder."""
    whole, rest, parts = sum((w for _, w in weights), ZERO), total, dict[str, Decimal]()
    for agent, weight in weights[:-1]:
        part = (total * weight / whole).quantize(_GRID)
        parts[agent] = parts.get(agent, ZERO) + part
        rest -= part
    last = weights[-1][0]
    parts[last] = parts.get(last, ZERO) + rest
    return parts


def volatility(weights: Floats, covariance: Floats) -> float:
    """`sqrt(w' Sigma w)`; 0 where a covariance that is not quite positive makes it less."""
    return sqrt(max(float(weights @ covariance @ weights), 0.0))


def euler(weights: Mapping[str, Floats], covariance: Floats) -> dict[str, float]:
    """Each holder's part of the volatility of the sum of all weights: `w_a' Sigma w / sqrt(w' Sigma w)`, 0 for a book without risk.

    Volatility is homogeneous of degree 1, so by Euler's theorem the parts sum to it, and the part is the holder's share of the
    marginal risk (Tasche 1999, "Risk contributions and performance measurement"). Weights float64 [n] by holder, covariance [n, n].
    """
    book = np.sum(list(weights.values()), axis=0)
    total = volatility(book, covariance)
    return {holder: float(row @ covariance @ book) / total if total > 0.0 else 0.0 for holder, row in weights.items()}


def check_sums(attribution: Attribution, ledger: Ledger, marks: Mapping[Symbol, Decimal], covariance: Floats | None = None) -> Decimal:
    """The largest of `Attribution.differences` in size: every backtest reports it."""
    return max(abs(difference) for difference in attribution.differences(ledger, marks, covariance).values())
