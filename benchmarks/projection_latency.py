"""How long a projection takes, for 10 and 100 symbols, without a tail limit and with one, beside cvxpy with the same solver.

A question is drawn as in trading: wishes of each symbol wander (an autoregression of 0.98 a minute, squashed), the book is the last
safe target moved by the market, quotes of one percent stand on every second symbol, a new hour brings a new scenario every sixty
questions. Limits are box, total, turnover, clusters and Herfindahl; the tail's (the total, without a tail) is set so that two books of ten
would break it. `binding` is the worst case: every book would. cvxpy is parametrised (DPP, compiled once, its scenarios
constant), told only the book with everything filled, and given as much room as a breached book needs; ours holds the other two books
besides.
"""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from importlib import import_module
from typing import Any

import numpy as np

from agents.core.events import Adjustment, AdjustmentKind, Bar, BookSnapshot, Listing, Stamp
from agents.core.instruments import NS, Currency, Instrument, Symbol
from agents.core.ledger import Ledger
from agents.desk.limits import Limits, RiskState
from agents.desk.program import SHORTCUT, Joint, Question, minimise, objective
from agents.desk.projection import project
from agents.desk.tail import Floats, Tail
from agents.desk.wishes import Quotes, Target
from agents.market.state import MarketState
from benchmarks.report import Row, alternate, main

HOUR = 60
"""Questions between two scenarios."""
BINDING_SHARE = 0.2
"""Of the books; a book that stands at its limit breaks it again when prices move, so that some three questions of ten bind."""
LIMITS = {"total": 0.98, "turnover": 10.0, "cap": 0.2, "cluster": 0.6, "norm": 0.5, "cost": 0.001}


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    """Milliseconds of one projection in numbers: wishes, holdings and limits in, weights, bids and prices out."""
    for n in (10, 100):
        for rows in (0, 250, 500):
            for case in ("mixed", "binding"):
                yield from _case(n, rows, case, arguments)
        yield from _door(n, arguments)


