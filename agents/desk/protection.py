"""Protective stops that rest on the exchange: how much one covers, where it triggers, and when it gives way.

On spot a resting stop locks the base that it would sell, so it competes with every other sell. It covers what no other sell needs:
the position less the larger of what sells already promise and what the safe target shall sell by and by (directional sells and the
market maker's ask). Where sells need what the stop holds, the stop goes first: cancelled, and only after the exchange has confirmed
placed again, smaller. Nothing is placed while any stop of the symbol lives, so all sells together never exceed the position.

Stops are market orders once triggered: a limit that a falling market jumps over would sell nothing and still lock the holding. What
a collar guards against, a wrong price of our own, cannot happen here: the exchange's last price triggers. `limit_orders` is for
exchanges that know stop-limit orders only; their limit lies one collar below the trigger.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from agents.core.instruments import NS, ZERO, Instrument, Side, Symbol
from agents.core.ledger import Ledger, Order
from agents.core.orders import Amend, Cancel, Command, OrderId, OrderState, Place, client_order_id
from agents.desk.gate import Refusal, Standing, gate, is_stop, known_mark
from agents.desk.limits import Limits, smallest_notional
from agents.desk.sheet import RESTING, PlanContext
from agents.desk.stops import Level
from agents.market.state import MarketState

MOVE_NS = 5 * NS
"""Least stamp time between two placings of a symbol's stop, and before one is moved or shrunk for a quote: the message rate is finite."""
GROW_NS = 15 * NS
"""The same before it grows: asks that were pulled for a moment come back."""
RETRY_NS = 10 * NS
"""The same after the exchange refused or expired one; meanwhile the daemon holds the stop."""
GRACE_NS = 2 * NS
"""How long a stop that the mark has reached may do its work before the daemon cancels it and sells itself."""
OUTLIVES_NS = 10 * NS
"""A stop that outlives its position by so much is an anomaly, and is cancelled once more."""
STEP = 0.1
"""A stop is moved when its level is a tenth of its distance away: less is not worth a place in the message rate."""
LACK = Decimal("0.2")
"""Sells may lack a fifth of what they want before the stop shrinks; drift of the mark is no reason."""
SLACK = Decimal("0.25")
"""A stop grows when a quarter of what it should cover is uncovered."""
EXCHANGE, DAEMON, NOBODY = "exchange", "daemon", "none"
"""Who holds a position's stop."""


@dataclass(frozen=True, slots=True)
class Need:
    """Base quantities of one holding that shall be sold: by directional orders, and offered in the market maker's ask."""

    sell: Decimal = ZERO
    ask: Decimal = ZERO


@dataclass(frozen=True, slots=True)
class _Holding:
    """One symbol in base units: what is owned, what other sells promise, what they need, and the stops that live."""

    instrument: Instrument
    position: Decimal
    promised: Decimal
    need: Need
    stops: tuple[Order, ...]
    mark: Decimal | None

    @property
    def cover(self) -> Decimal:
        """What the stop should sell."""
        return max(self.position - max(self.promised, self.need.sell + self.need.ask), ZERO)

    @property
    def least(self) -> Decimal:
        """Smallest quantity of an order that the exchange takes at the mark."""
        return smallest_notional(self.instrument, self.mark) / self.mark if self.mark else ZERO


