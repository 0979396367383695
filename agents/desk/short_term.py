"""The short-term agent: a bounded tilt around the long-term weight and how to trade it, once per one-minute bar."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.core.instruments import TIMEFRAMES
from agents.desk.priors import MINUTES_PER_YEAR, Array, bend, checked_actions, column, reversion, scale, soft, unit_weight
from agents.desk.wishes import SHORT_TERM, ShortTermWish
from agents.market.observation import Observation


@dataclass(frozen=True, slots=True)
class ShortTermParams:
    """What action 0 means, and how far an action reaches."""

    prior: str = "reversion"
    """reversion (Avellaneda and Lee 2010) or none (plain SAC)."""
    band: float = 0.25
    """Largest tilt as a share of a full long-term exposure."""
    volatility_target: float = 0.20
    """As the long-term agent's, so that the band is a share of the same unit."""
    bets: float = 2.0
    """Effective number of bets assumed for that unit: large coins move together."""
    horizon_minutes: float = 15.0
    """How far ahead the residual is forecast."""
    risk_aversion: float = 100.0
    """lambda in soft(mu, cost) / (lambda sigma^2); far above 1 / sigma_target, because the bets of neighbouring minutes are one bet."""
    cost_multiple: float = 2.0
    """Trades per bet that the edge must pay for: in and out."""
    precision: float = 1.0
    """Say in the blend: equal to an average long-term view, the whole tilt is granted."""
    offset_reach: float = 2.0
    """Half-spreads behind (+) or through (-) the mid at a full action."""
    participation: float = 0.05
    participation_base: float = 4.0
    participation_cap: float = 0.15
    """Share of the one-minute volume: beyond it an order is its own news."""
    lifetime: int = 3

    def __post_init__(self) -> None:
        if self.prior not in ("reversion", "none"):
            raise ValueError(f"short_term prior {self.prior!r}: use reversion or none")


class ShortTerm:
    """Action columns: tilt, urgency, entry offset, participation."""

    name = SHORT_TERM
    cadence_ns = TIMEFRAMES["1m"]
    action_size = 4

    def __init__(self, params: ShortTermParams = ShortTermParams()) -> None:
        self.params = params

    def band(self, observation: Observation) -> Array:
        """Largest tilt of each symbol in fractions of equity, [rows]."""
        p = self.params
        volatility = column(observation, "volatility_1m", 0.0, 1.0) * np.sqrt(MINUTES_PER_YEAR)
        return p.band * unit_weight(volatility, p.bets, p.volatility_target, 0.0, 1.0)

    def prior(self, observation: Observation, band: Array) -> Array:
        """Signed prior tilt in (-1, 1), [rows]: what is left of the forecast after costs, over its variance, in units of the band."""
        p = self.params
        if p.prior == "none":
            return np.zeros(observation.matrix.shape[0])
        kappa = column(observation, "ou_kappa", 0.0, 10.0)
        sigma = column(observation, "ou_sigma", 1e-6, 1.0)
        mean, variance = reversion(kappa, column(observation, "ou_gap", -1.0, 1.0), sigma, p.horizon_minutes)
        trade = column(observation, "maker_fee", -0.01, 0.1) + column(observation, "half_spread", 0.0, 0.1)
        weight = soft(mean, np.maximum(p.cost_multiple * trade, 0.0)) / (p.risk_aversion * variance)
        return np.asarray(np.tanh(weight / np.maximum(band, 1e-9)))

    def propose(self, observation: Observation, actions: NDArray[np.float32]) -> list[ShortTermWish]:
        """One wish per row. `actions` float32 [rows, 4] in [-1, 1]; raises SpecMismatch or NotFinite."""
        p = self.params
        a = checked_actions(observation, actions, self.name, self.action_size)
        band = self.band(observation)
        tilt = bend(self.prior(observation, band), a[:, 0])
        urgency = (1.0 + a[:, 1]) / 2.0
        offset = p.offset_reach * a[:, 2]
        participation = np.minimum(scale(p.participation, a[:, 3], p.participation_base), p.participation_cap)
        made_at, expires_at = observation.time, observation.time + p.lifetime * self.cadence_ns
        rows = zip(observation.symbols, a.tolist(), tilt.tolist(), (tilt * band).tolist(), urgency.tolist(),
                   offset.tolist(), participation.tolist(), strict=True)  # fmt: skip
        return [
            ShortTermWish(symbol, made_at, expires_at, tuple(action), t, w, speed, behind, share, p.precision)
            for symbol, action, t, w, speed, behind, share in rows
        ]
