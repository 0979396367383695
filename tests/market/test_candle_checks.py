"""What is wrong with a candle file is said with the file, the row and the mend."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.errors import DataError, Gap
from agents.core.events import Bar, FeedGap
from agents.core.instruments import NS
from agents.market.history import CandleHistory, load_history
from agents.market.synthetic_candles import random_walk_history
from agents.market.tape import open_tape
from agents.market.tape.checks import FIELDS, check_candles, check_times
from agents.market.tape.memory import history_tape

HOUR = 3600 * NS
T0 = 1_700_000_000 * NS // HOUR * HOUR


def table(count: int = 60, step: int = HOUR) -> pl.DataFrame:
    rng = np.random.default_rng(1)
    close = 100.0 * np.exp(0.01 * rng.standard_normal(count).cumsum())
    opened = np.concatenate([[100.0], close[:-1]])
    times = (T0 + step * np.arange(count)) // 1_000_000
    return pl.DataFrame(
        {"timestamp": times, "open": opened, "high": np.maximum(opened, close) * 1.001, "low": np.minimum(opened, close) * 0.999,
         "close": close, "volume": np.full(count, 3.5)}
    )  # fmt: skip


def at(row: int, column: str, value: object) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """One cell changed; rows count from 1."""
    here = pl.int_range(1, pl.len() + 1) == row
    return lambda frame: frame.with_columns(pl.when(here).then(pl.lit(value)).otherwise(pl.col(column)).alias(column))


WRONG = [
    (at(7, "close", float("nan")), "row 7: .*missing or not finite.*mend the row"),
    (at(7, "volume", float("nan")), "row 7: .*missing or not finite"),
    (at(7, "volume", None), "row 7: .*missing or not finite"),
    (at(7, "open", float("inf")), "row 7: .*missing or not finite"),
    (at(7, "low", 0.0), "row 7: .*not above zero"),
    (at(7, "open", -5.0), "row 7: .*not above zero"),
    (at(7, "volume", -1.0), "row 7: .*volume is negative"),
    (at(7, "high", 1.0), "row 7: .*high is below the low"),
    (at(1, "open", 1_000.0), "row 1: .*high is below open or close"),
    (at(7, "timestamp", None), "row 7: .*has no time"),
    (lambda f: pl.concat([f[:10], f[9:]]), "row 11: .*repeats itself; drop duplicate"),
    (lambda f: pl.concat([f[:10], f[20:30], f[10:20]]), "row 21: .*steps back to .*; sort"),
    (lambda f: f[::-1], "row 2: .*steps back"),
    (lambda f: pl.concat([f[:10], f[12:]]), "row 11: no BTC/USDT 1h candles from .*--allow-gaps"),
    (at(20, "timestamp", (T0 + 19 * HOUR) // 1_000_000 + 1), "row 20: .*does not open on the 1h grid"),
    (lambda f: f.with_columns(pl.col("timestamp") // 86_400_000), "row 1: .*no known unit"),
    (lambda f: pl.concat([f[:10], f[10:].with_columns(pl.col("timestamp") // 1000)]), "row 11: .*no known unit"),
    (lambda f: pl.concat([f[:10].with_columns(pl.col("timestamp") // 1000), f[10:]]), "row 11: .*no known unit"),
    (lambda f: pl.concat([f[:30], f[30:].with_columns(pl.col("open", "high", "low", "close") * 100)]), "row 31: .*another unit.*convert"),
    (lambda f: pl.concat([f[:30], f[30:].with_columns(pl.col("open", "high", "low", "close") / 100)]), "row 31: .*another unit.*convert"),
    (lambda f: table(60, 60 * NS), "are 1m apart, and not 1h; rename it like btc_usdt-1m"),
    (at(7, "close", "many"), "row 7: .*missing or not finite"),
    (lambda f: f.with_columns(pl.lit(True).alias("close")), "column close is of type Boolean"),
    (lambda f: f.with_columns((pl.col("timestamp") > 0).alias("timestamp")), "column timestamp is of type Boolean"),
    (lambda f: f.with_columns(pl.lit("soon").alias("timestamp")), "row 1: .*has no time"),
]  # fmt: skip

CSV_WORDS = {"column close is of type Boolean": "column close|row 1: .*missing or not finite", "column timestamp is of type Boolean": "column timestamp|row 1: .*has no time"}
"""A file of text knows no such column: it holds words that are no numbers."""


@pytest.mark.parametrize(("change", "words"), WRONG, ids=[words[:34] for _, words in WRONG])
@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_a_wrong_file_is_said_with_row_and_mend(
    tmp_path: Path, change: Callable[[pl.DataFrame], pl.DataFrame], words: str, suffix: str
) -> None:
    try:
        frame = change(table())
    except (pl.exceptions.PolarsError, TypeError):
        frame = change(table().cast(pl.String))  # a text among numbers: a column of text
    path = tmp_path / f"btc_usdt-1h.{suffix}"
    getattr(frame, {"csv": "write_csv", "parquet": "write_parquet"}[suffix])(path)
    for read in (lambda: list(open_tape(path).events()), lambda: load_history([path])):
        with pytest.raises(DataError) as caught:
            read()
        said = str(caught.value)
        assert str(path) in said
        assert re.search(CSV_WORDS.get(words, words) if suffix == "csv" else words, said), said


def test_a_panel_counts_rows_of_the_file(tmp_path: Path) -> None:
    one, two = (table().with_columns(symbol=pl.lit(name)) for name in ("BTC/USDT", "ETH/USDT"))
    pl.concat([one, at(5, "low", -1.0)(two)]).write_parquet(tmp_path / "some-1h-panel.parquet")
    with pytest.raises(DataError, match="row 65: the ETH/USDT candle"):
        list(open_tape(tmp_path / "some-1h-panel.parquet").events())


def test_rows_count_in_the_file_and_not_in_the_window(tmp_path: Path) -> None:
    at(40, "low", -1.0)(table()).write_parquet(tmp_path / "btc_usdt-1h.parquet")
    with pytest.raises(DataError, match="row 40:"):
        list(open_tape(tmp_path / "btc_usdt-1h.parquet", T0 + 30 * HOUR).events())
    assert len(list(open_tape(tmp_path / "btc_usdt-1h.parquet", T0 + 40 * HOUR).events())) == 20


def test_several_paths_are_one_tape(tmp_path: Path) -> None:
    paths = [tmp_path / f"{coin}_usdt-1h.parquet" for coin in ("btc", "eth")]
    for path in paths:
        table().write_parquet(path)
    assert open_tape(paths).symbols == ("BTC/USDT", "ETH/USDT")
    assert list(open_tape(paths).events()) == list(open_tape(tmp_path).events())
    (tmp_path / "more").mkdir()
    table().write_parquet(tmp_path / "more" / "btc_usdt-1h.parquet")
    with pytest.raises(DataError, match=r"stands in .* and in .*: give one of them"):
        open_tape([*paths, tmp_path / "more"])
    table(60, 60 * NS).write_parquet(tmp_path / "more" / "sol_usdt-1m.parquet")
    with pytest.raises(DataError, match="several timeframes"):
        open_tape([*paths, tmp_path / "more" / "sol_usdt-1m.parquet"])
    with pytest.raises(DataError, match="nowhere does not exist"):
        open_tape([*paths, tmp_path / "nowhere"])


def test_a_jump_over_two_batches_is_seen() -> None:
    """The close before the first row of a batch is remembered."""
    frame = table(2).with_row_index("row", offset=1).with_columns(time=pl.col("timestamp") * 1_000_000)
    path = Path("f.parquet")
    assert check_candles(path, "BTC/USDT", frame) == frame["close"][-1]  # type: ignore[arg-type]
    with pytest.raises(DataError, match="row 1: BTC/USDT closes at 1 and opens at 100"):
        check_candles(path, "BTC/USDT", frame, before=1.0)  # type: ignore[arg-type]


def test_a_jump_between_two_batches_of_a_file_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.market.tape.common.BATCH", 10)
    frame = table()
    pl.concat([frame[:20], frame[20:].with_columns(pl.col("open", "high", "low", "close") * 100)]).write_parquet(tmp_path / "btc_usdt-1h.parquet")
    with pytest.raises(DataError, match=r"row 21: .*another unit"):
        list(open_tape(tmp_path / "btc_usdt-1h.parquet").events())


@given(st.lists(st.sampled_from(["keep", "drop", "twice", "swap", "late"]), min_size=3, max_size=30))
def test_only_a_clean_clock_passes(deeds: list[str]) -> None:
    """Whatever is done to the rows: a clock that passes is rising, on the grid and without a hole."""
    times: list[int] = []
    for number, deed in enumerate(deeds):
        time = T0 + number * HOUR
        times += {"keep": [time], "drop": [], "twice": [time, time], "swap": [time + HOUR, time], "late": [time + 1]}[deed]
    clock = np.array(times, dtype=np.int64)
    clean = len(clock) == 0 or bool((np.diff(clock) == HOUR).all() and (clock % HOUR == 0).all())
    caught = _refusal(clock)
    assert clean == (caught is None)
    holes_only = bool((np.diff(clock) > 0).all() and (clock % HOUR == 0).all())
    assert caught is None or isinstance(caught, Gap) == (holes_only and "apart" not in str(caught))


def _refusal(clock: np.ndarray) -> DataError | None:
    try:
        check_times(Path("f"), "BTC/USDT", "1h", clock, np.arange(1, len(clock) + 1), allow_gaps=False)  # type: ignore[arg-type]
    except DataError as error:
        return error
    return None


def test_a_history_is_the_tape_of_its_files(tmp_path: Path) -> None:
    history = random_walk_history(2, 50, 3)
    for column, symbol in enumerate(history.symbols):
        values = {name: getattr(history, name)[:, column] for name in FIELDS}
        frame = pl.DataFrame({"timestamp": history.times // 1_000_000, **values})
        frame.write_parquet(tmp_path / f"{symbol.replace('/', '_').lower()}-1h.parquet")
    made, read = history_tape(history), open_tape(tmp_path)
    assert list(made.events()) == list(read.events())
    assert sum(isinstance(event, Bar) for event in made.events()) == 100
    assert (made.instruments, made.counts, made.start, made.end) == (read.instruments, read.counts, read.start, read.end)


def test_a_hole_in_a_history_is_told_like_one_in_a_file(tmp_path: Path) -> None:
    history = random_walk_history(1, 50, 3)
    values = [getattr(history, name).copy() for name in FIELDS]
    for array in values:
        array[20:24] = np.nan
    holed = CandleHistory(history.symbols, "1h", history.times, *values)
    frame = pl.DataFrame({"timestamp": history.times // 1_000_000, **dict(zip(FIELDS, (v[:, 0] for v in values), strict=True))})
    frame.filter(pl.col("close").is_not_nan()).write_parquet(tmp_path / "s000_usdt-1h.parquet")
    made, read = list(history_tape(holed).events()), list(open_tape(tmp_path, allow_gaps=True).events())
    gaps = [(number, event.stamp) for number, event in enumerate(made) if isinstance(event, FeedGap)]
    assert gaps == [(number, event.stamp) for number, event in enumerate(read) if isinstance(event, FeedGap)]
    assert [number for number, _ in gaps] == [20] and len(made) == len(read) == 47
