"""Arrays and event-driven rooms live the same life on the same candles: which bars trade, which side, how much, at what cost, to what end.

Tolerances, and why. The arrays know no grid and no limit prices, the rooms do.
- Where a cap or the last cash is wished for, the planner keeps room for its order's limit price and fee: it buys up to
  `slippage` + fee (0.13 % of equity) less and makes up for it a bar later. Any trade may differ by that, trades smaller than twice that
  are not compared by side, and equity agrees within 1e-4 over hundreds of bars (measured: up to 8e-6 with the last cash in use, 2e-8
  without).
- With a fine grid (prices 1e-8, quantities 1e-10) nothing else is left but the solver's 1e-8.
- On the recorded grid the imagined book is rounded outward to the tick and an impact is rounded once more, so that a trade costs the rooms
  up to two ticks a unit more, never less; equity may differ by the sum of that over the trades so far, and 2e-4 for what was not traded.
Both paths trade at the close of the decision's bar, where a desk without latency finds the exchange in memory (`delay_bars=0`).
"""

import os
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from agents.environment.forms import exposure_weights, softmax_weights
from agents.environment.kernel import PortfolioKernel, VectorCosts
from agents.environment.presets import FREE_HAND
from agents.environment.trading import TradingEnvironment
from agents.market.frictions import CandleBook, Frictions, MakerTakerFee, SquareRootImpact
from agents.market.history import load_history
from tests.environment.desk_path import instrument
from tests.environment.test_vector_kernel import candles

FEE, HALF_SPREAD, IMPACT, DEPTH = Decimal("0.001"), Decimal("0.0002"), Decimal("0.0005"), Decimal("0.02")
SLIPPAGE = 0.0003
FRICTIONS = Frictions(
    fee=MakerTakerFee(FEE, FEE), impact=SquareRootImpact(IMPACT), candles=CandleBook(half_spread=HALF_SPREAD, depth=DEPTH)
)  # fmt: skip
COSTS = VectorCosts(fee_bps=10.0, half_spread_bps=2.0, impact=0.0005, depth=0.02)


def lives(history, form, limits, instruments, start, bars, seed, often=0.3, costs=COSTS, capital=10_000.0):
    """One life on both paths under the same random actions: (desk, arrays), each a dict of arrays by bar."""
    desk = TradingEnvironment(
        history, form=form, limits=limits, frictions=FRICTIONS, capital=capital, instruments=instruments, fast=False
    )
    desk.reset(options={"row": start})
    kernel = PortfolioKernel(history, costs, limits, delay_bars=0)
    kernel.reset(start, equity=capital)
    rng, width = np.random.default_rng(seed), len(history.symbols)
    theirs, ours = ({"quantity": [], "cost": [], "equity": [], "turnover": []} for _ in range(2))
    action = np.zeros(desk.action_space.shape, dtype=np.float32)
    for bar in range(bars):
        moved = rng.random(action.shape) < often
        action = np.where(moved, rng.uniform(-1, 1, action.shape), action).astype(np.float32)
        values = action.astype(np.float64)
        wish = exposure_weights(values, limits.position_cap)
        if form == "weights":
            wish = softmax_weights(values, limits.cash_buffer, limits.position_cap)
        equity = kernel.equity[0]
        result = kernel.step(wish[None])
        ours["quantity"].append(result.traded[0] * equity / history.close[start + bar])
        ours["cost"].append(result.cost.sum() * equity)
        ours["equity"].append(kernel.equity[0])
        ours["turnover"].append(result.turnover[0] * equity)
        _, _, _, _, info = desk.step(action)
        filled = np.zeros(width)
        for symbol, quantity, _, _ in info["fills"]:
            filled[history.symbols.index(symbol)] += quantity
        theirs["quantity"].append(filled)
        theirs["cost"].append(info["costs"])
        theirs["equity"].append(info["equity"])
        theirs["turnover"].append(info["turnover"] * equity)
    return ({name: np.array(values) for name, values in life.items()} for life in (theirs, ours))


