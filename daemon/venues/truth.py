"""The venue's truth at a start: open orders, what became of ours, own trades since the cursors, balances that stood still, transfers.

Reads only. What cannot be believed is said in `doubts`: then nothing of it may be booked.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import structlog
from ccxt.base.errors import BaseError

from agents.core.errors import DataError, Throttled
from agents.core.events import UNSTAMPED, Adopted
from agents.core.instruments import ZERO, Currency, Instrument, Symbol
from agents.core.ledger import Order
from agents.core.orders import OrderId, is_ours
from daemon.venues.client import Exchange
from daemon.venues.fills import Cursor, FillCursor, FillReader
from daemon.venues.outcomes import bad_key
from daemon.venues.parse import MS, OrderView, OwnTrade, Transfer, VenueKey, parse_balances, parse_transfer
from daemon.venues.records import Records
from daemon.venues.throttle import Throttle

log = structlog.get_logger(__name__)

READS = 6
"""How often the account is read until nothing has moved meanwhile."""
ONE_BY_ONE = 10
"""Orders of one symbol that are looked up singly; beyond, the exchange's list is asked for them."""
LOOKS = 4
"""Looks over the window at an order that the exchange denies."""
ABREAST = 8
"""Looks at the same time."""
CHECKED = 3
"""Listed orders whose own record is asked for besides: lists and records must be of the same account."""
LOOK_BACK_NS = 3 * 86_400_000_000_000
"""How far before the last known moment transfers are read: a deposit may be credited long after its own time."""
EARLIER_NS = 3_600_000_000_000
"""Allowance for clocks that differ, where lists are asked for by time."""
FAILURES = (BaseError, TimeoutError, Throttled, DataError)


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be found out: the orders that are ours and not ended, how far trades are known, and since when (ns)."""

    orders: Sequence[Order] = ()
    cursors: Mapping[Symbol, Cursor] | None = None
    """None at the very first start: what was traded before is none of ours."""
    since: int = 0
    patience_s: float = 0.0
    """How long orders that the exchange denies are looked for before they count as gone; 0 leaves them undecided."""


@dataclass(frozen=True, slots=True)
class Truth:
    """What the exchange said. `records` holds the orders that were looked up."""

    balances: Mapping[Currency, Decimal]
    steady: bool = True
    """Whether the balances were the same before and after everything else was read."""
    opened: Sequence[OrderView] = ()
    records: Mapping[OrderId, OrderView] | None = None
    denied: frozenset[OrderId] = frozenset()
    """Orders of ours that the exchange says it does not have."""
    gone: frozenset[OrderId] = frozenset()
    """Those of them that it denied again and again over the window."""
    trades: Sequence[OwnTrade] = ()
    """Own trades behind no cursor, oldest first."""
    owners: Mapping[VenueKey, OrderView] | None = None
    """Records of the orders of trades that are none of the orders asked for."""
    transfers: Sequence[Transfer] = ()
    instruments: Mapping[Symbol, Instrument] | None = None
    cursors: Mapping[Symbol, Cursor] | None = None
    """How far trades are known now."""
    doubts: Sequence[str] = ()
    at: int = 0
    """When it was read, by the exchange's clock, nanoseconds UTC; 0: not known."""


