"""Rewards have the right sign, count cost and risk once, and are finite whatever happens."""

from decimal import Decimal
from math import isfinite

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.events import UNSTAMPED, Adjustment, AdjustmentKind, Fill, Listing
from agents.core.instruments import NS, Currency, Instrument, Side, Symbol
from agents.core.ledger import Ledger
from agents.core.orders import OrderId
from agents.desk.attribution import Attribution
from agents.desk.long_term import LongTerm
from agents.desk.market_making import MarketMaking
from agents.desk.rewards import (
    CADENCES_NS,
    NO_FAULTS,
    TERMS,
    Covariance,
    RewardBook,
    RewardFunctions,
    RewardParams,
    RewardTerms,
    RunningScale,
)
from agents.desk.risk import Risk
from agents.desk.short_term import ShortTerm
from agents.market.observation import Experience
from tests.desk.observed import SYMBOLS, act, observed

USDT, D, T0 = Currency("USDT"), Decimal, 1_700_000_000 * NS
AGENTS = {agent.name: agent for agent in (LongTerm(), ShortTerm(), MarketMaking(), Risk())}
HOUR = 1 / 8760
CHANGING = {"long_term": "atr_1h", "short_term": "half_spread", "market_making": "half_spread", "risk": "drawdown"}
"""A column by which the second observation differs from the first."""


OWN = RewardTerms()


class Desk:
    """A ledger, its sub-accounts and a reward book, moved by hand: time in cadences, prices and fills as given."""

    def __init__(self, agent: str, rows: int = 1, capital: str = "10000", terms: RewardTerms = OWN, **params: float) -> None:
        self.agent, self.rows = agent, rows
        self.ledger, self.attribution = Ledger(USDT), Attribution(USDT)
        self.book = RewardBook(RewardParams(terms=terms, **params))
        self.ledger.apply(Adjustment(UNSTAMPED, USDT, D(capital), AdjustmentKind.CAPITAL))
        for symbol in SYMBOLS[:rows]:
            self.ledger.apply(Listing(UNSTAMPED, Instrument(symbol, Currency(symbol[:3]), USDT, D("0.01"), D("0.0001"))))
        self._fills = 0

    def fill(
        self, quantity: str, price: str, fee: str = "0", owner: str | None = None, symbol: Symbol = SYMBOLS[0], paid: Currency = USDT
    ) -> None:
        self._fills += 1
        size = D(quantity)
        side = Side.BUY if size > 0 else Side.SELL
        event = Fill(UNSTAMPED, symbol, 0, OrderId("q"), str(self._fills), side, D(price), abs(size), D(fee), paid, True)
        self.ledger.apply(event)
        self.attribution.apply(event, ((owner or self.agent, float(size)),), {})

    def decide(
        self, step: float, *prices: str, rows: int | None = None, action: float = 0.0, fallen: float = 0.0,
        faults: frozenset[Symbol] = NO_FAULTS, **columns: float,
    ) -> list[Experience]:  # fmt: skip
        rows = rows or self.rows
        agent = AGENTS[self.agent]
        marks = {symbol: D(price) for symbol, price in zip(SYMBOLS, prices, strict=False)}
        seen = observed(self.agent, rows, T0 + int(step * CADENCES_NS[self.agent]), **columns)
        actions = act(*[action] * agent.action_size, rows=len(seen.matrix))
        return self.book.on_decision(
            self.agent, seen, actions, agent.propose(seen, actions), ledger=self.ledger, attribution=self.attribution,
            symbols=SYMBOLS[:rows], marks=marks, equity=self.ledger.equity(marks), drawdown=fallen, version=3,
            faults=faults,
        )  # fmt: skip

    def reward(self, step: float, *prices: str, **more: float) -> float:
        (experience,) = self.decide(step, *prices, **more)  # type: ignore[arg-type]
        return experience.reward


# -- the formulas ------------------------------------------------------------------------------------------------------


def test_utility_is_the_formula_and_its_risk_adds_up_to_the_portfolios() -> None:
    functions = RewardFunctions()
    rng = np.random.default_rng(1)
    root = rng.normal(size=(3, 3))
    covariance, profit = root @ root.T, rng.normal(size=3) * 0.01
    long_term, short_term = rng.uniform(0, 0.2, 3), rng.uniform(-0.05, 0.05, 3)
    book = long_term + short_term
    total = functions.utility(profit, long_term, book, covariance, HOUR).sum()
    total += functions.utility(np.zeros(3), short_term, book, covariance, HOUR).sum()
    expected = (profit.sum() - 2.5 * book @ covariance @ book * HOUR) / (0.2 * np.sqrt(HOUR))
    assert total == pytest.approx(expected)


