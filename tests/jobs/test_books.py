"""Mark-outs on books: the arithmetic by hand, and the order that the queue models must have."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.core.codec import encode
from agents.core.errors import DataError
from agents.core.events import BookSnapshot, Fill, Listing, Stamp
from agents.core.instruments import NS, Currency, Instrument, Side, Symbol
from agents.core.orders import OrderId, Place
from agents.desk.decision import EngineConfig
from agents.jobs.books import CAUTION, CLUSTER_NS, QUEUES, _row, _Seen, error, mark_outs, mean, mid_at
from agents.market.frictions import FixedLatency, Frictions
from agents.market.synthetic import SyntheticMarket
from agents.market.tape import open_tape

D = Decimal
BTC = Symbol("BTC/USDT")
T0 = 1_700_000_000 * NS
CONFIG = EngineConfig("test", 0, "USDT", (), hidden_sizes=(8,))


def test_mids_are_the_last_known_and_nothing_is_known_outside() -> None:
    times, mids = np.array([10, 20, 30]), np.array([1.0, 2.0, 3.0])
    found = mid_at(times, mids, np.array([9, 10, 19, 20, 30, 31]))
    assert found.tolist()[1:5] == [1.0, 1.0, 2.0, 3.0]
    assert np.isnan(found[[0, 5]]).all()


def test_means_and_errors() -> None:
    values, weights = np.array([1.0, 3.0, np.nan]), np.array([1.0, 3.0, 100.0])
    assert mean(values, weights) == 2.5
    assert mean(values[2:], weights[2:]) is None
    spread = np.array([1.0, -1.0] * 50)
    alone = error(spread, np.ones(100), CLUSTER_NS * np.arange(100))
    assert alone == pytest.approx(np.sqrt(1 / 99), rel=1e-9)
    near = np.repeat(CLUSTER_NS * np.arange(100), 10) + np.tile(np.arange(10) * CLUSTER_NS // 20, 100)
    same = error(np.repeat(spread, 10), np.ones(1000), near)
    assert same == pytest.approx(alone)  # ten fills within seconds are one observation
    assert error(np.array([1.0, 2.0]), np.ones(2), np.array([0, CLUSTER_NS])) is None


def _session(folder: Path, seconds: int = 90) -> Path:
    """A synthetic market as a recorded tape."""
    market = SyntheticMarket([BTC], 3, T0)
    events = [Listing(Stamp(T0), each) for each in market.instruments.values()]
    events += [event for step in range(1, seconds * 5 + 1) for event in market.step(T0 + step * NS // 5)]  # type: ignore[misc]
    folder.mkdir(exist_ok=True)
    (folder / "000000000001.jsonl").write_text("".join(json.dumps(encode(event)) + "\n" for event in events))
    return folder


def test_one_fill_by_hand(tmp_path: Path) -> None:
    """A bid at 99.9 is filled at mid 100; the mid is 99.8 a second later, 99.5 after five, unknown after thirty."""
    listing = Instrument(BTC, Currency("BTC"), Currency("USDT"), D("0.1"), D("0.001"))
    path = tmp_path / "1.jsonl"
    books = [(0, "100"), (1, "99.8"), (5, "99.5"), (20, "99.4")]
    events = [Listing(Stamp(T0), listing)]
    for second, mid in books:
        time = T0 + second * NS
        events.append(BookSnapshot(Stamp(time), BTC, time, ((D(mid) - D("0.1"), D(1)),), ((D(mid) + D("0.1"), D(1)),)))  # type: ignore[arg-type]
    path.write_text("".join(json.dumps(encode(event)) + "\n" for event in events))
    seen = _Seen(quotes={OrderId("a"): Place(OrderId("a"), BTC, Side.BUY, D(1), D("99.9"), post_only=True),
                         OrderId("b"): Place(OrderId("b"), BTC, Side.SELL, D(1), D("101"), post_only=True)})  # fmt: skip
    assert len(list(seen.watch(open_tape(path).events()))) == 5
    fill = Fill(Stamp(T0), BTC, T0 + NS // 2, OrderId("a"), "1", Side.BUY, D("99.9"), D(1), D("0.00999"), Currency("USDT"), True)
    seen.fills.append(fill)
    row = _row("s", open_tape(path), BTC, "touch", "back", seen)
    assert (row.quotes, row.filled_quotes, row.fills, row.fill_rate) == (2, 1, 1, 0.5)
    assert row.captured == pytest.approx(1e4 * 0.1 / 99.9)
    assert row.fee == pytest.approx(1.0)
    assert row.markout["1s"] == pytest.approx(1e4 * (99.8 - 99.9) / 99.9)
    assert row.markout["5s"] == pytest.approx(1e4 * (99.5 - 99.9) / 99.9)
    assert row.markout["30s"] is None and row.error["1s"] is None
    assert row.adverse["5s"] == pytest.approx(row.captured - row.markout["5s"])  # type: ignore[operator]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = _session(tmp_path_factory.mktemp("tape"))
    return mark_outs(CONFIG, [folder], D(10_000), Frictions(latency=FixedLatency(NS // 20, NS // 20)))


def test_every_quoter_under_every_queue_with_the_sentence(told: dict[str, Any]) -> None:
    assert told["caution"] == CAUTION and "no profit" in CAUTION
    pairs = [(row["quoter"], row["queue"]) for row in told["rows"]]
    assert sorted(pairs) == sorted((quoter, queue) for quoter in ("touch", "glft", "glft_free") for queue in QUEUES)
    assert json.loads(json.dumps(told)) == told


def test_hope_fills_more_than_fear(told: dict[str, Any]) -> None:
    touch = {row["queue"]: row for row in told["rows"] if row["quoter"] == "touch"}
    assert touch["back"]["fills"] <= touch["pro_rata"]["fills"] < touch["front"]["fills"]
    assert all(row["captured"] > 0 for row in touch.values())
    assert all(row["quotes"] >= row["filled_quotes"] for row in told["rows"])
    free = next(row for row in told["rows"] if row["quoter"] == "glft_free" and row["queue"] == "front")
    assert free["quotes"] > 0 and free["fee"] in (None, 0.0)


def test_each_quoter_meets_its_own_fee_weights_and_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    met: list[tuple[Decimal, bytes | None, str]] = []

    def engine(config: EngineConfig, tape: Any, listed: list[Instrument], capital: Decimal, frictions: Frictions, weights: bytes | None) -> _Seen:
        met.append((listed[0].maker_fee, weights, type(frictions.queue).__name__))
        return _Seen()

    monkeypatch.setattr("agents.jobs.books._engine", engine)
    said = mark_outs(CONFIG, [_session(tmp_path, 2)], D(10_000), Frictions(), weights=b"w")
    assert met[:3] == [(D("0.001"), None, "BackQueue"), (D(0), None, "BackQueue"), (D("0.001"), b"w", "BackQueue")]
    assert [queue for *_, queue in met[::3]] == ["BackQueue", "ProRataQueue", "FrontQueue"]
    assert [row["quoter"] for row in said["rows"][:4]] == ["touch", "glft", "glft_free", "trained"]


def test_candles_have_no_book(tmp_path: Path) -> None:
    from tests.jobs.test_backtest import write

    with pytest.raises(DataError, match="mark-outs need books"):
        mark_outs(CONFIG, [write(tmp_path)], D(10_000), Frictions())
