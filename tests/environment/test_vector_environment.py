"""The vector environment keeps gymnasium's promises, starts anywhere, and pays what the accounts earned."""

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from agents.core.errors import ConfigError, DataError
from agents.desk.limits import Limits
from agents.desk.rewards import make_bonus
from agents.desk.rewards.params import RewardParams, RewardTerms
from agents.environment.compiled import available
from agents.environment.forms import exposure_weights
from agents.environment.kernel import PortfolioKernel, VectorCosts
from agents.environment.vector import FORMS, LONG_TERM, VectorTradingEnvironment
from agents.market.history import CandleHistory, hour_features
from tests.environment.test_vector_kernel import candles

HISTORY = candles(rows=400, width=3, seed=8)
FEATURES = hour_features(HISTORY)


def make(copies=6, form="exposure", seed=0, **changes):
    return VectorTradingEnvironment(HISTORY, copies, form=form, seed=seed, features=FEATURES, **{"episode_bars": 20, **changes})


@pytest.mark.parametrize("form", FORMS)
def test_spaces_types_and_infos_are_what_they_say(form):
    environment = make(form=form)
    seen, _ = environment.reset(seed=1)
    assert environment.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    for _ in range(60):
        assert seen in environment.observation_space and seen.dtype == np.float32
        seen, rewards, terminated, truncated, info = environment.step(environment.action_space.sample())
        assert rewards.shape == ((6, 3) if form == LONG_TERM else (6,)) and np.isfinite(rewards).all()
        assert terminated.shape == truncated.shape == (6,) and terminated.dtype == truncated.dtype == bool
        assert not (terminated & truncated).any() and info["listed"].shape == (6, 3)
    environment.close()


@pytest.mark.parametrize("form", FORMS)
def test_a_seed_tells_everything(form):
    lives = []
    for _ in range(2):
        environment = make(form=form)
        environment.action_space.seed(3)
        seen, _ = environment.reset(seed=5)
        life = [seen.copy()]
        for _ in range(30):
            seen, rewards, *_ = environment.step(environment.action_space.sample())
            life += [seen.copy(), rewards.copy()]
        lives.append(life)
    assert all(np.array_equal(a, b) for a, b in zip(*lives, strict=True))
    other, _ = make(form=form).reset(seed=6)
    assert not np.array_equal(other, lives[0][0])


def test_episodes_are_cut_and_the_next_step_begins_another():
    environment = make(episode_bars=5)
    environment.reset()
    ends, begun = [], []
    for number in range(1, 19):
        _, rewards, terminated, truncated, _ = environment.step(np.zeros((6, 3)))
        if environment.fresh.any():
            begun.append(number)
            assert environment.fresh.all() and (rewards == 0).all() and not (terminated | truncated).any()
        if truncated.any():
            assert truncated.all()
            ends.append(number)
    assert ends == [5, 11, 17] and begun == [6, 12, 18]  # their actions are ignored


def test_observations_are_the_callers_to_keep():
    environment = make()
    first, _ = environment.reset()
    kept = first.copy()
    environment.step(np.ones((6, 3)))
    assert np.array_equal(first, kept)


def test_starts_lie_anywhere_and_keep_the_limits():
    limits = Limits(position_cap=0.3)
    environment = make(copies=500, limits=limits)
    environment.reset(seed=2)
    kernel = environment.kernel
    assert len(np.unique(kernel.row)) > 50 and kernel.row.max() <= kernel.last_row - 20
    assert kernel.weights.max() <= 0.3 + 1e-6 and kernel.weights.sum(axis=1).max() <= 1 - limits.cash_buffer + 1e-6
    assert (kernel.weights.sum(axis=1) == 0).mean() > 0.1 and kernel.drawdown.max() > 0.1 and (np.abs(kernel.drawdown) < 1e-6).mean() > 0.3
    assert kernel.equity.min() < 6_000 and kernel.equity.max() > 18_000


