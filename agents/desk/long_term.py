"""The long-term agent: a weight per symbol from trends of weeks to months, once per hourly bar."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.core.instruments import TIMEFRAMES
from agents.desk.priors import (
    HOURS_PER_YEAR,
    Array,
    bend,
    checked_actions,
    column,
    horizon_weights,
    scale,
    trend_response,
    unit_weight,
)
from agents.desk.wishes import LONG_TERM, LongTermWish
from agents.market.observation import Observation

MACD_COLUMNS = ("macd_z_8_24", "macd_z_16_48", "macd_z_32_96")


@dataclass(frozen=True, slots=True)
class LongTermParams:
    """What action 0 means, and how far an action reaches."""

    prior: str = "trend"
    """trend (Baz et al. 2015), sign (12-month return; Moskowitz, Ooi, Pedersen 2012) or none (plain SAC)."""
    volatility_target: float = 0.20
    """Annualised volatility that a book of independent full exposures would have. 20 % is a third of one large coin's."""
    precision: float = 1.0
    """kappa0: the say of an average long-term view; the short-term agent's has the same unit."""
    precision_base: float = 4.0
    horizon_tilt: float = 2.0
    """Logit between neighbouring look-backs at a full action: 7 to 1."""
    stop_atr: float = 3.0
    """Stop distance in hourly average true ranges."""
    stop_low: float = 0.005
    stop_high: float = 0.5
    weight_cap: float = 1.0
    """A full exposure never asks for more than the whole equity, however quiet the symbol."""
    lifetime: int = 2
    """Cadences until a wish that nobody renews expires."""

    def __post_init__(self) -> None:
        if self.prior not in ("trend", "sign", "none"):
            raise ValueError(f"long_term prior {self.prior!r}: use trend, sign or none")


class LongTerm:
    """Action columns: exposure, conviction, horizon, stop distance."""

    name = LONG_TERM
    cadence_ns = TIMEFRAMES["1h"]
    action_size = 4

    def __init__(self, params: LongTermParams = LongTermParams()) -> None:
        self.params = params

    def prior(self, observation: Observation, horizon: Array) -> Array:
        """Signed prior exposure in (-1, 1), [rows], given the look-back weights [rows, 3]."""
        match self.params.prior:
            case "trend":
                z = np.stack([column(observation, name, -20.0, 20.0) for name in MACD_COLUMNS], axis=1)
                return np.asarray((trend_response(z) * horizon).sum(axis=1))
            case "sign":
                return np.sign(column(observation, "return_12m_sign", -1.0, 1.0))
            case _:
                return np.zeros(observation.matrix.shape[0])

    def propose(self, observation: Observation, actions: NDArray[np.float32]) -> list[LongTermWish]:
        """One wish per row. `actions` float32 [rows, 4] in [-1, 1]; raises SpecMismatch or NotFinite."""
        p = self.params
        a = checked_actions(observation, actions, self.name, self.action_size)
        horizon = horizon_weights(a[:, 2], p.horizon_tilt)
        exposure = bend(self.prior(observation, horizon), a[:, 0])
        volatility = column(observation, "volatility_1h", 0.0, 10.0) * np.sqrt(HOURS_PER_YEAR)
        bets = column(observation, "effective_bets", 1.0, 1e4)
        weight = exposure * unit_weight(volatility, bets, p.volatility_target, 0.0, p.weight_cap)
        precision = scale(p.precision, a[:, 1], p.precision_base)
        stop = np.clip(scale(p.stop_atr * column(observation, "atr_1h", 0.0, 1.0), a[:, 3], 2.0), p.stop_low, p.stop_high)
        made_at, expires_at = observation.time, observation.time + p.lifetime * self.cadence_ns
        rows = zip(observation.symbols, a.tolist(), exposure.tolist(), weight.tolist(), precision.tolist(),
                   horizon.tolist(), stop.tolist(), strict=True)  # fmt: skip
        return [
            LongTermWish(symbol, made_at, expires_at, tuple(action), e, w, kappa, (looks[0], looks[1], looks[2]), distance)
            for symbol, action, e, w, kappa, looks, distance in rows
        ]
