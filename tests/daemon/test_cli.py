import asyncio
import json
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog
import typer.main
import yaml

from agents.core.errors import ConfigError, DataError, TradingError
from daemon import cli, control, session
from daemon.errors import Exit, NotRunning, TimedOut, Unsafe, exit_code
from daemon.journal import Journal
from daemon.latch import Latch
from daemon.settings import Settings
from daemon.state_folder import held

ROOT = Path(__file__).parents[2]
COMMANDS = ("trade", "record", "backtest", "exchange", "replay", "status", "learner", "show-config", "config-schema", "halt", "resume", "flatten", "stop")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    structlog.reset_defaults()


def run(capsys, *arguments):
    code = cli.main(list(arguments))
    out, err = capsys.readouterr()
    return code, out, err


def sentence(err):
    """The one line a user reads."""
    assert err.count("\n") == 1, err
    assert err.startswith("quartet: ")
    assert err.endswith(".\n")
    return err


@pytest.fixture
def traded(monkeypatch):
    """What the session was asked for; it answers with a summary."""
    asked = {}

    async def trade(settings, *, duration, show, real_money, reread):
        asked.update(settings=settings, duration=duration, show=show, real_money=real_money, reread=reread)
        return {"session": "s1", "mode": settings.mode, "pnl": {"account": 1.5}}

    monkeypatch.setattr(session, "trade", trade)
    return asked


@contextmanager
def answering(folder, commands):
    """A daemon's control socket, on a loop of its own."""
    started, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve():
        async with control.serve(folder, commands):
            started.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    started.wait(5)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


def test_help_reads_like_a_manual(capsys):
    code, out, err = run(capsys, "--help")
    assert (code, err) == (0, "")
    missing = [part for part in (*COMMANDS, "Exit codes", "QUARTET__SECTION__KEY", "rehearsal exchange") if part not in out]
    assert missing == []
    assert run(capsys)[1] == out  # no command asks for the manual


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_speaks_json(capsys, command):
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert "--json" in out
    options = typer.main.get_command(cli.app).commands[command].params
    assert [option.name for option in options if not (option.help or "").endswith((".", ")"))] == []


