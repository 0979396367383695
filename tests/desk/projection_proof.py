"""The projection against cvxpy on random problems, all limits at random: `python -m tests.desk.projection_proof --problems 1000`.

cvxpy is told the program as `agents.desk.program` states it, with all scenarios as rows (Rockafellar & Uryasev) and every limit
always there: no shortcut, no planes, nothing left out that cannot bind.
"""

import argparse
import contextlib
import sys
import warnings
from collections import Counter
from math import inf

import cvxpy as cp
import numpy as np

from agents.desk.clusters import load, shrunk_covariance
from agents.desk.program import FEASIBLE, Joint, Question, minimise, objective, violation
from agents.desk.tail import Quantile, Tail

load()  # now: imported inside a strategy of Hypothesis it would be taken for chance
TOLERANCE = 1e-5
"""Relative; objectives below `LEAST` are compared as if they were that large."""
LEAST = 1e-3


def scenarios(rng, rows, n):
    """Daily returns with a common factor, fat tails and, now and then, a hedge that rises when the rest falls."""
    factor = rng.standard_t(4, rows) * 0.02
    load = rng.uniform(0.3, 1.3, n) * np.where(rng.random(n) < 0.1, -0.5, 1.0)
    return np.maximum(np.outer(factor, load) + rng.standard_t(4, (rows, n)) * rng.uniform(0.002, 0.03, n), -1.0)


