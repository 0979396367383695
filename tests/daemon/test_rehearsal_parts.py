"""The rehearsal exchange's parts without a network: parameters, signatures, budgets, filters, depth diffs, candles."""

import hashlib
import hmac
from contextlib import nullcontext
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.events import UNSTAMPED, BookSnapshot
from agents.core.instruments import Currency, Instrument, Side, Symbol
from daemon.rehearsal.candles import CandleSeries
from daemon.rehearsal.connection import frame
from daemon.rehearsal.depth import Depth
from daemon.rehearsal.errors import ApiError
from daemon.rehearsal.filters import MAX_OPEN_ORDERS, Market
from daemon.rehearsal.limits import Budget
from daemon.rehearsal.protocol import Access, Params, parse_query, signed_payload, text8, without_signature

KEY, SECRET, NOW_MS = "k" * 64, "s" * 64, 1_700_000_000_000
BTC = Instrument(
    Symbol("BTC/USDT"),
    Currency("BTC"),
    Currency("USDT"),
    tick=Decimal("0.01"),
    lot=Decimal("0.00001"),
    min_notional=Decimal(5),
)


# -- protocol ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [(Decimal("0.1"), "0.10000000"), (Decimal("1E+3"), "1000.00000000"), (0.00001, "0.00001000"), (0, "0.00000000")],
)
def test_numbers_have_eight_decimals(value: Decimal | float, text: str) -> None:
    assert text8(value) == text


@pytest.mark.parametrize(
    ("value", "code"), [("", -1105), ("abc", -1100), ("-1", -1100), ("1e5", -1100), ("0.000000001", -1111), ("NaN", -1100)]
)
def test_bad_decimals_are_refused(value: str, code: int) -> None:
    with pytest.raises(ApiError) as refusal:
        Params({"price": value}).decimal("price")
    assert refusal.value.code == code


def test_trailing_zeros_are_no_precision() -> None:
    assert Params({"price": "1.5000000000"}).decimal("price") == Decimal("1.5")


def test_a_name_sent_twice_is_refused() -> None:
    with pytest.raises(ApiError) as refusal:
        parse_query("symbol=A&symbol=B")
    assert refusal.value.code == -1101


@pytest.mark.parametrize("raw", ["a=1&signature=xyz&b=2", "signature=xyz&a=1&b=2", "a=1&b=2&signature=xyz"])
def test_signature_is_cut_out_wherever_it_stands(raw: str) -> None:
    assert without_signature(raw) == "a=1&b=2"


def test_websocket_requests_are_signed_in_order_of_names() -> None:
    assert signed_payload({"b": 2, "a": True, "signature": "x", "c": "t"}) == "a=true&b=2&c=t"


def signed(payload: str, key: str | None = KEY, secret: str = SECRET, **more: str) -> None:
    signature = hmac.new(secret.encode(), payload.encode(), hashlib.sha256).hexdigest()
    params = Params({**parse_query(payload), "signature": signature, **more})
    Access(KEY, SECRET, lambda: NOW_MS).check_signed(key, payload, params)


@pytest.mark.parametrize("offset", [0, -4999, -5000, 999])
def test_timely_signed_requests_pass(offset: int) -> None:
    signed(f"timestamp={NOW_MS + offset}")


@pytest.mark.parametrize(
    ("payload", "more", "code"),
    [
        (f"timestamp={NOW_MS - 5001}", {}, -1021),
        (f"timestamp={NOW_MS + 1000}", {}, -1021),
        (f"timestamp={NOW_MS - 200}&recvWindow=100", {}, -1021),
        (f"timestamp={NOW_MS}&recvWindow=60001", {}, -1131),
        ("symbol=BTCUSDT", {}, -1102),
        (f"timestamp={NOW_MS}", {"signature": "0" * 64}, -1022),
        (f"timestamp={NOW_MS}", {"signature": ""}, -1102),
    ],
)
def test_untimely_or_wrongly_signed_requests_are_refused(payload: str, more: dict[str, str], code: int) -> None:
    with pytest.raises(ApiError) as refusal:
        signed(payload, **more)
    assert refusal.value.code == code


