"""Whole sessions as a user starts them: real processes, the rehearsal exchange, unmodified ccxt, SQLite on disk."""

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import trustme

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("QUARTET_DATA", ROOT.parent / "shared" / "data"))
AGENTS = ("long_term", "short_term", "market_making", "risk")
Start = Callable[..., "Daemon"]


class Daemon:
    """One `quartet` process."""

    def __init__(self, *arguments: str, environment: dict[str, str] | None = None, prepare: Callable[[], None] | None = None) -> None:
        env = {name: value for name, value in os.environ.items() if not name.startswith("QUARTET__")} | (environment or {})
        self.process = subprocess.Popen(
            [sys.executable, "-m", "daemon", *arguments], cwd=ROOT, env=env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=prepare,
        )  # fmt: skip

    def wait(self, timeout: float = 120.0) -> tuple[int, dict[str, Any], str]:
        """(exit code, the JSON on standard output, standard error)."""
        output, words = self.process.communicate(timeout=timeout)
        return self.process.returncode, orjson.loads(output) if output.strip() else {}, words

    def until(self, event: str) -> dict[str, Any]:
        """Read the log up to this event."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.startswith("{") and (said := orjson.loads(line)).get("event") == event:
                return dict(said)
        raise AssertionError(f"{event} was never said; exit code {self.process.wait()}")


@pytest.fixture
def start() -> Iterator[Start]:
    running: list[Daemon] = []

    def launch(*arguments: str, **options: Any) -> Daemon:
        running.append(Daemon(*arguments, **options))
        return running[-1]

    yield launch
    for daemon in running:
        if daemon.process.poll() is None:
            daemon.process.kill()
        daemon.process.communicate()


def ask(state: Path, *command: str) -> tuple[int, dict[str, Any], str]:
    return Daemon(*command, "--state", str(state), "--json").wait()


def until(state: Path, holds: Callable[[dict[str, Any]], bool], seconds: float = 240.0) -> dict[str, Any]:
    """Ask for the status until something holds; patient, because the learner runs at the lowest priority beside other tests."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        code, status, _ = ask(state, "status")
        if code == 0 and holds(status):
            return status
    raise AssertionError("it never came to hold")


def test_a_session_on_a_fresh_machine_trades_learns_and_replays(start: Start, tmp_path: Path) -> None:
    daemon = start("trade", "--paper", "--json", "--state", str(tmp_path))
    until(tmp_path, lambda s: s["learner"]["weights_swapped"] >= 1 and s["fills"] > 0 and all(s["decisions"].values()))
    daemon.process.send_signal(signal.SIGINT)
    code, summary, words = daemon.wait()
    assert code == 0, words
    assert (summary["mode"], summary["exchange"]) == ("paper", "rehearsal")
    assert all(summary["decisions"][agent] > 0 for agent in AGENTS)
    assert summary["fills"] > 0
    assert summary["ledger_difference"] == 0
    assert summary["learner"]["weights_swapped"] >= 1
    assert summary["learner"]["updates"] > 0
    assert sum(summary["pnl"]["agents"].values()) == pytest.approx(summary["pnl"]["account"], abs=1e-6)
    assert summary["anomalies"] == {}
    code, replayed, _ = ask(tmp_path, "replay", summary["session"])
    assert (code, replayed["equal"], replayed["first_difference"]) == (0, True, None)
    assert replayed["commands"] > 0


def test_orders_through_ccxt_survive_the_death_of_the_learner(start: Start, tmp_path: Path) -> None:
    daemon = start("trade", "--live", "--json", "--state", str(tmp_path))
    status = until(tmp_path, lambda s: s["learner"]["updates"] > 0 and s["fills"] > 0)
    os.kill(status["learner"]["pid"], signal.SIGKILL)
    until(tmp_path, lambda s: s["learner"]["restarts"] == 1 and s["orders"] > status["orders"])
    daemon.process.send_signal(signal.SIGTERM)
    code, summary, words = daemon.wait()
    assert code == 0, words
    assert summary["mode"] == "live"
    assert summary["fills"] > 0
    assert summary["ledger_difference"] == 0
    assert summary["open_orders"] == 0
    assert all(order_id.startswith("q-main-") for order_id in summary["stops_kept"])
    code, replayed, _ = ask(tmp_path, "replay", "last")
    assert (code, replayed["first_difference"]) == (0, None)


def test_an_operator_halts_flattens_and_ends_a_session(start: Start, tmp_path: Path) -> None:
    daemon = start("trade", "--paper", "--json", "--state", str(tmp_path))
    until(tmp_path, lambda s: bool(s["positions"]))
    assert ask(tmp_path, "flatten")[0] == 0
    until(tmp_path, lambda s: s["halted"] and not s["open_orders"] and all(abs(p["weight"] or 0) < 0.003 for p in s["positions"]))
    daemon.process.send_signal(signal.SIGTERM)
    code, summary, words = daemon.wait()
    assert (code, summary["ledger_difference"], summary["open_orders"]) == (0, 0, 0), words


def test_one_state_folder_holds_one_daemon(start: Start, tmp_path: Path) -> None:
    first = start("trade", "--paper", "--json", "--state", str(tmp_path))
    first.until("ready")
    code, _, words = start("trade", "--paper", "--duration", "5", "--state", str(tmp_path)).wait()
    assert code == 4
    assert f"in use by process {first.process.pid}" in words
    assert "Traceback" not in words
    first.process.send_signal(signal.SIGINT)
    assert first.wait()[0] == 0


