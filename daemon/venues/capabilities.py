"""What an exchange can do for the safety of orders: read from ccxt, completed by a reviewed table, overridable by settings.

Pure: builds a ccxt object to read it, dials nothing. A missing capability is a sentence that `missing` gives.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import ccxt.async_support

from agents.core.errors import ConfigError
from daemon.venues.client import REHEARSAL, REHEARSAL_PROTOCOL, Exchange, exchange_class
from daemon.venues.client_ids import NAMED, IdRule

BY_RECORD, BY_LISTS, NO_LOOKUP = "record", "lists", ""
TABLE = (
    "binance", "okx", "kraken", "coinbase", "bybit", "kucoin", "gate", "bitget", "mexc", "htx", "bitfinex", "cryptocom",
)  # fmt: skip
"""Exchanges that docs/capabilities.md shows."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """One exchange's spot side. Seconds are real seconds."""

    exchange: str
    client_id: IdRule | None = None
    """How our client order ids are spelled there; None: it takes none that ours would fit into, or nobody has looked."""
    lookup: str = NO_LOOKUP
    """How an order is found by its client id: `record` (asked for by it), `lists` (searched for), or not at all."""
    open_orders: bool = False
    own_trades: bool = False
    trades_cursor: str = ""
    """What own trades are paged by: `id`, `time`, or nothing."""
    balances: bool = False
    post_only: bool = False
    reduce_only: bool = True
    """Spot cannot be sold short, so selling what is held is reduce-only by itself."""
    amend: bool = False
    stop_orders: bool = False
    """Whether a protective stop rests there under the same ids and calls as any other order."""
    dead_man: bool = False
    """Whether the exchange itself cancels our spot orders when a heartbeat stops coming."""
    websocket_orders: bool = False
    websocket_reviewed: bool = False
    """Whether somebody has tried its websocket orders with this daemon; `auto` takes the websocket only then."""
    server_time: bool = False
    request_window_s: float | None = None
    """How long it may sit on a signed request and still take it; None: as long as it likes."""


@dataclass(frozen=True, slots=True)
class _Reviewed:
    """What ccxt does not tell, from the exchange's own documentation, reviewed for ccxt 4.5."""

    client_id: IdRule | None
    lookup: str
    window_s: float | None
    stops_alike: bool = False
    dead_man: bool = False
    trades_cursor: str = "time"
    websocket: bool = False


_REVIEWED: dict[str, _Reviewed] = {
    "binance": _Reviewed(NAMED["plain36"], BY_RECORD, 10.0, stops_alike=True, trades_cursor="id", websocket=True),
    "okx": _Reviewed(NAMED["letters32"], BY_RECORD, 30.0, dead_man=True),
    "kraken": _Reviewed(NAMED["uuid"], BY_LISTS, None, stops_alike=True, dead_man=True),
    "coinbase": _Reviewed(NAMED["plain36"], BY_LISTS, 120.0, stops_alike=True),
    "bybit": _Reviewed(NAMED["plain36"], BY_LISTS, 5.0),  # its disconnect switch is no heartbeat
    "kucoin": _Reviewed(NAMED["plain40"], BY_RECORD, 5.0),
    "gate": _Reviewed(NAMED["t-28"], BY_RECORD, 60.0),
    "bitget": _Reviewed(NAMED["plain36"], BY_RECORD, 30.0),
    "mexc": _Reviewed(NAMED["plain32"], BY_RECORD, 5.0),
    "htx": _Reviewed(NAMED["plain36"], BY_RECORD, 300.0, dead_man=True),
    "bitfinex": _Reviewed(None, NO_LOOKUP, None, stops_alike=True),  # its client ids are numbers of 45 bits, unique for a day
    "cryptocom": _Reviewed(NAMED["plain36"], BY_LISTS, 60.0),
}
_SAME = {
    "binanceus": "binance", "myokx": "okx", "okxus": "okx", "bybiteu": "bybit", "bybitid": "bybit", "gateio": "gate",
    "gateeu": "gate", "huobi": "htx", REHEARSAL: "binance",
}  # fmt: skip
"""Classes that speak another one's protocol."""
_LISTS = ("fetchOrders", "fetchClosedOrders", "fetchCanceledOrders", "fetchCanceledAndClosedOrders")


