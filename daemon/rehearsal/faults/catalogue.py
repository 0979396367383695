"""Every fault by name: where it strikes, how often, what can be said about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType


class Border(Enum):
    """Where a fault strikes."""

    CALL = "call"
    """A REST or websocket-API call: performed or not, its answer is spoiled."""
    RESULT = "result"
    """The content of an answer."""
    STREAM = "stream"
    """One market-data message."""
    PRIVATE = "private"
    """One event of the account's stream."""
    FILL = "fill"
    """One execution of an own order."""
    STATE = "state"
    """A condition that holds for a while."""
    ACTION = "action"
    """Happens at once, and stays in no list."""


Value = str | int | float | bool | None | list[str]
PLACING: Mapping[str, Value] = MappingProxyType({"call": "order.place"})


@dataclass(frozen=True, slots=True)
class Kind:
    """One fault. `count` is how often it strikes unless the request says otherwise (None: until cleared); `match` what it
    strikes; `details` its own fields with their defaults; `chance` whether random mode picks it, and `anywhere` whether it then
    strikes every call, not `match` alone."""

    name: str
    border: Border
    sentence: str
    details: Mapping[str, Value] = field(default_factory=dict)
    match: Mapping[str, Value] = field(default_factory=dict)
    count: int | None = 1
    chance: bool = False
    anywhere: bool = False


def _call(name: str, sentence: str, *, chance: bool = True, match: Mapping[str, Value] = PLACING, **details: Value) -> Kind:
    return Kind(name, Border.CALL, sentence, details, match, chance=chance, anywhere=chance)


_ANY: Mapping[str, Value] = MappingProxyType({"call": "*"})
_SIGNED: Mapping[str, Value] = MappingProxyType({"security": "signed"})
_LOOKUPS: Mapping[str, Value] = MappingProxyType({"call": ["order.status", "openOrders.status", "allOrders", "myTrades"]})
_STATUS: Mapping[str, Value] = MappingProxyType({"call": ["order.place", "order.status", "openOrders.status", "allOrders"]})
_RIGHTS: Mapping[str, Value] = MappingProxyType({"call": "/sapi/v1/account/apiRestrictions"})
_OPEN: Mapping[str, Value] = MappingProxyType({"call": "openOrders.status"})
_DEPTH: Mapping[str, Value] = MappingProxyType({"channel": "depth"})
_KLINE: Mapping[str, Value] = MappingProxyType({"channel": "kline"})
_FIELDS: list[str] = ["status", "executedQty", "cummulativeQuoteQty", "origQty", "price", "type", "side", "timeInForce"]

