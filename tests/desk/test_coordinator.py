"""Four wishes, one target: who counts, how much, and for how long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.core.instruments import Symbol
from agents.desk.coordinator import CoordinatorParams, coordinate, granted
from agents.desk.wishes import LongTermWish, MarketMakingWish, RiskWish, ShortTermWish, StandingWishes, Style, Target, Wish

BTC, ETH = Symbol("BTC/USDT"), Symbol("ETH/USDT")
NOW, LATER = 1_000, 2_000


def long_term(weight: float, precision: float = 1.0, expires: int = LATER) -> LongTermWish:
    return LongTermWish(BTC, 0, expires, (0.0,) * 4, weight, weight, precision, (1 / 3, 1 / 3, 1 / 3), 0.02)


def short_term(weight: float, precision: float = 1.0, expires: int = LATER) -> ShortTermWish:
    return ShortTermWish(BTC, 0, expires, (0.0,) * 4, weight, weight, 0.9, 1.0, 0.1, precision)


def quotes(bid: float = 0.015, ask: float = 0.015, pull: bool = False, expires: int = LATER) -> MarketMakingWish:
    return MarketMakingWish(BTC, 0, expires, (0.0,) * 6, 0.0015, 0.0017, bid, ask, 0.0, pull)


def risk(gross: float, budget: float = 0.9, expires: int = LATER) -> RiskWish:
    return RiskWish(0, expires, (0.0, 0.0), gross, budget)


def join(*wishes: Wish, inventory: float = 0.0, long_only: bool = True) -> Target:
    standing = StandingWishes()
    standing.post(wishes)
    return coordinate(standing, (BTC, ETH), NOW, {BTC: inventory}, CoordinatorParams(long_only=long_only))


def test_long_term_weight_and_tilt_add_up_at_equal_precision_and_risk_scales_them() -> None:
    target = join(long_term(0.10), short_term(0.02), risk(0.5))
    assert target.weights == {BTC: pytest.approx(0.06), ETH: 0.0}
    assert target.contributions[BTC] == {"long_term": pytest.approx(0.05), "short_term": pytest.approx(0.01)}
    assert (target.time, target.gross_multiplier, target.budget_multiplier) == (NOW, 0.5, 0.9)


def test_a_convinced_long_term_view_grants_less_of_a_tilt() -> None:
    tilts = [join(long_term(0.1, kappa), short_term(0.02), risk(0.9)).contributions[BTC]["short_term"] for kappa in (0.25, 1.0, 4.0)]
    assert tilts == [pytest.approx(0.018), pytest.approx(0.018), pytest.approx(0.018 * 0.4)]


@given(st.floats(-0.3, 0.3), st.floats(1e-3, 100), st.floats(1e-3, 100))
def test_the_grant_is_a_precision_weighted_blend_inside_the_band(tilt: float, own: float, other: float) -> None:
    mean = (own * 2 * tilt + other * 0.0) / (own + other)
    assert granted(tilt, own, other) == pytest.approx(max(-abs(tilt), min(abs(tilt), mean)))


def test_the_tilt_alone_counts_when_no_long_term_wish_stands() -> None:
    assert join(short_term(0.02), risk(0.9)).weights[BTC] == pytest.approx(0.018)
    assert join(long_term(0.1, expires=NOW), short_term(0.02), risk(0.9)).weights[BTC] == pytest.approx(0.018)


@pytest.mark.parametrize(
    ("weight", "tilt", "expected"),
    [(0.1, -0.15, (0.1, -0.1)), (-0.1, 0.05, (0.0, 0.0)), (-0.1, 0.15, (0.0, 0.05)), (-0.1, -0.05, (0.0, 0.0)), (0.1, -0.04, (0.1, -0.04))],
)
def test_on_spot_a_negative_wish_is_a_wish_for_nothing(weight: float, tilt: float, expected: tuple[float, float]) -> None:
    target = join(long_term(weight), short_term(tilt), risk(1.0))
    assert (target.contributions[BTC]["long_term"], target.contributions[BTC]["short_term"]) == pytest.approx(expected)
    assert join(long_term(weight), short_term(tilt), risk(1.0), long_only=False).weights[BTC] == pytest.approx(weight + tilt)


def test_the_market_makers_inventory_is_part_of_the_target_up_to_its_bound() -> None:
    assert join(long_term(0.1), risk(0.8), inventory=0.02).weights[BTC] == pytest.approx(0.08 + 0.02)
    assert join(long_term(0.1), risk(0.8), inventory=0.09).contributions[BTC]["market_making"] == pytest.approx(0.05 * 0.8)
    assert join(long_term(0.1), risk(0.8), inventory=-0.09).weights[BTC] == pytest.approx(0.08 - 0.04)
    assert "market_making" not in join(long_term(0.1), risk(0.8)).contributions[BTC]


def test_quotes_keep_their_distance_and_scale_with_risk() -> None:
    made = join(quotes(), risk(0.5)).quotes[BTC]
    assert (made.bid_offset, made.ask_offset, made.bid_size, made.ask_size) == (0.0015, 0.0017, 0.0075, 0.0075)
    assert join(quotes(bid=0.0), risk(0.5)).quotes[BTC].bid_size == 0.0


@pytest.mark.parametrize("wish", [quotes(pull=True), quotes(0.0, 0.0), quotes(expires=NOW)])
def test_no_quotes_where_they_are_pulled_empty_or_expired(wish: MarketMakingWish) -> None:
    assert join(wish, risk(0.5)).quotes == {}


def test_a_silent_risk_agent_is_no_licence() -> None:
    assert join(long_term(0.1)).gross_multiplier == 0.5
    assert join(long_term(0.1), risk(0.9, expires=NOW)).weights[BTC] == pytest.approx(0.05)


def test_style_comes_from_short_term_or_is_its_action_zero() -> None:
    assert join(short_term(0.01)).styles == {BTC: Style(0.9, 1.0, 0.1), ETH: Style(0.5, 0.0, 0.05)}
    assert join(short_term(0.01, expires=NOW)).styles[BTC] == Style()


@given(*[st.floats(-1, 1)] * 3, st.floats(0.02, 0.99), st.booleans())
def test_contributions_add_up_to_the_weight(w: float, tilt: float, inventory: float, gross: float, long_only: bool) -> None:
    target = join(long_term(w), short_term(tilt), risk(gross), inventory=inventory, long_only=long_only)
    for symbol in (BTC, ETH):
        assert target.weights[symbol] == sum(target.contributions[symbol].values())
    directional = target.weights[BTC] - target.contributions[BTC].get("market_making", 0.0)
    assert abs(directional) <= gross * (abs(w) + abs(tilt)) + 1e-12
    if long_only:
        assert directional >= -1e-12


@given(st.floats(0, 1), st.floats(-0.2, 0.2), st.floats(0.02, 0.99), st.floats(0.02, 0.99))
def test_a_smaller_multiplier_never_means_a_larger_position(w: float, tilt: float, first: float, second: float) -> None:
    low, high = sorted((first, second))
    small, large = (join(long_term(w), short_term(tilt), risk(m), quotes()) for m in (low, high))
    assert small.weights[BTC] <= large.weights[BTC] + 1e-12
    assert small.quotes[BTC].bid_size <= large.quotes[BTC].bid_size
