"""Tail, clusters, concentration, liquidity and budgets at the door: measured on closed bars, named and priced, tightened by m2 only."""

import json
from dataclasses import fields, replace
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.errors import ConfigError
from agents.core.events import Bar, Listing, Stamp
from agents.core.instruments import NS, TIMEFRAMES, Side, Symbol
from agents.core.orders import OrderState
from agents.desk.decision import Decision
from agents.desk.limits import Limits
from agents.desk.program import CLARABEL, SHORTCUT
from agents.desk.projection import HOLD
from agents.market.state import MarketState
from tests.desk.world import BTC, ETH, PRICES, SOL, World, instrument

HOUR = TIMEFRAMES["1h"]
FREE = Limits(turnover_cost_bps=0.0)
WIDE = Limits(turnover_cost_bps=0.0, position_cap=0.6)
CAREFUL = replace(FREE, cvar=0.05, cluster_cap=0.6, herfindahl=0.25)
MINUTE = 60 * NS


class Grown(World):
    """The small world with `hours` of bars behind it; BTC and ETH move alike, SOL goes its own way."""

    def __init__(self, limits=FREE, hours=300, deviation=0.02, symbols=(BTC, ETH, SOL), skip=(), alike=0.95):
        super().__init__(limits=limits, symbols=symbols)
        self.market, start = MarketState(symbols), 400_000 * HOUR
        self.at = start + hours * HOUR
        for symbol in symbols:
            self.apply(Listing(Stamp(start), instrument(symbol)))
        rng = np.random.default_rng(6)
        common = rng.normal(size=(hours, 1))
        moves = np.hstack([alike * common + np.sqrt(1 - alike**2) * rng.normal(size=(hours, 2)), rng.normal(size=(hours, len(symbols) - 2))])
        closes = np.exp(np.cumsum(deviation * moves, axis=0)[:, : len(symbols)])
        closes /= closes[-1]
        for row in range(hours):
            for column, symbol in enumerate(symbols):
                if symbol not in skip or row >= hours - 10:
                    price = Decimal(repr(round(float(closes[row, column]), 10))) * PRICES.get(symbol, Decimal(100))
                    time = start + row * HOUR
                    self.market.apply(Bar(Stamp(time + HOUR), symbol, time, "1h", price, price, price, price, Decimal(100)))
        for symbol in symbols:
            self.book(symbol)
        self.at += MINUTE
        self.later(0)

    def tail(self, weights):
        """CVaR of a book on what the projection measured."""
        measured = self.state.model.measures(self.market, tuple(weights), self.limits.risk_params())
        return measured.tail.value(np.array(list(weights.values())))


def bounds(safe):
    return {bound.name: bound.price for bound in safe.bound}


EACH = {
    "cvar": {"cvar": 0.02},
    "var": {"var": 0.02},
    "cluster:0": {"cluster_cap": 0.2, "cluster_correlation": 0.7},
    "herfindahl": {"herfindahl": 0.05},
    "top_n": {"top_count": 2, "top_cap": 0.25},
    "fees": {"fees_day": 0.0002},
    "liquidity": {"liquidity_depth": 0.0001},
}


@pytest.mark.parametrize("name", EACH)
def test_each_limit_binds_by_its_name_and_with_a_price(name):
    world = Grown(replace(FREE, **EACH[name]))
    safe = world.project(world.target({BTC: 0.19, ETH: 0.19, SOL: 0.1}))
    assert bounds(safe)[name] > 0
    assert sum(safe.weights.values()) < 0.47
    free = Grown(FREE)
    assert free.project(free.target({BTC: 0.19, ETH: 0.19, SOL: 0.1})).weights == {BTC: 0.19, ETH: 0.19, SOL: 0.1}


def test_the_tail_is_held_for_weights_and_bids_together():
    world = Grown(replace(FREE, cvar=0.02))
    safe = world.project(world.target({BTC: 0.19, ETH: 0.19, SOL: 0.1}, {BTC: (0.001, 0.001, 0.05, 0.0)}))
    filled = {s: w + (safe.quotes[s].bid_size if s in safe.quotes else 0.0) for s, w in safe.weights.items()}
    assert world.tail(filled) == pytest.approx(0.02, abs=1e-7) and safe.risk["cvar"] <= 0.02 + 1e-9
    assert safe.solver == CLARABEL


