"""Who earned what: a virtual sub-account per agent. Exact Decimal, so that the sub-accounts always add up to the account.

A fill belongs to the agents that wished in its direction, pro rata, with its fee; agents that wished the other way trade with them
inside, at the mid and without cost. The market maker owns its own fills. What nobody wished for (positions carried over from
an earlier session, trades without shares) stands in the house account, which always wishes to be flat.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext

from agents.core.events import Adjustment, AdjustmentKind, Fill
from agents.core.instruments import ZERO, Currency, Side, Symbol
from agents.desk.wishes import MARKET_MAKING, ORDER

HOUSE = "house"
Shares = Iterable[tuple[str, float]]

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

    # -- facts -----------------------------------------------------------------------------------------------------

    def carry(self, adjustment: Adjustment) -> None:
        """What an earlier session left belongs to the house; other kinds of adjustment are nobody's trade."""
        if adjustment.kind is not AdjustmentKind.CARRIED:
            return
        if adjustment.currency == self.quote:
            self._carried += adjustment.amount
        else:
            self._line(HOUSE, Symbol(f"{adjustment.currency}/{self.quote}")).quantity += adjustment.amount

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
            self._book(fill, along)

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

    def foreign_value(self, line: Line, marks: Mapping[Symbol, Decimal]) -> Decimal:
        """What fees in third currencies are worth in quote; 0 for a currency without a mark, as in the ledger."""
        return sum((fee * marks.get(Symbol(f"{c}/{self.quote}"), ZERO) for c, fee in line.foreign.items()), ZERO)

    # -- bookings --------------------------------------------------------------------------------------------------

    def _line(self, agent: str, symbol: Symbol) -> Line:
        return self._lines[agent].setdefault(symbol, Line())

    def _value(self, symbol: Symbol, line: Line, marks: Mapping[Symbol, Decimal]) -> Decimal:
        held = line.quantity * marks[symbol] if line.quantity else ZERO
        return line.cash + held - self.foreign_value(line, marks)

    def _holders(self, symbol: Symbol, side: Side) -> list[tuple[str, Decimal]]:
        held = [(agent, -side.value * self.position(agent, symbol)) for agent in (*ORDER, HOUSE)]
        return [(agent, q) for agent, q in held if q > 0] or [(HOUSE, Decimal(1))]

    def _book(self, fill: Fill, along: list[tuple[str, Decimal]]) -> None:
        base = fill.symbol.split("/")[0]
        quantities, fees = _split(fill.quantity, along), _split(fill.fee, along)
        for agent, quantity in quantities.items():
            line, fee = self._line(agent, fill.symbol), fees[agent]
            line.trade(fill.side.value * quantity, fill.price)
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
