"""The environment keeps gymnasium's rules, its own seeds, the account's sums, and refuses what is no question."""

import copy
import pickle
import warnings
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.errors import ConfigError, DataError, Gap, NotFinite
from agents.desk.limits import Limits
from agents.environment import presets
from agents.environment.registration import TRADING, register
from agents.environment.trading import TradingEnvironment
from agents.market.frictions import CandleBook, FixedLatency, Frictions, NoFee, NoImpact
from agents.market.history import CandleHistory
from agents.market.observation import ACTION_SIZES, STATE_SIZES
from agents.models.actors import GaussianActor  # noqa: F401  torch first: it must be loaded before stable-baselines3 looks for it
from tests.environment.trading_world import HOUR_NS, START, flat, noise, play, walk

FORMS = [("exposure", 3), ("weights", 4), ("cross_section", 10), ("signal", 1), ("long_term", 2), ("short_term", 2), ("risk", 2)]
SHAPES = {
    "exposure": ((3 * 14 + 3 + 4,), (3,)), "weights": ((4 * 8 + 5,), (5,)), "cross_section": ((30, 10, 16), (10,)),
    "signal": ((53 + 4 + 1 + 4,), (1,)), "long_term": ((2, 100), (2, 4)), "short_term": ((2, 80), (2, 4)), "risk": ((60,), (2,)),
}  # fmt: skip


@pytest.mark.parametrize(("form", "symbols"), FORMS)
def test_gymnasium_is_content_without_a_warning(form, symbols):
    register()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(TRADING, source=walk(symbols, 80), form=form, warmup=40, render_mode="rgb_array").unwrapped
        check_env(env, skip_render_check=form != "exposure")
    size = len(presets.FORMS)
    assert size == 8
    observed, acted = SHAPES[form]
    if form == "signal":
        observed = env.observation_space.shape  # it shows every hourly column, whose list may grow
    assert (env.observation_space.shape, env.action_space.shape) == (observed, acted)


@pytest.mark.parametrize("form", ["market_making", "exposure"])
def test_the_synthetic_market_is_an_environment_too(form):
    env = TradingEnvironment(form=form, symbols=("BTC/USDT",), episode_steps=4)
    first = play(env, noise(env, 4) * 0.2, seed=3)
    assert first == play(env, noise(env, 4) * 0.2, seed=3)
    assert len(first) == 5
    if form == "market_making":
        assert env.observation_space.shape == (1, STATE_SIZES[form])
        assert env.action_space.shape == (1, ACTION_SIZES[form])
        assert first != play(env, noise(env, 4) * 0.2, seed=4)


@pytest.mark.parametrize("fast", [True, False])
def test_equal_seeds_are_equal_bit_for_bit(fast):
    env = TradingEnvironment(walk(4, 160), fast=fast, random_start=True, episode_steps=30)
    actions = noise(env, 30)
    one, again, other = (play(env, actions, seed) for seed in (5, 5, 6))
    assert one == again
    assert one != other
    assert play(copy.deepcopy(env), actions, 5) == one
    first = TradingEnvironment(walk(4, 160), fast=fast, random_start=True, episode_steps=30).reset()[1]["time"]
    assert copy.deepcopy(env).reset()[1]["time"] == first  # its own seed, not that of the last episode
    assert play(pickle.loads(pickle.dumps(env)), actions, 5) == one  # noqa: S301  our own bytes


def test_an_agent_of_ours_learns_in_it():
    from agents.learning.agent import SACAgent

    agent = SACAgent(env=TradingEnvironment(walk(2, 120), episode_steps=20, random_start=True), hidden_sizes=(8,), batch_size=8, warmup_steps=20)
    rows = agent.train(num_iterations=1, steps_per_iteration=45)
    assert np.isfinite(rows[0]["return"])
    assert len(agent.evaluate(episodes=2)) == 2


def test_a_stranger_learns_in_it():
    sb3 = pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed")
    env = TradingEnvironment(walk(2, 120), episode_steps=20, random_start=True)
    sb3.PPO("MlpPolicy", env, n_steps=32, batch_size=32, n_epochs=1).learn(40)


# ---- money


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), capital=st.sampled_from([500.0, 20_000.0, 5e6]), fast=st.booleans())
def test_equity_changes_by_profit_less_costs(seed, capital, fast):
    env = TradingEnvironment(walk(3, 14, seed), capital=capital, fast=fast)
    _, before = env.reset(seed=seed)
    held = np.zeros(3)
    for action in noise(env, 12, seed):
        seen, _, terminated, _, after = env.step(action)
        traded = np.array([sum(f.quantity for f in after["fills"] if f.symbol == s) for s in env.symbols])
        held = held + traded
        moved = float(held @ (after["marks"] - before["marks"]))
        slack = 1e-9 * capital
        assert after["equity"] == pytest.approx(before["equity"] + moved - after["costs"], abs=slack)
        assert after["profit"] == pytest.approx(after["equity"] - before["equity"], abs=slack)
        assert np.allclose(after["weights"], held * after["marks"] / after["equity"], atol=1e-9)
        assert (held >= -1e-12).all()
        assert after["weights"].sum() <= 1.0
        assert np.isfinite(seen).all()
        before = after
        if terminated:
            break