def test_what_still_may_fill_counts_in_the_tail():
    world = Grown(replace(FREE, cvar=0.02))
    world.order(BTC, Side.BUY, "0.012", "50000", OrderState.UNKNOWN)
    safe = world.project(world.target({BTC: 0.0, ETH: 0.19, SOL: 0.0}))
    assert world.tail({BTC: 0.06, ETH: safe.weights[ETH], SOL: 0.0}) == pytest.approx(0.02, abs=1e-7)


def test_clusters_are_who_moves_alike():
    world = Grown(replace(FREE, cluster_cap=0.2))
    safe = world.project(world.target({BTC: 0.19, ETH: 0.19, SOL: 0.19}))
    assert safe.weights[BTC] + safe.weights[ETH] == pytest.approx(0.2, abs=1e-8) and safe.weights[SOL] == pytest.approx(0.19, abs=1e-4)
    assert 1 <= safe.risk["effective_bets"] <= 3


def test_a_symbol_with_ten_bars_is_taken_for_wilder_than_the_others():
    known, young = Grown(replace(FREE, cvar=0.02)), Grown(replace(FREE, cvar=0.02), skip=(SOL,))
    wish = {BTC: 0.0, ETH: 0.0, SOL: 0.2}
    assert young.project(young.target(wish)).weights[SOL] < 0.85 * known.project(known.target(wish)).weights[SOL]


def test_without_any_history_the_tail_limit_holds_as_if_all_moved_as_one():
    world = World(limits=replace(FREE, cvar=0.02, cluster_cap=0.3, var=0.02))
    safe = world.project(world.target({BTC: 0.19, ETH: 0.19, SOL: 0.19}))
    assert 0.15 < sum(safe.weights.values()) < 0.25


def test_perfectly_correlated_assets_are_one_position():
    world = Grown(replace(FREE, cvar=0.02, var=0.03, cluster_cap=0.3), alike=1.0)
    safe = world.project(world.target({BTC: 0.19, ETH: 0.19, SOL: 0.0}))
    together = safe.weights[BTC] + safe.weights[ETH]
    alone = Grown(replace(WIDE, cvar=0.02, var=0.03), alike=1.0)
    assert together == pytest.approx(alone.project(alone.target({BTC: 0.5, ETH: 0.0, SOL: 0.0})).weights[BTC], rel=0.02)


def test_an_account_worth_nothing_is_held():
    world = Grown(CAREFUL)
    world.own(BTC, 0.1)
    world.ledger.flows["USDT"] -= world.equity()
    safe = world.project(world.target({BTC: 0.19}))
    assert safe.solver == HOLD and not safe.weights and set(safe.reasons.values()) == {"equity_unknown"}


def test_fees_paid_leave_less_and_reductions_stay():
    world = Grown(replace(FREE, fees_day=0.001))
    world.own(BTC, 0.2)
    world.state.fees_day = 0.0009
    safe = world.project(world.target({BTC: 0.0, ETH: 0.2, SOL: 0.2}))
    assert safe.weights[BTC] == pytest.approx(0.0, abs=1e-7)
    assert safe.weights[ETH] + safe.weights[SOL] == pytest.approx(0.1, abs=1e-6), "a basis point and ten buy a tenth"
    world.state.fees_day = float("nan")
    assert world.project(world.target({BTC: 0.2, ETH: 0.2, SOL: 0.0})).weights[ETH] == 0.0


def test_rebates_earned_do_not_widen_the_budget():
    world = Grown(replace(FREE, fees_day=0.0001))
    world.state.fees_day = -0.01
    safe = world.project(world.target({BTC: 0.2, ETH: 0.2, SOL: 0.0}))
    assert safe.weights[BTC] + safe.weights[ETH] == pytest.approx(0.1, abs=1e-6)


