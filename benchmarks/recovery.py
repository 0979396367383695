"""How long a start takes with 1,000 open orders and a journal of 100,000 rows; the exchange is in this process and answers at once."""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from agents.core.events import UNSTAMPED, Adopted, Event, Fill, OrderUpdate, Stamp, stamped
from agents.core.instruments import Currency, Instrument, Side, Symbol
from agents.core.orders import OrderId, OrderState, Place, client_order_id
from benchmarks.report import Row, main
from daemon.journal import Journal
from daemon.recovery import Recovery, recover
from daemon.starting import asked, recovered, what_was_left
from daemon.venues.base import Outbox
from daemon.venues.fills import Cursor, FillReader
from daemon.venues.parse import OrderView
from daemon.venues.records import Records
from daemon.venues.throttle import Throttle
from daemon.venues.truth import Asked, Truth, TruthReader

BTC, USDT, COIN = Symbol("BTC/USDT"), Currency("USDT"), Currency("BTC")
LISTED = Instrument(BTC, COIN, USDT, Decimal("0.01"), Decimal("0.001"))
START = 1_700_000_000_000_000_000
MS = 1_000_000


class Exchange:
    """A ccxt object's reading side over plain lists. It counts requests, which is what a real exchange's latency multiplies."""

    id = "binance"
    has: dict[str, Any] = {"fetchOrder": True, "fetchOrders": True}  # noqa: RUF012
    markets: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, orders: list[dict[str, Any]], trades: list[dict[str, Any]], balances: dict[str, float]) -> None:
        self.orders, self.trades, self.totals, self.requests = orders, trades, balances, 0

    async def fetch_balance(self) -> dict[str, Any]:
        self.requests += 1
        return {"total": self.totals, "free": self.totals}

    async def fetch_open_orders(self, symbol: str) -> list[dict[str, Any]]:
        self.requests += 1
        return self.orders

    async def fetch_my_trades(self, symbol: str, since: int | None, limit: int, params: dict[str, Any]) -> list[dict[str, Any]]:
        self.requests += 1
        return [row for row in self.trades if int(row["id"]) >= params.get("fromId", 0)][:limit]

    async def fetch_order(self, venue_order_id: str, symbol: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        self.requests += 1
        return next(row for row in self.orders if row["id"] == venue_order_id)


class Venue:
    """What a start asks of a venue, over the same readers as the real one."""

    def __init__(self, exchange: Exchange) -> None:
        throttle = Throttle(30.0)
        by_record = SimpleNamespace()  # no order is looked up by its client id here
        records = Records(exchange, throttle, by_record, lambda: None)  # type: ignore[arg-type]
        fills = FillReader(exchange, throttle, Outbox(), lambda *_: None, lambda _: None)
        self._reader = TruthReader(exchange, throttle, records, fills, "bench")

    async def truth(self, wanted: Asked) -> Truth:
        return await self._reader.read([BTC], wanted)

    async def adopt(self, orders: Any, cursors: Any, past: Any = None, epoch: int | None = None) -> None: ...

    async def cancel_strays(self, strays: Sequence[OrderView]) -> None: ...


def written(folder: Path, rows: int, live: int) -> tuple[list[dict[str, Any]], dict[str, Decimal], int]:
    """A journal of `rows` rows whose last `live` orders are open; the exchange's records of those, balances, newest trade."""
    first = recover(None, Truth({USDT: Decimal(1_000_000)}, instruments={BTC: LISTED}, cursors={BTC: Cursor()}), USDT, Decimal(100_000), "bench")
    journal = Journal(folder, "bench", START, {})
    journal.describe({"engine": {"quote": "USDT"}, "origin": "bench", "opened_with": first.opened_with()})
    seq, orders = 0, rows // 4
    balances = {"USDT": Decimal(1_000_000), "BTC": Decimal(0)}
    opened: list[dict[str, Any]] = []

    def append(event: Event) -> None:
        nonlocal seq
        seq += 1
        journal.append(stamped(event, Stamp(START + seq * MS, seq)))

    for event in first.events:
        append(event)
    for number in range(1, orders + 1):
        order_id = client_order_id("bench", 1, number, 0)
        side = Side.BUY if number % 2 else Side.SELL
        journal.intend(seq, (Place(order_id, BTC, side, Decimal("0.01"), Decimal(50_000), shares=(("market_making", 0.01),)),))
        append(OrderUpdate(UNSTAMPED, order_id, BTC, OrderState.OPEN, str(number), Decimal(0)))
        if number > orders - live:
            opened.append({
                "id": str(number), "clientOrderId": order_id, "symbol": BTC, "status": "open", "filled": 0.0, "amount": 0.01,
                "price": 50_000.0, "side": side.name.lower(), "timestamp": (START + seq * MS) // MS,
            })  # fmt: skip
            continue
        append(Fill(UNSTAMPED, BTC, START + seq * MS, order_id, str(number), side, Decimal(50_000), Decimal("0.01"), Decimal("0.1"), USDT, True))
        append(OrderUpdate(UNSTAMPED, order_id, BTC, OrderState.FILLED, str(number), Decimal("0.01")))
        balances["USDT"] -= side.value * Decimal(500) + Decimal("0.1")
        balances["BTC"] += side.value * Decimal("0.01")
        if number % 500 == 0:
            journal.commit(seq)
    journal.commit(seq)
    journal.close(seq, {})
    return opened, balances, orders - live


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    """A start: journal read, account read, events made and handed over."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        opened, balances, trades = written(folder, arguments.rows, arguments.orders)
        missed = [
            {"id": str(trades + 1 + n), "order": opened[n]["id"], "symbol": BTC, "side": opened[n]["side"], "price": 50_000.0,
             "amount": 0.01, "timestamp": opened[-1]["timestamp"] + 1, "fees": [{"cost": 0.1, "currency": "USDT"}]}
            for n in range(arguments.missed)
        ]  # fmt: skip
        for row, order in zip(missed, opened, strict=False):
            sign = 1 if row["side"] == "buy" else -1
            balances["USDT"] -= sign * Decimal(500) + Decimal("0.1")
            balances["BTC"] += sign * Decimal("0.01")
            order |= {"filled": 0.01, "status": "closed"}
        exchange = Exchange(opened[arguments.missed :], missed, {c: float(total) for c, total in balances.items()})
        began = time.perf_counter()
        reader, left, _ = what_was_left(folder, "bench")
        read = time.perf_counter() - began
        began, worked = time.perf_counter(), time.process_time()
        recovery: Recovery = asyncio.run(recovered(folder, Venue(exchange), USDT, Decimal(100_000), "bench", "bench"))
        whole, worked = time.perf_counter() - began, time.process_time() - worked
        assert left is not None and reader is not None and len(asked(left).orders) == arguments.orders
        assert not recovery.differences, recovery.differences
        assert sum(isinstance(event, Adopted) for event in recovery.events) == arguments.orders
        assert sum(isinstance(event, Fill) for event in recovery.events) == arguments.missed
        yield Row(f"journal of {arguments.rows} rows read", read, "s")
        yield Row(f"whole start, {arguments.orders} open orders", whole, "s", 5.0, "bound", whole / 5.0)
        yield Row("processor time of it", worked, "s")
        yield Row("requests to the exchange", float(exchange.requests), "requests")
        yield Row("the exchange's own share at 100 ms a request", exchange.requests * 0.1, "s")
        assert OrderId(opened[-1]["clientOrderId"]) in {order.place.order_id for order in recovery.orders}


if __name__ == "__main__":
    main("recovery", measure, packages=("sqlalchemy", "orjson"), rows=100_000, orders=1000, missed=700)
