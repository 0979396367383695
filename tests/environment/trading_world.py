"""Small markets for the tests of the environment."""

import numpy as np

from agents.core.instruments import Symbol
from agents.environment.trading import TradingEnvironment
from agents.market.history import CandleHistory
from agents.market.synthetic_candles import random_walk_history

START = 1_577_836_800_000_000_000
HOUR_NS = 3_600_000_000_000


def walk(symbols: int = 3, bars: int = 120, seed: int = 1, **options: object) -> CandleHistory:
    """A random walk whose candles lie on a grid, as an exchange's do, with volume that binds sometimes."""
    history = random_walk_history(symbols, bars, seed, **options)  # type: ignore[arg-type]
    rng = np.random.default_rng(seed)
    opened, close = history.open.round(2), history.close.round(2)
    high = np.maximum(history.high.round(2), np.maximum(opened, close))
    low = np.minimum(history.low.round(2), np.minimum(opened, close))
    volume = np.round(rng.lognormal(8.0, 1.5, close.shape), 3)
    return CandleHistory(history.symbols, history.timeframe, history.times, opened, high, low, close, volume)


def flat(symbols: int = 2, bars: int = 40, price: float = 123.45, volume: float = 1e6) -> CandleHistory:
    """Nothing ever moves: what is lost is cost."""
    prices = np.full((bars, symbols), price)
    times = START + HOUR_NS * np.arange(bars)
    names = tuple(Symbol(f"C{i}/USDT") for i in range(symbols))
    return CandleHistory(names, "1h", times, prices, prices, prices, prices, np.full_like(prices, volume))


def play(env: TradingEnvironment, actions: np.ndarray, seed: int = 0) -> list[tuple[object, ...]]:
    """(observation bytes, reward, equity, fills) of every step until the episode or the actions end."""
    told = [env.reset(seed=seed)[0].tobytes()]
    for action in actions:
        seen, reward, terminated, truncated, info = env.step(action)
        told.append((seen.tobytes(), reward, info["equity"], tuple(info["fills"])))
        if terminated or truncated:
            break
    return told


def noise(env: TradingEnvironment, steps: int, seed: int = 0) -> np.ndarray:
    """Uniform actions."""
    return np.random.default_rng(seed).uniform(-1, 1, (steps, *env.action_space.shape)).astype(np.float32)
