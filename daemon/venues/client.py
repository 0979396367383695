"""Builds ccxt exchange objects: any id, spot only, pointed at the real exchange or at another server of its protocol."""

import asyncio
import difflib
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

import aiohttp
import ccxt.async_support
import ccxt.pro
from aiohttp.abc import AbstractResolver, ResolveResult

from agents.core.errors import ConfigError
from daemon.venues.budget import budget_for, govern, shared_place

REHEARSAL = "rehearsal"
"""The built-in exchange's id. It speaks Binance's protocol and exists on loopback only."""
REHEARSAL_PROTOCOL = "binance"
PROBE_S = 3.0
TRADES_LIMIT = 20_000
"""Prints that ccxt may hold for one symbol between two looks; we empty its cache at each look, so this costs nothing."""

Exchange = Any
"""A ccxt exchange object; ccxt ships no types."""
ClientFactory = Callable[[], Exchange]


@dataclass(frozen=True, slots=True)
class ExchangeOptions:
    """Which exchange and how to reach it. Keys are empty in any session that only reads."""

    id: str
    base_url: str | None = None
    ca_file: Path | None = None
    api_key: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    timeout_ms: int = 10_000
    stream_prefix: str = "/stream"
    """Path before /ws of Binance's spot streams at `base_url`; see `with_stream_path`."""
    weight_share: float = 0.8
    """Part of the exchange's request budget that this machine uses."""

    def without_keys(self) -> "ExchangeOptions":
        """The same exchange for market data."""
        return replace(self, api_key="", secret="", password="")


class OneHostResolver(AbstractResolver):
    """Answers every name with one address and port, so that ccxt's own URLs lead to another server."""

    def __init__(self, address: str, port: int) -> None:
        self._address, self._port = address, port

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        """The one address, whatever was asked."""
        kind = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        return [ResolveResult(hostname=host, host=self._address, port=self._port, family=kind, proto=0, flags=0)]

    async def close(self) -> None:
        """Nothing is held."""


def addresses_of(host: str) -> list[str]:
    """Addresses a host name stands for, in the resolver's order; raises ConfigError when there are none."""
    try:
        return [str(info[4][0]) for info in socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)]
    except OSError as error:
        raise ConfigError(f"exchange.base_url: the host {host!r} cannot be resolved ({error}); correct the name") from error


def dials_loopback(options: ExchangeOptions) -> bool:
    """Whether every connection of this exchange object stays on this machine, judged by the addresses it would dial."""
    if options.base_url is None:
        return False
    host = urlsplit(options.base_url).hostname or ""
    return all(ipaddress.ip_address(address.split("%")[0]).is_loopback for address in addresses_of(host))


def build_client(options: ExchangeOptions) -> Exchange:
    """A ccxt.pro exchange object (REST-only where ccxt has no websocket class), not yet connected.

    Must be called inside a running event loop. Raises ConfigError for an unknown id or an address that must not be dialled.
    """
    _refuse_bad_address(options)
    protocol = REHEARSAL_PROTOCOL if options.id == REHEARSAL else options.id
    local = dials_loopback(options)
    config: dict[str, Any] = {
        "timeout": options.timeout_ms,
        "enableRateLimit": not local,  # a local server paces nobody; 429 is honoured all the same
        "aiohttp_trust_env": False,
        "options": _spot_only(protocol),
    }
    keys = {"apiKey": options.api_key, "secret": options.secret, "password": options.password}
    config |= {name: value for name, value in keys.items() if value}
    if (options.base_url or "").startswith("http://"):
        config["verify"] = False  # there is nothing to verify on plain http; loading the certificates takes 50 ms each time
    if options.ca_file is not None:
        config["session"] = _session(options)
    exchange = exchange_class(protocol)(config)
    exchange.enableLastHttpResponse = exchange.enableLastJsonResponse = False  # bodies of megabytes, kept for nobody
    if local:
        exchange.timeout_on_exit = 0
        exchange.has["fetchCurrencies"] = False
    if options.base_url is not None and options.ca_file is None:
        exchange.urls = {**exchange.urls, "api": rewritten(exchange.urls["api"], urlsplit(options.base_url), options.stream_prefix)}
        if not options.stream_prefix:
            exchange.is_spot_url = lambda client: True  # this object reads spot streams only, and the path cannot tell
    govern(exchange, budget_for(exchange, _host(exchange, options), options.weight_share, shared_place(not local)))
    silence_logins(exchange)
    return exchange


