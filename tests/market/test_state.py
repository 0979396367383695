"""Market state is a function of the events: bad ones leave no trace but a count, and asking questions changes nothing."""

from decimal import Decimal

import numpy as np
import pytest

from agents.core.errors import ConfigError
from agents.core.events import Bar, BookSnapshot, FeedGap, Listing, Stamp, Tick, Trade
from agents.core.instruments import NS, TIMEFRAMES, Currency, Instrument, Side, Symbol
from agents.market.columns import HOUR_COLUMNS
from agents.market.state import MarketState

A, B, C = Symbol("A/USDT"), Symbol("B/USDT"), Symbol("C/USDT")
START = 1_599_955_200 * NS  # midnight
MINUTE, HOUR = 60 * NS, 3600 * NS
H = {name: number for number, name in enumerate(HOUR_COLUMNS)}


def trade(time, price=100, symbol=A, number=None, quantity=1, side=Side.BUY, at=None):
    name = str(time if number is None else number)
    return Trade(Stamp(time if at is None else at), symbol, time, name, Decimal(str(price)), Decimal(str(quantity)), side)


def snapshot(time, mid=100, symbol=A, at=None, spread=2):
    bid, ask = Decimal(str(mid)) - Decimal(spread) / 2, Decimal(str(mid)) + Decimal(spread) / 2
    levels = [tuple((price + step * sign, Decimal(2)) for step in range(10)) for price, sign in ((bid, -1), (ask, 1))]
    return BookSnapshot(Stamp(time if at is None else at), symbol, time, levels[0], levels[1])


def bar(opening, close=100.0, symbol=A, timeframe="1h", at=None, **changes):
    price = Decimal(repr(float(close)))
    values = {"open": price, "high": price + 1, "low": price - 1, "close": price, "volume": Decimal(10)} | changes
    return Bar(Stamp(opening + TIMEFRAMES.get(timeframe, HOUR) if at is None else at), symbol, opening, timeframe, **values)


def market(*events, symbols=(A, B)):
    state = MarketState(symbols)
    for event in events:
        state.apply(event)
    return state


def numbers(state):
    """Everything that an agent could see."""
    rows = range(len(state.symbols))
    return np.column_stack([state.hour_columns(), state.minute_columns(), state.flow_columns(rows), state.depth_columns(rows)])


# -- time ------------------------------------------------------------------------------------------------------------------


def test_market_time_follows_the_exchange_and_stamps_follow_the_door():
    state = market(trade(START, at=7), snapshot(START + 5, at=9), Tick(Stamp(20)))
    assert (state.now, state.at) == (START + 5, 20)


def test_a_leap_that_no_clock_can_make_is_refused():
    state = market(trade(START), trade(START + 400 * 86_400 * NS, at=START + 1), snapshot(START + 400 * 86_400 * NS, at=START + 1))
    assert state.now == START and state.refused["time_leaps"] == 2 and state.book(A).trouble(START) == "empty"


def test_a_long_silence_is_no_leap():
    state = market(trade(START), trade(START + 3 * 86_400 * NS))
    assert state.now == START + 3 * 86_400 * NS and not state.refused


def test_a_boundary_passes_after_its_grace_in_market_time_and_stamps():
    state = market(trade(START), trade(START + 3 * NS), trade(START + MINUTE + NS))
    assert state.closed("1m") == START
    state.apply(trade(START + MINUTE + 2 * NS))
    assert state.closed("1m") == START  # the grace is over, but not for what is still on the wire
    state.apply(Tick(Stamp(START + MINUTE + 2 * NS + 150_000_000)))
    assert state.closed("1m") == START + MINUTE and state.closed("15m") == START


