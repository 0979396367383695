"""Public books that cannot be, and more updates at once than anybody reads."""

from decimal import Decimal

from agents.core.events import UNSTAMPED, BookSnapshot
from agents.core.instruments import Side
from daemon.rehearsal.faults.plan import Plan
from daemon.rehearsal.market import Markets, PublicMarket
from daemon.rehearsal.publisher import Publisher, depth_message
from daemon.rehearsal.streams import Hub

EVERY_LEVEL = 5000
_QUANTITIES = (Decimal("0.5"), Decimal("0.6"))


class FaultyPublisher(Publisher):
    """As `Publisher`, with the plan's faults in the books."""

    def __init__(self, plan: Plan, hub: Hub, markets: Markets) -> None:
        super().__init__(hub, markets)
        self._plan = plan

    def tick(self, real_ms: int) -> None:
        for public in self._markets:
            if self._plan.holds("crossed_book", {"symbol": public.market_id}):
                _cross(public)
        super().tick(real_ms)

    def burst(self, public: PublicMarket, count: int) -> int:
        """`count` depth updates at once, each of one level far from the best; how many were sent."""
        bids, _ = public.depth.top(EVERY_LEVEL)
        if not bids:
            return 0
        price, stream = bids[-1][0], f"{public.stream_id}@depth@100ms"
        for number in range(count):
            public.depth.put(Side.BUY, price, _QUANTITIES[number % 2])
            change = public.depth.drain()
            if change is not None:
                self._hub.publish(stream, lambda change=change: depth_message(public, change, self._markets.now_ms))  # type: ignore[misc]
        self._hub.flush()
        return count


def _cross(public: PublicMarket) -> None:
    """A bid one tick above the best ask; the next true book takes it away."""
    bids, asks = public.depth.top(EVERY_LEVEL)
    if bids and asks and bids[0][0] < asks[0][0]:
        bids.insert(0, (asks[0][0] + public.market.instrument.tick, asks[0][1]))
        public.depth.apply(BookSnapshot(UNSTAMPED, public.symbol, 0, tuple(bids), tuple(asks)))