def test_a_start_can_be_given():
    environment = make(copies=2)
    environment.reset(options={"rows": np.array([50, 60]), "equity": 5_000.0, "drawdown": 0.02, "weights": np.array([0.1, 0.0, 0.2])})
    kernel = environment.kernel
    assert kernel.row.tolist() == [50, 60] and np.allclose(kernel.drawdown, 0.02) and np.allclose(kernel.weights, [0.1, 0.0, 0.2])
    environment.step(np.zeros((2, 3)))
    environment.reset(options={"rows": 70, "reset_mask": np.array([False, True])})
    assert kernel.row.tolist() == [51, 70]
    with pytest.raises(DataError, match="cannot start"):
        environment.reset(options={"rows": 10_000})


def test_the_reward_is_the_utility_less_what_was_cut():
    """By hand, for one copy, from the kernel's own result."""
    environment, costs = make(copies=1, risk=None), VectorCosts()
    environment.reset(options={"rows": 100, "equity": 10_000.0, "drawdown": 0.0, "weights": np.array([0.1, 0.1, 0.0])})
    action = np.array([[0.9, -0.4, 1.0]], dtype=np.float32)
    kernel = PortfolioKernel(HISTORY, costs, Limits())
    kernel.reset(100, equity=10_000.0, weights=[0.1, 0.1, 0.0])
    wished = exposure_weights(action, 0.2)
    result = kernel.step(wished)
    _, reward, *_ = environment.step(action)
    move = HISTORY.close[101] / HISTORY.close[100]
    executed = (np.array([0.1, 0.1, 0.0]) + result.traded[0]) * move
    held, years = 0.5 * (np.array([0.1, 0.1, 0.0]) + executed), 1 / 8760
    risk = 2.5 * held @ environment._covariance[101].astype(float) @ held * years
    expected = (result.profit.sum() - risk) / (0.2 * years**0.5) - ((executed - np.maximum(wished[0], 0)) ** 2).sum()
    assert reward[0] == pytest.approx(expected, rel=5e-4)


def test_other_terms_remember_and_forget_with_their_episode():
    terms = {"differential_sharpe": 1.0}
    environment = make(form=LONG_TERM, terms=terms, rewards=RewardParams(terms=RewardTerms(long_term=terms)), episode_bars=4)
    seen, _ = environment.reset()
    column = environment.view.blocks["own"].start
    assert (seen[..., column : column + 2] == [0.0, 1.0]).all()
    for _ in range(4):
        seen, *_ = environment.step(np.zeros((6, 3, 4)))
    assert (seen[..., column + 1] != 1.0).all()
    seen, *_ = environment.step(np.zeros((6, 3, 4)))
    assert (seen[..., column : column + 2] == [0.0, 1.0]).all()


@pytest.mark.parametrize("form", ["exposure", LONG_TERM])
def test_what_is_seen_for_the_first_time_is_worth_more(form):
    size = make(form=form).single_observation_space.shape[-1]
    environment = make(form=form, terms={"exploration": 1.0}, rewards=RewardParams(alias=0.0), bonus=make_bonus("count", size, 0))
    start = {"rows": 100, "equity": 10_000.0, "drawdown": 0.0, "weights": 0.0}
    paid = []
    for _ in range(8):
        environment.reset(options=start)
        paid.append(environment.step(np.zeros(environment.action_space.shape))[1].sum())
    assert paid[0] > paid[-1] > 0
    with pytest.raises(ConfigError, match="simulation only"):
        make(form=form, terms={"exploration": 1.0})


@pytest.mark.parametrize("compiled", [False, True])
def test_costs_can_grow_with_skill(compiled):
    if compiled and not available():
        pytest.skip("numba is not installed: pip install 'quartet[research]'")
    environment = make(compiled=compiled, limits=Limits(turnover_cost_bps=0.0))
    spent = []
    for factor in (0.0, 0.5, 1.0):
        environment.ease(factor)
        environment.reset(options={"rows": 100, "equity": 10_000.0, "drawdown": 0.0, "weights": 0.0})
        environment.step(np.ones((6, 3)))
        spent.append(environment.kernel.equity[0])
    assert spent[0] > spent[1] > spent[2] and spent[0] - spent[1] == pytest.approx(spent[1] - spent[2], rel=1e-3)
    with pytest.raises(ConfigError, match="factor of nan"):
        environment.ease(float("nan"))


