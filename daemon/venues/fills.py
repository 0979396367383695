"""Own executions, each once, by a cursor over the account's trades: the only place where fills come from."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from agents.core.errors import DataError
from agents.core.events import Fill
from agents.core.instruments import Symbol
from agents.core.orders import OrderId
from daemon.venues.base import Outbox
from daemon.venues.client import Exchange
from daemon.venues.parse import MS, OwnTrade, VenueKey, parse_own_trade
from daemon.venues.throttle import Throttle

log = structlog.get_logger(__name__)

PAGE = 500
OVERLAP_MS = 60_000
"""How far behind the newest known trade we look again: exchanges are eventually consistent."""
REMEMBERED = 20_000


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far one symbol's own trades are known: all that are settled, and of the later ones those in `known`."""

    trade_id: int = 0
    """On exchanges that are asked by trade id: trades up to this one are settled."""
    ms: int = 0
    """On the others: trades before this time are settled."""
    known: frozenset[tuple[int, str]] = frozenset()
    """(time in ms, trade id)."""

    def settled(self, trade_id: str, ms: int, *, by_id: bool) -> bool:
        """Whether a trade lies behind the cursor, and so was told long ago or is none of ours."""
        return int(trade_id) <= self.trade_id if by_id and trade_id.isdigit() else ms < self.ms

    def beyond(self, told: Iterable[tuple[int, str]]) -> "Cursor":
        """The cursor after these trades, as (ms, id), were told besides."""
        known = self.known | set(told)
        newest = max((ms for ms, _ in known), default=0)
        late = frozenset((ms, trade_id) for ms, trade_id in known if ms >= newest - OVERLAP_MS)
        settled = max((int(trade_id) for _, trade_id in known - late if trade_id.isdigit()), default=0)
        return Cursor(max(self.trade_id, settled), max(self.ms, newest - OVERLAP_MS), late)


