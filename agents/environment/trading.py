"""The market as a gymnasium environment: the desk's own rooms, one account, seeded."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from agents.core.errors import ConfigError, DataError
from agents.core.instruments import NS, Instrument
from agents.desk.decision import EngineConfig
from agents.desk.limits import Limits
from agents.desk.rewards import RewardParams
from agents.desk.wishes import MARKET_MAKING, ORDER, Style
from agents.environment import presets
from agents.environment.allotment import Allotment
from agents.environment.desk import FOREVER, speaker
from agents.environment.episode import Moment
from agents.environment.forms import PORTFOLIO_FORMS, checked_action
from agents.environment.render import Canvas
from agents.environment.seat import Seat
from agents.environment.sources import Candles, open_source
from agents.environment.views import Extras
from agents.market.features import MINUTE
from agents.market.frictions import Frictions
from agents.market.history import CandleHistory
from agents.market.observation import LARGEST, Experience

Singles = NDArray[np.float32]
CAPITAL = 100_000.0
"""Quote currency: small beside the volume of a large coin, large beside its smallest order."""


class TradingEnvironment(gymnasium.Env[Singles, Singles]):
    """One account that trades several symbols through the engine's own rooms; see docs/environment.md.

    `source`: "synthetic" (the built-in order-flow market), a path or paths of candles or of a recorded book, or a CandleHistory.
    `form`: what an action means: exposure, weights, cross_section, signal, or the name of one of the four agents, whose raw actions
    and observations it then is while the others act by `weights` or their priors. Actions are float32 in [-1, 1].

    A step is one candle on candles, a minute (or the agent's own cadence) on books. An episode begins at a random candle with
    `random_start`, else at the first that has its past; it lasts `episode_steps` or until the data ends, which truncates it. The
    drawdown ladder's last rung, or ruin, terminates it. `rewards` are weights of reward terms; the default is the utility.

    Equal seeds give equal trajectories, bit for bit. Raises ConfigError for settings that contradict each other or the form, DataError
    for data that cannot be used; `step` raises NotFinite or ConfigError for an action that is none, and nothing is sent.
    """

    metadata = {"render_modes": ["human", "rgb_array"], "render_fps": 10}  # noqa: RUF012  gymnasium's own shape

    def __init__(
        self,
        source: str | Path | Sequence[Path] | CandleHistory = "synthetic",
        *,
        symbols: Sequence[str] | None = None,
        form: str = "exposure",
        rewards: Mapping[str, float] | None = None,
        reward_params: RewardParams | None = None,
        limits: Limits | None = None,
        frictions: Frictions | None = None,
        style: Style | None = None,
        capital: float = CAPITAL,
        seed: int = 0,
        start: int | None = None,
        end: int | None = None,
        episode_steps: int | None = None,
        random_start: bool = False,
        warmup: int | None = None,
        instruments: Iterable[Instrument] | None = None,
        signals: Singles | None = None,
        forecasts: Singles | None = None,
        weights: bytes | None = None,
        allow_gaps: bool = False,
        fast: bool = True,
        render_mode: str | None = None,
    ) -> None:
        self._arguments = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        default = presets.preset(form)
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ConfigError(f"render_mode {render_mode!r}: use human, rgb_array or None")
        if not (np.isfinite(capital) and capital > 0):
            raise ConfigError(f"capital is {capital}: give a positive amount of quote currency")
        if episode_steps is not None and episode_steps < 1:
            raise ConfigError(f"episode_steps is {episode_steps}: set at least 1, or None for as long as the data lasts")
        if warmup is not None and warmup < 0:
            raise ConfigError(f"warmup is {warmup}: it counts candles before the account opens; set at least 0")
        self.form, self.render_mode, self.seed = form, render_mode, seed
        self.source = open_source(source, symbols, start, end, instruments, allow_gaps, form == MARKET_MAKING)
        self.symbols = self.source.symbols
        self._steps, self._random = episode_steps, random_start
        self.warmup = default.warmup if warmup is None else warmup
        chosen = default.frictions if frictions is None else frictions
        chosen = presets.with_candles(chosen) if self.source.candles_only else chosen
        self.config = self._engine(default.limits if limits is None else limits)
        money = Decimal(repr(float(capital)))
        params = reward_params or RewardParams()
        self._episode: Allotment | Seat
        if form in PORTFOLIO_FORMS:
            manner = default.style if style is None else style
            extras = Extras(signals, forecasts)
            self._episode = Allotment(
                form, self.source, self.config, manner, money, chosen, self.warmup, params, rewards, extras, fast
            )
        else:
            if rewards is not None or signals is not None or forecasts is not None or style is not None:
                raise ConfigError(f"form {form!r} has its own rewards and columns: leave rewards, style, signals and forecasts out")
            self._episode = Seat(form, self.source, self.config, money, chosen, self.warmup, params, weights)
        self.observation_space = spaces.Box(-LARGEST, LARGEST, self._episode.shape, np.float32)
        self.action_space = spaces.Box(-1.0, 1.0, self._episode.action_shape, np.float32)
        self._canvas = Canvas(self.symbols) if render_mode else None
        self.experiences: list[Experience] = []
        """Of an agent's form: the engine's own rows of the last action, one a symbol, for a buffer whose policy is shared over symbols."""
        self._seed: int | None = seed
        self._taken = 0
        self._over = True

    def _engine(self, limits: Limits) -> EngineConfig:
        source = self.source
        quote = str(source.instruments[0].quote)
        portfolio = self.form in PORTFOLIO_FORMS
        length = source.history.length if isinstance(source, Candles) else MINUTE
        return EngineConfig(
            "environment", 1, quote, tuple(str(s) for s in source.symbols),
            agents=(speaker(length),) if portfolio else ORDER,
            limits=limits,
            hidden_sizes=(1,),
            # Between two candles there is nothing to requote on; between two steps on books there is.
            requote_after_s=FOREVER / NS if portfolio and source.candles_only else 0.5,
            candles_only=source.candles_only,
        )  # fmt: skip

    def __deepcopy__(self, memo: dict[int, Any]) -> "TradingEnvironment":
        """Another account on the same source, before its first episode: what a running one holds is no matter to copy."""
        other = copy.copy(self)
        memo[id(self)] = other
        other._episode = self._episode.fresh()
        other._canvas = Canvas(self.symbols) if self.render_mode else None
        other._np_random, other._np_random_seed = None, None
        other._seed, other._taken, other._over = self.seed, 0, True
        return other

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickle holds the arguments, for an environment in another process."""
        return _again, (self._arguments,)

    # -- gymnasium ---------------------------------------------------------------------------------------------------------

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Singles, dict[str, Any]]:
        """The first observation. `options={"row": t}` begins at the close of candle t. Raises DataError where no episode fits."""
        super().reset(seed=self._seed if seed is None and self._seed is not None else seed)
        self._seed = None  # later resets without a seed go on with the random stream, as gymnasium has it
        row = self._first_row((options or {}).get("row"))
        moment = self._episode.reset(int(self.np_random.integers(2**31)), row)
        self._taken, self._over = 0, False
        if self._canvas is not None:
            self._canvas.clear()
            self._draw(moment)
        return moment.observation, moment.info

    def _first_row(self, asked: int | None) -> int:
        """The candle at whose close the account opens."""
        if not isinstance(self.source, Candles):
            return 0
        last = len(self.source.history.times) - 2
        first = min(max(self.warmup, self._episode.past), last)
        if last < 0:
            raise DataError(f"{last + 2} candle is too few for a step: load more")
        if asked is not None:
            if not 0 <= asked <= last:
                raise DataError(f"an episode cannot begin at row {asked}: give 0 to {last}")
            return asked
        if not self._random:
            return first
        latest = max(last + 1 - (self._steps or 1), first)
        return int(self.np_random.integers(first, latest + 1))

    def step(self, action: Singles) -> tuple[Singles, float, bool, bool, dict[str, Any]]:
        """One decision and what came of it. Raises NotFinite and ConfigError for an action that is none, DataError after the end."""
        if self._over:
            raise DataError("the episode is over, or has not begun: call reset()")
        moment = self._episode.step(checked_action(action, self._episode.action_shape))
        self._taken += 1
        self.experiences = moment.experiences
        truncated = moment.truncated or (self._steps is not None and self._taken >= self._steps)
        self._over = moment.terminated or truncated
        if self._canvas is not None:
            self._draw(moment)
        return moment.observation, moment.reward, moment.terminated, truncated, moment.info

    def _draw(self, moment: Moment) -> None:
        if self._canvas is not None:
            self._canvas.note(moment.info)
            if self.render_mode == "human":
                self._canvas.show()

    def render(self) -> NDArray[np.uint8] | None:
        """With `rgb_array` the figure of equity, weights and prices, uint8 [height, width, 3]; with `human` it is shown as it goes."""
        if self._canvas is None or self.render_mode != "rgb_array":
            return None
        return self._canvas.pixels()

    def close(self) -> None:
        """Take the figure away."""
        if self._canvas is not None:
            self._canvas.close()


def _again(arguments: dict[str, Any]) -> TradingEnvironment:
    return TradingEnvironment(**arguments)
