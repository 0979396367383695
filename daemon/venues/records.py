"""The exchange's own records of orders: open ones, one by its ids, and all since a time. Reads only."""

from collections.abc import Callable
from functools import partial
from typing import Any

import structlog
from ccxt.base.errors import OrderNotFound

from agents.core.errors import DataError
from agents.core.instruments import Symbol
from daemon.venues.client import Exchange
from daemon.venues.parse import OrderView, parse_order
from daemon.venues.throttle import Throttle

log = structlog.get_logger(__name__)

LISTED = 1000
"""Records asked for at a time."""
NOTHING = OrderView("", "", "", None, None, None)


class Records:
    """All methods raise what ccxt raises. `refused` is told of answers that cannot be believed.

    `by_client` is whether one order can be asked for by our id; where it cannot, the lists of orders are searched.
    """

    def __init__(self, exchange: Exchange, throttle: Throttle, by_client: bool, refused: Callable[[], None]) -> None:
        self._exchange, self._throttle, self._by_client, self._refused = exchange, throttle, by_client, refused

    def parse(self, raw: Any) -> OrderView:
        """One answer; an empty view for one that cannot be believed."""
        try:
            return parse_order(raw)
        except DataError as error:
            self._refused()
            log.error("order_answer_refused", reason=str(error))
            return NOTHING

    async def open(self, symbol: Symbol) -> list[OrderView]:
        """This account's open orders of a symbol."""
        fetch = self._exchange.fetch_open_orders
        return [self.parse(raw) for raw in await self._throttle.call(self._exchange, lambda: fetch(symbol)) or []]

    async def since(self, symbol: Symbol, ms: int) -> list[OrderView] | None:
        """Orders of any state that were made since a time, oldest first; None where the exchange has no such list."""
        if self._exchange.has.get("fetchOrders") is not True:
            return None
        fetch, found, start = self._exchange.fetch_orders, dict[str, OrderView](), max(ms, 0)
        while True:
            rows = [self.parse(raw) for raw in await self._throttle.call(self._exchange, partial(fetch, symbol, start, LISTED)) or []]
            fresh = [view for view in rows if view.venue_order_id and view.venue_order_id not in found]
            found |= {view.venue_order_id: view for view in fresh}
            newest = max((view.created // 1_000_000 for view in fresh), default=0)
            if len(rows) < LISTED or not fresh or newest <= start:
                return list(found.values())
            start = newest

    async def by_venue_id(self, symbol: Symbol, venue_order_id: str) -> OrderView | None:
        """One order's record, or None if the exchange denies that there is one."""
        fetch = self._exchange.fetch_order
        try:
            view = self.parse(await self._throttle.call(self._exchange, lambda: fetch(venue_order_id, symbol)))
        except OrderNotFound:
            return None
        return None if view.empty else view

    async def find(self, symbol: Symbol, order_id: str, venue_order_id: str) -> OrderView | None:
        """One order of ours by whatever id is known of it, or None if the exchange has none."""
        exchange = self._exchange
        if exchange.has.get("fetchOrder") and (venue_order_id or self._by_client):
            params = {} if venue_order_id else {"clientOrderId": order_id}
            fetch = exchange.fetch_order
            try:
                return self.parse(await self._throttle.call(exchange, lambda: fetch(venue_order_id, symbol, params)))
            except OrderNotFound:
                return None
        for name in ("fetchOpenOrders", "fetchClosedOrders", "fetchCanceledOrders", "fetchOrders"):
            if exchange.has.get(name) is not True:
                continue
            for raw in await self._throttle.call(exchange, partial(getattr(exchange, name), symbol)) or []:
                view = self.parse(raw)
                if view.order_id == order_id or (view.venue_order_id and view.venue_order_id == venue_order_id):
                    return view
        return None