def read(exchange: Exchange, overrides: Mapping[str, Any] | None = None) -> Capabilities:
    """What this ccxt object says of itself, with what was reviewed and what the operator overrides.

    Raises ConfigError for an override that is not a capability or not of its kind.
    """
    has: Mapping[str, Any] = exchange.has or {}
    spot = ((getattr(exchange, "features", None) or {}).get("spot") or {}).get("createOrder") or {}
    reviewed = _REVIEWED.get(_SAME.get(exchange.id, exchange.id), _Reviewed(None, NO_LOOKUP, None))
    lists = bool(has.get("fetchOpenOrders")) and any(has.get(name) is True for name in _LISTS)
    lookup = reviewed.lookup if reviewed.lookup != BY_LISTS or lists else NO_LOOKUP
    stop = bool(spot.get("stopLossPrice") or spot.get("triggerPrice"))
    found = Capabilities(
        exchange.id, reviewed.client_id, lookup,
        open_orders=bool(has.get("fetchOpenOrders")),
        own_trades=bool(has.get("fetchMyTrades")),
        trades_cursor=reviewed.trades_cursor if has.get("fetchMyTrades") else "",
        balances=bool(has.get("fetchBalance")),
        post_only=bool((spot.get("timeInForce") or {}).get("PO") or has.get("createPostOnlyOrder")),
        amend=has.get("editOrder") is True,
        stop_orders=stop and reviewed.stops_alike,
        dead_man=bool(has.get("cancelAllOrdersAfter")) and reviewed.dead_man,
        websocket_orders=bool(has.get("createOrderWs")) and bool(has.get("cancelOrderWs")),
        websocket_reviewed=bool(has.get("createOrderWs")) and reviewed.websocket,
        server_time=has.get("fetchTime") is True,
        request_window_s=reviewed.window_s,
    )  # fmt: skip
    return _overridden(found, overrides or {})


def of(exchange_id: str, overrides: Mapping[str, Any] | None = None) -> Capabilities:
    """The capabilities of a ccxt id (or `rehearsal`), without dialling anything. Raises ConfigError as `read` does."""
    protocol = REHEARSAL_PROTOCOL if exchange_id == REHEARSAL else exchange_id
    return read(exchange_class(protocol)(), overrides)


def missing(caps: Capabilities) -> list[str]:
    """What the safety of real orders needs and this exchange lacks, one sentence each; empty when nothing is."""
    needs = (
        (caps.client_id is not None, "no client order id that ours fits into is known of it, so an order without an answer could not be found again"),
        (caps.lookup != NO_LOOKUP, "an order cannot be looked up by its client order id"),
        (caps.open_orders, "it does not list open orders"),
        (caps.own_trades, "it does not list own trades, the only source of fills"),
        (caps.balances, "it does not tell balances"),
        (caps.post_only, "it has no post-only orders, so a quote could take"),
    )  # fmt: skip
    return [sentence for there, sentence in needs if not there]


def refuse_unsafe(caps: Capabilities) -> None:
    """Raise ConfigError where `missing` finds something, naming the exchange and all that it lacks."""
    if lacks := missing(caps):
        raise ConfigError(
            f"exchange.id: {caps.exchange} lacks what real orders need: {'; '.join(lacks)}. Choose another exchange, or, where this is"
            " no longer so, say it in exchange.capabilities"
        )


def table(ids: Iterable[str] = TABLE) -> list[dict[str, Any]]:
    """One plain row per exchange, for people and for JSON."""
    return [_row(of(exchange_id)) for exchange_id in ids]


