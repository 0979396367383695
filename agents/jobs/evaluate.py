"""Evaluation that a sceptic accepts: folds in time, many seeds, paired intervals against the agent's own prior, costs and delay.

One study is one history. The last fold of its walk-forward is the test; the fold before it is where configurations are chosen, and each
that was tried stands in the run log. Within a fold the gap between training and judging holds the candles on which a run picks its
checkpoint. Everything returned is plain values, so that JSON, terminal and document say the same.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from agents.desk.limits import Limits
from agents.desk.long_term import LongTermParams
from agents.environment.kernel import VectorCosts
from agents.jobs.baselines import BASELINES, long_term_prior, short_term_prior
from agents.jobs.contenders import BASELINE, DESK, PRIOR, Desk, Track, Window, follow, live, mean_track
from agents.jobs.result import moment
from agents.jobs.statistics import (
    DAYS,
    deflated_sharpe,
    dispersion,
    least_track_record,
    mean_interval,
    moments,
    overfitting,
    paired_intervals,
)
from agents.jobs.trials import Trial, TrialLog
from agents.jobs.walk_forward import Fold, WalkForward
from agents.market.features import HOUR
from agents.market.history import CandleHistory, hour_features
from agents.market.observation import SPEC_HASH
from agents.serving.actors import Actors

Singles = npt.NDArray[np.float32]
Told = Callable[[str], None]
Plain = dict[str, Any]

MULTIPLES = (0.0, 1.0, 2.0, 4.0)
CLASSIC = LongTermParams(prior="sign")
SHIPPED = Desk(limits=Limits(), risk="prior")
"""With the drawdown ladder and the risk agent's prior, as the daemon starts."""
LEAST_DAYS = 20
"""Fewer give no interval."""
BLOCKS = 10
"""Runs of time for the probability of overfitting: a year of days gives five weeks each."""


def silent(_: str) -> None:
    """Tells nobody."""


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """What a run may learn from: bars `train` of the history, and those after them up to `until`, to pick a checkpoint on."""

    history: CandleHistory
    features: Singles
    """HOUR_COLUMNS of the whole history, [T, N, columns]; row t uses bars up to and including t."""
    train: tuple[int, int]
    until: int
    costs: VectorCosts
    desk: Desk


@dataclass(frozen=True, slots=True)
class Training:
    """How the agent is trained: `lessons(lesson)` gives a function of the seed to a payload.

    `configuration` is what the run log remembers: whatever was chosen belongs into it.
    """

    configuration: Mapping[str, Any]
    lessons: Callable[[Lesson], Callable[[int], bytes]]


@dataclass(frozen=True, slots=True)
class Study:
    """One history, and how it is judged."""

    name: str
    history: CandleHistory
    plan: WalkForward
    costs: VectorCosts = field(default_factory=VectorCosts)
    desk: Desk = DESK
    multiples: tuple[float, ...] = MULTIPLES
    delay: int = 1
    """Bars of delay that results are repeated with."""
    resamples: int = 2000

    @property
    def folds(self) -> tuple[Fold, ...]:
        return self.plan.folds(len(self.history.times))

    def window(self, fold: Fold) -> Window:
        """The fold's judged bars; the first decision is at the close before the first of them."""
        return Window(self.history, fold.test[0] - 1, fold.test[1])

    def lesson(self, fold: Fold, features: Singles) -> Lesson:
        """The fold's past. A checkpoint is picked on the gap, embargo aside."""
        until = max(fold.test[0] - self.plan.embargo, fold.train[1] + 1)
        return Lesson(self.history, features, fold.train, until, self.costs, self.desk)


# -- parts -------------------------------------------------------------------------------------------------------------


def rivals(study: Study, features: Singles | None, window: Window, multiples: Sequence[float] = (1.0,), delay: int = 0) -> list[Track]:
    """Baselines, and the agents' own priors without an agent, on the same costs: the long-term ones, on minutes the short-term one."""
    found, costs = [], study.costs
    for name, rule in BASELINES.items():
        path = rule(study.history, window.start)
        found += follow(name, BASELINE, window, path, costs, multiples=multiples, delay=delay)
    if features is None:
        paths = {"prior (short-term)": short_term_prior(study.history, costs.fee_bps * 1e-4, costs.half_spread_bps * 1e-4)}
    else:
        variants = (study.desk.params, CLASSIC)
        paths = {f"prior ({params.prior})": long_term_prior(study.history, features, params) for params in variants}
    for name, path in paths.items():
        found += follow(name, PRIOR, window, path, costs, study.desk.limits, multiples=multiples, delay=delay)
    return found


def features_of(history: CandleHistory) -> Singles | None:
    """HOUR_COLUMNS of candles of an hour or longer; None for shorter ones, which have none."""
    return hour_features(history) if history.length >= HOUR else None


def train_seeds(
    study: Study, features: Singles, training: Training, fold: Fold, seeds: Sequence[int], told: Told = silent
) -> dict[int, bytes]:
    """A payload for each seed, trained on the fold's past."""
    learn, payloads = training.lessons(study.lesson(fold, features)), {}
    for seed in seeds:
        payloads[seed] = learn(seed)
        told(f"{study.name}: fold {fold.number + 1}, seed {seed} trained")
    return payloads


