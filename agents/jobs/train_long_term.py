"""Pre-training of the long-term agent on candles: thousands of accounts at once, soft actor-critic in between, the best on later candles kept.

Prices are exogenous to an account of this size, so every copy starts at a random bar with a random position and drawdown, and what was
lived is never explored with money. Each round is played anew from its own seed and forgotten, so that a checkpoint is small and a run
that was killed goes on bit by bit.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from agents.core.errors import ConfigError, DataError
from agents.desk.rewards import Curriculum, CurriculumParams
from agents.environment.kernel import VectorCosts
from agents.environment.vector import LONGEST_LOOK, VectorTradingEnvironment
from agents.jobs.baselines import long_term_prior
from agents.jobs.train_rounds import ReturnScale, Round, play
from agents.jobs.weights import joined
from agents.learning.composed import ComposedSAC
from agents.learning.face import pack, read_weights
from agents.learning.fast import FastSAC
from agents.learning.options import Options
from agents.learning.replay import Floats
from agents.learning.sac import SAC, SACConfig
from agents.learning.scales import ColumnScale, NoScale
from agents.market.features import HOUR
from agents.market.history import CandleHistory
from agents.market.observation import ACTION_SIZES, SPEC_HASH, STATE_SIZES
from agents.serving.actors import Actors

AGENT = "long_term"
SCHEDULE = CurriculumParams(memory=2.0, patience=2)
"""A round is thousands of episodes: two of them tell enough."""
LEAST_BARS = 400
"""About two weeks of hours: below it there is no round to play beside the warm-up."""
WINDOWS = 64
"""Accounts among which the validation candles are shared out, one after the other in time."""
CLIP = 10.0
"""Bound on a reward in units of the running return scale."""


PLAIN = Options()


@dataclass(frozen=True, slots=True)
class LongTermConfig:
    """How the long-term agent is trained. Raises ConfigError for numbers out of range."""

    steps: int = 20_000
    """Updates."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Small: seven years of hours are few independent samples."""
    batch_size: int = 256
    learning_rate: float = 3e-4
    gamma: float = 0.95
    """Per hour, whatever the candles' length. What a weight earns it earns at once, and a trade pays within a day; beyond that the
    critic learns prices. With .99 planted alpha was found and lost again (docs/training.md)."""
    tau: float = 0.005
    alpha: float = 0.05
    """Held: the temperature is what keeps actions near the prior while little is known. Tuned to the usual target it falls until noise is fitted."""
    automatic_entropy_tuning: bool = False
    weight_decay: float = 1e-4
    reward_scale: float = 5.0
    """After the running return scale."""
    copies: int = 256
    round_bars: int = 128
    """Bars of a round; with `copies` its rows, and `updates_per_row` its updates."""
    updates_per_row: float = 1.0
    """Samples drawn for each row of a round: rows cost next to nothing, and a round that is drawn from too often is learned by heart."""
    uniform_share: float = 0.25
    """Part of the copies whose actions are uniform, so that no action is forgotten."""
    patience: int = 5
    """Looks at the validation candles without improvement after which training ends."""
    margin: float = 1.0
    """Standard errors by which a policy must beat the prior on the validation candles, else the prior is kept."""
    normalize: bool = True
    """Columns in running deviations; folded into what is served."""
    curriculum: bool = False
    """Whether costs begin at nothing and grow while sampled actions earn more than uniform ones."""
    exogenous_baseline: bool = True
    """Whether what the prior's own weight earns in a bar is taken off its rewards: it depends on no action, and is most of their noise."""
    options: Options = PLAIN

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "copies", "round_bars", "updates_per_row", "patience", "reward_scale"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be above 0, not {getattr(self, name)}")
        if not self.hidden_sizes or min(self.hidden_sizes) < 1 or not 0 <= self.uniform_share <= 1:
            raise ConfigError("hidden_sizes needs a layer, each of at least one unit, and uniform_share lies in [0, 1]")

    def sac(self) -> SACConfig:
        names = ("learning_rate", "gamma", "tau", "alpha", "automatic_entropy_tuning", "batch_size", "weight_decay", "reward_scale")
        hidden = tuple(self.hidden_sizes)
        return SACConfig(policy_hiddens=hidden, q_hiddens=hidden, **{name: getattr(self, name) for name in names})


