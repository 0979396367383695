"""Parts switched off one at a time: what is offered, what is compared with what, and that a part which does nothing is told so."""

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from agents.core.errors import ConfigError, DataError
from agents.core.instruments import NS
from agents.desk.coordinator import AgentBudget, Budgets, CoordinatorParams
from agents.desk.decision import EngineConfig
from agents.desk.limits import Limits
from agents.desk.rewards import RewardParams, RewardTerms
from agents.environment.kernel import VectorCosts
from agents.jobs.ablate import IMPOSSIBLE, RAN, RETRAINED, SAME, SILENT, UNTRAINED, Life, ablate, bucket_of
from agents.jobs.ablation_runners import EventRunner, VectorRunner, long_term_trainer
from agents.jobs.ablation_setup import Window, made_up, prepare
from agents.jobs.ablations import WITHOUT, ablations, chosen
from agents.market.frictions import CandleBook, FixedLatency, Frictions
from daemon.cli import main

HOUR, DAY = 3600 * NS, 86_400 * NS
CONFIG = EngineConfig("a", 1, "USDT", (), hidden_sizes=(4,))
FRICTIONS = Frictions(latency=FixedLatency(NS // 20), candles=CandleBook())


class Made:
    """Lives whose returns are given: a part of the drift for each part that is switched on."""

    def __init__(self, drift, spoke=("long_term", "risk"), days=300, unknown=()):
        self.drift, self.spoke, self.days, self.unknown = drift, spoke, days, unknown
        self.lived = []

    def passes_over(self, config):
        return self.unknown

    def live(self, config, weights, told):
        self.lived.append((config, tuple(weights)))
        noise = np.random.default_rng(1).standard_normal((self.days, len(weights))) * 0.01
        told(1.0)
        bound = {"position_cap": 7, "turnover": 3}
        return Life(DAY * np.arange(1, self.days + 1), noise + self.drift(config), 5.0, 0.01, bound, dict.fromkeys(self.spoke, 9))


def row(table, name):
    return next(each for each in table.rows if each.name == name)


# -- what can be switched off ------------------------------------------------------------------------------------------


def test_everything_that_is_on_and_nothing_that_is_off_is_offered_and_changes_the_configuration():
    full = replace(
        CONFIG, limits=Limits(cvar=0.05, fees_day=0.01, gross=0.9), rewards=RewardParams(terms=RewardTerms(long_term={"utility": 1.0, "drawdown": 0.1})),
        coordinator=CoordinatorParams(strategy="band", budgets=Budgets(short_term=AgentBudget(fees=0.1))),
    )  # fmt: skip
    offered = {part.name: part for part in ablations(full)}
    assert {"agents.risk", "prior.short_term", "risk.cvar", "risk.fees_day", "risk.gross", "risk.drawdown", "coordinator.band", "coordinator.strategy",
            "coordinator.budgets", "rewards.utility", "rewards.drawdown", "rewards.alias"} <= offered.keys()  # fmt: skip
    assert not {"risk.net", "risk.var"} & offered.keys() and "risk.gross" not in {part.name for part in ablations(CONFIG)}
    for part in offered.values():
        without = part.off(full)
        assert without != full and part.name not in {each.name for each in ablations(without)}
    assert offered["rewards.drawdown"].off(full).rewards.terms.long_term == {"utility": 1.0}
    assert "rewards.utility" not in {part.name for part in ablations(CONFIG)}  # the last term cannot go


def test_every_constraint_named_is_a_limit_and_its_free_value_is_legal():
    names = {field for fields in WITHOUT.values() for field in fields}
    assert names <= set(Limits.__dataclass_fields__)
    assert all(replace(Limits(), **fields) for fields in WITHOUT.values())


def test_without_the_risk_agent_both_multipliers_are_one():
    (part,) = chosen(CONFIG, ["agents.risk"])
    without = part.off(CONFIG)
    assert (without.coordinator.silent_gross, without.coordinator.silent_budget) == (1.0, 1.0) and "risk" not in without.agents


@pytest.mark.parametrize(("pattern", "count"), [("agents", 4), ("prior.risk", 1), ("risk.c*", 2), ("risk.position_cap", 1)])
def test_parts_are_chosen_by_name_and_by_beginning(pattern, count):
    assert len(chosen(CONFIG, [pattern])) == count


@pytest.mark.parametrize(("pattern", "why"), [("risk.cvar", "risk.cvar is not switched on"), ("luck", "luck is nothing that can"), ("risk.posit", "nothing")])
def test_a_name_that_is_nothing_is_refused_with_what_there_is(pattern, why):
    with pytest.raises(ConfigError, match=f"{why}.*there is agents.long_term"):
        chosen(CONFIG, [pattern])


# -- what is compared --------------------------------------------------------------------------------------------------


def test_the_effect_is_with_minus_without_and_a_useful_part_is_above_zero():
    runner = Made(lambda config: 0.004 * ("risk" in config.agents) - 0.004 * (config.limits.position_cap < 1))
    table = ablate(CONFIG, runner, "1d", only=["agents.risk", "risk.position_cap", "risk.turnover_day"], resamples=400)
    good, bad, none = row(table, "agents.risk"), row(table, "risk.position_cap"), row(table, "risk.turnover_day")
    assert good.effect["mean"].estimate == pytest.approx(0.004 * 365) and good.effect["sharpe"].decided == 1
    assert bad.effect["mean"].estimate == pytest.approx(-0.004 * 365) and bad.effect["sharpe"].decided == -1
    assert (none.status, none.effect, none.p) == (SAME, {}, None)
    assert (good.bound, bad.bound, none.bound) == (None, 7, 3)
    assert good.figures["sharpe"] < table.whole["sharpe"] < bad.figures["sharpe"] and table.periods == 300


def test_p_values_are_adjusted_for_all_that_was_tested():
    drifts = {"risk.cash_buffer": (lambda c: c.limits.cash_buffer, 0.0002), "risk.position_cap": (lambda c: c.limits.position_cap < 1, 0.0004)}

    def drift(config):
        return sum(size * bool(on(config)) for on, size in drifts.values()) * np.sin(np.arange(300.0))[:, None] + 0.0001 * bool(config.limits.cash_buffer)

    alone = {name: row(ablate(CONFIG, Made(drift), "1d", only=[name], resamples=400), name).p for name in drifts}
    both = ablate(CONFIG, Made(drift), "1d", only=list(drifts), resamples=400)
    small, large = sorted(alone, key=lambda name: alone[name])
    assert row(both, small).p == pytest.approx(min(2 * alone[small], 1.0))
    assert row(both, large).p == pytest.approx(min(max(alone[large], 2 * alone[small]), 1.0))


def test_what_cannot_be_judged_is_told_and_not_run():
    runner = Made(lambda config: 0.0, unknown=("risk.depth_share",))
    table = ablate(CONFIG, runner, "1d", only=["agents.market_making", "rewards", "risk.depth_share"], resamples=100)
    assert [each.status for each in table.rows] == [SILENT, IMPOSSIBLE, UNTRAINED, UNTRAINED]
    assert len(runner.lived) == 1 and all(each.detail for each in table.rows) and table.unknown == ("risk.depth_share",)
    stuck = replace(CONFIG, limits=Limits(position_cap=0.2))
    broken = Made(lambda config: 0.0)
    broken.live = lambda *_: pytest.fail("no run")  # type: ignore[method-assign]
    with pytest.raises(pytest.fail.Exception):
        ablate(stuck, broken, "1d", only=["risk.position_cap"])


def test_only_what_changes_learning_is_retrained_and_the_table_says_so():
    asked = []

    def train(config, told):
        asked.append(config)
        return [b"one", b"two"]

    runner = Made(lambda config: 0.001 * ("risk" in config.agents))
    table = ablate(CONFIG, runner, "1d", only=["agents.risk", "agents.long_term", "prior.long_term", "rewards.alias"], train=train, resamples=100)
    assert [config.without_prior for config in asked] == [(), ("long_term",), ()] and [c.rewards.alias for c in asked] == [1.0, 1.0, 0.0]
    assert row(table, "agents.risk").weights == RETRAINED and row(table, "agents.risk").status == RAN
    assert [len(weights) for _, weights in runner.lived] == [2, 1, 2, 2, 2]  # nobody's weights differ by seed without the agent
    assert table.weights == RETRAINED


def test_bad_requests_are_refused_by_name():
    with pytest.raises(ConfigError, match="exclude each other"):
        ablate(CONFIG, Made(lambda c: 0.0), "1d", weights=b"", train=lambda c, t: [])
    with pytest.raises(ConfigError, match=r"agents\.enabled"):
        ablate(replace(CONFIG, agents=("risk",)), Made(lambda c: 0.0), "1d", train=lambda c, t: [])
    with pytest.raises(DataError, match="holds 10 returns"):
        ablate(CONFIG, Made(lambda c: 0.0, days=10), "1d")
    with pytest.raises(DataError, match="widen --from"):
        bucket_of(0, 60 * NS)
    with pytest.raises(ConfigError, match="--from"):
        prepare(Window([Path(__file__)], (), None, None, Decimal(1), FRICTIONS), "event", retrain=5)


def test_the_longest_returns_of_which_there_are_enough():
    assert [bucket_of(0, span) for span in (31 * DAY, 30 * DAY, 31 * HOUR, HOUR)] == ["1d", "1h", "1h", "1m"]


# -- the real thing, small ---------------------------------------------------------------------------------------------


def test_through_the_engine_cash_replaces_the_agent_and_without_a_cap_positions_are_larger():
    flat = made_up(2).rows(0, 24 * 4)
    rise = np.exp(0.002 * np.arange(24 * 4))[:, None]  # four days that a trend is seen in
    history = replace(flat, **{name: np.round(getattr(flat, name) * rise, 2) for name in ("open", "high", "low", "close")})
    start = int(history.times[40])
    runner = EventRunner(history, start, None, "1h", Decimal(10_000), FRICTIONS, warm_up_ns=40 * HOUR)
    config = replace(CONFIG, limits=Limits(position_cap=0.008))
    table = ablate(config, runner, "1h", only=["agents.long_term", "agents.market_making", "risk.position_cap"], resamples=100)
    cash, cap = row(table, "agents.long_term"), row(table, "risk.position_cap")
    assert table.whole["volatility"] > 0 == cash.figures["volatility"] == cash.figures["turnover"] and cash.status == RAN
    assert cap.figures["volatility"] > 1.2 * table.whole["volatility"] and cap.bound and cap.bound > 0
    assert row(table, "agents.market_making").status == SILENT
    assert table.periods == len(history.times) - 41  # what came before the window is seen and not judged
    assert json.loads(json.dumps(table.to_dict()))["tested"] == 2


def test_through_the_kernel_seeds_are_learned_before_the_window_and_judged_in_it():
    history = made_up(2).rows(0, 24 * 80)
    start = int(history.times[24 * 45])
    costs = VectorCosts()
    runner = VectorRunner(history, start, None, costs)
    train = long_term_trainer(history, start, 2, 3, costs, {"hidden_sizes": (4,), "copies": 2, "round_bars": 16})
    table = ablate(CONFIG, runner, "1d", only=["agents.long_term", "agents.risk", "rewards.alias", "prior.risk"], train=train, resamples=100)
    assert row(table, "agents.long_term").figures["volatility"] == 0.0 < table.whole["volatility"]
    assert row(table, "agents.risk").figures["volatility"] > table.whole["volatility"]
    assert row(table, "rewards.alias").weights == f"{RETRAINED} for this row"
    assert row(table, "prior.risk").status == IMPOSSIBLE and {"agents.short_term", "risk.depth_share"} <= set(table.unknown)
    assert table.periods in (35, 36)
    with pytest.raises(DataError, match="no candles before"):
        long_term_trainer(history, int(history.times[0]), 1, 5, costs)
    with pytest.raises(ConfigError, match="at least 1"):
        long_term_trainer(history, start, 0, 5, costs)


def test_the_command_without_any_data(capsys):
    assert main(["ablate", "--engine", "vector", "--symbols", "A/USDT,B/USDT", "--only", "agents.risk", "--resamples", "100", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in found["rows"]] == ["agents.risk"] and found["data"] == ["made up, with planted momentum"]
    assert found["rows"][0]["effect"]["sharpe"]["low"] <= found["rows"][0]["effect"]["sharpe"]["high"]
    assert main(["ablate", "--list", "--only", "prior"]) == 0 and "prior.long_term" in capsys.readouterr().out
    assert main(["ablate", "--only", "luck", "--list"]) == 2 and "luck is nothing" in capsys.readouterr().err
    assert main(["ablate", "--data", "/nowhere"]) == 2 and "no file or folder" in capsys.readouterr().err


def test_the_table_for_people(capsys):
    assert main(["ablate", "--engine", "vector", "--symbols", "A/USDT,B/USDT", "--only", "risk.cash_buffer", "--only", "agents.risk", "--only", "agents.short_term", "--resamples", "100"]) == 0
    page = capsys.readouterr().out
    assert "Everything on (priors)" in page and "Passed over in every row" in page and "earns its place" in page
