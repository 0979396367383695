"""One account's link to its exchange: what it can do, the clock it is signed by, how orders travel, the heartbeat, the budget."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog
from ccxt.base.errors import BaseError

from agents.core.errors import Throttled
from daemon.venues import capabilities
from daemon.venues.budget import budget_of, learn_limits
from daemon.venues.client import Exchange
from daemon.venues.client_ids import teach
from daemon.venues.clock import EVERY_S, ExchangeClock
from daemon.venues.dead_man import DeadMan
from daemon.venues.expiry import MayLive, expire
from daemon.venues.throttle import Throttle
from daemon.venues.transport import AUTO, OrderTransport

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """How the link behaves; the settings of the same names."""

    orders_over: str = AUTO
    max_clock_offset_ms: float = 1000.0
    clock_every_s: float = EVERY_S
    dead_man_s: float = 0.0
    """0: the exchange's dead-man switch is left alone."""
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    """What the operator knows better than ccxt and the reviewed table."""
    may_live_s: MayLive | None = None
    """For how long what is signed now may be taken, where that is bounded at all."""


class Link:
    """Made for one ccxt object that holds keys. Dials nothing before `start`.

    Raises ConfigError where the exchange lacks what real orders need.
    """

    def __init__(self, exchange: Exchange, throttle: Throttle, options: LinkOptions | None = None) -> None:
        options = options or LinkOptions()
        self._exchange, self._throttle = exchange, throttle
        self.capabilities = capabilities.read(exchange, options.capabilities)
        capabilities.refuse_unsafe(self.capabilities)
        if self.capabilities.client_id is not None:
            teach(exchange, self.capabilities.client_id)
        self.clock = ExchangeClock(exchange, throttle, options.max_clock_offset_ms, options.clock_every_s)
        if options.may_live_s is not None:
            expire(exchange, self.clock, options.may_live_s)
        self.transport = OrderTransport(exchange, throttle, self.capabilities, self.clock, options.orders_over)
        armed = self.capabilities.dead_man and options.dead_man_s > 0
        self.dead_man = DeadMan(exchange, throttle, options.dead_man_s) if armed else None

    @property
    def status(self) -> dict[str, Any]:
        """For the session's view: plain values."""
        budget = budget_of(self._exchange)
        return {
            "clock": self.clock.status,
            "budget": budget.status(asyncio.get_running_loop().time()) if budget is not None else None,
            "bans": self._throttle.bans,
            "transport": self.transport.status,
            "dead_man": self.dead_man.status if self.dead_man is not None else None,
        }

    def window_s(self, shortest: float) -> float:
        """How long an order without an answer may still turn up: longer than the exchange may sit on a signed request."""
        window = self.capabilities.request_window_s
        return max(shortest, 60.0 if window is None else window)

    async def start(self) -> None:
        """Measure the clock and learn the exchange's limits. Raises ConfigError for a wrong clock, Unreachable where nobody answers."""
        await self.clock.start()
        await self._learn()

    async def run(self) -> None:
        """Keep the clock and the heartbeat until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.clock.run())
            if self.dead_man is not None:
                tasks.create_task(self.dead_man.run())

    async def stop(self) -> None:
        """The graceful end: the exchange need not watch over us any more."""
        if self.dead_man is not None:
            await self.dead_man.stop()

    async def _learn(self) -> None:
        budget, ask = budget_of(self._exchange), getattr(self._exchange, "publicGetExchangeInfo", None)
        if budget is None or ask is None or not self._exchange.id.startswith("binance"):
            return
        market = next(iter((self._exchange.markets or {}).values()), None)
        try:
            told = await self._throttle.call(self._exchange, lambda: ask({"symbol": market["id"]} if market else {}))
            learn_limits(budget, told.get("rateLimits") or [])
        except (BaseError, TimeoutError, Throttled, AttributeError, KeyError, TypeError, ValueError) as error:
            log.warning("limits_not_learned", error=f"{type(error).__name__}: {error}"[:200], instead="ccxt's own rate limit")
