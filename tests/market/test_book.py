"""A book says what it mirrors and why it cannot be believed; what is not to be believed never replaces what was."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.events import BookDelta, BookSnapshot, Quote, Stamp
from agents.core.instruments import NS, Symbol
from agents.market.book import Book

BTC = Symbol("BTC/USDT")


def levels(*pairs):
    return tuple((Decimal(str(price)), Decimal(str(quantity))) for price, quantity in pairs)


def snapshot(time=1, bids=((100, 1), (99, 2)), asks=((101, 3), (102, 4)), at=None):
    return BookSnapshot(Stamp(time if at is None else at), BTC, time, levels(*bids), levels(*asks))


def delta(time, first, final, bids=(), asks=()):
    return BookDelta(Stamp(time), BTC, time, levels(*bids), levels(*asks), first, final)


def test_a_sound_book():
    book = Book()
    assert book.trouble(0) == "empty" and book.mid is None and book.spread is None and book.microprice is None
    assert book.apply(snapshot()) is None
    assert (book.bid, book.ask, book.mid, book.spread) == (100, 101, Decimal("100.5"), 1)
    assert book.microprice == (Decimal(100) * 3 + Decimal(101) * 1) / 4  # the thin bid will be taken out first
    assert book.trouble(1) is None


def test_staleness_is_measured_in_stamps():
    book = Book(stale_after_ns=10 * NS)
    book.apply(snapshot(time=60 * NS, at=5))
    assert book.trouble(5 + 10 * NS) is None
    assert book.trouble(6 + 10 * NS) == "stale"


@pytest.mark.parametrize(
    ("bids", "asks", "why"),
    [
        (((100, 1),), ((100, 1),), "crossed"),
        (((101, 1),), ((100, 1),), "crossed"),
        (((99, 1), (100, 1)), ((101, 1),), "crossed"),
        (((100, 1),), ((102, 1), (101, 1)), "crossed"),
        (((100, "NaN"),), ((101, 1),), "not_finite"),
        (((100, "sNaN"),), ((101, 1),), "not_finite"),
        ((("NaN", 1),), ((101, 1),), "not_finite"),
        (((100, 1),), (("Infinity", 1),), "not_finite"),
        (((100, 0),), ((101, 1),), "not_finite"),
        (((100, 1),), ((101, -1),), "not_finite"),
        (((-1, 1),), ((101, 1),), "not_finite"),
        ((), ((101, 1),), "empty"),
        (((100, 1),), (), "empty"),
    ],
)
def test_bad_snapshots_flaw_the_book_and_change_no_level(bids, asks, why):
    book = Book()
    book.apply(snapshot())
    assert book.apply(snapshot(2, bids, asks)) == why
    assert book.trouble(2) == why and book.mid == Decimal("100.5") and book.bid_prices == [100.0, 99.0]
    assert book.apply(snapshot(3)) is None and book.trouble(3) is None


def test_a_snapshot_from_the_past_is_left_out_without_a_flaw():
    book = Book()
    book.apply(snapshot(5))
    assert book.apply(snapshot(4, bids=((50, 1),))) == "old"
    assert book.trouble(5) is None and book.bid == 100


def test_a_gap_lasts_until_the_next_snapshot():
    book = Book()
    book.apply(snapshot(1))
    book.distrust()
    assert book.trouble(1) == "gapped"
    assert book.apply(delta(2, 1, 1, bids=((100, 5),))) == "gapped"
    book.apply(snapshot(3))
    assert book.trouble(3) is None


def test_distrust_of_an_empty_book_stays_empty():
    book = Book()
    book.distrust()
    assert book.trouble(0) == "empty"


def test_deltas_change_add_and_remove():
    book = Book()
    book.apply(snapshot(1))
    assert book.apply(delta(2, 10, 12, bids=((100, 0), (98, 7)), asks=((101, 9), ("101.5", 1)))) is None
    assert book.bids == levels((99, 2), (98, 7)) and book.asks == levels((101, 9), ("101.5", 1), (102, 4))
    assert book.bid_prices == [99.0, 98.0] and book.ask_sizes == [9.0, 1.0, 4.0]
    assert book.apply(delta(3, 13, 13, bids=(("99.5", 1),))) is None and book.bid == Decimal("99.5")


def test_a_break_in_the_deltas_is_a_gap_and_repeats_are_old():
    book = Book()
    book.apply(snapshot(1))
    book.apply(delta(2, 10, 12, bids=((100, 5),)))
    assert book.apply(delta(2, 10, 12, bids=((100, 6),))) == "old" and book.bids[0][1] == 5 and book.trouble(2) is None
    assert book.apply(delta(3, 14, 15, bids=((100, 7),))) == "gapped" and book.trouble(3) == "gapped"


def test_deltas_that_cross_or_are_not_numbers():
    book = Book()
    book.apply(snapshot(1))
    assert book.apply(delta(2, 1, 1, bids=((101, 1),))) == "crossed" and book.trouble(2) == "crossed"
    assert book.apply(delta(3, 2, 2, bids=((101, 0),))) is None and book.trouble(3) is None
    assert book.apply(delta(4, 3, 3, asks=(("NaN", 1),))) == "not_finite"
    assert book.apply(delta(5, 4, 4, asks=((103, 1),))) == "not_finite"  # one change is lost for good


def test_deltas_go_on_through_a_one_sided_moment():
    book = Book()
    book.apply(snapshot(1))
    assert book.apply(delta(2, 1, 1, asks=((101, 0), (102, 0)))) == "empty" and book.trouble(2) == "empty"
    assert book.apply(delta(3, 2, 2, asks=((103, 1),))) is None and book.mid == Decimal("101.5")


def test_deltas_wait_after_a_snapshot_that_was_none():
    book = Book()
    book.apply(snapshot(1))
    book.apply(snapshot(2, asks=()))
    assert book.apply(delta(3, 1, 1, bids=((100, 9),))) == "empty" and book.bids[0][1] == 1


def test_deltas_before_a_snapshot_are_worth_nothing():
    book = Book()
    assert book.apply(delta(1, 1, 1, bids=((100, 1),))) == "empty" and book.trouble(1) == "empty"


def test_quotes_make_a_book_only_where_nothing_deeper_comes():
    quote = Quote(Stamp(1), BTC, 1, Decimal(100), Decimal(1), Decimal(101), Decimal(2))
    book = Book()
    assert book.apply(quote) is None and book.mid == Decimal("100.5") and len(book.bids) == 1
    assert book.apply(snapshot(2)) is None and len(book.bids) == 2
    late = Quote(Stamp(3), BTC, 3, Decimal(100), Decimal(1), Decimal(101), Decimal(2))
    assert book.apply(late) == "shallow" and len(book.bids) == 2 and book.trouble(3) is None


CHANGE = st.tuples(st.integers(90, 110), st.integers(0, 3), st.booleans())


@given(st.lists(CHANGE, max_size=60))
def test_deltas_agree_with_a_dictionary(changes):
    book, bids, asks = Book(), {100: 1, 99: 2}, {111: 1}
    book.apply(snapshot(1, asks=((111, 1),)))
    for number, (price, quantity, is_bid) in enumerate(changes):
        side, price = (bids, price) if is_bid else (asks, price + 21)
        side[price] = quantity
        if not quantity:
            del side[price]
        change = ((price, quantity),)
        book.apply(delta(number + 2, number + 1, number + 1, bids=change if is_bid else (), asks=() if is_bid else change))
    assert [(int(p), int(q)) for p, q in book.bids] == sorted(bids.items(), reverse=True)
    assert [(int(p), int(q)) for p, q in book.asks] == sorted(asks.items())
    if bids and asks:
        assert book.bid_prices == [float(p) for p, _ in sorted(bids.items(), reverse=True)[:10]]
