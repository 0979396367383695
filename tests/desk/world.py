"""A small account in a small market, built from facts only, for the tests of the risk layer."""

from decimal import Decimal

from agents.core.events import Adjustment, AdjustmentKind, BookSnapshot, Fill, Listing, OrderUpdate, Stamp
from agents.core.instruments import NS, Currency, Instrument, Side, Symbol
from agents.core.ledger import Ledger
from agents.core.orders import Amend, Cancel, OrderState, Place, TimeInForce, client_order_id
from agents.desk.attribution import Attribution
from agents.desk.limits import Limits, RiskState
from agents.desk.planner import plan
from agents.desk.projection import project
from agents.desk.sheet import PlanContext, PlanMemory
from agents.desk.wishes import Quotes, Style, Target
from agents.market.state import MarketState

USDT = Currency("USDT")
BTC, ETH, SOL = Symbol("BTC/USDT"), Symbol("ETH/USDT"), Symbol("SOL/USDT")
PRICES = {BTC: Decimal(50000), ETH: Decimal(2500), SOL: Decimal(100)}
GRID = {BTC: ("0.01", "0.00001"), ETH: ("0.01", "0.0001"), SOL: ("0.01", "0.001")}


def instrument(symbol: Symbol, amend: bool = False, **changes) -> Instrument:
    tick, lot = GRID.get(symbol, ("0.01", "0.001"))
    fields = {"tick": Decimal(tick), "lot": Decimal(lot), "min_notional": Decimal(5), "amend": amend, **changes}
    return Instrument(symbol, Currency(symbol.split("/")[0]), USDT, **fields)


class World:
    """Market, ledger and the memory of the risk layer; `at` is the stamp of the present."""

    def __init__(self, capital="10000", symbols=(BTC, ETH, SOL), amend=False, limits=None, **changes):
        self.at = 1_000 * NS
        self.market, self.ledger = MarketState(symbols), Ledger(USDT)
        self.limits, self.state = limits or Limits(), RiskState()
        self.memory, self.attribution = PlanMemory(), Attribution(USDT)
        self.decision, self.fills = 0, 0
        for symbol in symbols:
            self.apply(Listing(Stamp(self.at), instrument(symbol, amend, **changes)))
        for kind in (AdjustmentKind.OPENING, AdjustmentKind.CAPITAL):
            self.apply(Adjustment(Stamp(self.at), USDT, Decimal(capital), kind))
        for symbol in symbols:
            self.book(symbol)

    def apply(self, event):
        self.market.apply(event)
        self.ledger.apply(event)

    def book(self, symbol, mid=None, spread="0.0002", depth="1000000"):
        """A fresh book of five levels on both sides around `mid`, `depth` in quote currency a level."""
        mid = Decimal(mid) if mid is not None else PRICES.get(symbol, Decimal(100))
        tick = self.ledger.instruments[symbol].tick
        half = max((mid * Decimal(spread) / 2 / tick).to_integral_value() * tick, tick)
        bids = tuple((mid - half - i * tick, Decimal(depth) / mid) for i in range(5))
        asks = tuple((mid + half + i * tick, Decimal(depth) / mid) for i in range(5))
        self.apply(BookSnapshot(Stamp(self.at), symbol, self.at, bids, asks))

    def mark(self, symbol):
        return self.market.mark(symbol)

    def marks(self):
        return {s: m for s in self.market.symbols if (m := self.market.mark(s)) is not None}

    def equity(self):
        return self.ledger.equity(self.marks())

    def later(self, seconds=1.0):
        """Time passes and the books are renewed where they were."""
        self.at += int(seconds * NS)
        for symbol in self.market.symbols:
            book = self.market.book(symbol)
            if book.bids:
                self.apply(BookSnapshot(Stamp(self.at), symbol, self.at, book.bids, book.asks))

    def own(self, symbol, weight, price=None):
        """Buy `weight` of the capital at the mark, as if long ago."""
        price = price or PRICES[symbol]
        spec = self.ledger.instruments[symbol]
        quantity = spec.round_quantity(Decimal(str(weight)) * self.ledger.capital / price)
        order_id = self.order(symbol, Side.BUY, quantity, price)
        self.fill(order_id)
        return quantity

    def order(self, symbol, side, quantity, price, state=OrderState.OPEN, post_only=False, shares=(("long_term", 1.0), ("house", 0.0))):
        """An order that stands in the ledger in `state`."""
        self.fills += 1
        order_id = client_order_id("old", 1, self.fills, 0)
        place = Place(order_id, symbol, side, Decimal(quantity), Decimal(price), TimeInForce.GTC, post_only, False, shares)
        self.ledger.record(place, Stamp(self.at - 10 * NS))
        if state is not OrderState.PENDING:
            self.ledger.apply(OrderUpdate(Stamp(self.at - 9 * NS), order_id, symbol, state))
        return order_id

    def quote_order(self, symbol, side, quantity, price, state=OrderState.OPEN):
        return self.order(symbol, side, quantity, price, state, True, (("market_making", 1.0),))

    def fill(self, order_id, quantity=None, price=None):
        self.fills += 1
        place = self.ledger.orders[order_id].place
        quantity = quantity if quantity is not None else self.ledger.orders[order_id].remaining
        fill = Fill(Stamp(self.at), place.symbol, self.at, order_id, str(self.fills), place.side, price or place.price, quantity,
                    Decimal(0), USDT, True)  # fmt: skip
        self.apply(fill)
        self.attribution.apply(fill, place.shares, self.marks())

    def update(self, order_id, state):
        self.ledger.apply(OrderUpdate(Stamp(self.at), order_id, self.ledger.orders[order_id].place.symbol, state))

    # -- the risk layer --------------------------------------------------------------------------------------------

    def target(self, weights, quotes=None, style=None, gross=1.0, contributions=None):
        weights = {Symbol(s): w for s, w in weights.items()}
        return Target(
            self.at, weights, {s: Quotes(*q) for s, q in (quotes or {}).items()}, {s: style or Style() for s in weights},
            contributions or {s: {"long_term": w} for s, w in weights.items()}, gross, 1.0,
        )  # fmt: skip

    def project(self, target):
        return project(target, self.market, self.ledger, self.limits, self.state)

    def context(self):
        self.decision += 1
        return PlanContext(self.decision, "test", 1, self.at, self.memory, self.attribution, halted=self.state.halted)

    def plan(self, target):
        """Project and plan, without sending."""
        return plan(self.project(target), self.market, self.ledger, self.limits, self.context())

    def step(self, target):
        """Project, plan and record the commands; the venue has not answered yet."""
        planned = self.plan(target)
        self.record(planned.commands)
        return planned

    def record(self, commands):
        for command in commands:
            self.ledger.record(command, Stamp(self.at))

    def answer(self, commands):
        """The venue confirms everything and fills nothing."""
        for command in commands:
            if isinstance(command, Place):
                ends = command.time_in_force is TimeInForce.IOC
                self.update(command.order_id, OrderState.EXPIRED if ends else OrderState.OPEN)
            elif isinstance(command, Cancel):
                self.update(command.order_id, OrderState.CANCELED)
            elif isinstance(command, Amend):
                self.update(command.order_id, OrderState.CANCELED)
                self.update(command.new_order_id, OrderState.OPEN)