Told = Callable[[int, Mapping[str, float]], None]
"""Updates so far, and figures of the newest round."""


def train_long_term(
    history: CandleHistory,
    seed: int,
    steps: int = 20_000,
    *,
    validation: CandleHistory | None = None,
    hidden_sizes: tuple[int, ...] = (64, 64),
    patience: int = 5,
    validate_from: int | None = None,
    costs: VectorCosts | None = None,
    told: Told | None = None,
    environment: Mapping[str, Any] | None = None,
    **settings: Any,
) -> bytes:
    """Weights of a long-term agent trained on `history`; the other agents in the payload act their priors.

    With `validation` candles (later ones, or nothing is proved) the policy is looked at after each round, training ends after `patience`
    looks without improvement, and the best is returned: that may be the prior itself. Candles before `validate_from` (ns UTC) only
    make the slow trends known. `settings` are fields of LongTermConfig, `environment` further arguments of the environment. Raises
    ConfigError, DataError (too few candles), Diverged.
    """
    config = LongTermConfig(steps=steps, hidden_sizes=tuple(hidden_sizes), patience=patience, **settings)
    judge = None if validation is None else Judge(validation, validate_from, costs, environment)
    training = LongTermTraining(config, history, seed, judge, costs, environment)
    while not training.done:
        figures = training.round()
        if told is not None:
            told(training.updates, figures)
    return training.payload()


