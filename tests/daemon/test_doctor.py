"""What the doctor finds: on a fresh machine, on state folders with a past, and at an exchange with each kind of trouble."""

import asyncio
import sqlite3
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from agents.core.errors import TradingError
from agents.core.events import NewWeights, Reconciled, Stamp
from agents.core.instruments import NS, Currency
from daemon import doctor
from daemon.doctor import machine, record
from daemon.doctor.findings import Finding, age, guarded, result, size
from daemon.journal import Journal
from daemon.latch import Latch
from daemon.sources import load
from daemon.state_folder import held
from tests.rehearsal_faults import rehearsal
from tests.weights import payload

NOW = 1_800_000_000 * NS
KEYS = ("key", "key_rights", "open_orders")


def examined(state: Path, keys: tuple[str, str] | None = None, **flags: Any) -> dict[str, Any]:
    environ = {} if keys is None else {"QUARTET__EXCHANGE__API_KEY": keys[0], "QUARTET__EXCHANGE__SECRET": keys[1]}
    exchange = {"symbols": ("BTC/USDT",), **flags.pop("exchange", {})}
    return asyncio.run(doctor.examine(load(None, {"state_dir": state, "exchange": exchange, **flags}, environ)))


def checks(data: dict[str, Any]) -> dict[str, dict[str, str]]:
    return {check["name"]: check for check in data["checks"]}


def states(data: dict[str, Any], *names: str) -> list[str]:
    return [checks(data)[name]["state"] for name in names]


def past(state: Path) -> dict[str, Any]:
    return {finding.name: finding for finding in record.examine(state, NOW)}


def journal(state: Path) -> Journal:
    return Journal(state, "test", NOW - 7200 * NS, {"engine": {"quote": "USDT"}})


# -- a fresh machine --------------------------------------------------------------------------------------------------


def test_a_fresh_machine_is_well_and_nothing_is_made_on_it(tmp_path: Path) -> None:
    data = examined(tmp_path / "new" / "state")
    assert {check["name"]: check["said"] for check in data["checks"] if check["state"] == "fail"} == {}
    assert set(states(data, "exchange", "clock", "symbols", "smallest_orders", "capabilities", "state_folder", "rate_budget")) == {"ok"}
    assert set(states(data, *KEYS)) == {"skipped"}
    assert list(tmp_path.iterdir()) == []


def test_live_on_the_rehearsal_exchange_the_key_is_tried(tmp_path: Path) -> None:
    data = examined(tmp_path, mode="live")
    assert set(states(data, *KEYS)) == {"ok"}
    assert "100000.0 USDT in the account" in checks(data)["key"]["said"]


def test_a_network_that_is_not_there_is_a_finding(tmp_path: Path) -> None:
    data = examined(tmp_path, ("k", "s"), mode="live", exchange={"id": "binance", "base_url": "http://127.0.0.1:9"})
    assert (data["state"], states(data, "exchange", "settings")) == ("fail", ["fail", "ok"])
    assert "check the network" in checks(data)["exchange"]["mend"]
    assert not set(KEYS) & checks(data).keys()  # what cannot be asked is not judged


# -- the exchange in trouble -------------------------------------------------------------------------------------------


async def at(base_url: str, state: Path, keys: tuple[str, str], **flags: Any) -> dict[str, Any]:
    return await asyncio.to_thread(examined, state, keys, mode="live", **{"exchange": {"base_url": base_url}, **flags})


