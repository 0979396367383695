"""Thousands of copies of one account on recorded candles, as a vector environment: for pre-training, never for judging.

Prices are exogenous, so a copy may begin at any bar with any equity, drawdown and holdings: transitions relabelled in hindsight, for
any position, without exploring with money. The projection belongs to the environment; what it cut is in the reward.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from agents.core.errors import ConfigError, DataError
from agents.core.instruments import NS
from agents.desk.limits import FLATTEN, RUNGS, Limits
from agents.desk.long_term import LongTermParams
from agents.desk.rewards.exploration import ExplorationBonus
from agents.desk.rewards.params import SECONDS_PER_YEAR, STANDARD, RewardParams
from agents.desk.rewards.weighted import Outcome, WeightedReward
from agents.environment.comovement import covariances
from agents.environment.compiled import available, ready
from agents.environment.forms import EXPOSURE, WEIGHTS, exposure_weights, softmax_weights
from agents.environment.kernel import LIMITS, Floats, PortfolioKernel, StepResult, VectorCosts
from agents.environment.long_term_view import LongTermView
from agents.environment.risk_view import RiskView, tightening
from agents.market.columns import HOUR_COLUMNS, SPECS
from agents.market.history import CandleHistory, hour_features

Singles = NDArray[np.float32]
Info = dict[str, Any]

LONG_TERM, RISK = "long_term", "risk"
FORMS = (EXPOSURE, WEIGHTS, LONG_TERM, RISK)
SEEN = (
    "macd_z_8_24", "macd_z_16_48", "macd_z_32_96", "momentum_1d", "momentum_30d", "volatility_1h", "volatility_trend", "correlation_mean",
)  # fmt: skip
"""Columns by symbol that the portfolio forms see unless told otherwise."""
WORTH_COMPILING = 256
"""Copies from which on compiled steps are used where numba is installed."""
STOCK = 1024
"""Starts drawn at once."""
FEWEST = 48
"""Candles of a symbol below which its features are defaults and it is nothing to learn from."""
LONGEST_LOOK = 97 * 24
"""Bars before the first start where the history has room: the slowest trend's memory."""
_FLATTEN = RUNGS.index(FLATTEN)
_H = {name: number for number, name in enumerate(HOUR_COLUMNS)}


