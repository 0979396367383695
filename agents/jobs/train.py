"""Pre-training: the long-term agent on candles, all four agents in the engine on tapes and synthetic markets. Exploration never leaves simulation.

A run is a folder: what was asked for (run.json), a checkpoint after each round, the rows lived through, and weights that the daemon, a
backtest and `MultiAgentTradingSystem` take. Called again with the same settings it goes on where it was killed, with the same chance.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import ConfigError, DataError
from agents.core.instruments import NS
from agents.desk.decision import EngineConfig
from agents.desk.rewards import Curriculum, CurriculumParams
from agents.desk.wishes import LONG_TERM, ORDER
from agents.environment.kernel import VectorCosts
from agents.jobs.datasets import write_transitions
from agents.jobs.train_files import CHECKPOINT, begin, digest, keep_rows, keep_weights, kept_rows, versions
from agents.jobs.train_long_term import LEAST_BARS, Judge, LongTermConfig, LongTermTraining
from agents.jobs.train_relabel import relabelled
from agents.jobs.train_rollouts import Market, Rollout, ScaledFee, SyntheticRounds, TapeRounds, columns, merged
from agents.jobs.trials import Trial, TrialLog
from agents.learning import checkpoint
from agents.learning.guards import Guards
from agents.learning.learner import AgentSpec, Learner, LearnerConfig
from agents.learning.sac import SACConfig
from agents.market.frictions import Frictions
from agents.market.history import CandleHistory, hour_features, load_history
from agents.market.observation import ACTION_SIZES, SPEC_HASH, SPECS, STATE_SIZES

Told = Callable[[int, int, Mapping[str, Any]], None]
"""Updates so far, updates in all, figures of the newest round."""
UNBOUND = Guards(max_drift=2.0, max_divergence=1e9, max_saturation=1.0, min_entropy=-1e9, max_dormant=1.0)
"""Nobody acts on what is published in training; the guards stand between the daemon's learner and its orders."""
CANDLES = "candles"
LONGEST_ROUND = 366 * 24 * 60.0
"""Minutes of a year: a longer round would never end."""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """What a run is asked for. Raises ConfigError for what cannot be."""

    source: Literal["candles", "tape", "synthetic"]
    """Candles train the long-term agent alone, thousands of accounts at once; the others play the engine itself."""
    folder: Path
    data: tuple[Path, ...] = ()
    """Files or folders of the source; none for the synthetic market."""
    start: int | None = None
    end: int | None = None
    """Market times of the data, [start, end) in ns UTC."""
    validate_from: int | None = None
    """Candles from here on are not learned from but looked at: the best policy on them is kept, and training ends when it grows no better."""
    purge_bars: int = 24 * 7
    """Candles left out between the two, so that no look-back of one reaches into the other's labels."""
    timeframe: str | None = None
    """Of candles; none takes the one that most symbols have."""
    symbols: tuple[str, ...] = ()
    agents: tuple[str, ...] = ORDER
    steps: int = 20_000
    """Updates of the agent that has most rows."""
    seed: int = 0
    round_minutes: float = 30.0
    """Market time that the engine plays between two rounds of learning."""
    engine: EngineConfig = field(default_factory=lambda: EngineConfig("train", 0, "USDT", (), exploration=1.0, hidden_sizes=(64, 64)))
    capital: Decimal = Decimal(10_000)
    frictions: Frictions = field(default_factory=Frictions)
    sac: SACConfig = field(default_factory=lambda: SACConfig(policy_hiddens=(64, 64), q_hiddens=(64, 64)))
    updates_per_row: float = 4.0
    relabelled: int = 4
    """Rows made in hindsight for each row of the short-term and the risk agent, whose prices are exogenous; 0 makes none."""
    curriculum: bool = False
    """Whether costs begin low and grow with skill."""
    long_term: LongTermConfig = field(default_factory=LongTermConfig)
    costs: VectorCosts = field(default_factory=VectorCosts)
    allow_gaps: bool = False
    trials: Path | None = None
    """The run log that this run is counted in; none counts it nowhere."""
    transitions: Path | None = None
    """Folder for the rows lived through, a file for each agent, as `reinforcement_learning.offline_data` takes them."""

    def __post_init__(self) -> None:
        if self.source not in (CANDLES, "tape", "synthetic"):
            raise ConfigError(f"source {self.source!r}: use candles, tape or synthetic")
        if self.source == "synthetic" and self.data:
            raise ConfigError("the synthetic market takes no data: leave --data out, or choose --source candles or tape")
        if self.source != "synthetic" and not self.data:
            raise ConfigError(f"--source {self.source} needs data: name it with --data")
        if self.source == "tape" and len(self.data) > 1:
            raise ConfigError("one tape at a time: give --data once, a file or a folder")
        if unknown := [agent for agent in self.agents if agent not in ORDER]:
            raise ConfigError(f"no agent named {unknown[0]!r}; they are {', '.join(ORDER)}")
        if not self.agents or self.steps < 1 or not 0 < self.round_minutes <= LONGEST_ROUND or self.relabelled < 0 or self.purge_bars < 0:
            raise ConfigError(
                f"agents, steps and round_minutes must be above 0, round_minutes at most {LONGEST_ROUND:g}, relabelled and purge_bars at least 0"
            )
        if self.source == CANDLES and LONG_TERM not in self.agents:
            raise ConfigError("candles train the long-term agent alone: name it in --agents, or choose --source tape or synthetic")

    @classmethod
    def of(
        cls, engine: EngineConfig, learning: Mapping[str, Any], hidden_sizes: tuple[int, ...], fee_bps: float | None, **asked: Any
    ) -> "TrainConfig":
        """The run of a desk: its limits and rewards, its fee, and `learning` by the names of `reinforcement_learning`; the rest is `asked`.

        The long-term agent on candles keeps its own discount and temperature, which were chosen for candles.
        """
        shared = {name: learning[name] for name in ("learning_rate", "tau", "batch_size")}
        own = {name: learning[name] for name in ("gamma", "alpha", "automatic_entropy_tuning")}
        return cls(
            engine=replace(engine, hidden_sizes=hidden_sizes, exploration=1.0), agents=engine.agents,
            sac=SACConfig(policy_hiddens=hidden_sizes, q_hiddens=hidden_sizes, **shared, **own),
            long_term=LongTermConfig(hidden_sizes=hidden_sizes, reward_scale=engine.rewards.reward_scale, **shared),
            costs=VectorCosts() if fee_bps is None else VectorCosts(fee_bps=fee_bps), **asked,
        )  # fmt: skip

    def asked(self) -> dict[str, Any]:
        """Everything that the result depends on, as plain values: what two runs must share for one to go on with the other."""
        apart = ("folder", "trials", "transitions", "data", "frictions")
        found = {name: value for name, value in asdict(self).items() if name not in apart}
        found |= {"data": [str(path) for path in self.data], "digests": [digest(path) for path in self.data], "frictions": repr(self.frictions)}
        plain: dict[str, Any] = json.loads(json.dumps(found | {"spec": SPEC_HASH, "versions": versions()}, default=str))
        return plain