def test_no_reward_for_churning():
    """On a market that stands still, trading to and fro is never worth more than doing nothing."""
    flat = np.full((200, 2), 100.0)
    history = CandleHistory(HISTORY.symbols[:2], "1h", HISTORY.times[:200], flat, flat, flat, flat, flat)
    environment = VectorTradingEnvironment(history, 2, seed=0, episode_bars=50, randomise=False, limits=Limits(turnover_cost_bps=0.0))
    environment.reset()
    total = np.zeros(2)
    for number in range(40):
        action = np.array([[0.0, 0.0], [number % 2, number % 2]], dtype=np.float32)
        _, rewards, *_ = environment.step(action)
        total += rewards
    assert total[1] < total[0] == 0.0


def test_a_fall_to_the_last_rung_ends_the_episode():
    falling = 100 * 0.97 ** np.arange(200.0)[:, None] * np.ones((1, 1))
    history = CandleHistory(HISTORY.symbols[:1], "1h", HISTORY.times[:200], falling, falling, falling, falling, np.ones_like(falling))
    limits = Limits(position_cap=0.9, drawdown_warn=0.05, drawdown_stop=0.06, drawdown_reduce=0.19, drawdown_flatten=0.2)
    environment = VectorTradingEnvironment(history, 1, seed=0, episode_bars=100, randomise=False, limits=limits, delay_bars=0)
    environment.reset()
    for _ in range(30):
        _, _, terminated, _, _ = environment.step(np.ones((1, 1)))
        if terminated[0]:
            break
    assert terminated[0] and environment.kernel.drawdown[0] >= 0.2
    environment.step(np.ones((1, 1)))
    assert environment.fresh[0] and environment.kernel.drawdown[0] == 0


def test_symbols_that_are_not_listed_yet_earn_and_lose_nothing():
    fields = [getattr(HISTORY, name).copy() for name in ("open", "high", "low", "close", "volume")]
    for each in fields:
        each[:300, 1] = np.nan
    history = CandleHistory(HISTORY.symbols, "1h", HISTORY.times, *fields)
    environment = VectorTradingEnvironment(history, 4, form=LONG_TERM, seed=0, episode_bars=50)
    environment.reset(options={"rows": 200, "weights": 0.0})
    for _ in range(20):
        _, rewards, _, _, info = environment.step(np.ones((4, 3, 4)))
        assert (rewards[:, 1] == 0).all() and not info["listed"][:, 1].any() and info["listed"][:, [0, 2]].all()
    assert (environment.kernel.weights[:, 1] == 0).all()


def test_bad_questions_are_answered_by_name():
    environment = make()
    environment.reset()
    with pytest.raises(ConfigError, match="copy 4 is not finite"):
        environment.step(np.where(np.arange(6)[:, None] == 4, np.nan, np.zeros((6, 3))))
    with pytest.raises(ConfigError, match=r"needs \(6, 3\)"):
        environment.step(np.zeros((6, 4)))
    with pytest.raises(ConfigError, match="form 'signal'"):
        make(form="signal")
    with pytest.raises(DataError, match="episode_bars"):
        make(episode_bars=4_000)
    with pytest.raises(ConfigError, match="no hour columns"):
        make(columns=("macd",))
    with pytest.raises(DataError, match="another history"):
        VectorTradingEnvironment(HISTORY.rows(0, 300), 2, features=FEATURES, episode_bars=20)
    with pytest.raises(ConfigError, match="spot has no leverage"):
        make(limits=Limits(gross=2.0))
    ten = CandleHistory(HISTORY.symbols, "1h", HISTORY.times, *(np.where(np.arange(400)[:, None] < [390, 0, 0], np.nan, getattr(HISTORY, n)) for n in ("open", "high", "low", "close", "volume")))
    with pytest.raises(DataError, match=r"S0/USDT \(10\)"):
        VectorTradingEnvironment(ten, 2, episode_bars=20)