def render(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of `table` as a Markdown table: exchanges down, capabilities across."""
    columns = [name for name in rows[0] if name != "missing"] if rows else []
    lines = ["| " + " | ".join(name.replace("_", " ") for name in columns) + " | real orders |", "|" + "---|" * (len(columns) + 1)]
    for row in rows:
        cells = [_cell(row[name]) for name in columns]
        lines.append("| " + " | ".join([*cells, "refused" if row["missing"] else "yes"]) + " |")
    return "\n".join(lines) + "\n"


def document() -> str:
    """docs/capabilities.md, whole."""
    rows = table()
    refusals = [f"- **{row['exchange']}**: {sentence}" for row in rows for sentence in row["missing"]]
    return _DOCUMENT.format(version=ccxt.async_support.__version__, table=render(rows), refusals="\n".join(refusals))


def _row(caps: Capabilities) -> dict[str, Any]:
    row: dict[str, Any] = {field.name: getattr(caps, field.name) for field in fields(caps)}
    row["client_id"] = caps.client_id.name if caps.client_id else ""
    return {**row, "missing": missing(caps)}


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "-"
    return f"{value:g} s" if isinstance(value, float) else str(value or "-")


def _overridden(caps: Capabilities, overrides: Mapping[str, Any]) -> Capabilities:
    changes: dict[str, Any] = {}
    known = {field.name for field in fields(Capabilities)} - {"exchange"}
    for name, value in overrides.items():
        if name not in known:
            raise ConfigError(f"exchange.capabilities: there is no {name!r}; there are {', '.join(sorted(known))}")
        changes[name] = _checked(name, value, getattr(Capabilities("", None), name))
    return replace(caps, **changes)


def _checked(name: str, value: Any, default: Any) -> Any:
    if name == "client_id":
        if value in (None, ""):
            return None
        if value in NAMED:
            return NAMED[value]
        raise ConfigError(f"exchange.capabilities.client_id: {value!r} is none of {', '.join(NAMED)}")
    if name == "request_window_s":
        if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and value > 0):
            return None if value is None else float(value)
        raise ConfigError(f"exchange.capabilities.request_window_s: {value!r} is not a number of seconds")
    choices = {"lookup": (BY_RECORD, BY_LISTS, NO_LOOKUP), "trades_cursor": ("id", "time", "")}.get(name)
    if choices is not None and value not in choices:
        raise ConfigError(f"exchange.capabilities.{name}: {value!r} is none of {', '.join(repr(c) for c in choices)}")
    if isinstance(default, bool) and not isinstance(value, bool):
        raise ConfigError(f"exchange.capabilities.{name}: {value!r} is neither true nor false")
    return value


_DOCUMENT = """# What exchanges can do

Written by `python -m daemon.venues.capabilities` from ccxt {version}; `tests/daemon/test_venue_capabilities.py` fails when it is out of date.
`quartet trade --live` refuses an exchange that lacks what real orders need, and names it. What is wrong here, or has changed, can be
said in `exchange.capabilities`.

{table}
- *client id*: how our client order ids are spelled there (`daemon/venues/client_ids.py`).
- *lookup*: `record`: an order is asked for by its client id; `lists`: the lists of open and past orders are searched for it.
- *reduce only*: spot needs none; what is held can only be sold.
- *stop orders*: a protective stop can rest there under the same calls as any other order; elsewhere the daemon holds it.
- *dead man*: the exchange cancels our spot orders when our heartbeat stops. It cancels the account's other orders too.
- *websocket orders*: the websocket API takes orders; *reviewed*: `exchange.orders_over: auto` uses it. Where it is not reviewed, `websocket` does.
- *request window*: how long the exchange may sit on a signed request and still take it. `-`: no bound is known, and an order without an
  answer is looked for longer.

Refused, and why:

{refusals}

**What was tried.** Only Binance's protocol, against the rehearsal exchange and a second server of it. Of okx, kraken, gate, bitget,
kucoin and htx the client ids and heartbeats were looked up; the client ids of mexc, cryptocom, bybit and coinbase and most request
windows are from general knowledge of their documentation. Check yours on its testnet with `quartet doctor --live` and `quartet drill`
before real money.
"""


def main() -> None:
    """Print docs/capabilities.md."""
    print(document(), end="")


if __name__ == "__main__":
    main()
