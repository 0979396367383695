"""Hindsight: what other positions and other actions would have been worth on prices that were lived through anyway.

Prices are exogenous to a small account, so the short-term and the risk agent learn from random positions and actions without exploring
with money (Andrychowicz et al. 2017, "Hindsight experience replay", with positions in the place of goals). What is not exogenous is left
as it was: a limit order's fill. The short-term agent's tilt alone is relabelled, and every trade of it pays the taker's price, so that
nothing is learned here of urgency, offset and participation. The market maker's fills are its own news: it has no hindsight. The long-term
agent's is the vector environment's random starts (`agents.jobs.train_long_term`).
"""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from agents.core.instruments import NS, Symbol
from agents.desk.priors import MINUTES_PER_YEAR, tighten
from agents.desk.rewards import CADENCES_NS, SECONDS_PER_YEAR, Covariance
from agents.desk.risk import Risk
from agents.desk.short_term import ShortTerm
from agents.desk.wishes import RISK, SHORT_TERM
from agents.jobs.train_rollouts import Columns, Moment, Rollout
from agents.market.observation import SPECS, Observation

Floats = NDArray[np.float64]

_ST, _R = SPECS[SHORT_TERM].index, SPECS[RISK].index
_EXPOSURES = (
    "gross", "net", "portfolio_volatility", "var_95", "cvar_95", "var_95_history", "cvar_95_history", "largest_weight",
    "portfolio_beta", "stop_distance_mean",
)  # fmt: skip
"""Columns of the risk agent that grow with the book."""


def relabelled(rollout: Rollout, lived: Mapping[str, Columns], copies: int, rng: np.random.Generator) -> dict[str, list[Columns]]:
    """By agent `copies` data sets like what was lived, each with other positions and actions; rewards in the same running scale."""
    makers = {SHORT_TERM: _short_term, RISK: _risk}
    found = {agent: [make(rollout, lived[agent], rng) for _ in range(copies)] for agent, make in makers.items() if agent in lived}
    return {agent: [part for part in parts if len(part["reward"])] for agent, parts in found.items()}


def _interval(rollout: Rollout, agent: str, rows: Columns, at: int) -> tuple[Moment, Moment, float] | None:
    """The book at both ends of a row, and its length in years."""
    begin, moments = int(rows["time"][at]), rollout.engine.moments
    about = begin + float(rows["elapsed"][at]) * CADENCES_NS[agent]
    end = min(moments, key=lambda time: abs(time - about), default=begin)
    if begin not in moments or end <= begin or abs(end - about) > 1e-5 * (end - begin):  # elapsed is a float32
        return None
    return moments[begin], moments[end], (end - begin) / NS / SECONDS_PER_YEAR


def _take(rows: Columns, chosen: list[int]) -> Columns:
    return {name: values[chosen].copy() for name, values in rows.items()}


def _scaled(rollout: Rollout, agent: str, rewards: Floats) -> NDArray[np.float32]:
    book = rollout.engine.rewards
    clip = book.params.clip
    return np.asarray(book.params.reward_scale * np.clip(rewards / book.scales[agent].value, -clip, clip), np.float32)


# -- short-term --------------------------------------------------------------------------------------------------------


def _short_term(rollout: Rollout, rows: Columns, rng: np.random.Generator) -> Columns:
    """Random tilts held before, and random tilts wished for; the reward is the directional utility of what they would have earned."""
    symbols = rollout.engine.symbols
    chosen, gains, years = _moves(rollout, rows, symbols)
    made = _take(rows, chosen)
    if not chosen:
        return made
    state, following = made["state"].astype(np.float64), made["next_state"].astype(np.float64)
    seen = Observation(SHORT_TERM, tuple(Symbol(str(at)) for at in range(len(chosen))), 0, made["state"])
    agent = ShortTerm()
    band = agent.band(seen)
    held = rng.uniform(-1.0, 1.0, len(chosen)) * band
    made["action"][:, 0] = rng.uniform(-1.0, 1.0, len(chosen)).astype(np.float32)
    _hold(state, held, held / np.maximum(band, 1e-12))
    made["state"] = state.astype(np.float32)
    seen = Observation(SHORT_TERM, seen.symbols, 0, made["state"])
    wishes = agent.propose(seen, made["action"])
    wished, tilt = np.array([wish.weight for wish in wishes]), np.array([wish.tilt for wish in wishes])
    _hold(following, wished, tilt)
    made["next_state"] = following.astype(np.float32)
    made["reward"] = _scaled(rollout, SHORT_TERM, _tilt_utility(rollout, state, held, wished, gains, years))
    return made


