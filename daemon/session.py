"""Composition root: settings become objects here, once. With the CLI and the settings, the only place that knows modes.

| mode  | venue                                    | keys  |
| ----- | ---------------------------------------- | ----- |
| paper | SimulatedVenue(CcxtFeed, SimulatedExchange) | none |
| live  | CcxtVenue(CcxtFeed, private client)       | yes   |
"""

import asyncio
import gc
import os
import platform
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import structlog

from agents.core.errors import ConfigError
from agents.core.events import UNSTAMPED, CancelAll, Event, NewWeights
from agents.core.instruments import NS, Currency
from agents.desk.decision import EngineConfig
from agents.engine import Engine
from agents.market.exchange import SimulatedExchange
from daemon import by_hand, kill_path, logs, opening
from daemon.door import Door
from daemon.emergency import EmergencyRecord
from daemon.errors import TimedOut, Unsafe
from daemon.exchange_process import RehearsalExchange
from daemon.interface import interface
from daemon.journal import Journal
from daemon.latch import Latch
from daemon.learner import LearnerClient, NoLearner
from daemon.leasing import Lent, lent, require_here
from daemon.left_mirror import LeftMirror
from daemon.marketplace import account_of, feed_of, options_of, origin_of, rehearsing, simulated_fees, symbols_of
from daemon.measures import Measures
from daemon.operating import Operator
from daemon.outlets import notifier_of, outlets_of
from daemon.pretrained import pretrained, refuse_unpromoted
from daemon.reconciling import Reconciler
from daemon.recording import tape_feed
from daemon.recovery import Recovery
from daemon.reloading import Reloader
from daemon.running import Account, Ending, Learner, Parts, Watcher, run, stop_on_signals
from daemon.segments import SegmentWriter
from daemon.service import Service, manager
from daemon.settings import Settings
from daemon.starting import recovered
from daemon.state_folder import held
from daemon.status import Status
from daemon.store import open_store
from daemon.venues import capabilities
from daemon.venues.ccxt import CcxtVenue
from daemon.venues.client import REHEARSAL, ExchangeOptions, dials_loopback, with_stream_path
from daemon.venues.expiry import require_expiring
from daemon.venues.feed import CcxtFeed
from daemon.venues.simulated import SimulatedVenue
from daemon.watchdog import Charge, Watchdog
from daemon.wiring import engine_config, frictions, learner_options, limits_of

log = structlog.get_logger()

SETTLED_S = 10.0
"""After so long a session has built what it keeps."""
CLEAR_S = 120.0
"""How long taking orders away, and selling in slices, may take without a daemon."""


