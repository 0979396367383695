"""The truth: an exchange in memory, with the account that the daemon trades on. It knows no network and no fault.

The matching, the money and the protocol are the rehearsal exchange's own; here they stand on the simulation's clocks.
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

from agents.core.events import MarketEvent
from agents.core.instruments import Currency, Instrument, Side, Symbol
from agents.market.exchange import SimulatedExchange
from agents.market.frictions import Frictions
from agents.market.synthetic import SyntheticMarket
from daemon.rehearsal.account import Account
from daemon.rehearsal.candles import HistoryRow
from daemon.rehearsal.config import TEST_KEY, TEST_SECRET
from daemon.rehearsal.floor import Floor
from daemon.rehearsal.limits import Budget
from daemon.rehearsal.market import Markets
from daemon.rehearsal.orders import OPEN_STATES
from daemon.rehearsal.protocol import Access
from daemon.rehearsal.publisher import Publisher
from daemon.rehearsal.streams import Hub
from daemon.rehearsal.user_stream import UserStreams
from daemon.rehearsal.venue import Venue

HISTORY_DAYS = 3
WEIGHT_A_MINUTE = 6000
ORDERS_IN_TEN_SECONDS = 100
KEPT_BALANCES = 120
"""Balances of as many ticks are remembered, for queries that are behind."""


class ShortPast:
    """The synthetic market with a short history: warm-up is not what a simulation is about."""

    ended = False

    def __init__(self, symbols: Sequence[str], seed: int, start: int, trade_rate: float) -> None:
        self.start = start
        self._market = SyntheticMarket(symbols, seed, start, history_days=HISTORY_DAYS, trade_rate=trade_rate)
        self.instruments: Mapping[Symbol, Instrument] = self._market.instruments

    def step(self, to: int) -> Sequence[MarketEvent]:
        return self._market.step(to)

    def history(self, symbol: Symbol, interval: str, end_ms: int, limit: int) -> list[HistoryRow]:
        return self._market.history(symbol, interval, end=end_ms * 1_000_000, limit=limit)

    def absorb(self, symbol: Symbol, side: Side, quantity: Decimal) -> None:
        self._market.absorb(symbol, side, quantity)


class Exchange:
    """Markets, one account, the public streams and the account's own. `clock_ns` is the exchange's wall clock, in UTC."""

    def __init__(
        self, symbols: Sequence[str], seed: int, clock_ns: Callable[[], int], speed: float, prints_a_second: float,
        balances: Mapping[str, Decimal],
    ) -> None:  # fmt: skip
        self._clock_ns, self._speed = clock_ns, speed
        self.source = ShortPast(symbols, seed, clock_ns(), prints_a_second / speed)
        self.instruments = self.source.instruments
        listed = self.instruments.values()
        held = {currency: Decimal(0) for listing in listed for currency in (listing.base, listing.quote)}
        held |= {Currency(name): amount for name, amount in balances.items()}
        self.matching = SimulatedExchange(listed, Frictions(fee_currency="received"), held)
        self.markets = Markets(self.instruments, self.source.start, self.source)
        self.users, self.hub = UserStreams(), Hub()
        self.account = Account(self.matching, self.markets, self.real_ms, self._emit, self.source.absorb)
        self._floor = Floor(self.source, self.matching, self.markets, self.account)
        self._publisher = Publisher(self.hub, self.markets)
        budget = Budget(WEIGHT_A_MINUTE, ORDERS_IN_TEN_SECONDS, self.real_ms)
        self.venue = Venue(self.markets, self.account, budget, Access(TEST_KEY, TEST_SECRET, self.real_ms), self.real_ms)

        self._past: dict[int, list[tuple[int, dict[str, object]]]] = {}
        """Each order's record after each change, with the exchange's clock (ns): for queries that are behind."""
        self._money: list[tuple[int, list[tuple[Currency, Decimal, Decimal]]]] = []

    def _emit(self, event: dict[str, object]) -> None:
        """An event of the account, on its way to whoever listens."""
        self.users.emit(event)
        if event.get("e") == "executionReport":
            order = self.account.find(str(event["s"]), int(str(event["i"])), None)
            if order is not None:
                self._past.setdefault(order.order_id, []).append((self._clock_ns(), order.row()))

    def order_as_of(self, order_id: int, when: int) -> dict[str, object] | None:
        """An order's record as it was at a time of the exchange's clock (ns), or None before it was there."""
        return next((row for at, row in reversed(self._past.get(order_id, [])) if at <= when), None)

    def orders_as_of(self, market_id: str | None, when: int) -> list[dict[str, object]]:
        """The records of the orders that were open then."""
        rows = [self.order_as_of(order_id, when) for order_id in self._past]
        return [row for row in rows if row is not None and row["status"] in OPEN_STATES and market_id in (None, row["symbol"])]

    def balances_as_of(self, when: int) -> list[tuple[Currency, Decimal, Decimal]]:
        """(currency, free, locked) as they were then, or as far back as is known."""
        return next((rows for at, rows in reversed(self._money) if at <= when), self._money[0][1] if self._money else self.account.balances())

    def real_ms(self) -> int:
        """The exchange's wall clock in milliseconds."""
        return self._clock_ns() // 1_000_000

    def tick(self, elapsed_ns: int) -> None:
        """Let the market go on for so long on the real clock, and tell everybody."""
        self._floor.step(self.markets.now + round(elapsed_ns * self._speed))
        self.users.flush()
        self._publisher.tick(self.real_ms())
        self._money.append((self._clock_ns(), self.account.balances()))
        del self._money[:-KEPT_BALANCES]