def train(config: TrainConfig, told: Told | None = None) -> Path:
    """Run to the end, from the start or from where a run with the same settings was cut off; returns the folder.

    Raises ConfigError (settings, another run's folder), DataError (data that cannot be used), Diverged.
    """
    for path in config.data:
        if not path.exists():
            raise ConfigError(f"--data: there is no file or folder {path}")
    if config.trials is not None and config.trials.is_dir():
        raise ConfigError(f"--trials: {config.trials} is a folder; name a file in it, such as {config.trials / 'trials.jsonl'}")
    asked = config.asked()
    goes_on = begin(config.folder, asked)
    run: _CandleRun | _PlayedRun = _CandleRun(config) if config.source == CANDLES else _PlayedRun(config)
    if goes_on:
        run.resume()
    while not run.done:
        figures = run.round()
        if told is not None:
            told(run.updates, config.steps, figures)
    notes = {"asked": asked, "updates": run.updates, "rounds": run.rounds, **run.notes()}
    keep_weights(config.folder, run.payload(), notes)
    _count(config, asked, run)
    if config.transitions is not None:
        run.write_transitions(config.transitions)
    return config.folder


def _count(config: TrainConfig, asked: Mapping[str, Any], run: "_CandleRun | _PlayedRun") -> None:
    """A run is a trial, whether its result is liked or not."""
    if config.trials is not None:
        configuration = {name: value for name, value in asked.items() if name not in ("seed", "versions", "digests")}
        TrialLog(config.trials).append(Trial("train", configuration, config.seed, "validation", run.figures()))


