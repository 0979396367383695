"""When somebody speaks: nothing before the market is known, then each agent once per boundary of its cadence."""

from agents.core.instruments import NS
from agents.core.ledger import Ledger
from agents.desk.decision import EngineConfig
from agents.desk.wishes import LONG_TERM, MARKET_MAKING, ORDER, RISK, SHORT_TERM
from agents.market.state import MarketState

WARM_WITHIN_NS = 10 * NS
DAY = 86_400 * NS


class Cadence:
    """Remembers the boundary at which each agent spoke last, and whether the market is known by now."""

    def __init__(self, config: EngineConfig) -> None:
        self.passed: dict[str, int] = {}
        self._agents = tuple(agent for agent in ORDER if agent in config.agents)  # each sees the earlier ones' wishes, however they are listed
        self._candles_only = config.candles_only
        self._market_making_ns = int(config.market_making_cadence_s * NS)
        self._is_warm, self._first_mark = False, 0

    def due(self, market: MarketState) -> tuple[str, ...]:
        """Agents whose cadence boundary has passed since they last spoke, in the order of wishes; they count as heard from now on."""
        marks = {
            LONG_TERM: market.closed("1h"),
            SHORT_TERM: market.closed("1m"),
            MARKET_MAKING: market.now // self._market_making_ns if market.has_books else 0,
            RISK: market.closed("1m"),
        }
        due = tuple(agent for agent in self._agents if marks[agent] > self.passed.get(agent, 0))
        self.passed.update((agent, marks[agent]) for agent in due)
        return due

    def warm(self, at: int, market: MarketState, ledger: Ledger) -> bool:
        """Nothing is decided before every symbol has a price, or the late ones had their time: a slow agent speaks for all at once.

        The price must be a book's: candles before the first book are history, and what an earlier session left is neither valued
        nor sold at them. On a tape of candles alone they are all there is.
        """
        if not self._is_warm and self._agents:
            listed = [symbol for symbol in market.symbols if symbol in ledger.instruments]
            known = sum((market.mark(s) if self._candles_only else market.book(s).mid) is not None for s in listed)
            if known:
                self._first_mark = self._first_mark or at
            self._is_warm = known == len(market.symbols) or bool(known and at - self._first_mark > WARM_WITHIN_NS)
        return self._is_warm


class Day:
    """Sums that start anew with each market day."""

    def __init__(self) -> None:
        self._day = -1
        self._start = (0.0, 0.0, 0.0)

    def since(self, now: int, sums: tuple[float, float, float]) -> tuple[float, float, float]:
        """What was added to each sum since the day of market time `now` (ns) began."""
        if now // DAY != self._day:
            self._day, self._start = now // DAY, sums
        return sums[0] - self._start[0], sums[1] - self._start[1], sums[2] - self._start[2]
