"""Journals that were cut, lost or written by another version: readable in full, or one sentence that says what to do; never less in silence."""

import gzip
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from contextlib import closing, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from agents.core.errors import DataError
from agents.core.events import Adjustment, AdjustmentKind, Event, Fill, NewWeights, OrderUpdate, Stamp, Tick, Trade
from agents.core.instruments import Currency, Side, Symbol
from agents.core.orders import OrderId, OrderState, Place
from daemon import store
from daemon.committed import Committed
from daemon.journal import Journal, JournalReader
from daemon.segments import RecordFailed, SegmentWriter, compress, read, segments_of
from daemon.store import NAME, open_store

BTC = Symbol("BTC/USDT")
V1 = Path(__file__).with_name("journal_v1.sql.gz")


def facts(last: int) -> list[Event]:
    """A little of everything, one after the other."""
    kinds: list[Callable[[Stamp], Event]] = [
        lambda stamp: Trade(stamp, BTC, stamp.seq, str(stamp.seq), Decimal("1.5"), Decimal("0.25"), Side.SELL),
        lambda stamp: Adjustment(stamp, Currency("USDT"), Decimal(stamp.seq), AdjustmentKind.DEPOSIT, "n" * 60),
        Tick,
        lambda stamp: OrderUpdate(stamp, OrderId(f"q-t-1-{stamp.seq}-0"), BTC, OrderState.OPEN, f"v{stamp.seq}"),
        lambda stamp: Fill(
            stamp, BTC, stamp.seq, OrderId(f"q-t-1-{stamp.seq - 1}-0"), f"t{stamp.seq}", Side.BUY, Decimal(2), Decimal(3), Decimal(0),
            Currency("USDT"), True,
        ),
        lambda stamp: NewWeights(stamp, stamp.seq, f"digest{stamp.seq}", "spec", os.urandom(300)),
    ]  # fmt: skip
    return [kinds[seq % len(kinds)](Stamp(seq * 10, seq)) for seq in range(1, last + 1)]


def write(folder: Path, last: int = 240) -> Journal:
    """A running session: facts, a command and a decision now and then, all committed."""
    book = Journal(folder, "test", 7, {"engine": {"quote": "USDT"}})
    for event in facts(last):
        seq = event.stamp.seq
        book.append(event)
        if seq % 10 == 0:
            book.intend(seq, (Place(OrderId(f"q-t-1-{seq}-0"), BTC, Side.BUY, Decimal(1), Decimal("2.5")),))
            book.decide(seq // 10, seq, seq * 10, {"wishes": [0.1] * 20})
            book.commit(seq)
    book.commit(last)
    return book


def everything(folder: Path) -> list[Any]:
    reader = JournalReader(folder)
    rows = reader.sessions()
    return [
        rows,
        [[str(event) for event in reader.events(row)] for row in rows],
        [list(reader.commands(row.epoch)) for row in rows],
        [list(reader.decisions(row.epoch)) for row in rows],
        [list(reader.account_facts(row.epoch)) for row in rows],
        [reader.newest_trades([row.epoch]) for row in rows],
    ]


def copy_of(folder: Path, to: Path) -> Path:
    """As a crash leaves it: the files as they stand, without the index of the write-ahead log."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("*-shm"))
    return to


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same session closed, killed with everything in the log, and killed with a part folded into the database."""
    root = tmp_path_factory.mktemp("journals")
    logged = write(root / "live")
    copy_of(root / "live", root / "logged")
    other = sqlite3.connect(root / "live" / NAME)
    other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    other.close()
    for event in facts(300)[240:]:
        logged.append(event)
    logged.commit(300)
    copy_of(root / "live", root / "folded")
    logged.close(300, {"fills": 1})
    copy_of(root / "live", root / "closed")
    return {name: root / name for name in ("logged", "folded", "closed")}


def judge(folder: Path, whole: list[Any], refused_at_start: bool) -> str:
    """All that was committed, or one sentence that says what to do; what is there stays as it is."""
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file() and not path.name.endswith("-shm")}
    said = ""
    try:
        found = everything(folder)
    except DataError as error:
        found, said = None, str(error)
    if refused_at_start:
        with pytest.raises(DataError, match=r"restore|move it away|put it back"):
            open_store(folder)
    assert {path: path.read_bytes() for path in before} == before
    assert found == whole or any(words in said for words in ("restore", "move it away", "put it back")), said
    return "refused" if found is None else "read"


