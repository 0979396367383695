"""Stop orders on the rehearsal exchange as ccxt sends them: asleep, woken by the last price, told by the account's stream."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from ccxt.base import errors

from tests.rehearsal_faults import Rehearsal, rehearsal, watching

SYMBOL, MARKET_ID = "BTC/USDT", "BTCUSDT"
QUIET = 20.0


@pytest.fixture
async def exchange() -> AsyncIterator[Rehearsal]:
    async with rehearsal(symbols=(SYMBOL,), speed=1.0, trade_rate=0.001) as made:
        yield made


@pytest.fixture
async def client(exchange: Rehearsal) -> Any:
    made = exchange.ccxt()
    await made.load_markets()
    return made


async def last(client: Any) -> float:
    """The best bid: before the first trade it is what a stop is held against."""
    return float((await client.fetch_order_book(SYMBOL, 5))["bids"][0][0])


async def test_the_market_says_that_it_takes_stops(client: Any) -> None:
    assert {"STOP_LOSS", "STOP_LOSS_LIMIT"} <= set(client.market(SYMBOL)["info"]["orderTypes"])


@pytest.mark.parametrize(("kind", "type_told"), [("market", "STOP_LOSS"), ("limit", "STOP_LOSS_LIMIT")])
async def test_a_stop_sleeps_locks_and_is_cancelled(client: Any, exchange: Rehearsal, kind: str, type_told: str) -> None:
    trigger = round(await last(client) * 0.95, 2)
    price = None if kind == "market" else round(trigger * 0.99, 2)
    placed = await client.create_order(SYMBOL, kind, "sell", 0.4, price, {"stopLossPrice": trigger, "clientOrderId": "stop-1"})
    found = await client.fetch_order(placed["id"], SYMBOL)
    assert (found["status"], found["triggerPrice"], found["filled"], found["info"]["type"]) == ("open", trigger, 0, type_told)
    assert (found["info"]["isWorking"], found["info"]["workingTime"]) in ((False, -1), (False, "-1"))
    assert [order["id"] for order in await client.fetch_open_orders(SYMBOL)] == [placed["id"]]
    assert (await client.fetch_balance())["BTC"]["used"] == pytest.approx(0.4)
    await client.cancel_order(placed["id"], SYMBOL)
    assert (await client.fetch_balance())["BTC"]["used"] == 0
    await exchange.faults.on("print_trade", price=trigger * 0.9)
    assert (await client.fetch_order(placed["id"], SYMBOL))["status"] == "canceled"


async def test_a_print_at_the_trigger_sells_at_the_market(client: Any, exchange: Rehearsal) -> None:
    trigger = round(await last(client) * 0.95, 2)
    told_first = await watching(client, client.watch_orders(SYMBOL), f"orders:{SYMBOL}")
    placed = await client.create_order(SYMBOL, "market", "sell", 0.4, None, {"stopLossPrice": trigger})
    assert (await asyncio.wait_for(told_first, QUIET))[-1]["info"]["w"] is False
    await exchange.faults.on("print_trade", price=trigger + 0.01)
    assert (await client.fetch_order(placed["id"], SYMBOL))["status"] == "open"
    await exchange.faults.on("print_trade", price=trigger)
    sold = await client.fetch_order(placed["id"], SYMBOL)
    assert (sold["status"], sold["filled"], sold["info"]["isWorking"]) == ("closed", 0.4, True)
    mine = await client.fetch_my_trades(SYMBOL)
    assert sum(trade["amount"] for trade in mine) == pytest.approx(0.4) and {trade["takerOrMaker"] for trade in mine} == {"taker"}
    async with asyncio.timeout(QUIET):
        while (told := client.orders.hashmap[SYMBOL][placed["id"]])["status"] != "closed":
            await asyncio.sleep(0)
    assert told["triggerPrice"] == trigger and told["info"]["w"] is False and told["info"]["P"] == f"{trigger:.8f}"


async def test_a_stop_limit_rests_when_the_market_is_below_it(client: Any, exchange: Rehearsal) -> None:
    bid = await last(client)
    placed = await client.create_order(
        SYMBOL, "limit", "sell", 0.01, round(bid * 1.05, 2), {"stopLossPrice": round(bid * 0.99, 2), "newOrderRespType": "RESULT"}
    )
    assert placed["status"] == "open" and placed["info"]["workingTime"] in (-1, "-1")
    await exchange.faults.on("print_trade", price=round(bid * 0.98, 2))
    found = await client.fetch_order(placed["id"], SYMBOL)
    assert found["status"] == "open" and found["info"]["isWorking"] is True
    await exchange.faults.on("print_trade", price=round(bid * 1.06, 2), side="BUY", quantity="1")
    assert (await client.fetch_order(placed["id"], SYMBOL))["status"] == "closed"


async def test_what_is_refused(client: Any) -> None:
    bid = await last(client)
    with pytest.raises(errors.ExchangeError, match="trigger immediately"):
        await client.create_order(SYMBOL, "market", "sell", 0.01, None, {"stopLossPrice": round(bid * 1.01, 2)})
    base = {"symbol": MARKET_ID, "side": "SELL", "quantity": "0.01"}
    for more, code in (
        ({"type": "STOP_LOSS"}, "-1102"),
        ({"type": "STOP_LOSS", "stopPrice": "1000", "price": "900"}, "-1106"),
        ({"type": "STOP_LOSS_LIMIT", "stopPrice": "1000", "price": "900"}, "-1102"),
        ({"type": "MARKET", "stopPrice": "1000"}, "-1106"),
        ({"type": "STOP_LOSS", "stopPrice": "1000.001"}, "PRICE_FILTER"),
    ):
        with pytest.raises(errors.BaseError, match=code):
            await client.privatePostOrder({**base, **more})
        with pytest.raises(errors.BaseError, match=code):
            await client.privatePostOrderTest({**base, **more})


async def test_a_market_has_room_for_five_stops(client: Any) -> None:
    trigger = round(await last(client) * 0.9, 2)
    for _ in range(5):
        await client.create_order(SYMBOL, "market", "sell", 0.01, None, {"stopLossPrice": trigger})
    with pytest.raises(errors.ExchangeError, match="MAX_NUM_ALGO_ORDERS"):
        await client.create_order(SYMBOL, "market", "sell", 0.01, None, {"stopLossPrice": trigger})
    await client.create_order(SYMBOL, "market", "sell", 0.01)