class Judge:
    """How much better than the prior a policy does on candles that it has not learned from: mean reward, on the same windows.

    The candles are cut into WINDOWS that follow each other; an account starts in each with cash alone and acts the mean action.
    """

    def __init__(
        self, history: CandleHistory, start: int | None = None, costs: VectorCosts | None = None,
        environment: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        last = len(history.times) - 2
        first = min(LONGEST_LOOK, last // 2) if start is None else int(np.searchsorted(history.times, start))
        self._bars = (last - first) // WINDOWS
        if self._bars < 2:
            raise DataError(f"{max(last - first, 0)} candles to validate on are too few: at least {2 * WINDOWS} are needed after the warm-up")
        given = {"randomise": False, "episode_bars": self._bars, **(environment or {})}
        self._ground = VectorTradingEnvironment(history, WINDOWS, form=AGENT, costs=costs, **given)
        self._rows = first + self._bars * np.arange(WINDOWS)
        self._prior, self.prior_turnover = self._earned(Actors.prior({AGENT: (STATE_SIZES[AGENT], ACTION_SIZES[AGENT])}, (1,), SPEC_HASH))

    def __call__(self, payload: bytes) -> tuple[float, float, float]:
        """(mean reward a bar above the prior's, its standard error over the windows, turnover a bar)."""
        earned, turnover = self._earned(Actors.from_payload(payload, SPEC_HASH))
        ahead = earned - self._prior
        return float(ahead.mean()), float(ahead.std(ddof=1) / math.sqrt(WINDOWS)), turnover

    def _earned(self, actors: Actors) -> tuple[NDArray[np.float64], float]:
        """Mean reward a bar of each window, [WINDOWS], and what part of equity is traded in a bar."""
        seen, _ = self._ground.reset(seed=0, options={"rows": self._rows})
        total, width, turnover = np.zeros(WINDOWS), seen.shape[1], 0.0
        over = np.zeros(WINDOWS, bool)
        for _ in range(self._bars):
            actions = actors.act(AGENT, np.ascontiguousarray(seen.reshape(WINDOWS * width, -1)))
            kernel, held, equity = self._ground.kernel, self._ground.kernel.weights, self._ground.kernel.equity
            seen, rewards, ruined, cut, info = self._ground.step(actions.reshape(WINDOWS, width, -1))
            traded = kernel.weights * (kernel.equity / equity)[:, None] / kernel.fills(kernel.row)[1] - held
            turnover += float(np.where(over, 0.0, np.abs(traded).sum(axis=1)).mean())
            total += np.where(over[:, None] | ~info["listed"], 0.0, rewards).sum(axis=1)
            over |= ruined | cut
        return total / self._bars, turnover / self._bars


class LongTermTraining:
    """One run, round by round. `tensors`, `meta` and `load` carry it over a break: it goes on as if there had been none."""

    def __init__(
        self, config: LongTermConfig, history: CandleHistory, seed: int, judge: "Judge | None" = None,
        costs: VectorCosts | None = None, environment: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        self.config, self.seed, self.rng = config, seed, np.random.default_rng([seed, 1])
        self.elapsed = history.length / HOUR
        if len(history.times) < LEAST_BARS:
            raise DataError(f"{len(history.times)} candles are too few to train on: at least {LEAST_BARS} are needed")
        bars = min(config.round_bars, len(history.times) // 4)
        self._ground = VectorTradingEnvironment(
            history, config.copies, form=AGENT, costs=costs, episode_bars=bars, **(environment or {})
        )
        self._judge = judge
        self._curriculum = Curriculum(SCHEDULE if config.curriculum else CurriculumParams(stages=1))
        self._closings = history.closings
        self._exogenous = _prior_gain(history, self._ground.features)
        self.sac = self._algorithm()
        self.scale = ColumnScale(STATE_SIZES[AGENT]) if config.normalize else NoScale(STATE_SIZES[AGENT])
        self.returns = ReturnScale(config.gamma)
        self.rounds = self.looks = 0
        """Rounds so far, and looks at the validation candles since the last improvement."""
        self.best: dict[str, Tensor] | None = None
        """Weights of the best policy on the validation candles; None is the prior."""
        self.best_score = 0.0

    def _algorithm(self) -> SAC | ComposedSAC:
        sizes = STATE_SIZES[AGENT], ACTION_SIZES[AGENT], self.config.sac(), self.rng
        if self.config.options.plain:
            return FastSAC(*sizes)
        return ComposedSAC(*sizes, self.config.options, micro_batch=self.config.batch_size)

    @property
    def updates(self) -> int:
        return self.sac.updates

    @property
    def done(self) -> bool:
        """Whether all steps were taken, or patience is at its end."""
        return self.updates >= self.config.steps or self.looks >= self.config.patience

    def round(self) -> dict[str, float]:
        """Play, learn, look; returns what there is to watch. Raises Diverged."""
        costs = self._curriculum.stage.costs
        if self.config.curriculum:
            self._ground.ease(costs)
        played = play(self._ground, self._explore, self.config.round_bars, self._round_seed())
        skill = self._skill(played)
        self._curriculum.update(skill)
        spread = float(played.rewards[played.lived].std())
        played, share = played.without(self._exogenous) if self.config.exogenous_baseline else (played, 0.0)
        if not played.rows:
            raise DataError("no copy lived through a single bar: the history is too short for its warm-up and a round")
        self.scale.extend(played.states[:-1][played.lived])
        self.returns.extend(played, self.elapsed)
        info = self._learn(played)
        self.rounds += 1
        left = float(played.rewards[played.lived].std()) / max(spread, 1e-12)
        info |= {"rows": float(played.rows), "return_scale": self.returns.value, "baseline_share": share, "deviation_left": left}
        info |= {"skill": skill, "stage_costs": costs}
        if self._judge is not None:
            info |= self._look(self._judge)
        return info

    def _skill(self, played: Round) -> float:
        """By how much sampled actions earned more a bar than uniform ones; 0 where there are none of either."""
        uniform = self._uniform
        if not 0 < uniform < self.config.copies:
            return 0.0
        means = [float(played.rewards[:, part][played.lived[:, part]].mean()) for part in (slice(uniform, None), slice(uniform))]
        return means[0] - means[1]

    @property
    def _uniform(self) -> int:
        """Copies whose actions are uniform."""
        return round(self.config.uniform_share * self.config.copies)

    def _round_seed(self) -> int:
        return int(np.random.default_rng([self.seed, 2, self.rounds]).integers(2**31))

    def _explore(self, states: Floats) -> Floats:
        acted = self.sac.act(self.scale.states(states), explore=True)
        uniform = self._uniform * (len(states) // self.config.copies)
        if self.rounds == 0:
            uniform = len(states)  # nothing is known yet: warm-up, in simulation only
        acted[:uniform] = self.rng.uniform(-1.0, 1.0, (uniform, acted.shape[1]))
        return acted

    def _learn(self, played: Round) -> dict[str, float]:
        config, sums, before = self.config, dict[str, float](), self.updates
        wanted = math.ceil(config.updates_per_row * played.rows / config.batch_size)
        count = min(wanted, config.steps - before)
        scale = 1.0 / self.returns.value
        for _ in range(count):
            rows = played.batch(config.batch_size, self.rng, scale, self.elapsed)
            rows = rows._replace(reward=np.clip(rows.reward, -CLIP, CLIP))
            for name, value in self.sac.update(self.scale.rows(rows)).items():
                sums[name] = sums.get(name, 0.0) + value
        return {name: total / count for name, total in sums.items()}

    def _look(self, judge: "Judge") -> dict[str, float]:
        weights = self._weights()
        advantage, error, turnover = judge(pack({AGENT: weights}, 1, SPEC_HASH))
        if advantage > self.best_score and advantage > self.config.margin * error:
            self.best_score, self.best, self.looks = advantage, weights, 0
        else:
            self.looks += 1
        return {"validation": advantage, "validation_error": error, "validation_turnover": turnover}

    def _weights(self) -> dict[str, Tensor]:
        """The policy by the names of a payload, for raw states."""
        return self.scale.fold(read_weights(self.sac.actor))

    def payload(self) -> bytes:
        """The best weights on the validation candles, or the newest where there are none, as a NewWeights payload of all agents."""
        weights = self._weights() if self._judge is None else self.best
        version = max(self.rounds, 1)
        if weights is None:
            return joined({}, version)
        return joined({AGENT: pack({AGENT: weights}, version, SPEC_HASH)}, version)

    def transitions(self) -> dict[str, NDArray[Any]]:
        """One more round of play as columns, rewards as the engine scales them: for the daemon's learner."""
        played = play(self._ground, self._explore, self.config.round_bars, self._round_seed())
        scale = 1.0 / self.returns.value
        played = replace(played, rewards=np.clip(played.rewards * np.float32(scale), -CLIP, CLIP))
        return played.transitions(self.config.reward_scale, self.elapsed, self._closings)

    # -- over a break ----------------------------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        found = {f"sac.{name}": tensor for name, tensor in self.sac.tensors().items()}
        found |= {f"scale.{name}": tensor for name, tensor in self.scale.tensors().items()}
        return found | {f"best.{name}": tensor for name, tensor in (self.best or {}).items()}

    def meta(self) -> dict[str, Any]:
        """Plain values beside the tensors."""
        return {
            "rounds": self.rounds, "updates": self.updates, "looks": self.looks, "best_score": self.best_score,
            "returns": [self.returns.square, self.returns.count], "rng": self.rng.bit_generator.state,
            "curriculum": list(self._curriculum.state()),
        }  # fmt: skip

    def load(self, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        """Go on from what `tensors` and `meta` gave. Raises SpecMismatch when they are another network's."""
        self.sac.load(_below(tensors, "sac."))
        self.scale.load(_below(tensors, "scale."))
        self.best = _below(tensors, "best.") or None
        self.sac.updates, self.rounds, self.looks = int(meta["updates"]), int(meta["rounds"]), int(meta["looks"])
        self.best_score = float(meta["best_score"])
        self.returns.square, self.returns.count = meta["returns"]
        number, mean, episodes = meta["curriculum"]
        self._curriculum.restore((int(number), float(mean), int(episodes)))
        self.rng.bit_generator.state = meta["rng"]


def _prior_gain(history: CandleHistory, features: Floats) -> NDArray[np.float64]:
    """What the prior's weight earns over the bar after each row, [T, N]: known from prices alone. Rows without a next candle earn 0."""
    weight = np.clip(long_term_prior(history, features), 0.0, 1.0)
    following = np.vstack([history.returns()[1:], np.zeros((1, len(history.symbols)))])
    return np.asarray(weight * following)


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
