"""Episodes in one agent's chair: its observations, its raw actions and its own rewards; the other three act beside it."""

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents.core.errors import DataError
from agents.desk.decision import EngineConfig
from agents.desk.limits import FLATTEN
from agents.desk.rewards import RewardParams
from agents.desk.wishes import RISK
from agents.environment.desk import Guests
from agents.environment.episode import Moment
from agents.environment.sources import Candles, Source
from agents.environment.stage import Stage
from agents.market.frictions import Frictions
from agents.market.observation import ACTION_SIZES, SPEC_HASH, STATE_SIZES
from agents.serving.actors import Actors

Singles = NDArray[np.float32]


class Seat:
    """One agent's episodes over one source. A row a symbol (one for risk): the policy is shared over symbols."""

    past = 0

    def __init__(
        self, agent: str, source: Source, config: EngineConfig, capital: Decimal, frictions: Frictions, warmup: int,
        params: RewardParams, weights: bytes | None,
    ) -> None:  # fmt: skip
        self.agent, self.source, self.config = agent, source, config
        self._arguments = (agent, source, config, capital, frictions, warmup, params, weights)
        self._capital, self._frictions, self._warmup, self._params = capital, frictions, warmup, params
        self._actors = None if weights is None else Actors.from_payload(weights, SPEC_HASH)
        rows = () if agent == RISK else (len(source.symbols),)
        self.shape, self.action_shape = (*rows, STATE_SIZES[agent]), (*rows, ACTION_SIZES[agent])

    def fresh(self) -> "Seat":
        """Another account on the same source."""
        return Seat(*self._arguments)

    def reset(self, seed: int, row: int) -> Moment:
        """Open the account and play to the agent's first question. Raises DataError where there is none."""
        self.desk, self.stage = seated(
            (self.agent,), self.source, replace(self.config, seed=seed), self._capital, self._frictions, (row, self._warmup), self._params
        )
        if self._actors is not None:
            self.desk.actors = self._actors
        self._run: Iterator[None] = self.stage.run()
        if not self._go_on():
            raise DataError(f"the data ends before {self.agent} could speak: load more")
        self._last = self._seen()
        return Moment(self._last, self._info(0.0))

    def _go_on(self) -> bool:
        for _ in self._run:
            return True
        return False

    def _seen(self) -> Singles:
        """What the agent sees now, a row for every symbol of the source: zeros where one has no price yet."""
        seen = self.desk.seen
        if seen is None or not self.source.symbols:
            return self._last
        if self.agent == RISK:
            return np.array(seen.matrix[0])
        return spread(seen.matrix, seen.symbols, self.source.symbols)

    def step(self, action: Singles) -> Moment:
        """One action of the agent; the reward is the sum over the rows that came of it."""
        desk, before = self.desk, self._equity
        seen = desk.seen
        rows = action[None] if self.agent == RISK or seen is None else gathered(action, seen.symbols, self.source.symbols)
        self.stage.fills.clear()
        self.stage.answered(desk.answer(rows))
        going = self._go_on()
        judged, desk.judged[self.agent] = desk.judged[self.agent], []
        if going:
            self._last = self._seen()
        reward = float(sum(row.reward for row in judged if not row.quarantined))
        return Moment(self._last, self._info(before), reward, desk.risk.rung == FLATTEN, not going or self._at_end, judged)

    @property
    def _at_end(self) -> bool:
        """Whether this is the last candle: what is done now could not be judged any more."""
        return isinstance(self.source, Candles) and self.desk.market.now >= int(self.source.history.closings[-1])

    @property
    def _equity(self) -> float:
        return self.desk.equity() or 0.0

    def _info(self, before: float) -> dict[str, Any]:
        return account(self.desk, self.stage, self.source, before)


def seated(
    guests: tuple[str, ...], source: Source, config: EngineConfig, capital: Decimal, frictions: Frictions, place: tuple[int, int],
    params: RewardParams,
) -> tuple[Guests, Stage]:  # fmt: skip
    """A desk with guests on its stage; `place` is (row at whose close it opens, rows of warm-up)."""
    timeframe = source.timeframe if isinstance(source, Candles) else None
    desk = Guests(config, guests, params, timeframe)
    facts, opens_at = source.facts(config.seed, *place)
    return desk, Stage(desk, source.instruments, capital, frictions, facts, opens_at)


def spread(matrix: Singles, seen: tuple[Any, ...], symbols: tuple[Any, ...]) -> Singles:
    """Rows of `seen` symbols as rows of all `symbols`, zeros for the others."""
    if seen == symbols:
        return matrix.copy()
    result = np.zeros((len(symbols), matrix.shape[1]), np.float32)
    result[[symbols.index(symbol) for symbol in seen]] = matrix
    return result


def gathered(actions: Singles, seen: tuple[Any, ...], symbols: tuple[Any, ...]) -> Singles:
    """Rows of all `symbols` cut to those that were `seen`."""
    return actions if seen == symbols else actions[[symbols.index(symbol) for symbol in seen]]


def account(desk: Guests, stage: Stage, source: Source, before: float) -> dict[str, Any]:
    """The info of one step: money in quote, the share turned over, what bound, what filled."""
    equity, quote = desk.equity() or 0.0, desk.config.quote
    marks = np.array([float(desk.market.mark(s) or 0) for s in source.symbols])
    held = np.array([float(desk.ledger.position(s)) for s in source.symbols])
    fees = sum(float(fill.fee) * (1.0 if fill.fee_currency == quote else float(fill.price)) for fill in stage.fills)
    notional = sum(float(fill.price * fill.quantity) for fill in stage.fills)
    decision = stage.decision
    return {
        "equity": equity,
        "costs": fees,
        "turnover": notional / before if before > 0 else 0.0,
        "bound": tuple((b.name, b.symbol) for b in decision.bound) if decision is not None else (),
        "fills": list(stage.fills),
        "profit": equity - before if before > 0 else 0.0,
        "time": desk.market.now,
        "weights": held * marks / equity if equity > 0 else np.zeros(len(held)),
        "marks": marks,
    }