def _case(n: int, rows: int, case: str, arguments: argparse.Namespace) -> Iterator[Row]:
    path = list(questions(n, rows, arguments.questions, case == "binding"))
    share = sum(one.answer != SHORTCUT for one in path) / len(path)
    name = f"{n} symbols, {f'{rows} scenarios' if rows else 'no tail'}, {case}"
    calls: list[Callable[[], object]] = [_ours(path)]
    rounds, per_round = arguments.rounds, max(arguments.questions // arguments.rounds, 1)
    try:
        calls.append(_cvxpy(path))
    except ImportError:
        print("  cvxpy is not installed: pip install -e '.[dev]'", flush=True)
    taken = _alternate(calls, rounds, per_round if n * rows < 20_000 else max(per_round // 10, 1))
    if n * rows >= 20_000:  # a second for each of theirs: a part of the questions was enough for them
        taken[0] = _alternate(calls[:1], rounds, per_round)[0]
    print(f"  {name}: a limit bound in {share:.0%} of the questions", flush=True)
    for clock, suffix in enumerate(("", ", processor time")):
        ours, tail = float(np.median(taken[0][clock])), float(np.percentile(taken[0][clock], 99))
        yield Row(name + suffix, ours, "ms", p99=tail)
        if len(calls) > 1:
            peer = float(np.median(taken[1][clock]))
            yield Row(f"{name}, cvxpy{suffix}", ours, "ms", peer, "cvxpy", peer / ours, tail)


def _alternate(calls: list[Callable[[], object]], rounds: int, per_round: int) -> list[Floats]:
    """Milliseconds [2, calls] of each callable in turns: by the clock, and of the processor, which other processes lengthen less."""
    taken: list[list[tuple[int, int]]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, times in zip(calls, taken, strict=True):
            for _ in range(per_round):
                busy, start = time.thread_time_ns(), time.perf_counter_ns()
                call()
                times.append((time.perf_counter_ns() - start, time.thread_time_ns() - busy))
    return [np.array(times).T / 1e6 for times in taken]


def _door(n: int, arguments: argparse.Namespace) -> Iterator[Row]:
    """The whole room, from ledger and books in decimals to a safe target with its prices, under the daemon's default limits."""
    symbols = tuple(Symbol(f"C{number}/USDT") for number in range(n))
    market, ledger, state = MarketState(symbols), Ledger(Currency("USDT")), RiskState()
    limits = Limits(cvar=0.05, cluster_cap=0.6, herfindahl=0.25)
    rng, start = np.random.default_rng(n), 1_700_000_000 // 3600 * 3600 * NS
    moves = rng.standard_t(4, (300, 1)) * 0.005 + rng.standard_t(4, (300, n)) * 0.003
    closes = 100 * np.exp(np.cumsum(moves, axis=0))
    at = start + 300 * 3600 * NS
    for symbol in symbols:
        coin = Currency(symbol.split("/")[0])
        listing = Listing(Stamp(start), Instrument(symbol, coin, Currency("USDT"), Decimal("0.01"), Decimal("0.001"), Decimal(5)))
        market.apply(listing)
        ledger.apply(listing)
    for kind in (AdjustmentKind.OPENING, AdjustmentKind.CAPITAL):
        ledger.apply(Adjustment(Stamp(start), Currency("USDT"), Decimal(10_000), kind))
    for row, prices in enumerate(closes):
        for symbol, price in zip(symbols, prices, strict=True):
            value, opened = Decimal(repr(round(float(price), 2))), start + row * 3600 * NS
            market.apply(Bar(Stamp(opened + 3600 * NS), symbol, opened, "1h", value, value, value, value, Decimal(1000)))
    for symbol, price in zip(symbols, closes[-1], strict=True):
        value = Decimal(repr(round(float(price), 2)))
        sides = [tuple((value + side * Decimal("0.01") * (1 + level), Decimal(50)) for level in range(10)) for side in (-1, 1)]
        market.apply(BookSnapshot(Stamp(at), symbol, at, sides[0], sides[1]))
    view = rng.normal(0.0, 1.0, n)

    def step() -> object:
        nonlocal view
        view = 0.98 * view + rng.normal(0.0, 0.2, n)
        wish = dict(zip(symbols, (np.maximum(np.tanh(view), 0.0) * 1.5 / n).tolist(), strict=True))
        quotes = {symbol: Quotes(0.001, 0.001, 0.1 / n, 0.1 / n) for symbol in symbols[::2]}
        return project(
            Target(at, wish, quotes, {}, {s: {"long_term": w} for s, w in wish.items()}), market, ledger, limits, state
        )

    taken = alternate([step], arguments.rounds, max(arguments.questions // arguments.rounds, 1))[0] / 1e3
    yield Row(f"{n} symbols, project() with defaults", float(np.median(taken)), "ms", p99=float(np.percentile(taken, 99)))


@dataclass(frozen=True, slots=True)
class Drawn:
    """A question, who answered it, and the scenarios that it begins with."""

    question: Question
    answer: str
    fresh: Floats | None


def questions(n: int, rows: int, count: int, binding: bool) -> Iterator[Drawn]:
    """`count` questions one minute apart; `fresh` holds the scenarios [rows, n] where an hour has closed."""
    rng = np.random.default_rng([n, rows])
    factor = rng.standard_t(4, 2000 + count // HOUR) * 0.02
    history = np.outer(factor, rng.uniform(0.7, 1.3, n)) + rng.standard_t(4, (len(factor), n)) * rng.uniform(0.005, 0.02, n)
    quoted = np.arange(n) % 2 == 0
    view, held = rng.normal(0.0, 1.0, n), np.zeros(n)
    wishes = []
    for _ in range(count):
        view = 0.98 * view + rng.normal(0.0, 0.2, n)
        wishes.append(np.maximum(np.tanh(view), 0.0) * (3.0 if binding else 1.5) / n)
    limit, total = np.inf, LIMITS["total"]
    first = Tail(history[:rows], 0.05) if rows else None
    reached = np.quantile([_measure(book, first) for book in _free(wishes, quoted)], 0.0 if binding else 1 - BINDING_SHARE)
    if rows:
        limit = float(reached) * (0.7 if binding else 1.0)
    else:
        total = float(reached) * (0.7 if binding else 1.0)
    tail = None
    for number, wish in enumerate(wishes):
        fresh = None
        if rows and number % HOUR == 0:
            fresh = history[number // HOUR : number // HOUR + rows]
            tail = _next(tail, fresh)
        joint = Joint(groups=np.arange(n) * 3 // n, group_cap=LIMITS["cluster"], norm=LIMITS["norm"], tail=tail, tail_limit=limit)
        held = np.maximum(held * (1 + rng.normal(0.0, 0.001, n)), 0.0)
        cap = np.full(n, LIMITS["cap"])
        question = Question(
            wish, held, held, cap, cap, np.where(quoted, 0.1 / n, 0.0), np.full(n, LIMITS["cost"]), np.ones(n), np.full(n, 0.1),
            total, LIMITS["turnover"], joint=joint,
        )  # fmt: skip
        answer = minimise(question)
        yield Drawn(question, answer.solver, fresh)
        held = answer.weights


def _free(wishes: list[Floats], quoted: np.ndarray) -> Iterator[Floats]:
    """The books with all bids filled, were there no limit but the box: trades that are not worth their cost are left out."""
    held = np.zeros(len(quoted))
    for wish in wishes:
        step = wish - held
        held = np.minimum(held + np.sign(step) * np.maximum(np.abs(step) - LIMITS["cost"], 0.0), LIMITS["cap"])
        yield held + quoted * 0.1 / len(quoted)


def _measure(book: Floats, tail: Tail | None) -> float:
    return float(book.sum()) if tail is None else tail.value(book)


def _next(before: Tail | None, scenarios: Floats) -> Tail:
    tail = Tail(scenarios, 0.05)
    if before is not None:
        tail.inherit(before, 1)
    return tail


def _ours(path: list[Drawn]) -> Callable[[], object]:
    """Answers one question after the other, with a pool of its own."""
    place, tail = 0, None

    def step() -> object:
        nonlocal place, tail
        one = path[place % len(path)]
        place += 1
        if one.fresh is not None:
            tail = _next(tail, one.fresh)
        return minimise(replace(one.question, joint=replace(one.question.joint, tail=tail)))

    return step


def _cvxpy(path: list[Drawn]) -> Callable[[], object]:
    """The same questions for one compiled cvxpy problem."""
    cp: Any = import_module("cvxpy")
    q = path[0].question
    n, j, groups = len(q.wish), q.joint, path[0].question.joint.groups
    assert groups is not None
    w, rise, b = cp.Variable(n), cp.Variable(n), cp.Variable(n)
    wish, held, bids = (cp.Parameter(n, nonneg=True) for _ in range(3))
    room, total, tail, norm = cp.Parameter(n, nonneg=True), *(cp.Parameter(nonneg=True) for _ in range(3))
    group = cp.Parameter(int(groups.max()) + 1, nonneg=True)
    up = held + rise + b
    rules: list[Any] = [
        w >= 0, w <= q.ceiling, b >= 0, b <= bids, rise >= 0, rise >= w - held, rise + b <= room, cp.sum(up) <= total,
        cp.sum(rise + b) <= q.turnover, cp.norm(up) <= norm,
    ]  # fmt: skip
    rules += [cp.sum(up[groups == g]) <= group[g] for g in range(group.size)]
    if j.tail is not None:
        zeta = cp.Variable()
        excess = cp.sum(cp.pos(-j.tail.scenarios @ up - zeta)) / (j.tail.share * len(j.tail.scenarios))
        rules.append(zeta + excess <= tail)
    cost = cp.sum_squares(w - wish) / 2 + q.quote_tracking[0] * cp.sum_squares(b - bids) / 2 + q.cost[0] * cp.norm1(w - held)
    problem = cp.Problem(cp.Minimize(cost), rules)
    place = 0

    def step() -> object:
        nonlocal place
        question = path[place % len(path)].question
        place += 1
        wish.value, held.value, bids.value = question.wish, question.held, question.bids
        room.value = np.maximum(question.cap - question.held, 0.0)
        h, limits = question.held, question.joint
        total.value, norm.value = max(question.total, float(h.sum())), max(limits.norm, float(np.linalg.norm(h)))
        group.value = np.maximum(limits.group_cap, np.bincount(groups, h))
        tail.value = max(limits.tail_limit, limits.tail.value(h)) if limits.tail is not None else 0.0
        problem.solve(solver=cp.CLARABEL)
        return problem.value

    step()
    if j.tail is None:  # without a tail the two programs are one: hold them together before they are timed
        ours = minimise(path[0].question)
        assert abs(objective(path[0].question, ours.weights, ours.bids) - float(problem.value)) < 1e-5
    place = 0
    return step


if __name__ == "__main__":
    main("projection_latency", measure, ("clarabel", "cvxpy", "numpy", "scipy"), questions=2000, rounds=20)
