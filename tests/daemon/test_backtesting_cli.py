"""`quartet backtest` as a user meets it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import structlog

from agents.core.instruments import NS
from agents.jobs.report import LABELS
from agents.market.synthetic_candles import random_walk_history
from agents.market.tape.checks import FIELDS
from daemon import cli
from daemon.cli.backtesting import moment, progress_bar
from daemon.errors import Exit

HISTORY = random_walk_history(["BTC/USDT", "ETH/USDT"], 60, 2, volatility=1.0)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("candles")
    for column, symbol in enumerate(HISTORY.symbols):
        values = {name: getattr(HISTORY, name)[:, column] for name in FIELDS}
        frame = pl.DataFrame({"timestamp": HISTORY.times // 1_000_000, **values})
        frame.write_parquet(folder / f"{symbol.replace('/', '_').lower()}-1h.parquet")
    return folder


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = cli.main([str(word) for word in ("backtest", *words)])
    out, err = capsys.readouterr()
    return code, out, err


def test_json_has_the_old_keys_and_the_new(capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path) -> None:
    code, out, _ = run(capsys, "--data", data, "--json", "--report", tmp_path / "r")
    answer = json.loads(out)
    assert code == 0
    assert {"data", "kind", "symbols", "events", "decisions", "orders", "fills", "fees", "turnover", "equity", "drawdown", "pnl",
            "ledger_difference", "refused_data", "statistics", "by_symbol", "by_agent", "report"} == set(answer)  # fmt: skip
    assert (answer["kind"], answer["symbols"]) == ("candles", ["BTC/USDT", "ETH/USDT"])
    assert answer["statistics"]["equity"] == pytest.approx(answer["equity"])
    assert sum(row["profit"] for row in answer["by_agent"]) == pytest.approx(answer["pnl"]["account"])
    said = json.loads((tmp_path / "r" / "report.json").read_text())
    assert said["statistics"] == answer["statistics"]
    assert said["meta"]["config"]["symbols"] == ["BTC/USDT", "ETH/USDT"]
    assert (tmp_path / "r" / "report.html").read_text().startswith("<!doctype html>")


def test_words_that_people_know(capsys: pytest.CaptureFixture[str], data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    start = str(np.datetime64(int(HISTORY.times[20]), "ns").astype("datetime64[s]"))
    code, out, err = run(capsys, "--data", data / "btc_usdt-1h.parquet", "--from", start)
    assert (code, err) == (0, "")
    for name in ("sharpe", "sortino", "cagr", "max_drawdown", "profit_factor", "trades", "win_rate", "fees", "exposure", "profit"):
        assert LABELS[name] in out
    assert "BTC/USDT" in out and "ETH/USDT" not in out and "long_term" in out
    assert "written:" not in out


def test_settings_reach_the_run(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    free = json.loads(run(capsys, "--data", data, "--json", "--set", "paper.taker_fee_bps=0", "--set", "paper.maker_fee_bps=0")[1])
    dear = json.loads(run(capsys, "--data", data, "--json", "--set", "paper.taker_fee_bps=50", "--set", "paper.maker_fee_bps=50")[1])
    assert free["fees"] == 0 < dear["fees"]


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (["--data", "{data}", "--data", "/no/such"], Exit.USAGE, "--data: there is no file or folder /no/such"),
        (["--data", "{data}", "--from", "soon"], Exit.USAGE, "--from 'soon'"),
        (["--data", "{data}", "--symbols", "SOL/USDT"], Exit.FAILED, "holds no SOL/USDT"),
        (["--data", "{data}", "--from", "2031-01-01"], Exit.FAILED, "widen --from and --to"),
        (["--data", "{data}", "--to", "2020-01-01T12:00"], Exit.FAILED, "12 candles of BTC/USDT"),
        (["--data", "{data}", "--weights", "nothing"], Exit.USAGE, "nothing holds no weights"),
        (["--data", "{data}", "--mark-outs"], Exit.FAILED, "mark-outs need books"),
        (["--data", "{data}", "--mark-outs", "--report", "r"], Exit.USAGE, "--report belongs to a run"),
    ],
)
def test_mistakes_end_in_one_sentence(capsys: pytest.CaptureFixture[str], data: Path, words: list[str], code: int, part: str) -> None:
    got, out, err = run(capsys, *(word.format(data=data) for word in words))
    assert (got, out, err.count("\n")) == (code, "", 1)
    assert part in err


def test_mark_outs_are_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tests.jobs.test_books import _session

    monkeypatch.setenv("COLUMNS", "220")
    code, out, _ = run(capsys, "--data", _session(tmp_path / "tape", 20), "--mark-outs")
    assert code == 0
    assert "glft_free" in out and "pro_rata" in out and "no profit" in out


def test_the_bar_is_drawn_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with progress_bar(True) as advance:
        assert advance is None
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with progress_bar(True) as advance:
        assert advance is not None
        advance(0.5)
    with progress_bar(False) as advance:
        assert advance is None


def test_moments() -> None:
    assert moment("--from", None) is None
    assert moment("--from", "1970-01-02") == 86_400 * NS
    assert moment("--to", "1970-01-01T01:00+01:00") == 0