def random_question(rng, n=None, rows=None):
    """A question whose limits bind often, one by one and together; one book in seven is breached."""
    large = n is None and rng.random() < 0.03
    n = n or (60 if large else int(rng.integers(1, 13)))
    held = rng.uniform(0, rng.choice([0.02, 0.1, 0.25]), n) * (rng.random(n) < 0.6)
    committed = held + rng.uniform(0, 0.05, n) * (rng.random(n) < 0.2)
    wish = rng.uniform(0, 0.35, n) * (rng.random(n) < 0.85)
    cap = rng.uniform(0.1, 0.3)
    returns = scenarios(rng, rows or (500 if large else int(rng.integers(20, 260))), n)
    full = np.maximum(wish, committed)
    tail, spread = Tail(returns, rng.choice([0.05, 0.1, 0.5])), Quantile(
        np.linalg.cholesky(shrunk_covariance(returns)), rng.uniform(-1e-3, 1e-3, n) * rng.integers(0, 2), rng.uniform(1.3, 2.6)
    )  # fmt: skip

    def limit(value, share=0.4):
        """A limit that is off, or a part of what the wish would come to."""
        return inf if rng.random() > share else float(value) * rng.uniform(0.3, 1.1)

    groups = rng.integers(0, max(n // 2, 1), n)
    joint = Joint(
        groups=np.unique(groups, return_inverse=True)[1], group_cap=limit(np.bincount(groups, full).max()),
        norm=limit(np.linalg.norm(full)), top_count=int(rng.integers(1, 5)), top=limit(np.sort(full)[-2:].sum()),
        tail=tail, tail_limit=limit(max(tail.value(full), 1e-3), 0.6), quantile=spread, quantile_limit=limit(max(spread.value(full), 1e-3)),
        fee=rng.uniform(0, 0.002, n), fees=limit(0.001 * full.sum()),
    )  # fmt: skip
    closed = rng.random(n) < 0.1
    return Question(
        wish, held, committed, np.full(n, cap), np.where(closed, np.minimum(held, cap), cap),
        np.where(closed, 0.0, rng.uniform(0, 0.05, n) * (rng.random(n) < 0.5)), rng.choice([0.0, 0.001, 0.01], n), rng.uniform(0.5, 2, n),
        np.full(n, 0.1), rng.uniform(0.3, 1.2), rng.choice([0.05, 0.5, 10.0]),
        None if rng.random() < 0.7 else rng.uniform(0.01, 0.2, n), joint=joint,
    )  # fmt: skip


def cvar(returns, share, book, limit):
    """The constraint of Rockafellar & Uryasev, all scenarios as rows."""
    zeta = cp.Variable()
    return zeta + cp.sum(cp.pos(-returns @ book - zeta)) / (share * len(returns)) <= limit


def peer(q):
    """(objective, exactness of the rise) of the same program by cvxpy, or None where it does not solve."""
    n, j, h = len(q.wish), q.joint, q.committed
    w, rise, b = cp.Variable(n), cp.Variable(n), cp.Variable(n)
    up = h + rise + b
    risk = [(t, lim) for t, lim in ((j.tail, j.tail_limit), (j.quantile, j.quantile_limit)) if lim < inf]
    top = lambda book, count: np.sort(book)[-count:].sum()  # noqa: E731
    breached = (
        h.sum() > q.total or np.linalg.norm(h) > j.norm or (j.top < inf and top(h, j.top_count) > j.top)
        or any(measure.value(h) > lim for measure, lim in risk)
    )  # fmt: skip
    room = np.maximum(q.cap - h, 0) if q.liquidity is None else np.minimum(np.maximum(q.cap - h, 0), q.liquidity)
    ceiling = q.ceiling if q.liquidity is None else np.minimum(q.ceiling, h + q.liquidity)
    shut = np.full(n, breached)
    for g in range(j.groups.max() + 1):
        if h[j.groups == g].sum() > j.group_cap:
            shut |= j.groups == g
    ceiling = np.where(shut, np.minimum(ceiling, h), ceiling)
    step = q.wish - q.held
    wanted = np.clip(q.held + np.sign(step) * np.maximum(np.abs(step) - q.cost / q.tracking, 0), 0, ceiling)
    rules = [w >= 0, w <= wanted, b >= 0, b <= np.where(shut, 0, q.bids), rise >= w - h, rise >= 0, rise <= np.maximum(wanted - h, 0), rise + b <= np.where(shut, 0, room)]
    main, books = (w, [w]) if breached else (up, [up, w, w + b])
    rules += [cp.sum(main) <= q.total, cp.sum(rise + b) <= q.turnover]
    if j.fees < inf:
        rules.append(j.fee @ (rise + b) <= j.fees)
    if j.group_cap < inf:
        for g in range(j.groups.max() + 1):
            members = j.groups == g
            rules.append(cp.sum((w if breached or h[members].sum() > j.group_cap else up)[members]) <= j.group_cap)
    if j.norm < inf:
        rules.append(cp.norm(main) <= j.norm)
    if j.top < inf:
        rules.append(cp.sum_largest(main, min(j.top_count, n)) <= j.top)
    for book in books:
        if j.tail_limit < inf:
            rules.append(cvar(j.tail.scenarios, j.tail.share, book, j.tail_limit))
        if j.quantile_limit < inf:
            k = j.quantile
            rules.append(k.quantile * cp.norm(k.factor.T @ book) - k.drift @ book <= j.quantile_limit)
    cost = q.tracking @ cp.square(w - q.wish) / 2 + q.quote_tracking @ cp.square(b - q.bids) / 2 + q.cost @ cp.abs(w - q.held)
    problem = cp.Problem(cp.Minimize(cost), rules)
    for gap in (1e-11, 1e-9, 1e-8):
        with warnings.catch_warnings(), contextlib.suppress(cp.SolverError):
            warnings.simplefilter("ignore")  # says that the answer is inaccurate; the status says it too
            problem.solve(solver=cp.CLARABEL, tol_gap_abs=gap, tol_gap_rel=gap)
        if problem.status == "optimal":
            break
    else:
        return None
    excess = float(np.max(rise.value - np.maximum(w.value - h, 0)))
    return float(problem.value), excess


def compare(q):
    """(how it was solved, relative difference of the objectives, what is wrong or an empty text)."""
    answer = minimise(q)
    ours = objective(q, answer.weights, answer.bids)
    if (broken := violation(q, answer.weights, answer.bids)) > FEASIBLE:
        return answer.solver, inf, f"infeasible by {broken:.3g}"
    if (found := peer(q)) is None:
        return "peer_failed", 0.0, ""
    theirs, excess = found
    off = (ours - theirs) / max(abs(theirs), LEAST)
    if excess > 1e-5 and off > TOLERANCE:
        return "hedged", 0.0, ""  # their program may count a hedge as bought that is not: it bounds ours from below only
    return answer.solver, off, "" if abs(off) <= TOLERANCE else f"objective {ours:.9g}, cvxpy {theirs:.9g}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args()
    solved, worst, wrong = Counter(), 0.0, []
    for number in range(options.problems):
        how, off, problem = compare(random_question(np.random.default_rng([options.seed, number])))
        solved[how] += 1
        worst = max(worst, abs(off))
        if problem:
            wrong.append(f"problem {number}: {problem}")
    print("\n".join(wrong))
    print(f"{options.problems} problems, {dict(solved)}; largest relative difference {worst:.3g}; {len(wrong)} wrong")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