@given(st.floats(0.001, 0.2), st.floats(-0.05, 0.05), st.floats(0, 0.01))
def test_cost_lowers_utility_and_gain_raises_it(weight: float, gain: float, cost: float) -> None:
    functions, w = RewardFunctions(), np.array([weight])
    covariance = np.array([[0.36]])
    free = functions.utility(np.array([weight * gain]), w, w, covariance, HOUR)[0]
    paid = functions.utility(np.array([weight * gain - cost]), w, w, covariance, HOUR)[0]
    more = functions.utility(np.array([weight * (gain + 0.01)]), w, w, covariance, HOUR)[0]
    assert paid <= free < more


@given(st.floats(0.02, 0.98), st.floats(-0.2, 0.2), st.floats(0, 0.2))
def test_tightening_pays_exactly_when_the_path_was_bad(multiplier: float, rho: float, drawdown: float) -> None:
    functions = RewardFunctions()
    held, covariance = np.array([0.4 * multiplier]), np.array([[0.36]])
    value = functions.tightening(multiplier, held, np.array([rho]), covariance, drawdown, HOUR)
    if rho < -1e-9:
        assert value > 0.0
    calm = functions.tightening(multiplier, held, np.array([0.05]), covariance * 1e-6, 0.0, HOUR)
    assert calm < 0.0


def test_tightening_is_worth_more_in_a_drawdown_and_nothing_without_a_book() -> None:
    functions, held, covariance = RewardFunctions(), np.array([0.2]), np.array([[0.64]])
    values = [functions.tightening(0.5, held, np.zeros(1), covariance, dd, HOUR) for dd in (0.0, 0.1, 0.19)]
    assert 0.0 < values[0] < values[1] < values[2]
    assert functions.tightening(0.5, np.zeros(1), np.ones(1), covariance, 0.0, HOUR) == 0.0
    # at multiplier 1 both paths are one, and no path is held at more than the whole equity
    assert functions.tightening(1.0, held, np.ones(1), covariance, 0.0, HOUR) == 0.0
    full = functions.tightening(0.5, np.array([1.0]), np.ones(1), covariance, 0.0, HOUR)
    assert full == 0.0


def test_inventory_costs_by_the_square() -> None:
    functions, variance = RewardFunctions(), np.array([0.36])
    one, two = (functions.spread_capture(np.zeros(1), np.array([q]), variance, HOUR)[0] for q in (0.01, 0.02))
    assert two == pytest.approx(4 * one)
    assert one < 0


# -- scale and covariance ----------------------------------------------------------------------------------------------


def test_the_running_scale_finds_the_size_of_the_discounted_return() -> None:
    rng = np.random.default_rng(0)
    scale = RunningScale(gamma=0.9)
    for _ in range(20_000):
        scale.update(SYMBOLS[0], float(rng.normal()) * 0.3, 1.0)
    assert scale.value == pytest.approx(0.3 / np.sqrt(1 - 0.81), rel=0.05)


def test_returns_are_discounted_by_the_time_that_passed() -> None:
    slow, fast = RunningScale(0.5), RunningScale(0.5)
    for elapsed, scale in ((3.0, slow), (1.0, fast)):
        scale.update(SYMBOLS[0], 1.0, 1.0)
        scale.update(SYMBOLS[0], 1.0, elapsed)
    assert slow.value < fast.value


def test_silence_does_not_make_the_scale_vanish_nor_one_shock_own_it() -> None:
    scale = RunningScale(gamma=0.99)
    for _ in range(5_000):
        scale.update(SYMBOLS[0], 0.0, 1.0)
    assert scale.value >= RunningScale.FLOOR
    before = scale.value
    scale.update(SYMBOLS[0], 1e30, 1.0)
    assert scale.value <= 1.1 * before


def test_covariance_learns_volatility_and_stays_positive() -> None:
    rng = np.random.default_rng(0)
    covariance, years = Covariance(2), HOUR
    factor = rng.normal(size=(2_000, 1))
    moves = (0.8 * factor + 0.6 * rng.normal(size=(2_000, 2))) * 0.5 * np.sqrt(years)
    for move in moves:
        covariance.update(move, years)
    assert np.sqrt(np.diag(covariance.matrix)) == pytest.approx([0.5, 0.5], rel=0.25)
    assert covariance.matrix[0, 1] / covariance.matrix[0, 0] == pytest.approx(0.64, abs=0.3)
    assert np.linalg.eigvalsh(covariance.matrix).min() > 0