class _CandleRun:
    """The long-term agent on a candle history."""

    def __init__(self, config: TrainConfig) -> None:
        self._folder = config.folder / CHECKPOINT
        whole = load_history(config.data, config.symbols or None, config.start, config.end, config.timeframe, allow_gaps=config.allow_gaps)
        if len(whole.times) < LEAST_BARS:
            raise DataError(f"{len(whole.times)} candles are too few to train on: at least {LEAST_BARS} are needed")
        learned, looked_at = _split(whole, config)
        features = hour_features(whole)
        desk = {"limits": config.engine.limits, "rewards": config.engine.rewards}
        judge = None
        if looked_at is not None:
            judge = Judge(looked_at, config.validate_from, config.costs, desk | {"features": features})
        settings, own = replace(config.long_term, steps=config.steps, curriculum=config.curriculum), desk | {"features": features[: len(learned.times)]}
        self._training = LongTermTraining(settings, learned, config.seed, judge, config.costs, own)
        self._window = [int(learned.times[0]), int(learned.times[-1]) + learned.length]

    @property
    def done(self) -> bool:
        return self._training.done

    @property
    def updates(self) -> int:
        return self._training.updates

    @property
    def rounds(self) -> int:
        return self._training.rounds

    def resume(self) -> None:
        try:
            tensors, meta = checkpoint.load(self._folder)
        except FileNotFoundError:
            return
        self._training.load(tensors, meta)

    def round(self) -> Mapping[str, Any]:
        figures = self._training.round()
        checkpoint.save(self._folder, self._training.tensors(), self._training.meta())
        return figures

    def payload(self) -> bytes:
        return self._training.payload()

    def notes(self) -> dict[str, Any]:
        return {"window": self._window, "agents": [LONG_TERM], **self.figures()}

    def figures(self) -> dict[str, float]:
        return {"validation_advantage": self._training.best_score}

    def write_transitions(self, folder: Path) -> None:
        """A round more under the learned policy, written for the daemon's learner."""
        folder.mkdir(parents=True, exist_ok=True)
        write_transitions(folder / f"{LONG_TERM}.npz", LONG_TERM, SPECS[LONG_TERM].hash, self._training.transitions())


def _split(whole: CandleHistory, config: TrainConfig) -> tuple[CandleHistory, CandleHistory | None]:
    if config.validate_from is None:
        return whole, None
    row = int(np.searchsorted(whole.times, config.validate_from))
    if not config.purge_bars < row < len(whole.times):
        raise DataError("--validate-from leaves nothing to learn from or nothing to look at: move it inside the data")
    return whole.rows(0, row - config.purge_bars), whole