@pytest.mark.parametrize("fast", [True, False])
def test_standing_still_is_free_and_churning_is_not(fast):
    env = TradingEnvironment(flat(), fast=fast)
    env.reset(seed=0)
    total = sum(env.step(np.full(2, 0.5, np.float32))[1] for _ in range(10))
    assert -1.5 < total < 0  # the entry, once
    env.reset(seed=0)
    churned = 0.0
    for step in range(10):
        _, reward, _, _, info = env.step(np.full(2, 1.0 if step % 2 else -1.0, np.float32))
        churned += reward
        assert info["costs"] >= 0
    assert churned < 3 * total


@pytest.mark.parametrize("fast", [True, False])
def test_costs_are_fees_and_half_a_spread_where_nothing_moves(fast):
    frictions = Frictions(latency=FixedLatency(50_000_000), impact=NoImpact(), candles=CandleBook())
    env = TradingEnvironment(flat(), frictions=frictions, fast=fast)
    env.reset(seed=0)
    info = env.step(np.ones(2, np.float32))[4]
    quantity = sum(f.quantity for f in info["fills"])
    assert {f.price for f in info["fills"]} == {123.47}  # a basis point above 123.45, rounded against us
    assert info["costs"] == pytest.approx(quantity * (123.47e-3 + 0.02), abs=1e-6)
    free = replace(frictions, fee=NoFee(), candles=CandleBook(half_spread=presets.ONE_TICK))
    cheap = TradingEnvironment(flat(), frictions=free, fast=fast)
    cheap.reset(seed=0)
    assert cheap.step(np.ones(2, np.float32))[4]["costs"] == pytest.approx(quantity * 0.01, rel=1e-3)


@pytest.mark.parametrize("fast", [True, False])
def test_the_ladder_terminates_and_the_data_truncates(fast):
    falling = np.linspace(100.0, 60.0, 60).round(2)[:, None]
    history = CandleHistory(("C/USDT",), "1h", START + HOUR_NS * np.arange(60), falling, falling, falling, falling, np.full_like(falling, 1e6))
    limits = replace(presets.FREE_HAND, position_cap=1.0, turnover_cost_bps=0.0)
    env = TradingEnvironment(history, limits=limits, fast=fast)
    env.reset(seed=0)
    ended = [env.step(np.ones(1, np.float32))[2:4] for _ in range(1)]
    while not any(ended[-1]):
        ended.append(env.step(np.ones(1, np.float32))[2:4])
    assert ended[-1] == (True, False)
    with pytest.raises(DataError, match="reset"):
        env.step(np.ones(1, np.float32))
    env.reset(seed=0)
    ended = [env.step(-np.ones(1, np.float32))[2:4] for _ in range(59)]
    assert ended[-1] == (False, True)
    assert not any(any(pair) for pair in ended[:-1])


def test_the_limits_hold_and_are_named():
    env = TradingEnvironment(walk(4, 60), limits=replace(presets.FREE_HAND, position_cap=0.3))
    env.reset(seed=0)
    named = set()
    for _ in range(6):
        info = env.step(np.ones(4, np.float32))[4]
        named |= {name for name, _ in info["bound"]}
        assert info["weights"].max() < 0.31
        assert info["weights"].sum() < 0.99
    assert "cash_buffer" in named


# ---- rewards


def test_rewards_are_the_desk_s_own_by_name():
    history = walk(2, 60)
    plain, costly, sharpe = (
        TradingEnvironment(history, rewards=terms)
        for terms in (None, {"utility": 1.0, "costs": 1.0}, {"differential_sharpe": 1.0})
    )
    actions = noise(plain, 20)
    utility, penalised, ratio = (np.array([row[1] for row in play(env, actions)[1:]]) for env in (plain, costly, sharpe))
    assert (penalised <= utility + 1e-12).all()
    assert penalised.sum() < utility.sum()
    assert np.isfinite(ratio).all()
    assert sharpe.step(actions[0])[0][-2:].any()  # its moments are in the state
    with pytest.raises(ConfigError, match="no reward term"):
        TradingEnvironment(history, rewards={"luck": 1.0})


@pytest.mark.parametrize("terms", [None, {"utility": 1.0, "drawdown": 0.5}])
def test_rewards_do_not_depend_on_who_plays(terms):
    history = walk(3, 40)
    fast, rooms = (TradingEnvironment(history, rewards=terms, fast=fast) for fast in (True, False))
    actions = noise(fast, 30)
    assert [row[1] for row in play(fast, actions)[1:]] == pytest.approx([row[1] for row in play(rooms, actions)[1:]], abs=1e-9)


def test_an_agent_s_rows_are_what_it_saw_did_and_earned():
    env = TradingEnvironment(walk(2, 60), form="long_term", warmup=40)
    seen, _ = env.reset(seed=0)
    for action in noise(env, 8):
        following, reward, *_ = env.step(action)
        rows = env.experiences
        assert [row.symbol for row in rows] == list(env.symbols)
        assert np.array_equal([row.action for row in rows], action)
        assert np.array_equal([row.state for row in rows], seen)
        assert np.array_equal([row.next_state for row in rows], following)
        assert reward == pytest.approx(sum(row.reward for row in rows))
        seen = following


