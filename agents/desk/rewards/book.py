"""What each decision was worth, from the sub-accounts between two decisions of the same agent. Never reads a clock or a market.

Rewards are fractions of equity over `sigma_target sqrt(dt)`, so that an hour and five seconds speak the same language; then divided
by their running return scale and multiplied by `reward_scale`.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from agents.core.instruments import NS, Symbol
from agents.core.ledger import Ledger
from agents.desk.attribution import Attribution
from agents.desk.rewards.functions import Array, RewardFunctions
from agents.desk.rewards.params import CADENCES_NS, SECONDS_PER_YEAR, STANDARD, RewardParams
from agents.desk.rewards.scale import Covariance, RunningScale
from agents.desk.rewards.tightening import TighteningReward
from agents.desk.rewards.weighted import Outcome, WeightedReward
from agents.desk.wishes import (
    MARKET_MAKING,
    ORDER,
    PORTFOLIO,
    RISK,
    LongTermWish,
    MarketMakingWish,
    RiskWish,
    ShortTermWish,
    Wish,
)
from agents.market.observation import Experience, Observation

NO_FAULTS: frozenset[Symbol] = frozenset()


@dataclass(frozen=True, slots=True)
class _Row:
    """A decision that waits for its consequence: what was seen and done, and the accounts as they stood. Arrays are [symbols]."""

    observation: Observation
    actions: NDArray[np.float32]
    version: int
    wished: Array
    accounts: "_Accounts"
    followed: Array
    """Base quantity that the market maker traded in the interval before: its fills are marked until the end of this one."""
    views: Array
    """What each wish says of the next return, as signed confidence in [-1, 1]."""
    drawdown: float


@dataclass(frozen=True, slots=True)
class _Accounts:
    """One agent's sub-account and the whole book at one time, as floats by symbol."""

    symbols: tuple[Symbol, ...]
    marks: Array
    quantity: Array
    cash: Array
    costs: Array
    """Fees of any currency and slippage, so far, in quote."""
    position: Array
    equity: float


