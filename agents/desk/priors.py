"""The formulas that each agent starts from, and the maps by which an action bends them. Arrays in, arrays out, no state.

Everything works in float64 over rows (symbols) and is finite for any finite input: arguments are clipped to where the formula means
something before it is applied.
"""

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import NotFinite, SpecMismatch
from agents.market.observation import Observation

Array = NDArray[np.float64]

SHRINK = 0.98
"""Keeps atanh of a saturated prior finite, so that the residual can still move it."""
BETA = 0.5
"""How far a full action bends a signed prior: atanh units. At prior 0 a full action is an exposure of .46."""
HOURS_PER_YEAR = 365.0 * 24.0
MINUTES_PER_YEAR = HOURS_PER_YEAR * 60.0


def checked_actions(observation: Observation, actions: NDArray[np.float32], agent: str, size: int) -> Array:
    """The actions as float64 [rows, size] in [-1, 1].

    Raises SpecMismatch for another agent's observation or another shape, NotFinite for NaN or infinity.
    """
    if observation.agent != agent:
        raise SpecMismatch(f"{agent} was shown an observation of {observation.agent}")
    wanted = (observation.matrix.shape[0], size)
    if actions.shape != wanted:
        raise SpecMismatch(f"{agent} needs actions of shape {wanted}, got {actions.shape}")
    result = np.asarray(actions, dtype=np.float64)
    if not np.isfinite(result).all():
        raise NotFinite(f"an action of {agent} is not finite")
    return np.clip(result, -1.0, 1.0)


def column(observation: Observation, name: str, low: float, high: float) -> Array:
    """One observation column as float64 [rows], clipped to [low, high]."""
    return np.clip(observation.column(name).astype(np.float64), low, high)


def bend(prior: Array, action: Array, beta: float = BETA) -> Array:
    """A signed prior in [-1, 1] moved by an action: `tanh(atanh(.98 p) + beta a)`; action 0 gives .98 p."""
    return np.asarray(np.tanh(np.arctanh(SHRINK * np.clip(prior, -1.0, 1.0)) + beta * action))


def scale(prior: Array | float, action: Array, base: float) -> Array:
    """A positive prior moved by an action: `x0 * k^a`."""
    return np.asarray(prior * np.power(base, action))


# -- long-term ---------------------------------------------------------------------------------------------------------


def trend_response(z: Array) -> Array:
    """`z exp(-z^2/4) / .89`: grows with the trend, then fades where it is overstretched; within (-.97, .97).

    Baz, Granger, Harvey, Le Roux, Rattray (2015), "Dissecting investment strategies in the cross section and time series".
    """
    z = np.clip(z, -20.0, 20.0)
    return np.asarray(z * np.exp(-z * z / 4.0) / 0.89)


def horizon_weights(action: Array, tilt: float) -> Array:
    """Softmax over (short, middle, long) look-backs, [rows, 3]; action 0 weighs them equally, +1 leans to the long one."""
    logits = tilt * action[:, None] * np.array([-1.0, 0.0, 1.0])
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def unit_weight(volatility: Array, bets: Array | float, target: float, low: float, high: float) -> Array:
    """Weight of a full exposure: `sigma_target / (sigma_i sqrt(N_eff))`, annualised volatilities, within [low, high]."""
    return np.clip(target / (np.maximum(volatility, 1e-4) * np.sqrt(np.maximum(bets, 1.0))), low, high)


# -- short-term --------------------------------------------------------------------------------------------------------


def reversion(kappa: Array, gap: Array, sigma: Array, horizon: float) -> tuple[Array, Array]:
    """Mean and variance of an Ornstein-Uhlenbeck residual's move over `horizon`, from `gap = X - mu`.

    `mu_h = -(1 - exp(-kappa h)) gap`, `sigma_h^2 = sigma^2 (1 - exp(-2 kappa h)) / (2 kappa)`. kappa per minute, horizon in minutes.
    Avellaneda and Lee (2010), "Statistical arbitrage in the US equities market".
    """
    pull = kappa * horizon
    mean = np.expm1(-pull) * gap
    # (1 - exp(-2x)) / 2x tends to 1 as x tends to 0: below 1e-8 the quotient is replaced by its limit.
    share = np.where(pull > 1e-8, -np.expm1(-2.0 * pull) / np.maximum(2.0 * pull, 1e-16), 1.0)
    return np.asarray(mean), np.asarray(sigma * sigma * horizon * share)


def soft(value: Array, threshold: Array) -> Array:
    """Shrinks towards zero by `threshold`: what is left of an edge when its cost is paid."""
    return np.asarray(np.sign(value) * np.maximum(np.abs(value) - threshold, 0.0))


# -- market making -----------------------------------------------------------------------------------------------------


def glft(a: Array, k: Array, sigma: Array, cost: Array, gamma: float, delta: float, reach: float = 6.0) -> tuple[Array, Array]:
    """Half-spread and inventory slope of the GLFT quotes, both as fractions of the mid, [rows].

    `c1 = ln(1 + x) / (gamma delta)`, `c2 = sqrt(gamma / (2 A delta k) * (1 + x)^(1/x + 1))` with `x = gamma delta / k`; a quote
    lies `c1 + delta sigma c2 / 2 + cost +- q sigma c2` from the mid. Gueant, Lehalle, Fernandez-Tapia (2013), "Dealing with the
    inventory risk", in the form with order size of Gueant (2017), "Optimal market making".

    Units: `a` fills per second at zero distance, `k` per unit of fractional distance, `sigma` per sqrt(second), inventory q and
    order size `delta` in fractions of equity, `gamma` per fraction of equity. `cost` (fee plus mark-out, a fraction) moves the
    whole problem outward: with d' = d - cost the intensity is `A exp(-k cost) exp(-k d')`, so it is this smaller A that carries
    the inventory. Beyond `k cost = reach` the fitted exponential is not trusted and the decay stops.
    """
    thinned = a * np.exp(-np.minimum(k * cost, reach))
    x = gamma * delta / k
    c1 = np.log1p(x) / (gamma * delta)
    c2 = np.sqrt(gamma / (2.0 * thinned * delta * k) * np.exp(np.log1p(x) * (1.0 / x + 1.0)))
    slope = sigma * c2
    return np.asarray(c1 + delta * slope / 2.0 + cost), np.asarray(slope)


# -- risk --------------------------------------------------------------------------------------------------------------


def tighten(prior: Array, action: Array) -> Array:
    """`sigmoid(logit(clip(p, .02, .9)) + 2a)`: a multiplier that is always below 1, so it can only tighten."""
    p = np.clip(prior, 0.02, 0.9)
    return np.asarray(1.0 / (1.0 + np.exp(-(np.log(p / (1.0 - p)) + 2.0 * action))))


def volatility_cushion(volatility: Array, drawdown: Array, target: float, worst: float) -> Array:
    """`min(1, sigma_target / sigma) * max(0, 1 - DD / DDmax)`, annualised volatility of the wished portfolio."""
    budget = np.minimum(1.0, target / np.maximum(volatility, 1e-9))
    return np.asarray(budget * np.maximum(0.0, 1.0 - np.maximum(drawdown, 0.0) / worst))
