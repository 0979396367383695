"""The peer of `ingest`: a loop around ccxt's websockets that keeps nothing. `python -m benchmarks.bare_reader URL SYMBOL...`"""

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence

from daemon.venues.client import ExchangeOptions, build_client


async def read(url: str, symbols: Sequence[str]) -> None:
    """Watch books and trades of all symbols until killed."""
    exchange = build_client(ExchangeOptions("rehearsal", url))
    await exchange.load_markets()
    seen: Counter[str] = Counter()

    async def trades() -> None:
        while True:
            seen["trades"] += len(await exchange.watch_trades_for_symbols(list(symbols)))

    async def books() -> None:
        while True:
            book = await exchange.watch_order_book_for_symbols(list(symbols))
            seen["books"] += bool(book["bids"])

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(trades())
        tasks.create_task(books())


if __name__ == "__main__":
    asyncio.run(read(sys.argv[1], sys.argv[2:]))
