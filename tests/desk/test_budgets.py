"""An agent's own budget cuts its increases, and nobody else's; what works is promised, what is sold is free."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.errors import ConfigError
from agents.core.instruments import Side
from agents.core.orders import Amend, Place
from agents.desk.budgets import DAY, DayBudgets
from agents.desk.coordinator import AgentBudget, Budgets
from agents.desk.gate import Allowance
from agents.desk.sheet import PlanContext
from tests.desk.world import BTC, ETH, SOL, World

D = Decimal


class Desk(World):
    """A world whose agents have budgets of the day; 100 of 10,000 is a hundredth of equity."""

    def __init__(self, now=5 * DAY, **budgets):
        super().__init__()
        self.now, self.budgets = now, DayBudgets(Budgets(**budgets))
        self.left()

    def left(self):
        return self.budgets.left(self.now, self.attribution, self.marks(), self.equity())

    def cut(self, target):
        return self.budgets.cut(target, self.left(), self.attribution, self.marks(), self.equity(), self.ledger.instruments, self.limits)

    def buy(self, symbol, value, *shares, fee="0"):
        """Buy for `shares` at the mark, as it would be booked."""
        quantity = D(value) / self.mark(symbol)
        order = self.order(symbol, Side.BUY, quantity, self.mark(symbol), shares=shares)
        self.fill(order)
        self.attribution.line(shares[0][0], symbol).fees += D(fee)

    def context(self):
        self.decision += 1
        allowances = self.budgets.allowances(self.left(), self.ledger)
        return PlanContext(self.decision, "test", 1, self.at, self.memory, self.attribution, allowances=allowances)


def wish(world, parts, quotes=None):
    contributions = {symbol: dict(by) for symbol, by in parts.items()}
    return world.target({symbol: sum(by.values()) for symbol, by in parts.items()}, quotes, contributions=contributions)


def test_without_budgets_nothing_is_looked_at():
    world = Desk()
    target = wish(world, {BTC: {"long_term": 0.2}})
    assert world.left() == {} and world.budgets.allowances({}, world.ledger) == {}
    assert world.cut(target) == (target, ())


def test_increases_are_cut_alike_and_the_budget_is_named_with_its_price():
    world = Desk(short_term=AgentBudget(turnover=0.03))
    target = wish(world, {BTC: {"long_term": 0.2, "short_term": 0.04}, ETH: {"long_term": 0.1, "short_term": 0.02}, SOL: {"short_term": -0.05}})
    cut, bounds = world.cut(target)
    assert cut.contributions[BTC] == {"long_term": 0.2, "short_term": pytest.approx(0.02)}
    assert cut.contributions[ETH] == {"long_term": 0.1, "short_term": pytest.approx(0.01)}
    assert cut.weights == {BTC: pytest.approx(0.22), ETH: pytest.approx(0.11), SOL: -0.05}
    ((name, symbol, price),) = [(b.name, b.symbol, b.price) for b in bounds]
    assert (name, symbol) == ("short_term.turnover", None)
    step = 1e-6  # the price is what one more unit of the budget lowers the tracking term by
    more, _ = Desk(short_term=AgentBudget(turnover=0.03 + step)).cut(target)
    error = [sum((t.weights[s] - target.weights[s]) ** 2 / 2 for s in (BTC, ETH)) for t in (cut, more)]
    assert price == pytest.approx((error[0] - error[1]) / step, rel=1e-3)


def test_what_was_bought_today_is_gone_and_midnight_brings_it_back():
    world = Desk(long_term=AgentBudget(turnover=0.1))
    world.buy(BTC, 600, ("long_term", 3.0), ("short_term", 1.0))
    assert world.left()["long_term"].turnover == D(1000) - D(450)
    held = float(world.attribution.position("long_term", BTC) * world.mark(BTC) / world.equity())
    cut, bounds = world.cut(wish(world, {BTC: {"long_term": held + 0.1}}))
    assert cut.weights[BTC] == pytest.approx(held + 0.055) and bounds[0].name == "long_term.turnover"
    world.now += DAY
    assert world.cut(wish(world, {BTC: {"long_term": held + 0.1}}))[1] == ()


def test_selling_and_holding_cost_no_budget():
    world = Desk(long_term=AgentBudget(turnover=0.05))
    world.buy(BTC, 500, ("long_term", 1.0))
    held = wish(world, {BTC: {"long_term": 0.05, "short_term": -0.02}})
    assert world.cut(held) == (held, ())
    world.fill(world.order(BTC, Side.SELL, D("0.005"), world.mark(BTC), shares=(("long_term", -1.0),)))
    assert world.left()["long_term"].turnover == 0
    less = wish(world, {BTC: {"long_term": 0.01}})
    assert world.cut(less) == (less, ())


def test_fees_paid_leave_less_to_buy_with():
    world = Desk(long_term=AgentBudget(fees=0.0001))  # 1 in quote: 1000 worth of buys at 10 bps
    assert world.cut(wish(world, {BTC: {"long_term": 0.1}}))[1] == ()
    world.buy(BTC, 100, ("long_term", 1.0), fee="0.5")
    assert world.left()["long_term"].fees == D("0.5")
    cut, bounds = world.cut(wish(world, {BTC: {"long_term": 0.11}}))
    assert cut.weights[BTC] == pytest.approx(0.01 + 0.05) and bounds[0].name == "long_term.fees"


def test_the_market_makers_bids_are_increases_and_its_asks_are_not():
    world = Desk(market_making=AgentBudget(turnover=0.01))
    cut, bounds = world.cut(wish(world, {BTC: {}}, {BTC: (0.001, 0.001, 0.03, 0.03), ETH: (0.001, 0.001, 0.01, 0.0)}))
    assert (cut.quotes[BTC].bid_size, cut.quotes[BTC].ask_size) == (pytest.approx(0.0075), 0.03)
    assert cut.quotes[ETH].bid_size == pytest.approx(0.0025) and bounds[0].name == "market_making.turnover"


def test_working_buys_are_promises():
    world = Desk(short_term=AgentBudget(turnover=0.1, fees=0.001))
    world.order(ETH, Side.BUY, "0.1", "2500", shares=(("short_term", 3.0), ("long_term", 1.0)))
    world.order(ETH, Side.SELL, "0.1", "2600", shares=(("short_term", -1.0),))
    left = world.left()
    allowance = world.budgets.allowances(left, world.ledger)["short_term"]
    assert (allowance.turnover, allowance.fees) == (D("812.5"), D("9.8125"))
    assert left["short_term"].turnover == 1000  # the day's own figure is not touched


def test_a_plan_never_asks_for_more_than_the_day_allows_and_says_so():
    world = Desk(long_term=AgentBudget(turnover=0.05))
    target = wish(world, {BTC: {"long_term": 0.2}, ETH: {"long_term": 0.2}})
    planned = world.plan(target)  # past the cut: what the gate alone would let pass
    spent = sum(c.price * c.quantity for c in planned.commands)
    assert 480 < spent <= 500
    assert {r.reason for r in planned.refusals} == {"agent_budget"}
    world.record(planned.commands)
    world.later(2)
    assert not [c for c in world.plan(target).commands if isinstance(c, Place)]


def test_a_quote_is_amended_inside_its_budget():
    world = Desk(market_making=AgentBudget(turnover=0.012))
    for symbol in (BTC, ETH, SOL):
        world.ledger.instruments[symbol] = replace(world.ledger.instruments[symbol], amend=True)
    world.answer(world.step(wish(world, {BTC: {}}, {BTC: (0.001, 0.001, 0.01, 0.0)})).commands)
    world.later(2)
    (amend,) = world.plan(wish(world, {BTC: {}}, {BTC: (0.001, 0.001, 0.02, 0.0)})).commands
    assert isinstance(amend, Amend) and 100 < amend.quantity * amend.price <= 120


@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_a_budget_that_is_no_bound_is_refused_by_name(value):
    with pytest.raises(ConfigError, match=r"coordinator\.budgets\.short_term\.fees"):
        Budgets(short_term=AgentBudget(fees=value))


def test_a_lost_account_is_left_to_the_projection():
    world = Desk(long_term=AgentBudget(turnover=0.1))
    assert world.budgets.left(world.now, world.attribution, world.marks(), D(0)) == {}


weights = st.floats(-0.3, 0.3)
budgets = st.builds(AgentBudget, st.none() | st.floats(0, 0.3), st.none() | st.floats(0, 0.0003))
AGENTS = ("long_term", "short_term", "market_making")


@settings(max_examples=150, deadline=None)
@given(
    st.fixed_dictionaries({s: st.fixed_dictionaries(dict.fromkeys(AGENTS, weights)) for s in (BTC, ETH)}), st.floats(0, 0.1),
    st.fixed_dictionaries(dict.fromkeys(AGENTS, budgets)), st.lists(st.tuples(st.sampled_from(AGENTS), st.integers(1, 900)), max_size=4),
)  # fmt: skip
def test_a_cut_only_lowers_and_fits(parts, bid, limits, history):
    world = Desk(**limits)
    for agent, value in history:
        world.buy(BTC, value, (agent, 1.0))
    target = wish(world, parts, {ETH: (0.001, 0.001, bid, bid)})
    left, (cut, bounds) = world.left(), world.cut(target)
    equity, marks = world.equity(), world.marks()
    for symbol in (BTC, ETH):
        assert cut.weights[symbol] <= target.weights[symbol] + 1e-12
        for agent in AGENTS:
            held = float(world.attribution.position(agent, symbol) * marks[symbol] / equity)
            before, after = target.contributions[symbol][agent], cut.contributions[symbol][agent]
            assert min(before, held) - 1e-12 <= after <= before + 1e-12
            if before <= held or not any(b.name.startswith(agent) for b in bounds):
                assert after == before
    for agent in AGENTS:
        allowance = left.get(agent, Allowance())
        risen = sum(max(cut.contributions[s][agent] - float(world.attribution.position(agent, s) * marks[s] / equity), 0.0) for s in (BTC, ETH))
        spent = risen + (cut.quotes[ETH].bid_size if agent == "market_making" else 0.0)
        assert allowance.turnover is None or spent <= max(float(allowance.turnover / equity), 0.0) + 1e-9
        assert allowance.fees is None or spent * 0.001 <= max(float(allowance.fees / equity), 0.0) + 1e-9
    assert all(b.price >= 0 and b.name.split(".")[0] in AGENTS for b in bounds)
