"""What the agents see: the names, the meaning of each account column, and that nothing but finite numbers gets through."""

import hashlib
from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from agents.core.errors import NotFinite, SpecMismatch
from agents.core.events import Adjustment, AdjustmentKind, Bar, BookSnapshot, Fill, Listing, Stamp, Trade
from agents.core.instruments import NS, Currency, Instrument, Side, Symbol
from agents.core.ledger import Ledger
from agents.core.orders import OrderId, Place
from agents.market import columns as names
from agents.market.columns import LAYOUT, SOURCES, ObservationSpec
from agents.market.observation import AGENTS, SPEC_HASH, SPECS, STATE_SIZES, Context, Observation, observe
from agents.market.state import MarketState

A, B, C = Symbol("A/USDT"), Symbol("B/USDT"), Symbol("C/USDT")
SYMBOLS = (A, B, C)
USDT = Currency("USDT")
START = 1_599_955_200 * NS
HOUR = 3600 * NS
D = Decimal

REQUIRED = {
    "long_term": "macd_z_8_24 macd_z_16_48 macd_z_32_96 return_12m_sign volatility_1h atr_1h position_weight stop_distance stop_age_h "
    "momentum_1d momentum_7d momentum_30d momentum_90d effective_bets drawdown gross cash_weight",
    "short_term": "ou_kappa ou_gap ou_sigma ou_score volatility_1m half_spread taker_fee maker_fee volume_1m volume_1m_notional "
    "position_weight long_term_weight long_term_precision trade_imbalance_1m return_1m return_5m return_15m return_60m "
    "minute_of_day_sin minute_of_day_cos",
    "market_making": "half_spread volatility_1s intensity_a intensity_k microprice_offset imbalance_1 imbalance_2 imbalance_3 "
    "imbalance_4 imbalance_5 trade_flow toxicity_z inventory position_weight long_term_weight short_term_weight maker_fee markout_5s",
    "risk": "portfolio_volatility var_95 cvar_95 drawdown gross net cash_weight concentration correlation_top effective_bets "
    "headroom_gross headroom_cash turnover_day fees_day wish_gross wish_net wished_volatility",
}


def listing(symbol):
    base = Currency(symbol.split("/")[0])
    return Listing(Stamp(0), Instrument(symbol, base, USDT, D("0.01"), D("0.001"), maker_fee=D("0.0002"), taker_fee=D("0.0005")))


def snapshot(time, symbol, mid=100):
    sides = [tuple((D(mid) + sign * (1 + step), D(5)) for step in range(10)) for sign in (-1, 1)]
    return BookSnapshot(Stamp(time), symbol, time, sides[0], sides[1])


def fill(symbol, quantity, price, number):
    return Fill(
        Stamp(START), symbol, START, OrderId("none"), str(number), Side.BUY, D(str(price)), D(str(quantity)), D(0), USDT, True
    )  # fmt: skip


@pytest.fixture
def desk():
    """Capital 10,000; 20 A bought at 80 and 10 B at 100, all books at 100."""
    market, ledger = MarketState(SYMBOLS), Ledger(USDT)
    rng = np.random.default_rng(0)
    closes = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, (200, 1)) + rng.normal(0, 0.005, (200, 3)), axis=0))
    events = [listing(symbol) for symbol in SYMBOLS]
    for row, prices in enumerate(closes):
        for symbol, price in zip(SYMBOLS, prices, strict=True):
            value = D(repr(round(float(price), 2)))
            time = START + (row - 200) * HOUR
            events.append(Bar(Stamp(time + HOUR), symbol, time, "1h", value, value + 1, value - 1, value, D(3)))
    events += [snapshot(START + NS, symbol) for symbol in SYMBOLS]
    events += [Trade(Stamp(START + 2 * NS), symbol, START + 2 * NS, "1", D(100), D(1), Side.BUY) for symbol in SYMBOLS]
    events += [Adjustment(Stamp(START), USDT, D(10_000), AdjustmentKind.CAPITAL), fill(A, 20, 80, 1), fill(B, 10, 100, 2)]
    for event in events:
        market.apply(event)
        ledger.apply(event)
    equity = float(ledger.equity({symbol: D(100) for symbol in SYMBOLS}))
    assert equity == 10_400
    return market, ledger, Context(equity=equity, peak_equity=13_000.0)


def see(agent, desk, symbols=SYMBOLS, **changes):
    market, ledger, context = desk
    for name, value in changes.items():
        setattr(context, name, value)
    return observe(agent, market, ledger, symbols, context)