def test_a_full_disk_ends_in_one_sentence_and_leaves_no_order(start: Start, tmp_path: Path) -> None:
    def small_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_200_000, 1_200_000))

    code, _, words = start("trade", "--live", "--duration", "100", "--state", str(tmp_path), prepare=small_disk).wait()
    assert code == 1
    assert "cannot be written" in words.splitlines()[-1]
    assert "Traceback" not in words


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--live", "--exchange", "binance", "--set", "exchange.base_url=http://127.0.0.1:9"), 2, "QUARTET__EXCHANGE__API_KEY"),
        (("--live", "--exchange", "binance"), 4, "real money"),
        (("--symbols", "BTC/USDX"), 2, "capital.quote"),
        (("--symbols", "BTC/USDT,NOPE/USDT"), 2, "NOPE/USDT"),
        (("--exchange", "binanse", "--set", "exchange.base_url=http://127.0.0.1:9"), 2, "binance"),
        (("--set", "capital.allocation=20"), 2, "capital.allocation"),
        (("--data", "/nowhere/at/all"), 2, "/nowhere/at/all"),
    ],
)
def test_what_cannot_work_is_said_in_one_sentence(start: Start, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    exit_code, _, words = start("trade", *arguments, "--duration", "20", "--state", str(tmp_path)).wait()
    last = words.strip().splitlines()[-1]
    assert (exit_code, said in last) == (code, True), words
    assert "Traceback" not in words


def test_real_money_is_refused_unless_it_is_meant_and_where_safety_would_be_missing(start: Start, tmp_path: Path) -> None:
    keys = {"QUARTET__EXCHANGE__API_KEY": "k", "QUARTET__EXCHANGE__SECRET": "s"}
    code, _, words = start("trade", "--live", "--exchange", "binance", "--state", str(tmp_path), environment=keys).wait()
    assert (code, "--yes-trade-real-money" in words) == (4, True), words
    flags = ("--live", "--yes-trade-real-money", "--exchange", "bitfinex", "--state", str(tmp_path))
    code, _, words = start("trade", *flags, environment=keys).wait()
    assert (code, "bitfinex lacks" in words) == (2, True), words


def test_a_rehearsal_exchange_that_runs_alone_is_traded_on_by_its_address(start: Start, tmp_path: Path) -> None:
    server = start("exchange", "--json", "--symbols", "BTC/USDT")
    assert server.process.stdout is not None
    hello = "".join(iter(server.process.stdout.readline, "}\n")) + "}"
    address = ("--set", f"exchange.base_url={orjson.loads(hello)['base_url']}", "--symbols", "BTC/USDT")
    daemon = start("trade", "--live", "--json", "--state", str(tmp_path), *address)
    until(tmp_path, lambda s: s["orders"] > 0)
    daemon.process.send_signal(signal.SIGTERM)
    code, summary, words = daemon.wait()
    assert (code, summary["ledger_difference"]) == (0, 0), words
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(20) == 0


def test_with_a_certificate_ccxts_own_addresses_lead_to_another_server(start: Start, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    authority.issue_cert("api.binance.com", "stream.binance.com", "ws-api.binance.com", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        tmp_path / "server.pem"
    )
    pem = ("--certificate", str(tmp_path / "server.pem"), "--private-key", str(tmp_path / "server.pem"))
    command = [sys.executable, "-m", "daemon.rehearsal", "--symbols", "BTC/USDT", *pem]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        hello = orjson.loads(server.stdout.readline())
        settings = ("--set", f"exchange.base_url=https://127.0.0.1:{hello['port']}", "--set", f"exchange.ca_file={tmp_path / 'ca.pem'}")
        keys = {"QUARTET__EXCHANGE__API_KEY": hello["api_key"], "QUARTET__EXCHANGE__SECRET": hello["secret"]}
        flags = ("--live", "--exchange", "binance", "--symbols", "BTC/USDT", "--json", "--state", str(tmp_path / "state"))
        daemon = start("trade", *flags, *settings, environment=keys)
        until(tmp_path / "state", lambda s: s["orders"] > 0)
        daemon.process.send_signal(signal.SIGTERM)
        code, summary, words = daemon.wait()
        assert (code, summary["exchange"], summary["ledger_difference"]) == (0, "binance", 0), words
        server.terminate()


def test_a_recorded_feed_is_a_tape_for_a_backtest(start: Start, tmp_path: Path) -> None:
    code, recorded, words = start("record", str(tmp_path / "tape"), "--duration", "12", "--json", "--symbols", "BTC/USDT,ETH/USDT").wait()
    assert code == 0, words
    assert recorded["kinds"]["Trade"] > 50
    assert recorded["kinds"]["BookSnapshot"] > 50
    code, _, words = start("record", str(tmp_path / "tape"), "--duration", "5").wait()
    assert (code, "holds a tape already" in words) == (2, True), words
    code, report, words = start("backtest", "--data", str(tmp_path / "tape"), "--json").wait()
    assert code == 0, words
    assert report["ledger_difference"] == 0
    assert report["decisions"]["market_making"] > 10


@pytest.mark.skipif(not (DATA / "book").is_dir(), reason=f"no recorded market data in {DATA}; name its folder by QUARTET_DATA")
def test_a_recorded_market_is_traded(start: Start, tmp_path: Path) -> None:
    daemon = start("trade", "--live", "--data", str(DATA), "--duration", "20", "--json", "--state", str(tmp_path))
    code, summary, words = daemon.wait()
    assert code == 0, words
    assert summary["orders"] > 0
    assert summary["ledger_difference"] == 0
    assert summary["decisions"]["market_making"] >= 3
    assert ask(tmp_path, "replay", "last")[1]["equal"]
