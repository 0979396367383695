"""The convex program inside the projection: arrays in, arrays and dual values out; it knows no market.

    minimise   sum_i D_i (w_i - w*_i)^2 / 2 + c_i |w_i - p_i|  +  sum_i Q_i (b_i - b*_i)^2 / 2
    subject to 0 <= w_i <= ceiling_i,  0 <= b_i <= b*_i                       (wishes already cut to >= 0)
               w_i + b_i <= max(cap_i, h_i),  h_i + b_i <= max(cap_i, h_i)    all bids filled, one symbol
               sum max(w_i, h_i) + b_i <= max(total, sum h)                   all bids filled, whole book
               sum w_i <= total
               sum max(w_i - h_i, 0) + b_i <= turnover                        reductions are exempt

`w` target weights, `b` bid sizes, `p` held weights, `h >= p` held weights plus buys that can still fill and are not quotes. A
sell that has not filled yet frees no room for a buy: the book is safe in whatever order the orders fill. With everything
filled a breached bound falls back to what is held, so that 0 and every reduction stay feasible and no increase is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import clarabel
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

SHORTCUT, CLARABEL, FALLBACK = "shortcut", "clarabel", "fallback"

FEASIBLE = 1e-9
"""Violation of a joint bound that is a rounding error and not a breach, in fractions of equity."""
SOLVED = 1e-6
"""Largest violation that is repaired after the solver (its own tolerance is 1e-8); beyond it the answer is not believed."""


@dataclass(frozen=True, slots=True)
class Question:
    """One projection in numbers: float64 arrays of shape [n], all finite, weights in fractions of equity."""

    wish: Floats
    held: Floats
    committed: Floats
    """h: held plus buys that may still fill; at least `held`."""
    cap: Floats
    ceiling: Floats
    """Upper bound of the weight: the cap, or less where no new risk is allowed."""
    bids: Floats
    """b*, already 0 where the symbol may not quote a bid."""
    cost: Floats
    tracking: Floats
    quote_tracking: Floats
    total: float
    turnover: float

    @property
    def breached(self) -> bool:
        """Whether what is committed already stands above the total: then nothing may rise."""
        return bool(self.committed.sum() > self.total)

    @property
    def bid_room(self) -> Floats:
        """Largest bid of each symbol that its own cap leaves, whatever the weights."""
        room: Floats = np.minimum(self.bids, np.maximum(self.cap - self.committed, 0.0))
        return np.zeros_like(room) if self.breached else room

    @property
    def weight_room(self) -> Floats:
        """Upper bound of each weight from its own box."""
        return np.minimum(self.ceiling, self.committed) if self.breached else self.ceiling


@dataclass(frozen=True, slots=True)
class Answer:
    """Weights and bids of shape [n], and dual values: what one more unit of a bound would lower the objective by."""

    weights: Floats
    bids: Floats
    solver: str
    ceiling_price: Floats
    cap_price: Floats
    bid_price: Floats
    total_price: float
    turnover_price: float


def objective(question: Question, weights: Floats, bids: Floats) -> float:
    """Value of the objective."""
    q = question
    distance = q.tracking * (weights - q.wish) ** 2 + q.quote_tracking * (bids - q.bids) ** 2
    return float((distance / 2 + q.cost * np.abs(weights - q.held)).sum())


def violation(question: Question, weights: Floats, bids: Floats) -> float:
    """Largest violation of any bound, in fractions of equity; at most 0 when feasible."""
    q = question
    rise = np.maximum(weights - q.committed, 0.0)
    committed = float(q.committed.sum())
    worst = max(
        float((weights - q.ceiling).max(initial=-np.inf)),
        float((-weights).max(initial=-np.inf)),
        float((bids - q.bid_room).max(initial=-np.inf)),
        float((-bids).max(initial=-np.inf)),
        float((weights + bids - np.maximum(q.cap, q.committed)).max(initial=-np.inf)),
        committed + float((rise + bids).sum()) - max(q.total, committed),
        float(weights.sum()) - q.total,
    )
    return max(worst, float((rise + bids).sum()) - q.turnover)


def minimise(question: Question) -> Answer:
    """The exact minimiser where no joint bound binds (shortcut), else Clarabel's, else the proportional shrink.

    The shortcut is exact: without joint rows the objective falls apart into one-dimensional convex functions, whose minimiser
    over a box is the clipped soft threshold; where it satisfies the joint rows too, it is the minimiser of the whole program.
    """
    weights, bids = _separable(question)
    if violation(question, weights, bids) <= FEASIBLE:
        none = np.zeros_like(weights)
        answer = Answer(weights, bids, SHORTCUT, _ceiling_price(question), none, _bid_price(question), 0.0, 0.0)
    else:
        answer = _solve(question) or shrink(question)
    return answer


def _separable(question: Question) -> tuple[Floats, Floats]:
    q = question
    step = q.wish - q.held
    free = q.held + np.sign(step) * np.maximum(np.abs(step) - q.cost / q.tracking, 0.0)
    return np.clip(free, 0.0, q.weight_room), q.bid_room


def _ceiling_price(question: Question) -> Floats:
    """Minus the right derivative of the objective at the bound, where the bound holds the weight down."""
    q = question
    room = q.weight_room
    return np.maximum(q.tracking * (q.wish - room) - np.where(room >= q.held, q.cost, -q.cost), 0.0)


def _bid_price(question: Question) -> Floats:
    return question.quote_tracking * (question.bids - question.bid_room)


def shrink(question: Question) -> Answer:
    """Largest multiple in [0, 1] of the wish, cut to its boxes, that is feasible. Needs no solver and always has an answer."""
    q = question
    weights = np.clip(q.wish, 0.0, q.weight_room)
    bids = q.bid_room
    low, high = 0.0, 1.0
    if violation(q, weights, bids) > 0:
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (middle, high) if violation(q, middle * weights, middle * bids) <= 0 else (low, middle)
    else:
        low = 1.0
    none = np.zeros_like(weights)
    return Answer(low * weights, low * bids, FALLBACK, none, none, none, 0.0, 0.0)


class _Rows:
    """Rows A x <= b in blocks, collected as triplets and handed over in one sparse matrix; later cones append below."""

    def __init__(self, width: int) -> None:
        self.width, self.height = width, 0
        self._row: list[Integers] = []
        self._column: list[Integers] = []
        self._value: list[Floats] = []
        self._bound: list[Floats] = []
        self._slices: dict[str, slice] = {}

    def each(self, name: str, terms: Sequence[tuple[Integers, float]], bound: Floats) -> None:
        """One row per entry of `bound`: the sum over terms of coefficient times x[columns[i]] is at most bound[i]."""
        rows = np.arange(self.height, self.height + len(bound))
        for columns, coefficient in terms:
            self._add(rows, columns, np.full(len(columns), coefficient))
        self._end(name, bound)

    def total(self, name: str, columns: Integers, bound: float) -> None:
        """One row: the sum of x[columns] is at most `bound`."""
        self._add(np.full(len(columns), self.height), columns, np.ones(len(columns)))
        self._end(name, np.array([bound]))

    def _add(self, rows: Integers, columns: Integers, values: Floats) -> None:
        self._row.append(rows)
        self._column.append(columns)
        self._value.append(values)

    def _end(self, name: str, bound: Floats) -> None:
        self._slices[name] = slice(self.height, self.height + len(bound))
        self._bound.append(bound)
        self.height += len(bound)

    def matrix(self) -> tuple[sparse.csc_matrix, Floats]:
        triplets = (np.concatenate(self._value), (np.concatenate(self._row), np.concatenate(self._column)))
        return sparse.csc_matrix(triplets, shape=(self.height, self.width)), np.concatenate(self._bound)

    def dual(self, name: str, z: Floats, size: int) -> Floats:
        return z[self._slices[name]] if name in self._slices else np.zeros(size)


def _settings() -> clarabel.DefaultSettings:
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.max_threads = 1  # bit-equal replays, and the other core belongs to the learner
    settings.max_iter = 60  # ten suffice; a program that needs more is not believed
    settings.tol_gap_abs = settings.tol_gap_rel = 1e-12  # the objective is flat: a gap of 1e-8 would be 1e-4 in a weight
    settings.presolve_enable = False  # it would drop rows with huge bounds and with them their dual values
    return settings


SETTINGS = _settings()


def _solve(question: Question) -> Answer | None:
    """Clarabel on columns [w, rise, b, t]: `rise` and `t` are the epigraphs of max(w - h, 0) and |w - p|. None if it fails."""
    q, n = question, len(question.wish)
    quoted = np.flatnonzero(q.bid_room > 0)
    costly = np.flatnonzero(q.cost > 0)
    w, rise = np.arange(n), np.arange(n, 2 * n)
    b = np.arange(2 * n, 2 * n + len(quoted))
    t = np.arange(2 * n + len(quoted), 2 * n + len(quoted) + len(costly))
    width = 2 * n + len(quoted) + len(costly)
    rows = _Rows(width)
    rows.each("ceiling", [(w, 1.0)], q.weight_room)
    rows.each("floor", [(w, -1.0)], np.zeros(n))
    rows.each("rise", [(w, 1.0), (rise, -1.0)], q.committed)
    rows.each("rise_floor", [(rise, -1.0)], np.zeros(n))
    if len(quoted):
        rows.each("bid", [(b, 1.0)], q.bid_room[quoted])
        rows.each("bid_floor", [(b, -1.0)], np.zeros(len(quoted)))
        rows.each("cap", [(w[quoted], 1.0), (b, 1.0)], np.maximum(q.cap, q.committed)[quoted])
    if len(costly):
        rows.each("trade_up", [(w[costly], 1.0), (t, -1.0)], q.held[costly])
        rows.each("trade_down", [(w[costly], -1.0), (t, -1.0)], -q.held[costly])
    rising = np.concatenate([rise, b])
    if q.breached:
        rows.total("total", w, q.total)
    else:
        rows.total("total", rising, q.total - float(q.committed.sum()))
    if q.turnover < float((q.weight_room + q.bid_room).sum()):
        rows.total("turnover", rising, q.turnover)
    matrix, bound = rows.matrix()
    curvature, slope = np.zeros(width), np.zeros(width)
    curvature[w], slope[w] = q.tracking, -q.tracking * q.wish
    curvature[b], slope[b] = q.quote_tracking[quoted], -(q.quote_tracking * q.bids)[quoted]
    slope[t] = q.cost[costly]
    x, z = _clarabel(curvature, slope, matrix, bound)
    if x is None or z is None:
        return None
    bids = np.zeros(n)
    bids[quoted] = x[b]
    repaired = _repair(q, x[w], bids)
    if repaired is None:
        return None
    bid_price, cap_price = _bid_price(q), np.zeros(n)
    bid_price[quoted] += rows.dual("bid", z, len(quoted))
    cap_price[quoted] = rows.dual("cap", z, len(quoted))
    return Answer(
        *repaired, CLARABEL, rows.dual("ceiling", z, n), cap_price, bid_price,
        float(rows.dual("total", z, 1)[0]), float(rows.dual("turnover", z, 1)[0]),
    )  # fmt: skip


def _clarabel(curvature: Floats, slope: Floats, matrix: sparse.csc_matrix, bound: Floats) -> tuple[Floats | None, Floats | None]:
    diagonal = np.flatnonzero(curvature)
    quadratic = sparse.csc_matrix((curvature[diagonal], (diagonal, diagonal)), shape=(len(slope), len(slope)))
    cones = [clarabel.NonnegativeConeT(len(bound))]
    solution = clarabel.DefaultSolver(quadratic, slope, matrix, bound, cones, SETTINGS).solve()
    if solution.status != clarabel.SolverStatus.Solved:
        return None, None
    x, z = np.array(solution.x), np.array(solution.z)
    return (x, z) if np.isfinite(x).all() and np.isfinite(z).all() else (None, None)


def _repair(question: Question, weights: Floats, bids: Floats) -> tuple[Floats, Floats] | None:
    """Remove the solver's last 1e-8: clip to the boxes, then scale what rises. None if there is more to it than rounding."""
    q = question
    if violation(q, weights, bids) > SOLVED:
        return None
    weights = np.clip(np.where(weights < SOLVED, 0.0, weights), 0.0, q.weight_room)  # an interior point is never quite 0
    bids = np.clip(np.minimum(bids, np.maximum(q.cap, q.committed) - weights), 0.0, q.bid_room)
    rise = np.maximum(weights - q.committed, 0.0)
    rising, room = float((rise + bids).sum()), min(max(q.total - float(q.committed.sum()), 0.0), q.turnover)
    if rising > room:
        bids = bids * (room / rising)
        weights = np.minimum(weights, q.committed) + rise * (room / rising)
    if (total := float(weights.sum())) > q.total:
        weights = weights * (q.total / total)
    return weights, bids
