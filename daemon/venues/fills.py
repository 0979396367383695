"""Own executions, each once, by a cursor over the account's trades: the only place where fills come from."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from ccxt.base.errors import BaseError

from agents.core.errors import DataError
from agents.core.events import UNSTAMPED, Adjustment, AdjustmentKind, Fill
from agents.core.instruments import Currency, Symbol
from agents.core.orders import OrderId
from daemon.venues.base import Outbox
from daemon.venues.client import Exchange
from daemon.venues.parse import parse_fees, parse_fill
from daemon.venues.throttle import Throttle

log = structlog.get_logger(__name__)

PAGE = 500
OVERLAP_MS = 60_000
"""How far behind the newest known trade a time cursor looks again: exchanges are eventually consistent."""
REMEMBERED = 20_000


class FillCursor:
    """What has been fetched of one symbol's own trades."""

    def __init__(self) -> None:
        self.newest_id: int | None = None
        self.newest_ms = 0
        self.started = False
        self._seen: set[str] = set()
        self._order: deque[str] = deque()

    def new(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Rows not seen before, oldest first; remembers them."""
        fresh = [row for row in rows if row.get("id") and str(row["id"]) not in self._seen]
        for row in fresh:
            trade_id = str(row["id"])
            self._seen.add(trade_id)
            self._order.append(trade_id)
            if len(self._order) > REMEMBERED:
                self._seen.discard(self._order.popleft())
            self.newest_ms = max(self.newest_ms, int(row.get("timestamp") or 0))
            if trade_id.isdigit():
                self.newest_id = max(self.newest_id or 0, int(trade_id))
        return sorted(fresh, key=lambda row: (int(row.get("timestamp") or 0), str(row["id"]).rjust(20, "0")))

    def forget(self, row: dict[str, Any]) -> None:
        """Let a row come again: its order is not known yet."""
        self._seen.discard(str(row["id"]))


class FillReader:
    """Sweeps own trades of one exchange into Fill events. `owner` gives the client id of a venue order id, or None."""

    def __init__(
        self, exchange: Exchange, throttle: Throttle, outbox: Outbox, owner: Callable[[str, str], OrderId | None],
        told: Callable[[Fill], None],
    ) -> None:  # fmt: skip
        self._exchange, self._throttle, self._outbox = exchange, throttle, outbox
        self._owner, self._told = owner, told
        self._cursors: dict[Symbol, FillCursor] = {}
        self._locks: dict[Symbol, asyncio.Lock] = {}
        self.strangers: set[str] = set()
        """Venue order ids of trades that are not ours."""
        self.orphans: dict[str, list[dict[str, Any]]] = {}
        """Trades whose order is not known yet, by venue order id."""
        self._by_id = exchange.id.startswith("binance")
        self.refused = 0

    async def start(self, symbol: Symbol) -> None:
        """Remember what was traded before us: nothing of it is told."""
        cursor = self._cursor(symbol)
        if not cursor.started:
            cursor.new(await self._fetch(symbol, None, {}))
            cursor.started = True

    async def sweep(self, symbol: Symbol) -> int:
        """Fetch what is new of one symbol and tell it; how many fills were told. Raises what ccxt raises."""
        async with self._locks.setdefault(symbol, asyncio.Lock()):
            cursor = self._cursor(symbol)
            told = 0
            while True:
                rows = await self._page(symbol, cursor)
                fresh = cursor.new(rows)
                for row in fresh:
                    told += self._take(row)
                if len(rows) < PAGE or not fresh:
                    return told

    async def of_order(self, symbol: Symbol, venue_order_id: str) -> int:
        """Fetch the trades of one order, where the cursor did not bring all of them."""
        async with self._locks.setdefault(symbol, asyncio.Lock()):
            if self._by_id:
                rows = await self._fetch(symbol, None, {"orderId": venue_order_id})
            elif self._exchange.has.get("fetchOrderTrades"):
                fetch = self._exchange.fetch_order_trades
                rows = await self._throttle.call(self._exchange, lambda: fetch(venue_order_id, symbol)) or []
            else:
                rows = await self._fetch(symbol, None, {})
            return sum(self._take(row) for row in self._cursor(symbol).new(rows))

    def adopt(self, venue_order_id: str) -> None:
        """The order of some orphaned trades is known now."""
        for row in self.orphans.pop(venue_order_id, []):
            self._take(row)

    def disown(self, venue_order_id: str) -> None:
        """An order is somebody else's: its trades move the account's money, and nothing of ours."""
        self.strangers.add(venue_order_id)
        for row in self.orphans.pop(venue_order_id, []):
            self._foreign(row)

    def _foreign(self, row: dict[str, Any]) -> None:
        symbol = str(row["symbol"])
        base, _, quote = symbol.partition(":")[0].partition("/")
        try:
            trade, fees = parse_fill(row, OrderId(""), Currency(quote)), parse_fees(row)
        except DataError as error:
            self.refused += 1
            log.error("foreign_trade_refused", symbol=symbol, trade_id=row.get("id"), reason=str(error))
            return
        log.warning("foreign_trade", symbol=symbol, trade_id=trade.trade_id, side=trade.side.name, quantity=str(trade.quantity))
        signed, note = trade.side.value * trade.quantity, f"trade {trade.trade_id} of {symbol}, an order that is not ours"
        moved = [(Currency(base), signed), (Currency(quote), -signed * trade.price), *((currency, -fee) for currency, fee in fees)]
        for currency, amount in moved:
            self._outbox.put(Adjustment(UNSTAMPED, currency, amount, AdjustmentKind.CORRECTION, note))

    def _take(self, row: dict[str, Any]) -> int:
        venue_order_id = str(row.get("order") or "")
        if venue_order_id in self.strangers:
            self._foreign(row)
            return 0
        order_id = self._owner(venue_order_id, str(row.get("clientOrderId") or ""))
        if order_id is None:
            self.orphans.setdefault(venue_order_id, []).append(row)
            return 0
        quote = Currency(str(row["symbol"]).partition("/")[2].partition(":")[0])
        try:
            fill = parse_fill(row, order_id, quote)
            fees = parse_fees(row)
        except DataError as error:
            self.refused += 1
            log.error("own_trade_refused", symbol=row.get("symbol"), trade_id=row.get("id"), reason=str(error))
            return 0
        self._outbox.put(fill)
        for currency, fee in fees[1:]:
            note = f"second fee of trade {fill.trade_id}"
            self._outbox.put(Adjustment(UNSTAMPED, currency, -fee, AdjustmentKind.FEE, note))
        self._told(fill)
        return 1

    async def _page(self, symbol: Symbol, cursor: FillCursor) -> list[dict[str, Any]]:
        if self._by_id:
            # From the newest known trade itself, so that a server which counts differently still overlaps.
            return await self._fetch(symbol, None, {"fromId": cursor.newest_id} if cursor.newest_id is not None else {})
        return await self._fetch(symbol, max(cursor.newest_ms - OVERLAP_MS, 0) or None, {})

    async def _fetch(self, symbol: Symbol, since: int | None, params: dict[str, Any]) -> list[dict[str, Any]]:
        fetch = self._exchange.fetch_my_trades
        rows = await self._throttle.call(self._exchange, lambda: fetch(symbol, since, PAGE, params))
        return list(rows or [])

    def _cursor(self, symbol: Symbol) -> FillCursor:
        return self._cursors.setdefault(symbol, FillCursor())


async def quietly(awaitable: Any, what: str, **context: Any) -> bool:
    """Await a read that may fail for a while; whether it worked."""
    try:
        await awaitable
    except (BaseError, TimeoutError) as error:
        log.warning("read_failed", what=what, error=f"{type(error).__name__}: {error}"[:200], **context)
        return False
    return True
