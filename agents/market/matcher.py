"""Our orders laid over one symbol's displayed book and prints, in price-time priority. One matcher for every mode.

External liquidity is what the feed shows: an arriving order takes displayed levels, a resting one waits behind the quantity
displayed at its price and is filled by prints that reach it, or by a book that moves through it. Displayed quantity that we
took stays taken until the feed shows another quantity at that price. Money is none of the matcher's business.
"""

from bisect import insort
from dataclasses import dataclass, field
from decimal import Decimal

from agents.core.events import BookSnapshot, Level, Trade
from agents.core.instruments import ZERO, Instrument, Side
from agents.core.orders import OrderId
from agents.market.frictions import Impact, NoImpact, ProRataQueue, Queue

ONE = Decimal(1)


@dataclass(frozen=True, slots=True)
class Execution:
    """One match of one of our orders; quantity in base units, on the lot."""

    order_id: OrderId
    side: Side
    price: Decimal
    quantity: Decimal
    maker: bool


@dataclass(slots=True)
class Resting:
    """One order in the book. `ahead` None: our price lies deeper than the feed shows, so the queue there is unknown."""

    order_id: OrderId
    side: Side
    price: Decimal
    remaining: Decimal
    sequence: int
    since: int
    """Market time at which it began to rest; prints from before cannot fill it."""
    ahead: Decimal | None = None
    shown: Decimal = ZERO
    """External quantity believed to stand at our price."""


@dataclass(slots=True)
class Placed:
    """What an arriving order did: its executions, what is left of it in the book, and own orders that it would have met."""

    executions: list[Execution] = field(default_factory=list)
    rested: Decimal = ZERO
    expired: list[OrderId] = field(default_factory=list)


