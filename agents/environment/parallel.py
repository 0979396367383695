"""The four agents side by side as a PettingZoo environment: each its own observations, actions and rewards, one account."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from agents.core.errors import ConfigError, DataError
from agents.desk.decision import EngineConfig
from agents.desk.limits import FLATTEN, Limits
from agents.desk.rewards import RewardParams
from agents.desk.wishes import MARKET_MAKING, ORDER, RISK
from agents.environment import presets
from agents.environment.forms import checked_action
from agents.environment.seat import account, gathered, seated, spread
from agents.environment.sources import Candles, open_source
from agents.environment.trading import CAPITAL
from agents.market.frictions import Frictions
from agents.market.history import CandleHistory
from agents.market.observation import ACTION_SIZES, LARGEST, STATE_SIZES, Observation

try:
    from pettingzoo import ParallelEnv
except ImportError:
    raise ConfigError("the parallel environment needs the package pettingzoo: pip install 'quartet[research]'") from None

Singles = NDArray[np.float32]


class QuartetParallelEnv(ParallelEnv[str, Singles, Singles]):  # type: ignore[misc]  # pettingzoo has no types
    """long_term, short_term, market_making and risk on one desk; `source` and the other arguments as for TradingEnvironment.

    A step is one sitting of the desk: a candle on candles, and on books whenever at least one agent's cadence has passed (five
    seconds, the market maker's). All look when the sitting begins; then those that are due speak in the order of wishes, so what is
    wished later is joined with what was wished before, and each is judged on the engine's own rows. An agent that is not due keeps
    its wish until the desk lets it expire: its action is not looked at, its reward is 0 and its info says `due: False`. The market
    maker is never due on candles. `rows` [N, columns]: the policy is shared over symbols; the risk agent has one row.
    """

    metadata = {"render_modes": [], "name": "quartet_v0", "is_parallelizable": True}  # noqa: RUF012  pettingzoo's own shape

    def __init__(
        self,
        source: str | Path | Sequence[Path] | CandleHistory = "synthetic",
        *,
        symbols: Sequence[str] | None = None,
        limits: Limits | None = None,
        frictions: Frictions | None = None,
        capital: float = CAPITAL,
        seed: int = 0,
        start: int | None = None,
        end: int | None = None,
        episode_steps: int | None = None,
        warmup: int | None = None,
        reward_params: RewardParams | None = None,
        allow_gaps: bool = False,
    ) -> None:
        self.possible_agents: list[str] = list(ORDER)
        self.agents: list[str] = []
        self.render_mode = None
        self.source = open_source(source, symbols, start, end, None, allow_gaps, True)
        default = presets.preset(MARKET_MAKING)
        chosen = default.frictions if frictions is None else frictions
        self._frictions = presets.with_candles(chosen) if self.source.candles_only else chosen
        self._warmup = default.warmup if warmup is None else warmup
        self._capital, self._params = Decimal(repr(float(capital))), reward_params or RewardParams()
        self._steps, self._seed, self._taken = episode_steps, seed, 0
        self.config = EngineConfig(
            "environment", 1, str(self.source.instruments[0].quote), tuple(str(s) for s in self.source.symbols),
            limits=default.limits if limits is None else limits, hidden_sizes=(1,), candles_only=self.source.candles_only, seed=seed,
        )  # fmt: skip
        rows = len(self.source.symbols)
        shapes = {agent: (() if agent == RISK else (rows,)) for agent in ORDER}
        self.observation_spaces = {
            agent: spaces.Box(-LARGEST, LARGEST, (*shapes[agent], STATE_SIZES[agent]), np.float32) for agent in ORDER
        }
        self.action_spaces = {agent: spaces.Box(-1.0, 1.0, (*shapes[agent], ACTION_SIZES[agent]), np.float32) for agent in ORDER}

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return self.action_spaces[agent]

    # -- pettingzoo --------------------------------------------------------------------------------------------------------

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Singles], dict[str, dict[str, Any]]]:
        """What each agent sees at the first sitting. Raises DataError where the data ends before it."""
        del options
        self._seed = self._seed + 1 if seed is None else seed
        config = replace(self.config, seed=self._seed)
        row = min(self._warmup, len(self.source.history.times) - 2) if isinstance(self.source, Candles) else 0
        place = (max(row, 0), self._warmup)
        self.desk, self.stage = seated(ORDER, self.source, config, self._capital, self._frictions, place, self._params)
        self._run: Iterator[None] = self.stage.run()
        if not self._go_on():
            raise DataError("the data ends before anybody could speak: load more")
        self.agents, self._taken = list(ORDER), 0
        self._seen = self._look()
        return self._seen, {agent: self._info(0.0, agent) for agent in ORDER}

    def _go_on(self) -> bool:
        for _ in self._run:
            return True
        return False

    def step(
        self, actions: dict[str, Singles]
    ) -> tuple[dict[str, Singles], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """One sitting, and what came of it by the next. Raises NotFinite and ConfigError for an action that is none: nothing is sent."""
        if not self.agents:
            raise DataError("the episode is over, or has not begun: call reset()")
        missing = [agent for agent in self.agents if agent not in actions]
        if missing:
            raise ConfigError(f"actions lack {', '.join(missing)}: give one for every agent; those that are not due are not looked at")
        checked = {agent: checked_action(actions[agent], self.action_spaces[agent].shape) for agent in self.agents}
        desk, sitting, before, going = self.desk, self.desk.sitting, self.desk.equity() or 0.0, True
        self.stage.fills.clear()
        while going and desk.asked is not None and desk.sitting is sitting:
            self.stage.answered(desk.answer(self._rows(desk.asked, checked[desk.asked], desk.seen)))
            going = self._go_on()
        self._taken += 1
        rewards = {agent: float(sum(row.reward for row in desk.judged[agent] if not row.quarantined)) for agent in ORDER}
        for rows in desk.judged.values():
            rows.clear()
        if going:
            self._seen = self._look()
        terminated = desk.risk.rung == FLATTEN
        truncated = not terminated and (not going or (self._steps is not None and self._taken >= self._steps))
        infos = {agent: self._info(before, agent) for agent in ORDER}
        if terminated or truncated:
            self.agents = []
        return self._seen, rewards, dict.fromkeys(ORDER, terminated), dict.fromkeys(ORDER, truncated), infos

    def _rows(self, agent: str, action: Singles, seen: Observation | None) -> Singles:
        if agent == RISK:
            return action[None]
        return action if seen is None else gathered(action, seen.symbols, self.source.symbols)

    def _look(self) -> dict[str, Singles]:
        """What every agent sees as the sitting begins."""
        seen = {agent: self.desk.glance(agent) for agent in ORDER}
        symbols = self.source.symbols
        return {agent: np.array(o.matrix[0]) if agent == RISK else spread(o.matrix, o.symbols, symbols) for agent, o in seen.items()}

    def _info(self, before: float, agent: str) -> dict[str, Any]:
        due = self.desk.asked is not None and agent in self.desk.sitting.due
        return account(self.desk, self.stage, self.source, before) | {"due": due}

    def render(self) -> None:
        """There is no picture; TradingEnvironment draws one."""

    def close(self) -> None:
        """Nothing is held open."""