class RewardBook:
    """Turns consecutive decisions into Experience rows. One per engine; state is a function of the calls alone."""

    def __init__(self, params: RewardParams = STANDARD, cadences_ns: Mapping[str, int] = CADENCES_NS) -> None:
        self.functions = RewardFunctions(params)
        self.params = params
        self.terms = {agent: WeightedReward(params, params.terms.of(agent)) for agent in ORDER if agent != RISK}
        self.tightening = TighteningReward(params, params.terms.of(RISK))
        self.scales = {agent: RunningScale(params.gamma) for agent in ORDER}
        self._cadences = dict(cadences_ns)
        self._rows: dict[str, _Row] = {}
        self._faults: dict[str, set[Symbol]] = {}
        """By agent the symbols that saw a fault since its last decision; PORTFOLIO stands for all of them."""
        self._covariances: dict[tuple[str, tuple[Symbol, ...]], Covariance] = {}
        self.dropped = 0
        """Decisions whose consequence could not be judged: too long ago, no mark, nothing finite."""

    def on_decision(
        self,
        agent: str,
        observation: Observation,
        actions: NDArray[np.float32],
        wishes: Sequence[Wish],
        *,
        ledger: Ledger,
        attribution: Attribution,
        symbols: Sequence[Symbol],
        marks: Mapping[Symbol, Decimal],
        equity: Decimal,
        drawdown: float = 0.0,
        version: int = 0,
        faults: Set[Symbol] = NO_FAULTS,
    ) -> list[Experience]:
        """Judge the agent's previous decision, remember this one.

        `wishes` are this decision's, in row order; `symbols` are those traded (the risk agent's portfolio). A symbol without a mark
        gets no row, nor does one that is no longer observed. `faults` are the symbols in trouble now, PORTFOLIO for the account: a row
        that saw one at either of its decisions or in between is quarantined, and the portfolio's row by a fault of any symbol. Returns one Experience per symbol of the previous decision (one with symbol None for risk); empty the first time.
        """
        rows = tuple(symbols) if agent == RISK else observation.symbols
        accounts = _accounts(agent, rows, ledger, attribution, marks, float(equity))
        previous, seen = self._rows.pop(agent, None), self._faults.pop(agent, set()) | faults
        results: list[Experience] = []
        followed = np.zeros(len(rows))
        if previous is not None:
            held = previous.accounts.symbols
            after = accounts if held == rows else _accounts(agent, held, ledger, attribution, marks, float(equity))
            elapsed = (observation.time - previous.observation.time) / self._cadences[agent]
            if self._judgeable(agent, previous, observation.time):
                results = self._complete(agent, previous, observation, after, elapsed, drawdown, seen)
                traded = dict(zip(held, (after.quantity - previous.accounts.quantity).tolist(), strict=True))
                followed = np.array([traded.get(symbol, 0.0) for symbol in rows])
            else:
                self.dropped += 1
        self._faults[agent] = set(faults)
        nothing = np.zeros(0)
        self._rows[agent] = _Row(observation, np.zeros(0, np.float32), version, nothing, accounts, followed, nothing, drawdown)
        self.decide(agent, actions, wishes)
        return results

    def decide(self, agent: str, actions: NDArray[np.float32], wishes: Sequence[Wish]) -> None:
        """What the agent did at its latest decision, in place of what was remembered: whoever acts from outside is told the reward
        of its last action before it takes the next. Raises KeyError for an agent without a decision."""
        wished = np.array([_wished(wish) for wish in wishes], dtype=np.float64)
        views = np.array([_view(wish) for wish in wishes], dtype=np.float64)
        self._rows[agent] = replace(self._rows[agent], actions=np.array(actions, dtype=np.float32), wished=wished, views=views)

    def moments(
        self, agent: str, now: int, *, ledger: Ledger, attribution: Attribution, marks: Mapping[Symbol, Decimal], equity: Decimal,
        faults: Set[Symbol] = NO_FAULTS,
    ) -> tuple[float, float]:  # fmt: skip
        """The two moments that belong into what the agent sees at market time `now`, before it decides; zeros where no term of its
        own needs them. They are those that its next decision will be judged with."""
        judge = self.terms.get(agent)
        if judge is None or not judge.has_moments:
            return 0.0, 0.0
        row = self._rows.get(agent)
        mean, square = judge.moments()
        if row is not None and not (self._faults.get(agent, set()) | faults) and self._judgeable(agent, row, now):
            after = _accounts(agent, row.accounts.symbols, ledger, attribution, marks, float(equity))
            mean, square = judge.ahead(_profit(row, after) / row.accounts.equity, _years(row, now))
        return float(mean), float(square)

    def _judgeable(self, agent: str, row: _Row, now: int) -> bool:
        elapsed = (now - row.observation.time) / self._cadences[agent]
        return 0.0 < elapsed <= self.params.elapsed_cap and row.accounts.equity > 0.0

    def forget(self) -> None:
        """Drop all unjudged decisions: what follows (a halt, a flatten, a gap) is not their consequence."""
        self._rows.clear()
        self._faults.clear()

    def fault(self, symbol: Symbol = PORTFOLIO) -> None:
        """What waits for its consequence saw a fault of `symbol` (a gap in its feed, an order that the venue would not take) or,
        without one, of the whole account (it disagrees with the venue)."""
        for agent in self._rows:
            self._faults[agent].add(symbol)

    def _complete(
        self, agent: str, row: _Row, observation: Observation, after: _Accounts, elapsed: float, drawdown: float, faults: Set[Symbol]
    ) -> list[Experience]:
        before = row.accounts
        years = _years(row, observation.time)
        known = np.isfinite(before.marks) & np.isfinite(after.marks)
        returns = np.where(known, after.marks / before.marks - 1.0, 0.0)
        covariance = self._covariances.setdefault((agent, before.symbols), Covariance(len(before.symbols)))
        book = np.where(known, 0.5 * (before.position * before.marks + after.position * after.marks), 0.0) / before.equity
        usable = known
        if agent == RISK:
            value = self.tightening.judge(float(row.wished[0]), book, returns, covariance.matrix, drawdown, years)
            rewards, usable = np.array([value]), np.ones(1, dtype=bool)
        else:
            profit = _filled(row, after) if agent == MARKET_MAKING else _profit(row, after)
            weights = 0.5 * (before.quantity * before.marks + after.quantity * after.marks) / before.equity
            outcome = Outcome(
                profit / before.equity, weights, returns, covariance.matrix, years, book, (after.costs - before.costs) / before.equity,
                row.drawdown, row.views,
            )  # fmt: skip
            rewards = self.terms[agent].judge(outcome, remember=not faults)
            rewards = rewards - self.functions.alias(after.quantity * after.marks / before.equity, row.wished)
        covariance.update(returns, years)
        return self._experiences(agent, row, observation, np.where(usable, rewards, np.nan), elapsed, faults)

    def _experiences(
        self, agent: str, row: _Row, observation: Observation, rewards: Array, elapsed: float, faults: Set[Symbol]
    ) -> list[Experience]:
        scale, results = self.scales[agent], list[Experience]()
        symbols = (PORTFOLIO,) if agent == RISK else row.observation.symbols
        next_rows = {symbol: i for i, symbol in enumerate((PORTFOLIO,) if agent == RISK else observation.symbols)}
        for i, (symbol, reward) in enumerate(zip(symbols, rewards.tolist(), strict=True)):
            if symbol not in next_rows or not np.isfinite(reward):
                self.dropped += 1
                continue
            quarantined = symbol in faults or PORTFOLIO in faults or (agent == RISK and bool(faults))
            if not quarantined:
                scale.update(symbol, reward, elapsed)
            scaled = self.params.reward_scale * min(max(reward / scale.value, -self.params.clip), self.params.clip)
            results.append(
                Experience(
                    agent=agent, symbol=symbol or None, time=row.observation.time,
                    state=row.observation.matrix[i], action=row.actions[i], reward=scaled,
                    next_state=observation.matrix[next_rows[symbol]], done=False, elapsed=elapsed, version=row.version,
                    quarantined=quarantined,
                )
            )  # fmt: skip
        return results


