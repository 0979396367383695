"""What each decision was worth, from the sub-accounts between two decisions of the same agent. Never reads a clock or a market.

Rewards are fractions of equity over `sigma_target sqrt(dt)`, so that an hour and five seconds speak the same language; then divided
by their running return scale and multiplied by `reward_scale`.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from agents.core.instruments import NS, Symbol
from agents.core.ledger import Ledger
from agents.desk.attribution import Attribution
from agents.desk.wishes import LONG_TERM, MARKET_MAKING, ORDER, PORTFOLIO, RISK, SHORT_TERM, MarketMakingWish, RiskWish, Wish
from agents.market.observation import Experience, Observation

Array = NDArray[np.float64]

CADENCES_NS = {LONG_TERM: 3600 * NS, SHORT_TERM: 60 * NS, MARKET_MAKING: 5 * NS, RISK: 60 * NS}
SECONDS_PER_YEAR = 365.0 * 86_400.0
NO_FAULTS: frozenset[Symbol] = frozenset()


@dataclass(frozen=True, slots=True)
class RewardParams:
    """Weights of the terms; per year where a time unit is needed."""

    volatility_target: float = 0.20
    """sigma_target, annualised: the unit in which rewards are counted."""
    risk_aversion: float = 5.0
    """lambda of the utility: at 20 % volatility the best book has a Sharpe ratio of lambda sigma = 1."""
    inventory_aversion: float = 1e4
    """The market maker's gamma, the same that its GLFT prior assumes."""
    alias: float = 1.0
    """lambda of `||w_executed - w_wished||^2`: a wish that the limits cut shall not look like one that they did not."""
    worst_drawdown: float = 0.20
    """Drawdown at which the risk agent's aversion would be infinite (held at ten times lambda)."""
    reward_scale: float = 5.0
    clip: float = 10.0
    """Bound on a reward in units of its running scale."""
    gamma: float = 0.99
    """Discount per nominal cadence, for the return scale only."""
    elapsed_cap: float = 20.0
    """A row that took more cadences than this saw an outage, not a consequence: it is dropped."""


class RewardFunctions:
    """The formulas, free of state. All arguments are fractions of equity, years and annualised variances."""

    def __init__(self, params: RewardParams = RewardParams()) -> None:
        self.params = params

    def utility(self, profit: Array, weights: Array, book: Array, covariance: Array, years: float) -> Array:
        """`[w_i rho_i - c_i - (lambda / 2) w_i (Sigma w)_i dt] / (sigma_target sqrt(dt))`, [rows].

        `profit` is an agent's gain net of cost by symbol, `weights` what it owns, `book` what the whole account owns: over agents and
        symbols the risk terms add up to the portfolio's (Euler's decomposition of w' Sigma w).
        """
        p = self.params
        risk = 0.5 * p.risk_aversion * weights * (covariance @ book) * years
        return np.asarray((profit - risk) / (p.volatility_target * np.sqrt(years)))

    def spread_capture(self, profit: Array, inventory: Array, variance: Array, years: float) -> Array:
        """Spread captured net of fees and mark-outs, less `gamma / 2 (q sigma)^2 dt`, in units of sigma_target sqrt(dt), [rows].

        `profit` values own fills at a later mid: `side (mid - price) quantity - fee`, so it is spread and mark-out in one number.
        Inventory penalty as in Cartea, Jaimungal, Penalva (2015), "Algorithmic and high-frequency trading", ch. 10.
        """
        p = self.params
        risk = 0.5 * p.inventory_aversion * inventory**2 * (variance / SECONDS_PER_YEAR) * (years * SECONDS_PER_YEAR)
        return np.asarray((profit - risk) / (p.volatility_target * np.sqrt(years)))

    def tightening(
        self, multiplier: float, weights: Array, returns: Array, covariance: Array, drawdown: float, years: float
    ) -> float:
        """utility(m) - utility(1) on the same path; `weights` are those held under the multiplier m.

        The aversion grows as the drawdown budget is used up: Grossman and Zhou (1993), "Optimal investment strategies for controlling
        drawdowns", hold exposure in proportion to what is left of it.
        """
        p = self.params
        gross = float(np.abs(weights).sum())
        if not gross:
            return 0.0
        full = weights * min(1.0 / multiplier, max(1.0 / gross, 1.0))
        left = max(1.0 - max(drawdown, 0.0) / p.worst_drawdown, 0.1)
        return self._path(weights, returns, covariance, left, years) - self._path(full, returns, covariance, left, years)

    def _path(self, weights: Array, returns: Array, covariance: Array, left: float, years: float) -> float:
        p = self.params
        risk = 0.5 * p.risk_aversion / left * float(weights @ covariance @ weights) * years
        return (float(weights @ returns) - risk) / (p.volatility_target * float(np.sqrt(years)))

    def alias(self, executed: Array, wished: Array) -> Array:
        """`lambda (w_executed - w_wished)^2`, [rows]; subtracted from the reward."""
        return np.asarray(self.params.alias * (executed - wished) ** 2)


class RunningScale:
    """Root mean square of the discounted return, per agent, over all of its symbols (Engstrom et al. 2020, "Implementation matters").

    Starts as if it had seen `PSEUDO` returns of size 1; forgets with a memory of `MEMORY` returns.
    """

    PSEUDO = 10.0
    MEMORY = 10_000.0
    FLOOR = 0.02
    """About a quarter of one captured spread: below it silence would be mistaken for precision."""

    def __init__(self, gamma: float) -> None:
        self.gamma = gamma
        self._returns: dict[Symbol, float] = {}
        self._square, self._count = 1.0, self.PSEUDO

    @property
    def value(self) -> float:
        """What rewards are divided by."""
        return max(float(np.sqrt(self._square)), self.FLOOR)

    def update(self, symbol: Symbol, reward: float, elapsed: float) -> None:
        """Take one finite reward; `elapsed` in nominal cadences."""
        discounted = self.gamma**elapsed * self._returns.get(symbol, 0.0) + reward
        self._returns[symbol] = discounted
        self._count = min(self._count + 1.0, self.MEMORY)
        # One wild return may not own the scale for long: it enters as at most ten times what was seen so far.
        square = min(discounted * discounted, 100.0 * max(self._square, self.FLOOR**2))
        self._square += (square - self._square) / self._count


