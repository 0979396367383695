"""The four agents as one object for offline use: act, remember, learn, save, load. Not on the daemon's path, but made of its rooms."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from agents.core.errors import ConfigError, DataError, ModelError, NotFinite, SpecMismatch
from agents.core.instruments import Symbol
from agents.core.ledger import Ledger
from agents.desk.coordinator import make_coordinator
from agents.desk.council import Council
from agents.desk.decision import EngineConfig
from agents.desk.limits import Limits, RiskState
from agents.desk.projection import SafeTarget, project
from agents.desk.wishes import ORDER, StandingWishes, Target, Wish
from agents.learning import checkpoint
from agents.learning.datasets import append
from agents.learning.learner import AgentSpec, Learner, LearnerConfig, found_device
from agents.learning.options import Options
from agents.learning.replay import ReplayBuffer
from agents.learning.sac import SACConfig
from agents.market.observation import ACTION_SIZES, SPEC_HASH, SPECS, STATE_SIZES, Context, Experience, Observation, observe
from agents.market.state import MarketState
from agents.serving import labels
from agents.serving.actors import Actors

Floats = NDArray[np.float32]
Info = dict[str, dict[str, float]]

LARGEST = 10.0
"""Bound on a reward in units of its running return scale."""
CHECKPOINT = "checkpoint"
"""Where in the folder the networks lie; beside it the weights that the daemon takes."""
CURVE = 10_000
"""Learning steps that the learning curves look back."""
SPECS_OF_AGENTS = tuple(AgentSpec(agent, STATE_SIZES[agent], ACTION_SIZES[agent], SPECS[agent].hash) for agent in ORDER)


@dataclass(frozen=True, slots=True)
class Situation:
    """A whole market and account, from which all four agents are shown what they see. Fractions are of equity, since the day began."""

    market: MarketState
    ledger: Ledger
    risk: RiskState = field(default_factory=RiskState)
    limits: Limits = field(default_factory=Limits)
    turnover_day: float = 0.0
    fees_day: float = 0.0


class JointAction(dict[str, Floats]):
    """By agent its raw action: a vector for a vector that was seen, a row for each row of a matrix.

    Where a whole Situation was given, the rest is what the desk's rooms made of it, and `seen` by agent what was seen.
    """

    def __init__(self, actions: Mapping[str, Floats], seen: Mapping[str, Floats]) -> None:
        super().__init__(actions)
        self.seen = dict(seen)
        self.wishes: tuple[Wish, ...] = ()
        self.target: Target | None = None
        self.safe: SafeTarget | None = None
        """The joint decision: weights and quotes inside every limit."""


class MultiAgentTradingSystem:
    """Long-term, short-term, market-making and risk agent, each a soft actor-critic with its own replay, learning side by side.

    A state is a mapping of agent to what it sees (a vector, a matrix with a row for each symbol, or an Observation), a single agent's
    vector or matrix, which is known by its width, or a Situation. `device` "cuda" learns on the processor where torch sees no GPU, and
    `notice` says so. `reward_scale` applies after the running return scale, to rewards that the engine has not scaled already. The
    configuration's section `reinforcement_learning` has the same names. `options` are those of `agents.learning.options`.

    Raises ConfigError for settings out of range.
    """

    def __init__(
        self,
        device: str = "auto",
        learning_rate: float = 3e-4,
        batch_size: int = 256,
        *,
        replay_buffer_size: int = 1_000_000,
        gamma: float = 0.99,
        tau: float = 0.005,
        alpha: float = 0.2,
        automatic_entropy_tuning: bool = True,
        reward_scale: float = 5.0,
        hidden_sizes: Sequence[int] = (256, 256),
        updates_per_row: float = 4.0,
        accumulate: int = 1,
        options: Options | None = None,
        desk: EngineConfig | None = None,
        seed: int = 0,
    ) -> None:
        if device not in ("auto", "cpu", "cuda"):
            raise ConfigError(f"device must be auto, cpu or cuda, not {device!r}")
        self.device = found_device("auto" if device == "cuda" else device)
        self.notice = "torch sees no GPU: learning on the processor" if device == "cuda" != self.device else ""
        hidden = tuple(hidden_sizes)
        sac = SACConfig(
            learning_rate=learning_rate, batch_size=batch_size, gamma=gamma, tau=tau, alpha=alpha,
            automatic_entropy_tuning=automatic_entropy_tuning, policy_hiddens=hidden, q_hiddens=hidden,
        )  # fmt: skip
        self._config = LearnerConfig(
            sac, replay_buffer_size, min(batch_size, 32), updates_per_row, device="cuda" if self.device == "cuda" else "cpu",
            options={} if options is None else dict.fromkeys(ORDER, options), accumulate=accumulate,
        )  # fmt: skip
        if not reward_scale > 0:
            raise ConfigError(f"reward_scale must be above 0, not {reward_scale}")
        self._reward_scale = reward_scale
        self._returns = {agent: _Returns(gamma) for agent in ORDER}
        desk = desk or EngineConfig("offline", 0, "USDT", (), seed=seed)
        self._council, self._coordinator = Council(desk), make_coordinator(desk.coordinator)
        self._seed, self._steps = seed, 0
        self._curve: deque[tuple[int, Info]] = deque(maxlen=CURVE)
        self.learner = self._learner(None)
        self._actors: Actors | None = None

    def _learner(self, directory: Path | None) -> Learner:
        return Learner(SPECS_OF_AGENTS, self._config, self._seed, directory, SPEC_HASH, keep_rows=False)

    # -- act -------------------------------------------------------------------------------------------------------

    async def get_action(self, state: Any, explore: float = 0.0) -> JointAction:
        """What the agents do in `state`: mean actions, or with noise of `explore` times each policy's own spread.

        Awaits nothing; it is a coroutine because its users know it as one. Raises SpecMismatch for a state of the wrong width, NotFinite.
        """
        if isinstance(state, Situation):
            return self._decide(state, explore)
        seen = _by_agent(state)
        return JointAction({agent: self._act(agent, values, explore) for agent, values in seen.items()}, seen)

    @property
    def actors(self) -> Actors:
        """What acts, as the daemon's engine would serve it."""
        if self._actors is None:
            self._actors = Actors.from_payload(self.payload(), SPEC_HASH)
        return self._actors

    def _act(self, agent: str, seen: Floats, explore: float) -> Floats:
        rows = np.atleast_2d(seen)
        acted = self.actors.sample(agent, rows, self.learner.rng, explore) if explore > 0 else self.actors.act(agent, rows)
        return acted.reshape(*seen.shape[:-1], -1)

    def _decide(self, given: Situation, explore: float) -> JointAction:
        """As the engine: each agent sees the wishes of those before it, then coordinator and projection. Touches nothing of `given`."""
        symbols, equity = _valued(given)
        standing, risk = StandingWishes(), deepcopy(given.risk)
        risk.mark(equity, float(given.ledger.capital), given.limits)
        decision, wishes = JointAction({}, {}), list[Wish]()
        for agent in ORDER:
            seen = _see(agent, given, symbols, equity, standing)
            decision[agent], decision.seen[agent] = self._act(agent, seen.matrix, explore), seen.matrix
            wished = self._council.wish(agent, seen, decision[agent], {})
            standing.post(wished)
            wishes += wished
        decision.wishes = tuple(wishes)
        decision.target = self._coordinator.coordinate(standing, symbols, given.market.now, {})
        decision.safe = project(decision.target, given.market, given.ledger, given.limits, risk)
        return decision

    # -- remember and learn ----------------------------------------------------------------------------------------

    def update(self, state: Any, action: Mapping[str, ArrayLike], reward: Any, next_state: Any, done: bool = False) -> Info:
        """Remember one joint transition, then take one learning step where there are rows enough; returns its figures by agent.

        Of a Situation, which has moved on by now, what the action was decided on counts. Raises as `add_experience`.
        """
        seen = action.seen if isinstance(action, JointAction) and isinstance(state, Situation) else state
        following = self._watch(next_state) if isinstance(next_state, Situation) else next_state
        self.add_experience(Experience(seen, dict(action), reward, following, done))  # type: ignore[arg-type]
        return self.train_step()

    def _watch(self, given: Situation) -> dict[str, Floats]:
        symbols, equity = _valued(given)
        return {agent: _see(agent, given, symbols, equity, StandingWishes()).matrix for agent in ORDER}

    def add_experience(self, experience: Experience) -> int:
        """Remember a transition: one agent's, as the engine makes them and with rewards as they are, or one of all agents together.

        Of the second the reward is one number for all, or by agent a number or one for each row; it is divided by the running scale of
        the agent's returns and multiplied by `reward_scale`. Returns the number of rows. Raises SpecMismatch for an unknown agent or
        a wrong shape, NotFinite; then nothing was remembered.
        """
        self._steps += 1
        one = experience
        if one.agent:
            quarantined = float(one.quarantined)
            return self.learner.add(
                one.agent, one.state, one.action, one.reward, one.next_state, one.done, one.elapsed, one.time, one.version, quarantined
            )
        rows = list(self._joint(one))
        return sum(self.learner.add(agent, *columns) for agent, columns in rows)

    def _joint(self, one: Experience) -> Iterable[tuple[str, tuple[Any, ...]]]:
        """Rows by agent of a joint transition, all checked before the first is kept."""
        states, following = _by_agent(one.state), _by_agent(one.next_state)
        actions: Mapping[str, Any] = one.action if isinstance(one.action, Mapping) else dict.fromkeys(states, one.action)
        found = []
        for agent, state in states.items():
            if agent not in following or agent not in actions:
                raise SpecMismatch(f"the transition shows {agent} a state but no {'next state' if agent in actions else 'action'}")
            count = len(np.atleast_2d(state))
            columns = [np.atleast_2d(np.asarray(part, np.float32)) for part in (state, actions[agent], following[agent])]
            shapes = (count, STATE_SIZES[agent]), (count, ACTION_SIZES[agent]), (count, STATE_SIZES[agent])
            for name, part, shape in zip(("state", "action", "next state"), columns, shapes, strict=True):
                if part.shape != shape:
                    raise SpecMismatch(f"the {name} of {agent} has shape {part.shape}, expected {shape}")
                if not np.isfinite(part).all():
                    raise NotFinite(f"the {name} of {agent} holds a NaN or an infinity")
            given = one.reward.get(agent, 0.0) if isinstance(one.reward, Mapping) else one.reward
            raw = np.broadcast_to(np.asarray(given, np.float64), (count,))
            if not np.isfinite(raw).all():
                raise NotFinite(f"the reward of {agent} is not finite")
            found.append((agent, columns, raw))
        for agent, (state, action, after), raw in found:
            reward = self._scaled(agent, raw, one.elapsed)
            done = np.full(len(raw), float(one.done))
            yield agent, (state, action, reward, after, done, one.elapsed, one.time or self._steps, one.version, float(one.quarantined))

    def _scaled(self, agent: str, rewards: NDArray[np.float64], elapsed: float) -> Floats:
        returns = self._returns[agent]
        for row, reward in enumerate(rewards.tolist()):
            returns.take(row, reward, elapsed)
        return np.asarray(self._reward_scale * np.clip(rewards / returns.size, -LARGEST, LARGEST), np.float32)

    def train_step(self) -> Info:
        """One update of every agent that has rows enough, and at most `updates_per_row` for each; figures by agent, or none.

        Raises Diverged when a loss is not finite; `load_all_agents` is the way back.
        """
        infos = self.learner.step() or {}
        if infos:
            self._actors = None
            self._curve.append((self.learner.updates, infos))
        return infos

    def train_offline(self, dataset: Any, epochs: int = 100) -> list[Info]:
        """Learn from transitions that are there already; figures by agent of each epoch's last update.

        `dataset` is a sequence of Experience, or by agent the columns that `agents.learning.datasets` names (an .npz file's, say).
        An epoch is as many batches as the rows fill, for each agent. Raises DataError for a data set that holds nothing or cannot be used.
        """
        if epochs < 1:
            raise ConfigError(f"epochs must be at least 1, not {epochs}")
        counts = self._take(dataset)
        steps = -(-max(counts.values()) // self._config.sac.batch_size)
        curve: list[Info] = []
        for _ in range(epochs):
            for agent in counts:
                self.learner.allow(agent, steps)
            infos: Info = {}
            for _ in range(steps):
                infos = self.train_step() or infos
            curve.append(infos)
        return curve

    def _take(self, dataset: Any) -> dict[str, int]:
        """Remember a whole data set; how many rows by agent."""
        before = {agent: ring.committed for agent, ring in self.learner.rings.items()}
        if isinstance(dataset, Mapping):
            for agent, columns in dataset.items():
                if agent not in STATE_SIZES:
                    raise DataError(f"the data set has rows for {agent!r}; the agents are {', '.join(ORDER)}")
                rows = ReplayBuffer(STATE_SIZES[agent], ACTION_SIZES[agent], max(len(np.asarray(columns.get("reward", [0]))), 1))
                append(columns, rows, f"the data set of {agent}")
                self.learner.add(agent, *rows.latest(rows.committed))
        else:
            for experience in dataset:
                self.add_experience(experience)
        counts = {agent: ring.committed - before[agent] for agent, ring in self.learner.rings.items()}
        found = {agent: count for agent, count in counts.items() if count}
        if not found:
            raise DataError("the data set holds no transitions")
        return found

    # -- watch -----------------------------------------------------------------------------------------------------

    def monitoring(self, last: int = 100) -> dict[str, dict[str, float]]:
        """By agent the mean of each figure over the `last` learning steps (reward, entropy, q_mean, action_mean, action_deviation,
        action_saturation, losses, gradients), the rows remembered, the updates taken and the reward's trend: newer half less older."""
        recent = [infos for _, infos in list(self._curve)[-last:]]
        result: dict[str, dict[str, float]] = {}
        for agent, ring in self.learner.rings.items():
            mine = [infos[agent] for infos in recent if agent in infos]
            found = {name: float(np.mean([info[name] for info in mine if name in info])) for name in (mine[-1] if mine else ())}
            if len(mine) > 1:
                rewards = [info["reward"] for info in mine]
                half = len(rewards) // 2
                found["reward_trend"] = float(np.mean(rewards[half:]) - np.mean(rewards[:half]))
            result[agent] = found | {"rows": float(ring.usable), "updates": float(self.learner.agents[agent].updates)}
        return result

    def learning_curves(self) -> dict[str, dict[str, list[tuple[int, float]]]]:
        """By agent and figure the points (updates of all agents, value), oldest first."""
        curves: dict[str, dict[str, list[tuple[int, float]]]] = {agent: {} for agent in ORDER}
        for updates, infos in self._curve:
            for agent, info in infos.items():
                for name, value in info.items():
                    curves[agent].setdefault(name, []).append((updates, value))
        return curves

    # -- keep ------------------------------------------------------------------------------------------------------

    def payload(self) -> bytes:
        """The acting policies as the bytes of a NewWeights event, for observations as the engine makes them."""
        return self.learner.payload(newest=True)

    def save_all_agents(self, directory: str | Path) -> None:
        """Networks, optimisers, scales and random stream as a checkpoint, and beside it the weights that the daemon takes; atomically.

        What is remembered is not saved. Raises OSError; what was saved there before then stands.
        """
        folder, learner = Path(directory), self.learner
        learner.version += 1
        learner.directory = folder / CHECKPOINT
        try:
            learner.save()
        finally:
            learner.directory = None
        payload = self.payload()
        self._actors = None
        checkpoint.write(folder / labels.LABEL, labels.label(payload, SPEC_HASH, {"made_by": "MultiAgentTradingSystem"}))
        checkpoint.write(folder / labels.WEIGHTS, payload)

    def load_all_agents(self, directory: str | Path) -> None:
        """Go on from what was saved; what was remembered here is forgotten, because its scales are.

        Raises ModelError where nothing sound is saved, SpecMismatch where it is for other sizes or columns; these agents then stay.
        """
        folder = Path(directory)
        try:
            checkpoint.load(folder / CHECKPOINT)
        except FileNotFoundError:
            raise ModelError(f"{folder} holds no saved agents: name the folder that save_all_agents was given") from None
        learner = self._learner(folder / CHECKPOINT)
        learner.directory = None
        self.learner, self._actors = learner, None
        self._curve.clear()


class _Returns:
    """Root mean square of an agent's discounted returns, of whatever unit its user counts rewards in. Engstrom et al. 2020."""

    MEMORY = 10_000.0

    def __init__(self, gamma: float) -> None:
        self._gamma, self._returns, self._square, self._count = gamma, dict[int, float](), 0.0, 0.0

    @property
    def size(self) -> float:
        return float(np.sqrt(self._square)) or 1.0

    def take(self, row: int, reward: float, elapsed: float) -> None:
        self._returns[row] = self._gamma**elapsed * self._returns.get(row, 0.0) + reward
        self._count = min(self._count + 1.0, self.MEMORY)
        self._square += (self._returns[row] ** 2 - self._square) / self._count


def _by_agent(state: Any) -> dict[str, Floats]:
    """By agent a float32 vector or matrix of the agent's width, finite. Raises SpecMismatch, NotFinite."""
    given = {state.agent: state} if isinstance(state, Observation) else state
    if not isinstance(given, Mapping):
        width = np.shape(given)[-1] if np.ndim(given) in (1, 2) else 0
        given = {agent: given for agent, size in STATE_SIZES.items() if size == width}
        if not given:
            raise SpecMismatch(f"a state of shape {np.shape(state)} is no agent's; widths are {STATE_SIZES}")
    found = {}
    for agent, seen in given.items():
        if agent not in STATE_SIZES:
            raise SpecMismatch(f"there is no agent {agent!r}; the agents are {', '.join(ORDER)}")
        values = np.ascontiguousarray(seen.matrix if isinstance(seen, Observation) else seen, np.float32)
        if values.ndim not in (1, 2) or values.shape[-1] != STATE_SIZES[agent]:
            raise SpecMismatch(f"the state of {agent} has shape {values.shape}, expected ({STATE_SIZES[agent]},) or rows of it")
        if not np.isfinite(values).all():
            raise NotFinite(f"the state of {agent} holds a NaN or an infinity")
        found[agent] = values
    return found


def _valued(given: Situation) -> tuple[tuple[Symbol, ...], float]:
    """The symbols that can be decided on, and the marked equity. Raises DataError where there is nothing to decide on."""
    market, ledger = given.market, given.ledger
    symbols = tuple(s for s in market.symbols if s in ledger.instruments and market.mark(s) is not None)
    marks = {symbol: mark for symbol in market.symbols if (mark := market.mark(symbol)) is not None}
    try:
        equity = float(ledger.equity(marks))
    except KeyError as missing:
        raise DataError(f"the position in {missing} has no mark") from None
    if not symbols or equity <= 0:
        raise DataError("no symbol has both a listing and a price" if not symbols else f"equity is {equity:g}: nothing can be decided")
    return symbols, equity


def _see(agent: str, given: Situation, symbols: Sequence[Symbol], equity: float, standing: StandingWishes) -> Observation:
    context = Context(
        equity=equity, peak_equity=max(given.risk.peak_equity, equity), wishes=standing.numbers(given.market.now),
        turnover_day=given.turnover_day, fees_paid_day=given.fees_day,
    )  # fmt: skip
    return observe(agent, given.market, given.ledger, symbols, context)
