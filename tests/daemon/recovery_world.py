"""A small exchange and the journal of a daemon on it that may stop writing at any moment; for the tests of recovery."""

from dataclasses import dataclass, field, replace
from decimal import Decimal

from agents.core.events import Event, Fill, Listing, OrderUpdate, Stamp, stamped
from agents.core.instruments import Currency, Instrument, Side, Symbol
from agents.core.ledger import Ledger
from agents.core.orders import Cancel, Command, OrderId, OrderState, Place, client_order_id
from daemon import opening
from daemon.left import Left, left_behind
from daemon.recovery import Recovery, recover
from daemon.venues.fills import Cursor
from daemon.venues.parse import MS, OrderView, OwnTrade, Transfer
from daemon.venues.truth import Truth

D = Decimal
USDT, COIN, BNB = Currency("USDT"), Currency("BTC"), Currency("BNB")
BTC = Symbol("BTC/USDT")
LISTED = Instrument(BTC, COIN, USDT, D("0.01"), D("0.001"))
ALLOCATION = D(1000)
START = 1_700_000_000_000 * MS
SECOND = 1_000_000_000


@dataclass
class Order:
    """What the exchange keeps of one order."""

    client_id: str
    venue_id: str
    side: Side
    price: Decimal
    quantity: Decimal
    filled: Decimal = Decimal(0)
    status: str = "open"
    created: int = START

    def view(self) -> OrderView:
        return OrderView(self.venue_id, self.client_id, BTC, self.status, self.filled, self.quantity, "", self.side, self.price, self.created)