# -- names -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("agent", AGENTS)
def test_specs_have_the_sizes_and_the_columns_that_others_read(agent):
    spec = SPECS[agent]
    assert spec.size == STATE_SIZES[agent] == len(set(spec.columns))
    missing = set(REQUIRED[agent].split()) - set(spec.columns)
    assert not missing
    reserved = [name for name in spec.columns if name.startswith("reserved_")]
    assert reserved == list(spec.columns[-len(reserved) :]) and len(reserved) >= 8  # room for forecasts


def test_every_source_is_whole_and_every_block_comes_from_one():
    for blocks in LAYOUT.values():
        for source, block in blocks:
            assert set(block) <= set(SOURCES[source])


def test_the_hash_belongs_to_agent_names_order_and_version():
    spec = SPECS["risk"]
    swapped = (spec.columns[1], spec.columns[0], *spec.columns[2:])
    others = [
        ObservationSpec("long_term", spec.columns), ObservationSpec("risk", swapped), replace(spec, version=spec.version + 1),
        ObservationSpec("risk", (*spec.columns[:-1], "new")),
    ]  # fmt: skip
    assert len({spec.hash, *(other.hash for other in others)}) == 5
    assert ObservationSpec("risk", spec.columns).hash == spec.hash
    assert hashlib.sha256("\n".join(SPECS[agent].hash for agent in AGENTS).encode()).hexdigest() == SPEC_HASH


def test_too_many_columns_or_one_twice_is_refused(monkeypatch):
    monkeypatch.setitem(names.STATE_SIZES, "risk", 10)
    with pytest.raises(SpecMismatch, match="risk"):
        names._names("risk")
    monkeypatch.setitem(names.LAYOUT, "long_term", (("account", ("gross", "gross")),))
    with pytest.raises(SpecMismatch, match="twice"):
        names._names("long_term")


# -- the account -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("agent", AGENTS)
def test_observations_are_float32_finite_and_zero_where_reserved(agent, desk):
    seen = see(agent, desk)
    assert seen.matrix.dtype == np.float32 and seen.matrix.shape == (1 if agent == "risk" else 3, STATE_SIZES[agent])
    assert np.isfinite(seen.matrix).all() and seen.time == desk[0].now and seen.symbols == SYMBOLS
    for name in SPECS[agent].columns:
        if name.startswith("reserved_"):
            assert not seen.column(name).any()
    with pytest.raises(KeyError):
        seen.column("nonsense")


def test_positions_are_fractions_of_equity(desk):
    seen = see("long_term", desk, stops={A: (0.05, 7.0)})
    np.testing.assert_allclose(seen.column("position_weight"), [2000 / 10_400, 1000 / 10_400, 0], rtol=1e-6)
    np.testing.assert_allclose(seen.column("unrealised_return"), [0.25, 0, 0], atol=1e-7)
    np.testing.assert_allclose(seen.column("cash_weight"), 7400 / 10_400, rtol=1e-6)
    np.testing.assert_allclose(seen.column("gross"), 3000 / 10_400, rtol=1e-6)
    np.testing.assert_allclose(seen.column("drawdown"), 0.2, rtol=1e-6)
    np.testing.assert_allclose(seen.column("maker_fee"), 0.0002, rtol=1e-6)
    assert seen.column("stop_distance").tolist() == pytest.approx([0.05, 0, 0]) and seen.column("stop_age_h").tolist() == [7, 0, 0]
    np.testing.assert_allclose(seen.column("half_spread"), 0.01, rtol=1e-6)


@pytest.mark.parametrize("agent", ["long_term", "short_term"])
def test_the_moments_of_the_own_return_stand_in_every_row_and_are_zero_where_nobody_keeps_them(agent, desk):
    assert not see(agent, desk).matrix[:, [SPECS[agent].index[name] for name in names.OWN_COLUMNS]].any()
    seen = see(agent, desk, moments=(-0.25, 1.5))
    assert seen.column("own_return_mean").tolist() == [-0.25] * 3 and seen.column("own_return_square").tolist() == [1.5] * 3
    with pytest.raises(NotFinite, match="own_return_mean"):
        see(agent, desk, moments=(float("nan"), 1.0))


def test_gross_counts_positions_outside_the_rows(desk):
    assert see("long_term", desk, symbols=(B,)).column("gross")[0] == pytest.approx(3000 / 10_400)


def test_rows_follow_the_symbols_asked_for(desk):
    whole, part = see("short_term", desk), see("short_term", desk, symbols=(C, A))
    np.testing.assert_array_equal(part.matrix, whole.matrix[[2, 0]])


