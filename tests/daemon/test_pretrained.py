"""Weights of a training run in the daemon: served from the first decision on, refused where they do not fit, never on a real exchange."""

import json
from pathlib import Path

import pytest
from safetensors.numpy import load, save

from agents.core.errors import ConfigError
from agents.core.events import NewWeights
from agents.market.observation import SPEC_HASH
from agents.serving.actors import FORMAT
from daemon import session
from daemon.errors import Unsafe
from daemon.journal import JournalReader
from daemon.pretrained import pretrained
from daemon.settings import Settings
from tests.weights import payload


def settings_of(tmp_path: Path, **changes: object) -> Settings:
    tree = {"state_dir": tmp_path / "state", "http": {"port": "off"}, "agents": {"weights": tmp_path / "weights.safetensors"}}
    return Settings.model_validate({**tree, **changes})


def test_nothing_named_is_nothing_served(tmp_path):
    assert pretrained(Settings.model_validate({"state_dir": tmp_path})) == ()


def test_weights_become_the_first_event(tmp_path):
    body, digest = payload(7)
    (tmp_path / "weights.safetensors").write_bytes(body)
    (event,) = pretrained(settings_of(tmp_path))
    assert isinstance(event, NewWeights)
    assert (event.version, event.digest, event.spec, event.payload) == (7, digest, SPEC_HASH, body)


@pytest.mark.parametrize(
    ("body", "words"), [(None, "holds no weights"), (b"torn", "cannot be read"), (payload(1, spec="other")[0], "observation spec")]
)
def test_weights_that_do_not_fit_are_refused_by_the_settings_name(tmp_path, body, words):
    if body is not None:
        (tmp_path / "weights.safetensors").write_bytes(body)
    with pytest.raises(ConfigError, match=f"agents.weights.*{words}"):
        pretrained(settings_of(tmp_path))


def test_weights_that_lack_an_agent_are_refused(tmp_path):
    tensors = load(payload(1)[0])
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("risk.")}
    body = save(kept, {FORMAT: json.dumps({"version": 1, "spec": SPEC_HASH})})
    (tmp_path / "weights.safetensors").write_bytes(body)
    with pytest.raises(ConfigError, match=r"agents\.weights.*sizes"):
        pretrained(settings_of(tmp_path))


async def test_a_real_exchange_takes_promoted_weights_only(tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(payload(1)[0])
    real = settings_of(tmp_path, mode="live", exchange={"id": "binance", "symbols": ["BTC/USDT"]})
    with pytest.raises(Unsafe, match="promoted"):
        await session.trade(real, duration=1.0, real_money=True)


@pytest.mark.slow
async def test_a_paper_session_decides_with_them_from_the_start(tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(payload(7)[0])
    await session.trade(settings_of(tmp_path, exchange={"symbols": ["BTC/USDT"]}), duration=6.0)
    reader = JournalReader(tmp_path / "state")
    (row,) = reader.sessions()
    assert [event.version for event in reader.events(row) if isinstance(event, NewWeights)] == [7]
    decisions = [record["weights"]["version"] for _, _, record in reader.decisions(row.epoch) if record["agents"]]
    assert decisions and set(decisions) == {7}