def test_liquidity_takes_depth_and_volume():
    world = Grown(replace(FREE, liquidity_volume=0.001))
    safe = world.project(world.target({BTC: 0.19, ETH: 0.19, SOL: 0.19}))
    assert safe.weights[SOL] == pytest.approx(24 * 100 * 100 * 0.001 / 10_000, rel=1e-3), "a thousandth of the day's volume"
    assert safe.weights[BTC] == 0.19 and ("liquidity", SOL) in {(b.name, b.symbol) for b in safe.bound}


def test_a_breached_tail_sells_and_lets_nothing_rise():
    world = Grown(replace(FREE, cvar=0.015))
    world.own(BTC, 0.18)
    world.own(ETH, 0.18)
    safe = world.project(world.target({BTC: 0.18, ETH: 0.18, SOL: 0.1}, {SOL: (0.001, 0.001, 0.05, 0.0)}))
    assert world.tail(safe.weights) <= 0.015 + 1e-8 and safe.weights[SOL] == 0.0 and safe.quotes[SOL].bid_size == 0.0
    assert ("cvar", SOL) in {(b.name, b.symbol) for b in safe.bound}


weights = st.lists(st.floats(0.0, 0.3), min_size=3, max_size=3)
WORLDS = {}


def world_of(limits):
    """Worlds are dear and projecting leaves them as they are, but for the pool of planes."""
    if limits not in WORLDS:
        WORLDS[limits] = Grown(limits)
    return WORLDS[limits]


@settings(max_examples=60, deadline=None)
@given(weights, st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_the_second_multiplier_is_monotone_and_only_tightens(wish, one, other):
    world = world_of(replace(FREE, cvar=0.02, cluster_cap=0.25))
    target = world.target(dict(zip((BTC, ETH, SOL), wish, strict=True)))
    tight, wide = sorted((one, other))
    costs = [world.project(replace(target, budget_multiplier=m)).objective for m in (tight, wide, 1.0)]
    assert costs[0] >= costs[1] - 1e-7 and costs[1] >= costs[2] - 1e-7
    held = world.project(replace(target, budget_multiplier=tight))
    assert world.tail(held.weights) <= 0.02 * tight + 2e-9 and held.weights[BTC] + held.weights[ETH] <= 0.25 * tight + 2e-9


@pytest.mark.parametrize("multiplier", [1.5, float("inf"), float("nan"), -1.0])
def test_a_multiplier_out_of_range_never_widens(multiplier):
    world = Grown(replace(FREE, cvar=0.02))
    target = world.target({BTC: 0.19, ETH: 0.19, SOL: 0.1})
    odd = world.project(replace(target, budget_multiplier=multiplier))
    assert world.tail(odd.weights) <= 0.02 + 1e-8
    if not np.isfinite(multiplier):
        assert set(odd.reasons.values()) == {"not_finite"} and not any(odd.weights.values())


def test_the_second_multiplier_leaves_gross_and_cap_alone():
    world = Grown(FREE)
    target = world.target({BTC: 0.19, ETH: 0.19, SOL: 0.1})
    assert world.project(replace(target, budget_multiplier=0.02)).weights == {BTC: 0.19, ETH: 0.19, SOL: 0.1}


def test_planes_bound_no_account_but_speed_the_next_one_up():
    world = Grown(replace(FREE, cvar=0.02))
    target = world.target({BTC: 0.19, ETH: 0.19, SOL: 0.1})
    first, again = world.project(target), world.project(target)
    assert again.weights == pytest.approx(first.weights, abs=1e-7)
    other = Grown(replace(FREE, cvar=0.02))
    assert other.project(target) == first, "the same facts, the same answer bit by bit"


def test_careful_limits_let_a_usual_book_pass():
    world = Grown(CAREFUL, deviation=0.007)  # 65 % a year
    safe = world.project(world.target({BTC: 0.15, ETH: 0.15, SOL: 0.1}))
    assert safe.solver == SHORTCUT and safe.weights == {BTC: 0.15, ETH: 0.15, SOL: 0.1}


# -- limits --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"cluster_cap": 0.1}, ("cluster_cap", "position_cap")),
        ({"top_cap": 0.15}, ("top_cap", "position_cap")),
        ({"herfindahl": 0.01}, ("herfindahl", "position_cap")),
        ({"herfindahl": 0.2, "gross": 0.3}, ("herfindahl", "position_cap")),
    ],
)
def test_limits_that_contradict_each_other_are_both_named(changes, names):
    with pytest.raises(ConfigError, match="contradict") as error:
        Limits(**changes)
    assert all(f"risk.{name}" in str(error.value) for name in names)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"cvar": float("nan")}, "cvar"), ({"cvar": -0.1}, "cvar"), ({"cvar": 1.5}, "fraction"), ({"cvar_level": 1.0}, "cvar_level"),
        ({"var_level": 0.3}, "var_level"), ({"scenarios": 0}, "scenarios"), ({"scenarios": 5000}, "scenarios"), ({"var_quantile": "t"}, "var_quantile"),
        ({"top_count": 0}, "top_count"), ({"cluster_correlation": 2.0}, "cluster_correlation"), ({"fees_day": float("inf")}, "fees_day"),
        ({"gross": 3.0}, "no leverage"),
    ],
)  # fmt: skip
def test_limits_that_make_no_sense_name_the_field(changes, word):
    with pytest.raises(ConfigError, match=word):
        Limits(**changes)


