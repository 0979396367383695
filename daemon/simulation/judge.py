"""Holds the daemon against the truth after every event: invariants I1 to I8, each with its tolerance in time.

It sees both sides: the engine at each step, the exchange's books, and what reached the disk. What may be late (I1, I2) is counted
in clear seconds: seconds in which a session runs and the exchange can be reached. Everything else holds at once.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import sha256

import numpy as np
import orjson
from safetensors import SafetensorError
from safetensors.numpy import load

from agents.core.codec import encode
from agents.core.events import BookSnapshot, Event, FeedGap, Fill, NewWeights, Reconciled, RiskRestored
from agents.core.instruments import ZERO, Side, Symbol
from agents.core.orders import Command, OrderId, OrderState, Place, is_ours
from agents.desk import invariants
from agents.desk.decision import Effects
from agents.engine import Engine
from agents.market.observation import SPEC_HASH
from daemon.rehearsal.orders import STOPS, OwnTrade, VenueOrder
from daemon.simulation.exchange import Exchange
from daemon.simulation.timeline import Timeline

ORDERS_WITHIN_S = 120.0
"""T of I1: the window of an order of unknown fate (15 s), its looks, and looks that hang (10 s each) in between."""
MONEY_WITHIN_S = 120.0
"""T of I2 for positions: the sweep's pause, sweeps that hang, and what an order in doubt holds back."""
BALANCES_WITHIN_S = 300.0
"""T of I2 for balances: three quiet looks, of which each takes five requests that may fail; or it is said that they differ."""
STALE_NS = 10_500_000_000
"""The engine's bound on the age of a book, and a step more."""
PEAK_TOLERANCE = 0.0001
"""The ladder's memory is that of the last decision on the disk: so much of the peak may be lost."""


@dataclass(frozen=True, slots=True)
class Breach:
    """One broken invariant."""

    invariant: str
    seconds: float
    sentence: str

    def row(self) -> dict[str, object]:
        """Plain JSON values."""
        return {"invariant": self.invariant, "at_s": round(self.seconds, 3), "what": self.sentence}


@dataclass(slots=True)
class Truth:
    """What the exchange's books say of orders with our prefix."""

    exchange: Exchange
    instance: str
    positions: dict[Symbol, Decimal] = field(default_factory=dict)
    trades: dict[tuple[Symbol, str], tuple[OwnTrade, str]] = field(default_factory=dict)
    """Own trade and the client id of its order, by symbol and trade id."""
    _taken: dict[str, int] = field(default_factory=dict)

    def update(self) -> None:
        """Take in the trades since the last call."""
        account = self.exchange.account
        for public in self.exchange.markets:
            rows, taken = account.trades(public.market_id), self._taken.get(public.market_id, 0)
            for place in range(taken, len(rows)):
                trade = rows[place]
                order = account.find(public.market_id, trade.order_id, None)
                if order is None or not is_ours(order.client_id, self.instance):
                    continue
                self.trades[public.symbol, str(trade.trade_id)] = (trade, order.client_id)
                listing = public.market.instrument
                moved = trade.quantity if trade.is_buyer else -trade.quantity
                if trade.commission_asset == listing.base:
                    moved -= trade.commission
                self.positions[public.symbol] = self.positions.get(public.symbol, ZERO) + moved
            self._taken[public.market_id] = len(rows)

    def open_orders(self) -> list[VenueOrder]:
        """Open orders with our prefix."""
        return [order for order in self.exchange.account.open_orders() if is_ours(order.client_id, self.instance)]


State = tuple[object, ...]


def state_of(engine: Engine) -> State:
    """What decides about orders and money, as plain values that can be compared."""
    ledger, risk = engine.ledger, engine.risk
    orders = tuple((o.place.order_id, o.state, o.filled, o.reported) for o in ledger.live_orders())
    held = tuple((symbol, ledger.position(symbol), ledger.average_price(symbol)) for symbol in ledger.symbols())
    money = tuple(sorted((currency, amount) for currency, amount in ledger.balances.items() if amount))
    ladder = (risk.peak_equity, risk.drawdown, risk.rung, risk.reconciled, risk.capital)
    return (ledger.cash(), held, money, orders, ladder, engine.halted, engine.flattening, engine.weights_version, engine.actors.digest)