class Protection:
    """The stops of one account; remembers when it last touched them."""

    def __init__(self, limit_orders: bool = False) -> None:
        self._limit_orders = limit_orders
        self._placed: dict[Symbol, int] = {}
        self._outlived: dict[Symbol, int] = {}
        self._reached: dict[Symbol, int] = {}
        self._latest: dict[Symbol, OrderId] = {}
        self._amended: dict[OrderId, OrderId] = {}
        """Old order -> new one, while the exchange has not confirmed the amendment: of the two only one can fill."""
        self.refused: list[Refusal] = []
        """Stops that the gate would not let pass at the last look."""

    def guard(self, market: MarketState, ledger: Ledger, limits: Limits, context: PlanContext, levels: Mapping[Symbol, Level],
              hits: Collection[Symbol], needs: Mapping[Symbol, Need], planned: Sequence[Command] = ()) -> list[Command]:  # fmt: skip
        """Cancels and placements that bring every stop to what its position needs now.

        `planned` are this step's other commands, which the ledger does not know yet; `needs` what sells want of a holding, nothing
        where a symbol is missing. A symbol in `hits` gets no stop: it is being sold.
        """
        commands: list[Command] = []
        self.refused = []
        live = ledger.live_orders()
        stopped = [order.place.symbol for order in live if order.live and is_stop(order.place)]
        self._amended = {old: new for old, new in self._amended.items() if (o := ledger.orders.get(old)) is not None and o.live}
        leg = sum(not isinstance(command, Cancel) for command in planned)
        standing = Standing(ZERO, placed=[p for p in planned if isinstance(p, Place)])
        for symbol in dict.fromkeys((*ledger.symbols(), *stopped)):
            instrument = ledger.instruments.get(symbol)
            if instrument is None or not (instrument.stop_orders or symbol in stopped):
                continue
            holding = self._look(instrument, market, ledger, needs.get(symbol, Need()), planned)
            self._note(symbol, holding, hits, context.at)
            if holding.stops:
                if self._outlives(symbol, context.at):
                    ledger.anomalies["stop_outlives_position"] += 1
                    commands += [Cancel(o.place.order_id, symbol) for o in holding.stops if o.state is OrderState.CANCELING]
                commands += self._give_way(holding, levels.get(symbol), context.at)
            elif symbol not in hits and (level := levels.get(symbol)) is not None:
                place = self._place(holding, level, limits, context, leg, ledger)
                refusal = gate(place, market, ledger, limits, standing) if place is not None else None
                if refusal is not None:
                    self.refused.append(refusal)
                elif place is not None:
                    commands.append(place)
                    self._placed[symbol], self._latest[symbol], leg = context.at, place.order_id, leg + 1
                    context.memory.sent.append(context.at)
        self._amended |= {c.order_id: c.new_order_id for c in planned if isinstance(c, Amend)}
        return commands

    def holder(self, symbol: Symbol, ledger: Ledger, levels: Mapping[Symbol, Level], halted: bool = False) -> str:
        """Who holds the stop of a position: `exchange`, `daemon`, or `none` where no level is known or nobody would act on it."""
        instrument = ledger.instruments.get(symbol)
        if any(is_stop(order.place) and order.state in RESTING for order in ledger.live_orders(symbol)):
            return EXCHANGE
        acts = instrument is not None and (instrument.stop_orders or not halted)
        return DAEMON if symbol in levels and acts else NOBODY

    # -- one symbol ------------------------------------------------------------------------------------------------

    def _look(self, instrument: Instrument, market: MarketState, ledger: Ledger, need: Need, planned: Sequence[Command]) -> _Holding:
        symbol, promises = instrument.symbol, dict[OrderId, Decimal]()
        orders = ledger.live_orders(symbol)
        stops = tuple(order for order in orders if order.live and is_stop(order.place))
        for order in orders:
            if order.place.side is Side.SELL and not (order.live and is_stop(order.place)):
                promises[order.place.order_id] = order.remaining
        replaced = dict(self._amended)
        for command in planned:
            if isinstance(command, Place) and command.symbol == symbol and command.side is Side.SELL:
                promises[command.order_id] = command.quantity
            elif isinstance(command, Amend) and command.symbol == symbol and command.side is Side.SELL:
                promises[command.new_order_id], replaced[command.order_id] = command.quantity, command.new_order_id
        for old, new in replaced.items():
            if old in promises and new in promises:
                promises[new] = max(promises[new], promises.pop(old))
        promised = sum(promises.values(), ZERO)
        return _Holding(instrument, max(ledger.position(symbol), ZERO), promised, need, stops, known_mark(market, symbol))

    def _note(self, symbol: Symbol, holding: _Holding, hits: Collection[Symbol], at: int) -> None:
        """Clocks that run while something lasts: a stop reached, a stop without a position."""
        for lasts, since in ((symbol in hits, self._reached), (bool(holding.stops) and holding.position <= 0, self._outlived)):
            if lasts:
                since.setdefault(symbol, at)
            else:
                since.pop(symbol, None)

    def _give_way(self, holding: _Holding, level: Level | None, at: int) -> list[Command]:
        """Cancels of stops that are too many, too large, too small or in the wrong place. One is placed when all are gone."""
        *surplus, newest = holding.stops
        if self._unfit(holding, newest, level, at):
            surplus.append(newest)
        return [Cancel(order.place.order_id, order.place.symbol) for order in surplus if order.state in RESTING]

    def _outlives(self, symbol: Symbol, at: int) -> bool:
        """Whether a stop has outlived its position for too long; asked again only after as long a while."""
        late = at - self._outlived.get(symbol, at) >= OUTLIVES_NS
        if late:
            self._outlived[symbol] = at
        return late

    def _unfit(self, holding: _Holding, stop: Order, level: Level | None, at: int) -> bool:
        """Whether the stop must go, or shall be replaced by a better one."""
        symbol, quantity, cover = holding.instrument.symbol, stop.remaining, holding.cover
        left = holding.position - quantity
        if left < holding.promised:
            return True
        if at - self._reached.get(symbol, at - GRACE_NS) < GRACE_NS:
            return False
        lacking = holding.need.sell - max(left, ZERO)
        if lacking > 0 and (lacking > LACK * holding.need.sell or cover < holding.least):
            return True
        if self._lately(symbol, at, MOVE_NS):
            return False
        asked = holding.need.ask
        if holding.need.sell + asked - left > (1 - LACK) * asked > 0:
            return True
        if level is None or holding.mark is None or cover < holding.least or _trigger(holding.instrument, level) >= holding.mark:
            return False  # no better stop could be placed
        grown = cover - quantity > max(SLACK * cover, holding.instrument.lot)
        return _moved(holding.instrument, stop, level) or (grown and not self._lately(symbol, at, GROW_NS))

    def _lately(self, symbol: Symbol, at: int, within: int) -> bool:
        """Whether a stop was placed less than `within` ago."""
        return at - self._placed.get(symbol, at - within) < within

    def _place(self, holding: _Holding, level: Level, limits: Limits, context: PlanContext, leg: int, ledger: Ledger) -> Place | None:
        """The stop that the position should have; None where the exchange would not take it or has just refused one."""
        instrument = holding.instrument
        symbol, at = instrument.symbol, context.at
        latest = ledger.orders.get(self._latest[symbol]) if symbol in self._latest else None
        refused = latest is not None and latest.state in (OrderState.REJECTED, OrderState.EXPIRED)
        if self._lately(symbol, at, RETRY_NS if refused else MOVE_NS):
            return None
        trigger = _trigger(instrument, level)
        quantity = instrument.round_quantity(min(holding.cover, instrument.max_quantity))
        if instrument.problem(trigger, quantity) is not None:
            return None
        price = instrument.round_price(trigger * (1 - Decimal(repr(limits.price_collar))), "up") if self._limit_orders else None
        order_id = client_order_id(context.instance, context.epoch, context.decision, leg)
        return Place(order_id, symbol, Side.SELL, quantity, price, reduce_only=True, trigger_price=trigger)


def resting(ledger: Ledger) -> dict[Symbol, float]:
    """Triggers of the stops that rest on the exchange; the highest where there are several."""
    found: dict[Symbol, float] = {}
    for order in ledger.live_orders():
        if order.state in RESTING and (trigger := order.place.trigger_price) is not None:
            found[order.place.symbol] = max(float(trigger), found.get(order.place.symbol, 0.0))
    return found


def _moved(instrument: Instrument, stop: Order, level: Level) -> bool:
    """Whether the level has left the stop's trigger by a step."""
    away = abs(_trigger(instrument, level) - (stop.place.trigger_price or ZERO))
    return away > 2 * instrument.tick and float(away) >= STEP * level.distance * level.price


def _trigger(instrument: Instrument, level: Level) -> Decimal:
    return instrument.round_price(Decimal(repr(level.price)), "down")