def _years(row: _Row, now: int) -> float:
    return (now - row.observation.time) / NS / SECONDS_PER_YEAR


def _profit(row: _Row, after: _Accounts) -> Array:
    """What the sub-account gained in quote, net of costs."""
    before = row.accounts
    return after.cash - before.cash + after.quantity * after.marks - before.quantity * before.marks


def _filled(row: _Row, after: _Accounts) -> Array:
    """What the market maker's fills gained in quote: those of this interval by its end, those of the one before by their mark-out."""
    before = row.accounts
    filled = after.cash - before.cash + (after.quantity - before.quantity) * after.marks
    return filled + row.followed * (after.marks - before.marks)


def _view(wish: Wish) -> float:
    """Where no forecaster speaks, the exposure wished for is the forecast, and its size the confidence."""
    match wish:
        case LongTermWish():
            return wish.exposure
        case ShortTermWish():
            return wish.tilt
        case _:
            return 0.0


def _wished(wish: Wish) -> float:
    """The weight that the wish asks for. On spot a negative one of the long-term agent asks for nothing, as the projection reads it:
    counted as a short, it would cost ten times what the utility pays, and the agent would learn to wish longs."""
    match wish:
        case RiskWish():
            return wish.gross_multiplier
        case MarketMakingWish():
            return wish.inventory_target
        case LongTermWish():
            return max(wish.weight, 0.0)
        case ShortTermWish():
            return wish.weight


def _accounts(
    agent: str, symbols: tuple[Symbol, ...], ledger: Ledger, attribution: Attribution, marks: Mapping[Symbol, Decimal], equity: float
) -> _Accounts:
    lines = [attribution.line(agent, symbol) for symbol in symbols]
    foreign = [attribution.foreign_value(line, marks) for line in lines]
    return _Accounts(
        symbols,
        np.array([float(marks[s]) if s in marks and marks[s] > 0 else np.nan for s in symbols]),
        np.array([float(line.quantity) for line in lines]),
        np.array([float(line.cash - fees) for line, fees in zip(lines, foreign, strict=True)]),
        np.array([float(line.fees + line.slippage + fees) for line, fees in zip(lines, foreign, strict=True)]),
        np.array([float(ledger.position(s)) for s in symbols]),
        equity,
    )
