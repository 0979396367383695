"""Many copies of one account on the same candles, in arrays: project, trade at the next opening, pay, mark.

The truth of a bar: what is decided at the close of bar t trades around the opening of bar t + `delay_bars` (0: at the close of t
itself) and is marked at its close. Prices are exogenous, so any copy may hold anything at any bar; nothing that happens to one copy is seen by another.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import ConfigError, DataError
from agents.desk.limits import FLATTEN, NO_NEW_RISK, REDUCE, RUNGS, WARN, Limits
from agents.environment.allocation import allocate
from agents.environment.compiled import Account, Bars, Out, Terms, ready
from agents.market.features import DAY
from agents.market.history import CandleHistory

Floats = NDArray[Any]
Flags = NDArray[np.bool_]
Rows = NDArray[np.int64]

LIMITS = Limits()
"""The desk's own."""
_WARN, _NO_NEW_RISK, _REDUCE, _FLATTEN = (RUNGS.index(rung) for rung in (WARN, NO_NEW_RISK, REDUCE, FLATTEN))


@dataclass(frozen=True, slots=True)
class VectorCosts:
    """What a trade costs; the same words as in `agents.market.frictions`, as floats. Raises ConfigError out of range."""

    fee_bps: float = 10.0
    """Of notional: the first tier of a taker on the largest spot exchange."""
    half_spread_bps: float = 1.0
    impact: float = 0.0
    """Coefficient of the square-root law, a fraction of price: `impact * sqrt(quantity / displayed)`."""
    depth: float = 0.02
    """Share of a candle's volume that is displayed on one side."""
    participation: float | None = None
    """Largest share of a candle's volume that one trade may take; the rest is not filled. None: no bound."""
    min_notional: float = 0.0
    """Trades below this many quote units are not sent, as an exchange would refuse them."""
    funding: bool = False
    """Whether longs pay a perpetual's funding; False takes its prices as spot."""

    def __post_init__(self) -> None:
        for name in ("fee_bps", "half_spread_bps", "impact", "min_notional"):
            if not (np.isfinite(value := getattr(self, name)) and value >= 0):
                raise ConfigError(f"costs.{name} is {value}: set a finite number that is at least 0")
        if not 0 < self.depth <= 1:
            raise ConfigError(f"costs.depth is {self.depth}: it is a share of volume, above 0 and at most 1")
        if self.participation is not None and not 0 < self.participation <= 1:
            raise ConfigError(f"costs.participation is {self.participation}: set a share above 0 and at most 1, or None")