def same_life(theirs, ours, marks, fewest, limits):
    """Agreement on a fine grid, of an account that ends not far from where it began."""
    capital, kept = ours["equity"][0], limits.slippage + float(FEE)
    mine, yours = ours["quantity"] * marks, theirs["quantity"] * marks
    traded = np.maximum(np.abs(mine), np.abs(yours)) > 2 * kept * capital
    assert traded.sum() >= fewest and {*np.sign(mine[traded])} == {-1, 1}
    np.testing.assert_array_equal(np.sign(mine[traded]), np.sign(yours[traded]))
    np.testing.assert_allclose(mine, yours, rtol=1e-5, atol=kept * capital)
    np.testing.assert_allclose(ours["cost"], theirs["cost"], rtol=1e-4, atol=2e-3 * kept * capital)
    np.testing.assert_allclose(ours["turnover"], theirs["turnover"], rtol=1e-5, atol=3 * kept * capital)
    print(f"largest difference: of a trade {np.abs(mine - yours).max() / capital:.1e} of equity, of cost "
          f"{np.abs(ours['cost'] - theirs['cost']).max() / capital:.1e}, of equity {np.abs(ours['equity'] / theirs['equity'] - 1).max():.1e}")  # fmt: skip
    np.testing.assert_allclose(ours["equity"], theirs["equity"], rtol=1e-4)


@pytest.mark.parametrize("form", ["exposure", "weights"])
def test_both_paths_live_the_same_life(form):
    history = candles(rows=140, width=3, seed=4)
    history.volume[:] *= 1_000
    limits = replace(FREE_HAND, position_cap=0.4, turnover_cost_bps=10.0, depth_share=1.0, slippage=SLIPPAGE)
    instruments = [instrument(symbol) for symbol in history.symbols]
    theirs, ours = lives(history, form, limits, instruments, 20, 110, seed=0)
    same_life(theirs, ours, history.close[20:130], 60, limits)


def test_both_paths_go_down_the_ladder():
    history = candles(rows=140, width=2, seed=4, drift=-0.006)
    history.volume[:] *= 1_000
    limits = replace(FREE_HAND, position_cap=0.5, turnover_cost_bps=0.0, drawdown_warn=0.01, drawdown_stop=0.02, drawdown_reduce=0.04)
    instruments = [instrument(symbol) for symbol in history.symbols]
    theirs, ours = lives(history, "exposure", replace(limits, depth_share=1.0, slippage=SLIPPAGE), instruments, 5, 120, seed=1)
    assert 1 - ours["equity"][-1] / ours["equity"].max() > 0.04
    same_life(theirs, ours, history.close[5:125], 5, limits)


def recorded():
    folder = Path(os.environ["QUARTET_DATA"]) / "ohlcv" / "binance"
    first = 1_704_067_200 * 10**9
    return load_history(folder, ["BTC/USDT", "ETH/USDT", "LTC/USDT"], timeframe="1h", start=first, end=first + 340 * 3_600 * 10**9)


RECORDED = pytest.mark.skipif("QUARTET_DATA" not in os.environ, reason="QUARTET_DATA names no folder of recorded markets")
RECORDED_LIMITS = replace(FREE_HAND, position_cap=0.4, turnover_cost_bps=10.0, depth_share=1.0, slippage=0.001)


@RECORDED
@pytest.mark.parametrize("form", ["exposure", "weights"])
def test_both_paths_live_the_same_life_on_recorded_candles(form):
    history = recorded()
    instruments = [instrument(symbol) for symbol in history.symbols]
    # An account small enough to be served from the imagined book's first level: the arrays know no second one.
    theirs, ours = lives(history, form, RECORDED_LIMITS, instruments, 20, 300, seed=2, often=0.1, capital=3_000.0)
    same_life(theirs, ours, history.close[20:320], 60, RECORDED_LIMITS)


@RECORDED
@pytest.mark.parametrize("form", ["exposure", "weights"])
def test_on_the_recorded_grid_ticks_and_lots_are_all_the_difference(form):
    history = recorded()
    costs = replace(COSTS, min_notional=5.0)
    theirs, ours = lives(history, form, RECORDED_LIMITS, None, 20, 300, seed=2, often=0.1, costs=costs)
    marks, traded = history.close[20:320], np.abs(ours["quantity"])
    listed = TradingEnvironment(history).source.instruments
    tick, lot = (np.array([float(getattr(each, name)) for each in listed]) for name in ("tick", "lot"))
    large = traded * marks > 10.0
    assert large.sum() > 100
    np.testing.assert_array_equal(np.sign(theirs["quantity"])[large], np.sign(ours["quantity"])[large])
    lost = (ours["equity"] - theirs["equity"]) / ours["equity"]
    bound = np.cumsum((traded * 2 * tick + large * lot * marks * 0.01).sum(axis=1)) / ours["equity"] + 2e-4
    assert (lost < bound).all() and (lost > -2e-4).all(), (lost.max(), bound.max())
    np.testing.assert_allclose(ours["turnover"].sum(), theirs["turnover"].sum(), rtol=5e-3)
