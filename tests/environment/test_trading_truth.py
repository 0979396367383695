"""One truth: the fast lane, the rooms and a backtest over the same engine fill, pay and end alike, to the last digit."""

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.events import Event, Fill
from agents.desk.decision import Effects, EngineConfig
from agents.desk.limits import Limits
from agents.environment import presets
from agents.environment.desk import Guests, Portfolio
from agents.environment.eligible import fits
from agents.environment.lane import Lane
from agents.environment.rooms import Rooms
from agents.environment.sources import Candles
from agents.environment.trading import TradingEnvironment
from agents.jobs.backtest import Backtest
from agents.market.frictions import CandleBook, FixedLatency, Frictions, MakerTakerFee, NoImpact, SquareRootImpact
from agents.market.history import CandleHistory
from agents.market.tape.memory import history_tape
from tests.environment.trading_world import noise, walk

CAPITAL = 50_000.0
SOLVER = 1e-6
"""Of equity: what an interior-point solution may be off by."""
FEW = 10
"""Lots that it may fall on beside the exact solution's."""


class Scripted(Portfolio):
    """The environment's desk with its wishes known beforehand: what a backtest can drive."""

    def __init__(self, config: EngineConfig, script: list[dict[str, float]], timeframe: str | None) -> None:
        super().__init__(config, presets.AT_MARKET, timeframe)
        self._script, self.fills = iter(script), list[Fill]()

    def step(self, event: Event) -> Effects:
        if isinstance(event, Fill):
            self.fills.append(event)
        effects = super().step(event)
        if self.asked is None:
            return effects
        return self.answer(next(self._script, {}))


def told(fill: Fill) -> tuple[str, float, float, float]:
    return fill.symbol, float(fill.quantity) * fill.side.value, float(fill.price), float(fill.fee)


def rounded(fills: list[tuple[str, float, float, float]]) -> list[tuple[str, float, float, float]]:
    return [(symbol, round(quantity, 9), round(price, 9), round(fee, 9)) for symbol, quantity, price, fee in fills]


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("timeframe", ["1h", "1d", "5m"])
def test_a_backtest_over_the_same_engine_does_the_same(monkeypatch, fast, timeframe):
    history = walk(4, 70, seed=2, timeframe=timeframe)
    env = TradingEnvironment(history, capital=CAPITAL, fast=fast)
    env.reset(seed=0)
    actions, fills, curve = noise(env, 40), list[tuple[str, float, float, float]](), list[float]()
    for action in actions:
        info = env.step(action)[4]
        fills += info["fills"]
        curve.append(info["equity"])
    script = [dict(zip(env.symbols, (action.astype(np.float64) * 0.2).tolist(), strict=True)) for action in actions]
    desks: list[Scripted] = []
    monkeypatch.setattr("agents.jobs.backtest.Engine", lambda config: desks.append(Scripted(config, script, timeframe)) or desks[-1])
    tape = history_tape(history.rows(0, 41))
    backtest = Backtest(env.config, list(tape.instruments.values()), Decimal(repr(CAPITAL)), presets.REALISTIC)
    backtest.run(tape.events())
    assert len(fills) > 40
    assert rounded([told(fill) for fill in desks[0].fills]) == rounded(fills)
    assert backtest.engine.equity() == curve[-1]
    assert backtest.report()["ledger_difference"] == 0
    assert float(desks[0].fees_in_quote()) == pytest.approx(sum(fill[3] for fill in fills), abs=1e-9)


def players(
    history: CandleHistory, limits: Limits, frictions: Frictions = presets.REALISTIC, capital: float = CAPITAL
) -> tuple[Lane, Rooms]:
    env = TradingEnvironment(history, limits=limits, frictions=frictions, capital=capital, fast=True)
    source, config = env.source, env.config
    assert isinstance(source, Candles)
    assert fits(source, config, presets.AT_MARKET, frictions)
    arguments = (source, config, presets.AT_MARKET, Decimal(repr(capital)), frictions, 0)
    return Lane(*arguments), Rooms(*arguments)