class _PlayedRun:
    """All agents in the engine, a stretch of market a round; what was lived stays in their replay."""

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        length = int(config.round_minutes * 60 * NS)
        self._market: Market
        if config.source == "synthetic":
            self._market = SyntheticRounds(config.symbols or ("BTC/USDT", "ETH/USDT"), length)
        else:
            self._market = TapeRounds(config.data[0], length, config.start, config.end, config.symbols or None, config.allow_gaps)
        self._curriculum = Curriculum() if config.curriculum else Curriculum(CurriculumParams(stages=1))
        self._learner = self._new_learner()
        self._reward = 0.0

    def _new_learner(self) -> Learner:
        config = self._config
        specs = [AgentSpec(agent, STATE_SIZES[agent], ACTION_SIZES[agent], SPECS[agent].hash) for agent in ORDER]
        settings = LearnerConfig(config.sac, 1_000_000, 32, config.updates_per_row, guards=UNBOUND)
        return Learner(specs, settings, config.seed, self._folder, SPEC_HASH, keep_rows=False)

    @property
    def _folder(self) -> Path:
        return self._config.folder / CHECKPOINT

    @property
    def done(self) -> bool:
        return self.updates >= self._config.steps

    @property
    def updates(self) -> int:
        return max(sac.updates for sac in self._learner.agents.values())

    @property
    def rounds(self) -> int:
        """A version is published after each round, so that the count is in the checkpoint."""
        return self._learner.version

    def resume(self) -> None:
        """The rows of all finished rounds come back in their order; those of the round that was cut off are lived again."""
        for number in range(self.rounds):
            rows, notes = kept_rows(self._config.folder, number)
            self._reward = notes["reward"]
            self._curriculum.update(self._reward)
            for agent in self._config.agents:
                if agent in rows:
                    self._learner.restore(agent, *_ordered(rows[agent]))

    def round(self) -> Mapping[str, Any]:
        number = self.rounds
        rows = self._live(number)
        keep_rows(self._config.folder, number, rows, {"reward": self._reward})
        for agent in self._config.agents:
            if agent in rows:
                self._learner.add(agent, *_ordered(rows[agent]))
        infos: Mapping[str, Any] = {}
        before = self.updates
        while not self.done and (step := self._learner.step()) is not None:
            infos = step
        if self.updates == before and not any(agent in rows for agent in self._config.agents):
            raise DataError("a whole round passed without a transition: give longer --round-minutes, more agents or other data")
        self._learner.publish()
        return {"reward": self._reward, "rows": sum(len(own["reward"]) for own in rows.values()), "agents": infos}

    def _live(self, number: int) -> dict[str, dict[str, NDArray[Any]]]:
        config = self._config
        seed = int(np.random.default_rng([config.seed, 3, number]).integers(2**31))
        stretch = self._market.stretch(number, seed)
        fee = ScaledFee(config.frictions.fee, Decimal(repr(self._curriculum.stage.costs)))
        weights = self._learner.payload(newest=True) if number else None
        engine = replace(config.engine, seed=seed)
        rollout = Rollout(engine, stretch, config.capital, replace(config.frictions, fee=fee), weights)
        lived = columns(rollout.play())
        mine = [own["reward"] for agent, own in lived.items() if agent in config.agents]
        self._reward = float(np.mean(np.concatenate(mine))) if mine else 0.0
        self._curriculum.update(self._reward)
        made = relabelled(rollout, lived, config.relabelled, np.random.default_rng([config.seed, 4, number]))
        return {agent: merged([own, *made.get(agent, ())]) for agent, own in lived.items()}

    def payload(self) -> bytes:
        return self._learner.payload()

    def notes(self) -> dict[str, Any]:
        taught = [agent for agent, sac in self._learner.agents.items() if sac.updates]
        return {"agents": taught, "updates_by_agent": {agent: self._learner.agents[agent].updates for agent in taught}, **self.figures()}

    def figures(self) -> dict[str, float]:
        return {"reward": self._reward}

    def write_transitions(self, folder: Path) -> None:
        """All rows of all rounds, those made in hindsight included, a file for each agent."""
        folder.mkdir(parents=True, exist_ok=True)
        rounds = [kept_rows(self._config.folder, number)[0] for number in range(self.rounds)]
        for agent in self._config.agents:
            if parts := [rows[agent] for rows in rounds if agent in rows]:
                write_transitions(folder / f"{agent}.npz", agent, SPECS[agent].hash, merged(parts))


def _ordered(rows: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], ...]:
    """As `ReplayBuffer.add` takes them."""
    return tuple(rows[name] for name in ("state", "action", "reward", "next_state", "done", "elapsed", "time", "version"))
