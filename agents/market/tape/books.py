"""Recorded book sessions: level changes folded into snapshots of the top, merged with the prints by receive time."""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from agents.core.errors import DataError, Gap
from agents.core.events import BookSnapshot, Event, FeedGap, Stamp, Trade
from agents.core.instruments import NS, Instrument, Side, Symbol
from agents.market.fold import BookFold
from agents.market.tape.common import Cut, Tape, batches, check_wanted, decimal_places, infer_instrument, parse_name, say, scan

DEPTH = 20
QUIET_NS = 5 * NS
"""A diff stream that says nothing for longer has lost messages; live ones pause for 2 s at most."""


def open_books(path: Path, files: list[Path], wanted: tuple[Symbol, ...] | None, cut: Cut) -> Tape:
    sessions: dict[tuple[str, str], dict[Symbol, Path]] = {}
    for file in files:
        if (named := parse_name(file)) is not None:
            sessions.setdefault((named[1].removesuffix("-deltas"), str(file.parent)), {})[named[0]] = file
    if not sessions:
        raise DataError(f"{files[0]}: the name does not tell the symbol; call it like btc_usdt-20240718-deltas.parquet")
    fitting = [s for s in sessions.items() if wanted is None or set(wanted) <= set(s[1])] or list(sessions.items())
    _, found = max(fitting, key=lambda session: (len(session[1]), session[0]))
    symbols = check_wanted(path, sorted(found), wanted)
    instruments, first, last = {}, [], []
    for symbol in symbols:
        frame = scan(found[symbol])
        if missing := {"local_ns", "event_ms", "first_id", "final_id", "is_snapshot", "side", "price", "qty"} - set(
            frame.collect_schema()
        ):
            raise DataError(f"{found[symbol]} lacks the column {sorted(missing)[0]} of a book session")
        trades = scan(_trades_of(found[symbol]))
        prices = decimal_places(pl.concat([frame.select("price"), trades.select("price")]), ["price"])
        instruments[symbol] = infer_instrument(
            symbol, prices, decimal_places(pl.concat([frame.select("qty"), trades.select("qty")]), ["qty"]), found[symbol]
        )
        facts = (_event_ns().min().alias("a"), _event_ns().max().alias("b"), pl.col("is_snapshot").any())
        low, high, rebuildable = frame.select(facts).collect().row(0)
        if not rebuildable:
            raise DataError(f"{found[symbol]} has no snapshot rows, only changes: the book cannot be rebuilt from it")
        first.append(low or 0)
        last.append(high or 0)

    def events() -> Iterator[Event]:
        streams = [_book_stream(found[s], instruments[s], cut) for s in symbols]
        streams += [_print_stream(_trades_of(found[s]), instruments[s], cut) for s in symbols]
        return _stamp(heapq.merge(*streams, key=itemgetter(0)))

    return Tape("book", symbols, instruments, None, max(min(first), cut.start), min(max(last), cut.end), events)


def _trades_of(deltas: Path) -> Path:
    name = deltas.name.replace("-deltas", "-trades")
    twin = Path(*("trades" if part == "book" else part for part in deltas.parent.parts))
    for place in (deltas.parent, twin):
        if (place / name).is_file():
            return place / name
    raise DataError(f"{deltas} has no trades beside it: {name} is missing")


def _event_ns() -> pl.Expr:
    return pl.when(pl.col("event_ms") > 0).then(pl.col("event_ms") * 1_000_000).otherwise(pl.col("local_ns"))


_Row = tuple[int, int, tuple[Any, ...]]
"""(local receive ns, event ns, arguments): (symbol, channel) of a gap, (symbol, bids, asks) or (symbol, id, price, ...)."""


def _stamp(rows: Iterator[_Row]) -> Iterator[Event]:
    at = 0
    for seq, (_, time, body) in enumerate(rows, start=1):
        at = max(at, time)
        stamp = Stamp(at, seq)
        if len(body) == 3:
            yield BookSnapshot(stamp, body[0], time, body[1], body[2])
        elif len(body) == 5:
            yield Trade(stamp, body[0], time, *body[1:])
        else:
            yield FeedGap(stamp, body[0], body[1], "hole in the tape")


