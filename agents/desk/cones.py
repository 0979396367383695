"""The program with joint limits for Clarabel: columns [w, rise, b, t], linear rows, cones; planes of the tail are added as they bind."""

from dataclasses import dataclass, field
from math import inf
from typing import Any

import clarabel
import numpy as np
from numpy.typing import NDArray

from agents.desk.question import (
    CVAR,
    FILLED,
    HERFINDAHL,
    QUOTED,
    REACHED,
    TOP_N,
    VAR,
    Frame,
    Integers,
    Line,
    norm,
    top_sum,
    where,
)
from agents.desk.tail import Floats, Quantile

ROUNDS = 40
"""Programs solved at most until no plane is missing; five are many."""
CLOSED = 1e-8
"""Excess of a measure over its limit, in fractions of equity, that needs no further plane."""
ACTIVE = 1e-9
"""A dual value above this says that a row bound."""


def _settings(gap: float, careful: bool = True) -> clarabel.DefaultSettings:
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.max_threads = 1  # bit-equal replays, and the other core belongs to the learner
    settings.max_iter = 60  # ten suffice; a program that needs more is not believed
    settings.tol_gap_abs = settings.tol_gap_rel = gap
    settings.iterative_refinement_enable = settings.equilibrate_enable = careful  # a third of the time, seldom needed without cones
    settings.presolve_enable = False  # it would drop rows with huge bounds and with them their dual values
    return settings


SETTINGS = (_settings(1e-12, careful=False), _settings(1e-12), _settings(1e-10), _settings(1e-8))
"""Tried in turn. The objective is flat: a gap of 1e-8 can be 1e-4 in a weight. Programs with cones begin at the third."""


@dataclass(frozen=True, slots=True)
class Compressed:
    """A matrix in compressed columns, sorted and without repetition: what Clarabel reads of scipy's `csc_matrix`.

    Its constructor checks what holds here anyway, and takes a fifth of a program of ten symbols for it.
    """

    data: Floats
    indices: NDArray[np.int32]
    indptr: NDArray[np.int32]
    shape: tuple[int, int]
    has_canonical_format: bool = True


@dataclass(slots=True)
class Solved:
    """Weights and bids [n] as the solver left them, and the dual values of what held them."""

    weights: Floats
    bids: Floats
    upper: Floats
    """Of the bound on each weight, [n]."""
    bid: Floats
    room: Floats
    """Of the room that a rise and a bid share, [n]."""
    prices: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Plane(Line):
    """A linear row that was added because a measure of risk wanted it."""

    kept: int = -1
    """Its number in the pool of the tail, if it comes from there."""
    probabilities: Floats | None = None


class Layout:
    """Which column is what. A weight that cannot rise has no rise; one that is not held rises with all of itself."""

    def __init__(self, frame: Frame) -> None:
        q = frame.question
        n = len(q.wish)
        self.frame = frame
        self.weights: Integers = where(frame.desired > 0)
        self.bids: Integers = where(frame.bid_room > 0)
        rising = frame.desired > q.committed
        self.rises: Integers = where(rising & (q.committed > 0))
        up, down = frame.desired > q.held, q.held > 0
        simple = rising & (q.committed == q.held)
        self.detours: Integers = where((q.cost > 0) & up & down & ~simple)
        self.kinks: Integers = where((q.cost > 0) & up & down & simple)
        """Rising weights above what is held alone: their cost is told by the rise."""
        starts = np.cumsum([len(self.weights), len(self.rises), len(self.bids), len(self.detours)])
        self.width = int(starts[-1])
        self.w, self.r, self.b, self.t = (np.full(n, -1) for _ in range(4))
        for columns, symbols, end in zip(
            (self.w, self.r, self.b, self.t), (self.weights, self.rises, self.bids, self.detours), starts.tolist(), strict=True
        ):
            columns[symbols] = np.arange(end - len(symbols), end)
        self.rise: Integers = np.where(rising, np.where(self.r >= 0, self.r, self.w), -1)
        zero = np.zeros(n)
        self.books = {
            REACHED: (zero, *self._pairs(self.w)),
            FILLED: (q.committed, *self._pairs(self.rise, self.b)),
            QUOTED: (zero, *self._pairs(self.w, self.b)),
        }
        """book -> (what is in it without any column [n], columns, their symbols)."""

    def _pairs(self, *groups: Integers) -> tuple[Integers, Integers]:
        symbols = [where(columns >= 0) for columns in groups]
        return np.concatenate([c[s] for c, s in zip(groups, symbols, strict=True)]), np.concatenate(symbols)

    def quadratic(self) -> tuple[Compressed, Floats]:
        """(P, q) of the objective without its constant."""
        q = self.frame.question
        curvature, slope = np.zeros(self.width), np.zeros(self.width)
        w, b = self.w[self.weights], self.b[self.bids]
        curvature[w], slope[w] = q.tracking[self.weights], -(q.tracking * q.wish)[self.weights]
        slope[w] += np.where(self.frame.desired > q.held, np.where(q.held > 0, 0.0, q.cost), -q.cost)[self.weights]
        slope[self.w[self.kinks]] -= q.cost[self.kinks]
        slope[self.rise[self.kinks]] += 2 * q.cost[self.kinks]
        curvature[b], slope[b] = q.quote_tracking[self.bids], -(q.quote_tracking * q.bids)[self.bids]
        slope[self.t[self.detours]] = q.cost[self.detours]
        return compressed(curvature, np.arange(self.width), np.ones(self.width), (self.width, self.width)), slope

    def dense(self, book: str, coefficients: Floats) -> Floats:
        """Rows on symbols [k, n] as rows on columns [k, width]."""
        _, columns, symbols = self.books[book]
        rows = np.zeros((len(coefficients), self.width))
        rows[:, columns] = coefficients[:, symbols]
        return rows


