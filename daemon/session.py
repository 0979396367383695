"""Composition root: settings become objects here, once. With the CLI and the settings, the only place that knows modes.

| mode  | venue                                    | keys  |
| ----- | ---------------------------------------- | ----- |
| paper | SimulatedVenue(CcxtFeed, SimulatedExchange) | none |
| live  | CcxtVenue(CcxtFeed, private client)       | yes   |
"""

import asyncio
import platform
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import structlog

from agents.core.errors import ConfigError
from agents.core.events import Adjustment
from agents.core.instruments import NS, Currency, Symbol
from agents.desk.limits import Limits
from agents.engine import Engine, EngineConfig
from agents.market.exchange import SimulatedExchange
from agents.market.frictions import Frictions
from daemon import opening
from daemon.door import Door
from daemon.errors import Unsafe
from daemon.exchange_process import RehearsalExchange, rehearsal_exchange
from daemon.journal import Journal
from daemon.learner import LearnerClient
from daemon.publish.http import Bounds, serve
from daemon.running import Account, Parts, run
from daemon.settings import Settings
from daemon.state_folder import held
from daemon.status import Status
from daemon.venues.ccxt import CcxtFeed, CcxtVenue
from daemon.venues.client import ExchangeOptions, dials_loopback
from daemon.venues.simulated import SimulatedVenue

log = structlog.get_logger()