class Matcher:
    """One symbol. Prices better than a limit are always given to us, worse ones never."""

    def __init__(self, instrument: Instrument, queue: Queue | None = None, impact: Impact | None = None) -> None:
        self.instrument = instrument
        self._queue = queue or ProRataQueue()
        self._impact = impact or NoImpact()
        self._bids: tuple[Level, ...] = ()
        self._asks: tuple[Level, ...] = ()
        self._waiting: BookSnapshot | None = None
        """The newest book, looked at once somebody wants to trade with it: most are replaced before."""
        self._time = 0
        self._sequence = 0
        self._orders: dict[OrderId, Resting] = {}
        self._resting: dict[Side, list[Resting]] = {Side.BUY: [], Side.SELL: []}
        self._taken: dict[tuple[Side, Decimal], tuple[Decimal, Decimal]] = {}
        """(side of the liquidity, price) -> (what we took, what was displayed then)."""
        self.refused = 0
        """Books and prints that could not be believed and changed nothing."""

    # -- questions -------------------------------------------------------------------------------------------------

    @property
    def best_bid(self) -> Decimal | None:
        self._settle()
        return self._bids[0][0] if self._bids else None

    @property
    def best_ask(self) -> Decimal | None:
        self._settle()
        return self._asks[0][0] if self._asks else None

    @property
    def orders(self) -> list[Resting]:
        """Resting orders, in order of arrival."""
        return list(self._orders.values())

    @property
    def busy(self) -> bool:
        """Whether any order of ours rests here."""
        return bool(self._orders)

    def crosses(self, side: Side, price: Decimal) -> bool:
        """Whether an order at `price` would trade at once, with the displayed book or with an own order."""
        best = self.best_ask if side is Side.BUY else self.best_bid
        own = self._resting[side.opposite]
        return (best is not None and _reaches(side, price, best)) or (bool(own) and _reaches(side, price, own[0].price))

    def cost(self, side: Side, quantity: Decimal, limit: Decimal | None = None) -> tuple[Decimal, Decimal]:
        """(base quantity, quote notional) that taking now would fill; changes nothing."""
        self._settle()
        matches = self._walk(side, quantity, limit)
        return sum((q for _, _, q in matches), ZERO), sum((p * q for _, p, q in matches), ZERO)

    # -- orders ----------------------------------------------------------------------------------------------------

    def place(self, order_id: OrderId, side: Side, quantity: Decimal, price: Decimal | None, rest: bool = True) -> Placed:
        """Take what is displayed within `price` (None: any price); rest the remainder at `price` if `rest`.

        Own orders on the other side that stand in the way expire instead of trading with us (Binance's EXPIRE_MAKER).
        """
        self._settle()
        placed = Placed()
        matches = self._walk(side, quantity, price)
        left = quantity - sum((q for _, _, q in matches), ZERO)
        if rest and price is not None and left > 0:
            reached: Decimal | None = price
        else:
            reached = matches[-1][0] if matches else None
        if reached is not None:
            self._expire_own(side.opposite, reached, placed)
        for level_price, paid, taken in matches:
            self._take(side.opposite, level_price, taken)
            placed.executions.append(Execution(order_id, side, paid, taken, maker=False))
        if rest and price is not None and left > 0:
            self._rest(order_id, side, price, left)
            placed.rested = left
        return placed

    def cancel(self, order_id: OrderId) -> Decimal | None:
        """Remove a resting order and return what was left of it; None if it does not rest here."""
        if (order := self._orders.pop(order_id, None)) is None:
            return None
        self._resting[order.side].remove(order)
        return order.remaining

    # -- the world -------------------------------------------------------------------------------------------------

    def on_book(self, book: BookSnapshot) -> list[Execution]:
        """Take the displayed book, and fill what it moved through. A crossed or non-finite book changes nothing."""
        self._waiting = book
        self._time = max(self._time, book.time)
        if not self._orders:
            return []
        self._settle()
        bids, asks = self._bids, self._asks
        executions: list[Execution] = []
        for side, opposite in ((Side.BUY, asks), (Side.SELL, bids)):
            orders = self._resting[side]
            while orders and opposite and _reaches(side, orders[0].price, opposite[0][0]):
                if not self._fill_through(orders[0], executions):
                    break
            for order in orders:
                self._requeue(order)
        return executions

    def on_trade(self, trade: Trade) -> list[Execution]:
        """A print fills our orders that it went through, then those whose turn in the queue it reached."""
        self._time = max(self._time, trade.time)
        if not self._orders:
            return []
        self._settle()
        price, budget, side = trade.price, trade.quantity, trade.side.opposite
        if not (price.is_finite() and budget.is_finite() and price > 0):
            self.refused += 1
            return []
        orders = self._resting[side]
        if not orders or not _reaches(side, orders[0].price, price):
            return []
        executions: list[Execution] = []
        passed = ZERO
        for order in list(orders):
            if not _reaches(side, order.price, price) or budget <= 0:
                break
            if order.since > trade.time:
                continue
            if order.price == price:
                if order.ahead is None:
                    break
                step = min(budget, max(order.ahead - passed, ZERO))
                passed += step
                budget -= step
            budget -= self._fill(order, budget, executions)
        self._shorten(side, price, passed + max(budget, ZERO))
        return executions

    # -- inside ----------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Take the newest book, unless it cannot be believed."""
        if (book := self._waiting) is None:
            return
        self._waiting = None
        if not (_sound(book.bids, -1) and _sound(book.asks, 1)) or (
            book.bids and book.asks and book.bids[0][0] >= book.asks[0][0]
        ):
            self.refused += 1
            return
        self._bids, self._asks = book.bids, book.asks
        if self._taken:
            self._forget_taken()

    def _levels(self, side: Side) -> tuple[Level, ...]:
        return self._bids if side is Side.BUY else self._asks

    def _walk(self, side: Side, quantity: Decimal, limit: Decimal | None) -> list[tuple[Decimal, Decimal, Decimal]]:
        """(level price, price paid, base quantity) best first, within the limit after impact."""
        liquidity = side.opposite
        levels = self._levels(liquidity)
        lot = self.instrument.lot
        worse = self._impact.fraction(quantity, sum((q for _, q in levels), ZERO))
        matches = []
        for price, displayed in levels:
            paid = price if not worse else self._worsened(side, price, worse)
            if limit is not None and not _reaches(side, limit, paid):
                break
            taken = self._taken.get((liquidity, price))
            free = min(displayed - taken[0] if taken else displayed, quantity)
            free = free // lot * lot
            if free > 0:
                matches.append((price, paid, free))
                quantity -= free
                if quantity <= 0:
                    break
        return matches

    def _worsened(self, side: Side, price: Decimal, fraction: Decimal) -> Decimal:
        moved = price * (ONE + side.value * fraction)
        return max(self.instrument.round_price(moved, "up" if side is Side.BUY else "down"), self.instrument.tick)

    def _take(self, liquidity: Side, price: Decimal, quantity: Decimal) -> None:
        taken, displayed = self._taken.get((liquidity, price), (ZERO, None))
        if displayed is None:
            displayed = _displayed(self._levels(liquidity), price)
        self._taken[liquidity, price] = (taken + quantity, displayed)

    def _forget_taken(self) -> None:
        shown = {Side.BUY: dict(self._bids), Side.SELL: dict(self._asks)}
        self._taken = {key: was for key, was in self._taken.items() if shown[key[0]].get(key[1]) == was[1]}

    def _expire_own(self, side: Side, reached: Decimal, placed: Placed) -> None:
        """Expire own orders of `side` that a taker going as far as `reached` would have met."""
        for order in list(self._resting[side]):
            if not _reaches(side, order.price, reached):
                break
            self.cancel(order.order_id)
            placed.expired.append(order.order_id)

    def _rest(self, order_id: OrderId, side: Side, price: Decimal, quantity: Decimal) -> None:
        self._sequence += 1
        order = Resting(order_id, side, price, quantity, self._sequence, self._time)
        displayed = self._shown_at(side, price)
        if displayed is not None:
            order.ahead, order.shown = self._queue.join(displayed), displayed
        self._orders[order_id] = order
        insort(self._resting[side], order, key=lambda o: (-o.side.value * o.price, o.sequence))

    def _shown_at(self, side: Side, price: Decimal) -> Decimal | None:
        """External quantity displayed at a price of ours; None if the feed does not reach that deep."""
        levels = self._levels(side)
        if not levels or (_reaches(side, levels[-1][0], price) and price != levels[-1][0]):
            return None
        return _displayed(levels, price)

    def _requeue(self, order: Resting) -> None:
        displayed = self._shown_at(order.side, order.price)
        if displayed is None:
            return
        if order.ahead is None:
            order.ahead = self._queue.join(displayed)
        elif displayed < order.shown:
            order.ahead = self._queue.shrink(order.ahead, order.shown, displayed)
        order.shown = displayed

    def _shorten(self, side: Side, price: Decimal, traded: Decimal) -> None:
        """External quantity `traded` left the queue at `price`, from its front."""
        for order in self._resting[side]:
            if order.price == price and order.ahead is not None:
                order.ahead = max(order.ahead - traded, ZERO)
                order.shown = max(order.shown - traded, ZERO)

    def _fill_through(self, order: Resting, executions: list[Execution]) -> bool:
        """Fill a resting order from displayed quantity at its price or better for us; True if it is gone."""
        filled = ZERO
        for level_price, displayed in self._levels(order.side.opposite):
            if not _reaches(order.side, order.price, level_price):
                break
            taken = self._taken.get((order.side.opposite, level_price))
            done = self._fill(order, displayed - taken[0] if taken else displayed, executions)
            if done > 0:
                self._take(order.side.opposite, level_price, done)
                filled += done
            if not order.remaining:
                return True
        return False

    def _fill(self, order: Resting, available: Decimal, executions: list[Execution]) -> Decimal:
        """Fill at the order's own price, on the lot; returns the quantity."""
        lot = self.instrument.lot
        quantity = min(order.remaining, available) // lot * lot  # a whole number of lots, and written as one
        if quantity <= 0:
            return ZERO
        order.remaining -= quantity
        executions.append(Execution(order.order_id, order.side, order.price, quantity, maker=True))
        if not order.remaining:
            del self._orders[order.order_id]
            self._resting[order.side].remove(order)
        return quantity


def _reaches(side: Side, limit: Decimal, price: Decimal) -> bool:
    """Whether an order of `side` with `limit` may trade at `price`."""
    return limit >= price if side is Side.BUY else limit <= price


def _displayed(levels: tuple[Level, ...], price: Decimal) -> Decimal:
    for level_price, quantity in levels:
        if level_price == price:
            return quantity
    return ZERO


def _sound(levels: tuple[Level, ...], direction: int) -> bool:
    """Finite positive prices that move away from the market, and finite quantities."""
    last: Decimal | None = None
    for price, quantity in levels:
        if not (price.is_finite() and quantity.is_finite()) or price <= 0 or quantity < 0:
            return False
        if last is not None and (price - last) * direction <= 0:
            return False
        last = price
    return True
