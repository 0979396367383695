"""Every call of the exchange as a function of its parameters, shared by REST and the websocket API.

`TABLE` maps REST method and path, and the websocket-API method, to the function, its request weight and who may call it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from daemon.rehearsal import capital_calls, market_calls, trade_calls
from daemon.rehearsal.protocol import Params
from daemon.rehearsal.venue import Venue


class Security(Enum):
    """Who may call: anybody, holders of a key, or signed requests."""

    NONE = "none"
    KEY = "key"
    SIGNED = "signed"


Function = Callable[[Venue, Params], object]


@dataclass(frozen=True, slots=True)
class Call:
    """One endpoint. `weight` is a number or a function of the parameters; `method` its name in the websocket API."""

    verb: str
    path: str
    method: str
    security: Security
    weight: int | Callable[[Params], int]
    function: Function
    counts_as_order: bool = False

    @property
    def name(self) -> str:
        """Its name in the websocket API, else its path."""
        return self.method or self.path

    def weight_of(self, params: Params) -> int:
        return self.weight if isinstance(self.weight, int) else self.weight(params)


def _depth_weight(params: Params) -> int:
    limit = params.limit(100, 5000)
    return 5 if limit <= 100 else 25 if limit <= 500 else 50 if limit <= 1000 else 250


def _by_symbol(one: int, every: int) -> Callable[[Params], int]:
    return lambda params: one if "symbol" in params else every


def _own_trades_weight(params: Params) -> int:
    return 5 if "orderId" in params else 20


_N, _K, _S = Security.NONE, Security.KEY, Security.SIGNED
_M, _T, _C = market_calls, trade_calls, capital_calls

CALLS: tuple[Call, ...] = (
    Call("GET", "/api/v3/ping", "ping", _N, 1, _M.ping),
    Call("GET", "/api/v3/time", "time", _N, 1, _M.time),
    Call("GET", "/api/v3/exchangeInfo", "exchangeInfo", _N, 20, _M.exchange_info),
    Call("GET", "/api/v3/depth", "depth", _N, _depth_weight, _M.depth),
    Call("GET", "/api/v3/trades", "trades.recent", _N, 25, _M.trades),
    Call("GET", "/api/v3/historicalTrades", "trades.historical", _N, 25, _M.historical_trades),
    Call("GET", "/api/v3/aggTrades", "trades.aggregate", _N, 4, _M.aggregate_trades),
    Call("GET", "/api/v3/klines", "klines", _N, 2, _M.klines),
    Call("GET", "/api/v3/uiKlines", "uiKlines", _N, 2, _M.klines),
    Call("GET", "/api/v3/avgPrice", "avgPrice", _N, 2, _M.average_price),
    Call("GET", "/api/v3/ticker/24hr", "ticker.24hr", _N, _by_symbol(2, 80), _M.ticker_day),
    Call("GET", "/api/v3/ticker/price", "ticker.price", _N, _by_symbol(2, 4), _M.ticker_price),
    Call("GET", "/api/v3/ticker/bookTicker", "ticker.book", _N, _by_symbol(2, 4), _M.ticker_book),
    Call("POST", "/api/v3/order", "order.place", _S, 1, _T.place, counts_as_order=True),
    Call("POST", "/api/v3/order/test", "order.test", _S, 1, _T.test),
    Call("GET", "/api/v3/order", "order.status", _S, 4, _T.status),
    Call("DELETE", "/api/v3/order", "order.cancel", _S, 1, _T.cancel),
    Call("POST", "/api/v3/order/cancelReplace", "order.cancelReplace", _S, 1, _T.cancel_replace, counts_as_order=True),
    Call("GET", "/api/v3/openOrders", "openOrders.status", _S, _by_symbol(6, 80), _T.open_orders),
    Call("DELETE", "/api/v3/openOrders", "openOrders.cancelAll", _S, 1, _T.cancel_all),
    Call("GET", "/api/v3/allOrders", "allOrders", _S, 20, _T.all_orders),
    Call("GET", "/api/v3/myTrades", "myTrades", _S, _own_trades_weight, _T.own_trades),
    Call("GET", "/api/v3/account", "account.status", _S, 20, _T.account),
    Call("GET", "/api/v3/account/commission", "account.commission", _S, 20, _T.commission),
    Call("GET", "/api/v3/rateLimit/order", "account.rateLimits.orders", _S, 40, _T.order_limits),
    Call("GET", "/sapi/v1/asset/tradeFee", "", _S, 1, _T.trade_fee),
    Call("GET", "/sapi/v1/capital/config/getall", "", _S, 10, _C.coins),
    Call("GET", "/sapi/v1/capital/deposit/hisrec", "", _S, 1, _C.deposits),
    Call("GET", "/sapi/v1/capital/withdraw/history", "", _S, 1, _C.withdrawals),
    Call("GET", "/sapi/v1/account/apiRestrictions", "", _S, 1, _C.restrictions),
    Call("GET", "/sapi/v1/system/status", "", _N, 1, _M.system_status),
    Call("GET", "/sapi/v1/margin/allPairs", "", _K, 1, _M.nothing),
    Call("GET", "/sapi/v1/margin/isolated/allPairs", "", _K, 1, _M.nothing),
    Call("GET", "/fapi/v1/exchangeInfo", "", _N, 1, _M.no_symbols),
    Call("GET", "/dapi/v1/exchangeInfo", "", _N, 1, _M.no_symbols),
)


@dataclass(frozen=True, slots=True)
class Table:
    """The calls by REST verb and path, and by the websocket API's method."""

    by_path: Mapping[tuple[str, str], Call]
    by_method: Mapping[str, Call]
    paths: frozenset[str]

    @classmethod
    def of(cls, calls: Iterable[Call]) -> "Table":
        listed = tuple(calls)
        return cls(
            {(call.verb, call.path): call for call in listed},
            {call.method: call for call in listed if call.method},
            frozenset(call.path for call in listed),
        )


TABLE = Table.of(CALLS)
