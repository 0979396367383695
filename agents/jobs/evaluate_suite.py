"""One command's worth of evaluation: a study, repetitions of its weights on other histories, controls, recorded books."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from agents.core.errors import DataError
from agents.environment.kernel import VectorCosts
from agents.jobs.baselines import equal_weight, long_term_prior
from agents.jobs.contenders import DESK, FREE, Desk, Window, live_curve, traded
from agents.jobs.evaluate import Plain, Study, Told, acting, repeat, silent
from agents.jobs.sceptic import SEEDS, Market, by_weights, known_rule, null_market, planted_alpha, spot_rule, spot_share
from agents.jobs.walk_forward import plan_in_days
from agents.market.features import DAY, HOUR
from agents.market.history import CandleHistory, hour_features, load_history
from agents.market.synthetic_candles import random_walk_history
from agents.serving.actors import Actors

WARMUP_DAYS, WARMUP_SHARE = 90.0, 0.3
"""Before a repetition is judged: what the slowest columns call a full history, but never most of a short one."""
SYNTHETIC_BARS, SYNTHETIC_SYMBOLS = 24 * 1100, 4
SCEPTICS = Market(years=1.0)
"""Made-up candles of each seed."""
STANDS_OUT = 6.0
"""t that a planted Sharpe ratio should show over all seeds: far enough from 0 that chance does not fail the control."""


def load_study_history(paths: Sequence[Path]) -> CandleHistory:
    """Candles that were traded; holes stay holes. Minutes and shorter are cut to where every symbol is listed. Raises DataError."""
    history = load_history(paths, allow_gaps=True)
    if history.length >= HOUR:
        return traded(history)
    whole = np.flatnonzero(history.listed.all(axis=1))
    if not len(whole):
        raise DataError(f"{paths[0]}: at no time have all {len(history.symbols)} symbols a candle; name fewer files")
    return history.rows(int(whole[0]), int(whole[-1]) + 1)


def synthetic_history(seed: int = 0) -> CandleHistory:
    """Where no data are given: a market in which nothing can be learned, long enough for two folds."""
    return random_walk_history(SYNTHETIC_SYMBOLS, SYNTHETIC_BARS, seed)


def named(paths: Sequence[Path], history: CandleHistory) -> str:
    """What a study is called unless told: where its candles lie, and their length."""
    stem = paths[0].stem if paths else "synthetic"
    return stem if history.timeframe in stem else f"{stem}-{history.timeframe}"


def make_study(
    paths: Sequence[Path], name: str | None, days: Mapping[str, float], scheme: str, *, fee_bps: float, half_spread_bps: float, resamples: int
) -> Study:
    """A study of the candles at `paths`, or of a made-up market; `days` are train, test, purge and embargo.

    Raises DataError naming what is missing where the history is too short, ConfigError for a purge shorter than the look-back.
    """
    history = load_study_history(paths) if paths else synthetic_history()
    if not paths:
        days = {**days, "train": min(days["train"], 365.0), "test": min(days["test"], 180.0)}
    plan = plan_in_days(DAY / history.length, **days, scheme=scheme)
    plan.folds(len(history.times))
    costs = VectorCosts(fee_bps=fee_bps, half_spread_bps=half_spread_bps, funding=history.funding is not None)
    return Study(name or named(paths, history), history, plan, costs, resamples=resamples)


def repetition(path: Path, model: Study, payloads: Mapping[int, bytes], told: Told = silent) -> Plain:
    """The model study's weights and rules on the candles at `path`; weights only where candles are as long as those learned from.

    Longs pay funding where the candles have it.
    """
    history = load_study_history([path])
    costs = replace(model.costs, funding=history.funding is not None)
    study = replace(model, name=named([path], history), history=history, costs=costs)
    warmup = int(min(WARMUP_DAYS * DAY / history.length, WARMUP_SHARE * len(history.times)))
    chosen = payloads if history.length == model.history.length else {}
    return repeat(study, chosen, max(warmup, 1), told)


def controls(payloads: Mapping[int, bytes], costs: VectorCosts, desk: Desk = DESK, market: Market = SCEPTICS, told: Told = silent) -> Plain:
    """What must come out where the truth is known: a planted Sharpe ratio is found, and nobody earns where nothing can be earned."""
    rows = []
    spot = partial(spot_rule, limits=FREE)
    for name, rule, share in (("long and short", known_rule, 1.0), ("on spot, through the kernel", spot, spot_share(market))):
        planted = round(STANDS_OUT / (share * float(np.sqrt(market.years * len(SEEDS)))), 1)
        found = planted_alpha(rule, sharpe=planted, expected=planted * share, market=market)
        told(f"controls: planted alpha, {name}")
        rows.append(_row(
            f"planted alpha of Sharpe ratio {planted:g} by a rule that knows it, without costs, {name}",
            f"{planted * share:.2f} inside the interval, 0 outside", found.sharpe.estimate, found.sharpe.low, found.sharpe.high, "Sharpe",
            found.passed,
        ))  # fmt: skip
    rules: dict[str, Any] = {
        "equal weight": by_weights(equal_weight, costs=costs, limits=desk.limits),
        "long-term prior": by_weights(lambda h: np.maximum(long_term_prior(h, hour_features(h), desk.params), 0.0), costs=costs, limits=desk.limits),
    }
    if payloads:
        rules[f"trained agent, mean of {len(payloads)} seeds"] = _Lived(acting(payloads), costs, desk)
    for name, lives in rules.items():
        verdict = null_market(lives, market=market)
        told(f"controls: null market, {name}")
        mean = verdict.mean
        rows.append(_row(f"null market, {name}, net", "not above 0", mean.estimate, mean.low, mean.high, "a year", verdict.passed))
    years = market.years * len(SEEDS)
    text = (
        f"Made-up markets of {market.symbols} symbols, {years:g} years of hours in five seeds: random walks with clustered volatility,"
        " in which no rule has a mean return above minus its costs, and the same with a signal of known worth."
    )
    return {"text": text, "rows": rows}


def _row(name: str, expected: str, estimate: float, low: float, high: float, unit: str, passed: bool) -> Plain:
    share = unit == "a year"
    scale, digits = (100.0, 1) if share else (1.0, 2)
    words = f"{estimate * scale:.{digits}f}{' %' if share else ''} {unit} [{low * scale:.{digits}f}, {high * scale:.{digits}f}]"
    return {"name": name, "expected": expected, "found": words, "passed": bool(passed), "estimate": estimate, "low": low, "high": high}


class _Lived:
    """The mean of trained seeds as an account of the sceptic's markets: returns by bar."""

    def __init__(self, actors: Mapping[int, Actors], costs: VectorCosts, desk: Desk) -> None:
        self.actors, self.costs, self.desk = actors, costs, desk

    def __call__(self, history: CandleHistory) -> npt.NDArray[np.float64]:
        window = Window(history, 0, len(history.times))
        curve = live_curve(window, hour_features(history), [*self.actors.values()], self.costs, self.desk)
        return np.asarray(curve.returns.mean(axis=1), dtype=np.float64)
