"""Orders that sleep until the last price reaches them: stops stand in no book and have no place in any queue."""

from collections import defaultdict
from decimal import Decimal

from agents.core.instruments import Symbol
from agents.core.orders import OrderId
from agents.market.account import ExchangeOrder


class Triggers:
    """Sleeping sells of all symbols, and the last trade prices that wake them (Binance's STOP_LOSS and STOP_LOSS_LIMIT)."""

    def __init__(self) -> None:
        self._asleep: defaultdict[Symbol, dict[OrderId, ExchangeOrder]] = defaultdict(dict)
        self._last: dict[Symbol, Decimal] = {}

    def last(self, symbol: Symbol) -> Decimal | None:
        """Price of the symbol's last trade; None before the first."""
        return self._last.get(symbol)

    def waits(self, symbol: Symbol) -> bool:
        """Whether an order sleeps here."""
        return bool(self._asleep.get(symbol))

    def sleep(self, order: ExchangeOrder) -> None:
        """Put an order with a trigger price to sleep."""
        order.asleep = True
        self._asleep[order.place.symbol][order.place.order_id] = order

    def forget(self, order: ExchangeOrder) -> None:
        """A cancelled order is woken by nothing any more."""
        self._asleep[order.place.symbol].pop(order.place.order_id, None)
        order.asleep = False

    def note(self, symbol: Symbol, price: Decimal) -> bool:
        """Take a last price that wakes nobody; whether it is one (finite and positive)."""
        if sound := price.is_finite() and price > 0:
            self._last[symbol] = price
        return sound

    def trade(self, symbol: Symbol, price: Decimal, time: int) -> list[ExchangeOrder]:
        """Take the price of a trade at market time `time` (ns) and wake whom it reached: the highest trigger first, then the oldest.

        A print from before an order came does not wake it.
        """
        if not self.note(symbol, price) or not (asleep := self._asleep.get(symbol)):
            return []
        woken = [o for o in asleep.values() if o.time <= time and o.place.trigger_price is not None and price <= o.place.trigger_price]
        for order in woken:
            self.forget(order)
        return sorted(woken, key=_first_reached)


def _first_reached(order: ExchangeOrder) -> Decimal:
    return -(order.place.trigger_price or Decimal(0))
