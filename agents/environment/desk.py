"""The engine, with a chair for those who speak from outside: it pauses where such an agent would act and goes on with its answer.

All rooms are the engine's own; between looking and speaking a sitting is merely held open. `Guests` sit in the chairs of the four
agents and act on what those see; a `Portfolio` speaks for all four at once, in weights.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import NotFinite
from agents.core.events import Stamp
from agents.core.instruments import NS, TIMEFRAMES
from agents.desk.decision import NOTHING, Effects, EngineConfig, Sitting
from agents.desk.rewards import CADENCES_NS, RewardBook, RewardParams
from agents.desk.wishes import LONG_TERM, MARKET_MAKING, SHORT_TERM, LongTermWish, RiskWish, ShortTermWish, Style
from agents.engine import Engine
from agents.market.observation import Experience, Observation

FOREVER = 1 << 62
"""A wish from outside stands until the next one."""
NO_ACTION: NDArray[np.float32] = np.zeros(0, np.float32)


class OpenDesk(Engine):
    """An engine that stops at `asked`, one of its `guests`; `None` while it asks nobody. `timeframe` is that of a market of candles."""

    def __init__(self, config: EngineConfig, guests: Iterable[str], timeframe: str | None = None) -> None:
        super().__init__(config)
        self.guests = frozenset(guests)
        self._timeframe, self._candle = timeframe, 0
        self.asked: str | None = None
        self._sitting: Sitting | None = None
        self._rest: Iterator[str] = iter(())

    def _think(self, stamp: Stamp, due: tuple[str, ...], swapped: bool) -> Effects:
        """On candles nobody is asked before all of one time are in, however often a cadence has passed in between."""
        if self._timeframe is not None and due:
            if (candle := self.market.closed(self._timeframe)) <= self._candle:
                return Effects(swapped=swapped)
            self._candle = candle
        self._sitting, self._rest = self._convene(stamp, due, swapped), iter(due)
        return Effects(swapped=swapped) if self._sitting is None else self._go_on(self._sitting)

    def _go_on(self, sitting: Sitting) -> Effects:
        """Let the due agents speak until a guest is asked; the decision once all have spoken."""
        for agent in self._rest:
            if agent not in self.guests:
                self._hear(agent, sitting)
            elif self._ask(agent, sitting):
                self.asked = agent
                return NOTHING
        self._sitting = None
        return self._conclude(sitting)

    def _ask(self, agent: str, sitting: Sitting) -> bool:
        """Whether the guest can be asked now."""
        return True

    @property
    def sitting(self) -> Sitting:
        """The sitting that is held open. Raises RuntimeError while nobody is asked."""
        if self._sitting is None:
            raise RuntimeError("nobody is asked")
        return self._sitting


class Guests(OpenDesk):
    """Some of the four agents act from outside; the others by the weights that serve, or by their priors."""

    def __init__(self, config: EngineConfig, guests: Iterable[str], params: RewardParams, timeframe: str | None = None) -> None:
        super().__init__(config, guests, timeframe)
        length = TIMEFRAMES.get(timeframe or "", 0)
        cadences = {**CADENCES_NS, MARKET_MAKING: int(config.market_making_cadence_s * NS)}
        # A bar longer than an agent's own cadence is the cadence at which it can speak at all.
        self.rewards = RewardBook(params, {agent: max(cadence, length) for agent, cadence in cadences.items()})
        self.seen: Observation | None = None
        self.judged: dict[str, list[Experience]] = {agent: [] for agent in self.guests}
        """What came of each guest's last action, since somebody took it from here."""

    def _ask(self, agent: str, sitting: Sitting) -> bool:
        try:
            self.seen = self._look(agent, sitting)
        except NotFinite:
            self._count(f"observation_not_finite_{agent}")
            return False
        self.judged[agent] += self.rewards.on_decision(
            agent, self.seen, NO_ACTION, (), ledger=self.ledger, attribution=self.attribution, symbols=sitting.symbols,
            marks=sitting.marks, equity=sitting.equity, drawdown=self.risk.drawdown, version=self.weights_version, faults=sitting.faults,
        )  # fmt: skip
        return True

    def glance(self, agent: str) -> Observation:
        """What any agent sees at this point of the open sitting. Raises NotFinite."""
        return self._look(agent, self.sitting)

    def answer(self, actions: NDArray[np.float32]) -> Effects:
        """The asked guest's actions, float32 [rows, actions]; what follows, which may be the next question."""
        sitting, agent, seen = self.sitting, self.asked, self.seen
        if agent is None or seen is None:
            raise RuntimeError("nobody is asked")
        wanted = self._council.wish(agent, seen, actions, sitting.inventory)
        self.standing.post(wanted)
        for wish in wanted:
            if isinstance(wish, LongTermWish):
                self.stops.wish(wish)
        self.rewards.decide(agent, actions, wanted)
        sitting.observations[agent] = seen
        sitting.wishes += wanted
        self.asked = self.seen = None
        return self._go_on(sitting)


class Portfolio(OpenDesk):
    """Weights from outside in the place of the four agents: a long-term wish for each symbol, worked in one `style`, unscaled."""

    def __init__(self, config: EngineConfig, style: Style, timeframe: str | None = None) -> None:
        super().__init__(config, config.agents, timeframe)
        self.style = style
        self.standing.post([RiskWish(0, FOREVER, (), 1.0, 1.0)])

    def answer(self, weights: dict[str, float]) -> Effects:
        """Wished weights by symbol, signed fractions of equity, finite; a symbol without one is wished away."""
        sitting, now = self.sitting, self.market.now
        for symbol in sitting.symbols:
            weight = float(weights.get(symbol, 0.0))
            style = self.style
            wishes = (
                LongTermWish(symbol, now, FOREVER, (), weight, weight, 1.0, (0.0, 0.0, 1.0), 0.0),
                ShortTermWish(symbol, now, FOREVER, (), 0.0, 0.0, style.urgency, style.offset, style.participation, 1.0),
            )
            self.standing.post(wishes)
            sitting.wishes += wishes
        self.asked = None
        return self._go_on(sitting)


def speaker(step_ns: int) -> str:
    """In whose chair a portfolio sits: the agent whose cadence its steps keep."""
    return LONG_TERM if step_ns >= TIMEFRAMES["1h"] else SHORT_TERM
