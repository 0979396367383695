"""One projection in numbers: wishes, holdings and limits as arrays, what may rise at all, and how far an answer breaks a limit."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf, sqrt

import numpy as np
from numpy.typing import NDArray

from agents.desk.tail import Floats, Quantile, Tail

Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

TINY = 1e-12
"""Room below this is none: a program without an interior is no question for an interior-point method."""
TOTAL, TURNOVER, FEES, CLUSTER, HERFINDAHL, TOP_N = "total", "turnover", "fees", "cluster", "herfindahl", "top_n"
CVAR, VAR, LIQUIDITY = "cvar", "var", "liquidity"
FILLED, REACHED, QUOTED = "filled", "reached", "quoted"
"""The books that must be safe: every buy and bid filled and no sell; the target reached; the target with every bid filled."""


@dataclass(frozen=True, slots=True)
class Joint:
    """Limits on the whole book, each off by default. Arrays are finite, of shape [n]."""

    groups: Integers | None = None
    """Cluster of each symbol, 0, 1, ..."""
    group_cap: float = inf
    """Largest sum of weights in one cluster."""
    norm: float = inf
    """Largest root of the sum of squared weights: Herfindahl's index H of a gross bound G allows sqrt(H) G."""
    top_count: int = 0
    top: float = inf
    """Largest sum of the `top_count` largest weights."""
    tail: Tail | None = None
    tail_limit: float = inf
    quantile: Quantile | None = None
    quantile_limit: float = inf
    fee: Floats | None = None
    """Fee of one unit of rising weight."""
    fees: float = inf
    """What rising weights may still pay in fees."""


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
    liquidity: Floats | None = None
    """Largest rise of each symbol, its bid included."""
    asks: Floats | None = None
    """Ask sizes, at most what is held."""
    joint: Joint = field(default_factory=Joint)

    @property
    def breached(self) -> bool:
        """Whether what is committed already stands above a limit of the whole book: then nothing may rise."""
        return bool(Frame(self).breaches)

    @property
    def bid_room(self) -> Floats:
        """Largest bid of each symbol that its own limits leave, whatever the weights."""
        return Frame(self).bid_room

    @property
    def weight_room(self) -> Floats:
        """Upper bound of each weight from its own box."""
        return Frame(self).weight_room


@dataclass(frozen=True, slots=True)
class Line:
    """A linear limit on a book: `coefficients` [n] times its weights is at most `bound`."""

    name: str
    book: str
    coefficients: Floats
    bound: float


