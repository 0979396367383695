"""The projection of `agents.desk.program` for many accounts at once, where only boxes and one joint bound are asked for.

    minimise   sum_i D (w_i - w*_i)^2 / 2 + c_i |w_i - h_i|      subject to  0 <= w_i <= u_i  and
               sum max(w_i - h_i, 0) <= room                     while sum h <= total: a sell that has not filled frees nothing
               w_i <= h_i,  sum w_i <= total                     while sum h > total: nothing may rise

With `settled` sells are taken to be done before the buys: only `sum w_i <= total` and `room` on the increases are left, solved with one
multiplier for whichever of the two binds. Without a joint bound the program falls apart into clipped soft thresholds; with one,
`w_i(v) = clip(clip(h_i, p_i - v, q_i - v), low_i, high_i)`, `p, q = w* -+ c / D`, falls with its multiplier v, which Newton's method
finds inside a bracket: the sum is piecewise linear, so a few steps are exact.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

STEPS = 100


def allocate(
    wish: Floats, held: Floats, ceiling: Floats, cost: Floats | float, room: Floats, total: Floats, tracking: float = 1.0,
    settled: bool = False, tolerance: float = 1e-12,
) -> Floats:  # fmt: skip
    """The feasible weights nearest to `wish`, net of the cost of getting there, [E, N].

    `wish`, `held`, `ceiling` [E, N], `room` (on increases) and `total` [E], in fractions of equity; `cost` [N] or [E, N] or a number.
    """
    threshold = cost / tracking
    wish = np.maximum(wish, 0.0)
    low, high = wish - threshold, wish + threshold
    weights = np.minimum(held, high)
    np.maximum(weights, low, out=weights)
    np.minimum(weights, ceiling, out=weights)
    np.maximum(weights, 0.0, out=weights)
    ones = np.ones(held.shape[1], dtype=held.dtype)  # a product with ones sums short rows several times faster than sum does
    rise = np.maximum(weights - held, 0.0) @ ones
    owned = held @ ones
    if settled:
        over = np.flatnonzero(weights @ ones > total + tolerance)
        if len(over):
            zero = np.zeros((len(over), held.shape[1]), dtype=held.dtype)
            weights[over] = _lowered(low, high, held, zero, ceiling, total, over, tolerance)
            rise = np.maximum(weights - held, 0.0) @ ones
        tight = np.flatnonzero(rise > room + tolerance)
    else:
        breached = owned > total
        if breached.any():
            rows = np.flatnonzero(breached)
            closed = np.minimum(ceiling, held)
            np.minimum(weights, held, out=weights, where=breached[:, None])
            rows = rows[weights[rows] @ ones > total[rows] + tolerance]
            if len(rows):
                zero = np.zeros((len(rows), held.shape[1]), dtype=held.dtype)
                weights[rows] = _lowered(low, high, held, zero, closed, total, rows, tolerance)
        room = np.minimum(room, total - owned)
        tight = np.flatnonzero((rise > room + tolerance) & ~breached)
    if len(tight):
        before, base = weights[tight], held[tight]
        wished = np.maximum(before - base, 0.0)
        free = np.where(before < ceiling[tight], wished, np.maximum(low[tight] - base, wished))
        weights[tight] = np.minimum(before, base) + _shrunk(free, wished, np.maximum(room[tight], 0.0), tolerance)
    return weights


def _shrunk(free: Floats, most: Floats, bound: Floats, tolerance: float) -> Floats:
    """`clip(free - v, 0, most)` with the smallest v >= 0 at which a row's sum is at most its bound: increases that share a room."""
    ones, places = np.ones(free.shape[1], dtype=free.dtype), np.arange(len(free))
    below, above = np.zeros_like(bound), free.max(axis=1)
    level, result = below, np.empty_like(free)
    for _ in range(STEPS):
        left = free - level[:, None]
        risen = np.minimum(np.maximum(left, 0.0), most)
        gap = risen @ ones - bound
        slope = ((left == risen) & (left > 0.0)).astype(free.dtype) @ ones
        wide = gap > 0.0
        below, above = np.where(wide, level, below), np.where(wide, above, level)
        guess = level + gap / np.maximum(slope, 1.0)
        level = np.where((slope > 0) & (guess > below) & (guess < above), guess, 0.5 * (below + above))
        result[places] = risen
        far = np.abs(gap) > tolerance
        if not far.any():
            break
        if far.mean() < 0.7:
            places, free, most, bound = places[far], free[far], most[far], bound[far]
            level, below, above = level[far], below[far], above[far]
    return result


def _lowered(
    p: Floats, q: Floats, held: Floats, low: Floats, high: Floats, bound: Floats, rows: NDArray[np.intp], tolerance: float
) -> Floats:
    """`w(v)` of some rows with the smallest v >= 0 at which the row's sum is at most its bound; `low` is of the rows alone."""
    p, q, held, high, bound = p[rows], q[rows], held[rows], high[rows], bound[rows]
    below, above = np.zeros_like(bound), (np.maximum(q, high) - low).max(axis=1)
    level = below
    result = np.empty_like(p)
    ones, left_rows = np.ones(p.shape[1], dtype=p.dtype), np.arange(len(rows))
    for _ in range(STEPS):
        left, right = p - level[:, None], q - level[:, None]
        inside = np.minimum(np.maximum(held, left), right)
        weights = np.minimum(np.maximum(inside, low), high)
        gap = weights @ ones - bound
        moving = (inside == weights) & ((inside == left) | (inside == right))
        slope = moving.astype(p.dtype) @ ones
        wide = gap > 0.0
        below, above = np.where(wide, level, below), np.where(wide, above, level)
        guess = level + gap / np.maximum(slope, 1.0)
        level = np.where((slope > 0) & (guess > below) & (guess < above), guess, 0.5 * (below + above))
        result[left_rows] = weights
        if not (far := np.abs(gap) > tolerance).any():
            break
        if far.mean() < 0.7:
            left_rows, p, q, held, low, high = left_rows[far], p[far], q[far], held[far], low[far], high[far]
            bound, level, below, above = bound[far], level[far], below[far], above[far]
    return result