class VectorTradingEnvironment(VectorEnv[Singles, Any, Floats]):
    """E copies; one step is one bar of each. Autoreset: the step after an episode's last one begins the next, its action is ignored.

    Forms, with N symbols: `exposure` and `weights` as in `agents.environment.forms`; `long_term`, the four actions of the long-term
    agent for each symbol, observed and rewarded by symbol (observations [E, N, 100], actions [E, N, 4], rewards [E, N]); `risk`, the two
    of the risk agent over the long-term agent's priors (observations [E, 60], actions [E, 2], rewards [E]).

    An episode is cut (truncated) after `episode_bars`, and ends (terminated) on the ladder's last rung. Infos hold `listed` [E, N],
    false where a symbol had no candle at the decision: such rows are no experience. Costs in quote (impact, participation,
    smallest order) are felt at equities around `capital`. `bonus` pays for the term `exploration`; the next observation is the state.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP, "render_modes": []}  # noqa: RUF012  gymnasium's

    def __init__(
        self, history: CandleHistory, num_envs: int, *, form: str = EXPOSURE, limits: Limits = LIMITS, costs: VectorCosts | None = None,
        rewards: RewardParams = STANDARD, terms: Mapping[str, float] | None = None, episode_bars: int = 24 * 30, capital: float = 10_000.0,
        seed: int | None = None, randomise: bool = True, columns: Sequence[str] = SEEN, features: Singles | None = None,
        delay_bars: int = 1, settled: bool = False, risk: str | float | None = "prior", params: LongTermParams | None = None,
        compiled: bool | None = None, bonus: ExplorationBonus | None = None,
    ) -> None:  # fmt: skip
        if form not in FORMS:
            raise ConfigError(f"form {form!r}: use {', '.join(FORMS)}")
        if not 1 <= episode_bars <= len(history.times) - 2:
            raise DataError(f"episode_bars is {episode_bars}, the candles are {len(history.times)}: give 1 to {len(history.times) - 2}")
        if unknown := [name for name in columns if name not in _H]:
            raise ConfigError(f"columns {', '.join(unknown)} are no hour columns; see agents.market.columns.HOUR_COLUMNS")
        history.require(FEWEST)
        self.compiled = (num_envs >= WORTH_COMPILING and available() and not settled) if compiled is None else compiled
        self.form, self.num_envs, self.episode_bars, self.capital, self.randomise = form, num_envs, episode_bars, capital, randomise
        self.kernel = PortfolioKernel(
            history, costs or VectorCosts(), limits, num_envs, delay_bars=delay_bars, settled=settled, dtype=np.float32,
            compiled=self.compiled,
        )
        self.features = hour_features(history) if features is None else features
        if self.features.shape != (*history.close.shape, len(HOUR_COLUMNS)):
            raise DataError(f"features have shape {self.features.shape}: they belong to another history")
        self.years = history.length / NS / SECONDS_PER_YEAR
        self.reward = WeightedReward(rewards, terms or {"utility": 1.0}, (num_envs,), bonus)
        self._explores = bonus is not None
        self._judge_all: Callable[..., None] | None = None
        self._look: Callable[..., None] | None = None
        if self.compiled:
            _, self._judge_all, self._look = ready()
        if form == RISK and dict(self.reward.terms) != {"utility": 1.0}:
            raise ConfigError("the risk form is rewarded by what tightening was worth: leave terms out")
        self._plain = dict(self.reward.terms) == {"utility": 1.0}  # the default needs no running numbers
        self._covariance: Floats = covariances(history)
        self._ones: Floats = np.ones(self.kernel.width, dtype=np.float32)
        self.view: LongTermView | None = None
        self.risk: RiskView | None = None
        if form in (LONG_TERM, RISK):
            self.view = LongTermView(self.kernel, self.features, params, risk if form == LONG_TERM else None)
            self.risk = RiskView(self.view) if form == RISK else None
        else:
            self._seen = np.ascontiguousarray(self.features[..., [_H[name] for name in columns]]).reshape(len(history.times), -1)
        self._spaces(len(columns))
        self.fresh: NDArray[np.bool_] = np.zeros(num_envs, dtype=bool)
        """[E] copies whose last step only began an episode: it is no transition."""
        self._complete = bool(history.listed.all())
        self._ended = np.ones(num_envs, dtype=bool)
        self._left = np.zeros(num_envs, dtype=np.int64)
        self._observed: Singles = np.zeros(self.observation_space.shape or (), dtype=np.float32)
        self._random = np.random.default_rng(seed)
        self._stock: dict[str, NDArray[Any]] = {}
        self._stock_at = 0

    def _spaces(self, columns: int) -> None:
        width = self.kernel.width
        shapes = {EXPOSURE: (width,), WEIGHTS: (width + 1,), LONG_TERM: (width, 4), RISK: (2,)}
        seen = {LONG_TERM: (width, SPECS[LONG_TERM].size), RISK: (SPECS[RISK].size,)}.get(self.form, (width * (columns + 1) + 2,))
        self.single_action_space = Box(-1.0, 1.0, shapes[self.form], np.float32)
        self.single_observation_space = Box(-np.inf, np.inf, seen, np.float32)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)

    # -- gymnasium's verbs -------------------------------------------------------------------------------------------------

    def reset(self, *, seed: int | None = None, options: Info | None = None) -> tuple[Singles, Info]:
        """All copies begin. `options` may fix rows, equity, drawdown and weights ([E], [E, N] or one for all), and reset_mask [E]."""
        if seed is not None:
            self._random = np.random.default_rng(seed)
            self._stock, self._stock_at = {}, 0
        options = options or {}
        chosen = np.flatnonzero(options.get("reset_mask", np.ones(self.num_envs, dtype=bool)))
        self._begin(chosen, options)
        self._observed = self._observe()
        return self._observed, {"listed": self._listed()}

    def step(self, actions: NDArray[Any]) -> tuple[Singles, Floats, NDArray[np.bool_], NDArray[np.bool_], Info]:
        """One bar. Raises ConfigError for actions of another shape or not finite; they are clipped to [-1, 1]."""
        actions = self._checked(actions)
        ended, kernel = self._ended.copy(), self.kernel
        before, equity, drawdown, listed = kernel.weights, kernel.equity, kernel.drawdown, self._listed()
        wished, target, multiplier = self._wish(actions)
        result = kernel.step(target, multiplier)
        if self.view is not None:
            self.view.follow(before, equity, result)
        if self.risk is not None:
            rewards: Floats = self._judge_tightening(before, multiplier, result)
        else:
            rewards = self._judge(before, drawdown, wished if self._complete else np.where(listed, wished, 0.0), result)
        if self.view is not None:
            self.view.moments = np.stack(self.reward.moments(), axis=1)
        self._left -= 1
        terminated = (kernel.rung == _FLATTEN) & ~ended
        truncated = (self._left <= 0) & ~terminated & ~ended
        if ended.any():
            rewards[ended] = 0.0
            self._begin(np.flatnonzero(ended), {})
        self.fresh, self._ended = ended, terminated | truncated
        self._observed = self._observe()
        return self._observed, rewards, terminated, truncated, {"listed": listed}

    def ease(self, costs: float) -> None:
        """Every cost times `costs` from the next step on: a curriculum's stages (its volatility is another history's: `louder`).

        Raises ConfigError for a factor that is negative or not finite.
        """
        if not 0.0 <= costs < float("inf"):
            raise ConfigError(f"a factor of {costs} on costs: give a finite number that is not negative")
        self.kernel.cost_scale = np.full((self.num_envs, 1), costs, dtype=np.float32)

    # -- inside ------------------------------------------------------------------------------------------------------------

    def _checked(self, actions: NDArray[Any]) -> NDArray[Any]:
        actions = np.asarray(actions)
        if actions.shape != self.action_space.shape:
            raise ConfigError(f"actions have shape {actions.shape}: the form {self.form} needs {self.action_space.shape}")
        if not np.isfinite(actions).all():
            raise ConfigError(f"an action of copy {int(np.argwhere(~np.isfinite(actions))[0][0])} is not finite")
        clipped: NDArray[Any] = np.clip(actions, -1.0, 1.0)
        return clipped

    def _wish(self, actions: NDArray[Any]) -> tuple[Floats, Floats, Floats | float]:
        """(what is wished for, the target handed to the projection, the gross multiplier)."""
        if self.view is not None:
            if self.risk is not None:
                gross = self.risk.propose(self._observed, actions)[0]
                return self.view.wishes.weight, self.view.joint(gross), gross
            target, gross = self.view.propose(self._observed, actions)
            return self.view.wishes.weight, target, gross
        if self.form == EXPOSURE:
            wished = exposure_weights(actions, self.kernel.limits.position_cap)
        else:
            wished = softmax_weights(actions, self.kernel.limits.cash_buffer, self.kernel.limits.position_cap)
        return wished, wished, 1.0

    def _judge(self, before: Floats, drawdown: Floats, wished: Floats, result: StepResult) -> Floats:
        """Rewards [E, N] of the long-term form, [E] of the others: the terms, less what the limits cut off the wish.

        On spot a negative wish is a wish for nothing, so that nothing is cut off it.
        """
        wished = np.maximum(wished, 0.0)
        row, move = self.kernel.row, self.kernel.moved
        if self._plain and self._judge_all is not None:
            p, rewards = self.reward.functions.params, np.empty_like(before)
            unit = p.volatility_target * self.years**0.5
            aversion = 0.5 * p.risk_aversion * self.years
            self._judge_all(before, wished, result.traded, move, result.profit, row, self._covariance, aversion, unit, p.alias, rewards)
            return rewards if self.form == LONG_TERM else rewards @ self._ones
        executed = (before + result.traded) * move
        if self._plain:
            functions, weights = self.reward.functions, 0.5 * (before + executed)
            gained = functions.utility(result.profit, weights, weights, self._covariance[row], self.years)
            rewards = gained - functions.alias(executed, wished)
            return rewards if self.form == LONG_TERM else rewards @ self._ones
        states: Floats | None = self._observe() if self._explores else None
        outcome = Outcome(
            result.profit, 0.5 * (before + executed), move - 1.0, self._covariance[row], self.years, cost=result.cost, drawdown=drawdown,
            prediction=self.view.wishes.exposure if self.view is not None else 0.0, states=states,
        )  # fmt: skip
        rewards = self.reward.judge(outcome) - self.reward.functions.alias(executed, wished)
        return rewards if self.form == LONG_TERM else rewards @ self._ones

    def _judge_tightening(self, before: Floats, multiplier: Floats | float, result: StepResult) -> Floats:
        """Rewards [E] of the risk form: utility under the multiplier less utility without, at the drawdown where the bar ended."""
        kernel = self.kernel
        book = (0.5 * (before + (before + result.traded) * kernel.moved)).astype(np.float64)
        return tightening(
            self.reward.functions, np.asarray(multiplier), book, kernel.moved - 1.0, self._covariance[kernel.row], kernel.drawdown, self.years
        )

    def _observe(self) -> Singles:
        if self.view is not None:
            seen = self.view.observe()
            if self.risk is None:
                return seen
            self.view.wish(seen, np.zeros((*seen.shape[:2], 4)))
            return self.risk.observe()
        kernel = self.kernel
        size = self._seen.shape[1]
        result = np.empty((self.num_envs, size + kernel.width + 2), dtype=np.float32)
        if self._look is not None:
            self._look(self._seen, kernel.row, kernel.weights, kernel.equity, kernel.peak, result)
            return result
        result[:, :size] = self._seen[kernel.row]
        result[:, size:-2] = kernel.weights
        result[:, -2] = 1.0 - kernel.weights @ self._ones
        result[:, -1] = kernel.drawdown
        return result

    def _listed(self) -> NDArray[np.bool_]:
        if self._complete:
            return np.broadcast_to(np.True_, self.kernel.weights.shape)
        listed: NDArray[np.bool_] = self.kernel.history.listed[self.kernel.row]
        return listed

    def _begin(self, chosen: NDArray[np.intp], options: Info) -> None:
        """Put the chosen copies at the start of an episode: anywhere, or where `options` say."""
        starts = self._next_starts(len(chosen))
        if options:
            for name, drawn in starts.items():
                if name in options:
                    starts[name] = np.broadcast_to(options[name], (self.num_envs, *drawn.shape[1:]))[chosen]
            self.kernel.reset(starts["rows"], starts["equity"], starts["drawdown"], starts["weights"], _mask(chosen, self.num_envs))
        else:
            self.kernel.place(chosen, *starts.values())
        self._left[chosen] = np.minimum(self.episode_bars, self.kernel.last_row - starts["rows"])
        if options and (self._left[chosen] < 1).any():
            raise DataError(f"an episode cannot start at bar {int(starts['rows'].max())}: the last is {self.kernel.last_row - 1}")
        self._ended[chosen] = False
        if not self._plain:
            self.reward.restart(_mask(chosen, self.num_envs))
        if self.view is not None:
            self.view.restart(chosen)
            self.view.moments = np.stack(self.reward.moments(), axis=1)

    def _next_starts(self, count: int) -> dict[str, NDArray[Any]]:
        """The next starts of a stock that is drawn many at once: each step a few copies begin anew."""
        if self._stock_at + count > len(self._stock.get("rows", ())):
            self._stock, self._stock_at = self._starts(max(count, STOCK)), 0
        first, self._stock_at = self._stock_at, self._stock_at + count
        return {name: values[first : self._stock_at] for name, values in self._stock.items()}

    def _starts(self, count: int) -> dict[str, NDArray[Any]]:
        kernel, random, limits = self.kernel, self._random, self.kernel.limits
        last = kernel.last_row - self.episode_bars
        first = min(LONGEST_LOOK, last // 2)
        rows = random.integers(first, last + 1, count) if self.randomise else np.full(count, first)
        starts = {
            "rows": rows, "equity": np.full(count, self.capital), "drawdown": np.zeros(count), "weights": np.zeros((count, kernel.width)),
        }  # fmt: skip
        if self.randomise:
            starts["equity"] = self.capital * 2.0 ** random.uniform(-1.0, 1.0, count)
            starts["drawdown"] = np.where(random.random(count) < 0.5, 0.0, random.uniform(0.0, limits.drawdown_reduce, count))
            gross = np.where(random.random(count) < 0.25, 0.0, random.uniform(0.0, 1.0 - limits.cash_buffer, count))
            parts = random.standard_exponential((count, kernel.width)) * kernel.history.listed[rows]
            weights = parts / np.maximum(parts.sum(axis=1, keepdims=True), 1e-12) * gross[:, None]
            starts["weights"] = np.minimum(weights, limits.position_cap)
        return starts


def _mask(chosen: NDArray[np.intp], size: int) -> NDArray[np.bool_]:
    where = np.zeros(size, dtype=bool)
    where[chosen] = True
    return where
