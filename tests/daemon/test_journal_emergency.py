"""The emergency record: what it takes when the disk takes nothing else, and what the next start makes of it."""

import asyncio
import errno
import os
import shutil
import subprocess
import sys
import textwrap
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agents.core.errors import DataError
from agents.core.events import Adjustment, AdjustmentKind, Event, Fill, Flatten, OrderUpdate, Stamp, Tick, Trade
from agents.core.instruments import Currency, Side, Symbol
from agents.core.orders import Cancel, Command, OrderId, OrderState, Place
from daemon import emergency
from daemon.emergency import EmergencyRecord, merge_into
from daemon.journal import Journal, JournalReader
from daemon.latch import Latch, Latched
from daemon.replay import replay
from daemon.segments import RecordFailed
from tests.test_one_path import Session

BTC = Symbol("BTC/USDT")
SELL = Place(OrderId("q-t-1-2-0"), BTC, Side.SELL, Decimal(1), Decimal("2.5"), reduce_only=True)
CANCEL = Cancel(OrderId("q-t-1-1-0"), BTC)


def stamp(seq: int) -> Stamp:
    return Stamp(seq * 10, seq)


def trade(seq: int) -> Trade:
    return Trade(stamp(seq), BTC, seq, str(seq), Decimal("1.5"), Decimal("0.25"), Side.SELL)


def fill(seq: int) -> Fill:
    return Fill(stamp(seq), BTC, seq, SELL.order_id, f"t{seq}", Side.SELL, Decimal(2), Decimal(1), Decimal(0), Currency("USDT"), False)


def update(seq: int) -> OrderUpdate:
    return OrderUpdate(stamp(seq), SELL.order_id, BTC, OrderState.OPEN, f"v{seq}")


def deposit(seq: int) -> Adjustment:
    return Adjustment(stamp(seq), Currency("USDT"), Decimal(seq), AdjustmentKind.DEPOSIT)


def begun(folder: Path) -> tuple[Journal, EmergencyRecord]:
    """A session with three facts behind it."""
    record, book = EmergencyRecord(folder, 1 << 16), Journal(folder, "test", 7, {"engine": {}})
    for event in (deposit(1), trade(2), Tick(stamp(3))):
        book.append(event)
    book.commit(3)
    return book, record


def switch(folder: Path) -> EmergencyRecord:
    """The journal fails at fact 6; the kill path goes on: its facts 7 to 10 and two commands are durable in the record."""
    book, record = begun(folder)
    book.append(trade(4))
    book.append(update(5))
    book.append(deposit(6))
    book.decide(1, 6, 60, {"wishes": []})
    wanted: tuple[Command, ...] = (Place(OrderId("q-t-1-1-5"), BTC, Side.BUY, Decimal(1), Decimal(1)),)
    book.intend(6, wanted)
    with pytest.raises(RecordFailed):
        book.commit(6)
    assert record.take_over(book) == wanted  # they were not sent, and nothing says that they were
    record.append(Flatten(stamp(7), "disk full"))
    record.append(trade(8))
    record.decide(2, 8, 80, {"solver": "kill_path"})
    record.intend(8, (CANCEL, SELL))
    record.commit(8)
    record.append(update(9))
    record.append(fill(10))
    record.append(Tick(stamp(11)))
    record.commit(11)
    return record


TRANSACT = Journal._transact


