"""A session in a state folder that the first version wrote: it is kept aside, migrated, and traded in as if it were new."""

import sqlite3
from contextlib import closing
from pathlib import Path

from daemon import store
from daemon.journal import JournalReader
from daemon.store import NAME
from tests.daemon.test_journal_damage import first_version, rows_of
from tests.daemon.test_session import Start, ask, start  # noqa: F401 - a fixture


def test_a_session_trades_in_a_folder_of_the_first_version(start: Start, tmp_path: Path) -> None:  # noqa: F811
    state = tmp_path / "state"
    rows = first_version(state)
    flags = ("--duration", "9", "--set", "instance=test")  # the one that the first session was of
    code, summary, words = start("trade", "--paper", "--json", "--state", str(state), *flags).wait()
    assert (code, summary["ledger_difference"], summary["anomalies"]) == (0, 0, {}), words
    assert summary["fills"] > 0, words
    assert words.count('"journal_migrated"') == 1, words
    (copy,) = state.glob("*.bak")
    with closing(sqlite3.connect(copy)) as kept, closing(sqlite3.connect(state / NAME)) as now:
        assert kept.execute("PRAGMA user_version").fetchone() == (1,)
        assert now.execute("PRAGMA user_version").fetchone() == (store.SCHEMA_VERSION,)
        assert rows_of(kept) == rows
        assert [row for row in rows_of(now)["facts"] if row[0] == 1] == rows["facts"], "the first session reads as before"
    assert [row.epoch for row in JournalReader(state).sessions()] == [1, 2]
    code, replayed, words = ask(state, "replay", "last")
    assert (code, replayed["equal"]) == (0, True), words
