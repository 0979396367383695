"""What is judged, and how it lives: one rule or agent over one window at one level of costs, as daily returns net of everything.

Every contender trades through the same kernel: decided at a bar's close, filled around the next opening, charged, marked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from agents.core.errors import DataError
from agents.desk.limits import Limits
from agents.desk.long_term import LongTermParams
from agents.desk.wishes import LONG_TERM
from agents.environment.kernel import Curve, PortfolioKernel, VectorCosts, simulate
from agents.environment.long_term_view import LongTermView
from agents.jobs.baselines import TREND
from agents.jobs.statistics import DAYS, Performance, compounded, performance
from agents.market.columns import ACTION_SIZES
from agents.market.features import DAY
from agents.market.history import CandleHistory
from agents.serving.actors import Actors

Floats = npt.NDArray[np.float64]
Times = npt.NDArray[np.int64]

BASELINE, PRIOR, AGENT = "baseline", "prior", "agent"
FREE = Limits(
    cash_buffer=0.0, position_cap=1.0, turnover_day=1e6,
    drawdown_warn=1.0, drawdown_stop=1.0, drawdown_reduce=1.0, drawdown_flatten=1.0,
)  # fmt: skip
"""Limits of a baseline: fully invested, never stopped."""


def without_ladder(limits: Limits) -> Limits:
    """The same limits without the drawdown ladder, which latches: after it an account says nothing more about its agent."""
    return replace(limits, drawdown_warn=1.0, drawdown_stop=1.0, drawdown_reduce=1.0, drawdown_flatten=1.0)


UNSTOPPED = without_ladder(Limits())
"""The shipped limits, ladder aside."""


@dataclass(frozen=True, slots=True)
class Desk:
    """How the long-term agent lives while it is judged: alone, so that a difference is its own."""

    params: LongTermParams = TREND
    limits: Limits = UNSTOPPED
    risk: str | float | None = 1.0
    """The gross multiplier: 1 takes the risk agent away, "prior" is what it does at action 0."""


DESK = Desk()


@dataclass(frozen=True, slots=True)
class Window:
    """Bars [start, stop) of a history: the first decision is at the close of `start`, the last mark at that of stop - 1."""

    history: CandleHistory
    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.stop - 1 < len(self.history.times):
            raise DataError(f"bars {self.start} to {self.stop} of a history of {len(self.history.times)} are no window")

    @property
    def ended(self) -> CandleHistory:
        """The history up to the window's end: what comes later cannot be known."""
        return self.history.rows(0, self.stop)

    @property
    def years(self) -> float:
        return (self.stop - 1 - self.start) / self.history.periods_per_year


@dataclass(frozen=True, slots=True, eq=False)
class Track:
    """One contender's life. Returns are of whole UTC days, net."""

    name: str
    kind: str
    seed: int | None
    multiple: float
    """Of the costs."""
    delay: int
    """Bars beyond the usual one between decision and fill."""
    days: Times
    """Ends of days, ns UTC, [K]."""
    returns: Floats
    """[K]."""
    turnover: float
    """Notional traded a year over equity, both sides counted."""
    cost: float
    """Fees, spread, impact and funding a year over equity."""
    gross: float
    """Mean exposure."""

    @property
    def figures(self) -> Performance:
        return performance(self.returns, DAYS)

    def to_dict(self) -> dict[str, object]:
        """Plain values, without the curve."""
        plain = {name: getattr(self, name) for name in ("name", "kind", "seed", "multiple", "delay", "turnover", "cost", "gross")}
        return {**plain, **self.figures.to_dict()}


def traded(history: CandleHistory) -> CandleHistory:
    """The same history without candles in which nothing was traded: their prices were nobody's, as before a listing."""
    gone = history.volume == 0
    blank = {name: np.where(gone, np.nan, getattr(history, name)) for name in ("open", "high", "low", "close", "volume")}
    return CandleHistory(history.symbols, history.timeframe, history.times, **blank, funding=history.funding)


