"""A checkpoint is whole or refused, and the one before stays until the next is committed."""

import json
import os

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.core.errors import ModelError
from agents.learning import checkpoint

META = {"version": 3, "rng": {"state": {"state": 2**127 + 1}}}


def tensors(value: float = 1.0) -> dict[str, torch.Tensor]:
    return {"a.weight": torch.full((3, 4), value), "step": torch.tensor(value)}


def test_what_was_saved_is_loaded(tmp_path):
    checkpoint.save(tmp_path / "new", tensors(), META)
    loaded, meta = checkpoint.load(tmp_path / "new")
    assert meta == META
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors().items())


def test_only_the_last_two_are_kept(tmp_path):
    for value in range(5):
        checkpoint.save(tmp_path, tensors(value), {"value": value})
    assert len(list(tmp_path.iterdir())) == 4
    assert checkpoint.load(tmp_path)[1] == {"value": 4}


def test_nothing_saved_is_told_apart_from_something_damaged(tmp_path):
    with pytest.raises(FileNotFoundError):
        checkpoint.load(tmp_path)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_flipped_bit_and_any_cut_is_refused(tmp_path, data):
    folder = tmp_path / "c"
    digest = checkpoint.save(folder, tensors(), META)
    path = folder / data.draw(st.sampled_from([f"{digest}.safetensors", "checkpoint.json"]))
    raw = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(raw) - 1))
    if data.draw(st.booleans()):
        raw[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del raw[at:]
    before = json.loads((folder / "checkpoint.json").read_bytes())
    path.write_bytes(raw)
    try:
        same = json.loads((folder / "checkpoint.json").read_bytes()) == before and path.suffix == ".json"
    except ValueError:
        same = False
    if not same:  # a blank turned into another blank is no damage
        with pytest.raises(ModelError, match="damaged"):
            checkpoint.load(folder)
    (folder / "checkpoint.json").unlink()
    (folder / f"{digest}.safetensors").unlink()


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path):
    checkpoint.save(tmp_path, tensors(1), {"value": 1})
    digest = checkpoint.save(tmp_path, tensors(2), {"value": 2})
    (tmp_path / f"{digest}.safetensors").write_bytes(b"cut")
    loaded, meta, why = checkpoint.load_last_good(tmp_path)
    assert (meta, float(loaded["step"])) == ({"value": 1}, 1.0)
    assert "went back" in why
    assert digest in why


def test_a_damaged_record_is_not_carried_over_the_good_one(tmp_path):
    checkpoint.save(tmp_path, tensors(1), {"value": 1})
    checkpoint.save(tmp_path, tensors(2), {"value": 2})
    (tmp_path / "checkpoint.json").write_text("{")
    checkpoint.save(tmp_path, tensors(3), {"value": 3})
    (tmp_path / "checkpoint.json").write_text("{")
    assert checkpoint.load_last_good(tmp_path)[1] == {"value": 1}


def test_when_neither_is_sound_the_error_is_of_the_last(tmp_path):
    digest = checkpoint.save(tmp_path, tensors(1), {"value": 1})
    (tmp_path / f"{digest}.safetensors").unlink()
    with pytest.raises(ModelError, match="missing"):
        checkpoint.load_last_good(tmp_path)


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_full_disk_while_saving_leaves_the_last_good_one(tmp_path, monkeypatch, call, nth):
    checkpoint.save(tmp_path, tensors(1), {"value": 1})
    real, calls = getattr(os, call), []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == nth:
            raise OSError(28, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(os, call, failing)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(tmp_path, tensors(2), {"value": 2})
    monkeypatch.undo()
    assert not list(tmp_path.glob("*.tmp"))  # what a full disk needs most is its room back
    assert checkpoint.load(tmp_path)[1] == {"value": 1}
    checkpoint.save(tmp_path, tensors(3), {"value": 3})
    assert checkpoint.load(tmp_path)[1] == {"value": 3}