class FillCursor:
    """What this session has fetched of one symbol's own trades. Without an opening the first look sets the past aside."""

    def __init__(self, opening: Cursor | None = None, *, by_id: bool = True) -> None:
        self._by_id = by_id
        self.started = opening is not None
        self._opening = opening or Cursor()
        self._seen = {trade_id for _, trade_id in self._opening.known}
        self._order = deque(trade_id for _, trade_id in sorted(self._opening.known))
        self._late = deque(sorted(self._opening.known))
        self._newest = max((ms for ms, _ in self._opening.known), default=0)
        self.trade_id, self.ms = self._opening.trade_id, self._opening.ms
        """From where the next look begins."""

    def new(self, rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Rows not seen before, oldest first; remembers them."""
        fresh = [row for row in rows if row.get("id") and self._is_new(str(row["id"]), _ms(row))]
        fresh.sort(key=lambda row: (_ms(row), str(row["id"]).rjust(20, "0")))
        for row in fresh:
            trade_id = str(row["id"])
            self._seen.add(trade_id)
            self._order.append(trade_id)
            self._late.append((_ms(row), trade_id))
            self._newest = max(self._newest, _ms(row))
            if len(self._order) > REMEMBERED:
                self._seen.discard(self._order.popleft())
        self._advance()
        return fresh

    def _is_new(self, trade_id: str, ms: int) -> bool:
        return trade_id not in self._seen and not self._opening.settled(trade_id, ms, by_id=self._by_id)

    def _advance(self) -> None:
        while self._late and self._late[0][0] < self._newest - OVERLAP_MS:
            _, trade_id = self._late.popleft()
            if trade_id.isdigit():
                self.trade_id = max(self.trade_id, int(trade_id))
        self.ms = max(self.ms, self._newest - OVERLAP_MS)

    def set_aside(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """What was traded before us: nothing of it is told."""
        first = self.new(rows)
        if first:  # what is older than this page is past as well, however close together the page lies
            self.trade_id = max(self.trade_id, min((int(row["id"]) for row in first if str(row["id"]).isdigit()), default=1) - 1)
            self.ms = max(self.ms, _ms(first[0]))
        self.started, self._opening = True, self.mark()

    def mark(self) -> Cursor:
        """Where a session that follows this one has to go on."""
        return Cursor(self.trade_id, self.ms, frozenset(self._late))


class FillReader:
    """Sweeps own trades of one exchange into Fill events. `owner` gives the client id of an order of the exchange, or None."""

    def __init__(
        self, exchange: Exchange, throttle: Throttle, outbox: Outbox, owner: Callable[[VenueKey, str], OrderId | None],
        told: Callable[[Fill], None],
    ) -> None:  # fmt: skip
        self._exchange, self._throttle, self._outbox = exchange, throttle, outbox
        self._owner, self._told = owner, told
        self._cursors: dict[Symbol, FillCursor] = {}
        self._locks: dict[Symbol, asyncio.Lock] = {}
        self.strangers: set[VenueKey] = set()
        """Orders of trades that are not ours."""
        self.orphans: dict[VenueKey, list[OwnTrade]] = {}
        """Trades whose order is not known yet."""
        self.by_id = exchange.id.startswith("binance")
        """Whether this exchange is asked for trades from an id on; else from a time on."""
        self.refused = 0

    def begin(self, symbol: Symbol, cursor: Cursor) -> None:
        """Go on from where an earlier session, or the reading at the start, has come to."""
        self._cursors[symbol] = FillCursor(cursor, by_id=self.by_id)

    async def start(self, symbol: Symbol) -> None:
        """Where no cursor was given: remember what was traded before us."""
        if not (cursor := self._cursor(symbol)).started:
            cursor.set_aside(await self._fetch(symbol, None, {}))

    async def sweep(self, symbol: Symbol) -> int:
        """Fetch what is new of one symbol and tell it; how many fills were told. Raises what ccxt raises."""
        async with self._locks.setdefault(symbol, asyncio.Lock()):
            told = 0
            async for trades in self.pages(symbol, self._cursor(symbol)):
                for trade in trades:
                    told += self._take(trade)
            return told

    async def pages(self, symbol: Symbol, cursor: FillCursor) -> AsyncIterator[list[OwnTrade]]:
        """What the cursor has not seen yet, oldest first, page by page; moves the cursor. Raises what ccxt raises."""
        if not cursor.started:
            cursor.set_aside(await self._fetch(symbol, None, {}))
            return
        start = cursor.trade_id if self.by_id else cursor.ms
        longest = 2
        while True:
            # From the newest settled trade itself, so that a server which counts differently still overlaps.
            params = {"fromId": start} if self.by_id else {}
            rows = await self._fetch(symbol, None if self.by_id else start or None, params)
            if fresh := cursor.new(rows):
                yield self._parsed(fresh)
            if not rows or (self.by_id and len(rows) < PAGE):
                return
            newest = max(int(row["id"]) if self.by_id else _ms(row) for row in rows)
            longest = max(longest, len(rows))  # an exchange may give less at a time than was asked for
            if newest > start:
                start = newest
            elif len(rows) >= longest:
                start += 1  # a page of one millisecond
            else:
                return

    async def of_order(self, symbol: Symbol, venue_order_id: str) -> int:
        """Fetch the trades of one order, where the cursor did not bring all of them."""
        async with self._locks.setdefault(symbol, asyncio.Lock()):
            if self.by_id:
                rows = await self._fetch(symbol, None, {"orderId": venue_order_id})
            elif self._exchange.has.get("fetchOrderTrades"):
                fetch = self._exchange.fetch_order_trades
                rows = await self._throttle.call(self._exchange, lambda: fetch(venue_order_id, symbol)) or []
            else:
                rows = await self._fetch(symbol, None, {})
            return sum(self._take(trade) for trade in self._parsed(self._cursor(symbol).new(rows)))

    def adopt(self, order: VenueKey) -> None:
        """The order of some orphaned trades is known now."""
        for trade in self.orphans.pop(order, []):
            self._take(trade)

    def disown(self, order: VenueKey, whose: str = "an order that is not ours") -> None:
        """An order is somebody else's: its trades move the account's money, and nothing of ours."""
        self.strangers.add(order)
        for trade in self.orphans.pop(order, []):
            self._foreign(trade, whose)

    def _foreign(self, trade: OwnTrade, whose: str = "an order that is not ours") -> None:
        log.warning("foreign_trade", symbol=trade.symbol, trade_id=trade.trade_id, side=trade.side.name, quantity=str(trade.quantity))
        self._outbox.extend(trade.corrections(whose))

    def _take(self, trade: OwnTrade) -> int:
        if trade.order_key in self.strangers:
            self._foreign(trade)
            return 0
        order_id = self._owner(trade.order_key, trade.order_id)
        if order_id is None:
            self.orphans.setdefault(trade.order_key, []).append(trade)
            return 0
        fill = trade.fill(order_id)
        self._outbox.extend([fill, *trade.further_fees()])
        self._told(fill)
        return 1

    def _parsed(self, rows: Iterable[Mapping[str, Any]]) -> list[OwnTrade]:
        trades = []
        for row in rows:
            try:
                trades.append(parse_own_trade(row))
            except DataError as error:
                self.refused += 1
                log.error("own_trade_refused", symbol=row.get("symbol"), trade_id=row.get("id"), reason=str(error))
        return trades

    async def _fetch(self, symbol: Symbol, since: int | None, params: dict[str, Any]) -> list[dict[str, Any]]:
        fetch = self._exchange.fetch_my_trades
        rows = await self._throttle.call(self._exchange, lambda: fetch(symbol, since, PAGE, params))
        return list(rows or [])

    def _cursor(self, symbol: Symbol) -> FillCursor:
        return self._cursors.setdefault(symbol, FillCursor(by_id=self.by_id))


def trade_key(fill: Fill) -> tuple[int, str]:
    """A told fill as cursors know it: (time in ms, trade id)."""
    return fill.time // MS, fill.trade_id


def _ms(row: Mapping[str, Any]) -> int:
    return int(row.get("timestamp") or 0)
