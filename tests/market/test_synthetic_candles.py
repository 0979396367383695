"""The sceptics' markets: nothing can be known in one, exactly so much in the other."""

import numpy as np
import pytest

from agents.core.errors import ConfigError
from agents.market.synthetic_candles import louder, planted_alpha_history, random_walk_history

YEAR = 365 * 24


def test_a_random_walk_is_a_martingale_with_the_volatility_and_correlation_asked_for():
    history = random_walk_history(4, 3 * YEAR, seed=1, volatility=0.8, correlation=0.3)
    returns = history.returns()[1:]
    assert returns.std() * np.sqrt(YEAR) == pytest.approx(0.8, rel=0.05)
    assert np.corrcoef(returns.T)[np.triu_indices(4, 1)].mean() == pytest.approx(0.3, abs=0.05)
    wild = random_walk_history(8, 12 * 365, seed=1, timeframe="1d", volatility=3.0, correlation=0.0).returns()[1:]
    assert abs(wild.mean() * 365) < 3 * 3.0 / np.sqrt(12 * 8)  # log returns of mean 0 would drift by sigma^2 / 2 = 4.5
    squares = returns**2 - (returns**2).mean()
    assert (squares[1:] * squares[:-1]).mean() / (squares**2).mean() > 0.05  # volatility clusters
    moved = returns[1:] * np.sign(returns[:-1])
    assert abs(moved.mean() / moved.std()) < 4 / np.sqrt(moved.size)  # and direction does not


def test_candles_follow_each_other_and_reach_beyond_open_and_close():
    history = random_walk_history(("BTC/USDT", "ETH/USDT"), 500, seed=3)
    assert history.symbols == ("BTC/USDT", "ETH/USDT") and history.times[0] % history.length == 0
    np.testing.assert_array_equal(history.open[1:], history.close[:-1])
    assert (history.high > np.maximum(history.open, history.close)).mean() > 0.99 and (history.volume > 0).all()
    again, other = random_walk_history(history.symbols, 500, seed=3), random_walk_history(history.symbols, 500, seed=4)
    np.testing.assert_array_equal(again.close, history.close)
    assert not np.array_equal(other.close, history.close)


@pytest.mark.parametrize("in_prices", [False, True])
@pytest.mark.parametrize("half_life", [2.0, 24.0])
def test_the_known_rule_earns_the_planted_sharpe_ratio(half_life, in_prices):
    history, signal = planted_alpha_history(6, 12 * YEAR, seed=5, sharpe=3.0, half_life=half_life, in_prices=in_prices)
    returns = history.close[1:] / history.open[1:] - 1.0
    earned = (signal[:-1] * returns).sum(axis=1)
    ratio = earned.mean() / earned.std() * np.sqrt(YEAR)
    assert ratio == pytest.approx(3.0, abs=2.5 / np.sqrt(12))
    late = (signal[1:] * returns).sum(axis=1)  # what is known only with the bar itself is another thing
    assert in_prices == (late.mean() / late.std() * np.sqrt(YEAR) > 10.0)
    before = (signal[1:-1] * returns[:-1]).sum(axis=1)
    assert signal.std() == pytest.approx(1.0, abs=0.05) and (in_prices or abs(before.mean() / before.std() * np.sqrt(YEAR)) < 5.0)


def test_a_planted_ratio_may_be_negative_or_none():
    for sharpe in (-3.0, 0.0):
        history, signal = planted_alpha_history(6, 12 * YEAR, seed=2, sharpe=sharpe)
        earned = (signal[:-1] * (history.close[1:] / history.open[1:] - 1.0)).sum(axis=1)
        assert earned.mean() / earned.std() * np.sqrt(YEAR) == pytest.approx(sharpe, abs=2.5 / np.sqrt(12))


def test_louder_scales_every_log_return_and_keeps_candles_possible():
    history = random_walk_history(2, 400, seed=0)
    quiet = louder(history, 0.5)
    np.testing.assert_allclose(np.log(quiet.close[1:] / quiet.close[:-1]), 0.5 * np.log(history.close[1:] / history.close[:-1]), atol=1e-12)
    np.testing.assert_allclose(quiet.open[0], history.open[0])
    np.testing.assert_allclose(louder(history, 1.0).high, history.high, rtol=1e-12)
    with pytest.raises(ConfigError, match="positive"):
        louder(history, 0.0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bars": 1}, "two bars"), ({"symbols": 0}, "one symbol"), ({"timeframe": "7x"}, "timeframe"), ({"volatility": -1.0}, "volatility"),
        ({"correlation": 1.0}, "correlation"), ({"volatility": float("nan")}, "volatility"),
    ],
)  # fmt: skip
def test_impossible_markets_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        random_walk_history(**{"symbols": 2, "bars": 10, "seed": 0, **changes})


def test_more_alpha_than_bars_can_hold_is_refused():
    with pytest.raises(ConfigError, match="Sharpe"):
        planted_alpha_history(1, 100, 0, "1d", sharpe=7.0)