def test_the_weekly_portfolio_is_clipping_and_capping():
    symbols = tuple(Symbol(f"C{i}/USDT") for i in range(6))
    world = World(symbols=symbols, limits=Limits.portfolio_weekly())
    softmax = np.exp([0.1, 0.2, 2.0, 0.4, 0.0, 0.3, 0.5])  # cash last
    wish = dict(zip(symbols, (softmax / softmax.sum())[:-1].tolist(), strict=True))
    safe = world.project(world.target(wish))
    assert max(safe.weights.values()) == 0.2 and sum(safe.weights.values()) <= 0.98
    for symbol, weight in wish.items():
        assert safe.weights[symbol] == pytest.approx(min(weight - 0.001, 0.2)), "ten basis points are not worth a smaller step"
    everything = world.project(world.target(dict.fromkeys(symbols, 0.19)))
    assert sum(everything.weights.values()) == pytest.approx(0.98)
    names = {f.name for f in fields(Limits)}
    assert {n for n in names if getattr(Limits.portfolio_weekly(), n) != getattr(Limits(), n)} == {"turnover_cost_bps"}


def test_the_record_of_a_decision_names_limits_prices_and_what_was_measured():
    world = Grown(replace(FREE, cvar=0.02, cluster_cap=0.3))
    target = world.target({BTC: 0.19, ETH: 0.19, SOL: 0.1})
    safe = world.project(target)
    record = json.loads(json.dumps(Decision(1, Stamp(world.at), world.at, (), (), target=target, safe=safe).record()))
    assert {"name": "cvar", "symbol": None, "price": bounds(safe)["cvar"]} in record["bound"]
    assert record["risk"].keys() == {"cvar", "herfindahl", "effective_bets"} and record["risk"]["cvar"] <= 0.02 + 1e-8


def test_the_second_multiplier_tightens_clusters_too():
    world = Grown(replace(FREE, cluster_cap=0.25))
    safe = world.project(replace(world.target({BTC: 0.19, ETH: 0.19, SOL: 0.19}), budget_multiplier=0.5))
    assert safe.weights[BTC] + safe.weights[ETH] == pytest.approx(0.125, abs=1e-7)


def test_herfindahl_is_the_sum_of_squares_and_priced_in_its_own_unit():
    def at(limit):
        world = Grown(replace(FREE, herfindahl=limit))
        return world.project(world.target({BTC: 0.19, ETH: 0.19, SOL: 0.1}))

    safe, wider = at(0.05), at(0.0501)
    assert sum(weight**2 for weight in safe.weights.values()) == pytest.approx(0.05, abs=1e-6)
    assert bounds(safe)["herfindahl"] == pytest.approx((safe.objective - wider.objective) / 1e-4, rel=0.02)
