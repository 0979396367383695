"""The trading floor: external market events and our orders meet in the simulated exchange, and the public sees both."""

from agents.core.events import BookSnapshot, Fill, MarketEvent, Trade
from agents.core.instruments import ZERO
from agents.market.exchange import SimulatedExchange
from daemon.rehearsal.account import Account
from daemon.rehearsal.market import MS, Markets
from daemon.rehearsal.source import Source


class Floor:
    """Steps the market. Market time moves at ticks only, so that nothing is ever printed out of order."""

    def __init__(
        self,
        source: Source,
        exchange: SimulatedExchange,
        markets: Markets,
        account: Account,
    ) -> None:
        self.source = source
        self.exchange = exchange
        self.markets = markets
        self.account = account

    def step(self, to: int) -> None:
        """Everything that happens up to market time `to` (ns)."""
        for event in self.source.step(to):
            self.take(event)
        self.markets.now = max(self.markets.now, to)
        now_ms = self.markets.now // MS
        for public in self.markets:
            public.settle(now_ms)

    def take(self, event: MarketEvent) -> None:
        """One external event meets our orders, and the public sees what came of it."""
        public = self.markets.by_symbol.get(event.symbol)
        if public is None:
            return
        self.markets.now = max(self.markets.now, event.time)
        results = self.exchange.on_market(event)
        if results:
            self.account.absorb(results)
        if isinstance(event, BookSnapshot):
            public.book(event)
        elif isinstance(event, Trade):
            ours = sum((result.quantity for result in results if isinstance(result, Fill)), ZERO)
            if event.quantity > ours:
                public.print_trade(self.markets.now_ms, event.price, event.quantity - ours, event.side)
