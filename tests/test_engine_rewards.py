"""The engine pays by the configured terms, and shows an agent the moments that its next decision is judged with."""

from dataclasses import replace

import numpy as np
import pytest

from agents.core.errors import ConfigError
from agents.desk.rewards import TERMS, RewardParams, RewardTerms
from agents.engine import Engine
from agents.market.observation import SPECS, Experience
from daemon.settings import REWARD_TERMS, Rewards, Settings
from daemon.wiring import engine_config, reward_params
from tests.engine_world import CONFIG, World


def lived(seconds: float, **terms: dict[str, float]) -> tuple[Engine, list[Experience], list[tuple[np.ndarray, list[float]]]]:
    """(engine, experiences, by short-term decision (moments seen, moments kept)) of some market time with these terms."""
    world = World(replace(CONFIG, exploration=1.0, rewards=RewardParams(terms=RewardTerms(**terms), reward_scale=1.0)))
    book, seen, experiences = world.engine.rewards, [], []
    judge = book.on_decision

    def watched(agent, observation, *arguments, **more):
        results = judge(agent, observation, *arguments, **more)
        experiences.extend(results)
        if agent != "short_term":
            return results
        columns = observation.matrix[:, [SPECS[agent].index[name] for name in ("own_return_mean", "own_return_square")]]
        seen.append((columns, [float(moment) for moment in book.terms[agent].moments()]))
        return results

    book.on_decision = watched
    world.pass_time(seconds)
    return world.engine, experiences, seen


@pytest.mark.parametrize("name", ["differential_sharpe", "sortino"])
def test_what_the_agent_sees_are_the_moments_it_is_judged_with_next(name):
    engine, experiences, seen = lived(400, short_term={name: 1.0})
    assert len(seen) >= 6 and engine.rewards.terms["short_term"].moments()[0] != 0.0
    for columns, kept in seen:
        np.testing.assert_array_equal(columns, np.tile(np.float32(kept), (len(columns), 1)))
    assert len({tuple(kept) for _, kept in seen}) > 2  # and they move with the account
    index = [SPECS["short_term"].index[column] for column in ("own_return_mean", "own_return_square")]
    times = sorted({row.time for row in experiences if row.agent == "short_term"})
    first, second = (next(r for r in experiences if r.agent == "short_term" and r.time == time) for time in times[1:3])
    np.testing.assert_array_equal(first.next_state[index], second.state[index])


def test_nobody_sees_moments_unless_a_ratio_is_configured():
    _, _, seen = lived(200, short_term={"utility": 1.0, "drawdown": 0.5})
    assert len(seen) >= 3 and not any(columns.any() for columns, _ in seen)


def test_terms_change_what_is_earned_and_the_defaults_are_the_projects_own():
    _, plain, _ = lived(400)
    _, same, _ = lived(400, short_term={"utility": 1.0}, market_making={"spread_capture": 1.0})
    engine, dearer, _ = lived(400, short_term={"utility": 1.0, "costs": 1.0})
    assert [row.reward for row in plain] == [row.reward for row in same]
    assert engine.ledger.fill_count and len(plain) == len(dearer)
    pairs = [(a, b) for a, b in zip(plain, dearer, strict=True) if a.reward != b.reward]
    assert pairs and {a.agent for a, _ in pairs} == {"short_term"}
    assert pairs[0][0].reward > pairs[0][1].reward


# -- settings ----------------------------------------------------------------------------------------------------------


def test_the_section_says_what_the_rooms_know():
    config = engine_config(Settings(), (), 0, exploration=0.0)
    assert config.rewards == RewardParams()
    assert TERMS == REWARD_TERMS
    chosen = Settings(rewards=Rewards(long_term={"sortino": 2.0}, risk={"cvar": 1.0}, volatility_target=0.5, clip=3.0))
    params = reward_params(chosen)
    assert params.terms.of("long_term") == {"sortino": 2.0} and params.terms.of("risk") == {"cvar": 1.0}
    assert (params.volatility_target, params.clip, params.reward_scale) == (0.5, 3.0, 5.0)


def test_every_number_of_the_section_reaches_the_rewards():
    names = [name for name in Rewards.model_fields if name not in REWARD_TERMS]
    changed = {name: 1.5 * getattr(Rewards(), name) if name != "cvar_level" else 0.9 for name in names}
    params = reward_params(Settings(rewards=Rewards(**changed)))
    assert {name: getattr(params, name) for name in names} == changed and len(names) >= 9


@pytest.mark.parametrize(
    ("terms", "words"),
    [
        ({"sharpe": 1.0}, "rewards.market_making: 'sharpe' is no reward term of this agent; its terms are spread_capture, cvar, drawdown, costs"),
        ({"exploration": 1.0}, "simulation only"), ({}, "at least one"), ({"costs": -1.0}, "rewards.market_making.costs"),
    ],
)  # fmt: skip
def test_a_term_that_cannot_be_is_one_sentence_with_the_names(tmp_path, terms, words):
    from daemon.sources import load

    with pytest.raises(ConfigError) as error:
        load(None, {"rewards": {"market_making": terms}}, {})
    assert words in str(error.value) and "\n" not in str(error.value)


def test_two_ratios_are_refused():
    with pytest.raises(ValueError, match="same two columns"):
        Rewards(long_term={"sortino": 1.0, "differential_sharpe": 1.0})