# ---- what is no question


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(
    ("action", "error", "words"),
    [
        (np.array([0.0, np.nan], np.float32), NotFinite, "nothing was sent"),
        (np.array([0.0, np.inf], np.float32), NotFinite, "nothing was sent"),
        (np.zeros(3, np.float32), ConfigError, r"shape \(3,\): give \(2,\)"),
        (np.zeros((1, 2), np.float32), ConfigError, "shape"),
    ],
)
def test_an_action_that_is_none_changes_nothing(fast, action, error, words):
    env, twin = (TradingEnvironment(walk(2, 30), fast=fast) for _ in range(2))
    env.reset(seed=0)
    twin.reset(seed=0)
    with pytest.raises(error, match=words):
        env.step(action)
    good = np.array([0.5, 0.1], np.float32)
    assert env.step(good)[4]["equity"] == twin.step(good)[4]["equity"]


def test_a_nan_in_an_agent_s_chair_is_an_error_too():
    env = TradingEnvironment(walk(2, 60), form="long_term", warmup=30)
    env.reset(seed=0)
    with pytest.raises(NotFinite):
        env.step(np.full((2, 4), np.nan, np.float32))


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"form": "leverage"}, ConfigError, "unknown: use one of exposure"),
        ({"form": "cross_section"}, ConfigError, "10 to 20 symbols, not 2"),
        ({"form": "signal"}, ConfigError, "one symbol, not 2"),
        ({"symbols": ("XYZ/USDT",)}, DataError, "no candles of XYZ/USDT; there are"),
        ({"capital": 0.0}, ConfigError, "capital"),
        ({"capital": float("nan")}, ConfigError, "capital"),
        ({"episode_steps": 0}, ConfigError, "episode_steps"),
        ({"warmup": -3}, ConfigError, "warmup is -3"),
        ({"render_mode": "ascii"}, ConfigError, "render_mode"),
        ({"forecasts": np.zeros((5, 2), np.float32)}, DataError, "shape"),
        ({"start": START + 10_000 * HOUR_NS}, DataError, "no candles are left"),
        ({"form": "long_term", "rewards": {"utility": 1.0}}, ConfigError, "its own rewards"),
    ],
)  # fmt: skip
def test_settings_that_contradict_are_refused(options, error, words):
    with pytest.raises(error, match=words):
        TradingEnvironment(walk(2, 60), **options)


def test_leverage_on_spot_is_refused_by_name():
    with pytest.raises(ConfigError, match="leverage"):
        TradingEnvironment(walk(2, 60), limits=Limits(gross=2.0))
    with pytest.raises(ConfigError, match="short"):
        TradingEnvironment(walk(2, 60), limits=Limits(allow_short=True))


def test_unknown_symbols_of_the_synthetic_market_are_refused():
    with pytest.raises(ConfigError, match="no XYZ/USDT"):
        TradingEnvironment(symbols=("XYZ/USDT",))


def test_one_candle_is_no_episode():
    with pytest.raises(DataError):
        TradingEnvironment(walk(2, 60).rows(0, 1)).reset(seed=0)
    env = TradingEnvironment(walk(2, 60))
    with pytest.raises(DataError, match="0 to 58"):
        env.reset(seed=0, options={"row": 59})


def candle_file(folder: Path, spoil: str = "") -> Path:
    rows = []
    for i in range(60):
        time = START // 1_000_000 + i * 3_600_000
        if spoil == "gap" and i == 30:
            continue
        price = 100.0 + i % 7
        if spoil == "unit" and i >= 30:
            price *= 100
        rows.append(f"{time},{price},{price + 1},{price - 1},{price},1000")
        if spoil == "duplicate" and i == 30:
            rows.append(rows[-1])
    path = folder / "btc_usdt-1h.csv"
    path.write_text("timestamp,open,high,low,close,volume\n" + "\n".join(rows) + "\n")
    return path


def test_a_candle_file_is_a_source(tmp_path):
    env = TradingEnvironment(candle_file(tmp_path))
    assert env.symbols == ("BTC/USDT",)
    assert len(play(env, noise(env, 100))) == 60


@pytest.mark.parametrize(("spoil", "error"), [("gap", Gap), ("duplicate", DataError), ("unit", DataError)])
def test_a_spoiled_candle_file_is_an_error(tmp_path, spoil, error):
    with pytest.raises(error):
        TradingEnvironment(candle_file(tmp_path, spoil))


def test_an_empty_source_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    for source in ([], tmp_path / "empty", tmp_path / "nowhere"):
        with pytest.raises(DataError):
            TradingEnvironment(source)


def test_holes_that_were_allowed_are_played_by_the_rooms(tmp_path):
    env = TradingEnvironment(candle_file(tmp_path, "gap"), allow_gaps=True)
    steps = play(env, noise(env, 100))
    assert len(steps) > 50
