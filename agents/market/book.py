"""The mirror of one exchange book, and whether it can be believed. What cannot be believed never replaces what could."""

from bisect import bisect_left
from decimal import Decimal
from math import isfinite
from operator import gt, lt

from agents.core.events import BookDelta, BookSnapshot, Level, Quote
from agents.core.instruments import NS

EMPTY, STALE, CROSSED, GAPPED, NOT_FINITE = "empty", "stale", "crossed", "gapped", "not_finite"
TOP = 10
"""Levels kept as floats for the features."""
STALE_AFTER_NS = 10 * NS

BookEvent = BookSnapshot | BookDelta | Quote


class Book:
    """One symbol's bids and asks, best first.

    `flaw` is why the last message was not to be trusted, or None; levels then are those of the last good message. A gap lasts
    until the next snapshot. `version` grows with each change, `stamp_at` and `time` belong to the last good message.
    """

    __slots__ = (
        "_ask_depth",
        "_asks",
        "_bid_depth",
        "_bids",
        "_final_id",
        "_whole",
        "ask_prices",
        "ask_sizes",
        "bid_prices",
        "bid_sizes",
        "flaw",
        "quotes_only",
        "stale_after_ns",
        "stamp_at",
        "time",
        "version",
    )  # fmt: skip

    def __init__(self, stale_after_ns: int = STALE_AFTER_NS) -> None:
        self.stale_after_ns = stale_after_ns
        self.flaw: str | None = EMPTY
        self.quotes_only = True
        self.stamp_at = self.time = self.version = 0
        self.bid_prices: list[float] = []
        self.bid_sizes: list[float] = []
        self.ask_prices: list[float] = []
        self.ask_sizes: list[float] = []
        self._bids: tuple[Level, ...] | None = ()
        self._asks: tuple[Level, ...] | None = ()
        self._bid_depth: _Depth | None = None
        self._ask_depth: _Depth | None = None
        self._final_id = 0
        self._whole = False
        """No message since the last snapshot is missing: deltas may go on, even through a crossed or one-sided moment."""

    # -- facts -----------------------------------------------------------------------------------------------------

    def apply(self, event: BookEvent) -> str | None:
        """Take one message; None if it entered, else why not: empty, crossed, gapped, not_finite, old, shallow."""
        if event.time < self.time:
            return "old"
        if type(event) is BookSnapshot:
            problem = self._replace(event.bids, event.asks)
        elif type(event) is BookDelta:
            problem = self._change(event)
        elif type(event) is Quote:
            if not self.quotes_only:
                return "shallow"  # a deeper stream is there; the best price alone would cut it down
            problem = self._replace(((event.bid, event.bid_quantity),), ((event.ask, event.ask_quantity),))
            self.quotes_only = True
        else:
            raise TypeError(f"no book message: {type(event).__name__}")
        if problem is None:
            self.flaw, self.stamp_at, self.time = None, event.stamp.at, event.time
            self.version += 1
        elif problem != "old":
            self.flaw = problem
        return problem

    def distrust(self) -> None:
        """Messages were lost: nothing here counts until the next snapshot."""
        self._whole = False
        if self.flaw != EMPTY:
            self.flaw = GAPPED

    def _replace(self, bids: tuple[Level, ...], asks: tuple[Level, ...]) -> str | None:
        self._whole = False
        if not bids or not asks:
            return EMPTY
        try:
            bid_prices, bid_sizes = [float(level[0]) for level in bids], [float(level[1]) for level in bids]
            ask_prices, ask_sizes = [float(level[0]) for level in asks], [float(level[1]) for level in asks]
        except (ValueError, OverflowError):  # a signalling NaN
            return NOT_FINITE
        if (problem := _flaw(bid_prices, bid_sizes, ask_prices, ask_sizes)) is not None:
            return problem
        self.bid_prices, self.bid_sizes, self.ask_prices, self.ask_sizes = bid_prices, bid_sizes, ask_prices, ask_sizes
        self._bids, self._asks, self._bid_depth, self._ask_depth, self._final_id = bids, asks, None, None, 0
        self.quotes_only, self._whole = False, True
        return None

    def _change(self, event: BookDelta) -> str | None:
        if not self._whole:
            return self.flaw
        if event.final_id <= self._final_id:
            return "old"
        if self._final_id and event.first_id > self._final_id + 1:
            self._whole = False
            return GAPPED
        for price, quantity in (*event.bids, *event.asks):
            if not (price.is_finite() and quantity.is_finite() and price > 0 and quantity >= 0):
                self._whole = False
                return NOT_FINITE
        if self._bid_depth is None or self._ask_depth is None:
            self._bid_depth, self._ask_depth = _Depth(self.bids, -1), _Depth(self.asks, 1)
        self._bid_depth.change(event.bids)
        self._ask_depth.change(event.asks)
        self._final_id = event.final_id
        self._bids = self._asks = None
        bids, asks = self._bid_depth.best(TOP), self._ask_depth.best(TOP)
        if not bids or not asks:
            return EMPTY
        if bids[0][0] >= asks[0][0]:
            return CROSSED
        self.bid_prices, self.bid_sizes = [float(level[0]) for level in bids], [float(level[1]) for level in bids]
        self.ask_prices, self.ask_sizes = [float(level[0]) for level in asks], [float(level[1]) for level in asks]
        return None

    # -- questions -------------------------------------------------------------------------------------------------

    def trouble(self, now_at: int) -> str | None:
        """None if the book can be traded on at stamp time `now_at`, else why not."""
        if self.flaw is not None:
            return self.flaw
        return STALE if now_at - self.stamp_at > self.stale_after_ns else None

    @property
    def bids(self) -> tuple[Level, ...]:
        if self._bids is None:
            self._bids = self._bid_depth.best() if self._bid_depth is not None else ()
        return self._bids

    @property
    def asks(self) -> tuple[Level, ...]:
        if self._asks is None:
            self._asks = self._ask_depth.best() if self._ask_depth is not None else ()
        return self._asks

    @property
    def bid(self) -> Decimal | None:
        """Best bid."""
        return self.bids[0][0] if self.bids else None

    @property
    def ask(self) -> Decimal | None:
        """Best ask."""
        return self.asks[0][0] if self.asks else None

    @property
    def mid(self) -> Decimal | None:
        return (self.bids[0][0] + self.asks[0][0]) / 2 if self.bids and self.asks else None

    @property
    def spread(self) -> Decimal | None:
        """Best ask minus best bid, in quote."""
        return self.asks[0][0] - self.bids[0][0] if self.bids and self.asks else None

    @property
    def microprice(self) -> Decimal | None:
        """Best prices weighted by the opposite sizes: nearer to the side that will be taken out first."""
        if not (self.bids and self.asks):
            return None
        (bid, bid_size), (ask, ask_size) = self.bids[0], self.asks[0]
        return (bid * ask_size + ask * bid_size) / (bid_size + ask_size)