def tracks_of(name: str, kind: str, curve: Curve, multiples: Sequence[float], delay: int, seeds: Sequence[int | None] = (None,)) -> list[Track]:
    """A track for each of the curve's copies: seeds by multiples, the multiples changing fastest."""
    equity, cost, turnover = (values.reshape(len(values), -1) for values in (curve.equity, curve.cost, curve.turnover))
    gross = np.abs(curve.weights).sum(axis=-1).reshape(len(equity), -1)
    years = float(curve.times[-1] - curve.times[0]) / (DAYS * DAY)
    found = []
    for copy in range(equity.shape[1]):
        days, returns = compounded(curve.times[1:], equity[1:, copy] / equity[:-1, copy] - 1.0)
        found.append(Track(
            name, kind, seeds[copy // len(multiples)], multiples[copy % len(multiples)], delay, days, returns,
            float(turnover[:, copy].sum()) / years, float(cost[:, copy].sum()) / years, float(gross[1:, copy].mean()),
        ))  # fmt: skip
    return found


def follow(
    name: str, kind: str, window: Window, path: Floats, costs: VectorCosts, limits: Limits = FREE,
    multiples: Sequence[float] = (1.0,), delay: int = 0,
) -> list[Track]:
    """Follow target weights `path` [T, N] of the whole history over the window, once for each multiple of the costs."""  # fmt: skip
    kernel = PortfolioKernel(
        window.ended, costs, limits, len(multiples), delay_bars=1 + delay, settled=kind == BASELINE, cost_scale=np.asarray(multiples)
    )
    wishes = np.maximum(path[window.start : window.stop - 1], 0.0)
    curve = simulate(kernel, wishes, window.start)
    return tracks_of(name, kind, curve, multiples, delay)


def mean_track(tracks: Sequence[Track]) -> Track:
    """An account divided equally among tracks, restored each day: the mean of their daily returns."""
    first = tracks[0]
    if any(not np.array_equal(track.days, first.days) for track in tracks):
        raise DataError("tracks of different days have no mean")
    turnover, cost, gross = np.mean([(track.turnover, track.cost, track.gross) for track in tracks], axis=0).tolist()
    returns = np.mean([track.returns for track in tracks], axis=0)
    return replace(first, seed=None, returns=returns, turnover=turnover, cost=cost, gross=gross)


def live(
    window: Window, features: npt.NDArray[np.float32], actors: Mapping[int, Actors], costs: VectorCosts, desk: Desk = DESK,
    multiples: Sequence[float] = (1.0,), delay: int = 0, name: str = "long_term",
) -> list[Track]:
    """The long-term agent's prior (a track without seed) and, by seed, its mean actions, over the window; HOUR_COLUMNS as `features`."""  # fmt: skip
    curve = live_curve(window, features, [None, *actors.values()], costs, desk, multiples, delay)
    tracks = tracks_of(name, AGENT, curve, multiples, delay, (None, *actors))
    return [replace(track, kind=PRIOR, name=f"{name}, prior ({desk.params.prior})") if track.seed is None else track for track in tracks]


def live_curve(
    window: Window, features: npt.NDArray[np.float32], policies: Sequence[Actors | None], costs: VectorCosts, desk: Desk = DESK,
    multiples: Sequence[float] = (1.0,), delay: int = 0,
) -> Curve:
    """Policies (None: action 0) by multiples of the costs, the multiples changing fastest; `weights` holds gross exposure alone."""  # fmt: skip
    width, each = len(window.history.symbols), len(multiples)
    kernel = PortfolioKernel(
        window.ended, costs, desk.limits, each * len(policies), delay_bars=1 + delay, cost_scale=np.tile(multiples, len(policies))
    )
    view = LongTermView(kernel, features[: window.stop], desk.params, desk.risk)
    kernel.reset(window.start)
    view.restart(np.arange(kernel.copies))
    steps = window.stop - 1 - window.start
    shape = (steps + 1, kernel.copies)
    equity, cost, turnover, gross = np.ones(shape), np.zeros(shape), np.zeros(shape), np.zeros((*shape, 1))
    actions = np.zeros((kernel.copies, width, ACTION_SIZES[LONG_TERM]), dtype=np.float32)
    for number in range(1, steps + 1):
        seen = view.observe()
        for place, policy in enumerate(policies):
            if policy is not None:
                rows = slice(place * each, (place + 1) * each)
                actions[rows] = policy.act(LONG_TERM, seen[rows].reshape(each * width, -1)).reshape(each, width, -1)
        wish, multiplier = view.propose(seen, actions)
        before, owned = kernel.weights.copy(), kernel.equity.copy()
        result = kernel.step(wish, multiplier)
        view.follow(before, owned, result)
        equity[number], cost[number], turnover[number] = result.equity, result.cost.sum(axis=1), result.turnover
        gross[number, :, 0] = np.abs(result.weights).sum(axis=1)
    return Curve(window.history.closings[window.start : window.stop], equity, gross, cost, turnover)