# -- the book ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("agent", ["long_term", "short_term", "market_making", "risk"])
def test_a_row_is_completed_by_the_next_decision_of_the_same_agent(agent: str) -> None:
    desk = Desk(agent, rows=1 if agent == "risk" else 2)
    assert desk.decide(0, "100", "10", action=0.25) == []
    rows = desk.decide(1.5, "100", "10", action=-0.5, **{CHANGING[agent]: 0.5})
    assert [row.symbol for row in rows] == ([None] if agent == "risk" else list(SYMBOLS[:2]))
    for row in rows:
        assert (row.agent, row.time, row.elapsed, row.version, row.done) == (agent, T0, 1.5, 3, False)
        assert row.action.dtype == row.state.dtype == row.next_state.dtype == np.float32
        assert set(row.action.tolist()) == {0.25}
        assert not np.array_equal(row.state, row.next_state)


def test_a_gain_is_good_a_loss_is_bad_and_so_is_a_fee() -> None:
    def reward(after: str, fee: str) -> float:
        desk = Desk("short_term")
        desk.fill("10", "100")
        desk.decide(0, "100")
        desk.fill("1", "100", fee)
        return desk.reward(1, after)

    assert reward("101", "0") > reward("100", "0") > reward("99", "0")
    assert reward("100", "5") < reward("100", "0")


def test_each_agent_is_paid_by_its_own_account() -> None:
    desk = Desk("short_term", alias=0.0, risk_aversion=0.0)
    desk.fill("10", "100", owner="long_term")
    desk.decide(0, "100")
    assert desk.reward(1, "110") == 0.0


def test_churning_earns_nothing() -> None:
    def reward(trades: int) -> float:
        desk = Desk("short_term")
        desk.decide(0, "100")
        for _ in range(trades):
            desk.fill("1", "100", "0.1")
            desk.fill("-1", "100", "0.1")
        return desk.reward(1, "100")

    assert reward(3) < reward(1) < reward(0) <= 0.0


def test_a_wish_that_was_not_executed_costs() -> None:
    desk = Desk("short_term", reward_scale=1.0)
    desk.decide(0, "100", ou_gap=-0.05)
    wished = desk.decide(1, "100", ou_gap=0.0)[0].reward
    assert wished < 0.0
    assert desk.reward(2, "100") == 0.0


def test_on_spot_a_negative_wish_is_a_wish_for_nothing_and_costs_nothing() -> None:
    down = {"macd_z_8_24": -1.0, "macd_z_16_48": -1.0, "macd_z_32_96": -1.0}
    desk = Desk("long_term")
    desk.decide(0, "100", **down)
    assert desk.reward(1, "100", **down) == 0.0
    desk.fill("10", "100")
    assert desk.reward(2, "100") < 0.0  # what it holds against that wish is still a difference


def test_the_market_maker_earns_its_spread_less_fee_and_markout() -> None:
    def reward(price: str, fee: str, mark: str) -> float:
        desk = Desk("market_making", inventory_aversion=0.0, alias=0.0)
        desk.decide(0, "100")
        desk.fill("1", price, fee)
        return desk.reward(1, mark)

    assert reward("99.9", "0", "100") > 0 > reward("99.9", "0", "99.8")
    assert reward("99.9", "0.05", "100") < reward("99.9", "0", "100")
    assert reward("99.9", "0.1", "100") == pytest.approx(0.0, abs=1e-9)


def test_a_fee_in_a_third_currency_is_no_gift() -> None:
    def reward(fee: str) -> float:
        desk = Desk("short_term", rows=5)
        prices = ("100", "100", "100", "100", "600")
        desk.decide(0, *prices)
        desk.fill("1", "100", fee, paid=Currency("BNB"))
        return desk.decide(1, *prices)[0].reward

    assert reward("0.001") < reward("0")


