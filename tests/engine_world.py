"""A backtest over the synthetic market that a test can interrupt; every step is held against the invariants."""

from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

from agents.core.events import Event, Stamp, Tick
from agents.core.instruments import NS, Side, Symbol
from agents.core.orders import Cancel, Place
from agents.desk.decision import Effects, EngineConfig
from agents.desk.gate import is_stop
from agents.desk.invariants import violations
from agents.jobs.backtest import Backtest
from agents.market.frictions import FixedLatency, Frictions
from agents.market.synthetic import SyntheticMarket

BTC, ETH = Symbol("BTC/USDT"), Symbol("ETH/USDT")
START = 1_700_000_000 * NS
CONFIG = EngineConfig("test", 1, "USDT", (BTC, ETH), exploration=0.1, hidden_sizes=(8,))


class World:
    """Two coins, one account, 50 ms to the exchange. `stop_orders` says whether stops can rest there."""

    def __init__(self, config: EngineConfig = CONFIG, stop_orders: bool = False) -> None:
        self.market = SyntheticMarket([BTC, ETH], 11, START, history_days=2)
        instruments = [replace(instrument, stop_orders=stop_orders) for instrument in self.market.instruments.values()]
        self.run = Backtest(config, instruments, Decimal(10_000), Frictions(latency=FixedLatency(NS // 20)))
        self.engine, self.now = self.run.engine, START
        self.commands: list[object] = []
        self.violations: list[str] = []
        send, step = self.run.exchange.send, self.engine.step
        self.run.exchange.send = lambda command, now: (self.commands.append(command), send(command, now))[1]  # type: ignore[method-assign]

        def judged(event: Event) -> Effects:
            effects = step(event)
            self.violations += violations(event, effects, self.engine)
            return effects

        self.engine.step = judged  # type: ignore[method-assign]

    def events(self, seconds: float) -> Iterator[Event]:
        for _ in range(int(seconds * 4)):
            self.now += NS // 4
            yield from self.market.step(self.now)
            yield Tick(Stamp(self.now))

    def pass_time(self, seconds: float) -> list[object]:
        """Commands of these market seconds."""
        self.commands.clear()
        self.run.run(self.events(seconds))
        return list(self.commands)

    def silence(self, seconds: float) -> list[object]:
        """Commands of these seconds in which no market data comes; the exchange goes on."""
        self.commands.clear()
        for event in self.events(seconds):
            if isinstance(event, Tick):
                self.run.feed(event, event.stamp.at)
        return list(self.commands)

    def tell(self, event: Event) -> list[object]:
        """Commands that one fact led to."""
        self.commands.clear()
        self.run._step(event, self.now)
        return list(self.commands)

    def until(self, condition: object, seconds: int = 600) -> None:
        """Let time pass until `condition()` holds."""
        for _ in range(seconds * 2):
            if condition():  # type: ignore[operator]
                return
            self.pass_time(0.5)
        raise AssertionError("it never came to that")


def places(commands: list[object]) -> list[Place]:
    return [c for c in commands if isinstance(c, Place)]


def buys(commands: list[object]) -> list[Place]:
    return [place for place in places(commands) if place.side is Side.BUY]


def stops(commands: list[object]) -> list[Place]:
    return [place for place in places(commands) if is_stop(place)]


def cancels(commands: list[object]) -> list[str]:
    return [c.order_id for c in commands if isinstance(c, Cancel)]
