"""The arrays of many accounts: the projection is the desk's, money is conserved, nothing is bought that cannot be paid."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.errors import ConfigError, DataError
from agents.core.instruments import Symbol
from agents.desk.limits import RUNGS, Limits, RiskState
from agents.desk.program import Question, minimise, objective, violation
from agents.environment.allocation import allocate
from agents.environment.kernel import PortfolioKernel, VectorCosts, simulate
from agents.market.features import HOUR
from agents.market.history import CandleHistory

FREE = VectorCosts(fee_bps=0.0, half_spread_bps=0.0)
OPEN = Limits(cash_buffer=0.0, position_cap=1.0, turnover_day=1e9, drawdown_warn=0.97, drawdown_stop=0.98, drawdown_reduce=0.99, drawdown_flatten=1.0)
START = 1_640_995_200 * 10**9


def candles(rows=120, width=3, seed=0, deviation=0.01, gap=0.002, drift=0.0):
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(drift, deviation, (rows, width)), axis=0))
    opened = np.vstack([np.full((1, width), 100.0), close[:-1] * np.exp(rng.normal(0, gap, (rows - 1, width)))])
    high, low = np.maximum(opened, close) * 1.002, np.minimum(opened, close) * 0.998
    times = START + HOUR * np.arange(rows, dtype=np.int64)
    symbols = tuple(Symbol(f"S{i}/USDT") for i in range(width))
    return CandleHistory(symbols, "1h", times, opened, high, low, close, rng.gamma(2.0, 1e4, (rows, width)))


@st.composite
def programs(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    width, settled = int(rng.integers(1, 12)), bool(draw(st.booleans()))
    held = rng.dirichlet(np.ones(width)) * rng.uniform(0, 1.2)
    cap = rng.uniform(0.05, 1)
    closed = rng.random(width) < 0.2
    none = np.zeros(width)
    question = Question(
        np.maximum(rng.normal(0.1, 0.3, width), 0), held, none if settled else held, np.full(width, cap),
        np.where(closed, np.minimum(cap, held), cap), none, rng.uniform(0, 0.02, width) * draw(st.booleans()),
        np.full(width, rng.uniform(0.5, 2)), np.full(width, 0.1), rng.uniform(0, 1), 10.0 if settled else float(rng.choice([0.1, 10.0])),
    )  # fmt: skip
    return question, settled


@given(programs())
@settings(max_examples=400)
def test_the_allocation_is_the_desks_program(program):
    question, settled = program
    q, none = question, np.zeros_like(question.wish)
    theirs = minimise(q)
    ours = allocate(
        q.wish[None], q.held[None], q.ceiling[None], q.cost, np.array([q.turnover]), np.array([q.total]), q.tracking[0], settled
    )[0]
    assert violation(q, ours, none) <= 1e-9
    assert objective(q, ours, none) <= objective(q, theirs.weights, none) + 1e-7
    assert np.abs(ours - theirs.weights).max() < 1e-3  # strictly convex: near in value is near in place


def test_the_turnover_budget_holds_where_sells_are_settled():
    held, wish, high = np.array([[0.5, 0.0, 0.0]]), np.array([[0.0, 0.4, 0.4]]), np.full((1, 3), 1.0)
    weights = allocate(wish, held, high, 0.0, np.array([0.3]), np.array([0.98]), settled=True)[0]
    np.testing.assert_allclose(weights, [0.0, 0.15, 0.15], atol=1e-12)


def test_a_sell_that_has_not_filled_frees_no_room():
    held, wish, high = np.array([[0.9, 0.0]]), np.array([[0.0, 0.9]]), np.full((1, 2), 1.0)
    bound = (np.array([10.0]), np.array([0.98]))
    np.testing.assert_allclose(allocate(wish, held, high, 0.0, *bound)[0], [0.0, 0.08], atol=1e-12)
    np.testing.assert_allclose(allocate(wish, held, high, 0.0, *bound, settled=True)[0], [0.0, 0.9], atol=1e-12)


def test_the_ladder_is_the_desks():
    """The rungs of random equity paths equal RiskState's, latches included."""
    limits, rng, width = Limits(), np.random.default_rng(3), 64
    kernel = PortfolioKernel(candles(), FREE, limits, width)
    states = [RiskState() for _ in range(width)]
    kernel.reset(0)
    for state in states:
        state.mark(1.0, 1.0, limits)
    seen = set()
    for _ in range(300):
        kernel.equity = kernel.equity * np.exp(rng.normal(0, 0.02, width))
        np.maximum(kernel.peak, kernel.equity, out=kernel.peak)
        kernel._climb()
        rungs = [state.mark(float(equity), 1.0, limits) for state, equity in zip(states, kernel.equity, strict=True)]
        assert [RUNGS[rung] for rung in kernel.rung] == rungs
        seen |= set(rungs)
    assert seen == set(RUNGS)


