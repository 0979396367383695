"""Strategies of the coordinator: what each formula says, what evidence may change, and that no wish ever grows."""

from dataclasses import replace
from math import log, sqrt, tanh

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.errors import ConfigError
from agents.core.instruments import NS, Symbol
from agents.desk.coordination.params import BUDGETED
from agents.desk.coordination.track import Moments, Track
from agents.desk.coordinator import STRATEGIES, Band, CoordinatorParams, Evidence, coordinate, make_coordinator
from agents.desk.wishes import LongTermWish, MarketMakingWish, RiskWish, ShortTermWish, StandingWishes
from tests.desk.world import World

BTC, ETH = Symbol("BTC/USDT"), Symbol("ETH/USDT")
HOUR, FOREVER = 3600 * NS, 10**18
QUICK = CoordinatorParams(period_s=3600, memory_days=2)


class Told(Evidence):
    """Evidence whose profits are given."""

    def __init__(self, profits):
        object.__setattr__(self, "_profits", profits)

    def profits(self):
        return self._profits

    __slots__ = ("_profits",)


def standing(long_term=0.1, short_term=0.02, precision=1.0, quotes=0.015, gross=1.0, tilt=0.5):
    wishes = StandingWishes()
    if long_term is not None:
        wishes.post([LongTermWish(BTC, 0, FOREVER, (0.0,) * 4, long_term, long_term, precision, (1 / 3, 1 / 3, 1 / 3), 0.02)])
    if short_term is not None:
        wishes.post([ShortTermWish(BTC, 0, FOREVER, (0.0,) * 4, tilt, short_term, 0.9, 1.0, 0.1, 1.0)])
    wishes.post([MarketMakingWish(BTC, 0, FOREVER, (0.0,) * 6, 0.0015, 0.0017, quotes, quotes, 0.0, False), RiskWish(0, FOREVER, (0.0, 0.0), gross, 0.9)])
    return wishes


def lived(params, gains, hours=200, wishes=None):
    """A coordinator after so many hours in which each agent earned `gains(agent, hour)` of equity; and its last target."""
    coordinator, total = make_coordinator(params), dict.fromkeys(BUDGETED, 0.0)
    target = None
    for hour in range(hours):
        total = {agent: total[agent] + gains(agent, hour) for agent in BUDGETED}
        target = coordinator.coordinate(wishes or standing(), (BTC, ETH), hour * HOUR, {BTC: 0.03}, Told(total))
    return coordinator, target


def wave(agent, hour):
    """Long-term earns steadily, short-term loses, the market maker breaks even; all with the same spread."""
    return {"long_term": 0.001, "short_term": -0.001, "market_making": 0.0}[agent] + (0.002 if hour % 2 else -0.002)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_without_evidence_every_learning_strategy_is_the_default_to_the_last_bit(strategy):
    wishes = standing(0.0837, 0.0213, 2.7)
    made = make_coordinator(CoordinatorParams(strategy=strategy)).coordinate(wishes, (BTC, ETH), 5, {BTC: 0.0123})
    if strategy != "band":
        assert made == coordinate(wishes, (BTC, ETH), 5, {BTC: 0.0123})
    assert made.weights[ETH] == 0.0 and made.gross_multiplier == 1.0


def test_the_default_learns_nothing():
    coordinator, target = lived(replace(QUICK, strategy="precision"), wave)
    assert target == coordinate(standing(), (BTC, ETH), 199 * HOUR, {BTC: 0.03}) and coordinator.trusted() == {}


# -- confidence --------------------------------------------------------------------------------------------------------


def test_confidence_is_the_shrunk_sharpe_ratio_of_what_was_realised():
    coordinator, _ = lived(replace(QUICK, strategy="confidence"), wave, hours=400)
    count = 48.0  # two days of hours
    spread = 0.002 * sqrt(count / (count - 1))
    tau = 2.0 * sqrt(1 / 8760)
    sharpe = 0.001 / spread
    posterior = sharpe * count * tau**2 / (count * tau**2 + 1 + sharpe**2 / 2)
    expected = 4 ** tanh(posterior / tau)
    trusted = coordinator.trusted()
    assert trusted["long_term"] == pytest.approx(expected, rel=0.05) and trusted["long_term"] > 1.5
    assert trusted["short_term"] == pytest.approx(1 / expected, rel=0.05)
    assert trusted["market_making"] == pytest.approx(1.0, rel=0.05)


