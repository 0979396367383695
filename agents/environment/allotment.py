"""Episodes in which one action is a whole portfolio: wish, play, judge, look again."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.instruments import NS
from agents.desk.decision import EngineConfig
from agents.desk.rewards import SECONDS_PER_YEAR, Covariance, Outcome, RewardParams, WeightedReward
from agents.desk.wishes import Style
from agents.environment.eligible import fits
from agents.environment.episode import Moment
from agents.environment.forms import CROSS_SECTION, SIGNAL, WEIGHTS, action_size, confident, exposure_weights, softmax_weights
from agents.environment.lane import Lane
from agents.environment.outcomes import Floats, Played
from agents.environment.rooms import Rooms
from agents.environment.sources import COVARIANCE_ROWS, Candles, Source
from agents.environment.views import WINDOW, Extras, View
from agents.market.frictions import Frictions

UTILITY = {"utility": 1.0}


def _player(
    fast: bool, source: Source, config: EngineConfig, style: Style, capital: Decimal, frictions: Frictions, warmup: int
) -> Rooms | Lane:
    if fast and isinstance(source, Candles):
        return Lane(source, config, style, capital, frictions, warmup)
    return Rooms(source, config, style, capital, frictions, warmup)


class Allotment:
    """One portfolio form over one source; `reset` and `step` tell moments."""

    def __init__(
        self, form: str, source: Source, config: EngineConfig, style: Style, capital: Decimal, frictions: Frictions, warmup: int,
        params: RewardParams, rewards: Mapping[str, float] | None, extras: Extras, fast: bool,
    ) -> None:  # fmt: skip
        self.form, self.source, self.config = form, source, config
        self._arguments = (form, source, config, style, capital, frictions, warmup, params, rewards, extras, fast)
        n = len(source.symbols)
        self.action_shape = (action_size(form, n),)
        self.past = WINDOW - 1 if form == CROSS_SECTION else 0
        """Rows before the first that an observation looks back on."""
        self.view = View(form, source, extras)
        self.shape = self.view.shape
        self.reward = WeightedReward(params, UTILITY if rewards is None else rewards)
        self.fast = fast and isinstance(source, Candles) and fits(source, config, style, frictions)
        """Whether the fast lane plays; the outcome is the same."""
        self._plain = isinstance(source, Candles) and self.reward.terms == UTILITY
        self.player = _player(self.fast, source, config, style, capital, frictions, warmup)
        self._covariance = Covariance(n)
        self._row = 0

    def fresh(self) -> "Allotment":
        """Another account on the same source."""
        return Allotment(*self._arguments)

    def reset(self, seed: int, row: int) -> Moment:
        """Open the account at the close of `row`."""
        self._row, self._covariance = row, Covariance(len(self.source.symbols))
        self.reward.restart()
        self.player.reset(seed, row)
        info = {"equity": self.player.equity, "time": self.player.now, "marks": self.player.marks(), "weights": self.player.weights()}
        return Moment(self._look(self.player.weights(), self.player.drawdown), info)

    def step(self, action: NDArray[np.float32]) -> Moment:
        """Wish, live until the next decision, and judge what came of it."""
        before, drawdown = self.player.equity, self.player.drawdown
        confidence = self.view.confidence(self._row) if self.form == SIGNAL else 1.0
        played = self.player.play(self._wish(action, confidence))
        self._row += 1
        reward = self._judge(played, before, drawdown, confidence * float(action[0]) if self.form == SIGNAL else 0.0)
        truncated = played.truncated or (isinstance(self.source, Candles) and self._row >= len(self.source.history.times) - 1)
        return Moment(self._look(played.weights, self.player.drawdown), self._info(played, before), reward, played.terminated, truncated)

    def _wish(self, action: NDArray[np.float32], confidence: float) -> Floats:
        limits = self.config.limits
        values = action.astype(np.float64)
        if self.form == WEIGHTS:
            return softmax_weights(values, limits.cash_buffer, limits.position_cap)
        return exposure_weights(confident(values, confidence) if self.form == SIGNAL else values, limits.position_cap)

    def _judge(self, played: Played, equity: float, drawdown: float, prediction: float) -> float:
        """The sum over symbols of the rewards; 0 for a step in which no time passed."""
        years = played.elapsed_ns / NS / SECONDS_PER_YEAR
        if years <= 0.0 or equity <= 0.0:
            return 0.0
        covariance = self._risk()
        if self._plain:
            return float(self.reward.functions.utility(played.profit / equity, played.held, played.held, covariance, years).sum())
        outcome = Outcome(
            played.profit / equity, played.held, played.returns, covariance, years, None, played.costs / equity, drawdown, prediction
        )
        value = float(np.nansum(self.reward.judge(outcome)))
        self._covariance.update(played.returns, years)
        return value

    def _risk(self) -> Floats:
        """Annualised covariance of returns as it was known when the step began, [n, n]."""
        if isinstance(self.source, Candles):
            known: Floats = self.source.covariances[(self._row - 1) // COVARIANCE_ROWS]
            return known
        return self._covariance.matrix

    def _look(self, weights: Floats, drawdown: float) -> NDArray[np.float32]:
        mean, square = self.reward.moments() if self.reward.has_moments else (0.0, 0.0)
        market = self.player.desk.market if isinstance(self.player, Rooms) and not isinstance(self.source, Candles) else None
        return self.view.observe(self._row, market, weights, drawdown, (float(mean), float(square)))

    def _info(self, played: Played, before: float) -> dict[str, Any]:
        return {
            "equity": played.equity,
            "costs": float(played.costs.sum()),
            "turnover": played.turnover,
            "bound": played.bound,
            "fills": played.fills,
            "profit": played.equity - before,
            "time": self.player.now,
            "weights": played.weights,
            "marks": self.player.marks(),
        }