def test_without_costs_a_held_book_moves_with_its_prices():
    history = candles()
    kernel = PortfolioKernel(history, FREE, OPEN, 2)
    weights = np.array([[0.2, 0.3, 0.5], [0.0, 1.0, 0.0]])
    kernel.reset(4, weights=weights)
    for _ in range(30):
        kernel.step(kernel.weights)
    growth = weights @ (history.close[34] / history.close[4])
    np.testing.assert_allclose(kernel.equity, growth, rtol=1e-12)
    np.testing.assert_allclose(kernel.weights, weights * (history.close[34] / history.close[4]) / growth[:, None], rtol=1e-12)


@pytest.mark.parametrize("settled", [False, True])
def test_money_is_conserved_and_every_cost_is_paid_once(settled):
    """Against quantities and cash kept by hand."""
    history, rng = candles(seed=5), np.random.default_rng(1)
    costs = VectorCosts(fee_bps=12.0, half_spread_bps=3.0, impact=0.001, depth=0.05)
    kernel = PortfolioKernel(history, costs, Limits(turnover_cost_bps=0.0), settled=settled)
    kernel.reset(0, equity=10_000.0)
    quantity, cash = np.zeros(3), 10_000.0
    for row in range(60):
        marks, opened = history.close[row], history.open[row + 1]
        equity = cash + quantity @ marks
        result = kernel.step(rng.uniform(0, 0.5, (1, 3)))
        trade = result.traded[0] * equity / marks
        displayed = costs.depth * history.volume[row + 1]
        worse = 3e-4 + 0.001 * np.sqrt(np.abs(trade) / displayed)
        paid = np.abs(trade) * opened * worse + np.abs(trade) * opened * (1 + np.sign(trade) * worse) * 12e-4
        cash -= trade @ opened + paid.sum()
        quantity = quantity + trade
        after = cash + quantity @ history.close[row + 1]
        assert cash > 0 and (quantity >= -1e-9).all()
        np.testing.assert_allclose(result.cost[0] * equity, paid, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(result.equity, after, rtol=1e-12)
        np.testing.assert_allclose(result.profit.sum() * equity, after - equity, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(result.weights[0], quantity * history.close[row + 1] / after, rtol=1e-9, atol=1e-12)


def test_an_opening_far_above_the_mark_is_paid_out_of_cash_only():
    history = candles(rows=6, width=2)
    opened = history.open.copy()
    opened[3] = history.close[2] * 3
    close = history.close.copy()
    close[3:] = opened[3]
    jumped = CandleHistory(history.symbols, "1h", history.times, opened, np.maximum(opened, close) * 2, np.minimum(opened, close) / 2, close, history.volume)
    jumped_kernel = PortfolioKernel(jumped, VectorCosts(), OPEN)
    jumped_kernel.reset(2)
    result = jumped_kernel.step(np.array([[0.5, 0.5]]))
    assert result.weights.sum() <= 1 + 1e-12 and 0.9 < result.turnover[0] <= 1


def test_delay_shifts_the_same_fills():
    """What a delay of two bars trades is what was wished one bar earlier."""
    history, path = candles(rows=40), np.random.default_rng(0).uniform(0, 0.3, (30, 3))
    one = simulate(PortfolioKernel(history, FREE, OPEN), np.vstack([np.zeros((1, 3)), path[:-1]]))
    two = simulate(PortfolioKernel(history, FREE, OPEN, delay_bars=2), path)
    np.testing.assert_allclose(one.equity, two.equity, rtol=1e-12)


def test_no_delay_trades_at_the_mark():
    history = candles(gap=0.05)
    kernel = PortfolioKernel(history, FREE, OPEN, delay_bars=0)
    kernel.reset(7)
    result = kernel.step(np.array([[0.5, 0.0, 0.0]]))
    assert result.equity[0] == pytest.approx(1 + 0.5 * (history.close[8, 0] / history.close[7, 0] - 1))


def test_one_run_judges_several_costs_and_costs_only_hurt():
    history, path = candles(rows=80), np.random.default_rng(0).uniform(0, 0.3, (79, 3))
    limits = Limits(turnover_cost_bps=0.0)
    curve = simulate(PortfolioKernel(history, VectorCosts(), limits, 4, cost_scale=np.array([0.0, 1.0, 2.0, 4.0])), path)
    alone = simulate(PortfolioKernel(history, VectorCosts(20.0, 2.0), limits), path)
    np.testing.assert_allclose(curve.equity[:, 2], alone.equity, rtol=1e-6)  # a fee on the spread is scaled twice
    assert (np.diff(curve.equity[-1]) < 0).all() and curve.cost[:, 0].sum() == 0
    assert curve.times[0] == history.closings[0] and curve.returns.shape == (79, 4)


def test_what_has_no_candle_is_neither_traded_nor_marked():
    whole = candles(rows=30, width=2)
    fields = [getattr(whole, name).copy() for name in ("open", "high", "low", "close", "volume")]
    for each in fields:
        each[10:14, 0] = np.nan
        each[:5, 1] = np.nan
    history = CandleHistory(whole.symbols, "1h", whole.times, *fields)
    kernel = PortfolioKernel(history, FREE, OPEN)
    kernel.reset(3)
    assert kernel.step(np.array([[0.4, 0.4]])).traded[0].tolist() == [pytest.approx(0.4), 0.0]
    kernel.reset(9, weights=[0.3, 0.3])
    for _ in range(4):  # bars 10 to 13
        result = kernel.step(np.array([[0.0, 0.3]]))
        assert result.traded[0, 0] == 0 and result.profit[0, 0] == 0
    result = kernel.step(np.array([[0.0, 0.3]]))  # the first opening after the hole: sold there, whatever the last mark was
    assert result.traded[0, 0] < 0 and result.profit[0, 0] == pytest.approx(
        result.traded[0, 0] * -1 * (whole.open[14, 0] / whole.close[9, 0] - 1), abs=0.002
    )


def test_participation_and_the_smallest_order():
    history = candles()
    kernel = PortfolioKernel(history, VectorCosts(participation=0.01), OPEN)
    kernel.reset(0, equity=1e7)
    result = kernel.step(np.array([[0.5, 0.0, 0.0]]))
    assert result.traded[0, 0] * 1e7 == pytest.approx(0.01 * history.volume[1, 0] * history.open[1, 0])
    small = PortfolioKernel(history, VectorCosts(min_notional=5.0), OPEN)
    small.reset(0, equity=100.0)
    assert small.step(np.array([[0.04, 0.0, 0.3]])).traded[0].tolist() == [0.0, 0.0, pytest.approx(0.299)]


def test_funding_is_paid_where_it_is_asked_for():
    history = candles()
    with pytest.raises(DataError, match="no funding rates"):
        PortfolioKernel(history, VectorCosts(funding=True))
    fields = [getattr(history, name) for name in ("open", "high", "low", "close", "volume")]
    funded = CandleHistory(history.symbols, "1h", history.times, *fields, funding=np.full(history.close.shape, 1e-3))
    curves = [simulate(PortfolioKernel(funded, VectorCosts(0, 0, funding=on), OPEN), np.full((50, 3), 0.2)) for on in (False, True)]
    assert curves[1].equity[-1] / curves[0].equity[-1] == pytest.approx((1 - 0.6e-3) ** 50, rel=2e-3)


def test_shorts_and_leverage_are_wishes_for_less():
    kernel = PortfolioKernel(candles(), FREE, Limits(position_cap=0.6))
    kernel.reset(0)
    safe = kernel.step(np.array([[5.0, 5.0, -3.0]])).safe[0]
    assert safe[2] == 0 and safe.sum() <= 0.98 + 1e-9 and safe.max() <= 0.6


def test_single_precision_follows_double():
    history, path = candles(rows=300), np.random.default_rng(0).uniform(-0.1, 0.4, (299, 3))
    double, single = (simulate(PortfolioKernel(history, dtype=dtype), path) for dtype in (np.float64, np.float32))
    np.testing.assert_allclose(single.equity, double.equity, rtol=2e-5)


def test_bad_questions_are_answered_by_name():
    kernel = PortfolioKernel(candles(), copies=2)
    wish = np.zeros((2, 3))
    wish[1, 2] = np.nan
    with pytest.raises(ConfigError, match="S2/USDT in copy 1 is nan"):
        kernel.step(wish)
    with pytest.raises(ConfigError, match="gross_multiplier is nan"):  # it would compare as no bound at all
        PortfolioKernel(candles()).step(np.ones((1, 3)), np.nan)
    with pytest.raises(ConfigError, match="copies by symbols"):
        kernel.step(np.zeros(3))
    with pytest.raises(ConfigError, match="spot has no leverage"):
        kernel.reset(0, weights=[0.9, 0.9, 0.0])
    with pytest.raises(ConfigError, match="equity at a reset is 0"):
        kernel.reset(0, equity=0.0)
    with pytest.raises(ConfigError, match="equity at a reset is nan"):
        kernel.reset(0, equity=np.array([1.0, np.nan]))
    with pytest.raises(ConfigError, match="drawdown at a reset is 1"):
        kernel.reset(0, drawdown=1.0)
    with pytest.raises(DataError, match="cannot start at bar"):
        kernel.reset(119)
    with pytest.raises(ConfigError, match="fee_bps"):
        VectorCosts(fee_bps=float("nan"))
    with pytest.raises(ConfigError, match="delay_bars"):
        PortfolioKernel(candles(), delay_bars=-1)
    with pytest.raises(DataError, match="path cannot start"):
        simulate(PortfolioKernel(candles()), np.zeros((5, 3)), start=200)