@pytest.mark.parametrize(("key", "code"), [(None, -2014), ("short", -2014), ("x" * 64, -2015)])
def test_unknown_keys_are_refused(key: str | None, code: int) -> None:
    with pytest.raises(ApiError) as refusal:
        signed(f"timestamp={NOW_MS}", key=key)
    assert (refusal.value.code, refusal.value.status) == (code, 401)


@given(st.integers(0, 70_000))
def test_frames_carry_their_length(size: int) -> None:
    made = frame(b"x" * size)
    header = 2 if size < 126 else 4 if size < 65_536 else 10
    assert made[0] == 0x81 and len(made) == header + size
    assert size == (made[1] if header == 2 else int.from_bytes(made[2:header], "big"))


def test_weight_budget_starts_again_with_the_minute() -> None:
    now = [NOW_MS - NOW_MS % 60_000 + 45_000]
    budget = Budget(100, 2, lambda: now[0])
    budget.spend(100)
    assert budget.headers()["X-MBX-USED-WEIGHT-1M"] == "100"
    with pytest.raises(ApiError) as refusal:
        budget.spend(1)
    assert (refusal.value.code, refusal.value.status, refusal.value.headers["Retry-After"]) == (-1003, 429, "15")
    now[0] += 15_000
    budget.spend(1)
    assert budget.headers()["X-MBX-USED-WEIGHT-1M"] == "1"


def test_orders_have_a_budget_too() -> None:
    budget = Budget(100, 2, lambda: NOW_MS)
    budget.spend_order()
    budget.spend_order()
    with pytest.raises(ApiError) as refusal:
        budget.spend_order()
    assert (refusal.value.code, refusal.value.status) == (-1015, 429)


# -- filters -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quantity", "price", "open_orders", "fails"),
    [
        ("0.05", "100.00", 0, None),
        ("0.05", "100.005", 0, "PRICE_FILTER"),
        ("0.05", "500.01", 0, "PERCENT_PRICE_BY_SIDE"),
        ("1", "19.99", 0, "PERCENT_PRICE_BY_SIDE"),
        ("0.0500001", "100", 0, "LOT_SIZE"),
        ("0", "100", 0, "LOT_SIZE"),
        ("0.04999", "100", 0, "NOTIONAL"),
        ("0.04999", None, 0, "NOTIONAL"),
        ("0.05", None, 0, None),
        ("0.05", "100", MAX_OPEN_ORDERS, "MAX_NUM_ORDERS"),
        ("0.05", None, MAX_OPEN_ORDERS, None),
    ],
)
def test_filters(quantity: str, price: str | None, open_orders: int, fails: str | None) -> None:
    limit = None if price is None else Decimal(price)
    expected = nullcontext() if fails is None else pytest.raises(ApiError, match=f"-1013 Filter failure: {fails}")
    with expected:
        Market("BTCUSDT", BTC).check(Side.BUY, Decimal(quantity), limit, Decimal(100), open_orders)


# -- depth -------------------------------------------------------------------------------------------------------------

sides = st.dictionaries(st.integers(1, 12), st.integers(1, 5), max_size=6)


def snapshot(bids: dict[int, int], asks: dict[int, int]) -> BookSnapshot:
    return BookSnapshot(
        UNSTAMPED,
        Symbol("BTC/USDT"),
        0,
        tuple((Decimal(p), Decimal(q)) for p, q in sorted(bids.items(), reverse=True)),
        tuple((Decimal(p + 20), Decimal(q)) for p, q in sorted(asks.items())),
    )


