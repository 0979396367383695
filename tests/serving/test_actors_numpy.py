"""The numpy actors equal torch's, refuse weights that are unfit, and decide jointly as they do alone."""

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.errors import Diverged, ModelError, NotFinite, SpecMismatch
from agents.models.actors import GaussianActor
from agents.serving.actors import FORMAT, Actors

SIZES = {"long_term": (100, 4), "market_making": (120, 6), "risk": (60, 2), "short_term": (80, 4)}


def networks(seed: int = 0, hidden: tuple[int, ...] = (256, 256)) -> dict[str, GaussianActor]:
    torch.manual_seed(seed)
    made = {agent: GaussianActor(*size, hidden) for agent, size in SIZES.items()}
    for network in made.values():
        torch.nn.init.normal_(network.mean.weight, std=0.1)
        torch.nn.init.normal_(network.mean.bias, std=0.3)
    return made


def weights(made: dict[str, GaussianActor]) -> dict[str, torch.Tensor]:
    return {f"{a}.{name.removeprefix('layers.')}": t for a, net in made.items() for name, t in net.state_dict().items()}


def payload(tensors: dict[str, torch.Tensor], form: str = FORMAT, **meta: object) -> bytes:
    return safetensors.torch.save(tensors, {form: json.dumps({"version": 7, "spec": "spec", **meta})})


def states(rows: int, seed: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {agent: rng.standard_normal((rows, size), np.float32) for agent, (size, _) in SIZES.items()}


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), rows=st.integers(1, 20), hidden=st.sampled_from([(256, 256), (64, 64), (16,), (8, 32, 8)]))
def test_actions_equal_torch(seed, rows, hidden):
    made = networks(seed, hidden)
    actors = Actors.from_payload(payload(weights(made)), "spec")
    for agent, matrix in states(rows, seed).items():
        expected = made[agent].act(torch.from_numpy(matrix)).detach().numpy()
        np.testing.assert_allclose(actors.act(agent, matrix), expected, atol=1e-5, rtol=0)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_the_joint_decision_equals_torch(seed):
    made = networks(seed)
    actors = Actors.from_payload(payload(weights(made)), "spec")
    given_states = states(1, seed)
    for agent, action in actors.act_joint(given_states).items():
        expected = made[agent].act(torch.from_numpy(given_states[agent])).detach().numpy()
        np.testing.assert_allclose(action, expected, atol=1e-5, rtol=0)


def test_a_joint_decision_is_not_changed_by_the_next_one():
    actors = Actors.from_payload(payload(weights(networks())), "spec")
    first = actors.act_joint(states(1, 1))
    kept = {agent: action.copy() for agent, action in first.items()}
    actors.act_joint(states(1, 2))
    for agent in SIZES:
        np.testing.assert_array_equal(first[agent], kept[agent])
    again = actors.act_joint(states(1, 1))
    for agent in SIZES:
        np.testing.assert_array_equal(again[agent], kept[agent])


def test_exploration_follows_the_learned_deviation():
    made = networks()
    actors = Actors.from_payload(payload(weights(made)), "spec")
    matrix = states(1)["risk"]
    mean, log_std = (part.detach().numpy() for part in made["risk"](torch.from_numpy(matrix)))
    rng = np.random.default_rng(0)
    raw = np.arctanh(np.concatenate([actors.sample("risk", matrix, rng, 0.5) for _ in range(4000)]).astype(np.float64))
    np.testing.assert_allclose(raw.mean(0), mean[0], atol=0.05)
    np.testing.assert_allclose(raw.std(0), 0.5 * np.exp(log_std[0]), rtol=0.08)
    np.testing.assert_allclose(actors.sample("risk", matrix, rng, 0.0), actors.act("risk", matrix), atol=1e-6)


def test_the_prior_is_zero_everywhere():
    prior = Actors.prior(SIZES, (32, 32), "spec")
    assert prior.version == 0
    assert prior.sizes == SIZES
    assert not any(action.any() for action in prior.act_joint(states(1)).values())
    assert not prior.act("risk", states(5)["risk"]).any()


