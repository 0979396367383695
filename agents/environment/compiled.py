"""The kernel's bar, its reward and its observation once more, copy by copy, for a compiler: the same numbers several times faster.

`agents.environment.kernel` and `allocation` are the definition; this file is held against them by test. It needs numba (extra `research`),
which compiles on first use and keeps the result beside this file.
"""

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import ConfigError

Array = NDArray[Any]

ROUNDS = 100


class Terms(NamedTuple):
    """The numbers of one kernel, as plain floats."""

    position_cap: float
    cash: float
    """1 less the cash buffer."""
    gross: float
    net: float
    reduced_gross: float
    turnover_day: float
    tolerance: float
    fee: float
    half_spread: float
    impact: float
    depth: float
    participation: float
    """0: no bound."""
    min_notional: float
    warn: float
    stop: float
    reduce: float
    flatten: float


class Bars(NamedTuple):
    """What the bars of a history do, [T, ...]; `fillable` and `tradable` are of the bar traded in and of the decision."""

    complete: bool
    """Every symbol has a candle in every bar: the flags need not be read."""
    prices: Array
    tradable: Array
    fillable: Array
    volume: Array
    funding: Array
    midnight: Array


class Account(NamedTuple):
    """The state of E copies; changed in place."""

    row: Array
    weights: Array
    equity: Array
    peak: Array
    rung: Array
    bought: Array
    scale: Array
    """[E]: multiple of all costs."""
    threshold: Array
    """[E]: dead band, cost over tracking, in weights."""


class Out(NamedTuple):
    """What one bar brought, [E, N] but turnover [E]."""

    profit: Array
    cost: Array
    traded: Array
    safe: Array
    moved: Array
    turnover: Array


def available() -> bool:
    """Whether numba is installed."""
    return find_spec("numba") is not None