def test_help_loads_nothing_heavy():
    script = "import sys; from daemon.cli import main; main(['--help']); print(sorted({m.split('.')[0] for m in sys.modules}), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True)
    loaded = set(json.loads(done.stderr.replace("'", '"')))
    assert not loaded & {"torch", "numpy", "ccxt", "aiohttp", "sqlalchemy", "structlog", "polars"}


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "daemon", "nonsense"], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence(done.stderr) == "quartet: No such command 'nonsense'; see `quartet --help`.\n"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["fly"], "No such command"),
        (["trade", "--fast"], "--fast"),
        (["trade", "--duration", "soon"], "--duration"),
        (["trade", "--duration", "-1"], "--duration"),
        (["trade", "--paper", "--live"], "exclude each other"),
        (["trade", "--symbols", "BTC/EUR"], "capital.quote"),
        (["trade", "--symbols", "BTC"], "BASE/QUOTE"),
        (["trade", "--exchange", "binanse"], "nearest is binance"),
        (["trade", "--speed", "0"], "rehearsal.speed"),
        (["trade", "--data", "/no/such/tape"], "/no/such/tape"),
        (["trade", "--config", "/no/such.yaml"], "/no/such.yaml"),
        (["trade", "--set", "risk.position_cap"], "NAME=VALUE"),
        (["trade", "--set", "risk.positon_cap=1"], "risk.position_cap"),
        (["trade", "--set", "risk.position_cap=7"], "risk.position_cap"),
        (["backtest"], "--data"),
        (["backtest", "--data", "/no/such/tape"], "/no/such/tape"),
        (["backtest", "--data", "/tmp", "--from", "yesterday"], "--from 'yesterday'"),
        (["exchange", "--port", "70000"], "--port"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(capsys, arguments, part):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (Exit.USAGE, "")
    assert part in sentence(err)


def test_a_trade_prints_its_summary_and_nothing_else(capsys, traded, tmp_path):
    code, out, _ = run(capsys, "trade", "--duration", "1.5", "--json", "--state", str(tmp_path / "s"), "--symbols", "ETH/USDT", "--set", "risk.gross=0.5")  # fmt: skip
    assert code == 0
    assert json.loads(out) == {"session": "s1", "mode": "paper", "pnl": {"account": 1.5}}
    settings = traded["settings"]
    assert (traded["duration"], traded["show"]) == (1.5, None)
    assert (settings.mode, settings.state_dir, settings.exchange.symbols, settings.risk.gross) == ("paper", tmp_path / "s", ("ETH/USDT",), 0.5)


def test_a_summary_in_words(capsys, traded):
    assert "pnl.account" in run(capsys, "trade")[1]


def test_flags_stand_above_the_environment(capsys, traded, monkeypatch):
    monkeypatch.setenv("QUARTET__MODE", "live")
    monkeypatch.setenv("QUARTET__REHEARSAL__SPEED", "30")
    run(capsys, "trade", "--paper")
    assert (traded["settings"].mode, traded["settings"].rehearsal.speed) == ("paper", 30)
    run(capsys, "trade", "--speed", "10")
    assert (traded["settings"].mode, traded["settings"].rehearsal.speed) == ("live", 10)


def test_a_real_exchange_is_refused_for_safety(capsys, monkeypatch):
    monkeypatch.setenv("QUARTET__EXCHANGE__API_KEY", "some-key")
    monkeypatch.setenv("QUARTET__EXCHANGE__SECRET", "some-secret")
    code, out, err = run(capsys, "trade", "--live", "--exchange", "binance")
    assert (code, out) == (Exit.UNSAFE, "")
    assert "real" in sentence(err)
    assert "some-" not in err


def test_an_exchange_that_lacks_what_safety_needs_is_refused_by_name_even_where_real_money_is_meant(capsys, monkeypatch):
    monkeypatch.setenv("QUARTET__EXCHANGE__API_KEY", "some-key")
    monkeypatch.setenv("QUARTET__EXCHANGE__SECRET", "some-secret")
    code, out, err = run(capsys, "trade", "--live", "--exchange", "bitfinex", "--yes-trade-real-money")
    assert (code, out) == (Exit.USAGE, "")
    assert "bitfinex lacks" in sentence(err)
    assert "client order id" in err


def test_a_daemon_that_is_still_starting_or_hangs_finds_the_word_that_stops_it_on_disk(capsys, tmp_path, monkeypatch):
    (tmp_path / "journal.sqlite").touch()
    with held(tmp_path):
        code, out, _ = run(capsys, "flatten", "--state", str(tmp_path), "--json")
        assert (code, json.loads(out)["latched"], Latch(tmp_path).read().kind) == (Exit.OK, "flatten", "flatten")
        assert run(capsys, "resume", "--state", str(tmp_path))[0] == Exit.UNSAFE

        def silent(*_: object, **__: object) -> None:
            raise TimedOut("the daemon did not answer")

        monkeypatch.setattr("daemon.control.ask", silent)
        code, _, said = run(capsys, "halt", "--state", str(tmp_path))
        assert (code, Latch(tmp_path).read().kind) == (Exit.TIMED_OUT, "halt")
        assert "latched" in said
        assert run(capsys, "resume", "--state", str(tmp_path))[0] == Exit.TIMED_OUT
        assert Latch(tmp_path).read().kind == "halt"


def test_a_word_without_a_daemon_is_latched_for_the_next_session(capsys, tmp_path):
    state = tmp_path / "state"
    code, _, err = run(capsys, "halt", "--state", str(state))
    assert code == Exit.NOT_RUNNING, "a folder that nobody ever used is a mistyped one"
    assert not state.exists()
    Journal(state, "s", 1, {}).close(0, {})
    for word, kind in (("halt", "halt"), ("flatten", "flatten"), ("resume", "none")):
        code, out, err = run(capsys, word, "--state", str(state), "--reason", "lunch", "--json")
        assert (code, err) == (Exit.OK, "")
        assert json.loads(out)["latched"] == kind
        assert (Latch(state).read().kind, Latch(state).read().reason) == (kind, "lunch")
    code, _, err = run(capsys, "cancel-all", "--state", str(state))
    assert code == Exit.NOT_RUNNING
    assert "--state" in sentence(err)


ERRORS = [
    (ConfigError("set x"), Exit.USAGE),
    (NotRunning("nobody"), Exit.NOT_RUNNING),
    (Unsafe("no"), Exit.UNSAFE),
    (TimedOut("late"), Exit.TIMED_OUT),
    (DataError("hole"), Exit.FAILED),
    (TradingError("other"), Exit.FAILED),
    (ExceptionGroup("tasks", [ValueError("noise"), ExceptionGroup("inner", [Unsafe("no")])]), Exit.UNSAFE),
    (OSError(28, "No space left on device", "/state/journal"), Exit.FAILED),
]


@pytest.mark.parametrize(("error", "code"), ERRORS)
def test_an_error_becomes_its_exit_code_and_a_sentence(capsys, monkeypatch, error, code):
    async def fail(*_, **__):
        raise error

    monkeypatch.setattr(session, "trade", fail)
    got, out, err = run(capsys, "trade", "--json")
    assert (got, out) == (code, "")
    sentence(err)


def test_the_exit_codes_are_what_is_promised():
    assert [code.value for code in (Exit.OK, Exit.FAILED, Exit.USAGE, Exit.NOT_RUNNING, Exit.UNSAFE, Exit.TIMED_OUT)] == [0, 1, 2, 3, 4, 5]
    assert exit_code(TradingError()) is Exit.FAILED


def test_a_fault_of_ours_is_logged_without_local_variables(capsys, monkeypatch):
    async def fail(settings, **_):
        local = "value-of-a-local-variable"  # noqa: F841 - must not be printed
        raise RuntimeError("bug")

    monkeypatch.setattr(session, "trade", fail)
    code, out, err = run(capsys, "trade", "--json")
    assert (code, out) == (Exit.FAILED, "")
    log, last = err.splitlines()
    assert json.loads(log)["event"] == "internal_error"
    assert "RuntimeError: bug" in json.loads(log)["exception"]
    assert "value-of-a-local-variable" not in log
    assert last.startswith("quartet: internal error (RuntimeError: bug)")


def test_a_replay_that_differs_is_a_failure(capsys, monkeypatch):
    from daemon import replay

    for equal, code in ((True, Exit.OK), (False, Exit.FAILED)):
        monkeypatch.setattr(replay, "replay", lambda state, name, equal=equal: {"session": name, "equal": equal, "first_difference": None})
        got, out, _ = run(capsys, "replay", "s7", "--json")
        assert (got, json.loads(out)) == (code, {"session": "s7", "equal": equal, "first_difference": None})


def test_nobody_runs(capsys):
    for command in ("status", "halt", "resume", "flatten", "stop"):
        code, out, err = run(capsys, command, "--state", "nowhere")
        assert (code, out) == (Exit.NOT_RUNNING, "")
        assert "nowhere" in sentence(err)


def test_steering_a_daemon(capsys, tmp_path):
    commands = {
        "status": lambda _: {"session": "s1", "equity": 5.0},
        "halt": lambda request: {"accepted": "halt", "reason": request["reason"]},
    }
    with answering(tmp_path, commands):
        assert json.loads(run(capsys, "halt", "--state", ".", "--reason", "lunch", "--json")[1]) == {"accepted": "halt", "reason": "lunch"}
        assert json.loads(run(capsys, "status", "--state", ".", "--json")[1]) == {"session": "s1", "equity": 5.0}
        assert "s1" in run(capsys, "status", "--state", ".")[1]
        code, _, err = run(capsys, "flatten", "--state", ".")
        assert code == Exit.FAILED
        assert "no command 'flatten'" in sentence(err)


def test_show_config_prints_a_configuration_file(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("QUARTET__EXCHANGE__SECRET", "hush-hush")
    code, out, _ = run(capsys, "show-config", "--set", "risk.gross=0.7")
    assert code == 0
    assert "hush-hush" not in out
    (tmp_path / "config.yaml").write_text(out)
    again = run(capsys, "show-config", "--json")[1]
    assert json.loads(again) == yaml.safe_load(out)
    assert json.loads(again)["risk"]["gross"] == 0.7


def test_config_schema_is_the_published_one(capsys):
    code, out, _ = run(capsys, "config-schema")
    assert (code, out) == (0, (ROOT / "docs" / "config.schema.json").read_text())
    assert json.loads(out)["title"] == Settings.model_config["title"]


def test_version(capsys):
    assert run(capsys, "--version")[1].startswith("quartet")
