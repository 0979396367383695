"""From what the agents want to what is safe: the only door through which a target reaches the planner.

Every symbol that is wished for, held or working takes part. Exposure counts positions and whatever orders may still fill; the
numbers leave Decimal here, once. Nothing in this file can raise a limit: multipliers, the drawdown ladder and distrust of a
symbol's data only lower them.
"""

from collections.abc import Mapping
from dataclasses import InitVar, dataclass, replace
from decimal import Decimal
from math import inf, isfinite, sqrt

import numpy as np

from agents.core.instruments import ZERO, Side, Symbol
from agents.core.ledger import Ledger
from agents.core.orders import OrderState
from agents.desk.clusters import effective_bets
from agents.desk.gate import is_quote, known_mark
from agents.desk.limits import FLATTEN, NO_NEW_RISK, REDUCE, RUNGS, Limits, RiskState
from agents.desk.program import Answer, Floats, Joint, Question, minimise, objective
from agents.desk.question import CVAR, HERFINDAHL, TOTAL, VAR
from agents.desk.risk_model import Measures
from agents.desk.wishes import Quotes, Style, Target
from agents.market.state import MarketState

BINDS = 1e-9
"""Dual values below this are solver noise."""
HOLD = "hold"
"""The solver's name in a safe target that was not computed because the account cannot be valued."""
DRAWDOWN = "drawdown"
_SEAL = object()


@dataclass(frozen=True, slots=True)
class Bound:
    """A limit that holds the wish back; `price` is how far one more unit of it would lower the objective."""

    name: str
    symbol: Symbol | None
    price: float