class Rows:
    """Rows `A x + s = b` in blocks: triplets of the sparse ones, then dense ones; s is in the cones, block by block."""

    def __init__(self, width: int) -> None:
        self.width, self.height = width, 0
        self._row: list[Integers] = []
        self._column: list[Integers] = []
        self._value: list[Floats] = []
        self._bound: list[Floats] = []
        self._slices: dict[str, slice] = {}

    def each(self, name: str, terms: list[tuple[Integers, float]], bound: Floats) -> None:
        """One row per entry of `bound`: the sum over terms of coefficient times x[columns[i]] is at most bound[i]."""
        if len(bound):
            rows = np.arange(self.height, self.height + len(bound))
            for columns, coefficient in terms:
                self._add(rows, columns, np.full(len(columns), coefficient))
            self._end(name, bound)

    def dense(self, name: str, rows: Floats, bound: Floats) -> None:
        """Rows [k, width] of which zeros are left out."""
        if len(bound):
            columns, numbers = np.nonzero(rows.T)
            self._add(numbers + self.height, columns, rows.T[columns, numbers])
            self._end(name, bound)

    def _add(self, rows: Integers, columns: Integers, values: Floats) -> None:
        self._row.append(rows)
        self._column.append(columns)
        self._value.append(values)

    def _end(self, name: str, bound: Floats) -> None:
        self._slices[name] = slice(self.height, self.height + len(bound))
        self._bound.append(bound)
        self.height += len(bound)

    def matrix(self) -> tuple[Compressed, Floats]:
        rows, columns, values = np.concatenate(self._row), np.concatenate(self._column), np.concatenate(self._value)
        order = np.argsort(columns * self.height + rows)
        counts = np.bincount(columns, minlength=self.width)
        return compressed(values[order], rows[order], counts, (self.height, self.width)), np.concatenate(self._bound)

    def dual(self, name: str, z: Floats, size: int) -> Floats:
        return z[self._slices[name]] if name in self._slices else np.zeros(size)


def compressed(values: Floats, rows: Integers, counts: NDArray[Any], shape: tuple[int, int]) -> Compressed:
    """A sparse matrix out of values and their rows, column by column, with `counts` of them in each."""
    pointer = np.zeros(shape[1] + 1, dtype=np.int32)
    np.cumsum(counts, out=pointer[1:])
    return Compressed(values, rows.astype(np.int32), pointer, shape)


def solve(frame: Frame) -> Solved | None:
    """Clarabel's answer to a question whose joint limits bind, or None if it fails.

    Planes of the tail and of the largest weights, and further cones, are added until no book that must be safe breaks a limit.
    Where a weight that rises would lower the tail of the filled book, the rise of the program may exceed that of the weight; the
    caller measures the books as they are and repairs.
    """
    layout = Layout(frame)
    if not layout.width:
        none = np.zeros(len(frame.question.wish))
        return Solved(none, none, none, none, none)
    return _Search(layout).run()