@pytest.mark.parametrize(
    ("faults", "name", "state", "said"),
    [
        ([{"fault": "key_withdraws"}], "key_rights", "warn", "move money out"),
        ([{"fault": "key_2015", "count": None}], "key", "fail", "refuses the key"),
        ([{"fault": "clock_offset", "offset_ms": 5000}], "clock", "fail", "ms behind the exchange"),
        ([{"fault": "clock_offset", "offset_ms": -700}], "clock", "warn", "ms ahead of the exchange"),
        ([{"fault": "foreign_orders"}], "open_orders", "ok", "2 of others"),
    ],
)  # fmt: skip
async def test_trouble_at_the_exchange_is_named(tmp_path: Path, faults: list[dict[str, Any]], name: str, state: str, said: str) -> None:
    async with rehearsal(symbols=("BTC/USDT",)) as exchange:
        for fault in faults:
            await exchange.faults.on(**fault)
        found = checks(await at(exchange.base_url, tmp_path, (exchange.api_key, exchange.secret)))
    assert (found[name]["state"], said in found[name]["said"]) == (state, True), found[name]
    assert bool(found[name]["mend"]) is (state != "ok")


async def test_the_account_is_held_against_the_configuration(tmp_path: Path) -> None:
    async with rehearsal(symbols=("BTC/USDT",), balances={"USDT": Decimal(40)}) as exchange:
        keys = (exchange.api_key, exchange.secret)
        found = checks(await at(exchange.base_url, tmp_path, keys, capital={"allocation": 50}, risk={"position_cap": 0.02}))
        wrong = checks(await at(exchange.base_url, tmp_path, keys, exchange={"base_url": exchange.base_url, "symbols": ("NOPE/USDT",)}))
    assert (found["key"]["state"], "40" in found["key"]["said"]) == ("warn", True)
    assert (found["smallest_orders"]["state"], "risk.position_cap" in found["smallest_orders"]["said"]) == ("fail", True)
    assert (wrong["symbols"]["state"], "NOPE/USDT" in wrong["symbols"]["said"]) == ("fail", True)


def test_an_exchange_that_lacks_what_safety_needs_fails_for_real_orders_only(tmp_path: Path) -> None:
    exchange = {"id": "bitfinex", "base_url": "http://127.0.0.1:9"}
    assert states(examined(tmp_path, exchange=exchange), "capabilities") == ["warn"]
    assert states(examined(tmp_path, ("k", "s"), mode="live", exchange=exchange), "capabilities") == ["fail"]


# -- the past of a state folder ------------------------------------------------------------------------------------------


def test_a_session_that_ended_in_order_and_one_that_did_not(tmp_path: Path) -> None:
    book = journal(tmp_path)
    book.append(Reconciled(Stamp(NOW - 3600 * NS, 1), ()))
    book.close(1, {"ledger_difference": 0.0})
    found = past(tmp_path)
    assert (found["last_session"].state, found["last_session"].said) == ("ok", "test-1 ended in order 60 min ago, books equal to the exchange's")
    assert (found["reconciled"].state, found["reconciled"].said) == ("ok", "clean, 60 min ago")
    assert found["weights"].said.startswith("none published")
    killed = journal(tmp_path)
    killed.append(Reconciled(Stamp(NOW - 60 * NS, 1), ((Currency("BTC"), Decimal(1), Decimal("1.5")),)))
    killed.commit(1)
    found = past(tmp_path)
    assert (found["last_session"].state, "did not end in order, 60 s ago" in found["last_session"].said) == ("warn", True)
    assert (found["reconciled"].state, "BTC 1 here, 1.5 there" in found["reconciled"].said) == ("warn", True)
    with held(tmp_path):
        found = past(tmp_path)
        assert found["last_session"].said == "test-2 is running"
        assert "held by process" in found["lock"].said
    assert past(tmp_path)["lock"].said == "no daemon holds the folder"


@pytest.mark.parametrize(("difference", "words"), [(None, "could not compare"), (0.5, "ended 0.5 away")])
def test_books_that_differed_at_the_end(tmp_path: Path, difference: float | None, words: str) -> None:
    journal(tmp_path).close(0, {"ledger_difference": difference})
    assert (past(tmp_path)["last_session"].state, words in past(tmp_path)["last_session"].said) == ("warn", True)


