"""Compiled loops are the same kernel: copy by copy, bar by bar, down every rung, with holes, delays, thin markets and several costs."""

import numpy as np
import pytest

from agents.core.errors import ConfigError
from agents.desk.limits import Limits
from agents.environment import compiled
from agents.environment.kernel import PortfolioKernel, VectorCosts
from agents.environment.vector import FORMS, VectorTradingEnvironment
from agents.market.history import CandleHistory, hour_features
from tests.environment.test_vector_kernel import candles

pytestmark = pytest.mark.skipif(not compiled.available(), reason="numba is not installed: pip install 'quartet[research]'")
COPIES = 64
CASES = {
    "plain": (VectorCosts(), Limits(), 1, {}),
    "thin, at several costs": (
        VectorCosts(impact=0.001, participation=0.2, min_notional=3.0), Limits(position_cap=0.5, turnover_day=0.8), 0,
        {"cost_scale": np.linspace(0.0, 4.0, COPIES)},
    ),
    "fixed cost in the objective": (VectorCosts(), Limits(turnover_cost_bps=5.0, tracking=2.0), 1, {"cost_scale": np.linspace(0.0, 4.0, COPIES)}),
    "ladder, late": (
        VectorCosts(), Limits(drawdown_warn=0.01, drawdown_stop=0.02, drawdown_reduce=0.03, drawdown_flatten=0.1), 2, {},
    ),
}  # fmt: skip


def holed():
    history = candles(rows=260, width=5, deviation=0.02)
    fields = [getattr(history, name).copy() for name in ("open", "high", "low", "close", "volume")]
    for each in fields:
        each[50:55, 2] = np.nan
        each[:20, 1] = np.nan
    return CandleHistory(history.symbols, "1h", history.times, *fields, funding=np.full(history.close.shape, 1e-5))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("funding", [False, True])
def test_compiled_steps_are_the_kernels(case, funding):
    costs, limits, delay, more = CASES[case]
    costs = VectorCosts(**{name: getattr(costs, name) for name in VectorCosts.__slots__} | {"funding": funding})
    kernels = [PortfolioKernel(holed(), costs, limits, COPIES, delay_bars=delay, compiled=fast, **more) for fast in (False, True)]
    rng = np.random.default_rng(0)
    start = rng.integers(0, 60, COPIES), 1_000.0, rng.uniform(0, 0.15, COPIES), rng.dirichlet(np.ones(5), COPIES) * rng.uniform(0, 1, (COPIES, 1))
    for kernel in kernels:
        kernel.reset(*start)
    rungs = set()
    for _ in range(150):
        target, multiplier = rng.uniform(-0.2, 0.5, (COPIES, 5)), rng.uniform(0.3, 1.2, COPIES)
        slow, fast = (kernel.step(target, multiplier) for kernel in kernels)
        for name in ("profit", "cost", "equity", "weights", "turnover", "traded", "safe"):
            np.testing.assert_allclose(getattr(fast, name), getattr(slow, name), rtol=1e-9, atol=1e-10, err_msg=name)
        np.testing.assert_array_equal(kernels[0].rung, kernels[1].rung)
        rungs |= set(kernels[0].rung.tolist())
    assert rungs >= ({2, 3, 4} if "ladder" in case else {2})


@pytest.mark.parametrize("form", FORMS)
def test_a_compiled_environment_is_the_same_environment(form):
    history = candles(rows=400, width=3, seed=8)
    features = hour_features(history)
    slow, fast = (
        VectorTradingEnvironment(history, 32, form=form, seed=0, features=features, episode_bars=20, compiled=compiled_) for compiled_ in (False, True)
    )
    seen = [environment.reset(seed=1)[0] for environment in (slow, fast)]
    slow.action_space.seed(0)
    for _ in range(50):
        np.testing.assert_allclose(seen[1], seen[0], rtol=1e-3, atol=2e-5)
        actions = slow.action_space.sample()
        told = [environment.step(actions) for environment in (slow, fast)]
        seen = [each[0] for each in told]
        np.testing.assert_allclose(told[1][1], told[0][1], rtol=1e-3, atol=2e-5)
        assert np.array_equal(told[0][2], told[1][2]) and np.array_equal(told[0][3], told[1][3])


def test_what_was_handed_out_stays_as_it_was():
    kernel = PortfolioKernel(candles(), copies=COPIES, compiled=True)
    kernel.reset(5)
    first = kernel.step(np.full((COPIES, 3), 0.2))
    kept = first.equity.copy(), first.weights.copy(), first.profit.copy()
    kernel.step(np.zeros((COPIES, 3)))
    assert all(np.array_equal(a, b) for a, b in zip(kept, (first.equity, first.weights, first.profit), strict=True))


def test_settled_sells_are_not_compiled():
    with pytest.raises(ConfigError, match="settled"):
        PortfolioKernel(candles(), compiled=True, settled=True)