@cache
def compiler() -> Callable[..., Any]:
    """numba's. Raises ConfigError naming the mend where it is not installed."""
    if not available():
        raise ConfigError("compiled steps need numba: pip install 'quartet[research]', or set compiled to False")
    numba: Any = import_module("numba")
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"reassoc", "contract", "arcp", "nsz"}}

    def compile_(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            kept: Callable[..., Any] = numba.njit(function, cache=True, **options)
        except RuntimeError:  # nowhere to keep it: an installation that cannot be written to
            kept = numba.njit(function, **options)
        return kept

    return compile_


def _shrink(free: Array, most: Array, width: int, room: float, tolerance: float) -> None:
    """`free` becomes `clip(free - v, 0, most)` with the smallest v >= 0 at which its sum is at most `room`."""
    below, above, level = 0.0, 0.0, 0.0
    for i in range(width):
        above = max(above, free[i])
    for _ in range(ROUNDS):
        gap, slope = -room, 0
        for i in range(width):
            left = free[i] - level
            if left >= most[i]:
                gap += most[i]
            elif left > 0.0:
                gap += left
                slope += 1
        if abs(gap) <= tolerance:
            break
        if gap > 0.0:
            below = level
        else:
            above = level
        guess = level + gap / max(slope, 1)
        level = guess if slope > 0 and below < guess < above else 0.5 * (below + above)
    for i in range(width):
        free[i] = min(max(free[i] - level, 0.0), most[i])


def _lower(low: Array, high: Array, held: Array, most: Array, width: int, bound: float, tolerance: float) -> None:
    """`held` becomes `clip(clip(held, low - v, high - v), 0, most)` with the smallest v >= 0 at which its sum is at most `bound`."""
    below, above, level = 0.0, 0.0, 0.0
    for i in range(width):
        above = max(above, high[i], most[i])
    for _ in range(ROUNDS):
        gap, slope = -bound, 0
        for i in range(width):
            value, moving = held[i], False
            if low[i] - level > value:
                value, moving = low[i] - level, True
            if high[i] - level < value:
                value, moving = high[i] - level, True
            inside = min(max(value, 0.0), most[i])
            slope += moving and inside == value
            gap += inside
        if abs(gap) <= tolerance:
            break
        if gap > 0.0:
            below = level
        else:
            above = level
        guess = level + gap / max(slope, 1)
        level = guess if slope > 0 and below < guess < above else 0.5 * (below + above)
    for i in range(width):
        value = min(max(held[i], low[i] - level), high[i] - level)
        held[i] = min(max(value, 0.0), most[i])


def _climb(fallen: float, rung: int, terms: Any) -> int:
    """The rung after a drawdown, latched as `RiskState.mark` does it."""
    reached = int(fallen >= terms.warn) + int(fallen >= terms.stop) + int(fallen >= terms.reduce) + int(fallen >= terms.flatten)
    if rung != 4 and (reached == 0 or rung <= 1 or reached > rung):
        return reached
    return rung


def _project(e: int, target: Array, multiplier: float, terms: Any, bars: Any, account: Any, a: Array, b: Array, c: Array, safe: Array) -> None:
    """What the limits and the ladder leave of copy e's wish; `a`, `b`, `c` [N] are scratch."""
    width, rung = target.shape[1], account.rung[e]
    m, cap = min(max(multiplier, 0.0), 1.0), terms.position_cap
    if rung == 3:
        m *= terms.reduced_gross
    if rung == 4:
        m, cap = 0.0, 0.0
    total = min(terms.cash, terms.gross * m, terms.net)
    threshold = account.threshold[e]
    owned = 0.0
    for i in range(width):
        owned += account.weights[e, i]
    breached, rise, kept = owned > total, 0.0, 0.0
    for i in range(width):
        held, wish = account.weights[e, i], max(target[e, i], 0.0)
        most = min(cap, held) if rung >= 2 or not (bars.complete or bars.tradable[account.row[e], i]) else cap
        if breached:
            most = min(most, held)
        a[i], b[i], c[i] = wish - threshold, wish + threshold, most
        value = max(min(max(min(held, b[i]), a[i]), most), 0.0)
        safe[e, i] = value
        rise += max(value - held, 0.0)
        kept += value
    if breached:
        if kept > total + terms.tolerance:
            for i in range(width):
                safe[e, i] = account.weights[e, i]
            lower(a, b, safe[e], c, width, total, terms.tolerance)
        return
    room = min(max(terms.turnover_day - account.bought[e] / account.equity[e], 0.0), total - owned)
    if rise > room + terms.tolerance:
        for i in range(width):
            held = account.weights[e, i]
            wished = max(safe[e, i] - held, 0.0)
            a[i] = wished if safe[e, i] < c[i] else max(a[i] - held, wished)
            b[i] = wished
            safe[e, i] = min(safe[e, i], held)
        shrink(a, b, width, room, terms.tolerance)
        for i in range(width):
            safe[e, i] += a[i]


def _advance(target: Array, multiplier: Array, terms: Any, bars: Any, account: Any, out: Any) -> None:
    """Every copy lives through its next bar."""
    copies, width = target.shape
    a, b, c = np.empty(width), np.empty(width), np.empty(width)
    for e in range(copies):
        project(e, target, multiplier[e], terms, bars, account, a, b, c, out.safe)
        at, equity, scale = account.row[e] + 1, account.equity[e], account.scale[e]
        cash, needed = 1.0, 0.0
        for i in range(width):
            held, gap = account.weights[e, i], bars.prices[at, i]
            trade = out.safe[e, i] - held if bars.complete or bars.fillable[at, i] else 0.0
            if terms.min_notional > 0.0 and abs(trade) * equity < terms.min_notional:
                trade = 0.0
            if terms.participation > 0.0:
                most = terms.participation * bars.volume[at, i] / equity
                trade = min(max(trade, -most), most)
            spread = terms.half_spread
            if terms.impact > 0.0:
                spread += terms.impact * np.sqrt(abs(trade) * gap * equity / max(terms.depth * bars.volume[at, i], 1e-12))
            worth = trade * gap
            paid = (abs(worth) * (terms.fee + spread) + worth * (terms.fee * spread)) * scale
            a[i], b[i], c[i] = worth, spread, paid
            out.traded[e, i] = trade
            cash -= held + (0.0 if trade > 0.0 else worth + paid)
            needed += worth + paid if trade > 0.0 else 0.0
        share = 1.0 if needed <= cash else max(cash, 0.0) / needed
        growth, turnover, bought = 1.0, 0.0, 0.0
        for i in range(width):
            if share < 1.0 and out.traded[e, i] > 0.0:
                a[i], c[i], out.traded[e, i] = a[i] * share, c[i] * share, out.traded[e, i] * share
            held, move = account.weights[e, i], bars.prices[at, width + i]
            after = (held + out.traded[e, i]) * move
            profit = after - held - a[i] - c[i]
            if bars.funding.shape[0] > 1:
                charged = after * bars.funding[at, i]
                profit -= charged
                c[i] += charged
            out.profit[e, i], out.cost[e, i], out.moved[e, i] = profit, c[i], move
            account.weights[e, i] = after
            growth += profit
            turnover += abs(a[i]) + a[i] * b[i]
            bought += max(out.traded[e, i], 0.0)
        shrunk = 1.0 / growth
        for i in range(width):
            account.weights[e, i] *= shrunk
        out.turnover[e] = turnover
        account.bought[e] = 0.0 if bars.midnight[at] else account.bought[e] + bought * equity
        account.equity[e] = equity * growth
        account.peak[e] = max(account.peak[e], account.equity[e])
        account.rung[e] = climb(1.0 - account.equity[e] / account.peak[e], account.rung[e], terms)
        account.row[e] = at


def _judge(
    before: Array, wished: Array, traded: Array, moved: Array, profit: Array, row: Array, covariance: Array, aversion: float, unit: float,
    alias: float, rewards: Array,
) -> None:  # fmt: skip
    """Rewards [E, N]: utility less alias, `agents.desk.rewards`' formulas; `aversion` is lambda dt / 2, `unit` sigma_target sqrt(dt)."""
    copies, width = before.shape
    held = np.empty_like(before[0])
    for e in range(copies):
        for i in range(width):
            held[i] = 0.5 * (before[e, i] + (before[e, i] + traded[e, i]) * moved[e, i])
        for i in range(width):
            applied = held[0] * 0.0
            for j in range(width):
                applied += covariance[row[e], i, j] * held[j]
            cut = 2.0 * held[i] - before[e, i] - max(wished[e, i], 0.0)
            rewards[e, i] = (profit[e, i] - aversion * held[i] * applied) / unit - alias * cut * cut


def _look(seen: Array, row: Array, weights: Array, equity: Array, peak: Array, result: Array) -> None:
    """The portfolio forms' observations [E, K + N + 2]: the bar's columns, weights, cash, drawdown."""
    copies, width = weights.shape
    size = seen.shape[1]
    for e in range(copies):
        cash = 1.0
        result[e, :size] = seen[row[e]]
        for i in range(width):
            result[e, size + i] = weights[e, i]
            cash -= weights[e, i]
        result[e, size + width] = cash
        result[e, size + width + 1] = 1.0 - equity[e] / peak[e]


advance: Callable[..., None] = _advance
project: Callable[..., None] = _project
shrink: Callable[..., None] = _shrink
lower: Callable[..., None] = _lower
climb: Callable[..., int] = _climb
judge: Callable[..., None] = _judge
look: Callable[..., None] = _look


@cache
def ready() -> tuple[Callable[..., None], Callable[..., None], Callable[..., None]]:
    """The compiled (advance, judge, look). Raises ConfigError without numba."""
    compile_, here = compiler(), globals()
    for name in ("shrink", "lower", "climb", "project", "advance", "judge", "look"):  # callees first: a compiled function binds its globals
        here[name] = compile_(here["_" + name])
    return here["advance"], here["judge"], here["look"]
