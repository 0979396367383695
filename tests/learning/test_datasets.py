"""Offline rows enter whole or not at all, and then make up half of each batch."""

import numpy as np
import pytest

from agents.core.errors import DataError
from agents.jobs.datasets import labelled, offline_rings, read_transitions, write_transitions
from agents.learning.datasets import append, mixed
from agents.learning.replay import ReplayBuffer

S, A, N = 3, 2, 10


def columns(reward: float = 1.0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "state": rng.standard_normal((N, S)), "action": np.tanh(rng.standard_normal((N, A))), "reward": np.full(N, reward),
        "next_state": rng.standard_normal((N, S)), "done": np.zeros(N, bool),
    }  # fmt: skip


def test_an_npz_is_read_under_its_own_and_others_names(tmp_path):
    given = columns()
    np.savez(tmp_path / "own.npz", **given, time=np.arange(N)[::-1])
    np.savez_compressed(
        tmp_path / "d4rl.npz", observations=given["state"], actions=given["action"], rewards=given["reward"][:, None],
        next_observations=given["next_state"], terminals=given["done"], timeouts=given["done"],
    )  # fmt: skip
    ring = ReplayBuffer(S, A, 100)
    assert read_transitions(tmp_path / "own.npz", ring) == N
    np.testing.assert_allclose(ring.latest(N).state, given["state"][::-1], rtol=1e-6)
    assert read_transitions(tmp_path / "d4rl.npz", ring) == N
    np.testing.assert_allclose(ring.latest(N).action, given["action"], rtol=1e-6)


@pytest.mark.parametrize(("change", "words"), [
    (lambda c: c.pop("action"), "column action is missing"),
    (lambda c: c.update(state=c["state"][:, :2]), "column state has shape"),
    (lambda c: c.update(reward=c["reward"][:-1]), "column reward has shape"),
    (lambda c: c["next_state"].__setitem__((4, 1), np.nan), "column next_state holds a NaN or an infinity in row 4"),
    (lambda c: c.update(action=c["action"].astype(str)), "column action holds <U"),
    (lambda c: c.update(elapsed=np.full(N, -1.0)), "elapsed is negative"),
    (lambda c: c["action"].__setitem__((3, 0), 1.5), r"column action leaves \[-1, 1\] in row 3"),
])  # fmt: skip
def test_bad_columns_are_named_with_their_file_and_nothing_enters(tmp_path, change, words):
    given, ring = columns(), ReplayBuffer(S, A, 100)
    change(given)
    np.savez(tmp_path / "x.npz", **given)
    with pytest.raises(DataError, match=words) as raised:
        read_transitions(tmp_path / "x.npz", ring)
    assert str(tmp_path / "x.npz") in str(raised.value)
    assert len(ring) == 0


def test_what_is_no_npz_is_refused_and_nothing_is_unpickled(tmp_path):
    ring = ReplayBuffer(S, A, 100)
    np.savez(tmp_path / "whole.npz", **columns())
    whole = (tmp_path / "whole.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.npz").write_text("hello")
    np.savez(tmp_path / "pickled.npz", state=np.array([{"a": 1}], dtype=object))
    for name in ("cut", "text", "pickled", "absent"):
        with pytest.raises(DataError, match=rf"{name}\.npz: cannot be read"):
            read_transitions(tmp_path / f"{name}.npz", ring)


def test_a_parquet_table_is_read_and_its_faults_are_named(tmp_path):
    import polars

    given, path, ring = columns(), tmp_path / "x.parquet", ReplayBuffer(S, A, 100)
    table = polars.DataFrame({name: list(values) if values.ndim == 2 else values for name, values in given.items()})
    table.write_parquet(path)
    assert read_transitions(path, ring) == N
    np.testing.assert_allclose(ring.latest(N).next_state, given["next_state"], rtol=1e-6)
    table.with_columns(state=polars.Series([[0.0] * (1 + at % 2) for at in range(N)])).write_parquet(path)
    with pytest.raises(DataError, match=r"x\.parquet: column state has shape"):
        read_transitions(path, ring)
    table.with_columns(reward=polars.Series([None] * N, dtype=polars.Float64)).write_parquet(path)
    with pytest.raises(DataError, match=r"x\.parquet: column reward holds a NaN"):
        read_transitions(path, ring)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"x\.parquet: cannot be read"):
        read_transitions(path, ring)
    with pytest.raises(DataError, match=r"not from \.csv"):
        read_transitions(tmp_path / "x.csv", ring)


def ring_of(reward: float) -> ReplayBuffer:
    ring = ReplayBuffer(S, A, 100)
    append(columns(reward), ring, "test")
    return ring


@pytest.mark.parametrize("by_time", [True, False])
def test_half_of_a_batch_is_offline(by_time):
    rng = np.random.default_rng(0)
    rows = mixed(ring_of(1.0), ring_of(2.0), 41, rng, by_time)
    assert rows.reward.tolist() == [1.0] * 20 + [2.0] * 21
    assert rows.state.shape == (41, S)


def test_while_one_is_empty_the_other_gives_all():
    rng, empty = np.random.default_rng(0), ReplayBuffer(S, A, 10)
    assert mixed(empty, ring_of(2.0), 8, rng).reward.tolist() == [2.0] * 8
    assert mixed(ring_of(1.0), empty, 8, rng).reward.tolist() == [1.0] * 8
    with pytest.raises(DataError, match="empty"):
        mixed(empty, empty, 8, rng)


SPECS = {"risk": (S, A, "r" * 64), "short_term": (S, A + 1, "s" * 64)}


def test_files_that_say_whom_they_are_for_become_one_ring_an_agent(tmp_path):
    import polars

    write_transitions(tmp_path / "a.npz", "risk", "r" * 64, columns(1.0))
    table = polars.DataFrame({name: list(values) if values.ndim == 2 else values for name, values in columns(2.0).items()})
    table.write_parquet(tmp_path / "b.parquet", metadata={"agent": "risk", "schema": "r" * 64})
    rings = offline_rings([tmp_path / "a.npz", tmp_path / "b.parquet"], SPECS)
    assert list(rings) == ["risk"]
    assert rings["risk"].latest(100).reward.tolist() == [1.0] * N + [2.0] * N
    assert labelled(tmp_path / "b.parquet", SPECS).agent == "risk"


@pytest.mark.parametrize(("agent", "schema", "words"), [
    ("risk", "x" * 64, r"other columns of risk \(schema xxxxxxxxxxxx, not rrrrrrrrrrrr\)"),
    ("long_term", "r" * 64, "agent 'long_term'; those that learn are risk, short_term"),
    ("", "r" * 64, "does not say its agent"),
    ("risk", "", "does not say its schema"),
])  # fmt: skip
def test_files_for_others_are_refused_by_name(tmp_path, agent, schema, words):
    path = tmp_path / "x.npz"
    write_transitions(path, agent, schema, columns())
    for read in (lambda: labelled(path, SPECS), lambda: offline_rings([path], SPECS)):
        with pytest.raises(DataError, match=rf"x\.npz: .*{words}"):
            read()


def test_a_file_that_was_cut_short_is_said_before_and_after(tmp_path):
    write_transitions(tmp_path / "x.npz", "risk", "r" * 64, columns())
    whole = (tmp_path / "x.npz").read_bytes()
    (tmp_path / "x.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"x\.npz: cannot be read"):
        labelled(tmp_path / "x.npz", SPECS)
    with pytest.raises(DataError, match=r"x\.npz: cannot be read"):
        offline_rings([tmp_path / "x.npz"], SPECS)
