"""What each part is worth: everything runs once as it is and once without the part, on the same facts, out of sample.

The effect is with minus without, so a part that earns its place is above 0. Both curves are resampled together (stationary
bootstrap), and because many parts are judged at once the p-values are adjusted by Holm (1979), "A simple sequentially rejective
multiple test procedure". A part that never came into play is told so, not tested.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import ConfigError, DataError
from agents.core.instruments import TIMEFRAMES
from agents.desk.decision import EngineConfig
from agents.desk.wishes import LONG_TERM
from agents.jobs.ablations import BOUND_AS, CONSTRAINT, Ablation, chosen
from agents.jobs.statistics import DAYS, Interval, paired_intervals, performance

Floats = NDArray[np.float64]
Times = NDArray[np.int64]

LEAST_PERIODS = 30
"""Fewer returns than this bear no interval."""
BUCKETS = ("1d", "1h", "1m")
"""Lengths over which returns are judged: the longest that gives enough of them."""
RESAMPLES = 2000
RAN, SAME, SILENT, UNTRAINED, IMPOSSIBLE = "ran", "same", "silent", "needs retraining", "impossible"
GIVEN, PRIORS, RETRAINED = "given", "priors", "retrained"
CAUTIONS = (
    "a part is switched off alone: two that stand in for each other both look idle",
    "effects are of this market and this window; repeat them on others before believing one",
)


@dataclass(frozen=True, slots=True, eq=False)
class Life:
    """One configuration over the test window. Returns are simple, net of costs, per bucket."""

    ends: Times
    """Ends of buckets, ns UTC, [K]."""
    returns: Floats
    """[K, seeds]; one column where nothing was trained by seed."""
    turnover: float
    """Notional traded a year over mean equity."""
    fees: float
    """A year, over mean equity."""
    bound: Mapping[str, int] = field(default_factory=dict)
    """In how many decisions each constraint held back; empty where it is not counted."""
    spoke: Mapping[str, int] = field(default_factory=dict)
    """Decisions by agent; empty where it is not counted."""


class Runner(Protocol):
    """Lives a configuration over the test window with each set of weights; None serves the priors."""

    def live(self, config: EngineConfig, weights: Sequence[bytes | None], told: Callable[[float], None]) -> Life: ...

    def passes_over(self, config: EngineConfig) -> tuple[str, ...]:
        """Names of parts that are switched on in the configuration and that this runner does not know."""


Trainer = Callable[[EngineConfig, Callable[[float], None]], list[bytes]]
"""Weights by seed for a configuration, learned on what came before the test window."""
Told = Callable[[str, float], None]
"""Which part, and how much of its run is done."""


def silent(_: str, __: float) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Row:
    """One part, and what it is worth."""

    name: str
    kind: str
    meaning: str
    status: str
    detail: str = ""
    weights: str = ""
    """What served: `priors`, `given` weights, weights `retrained` once for the whole desk, or `retrained for this row`."""
    bound: int | None = None
    """Decisions of the whole desk in which the constraint held back; None where it is not counted."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """Of the run without the part."""
    effect: Mapping[str, Interval] = field(default_factory=dict)
    """With minus without: mean a year, Sharpe ratio, and mean at equal volatility."""
    p: float | None = None
    """Two-sided, of the Sharpe ratio, adjusted by Holm for all parts that were tested."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**asdict(self), "figures": dict(self.figures), "effect": {name: each.to_dict() for name, each in self.effect.items()}}