def equal(lane: Lane, rooms: Rooms, wishes: np.ndarray, row: int = 0, beyond: bool = True) -> int:
    """Play both and compare every step, `beyond` the first that a bound on the whole book holds; how many fills there were."""
    lane.reset(0, row)
    rooms.reset(0, row)
    fills, exact = 0, True
    for wish in wishes:
        one, other = lane.play(wish), rooms.play(wish)
        fills += len(one.fills)
        exact = exact and all(symbol is not None for _, symbol in (*one.bound, *other.bound))
        if exact:
            assert rounded(one.fills) == rounded(other.fills)
            assert one.equity == other.equity
            assert lane.drawdown == rooms.drawdown
        # From where a bound on the whole book was solved for, the solver's own tolerance is between the two: lots, not basis points.
        lots = sum(float(i.lot) * mark for i, mark in zip(lane.instruments, lane.marks().tolist(), strict=True)) / one.equity
        digits = 1e-12 if exact else SOLVER + FEW * lots
        assert one.equity == pytest.approx(other.equity, rel=digits)
        assert [limit for limit in one.bound if limit[1] is None] == [limit for limit in other.bound if limit[1] is None]
        assert exact is False or one.bound == other.bound
        assert (one.terminated, one.elapsed_ns) == (other.terminated, other.elapsed_ns)
        assert one.turnover == pytest.approx(other.turnover, abs=digits)
        for name in ("weights", "held", "returns"):
            assert np.allclose(getattr(one, name), getattr(other, name), rtol=0, atol=1e-9 if exact else digits)
        for name in ("profit", "costs"):
            assert np.allclose(getattr(one, name), getattr(other, name), rtol=0, atol=1e-6 + (0 if exact else digits * one.equity))
        if one.terminated or one.truncated or not (exact or beyond):
            break
    return fills


LIMITS = [
    presets.FREE_HAND,
    Limits(),
    replace(presets.FREE_HAND, turnover_day=0.4),
    replace(presets.FREE_HAND, position_cap=0.5, cash_buffer=0.0, turnover_cost_bps=0.0),
    replace(presets.FREE_HAND, drawdown_warn=0.002, drawdown_stop=0.004, drawdown_reduce=0.008, drawdown_flatten=0.012),
    replace(presets.FREE_HAND, min_order_notional=200.0, slippage=0.0008, max_order_notional=0.02),
]


@pytest.mark.parametrize("limits", LIMITS)
def test_the_lane_is_the_rooms_under_every_limit_that_it_knows(limits):
    history = walk(4, 45, seed=7)
    lane, rooms = players(history, limits)
    rng = np.random.default_rng(1)
    assert equal(lane, rooms, rng.uniform(-1, 1, (40, 4)) * limits.position_cap) > 20
    assert equal(lane, rooms, rng.uniform(0.5, 1, (15, 4)) * limits.position_cap, row=20) > 5


FRICTIONS = [
    Frictions(latency=FixedLatency(1), candles=CandleBook(half_spread=Decimal("0.0005"), levels=1, depth=Decimal("0.001"))),
    Frictions(MakerTakerFee(Decimal(0), Decimal("0.00075")), FixedLatency(10**9, 10**9), impact=NoImpact(), candles=CandleBook(levels=5)),
    Frictions(latency=FixedLatency(5 * 10**7), impact=SquareRootImpact(Decimal("0.004")), candles=CandleBook()),
]


