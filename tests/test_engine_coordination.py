"""Strategies and budgets through the whole engine: recorded, repeatable, and never beyond what was allowed."""

from dataclasses import replace
from decimal import Decimal

import pytest

from agents.core.orders import Place
from agents.desk.attribution import check_sums
from agents.desk.coordinator import AgentBudget, Budgets, CoordinatorParams
from agents.desk.planner import plan
from agents.desk.wishes import ORDER
from tests.engine_world import CONFIG, World

QUICK = CoordinatorParams(strategy="gating", period_s=5.0, memory_days=0.01)


def lived(config, seconds=60):
    world, decisions = World(config), []
    step = world.engine.step

    def noted(event):
        effects = step(event)
        if effects.decision is not None:
            decisions.append(effects.decision)
        return effects

    world.engine.step = noted
    world.pass_time(seconds)
    return world, decisions


@pytest.fixture(scope="module")
def gated():
    return lived(replace(CONFIG, coordinator=QUICK))


def test_what_was_learned_of_the_agents_is_in_the_record_and_repeats(gated):
    world, decisions = gated
    trusted = [decision.record()["trusted"] for decision in decisions]
    assert trusted[0] == dict.fromkeys(("long_term", "short_term", "market_making"), 1.0)
    assert any(min(each.values()) < 0.999 for each in trusted)
    assert [decision.record() for decision in lived(replace(CONFIG, coordinator=QUICK))[1]] == [decision.record() for decision in decisions]
    assert world.violations == []


def test_sub_accounts_sum_to_the_account_in_a_run_with_quotes_crosses_and_fees(gated):
    engine = gated[0].engine
    marks = {symbol: engine.market.mark(symbol) for symbol in engine.symbols}
    assert engine.ledger.fill_count and check_sums(engine.attribution, engine.ledger, marks) < Decimal("1e-12")
    assert sum(engine.attribution.costs(marks).values()) != 0


def test_fills_are_judged_by_the_mark_of_the_decision_that_asked_for_them(gated):
    world, decisions = gated
    asked = [(command, decision) for decision in decisions if decision.safe for command in decision.commands if isinstance(command, Place)]
    assert asked and all(world.engine.attribution._asked[place.order_id] == decision.safe.marks[place.symbol] for place, decision in asked)


def test_a_plan_is_told_what_the_day_still_allows(monkeypatch):
    told = []
    monkeypatch.setattr("agents.engine.plan", lambda *given: (told.append(given[-1].allowances), plan(*given))[1])
    lived(replace(CONFIG, coordinator=CoordinatorParams(budgets=Budgets(short_term=AgentBudget(turnover=0.1)))), 3)
    assert told and all(set(allowances) == {"short_term"} for allowances in told)
    told.clear()
    lived(CONFIG, 3)
    assert told and not any(told)


def test_a_budget_holds_through_the_engine_and_is_named_in_the_record():
    budgets = Budgets(long_term=AgentBudget(turnover=0.004), market_making=AgentBudget(turnover=0.01, fees=0.0001))
    world, decisions = lived(replace(CONFIG, coordinator=CoordinatorParams(budgets=budgets)))
    engine = world.engine
    bought, equity = engine.attribution.bought(), engine._value()
    for agent, share in (("long_term", 0.004), ("market_making", 0.01)):
        assert Decimal(0) < bought[agent] <= Decimal(repr(share)) * equity * Decimal("1.001")  # budgets are of present equity, which moves
    names = {bound["name"] for decision in decisions for bound in decision.record()["bound"]}
    assert {"long_term.turnover", "market_making.turnover"} <= names
    assert bought["short_term"] >= 0 and world.violations == []


def test_wishes_come_in_their_order_however_agents_are_listed():
    _, decisions = lived(replace(CONFIG, agents=tuple(reversed(ORDER))))
    assert ("long_term", "short_term", "risk") in [decision.agents for decision in decisions]
    assert all(decision.agents == tuple(agent for agent in ORDER if agent in decision.agents) for decision in decisions)
