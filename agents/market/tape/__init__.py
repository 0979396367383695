"""Recorded markets as streams of events: candle files, book sessions, and segments that Quartet wrote.

Files are read in batches, so that a long tape needs little memory. A hole is an error that names the file and the place, or,
with `allow_gaps`, a FeedGap where it is.
"""

from collections.abc import Sequence
from pathlib import Path

from agents.core.errors import DataError
from agents.core.instruments import Symbol
from agents.market.tape.books import open_books
from agents.market.tape.candles import SUFFIXES, open_candles
from agents.market.tape.common import Cut, Tape
from agents.market.tape.segments import open_segments

__all__ = ["Tape", "open_tape"]


def open_tape(
    data: Path | Sequence[Path],
    start: int | None = None,
    end: int | None = None,
    symbols: Sequence[str] | None = None,
    *,
    timeframe: str | None = None,
    allow_gaps: bool = False,
) -> Tape:
    """A file or folder, or several of candles, as a tape, cut to market times [start, end) in ns and to `symbols`.

    In a folder, segments come before book sessions before candles; of several book sessions the one with most symbols, newest
    first, and of candles the timeframe with most symbols. Raises DataError in one sentence that says what is wrong.
    """
    paths = [data] if isinstance(data, Path) else list(data)
    for path in paths:
        if not path.exists():
            raise DataError(f"{path} does not exist: give a parquet, csv, feather or jsonl file, or a folder of them")
    cut = Cut(start or 0, end if end is not None else 1 << 62, allow_gaps)
    if cut.start >= cut.end:
        raise DataError("the tape is asked to end before it starts: exchange --from and --to")
    wanted = tuple(Symbol(s) for s in symbols) if symbols else None
    if len(paths) != 1:
        return open_candles(paths, wanted, timeframe, cut)
    (path,) = paths
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    own = [p for p in files if p.name.endswith((".jsonl", ".jsonl.zst")) and (path.is_file() or p.parent == path)]
    if own:
        return open_segments(own, wanted, cut)
    books = [p for p in files if p.stem.endswith("-deltas") and p.suffix == ".parquet"]
    if books:
        return open_books(path, books, wanted, cut)
    if not any(p.suffix in SUFFIXES for p in files):
        raise DataError(f"{path} holds no tape: looked for *.jsonl, *-deltas.parquet and candles in parquet, csv or feather")
    return open_candles([path], wanted, timeframe, cut)