LOG = f"{NAME}-wal"


@pytest.mark.parametrize(("name", "file", "always"), [
    ("closed", NAME, True), ("logged", LOG, True), ("folded", NAME, False), ("folded", LOG, False), ("logged", NAME, False),
])  # fmt: skip
def test_a_file_cut_anywhere_is_read_in_full_or_refused(
    folders: dict[str, Path], name: str, file: str, always: bool, tmp_path: Path
) -> None:
    source, whole = folders[name], everything(folders[name])
    size = (source / file).stat().st_size
    folder = copy_of(source, tmp_path / "cut")
    verdicts = []
    for offset in sorted({*range(0, size, max(size // 40, 1)), 1, 99, 100, 4095, 4096, 4097, size - 4096, size - 1} & {*range(size)}):
        shutil.copyfile(source / file, folder / file)
        os.truncate(folder / file, offset)
        (folder / f"{NAME}-shm").unlink(missing_ok=True)
        verdicts.append(judge(folder, whole, always))
    # Where both files hold the rows, the one may be cut and nothing is missing.
    assert "refused" in verdicts and (not always or set(verdicts) == {"refused"})
    (folder / file).unlink()
    (folder / f"{NAME}-shm").unlink(missing_ok=True)
    assert judge(folder, whole, always) == "refused" or file == LOG


@pytest.mark.parametrize("name", ["folded", "closed"])
def test_rubbish_in_a_page_is_read_in_full_or_refused(folders: dict[str, Path], name: str, tmp_path: Path) -> None:
    source, whole = folders[name], everything(folders[name])
    folder = copy_of(source, tmp_path / "rubbish")
    size = (source / NAME).stat().st_size
    for offset in range(0, size, max(size // 25, 1)):
        content = bytearray((source / NAME).read_bytes())
        content[offset : offset + 400] = b"\xa5" * len(content[offset : offset + 400])
        (folder / NAME).write_bytes(content)
        (folder / f"{NAME}-shm").unlink(missing_ok=True)
        with suppress(DataError):  # and nothing else
            everything(folder)
    assert whole


def test_a_tape_cut_in_a_row_ends_there_after_a_kill_and_is_refused_after_an_orderly_end(folders: dict[str, Path], tmp_path: Path) -> None:
    killed, closed = copy_of(folders["logged"], tmp_path / "killed"), copy_of(folders["closed"], tmp_path / "closed")
    (running,) = (killed / "tape" / "test-1").glob("*.jsonl")
    content = running.read_bytes()
    running.write_bytes(content + b'["Tick",[2500')  # what was on its way when the process was killed
    assert everything(killed) == everything(folders["logged"])
    running.write_bytes(content[:-7])
    with pytest.raises(DataError, match=r"test-1: facts \d+ to \d+ are missing"):
        everything(killed)
    (packed,) = (closed / "tape" / "test-1").iterdir()
    content = packed.read_bytes()
    for end in (0, 1, 5, len(content) // 2, len(content) - 1):
        packed.write_bytes(content[:end])
        with pytest.raises(DataError, match=r"restore"):
            everything(closed)
    packed.unlink()
    with pytest.raises(DataError, match=r"facts \d+ to \d+ are missing"):
        everything(closed)


def test_a_segment_that_a_crash_left_in_two_forms_counts_once(folders: dict[str, Path], tmp_path: Path) -> None:
    killed = copy_of(folders["logged"], tmp_path / "killed")
    (running,) = (killed / "tape" / "test-1").glob("*.jsonl")
    content = running.read_bytes()
    compress(running)
    running.write_bytes(content)
    assert [path.suffix for path in segments_of(running.parent)] == [".zst"]
    assert everything(killed) == everything(folders["logged"])
    (running.parent / "000000000999.jsonl").write_bytes(content)  # the same rows once more, under a later name
    with pytest.raises(DataError, match="fact 2 stands twice"):
        everything(killed)


def test_a_write_that_stops_half_way_leaves_no_half_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = SegmentWriter(tmp_path, 1 << 20)
    wanted = [event for event in facts(60) if isinstance(event, Trade)]
    for event in wanted[:4]:
        writer.append(event)
    writer.write(1)
    for event in wanted[4:]:
        writer.append(event)

    class Full:
        """The file, on a disk that takes twenty bytes more."""

        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, block: bytes) -> int:
            return int(self.file.write(block[:20]))

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    with monkeypatch.context() as patched:
        patched.setattr(writer, "_file", Full(writer._file))
        with pytest.raises(RecordFailed, match="free disk space"):
            writer.write(2)
    assert list(read(tmp_path)) == wanted[:4]
    writer.write(2)
    assert list(read(tmp_path)) == wanted
    writer.abandon()


def test_no_client_order_id_can_come_twice_when_a_journal_is_gone(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copy_of(folders["closed"], tmp_path / "state")
    (folder / NAME).unlink()
    with pytest.raises(DataError, match=r"is gone, but session 1 was recorded in it: restore it, or move journal.committed away"):
        Journal(folder, "new", 8, {})
    (folder / Committed.NAME).unlink()
    again = Journal(folder, "new", 8, {})
    assert again.epoch == 2  # the tape of session 1 is still there
    again.close(0, {})


def test_a_mark_that_cannot_be_believed_says_nothing(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copy_of(folders["logged"], tmp_path / "state")
    mark = folder / Committed.NAME
    whole, content = everything(folder), mark.read_bytes()
    for bad in (b"", content[:-1], b"x" * len(content), content[:9] + b"\x01" + content[10:]):
        mark.write_bytes(bad)
        assert Committed(folder).read() is None
        assert everything(folder) == whole


# -- other versions ----------------------------------------------------------------------------------------------------


def first_version(folder: Path) -> dict[str, list[Any]]:
    """A journal as the first version wrote it; its rows by table."""
    folder.mkdir()
    with closing(sqlite3.connect(folder / NAME)) as made:
        made.executescript(gzip.decompress(V1.read_bytes()).decode())
        made.execute("PRAGMA journal_mode=WAL")
        return rows_of(made)


def rows_of(connection: sqlite3.Connection) -> dict[str, list[Any]]:
    columns = {"sessions": "epoch, name, started_at, config, summary", "facts": "epoch, seq, at, kind, body",
               "commands": "*", "decisions": "*", "contents": "*"}  # fmt: skip
    return {table: connection.execute(f"SELECT {names} FROM {table} ORDER BY 1, 2").fetchall() for table, names in columns.items()}


def test_an_older_journal_is_backed_up_and_migrated_and_nothing_is_lost(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    rows = first_version(folder)
    old = JournalReader(folder)  # readable as it is, without a migration
    before = [list(old.account_facts(1)), list(old.commands(1)), list(old.decisions(1)), list(old.facts(1)), old.newest_trades([1])]
    assert old.schema == 1 and old.sessions()[0].cut is None and not list(folder.glob("*.bak"))
    open_store(folder).dispose()
    (copy,) = folder.glob("*.bak")
    assert copy.name == "journal.sqlite.v1.test-1.bak"
    with closing(sqlite3.connect(copy)) as kept, closing(sqlite3.connect(folder / NAME)) as now:
        assert rows_of(kept) == rows_of(now) == rows
        assert kept.execute("PRAGMA user_version").fetchone() == (1,)
        assert now.execute("PRAGMA user_version").fetchone() == (store.SCHEMA_VERSION,)
        assert now.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        orders = now.execute("SELECT kind, order_id IS NULL, count(*) FROM facts GROUP BY 1, 2 ORDER BY 1").fetchall()
        assert orders == [("Adjustment", 1, 2), ("Fill", 0, 5), ("Listing", 1, 2), ("NewWeights", 1, 1), ("OrderUpdate", 0, 726)]
    new = JournalReader(folder)
    assert [list(new.account_facts(1)), list(new.commands(1)), list(new.decisions(1)), list(new.facts(1)), new.newest_trades([1])] == before
    for event in before[0]:
        if isinstance(event, Fill | OrderUpdate):
            assert event in list(new.order_facts(event.order_id))
            break


def test_a_migrated_journal_has_the_tables_and_indexes_of_a_fresh_one(tmp_path: Path) -> None:
    first_version(tmp_path / "old")
    open_store(tmp_path / "old").dispose()
    open_store(tmp_path / "new").dispose()

    def shape(folder: Path) -> dict[str, Any]:
        with closing(sqlite3.connect(folder / NAME)) as connection:
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'") if name != "alembic_version"]
            columns = {table: [row[1:] for row in connection.execute(f"PRAGMA table_info({table})")] for table in tables}
            indexes = {
                name: [row[2] for row in connection.execute(f"PRAGMA index_info({name})")]
                for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL").fetchall()
            }
        return {"columns": columns, "indexes": indexes}

    assert shape(tmp_path / "old") == shape(tmp_path / "new")


def test_a_session_goes_on_in_a_migrated_journal_and_a_second_start_makes_no_second_backup(tmp_path: Path) -> None:
    first_version(tmp_path / "state")
    book = Journal(tmp_path / "state", "next", 9, {"engine": {}})
    assert book.epoch == 2
    book.append(facts(6)[3])
    book.close(4, {})
    Journal(tmp_path / "state", "next", 9, {"engine": {}}).close(0, {})
    assert len(list((tmp_path / "state").glob("*.bak"))) == 1
    assert [row.name for row in JournalReader(tmp_path / "state").sessions()] == ["test-1", "next-2", "next-3"]


def test_a_migration_that_dies_within_leaves_the_journal_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    rows = first_version(folder)
    script = """
        import os, sys
        from pathlib import Path
        from alembic import op
        from daemon.store import open_store
        op.create_table = lambda *_, **__: os._exit(9)  # the last step of schema 2
        open_store(Path(sys.argv[1]))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(folder)], timeout=60, check=False)
    assert done.returncode == 9
    assert JournalReader(folder).schema == 1
    open_store(folder).dispose()
    assert JournalReader(folder).schema == store.SCHEMA_VERSION and len(list(folder.glob("*.bak"))) == 2
    with closing(sqlite3.connect(folder / NAME)) as now:
        assert rows_of(now) == rows


def test_no_room_for_a_migration_is_said_with_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = first_version(tmp_path / "state")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 99, 1))
    with pytest.raises(RecordFailed, match=r"older version \(schema 1\) and needs \d+ MiB free .*: free disk space"):
        open_store(tmp_path / "state")
    with closing(sqlite3.connect(tmp_path / "state" / NAME)) as now:
        assert rows_of(now) == rows


def test_a_damaged_older_journal_is_not_migrated(tmp_path: Path) -> None:
    first_version(tmp_path / "state")
    path = tmp_path / "state" / NAME
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 9000] = b"\xa5" * 9000
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"is damaged .*restore the latest backup"):
        open_store(tmp_path / "state")
    assert path.read_bytes() == bytes(content)


def test_an_older_journal_whose_index_lies_is_not_migrated(tmp_path: Path) -> None:
    rows = first_version(tmp_path / "state")
    path = tmp_path / "state" / NAME
    with closing(sqlite3.connect(path)) as made:
        (root,) = made.execute("SELECT rootpage FROM sqlite_master WHERE name = 'ix_facts_kind'").fetchone()
        (size,) = made.execute("PRAGMA page_size").fetchone()
    content = bytearray(path.read_bytes())
    page = slice((root - 1) * size, root * size)
    content[page] = content[page].replace(b"OrderUpdate", b"OrderUpdatf", 1)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"is damaged .*index.*restore the latest backup"):
        open_store(tmp_path / "state")
    assert not list((tmp_path / "state").glob("*.bak")) and not list((tmp_path / "state").glob("*.part"))
    with closing(sqlite3.connect(path)) as now:
        assert rows_of(now) == rows and now.execute("PRAGMA user_version").fetchone() == (1,)


def test_alembic_is_loaded_for_an_older_journal_only(tmp_path: Path) -> None:
    script = "import sys; from pathlib import Path; from daemon.store import open_store; open_store(Path(sys.argv[1])); print('alembic' in sys.modules)"
    first_version(tmp_path / "old")
    for name, loaded in (("new", "False"), ("new", "False"), ("old", "True")):
        done = subprocess.run([sys.executable, "-c", script, str(tmp_path / name)], capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout.split()[-1] == loaded


def test_a_newer_journal_and_a_strange_one_are_refused_and_left_alone(tmp_path: Path) -> None:
    open_store(tmp_path).dispose()
    with closing(sqlite3.connect(tmp_path / NAME)) as other:
        other.execute(f"PRAGMA user_version={store.SCHEMA_VERSION + 1}")
    for question in (lambda: open_store(tmp_path), lambda: JournalReader(tmp_path), lambda: Journal(tmp_path, "x", 1, {})):
        with pytest.raises(DataError, match=r"newer version .*: update Quartet"):
            question()
    strange = tmp_path / "strange"
    strange.mkdir()
    with closing(sqlite3.connect(strange / NAME)) as other:
        other.execute("CREATE TABLE recipes (name TEXT)")
    with pytest.raises(DataError, match="damaged or no journal of Quartet"):
        open_store(strange)


# -- rights and room ---------------------------------------------------------------------------------------------------


NOBODY = """
    import os, sys
    from pathlib import Path
    from agents.core.errors import TradingError
    from daemon.journal import Journal, JournalReader
    from daemon.latch import Latch
    from daemon.emergency import EmergencyRecord
    from daemon.store import open_store
    folder = Path(sys.argv[1])
    if os.geteuid() == 0:
        os.setgroups([]), os.setgid(65534), os.setuid(65534)
    for make in (lambda: Journal(folder, "x", 1, {}), lambda: open_store(folder), lambda: Latch(folder), lambda: EmergencyRecord(folder)):
        try:
            make()
        except TradingError as error:
            print(type(error).__name__, error)
    try:
        print(len(list(JournalReader(folder).commands(1))))
    except TradingError as error:
        print(type(error).__name__, error)
"""


@pytest.mark.parametrize("name", ["closed", "logged", "empty"])
def test_a_folder_without_write_right_is_said_by_everything_that_writes(folders: dict[str, Path], name: str) -> None:
    with tempfile.TemporaryDirectory() as open_to_all:
        os.chmod(open_to_all, 0o755)
        folder = Path(open_to_all) / "state"
        if name == "empty":
            folder.mkdir()
        else:
            copy_of(folders[name], folder)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        done = subprocess.run([sys.executable, "-c", textwrap.dedent(NOBODY), str(folder)], capture_output=True, text=True, timeout=60, check=True)
        *writers, reader = done.stdout.splitlines()
        assert len(writers) == 4 and all("rights" in line and "Error" not in line.split()[1] for line in writers), done.stdout
        assert done.stderr == ""
        assert reader == "24" if name == "closed" else "DataError" in reader, done.stdout


FULL = """
    import resource, signal, sys
    from pathlib import Path
    from daemon.journal import Journal
    from daemon.segments import RecordFailed
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    for size in range(0, 200_000, 2_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        try:
            Journal(Path(sys.argv[1]), "full", 1, {})
        except RecordFailed as error:
            print(error)
            continue
        break
    print("opened", size)
"""


def test_a_disk_that_is_full_at_the_start_is_one_sentence_and_the_next_start_works(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(FULL), str(tmp_path)], capture_output=True, text=True, timeout=60, check=True)
    *refused, opened = done.stdout.splitlines()
    assert len(refused) > 3 and all("cannot be written" in line and "free disk space" in line for line in refused), done.stdout
    assert opened.startswith("opened") and done.stderr == ""
    book = Journal(tmp_path, "next", 2, {})
    book.append(facts(3)[2])
    book.close(3, {})
    assert everything(tmp_path)
