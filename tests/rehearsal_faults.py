"""A rehearsal exchange whose faults a test switches on: in this process, or as the process that users run.

    async with rehearsal(symbols=("BTC/USDT",)) as exchange:
        client = exchange.ccxt()
        await exchange.faults.on("empty_answer", count=1)
"""

import asyncio
import functools
import re
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import ccxt.pro
import orjson
import trustme
from aiohttp.abc import AbstractResolver, ResolveResult

from daemon.rehearsal.config import RehearsalConfig
from daemon.rehearsal.server import serve

ROOT = Path(__file__).parents[1]
WITHIN_S = 30.0


class Faults:
    """The control endpoint of a running rehearsal exchange."""

    def __init__(self, base_url: str, session: aiohttp.ClientSession) -> None:
        self._base_url = base_url
        self._session = session

    async def on(self, fault: str, **more: Any) -> Any:
        """Switch a fault on (`count`, `seconds`, `match` and its own details), or do an action; returns an action's result."""
        return (await self._ask("POST", "/rehearsal/faults", {"fault": fault, **more}))["result"]

    async def off(self, fault: str | None = None) -> None:
        """Switch one fault off, or all."""
        await self._ask("DELETE", "/rehearsal/faults" + (f"?fault={fault}" if fault else ""))

    async def active(self) -> list[str]:
        return [row["fault"] for row in (await self._ask("GET", "/rehearsal/faults"))["active"]]

    async def struck(self, fault: str) -> int:
        """How often it has struck."""
        return int((await self._ask("GET", "/rehearsal/faults"))["struck"].get(fault, 0))

    async def truth(self) -> dict[str, Any]:
        """Balances, orders and trades as they are, whatever fault is on."""
        return dict(await self._ask("GET", "/rehearsal/account"))

    async def order(self, client_id: str) -> dict[str, Any] | None:
        """The exchange's own record of an order, whatever fault is on."""
        return next((order for order in (await self.truth())["orders"] if order["clientOrderId"] == client_id), None)

    async def _ask(self, verb: str, path: str, body: object = None) -> Any:
        data = None if body is None else orjson.dumps(body)
        async with self._session.request(verb, self._base_url + path, data=data) as response:
            answer = orjson.loads(await response.read() or b"{}")
            assert response.status == 200, f"{verb} {path} {body}: {response.status} {answer}"
            return answer


@dataclass
class Rehearsal:
    """A running exchange: where it is, its keys, its faults."""

    port: int
    api_key: str
    secret: str
    symbols: tuple[str, ...]
    faults: Faults
    trust: ssl.SSLContext | None = None
    """Set where it speaks TLS under the exchange's own names."""
    _clients: list[Any] = field(default_factory=list)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ccxt(self, **settings: Any) -> Any:
        """An unmodified ccxt.pro client of it; closed with the exchange. Over TLS its URLs stay Binance's, so every code path is the real one."""
        options = {"fetchMarkets": {"types": ["spot"]}, "fetchMargins": False, "fetchCurrencies": False, **settings.pop("options", {})}
        given = {"apiKey": self.api_key, "secret": self.secret, "enableRateLimit": False, "options": options, **settings}
        client = ccxt.pro.binance(given)
        client.timeout_on_exit = 0  # milliseconds that ccxt waits for its sockets; nothing is lost on loopback
        if self.trust is None:
            point_at(client, self.port)
        else:
            client.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=_Here(self.port), ssl=self.trust))
        self._clients.append(client)
        return client

    async def close(self) -> None:
        for client in self._clients:
            await client.close()
            if client.session is not None:
                await client.session.close()