@dataclass(frozen=True, slots=True)
class SafeTarget:
    """A target that passed the projection. Only `project` can make one: `plan` takes nothing else."""

    time: int
    weights: dict[Symbol, float]
    """Weight of every symbol wished for, held or working; in [0, position cap]. Empty where the account cannot be valued."""
    quotes: dict[Symbol, Quotes]
    styles: dict[Symbol, Style]
    contributions: dict[Symbol, dict[str, float]]
    bound: tuple[Bound, ...]
    solver: str
    rung: str
    reasons: dict[Symbol, str]
    """Why a symbol may take no new risk: its weight may only fall."""
    equity: Decimal
    """Marked equity in quote currency; 0 where it cannot be known."""
    marks: dict[Symbol, Decimal]
    total: float
    """Bound on the sum of all weights and bids after multiplier and ladder."""
    objective: float
    risk: dict[str, float]
    """What the safe weights come to, of a day and of equity: cvar, var, herfindahl, effective_bets; as far as it is measured."""
    seal: InitVar[object]

    def __post_init__(self, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("a SafeTarget is made by project() and nowhere else")

    @property
    def no_new_risk(self) -> frozenset[Symbol]:
        """Symbols whose weight may only fall."""
        return frozenset(self.reasons)


def project(target: Target, market: MarketState, ledger: Ledger, limits: Limits, state: RiskState) -> SafeTarget:
    """The feasible weights and bids nearest to the wish, net of the cost of getting there; see `agents.desk.program`.

    A wish that is not finite, a position without a mark or an equity that is not positive never makes an order: the symbol, or
    the whole book, may then only be held or reduced, with the reason in `reasons`. Takes the marked equity to `state` first, so
    that no target is made without the drawdown ladder.
    """
    symbols = _symbols(target, ledger)
    marks = {symbol: mark for symbol in symbols if (mark := known_mark(market, symbol)) is not None}
    equity = _equity(ledger, marks)
    if equity is not None:
        state.mark(float(equity), float(ledger.capital), limits)
    reasons = {symbol: reason for symbol in symbols if (reason := _distrust(symbol, target, market, ledger, marks, state))}
    if equity is None:
        return SafeTarget(
            target.time, {}, {}, {}, {}, (), HOLD, state.rung, {s: reasons.get(s, "equity_unknown") for s in symbols},
            ZERO, marks, 0.0, 0.0, {}, _SEAL,
        )  # fmt: skip
    total, total_name = _total(target, limits, state)
    measures = state.model.measures(market, symbols, limits.risk_params())
    question = _question(symbols, target, market, ledger, limits, state, marks, equity, reasons, total)
    question = replace(question, joint=_joint(target, question, symbols, ledger, limits, state, measures))
    answer = minimise(question)
    weights = {symbol: float(weight) for symbol, weight in zip(symbols, answer.weights, strict=True)}
    return SafeTarget(
        target.time,
        weights,
        _quotes(symbols, target, answer, reasons, state),
        {symbol: _plain(target.styles.get(symbol, Style())) for symbol in symbols if reasons.get(symbol) != "not_finite"},
        {symbol: parts for symbol in symbols if (parts := _parts(target.contributions.get(symbol, {})))},
        _bounds(symbols, target, question, answer, reasons, total_name, limits),
        answer.solver,
        state.rung,
        reasons,
        equity,
        marks,
        total,
        objective(question, answer.weights, answer.bids),
        _measured(answer.weights, measures),
        _SEAL,
    )


def _symbols(target: Target, ledger: Ledger) -> list[Symbol]:
    """In the order of the target, then what is held or working besides, by name: the order is part of the answer."""
    more = {*target.quotes, *ledger.symbols(), *(order.place.symbol for order in ledger.live_orders())}
    return [*target.weights, *sorted(more.difference(target.weights))]


def _equity(ledger: Ledger, marks: Mapping[Symbol, Decimal]) -> Decimal | None:
    try:
        equity = ledger.equity(marks)
    except KeyError:  # a position without a mark: an unknown price is not zero
        return None
    return equity if equity.is_finite() and equity > 0 else None


def _distrust(symbol: Symbol, target: Target, market: MarketState, ledger: Ledger, marks: Mapping[Symbol, Decimal],
              state: RiskState) -> str:  # fmt: skip
    """Why this symbol may take no new risk, or an empty text."""
    if symbol not in ledger.instruments:
        reason = "not_listed"
    elif symbol not in target.weights or symbol not in market.symbols:
        reason = "not_wished"
    elif not _finite(symbol, target):
        reason = "not_finite"
    elif symbol not in marks:
        reason = "no_mark"
    elif state.halted:
        reason = "halted"
    elif not state.reconciled or symbol in state.unreconciled:
        reason = "unreconciled"
    else:
        reason = market.trouble(symbol) or (DRAWDOWN if RUNGS.index(state.rung) >= RUNGS.index(NO_NEW_RISK) else "")
    return reason


def _finite(symbol: Symbol, target: Target) -> bool:
    numbers = [target.weights[symbol], target.gross_multiplier, target.budget_multiplier]
    if (quotes := target.quotes.get(symbol)) is not None:
        numbers += [quotes.bid_offset, quotes.ask_offset, quotes.bid_size, quotes.ask_size]
    if (style := target.styles.get(symbol)) is not None:
        numbers += [style.urgency, style.offset, style.participation]
    return all(isfinite(number) for number in numbers)


def _plain(style: Style) -> Style:
    """Python floats only: their repr is what becomes Decimal in the planner."""
    return Style(float(style.urgency), float(style.offset), float(style.participation))


def _parts(contributions: Mapping[str, float]) -> dict[str, float]:
    """Who wished for what, in Python floats; nobody where a number is none."""
    parts = {agent: float(part) for agent, part in contributions.items()}
    return parts if all(map(isfinite, parts.values())) else {}


def _tightened(multiplier: float) -> float:
    """A multiplier of a limit, in [0, 1]: it can only tighten. One that is no number stops all new risk elsewhere (`not_finite`)."""
    return min(max(multiplier, 0.0), 1.0) if isfinite(multiplier) else 1.0


def _total(target: Target, limits: Limits, state: RiskState) -> tuple[float, str]:
    """The tightest bound on the sum of weights and its name. On spot gross, net and cash bound the same sum."""
    multiplier = _tightened(target.gross_multiplier)
    if state.rung == REDUCE:
        multiplier *= limits.reduced_gross
    elif state.rung == FLATTEN:
        multiplier = 0.0
    bounds = ((1 - limits.cash_buffer, "cash_buffer"), (limits.gross * multiplier, "gross"), (limits.net, "net"))
    return min(bounds, key=lambda bound: bound[0])


def _question(symbols: list[Symbol], target: Target, market: MarketState, ledger: Ledger, limits: Limits, state: RiskState,
              marks: Mapping[Symbol, Decimal], equity: Decimal, reasons: Mapping[Symbol, str], total: float) -> Question:  # fmt: skip
    size, worth = len(symbols), float(equity)
    wish, held, committed, bids, asks = (np.zeros(size) for _ in range(5))
    for row, symbol in enumerate(symbols):
        mark = marks.get(symbol, ZERO)
        held[row] = max(float(ledger.position(symbol) * mark) / worth, 0.0)
        committed[row] = held[row] + float(_standing_buys(ledger, symbol, mark)) / worth
        if reasons.get(symbol) in ("not_listed", "not_wished", "not_finite", "no_mark"):
            wish[row] = held[row]
            continue
        wish[row] = max(target.weights[symbol], 0.0)
        if (quotes := target.quotes.get(symbol)) is not None:
            asks[row] = min(max(quotes.ask_size, 0.0), held[row])
            bids[row] = max(quotes.bid_size, 0.0) if symbol not in reasons else 0.0
    cap = np.full(size, 0.0 if state.rung == FLATTEN else limits.position_cap)
    closed = np.array([symbol in reasons for symbol in symbols], dtype=bool)
    return Question(
        wish, held, committed, cap, np.where(closed, np.minimum(cap, held), cap), bids,
        _costs(symbols, ledger, limits), np.full(size, limits.tracking), np.full(size, limits.quote_tracking),
        total, _left(limits.turnover_day, state.turnover_day), _liquidity(symbols, market, limits, marks, worth), asks,
    )  # fmt: skip


def _left(budget: float, used: float) -> float:
    """What is left of a day's budget; nothing where it is not known what was used. Rebates earned do not widen it."""
    return max(budget - max(used, 0.0), 0.0) if isfinite(used) else 0.0


def _liquidity(
    symbols: list[Symbol], market: MarketState, limits: Limits, marks: Mapping[Symbol, Decimal], equity: float
) -> Floats | None:
    """Largest rise of each weight that displayed depth and traded volume bear, or None without such limits."""
    if limits.liquidity_depth is None and limits.liquidity_volume is None:
        return None
    room = np.full(len(symbols), np.inf)
    for row, symbol in enumerate(symbols):
        if symbol not in marks or symbol not in market.symbols:
            continue
        mark, asks, hours = float(marks[symbol]), market.book(symbol).asks, market.bars(symbol)["1h"]
        if limits.liquidity_depth is not None and asks:
            room[row] = limits.liquidity_depth * float(sum(quantity for _, quantity in asks)) * mark / equity
        if limits.liquidity_volume is not None and len(hours):
            room[row] = min(room[row], limits.liquidity_volume * float(hours.volume[-24:].sum()) * mark / equity)
    return room


def _joint(target: Target, question: Question, symbols: list[Symbol], ledger: Ledger, limits: Limits, state: RiskState,
           measures: Measures) -> Joint:  # fmt: skip
    """The limits of the whole book; the risk agent's second multiplier tightens the tail's and the clusters'."""
    budget = _tightened(target.budget_multiplier)
    fee = None
    if limits.fees_day is not None:
        fee = np.array([max(float(ledger.instruments[s].taker_fee), 0.0) if s in ledger.instruments else 0.0 for s in symbols])
    return Joint(
        groups=measures.groups,
        group_cap=inf if limits.cluster_cap is None else limits.cluster_cap * budget,
        norm=inf if limits.herfindahl is None else sqrt(limits.herfindahl) * limits.gross,
        top_count=limits.top_count,
        top=inf if limits.top_cap is None else limits.top_cap,
        tail=measures.tail,
        tail_limit=inf if limits.cvar is None else limits.cvar * budget,
        quantile=measures.quantile,
        quantile_limit=inf if limits.var is None else limits.var,
        fee=fee,
        fees=inf if limits.fees_day is None else _left(limits.fees_day, state.fees_day),
    )


def _measured(weights: Floats, measures: Measures) -> dict[str, float]:
    found: dict[str, float] = {}
    if measures.tail is not None:
        found[CVAR] = measures.tail.value(weights)
    if measures.quantile is not None:
        found[VAR] = measures.quantile.value(weights)
    if measures.covariance is not None:
        found["effective_bets"] = effective_bets(weights, measures.covariance)
    return {**found, HERFINDAHL: float(weights @ weights)} if found else {}


def _costs(symbols: list[Symbol], ledger: Ledger, limits: Limits) -> Floats:
    """What one unit of weight costs to trade, by symbol: as configured, else the market's taker fee; a rebate counts as free."""
    if limits.turnover_cost_bps is not None:
        return np.full(len(symbols), limits.turnover_cost_bps * 1e-4)
    listed = ledger.instruments
    return np.array([max(float(listed[s].taker_fee), 0.0) if s in listed else 0.0 for s in symbols])


def _standing_buys(ledger: Ledger, symbol: Symbol, mark: Decimal) -> Decimal:
    """Quote value of buys that may still fill. Open quotes are left out: the new bids stand in their place."""
    value = ZERO
    for order in ledger.live_orders(symbol):
        place = order.place
        if place.side is Side.BUY and not (is_quote(place) and order.state in (OrderState.OPEN, OrderState.PARTIAL)):
            value += order.remaining * max(mark, place.price or mark)
    return value


def _quotes(symbols: list[Symbol], target: Target, answer: Answer, reasons: Mapping[Symbol, str],
            state: RiskState) -> dict[Symbol, Quotes]:  # fmt: skip
    """Bids as solved, asks from inventory owned: with all asks filled the weight is still at least 0.

    A distrusted symbol is not quoted at all; on the drawdown ladder the ask stays, for it only reduces.
    """
    result: dict[Symbol, Quotes] = {}
    for row, symbol in enumerate(symbols):
        quotes = target.quotes.get(symbol)
        if quotes is None or reasons.get(symbol, DRAWDOWN) != DRAWDOWN or state.rung == FLATTEN:
            continue
        result[symbol] = Quotes(
            float(quotes.bid_offset), float(quotes.ask_offset), float(answer.bids[row]), float(answer.asks[row])
        )
    return result


def _bounds(symbols: list[Symbol], target: Target, question: Question, answer: Answer, reasons: Mapping[Symbol, str],
            total_name: str, limits: Limits) -> tuple[Bound, ...]:  # fmt: skip
    """Dual values by limit, each symbol's own first. `long_only` is priced at what a negative wish was cut by."""
    found: dict[tuple[str, Symbol | None], float] = {}

    def add(name: str, symbol: Symbol | None, price: float) -> None:
        if price > BINDS:
            name = total_name if name == TOTAL else name
            found[name, symbol] = found.get((name, symbol), 0.0) + price

    for row, symbol in enumerate(symbols):
        box = "no_new_risk" if symbol in reasons else "position_cap"
        kept = answer.kept[row] or box
        add(kept, symbol, float(answer.ceiling_price[row]))
        add(kept, symbol, float(answer.cap_price[row]))
        add(kept, symbol, float(answer.bid_price[row]))
        weight = target.weights.get(symbol, 0.0)
        add("long_only", symbol, -weight * float(question.tracking[row]) if isfinite(weight) else 0.0)
    for name, price in answer.prices.items():
        if name == HERFINDAHL and question.joint.norm:
            price *= limits.gross**2 / (2 * question.joint.norm)  # the program bounds sqrt(H) G, and this is its slope in H
        add(name, None, price)
    return tuple(Bound(name, symbol, price) for (name, symbol), price in found.items())