def test_confidence_shifts_the_blend_and_quotes_but_raises_nothing():
    params = replace(QUICK, strategy="confidence", sharpe_scale=8.0)
    _, target = lived(params, wave, hours=400)
    plain = coordinate(standing(), (BTC, ETH), 0, {BTC: 0.03})
    assert target.contributions[BTC]["long_term"] == plain.contributions[BTC]["long_term"]
    assert 0 < target.contributions[BTC]["short_term"] < 0.5 * plain.contributions[BTC]["short_term"]
    _, poor = lived(params, lambda agent, hour: wave("short_term" if agent == "market_making" else "long_term", hour), hours=400)
    assert poor.quotes[BTC].bid_size < 0.7 * plain.quotes[BTC].bid_size and poor.contributions[BTC]["market_making"] < 0.03
    assert poor.contributions[BTC]["short_term"] == pytest.approx(plain.contributions[BTC]["short_term"])


@pytest.mark.parametrize("hours", [0, 1, 2])
def test_little_evidence_says_little(hours):
    coordinator, _ = lived(replace(QUICK, strategy="confidence"), lambda agent, hour: 0.5 * hour, hours=hours + 1)
    assert all(abs(log(factor)) < 0.12 for factor in coordinator.trusted().values())


def test_who_never_traded_is_not_judged():
    coordinator, _ = lived(replace(QUICK, strategy="confidence"), lambda agent, hour: 0.001 * (hour % 3) if agent == "long_term" else 0.0)
    trusted = coordinator.trusted()
    assert trusted["short_term"] == trusted["market_making"] == 1.0 < trusted["long_term"]


# -- band --------------------------------------------------------------------------------------------------------------


@given(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3), st.floats(-0.999999, 0.999999), st.floats(0.01, 0.99), st.floats(0, 1))
def test_the_short_term_agent_stays_strictly_inside_the_long_term_band(long_term, short_term, tilt, gross, band):
    short_term = abs(short_term) if tilt > 0 else -abs(short_term)
    wishes = standing(long_term, short_term, gross=gross, tilt=tilt)
    weight = Band(CoordinatorParams(strategy="band", band=band, long_only=False)).coordinate(wishes, (BTC,), 0).weights[BTC]
    width = band * gross * abs(long_term)
    assert abs(weight - gross * long_term) < width or (width < 1e-12 and weight == pytest.approx(gross * long_term, abs=1e-12))
    assert weight * long_term >= 0
    assert abs(weight - gross * long_term) <= gross * abs(short_term) + 1e-15


def test_the_band_by_numbers():
    params = CoordinatorParams(strategy="band", band=0.25)
    target = make_coordinator(params).coordinate(standing(0.2, 0.1, precision=4.0, gross=0.5, tilt=-0.8), (BTC,), 0)
    assert target.contributions[BTC] == {"long_term": pytest.approx(0.1), "short_term": pytest.approx(-0.25 * 0.1 * 0.8)}
    assert make_coordinator(params).coordinate(standing(None, 0.1), (BTC,), 0).weights[BTC] == 0.0
    assert make_coordinator(params).coordinate(standing(0.2, None), (BTC,), 0).weights[BTC] == 0.2


# -- gating ------------------------------------------------------------------------------------------------------------


def test_the_gate_moves_to_who_earns_and_back():
    params = replace(QUICK, strategy="gating")
    coordinator, target = lived(params, wave)
    gate = coordinator.gate()
    assert gate["long_term"] > gate["market_making"] > gate["short_term"] and sum(gate.values()) == pytest.approx(1.0)
    trusted = coordinator.trusted()
    assert trusted["long_term"] == 1.0 and trusted["short_term"] < 0.4
    assert target.contributions[BTC]["short_term"] == pytest.approx(0.02 * trusted["short_term"])
    assert target.quotes[BTC].bid_size == pytest.approx(0.015 * trusted["market_making"])
    even = (1 - params.gate_floor) * min(coordinator._gate.values()) + params.gate_floor / 3
    assert gate["short_term"] == pytest.approx(even)  # the floor is served, whatever was learned
    turned, _ = lived(params, lambda agent, hour: wave(agent, hour) * (1 if hour < 200 else -1), hours=400)
    assert turned.trusted()["short_term"] == 1.0 > turned.trusted()["long_term"]


def test_an_agent_is_judged_by_its_own_size():
    coordinator, _ = lived(replace(QUICK, strategy="gating"), lambda agent, hour: wave(agent, hour) * (0.01 if agent == "long_term" else 1))
    assert coordinator.trusted()["long_term"] == 1.0


