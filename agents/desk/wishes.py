"""What the four agents may want, and what their wants become. Frozen facts; a wish that nobody renews expires.

Weights, sizes and exposures are fractions of equity; prices are fractional distances from the mid; `made_at` and `expires_at`
are market time in nanoseconds. An action is the raw tanh output in [-1, 1] that made the wish; all zeros is the prior.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from agents.core.instruments import Symbol

LONG_TERM, SHORT_TERM, MARKET_MAKING, RISK = "long_term", "short_term", "market_making", "risk"
ORDER = (LONG_TERM, SHORT_TERM, MARKET_MAKING, RISK)
"""Each agent sees the wishes of those before it (sequential update, HASAC)."""
PORTFOLIO = Symbol("")
"""The risk agent wishes for the whole book: its wishes and numbers stand under this symbol."""


@dataclass(frozen=True, slots=True)
class LongTermWish:
    """A weight to hold for days: `exposure` in (-1, 1), `weight` the same in fractions of equity.

    `precision` (> 0) is its say in the blend, `horizon` the softmax over the three look-backs, `stop_distance` a fraction of price.
    """

    symbol: Symbol
    made_at: int
    expires_at: int
    action: tuple[float, ...]
    exposure: float
    weight: float
    precision: float
    horizon: tuple[float, float, float]
    stop_distance: float

    def numbers(self) -> dict[str, float]:
        """Named floats for observation and record."""
        short, middle, long = self.horizon
        return {
            "exposure": self.exposure,
            "weight": self.weight,
            "precision": self.precision,
            "horizon_short": short,
            "horizon_middle": middle,
            "horizon_long": long,
            "stop_distance": self.stop_distance,
        }


@dataclass(frozen=True, slots=True)
class ShortTermWish:
    """A tilt of the long-term weight: `tilt` in (-1, 1) of the band, `weight` the same in fractions of equity.

    `urgency` in [0, 1]: below .4 post-only, above .8 IOC, else limit. `offset` in half-spreads behind the mid, in [-2, 2]: 0 at the
    mid, 1 at the own touch, -1 at the opposite touch. `participation` is a share of the one-minute volume.
    """

    symbol: Symbol
    made_at: int
    expires_at: int
    action: tuple[float, ...]
    tilt: float
    weight: float
    urgency: float
    offset: float
    participation: float
    precision: float

    def numbers(self) -> dict[str, float]:
        """Named floats for observation and record."""
        return {
            "tilt": self.tilt,
            "weight": self.weight,
            "urgency": self.urgency,
            "offset": self.offset,
            "participation": self.participation,
            "precision": self.precision,
        }


@dataclass(frozen=True, slots=True)
class MarketMakingWish:
    """A two-sided quote: offsets are fractional distances from the mid (> 0), sizes fractions of equity.

    `inventory_target` is the weight the market maker wants to own above the long-term one; `pull` takes both quotes away.
    """

    symbol: Symbol
    made_at: int
    expires_at: int
    action: tuple[float, ...]
    bid_offset: float
    ask_offset: float
    bid_size: float
    ask_size: float
    inventory_target: float
    pull: bool

    def numbers(self) -> dict[str, float]:
        """Named floats for observation and record."""
        return {
            "bid_offset": self.bid_offset,
            "ask_offset": self.ask_offset,
            "bid_size": self.bid_size,
            "ask_size": self.ask_size,
            "inventory_target": self.inventory_target,
            "pull": float(self.pull),
        }


@dataclass(frozen=True, slots=True)
class RiskWish:
    """Two multipliers in (0, 1): gross exposure, and the CVaR and cluster budgets. They tighten, never loosen."""

    made_at: int
    expires_at: int
    action: tuple[float, ...]
    gross_multiplier: float
    budget_multiplier: float

    @property
    def symbol(self) -> Symbol:
        """The whole portfolio."""
        return PORTFOLIO

    def numbers(self) -> dict[str, float]:
        """Named floats for observation and record."""
        return {"gross_multiplier": self.gross_multiplier, "budget_multiplier": self.budget_multiplier}


Wish = LongTermWish | ShortTermWish | MarketMakingWish | RiskWish


@dataclass(slots=True)
class StandingWishes:
    """The last wish of each agent for each symbol. The only mutable thing here; expiry is judged when it is read."""

    long_term: dict[Symbol, LongTermWish] = field(default_factory=dict)
    short_term: dict[Symbol, ShortTermWish] = field(default_factory=dict)
    market_making: dict[Symbol, MarketMakingWish] = field(default_factory=dict)
    risk: RiskWish | None = None

    def post(self, wishes: Iterable[Wish]) -> None:
        """Each wish replaces the one of the same agent and symbol."""
        for wish in wishes:
            match wish:
                case LongTermWish():
                    self.long_term[wish.symbol] = wish
                case ShortTermWish():
                    self.short_term[wish.symbol] = wish
                case MarketMakingWish():
                    self.market_making[wish.symbol] = wish
                case RiskWish():
                    self.risk = wish

    def numbers(self, now: int) -> dict[str, Mapping[Symbol, Mapping[str, float]]]:
        """agent -> symbol -> named floats of the wishes that still stand at market time `now`."""
        return {
            LONG_TERM: {s: w.numbers() for s, w in self.long_term.items() if w.expires_at > now},
            SHORT_TERM: {s: w.numbers() for s, w in self.short_term.items() if w.expires_at > now},
            MARKET_MAKING: {s: w.numbers() for s, w in self.market_making.items() if w.expires_at > now},
            RISK: {PORTFOLIO: self.risk.numbers()} if self.risk is not None and self.risk.expires_at > now else {},
        }


@dataclass(frozen=True, slots=True)
class Style:
    """How a directional order is worked; fields as in ShortTermWish."""

    urgency: float = 0.5
    offset: float = 0.0
    participation: float = 0.05


@dataclass(frozen=True, slots=True)
class Quotes:
    """The market maker's two sides of one symbol: fractional distances from the mid and sizes in fractions of equity."""

    bid_offset: float
    ask_offset: float
    bid_size: float
    ask_size: float


@dataclass(frozen=True, slots=True)
class Target:
    """What the four want together, before any limit: weights and quotes.

    `weights` is signed and may be negative or too large; the projection decides. `contributions` splits each weight by agent
    (symbol -> agent -> signed weight, summing to it). A symbol without `quotes` shall have none resting.
    """

    time: int
    weights: dict[Symbol, float]
    quotes: dict[Symbol, Quotes]
    styles: dict[Symbol, Style]
    contributions: dict[Symbol, dict[str, float]]
    gross_multiplier: float = 1.0
    budget_multiplier: float = 1.0