@pytest.mark.parametrize("frictions", FRICTIONS)
def test_the_lane_is_the_rooms_under_other_frictions(frictions):
    lane, rooms = players(walk(3, 30, seed=3), presets.FREE_HAND, frictions)
    wishes = np.random.default_rng(2).uniform(-0.2, 0.2, (29, 3))
    assert equal(lane, rooms, wishes) > 10


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000), symbols=st.integers(1, 5), capital=st.sampled_from([60.0, 1_000.0, 1e5, 3e7]),
    lean=st.floats(-1, 1), cap=st.sampled_from([0.05, 0.2, 1.0]), grid=st.booleans(),
)  # fmt: skip
def test_the_lane_is_the_rooms_on_any_candles(seed, symbols, capital, lean, cap, grid):
    options = {"volatility": 3.0}
    history = walk(symbols, 12, seed, **options)
    if not grid:  # prices and volumes with as many digits as a float has
        rng = np.random.default_rng(seed)
        factor = rng.uniform(0.001, 50.0, symbols)
        fields = (np.asarray(values * factor) for values in (history.open, history.high, history.low, history.close))
        history = CandleHistory(history.symbols, history.timeframe, history.times, *fields, history.volume * rng.uniform(0.01, 3.0))
    lane, rooms = players(history, replace(presets.FREE_HAND, position_cap=cap), capital=capital)
    wishes = np.random.default_rng(seed).uniform(-1, 1, (11, symbols))
    equal(lane, rooms, np.clip(wishes + lean, -1, 1) * cap, beyond=False)


def test_two_traders_on_a_book_that_stands_still_share_it():
    """What was taken of a level that shows the same again stays taken, in the lane as in the matcher."""
    still = walk(1, 2)
    prices, volume = np.full((12, 1), 50.25), np.full((12, 1), 300.0)
    times = still.times[0] + still.length * np.arange(12)
    history = CandleHistory(still.symbols, "1h", times, prices, prices, prices, prices, volume)
    lane, rooms = players(history, replace(presets.FREE_HAND, position_cap=1.0), capital=5_000.0)
    assert equal(lane, rooms, np.array([[1.0], [1.0], [0.0], [1.0], [0.02], [1.0], [1.0], [0.0]])) > 3


def test_what_the_lane_does_not_know_is_left_to_the_rooms():
    history = walk(2, 40)
    holes = history.close.copy()
    holes[5, 0] = np.nan
    arrays = [np.where(np.isnan(holes), np.nan, values) for values in (history.open, history.high, history.low, history.close, history.volume)]
    gappy = CandleHistory(history.symbols, "1h", history.times, *arrays)
    for options in (
        {"source": gappy},
        {"source": history, "limits": replace(presets.FREE_HAND, cvar=0.05)},
        {"source": history, "limits": replace(presets.FREE_HAND, herfindahl=0.3)},
        {"source": history, "style": replace(presets.AT_MARKET, urgency=0.5)},
        {"source": history, "frictions": replace(presets.REALISTIC, fee_currency="received")},
        {"source": history, "frictions": replace(presets.REALISTIC, latency=FixedLatency(4_000_000_000_000))},
    ):
        env = TradingEnvironment(**options)
        assert not env._episode.fast
        env.reset(seed=0)
        env.step(np.ones(2, np.float32) * 0.5)


def test_an_agent_s_chair_is_the_engine_s_own_with_the_prior_in_it():
    """Zero action is the prior: a desk whose long-term agent acts from outside decides as one that needs nobody."""
    history = walk(2, 90, seed=5)
    env = TradingEnvironment(history, form="long_term", warmup=40, capital=CAPITAL)
    env.reset(seed=0)
    curve, ended = [], False
    while not ended:
        *_, terminated, truncated, info = env.step(np.zeros((2, 4), np.float32))
        curve.append(info["equity"])
        ended = terminated or truncated
    seat = env._episode
    guest, stage = seat.desk, seat.stage

    class Alone(Guests):
        """Asks nobody."""

        def __init__(self, config: EngineConfig) -> None:
            super().__init__(config, (), seat._params, "1h")

    facts, opens_at = env.source.facts(0, 40, 40)
    alone = type(stage)(Alone(guest.config), env.source.instruments, Decimal(repr(CAPITAL)), presets.REALISTIC, facts, opens_at)
    for _ in alone.run():
        raise AssertionError("nobody was to be asked")
    assert guest.ledger.fill_count > 0
    assert alone.decision is not None
    assert alone.decision.equity == float(guest.sitting.equity)
    assert alone.orders > 0
    assert [e.symbol for e in env.experiences] == list(env.symbols)  # the last action was judged, too
