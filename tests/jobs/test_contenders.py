"""Contenders live alike: same costs, same bars, no future; an agent that does nothing is its prior."""

from dataclasses import replace

import numpy as np
import pytest

from agents.core.errors import DataError
from agents.environment.kernel import VectorCosts
from agents.jobs.baselines import BASELINES, long_term_prior
from agents.jobs.contenders import BASELINE, DESK, PRIOR, Desk, Track, Window, follow, live, mean_track, traded
from agents.jobs.weights import joined
from agents.market.history import CandleHistory, hour_features
from agents.market.observation import SPEC_HASH
from agents.market.synthetic_candles import random_walk_history
from agents.serving.actors import Actors

COSTS = VectorCosts()
HISTORY = random_walk_history(3, 24 * 60, seed=4)
FEATURES = hour_features(HISTORY)
WINDOW = Window(HISTORY, 24 * 20, 24 * 60)
MULTIPLES = (0.0, 1.0, 4.0)


def alone(name: str = "equal_weight", window: Window = WINDOW, **more) -> list[Track]:
    return follow(name, BASELINE, window, BASELINES[name](window.history, window.start), COSTS, **more)


def test_an_agent_that_does_nothing_is_its_prior():
    idle = Actors.from_payload(joined({}), SPEC_HASH)
    tracks = live(WINDOW, FEATURES, {7: idle}, COSTS, multiples=MULTIPLES)
    path = long_term_prior(HISTORY, FEATURES)
    followed = follow("prior", PRIOR, WINDOW, path, COSTS, DESK.limits, MULTIPLES)
    assert [(track.seed, track.multiple) for track in tracks] == [(seed, m) for seed in (None, 7) for m in MULTIPLES]
    for prior, agent, rule in zip(tracks[:3], tracks[3:], followed, strict=True):
        assert agent.returns == pytest.approx(prior.returns, abs=1e-12)
        assert rule.returns == pytest.approx(prior.returns, abs=1e-5)  # the path's float32 columns are the same, its additions are not
    assert (tracks[0].kind, tracks[3].kind) == ("prior", "agent")
    assert tracks[0].gross > 0.05


def test_costs_are_paid_and_are_no_gift():
    free, paid, dear = alone("inverse_volatility", multiples=MULTIPLES)
    assert free.cost == 0.0 < paid.cost < dear.cost
    assert free.figures.growth > paid.figures.growth > dear.figures.growth
    assert paid.cost == pytest.approx(paid.turnover * (COSTS.fee_bps + COSTS.half_spread_bps) * 1e-4, rel=1e-3)


def test_a_delay_is_the_path_of_a_bar_ago():
    rng = np.random.default_rng(1)
    path = rng.random(HISTORY.close.shape) / 4
    late = np.vstack([np.zeros((1, 3)), path[:-1]])
    late[WINDOW.start] = 0.0
    free = VectorCosts(fee_bps=0.0, half_spread_bps=0.0)
    (delayed,) = follow("late", BASELINE, WINDOW, path, free, delay=1)
    (shifted,) = follow("late", BASELINE, WINDOW, late, free)
    (usual,) = follow("usual", BASELINE, WINDOW, path, free)
    assert delayed.returns == pytest.approx(shifted.returns, abs=1e-12)
    assert np.abs(delayed.returns - usual.returns).max() > 1e-4
    assert (delayed.delay, usual.delay) == (1, 0)


@pytest.mark.parametrize("kind", ["baseline", "agent"])
def test_nobody_sees_beyond_the_window(kind):
    window = Window(HISTORY, 24 * 20, 24 * 40)
    wild = {name: getattr(HISTORY, name).copy() for name in ("open", "high", "low", "close")}
    for values in wild.values():
        values[24 * 40 :] *= 5.0
    other = Window(replace(HISTORY, **wild), window.start, window.stop)
    if kind == "baseline":
        ours, theirs = alone(window=window), alone(window=other)
    else:
        ours, theirs = (live(each, hour_features(each.history), {}, COSTS) for each in (window, other))
    assert np.array_equal(ours[0].returns, theirs[0].returns)
    assert len(window.ended.times) == window.stop
    assert ours[0].days[-1] <= HISTORY.closings[window.stop - 1] + 86_400 * 10**9


def test_the_risk_agent_and_the_ladder_tighten():
    (bare,) = live(WINDOW, FEATURES, {}, COSTS)
    (shipped,) = live(WINDOW, FEATURES, {}, COSTS, Desk(risk="prior"))
    assert shipped.gross < bare.gross


def test_the_mean_of_tracks_is_of_the_same_days():
    first, second = alone("buy_and_hold")[0], alone("inverse_volatility")[0]
    mean = mean_track([first, second])
    assert mean.returns == pytest.approx((first.returns + second.returns) / 2)
    assert mean.turnover == pytest.approx((first.turnover + second.turnover) / 2)
    with pytest.raises(DataError, match="different days"):
        mean_track([first, replace(second, days=second.days + 1)])


def test_candles_in_which_nothing_was_traded_are_none():
    volume = HISTORY.volume.copy()
    volume[:50, 0] = 0.0
    found = traded(CandleHistory(
        HISTORY.symbols, "1h", HISTORY.times, HISTORY.open, HISTORY.high, HISTORY.low, HISTORY.close, volume
    ))  # fmt: skip
    assert not found.listed[:50, 0].any()
    assert found.listed[50:].all() and found.listed[:, 1:].all()


@pytest.mark.parametrize(("start", "stop"), [(-1, 50), (10, 11), (10, 24 * 60 + 1)])
def test_a_window_lies_inside_its_history(start, stop):
    with pytest.raises(DataError, match="no window"):
        Window(HISTORY, start, stop)
