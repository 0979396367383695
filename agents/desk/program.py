"""The convex program inside the projection: arrays in, arrays and dual values out; it knows no market.

    minimise   sum_i D_i (w_i - w*_i)^2 / 2 + c_i |w_i - p_i|  +  sum_i Q_i (b_i - b*_i)^2 / 2
    subject to 0 <= w_i <= ceiling_i,  0 <= b_i <= b*_i                       (wishes already cut to >= 0)
               w_i <= what the program without joint limits answers
               u_i - h_i <= max(cap_i - h_i, 0), liquidity_i                  u = max(w, h) + b, one symbol
               sum u <= total,  sum_{i in g} u_i <= K_g                       whole book, each cluster
               sum of the n largest u <= top,  ||u|| <= norm                  concentration
               CVaR(x) <= C,  z ||L'x|| - mu'x <= V                           for x = u, w and w + b
               sum (u - h) <= turnover,  sum fee_i (u_i - h_i) <= fees        reductions are exempt

`w` target weights, `b` bid sizes, `p` held weights, `h >= p` held weights plus buys that can still fill and are not quotes; `u` is
the book with all of them and all bids filled. A sell that has not filled yet frees no room for a buy: the book is safe in whatever
order the orders fill. A limit that `h` alone breaks lets nothing rise that counts in it, and holds for `w` instead: 0 and every
reduction stay feasible and no increase is. The second line lets no limit on the tail buy, or keep, a hedge that nobody wants; for
all other limits it is implied. Asks are cut last, by one factor, until the book with all asks filled is as safe.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

import numpy as np

from agents.desk import cones
from agents.desk.question import (
    FILLED,
    QUOTED,
    REACHED,
    TOTAL,
    TURNOVER,
    Frame,
    Joint,
    Question,
    norm,
    objective,
    top_sum,
    violation,
)
from agents.desk.tail import Floats

__all__ = [
    "SHORTCUT",
    "CLARABEL",
    "FALLBACK",
    "FEASIBLE",
    "Question",
    "Joint",
    "Answer",
    "Floats",
    "minimise",
    "objective",
    "violation",
]

SHORTCUT, CLARABEL, FALLBACK = "shortcut", "clarabel", "fallback"

FEASIBLE = 1e-9
"""Violation of a joint bound that is a rounding error and not a breach, in fractions of equity."""
SOLVED = 1e-6
"""Largest violation that is repaired after the solver (its own tolerance is 1e-8); beyond it the answer is not believed."""
REPAIRS = 4


@dataclass(frozen=True, slots=True)
class Answer:
    """Weights and bids of shape [n], and dual values: what one more unit of a bound would lower the objective by."""

    weights: Floats
    bids: Floats
    solver: str
    ceiling_price: Floats
    cap_price: Floats
    bid_price: Floats
    prices: Mapping[str, float] = field(default_factory=dict)
    """Of the limits on the whole book, by name."""
    kept: tuple[str | None, ...] = ()
    """The limit that lowers a symbol's room below its own box, if any."""
    asks: Floats = field(default_factory=lambda: np.empty(0))

    @property
    def total_price(self) -> float:
        return self.prices.get(TOTAL, 0.0)

    @property
    def turnover_price(self) -> float:
        return self.prices.get(TURNOVER, 0.0)


def minimise(question: Question) -> Answer:
    """The exact minimiser where no joint bound binds (shortcut), else Clarabel's, else the proportional shrink.

    The shortcut is exact: without joint rows the objective falls apart into one-dimensional convex functions, whose minimiser
    over a box is the clipped soft threshold; where it satisfies the joint rows too, it is the minimiser of the whole program.
    """
    frame = Frame(question)
    if frame.violation(frame.desired, frame.bid_room) <= FEASIBLE:
        answer = _answer(frame, frame.desired, frame.bid_room, SHORTCUT)
    else:
        answer = _solve(question, frame) or shrink(question, frame)
    return answer


def _answer(frame: Frame, weights: Floats, bids: Floats, solver: str, found: cones.Solved | None = None) -> Answer:
    q = frame.question
    ceiling, bid, room, prices = _ceiling_price(frame), q.quote_tracking * (q.bids - frame.bid_room), np.zeros(len(weights)), {}
    if solver == FALLBACK:
        ceiling, bid = np.zeros(len(weights)), np.zeros(len(weights))
    if found is not None:
        solved = frame.desired > 0
        ceiling = np.where(solved, np.where(ceiling > 0, found.upper, 0.0), ceiling)
        bid, room, prices = bid + found.bid, found.room, found.prices
    asks = np.zeros(len(weights)) if q.asks is None else q.asks * ask_share(frame, weights)
    return Answer(weights, bids, solver, ceiling, room, bid, prices, tuple(frame.kept), asks)


