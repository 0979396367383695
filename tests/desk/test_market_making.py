"""The market maker: quotes that cover their cost, lean against inventory, and disappear when the flow is toxic."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.instruments import Symbol
from agents.desk.market_making import MarketMaking, MarketMakingParams
from agents.desk.priors import glft
from agents.desk.wishes import MarketMakingWish
from tests.desk.observed import SYMBOLS, act, observed, wild

BTC = SYMBOLS[0]
NONE = (0.0,) * 6
unit = st.floats(-1.0, 1.0, width=32)
actions = st.tuples(unit, unit, unit, unit, unit, unit)


def propose(
    *action: float, agent: MarketMaking | None = None, inventory: dict[Symbol, float] | None = None, **columns: float
) -> MarketMakingWish:
    (wish,) = (agent or MarketMaking()).propose(observed("market_making", **columns), act(*action), inventory)
    return wish


def test_action_zero_is_glft_over_costs() -> None:
    wish = propose(*NONE)
    half, _ = glft(*(np.array([x]) for x in (1.0, 2000.0, 1e-4, 0.0011)), 1e4, 0.015)
    assert wish.bid_offset == wish.ask_offset == pytest.approx(half[0], rel=1e-5)
    assert 0.0011 + 0.0004 < wish.bid_offset < 0.0030
    assert (wish.bid_size, wish.ask_size, wish.inventory_target, wish.pull) == (0.015, 0.015, 0.0, False)


def test_inventory_moves_both_quotes_towards_getting_rid_of_it() -> None:
    flat, long, short = (propose(*NONE, maker_fee=0.0, markout_5s=0.0, inventory={BTC: q}) for q in (0.0, 0.03, -0.03))
    assert long.bid_offset > flat.bid_offset > short.bid_offset
    assert long.ask_offset < flat.ask_offset < short.ask_offset
    assert long.bid_offset - flat.bid_offset == pytest.approx(flat.ask_offset - long.ask_offset, rel=1e-6)
    assert long.bid_offset - flat.bid_offset > 1e-5


def test_the_inventory_column_stands_in_when_nobody_counts_the_sub_account() -> None:
    assert propose(*NONE, inventory=None) == propose(*NONE, inventory={BTC: 0.0})
    (seen,) = MarketMaking().propose(observed("market_making", inventory=0.03), act(*NONE))
    told = propose(*NONE, inventory={BTC: 0.03})
    assert seen.bid_offset == pytest.approx(told.bid_offset, rel=1e-6)


def test_a_full_inventory_is_not_added_to() -> None:
    full = propose(*NONE, inventory={BTC: 0.05})
    assert full.bid_size == 0.0
    assert full.ask_size == 0.015
    assert propose(*NONE, inventory={BTC: 0.045}).bid_size == pytest.approx(0.005)


def test_the_inventory_target_shifts_what_counts_as_excess() -> None:
    wanting = propose(0, 0, 0, 0, 1, 0, inventory={BTC: 0.025})
    assert wanting.inventory_target == pytest.approx(0.025)
    assert wanting.bid_offset == pytest.approx(wanting.ask_offset)


@pytest.mark.parametrize("fee", [0.0, 0.0002, 0.001, 0.004])
@given(action=actions, q=st.floats(-0.2, 0.2))
def test_no_quote_is_closer_than_fee_and_markout(fee: float, action: tuple[float, ...], q: float) -> None:
    wish = propose(*action, maker_fee=fee, markout_5s=0.0002, inventory={BTC: q})
    floor = float(np.float32(fee)) + float(np.float32(0.0002))
    assert floor <= wish.bid_offset <= 0.01
    assert floor <= wish.ask_offset <= 0.01


def test_the_floor_can_be_lifted_and_outranks_the_cap() -> None:
    free = MarketMaking(MarketMakingParams(floor_multiple=0.0))
    assert propose(-1, 0, 0, 0, 0, 0, agent=free).bid_offset < 0.0011
    assert propose(*NONE, maker_fee=0.02).bid_offset == pytest.approx(0.0201, rel=1e-5)


def test_toxic_flow_pulls_the_quotes_at_a_learned_threshold() -> None:
    assert not propose(*NONE, toxicity_z=1.9).pull
    assert propose(*NONE, toxicity_z=2.1).pull
    assert not propose(0, 0, 0, 0, 0, 1, toxicity_z=3.9).pull
    assert propose(0, 0, 0, 0, 0, -1, toxicity_z=1.1).pull


@pytest.mark.parametrize(
    ("name", "low", "high"), [("volatility_1s", 1e-4, 1e-3), ("maker_fee", 0.0, 0.001), ("markout_5s", 0.0, 0.001)]
)
def test_more_risk_or_cost_means_wider_quotes(name: str, low: float, high: float) -> None:
    assert propose(*NONE, **{name: low}).bid_offset < propose(*NONE, **{name: high}).bid_offset


def test_a_steeper_book_means_tighter_quotes() -> None:
    assert propose(*NONE, intensity_k=5000.0).bid_offset < propose(*NONE, intensity_k=1000.0).bid_offset


def test_an_unfitted_intensity_is_replaced_not_divided_by() -> None:
    wish = propose(*NONE, intensity_a=0.0, intensity_k=0.0)
    assert wish.bid_offset == pytest.approx(propose(*NONE, intensity_a=0.1, intensity_k=1000.0).bid_offset, rel=1e-6)


def test_without_a_prior_the_distance_is_constant() -> None:
    plain = MarketMaking(MarketMakingParams(prior="none"))
    wish = propose(*NONE, agent=plain, inventory={BTC: 0.03})
    assert wish.bid_offset == wish.ask_offset == pytest.approx(0.0021, rel=1e-5)
    with pytest.raises(ValueError, match="use glft or none"):
        MarketMakingParams(prior="as")


@given(actions, unit)
def test_each_action_acts_in_its_direction(action: tuple[float, ...], other: float) -> None:
    for place, name in enumerate(("bid_offset", "ask_offset", "bid_size", "ask_size", "inventory_target")):
        low, high = sorted((action[place], other))
        values = []
        for value in (low, high):
            changed = list(action)
            changed[place] = value
            values.append(getattr(propose(*changed, inventory={BTC: 0.01}), name))
        assert values[0] <= values[1]


@settings(max_examples=200)
@given(st.integers(0, 2**32 - 1), actions, st.sampled_from(["glft", "none"]))
def test_any_finite_observation_and_any_action_stay_in_bounds(seed: int, action: tuple[float, ...], prior: str) -> None:
    with np.errstate(all="raise", under="ignore"):
        wishes = MarketMaking(MarketMakingParams(prior=prior)).propose(wild("market_making", seed), act(*action, rows=3))
    for wish in wishes:
        assert 0.0 < wish.bid_offset <= 0.12
        assert 0.0 < wish.ask_offset <= 0.12
        assert 0.0 <= wish.bid_size <= 0.06
        assert 0.0 <= wish.ask_size <= 0.06
        assert abs(wish.inventory_target) <= 0.025
        assert all(np.isfinite(value) for value in wish.numbers().values())


def quoted(prior: str, steps: int = 600, seed: int = 0) -> tuple[float, float]:
    """(mean profit, standard deviation of inventory) of ten symbols in the model's own market, 1 s steps, in fractions of equity.

    The mid is a random walk; a quote at distance d is filled at rate A exp(-k d).
    """
    rng, agent, rows = np.random.default_rng(seed), MarketMaking(MarketMakingParams(prior=prior)), 10
    a, k, sigma, fee = 1.0, 2000.0, 3e-4, 0.0002
    seen = observed("market_making", rows, intensity_a=a, intensity_k=k, volatility_1s=sigma, maker_fee=fee, markout_5s=0.0)
    own, profit, path = np.zeros(rows), np.zeros(rows), []
    for _ in range(steps):
        wishes = agent.propose(seen, act(*NONE, rows=rows), dict(zip(SYMBOLS, own.tolist(), strict=True)))
        for side, name in ((1.0, "bid"), (-1.0, "ask")):
            distance = np.array([getattr(wish, f"{name}_offset") for wish in wishes])
            size = np.array([getattr(wish, f"{name}_size") for wish in wishes])
            traded = np.where(rng.random(rows) < 1.0 - np.exp(-a * np.exp(-k * distance)), size, 0.0)
            own += side * traded
            profit += traded * (distance - fee)
        profit += own * sigma * rng.normal(size=rows)
        path.append(own.copy())
    assert np.abs(path).max() <= 0.05 + 1e-12
    return float(profit.mean()), float(np.std(path))


def test_in_its_own_market_it_earns_the_spread_and_holds_less_than_a_fixed_quote() -> None:
    profit, spread_out = quoted("glft")
    _, without_skew = quoted("none")
    assert profit > 0.0
    assert spread_out < 0.85 * without_skew
