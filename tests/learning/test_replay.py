"""The ring keeps the newest rows whole: through wrapping, a killed writer, a cut file, a power cut."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.errors import DataError, NotFinite, SpecMismatch
from agents.learning.replay import ReplayBuffer, Rows

S, A = 3, 2


def numbered(start: int, count: int) -> tuple:
    """Rows whose every float is the row's number, so that a torn one shows."""
    number = np.arange(start, start + count, dtype=np.float32)
    wide = lambda width: np.repeat(number[:, None], width, 1)  # noqa: E731
    return wide(S), wide(A), number, wide(S), np.zeros(count), number, number.astype(np.int64), number.astype(np.int64)


def content(ring: ReplayBuffer) -> list[int]:
    rows = ring.latest(ring.capacity)
    for column in rows:
        if column is not rows.done:
            number = rows.reward if column.ndim == 1 else rows.reward[:, None]
            np.testing.assert_array_equal(column, np.broadcast_to(number, column.shape))
    return [int(number) for number in rows.reward]


@given(st.integers(1, 12), st.lists(st.integers(0, 30), max_size=12))
def test_the_newest_rows_are_kept_in_order(capacity, batches):
    ring, total = ReplayBuffer(S, A, capacity), 0
    for count in batches:
        ring.add(*numbered(total, count))
        total += count
    assert ring.committed == total
    assert content(ring) == list(range(max(0, total - capacity), total))


def test_one_transition_without_a_leading_axis_is_one_row():
    ring = ReplayBuffer(S, A, 4)
    assert ring.add([1, 2, 3], [0.1, 0.2], 5.0, [4, 5, 6], True) == 1
    row = ring.latest(1)
    assert (row.state.tolist(), row.done.tolist(), row.elapsed.tolist()) == ([[1, 2, 3]], [1.0], [1.0])


def test_sampling_is_uniform_over_what_is_kept():
    ring = ReplayBuffer(S, A, 8)
    ring.add(*numbered(0, 20))
    counts = np.bincount(ring.sample(8000, np.random.default_rng(0)).reward.astype(int), minlength=20)
    assert counts[:12].sum() == 0
    assert counts[12:].min() > 850


def test_an_empty_buffer_cannot_be_sampled():
    with pytest.raises(DataError, match="empty"):
        ReplayBuffer(S, A, 8).sample(1, np.random.default_rng(0))


@pytest.mark.parametrize("column", range(6))
@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_whole(column, poison):
    ring, rows = ReplayBuffer(S, A, 8), [np.array(c, dtype=np.float64) for c in numbered(0, 3)]
    rows[column].reshape(-1)[-1] = poison
    with pytest.raises(NotFinite, match=Rows._fields[column]):
        ring.add(*rows)
    assert ring.committed == 0


@pytest.mark.parametrize("column", range(6))
def test_a_wrong_shape_is_refused(column):
    ring, rows = ReplayBuffer(S, A, 8), list(numbered(0, 3))
    rows[column] = np.repeat(rows[column], 2, -1)
    with pytest.raises(SpecMismatch, match="expected"):
        ring.add(*rows)


def test_negative_elapsed_time_is_refused():
    with pytest.raises(DataError, match="elapsed"):
        ReplayBuffer(S, A, 8).add([1, 2, 3], [0, 0], 0.0, [1, 2, 3], False, -1.0)


@settings(max_examples=20)
@given(st.integers(1, 9), st.lists(st.integers(1, 12), min_size=1, max_size=5))
def test_a_file_opens_as_it_was_closed(tmp_path_factory, capacity, batches):
    path, total = tmp_path_factory.mktemp("ring") / "a.ring", 0
    for count in batches:
        ring = ReplayBuffer(S, A, capacity, path, "spec")
        ring.add(*numbered(total, count))
        total += count
        ring.close()
    ring = ReplayBuffer(S, A, capacity, path, "spec")
    assert (ring.committed, ring.lost) == (total, 0)
    assert content(ring) == list(range(max(0, total - capacity), total))
    ring.close()


def test_a_million_rows_do_not_take_their_room_before_they_exist(tmp_path):
    ring = ReplayBuffer(120, 6, 1_000_000, tmp_path / "a.ring")
    ring.add(np.zeros((5, 120)), np.zeros((5, 6)), np.zeros(5), np.zeros((5, 120)), np.zeros(5))
    found = os.stat(tmp_path / "a.ring")
    assert found.st_size > 900_000_000
    assert found.st_blocks * 512 < 20_000_000
    ring.close()