def test_wishes_of_the_others_are_seen_by_name(desk):
    wishes = {
        "long_term": {A: {"exposure": 0.5, "weight": 0.15, "precision": 2.0, "horizon_long": 0.4, "stop_distance": 0.06}},
        "short_term": {B: {"tilt": -0.3, "weight": -0.04, "urgency": 0.9, "precision": 1.5}},
        "market_making": {A: {"bid_offset": 0.001, "pull": 1.0, "inventory_target": 0.02, "bid_size": 0.01, "ask_size": 0.02}},
        "risk": {Symbol(""): {"gross_multiplier": 0.7, "budget_multiplier": 0.8}},
    }
    seen = see("market_making", desk, wishes=wishes)
    assert seen.column("long_term_weight").tolist() == pytest.approx([0.15, 0, 0])
    assert seen.column("short_term_weight").tolist() == pytest.approx([0, -0.04, 0])
    assert seen.column("market_making_pull").tolist() == [1, 0, 0]
    assert seen.column("risk_gross_multiplier").tolist() == pytest.approx([0.7] * 3)
    weight = 2000 / 10_400
    assert seen.column("inventory").tolist() == pytest.approx([weight - 0.15, 1000 / 10_400, 0], rel=1e-5)
    assert seen.column("inventory_gap")[0] == pytest.approx(weight - 0.15 - 0.02, rel=1e-5)
    assert see("long_term", desk).column("long_term_horizon_long")[0] == pytest.approx(0.4)
    risk = see("risk", desk)
    assert risk.column("wish_gross")[0] == pytest.approx(0.19) and risk.column("wish_net")[0] == pytest.approx(0.11)
    assert risk.column("quote_gross")[0] == pytest.approx(0.03)
    assert risk.column("wish_distance")[0] == pytest.approx(abs(0.15 - weight) + abs(-0.04 - 1000 / 10_400), rel=1e-5)
    assert see("long_term", desk, wishes={}).column("risk_gross_multiplier").tolist() == [1, 1, 1]


def place(number, side, quantity, price, agent="market_making"):
    return Place(OrderId(f"q-{number}"), A, side, D(str(quantity)), D(str(price)), post_only=True, shares=((agent, 1.0),))


def test_own_quotes_are_the_best_of_the_market_makers(desk):
    _, ledger, _ = desk
    orders = (
        place(1, Side.BUY, 1, 99), place(2, Side.BUY, 2, 98), place(3, Side.SELL, 10, 102), place(4, Side.BUY, 9, "99.5", "long_term")
    )  # fmt: skip
    for order in orders:
        ledger.record(order, Stamp(START))
    seen = see("market_making", desk)
    expected = {
        "quote_bid_distance": 0.01, "quote_ask_distance": 0.02, "quote_bid_size": 99 / 10_400, "quote_ask_size": 1020 / 10_400,
        "queue_bid_share": 0.2, "queue_ask_share": 1.0, "working_buy_weight": 1200 / 10_400, "working_sell_weight": 1000 / 10_400,
    }  # fmt: skip
    for name, value in expected.items():
        assert seen.column(name)[0] == pytest.approx(value, rel=1e-5), name
        assert not seen.column(name)[1:].any()
    risk = see("risk", desk)
    assert risk.column("headroom_cash")[0] == pytest.approx((7400 - 1200) / 10_400, rel=1e-5)
    assert risk.column("headroom_gross")[0] == pytest.approx(1 - (3000 + 1200) / 10_400, rel=1e-5)


# -- the portfolio ---------------------------------------------------------------------------------------------------------


def test_risk_numbers_follow_from_covariance(desk):
    market = desk[0]
    seen = see("risk", desk, turnover_day=0.3, fees_paid_day=0.001)
    weights = np.array([2000, 1000, 0]) / 10_400
    hourly = np.sqrt(weights @ market.covariance(SYMBOLS) @ weights)
    assert seen.column("portfolio_volatility")[0] == pytest.approx(hourly * np.sqrt(8760), rel=1e-5)
    assert seen.column("var_95")[0] == pytest.approx(1.6449 * hourly * np.sqrt(24), rel=1e-5)
    assert seen.column("cvar_95")[0] > seen.column("var_95")[0] > 0
    assert 0 < seen.column("var_95_history")[0] <= seen.column("cvar_95_history")[0]
    assert seen.column("cvar_95_history")[0] == pytest.approx(seen.column("cvar_95")[0], rel=0.6)
    assert seen.column("concentration")[0] == pytest.approx((4 + 1) / 9, rel=1e-5)
    assert seen.column("net")[0] == seen.column("gross")[0] and seen.column("position_count")[0] == 2
    eigenvalues = np.linalg.eigvalsh(market.correlation(SYMBOLS))
    assert seen.column("correlation_top")[0] == pytest.approx(eigenvalues[-1] / 3, rel=1e-5)
    assert seen.column("effective_bets")[0] == pytest.approx(9 / (eigenvalues**2).sum(), rel=1e-5)
    assert seen.column("turnover_day")[0] == pytest.approx(0.3) and seen.column("fees_day")[0] == pytest.approx(0.001)
    assert seen.column("diversification")[0] >= 1


