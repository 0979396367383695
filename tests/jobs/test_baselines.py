"""Baselines hold what they say, know nothing of the future, and the prior is the agent's own at action 0."""

import numpy as np
import pytest

from agents.core.errors import ConfigError, DataError
from agents.core.instruments import Symbol
from agents.desk.long_term import LongTerm, LongTermParams
from agents.desk.wishes import LONG_TERM
from agents.jobs.baselines import (
    BASELINES,
    buy_and_hold,
    cash,
    equal_weight,
    held,
    inverse_volatility,
    long_term_prior,
    midnights,
    short_term_prior,
)
from agents.market.columns import HOUR_COLUMNS, SPECS
from agents.market.history import CandleHistory, hour_features
from agents.market.observation import Observation

HOUR = 3600 * 10**9
START = 1_700_006_400 * 10**9  # a midnight UTC


def made(bars: int = 400, symbols: int = 3, seed: int = 1, listed_from: int = 0, deviation: tuple[float, ...] = (0.01, 0.02, 0.04)) -> CandleHistory:
    """Random walks by the hour; the last symbol is listed from row `listed_from`."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(size=(bars, symbols)) * deviation[:symbols], axis=0))
    opened = np.concatenate([close[:1], close[:-1]])
    prices = [opened, np.maximum(opened, close) * 1.001, np.minimum(opened, close) * 0.999, close, np.full_like(close, 10.0)]
    for values in prices:
        values[:listed_from, -1] = np.nan
    prices[0][listed_from, -1] = close[listed_from, -1]
    names = tuple(Symbol(f"{name}/USDT") for name in "ABCD"[:symbols])
    return CandleHistory(names, "1h", START + HOUR * np.arange(bars, dtype=np.int64), *prices)


def grown(history: CandleHistory, path: np.ndarray) -> np.ndarray:
    """Weights after one more bar of prices, left alone."""
    value = path[:-1] * (1.0 + history.returns()[1:])
    return value / (value.sum(1) + 1.0 - path[:-1].sum(1))[:, None]


def test_what_is_bought_and_held_is_never_traded():
    history = made()
    path = buy_and_hold(history, gross=0.98)
    assert path[0] == pytest.approx([0.98 / 3] * 3)
    assert path[1:] == pytest.approx(grown(history, path))


def test_equal_weight_trades_at_midnight_alone():
    history = made()
    path = equal_weight(history)
    at = midnights(history)
    assert np.flatnonzero(at)[:3].tolist() == [0, 23, 47]  # the row that closes at midnight
    assert path[at] == pytest.approx(np.full((at.sum(), 3), 1 / 3))
    assert path[1:][~at[1:]] == pytest.approx(grown(history, path)[~at[1:]])


def test_inverse_volatility_gives_the_wild_less():
    history = made(bars=2000, seed=3)
    path = inverse_volatility(history)
    last = path[np.flatnonzero(midnights(history))[-1]]
    assert last == pytest.approx(np.array([4, 2, 1]) / 7, rel=0.15)
    assert (path[:200] == 0).all()  # no third of thirty days yet
    assert path[midnights(history)][20:].sum(1) == pytest.approx(1.0)


@pytest.mark.parametrize("name", [*BASELINES])
def test_a_symbol_takes_part_from_its_listing(name):
    history = made(bars=1500, listed_from=500)
    path = BASELINES[name](history, 0)
    assert np.isfinite(path).all()
    assert (path >= 0).all() and (path.sum(1) <= 1 + 1e-9).all()
    assert (path[:500, -1] == 0).all()
    assert (path[900:, -1] > 0).all() == (name != "buy_and_hold")


@pytest.mark.parametrize("name", [*BASELINES])
def test_a_rule_may_begin_later(name):
    history = made(bars=1500, listed_from=500)
    path = BASELINES[name](history, 900)
    assert (path[:900] == 0).all()
    assert path[900].sum() == pytest.approx(1.0)
    assert (path[900:] > 0).all()


@pytest.mark.parametrize("rule", [*BASELINES.values(), lambda h: long_term_prior(h, hour_features(h))])
def test_no_rule_knows_the_future(rule):
    history = made(bars=600)
    wild = made(bars=600)
    for values in (wild.open, wild.high, wild.low, wild.close):
        values[400:] *= 3.0
    assert np.array_equal(rule(history)[:400], rule(wild)[:400])
    assert cash(history).sum() == 0


def test_held_waits_for_its_first_moment():
    history = made(bars=30)
    moments = np.zeros(30, dtype=bool)
    moments[10] = True
    path = held(history, np.full((30, 3), 0.2), moments)
    assert (path[:10] == 0).all()
    assert path[10] == pytest.approx([0.2] * 3)


@pytest.mark.parametrize("prior", ["trend", "sign", "none"])
def test_the_prior_is_the_agents_own_at_action_0(prior):
    history = made(bars=3000, seed=5)
    features = hour_features(history)
    params = LongTermParams(prior=prior)
    path = long_term_prior(history, features, params)
    for row in (0, 100, 1500, 2999):
        matrix = np.zeros((3, SPECS[LONG_TERM].size), dtype=np.float32)
        matrix[:, : len(HOUR_COLUMNS)] = features[row]
        seen = Observation(LONG_TERM, history.symbols, int(history.closings[row]), matrix)
        wishes = LongTerm(params).propose(seen, np.zeros((3, 4), dtype=np.float32))
        assert path[row] == pytest.approx([wish.weight for wish in wishes], rel=1e-12)
    assert (np.abs(path[2999]).sum() > 0) == (prior != "none")


def test_what_has_no_candle_is_not_wished_for():
    history = made(bars=700, seed=5)
    fields = {name: getattr(history, name).copy() for name in ("open", "high", "low", "close", "volume")}
    for values in fields.values():
        values[600:610, 0] = np.nan
    holed = CandleHistory(history.symbols, "1h", history.times, **fields)
    path = long_term_prior(holed, hour_features(holed))
    assert np.isfinite(path).all()
    assert (path[600:610, 0] == 0).all() and (path[590:600, 0] != 0).all() and (path[611:, 0] != 0).all()


def minutes(bars: int = 600) -> CandleHistory:
    hours = made(bars)
    times = START + 60 * 10**9 * np.arange(bars, dtype=np.int64)
    return CandleHistory(hours.symbols, "1m", times, hours.open, hours.high, hours.low, hours.close, hours.volume)


def test_the_short_term_prior_asks_for_more_than_its_costs():
    history = minutes()
    free, dear = (short_term_prior(history, fee, 0.0) for fee in (0.0, 0.05))
    assert free.shape == history.close.shape
    assert np.abs(free).sum() > 1.0
    assert np.abs(dear).sum() < 0.05 * np.abs(free).sum()


def test_the_short_term_prior_is_for_minutes():
    with pytest.raises(DataError, match="candles of a minute, these are 1h"):
        short_term_prior(made(60), 0.001, 0.0)


def test_features_of_another_history_are_refused():
    history = made(bars=60)
    with pytest.raises(ConfigError, match="do not belong"):
        long_term_prior(history, hour_features(made(bars=61)))