def switched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`switch` with a disk that fills up at fact 6."""
    calls = 0

    def once(book: Journal) -> None:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        TRANSACT(book)

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "_transact", once)
        switch(folder)


def test_facts_commands_and_decisions_are_merged_once_and_the_record_is_ready_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switched(tmp_path, monkeypatch)
    before = (tmp_path / EmergencyRecord.NAME).read_bytes()
    assert merge_into(tmp_path) == 9
    (tmp_path / EmergencyRecord.NAME).write_bytes(before)  # a process that ended between the commit and the blanking
    EmergencyRecord(tmp_path, 1 << 16)  # merges as well, where nobody did before
    assert merge_into(tmp_path) == 0
    reader = JournalReader(tmp_path)
    row = reader.session("last")
    assert list(reader.account_facts(1)) == [deposit(1), update(5), deposit(6), Flatten(stamp(7), "disk full"), update(9), fill(10)]
    assert list(reader.commands(1)) == [(8, CANCEL), (8, SELL)]
    assert [(number, seq) for number, seq, _ in reader.decisions(1)] == [(1, 6), (2, 8)]
    assert reader.newest_trades([1]) == {BTC: ("t10", 10)}
    assert list(reader.order_facts(SELL.order_id)) == [update(5), update(9), fill(10)]
    assert (row.cut, row.last, row.summary) == (3, None, None)
    assert list(reader.events(row)) == [deposit(1), trade(2), Tick(stamp(3))]
    assert (list(reader.commands(1, row.cut)), list(reader.decisions(1, row.cut))) == ([], [])
    following = Journal(tmp_path, "next", 8, {"engine": {}})
    assert following.epoch == 2
    following.close(0, {})


def test_nothing_to_merge_is_nothing(tmp_path: Path) -> None:
    assert merge_into(tmp_path) == 0
    EmergencyRecord(tmp_path)
    assert merge_into(tmp_path) == 0
    assert not (tmp_path / "journal.sqlite").exists()
    assert (tmp_path / EmergencyRecord.NAME).stat().st_blocks * 512 >= EmergencyRecord.SIZE


def test_every_cut_of_the_record_keeps_the_frames_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    switched(tmp_path, monkeypatch)
    path = tmp_path / EmergencyRecord.NAME
    content = path.read_bytes()
    used = len(content.rstrip(b"\0"))
    whole = list(emergency._frames(path))
    ends = [0]
    for _ in whole:
        ends.append(ends[-1] + 8 + int.from_bytes(content[ends[-1] : ends[-1] + 4], "big"))
    assert len(whole) == 3 and ends[-1] == used
    for cut in {*range(0, used, 7), *(end + near for end in ends for near in (-1, 0, 1, 8, 9))} & {*range(used)}:
        path.write_bytes(content[:cut] + bytes(len(content) - cut))  # the last write reached the disk in part
        assert list(emergency._frames(path)) == whole[: sum(end <= cut for end in ends[1:])]


def test_a_frame_that_rotted_before_others_is_damage_and_the_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    switched(tmp_path, monkeypatch)
    path = tmp_path / EmergencyRecord.NAME
    content = bytearray(path.read_bytes())
    content[20] ^= 1
    path.write_bytes(content)
    for start in (merge_into, EmergencyRecord):
        with pytest.raises(DataError, match=r"damaged at byte 0: move it away and compare"):
            start(tmp_path)
    assert path.read_bytes() == bytes(content)


def test_a_full_record_refuses_and_takes_what_still_fits(tmp_path: Path) -> None:
    book, record = begun(tmp_path)
    record.take_over(book)
    taken: list[int] = []

    def go_on() -> None:
        for seq in range(4, 5000):
            record.intend(seq, (SELL,))
            record.append(update(seq))
            record.commit(seq)
            taken.append(seq)

    with pytest.raises(RecordFailed, match="is full"):
        go_on()
    assert len(taken) > 50
    record.decide(9, 5000, 1, {"wishes": ["x" * 3000]})
    with pytest.raises(RecordFailed, match="is full"):
        record.commit(5000)
    merge_into(tmp_path)
    assert [seq for seq, _ in JournalReader(tmp_path).commands(1)] == taken


def test_a_disk_that_fails_altogether_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book, record = begun(tmp_path)
    record.intend(4, (SELL,))
    with pytest.raises(RecordFailed, match="has taken over no session"):
        record.commit(4)
    record.take_over(book)

    def broken(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    for name in ("pwrite", "fdatasync"):
        with monkeypatch.context() as patched:
            patched.setattr(os, name, broken)
            record.intend(5, (SELL,))
            with pytest.raises(RecordFailed, match="Input/output error"):
                record.commit(5)
    record.intend(6, (CANCEL,))
    record.commit(6)
    merge_into(tmp_path)
    assert list(JournalReader(tmp_path).commands(1)) == [(6, CANCEL)]


def test_a_merge_into_a_disk_that_is_still_full_keeps_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    switched(tmp_path, monkeypatch)
    content = (tmp_path / EmergencyRecord.NAME).read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(emergency, "_blank", lambda *_: pytest.fail("the record was emptied before its rows were in the journal"))
        patched.setattr(emergency.Committed, "write", refuse)
        with pytest.raises(RecordFailed, match="free disk space"):
            merge_into(tmp_path)
    assert (tmp_path / EmergencyRecord.NAME).read_bytes() == content


def refuse(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


# -- a real full disk --------------------------------------------------------------------------------------------------

CHILD = """
    import resource, signal, sys
    from pathlib import Path
    sys.path[:0] = {paths!r}
    from test_emergency_parts import *
    folder = Path(sys.argv[1])
    latch, record, book = Latch(folder), EmergencyRecord(folder), Journal(folder, "test", 7, {{"engine": {{}}}})
    {fill_up}
    try:
        for seq in range(1, 100_000):
            for event in (deposit(seq * 2 - 1), trade(seq * 2)):
                book.append(event)
            book.intend(seq * 2, (SELL,))
            book.commit(seq * 2)
    except RecordFailed as error:
        print(error, file=sys.stderr)
    unsent = record.take_over(book)
    latch.set("flatten", "disk full", 5)
    record.append(fill(seq * 2 + 1))
    record.intend(seq * 2 + 1, (CANCEL, SELL))
    record.commit(seq * 2 + 1)
    print(seq, len(unsent), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
LIMIT = "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (EmergencyRecord.SIZE, resource.RLIM_INFINITY))"
FILLER = """
    filler = open(folder / "filler", "wb", buffering=0)
    try:
        while True:
            filler.write(bytes(4096))
    except OSError:
        os.ftruncate(filler.fileno(), max(os.fstat(filler.fileno()).st_size - 65536, 0))
"""


def child(tmp_path: Path, fill_up: str) -> Path:
    (tmp_path / "test_emergency_parts.py").write_text(Path(__file__).read_text())
    script = tmp_path / "child.py"
    filling = textwrap.indent(textwrap.dedent(fill_up), "    ").strip()
    script.write_text(textwrap.dedent(CHILD.format(paths=[str(tmp_path), os.getcwd()], fill_up=filling)))
    return script


def judge(folder: Path, said: str) -> None:
    """Every intent up to the failing one, then what the kill path did; the latch holds."""
    failing, unsent = map(int, said.split())
    assert unsent == 1
    assert Latch(folder).read() == Latched("flatten", "disk full", 5)
    assert merge_into(folder) > 2
    reader = JournalReader(folder)
    sent = [(seq, command) for seq, command in reader.commands(1)]
    assert sent == [*((seq * 2, SELL) for seq in range(1, failing)), (failing * 2 + 1, CANCEL), (failing * 2 + 1, SELL)]
    assert list(reader.account_facts(1))[-1] == fill(failing * 2 + 1)
    row = reader.session("last")
    assert row.cut == (failing - 1) * 2
    assert [event.stamp.seq for event in reader.events(row)] == list(range(1, failing * 2 - 1))


def test_with_files_that_cannot_grow_the_kill_path_is_recorded(tmp_path: Path) -> None:
    command = [sys.executable, str(child(tmp_path, LIMIT)), str(tmp_path / "state")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "free disk space" in done.stderr, done.stderr
    judge(tmp_path / "state", done.stdout)


def test_with_a_file_system_that_is_full_the_kill_path_is_recorded(tmp_path: Path) -> None:
    state, kept = tmp_path / "state", tmp_path / "kept"
    state.mkdir()
    script = child(tmp_path, FILLER)
    shell = (
        f"mount -t tmpfs -o size=4m tmpfs {state} || exit 77; {sys.executable} {script} {state}; "
        f"df --output=avail {state} >&2; rm {state}/filler; cp -r {state} {kept}"
    )
    done = subprocess.run(["unshare", "-rm", "sh", "-c", shell], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no file system of its own can be mounted here")
    assert "free disk space" in done.stderr, done.stderr
    judge(kept, done.stdout)


# -- with the real engine ----------------------------------------------------------------------------------------------


class Switching:
    """The record of a session whose disk fills up at its `last`th commit: from then on the emergency record."""

    def __init__(self, journal: Journal, record: EmergencyRecord, last: int) -> None:
        self.now: Any = journal
        self.journal, self.record, self.left = journal, record, last
        self.name, self.epoch = journal.name, journal.epoch
        self.market = 0

    def append(self, event: Event) -> None:
        self.now.append(event)

    def intend(self, seq: int, wanted: tuple[Command, ...]) -> None:
        self.now.intend(seq, wanted)

    def decide(self, number: int, seq: int, at: int, record: dict[str, Any]) -> None:
        self.now.decide(number, seq, at, record)

    def commit(self, seq: int) -> None:
        self.left -= 1
        if self.left == 0:
            self.record.take_over(self.journal)
            self.now = self.record
        self.now.commit(seq)

    def close(self, seq: int, summary: dict[str, Any]) -> None:
        """The process dies."""


def test_a_session_that_went_on_in_the_record_replays_equal_to_where_it_switched(tmp_path: Path) -> None:
    made = Session(tmp_path, seconds=90)
    record = EmergencyRecord(tmp_path, 8 << 20)
    made.journal = Switching(made.journal, record, 60)  # type: ignore[assignment]
    asyncio.run(made.run())
    shutil.copytree(tmp_path, tmp_path.with_name("before"))
    assert merge_into(tmp_path) > 10
    reader = JournalReader(tmp_path)
    row = reader.session("last")
    assert row.cut is not None
    commands = [command for effects in made.effects for command in effects.commands]
    recorded = [command for _, command in reader.commands(1)]
    missing = [command for command in commands if command not in recorded]
    assert len(recorded) > 0 and len(missing) <= 8  # those of the one commit that failed, which were not sent
    done = replay(tmp_path, "last")
    assert done["equal"], done["first_difference"]
    assert 10 < done["decisions"] < sum(effects.decision is not None for effects in made.effects)


def test_the_journal_takes_nothing_after_it_was_handed_over(tmp_path: Path) -> None:
    book, record = begun(tmp_path)
    record.take_over(book)
    book.append(deposit(9))
    with pytest.raises(RecordFailed):
        book.commit(9)
    book.sync()
    with closing(open(tmp_path / EmergencyRecord.NAME, "rb")) as file:
        assert b'"cut":3' in file.read(64)