@pytest.mark.parametrize(("given", "state"), [({}, "ok"), ({"value": float("nan")}, "warn"), ({"spec": "other"}, "warn")])
def test_the_newest_weights_are_looked_into(tmp_path: Path, given: dict[str, Any], state: str) -> None:
    book = journal(tmp_path)
    for seq, (body, digest) in enumerate((payload(1), payload(2, **given)), 1):
        book.append(NewWeights(Stamp(seq, seq), seq, digest, "", body))
    book.close(2, {"ledger_difference": 0})
    found = past(tmp_path)["weights"]
    assert (found.state, "version 2" in found.said) == (state, True), found


def test_a_latch_and_a_watchdog_that_gave_up(tmp_path: Path) -> None:
    assert (past(tmp_path)["latch"].said, past(tmp_path)["watchdog"].said) == ("never set", "it never had to act")
    assert not (tmp_path / "latch").exists()
    Latch(tmp_path).set("halt", "lunch", 1)
    (tmp_path / "watchdog").mkdir()
    report = {"at": "2026-01-02T03:04:05+00:00", "reason": "gone", "cancelled": 0, "outcome": "given up: look"}
    (tmp_path / "watchdog" / "1.json").write_bytes(orjson.dumps(report))
    found = past(tmp_path)
    assert (found["latch"].state, found["latch"].said) == ("warn", "halt: lunch")
    assert (found["watchdog"].state, "2026-01-02T03:04:05" in found["watchdog"].said) == ("fail", True)
    Latch(tmp_path).set("none", "", 2)
    assert past(tmp_path)["latch"].said == "open"


def test_a_damaged_journal_and_one_of_a_newer_version(tmp_path: Path) -> None:
    journal(tmp_path).close(0, {})
    with sqlite3.connect(tmp_path / "journal.sqlite") as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    found = past(tmp_path)
    assert (found["journal"].state, "newer version" in found["journal"].said) == ("fail", True)
    assert "last_session" not in found
    (tmp_path / "journal.sqlite").write_bytes(b"no database at all" * 1000)
    assert past(tmp_path)["journal"].state == "fail"


def test_rights_and_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [finding.state for finding in record.examine(tmp_path / "a" / "b", NOW)] == ["ok", "ok"]
    tmp_path.chmod(0o777)
    assert past(tmp_path)["state_folder"].state == "warn"
    (tmp_path / "file").touch()
    assert past(tmp_path / "file")["state_folder"].state == "fail"
    monkeypatch.setattr(record, "LEAST_FREE", 1 << 60)
    assert past(tmp_path)["disk"].state == "fail"
    monkeypatch.setattr(machine, "NEEDED_MEMORY", 1 << 60)
    assert {finding.name: finding.state for finding in machine.examine()}["machine"] == "warn"


# -- words ---------------------------------------------------------------------------------------------------------------


def test_it_reads_like_a_list_and_the_worst_decides(tmp_path: Path) -> None:
    def broken() -> Any:
        raise TradingError("the disk is on fire")

    data = result([guarded("disk", broken), Finding("clock", "ok", "5 ms", "unused"), Finding("key", "skipped", "none")])
    assert (data["state"], data["counts"]) == ("fail", {"fail": 1, "warn": 0, "ok": 1, "skipped": 1})
    text = doctor.render(data)
    assert "FAIL  disk   TradingError: the disk is on fire" in text
    assert "-> mend what it says" in text
    assert "unused" not in text
    assert text.endswith("fail: 1 fail, 1 ok, 1 skipped")
    assert result([Finding("key", "skipped", "none")])["state"] == "ok"


def test_sizes_and_ages_for_people() -> None:
    assert [size(12), size(12_345), size(75_200_000_000), size(3e12)] == ["12 B", "12.3 kB", "75.2 GB", "3 TB"]
    assert [age(7), age(600), age(7200), age(1e6)] == ["7 s", "10 min", "2 h", "12 d"]
