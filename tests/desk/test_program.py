"""The convex program against an independent solver, and the laws it must keep whatever the numbers."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from agents.desk import cones, program
from agents.desk.program import CLARABEL, FALLBACK, FEASIBLE, SHORTCUT, Question, minimise, objective, shrink, violation

weight = st.floats(0.0, 0.5)


@st.composite
def questions(draw, size=None, costs=True):
    n = size or draw(st.integers(1, 6))

    def column(each):
        return np.array(draw(st.lists(each, min_size=n, max_size=n)))

    held = column(st.sampled_from([0.0, 0.0, 1.0])) * column(weight)
    cap = np.full(n, draw(st.floats(0.05, 0.5)))
    closed = column(st.booleans())
    return Question(
        wish=column(weight),
        held=held,
        committed=held + column(st.sampled_from([0.0, 0.0, 1.0])) * column(st.floats(0.0, 0.1)),
        cap=cap,
        ceiling=np.where(closed, np.minimum(cap, held), cap),
        bids=np.where(closed, 0.0, column(st.floats(0.0, 0.1))),
        cost=column(st.floats(0.0, 0.02)) if costs else np.zeros(n),
        tracking=column(st.floats(0.5, 2.0)),
        quote_tracking=np.full(n, 0.1),
        total=draw(st.floats(0.0, 1.0)),
        turnover=draw(st.sampled_from([0.0, 0.05, 0.3, 10.0])),
    )


def peer(q):
    """The same optimum by sequential quadratic programming on trades u, v >= 0, with w = p + u - v."""
    n = len(q.wish)
    committed = float(q.committed.sum())

    def split(x):
        return q.held + x[:n] - x[n : 2 * n], x[2 * n : 3 * n], x[3 * n :]

    def cost(x):
        w, _, b = split(x)
        d = q.tracking * (w - q.wish) ** 2 + q.quote_tracking * (b - q.bids) ** 2
        return d.sum() / 2 + (q.cost * (x[:n] + x[n : 2 * n])).sum()

    def room(x):
        w, rise, b = split(x)
        top = np.maximum(q.cap, q.committed)
        return np.concatenate([
            q.ceiling - w, w, q.committed + rise - w, top - w - b, top - q.committed - b,
            [max(q.total, committed) - committed - (rise + b).sum(), q.total - w.sum(), q.turnover - (rise + b).sum()],
        ])  # fmt: skip

    bounds = [(0, 2)] * (3 * n) + [(0, b) for b in q.bids]
    start = np.concatenate([np.zeros(n), q.held, np.zeros(2 * n)])
    done = minimize(cost, start, method="SLSQP", bounds=bounds, constraints={"type": "ineq", "fun": room},
                    options={"ftol": 1e-14, "maxiter": 500})  # fmt: skip
    return float(done.fun) if room(done.x).min() > -1e-9 else None


def test_same_objective_as_an_independent_solver():
    rng = np.random.default_rng(5)
    checked = 0
    for _ in range(120):
        n = int(rng.integers(1, 5))
        held = rng.uniform(0, 0.25, n) * (rng.random(n) < 0.7)
        q = Question(
            rng.uniform(0, 0.4, n), held, held + rng.uniform(0, 0.05, n) * (rng.random(n) < 0.3), np.full(n, 0.2),
            np.where(rng.random(n) < 0.2, np.minimum(held, 0.2), 0.2), rng.uniform(0, 0.05, n), rng.choice([0.0, 0.001, 0.02], n),
            rng.uniform(0.5, 2, n), np.full(n, 0.1), rng.uniform(0.1, 0.9), rng.choice([0.05, 10.0]),
        )  # fmt: skip
        answer = minimise(q)
        assert violation(q, answer.weights, answer.bids) <= FEASIBLE
        if (theirs := peer(q)) is None:
            continue
        ours = objective(q, answer.weights, answer.bids)
        assert ours <= theirs + 1e-5 * max(abs(theirs), 1e-4), (q, ours, theirs)
        assert ours >= theirs - 1e-5 * max(abs(theirs), 1e-3), (q, ours, theirs)
        checked += answer.solver == CLARABEL
    assert checked > 40


@settings(max_examples=150, deadline=None)
@given(questions())
def test_answers_are_feasible(q):
    answer = minimise(q)
    assert violation(q, answer.weights, answer.bids) <= FEASIBLE
    assert np.isfinite(answer.weights).all() and np.isfinite(answer.bids).all()


@settings(max_examples=100, deadline=None)
@given(questions())
def test_zero_and_every_reduction_are_feasible(q):
    none = np.zeros(len(q.wish))
    assert violation(q, none, none) <= FEASIBLE
    kept = np.minimum(q.held, q.ceiling)
    kept = kept * (q.total / kept.sum()) if kept.sum() > q.total else kept
    for share in (1.0, 0.5, 0.01):
        assert violation(q, share * kept, none) <= FEASIBLE


@settings(max_examples=100, deadline=None)
@given(questions(costs=False))
def test_projecting_twice_changes_nothing_at_zero_cost(q):
    once = minimise(q)
    twice = minimise(replace(q, wish=once.weights, bids=once.bids))
    assert np.allclose(once.weights, twice.weights, atol=1e-7) and np.allclose(once.bids, twice.bids, atol=1e-7)


@settings(max_examples=100, deadline=None)
@given(questions(), st.floats(0.0, 1.0), st.sampled_from(["total", "turnover", "cap"]))
def test_wider_limits_never_cost_more(q, share, which):
    if which == "cap":
        cap = q.cap * share
        tight = replace(q, cap=cap, ceiling=np.minimum(q.ceiling, cap))
    else:
        tight = replace(q, **{which: getattr(q, which) * share})
    wide_answer, tight_answer = minimise(q), minimise(tight)
    assert objective(q, wide_answer.weights, wide_answer.bids) <= objective(q, tight_answer.weights, tight_answer.bids) + 1e-7


@settings(max_examples=100, deadline=None)
@given(questions())
def test_no_weight_rises_beyond_the_wish_nor_falls_below_both_wish_and_holding(q):
    answer = minimise(q)
    assert (answer.weights <= np.maximum(q.wish, q.held) + 1e-6).all()
    assert (answer.bids <= q.bids + 1e-12).all()


@settings(max_examples=150, deadline=None)
@given(questions())
def test_fallback_is_feasible_and_the_largest_shrink(q):
    answer = shrink(q)
    assert answer.solver == FALLBACK
    assert violation(q, answer.weights, answer.bids) <= FEASIBLE
    boxed = np.clip(q.wish, 0, q.weight_room)
    if boxed.sum() > 1e-3 and answer.weights.sum() < boxed.sum() * 0.999:
        scale = answer.weights.sum() / boxed.sum() + 1e-4
        assert violation(q, scale * boxed, scale * q.bid_room) > 0


def sample(**changes):
    n = 3
    base = Question(
        np.array([0.1, 0.1, 0.1]), np.zeros(n), np.zeros(n), np.full(n, 0.2), np.full(n, 0.2), np.full(n, 0.01), np.zeros(n),
        np.ones(n), np.full(n, 0.1), 0.98, 10.0,
    )  # fmt: skip
    return replace(base, **changes)


def test_a_feasible_wish_is_granted_without_a_solver():
    answer = minimise(sample())
    assert answer.solver == SHORTCUT
    assert answer.weights == pytest.approx([0.1, 0.1, 0.1]) and answer.total_price == 0


def test_the_shortcut_agrees_with_the_solver():
    q = sample(cost=np.array([0.001, 0.02, 0.2]), held=np.array([0.05, 0.15, 0.0]), committed=np.array([0.05, 0.15, 0.0]))
    solved, quick = program._solve(q), minimise(q)
    assert quick.solver == SHORTCUT and solved.solver == CLARABEL
    assert quick.weights == pytest.approx(solved.weights, abs=1e-6)
    assert quick.weights == pytest.approx([0.099, 0.12, 0.0])
    capped = replace(q, wish=np.array([0.5, 0.1, 0.1]))
    assert minimise(capped).ceiling_price == pytest.approx(program._solve(capped).ceiling_price, abs=1e-6)


def test_a_binding_total_is_priced_by_what_it_costs():
    q = sample(total=0.2)
    answer = minimise(q)
    assert answer.solver == CLARABEL
    wider = minimise(replace(q, total=0.2 + 1e-4))
    gain = objective(q, answer.weights, answer.bids) - objective(q, wider.weights, wider.bids)
    assert answer.total_price == pytest.approx(gain / 1e-4, rel=1e-2)


def test_a_position_still_to_be_sold_frees_no_room_for_a_buy():
    q = sample(wish=np.array([0.0, 0.2, 0.0]), held=np.array([0.2, 0.0, 0.0]), committed=np.array([0.2, 0.0, 0.0]), total=0.25)
    answer = minimise(q)
    assert answer.weights[0] == pytest.approx(0.0, abs=1e-6)
    assert 0.2 + answer.weights[1] + answer.bids.sum() <= 0.25 + 1e-9


def test_bids_shrink_before_weights():
    q = sample(wish=np.full(3, 0.195))
    answer = minimise(q)
    assert (answer.weights + answer.bids <= 0.2 + 1e-9).all()
    assert (0.195 - answer.weights).max() < (0.01 - answer.bids).min() / 5


def test_breached_book_may_only_fall():
    held = np.array([0.4, 0.3, 0.0])
    answer = minimise(sample(wish=held, held=held, committed=held, total=0.5))
    assert answer.weights.sum() <= 0.5 + 1e-9 and (answer.weights <= held).all() and not answer.bids.any()


def test_a_solver_that_fails_is_replaced_by_the_shrink(monkeypatch):
    for settings_ in cones.SETTINGS:
        monkeypatch.setattr(settings_, "max_iter", 1)
    answer = minimise(sample(total=0.2))
    assert answer.solver == FALLBACK
    assert violation(sample(total=0.2), answer.weights, answer.bids) <= FEASIBLE


@pytest.mark.parametrize(
    ("weights", "bids", "excess"),
    [
        ([0.1, 0.1, 0.1], [0.01, 0.01, 0.01], None),
        ([0.25, 0.0, 0.0], [0.0, 0.0, 0.0], 0.05),
        ([-0.03, 0.0, 0.0], [0.0, 0.0, 0.0], 0.03),
        ([0.0, 0.0, 0.0], [0.03, 0.0, 0.0], 0.02),
        ([0.0, 0.0, 0.0], [-0.02, 0.0, 0.0], 0.02),
        ([0.195, 0.0, 0.0], [0.01, 0.0, 0.0], 0.005),
        ([0.2, 0.2, 0.0], [0.0, 0.0, 0.01], 0.06),
    ],
)
def test_violation_measures_each_bound(weights, bids, excess):
    q = sample(total=0.35)
    found = violation(q, np.array(weights), np.array(bids))
    assert found <= 0 if excess is None else found == pytest.approx(excess)