def test_the_version_and_the_digest_are_those_of_the_bytes():
    raw = payload(weights(networks()))
    actors = Actors.from_payload(raw, "spec")
    assert (actors.version, actors.spec, len(actors.digest)) == (7, "spec", 64)


def changed(**tensors: torch.Tensor | None) -> bytes:
    found = weights(networks())
    for name, tensor in tensors.items():
        key = name.replace("__", ".")
        if tensor is None:
            del found[key]
        else:
            found[key] = tensor
    return payload(found)


@pytest.mark.parametrize(("raw", "error", "words"), [
    (lambda: payload(weights(networks()), spec="other"), SpecMismatch, "'other'"),
    (lambda: payload(weights(networks()), form="x"), ModelError, "format"),
    (lambda: payload(weights(networks()), version="x"), ModelError, "version"),
    (lambda: payload({}), ModelError, "no actor"),
    (lambda: b"", ModelError, "cannot be read"),
    (lambda: payload(weights(networks()))[:-1], ModelError, "cannot be read"),
    (lambda: b"\x80\x04\x95" + bytes(100), ModelError, "cannot be read"),
    (lambda: changed(risk__0__bias=torch.full((256,), torch.nan)), Diverged, "risk.0.bias"),
    (lambda: changed(risk__mean__bias=torch.tensor([1.0, torch.inf])), Diverged, "risk.mean.bias"),
    (lambda: changed(risk__mean__bias=torch.zeros(2, dtype=torch.float64)), ModelError, "float64"),
    (lambda: changed(risk__mean__bias=torch.zeros(3)), ModelError, "fit"),
    (lambda: changed(risk__1__weight=torch.zeros(256, 255)), ModelError, "fit"),
    (lambda: changed(risk__log_std__weight=torch.zeros(3, 256), risk__log_std__bias=torch.zeros(3)), ModelError, "fit"),
    (lambda: changed(risk__1__weight=None), ModelError, "risk lack"),
    (lambda: changed(risk__mean__weight=None, risk__mean__bias=None), ModelError, "risk lack"),
    (lambda: changed(risk__extra__weight=torch.zeros(1)), ModelError, "no place"),
])  # fmt: skip
def test_unfit_weights_are_refused(raw, error, words):
    with pytest.raises(error, match=words):
        Actors.from_payload(raw(), "spec")


@settings(max_examples=40, deadline=None)
@given(at=st.integers(0, 2000), bit=st.integers(0, 7))
def test_a_flipped_bit_never_raises_anything_else_than_a_model_error(at, bit):
    raw = bytearray(payload(weights(networks(hidden=(8,)))))
    raw[at % len(raw)] ^= 1 << bit
    with suppress(ModelError):
        Actors.from_payload(bytes(raw), "spec")


@pytest.mark.parametrize("matrix", [np.zeros((1, 59), np.float32), np.zeros(60, np.float32), np.zeros((1, 60))])
def test_a_state_of_the_wrong_shape_or_type_is_refused(matrix):
    with pytest.raises(SpecMismatch, match="risk takes"):
        Actors.prior(SIZES).act("risk", matrix)


def test_a_joint_state_of_the_wrong_shape_is_refused():
    with pytest.raises(SpecMismatch, match="one row"):
        Actors.prior(SIZES).act_joint(states(2))


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_an_action_that_is_not_finite_is_refused(poison):
    actors = Actors.from_payload(payload(weights(networks())), "spec")
    given_states = states(1)
    given_states["risk"][0, 3] = poison
    with pytest.raises(NotFinite):
        actors.act("risk", given_states["risk"])
    with pytest.raises(NotFinite):
        actors.act_joint(given_states)
    actors.act_joint(states(1))


def test_serving_does_not_load_torch():
    code = "import sys, json; import agents.serving.actors; print(json.dumps('torch' in sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert json.loads(found.stdout) is False
