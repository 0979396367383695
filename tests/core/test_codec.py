"""Every event and request survives its row, through JSON, with nothing rounded."""

import json
from dataclasses import fields
from decimal import Decimal
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.codec import decode, encode
from agents.core.errors import DataError
from agents.core.events import BookSnapshot, Event, Fill, Forecast, Listing, NewWeights, OrderUpdate, Stamp, Trade
from agents.core.instruments import Currency, Instrument, Side, Symbol
from agents.core.orders import Command, OrderId, OrderState, Place

KINDS = (*get_args(Event), *get_args(Command))
NUMBERS = st.decimals(allow_nan=False, allow_infinity=False)
st.register_type_strategy(Decimal, NUMBERS)
st.register_type_strategy(float, st.floats(allow_nan=False))
st.register_type_strategy(Stamp, st.builds(Stamp, st.integers(0, 2**63 - 1), st.integers(0, 2**40)))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_type_survives(kind):
    @settings(max_examples=40)
    @given(st.builds(kind))
    def check(value):
        row = json.loads(json.dumps(encode(value)))
        assert row[0] == kind.__name__ and len(row) == len(fields(kind)) + 1
        again = decode(row)
        assert again == value and type(again) is kind
        assert repr(again) == repr(value)  # 1.0 and 1.00 are equal as Decimals and different as prices

    check()


def test_rows_are_plain_and_stable():
    """The form on disk: old tapes must stay readable."""
    trade = Trade(Stamp(5, 6), Symbol("BTC/USDT"), 7, "id", Decimal("64000.10"), Decimal("0.5"), Side.SELL)
    assert encode(trade) == ["Trade", [5, 6], "BTC/USDT", 7, "id", "64000.10", "0.5", "SELL"]
    update = OrderUpdate(Stamp(1), OrderId("q-a-0-1-2"), Symbol("BTC/USDT"), OrderState.PARTIAL, filled=None)
    assert encode(update) == ["OrderUpdate", [1, 0], "q-a-0-1-2", "BTC/USDT", "PARTIAL", "", None, ""]


def test_bytes_nested_records_and_shares_survive():
    weights = NewWeights(Stamp(1), 3, "digest", "spec", bytes(range(256)))
    listing = Listing(Stamp(1), Instrument(Symbol("A/B"), Currency("A"), Currency("B"), Decimal("0.01"), Decimal("1E-8"), amend=True))
    place = Place(OrderId("q"), Symbol("A/B"), Side.BUY, Decimal(1), None, shares=(("long_term", 0.1 + 0.2), ("short_term", -1.0)))
    for value in (weights, listing, place):
        assert decode(json.loads(json.dumps(encode(value)))) == value


def test_not_finite_numbers_survive_strict_json():
    """Bad data is journalled as it came, so that a replay refuses it again."""
    trade = Trade(Stamp(1), Symbol("A/B"), 1, "1", Decimal("NaN"), Decimal("Infinity"), Side.BUY)
    forecast = Forecast(Stamp(1), Symbol("A/B"), 1, 1, float("nan"), float("-inf"))
    back = decode(json.loads(json.dumps(encode(trade), allow_nan=False)))
    assert isinstance(back, Trade) and back.price.is_nan() and back.quantity.is_infinite()
    seen = decode(json.loads(json.dumps(encode(forecast), allow_nan=False)))
    assert isinstance(seen, Forecast) and seen.mean != seen.mean and seen.deviation == float("-inf")


def test_levels_come_back_as_tuples():
    book = BookSnapshot(Stamp(1), Symbol("A/B"), 1, ((Decimal("1.0"), Decimal(2)),), ())
    back = decode(json.loads(json.dumps(encode(book))))
    assert back == book and isinstance(back, BookSnapshot) and hash(back) == hash(book)


GOOD = ["Trade", [5, 6], "BTC/USDT", 7, "id", "64000.10", "0.5", "SELL"]


@pytest.mark.parametrize(
    "row",
    [[], ["Nonsense", 1], GOOD[:-1], [*GOOD, 1], [*GOOD[:5], "abc", *GOOD[6:]], [*GOOD[:-1], "SIDEWAYS"], [GOOD[0], 5, *GOOD[2:]]],
)
def test_a_bad_row_is_an_error_of_data(row):
    with pytest.raises(DataError, match="not a row of the journal"):
        decode(row)


def test_fees_and_ids_keep_their_digits():
    fill = Fill(
        Stamp(1), Symbol("A/B"), 1, OrderId("o"), "9007199254740993", Side.BUY, Decimal("1.10"), Decimal("1e-8"), Decimal("-0.000"),
        Currency("B"), True,
    )  # fmt: skip
    assert repr(decode(json.loads(json.dumps(encode(fill))))) == repr(fill)


def test_a_row_of_an_older_version_takes_the_defaults_of_what_was_added_since() -> None:
    place = Place(OrderId("q-main-1-1-0"), Symbol("BTC/USDT"), Side.BUY, Decimal(1), Decimal(2), shares=(("long_term", 1.0),))
    row = encode(place)
    assert row[-1] is None
    assert decode(row[:-1]) == place
    with pytest.raises(DataError, match="4 fields"):
        decode(row[:5])
