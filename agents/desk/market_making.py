"""The market-making agent: two quotes per symbol around the inventory that it owns, every five seconds."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agents.core.instruments import NS, Symbol
from agents.desk.priors import Array, checked_actions, column, glft, scale
from agents.desk.wishes import MARKET_MAKING, MarketMakingWish
from agents.market.observation import Observation


@dataclass(frozen=True, slots=True)
class MarketMakingParams:
    """What action 0 means, and how far an action reaches. Distances are fractions of the mid, sizes fractions of equity."""

    prior: str = "glft"
    """glft (Gueant, Lehalle, Fernandez-Tapia 2013) or none: a constant distance over costs, no inventory skew, for plain SAC."""
    gamma: float = 1e4
    """Risk aversion per fraction of equity: at 60 % volatility and one fill a second a full inventory moves quotes by some bps."""
    size: float = 0.015
    """One quote. Two thirds of a percent to two percent keeps several fills between empty and full inventory."""
    size_base: float = 4.0
    inventory_limit: float = 0.05
    """q_max: at this much own inventory the side that adds to it is not quoted."""
    plain_offset: float = 0.001
    """Distance over costs without the GLFT prior."""
    floor_multiple: float = 1.0
    """No quote is closer than this many times maker fee plus mark-out: a fill there is a loss by construction. 0 lifts the floor."""
    offset_low: float = 1e-5
    offset_high: float = 0.01
    """100 bps: farther out a quote only ties up money (it yields where the floor lies higher)."""
    skew_high: float = 0.003
    toxicity: float = 2.0
    """Pull both quotes when the flow's z-score exceeds this times 2^a."""
    default_a: float = 0.1
    default_k: float = 1000.0
    """Fill intensity used until the window has enough trades to fit one: one fill in ten seconds, e-fold at 10 bps."""
    cadence_ns: int = 5 * NS
    """Market time between two wishes; what is learned from them must have time to happen."""
    lifetime: int = 6

    def __post_init__(self) -> None:
        if self.prior not in ("glft", "none"):
            raise ValueError(f"market_making prior {self.prior!r}: use glft or none")


class MarketMaking:
    """Action columns: bid offset, ask offset, bid size, ask size, inventory target, pull threshold."""

    name = MARKET_MAKING
    action_size = 6

    def __init__(self, params: MarketMakingParams = MarketMakingParams()) -> None:
        self.params = params
        self.cadence_ns = params.cadence_ns

    def prior(self, observation: Observation, excess: Array) -> tuple[Array, Array, Array]:
        """(bid distance, ask distance, cost) before actions, [rows] each; `excess` is inventory over its target, in equity."""
        p = self.params
        cost = np.maximum(column(observation, "maker_fee", -0.01, 0.1) + column(observation, "markout_5s", 0.0, 0.01), 0.0)
        if p.prior == "none":
            return cost + p.plain_offset, cost + p.plain_offset, cost
        a, k = column(observation, "intensity_a", 0.0, 1e3), column(observation, "intensity_k", 0.0, 1e6)
        fitted = (a > 1e-6) & (k > 1.0)
        a, k = np.where(fitted, a, p.default_a), np.where(fitted, k, p.default_k)
        sigma = column(observation, "volatility_1s", 0.0, 0.05)
        half, slope = glft(a, k, sigma, cost, p.gamma, p.size)
        skew = np.clip(excess * slope, -p.skew_high, p.skew_high)
        return half + skew, half - skew, cost

    def propose(
        self, observation: Observation, actions: NDArray[np.float32], inventory: Mapping[Symbol, float] | None = None
    ) -> list[MarketMakingWish]:
        """One wish per row. `actions` float32 [rows, 6] in [-1, 1]; raises SpecMismatch or NotFinite.

        `inventory` is what the market maker's sub-account owns, in fractions of equity; without it the observation's `inventory`
        column (position over long-term weight) stands in, which is off while a directional order is still being worked.
        """
        p, limit = self.params, self.params.inventory_limit
        a = checked_actions(observation, actions, self.name, self.action_size)
        if inventory is None:
            owned = column(observation, "inventory", -1.0, 1.0)
        else:
            owned = np.clip(np.array([inventory.get(symbol, 0.0) for symbol in observation.symbols], dtype=np.float64), -1.0, 1.0)
        wanted = 0.5 * limit * a[:, 4]
        bid, ask, cost = self.prior(observation, np.clip(owned - wanted, -2.0 * limit, 2.0 * limit))
        low = np.maximum(p.floor_multiple * cost, p.offset_low)
        high = np.maximum(p.offset_high, low)
        bid = np.clip(scale(np.maximum(bid, low), a[:, 0], 2.0), low, high)
        ask = np.clip(scale(np.maximum(ask, low), a[:, 1], 2.0), low, high)
        bid_size = np.clip(scale(p.size, a[:, 2], p.size_base), 0.0, np.maximum(limit - owned, 0.0))
        ask_size = np.clip(scale(p.size, a[:, 3], p.size_base), 0.0, np.maximum(limit + owned, 0.0))
        pull = observation.column("toxicity_z").astype(np.float64) > scale(p.toxicity, a[:, 5], 2.0)
        made_at, expires_at = observation.time, observation.time + p.lifetime * self.cadence_ns
        rows = zip(observation.symbols, a.tolist(), bid.tolist(), ask.tolist(), bid_size.tolist(), ask_size.tolist(),
                   wanted.tolist(), pull.tolist(), strict=True)  # fmt: skip
        return [MarketMakingWish(symbol, made_at, expires_at, tuple(action), *rest) for symbol, action, *rest in rows]
