"""Journal and tape: what was committed is there after a killed process; what is damaged, missing or full is said in one sentence."""

import os
import signal
import subprocess
import sys
import textwrap
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa

from agents.core.errors import DataError
from agents.core.events import Adjustment, AdjustmentKind, Event, NewWeights, Stamp, Tick, Trade
from agents.core.instruments import Currency, Side, Symbol
from agents.core.orders import Cancel, OrderId, Place
from daemon.journal import Journal, JournalReader
from daemon.segments import RecordFailed, SegmentWriter, read
from daemon.store import SCHEMA_VERSION, open_store

BTC = Symbol("BTC/USDT")


def trade(seq: int) -> Trade:
    return Trade(Stamp(seq * 10, seq), BTC, seq, str(seq), Decimal("1.5"), Decimal("0.25"), Side.SELL)


def adjustment(seq: int) -> Adjustment:
    return Adjustment(Stamp(seq * 10, seq), Currency("USDT"), Decimal(seq), AdjustmentKind.DEPOSIT)


def facts() -> list[Event]:
    weights = NewWeights(Stamp(40, 4), 3, "abc", "spec", b"\x00bytes\xff")
    return [trade(1), adjustment(2), Tick(Stamp(30, 3)), weights, trade(5), trade(6)]


def journal(folder: Path, segment_bytes: int = 1 << 20) -> Journal:
    return Journal(folder, "test", 7, {"engine": {"quote": "USDT"}}, segment_bytes)


def test_facts_come_back_merged_by_sequence_with_weights_from_the_content_store(tmp_path: Path) -> None:
    book = journal(tmp_path)
    for fact in facts():
        book.append(fact)
    place = Place(OrderId("q-1"), BTC, Side.BUY, Decimal(1), Decimal("2.5"))
    book.intend(5, (place, Cancel(OrderId("q-0"), BTC)))
    book.decide(1, 5, 50, {"wishes": [0.1]})
    book.close(6, {"fills": 0})
    reader = JournalReader(tmp_path)
    row = reader.session("last")
    assert (row.epoch, row.name, row.config, row.summary) == (1, "test-1", {"engine": {"quote": "USDT"}}, {"fills": 0})
    assert list(reader.events(row)) == facts()
    assert list(reader.commands(1)) == [(5, place), (5, Cancel(OrderId("q-0"), BTC))]
    assert list(reader.decisions(1)) == [(1, 5, {"wishes": [0.1]})]


def test_each_session_is_a_new_epoch_and_an_unknown_one_is_named(tmp_path: Path) -> None:
    for _ in range(2):
        journal(tmp_path).close(0, {})
    reader = JournalReader(tmp_path)
    assert [row.epoch for row in reader.sessions()] == [1, 2]
    with pytest.raises(DataError, match=r"no session 'nope'.*test-1, test-2"):
        reader.session("nope")


def test_segments_roll_and_compress_without_losing_a_line(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path / "tape", segment_bytes=4096)
    for seq in range(1, 5001):
        writer.append(trade(seq))
    writer.close(5000)
    names = [path.suffix for path in (tmp_path / "tape").iterdir()]
    assert len(names) > 3 and set(names) == {".zst"}
    assert list(read(tmp_path / "tape")) == [trade(seq) for seq in range(1, 5001)]


def test_a_missing_fact_is_named(tmp_path: Path) -> None:
    book = journal(tmp_path)
    for fact in (adjustment(1), trade(2), adjustment(5)):
        book.append(fact)
    book.close(5, {})
    reader = JournalReader(tmp_path)
    with pytest.raises(DataError, match="facts 3 to 4 are missing"):
        list(reader.events(reader.session("last")))


def test_a_last_line_cut_by_a_crash_ends_the_tape_and_a_bad_one_before_it_is_an_error(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path / "tape", segment_bytes=1 << 20)
    for seq in (1, 2, 3):
        writer.append(trade(seq))
    writer.write(3)
    (running,) = (tmp_path / "tape").iterdir()
    whole = running.read_bytes()
    writer.close(3)
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    (crashed / "000000000003.jsonl").write_bytes(whole[:-9])
    assert list(read(crashed)) == [trade(1), trade(2)]
    (crashed / "000000000003.jsonl").write_bytes(b"rubbish\n" + whole)
    with pytest.raises(DataError, match="line 1 cannot be read"):
        list(read(crashed))


CHILD = """
    import os, signal, sys
    from decimal import Decimal
    from pathlib import Path
    sys.path[:0] = {paths!r}
    from test_journal_parts import journal, trade, adjustment
    book = journal(Path({folder!r}))
    seq = 0
    while True:
        seq += 1
        book.append(trade(seq) if seq % 3 else adjustment(seq))
        if seq % 7 == 0:
            book.commit(seq)
            print(seq, flush=True)
"""


def test_after_sigkill_everything_committed_is_there(tmp_path: Path) -> None:
    (tmp_path / "test_journal_parts.py").write_text(Path(__file__).read_text())
    script = textwrap.dedent(CHILD).format(paths=[str(tmp_path), os.getcwd()], folder=str(tmp_path / "state"))
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        last = 0
        while last < 700:
            last = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().split()
    promised = max([last, *map(int, rest)])
    reader = JournalReader(tmp_path / "state")
    seen = [event.stamp.seq for event in reader.events(reader.session("last"))]
    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) >= promised


FULL = """
    import resource, signal, sys
    from pathlib import Path
    sys.path[:0] = {paths!r}
    from test_journal_parts import journal, trade, adjustment
    from daemon.segments import RecordFailed
    book = journal(Path({folder!r}))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
    try:
        for seq in range(1, 100_000):
            book.append({event}(seq))
            book.commit(seq)
    except RecordFailed as error:
        print(error)
"""


@pytest.mark.parametrize("event", ["trade", "adjustment"])
def test_a_full_disk_is_one_clear_sentence(tmp_path: Path, event: str) -> None:
    (tmp_path / "test_journal_parts.py").write_text(Path(__file__).read_text())
    script = textwrap.dedent(FULL).format(paths=[str(tmp_path), os.getcwd()], folder=str(tmp_path / "state"), event=event)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert "cannot be written" in done.stdout and "free disk space" in done.stdout
    assert "Traceback" not in done.stderr


def test_a_newer_schema_is_refused_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    engine = open_store(tmp_path)
    with engine.begin() as connection:
        connection.execute(sa.text(f"PRAGMA user_version={SCHEMA_VERSION + 1}"))
    with pytest.raises(DataError, match="newer version"):
        open_store(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "journal.sqlite").write_bytes(b"this is not a database, it only looks long enough to be one" * 40)
    with pytest.raises(DataError, match="damaged"):
        open_store(other)


def test_a_folder_without_rights_is_a_clear_refusal(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordFailed, match="cannot be written"):
        open_store(tmp_path / "file" / "state")


def test_a_tape_that_cannot_be_written_is_said_at_the_commit_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    book = journal(tmp_path)

    def full(*_: object) -> None:
        raise RecordFailed("no room")

    with monkeypatch.context() as patched:
        patched.setattr(SegmentWriter, "write", full)
        for seq in range(1, 1500):
            book.append(trade(seq))
        with pytest.raises(RecordFailed):
            book.commit(1499)
    book.close(1499, {})
    reader = JournalReader(tmp_path)
    assert [event.stamp.seq for event in reader.events(reader.session("last"))] == list(range(1, 1500))
