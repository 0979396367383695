"""What the arrays show and mean is what the desk shows and means, column by column, over a life with trades, losses and midnights."""

import os
from pathlib import Path

import numpy as np
import pytest

from agents.desk.limits import Limits
from agents.desk.rewards.functions import RewardFunctions
from agents.desk.rewards.scale import Covariance
from agents.environment.comovement import correlations, covariances
from agents.environment.kernel import PortfolioKernel, VectorCosts
from agents.environment.long_term_view import LongTermView
from agents.environment.risk_view import RiskView, tightening
from agents.market.columns import SPECS
from agents.market.history import load_history
from agents.market.state import MarketState
from tests.environment.desk_path import DeskPath, bars
from tests.environment.test_vector_kernel import candles

COSTS = VectorCosts(fee_bps=10.0, half_spread_bps=2.0)


def both_live(history, limits, start, steps, seed, before=None):
    """Both paths from bar `start` on under the same random actions, compared at every bar; returns the desk and how much was traded."""
    rng, width = np.random.default_rng(seed), len(history.symbols)
    desk = DeskPath(history, limits, COSTS)
    for row in range(start + 1):
        desk.live(row)
    kernel = PortfolioKernel(history, COSTS, limits)
    view = LongTermView(kernel)
    watch = RiskView(view)
    kernel.reset(start, equity=10_000.0)
    view.restart(np.array([0]))
    traded = 0.0
    for row in range(start, start + steps):
        ours, theirs = view.observe()[0], desk.see()
        for number, name in enumerate(SPECS["long_term"].columns):
            np.testing.assert_allclose(ours[:, number], theirs.matrix[:, number], rtol=2e-5, atol=2e-6, err_msg=f"{name} after bar {row}")
        actions = rng.uniform(-1, 1, (width, 4)).astype(np.float32)
        actions[:, 0] = np.where(rng.random(width) < 0.5, 1.0, actions[:, 0])
        _, gross = view.propose(ours[None], actions[None])
        wishes, multiplier, _ = desk.decide(theirs, actions)
        np.testing.assert_allclose(gross, multiplier, rtol=1e-4)
        ours = watch.observe()[0]
        for number, name in enumerate(SPECS["risk"].columns):
            np.testing.assert_allclose(ours[number], desk.watched.matrix[0, number], rtol=5e-5, atol=5e-6, err_msg=f"risk: {name} after bar {row}")
        tighter = rng.uniform(-1, 1, 2).astype(np.float32)
        gross, budget = watch.propose(ours[None], tighter[None])
        _, multiplier, safe = desk.decide(theirs, actions, tighter)
        np.testing.assert_allclose(budget[0], desk.standing.risk.budget_multiplier, rtol=1e-4)
        np.testing.assert_allclose(view.wishes.weight[0], [wish.weight for wish in wishes], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(view.wishes.stop[0], [wish.stop_distance for wish in wishes], rtol=1e-4)
        np.testing.assert_allclose(gross, multiplier, rtol=1e-4)
        held, equity = kernel.weights, kernel.equity
        result = kernel.step(view.joint(gross), gross)
        np.testing.assert_allclose(result.safe[0], safe, rtol=1e-3, atol=2e-5)
        desk.trade(row + 1, result.safe[0])
        desk.live(row + 1)
        view.follow(held, equity, result)
        traded += float(result.turnover[0])
        np.testing.assert_allclose(kernel.equity[0], desk.equity(), rtol=1e-9)
        np.testing.assert_allclose(kernel.weights[0], desk.weights(), rtol=1e-6, atol=1e-9)
    return desk, kernel, traded


def test_the_view_is_the_desks():
    history = candles(rows=130, width=3, seed=4, deviation=0.012, drift=0.001)
    desk, _, traded = both_live(history, Limits(position_cap=0.4), 50, 50, seed=1)
    assert traded > 0.5 and desk.ledger.turnover > 0


def test_the_view_is_the_desks_down_the_ladder():
    """A falling market: every rung that stops buying is reached, and both paths obey it."""
    history = candles(rows=160, width=2, seed=9, deviation=0.015, drift=0.006)
    history.close[90:] *= np.exp(-0.02 * np.arange(70))[:, None]
    history.open[91:] = history.close[90:-1]
    history.high[90:] = np.maximum(history.open[90:], history.close[90:]) * 1.001
    history.low[90:] = np.minimum(history.open[90:], history.close[90:]) * 0.999
    desk, kernel, _ = both_live(
        history, Limits(position_cap=0.5, drawdown_warn=0.002, drawdown_stop=0.004, drawdown_reduce=0.006, drawdown_flatten=0.3), 40, 115, seed=2
    )
    assert desk.state.rung == "reduce" and kernel.rung[0] == 3


def test_a_wish_for_more_than_everything_is_weighed_at_everything():
    """The multiplier beside the long-term form is the risk agent's own at action 0, for books that the limits would cut first too."""
    kernel = PortfolioKernel(candles(rows=130, deviation=0.01), COSTS, copies=40)
    view = LongTermView(kernel)
    kernel.reset(100, drawdown=np.linspace(0.0, 0.15, 40))
    view.wishes.weight = np.random.default_rng(0).uniform(0.0, 1.5, (40, 3))
    watch = RiskView(view)
    ours, theirs = view._tightened(view.wishes.weight), watch.propose(watch.observe(), np.zeros((40, 2)))[0]
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    assert len(np.unique(ours.round(6))) > 20 and ours.min() < 0.5


def test_the_risk_reward_is_the_desks():
    rng, functions = np.random.default_rng(0), RewardFunctions()
    book = rng.dirichlet(np.ones(4), 50) * rng.uniform(0, 1, (50, 1))
    book[7] = 0.0
    returns, multiplier, drawdown = rng.normal(0, 0.01, (50, 4)), rng.uniform(0.05, 0.95, 50), rng.uniform(0, 0.3, 50)
    factors = rng.normal(0, 0.5, (50, 4, 4))
    covariance = factors @ factors.transpose(0, 2, 1)
    ours = tightening(functions, multiplier, book, returns, covariance, drawdown, 1 / 8760)
    theirs = [functions.tightening(*each, 1 / 8760) for each in zip(multiplier, book, returns, covariance, drawdown, strict=True)]
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    assert ours[7] == 0.0


def test_correlations_are_the_markets():
    history = candles(rows=60, width=3, seed=2)
    fields = [getattr(history, name) for name in ("open", "high", "low", "close", "volume")]
    for each in fields:
        each[:20, 1] = np.nan
        each[30:33, 2] = np.nan
    market, ours = MarketState(history.symbols), correlations(history)
    for row in range(60):
        for bar in reversed(list(bars(history, row))):  # whoever was away comes before those who complete the row
            market.apply(bar)
        market._pass(int(history.closings[row]))  # the grace after a bar that never comes
        np.testing.assert_allclose(ours[row], market.correlation(history.symbols), rtol=1e-5, atol=1e-6)


def test_covariances_are_the_reward_books_and_look_at_nothing_that_comes_later():
    history = candles(rows=60, width=3, seed=2)
    running, ours = Covariance(3), covariances(history)
    for row in range(1, 60):
        np.testing.assert_allclose(ours[row], running.matrix, rtol=1e-5)
        running.update(history.returns()[row], 1 / 8760)
    np.testing.assert_array_equal(covariances(history.rows(0, 40)), ours[:40])


@pytest.mark.skipif("QUARTET_DATA" not in os.environ, reason="QUARTET_DATA names no folder of recorded markets")
def test_the_view_is_the_desks_on_recorded_candles():
    folder = Path(os.environ["QUARTET_DATA"]) / "ohlcv" / "binance"
    history = load_history(folder, ["BTC/USDT", "ETH/USDT", "LTC/USDT"], timeframe="1h", start=1_672_531_200 * 10**9, end=1_676_000_000 * 10**9)
    both_live(history, Limits(position_cap=0.4), 700, 60, seed=3)