@pytest.mark.parametrize("agent", ["long_term", "short_term"])
def test_the_hybrid_reward_takes_the_exposure_wished_for_as_the_forecast(agent: str) -> None:
    def reward(after: str, bonus: float) -> float:
        terms = RewardTerms({"hybrid": 1.0}, {"hybrid": 1.0})
        desk = Desk(agent, terms=terms, alias=0.0, prediction_bonus=bonus)
        desk.decide(0, "100")  # both priors wish to be long
        return desk.reward(1, after)

    assert reward("101", 0.1) > 0.0 == reward("101", 0.0) > reward("99", 0.1)
    assert reward("100", 0.1) == 0.0


def test_inventory_is_judged_against_the_wished_one() -> None:
    def reward(action: float) -> float:
        desk = Desk("market_making", inventory_aversion=0.0)
        desk.fill("2", "100")
        desk.decide(0, "100", action=action)
        return desk.reward(1, "100")

    assert reward(1.0) == pytest.approx(-5 * (0.02 - 0.025) ** 2, rel=0.2)
    assert reward(0.0) < reward(1.0)


def test_risk_is_charged_by_the_volatility_that_the_marks_showed() -> None:
    def last(wild: str) -> float:
        desk = Desk("short_term", alias=0.0)
        desk.fill("10", "100")
        for step in range(40):
            desk.decide(step, wild if step % 2 else "100")
        desk.book.scales["short_term"] = RunningScale(0.99)
        return desk.reward(40, wild)

    assert last("103") < 5 * last("100.01") < 0.0


def test_a_fill_is_marked_until_the_end_of_the_next_interval_and_no_longer() -> None:
    desk = Desk("market_making", inventory_aversion=0.0, alias=0.0)
    desk.decide(0, "100")
    desk.fill("1", "100")
    assert desk.reward(1, "100") == pytest.approx(0.0, abs=1e-9)
    assert desk.reward(2, "99") < 0.0
    assert desk.reward(3, "98") == pytest.approx(0.0, abs=1e-9)


def test_the_reward_is_scaled_and_clipped() -> None:
    desk = Desk("short_term")
    desk.fill("10", "100")
    desk.decide(0, "100")
    assert desk.reward(1, "1000000") == 50.0
    desk = Desk("short_term", reward_scale=2.0, clip=3.0)
    desk.fill("10", "100")
    desk.decide(0, "100")
    assert desk.reward(1, "0.01") == -6.0


def test_an_outage_a_halt_and_a_missing_mark_leave_no_row() -> None:
    desk = Desk("short_term", rows=2)
    desk.decide(0, "100", "10")
    assert desk.decide(21, "100", "10") == []
    assert desk.decide(20.5, "100", "10") == []  # market time stepped back
    desk.book.forget()
    assert desk.decide(22, "100", "10") == []
    assert [row.symbol for row in desk.decide(23, "100")] == [SYMBOLS[0]]
    assert desk.book.dropped == 3


def test_symbols_may_come_and_go() -> None:
    desk = Desk("short_term", rows=3)
    desk.decide(0, "100", "10", "1", rows=1)
    assert [row.symbol for row in desk.decide(1, "100", "10", "1", rows=3)] == [SYMBOLS[0]]
    assert [row.symbol for row in desk.decide(2, "100", "10", "1", rows=2)] == list(SYMBOLS[:2])
    assert desk.book.dropped == 1


moves = st.lists(
    st.tuples(st.floats(0.01, 30.0), st.decimals("0.01", "1000000", places=2), st.decimals("-20", "20", places=4), st.floats(-1, 1)),
    min_size=2, max_size=8,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(AGENTS)), moves, st.floats(0, 1))
def test_rewards_are_finite_bounded_and_repeatable(agent: str, path: list[tuple[float, Decimal, Decimal, float]], dd: float) -> None:
    runs = []
    for _ in range(2):
        desk, step, rewards = Desk(agent), 0.0, list[float]()
        for pause, price, quantity, action in path:
            step += pause
            if quantity and desk.ledger.position(SYMBOLS[0]) + quantity >= 0:
                desk.fill(str(quantity), str(price), owner="market_making" if agent == "risk" else agent)
            rewards += [row.reward for row in desk.decide(step, str(price), action=action, fallen=dd)]
        assert all(isfinite(reward) and abs(reward) <= 50.0 for reward in rewards)
        runs.append(rewards)
    assert runs[0] == runs[1]


