"""A small Binance-spot server that misbehaves on request; the client under test is ccxt, unmodified."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from aiohttp import WSMsgType, web

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
NAMES = ("BTCUSDT", "ETHUSDT")
ASKED: web.RequestKey[dict[str, str]] = web.RequestKey("asked", dict)
STEP = {"1m": 60_000, "15m": 900_000, "1h": 3_600_000, "4h": 14_400_000, "1d": 86_400_000}


def error(code: int, message: str, status: int = 400, **headers: str) -> web.Response:
    return web.json_response({"code": code, "msg": message}, status=status, headers=headers)


def listing(name: str, status: str = "TRADING") -> dict[str, Any]:
    return {
        "symbol": name, "status": status, "baseAsset": name[:-4], "quoteAsset": "USDT", "baseAssetPrecision": 8,
        "quoteAssetPrecision": 8, "quotePrecision": 8, "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET"], "icebergAllowed": False,
        "isSpotTradingAllowed": True, "isMarginTradingAllowed": False, "permissions": ["SPOT"], "permissionSets": [["SPOT"]],
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000.00", "tickSize": "0.01"},
            {"filterType": "LOT_SIZE", "minQty": "0.00010", "maxQty": "9000.0", "stepSize": "0.00010"},
            {"filterType": "NOTIONAL", "minNotional": "5.0", "applyMinToMarket": True, "maxNotional": "9000000.0"},
        ],
    }  # fmt: skip


@dataclass
class Market:
    """One symbol's public state."""

    update_id: int = 100
    bids: dict[str, str] = field(default_factory=lambda: {"99.00": "1.0", "98.00": "2.0"})
    asks: dict[str, str] = field(default_factory=lambda: {"101.00": "1.0", "102.00": "2.0"})
    trades: list[dict[str, Any]] = field(default_factory=list)


