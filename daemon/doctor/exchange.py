"""The exchange and the account on it: reached, on time, able to do what safety needs, and the key with the right rights."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ccxt.base.errors import BaseError

from agents.core.errors import ConfigError, TradingError
from agents.core.instruments import Instrument, Symbol
from agents.core.orders import is_ours
from agents.desk.limits import Limits, require_affordable
from daemon.doctor.findings import FAIL, OK, SKIPPED, WARN, Finding
from daemon.exchange_process import RehearsalExchange, rehearsal_exchange
from daemon.rehearsal.config import TEST_KEY, TEST_SECRET
from daemon.settings import Settings
from daemon.venues import capabilities, markets
from daemon.venues.budget import budget_of
from daemon.venues.client import Exchange, ExchangeOptions, build_client, close_client
from daemon.venues.client_ids import teach
from daemon.venues.clock import ExchangeClock
from daemon.venues.outcomes import bad_key
from daemon.venues.parse import parse_balances, positive
from daemon.venues.throttle import Throttle

CHECK_WITHIN_S = 20.0
REQUEST_S = 8.0
HIGH = 0.7
"""Part of the request budget above which another session would have to wait."""
_TROUBLE = (BaseError, TradingError, TimeoutError, OSError)

Check = Callable[[], Awaitable[Finding]]


async def examine(settings: Settings) -> list[Finding]:
    """Every finding about the exchange; a network that is not there is one of them."""
    found = [_capabilities(settings)]
    try:
        async with _server(settings) as server, _client(settings, server) as patient:
            found += await patient.examine()
    except _TROUBLE as error:
        found.append(Finding("exchange", FAIL, _words(error), "mend what it says"))
    return found


@asynccontextmanager
async def _server(settings: Settings) -> AsyncIterator[RehearsalExchange | None]:
    chosen = settings.exchange
    if chosen.id != "rehearsal" or chosen.base_url is not None:
        yield None
        return
    arguments = ["--symbols", ",".join(chosen.symbols), "--speed", "1"]
    arguments += [word for currency, amount in settings.rehearsal.balances.items() for word in ("--balance", f"{currency}={amount}")]
    with TemporaryDirectory() as folder:
        async with rehearsal_exchange(arguments, Path(folder) / "log") as server:
            yield server


@asynccontextmanager
async def _client(settings: Settings, server: RehearsalExchange | None) -> AsyncIterator["_Account"]:
    chosen, keys = settings.exchange, {}
    if settings.may_hold_keys:
        held = {"api_key": chosen.api_key, "secret": chosen.secret, "password": chosen.password}
        keys = {name: value.get_secret_value() for name, value in held.items() if value is not None}
        if server is not None:
            keys = {"api_key": server.api_key, "secret": server.secret}
        elif not keys and chosen.id == "rehearsal":
            keys = {"api_key": TEST_KEY, "secret": TEST_SECRET}  # known to everybody, good on loopback only
    base_url = server.base_url if server is not None else chosen.base_url
    options = ExchangeOptions(chosen.id, base_url, chosen.ca_file, timeout_ms=int(REQUEST_S * 1000), weight_share=chosen.weight_share)
    exchange = build_client(replace(options, **keys))  # type: ignore[arg-type]  # three names, all of texts
    try:
        yield _Account(settings, exchange)
    finally:
        await close_client(exchange)


def _capabilities(settings: Settings) -> Finding:
    try:
        found = capabilities.of(settings.exchange.id, settings.exchange.capabilities)
    except ConfigError as error:
        return Finding("capabilities", FAIL, str(error), "correct exchange.capabilities")
    if lacks := capabilities.missing(found):
        state = FAIL if settings.may_hold_keys else WARN
        return Finding("capabilities", state, "; ".join(lacks), "real orders are refused there: choose another exchange, or correct exchange.capabilities")
    extras = {"protective stops": found.stop_orders, "a dead-man switch": found.dead_man, "orders over websocket": found.websocket_orders}
    has, has_not = ([name for name, there in extras.items() if there is wanted] for wanted in (True, False))
    said = "all that real orders need" + (f", and {', '.join(has)}" if has else "") + (f"; not {', '.join(has_not)}" if has_not else "")
    return Finding("capabilities", OK, said)


class _Account:
    """One exchange object and the questions to it."""

    def __init__(self, settings: Settings, exchange: Exchange) -> None:
        self._settings, self._exchange = settings, exchange
        self._throttle = Throttle(REQUEST_S)
        self._symbols = tuple(map(Symbol, settings.exchange.symbols))
        rule = capabilities.read(exchange, settings.exchange.capabilities).client_id
        if rule is not None:
            teach(exchange, rule)

    async def examine(self) -> list[Finding]:
        found = [await self._guarded("exchange", self._reached)]
        if found[0].state == FAIL:
            return found
        for name, check in (("clock", self._clock), ("symbols", self._listed), ("smallest_orders", self._affordable)):
            found.append(await self._guarded(name, check))
        signed = (("key", self._key), ("key_rights", self._rights), ("open_orders", self._orders))
        for name, check in signed:
            if not self._settings.may_hold_keys:
                found.append(Finding(name, SKIPPED, "no key is read in this mode"))
            elif not self._exchange.apiKey:
                mend = "set QUARTET__EXCHANGE__API_KEY and QUARTET__EXCHANGE__SECRET, or their _FILE variables"
                found.append(Finding(name, FAIL if name == "key" else SKIPPED, "there is no key", mend))
            else:
                found.append(await self._guarded(name, check))
        found.append(await self._guarded("rate_budget", self._budget))
        return found

    async def _guarded(self, name: str, check: Check) -> Finding:
        try:
            async with asyncio.timeout(CHECK_WITHIN_S):
                return await check()
        except _TROUBLE as error:
            if bad_key(error):
                mend = "make a new key, or correct the one given; check that it may be used from this address"
                return Finding(name, FAIL, f"the exchange refuses the key: {_words(error)}", mend)
            mend = "check the network, exchange.base_url and exchange.ca_file; a firewall or a ban of this address looks the same"
            return Finding(name, FAIL, _words(error), mend)

    async def _call(self, request: Callable[[], Awaitable[Any]]) -> Any:
        return await self._throttle.call(self._exchange, request)

    async def _reached(self) -> Finding:
        await self._call(self._exchange.load_markets)
        return Finding("exchange", OK, f"{self._settings.exchange.id} answers and lists {len(self._exchange.markets)} markets")

    async def _clock(self) -> Finding:
        bound = float(self._settings.exchange.max_clock_offset_ms)
        clock = ExchangeClock(self._exchange, self._throttle, bound)
        if not clock.measurable:
            return Finding("clock", SKIPPED, "this exchange does not tell its time")
        offset = await clock.measure()
        said = f"{abs(offset):.0f} ms {'ahead of' if offset > 0 else 'behind'} the exchange's (known to {clock.error_ms:.0f} ms, bound {bound:g} ms)"
        mend = "set the clock right: timedatectl set-ntp true, or chronyc makestep"
        if clock.beyond:
            return Finding("clock", FAIL, said, mend)
        if abs(offset) - clock.error_ms > bound / 2:
            return Finding("clock", WARN, said, mend)
        return Finding("clock", OK, said)

    async def _listed(self) -> Finding:
        try:
            markets.check(self._exchange, self._symbols, ())
        except ConfigError as error:
            return Finding("symbols", FAIL, str(error), "correct exchange.symbols")
        grids = [f"{i.symbol} tick {i.tick} lot {i.lot}" for i in await self._instruments()]
        return Finding("symbols", OK, "; ".join(grids))

    async def _instruments(self) -> list[Instrument]:
        known = tuple(s for s in self._symbols if s in self._exchange.markets)
        return await markets.instruments(self._exchange, self._throttle, known)

    async def _affordable(self) -> Finding:
        capital, limits = self._settings.capital.allocation, Limits(position_cap=self._settings.risk.position_cap)
        for instrument in await self._instruments():
            price = positive((await self._call(partial(self._exchange.fetch_ticker, instrument.symbol)))["last"], "last")
            try:
                require_affordable({instrument.symbol: instrument}, {instrument.symbol: price}, capital, limits)
            except ConfigError as error:
                return Finding("smallest_orders", FAIL, str(error), "as it says")
        room = Decimal(str(limits.position_cap)) * capital
        return Finding("smallest_orders", OK, f"every symbol's fits into risk.position_cap ({room:.8g} {self._settings.capital.quote})")

    async def _key(self) -> Finding:
        balances = parse_balances(await self._call(self._exchange.fetch_balance))
        quote = self._settings.capital.quote
        total, free = next((value for currency, value in balances.items() if currency == quote), (Decimal(0), Decimal(0)))
        said = f"accepted; {total:f} {quote} in the account, {free:f} of it free, {len(balances)} currencies"
        if total < self._settings.capital.allocation:
            mend = f"deposit, or lower capital.allocation ({self._settings.capital.allocation:f}): what is there is what is used"
            return Finding("key", WARN, said, mend)
        return Finding("key", OK, said)

    async def _rights(self) -> Finding:
        ask = getattr(self._exchange, "sapiGetAccountApiRestrictions", None)
        if ask is None:
            return Finding("key_rights", SKIPPED, "unknown: ccxt has no such question for this exchange; see its own pages")
        told = {name: str(value).lower() == "true" for name, value in (await self._call(ask)).items()}
        if not told.get("enableSpotAndMarginTrading"):
            return Finding("key_rights", FAIL, "it may not trade spot", "allow spot trading for this key")
        may = ", ".join(name.removeprefix("enable") for name, yes in told.items() if yes and name.startswith("enable"))
        if told.get("enableWithdrawals") or told.get("permitsUniversalTransfer") or told.get("enableInternalTransfer"):
            return Finding("key_rights", WARN, f"it may move money out of the account ({may})", "make a key that can only read and trade spot")
        if not told.get("ipRestrict"):
            return Finding("key_rights", WARN, f"{may}; it works from any address", "restrict the key to this machine's address")
        return Finding("key_rights", OK, f"{may}; from listed addresses only; it cannot withdraw")

    async def _orders(self) -> Finding:
        ours = foreign = 0
        for symbol in self._symbols:
            for row in await self._call(partial(self._exchange.fetch_open_orders, symbol)) or []:
                mine = is_ours(str(row.get("clientOrderId") or ""), self._settings.instance)
                ours, foreign = ours + mine, foreign + (not mine)
        return Finding("open_orders", OK, f"{ours} of this instance, {foreign} of others in these symbols")

    async def _budget(self) -> Finding:
        budget = budget_of(self._exchange)
        if budget is None:
            return Finding("rate_budget", SKIPPED, "this exchange object has none")
        status = budget.status(asyncio.get_running_loop().time())
        shared = "" if status["shared"] else ", not shared with other processes"
        said = f"{status['used']:g} of {status['limit']:g} used in {status['window_s']:g} s{shared}; {status['bans']} bans so far"
        if status["banned_s"]:
            return Finding("rate_budget", FAIL, f"the exchange wants silence for another {status['banned_s']:g} s", "wait; lower exchange.weight_share")
        if status["used"] > HIGH * status["limit"]:
            return Finding("rate_budget", WARN, said, "other processes of this machine use most of it: fewer symbols, or fewer daemons")
        return Finding("rate_budget", OK, said)


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:300] if str(error) else f"no answer within {REQUEST_S:g} s ({type(error).__name__})"