class Frame:
    """What follows from a question before anything is solved: breaches, rooms, and the answer if no joint limit bound.

    A limit that is broken by what is committed leaves no room: nothing that counts in it may rise, and the target itself must be
    inside it. A rise of the whole book without any room to speak of is none.
    """

    __slots__ = ("bid_room", "breaches", "closed", "desired", "kept", "lines", "question", "rise_room", "weight_room")

    def __init__(self, question: Question) -> None:
        q = question
        self.question = q
        self.breaches = tuple(_breaches(q))
        self.lines: list[Line] = []
        self.kept: list[str | None] = [None] * len(q.wish)
        """The limit that lowers the room of a symbol below its own box."""
        shut = np.zeros(len(q.wish), dtype=bool)
        for name, members in self._closing():
            for row in where(members & ~shut):
                self.kept[row] = name
            shut |= members
        self.closed: Flags = shut
        self.rise_room: Floats = np.maximum(q.cap - q.committed, 0.0)
        self.weight_room: Floats = np.where(shut, np.minimum(q.ceiling, q.committed), q.ceiling)
        if q.liquidity is not None:
            self._thin(q.liquidity)
        self.rise_room[shut] = 0.0
        for line in self.lines:
            if line.book == REACHED and line.bound <= TINY:
                self.weight_room = np.where(line.coefficients > 0, 0.0, self.weight_room)
        self.bid_room: Floats = np.minimum(q.bids, self.rise_room)
        step = q.wish - q.held
        free = q.held + np.sign(step) * np.maximum(np.abs(step) - q.cost / q.tracking, 0.0)
        self.desired: Floats = np.clip(free, 0.0, self.weight_room)
        """The minimiser without joint limits. No weight exceeds it: a limit never makes us buy, or keep, what nobody wants."""

    def _thin(self, liquidity: Floats) -> None:
        q = self.question
        reach = q.committed + liquidity
        for row in where((reach < self.weight_room) & ~self.closed):
            self.kept[row] = LIQUIDITY
        self.weight_room = np.minimum(self.weight_room, reach)
        self.rise_room = np.minimum(self.rise_room, liquidity)

    def _closing(self) -> Iterator[tuple[str, Flags]]:
        """(limit, symbols that it lets rise no more); writes the linear limits of what may still rise on the way."""
        q, j = self.question, self.question.joint
        ones, committed = np.ones(len(q.wish)), float(q.committed.sum())
        if TOTAL in self.breaches:
            self.lines.append(Line(TOTAL, REACHED, ones, q.total))
        for name in self.breaches:
            yield name, ones > 0
        yield from self._clusters()
        if self.breaches:
            return
        name, room = (TOTAL, q.total - committed) if q.total - committed <= q.turnover else (TURNOVER, q.turnover)
        if room > TINY:
            self.lines.append(Line(name, FILLED, ones, committed + room))
        else:
            yield name, ones > 0
        if j.fee is not None and j.fees < inf:
            if j.fees > TINY:
                self.lines.append(Line(FEES, FILLED, j.fee, float(j.fee @ q.committed) + j.fees))
            else:
                yield FEES, j.fee > 0

    def _clusters(self) -> Iterator[tuple[str, Flags]]:
        q, j = self.question, self.question.joint
        if j.groups is None or j.group_cap == inf:
            return
        for group, committed in enumerate(np.bincount(j.groups, q.committed).tolist()):
            name, members = f"{CLUSTER}:{group}", j.groups == group
            full = committed > j.group_cap - TINY
            if full:
                yield name, members
            if full or not self.breaches:
                self.lines.append(Line(name, REACHED if full else FILLED, members.astype(np.float64), j.group_cap))

    # -- books -----------------------------------------------------------------------------------------------------

    def books(self, weights: Floats, bids: Floats) -> dict[str, Floats]:
        """The books that must be safe, each [n]. Where nothing may rise, what is filled besides is what is held already."""
        q = self.question
        books = {REACHED: weights}
        if not self.breaches:
            books[FILLED] = np.maximum(weights, q.committed) + bids
            books[QUOTED] = weights + bids
        return books

    def violation(self, weights: Floats, bids: Floats) -> float:
        """Largest violation of any limit, in fractions of equity; at most 0 when feasible, infinite for what is no number."""
        q = self.question
        rise = np.maximum(weights - q.committed, 0.0) + bids
        parts = np.concatenate([weights - self.weight_room, -weights, bids - self.bid_room, -bids, rise - self.rise_room])
        worst = max(float(parts.max(initial=-inf)), self.joint_violation(weights, bids))
        return worst if worst == worst else inf

    def joint_violation(self, weights: Floats, bids: Floats) -> float:
        """The same of the limits of the whole book alone."""
        q, j = self.question, self.question.joint
        books = self.books(weights, bids)
        main, worst = books.get(FILLED, weights), -inf
        for line in self.lines:
            worst = max(worst, float(line.coefficients @ books[line.book]) - line.bound)
        if j.norm < inf:
            worst = max(worst, norm(main) - j.norm)
        if j.top < inf:
            worst = max(worst, top_sum(main, j.top_count) - j.top)
        for measure, limit in self.measures():
            if float(measure.alone @ (np.maximum(weights, q.committed) + bids)) > limit:
                worst = max(worst, max(measure.value(book) for book in books.values()) - limit)
        return worst

    def measures(self) -> Iterator[tuple[Tail | Quantile, float]]:
        """The measures of risk that are limited, with their limits."""
        j = self.question.joint
        if j.tail is not None and j.tail_limit < inf:
            yield j.tail, j.tail_limit
        if j.quantile is not None and j.quantile_limit < inf:
            yield j.quantile, j.quantile_limit


def _breaches(q: Question) -> Iterator[str]:
    """Limits of the whole book that what is committed already breaks."""
    j, h = q.joint, q.committed
    if float(h.sum()) > q.total:
        yield TOTAL
    if j.norm < inf and norm(h) > j.norm - TINY:
        yield HERFINDAHL
    if j.top < inf and top_sum(h, j.top_count) > j.top - TINY:
        yield TOP_N
    for name, measure, limit in ((CVAR, j.tail, j.tail_limit), (VAR, j.quantile, j.quantile_limit)):
        if measure is None or limit == inf:
            continue
        if limit <= TINY or (float(measure.alone @ h) > limit and measure.value(h) > limit - TINY):
            yield name


def where(flags: Flags) -> Integers:
    """Numbers of the rows that are true: `np.flatnonzero` without its detours."""
    return flags.nonzero()[0]


def norm(book: Floats) -> float:
    """Euclidean norm of a book [n]."""
    return sqrt(float(book @ book))


def top_sum(book: Floats, count: int) -> float:
    """Sum of the `count` largest weights of a book [n]."""
    return float(book.sum()) if count >= len(book) else float(np.partition(book, len(book) - count)[len(book) - count :].sum())


def objective(question: Question, weights: Floats, bids: Floats) -> float:
    """Value of the objective."""
    q = question
    distance = q.tracking * (weights - q.wish) ** 2 + q.quote_tracking * (bids - q.bids) ** 2
    return float((distance / 2 + q.cost * np.abs(weights - q.held)).sum())


def violation(question: Question, weights: Floats, bids: Floats) -> float:
    """Largest violation of any limit, in fractions of equity; at most 0 when feasible."""
    return Frame(question).violation(weights, bids)
