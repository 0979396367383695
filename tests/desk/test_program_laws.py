"""Laws of the projection with every limit of the whole book at random: feasible, monotone, idempotent, 0 and reductions always."""

from dataclasses import replace
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.desk import cones
from agents.desk.program import CLARABEL, FALLBACK, FEASIBLE, Joint, Question, minimise, objective, shrink
from agents.desk.question import CVAR, FEES, FILLED, HERFINDAHL, LIQUIDITY, QUOTED, REACHED, TOP_N, VAR, Frame, top_sum, violation
from agents.desk.tail import Quantile, Tail
from tests.desk.projection_proof import random_question

NAMES = ("group_cap", "norm", "top", "tail_limit", "quantile_limit", "fees")


@st.composite
def questions(draw, costs=True):
    q = random_question(np.random.default_rng([77, draw(st.integers(0, 100_000))]), n=draw(st.integers(1, 8)), rows=draw(st.integers(20, 80)))
    return q if costs else replace(q, cost=np.zeros(len(q.wish)))


def value(q):
    answer = minimise(q)
    return objective(q, answer.weights, answer.bids)


def without_hedges(q):
    """The same question where every symbol loses in the tail: what one may prove where no sale raises a risk."""
    tail = Tail(-np.abs(q.joint.tail.scenarios), q.joint.tail.share)
    spread = Quantile(np.abs(q.joint.quantile.factor), np.zeros(len(q.wish)), q.joint.quantile.quantile)
    return replace(q, joint=replace(q.joint, tail=tail, quantile=spread))


@settings(max_examples=80, deadline=None)
@given(questions())
def test_answers_are_feasible_in_every_book(q):
    answer = minimise(q)
    assert violation(q, answer.weights, answer.bids) <= FEASIBLE
    assert np.isfinite(answer.weights).all() and np.isfinite(answer.bids).all()
    assert all(np.isfinite(price) for price in answer.prices.values())
    joint, frame = q.joint, Frame(q)
    for book in frame.books(answer.weights, answer.bids).values():
        assert joint.tail.value(book) <= joint.tail_limit + 2e-9 and joint.quantile.value(book) <= joint.quantile_limit + 2e-9


@settings(max_examples=60, deadline=None)
@given(questions(), st.lists(st.floats(0.0, 1.0), min_size=8, max_size=8))
def test_nothing_rises_in_a_breached_book_and_reductions_of_a_safe_one_stay_possible(q, shares):
    none = np.zeros(len(q.wish))
    assert violation(q, none, none) <= FEASIBLE
    q = without_hedges(q)
    answer, kept = minimise(q), np.array(shares[: len(q.wish)])
    assert violation(q, np.minimum(answer.weights, q.held) * kept, none) <= FEASIBLE
    frame = Frame(q)
    if frame.breaches:
        assert (answer.weights <= q.committed + FEASIBLE).all() and not answer.bids.any()
        more = answer.weights.copy()
        more[0] = q.committed[0] + 1e-3
        assert violation(q, more, none) > 0


@settings(max_examples=50, deadline=None)
@given(questions(costs=False))
def test_projecting_twice_changes_nothing_at_zero_cost(q):
    once = minimise(q)
    twice = minimise(replace(q, wish=once.weights, bids=once.bids))
    assert np.allclose(once.weights, twice.weights, atol=1e-6) and np.allclose(once.bids, twice.bids, atol=1e-6)


@settings(max_examples=80, deadline=None)
@given(questions(), st.floats(0.2, 1.0), st.sampled_from(NAMES))
def test_wider_limits_never_cost_more(q, share, which):
    wide = replace(q, joint=replace(q.joint, **{which: 1.0 if getattr(q.joint, which) == inf else getattr(q.joint, which)}))
    tight = replace(q, joint=replace(q.joint, **{which: getattr(wide.joint, which) * share}))
    assert value(wide) <= value(tight) + 1e-7


@settings(max_examples=60, deadline=None)
@given(questions())
def test_no_limit_buys_or_keeps_what_nobody_wants(q):
    answer, free = minimise(q), Frame(q).desired
    assert (answer.weights <= free + 1e-12).all() and (answer.bids <= q.bids + 1e-12).all()
    assert (answer.weights <= np.maximum(q.wish, q.held) + 1e-12).all()


@settings(max_examples=60, deadline=None)
@given(questions())
def test_the_fallback_is_feasible(q):
    answer = shrink(q)
    assert answer.solver == FALLBACK and violation(q, answer.weights, answer.bids) <= FEASIBLE