def test_the_engine_may_replace_portfolio_numbers(desk):
    seen = see("risk", desk, risk={"var_95": 0.5, "headroom_gross": 0.1, "unknown": 3.0})
    assert seen.column("var_95")[0] == 0.5 and seen.column("headroom_gross")[0] == pytest.approx(0.1)


def test_distrusted_symbols_are_counted_by_weight(desk):
    market = desk[0]
    crossed = replace(snapshot(START + 3 * NS, A), bids=((D(200), D(1)),))
    market.apply(crossed)
    seen = see("risk", desk)
    assert seen.column("untrusted_share")[0] == pytest.approx(1 / 3)
    assert seen.column("untrusted_weight")[0] == pytest.approx(2000 / 10_400, rel=1e-5)


def test_nothing_owned_nothing_known():
    market, ledger = MarketState(SYMBOLS), Ledger(USDT)
    for agent in AGENTS:
        for context in (Context(0.0, 0.0), Context(1e4, 1e4), Context(-5.0, 1e4)):
            for symbols in (SYMBOLS, ()):
                assert np.isfinite(observe(agent, market, ledger, symbols, context).matrix).all()
    assert observe("risk", market, ledger, SYMBOLS, Context(1e4, 1e4)).column("diversification")[0] == 1


# -- what may not get through ----------------------------------------------------------------------------------------------


def test_a_number_that_is_none_stops_the_observation(desk):
    with pytest.raises(NotFinite, match="short_term: long_term_weight of B/USDT"):
        see("short_term", desk, wishes={"long_term": {B: {"weight": float("nan")}}})
    with pytest.raises(NotFinite, match="risk: var_95 of the portfolio"):
        see("risk", desk, wishes={}, risk={"var_95": float("inf")})


def test_a_stranger_is_an_error(desk):
    with pytest.raises(KeyError):
        see("long_term", desk, symbols=(Symbol("X/USDT"),))


def test_huge_numbers_are_cut(desk):
    seen = see("short_term", desk, wishes={"long_term": {B: {"precision": 1e30}}})
    assert seen.column("long_term_precision")[1] == 1e6


def test_digests_tell_observations_apart(desk):
    seen = see("long_term", desk)
    assert seen.digest() == see("long_term", desk).digest()
    changed = seen.matrix.copy()
    changed[0, 0] = np.nextafter(changed[0, 0], np.float32(9))
    others = [replace(seen, matrix=changed), replace(seen, time=1), replace(seen, agent="short_term"), replace(seen, symbols=(A, C, B))]
    assert len({seen.digest(), *(other.digest() for other in others)}) == 5


def test_column_is_read_by_name():
    matrix = np.arange(60, dtype=np.float32)[None]
    seen = Observation("risk", SYMBOLS, 0, matrix)
    assert seen.column(SPECS["risk"].columns[17]).tolist() == [17.0]


def test_volume_is_over_equity(desk):
    market = desk[0]
    for minute in range(3):
        time = START + minute * 60 * NS
        market.apply(Bar(Stamp(market.at), A, time, "1m", D(100), D(100), D(100), D(100), D(52)))
    market.apply(snapshot(START + 200 * NS, A))
    market.apply(snapshot(START + 201 * NS, A))
    seen = see("short_term", desk)
    assert seen.column("volume_1m_notional").tolist() == pytest.approx([5200 / 10_400, 0, 0])
    assert seen.column("volume_1m")[0] == pytest.approx(np.log1p(5200))


@pytest.mark.parametrize(("hours", "sine", "cosine"), [(0, 0, 1), (42, 1, 0), (84, 0, -1), (126, -1, 0)])
def test_the_week_begins_on_monday(hours, sine, cosine):
    monday = 1_600_041_600 * NS  # 2020-09-14 00:00 UTC
    market = MarketState((A,))
    market.apply(snapshot(monday + hours * HOUR, A))
    seen = observe("short_term", market, Ledger(USDT), (A,), Context(1.0, 1.0))
    assert seen.column("day_of_week_sin")[0] == pytest.approx(sine, abs=1e-6)
    assert seen.column("day_of_week_cos")[0] == pytest.approx(cosine, abs=1e-6)
    assert seen.column("minute_of_day_cos")[0] == pytest.approx(np.cos(hours % 24 / 24 * 2 * np.pi), abs=1e-6)


def test_a_position_outside_the_market_is_no_error(desk):
    stranger = Symbol("X/USDT")
    desk[1].apply(listing(stranger))
    desk[1].apply(fill(stranger, 1, 100, 3))
    assert see("long_term", desk).column("gross")[0] == pytest.approx(3000 / 10_400)