class _Here(AbstractResolver):
    """Sends every host name to one local port."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        return [ResolveResult(hostname=host, host="127.0.0.1", port=self._port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        pass


@functools.cache
def _certificates() -> tuple[tempfile.TemporaryDirectory[str], Path, Path, ssl.SSLContext]:
    """(folder that holds the files, chain, key, context that trusts them); made once."""
    authority = trustme.CA()
    made = authority.issue_cert("api.binance.com", "stream.binance.com", "ws-api.binance.com", "127.0.0.1")
    folder = tempfile.TemporaryDirectory()
    chain, key = Path(folder.name) / "chain.pem", Path(folder.name) / "key.pem"
    for blob in made.cert_chain_pems:
        blob.write_to_path(chain, append=True)
    made.private_key_pem.write_to_path(key)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return folder, chain, key, context


async def watching(client: Any, watch: Any, message_hash: str) -> asyncio.Future[Any]:
    """A `watch_*` that has begun to wait: ccxt tells nobody of what came before."""
    future: asyncio.Future[Any] = asyncio.ensure_future(watch)
    async with asyncio.timeout(WITHIN_S):
        while not future.done() and not any(message_hash in connection.futures for connection in client.clients.values()):
            await asyncio.sleep(0)
    return future


def point_at(client: Any, port: int) -> None:
    """Every URL of an unmodified ccxt object to a local server."""
    address = f"127.0.0.1:{port}"
    api = client.urls["api"]
    for name, url in api.items():
        if isinstance(url, str):
            api[name] = re.sub(r"^https?://[^/]+", f"http://{address}", url)
    api["ws"]["spot"] = f"ws://{address}/stream/ws"
    api["ws"]["ws-api"]["spot"] = f"ws://{address}/ws-api/v3"


def _rehearsal(hello: Mapping[str, Any], session: aiohttp.ClientSession, trust: ssl.SSLContext | None = None) -> Rehearsal:
    faults = Faults(f"{'https' if trust else 'http'}://127.0.0.1:{hello['port']}", session)
    return Rehearsal(int(hello["port"]), str(hello["api_key"]), str(hello["secret"]), tuple(hello["symbols"]), faults, trust)


@asynccontextmanager
async def rehearsal(*, tls: bool = False, **config: Any) -> AsyncIterator[Rehearsal]:
    """An exchange in this event loop; `config` are fields of RehearsalConfig. Balances: USDT, BTC and ETH, unless given.

    `tls` serves it under Binance's own names, which ccxt's mapping of the spot error codes depends on.
    """
    trust = None
    if tls:
        _, config["certificate"], config["private_key"], trust = _certificates()
    balances = {"USDT": Decimal(100_000), "BTC": Decimal(1), "ETH": Decimal(10)}
    made = RehearsalConfig(**{"symbols": ("BTC/USDT", "ETH/USDT"), "balances": balances, "faults": True, **config})
    hello: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
    serving = asyncio.get_running_loop().create_task(serve(made, hello.set_result))
    async with asyncio.timeout(WITHIN_S):
        either: set[asyncio.Future[Any]] = {serving, hello}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        await serving  # it did not come up: say why
    greeting = hello.result()
    connector = aiohttp.TCPConnector(ssl=trust or True)
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(WITHIN_S), connector=connector) as session:
        exchange = _rehearsal(greeting, session, trust)
        try:
            yield exchange
        finally:
            await exchange.close()
            serving.cancel()
            with suppress(asyncio.CancelledError):
                await serving


@asynccontextmanager
async def rehearsal_process(*arguments: str) -> AsyncIterator[Rehearsal]:
    """The same as a process of its own (`python -m daemon.rehearsal --faults` and `arguments`), which outlives a killed daemon."""
    process = subprocess.Popen(
        [sys.executable, "-m", "daemon.rehearsal", "--faults", *arguments], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        greeting = orjson.loads(process.stdout.readline())
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(WITHIN_S)) as session:
            exchange = _rehearsal(greeting, session)
            try:
                yield exchange
            finally:
                await exchange.close()
    finally:
        process.stdin.close()
        process.wait(timeout=WITHIN_S)
        process.stdout.close()