class _Search:
    """One program: its fixed rows, and what is added from round to round."""

    def __init__(self, layout: Layout) -> None:
        self.layout, self.frame = layout, layout.frame
        self.joint = self.frame.question.joint
        self.main = REACHED if self.frame.breaches else FILLED
        self.planes: list[_Plane] = []
        self.cones: list[tuple[str, str]] = []
        top = self.frame.books(self.frame.desired, self.frame.bid_room)
        self.lines = [line for line in self.frame.lines if float(line.coefficients @ top[line.book]) > line.bound]
        if self.joint.norm < inf and norm(top[self.main]) > self.joint.norm:
            self.cones.append((HERFINDAHL, self.main))
        self.measured = any(True for _ in self.frame.measures())
        self.tail_binds = self._tail_start(top)
        self._missing(top)

    def _tail_start(self, top: dict[str, Floats]) -> bool:
        tail, limit = self.joint.tail, self.joint.tail_limit
        if tail is None or limit == inf or float(tail.alone @ np.maximum(top[REACHED], top[self.main])) <= limit:
            return False
        near = where(tail.planes @ top[self.main] > limit)
        self.planes += [_Plane(CVAR, self.main, tail.planes[k], limit, k) for k in near.tolist()]
        return True

    def run(self) -> Solved | None:
        n = len(self.frame.question.wish)
        quadratic, slope = self.layout.quadratic()
        for _ in range(ROUNDS):
            rows, cones = self._rows()
            x, z = _clarabel(quadratic, slope, *rows.matrix(), cones)
            if x is None or z is None:
                return None
            weights, bids = np.zeros(n), np.zeros(n)
            weights[self.layout.weights] = x[self.layout.w[self.layout.weights]]
            bids[self.layout.bids] = x[self.layout.b[self.layout.bids]]
            if not (self.measured or self.joint.top < inf) or not self._missing(self._books(weights, bids, x)):
                return self._solved(weights, bids, rows, z)
        return None

    def _books(self, weights: Floats, bids: Floats, x: Floats) -> dict[str, Floats]:
        """The books of a solution; the filled one with the rises of the program, which may exceed those of the weights."""
        books = self.frame.books(np.maximum(weights, 0.0), np.maximum(bids, 0.0))
        if self.main == FILLED:
            filled = self.frame.question.committed.copy()
            rising = where(self.layout.rise >= 0)
            filled[rising] += x[self.layout.rise[rising]]
            filled[self.layout.bids] += x[self.layout.b[self.layout.bids]]
            books[FILLED] = filled
        return books

    def _missing(self, books: dict[str, Floats]) -> bool:
        """Add what the books break; whether anything was."""
        before = len(self.planes) + len(self.cones)
        j = self.joint
        if j.top < inf and top_sum(books[self.main], j.top_count) > j.top + CLOSED:
            largest = np.argsort(-books[self.main], kind="stable")[: j.top_count]
            coefficients = np.zeros(len(books[self.main]))
            coefficients[largest] = 1.0
            self.planes.append(_Plane(TOP_N, self.main, coefficients, j.top))
        for name in sorted(books, key=lambda name: name != self.main):
            if len(self.planes) + len(self.cones) > before and name != self.main:
                break  # mostly the books are one: the others are looked at when this one holds
            book = books[name]
            if self.tail_binds and j.tail is not None:
                value, plane, probabilities = j.tail.plane(book)
                if value > j.tail_limit + CLOSED:
                    self.planes.append(_Plane(CVAR, name, plane, j.tail_limit, probabilities=probabilities))
            if j.quantile is not None and j.quantile.value(book) > j.quantile_limit + CLOSED and (VAR, name) not in self.cones:
                self.cones.append((VAR, name))
        return len(self.planes) + len(self.cones) > before

    # -- rows ------------------------------------------------------------------------------------------------------

    def _rows(self) -> tuple[Rows, list[object]]:
        f, q, to = self.frame, self.frame.question, self.layout
        rows = Rows(to.width)
        w, r, b = to.w[to.weights], to.r[to.rises], to.b[to.bids]
        rows.each("upper", [(w, 1.0)], f.desired[to.weights])
        rows.each("floor", [(w, -1.0)], np.zeros(len(w)))
        rows.each("rise", [(to.w[to.rises], 1.0), (r, -1.0)], q.committed[to.rises])
        rows.each("rise_floor", [(r, -1.0)], np.zeros(len(r)))
        if self.measured:  # only there could a rise without its weight be worth anything
            rows.each("rise_cap", [(r, 1.0)], (f.desired - q.committed)[to.rises])
        rows.each("bid", [(b, 1.0)], f.bid_room[to.bids])
        rows.each("bid_floor", [(b, -1.0)], np.zeros(len(b)))
        shared = self._shared()
        rows.each("room", [(to.rise[shared], 1.0), (to.b[shared], 1.0)], f.rise_room[shared])
        t = to.t[to.detours]
        rows.each("trade_up", [(to.w[to.detours], 1.0), (t, -1.0)], q.held[to.detours])
        rows.each("trade_down", [(to.w[to.detours], -1.0), (t, -1.0)], -q.held[to.detours])
        for book in (REACHED, FILLED, QUOTED):
            lines = [line for line in (*self.lines, *self.planes) if line.book == book]
            if lines:
                coefficients = np.array([line.coefficients for line in lines])
                bound = np.array([line.bound for line in lines]) - coefficients @ to.books[book][0]
                rows.dense(book, to.dense(book, coefficients), bound)
        cones: list[object] = [clarabel.NonnegativeConeT(rows.height)]
        for name, book in self.cones:
            height = rows.height
            self._cone(rows, name, book)
            cones.append(clarabel.SecondOrderConeT(rows.height - height))
        return rows, cones

    def _shared(self) -> Integers:
        """Symbols whose rise and bid can together exceed their room."""
        f, to = self.frame, self.layout
        rise = np.maximum(f.desired - f.question.committed, 0.0)
        shared = (to.b >= 0) & (to.rise >= 0) & (rise + f.bid_room > f.rise_room)
        return where(shared)

    def _cone(self, rows: Rows, name: str, book: str) -> None:
        """Rows of `s = (limit + drift'x, factor' x)` in the second-order cone, for the book x."""
        constant, n = self.layout.books[book][0], len(self.frame.question.wish)
        j = self.joint
        if name == HERFINDAHL:
            used = where(constant != 0) if book == FILLED else np.empty(0, dtype=np.int64)
            used = np.union1d(used, self.layout.books[book][2])
            head, limit, body = np.zeros(n), j.norm, np.eye(n)[used]
        else:
            spread: Quantile = j.quantile  # type: ignore[assignment]  # a cone of this name is added only where there is one
            head, limit, body = -spread.drift, j.quantile_limit, spread.quantile * spread.factor.T
        block = np.vstack([head, -body])
        bound = np.concatenate([[limit], np.zeros(len(body))]) - block @ constant
        rows.dense(f"{name} {book}", self.layout.dense(book, block), bound)

    def _solved(self, weights: Floats, bids: Floats, rows: Rows, z: Floats) -> Solved:
        to, n = self.layout, len(weights)
        found = Solved(weights, bids, np.zeros(n), np.zeros(n), np.zeros(n))
        shared = self._shared()
        found.upper[to.weights] = rows.dual("upper", z, len(to.weights))
        found.bid[to.bids] = rows.dual("bid", z, len(to.bids))
        found.room[shared] = rows.dual("room", z, len(shared))
        used, fresh = np.zeros(0 if self.joint.tail is None else len(self.joint.tail.planes), dtype=bool), []
        for book in (REACHED, FILLED, QUOTED):
            lines = [line for line in (*self.lines, *self.planes) if line.book == book]
            for line, price in zip(lines, rows.dual(book, z, len(lines)).tolist(), strict=True):
                found.prices[line.name] = found.prices.get(line.name, 0.0) + price
                if isinstance(line, _Plane) and line.name == CVAR and price > ACTIVE:
                    if line.kept >= 0:
                        used[line.kept] = True
                    elif line.probabilities is not None:
                        fresh.append((line.coefficients, line.probabilities))
        for name, book in self.cones:
            found.prices[name] = found.prices.get(name, 0.0) + float(rows.dual(f"{name} {book}", z, 1)[0])
        if self.tail_binds and self.joint.tail is not None:
            self.joint.tail.remember(used, fresh)
        return found


def _clarabel(curvature: Compressed, slope: Floats, matrix: Compressed, bound: Floats,
              cones: list[object]) -> tuple[Floats | None, Floats | None]:  # fmt: skip
    for settings in SETTINGS[2 if len(cones) > 1 else 0 :]:
        solution = clarabel.DefaultSolver(curvature, slope, matrix, bound, cones, settings).solve()
        if solution.status == clarabel.SolverStatus.Solved:
            x, z = np.array(solution.x), np.array(solution.z)
            return (x, z) if np.isfinite(x).all() and np.isfinite(z).all() else (None, None)
    return None, None