@given(st.lists(st.tuples(sides, sides, st.booleans()), max_size=12))
def test_diffs_rebuild_the_book_and_their_ids_never_break(steps: list[tuple[dict[int, int], dict[int, int], bool]]) -> None:
    depth, last_id = Depth(), Depth().update_id
    mirror: dict[str, dict[Decimal, Decimal]] = {"bids": {}, "asks": {}}
    for bids, asks, drain in [*steps, ({}, {}, True)]:
        depth.apply(snapshot(bids, asks))
        if not drain:
            continue
        if (change := depth.drain()) is not None:
            assert change.first_id == last_id + 1 and change.final_id >= change.first_id
            last_id = change.final_id
            for name, levels in (("bids", change.bids), ("asks", change.asks)):
                for price, quantity in levels:
                    mirror[name][price] = quantity
                    if not quantity:
                        del mirror[name][price]
        shown_bids, shown_asks = depth.top(5000)
        assert mirror == {"bids": dict(shown_bids), "asks": dict(shown_asks)}
        assert shown_bids == sorted(shown_bids, reverse=True) and shown_asks == sorted(shown_asks)
        assert depth.update_id == last_id


# -- candles -----------------------------------------------------------------------------------------------------------

MINUTE = 60_000
START = 1_700_000_040_000 - 1_700_000_040_000 % 3_600_000 + 30 * MINUTE + 10_000
"""Ten seconds past the half hour."""


def flat_history(interval: str, end_ms: int, limit: int) -> list[tuple[int, float, float, float, float, float]]:
    """Every minute opens at its number in the hour, closes one higher; only minutes are asked for here."""
    length = {"1m": MINUTE, "1h": 60 * MINUTE}[interval]
    last = (end_ms - 1) // length * length
    rows = []
    for time in range(last - (limit - 1) * length, last + length, length):
        number = float(time // MINUTE % 60)
        rows.append((time, number, number + 2, number - 1, number + 1, 1.0) if length == MINUTE else (time, 0.0, 61.0, -1.0, 60.0, 60.0))
    return rows


def test_the_open_candle_goes_on_from_history() -> None:
    series = CandleSeries("1h", START, flat_history)
    assert series.current is not None
    assert (series.current.open, series.current.close, series.current.high, series.current.low) == (0.0, 30.0, 31.0, -1.0)
    assert series.current.volume == 30.0
    series.take(START + 1, 100.0, 2.0, True, 7)
    assert (series.current.high, series.current.volume, series.current.last_id) == (100.0, 32.0, 7)


def test_silent_minutes_are_candles_too() -> None:
    series = CandleSeries("1m", START, flat_history)
    series.take(START + 1, 50.0, 1.0, False, 1)
    closed = series.take(START + 3 * MINUTE, 60.0, 1.0, False, 2)
    assert [(c.open, c.close, c.volume) for c in closed] == [(50.0, 50.0, 1.0), (50.0, 50.0, 0.0), (50.0, 50.0, 0.0)]
    assert series.current is not None and series.current.open == 60.0


@given(st.lists(st.integers(0, 4 * MINUTE), max_size=30), st.integers(-90, 5), st.integers(1, 200))
def test_rows_are_a_window_of_one_seamless_grid(gaps: list[int], offset: int, limit: int) -> None:
    series = CandleSeries("1m", START, flat_history)
    now = START
    for number, gap in enumerate(gaps):
        now += gap
        series.take(now, 10.0, 1.0, True, number)
    newest = now - now % MINUTE
    latest = series.rows(None, None, limit)
    assert [c.open_ms for c in latest] == list(range(newest - (limit - 1) * MINUTE, newest + MINUTE, MINUTE))
    since = START - START % MINUTE + offset * MINUTE
    forward = [c.open_ms for c in series.rows(since, None, limit)]
    assert forward == list(range(since, newest + MINUTE, MINUTE))[:limit]
    until = [c.open_ms for c in series.rows(None, since, limit)]
    assert until == list(range(min(since, newest) - (limit - 1) * MINUTE, min(since, newest) + MINUTE, MINUTE))