def acting(payloads: Mapping[int, bytes]) -> dict[int, Actors]:
    """Policies by seed. Raises ModelError or SpecMismatch for weights that cannot serve."""
    return {seed: Actors.from_payload(payload, SPEC_HASH) for seed, payload in payloads.items()}


def against(ours: Sequence[Track], theirs: Track, resamples: int) -> dict[str, Plain]:
    """Paired intervals of the mean of `ours` (seeds) less `theirs`, by measure."""
    table = np.stack([track.returns for track in ours], axis=1)
    return {name: found.to_dict() for name, found in paired_intervals(table, theirs.returns, resamples=resamples).items()}


def described(history: CandleHistory) -> Plain:
    """What a history is, in plain values."""
    return {
        "symbols": list(history.symbols), "timeframe": history.timeframe, "bars": len(history.times),
        "from": moment(int(history.times[0])), "to": moment(int(history.closings[-1])), "funding": history.funding is not None,
        "missing": round(1.0 - float(history.listed.mean()), 4),
    }  # fmt: skip


def spans(study: Study, fold: Fold) -> Plain:
    """The fold's ranges as dates; ends are the close of the last bar."""
    times, closings = study.history.times, study.history.closings
    ranges = {"train": fold.train, "test": fold.test}
    dates = {name: [moment(int(times[a])), moment(int(closings[b - 1]))] for name, (a, b) in ranges.items()}
    return {"number": fold.number + 1, **dates, "gap_bars": fold.gap}


# -- the agent on one window -------------------------------------------------------------------------------------------


def agent_section(study: Study, features: Singles, window: Window, payloads: Mapping[int, bytes], others: Sequence[Track]) -> Plain:
    """The trained agent by seeds beside its own prior: figures, paired intervals, costs, delay, dispersion. Plain values."""
    actors = acting(payloads)
    tracks = live(window, features, actors, study.costs, study.desk, study.multiples)
    late = live(window, features, actors, study.costs, study.desk, delay=study.delay)
    prior, seeds = _parted(tracks, 1.0)
    slow_prior, slow = _parted(late, 1.0)
    whole = mean_track(seeds)
    own = against(seeds, prior, study.resamples)
    each = [paired_intervals(track.returns, prior.returns, resamples=study.resamples)["equal_volatility"] for track in seeds]
    by_cost = []
    for multiple in study.multiples:
        base, agents = _parted(tracks, multiple)
        by_cost.append({
            "multiple": multiple, "agent": mean_track(agents).to_dict(), "prior": base.to_dict(),
            "difference": against(agents, base, study.resamples)["equal_volatility"],
        })  # fmt: skip
    return {
        "agent": whole.to_dict(), "prior": prior.to_dict(),
        "own_interval": {name: found.to_dict() for name, found in mean_interval(whole.returns, resamples=study.resamples).items()},
        "against_prior": own,
        "against": {track.name: against(seeds, track, study.resamples) for track in others if track.multiple == 1.0},
        "seeds": [{**track.to_dict(), "equal_volatility": found.to_dict()} for track, found in zip(seeds, each, strict=True)],
        "dispersion": {
            "sharpe": dispersion([track.figures.sharpe for track in seeds]).to_dict(),
            "ahead_of_prior": dispersion([track.figures.sharpe - prior.figures.sharpe for track in seeds]).to_dict(),
        },
        "costs": by_cost,
        "delay": {
            "bars": study.delay, "agent": mean_track(slow).to_dict(), "prior": slow_prior.to_dict(),
            "difference": against(slow, slow_prior, study.resamples)["equal_volatility"],
        },
        "curve": whole.returns.round(6).tolist(),
    }  # fmt: skip


def _parted(tracks: Sequence[Track], multiple: float) -> tuple[Track, list[Track]]:
    """The prior and the seeds at one multiple of the costs."""
    chosen = [track for track in tracks if track.multiple == multiple]
    return next(track for track in chosen if track.seed is None), [track for track in chosen if track.seed is not None]


def logged(log: TrialLog, study: Study, training: Training, stage: str, section: Plain) -> None:
    """Enter a section's seeds and, as seed None, their mean with its curve."""
    for row in section["seeds"]:
        figures = {name: row[name] for name in ("sharpe", "growth", "turnover")}
        log.append(Trial(study.name, training.configuration, row["seed"], stage, figures))
    figures = {"sharpe": section["agent"]["sharpe"], "ahead": section["against_prior"]["equal_volatility"]["estimate"]}
    log.append(Trial(study.name, training.configuration, None, stage, figures, tuple(section["curve"])))