def _moves(rollout: Rollout, rows: Columns, symbols: tuple[Symbol, ...]) -> tuple[list[int], Floats, Floats]:
    """Rows whose returns are known: numbers, returns, lengths in years. Rows of one time stand in the order of the symbols."""
    chosen, gains, years = list[int](), list[float](), list[float]()
    starts = np.flatnonzero(np.diff(rows["time"], prepend=-1))
    for first, last in pairwise([*starts.tolist(), len(rows["time"])]):
        interval = _interval(rollout, SHORT_TERM, rows, first)
        if interval is None or last - first != len(symbols):
            continue
        before, after, length = interval
        returns = after.marks / before.marks - 1.0
        known = np.flatnonzero(np.isfinite(returns)).tolist()
        chosen += [first + at for at in known]
        gains += returns[known].tolist()
        years += [length] * len(known)
    return chosen, np.array(gains), np.array(years)


def _granted(state: Floats, weight: Floats) -> Floats:
    """What spot and the gross multiplier leave of a tilt, as the coordinator does it: the joint weight is never below zero."""
    long_term = state[:, _ST["long_term_weight"]]
    return np.asarray((np.maximum(long_term + weight, 0.0) - np.maximum(long_term, 0.0)) * state[:, _ST["risk_gross_multiplier"]])


def _hold(state: Floats, weight: Floats, tilt: Floats) -> None:
    """Put another standing tilt, and the position that goes with it, into what is seen."""
    moved = _granted(state, weight) - _granted(state, state[:, _ST["short_term_weight"]])
    state[:, _ST["position_weight"]] += moved
    state[:, _ST["cash_weight"]] -= moved
    state[:, _ST["short_term_weight"]], state[:, _ST["short_term_tilt"]] = weight, tilt


def _tilt_utility(rollout: Rollout, state: Floats, held: Floats, wished: Floats, gains: Floats, years: Floats) -> Floats:
    """`[w rho - c |w - w0| - (lambda / 2) w sigma^2 p dt] / (sigma_target sqrt(dt))` of each row."""
    params = rollout.engine.rewards.params
    weight, before = _granted(state, wished), _granted(state, held)
    cost = state[:, _ST["taker_fee"]] + state[:, _ST["half_spread"]]
    book = np.maximum(state[:, _ST["long_term_weight"]] + wished, 0.0) * state[:, _ST["risk_gross_multiplier"]]
    variance = state[:, _ST["volatility_1m"]] ** 2 * MINUTES_PER_YEAR
    profit = weight * gains - cost * np.abs(weight - before)
    risk = 0.5 * params.risk_aversion * weight * variance * book * years
    return np.asarray((profit - risk) / (params.volatility_target * np.sqrt(years)))


# -- risk --------------------------------------------------------------------------------------------------------------


def _risk(rollout: Rollout, rows: Columns, rng: np.random.Generator) -> Columns:
    """Random drawdowns and random multipliers of the book as it was held; the reward is the same difference of utilities."""
    book = rollout.engine.rewards
    covariance = Covariance(len(rollout.engine.symbols))
    chosen, parts = list[int](), list[tuple[Floats, Floats, Floats, float, float]]()
    for at in range(len(rows["time"])):
        interval = _interval(rollout, RISK, rows, at)
        if interval is None:
            continue
        before, after, years = interval
        returns = np.nan_to_num(after.marks / before.marks - 1.0)
        weights = 0.5 * (before.weights + after.weights)
        if np.abs(weights).sum() > 0.0:
            chosen.append(at)
            parts.append((weights, returns, covariance.matrix, years, before.multiplier))
        covariance.update(returns, years)
    made = _take(rows, chosen)
    if not chosen:
        return made
    state, following = made["state"], made["next_state"]
    fallen = rng.uniform(0.0, book.params.worst_drawdown, len(chosen)).astype(np.float32)
    made["action"] = rng.uniform(-1.0, 1.0, made["action"].shape).astype(np.float32)
    state[:, _R["drawdown"]] = following[:, _R["drawdown"]] = fallen
    rewards = np.zeros(len(chosen))
    for at, (weights, returns, matrix, years, multiplier) in enumerate(parts):
        gross, budget = Risk().prior(Observation(RISK, (), 0, state[at : at + 1]))
        m = float(tighten(gross, made["action"][at : at + 1, 0])[0])
        following[at, _R["risk_gross_multiplier"]] = m
        following[at, _R["risk_budget_multiplier"]] = float(tighten(budget, made["action"][at : at + 1, 1])[0])
        for name in _EXPOSURES:
            following[at, _R[name]] *= m / multiplier
        rewards[at] = book.functions.tightening(m, weights * (m / multiplier), returns, matrix, float(fallen[at]), years)
    made["reward"] = _scaled(rollout, RISK, rewards)
    return made
