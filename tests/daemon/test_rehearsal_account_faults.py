"""The account under faults, as unmodified ccxt sees it: fees, pieces, transfers, orders by hand, somebody else's orders."""

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import aiohttp
import pytest

from tests.rehearsal_faults import Rehearsal, rehearsal

SYMBOL, MARKET_ID = "BTC/USDT", "BTCUSDT"
BALANCES = {"USDT": Decimal(100_000), "BTC": Decimal(1), "BNB": Decimal(2)}
Client = Any


@pytest.fixture
async def exchange() -> AsyncIterator[Rehearsal]:
    async with rehearsal(symbols=(SYMBOL,), balances=BALANCES) as made:
        yield made


@pytest.fixture
async def client(exchange: Rehearsal) -> Client:
    made = exchange.ccxt()
    await made.load_markets()
    return made


async def resting(client: Client, name: str, quantity: float = 0.01) -> Any:
    price = (await client.fetch_order_book(SYMBOL, 5))["bids"][0][0] * 0.9
    return await client.create_order(SYMBOL, "limit", "buy", quantity, price, {"clientOrderId": name})


async def test_fees_in_a_third_currency(exchange: Rehearsal, client: Client) -> None:
    await exchange.faults.on("fee_bnb", price=500)
    bought = await client.create_order(SYMBOL, "market", "buy", 0.02)
    fee = sum(trade["fee"]["cost"] for trade in bought["trades"])
    assert {trade["fee"]["currency"] for trade in bought["trades"]} == {"BNB"}
    assert fee == pytest.approx(bought["cost"] * 0.001 * 0.75 / 500, rel=1e-3)
    balance = await client.fetch_balance()
    assert balance["BTC"]["total"] == pytest.approx(1.02, abs=1e-12)
    assert balance["BNB"]["total"] == pytest.approx(2 - fee, abs=1e-9)
    await exchange.faults.on("withdraw", asset="BNB", amount=str(Decimal(str(balance["BNB"]["free"]))))
    sold = await client.create_order(SYMBOL, "market", "sell", 0.02)
    assert {trade["fee"]["currency"] for trade in sold["trades"]} == {"USDT"}


async def test_an_execution_in_pieces(exchange: Rehearsal, client: Client) -> None:
    await exchange.faults.on("split_fills", pieces=3)
    order = await client.create_order(SYMBOL, "market", "buy", 0.0001)
    assert order["status"] == "closed" and len(order["trades"]) >= 3
    assert sum(trade["amount"] for trade in order["trades"]) == pytest.approx(0.0001)
    ids = [trade["id"] for trade in order["trades"]]
    assert len(set(ids)) == len(ids)
    paid = sum(trade["fee"]["cost"] for trade in order["trades"])
    assert (await client.fetch_balance())["BTC"]["total"] == pytest.approx(1.0001 - paid, abs=1e-12)


async def test_a_share_of_a_resting_order_is_filled(exchange: Rehearsal, client: Client) -> None:
    await resting(client, "half-1")
    await exchange.faults.on("partial_fill", client_id="half-1", share=0.5)
    found = await client.fetch_order("", SYMBOL, {"clientOrderId": "half-1"})
    assert (found["status"], found["filled"], found["info"]["status"]) == ("open", 0.005, "PARTIALLY_FILLED")
    await exchange.faults.on("partial_fill", share=1)
    assert (await client.fetch_order("", SYMBOL, {"clientOrderId": "half-1"}))["status"] == "closed"


async def test_orders_by_hand(exchange: Rehearsal, client: Client) -> None:
    bought = await exchange.faults.on("manual_order", symbol=SYMBOL, quantity="0.02")
    assert bought["status"] == "FILLED" and bought["clientOrderId"].startswith("web_")
    assert {trade["order"] for trade in await client.fetch_my_trades(SYMBOL)} == {str(bought["orderId"])}
    price = f"{(await client.fetch_order_book(SYMBOL, 5))['bids'][0][0] * 0.9:.2f}"
    rests = await exchange.faults.on("manual_order", type="LIMIT", side="BUY", quantity="0.01", price=price)
    await resting(client, "mine-1")
    assert {order["clientOrderId"] for order in await client.fetch_open_orders(SYMBOL)} == {rests["clientOrderId"], "mine-1"}
    await exchange.faults.on("manual_cancel", client_id="mine-1")
    assert (await client.fetch_order("", SYMBOL, {"clientOrderId": "mine-1"}))["status"] == "canceled"
    await exchange.faults.on("manual_cancel")
    assert await client.fetch_open_orders(SYMBOL) == []