def _ceiling_price(frame: Frame) -> Floats:
    """Minus the right derivative of the objective at the bound, where the bound holds the weight down."""
    q, room = frame.question, frame.weight_room
    return np.maximum(q.tracking * (q.wish - room) - np.where(room >= q.held, q.cost, -q.cost), 0.0)


def ask_share(frame: Frame, weights: Floats) -> float:
    """Largest factor in [0, 1] found for the asks at which the book with all of them filled, now or after the target, is safe."""
    q = frame.question
    if q.asks is None or not q.asks.any():
        return 1.0
    asks, reach = q.asks, np.maximum(q.held, weights)
    found = [(m, limit, max(limit, m.value(q.held))) for m, limit in frame.measures() if float(m.alone @ reach) > limit]

    def safe(share: float) -> bool:
        now, later = q.held - share * asks, np.maximum(weights - share * asks, 0.0)
        return all(m.value(now) <= before + FEASIBLE and m.value(later) <= limit + FEASIBLE for m, limit, before in found)

    if not found or safe(1.0):
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if safe(middle) else (low, middle)
    return low


def _solve(question: Question, frame: Frame | None = None) -> Answer | None:
    """Clarabel's answer, repaired; None if it fails or if there is more to repair than rounding."""
    frame = frame or Frame(question)
    found = cones.solve(frame)
    if found is None:
        return None
    repaired = _repair(frame, found.weights, found.bids)
    return None if repaired is None else _answer(frame, *repaired, CLARABEL, found)


def shrink(question: Question, frame: Frame | None = None) -> Answer:
    """Largest multiple in [0, 1] of the wish, cut to its boxes, that is feasible. Needs no solver and always has an answer."""
    frame = frame or Frame(question)
    weights, bids = np.clip(question.wish, 0.0, frame.weight_room), frame.bid_room
    low, high = 0.0, 1.0
    if frame.violation(weights, bids) > 0:
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if frame.violation(middle * weights, middle * bids) <= 0 else (low, middle)
    else:
        low = 1.0
    return _answer(frame, low * weights, low * bids, FALLBACK)


# -- repair --------------------------------------------------------------------------------------------------------


def _repair(frame: Frame, weights: Floats, bids: Floats) -> tuple[Floats, Floats] | None:
    """Remove the solver's last 1e-8: clip to the boxes, then scale what rises. None if there is more to it than rounding."""
    q = frame.question
    if np.concatenate([weights - frame.desired, bids - frame.bid_room, -weights, -bids]).max() > SOLVED:
        return None
    weights = np.clip(np.where(weights < SOLVED, 0.0, weights), 0.0, frame.desired)  # an interior point is never quite 0
    bids = np.clip(bids, 0.0, frame.bid_room)
    for _ in range(REPAIRS):
        bids = np.minimum(bids, np.maximum(frame.rise_room - np.maximum(weights - q.committed, 0.0), 0.0))
        if frame.violation(weights, bids) <= FEASIBLE:
            return weights, bids
        weights = weights * _reach(frame, REACHED, np.zeros_like(weights), weights)
        if not frame.breaches:
            share = _reach(frame, FILLED, q.committed, np.maximum(weights, q.committed) + bids)
            weights = np.minimum(weights, q.committed) + np.maximum(weights - q.committed, 0.0) * share
            bids = bids * share
            bids = bids * _reach(frame, QUOTED, weights, weights + bids)
    return None


def _reach(frame: Frame, book: str, start: Floats, end: Floats) -> float:
    """How far one may go from a safe book towards another, in [0, 1]: the chord of a convex measure bounds it from above."""
    j, main = frame.question.joint, REACHED if frame.breaches else FILLED
    lines = [line for line in frame.lines if line.book == book]
    found = [(line.bound, float(line.coefficients @ start), float(line.coefficients @ end)) for line in lines]
    if book == main and j.norm < inf:
        found.append((j.norm, norm(start), norm(end)))
    if book == main and j.top < inf:
        found.append((j.top, top_sum(start, j.top_count), top_sum(end, j.top_count)))
    found += [(limit, measure.value(start), measure.value(end)) for measure, limit in frame.measures()]
    shares = [(limit - low) / (high - low) for limit, low, high in found if high > limit + FEASIBLE / 2 and high > low]
    return max(min([1.0, *shares]), 0.0)