@settings(max_examples=40, deadline=None)
@given(questions())
def test_a_solver_that_fails_leaves_no_way_around(q):
    spared = [settings_.max_iter for settings_ in cones.SETTINGS]
    try:
        for settings_ in cones.SETTINGS:
            settings_.max_iter = 1
        answer = minimise(q)
    finally:
        for settings_, number in zip(cones.SETTINGS, spared, strict=True):
            settings_.max_iter = number
    assert answer.solver != CLARABEL and violation(q, answer.weights, answer.bids) <= FEASIBLE


@settings(max_examples=60, deadline=None)
@given(questions(), st.integers(0, 1000))
def test_with_all_asks_filled_the_book_is_as_safe(q, seed):
    q = replace(q, asks=q.held * np.random.default_rng(seed).uniform(0, 1, len(q.held)))
    answer, j = minimise(q), q.joint
    assert (answer.asks <= q.asks).all()
    for measure, limit in ((j.tail, j.tail_limit), (j.quantile, j.quantile_limit)):
        assert measure.value(q.held - answer.asks) <= max(limit, measure.value(q.held)) + 2e-9
        assert measure.value(np.maximum(answer.weights - answer.asks, 0)) <= limit + 2e-9


# -- one limit at a time ---------------------------------------------------------------------------------------------


def sample(n=4, held=None, wish=0.2, bids=0.0, cost=0.0, **changes):
    held = np.zeros(n) if held is None else np.array(held)
    joint = Joint(**changes)
    return Question(
        np.full(n, wish), held, held, np.full(n, 0.25), np.full(n, 0.25), np.full(n, bids), np.full(n, cost), np.ones(n), np.full(n, 0.1),
        2.0, 10.0, joint=joint,
    )  # fmt: skip


SCENARIOS = np.random.default_rng(4).standard_t(4, (120, 4)) * 0.03 + np.random.default_rng(5).standard_t(4, (120, 1)) * 0.02
TAIL = Tail(SCENARIOS, 0.05)
SPREAD = Quantile(np.linalg.cholesky(np.cov(SCENARIOS.T)), np.zeros(4), 1.645)
FULL = np.full(4, 0.2)

CASES = {
    "cluster:1": {"groups": np.array([0, 1, 1, 1]), "group_cap": 0.3},
    HERFINDAHL: {"norm": 0.25},
    TOP_N: {"top_count": 2, "top": 0.3},
    CVAR: {"tail": TAIL, "tail_limit": TAIL.value(FULL) * 0.7},
    VAR: {"quantile": SPREAD, "quantile_limit": SPREAD.value(FULL) * 0.7},
    FEES: {"fee": np.full(4, 0.001), "fees": 0.0005},
}
FIELDS = {"cluster:1": "group_cap", HERFINDAHL: "norm", TOP_N: "top", CVAR: "tail_limit", VAR: "quantile_limit", FEES: "fees"}


@pytest.mark.parametrize("name", CASES)
def test_each_limit_binds_under_its_name_at_its_price(name):
    q = sample(**CASES[name])
    answer = minimise(q)
    assert answer.solver == CLARABEL and {n for n, price in answer.prices.items() if price > 1e-6} == {name}
    step = 1e-4 * getattr(q.joint, FIELDS[name])
    wider = replace(q, joint=replace(q.joint, **{FIELDS[name]: getattr(q.joint, FIELDS[name]) + step}))
    assert answer.prices[name] == pytest.approx((value(q) - value(wider)) / step, rel=2e-2)


@pytest.mark.parametrize("name", CASES)
def test_bids_count_in_each_limit(name):
    q = sample(bids=0.05, **CASES[name])
    answer = minimise(q)
    filled, j = answer.weights + answer.bids, q.joint
    assert violation(q, answer.weights, answer.bids) <= FEASIBLE
    reached = {
        "cluster:1": filled[1:].sum() - 0.3, HERFINDAHL: np.linalg.norm(filled) - 0.25, TOP_N: top_sum(filled, 2) - 0.3,
        CVAR: TAIL.value(filled) - j.tail_limit, VAR: SPREAD.value(filled) - j.quantile_limit, FEES: 0.001 * filled.sum() - 0.0005,
    }  # fmt: skip
    assert abs(reached[name]) < 1e-6