async def test_money_comes_and_goes(exchange: Rehearsal, client: Client) -> None:
    assert await client.fetch_deposits() == await client.fetch_withdrawals() == []
    await exchange.faults.on("deposit", asset="USDT", amount="250.5")
    await exchange.faults.on("withdraw", asset="BTC", amount="0.25")
    (come,), (gone,) = await client.fetch_deposits(), await client.fetch_withdrawals()
    assert (come["currency"], come["amount"], come["status"], come["type"]) == ("USDT", 250.5, "ok", "deposit")
    assert (gone["currency"], gone["amount"], gone["status"], gone["type"]) == ("BTC", 0.25, "ok", "withdrawal")
    assert abs(come["timestamp"] - client.milliseconds()) < 5000 and abs(gone["timestamp"] - client.milliseconds()) < 5000
    assert await client.sapiGetCapitalDepositHisrec({"coin": "BTC"}) == []
    assert len(await client.fetch_withdrawals("BTC", since=come["timestamp"] - 5000)) == 1
    await exchange.faults.on("deposit", asset="USDT", amount="1", silent=True)
    assert len(await client.fetch_deposits()) == 1
    balance = await client.fetch_balance()
    assert (balance["USDT"]["total"], balance["BTC"]["total"]) == (100_251.5, 0.75)


async def test_orders_of_another_account(exchange: Rehearsal, client: Client) -> None:
    await resting(client, "mine-1")
    await exchange.faults.on("foreign_orders", rows=2)
    listed = await client.fetch_open_orders(SYMBOL)
    assert len(listed) == 3 and len({order["clientOrderId"] for order in listed} - {"mine-1"}) == 2
    await exchange.faults.on("foreign_orders", rows=1, instead=True)
    assert [order["clientOrderId"] == "mine-1" for order in await client.fetch_open_orders(SYMBOL)] == [False]
    assert [order["clientOrderId"] for order in await client.fetch_open_orders(SYMBOL)] == ["mine-1"]
    await exchange.faults.on("foreign_orders", match={"call": "order.status"})
    assert (await client.fetch_order("", SYMBOL, {"clientOrderId": "mine-1"}))["clientOrderId"] != "mine-1"


async def test_what_the_key_may_do(exchange: Rehearsal, client: Client) -> None:
    rights = await client.sapiGetAccountApiRestrictions()
    assert rights["enableSpotAndMarginTrading"] is True and rights["enableWithdrawals"] is False
    await exchange.faults.on("key_withdraws")
    assert (await client.sapiGetAccountApiRestrictions())["enableWithdrawals"] is True


async def test_the_truth_is_told_through_every_fault(exchange: Rehearsal, client: Client) -> None:
    await resting(client, "mine-1")
    await exchange.faults.on("order_unseen", seconds=60, lag_s=60)
    await exchange.faults.on("banned_418", seconds=60)
    truth = await exchange.faults.truth()
    assert [order["clientOrderId"] for order in truth["orders"]] == ["mine-1"]
    assert Decimal(truth["balances"]["USDT"]["locked"]) > 0 and truth["trades"] == []


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"{", "is not JSON"),
        (b"[]", "give an object"),
        (b'{"fault": "burts"}', "nearest is burst"),
        (b'{"fault": "withdraw", "asset": "BTC", "amount": "2"}', "only 1"),
        (b'{"fault": "deposit", "amount": "-1"}', "not above 0"),
        (b'{"fault": "manual_order", "symbol": "DOGE/USDT"}', "Invalid symbol"),
        (b'{"fault": "manual_order", "quantity": "2"}', "insufficient balance"),
        (b'{"fault": "print_trade", "side": "LEFT"}', "side of BUY or SELL"),
    ],
)
async def test_bad_requests_get_a_sentence(exchange: Rehearsal, body: bytes, sentence: str) -> None:
    async with aiohttp.ClientSession() as session, session.post(f"{exchange.base_url}/rehearsal/faults", data=body) as answer:
        assert answer.status == 400 and sentence in (await answer.json())["error"]


async def test_nothing_is_there_unless_it_was_asked_for() -> None:
    async with rehearsal(symbols=(SYMBOL,), faults=False) as exchange, aiohttp.ClientSession() as session:
        for path in ("/rehearsal/faults", "/rehearsal/account"):
            async with session.get(exchange.base_url + path) as answer:
                assert answer.status == 404
        async with session.post(f"{exchange.base_url}/rehearsal/faults", json={"fault": "restart"}) as answer:
            assert answer.status == 404
