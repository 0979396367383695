"""Observations for the desk's tests: named columns, all others zero."""

from collections.abc import Mapping, Sequence

import numpy as np

from agents.core.instruments import Symbol
from agents.market.columns import SPECS
from agents.market.observation import Observation

SYMBOLS = tuple(Symbol(f"{base}/USDT") for base in ("BTC", "ETH", "SOL", "XRP", "BNB", "ADA", "DOGE", "LINK", "AVAX", "LTC"))

TYPICAL: Mapping[str, Mapping[str, float]] = {
    "long_term": {
        "macd_z_8_24": 0.8, "macd_z_16_48": 1.1, "macd_z_32_96": 0.5, "return_12m_sign": 1.0,
        "volatility_1h": 0.0064, "effective_bets": 2.0, "atr_1h": 0.006,
    },
    "short_term": {
        "ou_kappa": 0.05, "ou_gap": -0.012, "ou_sigma": 0.0006, "volatility_1m": 0.0008, "half_spread": 0.0001,
        "maker_fee": 0.001, "taker_fee": 0.001,
    },
    "market_making": {
        "half_spread": 0.0001, "volatility_1s": 0.0001, "intensity_a": 1.0, "intensity_k": 2000.0, "maker_fee": 0.001,
        "markout_5s": 0.0001, "inventory": 0.0, "toxicity_z": 0.3,
    },
    "risk": {"wished_volatility": 0.3, "wish_gross": 0.8, "drawdown": 0.02},
}  # fmt: skip
"""One ordinary market, 60 % annual volatility."""


def observed(agent: str, rows: int = 1, time: int = 0, **columns: float | Sequence[float]) -> Observation:
    """An ordinary observation of the first `rows` symbols with some columns replaced (a number for all rows, or one each)."""
    spec = SPECS[agent]
    matrix = np.zeros((rows, spec.size), dtype=np.float32)
    for name, value in {**TYPICAL[agent], **columns}.items():
        matrix[:, spec.index[name]] = value
    return Observation(agent, SYMBOLS[:rows] if agent != "risk" else (Symbol(""),), time, matrix)


def wild(agent: str, seed: int, rows: int = 3) -> Observation:
    """Any finite observation: every column anything from denormal to the largest float32, of either sign, or zero."""
    rng = np.random.default_rng(seed)
    if agent == "risk":
        rows = 1
    shape = (rows, SPECS[agent].size)
    matrix = rng.choice([-1.0, 1.0], shape) * 10.0 ** rng.uniform(-42.0, 38.0, shape) * rng.choice([0.0, 1.0], shape, p=[0.2, 0.8])
    return Observation(agent, SYMBOLS[:rows] if agent != "risk" else (Symbol(""),), 0, matrix.astype(np.float32))


def act(*values: float, rows: int = 1) -> np.ndarray:
    """The same action for each row."""
    return np.tile(np.array(values, dtype=np.float32), (rows, 1))