async def trade(
    settings: Settings, *, duration: float | None = None, show: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """Run one session and return its summary. `duration` is in real seconds; `show` takes status snapshots.

    Raises Unsafe where real money is asked for, ConfigError for settings that cannot work, Occupied for a folder in use.
    """
    with held(settings.state_dir):
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(_exchange(settings))
            options = _options(settings, server)
            if settings.mode == "live" and not dials_loopback(options):
                raise Unsafe(
                    "trading real money is not possible yet: it waits for recovery and reconciliation; use --paper, or the rehearsal exchange"
                )
            parts = await _compose(settings, options, server, stack)
            _stop_on_signals(parts.stop)
            return await run(parts, duration, show)


@asynccontextmanager
async def _exchange(settings: Settings) -> AsyncIterator[RehearsalExchange | None]:
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
    arguments = ["--seed", str(rehearsal.seed), "--trade-rate", str(rehearsal.trade_rate)]
    for currency, amount in rehearsal.balances.items():
        arguments += ["--balance", f"{currency}={amount}"]
    if rehearsal.data is not None:
        arguments += ["--data", str(rehearsal.data), "--speed", "1"]
    else:
        arguments += ["--speed", str(rehearsal.speed), "--symbols", ",".join(chosen.symbols)]
    async with rehearsal_exchange(arguments, settings.state_dir / "rehearsal.log") as server:
        yield server


def _options(settings: Settings, server: RehearsalExchange | None) -> ExchangeOptions:
    """Where and, in live mode only, with which keys."""
    chosen = settings.exchange
    keys: dict[str, str] = {}
    if settings.mode == "live":
        held_keys = {"api_key": chosen.api_key, "secret": chosen.secret, "password": chosen.password}
        keys = {name: value.get_secret_value() for name, value in held_keys.items() if value is not None}
        if server is not None:
            keys = {"api_key": server.api_key, "secret": server.secret}
        if not keys.get("api_key") or not keys.get("secret"):
            raise ConfigError(
                "exchange.api_key and exchange.secret are needed to trade live: set QUARTET__EXCHANGE__API_KEY and QUARTET__EXCHANGE__SECRET"
            )
    base_url = server.base_url if server is not None else chosen.base_url
    return ExchangeOptions(chosen.id, base_url, chosen.ca_file, timeout_ms=chosen.timeout_ms, **keys)


def _symbols(settings: Settings, server: RehearsalExchange | None) -> tuple[Symbol, ...]:
    """The configured symbols; on a recorded market those of them that it holds, or all that it holds."""
    wanted = tuple(Symbol(s) for s in settings.exchange.symbols)
    if server is None or not server.symbols:
        return wanted
    there = tuple(Symbol(s) for s in server.symbols)
    return tuple(s for s in wanted if s in there) or there


async def _compose(settings: Settings, options: ExchangeOptions, server: RehearsalExchange | None, stack: AsyncExitStack) -> Parts:
    symbols = _symbols(settings, server)
    folder, quote = settings.state_dir, Currency(settings.capital.quote)
    door = Door()
    feed = _feed(settings, options, symbols, door.now)
    venue, adjustments, origin = await _venue(settings, options, server, feed, door.now)
    stack.push_async_callback(venue.close)
    journal = Journal(folder, _name(door.now()), door.now(), {}, settings.journal.segment_mb << 20)
    config = _engine_config(settings, symbols, journal.epoch, real=not dials_loopback(options))
    journal.describe({"engine": asdict(config), "settings": settings.public(), "origin": origin, "versions": _versions()})
    engine = Engine(config)
    learner = _learner(settings, config, door)
    labels = {"mode": settings.mode, "exchange": settings.exchange.id, "instance": settings.instance, "quote": quote}
    status = Status(journal.name, labels, engine, door, lambda: learner.status)
    bounds = Bounds(settings.http.max_data_age_s, settings.http.max_decision_age_s)
    await stack.enter_async_context(serve(status.snapshot, bounds, settings.http.host, settings.http.port))
    stop = asyncio.Event()

    async def market_over() -> None:
        if server is not None:
            await server.watch()
            stop.set()

    log.info("session", session=journal.name, **labels, symbols=list(symbols), state=str(folder))
    return Parts(folder, door, engine, journal, venue, learner, status, adjustments, [market_over], stop)


async def _venue(settings: Settings, options: ExchangeOptions, server: RehearsalExchange | None, feed: CcxtFeed,
                 clock: Callable[[], int]) -> tuple[Account, list[Adjustment], str]:  # fmt: skip
    """The mode table: the venue, what the ledger opens with, and which account it is."""
    quote, allocation = Currency(settings.capital.quote), settings.capital.allocation
    match settings.mode:
        case "paper":
            simulated = SimulatedExchange([], _frictions(settings), {quote: allocation})
            return SimulatedVenue(feed, simulated, clock), opening.fresh(quote, allocation, {quote: allocation}), ""
        case "live":
            venue = CcxtVenue(feed, options, clock, settings.instance)
            balances = await venue.balances()
            origin = opening.identity((settings.exchange.id, options.base_url or "", options.api_key)) if server is None else ""
            left = opening.left_by(settings.state_dir, origin) if origin else None
            if left is None:
                return venue, opening.fresh(quote, allocation, balances), origin
            return venue, opening.carried(quote, allocation, balances, left), origin


def _engine_config(settings: Settings, symbols: tuple[Symbol, ...], epoch: int, *, real: bool) -> EngineConfig:
    risk, learning, agents = settings.risk, settings.reinforcement_learning, settings.agents
    limits = Limits(
        cash_buffer=risk.cash_buffer, position_cap=risk.position_cap, gross=risk.gross, net=risk.net,
        turnover_cost_bps=risk.turnover_cost_bps, price_collar=risk.price_collar, max_order_count=risk.max_open_orders,
        max_orders_per_second=risk.max_orders_per_second, drawdown_warn=risk.drawdown_warn, drawdown_stop=risk.drawdown_stop,
        drawdown_reduce=risk.drawdown_reduce, drawdown_flatten=risk.drawdown_flatten,
    )  # fmt: skip
    return EngineConfig(
        instance=settings.instance, epoch=epoch, quote=settings.capital.quote, symbols=symbols, agents=agents.enabled, limits=limits,
        prior=agents.prior, hidden_sizes=learning.hidden_sizes,
        exploration=0.0 if settings.mode == "live" and real else learning.exploration,
        reward_scale=learning.reward_scale, seed=learning.seed, market_making_cadence_s=agents.market_making_s,
        requote_after_s=agents.requote_ms / 1000, stale_after_s=settings.feed.stale_after_s,
    )  # fmt: skip


def _frictions(settings: Settings) -> Frictions:
    raise NotImplementedError


def _feed(settings: Settings, options: ExchangeOptions, symbols: tuple[Symbol, ...], clock: Callable[[], int]) -> CcxtFeed:
    raise NotImplementedError


def _learner(settings: Settings, config: EngineConfig, door: Door) -> LearnerClient:
    raise NotImplementedError


def _name(now: int) -> str:
    return datetime.fromtimestamp(now / NS, UTC).strftime("%Y%m%dT%H%M%SZ")


def _versions() -> Mapping[str, str]:
    return {"python": platform.python_version(), "numpy": np.__version__, "machine": platform.machine()}


def _stop_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
