"""What one agent sees, as one matrix of named columns: the border where Decimal becomes float32."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import cos, pi, sin

import numpy as np
import numpy.typing as npt

from agents.core.errors import NotFinite
from agents.core.instruments import Symbol
from agents.core.ledger import Ledger
from agents.market.columns import ACTION_SIZES, AGENTS, LAYOUT, SOURCES, SPEC_HASH, SPECS, STATE_SIZES, ObservationSpec
from agents.market.features import DAY
from agents.market.holdings import Context, Holdings
from agents.market.portfolio import portfolio
from agents.market.state import MarketState

__all__ = [
    "ACTION_SIZES", "AGENTS", "SPECS", "SPEC_HASH", "STATE_SIZES", "Context", "Experience", "Observation", "ObservationSpec", "observe",
]  # fmt: skip

Floats = npt.NDArray[np.float32]
Floats64 = npt.NDArray[np.float64]
Seen = Floats | Mapping[str, Floats]

LARGEST = 1e6
"""Bound of every number seen: what is beyond it says no more, and stays far from where float32 ends."""


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
    """One transition of one agent for one symbol (None: the portfolio); or, without an agent, of all agents together.

    `time` is market time of the decision in ns; rows of equal time are one sample group. State and action are float32 vectors, and
    of all agents together mappings of agent to vector or matrix; `action` is the raw one. `elapsed` is the transition's length over
    the agent's nominal cadence, `version` that of the acting weights. `quarantined` rows were lived under a fault: they are kept and
    never learned from.
    """

    state: Seen
    action: Seen
    reward: float
    next_state: Seen
    done: bool
    agent: str = ""
    symbol: Symbol | None = None
    time: int = 0
    elapsed: float = 1.0
    version: int = 0
    quarantined: bool = False


def observe(agent: str, market: MarketState, ledger: Ledger, symbols: Sequence[Symbol], context: Context) -> Observation:
    """What `agent` sees now. Raises NotFinite, naming the column, rather than hand on a NaN or an infinity."""
    spec, plan = SPECS[agent], _PLANS[agent]
    view = Holdings(market, ledger, symbols, context)
    wide = np.zeros((1 if agent == "risk" else len(view.symbols), spec.size))
    for source, picks, columns in plan:
        wide[:, columns] = _SOURCES[source](view)[:, picks]
    if (volume := spec.index.get("volume_1m_notional")) is not None:
        wide[:, volume] *= view.scale
    if not np.isfinite(wide).all():
        row, column = np.argwhere(~np.isfinite(wide))[0]
        who = view.symbols[row] if agent != "risk" else "the portfolio"
        raise NotFinite(f"{agent}: {spec.columns[column]} of {who} is {wide[row, column]}")
    return Observation(agent, view.symbols, market.now, np.clip(wide, -LARGEST, LARGEST).astype(np.float32))


def _clock(view: Holdings) -> Floats64:
    """CLOCK_COLUMNS, [1, 4], of market time in UTC."""
    minute = view.market.now % DAY / DAY * 2 * pi
    week = (view.market.now - 4 * DAY) % (7 * DAY) / (7 * DAY) * 2 * pi  # the epoch was a Thursday; the week begins on Monday
    return np.array([[sin(minute), cos(minute), sin(week), cos(week)]])


_SOURCES: dict[str, Callable[[Holdings], Floats64]] = {
    "hour": lambda view: view.market.hour_columns()[view.rows],
    "minute": lambda view: view.market.minute_columns()[view.rows],
    "clock": _clock,
    "flow": lambda view: view.market.flow_columns(view.rows.tolist()),
    "depth": lambda view: view.market.depth_columns(view.rows.tolist()),
    "position": Holdings.position,
    "stop": Holdings.stop,
    "account": Holdings.account,
    "wish": Holdings.wish,
    "multiplier": Holdings.multiplier,
    "own": Holdings.own,
    "queue": Holdings.queue,
    "portfolio": portfolio,
}


def _plan(agent: str) -> tuple[tuple[str, list[int], slice], ...]:
    """Which columns of which source stand where in the agent's row."""
    steps, start = [], 0
    for source, names in LAYOUT[agent]:
        steps.append((source, [SOURCES[source].index(name) for name in names], slice(start, start + len(names))))
        start += len(names)
    return tuple(steps)


_PLANS = {agent: _plan(agent) for agent in AGENTS}
