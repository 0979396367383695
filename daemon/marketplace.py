"""Where a session trades: the exchange's process where it is ours, its address and keys, its symbols and feed, the account there."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal

from agents.core.errors import ConfigError
from agents.core.instruments import Symbol
from daemon import opening
from daemon.exchange_process import RehearsalExchange, rehearsal_exchange
from daemon.rehearsal.config import TEST_KEY, TEST_SECRET
from daemon.settings import Settings
from daemon.venues import capabilities
from daemon.venues.ccxt import CcxtVenue, VenueOptions
from daemon.venues.client import ExchangeOptions, build_client
from daemon.venues.expiry import MayLive
from daemon.venues.feed import CcxtFeed, FeedOptions
from daemon.venues.link import LinkOptions


@asynccontextmanager
async def rehearsing(settings: Settings) -> AsyncIterator[RehearsalExchange | None]:
    """The built-in exchange as a process of its own, where it is wanted and no other server is named."""
    chosen = settings.exchange
    if chosen.id != "rehearsal" or chosen.base_url is not None:
        if settings.rehearsal.data is not None:
            raise ConfigError(
                "rehearsal.data (--data) is served by the rehearsal exchange: leave exchange.base_url out and exchange.id at rehearsal"
            )
        yield None
        return
    rehearsal = settings.rehearsal
    arguments = ["--seed", str(rehearsal.seed)]
    if rehearsal.trade_rate is not None:
        arguments += ["--trade-rate", str(rehearsal.trade_rate)]
    for currency, amount in rehearsal.balances.items():
        arguments += ["--balance", f"{currency}={amount}"]
    if rehearsal.data is not None:
        arguments += ["--data", str(rehearsal.data), "--speed", "1"]
    else:
        arguments += ["--speed", str(rehearsal.speed), "--symbols", ",".join(chosen.symbols)]
    async with rehearsal_exchange(arguments, settings.state_dir / "rehearsal.log") as server:
        yield server


def options_of(settings: Settings, server: RehearsalExchange | None) -> ExchangeOptions:
    """Where the exchange is and, only where keys may be held at all, with which. Raises ConfigError where they are missing."""
    chosen = settings.exchange
    keys: dict[str, str] = {}
    if settings.may_hold_keys:
        held_keys = {"api_key": chosen.api_key, "secret": chosen.secret, "password": chosen.password}
        keys = {name: value.get_secret_value() for name, value in held_keys.items() if value is not None}
        if server is not None:
            keys = {"api_key": server.api_key, "secret": server.secret}
        elif not keys and chosen.id == "rehearsal":
            keys = {"api_key": TEST_KEY, "secret": TEST_SECRET}  # known to everybody, good on loopback only
        if not keys.get("api_key") or not keys.get("secret"):
            raise ConfigError(
                "exchange.api_key and exchange.secret are needed to trade live: set QUARTET__EXCHANGE__API_KEY and QUARTET__EXCHANGE__SECRET"
            )
    base_url = server.base_url if server is not None else chosen.base_url
    reach = ExchangeOptions(chosen.id, base_url, chosen.ca_file, timeout_ms=chosen.timeout_ms, weight_share=chosen.weight_share)
    return replace(reach, **keys)  # type: ignore[arg-type]  # the three secrets are text


def account_of(
    settings: Settings, options: ExchangeOptions, feed: CcxtFeed, clock: Callable[[], int], may_live_s: MayLive | None = None
) -> CcxtVenue:
    """The feed with the account that the keys open; `may_live_s` bounds how long a signed order may be taken."""
    return CcxtVenue(feed, options, clock, settings.instance, VenueOptions(link=replace(link_of(settings), may_live_s=may_live_s)))


def origin_of(settings: Settings, options: ExchangeOptions, server: RehearsalExchange | None) -> str:
    """Which account this is, for the journal; empty where it dies with the exchange process."""
    return opening.identity((settings.exchange.id, options.base_url or "", options.api_key)) if server is None else ""


def link_of(settings: Settings) -> LinkOptions:
    """How orders travel, and what watches over them."""
    chosen = settings.exchange
    return LinkOptions(
        chosen.orders_over, chosen.max_clock_offset_ms, dead_man_s=settings.safety.dead_man_s, capabilities=chosen.capabilities
    )


def symbols_of(settings: Settings, server: RehearsalExchange | None) -> tuple[Symbol, ...]:
    """The configured symbols; on a recorded market those of them that it holds, or all that it holds."""
    wanted = tuple(Symbol(s) for s in settings.exchange.symbols)
    if server is None or not server.symbols:
        return wanted
    there = tuple(Symbol(s) for s in server.symbols)
    return tuple(s for s in wanted if s in there) or there


def feed_of(settings: Settings, options: ExchangeOptions, symbols: tuple[Symbol, ...], clock: Callable[[], int]) -> CcxtFeed:
    """Market data of these symbols, read without any key."""
    public = options.without_keys()
    able = capabilities.of(options.id, settings.exchange.capabilities)
    reading = FeedOptions(depth=settings.feed.depth, stop_orders=able.stop_orders, reload_s=settings.feed.reload_markets_h * 3600)
    return CcxtFeed(lambda: build_client(public), symbols, clock, reading)


def simulated_fees(settings: Settings, server: RehearsalExchange | None) -> dict[Symbol, tuple[Decimal, Decimal]]:
    """What simulated fills pay, where it is known better than by the exchange's public rates: the engine must know it too."""
    base, paper = dict(server.fees) if server is not None else {}, settings.paper
    given = [None if bps is None else Decimal(repr(bps)) / 10_000 for bps in (paper.maker_fee_bps, paper.taker_fee_bps)]
    if given == [None, None]:
        return base
    public = (Decimal("0.001"), Decimal("0.001"))
    symbols = [Symbol(s) for s in (server.symbols if server is not None else settings.exchange.symbols)]
    return {s: tuple(g if g is not None else b for g, b in zip(given, base.get(s, public), strict=True)) for s in symbols}  # type: ignore[misc]  # pairs stay pairs
