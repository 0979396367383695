"""The four agents at one table: what each does with its observation, by the weights that serve and the prior they were built around."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from agents.core.instruments import NS, Symbol
from agents.desk.decision import EngineConfig
from agents.desk.long_term import LongTerm, LongTermParams
from agents.desk.market_making import MarketMaking, MarketMakingParams
from agents.desk.risk import Risk, RiskParams
from agents.desk.short_term import ShortTerm, ShortTermParams
from agents.desk.wishes import LONG_TERM, MARKET_MAKING, ORDER, RISK, SHORT_TERM, Wish
from agents.market.observation import Observation
from agents.serving.actors import Actors


class Council:
    """From observations to actions to wishes. Its only state is the noise of exploration."""

    def __init__(self, config: EngineConfig) -> None:
        plain = ORDER if config.prior == "none" else config.without_prior
        self._speakers: dict[str, LongTerm | ShortTerm | Risk] = {
            LONG_TERM: LongTerm(LongTermParams(prior="none") if LONG_TERM in plain else LongTermParams()),
            SHORT_TERM: ShortTerm(ShortTermParams(prior="none") if SHORT_TERM in plain else ShortTermParams()),
            RISK: Risk(RiskParams(prior="none") if RISK in plain else RiskParams()),
        }
        cadence = int(config.market_making_cadence_s * NS)
        self._market_maker = MarketMaking(MarketMakingParams(prior="none" if MARKET_MAKING in plain else "glft", cadence_ns=cadence))
        self._noise = np.random.default_rng(config.seed)
        self._exploration = config.exploration

    def act(self, agent: str, actors: Actors, matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Raw actions in [-1, 1], one row per row of `matrix`; around the mean action where exploration is on."""
        if self._exploration > 0:
            return actors.sample(agent, matrix, self._noise, self._exploration)
        return actors.act(agent, matrix)

    def wish(self, agent: str, seen: Observation, actions: npt.NDArray[np.float32], inventory: Mapping[Symbol, float]) -> list[Wish]:
        """What the actions mean. `inventory` is the market maker's own, in fractions of equity."""
        if agent == MARKET_MAKING:
            return list(self._market_maker.propose(seen, actions, inventory))
        return list(self._speakers[agent].propose(seen, actions))
