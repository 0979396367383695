"""Settings to the lease of a session: wait for it, keep it, and what the one before left. Knows no mode."""

import asyncio
import os
import platform
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

from daemon.control import Answer
from daemon.door import Door, boot_s
from daemon.errors import Unsafe
from daemon.holding import Holding, kept
from daemon.interface import interface
from daemon.journal import newest_epoch
from daemon.latch import Latch
from daemon.lease import Lease
from daemon.left_plain import Inherited
from daemon.mirror import Mirror
from daemon.publish.lease_store import RedisLease
from daemon.publish.left_store import RedisLeft
from daemon.publish.redis import RedisOptions, connect
from daemon.running import stop_on_signals
from daemon.service import manager
from daemon.settings import Settings
from daemon.standby import Follower, Standby, holder_name, terms


@dataclass(frozen=True, slots=True)
class Lent:
    """The lease that a session trades under, what it goes on from, and where it leaves what comes after."""

    holding: Holding
    inherited: Inherited
    store: RedisLeft


@dataclass(frozen=True, slots=True)
class _Words:
    answers: dict[str, Answer]


async def lent(
    settings: Settings, stack: AsyncExitStack, versions: Mapping[str, str], prepare: Callable[[], object], patience_s: float | None = None
) -> Lent | None:
    """Stand by until the lease is ours; then it is renewed until `stack` ends. None where we were told to stop before.

    `prepare` does beforehand, in a thread, what would hold up a takeover. Raises TimedOut after `patience_s`, Unreachable, DataError for what cannot be read; later LeaseLost out of the stack's end.
    """
    folder, limits, now = settings.state_dir, terms(settings.redis.lease_s), Door().now
    reach = _options(settings, limits.renew_s)
    store, left = RedisLease(connect(reach), settings.instance), RedisLeft(connect(reach), settings.instance)
    stack.push_async_callback(store.close)
    stack.push_async_callback(left.close)
    lease = Lease(store, holder_name(platform.node()), boot_s, limits)
    labels = {"mode": settings.mode, "exchange": settings.exchange.id, "instance": settings.instance}
    waiting, follower, latch = Standby(lease, labels, now), Follower(left.read, newest_epoch(folder)), Latch(folder)
    stop_on_signals(waiting.stopped)
    await asyncio.to_thread(prepare)  # before we say that we stand by
    async with AsyncExitStack() as shown:
        await shown.enter_async_context(waiting.shown(folder, manager(os.environ, os.getpid()), latch, follower))
        words = _Words(waiting.answers(latch))
        await shown.enter_async_context(interface(lambda: settings, folder, "standby", waiting.snapshot, words, Mirror(), versions))
        epoch = await waiting.acquired(lambda: follower.known, patience_s)
        if epoch is None:
            return None
        holding = await stack.enter_async_context(kept(Holding(lease, boot_s)))
    await follower.look()
    return Lent(holding, follower.inherited(epoch), left)


def require_here(settings: Settings) -> None:
    """Raise Unsafe for what must not be done to an account whose daemons take turns, beside them."""
    if settings.redis.lease:
        raise Unsafe("with redis.lease the newest journal may be another daemon's: ask the running one, or stop all and give --set redis.lease=false")


def _options(settings: Settings, timeout_s: float) -> RedisOptions:
    redis = settings.redis
    assert redis.url is not None, "settings with a lease have an address"
    password = None if redis.password is None else redis.password.get_secret_value()
    certificates = None if redis.ca_file is None else str(redis.ca_file)
    return RedisOptions(redis.url, settings.instance, "", redis.username, password, certificates, timeout_s=timeout_s)