class ScriptedBinance:
    """State, faults and sockets of one server. Times of trades are real."""

    def __init__(self) -> None:
        self.markets = {name: Market() for name in NAMES}
        self.listings = {name: listing(name) for name in NAMES}
        self.balances = {"USDT": "1000.0", "BTC": "0.0"}
        self.orders: list[dict[str, Any]] = []
        self.my_trades: list[dict[str, Any]] = []
        self.deposits: list[dict[str, Any]] = []
        self.withdrawals: list[dict[str, Any]] = []
        self.on_order: list[Callable[[dict[str, str], web.Request], Awaitable[web.StreamResponse | None]]] = []
        """Faults of the next order requests, in turn; None goes on as if there were no fault."""
        self.hosts: set[str] = set()
        self.calls: list[tuple[str, str, dict[str, str]]] = []
        self.mute = False
        """Streams say nothing more, pings are still answered."""
        self.refuse: dict[str, Callable[[], web.Response]] = {}
        """Path -> answer instead of the real one."""
        self.sockets: dict[web.WebSocketResponse, set[str]] = {}
        self.users: set[web.WebSocketResponse] = set()
        self.candles_until = 0
        self.port = 0
        self._runner: web.AppRunner | None = None

    # -- life ----------------------------------------------------------------------------------------------------

    async def start(self, ssl: Any = None) -> None:
        app = web.Application()
        for path, answer in {
            "ping": self._ping, "time": self._time, "exchangeInfo": self._info, "depth": self._depth, "trades": self._trades,
            "klines": self._klines, "account": self._account, "openOrders": self._open_orders, "myTrades": self._my_trades, "allOrders": self._all_orders,
        }.items():  # fmt: skip
            app.router.add_get(f"/api/v3/{path}", self._guarded(path, answer))
        app.router.add_post("/api/v3/order", self._guarded("order", self._post_order))
        app.router.add_get("/api/v3/order", self._guarded("order", self._get_order))
        app.router.add_delete("/api/v3/order", self._guarded("order", self._delete_order))
        app.router.add_get("/sapi/v1/capital/deposit/hisrec", self._guarded("deposits", self._deposits))
        app.router.add_get("/sapi/v1/capital/withdraw/history", self._guarded("withdrawals", self._withdrawals))
        for path in ("/stream/ws/{n}", "/ws/{n}"):
            app.router.add_get(path, self._stream)
        app.router.add_get("/ws-api/v3", self._user)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=ssl, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        await self.drop()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def drop(self) -> None:
        """Cut every stream."""
        for socket in [*self.sockets, *self.users]:
            if socket._req is not None and socket._req.transport is not None:
                socket._req.transport.abort()
        self.sockets.clear()
        self.users.clear()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # -- what happens on the market ---------------------------------------------------------------------------------

    async def trade(self, name: str, price: str = "100.0", quantity: str = "0.1", count: int = 1, tell: bool = True) -> None:
        """Print `count` trades with consecutive ids."""
        market = self.markets[name]
        for _ in range(count):
            trade = {"id": len(market.trades) + 1, "price": price, "qty": quantity, "quoteQty": "1", "time": _ms(),
                     "isBuyerMaker": False, "isBestMatch": True}  # fmt: skip
            market.trades.append(trade)
            if tell:
                await self.say(f"{name.lower()}@trade", {
                    "e": "trade", "E": trade["time"], "s": name, "t": trade["id"], "p": price, "q": quantity,
                    "T": trade["time"], "m": False, "M": True,
                })  # fmt: skip

    async def quote(self, name: str, bid_quantity: str, skip: int = 0, tell: bool = True) -> None:
        """Change the best bid's quantity; `skip` loses that many diffs on the way."""
        market = self.markets[name]
        market.update_id += skip + 1
        market.bids["99.00"] = bid_quantity
        if tell:
            await self.say(f"{name.lower()}@depth@100ms", {
                "e": "depthUpdate", "E": _ms(), "s": name, "U": market.update_id, "u": market.update_id,
                "b": [["99.00", bid_quantity]], "a": [],
            })  # fmt: skip

    async def say(self, stream: str, payload: Any) -> None:
        for socket, streams in list(self.sockets.items()):
            if stream in streams and not self.mute:
                await self._send(socket, payload if isinstance(payload, str) else json.dumps(payload))

    async def garbage(self, text: str) -> None:
        for socket in list(self.sockets):
            await self._send(socket, text)

    async def report(self, order: dict[str, Any], trade: dict[str, Any] | None = None) -> None:
        """Tell the private streams about an order."""
        event = {
            "e": "executionReport", "E": _ms(), "s": order["symbol"], "c": order["clientOrderId"], "S": order["side"],
            "o": order["type"], "f": "GTC", "q": order["origQty"], "p": order["price"], "P": "0", "F": "0", "g": -1, "C": "",
            "x": "TRADE" if trade else "NEW", "X": order["status"], "r": "NONE", "i": order["orderId"],
            "l": trade["qty"] if trade else "0", "z": order["executedQty"], "L": trade["price"] if trade else "0", "n": "0",
            "N": None, "T": _ms(), "t": trade["id"] if trade else -1, "I": 1, "w": True, "m": False, "M": False,
            "O": order["time"], "Z": "0", "Y": "0", "Q": "0",
        }  # fmt: skip
        for socket in list(self.users):
            await self._send(socket, json.dumps({"subscriptionId": 0, "event": event}))

    def fill(self, order: dict[str, Any], quantity: str, fee: str = "0.0001", asset: str = "BTC") -> dict[str, Any]:
        """Execute part of an order."""
        done = float(order["executedQty"]) + float(quantity)
        order["executedQty"] = f"{done:.5f}"
        order["status"] = "FILLED" if done >= float(order["origQty"]) - 1e-12 else "PARTIALLY_FILLED"
        trade = {
            "symbol": order["symbol"], "id": 500 + len(self.my_trades), "orderId": order["orderId"], "price": order["price"],
            "qty": quantity, "quoteQty": "1", "commission": fee, "commissionAsset": asset, "time": _ms(),
            "isBuyer": order["side"] == "BUY", "isMaker": True, "isBestMatch": True,
        }  # fmt: skip
        self.my_trades.append(trade)
        return trade

    def add_order(self, query: dict[str, str]) -> dict[str, Any]:
        order = {
            "symbol": query["symbol"], "orderId": 1000 + len(self.orders), "clientOrderId": query["newClientOrderId"],
            "price": query.get("price", "0"), "origQty": query["quantity"], "executedQty": "0.00000", "status": "NEW",
            "cummulativeQuoteQty": "0", "timeInForce": query.get("timeInForce", "GTC"), "type": query["type"],
            "side": query["side"], "time": _ms(), "updateTime": _ms(), "transactTime": _ms(), "isWorking": True,
        }  # fmt: skip
        self.orders.append(order)
        return order

    # -- REST -------------------------------------------------------------------------------------------------------

    def _guarded(self, path: str, answer: Answer) -> Answer:
        async def guarded(request: web.Request) -> web.StreamResponse:
            self.hosts.add(request.host)
            self.calls.append((request.method, path, await _query(request)))
            fault = self.refuse.get(f"{request.method} {path}") or self.refuse.get(path)
            return fault() if fault is not None else await answer(request)

        return guarded

    async def _ping(self, request: web.Request) -> web.Response:
        return web.json_response({})

    async def _time(self, request: web.Request) -> web.Response:
        return web.json_response({"serverTime": _ms()})

    async def _info(self, request: web.Request) -> web.Response:
        return web.json_response({"timezone": "UTC", "serverTime": _ms(), "symbols": list(self.listings.values())})

    async def _depth(self, request: web.Request) -> web.Response:
        market = self.markets[request.query["symbol"]]
        sides = {"bids": [list(x) for x in market.bids.items()], "asks": [list(x) for x in market.asks.items()]}
        return web.json_response({"lastUpdateId": market.update_id, **sides})

    async def _trades(self, request: web.Request) -> web.Response:
        trades = self.markets[request.query["symbol"]].trades
        return web.json_response(trades[-int(request.query.get("limit", 500)) :])

    async def _klines(self, request: web.Request) -> web.Response:
        step = STEP[request.query["interval"]]
        limit = int(request.query.get("limit", 500))
        newest = _ms() // step * step
        start = int(request.query.get("startTime", newest - (limit - 1) * step))
        start = max(-(-start // step) * step, newest - 50 * step)  # only so much is known
        times = range(start, newest + 1, step)[:limit]
        return web.json_response([[t, "100", "101", "99", "100.5", "10", t + step - 1, "1", 1, "1", "1", "0"] for t in times])

    async def _account(self, request: web.Request) -> web.Response:
        balances = [{"asset": asset, "free": free, "locked": "0.0"} for asset, free in self.balances.items()]
        return web.json_response({"makerCommission": 10, "takerCommission": 10, "balances": balances, "accountType": "SPOT"})

    async def _open_orders(self, request: web.Request) -> web.Response:
        name = request.query.get("symbol")
        there = [o for o in self.orders if o["status"] in ("NEW", "PARTIALLY_FILLED") and name in (None, o["symbol"])]
        return web.json_response(there)

    async def _all_orders(self, request: web.Request) -> web.Response:
        there = [o for o in self.orders if o["symbol"] == request.query["symbol"] and o["time"] >= int(request.query.get("startTime", 0))]
        return web.json_response(there[: int(request.query.get("limit", 500))])

    async def _deposits(self, request: web.Request) -> web.Response:
        return web.json_response(self.deposits)

    async def _withdrawals(self, request: web.Request) -> web.Response:
        return web.json_response(self.withdrawals)

    async def _my_trades(self, request: web.Request) -> web.Response:
        trades = [t for t in self.my_trades if t["symbol"] == request.query["symbol"]]
        trades = [t for t in trades if t["id"] >= int(request.query.get("fromId", 0))]
        if "orderId" in request.query:
            trades = [t for t in trades if t["orderId"] == int(request.query["orderId"])]
        limit = int(request.query.get("limit", 500))
        return web.json_response(trades[:limit] if "fromId" in request.query else trades[-limit:])

    async def _post_order(self, request: web.Request) -> web.StreamResponse:
        query = await _query(request)
        if self.on_order:
            answer = await self.on_order.pop(0)(query, request)
            if answer is not None:
                return answer
        return web.json_response({**self.add_order(query), "fills": []})

    async def _get_order(self, request: web.Request) -> web.Response:
        order = self._find(request.query)
        return error(-2013, "Order does not exist.") if order is None else web.json_response(order)

    async def _delete_order(self, request: web.Request) -> web.Response:
        order = self._find(await _query(request))
        if order is None or order["status"] not in ("NEW", "PARTIALLY_FILLED"):
            return error(-2011, "Unknown order sent.")
        order["status"] = "CANCELED"
        return web.json_response({**order, "origClientOrderId": order["clientOrderId"], "clientOrderId": "of-the-cancel"})

    def _find(self, query: Any) -> dict[str, Any] | None:
        for order in self.orders:
            if str(order["orderId"]) == query.get("orderId") or order["clientOrderId"] == query.get("origClientOrderId"):
                return order
        return None

    # -- sockets ----------------------------------------------------------------------------------------------------

    async def _stream(self, request: web.Request) -> web.WebSocketResponse:
        self.hosts.add(request.host)
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        self.sockets[socket] = set()
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                said = json.loads(message.data)
                if said["method"] == "SUBSCRIBE":
                    self.sockets.setdefault(socket, set()).update(said["params"])
                    await socket.send_str(json.dumps({"result": None, "id": said["id"]}))
        self.sockets.pop(socket, None)
        return socket

    async def _user(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                said = json.loads(message.data)
                self.users.add(socket)
                await socket.send_str(json.dumps({"id": said["id"], "status": 200, "result": {"subscriptionId": 0}}))
        self.users.discard(socket)
        return socket

    async def _send(self, socket: web.WebSocketResponse, text: str) -> None:
        try:
            await socket.send_str(text)
        except (ConnectionError, RuntimeError):
            self.sockets.pop(socket, None)
            self.users.discard(socket)


@asynccontextmanager
async def scripted_binance(ssl: Any = None) -> Any:
    server = ScriptedBinance()
    await server.start(ssl)
    try:
        yield server
    finally:
        await server.stop()


async def until(condition: Callable[[], Any], timeout_s: float = 8.0) -> Any:
    """Wait for a condition on what has arrived; fails loudly."""
    async with asyncio.timeout(timeout_s):
        while not (found := condition()):
            await asyncio.sleep(0.01)
    return found


async def _query(request: web.Request) -> dict[str, str]:
    if ASKED not in request:
        request[ASKED] = dict(parse_qsl(request.query_string)) | dict(parse_qsl(await request.text()))
    return request[ASKED]


def _ms() -> int:
    return time.time_ns() // 1_000_000