@dataclass(frozen=True, slots=True)
class Table:
    """All parts beside the whole desk."""

    whole: Mapping[str, float]
    """Figures with everything switched on."""
    rows: tuple[Row, ...]
    periods: int
    bucket: str
    weights: str
    unknown: tuple[str, ...] = ()
    """Parts that are switched on and that the runner passed over, in every row."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        tested = sum(row.p is not None for row in self.rows)
        return {
            "whole": dict(self.whole), "weights": self.weights, "periods": self.periods, "bucket": self.bucket, "tested": tested,
            "rows": [row.to_dict() for row in self.rows], "cautions": list(CAUTIONS), "unknown": list(self.unknown),
        }  # fmt: skip


def ablate(
    config: EngineConfig, runner: Runner, bucket: str, *, only: Sequence[str] = (), weights: bytes | None = None,
    train: Trainer | None = None, resamples: int = RESAMPLES, seed: int = 0, told: Told = silent,
) -> Table:  # fmt: skip
    """Switch off each part that `only` names (all without), and tabulate its effect.

    Without `train` the given weights serve everywhere, or the priors, and rewards cannot be judged. With it the long-term agent is
    learned anew by seeds for the whole desk, and once more for each part that changes what it learns (its prior, a term of its
    reward); all other rows serve the whole desk's weights. Raises ConfigError for a part that is not switched
    on, DataError for too short a window.
    """
    if weights is not None and train is not None:
        raise ConfigError("--weights and --retrain exclude each other: weights are either given or learned here")
    if train is not None and LONG_TERM not in config.agents:
        raise ConfigError("--retrain trains the long-term agent, which agents.enabled leaves out; add it or leave --retrain out")
    parts = chosen(config, only)
    served: list[bytes | None] = [weights] if train is None else [*train(config, lambda done: told("training", done))]
    whole = runner.live(config, served, lambda done: told("everything", done))
    if len(whole.ends) < LEAST_PERIODS:
        raise DataError(f"the window holds {len(whole.ends)} returns of {bucket}, and an interval needs {LEAST_PERIODS}: widen --from and --to")
    origin = RETRAINED if train is not None else GIVEN if weights is not None else PRIORS
    unknown = runner.passes_over(config)
    bench = _Bench(config, runner, unknown, whole, served, origin, train, bucket, resamples, seed, told)
    rows = _adjusted([bench.judge(part) for part in parts])
    return Table(_figures(whole, bucket), tuple(rows), len(whole.ends), bucket, origin, unknown)


@dataclass(frozen=True, slots=True)
class _Bench:
    """The whole desk, and how parts are held against it."""

    config: EngineConfig
    runner: Runner
    unknown: tuple[str, ...]
    whole: Life
    served: list[bytes | None]
    origin: str
    train: Trainer | None
    bucket: str
    resamples: int
    seed: int
    told: Told

    def judge(self, part: Ablation) -> Row:
        """One part's row."""
        counted = self.whole.bound.get(BOUND_AS.get(name := part.name.split(".")[1], name), 0) if self.whole.bound else None
        row = Row(part.name, part.kind, part.meaning, RAN, weights=self.origin, bound=counted if part.kind == CONSTRAINT else None)
        if part.agent is not None and self.whole.spoke and not self.whole.spoke.get(part.agent):
            return _told(row, SILENT, f"{part.agent} never spoke on this data")
        if part.name in self.unknown:
            return _told(row, IMPOSSIBLE, "the vector kernel does not know it: give --engine event")
        if part.learned and self.train is None:
            return _told(row, UNTRAINED, "met while learning only: give --retrain")
        try:
            config = part.off(self.config)
        except ConfigError as error:
            return _told(row, IMPOSSIBLE, str(error))
        served, origin = self.served, self.origin
        if self.train is not None and (part.learned or part.name == f"prior.{LONG_TERM}"):
            served, origin = [*self.train(config, lambda done: self.told(f"training without {part.name}", done))], f"{RETRAINED} for this row"
        elif part.name == f"agents.{LONG_TERM}":
            served = served[:1]  # nobody is left whose weights differ by seed
        without = self.runner.live(config, served, lambda done: self.told(part.name, done))
        return self._compared(row, without, origin)

    def _compared(self, row: Row, without: Life, weights: str) -> Row:
        ends, ours, theirs = np.intersect1d(self.whole.ends, without.ends, return_indices=True)
        if len(ends) < LEAST_PERIODS:
            return _told(row, IMPOSSIBLE, f"only {len(ends)} returns of {self.bucket} are common to both runs")
        left, right = self.whole.returns[ours], without.returns[theirs]
        figures = _figures(without, self.bucket)
        if left.shape == right.shape and np.array_equal(left, right):
            return _told(row, SAME, "it changed nothing in this window", figures=figures)
        effect = paired_intervals(left, right.mean(axis=1), _per_year(self.bucket), resamples=self.resamples, seed=self.seed)
        below = effect["sharpe"].below
        p = max(2.0 * min(below, 1.0 - below), 1.0 / self.resamples)
        return Row(row.name, row.kind, row.meaning, RAN, "", weights, row.bound, figures, effect, p)


def _told(row: Row, status: str, detail: str, figures: Mapping[str, float] | None = None) -> Row:
    return Row(row.name, row.kind, row.meaning, status, detail, row.weights if figures else "", row.bound, figures or {})


def _adjusted(rows: Sequence[Row]) -> list[Row]:
    """Holm: the k-th smallest of m p-values times m - k + 1, never below a smaller one's."""
    tested = sorted((row.p, place) for place, row in enumerate(rows) if row.p is not None)
    found, largest = list(rows), 0.0
    for rank, (p, place) in enumerate(tested):
        largest = max(largest, min(p * (len(tested) - rank), 1.0))
        row = rows[place]
        found[place] = Row(row.name, row.kind, row.meaning, row.status, row.detail, row.weights, row.bound, row.figures, row.effect, largest)
    return found


def _figures(life: Life, bucket: str) -> dict[str, float]:
    mean = life.returns.mean(axis=1)
    seen = performance(mean, _per_year(bucket)).to_dict()
    return {**{name: float(value) for name, value in seen.items()}, "turnover": life.turnover, "fees": life.fees}


def _per_year(bucket: str) -> float:
    return DAYS * TIMEFRAMES["1d"] / TIMEFRAMES[bucket]


def bucket_of(start: int, end: int) -> str:
    """The longest bucket of which [start, end) ns holds enough. Raises DataError for a window shorter than half an hour."""
    for bucket in BUCKETS:
        if (end - start) // TIMEFRAMES[bucket] >= LEAST_PERIODS + 1:
            return bucket
    raise DataError(f"the test window is {(end - start) / 6e10:.0f} minutes long; an interval needs {LEAST_PERIODS + 1}: widen --from and --to")
