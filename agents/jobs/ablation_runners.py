"""How a configuration is lived for an ablation: through the whole engine, or the long-term agent alone through the vector kernel."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import Any

import numpy as np

from agents.core.errors import ConfigError, DataError
from agents.core.instruments import TIMEFRAMES
from agents.desk.decision import EngineConfig
from agents.desk.long_term import LongTermParams
from agents.desk.wishes import LONG_TERM, RISK
from agents.environment.kernel import VectorCosts
from agents.jobs.ablate import Life, Trainer
from agents.jobs.ablations import WITHOUT, ablations
from agents.jobs.backtest import Source, run_backtest
from agents.jobs.contenders import Desk, Window, live
from agents.jobs.result import RunResult
from agents.jobs.statistics import compounded
from agents.market.frictions import Frictions
from agents.market.history import CandleHistory, hour_features
from agents.market.observation import SPEC_HASH
from agents.serving.actors import Actors

KERNEL_LIMITS = frozenset(
    {"cash_buffer", "position_cap", "gross", "net", "turnover_cost_bps", "turnover_day", "tracking", "reduced_gross", "drawdown_warn",
     "drawdown_stop", "drawdown_reduce", "drawdown_flatten"}
)  # fmt: skip
"""Limits that the kernel's projection knows."""


@dataclass(frozen=True, slots=True)
class EventRunner:
    """The engine over a recorded market from `start`, which has seen `warm_up_ns` of it before, so that features are known."""

    data: Source
    start: int | None
    end: int | None
    bucket: str
    capital: Decimal
    frictions: Frictions
    warm_up_ns: int = 0
    allow_gaps: bool = False

    def passes_over(self, config: EngineConfig) -> tuple[str, ...]:
        """Nothing: it is the engine itself."""
        return ()

    def live(self, config: EngineConfig, weights: Sequence[bytes | None], told: Callable[[float], None]) -> Life:
        """One run a set of weights."""
        runs = [
            run_backtest(
                config, self.data, self.start, self.end, self.capital, self.frictions, weights=payload, allow_gaps=self.allow_gaps,
                warm_up_ns=self.warm_up_ns, progress=partial(_part, told, place, len(weights)),
            )
            for place, payload in enumerate(weights)
        ]  # fmt: skip
        return _joined([self._curve(run) for run in runs], runs)

    def _curve(self, run: RunResult) -> tuple[np.ndarray, np.ndarray]:
        inside = run.times[:-1] >= (self.start or 0)
        if not inside.any():
            raise DataError("the test window holds no sample of the account: widen --from and --to")
        return compounded(run.times[1:][inside], run.returns()[inside], TIMEFRAMES[self.bucket])


def _part(told: Callable[[float], None], place: int, count: int, done: float) -> None:
    """So much of one of `count` equal parts is done."""
    told((place + done) / count)


def _joined(curves: list[tuple[np.ndarray, np.ndarray]], runs: Sequence[RunResult]) -> Life:
    """Seeds side by side, on the buckets that all of them have."""
    ends = curves[0][0]
    for times, _ in curves[1:]:
        ends = np.intersect1d(ends, times)
    table = np.stack([values[np.isin(times, ends)] for times, values in curves], axis=1)
    years = [max(run.years, 1e-9) * float(run.equity.mean()) for run in runs]
    bound: dict[str, int] = {}
    spoke: dict[str, int] = {}
    for run in runs:
        for counts, seen in ((bound, run.bound), (spoke, run.meta["decisions"])):
            for name, count in seen.items():
                counts[name] = counts.get(name, 0) + count
    turnover = np.mean([float(run.turnover[-1]) / scale for run, scale in zip(runs, years, strict=True)])
    fees = np.mean([float(run.fees[-1]) / scale for run, scale in zip(runs, years, strict=True)])
    return Life(ends, table, float(turnover), float(fees), bound, spoke)


class VectorRunner:
    """The long-term agent alone, on candles in arrays: hundreds of times faster, and without the other three, books and orders."""

    def __init__(self, history: CandleHistory, start: int | None, end: int | None, costs: VectorCosts) -> None:
        self.costs = costs
        first = 0 if start is None else int(np.searchsorted(history.closings, start))
        stop = len(history.times) if end is None else int(np.searchsorted(history.times, end))
        self.window = Window(history, first, stop)
        self.features = hour_features(history)

    def passes_over(self, config: EngineConfig) -> tuple[str, ...]:
        """Everything but the long-term agent, its prior, the risk agent as a whole and the limits of the kernel's own projection."""
        parts = ablations(config)
        limits = [f"risk.{name}" for name, fields in WITHOUT.items() if KERNEL_LIMITS.issuperset(fields)]
        known = {f"agents.{LONG_TERM}", f"agents.{RISK}", f"prior.{LONG_TERM}", *limits}
        return tuple(part.name for part in parts if part.name not in known and not part.learned)

    def live(self, config: EngineConfig, weights: Sequence[bytes | None], told: Callable[[float], None]) -> Life:
        """All seeds at once."""
        prior = "none" if config.prior == "none" or LONG_TERM in config.without_prior else "trend"
        risk: str | float = "prior" if RISK in config.agents else config.coordinator.silent_gross
        limits = config.limits if LONG_TERM in config.agents else replace(config.limits, position_cap=0.0)
        actors = {seed: Actors.from_payload(payload, SPEC_HASH) for seed, payload in enumerate(weights) if payload is not None}
        desk = Desk(LongTermParams(prior=prior), limits, risk)
        tracks = live(self.window, self.features, actors, self.costs, desk)
        tracks = tracks[1:] if actors else tracks[:1]
        told(1.0)
        bars = self.window.stop - self.window.start
        spoke = {agent: bars for agent in (LONG_TERM, RISK) if agent in config.agents}
        turnover, cost = np.mean([(track.turnover, track.cost) for track in tracks], axis=0).tolist()
        return Life(tracks[0].days, np.stack([track.returns for track in tracks], axis=1), turnover, cost, {}, spoke)


def long_term_trainer(
    history: CandleHistory, until: int, seeds: int, steps: int, costs: VectorCosts, settings: Mapping[str, Any] | None = None
) -> Trainer:
    """Learns the long-term agent of a configuration on candles that close by `until` ns, once a seed.

    No validation candles: a policy that is not better than its prior is served all the same, for the question is what the part does
    to learning. Raises ConfigError for no seeds or steps, DataError for too little before the window.
    """
    if seeds < 1 or steps < 1:
        raise ConfigError(f"--seeds {seeds} and --retrain {steps}: give at least 1 of each")
    stop = int(np.searchsorted(history.closings, until, side="right"))
    if not stop:
        raise DataError("there are no candles before the test window to learn from: move --from, or give more data")
    before = history.rows(0, stop)

    def train(config: EngineConfig, told: Callable[[float], None]) -> list[bytes]:
        from agents.jobs.train_long_term import train_long_term  # brings torch, which nobody needs who does not learn

        prior = "none" if config.prior == "none" or LONG_TERM in config.without_prior else "trend"
        environment = {
            "rewards": config.rewards, "terms": dict(config.rewards.terms.of(LONG_TERM)), "limits": config.limits,
            "params": LongTermParams(prior=prior),
        }  # fmt: skip
        def learned(seed: int) -> bytes:
            def heard(updates: int, _: Mapping[str, float]) -> None:
                _part(told, seed, seeds, updates / steps)

            return train_long_term(before, seed, steps, costs=costs, environment=environment, told=heard, **(settings or {}))

        return [learned(seed) for seed in range(seeds)]

    return train
