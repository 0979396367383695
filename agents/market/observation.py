"""What one agent sees, as one matrix of named columns: the border where Decimal becomes float32."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from agents.core.errors import NotFinite
from agents.core.instruments import Symbol
from agents.core.ledger import Ledger
from agents.market.columns import ACTION_SIZES, AGENTS, LAYOUT, SOURCES, SPEC_HASH, SPECS, STATE_SIZES, ObservationSpec
from agents.market.state import MarketState

__all__ = [
    "ACTION_SIZES", "AGENTS", "SPECS", "SPEC_HASH", "STATE_SIZES", "Context", "Experience", "Observation", "ObservationSpec", "observe",
]  # fmt: skip

Floats = npt.NDArray[np.float32]
Wishes = Mapping[str, Mapping[Symbol, Mapping[str, float]]]


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """`matrix` is float32 [rows, size of the agent's spec]: a row a symbol; the risk agent has one row. Market time in ns."""

    agent: str
    symbols: tuple[Symbol, ...]
    time: int
    matrix: Floats

    def column(self, name: str) -> Floats:
        """One named column, float32 [rows]. Raises KeyError for a name that the agent does not see."""
        values: Floats = self.matrix[:, SPECS[self.agent].index[name]]
        return values

    def digest(self) -> str:
        """SHA-256 in hex over everything that was seen, bit for bit."""
        head = "\n".join((self.agent, str(self.time), *self.symbols)).encode()
        return hashlib.sha256(head + np.ascontiguousarray(self.matrix).tobytes()).hexdigest()


@dataclass(frozen=True, slots=True, eq=False)
class Experience:
    """One transition of one agent for one symbol (None: the portfolio).

    `time` is market time of the decision in ns; rows of equal time are one sample group. States, action: float32 vectors; `action`
    is the raw one. `elapsed` is the transition's length over the agent's nominal cadence, `version` that of the acting weights.
    """

    agent: str
    symbol: Symbol | None
    time: int
    state: Floats
    action: Floats
    reward: float
    next_state: Floats
    done: bool
    elapsed: float
    version: int


@dataclass(slots=True)
class Context:
    """What the engine knows beyond market and ledger. Weights, fees and turnover are fractions of equity; money is in quote."""

    equity: float
    peak_equity: float
    wishes: Wishes = field(default_factory=dict)
    """agent -> symbol -> the named numbers of its standing wish; the risk agent's stand under ""."""
    stops: Mapping[Symbol, tuple[float, float]] = field(default_factory=dict)
    """symbol -> (distance as a fraction of price, age in hours)."""
    fees_paid_day: float = 0.0
    turnover_day: float = 0.0
    risk: Mapping[str, float] = field(default_factory=dict)
    """Values that replace portfolio columns of the same name, such as var_95 or headroom_gross."""


def observe(agent: str, market: MarketState, ledger: Ledger, symbols: Sequence[Symbol], context: Context) -> Observation:
    """What `agent` sees now. Raises NotFinite, naming the column, rather than hand on a NaN or an infinity."""
    spec = SPECS[agent]
    rows = 1 if agent == "risk" else len(symbols)
    matrix = np.zeros((rows, spec.size), dtype=np.float32)
    return Observation(agent, tuple(symbols), market.now, matrix)