class Covariance:
    """Annualised covariance of mark returns, exponentially weighted over an agent's own decisions."""

    HALF_LIFE = 60.0
    """Decisions: an hour of minutes, two and a half days of hours."""
    START_VARIANCE, START_CORRELATION = 0.49, 0.5
    """70 % volatility and coins that move together, until the marks say otherwise."""

    def __init__(self, size: int) -> None:
        self.matrix: Array = self.START_VARIANCE * (
            (1.0 - self.START_CORRELATION) * np.eye(size) + self.START_CORRELATION * np.ones((size, size))
        )

    def update(self, returns: Array, years: float) -> None:
        """Take one vector of returns over `years`; each is clipped to ten standard deviations."""
        bound = 10.0 * np.sqrt(np.diag(self.matrix) * years)
        clipped = np.clip(returns, -bound, bound)
        decay = 0.5 ** (1.0 / self.HALF_LIFE)
        self.matrix = decay * self.matrix + (1.0 - decay) * np.outer(clipped, clipped) / years


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


@dataclass(frozen=True, slots=True)
class _Accounts:
    """One agent's sub-account and the whole book at one time, as floats by symbol."""

    symbols: tuple[Symbol, ...]
    marks: Array
    quantity: Array
    cash: Array
    position: Array
    equity: float


class RewardBook:
    """Turns consecutive decisions into Experience rows. One per engine; state is a function of the calls alone."""

    def __init__(self, params: RewardParams = RewardParams(), cadences_ns: Mapping[str, int] = CADENCES_NS) -> None:
        self.functions = RewardFunctions(params)
        self.params = params
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
            if 0.0 < elapsed <= self.params.elapsed_cap and previous.accounts.equity > 0.0:
                results = self._complete(agent, previous, observation, after, elapsed, drawdown, seen)
                traded = dict(zip(held, (after.quantity - previous.accounts.quantity).tolist(), strict=True))
                followed = np.array([traded.get(symbol, 0.0) for symbol in rows])
            else:
                self.dropped += 1
        self._faults[agent] = set(faults)
        wished = np.array([_wished(wish) for wish in wishes], dtype=np.float64)
        self._rows[agent] = _Row(observation, np.array(actions, dtype=np.float32), version, wished, accounts, followed)
        return results

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
        years = (observation.time - row.observation.time) / NS / SECONDS_PER_YEAR
        known = np.isfinite(before.marks) & np.isfinite(after.marks)
        returns = np.where(known, after.marks / before.marks - 1.0, 0.0)
        covariance = self._covariances.setdefault((agent, before.symbols), Covariance(len(before.symbols)))
        book = np.where(known, 0.5 * (before.position * before.marks + after.position * after.marks), 0.0) / before.equity
        usable = known
        if agent == RISK:
            value = self.functions.tightening(float(row.wished[0]), book, returns, covariance.matrix, drawdown, years)
            rewards, usable = np.array([value]), np.ones(1, dtype=bool)
        else:
            judge = self._market_making if agent == MARKET_MAKING else self._directional
            rewards = judge(row, after, book, covariance, years)
            rewards = rewards - self.functions.alias(after.quantity * after.marks / before.equity, row.wished)
        covariance.update(returns, years)
        return self._experiences(agent, row, observation, np.where(usable, rewards, np.nan), elapsed, faults)

    def _directional(self, row: _Row, after: _Accounts, book: Array, covariance: Covariance, years: float) -> Array:
        before = row.accounts
        profit = after.cash - before.cash + after.quantity * after.marks - before.quantity * before.marks
        weights = 0.5 * (before.quantity * before.marks + after.quantity * after.marks) / before.equity
        return self.functions.utility(profit / before.equity, weights, book, covariance.matrix, years)

    def _market_making(self, row: _Row, after: _Accounts, book: Array, covariance: Covariance, years: float) -> Array:
        del book  # its penalty is on its own inventory
        before = row.accounts
        filled = after.cash - before.cash + (after.quantity - before.quantity) * after.marks
        markout = row.followed * (after.marks - before.marks)
        inventory = 0.5 * (before.quantity * before.marks + after.quantity * after.marks) / before.equity
        variance = np.diag(covariance.matrix)
        return self.functions.spread_capture((filled + markout) / before.equity, inventory, variance, years)

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


def _wished(wish: Wish) -> float:
    match wish:
        case RiskWish():
            return wish.gross_multiplier
        case MarketMakingWish():
            return wish.inventory_target
        case _:
            return wish.weight


def _accounts(
    agent: str, symbols: tuple[Symbol, ...], ledger: Ledger, attribution: Attribution, marks: Mapping[Symbol, Decimal], equity: float
) -> _Accounts:
    lines = [attribution.line(agent, symbol) for symbol in symbols]
    return _Accounts(
        symbols,
        np.array([float(marks[s]) if s in marks and marks[s] > 0 else np.nan for s in symbols]),
        np.array([float(line.quantity) for line in lines]),
        np.array([float(line.cash - attribution.foreign_value(line, marks)) for line in lines]),
        np.array([float(ledger.position(s)) for s in symbols]),
        equity,
    )