def _book_stream(path: Path, instrument: Instrument, cut: Cut) -> Iterator[_Row]:
    """Snapshots of the top after every message, from the REST snapshot on."""
    fold = BookFold(instrument.tick, instrument.lot)
    symbol, known, last = instrument.symbol, 0, 0
    early: list[_Message] | None = []
    for message in _messages(path, instrument):
        time = message.event_ns
        if time >= cut.end:
            return
        if message.snapshot:
            fold.clear()
            fold.apply(*message.changes)
            known = message.final_id
            for kept in early or ():
                if kept.final_id > known:
                    fold.apply(*kept.changes)
                    known = kept.final_id
            early = None
        elif early is not None:
            early.append(message)
            continue
        elif message.final_id > known:
            fold.apply(*message.changes)
            known = message.final_id
        else:
            continue
        hole = fold.crossed or (last and message.local_ns - last > QUIET_NS)
        if hole and time >= cut.start:
            if not cut.allow_gaps:
                raise Gap(f"{path}: a hole in the book between {say(last)} and {say(message.local_ns)} UTC")
            yield message.local_ns, time, (symbol, "book")
        last = message.local_ns
        if time >= cut.start and not fold.crossed:
            yield last, time, (symbol, fold.bids.top(DEPTH), fold.asks.top(DEPTH))


@dataclass(frozen=True, slots=True)
class _Message:
    local_ns: int
    event_ns: int
    final_id: int
    snapshot: bool
    changes: tuple[list[int], list[int], list[int]]
    """sides, ticks, lots."""


def _messages(path: Path, instrument: Instrument) -> Iterator[_Message]:
    """Rows of one receive time together."""
    frame = scan(path).select("local_ns", _event_ns().alias("event_ns"), "final_id", "is_snapshot", "side", "price", "qty")
    rest: pl.DataFrame | None = None
    for batch in batches(frame):
        rows = batch if rest is None else pl.concat([rest, batch])
        local = rows["local_ns"].to_numpy()
        cuts = np.flatnonzero(np.diff(local)) + 1
        if not len(cuts):
            rest = rows
            continue
        rest = rows[int(cuts[-1]) :]
        yield from _split(path, rows[: int(cuts[-1])], [0, *cuts.tolist()], instrument)
    if rest is not None and len(rest):
        yield from _split(path, rest, [0, len(rest)], instrument)


def _split(path: Path, rows: pl.DataFrame, bounds: list[int], instrument: Instrument) -> Iterator[_Message]:
    prices, quantities = rows["price"].to_numpy(), rows["qty"].to_numpy()
    if not (np.isfinite(prices).all() and np.isfinite(quantities).all() and (prices > 0).all() and (quantities >= 0).all()):
        raise DataError(f"{path}: a price or quantity after {say(rows['local_ns'][0])} UTC is negative or not a number")
    ticks = np.rint(prices / float(instrument.tick)).astype(np.int64).tolist()
    lots = np.rint(quantities / float(instrument.lot)).astype(np.int64).tolist()
    sides, locals_ns = rows["side"].to_list(), rows["local_ns"].to_list()
    events_ns, finals, snapshots = rows["event_ns"].to_list(), rows["final_id"].to_list(), rows["is_snapshot"].to_list()
    for a, b in pairwise(bounds):
        yield _Message(locals_ns[a], events_ns[a], finals[b - 1], snapshots[a], (sides[a:b], ticks[a:b], lots[a:b]))


def _print_stream(path: Path, instrument: Instrument, cut: Cut) -> Iterator[_Row]:
    frame = scan(path).select("local_ns", _event_ns().alias("event_ns"), "trade_id", "price", "qty", "is_buyer_maker")
    symbol, tick, lot, last = instrument.symbol, instrument.tick, instrument.lot, 0
    for rows in batches(frame):
        prices, quantities = rows["price"].to_numpy(), rows["qty"].to_numpy()
        if not (np.isfinite(prices).all() and (prices > 0).all() and (quantities > 0).all()):
            raise DataError(f"{path}: a price or quantity after {say(rows['local_ns'][0])} UTC is negative or not a number")
        ticks, lots = (
            np.rint(prices / float(tick)).astype(np.int64).tolist(),
            np.rint(quantities / float(lot)).astype(np.int64).tolist(),
        )
        columns = (rows["local_ns"].to_list(), rows["event_ns"].to_list(), rows["trade_id"].to_list(), ticks, lots)
        for local, time, number, price, count, sold in zip(*columns, rows["is_buyer_maker"].to_list(), strict=True):
            if time >= cut.end:
                return
            if time >= cut.start:
                if last and number > last + 1:
                    if not cut.allow_gaps:
                        raise Gap(f"{path}: trades {last + 1} to {number - 1} before {say(local)} UTC are missing")
                    yield local, time, (symbol, "trades")
                yield local, time, (symbol, str(number), price * tick, count * lot, Side.SELL if sold else Side.BUY)
            last = number