def test_at_speed_the_wire_is_waited_for_in_stamps():
    """Market time runs 60 times faster than the stamps: a message that is 100 ms late is 6 s of market time late."""
    state = market(trade(START, at=0), trade(START + 5 * NS, at=NS // 2), trade(START + MINUTE + 3 * NS, symbol=B, at=NS))
    state.apply(trade(START + MINUTE - NS, price=105, at=NS + 100_000_000))
    assert state.bars(A)["1m"].last is None
    state.apply(trade(START + MINUTE + 12 * NS, symbol=B, at=NS + 150_000_000))
    assert state.closed("1m") == START + MINUTE and state.bars(A)["1m"].last.close == 105 and state.late_trades == 0


def test_bars_alone_pass_a_boundary_when_all_are_in():
    state = market(bar(START), bar(START, symbol=B))
    assert state.closed("1h") == START + HOUR == state.now
    state.apply(bar(START + HOUR))
    assert state.closed("1h") == START + HOUR
    state.apply(bar(START + HOUR, symbol=B))
    assert state.closed("1h") == START + 2 * HOUR and state.closed("1d") == START


def test_bars_alone_do_not_wait_for_a_symbol_that_is_not_listed_yet():
    state = market(bar(START), bar(START, symbol=B), bar(START + HOUR), symbols=(A, B, C))
    assert state.closed("1h") == START + HOUR - 0  # C never came: the first hour passed with the second one's first bar
    state.apply(bar(START + HOUR, symbol=B))
    assert state.closed("1h") == START + 2 * HOUR
    state.apply(bar(START + HOUR, symbol=C))
    state.apply(bar(START + 2 * HOUR))
    state.apply(bar(START + 2 * HOUR, symbol=B))
    assert state.closed("1h") == START + 2 * HOUR
    state.apply(bar(START + 2 * HOUR, symbol=C))
    assert state.closed("1h") == START + 3 * HOUR


# -- what may enter --------------------------------------------------------------------------------------------------------

BAD = [
    (trade(START + 2 * NS, "NaN"), "trade_not_finite"),
    (trade(START + 2 * NS, "sNaN"), "trade_not_finite"),
    (trade(START + 2 * NS, "Infinity"), "trade_not_finite"),
    (trade(START + 2 * NS, -1), "trade_not_finite"),
    (trade(START + 2 * NS, 0), "trade_not_finite"),
    (trade(START + 2 * NS, quantity=0), "trade_not_finite"),
    (trade(START + 2 * NS, quantity="NaN"), "trade_not_finite"),
    (trade(START - NS), "trade_out_of_order"),
    (trade(START + 2 * NS, number=START), "trade_duplicate"),
    (trade(START + 2 * NS, symbol=C), "unknown_symbol"),
    (snapshot(START + 2 * NS, symbol=C), "unknown_symbol"),
    (bar(START, at=START + 2 * NS, symbol=C), "unknown_symbol"),
    (trade(-5), "trade_out_of_order"),
    (snapshot(START - NS), "book_old"),
    (bar(START, at=START + 2 * NS, timeframe="7m"), "bar_timeframe"),
    (bar(START, at=START + 2 * NS, timeframe="1s"), "bar_timeframe"),
    (bar(START, at=START + 2 * NS, close=Decimal("NaN")), "bar_not_finite"),
    (bar(START, at=START + 2 * NS, high=Decimal("NaN")), "bar_not_finite"),
    (bar(START, at=START + 2 * NS, high=Decimal("Infinity")), "bar_not_finite"),
    (bar(START, at=START + 2 * NS, low=Decimal(-1)), "bar_not_finite"),
    (bar(START, at=START + 2 * NS, volume=Decimal(-1)), "bar_not_finite"),
    (bar(START, at=START + 2 * NS, open=Decimal(500)), "bar_inconsistent"),
    (bar(START, at=START + 2 * NS, high=Decimal(1)), "bar_inconsistent"),
    (bar(START + 1, at=START + 2 * NS), "bar_off_grid"),
]


@pytest.mark.parametrize(("event", "reason"), BAD, ids=[f"{n}-{reason}" for n, (_, reason) in enumerate(BAD)])
def test_bad_data_leaves_no_trace_but_a_count(event, reason):
    state = market(trade(START), snapshot(START + NS))
    before, now, mark = numbers(state), state.now, state.mark(A)
    state.apply(event)
    assert dict(state.refused) == {reason: 1}
    assert state.now == now and state.mark(A) == mark and state.trouble(A) is None
    ages = [len(HOUR_COLUMNS) + 32 + 11]  # only the book's age in stamps may have moved
    assert np.array_equal(np.delete(before, ages, axis=1), np.delete(numbers(state), ages, axis=1))


def test_flawed_books_enter_neither_marks_nor_features():
    state = market(trade(START), snapshot(START + NS))
    before = state.depth_columns([0])
    state.apply(snapshot(START + 2 * NS, mid=500, spread=-1))
    assert state.trouble(A) == "crossed" and state.refused["book_crossed"] == 1
    assert state.mark(A) == 100  # the last print: the book is not believed
    assert np.array_equal(before, state.depth_columns([0]))
    state.apply(FeedGap(Stamp(START + 3 * NS), A, "book", "lost"))
    assert state.trouble(A) == "gapped"
    state.apply(snapshot(START + 4 * NS, mid=104))
    assert state.trouble(A) is None and state.mark(A) == 104


def test_a_gap_in_prints_is_no_gap_in_the_book():
    state = market(snapshot(START), FeedGap(Stamp(START), A, "trades", "lost"), FeedGap(Stamp(START), C, "book", "lost"))
    assert state.trouble(A) is None


def test_ids_are_remembered_within_bounds():
    state = MarketState((A,))
    for number in range(5000):
        state.apply(trade(START + number, number=number))
    assert len(state._ids[0][0]) == len(state._ids[0][1]) == 2048
    state.apply(trade(START + 6000, number=4999))
    assert state.refused["trade_duplicate"] == 1


def test_symbols_must_be_there_and_different():
    for symbols in ((), (A, A)):
        with pytest.raises(ConfigError, match="symbols"):
            MarketState(symbols)


def test_listings_are_kept():
    listing = Listing(Stamp(1), Instrument(A, Currency("A"), Currency("USDT"), Decimal("0.5"), Decimal("0.1")))
    state = market(listing, snapshot(START))
    assert state.instruments[A].tick == Decimal("0.5")
    assert state.depth_columns([0])[0, 31] == 4  # spread in ticks


# -- marks and trouble -----------------------------------------------------------------------------------------------------


def test_marks_fall_back_from_book_to_print_to_bar():
    state = market()
    assert state.mark(A) is None and state.trouble(A) == "empty"
    state.apply(bar(START - HOUR, close=90, at=START))
    assert state.mark(A) == 90 and state.trouble(A) is None
    state.apply(trade(START + NS, price=95))
    assert state.mark(A) == 95 and state.trouble(A) == "empty"  # a live feed without a book is not enough
    state.apply(snapshot(START + 2 * NS, mid=100))
    assert state.mark(A) == 100 and state.trouble(A) is None
    state.apply(Tick(Stamp(START + 60 * NS)))
    assert state.mark(A) == 100 and state.trouble(A) == "stale"
    state.apply(trade(START + 2 * HOUR, price=80))
    assert state.mark(A) == 80  # a book of two hours ago marks nothing


def test_bars_alone_are_stale_after_two_lengths():
    state = market(bar(START), bar(START, symbol=B), bar(START + HOUR), bar(START + 2 * HOUR))
    assert state.trouble(B) is None
    state.apply(bar(START + 3 * HOUR))
    assert state.trouble(A) is None and state.trouble(B) == "stale"


# -- bars and features -----------------------------------------------------------------------------------------------------


def walk(rng, rows, width, deviation=0.01):
    return 100 * np.exp(np.cumsum(rng.normal(0, deviation, (rows, width)), axis=0))


def history(closes, timeframe, symbols):
    """Bars ending at START, by symbol."""
    length = TIMEFRAMES[timeframe]
    first = START - len(closes) * length
    return {
        symbol: [bar(first + n * length, closes[n, number], symbol, timeframe, at=START) for n in range(len(closes))]
        for number, symbol in enumerate(symbols)
    }


def test_history_symbol_by_symbol_equals_history_in_order():
    """A live start sends all bars of one symbol before those of the next; the features must not mind."""
    closes = walk(np.random.default_rng(0), 400, 2)
    by_symbol = history(closes, "1h", (A, B))
    ordered = market(*(event for pair in zip(by_symbol[A], by_symbol[B], strict=True) for event in pair))
    apart = market(*by_symbol[A], *by_symbol[B])
    for state in (ordered, apart):
        state.apply(snapshot(START + NS, mid=closes[-1, 0]))
        state.apply(snapshot(START + NS, mid=closes[-1, 1], symbol=B))
    assert ordered.rebuilds == 0 and apart.rebuilds == 1
    np.testing.assert_allclose(ordered.hour_columns(), apart.hour_columns(), rtol=1e-9, atol=1e-9)
    assert apart.hour_columns()[0, H["history_share"]] == pytest.approx(399 / 2160)


def test_coarse_history_reaches_back_before_the_hours():
    closes = walk(np.random.default_rng(1), 400, 1, 0.04)
    daily = history(closes, "1d", (A,))[A]
    hourly = history(np.full((48, 1), closes[-1, 0]), "1h", (A,))[A]
    state = market(*daily, *hourly, snapshot(START + NS, mid=closes[-1, 0]), symbols=(A,))
    columns = state.hour_columns()[0]
    assert columns[H["history_share"]] == 1 and columns[H["return_12m_sign"]] == np.sign(np.log(closes[-1, 0] / closes[-366, 0]))
    assert columns[H["momentum_90d"]] != 0 and columns[H["volatility_1h_fast"]] < columns[H["volatility_1h_slow"]]


def test_a_repair_of_the_past_builds_features_anew_at_the_next_boundary():
    rng = np.random.default_rng(2)
    prices, clean = walk(rng, 30, 1, 0.001)[:, 0], []
    for minute, price in enumerate(prices):
        clean.append(trade(START + minute * MINUTE, price=round(price, 4)))
    state = market(*clean, symbols=(A,))
    before = state.minute_columns().copy()
    wrong = bar(START + 10 * MINUTE, close=300, timeframe="1m", at=state.at)
    state.apply(wrong)
    assert np.array_equal(state.minute_columns(), before)  # nothing moves between boundaries
    state.apply(trade(START + 31 * MINUTE, price=100))
    state.apply(trade(START + 31 * MINUTE + NS, price=100))
    assert state.rebuilds == 1 and state.minute_columns()[0, 7] > before[0, 7]
    assert state.bars(A)["15m"].high[0] == 301


def test_questions_change_nothing():
    """Seen often or never, the same events lead to the same numbers, bit for bit."""
    rng = np.random.default_rng(3)
    events, time = list(history(walk(rng, 60, 1), "1h", (A,))[A]), START
    for number in range(2000):
        time += int(rng.integers(1, 2 * NS))
        symbol, price = (A, B)[number % 2], round(float(100 + rng.normal(0, 0.1)), 2)
        side = Side.BUY if rng.random() < 0.5 else Side.SELL
        events.append(snapshot(time, price, symbol, spread=1) if number % 3 else trade(time, price, symbol, side=side))
    events.insert(900, bar(START - 30 * HOUR, 250, A))
    silent, curious = MarketState((A, B)), MarketState((A, B))
    for number, event in enumerate(events):
        silent.apply(event)
        curious.apply(event)
        if number % 7 == 0:
            numbers(curious)
            curious.covariance((A, B))
    assert np.array_equal(numbers(silent), numbers(curious)) and np.isfinite(numbers(silent)).all()
    assert silent.rebuilds == 1


def test_prints_and_the_exchanges_bars_give_the_same_features():
    rng = np.random.default_rng(4)
    prices = walk(rng, 3 * 60 * 2, 2, 0.002).round(4)
    by_print, by_bar = MarketState((A, B)), MarketState((A, B))
    for row in range(0, len(prices), 2):
        minute = START + row // 2 * MINUTE
        for number, symbol in enumerate((A, B)):
            for part in (0, 1):
                by_print.apply(trade(minute + part * 20 * NS, float(prices[row + part, number]), symbol, quantity=5))
        for number, symbol in enumerate((A, B)):
            first, last = (Decimal(repr(float(prices[row + part, number]))) for part in (0, 1))
            by_bar.apply(bar(minute, float(last), symbol, "1m", open=first, high=max(first, last), low=min(first, last)))
    end = START + 3 * HOUR
    by_print.apply(trade(end + 3 * NS))
    by_print.apply(Tick(Stamp(end + 4 * NS)))
    assert by_print.closed("1h") == by_bar.closed("1h") == end
    np.testing.assert_allclose(by_print.minute_columns(), by_bar.minute_columns(), rtol=1e-12)
    np.testing.assert_allclose(by_print.hour_columns(), by_bar.hour_columns(), rtol=1e-12)
    assert by_print.bars(A)["1h"].values.tolist() == by_bar.bars(A)["1h"].values.tolist()


def test_covariance_is_positive_and_scaled_by_volatility():
    rng = np.random.default_rng(5)
    common = rng.normal(0, 0.01, (600, 1))
    closes = 100 * np.exp(np.cumsum(common + rng.normal(0, 0.003, (600, 3)), axis=0))
    by_symbol = history(closes, "1h", (A, B, C))
    state = market(*(event for row in zip(*by_symbol.values(), strict=True) for event in row), symbols=(A, B, C))
    matrix = state.covariance((C, A))
    assert np.linalg.eigvalsh(matrix).min() > 0
    np.testing.assert_allclose(np.sqrt(np.diag(matrix)), state.volatility_1h()[[2, 0]])
    assert state.correlation((A, B))[0, 1] == pytest.approx(0.9, abs=0.1)
    assert state.returns_1h((A,), 24).shape == (24, 1)
    np.testing.assert_allclose(state.returns_1h((A,), 3)[:, 0], np.diff(np.log(closes[-4:, 0])))


def test_memory_is_bounded():
    """Years of minutes leave no more behind than the rings hold."""
    state = MarketState((A,))
    for number in range(4000):
        state.apply(bar(START + number * MINUTE, 100 + number % 7, timeframe="1m"))
    assert len(state.bars(A)["1m"]) == 1536 and state.rebuilds == 0 and not state.refused
    assert len(state._panels.minutes._track) == 1441 and len(state._panels.hours._hours) <= 200


def test_an_older_bar_does_not_move_the_mark():
    state = market(bar(START, close=110), bar(START - 5 * HOUR, close=50))
    assert state.mark(A) == 110


def test_a_new_day_bar_over_known_hours_changes_nothing():
    """The exchange's own day arrives after its hours were taken: no reason to begin anew."""
    hours = [bar(START + number * HOUR, 100 + number) for number in range(24)]
    state = market(*hours, symbols=(A,))
    state.apply(bar(START, 123, timeframe="1d", volume=Decimal(999)))
    state.apply(bar(START + 24 * HOUR, 124))
    assert state.rebuilds == 0 and state.bars(A)["1d"].volume[0] == 999


def test_coarse_bars_stop_where_finer_ones_begin():
    days = [bar(START + (number - 3) * 24 * HOUR, 100, timeframe="1d", at=START) for number in range(3)]
    hours = [bar(START + (number - 24) * HOUR, 100 + number, at=START) for number in range(23)]
    state = market(*hours, *days, snapshot(START + NS), symbols=(A,))
    assert state.hour_columns()[0, H["history_share"]] == pytest.approx((24 + 23) / 2160)  # the missing hour stays missing


def test_minutes_follow_the_hours_they_fall_back_on():
    """Volatility of a minute is drawn towards that of the hour, so a new hour changes it although no minute came."""
    state = market(*(bar(START + number * HOUR, 100) for number in range(3)), symbols=(A,))
    before = state.minute_columns()[0, 5]
    state.apply(bar(START + 3 * HOUR, 150))
    assert state.minute_columns()[0, 5] > before


def test_history_of_minutes_counts_from_the_first_live_fact():
    """The hours came first and brought market time up to date: the minutes before it must not wait for the next boundary."""
    hours = [bar(START - HOUR, 100, symbol, at=START) for symbol in (A, B)]
    first = START - HOUR
    minutes = [bar(first + number * MINUTE, 100 + number % 3, symbol, "1m", at=START) for symbol in (A, B) for number in range(60)]
    state = market(*hours, *minutes)
    assert state.minute_columns()[1, 23] == 0
    state.apply(trade(START + NS))
    assert state.minute_columns()[1, 23] != 0 and state.rebuilds == 0


@pytest.mark.parametrize("timeframe", ["1h", "4h", "1d"])
def test_the_first_bar_of_a_time_ends_no_wait_for_the_others(timeframe):
    length = TIMEFRAMES[timeframe]
    state = market(*(bar(START + n * length, symbol=symbol, timeframe=timeframe) for n in range(3) for symbol in (A, B)))
    passed = [state.closed(name) for name in ("1m", "1h", timeframe)]
    assert passed == [START + 3 * length] * 3
    state.apply(bar(START + 3 * length, timeframe=timeframe))
    state.apply(Tick(Stamp(START + 4 * length + NS)))
    assert [state.closed(name) for name in ("1m", "1h", timeframe)] == passed
    state.apply(bar(START + 3 * length, symbol=B, timeframe=timeframe))
    assert [state.closed(name) for name in ("1m", "1h", timeframe)] == [START + 4 * length] * 3
