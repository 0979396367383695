"""What the long-term agent sees and means in thousands of accounts at once: the columns of `observe`, the maps of `LongTerm`."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.desk.long_term import LongTerm, LongTermParams
from agents.desk.priors import HOURS_PER_YEAR, bend, horizon_weights, scale, tighten, unit_weight, volatility_cushion
from agents.desk.risk import Risk, RiskParams
from agents.environment.comovement import correlations
from agents.environment.kernel import Floats, PortfolioKernel, StepResult
from agents.market.columns import HOUR_COLUMNS, LAYOUT, SPECS
from agents.market.features import DAY, HOUR
from agents.market.flow import HALF_SPREAD
from agents.market.history import hour_features
from agents.market.observation import LARGEST, Observation

AGENT = "long_term"
Singles = NDArray[np.float32]
_H = {name: number for number, name in enumerate(HOUR_COLUMNS)}


@dataclass(slots=True)
class Wishes:
    """Standing wishes of E copies by symbol, all [E, N] but `horizon` [E, N, 3]; zeros where nobody has wished yet."""

    exposure: Floats
    weight: Floats
    precision: Floats
    horizon: Floats
    stop: Floats


class LongTermView:
    """Columns of SPECS["long_term"] for every copy of a kernel, and the wishes that actions make of them.

    `risk` says how the gross multiplier is set: "prior" is the risk agent's own at action 0, a number holds it there, and None
    leaves it at the coordinator's 0.5 of a desk without a risk agent.
    """

    def __init__(
        self, kernel: PortfolioKernel, features: Singles | None = None, params: LongTermParams | None = None,
        risk: str | float | None = "prior", risk_params: RiskParams | None = None,
    ) -> None:  # fmt: skip
        self.kernel, self.speaker = kernel, LongTerm(params or LongTermParams())
        self.risk, self.risk_params = risk, risk_params or RiskParams()
        history = kernel.history
        self.features = hour_features(history) if features is None else features
        self.blocks = blocks(AGENT)
        self._clock = clock(history.closings)
        self._hours = history.length / HOUR
        # A wish is seen by the next decision only while it stands; the risk agent's, made for a minute, never outlives an hour.
        self._stands = self.speaker.params.lifetime * self.speaker.cadence_ns > history.length
        self._risk_stands = self.risk_params.lifetime * Risk.cadence_ns > history.length
        self._correlation = correlations(history) if risk == "prior" else None
        shape = kernel.weights.shape
        self.wishes = Wishes(np.zeros(shape), np.zeros(shape), np.zeros(shape), np.zeros((*shape, 3)), np.zeros(shape))
        self.multipliers: Floats = np.ones((kernel.copies, 2))
        """The risk agent's standing wish as the next decision sees it, [E, 2]; 1 without one."""
        self.average: Floats = np.zeros(shape)
        """Average cost of what is held over its mark, [E, N]; 0 where flat."""
        self.age: Floats = np.zeros(shape)
        """Hours since a decision first found the position open, [E, N]."""
        self.turnover: Floats = np.zeros(kernel.copies)
        self.fees: Floats = np.zeros(kernel.copies)
        """In quote, since the market day began, [E]."""
        self.moments: Floats = np.zeros((kernel.copies, 2))

    # -- what happens ------------------------------------------------------------------------------------------------------

    def restart(self, chosen: NDArray[np.intp]) -> None:
        """These copies begin anew: nobody has wished, what they hold was bought at its mark and is newly found."""
        wishes = self.wishes
        for values in (wishes.exposure, wishes.weight, wishes.precision, wishes.horizon, wishes.stop, self.age, self.turnover, self.fees):
            values[chosen] = 0.0
        self.multipliers[chosen] = 1.0
        self.average[chosen] = self.kernel.weights[chosen] > 0

    def follow(self, before: Floats, equity: Floats, result: StepResult) -> None:
        """A bar has passed. `before` [E, N] and `equity` [E] are what was held and owned at the decision."""
        kernel = self.kernel
        at = kernel.row
        gap, move = kernel.fills(at)
        bought = np.maximum(result.traded, 0.0)
        price = gap * (1.0 + kernel.spread(result.traded, at, equity))
        held = before + result.traded
        cost = self.average * before + price * bought
        average = np.where(bought > 0, cost / np.where(held > 0, held, 1.0), self.average)
        self.average = np.where(held > 0, average / move, 0.0)
        self.age = np.where((before > 0) & (held > 0), self.age + self._hours, 0.0)
        self.turnover += result.turnover * equity
        self.fees += kernel.fee * result.turnover * equity
        midnight = kernel.midnight[at]
        self.turnover[midnight] = 0.0
        self.fees[midnight] = 0.0

    # -- what is seen ------------------------------------------------------------------------------------------------------

    def observe(self) -> Singles:
        """float32 [E, N, 100], the columns of SPECS["long_term"] at the close of each copy's bar."""
        kernel, wishes = self.kernel, self.wishes
        result = np.zeros((*kernel.weights.shape, SPECS[AGENT].size), dtype=np.float32)
        weights, block = kernel.weights, self.blocks
        open_ = weights > 0
        result[..., block["hour"]] = self.features[kernel.row]
        result[..., block["clock"]] = self._clock[kernel.row][:, None]
        result[..., block["flow"]] = HALF_SPREAD
        fee = kernel.costs.fee_bps * 1e-4
        _fill(result, block["position"], (weights, 0.0, 0.0, self.gains(), fee, fee))
        _fill(result, block["stop"], (np.where(open_, wishes.stop, 0.0), np.where(open_, self.age, 0.0)))
        gross = weights.sum(axis=1)
        account = (1.0 - gross, gross, kernel.drawdown, self.turnover / kernel.equity, self.fees / kernel.equity)
        _fill(result, block["account"], tuple(values[:, None] for values in account))
        if self._stands:
            standing = (wishes.exposure, wishes.weight, wishes.precision, wishes.stop, *np.moveaxis(wishes.horizon, -1, 0))
            _fill(result, block["wish"], standing)
        _fill(result, block["multiplier"], tuple(self.multipliers.T[:, :, None]))
        _fill(result, block["own"], tuple(self.moments.T[:, :, None]))
        return np.clip(result, -LARGEST, LARGEST, out=result)

    def gains(self) -> Floats:
        """Mark over average cost, less 1, of what is held, [E, N]; 0 where flat."""
        gain: Floats = np.where((self.kernel.weights > 0) & (self.average > 0), 1.0 / np.where(self.average > 0, self.average, 1.0) - 1.0, 0.0)
        return gain

    def propose(self, seen: Singles, actions: NDArray[Any]) -> tuple[Floats, Floats]:
        """(target weights [E, N], gross multiplier [E]) of raw actions [E, N, 4]; the wishes stand from now on."""
        self.wish(seen, actions)
        gross = self._tightened(self.wishes.weight)
        return self.joint(gross), gross

    def joint(self, gross: Floats) -> Floats:
        """The joint directional weight of a desk where only the long-term agent has a view, as the coordinator makes it, [E, N]."""
        joint: Floats = np.maximum(self.wishes.weight * gross[:, None], 0.0)
        return joint

    def wish(self, seen: Singles, actions: NDArray[Any]) -> None:
        """The wishes of raw actions [E, N, 4] stand from now on."""
        shape, p = seen.shape[:2], self.speaker.params
        a = np.clip(actions.reshape(-1, 4).astype(np.float64), -1.0, 1.0)
        flat = Observation(AGENT, (), 0, seen.reshape(-1, seen.shape[-1]))
        horizon = horizon_weights(a[:, 2], p.horizon_tilt)
        exposure = bend(self.speaker.prior(flat, horizon), a[:, 0])
        volatility = np.clip(flat.column("volatility_1h").astype(np.float64), 0.0, 10.0) * np.sqrt(HOURS_PER_YEAR)
        bets = np.clip(flat.column("effective_bets").astype(np.float64), 1.0, 1e4)
        weight = exposure * unit_weight(volatility, bets, p.volatility_target, 0.0, p.weight_cap)
        atr = np.clip(flat.column("atr_1h").astype(np.float64), 0.0, 1.0)
        stop = np.clip(scale(p.stop_atr * atr, a[:, 3], 2.0), p.stop_low, p.stop_high)
        precision = scale(p.precision, a[:, 1], p.precision_base)
        self.wishes = Wishes(
            exposure.reshape(shape), weight.reshape(shape), precision.reshape(shape), horizon.reshape(*shape, 3), stop.reshape(shape)
        )

    def _tightened(self, wish: Floats) -> Floats:
        """The gross multiplier [E] after the wish: the risk agent sees it before it speaks."""
        if self.risk is None:
            return np.full(len(wish), 0.5)
        if self.risk != "prior" or self._correlation is None:
            return np.full(len(wish), float(self.risk))
        p, row = self.risk_params, self.kernel.row
        deviation = self.features[row, :, _H["volatility_1h"]].astype(np.float64)
        scaled = wish * deviation
        variance = np.einsum("en,enm,em->e", scaled, self._correlation[row], scaled, optimize=True)
        wished = np.sqrt(np.maximum(variance, 0.0) * HOURS_PER_YEAR) / np.maximum(np.abs(wish).sum(axis=1), 1.0)
        cushion = volatility_cushion(wished, np.clip(self.kernel.drawdown, 0.0, 1.0), p.volatility_target, p.worst_drawdown)
        none = np.zeros_like(cushion)
        gross = tighten(cushion, none)
        if self._risk_stands:
            self.multipliers = np.stack([gross, tighten(np.full_like(cushion, p.budget), none)], axis=1)
        return gross


def blocks(agent: str) -> dict[str, slice]:
    """Where each source's columns stand in an agent's row."""
    result, start = {}, 0
    for source, names in LAYOUT[agent]:
        result[source] = slice(start, start + len(names))
        start += len(names)
    return result


def clock(closings: NDArray[np.int64]) -> Singles:
    """CLOCK_COLUMNS [T, 4] as `observe` makes them."""
    minute = closings % DAY / DAY * 2 * np.pi
    week = (closings - 4 * DAY) % (7 * DAY) / (7 * DAY) * 2 * np.pi
    return np.stack([np.sin(minute), np.cos(minute), np.sin(week), np.cos(week)], axis=1).astype(np.float32)


def _fill(result: Singles, block: slice, values: tuple[Any, ...]) -> None:
    for number, value in enumerate(values):
        result[..., block.start + number] = value
