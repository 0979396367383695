"""Four agents on one desk: PettingZoo's rules, who is due, and one account between them."""

import warnings

import numpy as np
import pytest
from pettingzoo.test import parallel_api_test

from agents.core.errors import ConfigError, DataError, NotFinite
from agents.desk.wishes import MARKET_MAKING, ORDER, RISK
from agents.environment.parallel import QuartetParallelEnv
from agents.environment.trading import TradingEnvironment
from tests.environment.trading_world import walk


def zeros(env: QuartetParallelEnv) -> dict[str, np.ndarray]:
    return {agent: np.zeros(env.action_space(agent).shape, np.float32) for agent in env.agents}


def drawn(env: QuartetParallelEnv, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {agent: rng.uniform(-1, 1, env.action_space(agent).shape).astype(np.float32) for agent in env.agents}


def test_pettingzoo_is_content():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_api_test(QuartetParallelEnv(walk(2, 80), warmup=30, episode_steps=10), num_cycles=25)


def test_on_candles_three_are_due_and_the_market_maker_never():
    env = QuartetParallelEnv(walk(2, 80), warmup=30, episode_steps=12)
    seen, infos = env.reset(seed=1)
    assert {agent: o.shape for agent, o in seen.items()} == {
        "long_term": (2, 100), "short_term": (2, 80), "market_making": (2, 120), "risk": (60,)
    }  # fmt: skip
    rewarded = dict.fromkeys(ORDER, 0.0)
    while env.agents:
        assert [agent for agent in ORDER if infos[agent]["due"]] == ["long_term", "short_term", "risk"]
        _, rewards, _, truncations, infos = env.step(drawn(env, np.random.default_rng(0)))
        rewarded = {agent: rewarded[agent] + abs(rewards[agent]) for agent in ORDER}
        if not env.agents:
            assert all(truncations.values())
    assert rewarded[MARKET_MAKING] == 0.0
    assert all(rewarded[agent] > 0 for agent in ORDER if agent != MARKET_MAKING)


def test_an_action_of_one_that_is_not_due_is_not_looked_at():
    env = QuartetParallelEnv(symbols=("BTC/USDT",), episode_steps=16)
    twin = QuartetParallelEnv(symbols=("BTC/USDT",), episode_steps=16)
    due = [agents["market_making"]["due"] for agents in (env.reset(seed=2)[1], twin.reset(seed=2)[1])]
    spoke = set()
    for _ in range(16):
        alone = env.desk.sitting.due
        actions = zeros(env)
        loud = {agent: action if agent in alone else action + 1.0 for agent, action in actions.items()}
        spoke |= set(alone)
        one, other = env.step(loud), twin.step(actions)
        assert one[1] == other[1]
        assert {a: i["equity"] for a, i in one[4].items()} == {a: i["equity"] for a, i in other[4].items()}
    assert due == [due[0]] * 2
    assert {MARKET_MAKING, RISK, "short_term"} <= spoke


def test_later_agents_answer_to_earlier_wishes_within_a_sitting():
    env = QuartetParallelEnv(walk(2, 80), warmup=30)
    env.reset(seed=1)
    bold = zeros(env) | {"long_term": np.tile(np.array([1.0, 0, 0, 0], np.float32), (2, 1))}
    env.step(bold)
    wishes = {wish.symbol: wish.exposure for wish in env.desk.standing.long_term.values()}
    from agents.market.observation import SPECS

    sat = env.desk.rewards._rows[RISK].observation  # what the risk agent saw when it spoke
    gross = float(sat.matrix[0, SPECS[RISK].index["wish_gross"]])
    assert gross == pytest.approx(sum(abs(w.weight) for w in env.desk.standing.long_term.values()), rel=0.35)
    assert all(exposure > 0 for exposure in wishes.values())


def test_equal_seeds_are_equal_and_one_chair_is_a_part_of_it():
    env, again = (QuartetParallelEnv(walk(2, 70), warmup=30, episode_steps=8) for _ in range(2))
    told = []
    for each in (env, again):
        each.reset(seed=4)
        rng = np.random.default_rng(9)
        steps = []
        while each.agents:
            seen, rewards, *_ = each.step(drawn(each, rng))
            steps.append(({a: o.tobytes() for a, o in seen.items()}, rewards))
        told.append(steps)
    assert told[0] == told[1]
    # With everybody at the prior, one agent's own environment sees the same account.
    env.reset(seed=4)
    chair = TradingEnvironment(walk(2, 70), form="risk", warmup=30, capital=100_000.0)
    chair.reset(seed=4)
    for _ in range(8):
        info = chair.step(np.zeros(2, np.float32))[4]
        infos = env.step(zeros(env))[4]
        assert infos["risk"]["equity"] == info["equity"]


def test_what_is_no_question_is_refused():
    env = QuartetParallelEnv(walk(2, 60), warmup=30)
    with pytest.raises(DataError, match="reset"):
        env.step({})
    env.reset(seed=0)
    with pytest.raises(ConfigError, match="actions lack"):
        env.step({"risk": np.zeros(2, np.float32)})
    with pytest.raises(NotFinite):
        env.step(zeros(env) | {"risk": np.full(2, np.nan, np.float32)})
    with pytest.raises(ConfigError, match="shape"):
        env.step(zeros(env) | {"risk": np.zeros(3, np.float32)})
    env.step(zeros(env))
