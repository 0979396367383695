"""Members share what they live, are averaged, weighed by validation, saved whole, and served in numpy as in torch."""

from functools import partial

import numpy as np
import pytest

from agents import EnsembleAgent, SACAgent, TD3Agent
from agents.core.errors import ConfigError, ModelError, SpecMismatch
from agents.serving.ensemble import EnsembleActors
from tests.learning.corridor import Corridor

SMALL = {"policy_hiddens": (16, 16), "q_hiddens": (16, 16), "batch_size": 32, "buffer_size": 1000, "warmup_steps": 20}
STATES = np.linspace(-2, 2, 21, dtype=np.float32)[:, None]


def trained(steps: int = 40, **options: object) -> EnsembleAgent:
    agent = EnsembleAgent(env=Corridor, learning_rate=3e-3, gamma=0.9, seed=1, **options, **SMALL)
    agent.train(1, steps)
    return agent


def test_it_learns_with_the_face_of_one_agent():
    agent = EnsembleAgent(env=Corridor(), learning_rate=3e-3, gamma=0.9, seed=1, **SMALL)
    history = agent.train(2, 150)
    assert np.mean(agent.evaluate(20)) > -3.0
    assert history[-1]["steps"] == 300
    assert {"sac_alpha", "td3_td_error", "return"} <= history[-1].keys()
    assert Corridor.action_space.contains(agent.compute_action((np.array([0.3]), {})))


def test_all_members_remember_and_learn_but_one_acts_at_a_time():
    agent = trained()
    sac, td3 = agent.members.values()
    for one, two in zip(sac.buffer.latest(100), td3.buffer.latest(100), strict=True):
        np.testing.assert_array_equal(one, two)
    assert (sac.algorithm.updates, td3.algorithm.updates) == (21, 21)
    turn = agent._turn
    assert turn >= 4
    agent.remember(np.zeros(1), np.zeros(1), 0.0, np.zeros(1), False, truncated=True)
    assert agent._turn == turn + 1


def test_the_mean_is_weighted():
    agent = trained()
    sac, td3 = (member.actions(STATES) for member in agent.members.values())
    np.testing.assert_allclose(agent.actions(STATES), (sac + td3) / 2, atol=1e-6)
    agent.weigh({"sac": 3, "td3": 1})
    np.testing.assert_allclose(agent.actions(STATES), 0.75 * sac + 0.25 * td3, atol=1e-6)
    for wrong in ({"sac": 1}, {"sac": -1, "td3": 2}, {"sac": 0, "td3": 0}):
        with pytest.raises(ConfigError, match="weights"):
            agent.weigh(wrong)


def test_validation_prefers_what_is_clearly_better_and_nothing_by_luck():
    agent = trained(200)
    bad = agent.members["td3"].td3.actor
    bad.mean.weight.data.zero_()
    bad.mean.bias.data.fill_(5.0)  # always pushes to the right
    scores = agent.validate(10)
    assert set(scores) == {"mean", "rank", "sac", "td3"}
    assert agent.weights == {"sac": 1.0, "td3": 0.0}
    assert scores["sac"] > scores["rank"] > scores["td3"]
    twins = EnsembleAgent(env=Corridor, members={"one": SACAgent, "two": SACAgent}, **SMALL)
    twins.validate(5)
    assert twins.weights == {"one": 0.5, "two": 0.5}


def test_it_is_saved_and_restored_whole(tmp_path):
    agent = trained()
    agent.weigh({"sac": 3, "td3": 1})
    agent.save(tmp_path)
    other = EnsembleAgent(env=Corridor, seed=8, **SMALL)
    other.restore(tmp_path)
    assert (other.weights, other.steps) == ({"sac": 0.75, "td3": 0.25}, 40)
    np.testing.assert_array_equal(agent.actions(STATES), other.actions(STATES))
    np.testing.assert_array_equal(agent.actions(STATES, explore=True), other.actions(STATES, explore=True))
    with pytest.raises(SpecMismatch, match="sac, td3"):
        EnsembleAgent(env=Corridor, members={"one": SACAgent}, **SMALL).restore(tmp_path)
    with pytest.raises(SpecMismatch):
        SACAgent(env=Corridor, **SMALL).restore(tmp_path / "td3")


@pytest.mark.parametrize("options", [{}, {"normalize_observations": True}])
def test_numpy_serves_what_torch_would(options):
    agent = trained(**options)
    agent.weigh({"sac": 0.3, "td3": 0.7})
    served = EnsembleActors.from_payload(agent.payload(version=7, spec="s"), "s")
    np.testing.assert_allclose(served.act(STATES), agent.actions(STATES), atol=1e-5)
    assert served.version == 7 and len(served.digest) == 64


def test_what_is_no_ensemble_is_refused():
    single = SACAgent(state_dim=1, action_dim=1, **SMALL)
    with pytest.raises(ModelError, match="not those of an ensemble"):
        EnsembleActors.from_payload(single.payload(), "")
    agent = EnsembleAgent(state_dim=1, action_dim=1, **SMALL)
    actors = EnsembleActors.from_payload(agent.payload(), "").actors
    for weights in ({"sac": 1.0}, {"sac": 0.9, "td3": 0.9}, {"sac": -1.0, "td3": 2.0}):
        with pytest.raises(ModelError, match="do not fit"):
            EnsembleActors(actors, weights)
    with pytest.raises(SpecMismatch):
        EnsembleActors.from_payload(agent.payload(spec="a"), "b")


def test_members_are_what_one_names():
    members = {"calm": partial(SACAgent, init_alpha=0.01), "loud": partial(SACAgent, init_alpha=1.0), "plain": TD3Agent}
    agent = EnsembleAgent(env=Corridor, members=members, **SMALL)
    assert [agent.members[name].config.alpha for name in ("calm", "loud")] == [0.01, 1.0]
    with pytest.raises(ConfigError, match="at least one"):
        EnsembleAgent(env=Corridor, members={}, **SMALL)
    with pytest.raises(ConfigError, match="needs an environment"):
        EnsembleAgent(state_dim=1, action_dim=1, **SMALL).validate()
