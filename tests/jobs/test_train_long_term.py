"""Training on candles: planted alpha is found, a market without any is not believed, and a run goes on as if never broken off."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.core.errors import ConfigError, DataError, SpecMismatch
from agents.environment.vector import VectorTradingEnvironment
from agents.jobs.train_long_term import AGENT, Judge, LongTermConfig, LongTermTraining, train_long_term
from agents.jobs.train_rounds import Round, play
from agents.market.history import CandleHistory
from agents.market.observation import ACTION_SIZES, SPEC_HASH, STATE_SIZES
from agents.market.synthetic_candles import planted_alpha_history, random_walk_history
from agents.serving.actors import Actors

YEAR = 24 * 365
QUICK = {"copies": 64, "learning_rate": 1e-3}
TINY = {"copies": 8, "round_bars": 20, "batch_size": 16, "hidden_sizes": (8, 8)}


def null(bars: int, seed: int = 1, symbols: int = 3) -> CandleHistory:
    return random_walk_history(symbols, bars, seed)


def actors(payload: bytes) -> Actors:
    return Actors.from_payload(payload, SPEC_HASH)


def seen(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, STATE_SIZES[AGENT])).astype(np.float32)


@pytest.mark.slow
def test_planted_alpha_is_learned_better_than_the_prior():
    """The positive control: on later candles the policy's reward is above the prior's by more than three standard errors."""
    history, _ = planted_alpha_history(4, YEAR * 3 // 2, 1, sharpe=45.0, half_life=72.0, in_prices=True)
    cut = YEAR
    training = LongTermTraining(LongTermConfig(steps=700, **QUICK), history.rows(0, cut), seed=0)
    while not training.done:
        training.round()
    advantage, error, _ = Judge(history, int(history.times[cut]))(training.payload())
    assert advantage > 3 * error > 0


@pytest.mark.slow
def test_where_nothing_can_be_known_nothing_is_won_and_no_more_is_traded():
    """The null market with costs: what validation lets through is no better than the prior on other candles, and trades no more."""
    history = null(YEAR, symbols=4)
    cut = YEAR * 6 // 10
    payload = train_long_term(
        history.rows(0, cut), 0, 500, validation=history, validate_from=int(history.times[cut]), patience=6, **QUICK
    )
    judge = Judge(null(YEAR, seed=2, symbols=4))
    advantage, error, turnover = judge(payload)
    assert advantage <= 2 * error + 1e-9
    assert turnover <= 1.05 * judge.prior_turnover


def test_the_payload_serves_and_the_others_act_their_priors():
    payload = train_long_term(null(600), 3, 20, **TINY)
    served = actors(payload)
    assert served.sizes == {agent: (STATE_SIZES[agent], ACTION_SIZES[agent]) for agent in STATE_SIZES}
    assert served.act(AGENT, seen(5)).any()
    assert not served.act("risk", np.ones((1, STATE_SIZES["risk"]), np.float32)).any()
    assert payload == train_long_term(null(600), 3, 20, **TINY)
    assert payload != train_long_term(null(600), 4, 20, **TINY)


def test_with_a_curriculum_costs_begin_at_nothing_and_grow():
    config = LongTermConfig(steps=10_000, curriculum=True, **TINY)
    training = LongTermTraining(config, null(600), 5)
    first = training.round()
    assert first["stage_costs"] == 0.0 and not training._ground.kernel.cost_scale.any()
    training._curriculum.update(1.0)
    assert training.round()["stage_costs"] == 0.25 and (training._ground.kernel.cost_scale == 0.25).all()
    again = LongTermTraining(config, null(600), 5)
    again.load({name: tensor.clone() for name, tensor in training.tensors().items()}, training.meta())
    assert again.round() == training.round()


def test_the_prior_is_kept_unless_it_is_beaten():
    """Nothing beats the prior by a thousand standard errors: patience ends the run, and what is handed on acts zero."""
    figures: list[float] = []
    payload = train_long_term(
        null(600), 0, 10_000, validation=null(600, seed=2), patience=2, margin=1000.0, told=lambda _, found: figures.append(found["validation"]), **TINY
    )
    assert len(figures) == 2
    assert not actors(payload).act(AGENT, seen(5)).any()


def test_a_run_that_is_taken_up_again_is_the_same_run():
    config = LongTermConfig(steps=90, **TINY)
    judge = Judge(null(600, seed=2))
    whole, broken = (LongTermTraining(config, null(600), 5, judge) for _ in range(2))
    while not whole.done:
        whole.round()
    broken.round()
    tensors, meta = {name: tensor.clone() for name, tensor in broken.tensors().items()}, broken.meta()
    broken.round()  # lost
    again = LongTermTraining(config, null(600), 5, judge)
    again.load(tensors, meta)
    while not again.done:
        again.round()
    assert (again.updates, again.rounds) == (whole.updates, whole.rounds) == (90, 3)
    assert again.payload() == whole.payload() and again.meta() == whole.meta()
    again.best, again.best_score = again._weights(), 1.0  # ahead on the validation candles
    assert actors(again.payload()).act(AGENT, seen(5)).any()
    last = LongTermTraining(config, null(600), 5, judge)
    last.load({name: tensor.clone() for name, tensor in again.tensors().items()}, again.meta())
    assert last.payload() == again.payload()
    with pytest.raises(SpecMismatch):
        LongTermTraining(LongTermConfig(**{**TINY, "hidden_sizes": (4, 4)}), null(600), 5).load(tensors, meta)


def test_too_little_and_wrong_are_refused():
    with pytest.raises(DataError, match="too few to train on"):
        train_long_term(null(100), 0, 10, **TINY)
    with pytest.raises(DataError, match="validate on are too few"):
        train_long_term(null(600), 0, 10, validation=null(130), **TINY)
    for wrong in ({"steps": 0}, {"copies": 0}, {"uniform_share": 2.0}, {"gamma": 1.5}, {"hidden_sizes": ()}, {"hidden_sizes": (-5, 3)}):
        with pytest.raises(ConfigError):
            train_long_term(null(600), 0, **{"steps": 10, **wrong})


def test_rows_of_a_restart_and_of_unlisted_symbols_are_no_transitions():
    """Episodes of five bars: each copy's sixth step is its restart. A symbol without candles is nobody's decision."""
    history = null(600)
    for name in ("open", "high", "low", "close", "volume"):
        getattr(history, name)[:, 2] = np.where(np.arange(600) < 60, getattr(history, name)[:, 2], np.nan)
    ground = VectorTradingEnvironment(history, 4, form=AGENT, episode_bars=5)
    played = play(ground, lambda states: np.zeros((len(states), 4), np.float32), 12, seed=1)
    assert played.lived[:5, :, :2].all() and not played.lived[5].any() and played.lived[6:11, :, :2].all()
    assert not played.lived[:, :, 2].any()


@settings(max_examples=30)
@given(seed=st.integers(0, 1000))
def test_a_batch_holds_lived_rows_and_what_followed_them(seed):
    rng = np.random.default_rng(seed)
    lived = rng.random((6, 3, 2)) < 0.4
    lived[0, 0, 0] = True
    states = np.arange(7 * 3 * 2, dtype=np.float32).reshape(7, 3, 2, 1)
    played = Round(states, states[:-1] * 10, states[:-1, ..., 0], np.zeros((6, 3), bool), lived, np.zeros((6, 3), np.int64))
    rows = played.batch(50, rng, 2.0, 24.0)
    number = rows.state[:, 0].astype(int)
    assert lived.reshape(-1)[number].all()
    np.testing.assert_array_equal(rows.next_state[:, 0], number + 6)
    np.testing.assert_array_equal(rows.action[:, 0], number * 10)
    np.testing.assert_array_equal(rows.reward, 2.0 * number)
    assert set(rows.elapsed.tolist()) == {24.0}


def test_what_prices_alone_earned_is_taken_off_and_nothing_else():
    """A reward that is the exogenous number plus what the action did: the action's part is what is left."""
    rng = np.random.default_rng(0)
    exogenous, bars = rng.standard_normal((40, 2)), rng.integers(0, 40, (30, 5))
    done = 0.01 * rng.standard_normal((30, 5, 2))
    rewards = (3.0 * exogenous[bars] + done).astype(np.float32)
    empty = np.zeros((31, 5, 2, 1), np.float32)
    played = Round(empty, empty[1:], rewards, np.zeros((30, 5), bool), np.ones((30, 5, 2), bool), bars)
    left, share = played.without(exogenous)
    assert share == pytest.approx(3.0, abs=0.01)
    np.testing.assert_allclose(left.rewards, done, atol=0.02)