class Judge:
    """One run's. `broken` fills at the first breach; the run ends there."""

    def __init__(self, timeline: Timeline, exchange: Exchange, instance: str) -> None:
        self._timeline, self._exchange, self._instance = timeline, exchange, instance
        self.truth = Truth(exchange, instance)
        self.broken: list[Breach] = []
        self.on_breach: Callable[[], None] = lambda: None
        self.trace: list[str] | None = None
        self.events = self.commands = 0
        self._digest = sha256()
        self._late: dict[str, float] = {}
        self._durable: set[OrderId] = set()
        self._placed: dict[str, int] = {}
        self._stepped: list[Place] = []
        self._books: dict[Symbol, BookSnapshot] = {}
        self._differs = False
        """Whether the account was last said to differ from the ledger."""
        self._left: tuple[float, float, str] | None = None
        """Peak of equity, capital and rung of the ladder of the life before."""
        self._engine: Engine | None = None
        self._seq = 0
        self.kept: tuple[int, State] | None = None
        """The last fact that is on the disk, and the state after it."""
        self.stopped_at: int | None = None
        """Stamp of the operator's last word to stop, while it stands."""

    # -- what happens --------------------------------------------------------------------------------------------------

    def step(self, event: Event, effects: Effects, engine: Engine) -> None:
        """One step of the engine, before anything of it is recorded or sent."""
        self.events += 1
        self.commands += len(effects.commands)
        self._engine, self._seq = engine, event.stamp.seq
        self._note(event, effects.commands)
        for sentence in invariants.violations(event, effects, engine):
            self.breach(sentence[:2], sentence[3:].lstrip(": "))
        if isinstance(event, Fill):
            self._fill(event)
        if failed := [name for name in engine.problems if name.startswith("agent_failed")]:
            self.breach("X", f"an agent fails for no fault of the world: {failed}")
        if isinstance(event, NewWeights) and effects.swapped and (fault := _unfit(event)):
            self.breach("I8", f"weights {event.version} serve, and {fault}")
        self._watch(event)
        placed = [command for command in effects.commands if isinstance(command, Place)]
        self._stepped += placed
        for place in placed:
            if place.side is Side.BUY and (reason := self._distrust(place.symbol, event.stamp.at)):
                self.breach("I4", f"{place.order_id} buys {place.symbol}, and {reason}")
        if self.stopped_at is not None and event.stamp.at > self.stopped_at + 1_000_000_000:
            for place in placed:
                if not (place.reduce_only and place.side is Side.SELL):
                    self.breach("I4", f"{place.order_id} placed although the operator's word to stop stands")
        if isinstance(event, RiskRestored) and (engine.risk.peak_equity, engine.risk.rung) != (event.peak_equity, event.rung):
            self.breach("I6", f"the ladder does not go on from a peak of {event.peak_equity:.8g} on rung {event.rung}")
        if isinstance(event, Reconciled) and self._left is not None:
            self._came_back(engine, self._left)
            self._left = None

    def durable(self) -> None:
        """A commit came through: the intents of the steps so far are on the disk, and a restart must find this state."""
        self._durable.update(place.order_id for place in self._stepped)
        self._stepped.clear()
        if self._engine is not None:
            self.kept = (self._seq, state_of(self._engine))

    def died(self) -> None:
        """The process is gone: what was not committed never was."""
        self._stepped.clear()
        self._books.clear()
        self._late.clear()
        self._differs = False
        if self._engine is not None and self._engine.risk.peak_equity:
            risk = self._engine.risk
            self._left = (risk.peak_equity, risk.capital, risk.rung)
        self._engine, self.kept = None, None

    def arrived(self, client_id: str) -> None:
        """A new order is about to be carried out by the exchange."""
        if is_ours(client_id, self._instance) and OrderId(client_id) not in self._durable:
            self.breach("I3", f"order {client_id} reached the exchange before its intent was durable")

    def check(self, engine: Engine | None, passed_s: float) -> None:
        """Hold both sides against each other; `passed_s` clear seconds have passed since the last time."""
        truth = self.truth
        truth.update()
        self._one_order_each()
        self._never_more_than_ours()
        if engine is None:
            return
        self._known_orders(engine, passed_s)
        for symbol in engine.symbols:
            theirs, ours = truth.positions.get(symbol, ZERO), engine.ledger.position(symbol)
            self._eventually("I2", f"position {symbol}", theirs == ours, MONEY_WITHIN_S, passed_s, f"the ledger says {ours}, own trades {theirs}")
        if engine.risk.reconciled:
            for currency, total in self._exchange.matching.balances().items():
                ours = engine.ledger.balances.get(currency, ZERO)
                sentence = f"the ledger says {ours}, the exchange {total}, and nothing says so"
                self._eventually("I2", f"balance {currency}", total == ours, BALANCES_WITHIN_S, passed_s, sentence)

    def final(self, engine: Engine) -> None:
        """After the calm: both sides must agree exactly."""
        truth = self.truth
        truth.update()
        for symbol in engine.symbols:
            if (theirs := truth.positions.get(symbol, ZERO)) != (ours := engine.ledger.position(symbol)):
                self.breach("I2", f"at the end the ledger holds {ours} {symbol}, own trades say {theirs}")
        if left := [order.client_id for order in truth.open_orders() if order.kind not in STOPS]:  # stops guard what is still held
            self.breach("I1", f"at the end orders are open: {left}")
        for currency, total in self._exchange.matching.balances().items():
            if (ours := engine.ledger.balances.get(currency, ZERO)) != total and engine.risk.reconciled:
                self.breach("I2", f"at the end the ledger has {ours} {currency}, the exchange {total}")

    def breach(self, invariant: str, sentence: str) -> None:
        """Something that must not be."""
        self.broken.append(Breach(invariant, self._timeline.seconds, sentence))
        self.say(f"BROKEN {invariant} {sentence}")
        self.on_breach()

    def say(self, line: str) -> None:
        """A line into the trace and the digest."""
        self._digest.update(line.encode())
        if self.trace is not None:
            self.trace.append(f"{self._timeline.seconds:12.6f}  {line}")

    @property
    def digest(self) -> str:
        """Of all events, commands and happenings so far."""
        return self._digest.hexdigest()

    # -- inside --------------------------------------------------------------------------------------------------------

    def _note(self, event: Event, commands: tuple[Command, ...]) -> None:
        row = encode(event)
        if isinstance(event, NewWeights):
            row[-1] = ""
        line = orjson.dumps(row)
        self._digest.update(line)
        rows = [orjson.dumps(encode(command)) for command in commands]
        for command in rows:
            self._digest.update(command)
        if self.trace is not None:
            self.trace.append(f"{self._timeline.seconds:12.6f}  {line.decode()}")
            self.trace += [f"{self._timeline.seconds:12.6f}    -> {command.decode()}" for command in rows]

    def _watch(self, event: Event) -> None:
        """What the facts themselves say about data and account, whatever the engine makes of it."""
        if isinstance(event, BookSnapshot):
            self._books[event.symbol] = event
        elif isinstance(event, FeedGap) and event.channel == "book":
            self._books.pop(event.symbol, None)
        elif isinstance(event, Reconciled):
            self._differs = bool(event.differences)

    def _distrust(self, symbol: Symbol, at: int) -> str:
        """Why nothing may be bought on what has been told of a symbol; empty where it may."""
        book = self._books.get(symbol)
        if book is None:
            return "no book is known since the last gap"
        if at - book.stamp.at > STALE_NS:
            return f"the last book is {(at - book.stamp.at) / 1e9:.1f} s old"
        if book.bids and book.asks and book.bids[0][0] >= book.asks[0][0]:
            return "the book is crossed"
        return "the account differs from the ledger" if self._differs else ""

    def _came_back(self, engine: Engine, left: tuple[float, float, str]) -> None:
        """I6: a restart is no way out of a drawdown."""
        peak, capital, rung = left
        risk = engine.risk
        if risk.rung != rung or risk.peak_equity - risk.capital < peak - capital - PEAK_TOLERANCE * peak:
            now = f"rung {risk.rung}, peak {risk.peak_equity:.8g} of capital {risk.capital:.8g}"
            self.breach("I6", f"the ladder stands at {now} after a restart, and stood at {rung}, {peak:.8g} of {capital:.8g}")

    def _fill(self, fill: Fill) -> None:
        self.truth.update()
        found = self.truth.trades.get((fill.symbol, fill.trade_id))
        if found is None:
            self.breach("I2", f"fill {fill.trade_id} of {fill.symbol} never happened, or is not ours")
            return
        trade, client_id = found
        told = (fill.quantity, fill.price, fill.side is Side.BUY, fill.fee, fill.fee_currency, fill.order_id)
        real = (trade.quantity, trade.price, trade.is_buyer, trade.commission, trade.commission_asset, client_id)
        if told != real:
            self.breach("I2", f"fill {fill.trade_id} of {fill.symbol} was told as {told}, and was {real}")

    def _one_order_each(self) -> None:
        """I3: as many venue orders as client ids."""
        for public in self._exchange.markets:
            counts: dict[str, int] = {}
            for order in self._exchange.account.orders(public.market_id):
                if is_ours(order.client_id, self._instance):
                    counts[order.client_id] = counts.get(order.client_id, 0) + 1
            for name, count in counts.items():
                if count > 1 and self._placed.get(name) != count:
                    self._placed[name] = count
                    self.breach("I3", f"{count} orders at the exchange carry the client id {name}")

    def _never_more_than_ours(self) -> None:
        """I5 in the truth: what we sell is ours."""
        for symbol, held in self.truth.positions.items():
            if held < 0:
                self.breach("I5", f"sold {-held} of {symbol} that were not ours")

    def _known_orders(self, engine: Engine, passed_s: float) -> None:
        """I1, in both directions."""
        known = {order.place.order_id: order for order in engine.ledger.live_orders()}
        there = {OrderId(order.client_id): order for order in self.truth.open_orders()}
        for name in there:
            order = known.get(name)
            sentence = "open at the exchange, and not in the ledger"
            self._eventually("I1", f"order {name}", order is not None and order.live, ORDERS_WITHIN_S, passed_s, sentence)
            going = order is not None and order.state is OrderState.CANCELING
            self._eventually("I1", f"cancel {name}", not going, ORDERS_WITHIN_S, passed_s, "open at the exchange, its cancel does not come through")
        for name, order in known.items():
            if name not in there:
                self._eventually("I1", f"live {name}", not order.live, ORDERS_WITHIN_S, passed_s, f"{order.state.value} in the ledger, not open there")
        gone = [key for key in self._late if key.startswith("I1") and key.split(" ")[-1] not in there and key.split(" ")[-1] not in known]
        for key in gone:
            del self._late[key]

    def _eventually(self, invariant: str, what: str, holds: bool, within_s: float, passed_s: float, sentence: str) -> None:
        key = f"{invariant} {what}"
        if holds:
            self._late.pop(key, None)
            return
        late = self._late[key] = self._late.get(key, 0.0) + passed_s
        if late > within_s:
            self._late[key] = -1e9
            self.breach(invariant, f"{what}: {sentence}, for more than {within_s:g} clear seconds")



def _unfit(event: NewWeights) -> str:
    """Why weights must not serve; empty where they may."""
    try:
        tensors = load(event.payload)
    except SafetensorError as error:
        return f"cannot be read: {error}"
    if event.spec != SPEC_HASH:
        return "are made for other observations"
    return "" if all(np.isfinite(tensor).all() for tensor in tensors.values()) else "are not finite"