ALL_TERMS = RewardTerms(
    {name: 0.5 for name in TERMS["long_term"] if name != "sortino"}, {name: 0.5 for name in TERMS["short_term"] if name != "sortino"},
    dict.fromkeys(TERMS["market_making"], 0.5), dict.fromkeys(TERMS["risk"], 0.5),
)  # fmt: skip


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(AGENTS)), moves, st.sampled_from(["0.001", "1000"]), st.booleans())
def test_rewards_do_not_depend_on_the_unit_of_money(agent: str, path: list[tuple[float, Decimal, Decimal, float]], unit: str, every: bool) -> None:
    runs = []
    for scale in (D(1), D(unit)):
        desk, step, rewards = Desk(agent, capital=str(10_000 * scale), terms=ALL_TERMS if every else RewardTerms()), 0.0, list[float]()
        for pause, price, quantity, action in path:
            step += pause
            if quantity and desk.ledger.position(SYMBOLS[0]) + quantity >= 0:
                fee = str(abs(quantity) * price * scale / 1000)
                desk.fill(str(quantity), str(price * scale), fee, owner="market_making" if agent == "risk" else agent)
            rewards += [row.reward for row in desk.decide(step, str(price * scale), action=action)]
        runs.append(rewards)
    assert runs[1] == pytest.approx(runs[0], rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("agent", ["long_term", "short_term"])
def test_the_moments_ahead_are_those_that_the_next_decision_is_judged_with(agent: str) -> None:
    desk = Desk(agent, rows=2, terms=RewardTerms({"sortino": 1.0}, {"differential_sharpe": 1.0}))
    seen = []
    for step, price in enumerate(("100", "101", "97", "97", "120")):
        if step in (1, 3):
            desk.fill("5" if step == 1 else "-2", price)
        prices, faults = {SYMBOLS[0]: D(price), SYMBOLS[1]: D(10)}, frozenset({SYMBOLS[1]}) if step == 3 else NO_FAULTS
        ahead = desk.book.moments(
            agent, T0 + step * CADENCES_NS[agent], ledger=desk.ledger, attribution=desk.attribution, marks=prices,
            equity=desk.ledger.equity(prices), faults=faults,
        )  # fmt: skip
        desk.decide(step, price, "10", faults=faults)
        kept = desk.book.terms[agent].moments()
        assert ahead == (float(kept[0]), float(kept[1]))
        seen.append((float(kept[0]), float(kept[1])))
    assert seen[2] == seen[3] == seen[4] and len(set(seen)) == 3  # the intervals around the fault were not taken
    assert desk.book.moments("market_making", 0, ledger=desk.ledger, attribution=desk.attribution, marks={}, equity=D(1)) == (0.0, 0.0)


# -- rows lived under a fault ------------------------------------------------------------------------------------------


def quarantined(desk: Desk, step: float, *faults: str) -> list[bool]:
    return [row.quarantined for row in desk.decide(step, "100", "10", faults=frozenset(Symbol(one) for one in faults))]


@pytest.mark.parametrize("agent", ["long_term", "short_term", "market_making"])
def test_a_row_is_quarantined_when_its_symbol_saw_a_fault_at_or_between_its_decisions(agent: str) -> None:
    desk = Desk(agent, rows=2)
    assert quarantined(desk, 0) == []
    assert quarantined(desk, 1) == [False, False]
    assert quarantined(desk, 2, SYMBOLS[1]) == [False, True]
    assert quarantined(desk, 3) == [False, True]
    assert quarantined(desk, 4) == [False, False]
    desk.book.fault(SYMBOLS[0])
    assert quarantined(desk, 5) == [True, False]
    desk.book.fault()
    assert quarantined(desk, 6) == [True, True]
    assert quarantined(desk, 7) == [False, False]
    desk.book.fault()
    desk.book.forget()
    assert quarantined(desk, 8) == []
    assert quarantined(desk, 9) == [False, False]


def test_the_portfolios_row_is_quarantined_by_a_fault_of_any_symbol() -> None:
    desk = Desk("risk", rows=2)
    quarantined(desk, 0)
    assert quarantined(desk, 1) == [False]
    desk.book.fault(SYMBOLS[1])
    assert quarantined(desk, 2) == [True]
    assert quarantined(desk, 3) == [False]


def test_a_row_under_a_fault_leaves_the_reward_scale_alone() -> None:
    desk = Desk("market_making")
    desk.decide(0, "100")
    desk.fill("1", "90")
    before = desk.book.scales["market_making"].value
    (row,) = desk.decide(1, "100", faults=frozenset({SYMBOLS[0]}))
    assert row.quarantined
    assert desk.book.scales["market_making"].value == before
