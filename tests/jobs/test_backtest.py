"""A backtest: the books agree, equal runs are equal, and what cannot be run is said."""

import json
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load, save

from agents.core.errors import ConfigError, DataError, Gap, ModelError, SpecMismatch
from agents.core.instruments import NS, Currency
from agents.desk.decision import EngineConfig
from agents.jobs.backtest import Backtest, backtest, run_backtest, summary
from agents.jobs.result import RunResult
from agents.jobs.weights import joined, read_weights
from agents.market.frictions import CandleBook, FixedLatency, Frictions
from agents.market.history import FIELDS, CandleHistory
from agents.market.observation import SPEC_HASH
from agents.market.synthetic_candles import random_walk_history
from agents.market.tape.memory import history_tape
from agents.serving.actors import FORMAT
from tests.weights import payload

CONFIG = EngineConfig("test", 0, "USDT", (), hidden_sizes=(8,))
CAPITAL = Decimal(10_000)
FRICTIONS = Frictions(latency=FixedLatency(NS // 20), candles=CandleBook())
HISTORY = random_walk_history(2, 120, 5, volatility=1.5)


def write(folder: Path, history: CandleHistory = HISTORY) -> Path:
    """One parquet file a symbol."""
    for column, symbol in enumerate(history.symbols):
        values = {name: getattr(history, name)[:, column] for name in FIELDS}
        frame = pl.DataFrame({"timestamp": history.times // 1_000_000, **values}).filter(pl.col("close").is_not_nan())
        frame.write_parquet(folder / f"{symbol.replace('/', '_').lower()}-1h.parquet")
    return folder


def run(data: object = HISTORY, **options: object) -> RunResult:
    return run_backtest(CONFIG, data, None, None, CAPITAL, FRICTIONS, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def made() -> RunResult:
    return run()


def test_profits_and_costs_add_up_to_the_account(made: RunResult) -> None:
    assert made.fills > 20
    assert sum(made.pnl_by_agent.values()) == pytest.approx(made.equity[-1] - made.capital, abs=1e-8)
    assert sum(curve for curve in made.pnl_curves.values()) == pytest.approx(made.equity - made.capital, abs=1e-8)
    assert made.ledger_difference == 0
    assert made.attribution_difference < 1e-12
    assert set(made.costs_by_agent) == {"long_term", "short_term", "market_making", "risk"}
    assert 0 < made.risk_by_agent["long_term"] < 2


def test_a_sample_at_every_closing(made: RunResult) -> None:
    assert made.times.tolist() == HISTORY.closings.tolist()
    assert made.marks == pytest.approx(HISTORY.close, abs=1e-9)
    held = (made.exposure * made.equity[:, None]).sum(axis=1)
    assert made.cash + held == pytest.approx(made.equity, abs=1e-6)
    assert (np.diff(made.fees) >= -1e-9).all() and made.fees[-1] > 0
    assert made.drawdown.min() >= 0 and made.drawdown.max() < 0.3


def test_equal_runs_are_equal(made: RunResult) -> None:
    assert run().to_json() == made.to_json()


def test_files_and_history_are_the_same_market(made: RunResult, tmp_path: Path) -> None:
    folder = write(tmp_path)
    files = sorted(folder.iterdir())
    from_folder, from_files = run(folder), run(files)
    assert from_folder.equity.tolist() == from_files.equity.tolist() == made.equity.tolist()
    assert (from_folder.meta["data"], from_files.meta["data"]) == ([str(folder)], [str(file) for file in files])


def test_the_window_and_the_symbols(tmp_path: Path) -> None:
    folder, start, end = write(tmp_path), int(HISTORY.times[40]), int(HISTORY.times[90])
    config = replace(CONFIG, symbols=(str(HISTORY.symbols[1]),))
    cut = run_backtest(config, folder, start, end, CAPITAL, FRICTIONS, warm_up_ns=0)
    same = run_backtest(config, HISTORY, start, end, CAPITAL, FRICTIONS, warm_up_ns=0)
    assert cut.symbols == (HISTORY.symbols[1],)
    assert cut.equity.tolist() == same.equity.tolist()
    assert (cut.times[0], cut.times[-1]) == (HISTORY.closings[40], HISTORY.closings[89])


def test_candles_before_the_window_are_known_and_nobody_acts_on_them(tmp_path: Path) -> None:
    start = int(HISTORY.times[80])
    warm = run_backtest(CONFIG, HISTORY, start, None, CAPITAL, FRICTIONS)
    cold = run_backtest(CONFIG, HISTORY, start, None, CAPITAL, FRICTIONS, warm_up_ns=0)
    assert (warm.meta["warm_up_candles"], cold.meta["warm_up_candles"]) == (160, 0)
    assert warm.times.tolist() == cold.times.tolist() == HISTORY.closings[80:].tolist()
    assert warm.equity.tolist() != cold.equity.tolist()
    assert warm.exposure[0].tolist() == [0.0, 0.0] and warm.meta["decisions"]["long_term"] == 40
    other = random_walk_history(2, 120, 6, volatility=1.5)
    values = [np.concatenate([getattr(other, n)[:70] / other.close[69] * HISTORY.open[70], getattr(HISTORY, n)[70:]]) for n in FIELDS]
    spliced = CandleHistory(HISTORY.symbols, "1h", HISTORY.times, *values)
    assert run_backtest(CONFIG, spliced, start, None, CAPITAL, FRICTIONS, warm_up_ns=0).equity.tolist() == cold.equity.tolist()
    assert run_backtest(CONFIG, write(tmp_path), start, None, CAPITAL, FRICTIONS).equity.tolist() == warm.equity.tolist()


def test_the_answer_of_old_keeps_its_keys(tmp_path: Path) -> None:
    answer = backtest(CONFIG, write(tmp_path, HISTORY.rows(0, 60)), None, None, CAPITAL, FRICTIONS)
    assert {"data", "kind", "symbols", "events", "decisions", "orders", "fills", "fees", "turnover", "equity", "drawdown", "pnl",
            "ledger_difference", "refused_data"} == set(answer)  # fmt: skip
    assert answer["pnl"]["account"] == pytest.approx(sum(answer["pnl"]["agents"].values()))
    assert answer == summary(run(tmp_path))


def test_weights_of_nobody_are_the_priors_and_others_are_not(made: RunResult) -> None:
    body, _ = payload(1)
    assert run(weights=joined({})).equity.tolist() == made.equity.tolist()
    other = run(weights={"long_term": body})
    assert other.equity.tolist() != made.equity.tolist()
    assert other.meta["weights"] != made.meta["weights"] is None


@pytest.mark.parametrize(
    ("weights", "error", "words"),
    [
        (payload(1, spec="other")[0], SpecMismatch, "other"),
        (b"no weights", ModelError, "cannot be read"),
        ({"nobody": payload(1)[0]}, ModelError, "no agent 'nobody'"),
    ],
)
def test_weights_that_cannot_serve_are_refused(weights: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        run(weights=weights)


def test_weights_of_one_agent_leave_the_others_their_priors() -> None:
    tensors = {name: tensor for name, tensor in load(payload(1)[0]).items() if name.startswith("long_term.")}
    alone = save(tensors, {FORMAT: json.dumps({"version": 3, "spec": SPEC_HASH})})
    made = run(HISTORY.rows(0, 60), weights=alone)
    assert made.meta["problems"] == {}
    assert made.equity.tolist() == run(HISTORY.rows(0, 60), weights={"long_term": payload(1)[0]}).equity.tolist()


def test_weights_are_read_from_paths(tmp_path: Path) -> None:
    body, _ = payload(1)
    file = tmp_path / "weights.safetensors"
    file.write_bytes(body)
    assert read_weights([]) is None
    assert read_weights([str(file)]) == read_weights([str(tmp_path)]) == body
    assert read_weights([f"risk={file}", f"long_term={file}"]) == {"risk": body, "long_term": body}
    with pytest.raises(ConfigError, match="AGENT=PATH for each"):
        read_weights([str(file), f"risk={file}"])
    with pytest.raises(ConfigError, match="holds no weights"):
        read_weights([str(tmp_path / "none")])


def test_news_that_is_on_its_way_at_the_end_is_heard() -> None:
    """Fills of the last moment: the exchange has booked them, and nobody has told us yet."""
    slow = replace(FRICTIONS, latency=FixedLatency(NS // 20, 3 * 3600 * NS))
    for bars in range(40, 50):
        made = run_backtest(CONFIG, HISTORY.rows(0, bars), None, None, CAPITAL, slow)
        assert made.ledger_difference == 0
    assert made.fills > 0


def test_books_that_do_not_agree_are_no_result() -> None:
    tape = history_tape(HISTORY.rows(0, 60))
    config = replace(CONFIG, symbols=tuple(tape.symbols), candles_only=True)
    broken = Backtest(config, list(tape.instruments.values()), CAPITAL, FRICTIONS, sample_ns=1)
    broken.run(tape.events())
    broken.exchange.account.deposit(Currency("USDT"), Decimal(1))
    with pytest.raises(DataError, match="do not agree"):
        broken.result({})


def test_an_attribution_that_does_not_add_up_is_no_result() -> None:
    tape = history_tape(HISTORY.rows(0, 60))
    config = replace(CONFIG, symbols=tuple(tape.symbols), candles_only=True)
    broken = Backtest(config, list(tape.instruments.values()), CAPITAL, FRICTIONS, sample_ns=1)
    broken.run(tape.events())
    broken.engine.attribution._line("risk", tape.symbols[0]).cash += Decimal(1)
    with pytest.raises(DataError, match="attribution 1"):
        broken.result({})


def test_ten_candles_are_too_few(tmp_path: Path) -> None:
    closes = HISTORY.close.copy()
    closes[:-10, 1] = np.nan
    there = ~np.isnan(closes)
    values = [np.where(there, getattr(HISTORY, name), np.nan) for name in FIELDS]
    young = CandleHistory(HISTORY.symbols, "1h", HISTORY.times, *values)
    with pytest.raises(DataError, match=rf"10 candles of {HISTORY.symbols[1]} .* needs 30: .*--symbols"):
        run(young)
    with pytest.raises(DataError, match="10 candles of"):
        run(write(tmp_path, young))


def test_a_hole_is_refused_or_gone_over(tmp_path: Path, made: RunResult) -> None:
    values = [getattr(HISTORY, name).copy() for name in FIELDS]
    for array in values:
        array[70:73] = np.nan
    holed = CandleHistory(HISTORY.symbols, "1h", HISTORY.times, *values)
    folder = write(tmp_path, holed)
    with pytest.raises(Gap, match="row 71"):
        run(folder)
    gone = run(folder, allow_gaps=True)
    assert gone.equity.tolist() == run(holed).equity.tolist() != made.equity.tolist()
    assert len(gone.times) == len(HISTORY.times) - 3


def test_progress_rises_to_one() -> None:
    told: list[float] = []
    run(HISTORY.rows(0, 40), progress=told.append)
    assert told == sorted(set(told)) and told[-1] == 1.0 and len(told) > 30


def test_resampled_is_the_last_of_each_day(made: RunResult) -> None:
    days = made.resample(86_400 * NS)
    last = [int(np.flatnonzero(made.times // (86_400 * NS) == day)[-1]) for day in np.unique(made.times // (86_400 * NS))]
    assert days.times.tolist() == made.times[last].tolist()
    assert days.equity.tolist() == made.equity[last].tolist()
    assert days.exposure.tolist() == made.exposure[last].tolist()
    assert days.returns() == pytest.approx(made.equity[last][1:] / made.equity[last][:-1] - 1)