def tried(log: TrialLog, study: Study, returns: Sequence[float]) -> Plain:
    """What choosing cost: deflated Sharpe ratio of the test curve, overfitting over all configurations on the validation fold."""
    count = log.count(study.name)
    spread = log.variance(study.name, "validation")
    ratio, skewness, kurtosis = moments(returns)
    found: Plain = {
        "trials": count,
        "deflated_sharpe": deflated_sharpe(returns, count, None if spread is None else spread / DAYS),
        "probabilistic_sharpe": deflated_sharpe(returns, 1),
        "years_for_95_percent": least_track_record(ratio, skewness, kurtosis) / DAYS,
        "overfitting": None,
    }
    curves = log.curves(study.name, "validation")
    if len(curves) > 1 and len(returns) >= 2 * BLOCKS:
        found["overfitting"] = overfitting(np.stack(list(curves.values()), axis=1), BLOCKS).to_dict()
    return found


# -- the whole ---------------------------------------------------------------------------------------------------------


def sealed(study: Study) -> tuple[Fold, ...]:
    """The folds that may be looked at while choosing: all but the last. Raises DataError where there is none."""
    if len(study.folds) < 2:
        study.plan.folds(len(study.history.times) - study.plan.test)  # says what is missing
    return study.folds[:-1]


def walk(
    study: Study, features: Singles, training: Training | None, seeds: Sequence[int], log: TrialLog, folds: Sequence[Fold] | None = None,
    told: Told = silent,
) -> list[Plain]:
    """Folds one by one: baselines, priors and, with a training, the agent by seeds. The fold before the test enters the run log.

    All folds but the last unless `folds` says otherwise.
    """  # fmt: skip
    rows: list[Plain] = []
    for fold in sealed(study) if folds is None else folds:
        window = study.window(fold)
        tracks = rivals(study, features, window)
        row: Plain = {**spans(study, fold), "standings": [track.to_dict() for track in tracks]}
        told(f"{study.name}: fold {fold.number + 1}, baselines")
        if training is not None and seeds:
            payloads = train_seeds(study, features, training, fold, seeds, told)
            row["agent"] = agent_section(study, features, window, payloads, [])
            if fold.number == len(study.folds) - 2:
                logged(log, study, training, "validation", row["agent"])
        rows.append(row)
    return rows


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A report in plain values, and the weights of the test fold by seed, for repetitions elsewhere."""

    report: Plain
    weights: Mapping[int, bytes]


def evaluate(
    study: Study, training: Training | None, seeds: Sequence[int], log: TrialLog, told: Told = silent, earlier: Sequence[int] = ()
) -> Evaluation:
    """All of a study: on the last fold everything that a sceptic asks for, with all `seeds`; on the folds before it the seeds `earlier`."""
    folds, features = study.folds, hour_features(study.history)
    told(f"{study.name}: {len(folds)} folds, features of {len(study.history.times)} bars")
    report: Plain = {
        "study": study.name, "data": described(study.history), "plan": asdict(study.plan), "costs": asdict(study.costs),
        "folds": [*walk(study, features, training, earlier, log, folds[:-1], told), spans(study, folds[-1])],
    }  # fmt: skip
    window = study.window(folds[-1])
    others = _judged(study, features, window, report)
    told(f"{study.name}: fold {len(folds)}, baselines")
    if training is None:
        return Evaluation(report, {})
    payloads = train_seeds(study, features, training, folds[-1], seeds, told)
    report["agent"] = agent_section(study, features, window, payloads, others)
    logged(log, study, training, "test", report["agent"])
    report["configuration"] = dict(training.configuration)
    report["choosing"] = tried(log, study, report["agent"]["curve"])
    return Evaluation(report, payloads)


def repeat(study: Study, payloads: Mapping[int, bytes], warmup: int, told: Told = silent) -> Plain:
    """The same weights on another history, from bar `warmup` to its end: nothing is trained and nothing chosen here."""
    features = features_of(study.history)
    window = Window(study.history, warmup, len(study.history.times))
    report: Plain = {"study": study.name, "data": described(study.history), "costs": asdict(study.costs)}
    others = _judged(study, features, window, report)
    told(f"{study.name}: baselines")
    if payloads and features is not None:
        report["agent"] = agent_section(study, features, window, payloads, others)
        told(f"{study.name}: {len(payloads)} seeds")
    return report


def _judged(study: Study, features: Singles | None, window: Window, report: Plain) -> list[Track]:
    """Enter baselines and priors on one window: every multiple of the costs, delayed, and the intervals of their Sharpe ratios."""
    tracks, late = rivals(study, features, window, study.multiples), rivals(study, features, window, delay=study.delay)
    shipped = [] if features is None else live(window, features, {}, study.costs, SHIPPED, name="shipped desk")
    closings = study.history.closings
    report |= {
        "window": [moment(int(closings[window.start])), moment(int(closings[window.stop - 1]))], "years": window.years,
        "standings": [track.to_dict() for track in [*tracks, *shipped]],
        "delayed": [track.to_dict() for track in late],
        "intervals": {
            track.name: mean_interval(track.returns, resamples=study.resamples)["sharpe"].to_dict()
            for track in tracks if track.multiple == 1.0 and len(track.returns) >= LEAST_DAYS
        },
    }  # fmt: skip
    return tracks
