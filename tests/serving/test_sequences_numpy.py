"""The numpy pass behind a CNN and LSTM is torch's, at full size too, and refuses what it cannot serve."""

import numpy as np
import pytest

from agents import SACAgent
from agents.core.errors import Diverged, ModelError, NotFinite, SpecMismatch
from agents.learning.presets import preset
from agents.serving.sequences import SequenceActor

SMALL = {"time_steps": 4, "assets": 5, "features": 3, "cnn_filters": (6, 4), "lstm_units": (7, 5), "output_dim": 9}
NETS = {"policy_hiddens": (16, 16), "q_hiddens": (16, 16), "buffer_size": 10, "action_dim": 2}


def agent(**changes: object) -> SACAgent:
    """Its heads are not zero, so that an action says something."""
    made = SACAgent(**SMALL | NETS | changes)
    made.sac.actor.mean.reset_parameters()
    for parameter in made.sac.critic.encoder.sequence.pool.parameters():
        parameter.data.mul_(8)  # Weights that are nearly equal would hide what makes them up.
    return made


@pytest.mark.parametrize("changes", [
    {},
    {"normalize_observations": True},
    {"cnn_filters": (), "lstm_units": (8,)},
    {"attention": True},
    preset("cross_section", buffer_size=10),
    preset("classifier", buffer_size=10),
])  # fmt: skip
def test_numpy_serves_what_torch_would(changes):
    made = agent(**changes)
    rng = np.random.default_rng(0)
    states = (3 * rng.standard_normal((6, made.state_dim)) + 1).astype(np.float32)
    for state in states if "normalize_observations" in changes else ():
        made.remember(state, np.zeros(2), 0.0, state, False)
    served = SequenceActor.from_payload(made.payload(version=4, spec="s"), "s")
    expected = made.actions(states)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(served.act(states), expected, atol=1e-5)
    np.testing.assert_array_equal(served.act(states.reshape(6, *served.shape)), served.act(states))
    assert served.version == 4 and len(served.digest) == 64


def test_what_cannot_be_served_is_refused():
    made = agent()
    payload = made.payload(spec="s")
    served = SequenceActor.from_payload(payload, "s")
    with pytest.raises(SpecMismatch, match="'s', not 't'"):
        SequenceActor.from_payload(payload, "t")
    with pytest.raises(ModelError, match="cannot be read"):
        SequenceActor.from_payload(payload[:-5], "s")
    with pytest.raises(ModelError, match="cannot be read"):
        SequenceActor.from_payload(SACAgent(state_dim=2, action_dim=1, buffer_size=1).payload(spec="s"), "s")
    with pytest.raises(SpecMismatch, match="float32"):
        served.act(np.zeros((1, 4, 5, 4), np.float32))
    with pytest.raises(NotFinite):
        served.act(np.full((1, 4, 5, 3), np.nan, np.float32))
    with pytest.raises(ModelError, match="output"):
        SequenceActor({"norm.mean": np.zeros(1), "norm.deviation": np.ones(1)}, (4, 5, 3), 1, "")
    made.sac.actor.mean.bias.data.fill_(float("nan"))
    with pytest.raises(Diverged):
        SequenceActor.from_payload(made.payload(spec="s"), "s")
