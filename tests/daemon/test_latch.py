import errno
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from daemon import latch
from daemon.latch import SLOT, Kind, Latch, Latched
from daemon.segments import RecordFailed


def test_a_fresh_folder_is_not_latched_and_what_is_said_stays(tmp_path: Path) -> None:
    assert Latch(tmp_path / "new").read() == Latched("none", "", 0)
    first = Latch(tmp_path)
    for number, kind in enumerate(("halt", "flatten", "none", "halt", "halt"), start=1):
        first.set(kind, f"reason {number} ä", number)
        assert first.read() == Latched(kind, f"reason {number} ä", number)
        assert Latch(tmp_path).read() == Latched(kind, f"reason {number} ä", number)
    assert (tmp_path / latch.NAME).stat().st_size == 2 * SLOT
    assert (tmp_path / latch.NAME).stat().st_blocks * 512 >= 2 * SLOT  # the room is taken, not promised


def test_a_long_reason_is_cut(tmp_path: Path) -> None:
    one = Latch(tmp_path)
    one.set("halt", "é" * SLOT, 5)
    kept = one.read()
    assert (kept.kind, kept.at) == ("halt", 5)
    assert kept.reason.startswith("é" * 1000) and len(kept.reason.encode()) < SLOT


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 20, 100, SLOT - 5, SLOT - 1])
@pytest.mark.parametrize("kinds", [("halt", "flatten"), ("flatten", "none"), ("none", "halt")])
def test_a_torn_write_leaves_what_was_said_before(tmp_path: Path, cut: int, kinds: tuple[Kind, Kind], monkeypatch: pytest.MonkeyPatch) -> None:
    one = Latch(tmp_path)
    one.set(kinds[0], "before", 1)
    whole = os.pwrite

    def torn(file: int, data: bytes, offset: int) -> int:
        whole(file, data[:cut], offset)
        raise OSError(errno.EIO, "power loss")

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", torn)
        with pytest.raises(RecordFailed, match="cannot be written"):
            one.set(kinds[1], "after", 2)
    assert Latch(tmp_path).read() == Latched(kinds[0], "before", 1)
    one.set(kinds[1], "after", 3)
    assert Latch(tmp_path).read() == Latched(kinds[1], "after", 3)


@pytest.mark.parametrize("content", [b"", b"\0" * 2 * SLOT, b"x" * 2 * SLOT, b"short", os.urandom(2 * SLOT)])
def test_a_damaged_file_means_halt_until_somebody_says_otherwise(tmp_path: Path, content: bytes) -> None:
    (tmp_path / latch.NAME).write_bytes(content)
    one = Latch(tmp_path)
    found = one.read()
    assert found.kind == "halt" and "damaged" in found.reason
    one.set("none", "looked at", 9)
    assert Latch(tmp_path).read() == Latched("none", "looked at", 9)


@pytest.mark.parametrize("slot", [0, 1])
@pytest.mark.parametrize("byte", [0, 8, 16, 24, 30, 2000, SLOT - 1])
def test_one_flipped_bit_is_seen(tmp_path: Path, slot: int, byte: int) -> None:
    one = Latch(tmp_path)
    one.set("halt", "r" * 2100, 1)
    one.set("flatten", "s" * 2100, 2)
    path = tmp_path / latch.NAME
    content = bytearray(path.read_bytes())
    content[slot * SLOT + byte] ^= 4
    path.write_bytes(content)
    assert Latch(tmp_path).read() == (Latched("flatten", "s" * 2100, 2) if slot == 0 else Latched("halt", "r" * 2100, 1))


CHILD = """
import sys
from pathlib import Path
from daemon.latch import Latch
latch = Latch(Path(sys.argv[1]))
for number in range(1, 1_000_000):
    latch.set(("halt", "flatten", "none")[number % 3], str(number), number)
    if number == 20:
        print("going", flush=True)
"""


def test_a_killed_writer_leaves_one_whole_word(tmp_path: Path) -> None:
    for _ in range(3):
        with subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            until = time.monotonic() + 0.05
            while time.monotonic() < until:
                seen = Latch(tmp_path).read()  # a reader beside the writer sees whole words as well
                assert seen.at == 0 or (seen.reason == str(seen.at) and seen.kind == ("halt", "flatten", "none")[seen.at % 3])
            child.send_signal(signal.SIGKILL)
        left = Latch(tmp_path).read()
        assert left.at >= 20 and left.reason == str(left.at) and left.kind == ("halt", "flatten", "none")[left.at % 3]


LIMITED = """
import os, resource, signal, sys
from pathlib import Path
from daemon.latch import Latch, SLOT
latch = Latch(Path(sys.argv[1]))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2 * SLOT, 2 * SLOT))
try:
    with open(Path(sys.argv[1]) / "other", "wb", buffering=0) as other:
        other.seek(2 * SLOT)
        other.write(b"x")
except OSError:
    for number in range(9):
        latch.set("flatten", "nothing fits any more", number)
    sys.exit(0)
sys.exit(3)
"""


def test_it_takes_a_word_when_no_file_can_grow(tmp_path: Path) -> None:
    assert subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], check=False).returncode == 0
    assert Latch(tmp_path).read() == Latched("flatten", "nothing fits any more", 8)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordFailed, match=r"latch cannot be written .*: free disk space or fix its rights"):
        Latch(tmp_path / "file")


def test_a_disk_that_is_full_at_the_first_start_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        with pytest.raises(RecordFailed, match="free disk space"):
            Latch(tmp_path)
    assert not list(tmp_path.iterdir())
    assert Latch(tmp_path).read().kind == "none"


def test_no_handle_is_left_behind(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        Latch(tmp_path).read()
    assert len(os.listdir("/proc/self/fd")) == before
    assert resource.getrlimit(resource.RLIMIT_FSIZE) != (2 * SLOT, 2 * SLOT)