def closed_ring(path: Path, rows: int = 10, capacity: int = 8) -> None:
    ring = ReplayBuffer(S, A, capacity, path, "spec")
    ring.add(*numbered(0, rows))
    ring.close()


@pytest.mark.parametrize(("make", "words"), [
    (lambda p: ReplayBuffer(S, A, 8, p, "other"), "another observation spec"),
    (lambda p: ReplayBuffer(S + 1, A, 8, p, "spec"), "another observation spec"),
    (lambda p: ReplayBuffer(S, A, 9, p, "spec"), "replay_buffer_size is 9"),
])  # fmt: skip
def test_a_ring_of_another_spec_shape_or_size_is_refused_and_left_alone(tmp_path, make, words):
    closed_ring(tmp_path / "a.ring")
    before = (tmp_path / "a.ring").read_bytes()
    with pytest.raises(SpecMismatch, match=words):
        make(tmp_path / "a.ring")
    assert (tmp_path / "a.ring").read_bytes() == before


@pytest.mark.parametrize("spoil", [
    lambda data: data[:-1],
    lambda data: data[:4200],
    lambda data: data[:100],
    lambda data: b"PK" + data[2:],
    lambda data: data[:88] + b"\xff" * 16 + data[104:],
], ids=["cut", "cut-short", "stub", "foreign", "counts"])  # fmt: skip
def test_a_damaged_or_foreign_file_is_refused_by_name(tmp_path, spoil):
    path = tmp_path / "a.ring"
    closed_ring(path)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(DataError, match=re.escape(str(path))):
        ReplayBuffer(S, A, 8, path, "spec")


def test_two_learners_cannot_share_a_ring(tmp_path):
    ring = ReplayBuffer(S, A, 8, tmp_path / "a.ring")
    with pytest.raises(DataError, match="in use"):
        ReplayBuffer(S, A, 8, tmp_path / "a.ring")
    ring.close()
    ReplayBuffer(S, A, 8, tmp_path / "a.ring").close()


def test_rows_torn_by_a_power_cut_are_left_out(tmp_path):
    """What a lost page leaves: rows that are counted but whose bytes are not all there."""
    path = tmp_path / "a.ring"
    ring = ReplayBuffer(S, A, 8, path)
    ring.add(*numbered(0, 4))
    ring.flush()
    ring.add(*numbered(4, 3))
    ring._rows["reward"][5] = 99.0
    left = tmp_path / "left.ring"
    left.write_bytes(path.read_bytes())
    again = ReplayBuffer(S, A, 8, left)
    assert (content(again), again.lost) == ([0, 1, 2, 3, 4], 2)


def test_rows_that_were_being_overwritten_are_left_out(tmp_path):
    """A writer that died between `begun` and `committed` may have torn the oldest rows."""
    path = tmp_path / "a.ring"
    ring = ReplayBuffer(S, A, 8, path)
    ring.add(*numbered(0, 20))
    ring._header["begun"] = 23
    ring.close()
    again = ReplayBuffer(S, A, 8, path)
    assert content(again) == [15, 16, 17, 18, 19]
    again.add(*numbered(20, 2))
    assert content(again) == [15, 16, 17, 18, 19, 20, 21]
    again.close()


WRITER = """
import sys
from pathlib import Path
import numpy as np
from agents.learning.replay import ReplayBuffer
ring = ReplayBuffer(60, 4, 50, Path(sys.argv[1]))
at = ring.committed
print("ready", flush=True)
while True:
    n = at % 7 + 1
    number = np.arange(at, at + n, dtype=np.float32) % 100_000
    wide = lambda w: np.repeat(number[:, None], w, 1)
    ring.add(wide(60), wide(4), number, wide(60), np.zeros(n), number)
    at += n
    if at % 1000 < 7 and at > 60:
        print(at, flush=True)
"""


def test_a_writer_killed_at_any_point_leaves_whole_rows(tmp_path):
    path, total = tmp_path / "a.ring", 0
    for kill in range(4):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
        assert process.stdout.readline() == "ready\n"
        for _ in range(2 + kill):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        ring = ReplayBuffer(60, 4, 50, path)
        assert ring.committed > total
        assert ring.lost == 0
        total = ring.committed
        rows = ring.latest(50)
        assert len(rows.reward) >= 43
        np.testing.assert_array_equal(rows.state, np.repeat(rows.reward[:, None], 60, 1))
        np.testing.assert_array_equal(rows.next_state, np.repeat(rows.reward[:, None], 60, 1))
        assert (np.diff(rows.reward) % 100_000 == 1).all()
        ring.close()