async def trade(
    settings: Settings, *, duration: float | None = None, show: Callable[[dict[str, Any]], None] | None = None, real_money: bool = False,
    reread: Callable[[], Settings] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Run one session and return its summary. `duration` is in real seconds; `show` takes status snapshots, `reread` reads the settings again.

    Raises Unsafe where a real exchange is to be traded live and `real_money` does not confirm it, ConfigError for settings that
    cannot work, Occupied for a folder in use.
    """
    return await _session(settings, duration, show, real_money, [], reread)


async def clear(settings: Settings, word: Literal["cancel-all", "flatten"], reason: str, *, real_money: bool = False) -> dict[str, Any]:
    """A session without agents that carries out one word, with no daemon running: take our orders away, or sell all besides.

    The word is latched, so the next session stands still until `quartet resume`. Raises as `trade`, and TimedOut when it is not
    done within `CLEAR_S`; then the latch goes on saying so.
    """
    quiet = settings.model_copy(update={"agents": settings.agents.model_copy(update={"enabled": ()})})

    def until(parts: Parts) -> Watcher:
        async def done() -> None:
            parts.door.push(CancelAll(UNSTAMPED, reason))
            while parts.door.depth or parts.engine.ledger.live_orders() or not kill_path.settled(parts.engine, flat=word == "flatten"):
                await asyncio.sleep(0.1)
            parts.stop.set()

        parts.latch.set("flatten" if word == "flatten" else "halt", reason, parts.door.now())
        return done

    summary = await _session(quiet, CLEAR_S, None, real_money, [until], patience_s=3 * settings.redis.lease_s)
    if "open_orders" not in summary:
        raise TimedOut("told to stop while another daemon held the lease: nothing was done")
    if summary["open_orders"] or summary["stops_kept"] or (word == "flatten" and summary["sellable"]):
        raise TimedOut(f"not done within {CLEAR_S:g} s: {summary['open_orders']} orders open, {summary['sellable']} still held; try again")
    return summary


async def _session(
    settings: Settings, duration: float | None, show: Callable[[dict[str, Any]], None] | None, real_money: bool,
    besides: Sequence[Callable[[Parts], Watcher]], reread: Callable[[], Settings] | None = None, patience_s: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """One session with further watchers `besides`. `patience_s` bounds the wait for a lease, where there is one."""
    with held(settings.state_dir):
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(rehearsing(settings))
            address = server.base_url if server is not None else settings.exchange.base_url
            if settings.mode == "live":
                _permit(settings, ExchangeOptions(settings.exchange.id, address), real_money)
            wanted = settings.mode == "live" and settings.redis.lease
            lease = await lent(settings, stack, _versions(), partial(_rehearse, settings), patience_s) if wanted else None
            if wanted and lease is None:
                return {"session": "standby", "instance": settings.instance}
            options = await with_stream_path(options_of(settings, server))
            parts = await _compose(settings, options, server, stack, reread or (lambda: settings), lease)
            parts.watchers += [watcher(parts) for watcher in besides]
            stop_on_signals(parts.stop, parts.reload if reread is not None else None)
            return await run(parts, duration, show)


def _rehearse(settings: Settings) -> None:
    """Build once what a session builds, so that libraries are loaded and the journal is there before they are needed in a hurry."""
    Engine(engine_config(settings, symbols_of(settings, None), 1, 0.0))
    open_store(settings.state_dir).dispose()


def _permit(settings: Settings, where: ExchangeOptions, real_money: bool) -> None:
    """Before anything is dialled: raises ConfigError where safety would lack something, Unsafe where real money was not meant."""
    capabilities.refuse_unsafe(capabilities.of(settings.exchange.id, settings.exchange.capabilities))
    if settings.redis.lease:
        require_expiring(settings.exchange.id)
        if settings.exchange.id == REHEARSAL and settings.exchange.base_url is None:
            raise ConfigError("redis.lease: a rehearsal exchange of the session's own has no second daemon: name a running one by exchange.base_url")
    if not real_money and not dials_loopback(where):
        raise Unsafe(
            f"--live on {settings.exchange.id} trades real money: use --paper, or the rehearsal exchange; if you mean it, say so "
            "with --yes-trade-real-money"
        )
    if not dials_loopback(where):
        refuse_unpromoted(settings)


async def reconcile(settings: Settings, *, apply: bool) -> dict[str, Any]:
    """With no daemon running: what the next start would find and do on the account; with `apply` it is done and booked.

    Raises Unsafe where the account dies with the rehearsal exchange, Occupied where a daemon holds the folder.
    """
    with held(settings.state_dir):
        if apply:
            require_here(settings)
        if settings.exchange.id == "rehearsal" and settings.exchange.base_url is None:
            raise Unsafe("the rehearsal exchange starts afresh with each session: name a running one by exchange.base_url")
        capabilities.refuse_unsafe(capabilities.of(settings.exchange.id, settings.exchange.capabilities))
        options = await with_stream_path(options_of(settings, None))
        door, symbols = Door(), symbols_of(settings, None)
        venue = account_of(settings, options, feed_of(settings, options, symbols, door.now), door.now)

        def describe(epoch: int) -> Mapping[str, Any]:
            return {"engine": asdict(engine_config(settings, symbols, epoch, 0.0)), "settings": settings.public(), "versions": _versions()}

        try:
            return await by_hand.reconcile(
                settings.state_dir, venue, Currency(settings.capital.quote), settings.capital.allocation, settings.instance,
                origin_of(settings, options, None), apply=apply, door=door, describe=describe,
            )  # fmt: skip
        finally:
            await venue.close()


async def record(settings: Settings, out: Path | None, *, duration: float | None = None) -> dict[str, Any]:
    """Write a live feed to tape segments in `out` until a signal or `duration`; no account, no orders.

    Raises ConfigError where `out` holds a tape already.
    """
    folder = out or Path("tapes") / _name(Door().now())
    if any(folder.glob("*.jsonl*")):
        raise ConfigError(f"{folder} holds a tape already: name a new folder")
    async with AsyncExitStack() as stack:
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        server = await stack.enter_async_context(rehearsing(settings))
        options = await with_stream_path(options_of(settings, server))
        door, stop = Door(), asyncio.Event()
        feed = feed_of(settings, options, symbols_of(settings, server), door.now)
        stop_on_signals(stop)
        writer = SegmentWriter(folder, settings.journal.segment_mb << 20)
        return await tape_feed(feed.events(), door, writer, stop, duration, _ending(server, stop))


def _ending(server: RehearsalExchange | None, stop: asyncio.Event) -> Callable[[], Coroutine[Any, Any, None]]:
    """A watcher that ends the session where the rehearsal exchange's market ends."""

    async def market_over() -> None:
        if server is not None:
            await server.watch()
            stop.set()

    return market_over


async def _compose(
    settings: Settings, options: ExchangeOptions, server: RehearsalExchange | None, stack: AsyncExitStack, reread: Callable[[], Settings],
    lease: Lent | None,
) -> Parts:  # fmt: skip
    symbols = symbols_of(settings, server)
    folder, quote, begins_with = settings.state_dir, Currency(settings.capital.quote), pretrained(settings)
    door = Door()
    feed = feed_of(settings, options, symbols, door.now)
    venue, opened, kept, recovery = await _venue(settings, options, server, feed, door.now, lease)
    stack.push_async_callback(venue.close)
    floor = 1 if lease is None else lease.inherited.epoch
    journal = Journal(folder, _name(door.now()), door.now(), {}, settings.journal.segment_mb << 20, floor)
    config = engine_config(settings, symbols, journal.epoch, _exploration(settings, options))
    journal.describe({"engine": asdict(config), "settings": settings.public(), "versions": _versions(), **kept})
    engine = Engine(config)
    learner = _learner(settings, config, options, door)
    labels = {"mode": settings.mode, "exchange": settings.exchange.id, "instance": settings.instance, "quote": quote}
    status = Status(journal.name, labels, engine, door, lambda: learner.status)
    status.details["process"] = lambda: {"tasks": len(asyncio.all_tasks())}
    stop, latch, emergency = asyncio.Event(), Latch(folder), EmergencyRecord(folder)
    left = await _lease_in_force(lease, recovery, opened, engine, door, latch, stop, kept) if lease is not None else None
    operator = Operator(door, latch, status, stop)
    watchers: list[Watcher] = [_ending(server, stop), _settle_memory, partial(operator.listen, folder)]
    outlets = outlets_of(settings, journal.name, operator, status.snapshot)
    status.details["outlets"] = outlets.status
    watchers += [outlet.run for outlet in outlets.by_name.values()]
    stack.enter_context(logs.listening(lambda line: outlets.mirror.say("log", door.now(), line)))
    if (notifier := notifier_of(settings, status.snapshot, door.now, outlets.mirror)) is not None:
        status.details["notify"] = lambda: notifier.status
        watchers.append(notifier.run)
    measures = Measures(engine, door.now)
    status.details["measures"] = measures.describe
    watchers.append(measures.watch_loop)
    service = Service(manager(os.environ, os.getpid()), lambda: status.handled, status.snapshot)
    watchers.append(service.run)
    reloader = Reloader(settings, reread, door.push, limits_of, service)
    operator.answers["reload"] = reloader.reload
    interfaced = interface(lambda: reloader.settings, folder, journal.name, status.snapshot, operator, outlets.mirror, _versions())
    await stack.enter_async_context(interfaced)
    if settings.mode == "live" and settings.safety.watchdog_s:
        charge = Charge(
            options, settings.instance, journal.epoch, symbols, folder, settings.safety.watchdog_s, capabilities=settings.exchange.capabilities
        )
        guard = Watchdog(charge, lambda: door.last, lambda: not kill_path.unsettled(engine))
        status.details["watchdog"] = lambda: guard.status
        watchers.append(guard.run)

    if recovery is not None and isinstance(venue, CcxtVenue):
        status.details["link"] = lambda: venue.status["link"]
        watchers.append(_reconciler(settings, venue, engine, door, operator, status, recovery, lease).run)

    def in_an_emergency() -> EmergencyRecord:
        emergency.take_over(journal)
        return emergency

    mirrors, farewell = [measures.tell, outlets.mirror.tell], outlets.farewell
    if lease is not None and left is not None:
        status.details["lease"] = lambda: lease.holding.status
        status.details["left"] = lambda: left.status
        watchers.append(left.run)
        mirrors, farewell = [*mirrors, left.tell], partial(_in_turn, outlets.farewell, left.farewell)

    log.info("session", session=journal.name, **labels, symbols=list(symbols), state=str(folder))
    return Parts(
        folder, door, engine, journal, venue, learner, status, latch, (*opened, *begins_with), stop,
        watchers=watchers, ending=_how_to_end(settings), mirrors=mirrors, farewell=farewell,
        reload=reloader.on_hangup, emergency=in_an_emergency, background=asyncio.to_thread,
    )  # fmt: skip


async def _lease_in_force(
    lease: Lent, recovery: Recovery | None, opened: Sequence[Event], engine: Engine, door: Door, latch: Latch, stop: asyncio.Event,
    kept: Mapping[str, Any],
) -> LeftMirror:  # fmt: skip
    """The session trades under its lease from here on: the operator's last word is taken over, and what would be left now is written.

    Raises LeaseLost, Unreachable.
    """
    assert recovery is not None, "a lease is of a real account"
    if (said := lease.inherited.latch) is not None and said.at > latch.read().at:
        latch.set(said.kind, said.reason, said.at)
    lease.holding.attach(door.push, stop.set)
    left = LeftMirror(
        lease.store.write, engine, lease.inherited.epoch, kept["origin"], latch, recovery.cursors, recovery.transfers, lambda: door.last,
        lease.holding.outrun,
    )  # fmt: skip
    await left.open(opened, door.now())
    return left


async def _in_turn(*farewells: Callable[[], Awaitable[None]]) -> None:
    for farewell in farewells:
        await farewell()


def _reconciler(
    settings: Settings, venue: CcxtVenue, engine: Engine, door: Door, operator: Operator, status: Status, recovery: Recovery,
    lease: Lent | None,
) -> Reconciler:  # fmt: skip
    """Holds the ledger against the exchange, and answers `quartet reconcile` for the running session."""
    alone = (lambda reason: operator.halt({"reason": reason})) if lease is None else lease.holding.outrun
    reconciler = Reconciler(
        venue, engine.ledger, door.push, lambda: door.depth, door.now, alone,
        interval_s=settings.safety.reconcile_s, told=recovery.differences, booked=recovery.transfers,
    )  # fmt: skip
    status.details["reconcile"] = reconciler.status
    operator.answers["reconcile"] = lambda request: reconciler.apply() if request.get("apply") else reconciler.report()
    return reconciler


def _learner(settings: Settings, config: EngineConfig, options: ExchangeOptions, door: Door) -> Learner:
    """The learner process. On a real account nobody has promoted what it learns: there it runs in shadow, and the priors trade; so
    it does where `agents.weights` decide."""
    if not config.agents:
        return NoLearner()
    shadow = settings.agents.weights is not None or (settings.mode == "live" and not dials_loopback(options))
    return LearnerClient(learner_options(settings, config), _shadow if shadow else door.push, door.now)


def _shadow(weights: NewWeights) -> None:
    log.info("weights_in_shadow", version=weights.version, digest=weights.digest[:12])


def _how_to_end(settings: Settings) -> Ending:
    safety = settings.safety
    return Ending(safety.on_stop == "flatten", safety.stop_timeout_s, safety.on_record_failure == "flatten")


async def _settle_memory() -> None:
    """What start-up built stays for the session: the collector need not look through it again and again."""
    gc.set_threshold(20_000, 20, 50)
    await asyncio.sleep(SETTLED_S)
    gc.freeze()


async def _venue(settings: Settings, options: ExchangeOptions, server: RehearsalExchange | None, feed: CcxtFeed,
                 clock: Callable[[], int], lease: Lent | None) -> tuple[Account, Sequence[Event], dict[str, Any], Recovery | None]:  # fmt: skip
    """The mode table: the venue, what the session opens with, what the journal keeps for the next start, and how we recovered."""
    quote, allocation = Currency(settings.capital.quote), settings.capital.allocation
    match settings.mode:
        case "paper":
            simulated = SimulatedExchange([], frictions(settings), {quote: allocation})
            feed.charge(simulated_fees(settings, server))
            return SimulatedVenue(feed, simulated, clock), opening.fresh(quote, allocation, {quote: allocation}), {"origin": ""}, None
        case "live":
            may_live_s, inherited = (None, None) if lease is None else (lease.holding.may_live_s, lease.inherited)
            venue, origin = account_of(settings, options, feed, clock, may_live_s), origin_of(settings, options, server)
            try:
                recovery = await recovered(
                    settings.state_dir, venue, quote, allocation, settings.instance, origin,
                    same_account=settings.safety.same_account, inherited=inherited,
                )  # fmt: skip
                dust = opening.untraded(recovery.events, symbols_of(settings, server), quote, allocation)
            except BaseException:  # whatever it is, the connections do not outlive it
                await venue.close()
                raise
            return venue, (*recovery.events, *dust), {"origin": origin, "opened_with": recovery.opened_with()}, recovery


def _exploration(settings: Settings, options: ExchangeOptions) -> float:
    """Nobody experiments with real money."""
    return settings.reinforcement_learning.exploration if settings.mode == "paper" or dials_loopback(options) else 0.0


def _name(now: int) -> str:
    return datetime.fromtimestamp(now / NS, UTC).strftime("%Y%m%dT%H%M%SZ")


def _versions() -> Mapping[str, str]:
    return {"python": platform.python_version(), "numpy": np.__version__, "machine": platform.machine()}
