"""The machine that the daemon runs on, as far as ccxt asks it: its wall clock and its random numbers, both the simulation's."""

import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ccxt.base.exchange import BaseExchange as CcxtBase

from daemon.simulation.timeline import NS, Timeline
from daemon.venues.client import REHEARSAL, Exchange, ExchangeOptions, build_client

EPOCH = 1_767_225_600 * NS
"""Where the simulation begins: 2026-01-01 00:00 UTC, by the true clock."""
ADDRESS = "http://127.0.0.1:9"
"""An address on loopback where nothing listens: no byte ever leaves for it."""


@dataclass(slots=True)
class Clocks:
    """Wall clocks in nanoseconds UTC, each off the truth by its own error."""

    timeline: Timeline
    machine_error: int = 0
    exchange_error: int = 0

    def machine(self) -> int:
        """The machine's wall clock; somebody may set it."""
        return EPOCH + self.timeline.now + self.machine_error

    def exchange(self) -> int:
        """The exchange's wall clock."""
        return EPOCH + self.timeline.now + self.exchange_error

    def steady(self) -> Callable[[], int]:
        """What the door of a process that starts now uses: the wall clock read once, and a clock that nobody sets added."""
        begun = self.machine_error

        def now() -> int:
            return EPOCH + self.timeline.now + begun

        return now


@contextmanager
def simulated_machine(clocks: Clocks, seed: int) -> Iterator[None]:
    """ccxt reads the machine's clock and random numbers by itself: give it the simulation's while this context is open."""
    real = {name: vars(CcxtBase)[name] for name in ("milliseconds", "microseconds", "seconds")}  # as they stand in the class
    state = random.getstate()
    level = (logger := logging.getLogger("ccxt")).level
    CcxtBase.milliseconds = staticmethod(lambda: clocks.machine() // 1_000_000)
    CcxtBase.microseconds = staticmethod(lambda: clocks.machine() // 1_000)
    CcxtBase.seconds = staticmethod(lambda: clocks.machine() // NS)
    random.seed(seed)
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, function in real.items():
            setattr(CcxtBase, name, function)
        random.setstate(state)
        logger.setLevel(level)


@dataclass(slots=True)
class Clients:
    """Builds unmodified ccxt objects whose only way out is a session of the simulated network."""

    session: Callable[[], object]

    def build(self, options: ExchangeOptions) -> Exchange:
        """As `build_client`, on the simulated network."""
        client = build_client(options)
        client.session, client.own_session = self.session(), False
        return client


def account_options(address: str, key: str = "", secret: str = "") -> ExchangeOptions:
    """The rehearsal exchange as the settings of a session would name it."""
    return ExchangeOptions(REHEARSAL, address, api_key=key, secret=secret, timeout_ms=10_000)
