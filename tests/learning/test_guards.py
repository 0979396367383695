"""A candidate that is collapsed, saturated or half dead is not let out, and a sound one moves no further than allowed."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.errors import ConfigError
from agents.learning.guards import Guards, Refused, divergence, examine, policy, prior
from agents.models.actors import GaussianActor

STATES = torch.from_numpy(np.random.default_rng(0).standard_normal((64, 5), np.float32))


def weights(mean: float = 0.0, log_std: float = 0.0, seed: int = 0) -> dict[str, torch.Tensor]:
    """An actor of 2 actions whose heads are constants."""
    torch.manual_seed(seed)
    found = {name.removeprefix("layers."): tensor for name, tensor in GaussianActor(5, 2, (32, 32)).state_dict().items()}
    found["log_std.weight"].zero_()
    found["mean.bias"].fill_(mean)
    found["log_std.bias"].fill_(log_std)
    return found


def test_a_fresh_actor_is_in_health():
    health = examine(weights(), STATES)
    Guards().judge("risk", health)
    assert health["policy_saturation"] == 0
    assert health["dormant_share"] < 0.5
    assert 1 < health["effective_rank"] <= 64


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (0.7, -1.0), (-1.5, -2.0), (0.3, 1.0)])
def test_the_entropy_is_that_of_the_squashed_policy(mean, log_std):
    noise = np.random.default_rng(1).standard_normal(400_000)
    raw = mean + math.exp(log_std) * noise
    log_prob = -0.5 * noise**2 - log_std - 0.5 * math.log(2 * math.pi) - 2 * (math.log(2) - raw - np.logaddexp(0, -2 * raw))
    assert examine(weights(mean, log_std), STATES)["policy_entropy"] == pytest.approx(-log_prob.mean(), abs=0.05)


@pytest.mark.parametrize(("mean", "log_std", "words"), [(4.0, 0.0, "saturated"), (0.0, -9.0, "entropy has collapsed")])
def test_a_collapsed_policy_is_refused_and_the_words_say_why(mean, log_std, words):
    with pytest.raises(Refused, match=rf"market_making candidate.*{words}"):
        Guards().judge("market_making", examine(weights(mean, log_std), STATES))


def test_units_that_never_fire_are_counted_and_refused():
    dead = weights()
    dead["0.bias"][:] = -100.0
    dead["0.bias"][0] = 1.0
    dead["1.weight"].zero_()
    dead["1.bias"][:] = -1.0
    dead["1.bias"][3] = 1.0
    health = examine(dead, STATES)
    assert health["dormant_share"] == pytest.approx(62 / 64)
    assert health["effective_rank"] == pytest.approx(1.0, abs=1e-3)
    with pytest.raises(Refused, match="dormant"):
        Guards().judge("risk", health)


def test_the_divergence_is_the_textbooks():
    one, two = (torch.zeros(3, 2), torch.zeros(3, 2)), (torch.full((3, 2), 0.5), torch.full((3, 2), math.log(2)))
    p, q = (torch.distributions.Normal(mean, log.exp()) for mean, log in (two, one))
    assert divergence(one, two) == pytest.approx(float(torch.distributions.kl_divergence(p, q).mean()), abs=1e-6)
    assert divergence(one, one) == 0


@settings(deadline=None, max_examples=30)
@given(st.floats(-3, 3), st.floats(-4, 1), st.floats(0.01, 0.5), st.floats(0.01, 5))
def test_a_step_towards_the_candidate_stays_within_both_bounds(mean, log_std, drift, kl):
    last, new = weights(), weights(mean, log_std)
    moved, stated, apart = Guards(max_drift=drift, max_divergence=kl).approach(last, new, STATES)
    before, after = policy(last, STATES), policy(moved, STATES)
    assert float((torch.tanh(after[0]) - torch.tanh(before[0])).square().mean().sqrt()) == pytest.approx(stated, abs=1e-5)
    assert divergence(before, after) == pytest.approx(apart, abs=1e-4)
    assert stated <= drift
    assert apart <= kl


def test_the_first_candidate_is_measured_from_the_prior_whatever_the_old_trunk_was():
    wild, new = weights(0.0, 30.0, seed=1), weights(0.1, -0.2)
    for name in ("mean.weight", "mean.bias"):
        wild[name].zero_()
    moved, drift, _ = Guards(max_drift=0.5).approach(wild, new, STATES)
    assert moved is new
    assert drift > 0.05
    assert not torch.cat(policy(prior(new), STATES)).any()


def test_senseless_bounds_are_named():
    with pytest.raises(ConfigError, match="max_drift"):
        Guards(max_drift=0)