def silence_logins(exchange: Exchange) -> None:
    """Let nobody be told of a private stream's failed login twice.

    ccxt keeps a future for others who wait for the same login; when it fails and nobody waits, asyncio complains of an exception that
    was never retrieved. The caller who logged in has it already. Only these futures are touched.
    """
    if not hasattr(exchange, "client"):
        return
    make = exchange.client

    def client(url: str) -> Any:
        connection = make(url)
        if "future" not in vars(connection):
            future = connection.future

            def kept(message_hash: str) -> Any:
                found = future(message_hash)
                if str(message_hash).startswith("authenticate"):
                    found.remove_done_callback(_retrieved)
                    found.add_done_callback(_retrieved)
                return found

            connection.future = kept
        return connection

    exchange.client = client


async def close_client(exchange: Exchange, timeout_s: float = 3.0) -> None:
    """Release everything an exchange object holds; never raises and never hangs."""
    session = None if exchange.own_session else exchange.session
    for closing in (exchange.close, session.close if session is not None else None):
        if closing is not None:
            await _quietly(closing, timeout_s)


async def with_stream_path(options: ExchangeOptions) -> ExchangeOptions:
    """The options with the path at which the server of `base_url` takes Binance's spot streams.

    ccxt tells spot from futures by the word /stream in the address, while Binance itself serves /ws: some servers of the protocol
    have both, some only one. Asked once; where neither answers, what ccxt expects stands.
    """
    protocol = REHEARSAL_PROTOCOL if options.id == REHEARSAL else options.id
    if options.base_url is None or options.ca_file is not None or protocol != REHEARSAL_PROTOCOL:
        return options
    _refuse_bad_address(options)
    base = urlsplit(options.base_url)
    scheme = "wss" if base.scheme == "https" else "ws"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PROBE_S)) as session:
        for prefix in ("/stream", ""):
            address = urlunsplit((scheme, base.netloc, f"{base.path.rstrip('/')}{prefix}/ws/1", "", ""))
            with suppress(aiohttp.ClientError, TimeoutError, OSError):
                async with session.ws_connect(address):
                    return replace(options, stream_prefix=prefix)
    return options


def rewritten(urls: Any, base: SplitResult, stream_prefix: str = "/stream") -> Any:
    """ccxt's URL tree with scheme and host replaced, paths kept.

    Hosts that serve market streams get a path prefix, because ccxt tells Binance's spot streams by the word /stream.
    """
    if isinstance(urls, dict):
        return {name: rewritten(value, base, stream_prefix) for name, value in urls.items()}
    if not isinstance(urls, str) or "://" not in urls:
        return urls
    parts = urlsplit(urls)
    secure = base.scheme == "https"
    scheme = {"ws": "wss" if secure else "ws"}.get(parts.scheme[:2], base.scheme)
    prefix = base.path.rstrip("/")
    if parts.scheme.startswith("ws") and "stream" in parts.netloc and "/stream" not in parts.path:
        prefix += stream_prefix
    return urlunsplit((scheme, base.netloc, prefix + parts.path, parts.query, ""))


def nearest(word: str, known: list[str], what: str) -> str:
    """A sentence that names the nearest known ones."""
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    upper = {name.upper(): name for name in known}
    close = close or [upper[name] for name in difflib.get_close_matches(word.upper(), list(upper), n=3, cutoff=0.5)]
    return f"; did you mean {' or '.join(close)}?" if close else f"; there are {len(known)} known {what}, none like it"