_CALLS = (
    _call("answer_late", "performed; the answer comes after delay_s", delay_s=15.0),
    _call("accepted_reset", "performed; then the connection is reset without an answer"),
    _call("no_answer", "performed; never answered, the connection stays"),
    _call("empty_answer", "performed; HTTP 200 with an empty body"),
    _call("not_json", "performed; HTTP 200 with a page that is not JSON"),
    _call("timeout_1007", "HTTP 503 with code -1007: status unknown", executed=True),
    _call("http_500", "HTTP 500 page", executed=True),
    _call("http_502", "HTTP 502 page", executed=True),
    _call("http_504", "HTTP 504 page", executed=True),
    _call("http_403", "HTTP 403 page of a firewall", executed=False),
    _call("overload_1008", "HTTP 503 with code -1008: overloaded, not accepted"),
    _call("answered_duplicate", "performed; the answer says that the client order id is a duplicate", chance=False),
    _call("filter_1013", "refused by a filter", filter="NOTIONAL", chance=False),
    _call("key_2015", "refused: the API key is not valid any more", match=_SIGNED, chance=False),
    _call("throttled_429", "refused: too much weight; Retry-After in the headers", match=_ANY, retry_after_s=1),
    _call("banned_418", "refused: the address is banned; Retry-After in the headers", match=_ANY, retry_after_s=2),
)
_RESULTS = (
    Kind("none_fields", Border.RESULT, "fields of the answer are null", {"fields": _FIELDS}, PLACING, chance=True),
    Kind("order_unseen", Border.RESULT, "orders and trades younger than lag_s are not shown", {"lag_s": 3.0}, _LOOKUPS, chance=True),
    Kind("ends_unfilled", Border.RESULT, "orders that filled are shown as canceled with nothing executed", {}, _STATUS, count=None),
    Kind("foreign_orders", Border.RESULT, "orders of another account are listed, or one of them is shown", {"rows": 2, "instead": False}, _OPEN),
    Kind("key_withdraws", Border.RESULT, "the key may withdraw", {}, _RIGHTS, count=None),
)
_STREAMS = (
    Kind("diff_skipped", Border.STREAM, "a depth update is not sent", match=_DEPTH, chance=True),
    Kind("diffs_swapped", Border.STREAM, "two depth updates change places", match=_DEPTH, chance=True),
    Kind("garbage_frame", Border.STREAM, "the text `garbage` instead of a message"),
    Kind("list_frame", Border.STREAM, "the text `[]` instead of a message"),
    Kind("bare_kline", Border.STREAM, "a kline message without its fields", match=_KLINE),
)
_PRIVATE = (
    Kind("private_lost", Border.PRIVATE, "an event is not sent", chance=True),
    Kind("private_duplicated", Border.PRIVATE, "an event is sent twice", chance=True),
    Kind("private_reordered", Border.PRIVATE, "an event is sent after the next one of its kind", chance=True),
    Kind("private_delayed", Border.PRIVATE, "an event is sent after delay_s", {"delay_s": 1.0}, chance=True),
)
_FILLS = (
    Kind("split_fills", Border.FILL, "an execution comes in pieces", {"pieces": 3}, chance=True),
)
_STATES = (
    Kind("stream_silent", Border.STATE, "market data says nothing more; pings are answered", {"seconds": 5.0}, count=None, chance=True),
    Kind("fee_bnb", Border.STATE, "fees are paid in BNB, by its market or at this price, while there is any", {"price": 600.0}, count=None),
    Kind("clock_offset", Border.STATE, "the server's clock is off by offset_ms", {"offset_ms": 2000}, count=None),
    Kind("crossed_book", Border.STATE, "the book shows a bid above its ask", {"seconds": 1.0}, count=None, chance=True),
    Kind("random", Border.STATE, "faults by chance", {"rate": 0.01, "seed": 0, "among": []}, count=None),
)
_ACTIONS = (
    Kind("stream_drop", Border.ACTION, "market-data connections are cut", chance=True),
    Kind("restart", Border.ACTION, "every connection is cut, and dials are refused for seconds", {"seconds": 1.0}),
    Kind("burst", Border.ACTION, "count depth updates at once", {"count": 30_000, "symbol": None}),
    Kind("private_drop", Border.ACTION, "connections of the websocket API are cut", chance=True),
    Kind("private_terminated", Border.ACTION, "eventStreamTerminated, and no event after it", chance=True),
    Kind("deposit", Border.ACTION, "money comes in", {"asset": "USDT", "amount": "1000", "silent": False}),
    Kind("withdraw", Border.ACTION, "money goes out", {"asset": "USDT", "amount": "1000", "silent": False}),
    Kind(
        "manual_order", Border.ACTION, "an order that the account's owner places by hand",
        {"symbol": None, "side": "BUY", "type": "MARKET", "quantity": "0.001", "price": None},
    ),
    Kind("manual_cancel", Border.ACTION, "the owner cancels an order by hand, or all that are open", {"client_id": None, "symbol": None}),
    Kind("partial_fill", Border.ACTION, "a share of what is left of open orders is filled", {"client_id": None, "symbol": None, "share": 0.5}),
    Kind("print_trade", Border.ACTION, "a public trade", {"symbol": None, "price": None, "quantity": "0.001", "side": "SELL"}),
)  # fmt: skip

KINDS: Mapping[str, Kind] = MappingProxyType(
    {kind.name: kind for kind in (*_CALLS, *_RESULTS, *_STREAMS, *_PRIVATE, *_FILLS, *_STATES, *_ACTIONS)}
)