def test_a_full_disk_is_an_error_and_loses_nothing(tmp_path, monkeypatch):
    ring = ReplayBuffer(S, A, 1_000_000, tmp_path / "a.ring")
    ring.add(*numbered(0, 10))

    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        ring.add(*numbered(10, 200_000))
    assert content(ring) == list(range(10))
    monkeypatch.undo()
    ring.add(*numbered(10, 5))
    assert content(ring) == list(range(15))
    ring.close()


def crowd(ring: ReplayBuffer, sizes: list[int], start: int = 0, quarantined: list[int] | None = None) -> None:
    """For each of several market times so many rows, whose reward is the time."""
    for time, count in enumerate(sizes, start):
        wide, flags = np.full((count, S), time), [int(time in (quarantined or []))] * count
        ring.add(wide, np.zeros((count, A)), [time] * count, wide, np.zeros(count), 1.0, [time] * count, 0, flags)


def test_a_crowded_time_is_drawn_no_more_often_than_a_lonely_one():
    ring = ReplayBuffer(S, A, 1000)
    crowd(ring, [1, 50, 3, 1])
    drawn = np.bincount(ring.sample_by_time(8000, np.random.default_rng(0)).reward.astype(int))
    np.testing.assert_allclose(drawn / 8000, 0.25, atol=0.02)
    plain = np.bincount(ring.sample(8000, np.random.default_rng(0)).reward.astype(int))
    assert plain[1] > 7000


def test_within_a_time_each_row_is_as_likely():
    ring = ReplayBuffer(S, A, 100)
    ring.add(*numbered(0, 8)[:6], np.zeros(8))
    drawn = np.bincount(ring.sample_by_time(8000, np.random.default_rng(1)).reward.astype(int), minlength=8)
    np.testing.assert_allclose(drawn / 8000, 1 / 8, atol=0.02)


@settings(max_examples=60)
@given(st.integers(1, 20), st.lists(st.lists(st.integers(1, 5), max_size=4), max_size=8))
def test_sampling_by_time_reaches_all_kept_times_and_no_other(capacity, bursts):
    ring, time, rng = ReplayBuffer(S, A, capacity), 0, np.random.default_rng(0)
    for burst in bursts:
        crowd(ring, burst, time)
        time += len(burst)
        if len(ring):
            kept = set(ring.latest(capacity).reward.tolist())
            drawn = ring.sample_by_time(60 * len(kept), rng)
            assert set(drawn.reward.tolist()) == kept


def test_a_ring_opened_again_knows_its_times(tmp_path):
    ring = ReplayBuffer(S, A, 50, tmp_path / "r")
    crowd(ring, [2, 30, 5])
    ring.close()
    again = ReplayBuffer(S, A, 50, tmp_path / "r")
    crowd(again, [1], 3)
    drawn = np.bincount(again.sample_by_time(8000, np.random.default_rng(0)).reward.astype(int))
    np.testing.assert_allclose(drawn / 8000, 0.25, atol=0.02)


@pytest.mark.parametrize("way", ["sample", "sample_by_time"])
def test_rows_lived_under_a_fault_are_kept_and_never_sampled(tmp_path, way):
    ring = ReplayBuffer(S, A, 12, tmp_path / "r")
    crowd(ring, [2, 2, 2, 2], quarantined=[1, 3])
    ring.close()
    ring = ReplayBuffer(S, A, 12, tmp_path / "r")
    assert (len(ring), ring.usable) == (8, 4)
    assert set(getattr(ring, way)(500, np.random.default_rng(0)).reward.tolist()) == {0, 2}
    assert ring.quarantine(since=2) == 4
    assert ring.usable == 2
    assert set(getattr(ring, way)(500, np.random.default_rng(0)).reward.tolist()) == {0}
    crowd(ring, [6, 6], 4)
    assert (len(ring), ring.usable) == (12, 12)
    ring.close()
    assert ReplayBuffer(S, A, 12, tmp_path / "r").lost == 0


def test_when_every_row_is_quarantined_sampling_says_so():
    ring = ReplayBuffer(S, A, 12)
    crowd(ring, [2], quarantined=[0])
    with pytest.raises(DataError, match="every row is quarantined"):
        ring.sample(1, np.random.default_rng(0))


def test_prioritised_sampling_leaves_quarantined_rows_alone():
    from agents.learning.priorities import PrioritizedReplay

    ring = PrioritizedReplay(S, A, 12)
    crowd(ring, [2, 2, 2], quarantined=[1])
    rng = np.random.default_rng(0)
    assert set(ring.sample_weighted(200, rng)[0].reward.tolist()) == {0, 2}
    ring.quarantine(since=2)
    assert set(ring.sample_weighted(200, rng)[0].reward.tolist()) == {0}