def compiled_terms(limits: Limits, costs: VectorCosts, tolerance: float) -> Terms:
    """The numbers that a compiled step needs."""
    return Terms(
        limits.position_cap, 1.0 - limits.cash_buffer, limits.gross, limits.net, limits.reduced_gross, limits.turnover_day, tolerance,
        costs.fee_bps * 1e-4, costs.half_spread_bps * 1e-4, costs.impact, costs.depth, costs.participation or 0.0,
        costs.min_notional, limits.drawdown_warn, limits.drawdown_stop, limits.drawdown_reduce, limits.drawdown_flatten,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class StepResult:
    """One bar of E copies. Fractions are of the equity at the decision; arrays are good until the next step."""

    profit: Floats
    """[E, N] net of cost."""
    cost: Floats
    """[E, N] fees, spread and impact; funding where it is charged."""
    equity: Floats
    """[E] at the close of the bar."""
    weights: Floats
    """[E, N] at the close of the bar, of the equity there."""
    turnover: Floats
    """[E] notional traded, at the prices of the fills."""
    traded: Floats
    """[E, N] signed: change of weight that was filled, at the decision's marks."""
    safe: Floats
    """[E, N] what the projection left of the wish."""


class PortfolioKernel:
    """E accounts over the bars of one history. `row` [E] is the bar at whose close each copy stands.

    `cost_scale` [E] multiplies every cost of a copy, so that one run judges several. `settled` takes sells to be done before the
    buys of the same bar; the default is the desk's law that a sell which has not filled frees no room.
    """

    def __init__(
        self, history: CandleHistory, costs: VectorCosts = VectorCosts(), limits: Limits = LIMITS, copies: int = 1, *,
        delay_bars: int = 1, settled: bool = False, cost_scale: Floats | None = None, dtype: type = np.float64, compiled: bool = False,
    ) -> None:  # fmt: skip
        if copies < 1:
            raise ConfigError(f"copies is {copies}: set at least 1")
        if delay_bars < 0:
            raise ConfigError(f"delay_bars is {delay_bars}: nothing is filled before it is decided; set 0 or more")
        if len(history.times) < 2:
            raise DataError("one candle is too few for a step: it takes the bar of the decision and the bar after it")
        self.history, self.costs, self.limits = history, costs, limits
        self.copies, self.delay_bars, self.settled, self.dtype = copies, delay_bars, settled, dtype
        self.width = len(history.symbols)
        self.cost_scale: Floats | None = None if cost_scale is None else np.asarray(cost_scale, dtype).reshape(copies, 1)
        self._tolerance = 1e-12 if dtype is np.float64 else 1e-6
        self._prepare(history)
        self._ladder = np.array([limits.drawdown_warn, limits.drawdown_stop, limits.drawdown_reduce, limits.drawdown_flatten])
        self.row = np.zeros(copies, dtype=np.int64)
        self.equity: Floats = np.ones(copies, dtype)
        self.peak: Floats = np.ones(copies, dtype)
        self.weights: Floats = np.zeros((copies, self.width), dtype)
        self.rung = np.zeros(copies, dtype=np.int64)
        self.bought: Floats = np.zeros(copies, dtype)
        """Quote value of increases since the market day began."""
        self.moved: Floats = np.ones((copies, self.width), dtype)
        """What the last bar did to the marks, [E, N]: close over the mark before."""
        self._waiting: list[Floats] = []
        if compiled and settled:
            raise ConfigError("compiled steps know no settled sells: set compiled or settled to False")
        self._compiled = ready()[0] if compiled else None

    def _prepare(self, history: CandleHistory) -> None:
        """What a bar does to a weight, from the last mark to its opening and to its close; 1 where unknown."""
        marks = history.marks
        before = np.vstack([np.full((1, self.width), np.nan), marks[:-1]])
        known = history.listed & ~np.isnan(before)
        opened = np.where(known, history.open / np.where(known, before, 1.0), 1.0)
        closed = np.where(known, history.close / np.where(known, before, 1.0), 1.0)
        # Side by side, so that one bar of one copy is one read.
        self._prices: Floats = np.hstack([opened if self.delay_bars else np.ones_like(opened), closed]).astype(self.dtype)
        self._ones: Floats = np.ones(self.width, self.dtype)
        """A product with ones sums short rows several times faster than `sum` does."""
        self._tradable = self._fillable = history.listed
        self._always = bool(history.listed.all())
        self.midnight = history.closings % DAY < history.length
        price = history.open if self.delay_bars else history.close
        value = np.where(history.listed, history.volume * price, 0.0)
        if not self.delay_bars:  # what fills at a decision's own close is read at the bar after it, like all else
            value, self._fillable = np.roll(value, 1, axis=0), np.roll(history.listed, 1, axis=0)
        self._volume: Floats = value.astype(self.dtype)
        self._funding: Floats | None = None
        if self.costs.funding:
            if history.funding is None:
                raise DataError("costs.funding is on, but the candles have no funding rates")
            self._funding = np.nan_to_num(history.funding).astype(self.dtype)

    # -- what a bar is -----------------------------------------------------------------------------------------------------

    @property
    def fee(self) -> float:
        """Fraction of notional."""
        return self.costs.fee_bps * 1e-4

    def fills(self, at: Rows) -> tuple[Floats, Floats]:
        """(price of a fill without spread, price at the close) of bars `at` [E] over the mark before them, [E, N] each."""
        both = self._prices[at]
        return both[:, : self.width], both[:, self.width :]

    def spread(self, traded: Floats, at: Rows, equity: Floats) -> Floats | float:
        """By what fraction a fill of `traded` [E, N] is worse than the price without spread: half the spread, and impact."""
        half = self.costs.half_spread_bps * 1e-4
        if not self.costs.impact:
            return half
        displayed = np.maximum(self.costs.depth * self._volume[at], 1e-12)
        worse: Floats = half + self.costs.impact * np.sqrt(np.abs(traded) * self._prices[at, : self.width] * equity[:, None] / displayed)
        return worse

    # -- what a copy is ----------------------------------------------------------------------------------------------------

    @property
    def last_row(self) -> int:
        """The last bar from whose close a step can be taken."""
        return len(self.history.times) - 2

    @property
    def drawdown(self) -> Floats:
        """[E] fall from the peak of marked equity."""
        fallen: Floats = 1.0 - self.equity / self.peak
        return fallen

    def reset(
        self, rows: Rows | int, equity: Floats | float = 1.0, drawdown: Floats | float = 0.0, weights: Floats | float = 0.0,
        where: Flags | None = None,
    ) -> None:  # fmt: skip
        """Put copies (all, or those `where`) at the close of `rows` with an equity in quote, a drawdown and weights held.

        Raises DataError for a row from which no step can be taken, ConfigError for an account that could not be.
        """
        chosen = np.flatnonzero(np.ones(self.copies, bool) if where is None else where)
        rows = np.broadcast_to(np.asarray(rows, np.int64), chosen.shape)
        if len(rows) and (rows.min() < 0 or rows.max() > self.last_row):
            raise DataError(f"a copy cannot start at bar {rows.min()} to {rows.max()}: give 0 to {self.last_row}")
        held: Floats = np.broadcast_to(np.asarray(weights, self.dtype), (len(chosen), self.width))
        if len(held) and not (np.isfinite(held).all() and held.min() >= 0 and held.sum(axis=1).max() <= 1 + 1e-6):
            raise ConfigError("weights held at a reset must be finite, not negative, and at most 1 together: spot has no leverage")
        money, fallen = np.asarray(equity, np.float64), np.asarray(drawdown, np.float64)
        if not (np.isfinite(money).all() and (money > 0).all()):
            raise ConfigError(f"equity at a reset is {money.min():g}: an account begins with money; give a finite amount above 0")
        if not ((fallen >= 0) & (fallen < 1)).all():
            raise ConfigError(f"drawdown at a reset is {fallen.max():g}: give a fraction from 0 to below 1")
        self.place(chosen, rows, money, fallen, held)

    def place(self, chosen: NDArray[np.intp], rows: Rows, equity: Floats, drawdown: Floats, weights: Floats) -> None:
        """`reset` of some copies without its questions: for starts that were drawn within its bounds."""
        self.row[chosen], self.weights[chosen], self.equity[chosen] = rows, weights, equity
        self.peak[chosen] = self.equity[chosen] / (1.0 - drawdown).astype(self.dtype)
        self.bought[chosen], self.rung[chosen] = 0.0, 0
        self._climb(chosen)
        for target in self._waiting:
            target[chosen] = self.weights[chosen]

    # -- one bar -----------------------------------------------------------------------------------------------------------

    def step(self, target: Floats, gross_multiplier: Floats | float = 1.0) -> StepResult:
        """Every copy wishes for `target` [E, N] weights at its close, and lives through its next bar.

        A negative wish is a wish for nothing, and what is more than the limits bear is cut, as on the desk: spot has no short and no
        leverage. Raises ConfigError for a wish or a multiplier that is not finite, or a wish of another shape.
        """
        target = self._checked(target)
        if not np.isfinite(gross_multiplier).all():
            raise ConfigError(f"gross_multiplier is {gross_multiplier}: give finite numbers; one that is none would bound nothing")
        if self.delay_bars > 1:
            target = self._delayed(target)
        if self._compiled is not None:
            return self._run(target, gross_multiplier)
        safe = self.project(target, gross_multiplier)
        at = self.row + 1
        gap, move = self.fills(at)
        traded = safe - self.weights
        self._unfillable(traded, at)
        spread = self.spread(traded, at, self.equity)
        worth = traded * gap
        cost: Floats = np.abs(worth) * (self.fee + spread) + worth * (self.fee * spread)  # the fee is on the price with its spread
        if self.cost_scale is not None:
            cost *= self.cost_scale
        cash = 1.0 - (self.weights + worth + cost) @ self._ones
        if cash.min() < 0.0:
            self._afford(traded, worth, cost, np.flatnonzero(cash < 0.0))
        held = self.weights + traded
        held *= move
        profit = held - self.weights
        profit -= worth
        profit -= cost
        if self._funding is not None:
            paid = held * self._funding[at]
            profit -= paid
            cost = cost + paid
        growth = 1.0 + profit @ self._ones
        self.bought = self.bought + (np.maximum(traded, 0.0) @ self._ones) * self.equity
        self.equity = self.equity * growth
        held *= (1.0 / growth)[:, None]
        self.weights = held
        self.row, self.moved = at, move
        turnover = (np.abs(worth) + worth * spread) @ self._ones
        self.bought[self.midnight[at]] = 0.0
        np.maximum(self.peak, self.equity, out=self.peak)
        self._climb()
        return StepResult(profit, cost, self.equity, self.weights, turnover, traded, safe)

    def _run(self, target: Floats, gross_multiplier: Floats | float) -> StepResult:
        """The same by compiled loops, on fresh arrays: what was handed out before stays as it was."""
        one: Floats = np.ones((self.copies, 1), self.dtype)
        scale = one if self.cost_scale is None else self.cost_scale
        threshold: Floats = (one * self._objective_cost / self.limits.tracking).astype(self.dtype)
        terms = compiled_terms(self.limits, self.costs, self._tolerance)
        funding = np.zeros((1, 1), self.dtype) if self._funding is None else self._funding
        bars = Bars(self._always, self._prices, self._tradable, self._fillable, self._volume, funding, self.midnight)
        self.row, self.weights, self.equity = self.row.copy(), self.weights.copy(), self.equity.copy()
        account = Account(self.row, self.weights, self.equity, self.peak, self.rung, self.bought, scale[:, 0], threshold[:, 0])
        profit, cost, traded, safe, moved = (np.empty_like(target) for _ in range(5))
        out = Out(profit, cost, traded, safe, moved, np.empty_like(self.equity))
        multiplier: Floats = np.broadcast_to(np.asarray(gross_multiplier, self.dtype), (self.copies,)).copy()
        advance = self._compiled or ready()[0]
        advance(target, multiplier, terms, bars, account, out)
        self.moved = out.moved
        return StepResult(out.profit, out.cost, self.equity, self.weights, out.turnover, out.traded, out.safe)

    def project(self, target: Floats, gross_multiplier: Floats | float = 1.0) -> Floats:
        """What the limits and the drawdown ladder leave of a wish for `target` [E, N], by `agents.desk.program`'s objective."""
        limits, rung = self.limits, self.rung
        multiplier = np.clip(gross_multiplier, 0.0, 1.0) * np.ones(self.copies, self.dtype)
        ceiling: Floats = np.full_like(self.weights, limits.position_cap)
        if fallen := bool(rung.any()):
            multiplier[rung == _REDUCE] *= limits.reduced_gross
            multiplier[rung == _FLATTEN] = 0.0
            ceiling[rung == _FLATTEN] = 0.0
        if fallen or not self._always:
            closed = (rung >= _NO_NEW_RISK)[:, None] | ~self._tradable[self.row]
            np.minimum(ceiling, self.weights, out=ceiling, where=closed)
        total = np.minimum(np.minimum(1.0 - limits.cash_buffer, limits.gross * multiplier), limits.net)
        room = np.maximum(limits.turnover_day - self.bought / self.equity, 0.0)
        return allocate(
            target, self.weights, ceiling, np.asarray(self._objective_cost, self.dtype), room.astype(self.dtype, copy=False), total.astype(self.dtype, copy=False),
            limits.tracking, self.settled, self._tolerance,
        )  # fmt: skip

    @property
    def _objective_cost(self) -> Floats | float:
        """Cost of one unit of weight in the objective: as configured, else the fee, which grows with a copy's costs."""
        if self.limits.turnover_cost_bps is not None:
            return self.limits.turnover_cost_bps * 1e-4
        return self.fee if self.cost_scale is None else self.fee * self.cost_scale

    def _checked(self, target: Floats) -> Floats:
        target = np.asarray(target, self.dtype)
        if target.shape != self.weights.shape:
            raise ConfigError(f"target weights have shape {target.shape}: give {self.weights.shape}, copies by symbols")
        if not np.isfinite(target).all():
            copy, column = np.argwhere(~np.isfinite(target))[0].tolist()
            raise ConfigError(f"the target weight of {self.history.symbols[column]} in copy {copy} is {target[copy, column]}")
        return target

    def _delayed(self, target: Floats) -> Floats:
        """The wish of `delay_bars` - 1 bars ago; while there is none, to stay as it is."""
        while len(self._waiting) < self.delay_bars - 1:
            self._waiting.append(self.weights.copy())
        self._waiting.append(target.copy())
        return self._waiting.pop(0)

    def _unfillable(self, traded: Floats, at: Rows) -> None:
        """Take out of `traded` what the bar cannot fill: no candle, too small for an order, more than its share of volume."""
        if not self._always:
            traded *= self._fillable[at]
        if self.costs.min_notional > 0:
            traded *= np.abs(traded) * self.equity[:, None] >= self.costs.min_notional
        if self.costs.participation is not None:
            bound = self.costs.participation * self._volume[at] / self.equity[:, None]
            np.clip(traded, -bound, bound, out=traded)

    def _afford(self, traded: Floats, worth: Floats, cost: Floats, short: NDArray[np.intp]) -> None:
        """Cut the buys of the copies `short` of cash to what they have, proceeds of their sells included: an opening far above the mark."""
        rises = traded[short] > 0
        needed = np.where(rises, worth[short] + cost[short], 0.0) @ self._ones
        left = 1.0 - self.weights[short] @ self._ones - np.where(rises, 0.0, worth[short] + cost[short]) @ self._ones
        share = np.where(needed > 0, np.clip(left, 0.0, needed) / np.maximum(needed, 1e-30), 1.0)[:, None]
        for values in (traded, worth, cost):
            values[short] *= np.where(rises, share, 1.0)

    def _climb(self, chosen: NDArray[np.intp] | slice = slice(None)) -> None:
        """The drawdown ladder, latched as `RiskState.mark` does it."""
        fallen = 1.0 - self.equity[chosen] / self.peak[chosen]
        rung = self.rung[chosen]
        if not rung.any() and fallen.max(initial=0.0) < self._ladder[0]:
            return
        reached = np.searchsorted(self._ladder, fallen, side="right")
        free = (reached == 0) | (rung <= _WARN) | (reached > rung)
        self.rung[chosen] = np.where((rung != _FLATTEN) & free, reached, rung)


@dataclass(frozen=True, slots=True)
class Curve:
    """What a path of wishes made of one account, or of K at once. Rows are bars; the first is the start, before any trade."""

    times: Rows
    """int64 [T]: closings, ns UTC."""
    equity: Floats
    """[T] or [T, K], 1 at the start."""
    weights: Floats
    """[T, N] or [T, K, N] held at each close."""
    cost: Floats
    """[T] or [T, K]: cost paid during each bar, as a fraction of the equity before it."""
    turnover: Floats
    """[T] or [T, K]: notional traded during each bar, likewise."""

    @property
    def returns(self) -> Floats:
        """Simple returns of each bar after the first, [T - 1] or [T - 1, K]."""
        result: Floats = self.equity[1:] / self.equity[:-1] - 1.0
        return result


def simulate(kernel: PortfolioKernel, path: Floats, start: int = 0) -> Curve:
    """Play wishes `path` [T, N] (or [T, K, N], one for each of the kernel's K copies) from the close of bar `start` on.

    path[i] is wished at the close of bar start + i. Every copy starts in cash with equity 1, but with `min_notional`, impact or
    participation set give the kernel's costs in units of that equity.
    """
    steps = min(len(path), kernel.last_row + 1 - start)
    if steps < 1:
        raise DataError(f"no bar follows bar {start}: the path cannot start there")
    shape = (steps + 1, kernel.copies)
    equity, cost, turnover = np.ones(shape), np.zeros(shape), np.zeros(shape)
    weights = np.zeros((*shape, kernel.width))
    kernel.reset(start)
    for number in range(steps):
        target = path[number] if path.ndim == 3 else np.broadcast_to(path[number], kernel.weights.shape)
        result = kernel.step(target)
        equity[number + 1], weights[number + 1] = result.equity, result.weights
        cost[number + 1], turnover[number + 1] = result.cost.sum(axis=1), result.turnover
    times = kernel.history.closings[start : start + steps + 1]
    if kernel.copies == 1 and path.ndim == 2:
        equity, weights, cost, turnover = equity[:, 0], weights[:, 0], cost[:, 0], turnover[:, 0]
    return Curve(times, equity, weights, cost, turnover)