def test_the_first_step_is_hedge_by_hand():
    params = replace(QUICK, strategy="gating", gate_floor=0.0)
    coordinator, _ = lived(params, lambda agent, hour: 0.001 if agent == "long_term" and hour == 1 else 0.0, hours=2)
    eta, share = sqrt(2 * log(3) / 48), 1 / 48
    up = 2.718281828459045 ** (eta / 3)  # a profit of once its root mean square is a third of the reward's range
    assert coordinator.gate()["long_term"] == pytest.approx((1 - share) * up / (up + 2) + share / 3)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(STRATEGIES), st.lists(st.tuples(*[st.floats(-0.05, 0.05)] * 3), min_size=2, max_size=40), st.floats(0, 1), st.floats(1, 50))
def test_no_evidence_makes_a_wish_larger_than_its_agent_made_it(strategy, history, floor, trust):
    params = CoordinatorParams(strategy=strategy, memory_days=1, gate_floor=floor, trust=trust, sharpe_scale=20.0, inventory_limit=0.05)
    gains = {agent: [row[i] for row in history] for i, agent in enumerate(BUDGETED)}
    coordinator, target = lived(params, lambda agent, hour: gains[agent][hour], hours=len(history))
    parts, quotes = target.contributions[BTC], target.quotes[BTC]
    assert 0.0 <= parts["long_term"] <= 0.1 and 0.0 <= parts["short_term"] <= 0.02 + 1e-15
    assert 0.0 < parts["market_making"] <= 0.03 and 0.0 < quotes.bid_size <= 0.015 and 0.0 < quotes.ask_size <= 0.015
    assert target.weights[BTC] == sum(parts.values())
    for factor in coordinator.trusted().values():
        assert 1 / trust - 1e-12 <= factor <= trust + 1e-12 if strategy == "confidence" else 0.0 < factor <= 1.0
    again, same = lived(params, lambda agent, hour: gains[agent][hour], hours=len(history))
    assert (same, again.trusted()) == (target, coordinator.trusted())  # a function of the facts, bit for bit


# -- evidence ----------------------------------------------------------------------------------------------------------


def test_a_period_is_told_once_and_a_longer_silence_is_one_observation_of_its_size():
    track, profits = Track(3600), dict.fromkeys(BUDGETED, 0.0)
    assert track.observe(0, Told(profits)) is None
    assert track.observe(HOUR - 1, Told(profits | {"long_term": 1.0})) is None
    assert track.observe(HOUR, Told(profits | {"long_term": 0.3})) == profits | {"long_term": 0.3}
    assert track.observe(HOUR + 1, Told(profits)) is None
    assert track.observe(5 * HOUR, Told(profits | {"long_term": 0.5}))["long_term"] == pytest.approx(0.1)
    assert track.observe(6 * HOUR, None) is None
    assert track.observe(6 * HOUR, Told(None)) is None  # a mark is missing: the period waits
    assert track.observe(7 * HOUR, Told(profits))["long_term"] == pytest.approx(-0.5 / sqrt(2))


def test_evidence_is_what_the_sub_accounts_are_worth():
    world = World()
    world.own(BTC, 0.1)
    world.book(BTC, "55000")
    evidence = Evidence(world.attribution, world.marks(), world.equity())
    assert evidence.profits() == {"long_term": pytest.approx(100 / 10100), "short_term": 0.0, "market_making": 0.0}
    assert Evidence(world.attribution, {}, world.equity()).profits() is None


def test_moments_forget_and_count():
    moments = Moments(48.0)
    assert (moments.count, moments.sharpe) == (0.0, 0.0)
    moments.update(1.0)
    assert (moments.count, moments.sharpe) == (1.0, 0.0)
    for value in [1.0, 3.0] * 300:
        moments.update(value)
    assert moments.count == pytest.approx(48.0) and moments.sharpe == pytest.approx(2.0 / sqrt(48 / 47), rel=0.05)
    two = Moments(1e9)
    two.update(1.0)
    two.update(3.0)
    assert two.sharpe == pytest.approx(2.0 / sqrt(2.0))  # the sample deviation of two observations


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"strategy": "vote"}, "coordinator.strategy"), ({"band": 1.5}, "coordinator.band"), ({"trust": 0.5}, "coordinator.trust"),
        ({"period_s": 0.0}, "coordinator.period_s"), ({"memory_days": 0.01}, "coordinator.memory_days"), ({"silent_gross": float("nan")}, "silent_gross"),
        ({"sharpe_scale": 0.0}, "sharpe_scale"), ({"gate_floor": -0.1}, "gate_floor"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(changes, word):
    with pytest.raises(ConfigError, match=word):
        CoordinatorParams(**changes)