def _flaw(bid_prices: list[float], bid_sizes: list[float], ask_prices: list[float], ask_sizes: list[float]) -> str | None:
    """Why these levels are no book: not finite or not positive, crossed, or not in order."""
    if not isfinite(sum(bid_prices) + sum(bid_sizes) + sum(ask_prices) + sum(ask_sizes)):
        return NOT_FINITE
    if min(bid_sizes) <= 0 or min(ask_sizes) <= 0 or bid_prices[-1] <= 0:
        return NOT_FINITE
    if bid_prices[0] >= ask_prices[0]:
        return CROSSED
    if not (all(map(gt, bid_prices, bid_prices[1:])) and all(map(lt, ask_prices, ask_prices[1:]))):
        return CROSSED
    return None


class _Depth:
    """One side at full depth for delta streams: quantities by price, prices kept sorted ascending."""

    __slots__ = ("_direction", "_prices", "_quantities")

    def __init__(self, levels: tuple[Level, ...], direction: int) -> None:
        self._direction = direction
        self._quantities = dict(levels)
        self._prices = sorted(self._quantities)

    def change(self, levels: tuple[Level, ...]) -> None:
        quantities, prices = self._quantities, self._prices
        for price, quantity in levels:
            if quantity:
                if price not in quantities:
                    prices.insert(bisect_left(prices, price), price)
                quantities[price] = quantity
            elif quantities.pop(price, None) is not None:
                del prices[bisect_left(prices, price)]

    def best(self, count: int | None = None) -> tuple[Level, ...]:
        """The best `count` levels, or all."""
        prices, quantities = self._prices, self._quantities
        if self._direction < 0:
            chosen = prices[: -count - 1 : -1] if count else prices[::-1]
        else:
            chosen = prices[:count] if count else prices
        return tuple([(price, quantities[price]) for price in chosen])