@dataclass
class World:
    """`facts` and `commands` are what was committed; `whole` is the ledger of a daemon that never stopped."""

    balances: dict[Currency, Decimal] = field(default_factory=lambda: {USDT: D(5000), COIN: D(2), BNB: D(10)})
    orders: list[Order] = field(default_factory=list)
    trades: list[OwnTrade] = field(default_factory=list)
    transfers: list[Transfer] = field(default_factory=list)
    facts: list[Event] = field(default_factory=list)
    commands: list[tuple[int, Command]] = field(default_factory=list)
    unheard: list[Event] = field(default_factory=list)
    epoch: int = 1
    now: int = START
    seq: int = 0
    alive: bool = True
    """Whether the daemon lives: hears, and writes."""
    opening_cursors: dict[Symbol, Cursor] = field(default_factory=lambda: {BTC: Cursor()})
    booked: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.whole = Ledger(USDT)
        self.decisions = 0
        self.hear(Listing(Stamp(0), LISTED))
        for adjustment in opening.fresh(USDT, ALLOCATION, self.balances):
            self.hear(adjustment)

    # -- the daemon ------------------------------------------------------------------------------------------------

    def hear(self, event: Event, *, told: bool = True) -> None:
        """A fact reaches the daemon that never stops, and unless the other is dead or deaf, its journal."""
        self.seq += 1
        event = stamped(event, Stamp(self.now, self.seq))
        self.whole.apply(event)
        if self.alive and told:
            self.facts.append(event)
        elif self.alive:
            self.unheard.append(event)

    def listen(self) -> None:
        """The daemon's own sweep, which brings late what no stream has told."""
        for event in self.unheard if self.alive else ():
            self.seq += 1
            self.facts.append(stamped(event, Stamp(self.now, self.seq)))
        self.unheard.clear()

    def place(self, side: Side, price: int, quantity: Decimal, *, arrives: bool, acknowledged: bool) -> Order | None:
        self.decisions += 1
        order_id = client_order_id("main", self.epoch, self.decisions, 0)
        place = Place(order_id, BTC, side, quantity, D(price))
        self.seq += 1
        self.commands.append((self.seq, place))
        self.whole.record(place, Stamp(self.now, self.seq))
        if not arrives:
            return None
        order = self.accept(order_id, side, D(price), quantity)
        self.hear(OrderUpdate(Stamp(0), order_id, BTC, OrderState.OPEN, order.venue_id, D(0)), told=acknowledged)
        return order

    def cancel(self, order: Order, *, arrives: bool, told: bool) -> None:
        order_id = OrderId(order.client_id)
        self.seq += 1
        self.commands.append((self.seq, Cancel(order_id, BTC)))
        if not arrives:
            return
        self.whole.record(Cancel(order_id, BTC), Stamp(self.now, self.seq))
        order.status = "canceled"
        self.hear(OrderUpdate(Stamp(0), order_id, BTC, OrderState.CANCELED, order.venue_id, order.filled), told=told)

    # -- the exchange ------------------------------------------------------------------------------------------------

    def accept(self, client_id: str, side: Side, price: Decimal, quantity: Decimal) -> Order:
        order = Order(client_id, str(len(self.orders) + 1), side, price, quantity, created=self.now)
        self.orders.append(order)
        return order

    def execute(self, order: Order, quantity: Decimal, fee: tuple[Currency, Decimal], *, told: bool) -> None:
        """Fill part of any order, the owner's or ours; what is not told stays unheard until somebody asks."""
        order.filled += quantity
        if order.filled >= order.quantity:
            order.status = "closed"
        trade = OwnTrade(
            BTC, str(100 + len(self.trades)), order.venue_id, "", self.now, order.side, order.price, quantity, (fee,), maker=True
        )
        self.trades.append(trade)
        self._move(COIN, order.side.value * quantity)
        self._move(USDT, -order.side.value * quantity * order.price)
        self._move(fee[0], -fee[1])
        if order.client_id.startswith("q-main-"):
            self.hear(trade.fill(OrderId(order.client_id)), told=told)
            if order.status == "closed":
                self.hear(OrderUpdate(Stamp(0), OrderId(order.client_id), BTC, OrderState.FILLED, order.venue_id, order.filled), told=told)
        else:
            for correction in trade.corrections("an order that is not ours"):
                self.hear(correction, told=told)

    def transfer(self, currency: Currency, amount: Decimal, *, listed: bool, told: bool) -> None:
        transfer = Transfer(f"transfer {len(self.transfers)}", currency, amount, self.now)
        self._move(currency, amount)
        if listed:
            self.transfers.append(transfer)
            self.hear(transfer.adjustment(), told=told)

    def _move(self, currency: Currency, amount: Decimal) -> None:
        self.balances[currency] = self.balances.get(currency, D(0)) + amount

    # -- recovery ----------------------------------------------------------------------------------------------------

    def left(self) -> Left:
        return left_behind(self.epoch, START, USDT, self.facts, self.commands, self.opening_cursors, self.booked)

    def truth(self, left: Left) -> Truth:
        cursor = left.cursors.get(BTC, Cursor())
        known = {name for _, name in cursor.known}
        fresh = [t for t in self.trades if t.trade_id not in known and not cursor.settled(t.trade_id, t.time // MS, by_id=True)]
        by_client = {order.client_id: order for order in self.orders}
        live = [o.place.order_id for o in left.ledger.orders.values() if o.live or o.remaining]
        return Truth(
            balances={c: total for c, total in self.balances.items() if total},
            opened=[order.view() for order in self.orders if order.status == "open"],
            records={name: by_client[name].view() for name in live if name in by_client and by_client[name].status != "open"},
            denied=frozenset(name for name in live if name not in by_client),
            gone=frozenset(name for name in live if name not in by_client),
            trades=fresh,
            owners={view.key: view for order in self.orders for view in [order.view()]},
            transfers=self.transfers,
            instruments={BTC: LISTED},
            cursors={BTC: cursor.beyond((t.time // MS, t.trade_id) for t in self.trades if t in fresh)},
        )

    def recover(self, truth: Truth | None = None, **more: object) -> Recovery:
        left = self.left()
        return recover(left, truth or self.truth(left), USDT, ALLOCATION, "main", epoch=self.epoch, **more)  # type: ignore[arg-type]

    def restart(self, recovery: Recovery) -> "World":
        """The next session: its journal holds what it began with, and nothing else."""
        after = replace(self, facts=[], commands=[], unheard=[], epoch=self.epoch + 1, alive=True, booked=recovery.transfers)
        after.facts = [stamped(event, Stamp(self.now, number)) for number, event in enumerate(recovery.events, start=1)]
        after.seq, after.commands = len(recovery.events), []
        after.opening_cursors = dict(recovery.cursors)
        after.whole, after.decisions = opened(recovery), 0
        return after


def opened(recovery: Recovery) -> Ledger:
    """The ledger that a session begins with."""
    ledger = Ledger(USDT)
    for number, event in enumerate(recovery.events, start=1):
        ledger.apply(stamped(event, Stamp(START, number)))
    return ledger


def fills(recovery: Recovery) -> list[str]:
    return [event.trade_id for event in recovery.events if isinstance(event, Fill)]