def exchange_class(protocol: str) -> Any:
    """ccxt's class of an id, with websockets where it has them. Raises ConfigError naming the nearest known ones."""
    known = sorted(set(ccxt.pro.exchanges) | set(ccxt.async_support.exchanges))
    if protocol not in known:
        raise ConfigError(f"exchange.id: {protocol!r} is not an exchange that ccxt knows{nearest(protocol, known, 'exchanges')}")
    module = ccxt.pro if protocol in ccxt.pro.exchanges else ccxt.async_support
    return getattr(module, protocol)


def _spot_only(protocol: str) -> dict[str, Any]:
    options: dict[str, Any] = {
        "defaultType": "spot",
        "fetchMarkets": {"types": ["spot"]},
        "fetchMargins": False,
        "fetchCurrencies": False,
        "tradesLimit": TRADES_LIMIT,
        "warnOnFetchOpenOrdersWithoutSymbol": False,
    }
    if protocol.startswith("binance"):
        options["fetchTradesMethod"] = "publicGetTrades"  # the ids of the trade stream; the default gives aggregates
    return options


def _refuse_bad_address(options: ExchangeOptions) -> None:
    if options.base_url is None:
        if options.id == REHEARSAL:
            raise ConfigError("exchange.id: rehearsal needs exchange.base_url, the address of a running rehearsal exchange")
        if options.ca_file is not None:
            raise ConfigError("exchange.ca_file is set without exchange.base_url; give both or neither")
        return
    parts = urlsplit(options.base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"exchange.base_url: {options.base_url!r} is not the address of a server; write http://127.0.0.1:PORT")
    local = dials_loopback(options)
    if parts.scheme == "http" and not local:
        raise ConfigError(f"exchange.base_url: plain http is allowed on loopback only, and {parts.hostname} is not; use https")
    if parts.scheme == "http" and options.ca_file is not None:
        raise ConfigError("exchange.ca_file needs an https exchange.base_url")
    if options.id == REHEARSAL and not local:
        raise ConfigError(f"exchange.base_url: the rehearsal exchange lives on loopback, and {parts.hostname} is not")
    if options.ca_file is not None and not options.ca_file.is_file():
        raise ConfigError(f"exchange.ca_file: there is no file {options.ca_file}")


def _session(options: ExchangeOptions) -> aiohttp.ClientSession:
    """A session whose resolver sends every name to base_url's address, trusting only the given certificates."""
    parts = urlsplit(options.base_url or "")
    try:
        context = ssl.create_default_context(cafile=str(options.ca_file))
    except ssl.SSLError as error:
        raise ConfigError(f"exchange.ca_file: {options.ca_file} holds no certificates ({error.reason})") from error
    resolver = OneHostResolver(addresses_of(parts.hostname or "")[0], parts.port or 443)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=resolver, ssl=context), trust_env=False)


def _host(exchange: Exchange, options: ExchangeOptions) -> str:
    """What is called: the name that budgets and bans are kept under."""
    if options.base_url is not None:
        return urlsplit(options.base_url).netloc
    urls = (url.replace("{hostname}", getattr(exchange, "hostname", None) or "") for url in _leaves(exchange.urls.get("api")))
    return next((urlsplit(url).netloc for url in urls if url.startswith("http")), exchange.id)


def _leaves(urls: Any) -> Iterator[str]:
    if isinstance(urls, dict):
        for name in sorted(urls, key=lambda name: name not in ("public", "rest", "spot")):
            yield from _leaves(urls[name])
    elif isinstance(urls, str):
        yield urls


def _retrieved(future: "asyncio.Future[Any]") -> None:
    if not future.cancelled():
        future.exception()


async def _quietly(closing: Callable[[], Awaitable[Any]], timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await closing()
    except Exception:  # noqa: BLE001 - closing a broken client; there is nobody left to tell
        return