@pytest.mark.parametrize("name", [name for name in CASES if name != FEES])
def test_a_sale_that_is_still_to_come_frees_no_room_in_any_limit(name):
    held = [0.0, 0.2, 0.0, 0.0]
    q = sample(held=held, **CASES[name])
    q = replace(q, wish=np.array([0.2, 0.0, 0.2, 0.2]))
    answer = minimise(q)
    filled, j = np.maximum(answer.weights, held), q.joint
    assert answer.weights[1] == pytest.approx(0.0, abs=1e-6)
    assert {
        "cluster:1": filled[1:].sum() <= 0.3 + 1e-8, HERFINDAHL: np.linalg.norm(filled) <= 0.25 + 1e-8, TOP_N: top_sum(filled, 2) <= 0.3 + 1e-8,
        CVAR: TAIL.value(filled) <= j.tail_limit + 1e-8, VAR: SPREAD.value(filled) <= j.quantile_limit + 1e-8,
    }[name]  # fmt: skip


@pytest.mark.parametrize("name", [name for name in CASES if name != FEES])
def test_a_breached_book_may_only_fall_and_falls_into_the_limit(name):
    q = sample(held=[0.25, 0.25, 0.25, 0.25], wish=0.25, bids=0.05, **CASES[name])
    answer = minimise(q)
    assert (answer.weights <= 0.25).all() and violation(q, answer.weights, answer.bids) <= FEASIBLE and answer.solver == CLARABEL
    rises = answer.bids[[0]] if name == "cluster:1" else answer.bids
    assert name == "cluster:1" or not rises.any()
    assert name in answer.kept


def test_fees_hold_rises_and_not_reductions():
    q = replace(sample(held=[0.2, 0.0, 0.0, 0.0], fee=np.full(4, 0.001), fees=0.0), wish=np.array([0.0, 0.2, 0.2, 0.2]))
    answer = minimise(q)
    assert answer.weights == pytest.approx([0.0, 0.0, 0.0, 0.0], abs=1e-9) and FEES in answer.kept


def test_liquidity_bounds_a_rise_with_its_bid():
    q = replace(sample(held=[0.1, 0.0, 0.0, 0.1], bids=0.05), liquidity=np.array([0.03, 0.0, inf, 0.08]))
    answer = minimise(q)
    assert answer.weights + answer.bids == pytest.approx([0.13, 0.0, 0.25, 0.18], abs=1e-5)
    assert answer.kept[:2] == (LIQUIDITY, LIQUIDITY) and answer.kept[2] is None


def test_a_hedge_that_nobody_wants_is_neither_bought_nor_kept():
    returns = np.column_stack([SCENARIOS[:, 0], -SCENARIOS[:, 0]])
    tail = Tail(returns, 0.05)
    held = np.array([0.0, 0.2])
    q = Question(np.array([0.2, 0.0]), held, held, np.full(2, 0.25), np.full(2, 0.25), np.zeros(2), np.zeros(2), np.ones(2), np.full(2, 0.1), 1.0,
                 10.0, joint=Joint(tail=tail, tail_limit=tail.alone[0] * 0.1))  # fmt: skip
    answer = minimise(q)
    assert answer.weights[1] == 0.0, "what is to be sold is sold"
    assert answer.weights[0] == pytest.approx(0.1, abs=1e-6), "as much as is safe without it"


def test_scenarios_without_risk_and_a_limit_of_nothing():
    calm = Tail(np.zeros((30, 4)), 0.05)
    assert minimise(sample(tail=calm, tail_limit=0.01)).weights == pytest.approx(FULL)
    nothing = minimise(sample(tail=TAIL, tail_limit=0.0))
    assert not nothing.weights.any() and CVAR in nothing.kept


def test_the_warm_pool_changes_the_time_and_not_the_answer():
    q = sample(**CASES[CVAR])
    cold, warm = minimise(replace(q, joint=replace(q.joint, tail=Tail(SCENARIOS, 0.05)))), None
    for _ in range(3):
        warm = minimise(q)
    assert len(TAIL.planes) and np.allclose(cold.weights, warm.weights, atol=1e-7)


def test_each_book_is_looked_at():
    q = random_question(np.random.default_rng(3), n=3, rows=30)
    frame = Frame(replace(q, joint=Joint(), total=5.0))
    weights, bids = np.array([0.1, 0.0, 0.2]), np.array([0.01, 0.02, 0.0])
    books = frame.books(weights, bids)
    assert set(books) == {REACHED, FILLED, QUOTED}
    assert np.array_equal(books[FILLED], np.maximum(weights, q.committed) + bids) and np.array_equal(books[QUOTED], weights + bids)
