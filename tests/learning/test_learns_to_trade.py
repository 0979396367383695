"""The sanity of a learner that trades: what can be known is learned, what cannot be won is not tried. And a slice of Pendulum."""

import gymnasium
import numpy as np
import pytest

from agents import SACAgent

NETS = {"policy_hiddens": (32, 32), "q_hiddens": (32, 32), "batch_size": 64, "buffer_size": 5000}


class Market(gymnasium.Env[np.ndarray, np.ndarray]):
    """Hold a position in (-1, 1) for one step after the other of a market without drift; trading costs `cost` of what is traded.

    Seen: a feature, the last return, the position. The feature is the next return where there is an oracle, else noise.
    Returns deviate by `deviation`.
    """

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, oracle: bool, cost: float, deviation: float = 1.0) -> None:
        self.oracle, self.cost, self.deviation = oracle, cost, deviation

    def _see(self, last: float) -> np.ndarray:
        self.following = self.deviation * float(self.np_random.standard_normal())
        feature = self.following if self.oracle else float(self.np_random.standard_normal())
        return np.array([feature, last, self.position], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position, self.steps, self.traded = 0.0, 0, 0.0
        return self._see(0.0), {}

    def step(self, action):
        target, earned = float(action[0]), self.following
        traded, self.position = abs(target - self.position), target
        self.traded += traded
        self.steps += 1
        return self._see(earned), target * earned - self.cost * traded, False, self.steps >= 50, {}


def turnover(agent: SACAgent) -> float:
    """Mean amount traded in a step under the mean action."""
    market = agent.world.another()
    for seed in range(4):
        state, ended, traded = market.reset(seed), False, []
        while not ended:
            before = market.env.traded
            state, _, _, ended = market.step(agent.actions(state[None])[0])
            traded.append(market.env.traded - before)
    return float(np.mean(traded))


def trader(oracle: bool, cost: float, seed: int = 0) -> SACAgent:
    market = Market(oracle, cost, deviation=1.0 if oracle else 0.3)
    return SACAgent(env=market, learning_rate=3e-3, gamma=0.5, init_alpha=0.05, seed=seed, **NETS)


@pytest.fixture(scope="module")
def knowing() -> SACAgent:
    """An agent that has learned to follow its feature, where the feature is the next return."""
    agent = trader(oracle=True, cost=0.05)
    agent.train(1, 600)
    return agent


def test_an_oracle_of_the_next_return_is_learned(knowing):
    """The best possible is the mean absolute return, .80 a step less costs; the untrained agent earns nothing."""
    assert np.mean(trader(oracle=True, cost=0.05).evaluate(5)) == 0.0
    assert np.mean(knowing.evaluate(5)) / 50 > 0.55


def test_without_anything_to_know_it_learns_not_to_trade(knowing):
    """It starts as one that trades on a feature, which here is noise, and must come to a fifth of that turnover and loss."""
    agent = trader(oracle=False, cost=0.5)
    agent.sac.actor.load_state_dict(knowing.sac.actor.state_dict())
    traded, lost = turnover(agent), np.mean(agent.evaluate(5)) / 50
    agent.train(1, 900)
    assert traded > 0.7 and lost < -0.35
    assert turnover(agent) < traded / 5
    assert np.mean(agent.evaluate(5)) / 50 > lost / 5


def test_a_slice_of_pendulum_is_learned():
    """Random and untrained policies earn about -1,200; ten thousand steps reach -150 (docs/learning.md)."""
    agent = SACAgent(
        "Pendulum-v1", learning_rate=3e-3, tau=0.01, hidden_sizes=(64, 64), batch_size=128, buffer_size=5000, warmup_steps=300, seed=0
    )
    agent.train(1, 3000)
    assert np.mean(agent.evaluate(10)) > -400