class TruthReader:
    """Reads one account. All methods raise what ccxt raises."""

    def __init__(self, exchange: Exchange, throttle: Throttle, records: Records, fills: FillReader, instance: str) -> None:
        self._exchange, self._throttle, self._records, self._fills = exchange, throttle, records, fills
        self._instance = instance

    async def read(self, symbols: Sequence[Symbol], asked: Asked) -> Truth:
        """Everything, as often as it takes until the balances stand still meanwhile; then whose the unknown trades are."""
        known = asked.cursors or {}
        cursors = {s: FillCursor(known.get(s), by_id=self._fills.by_id) for s in symbols}
        trades: list[OwnTrade] = []
        before, steady = await self.balances(), False
        for _ in range(READS):
            opened = [view for symbol in symbols for view in await self._records.open(symbol)]
            for symbol, cursor in cursors.items():
                async for page in self._fills.pages(symbol, cursor):
                    trades += page
            records, denied = await self._look_up(asked.orders, opened, trades)
            after = await self.balances()
            steady, before = after == before, after
            if steady:
                break
        gone = await self._wait_for(asked, records, denied)
        trades.sort(key=lambda trade: (trade.time, trade.trade_id.rjust(20, "0")))
        return Truth(
            balances=before,
            steady=steady,
            opened=opened,
            records=records,
            denied=denied,
            gone=gone,
            trades=trades,
            owners=await self._owners(trades, asked.orders, opened, records),
            transfers=await self.transfers(asked.since - LOOK_BACK_NS) if asked.since else (),
            cursors={symbol: cursor.mark() for symbol, cursor in cursors.items()},
            doubts=await self._doubts(asked.orders, symbols, opened, denied - gone),
        )

    async def balances(self) -> dict[Currency, Decimal]:
        """Totals by currency, empty ones left out."""
        raw = await self._throttle.call(self._exchange, self._exchange.fetch_balance)
        return {currency: total for currency, (total, _) in parse_balances(raw).items() if total}

    async def transfers(self, since: int) -> list[Transfer]:
        """Deposits and withdrawals that ended well since a time (ns); none where the exchange or the key does not tell."""
        found: list[Transfer] = []
        for name, call, sign in (("fetchDeposits", "fetch_deposits", 1), ("fetchWithdrawals", "fetch_withdrawals", -1)):
            if self._exchange.has.get(name) is not True:
                continue
            fetch = getattr(self._exchange, call)
            try:
                rows = await self._throttle.call(self._exchange, lambda f=fetch: f(None, max(since, 0) // MS))  # type: ignore[misc]  # bound now
                found += [transfer for row in rows or [] if (transfer := parse_transfer(row, sign)) is not None]
            except FAILURES as error:
                log.info("transfers_not_told", what=name, error=f"{type(error).__name__}: {error}"[:200])
        return sorted(found, key=lambda transfer: (transfer.time, transfer.transfer_id))

    # -- inside --------------------------------------------------------------------------------------------------

    async def _look_up(
        self, orders: Sequence[Order], opened: Sequence[OrderView], trades: Sequence[OwnTrade]
    ) -> tuple[dict[OrderId, OrderView], frozenset[OrderId]]:
        """Records of our orders that are neither open nor filled by what was read; and those that the exchange denies."""
        listed = {view.order_id for view in opened}
        keys = {view.key for view in opened}
        filled: dict[VenueKey, Decimal] = {}
        for trade in trades:
            filled[trade.order_key] = filled.get(trade.order_key, ZERO) + trade.quantity
        missing = [
            order for order in orders
            if order.place.order_id not in listed and _key(order) not in keys
            and not (order.venue_order_id and order.filled + filled.get(_key(order), ZERO) >= order.place.quantity)
        ]  # fmt: skip
        records: dict[OrderId, OrderView] = {}
        for symbol in sorted({order.place.symbol for order in missing}):
            here = [order for order in missing if order.place.symbol == symbol]
            if len(here) > ONE_BY_ONE:
                rows = await self._records.since(symbol, (min(o.created for o in here) - EARLIER_NS) // MS) or []
                by_id = {view.order_id: view for view in rows} | {view.venue_order_id: view for view in rows}
                found = {o.place.order_id: by_id.get(o.venue_order_id) or by_id.get(o.place.order_id) for o in here}
                records |= {order_id: view for order_id, view in found.items() if view is not None}
        rest = [order for order in missing if order.place.order_id not in records]
        denied: set[OrderId] = set()

        async def look(order: Order) -> None:
            view = await self._records.find(order.place.symbol, order.place.order_id, order.venue_order_id)
            if view is None:
                denied.add(order.place.order_id)
            elif not view.empty:
                records[order.place.order_id] = view

        await self._abreast([look(order) for order in rest])
        return records, frozenset(denied)

    async def _wait_for(self, asked: Asked, records: dict[OrderId, OrderView], denied: frozenset[OrderId]) -> frozenset[OrderId]:
        """Look for denied orders over the window; what turns up joins the records."""
        left = [order for order in asked.orders if order.place.order_id in denied]
        if not (left and asked.patience_s):
            return frozenset()
        for _ in range(LOOKS):
            await asyncio.sleep(asked.patience_s / LOOKS)
            found, still = await self._look_up(left, (), ())
            records |= found
            left = [order for order in left if order.place.order_id in still]
        return frozenset(order.place.order_id for order in left)

    async def _owners(
        self, trades: Sequence[OwnTrade], orders: Sequence[Order], opened: Sequence[OrderView], records: Mapping[OrderId, OrderView]
    ) -> dict[VenueKey, OrderView]:
        """Whose the trades are that fit no order of ours."""
        ours = {_key(order) for order in orders} | {view.key for view in records.values()}
        owners = {view.key: view for view in opened}
        unknown = {t.order_key: t for t in trades if t.order_key not in ours and t.order_key not in owners}
        for symbol in sorted({trade.symbol for trade in unknown.values()}):
            here = [trade for trade in unknown.values() if trade.symbol == symbol]
            if len(here) > ONE_BY_ONE:
                rows = await self._records.since(symbol, (min(trade.time for trade in here) - LOOK_BACK_NS) // MS) or []
                owners |= {view.key: view for view in rows if view.key in unknown}

        async def look(trade: OwnTrade) -> None:
            view = await self._records.by_venue_id(trade.symbol, trade.venue_order_id)
            if view is not None:
                owners[trade.order_key] = view

        await self._abreast([look(trade) for key, trade in unknown.items() if key not in owners and trade.venue_order_id])
        return owners

    async def _doubts(
        self, orders: Sequence[Order], symbols: Sequence[Symbol], opened: Sequence[OrderView], denied: frozenset[OrderId]
    ) -> list[str]:
        """What speaks against this being our account's truth."""
        doubts = [
            f"the exchange lists an order of {view.symbol}, which nobody asked for" for view in opened if view.symbol not in symbols
        ]
        accepted = [o for o in orders if o.venue_order_id and o.place.order_id in denied]
        doubts += [f"the exchange denies order {o.place.order_id}, which it had accepted as {o.venue_order_id}" for o in accepted]
        suspects = sorted((v for v in opened if v.symbol in symbols), key=lambda v: not is_ours(v.order_id, self._instance))[:CHECKED]
        for view in suspects:
            if not self._exchange.has.get("fetchOrder"):
                break
            record = await self._records.by_venue_id(Symbol(view.symbol), view.venue_order_id)
            if record is None:
                doubts.append(f"the exchange lists order {view.venue_order_id} of {view.symbol} as open and denies it when asked for it")
            elif record.order_id != view.order_id:
                doubts.append(f"the exchange gives order {view.venue_order_id} two client ids: {view.order_id!r} and {record.order_id!r}")
        return doubts

    async def _abreast(self, looks: Iterable[object]) -> None:
        """Run looks, a few at a time. One that fails leaves its order undecided; a refused key ends it all."""
        waiting = list(looks)
        gate = asyncio.Semaphore(ABREAST)
        refused: list[BaseException] = []

        async def guarded(look: object) -> None:
            async with gate:
                try:
                    await look  # type: ignore[misc]  # a coroutine of one of the two looks above
                except FAILURES as error:
                    if bad_key(error):
                        refused.append(error)
                    log.warning("order_not_read", error=f"{type(error).__name__}: {error}"[:200])

        async with asyncio.TaskGroup() as tasks:
            for look in waiting:
                tasks.create_task(guarded(look))
        if refused:
            raise refused[0]


def adopted(order: Order) -> Adopted:
    """An order as it stands in a ledger, for the one who goes on following it."""
    return Adopted(UNSTAMPED, order.place, order.state, order.venue_order_id, order.filled, order.reported, order.created)


def _key(order: Order) -> VenueKey:
    return order.place.symbol, order.venue_order_id
