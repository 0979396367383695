"""What the public sees of each market: prints with their own contiguous ids, the book, candles, the 24 h ticker."""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

from agents.core.events import BookSnapshot
from agents.core.instruments import Instrument, Side, Symbol
from daemon.rehearsal import errors
from daemon.rehearsal.candles import INTERVALS_MS, Candle, CandleSeries, HistoryRow
from daemon.rehearsal.depth import Depth
from daemon.rehearsal.filters import Market
from daemon.rehearsal.protocol import text8
from daemon.rehearsal.source import Source

KEPT_PRINTS = 5_000
"""Prints kept for trades, aggTrades and historicalTrades."""
FIRST_TRADE_ID = 100_001
MINUTES_A_DAY = 1440
MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Print:
    """One public trade; `market_ms` is market time."""

    trade_id: int
    market_ms: int
    price: Decimal
    quantity: Decimal
    buyer_is_maker: bool


class PublicMarket:
    """One market as the public sees it."""

    def __init__(self, market: Market, start_ms: int, source: Source) -> None:
        self.market = market
        self.market_id = market.market_id
        self.stream_id = market.market_id.lower()
        self.symbol = market.instrument.symbol
        self.depth = Depth()
        self.prints: deque[Print] = deque(maxlen=KEPT_PRINTS)
        self.last_price: Decimal | None = None
        self.fresh: list[Print] = []
        """Prints since the last publication."""
        self.closed: list[tuple[str, Candle]] = []
        """(interval, candle) closed since the last publication."""
        self._next_trade_id = FIRST_TRADE_ID
        self._newest_book: BookSnapshot | None = None

        def history(interval: str, end_ms: int, limit: int) -> list[HistoryRow]:
            return source.history(self.symbol, interval, end_ms, limit)

        self.candles = {interval: CandleSeries(interval, start_ms, history) for interval in INTERVALS_MS}

    def book(self, event: BookSnapshot) -> None:
        """The newest book; the public sees the last one of a tick."""
        self._newest_book = event

    def print_trade(self, market_ms: int, price: Decimal, quantity: Decimal, aggressor: Side) -> int:
        """Publish one execution; returns its trade id."""
        trade_id = self._next_trade_id
        self._next_trade_id += 1
        buyer_is_taker = aggressor is Side.BUY
        done = Print(trade_id, market_ms, price, quantity, not buyer_is_taker)
        self.prints.append(done)
        self.fresh.append(done)
        self.last_price = price
        as_price, as_quantity = float(price), float(quantity)
        for interval, series in self.candles.items():
            for closed in series.take(market_ms, as_price, as_quantity, buyer_is_taker, trade_id):
                self.closed.append((interval, closed))
        return trade_id

    def settle(self, market_ms: int) -> None:
        """The end of a tick: show the newest book, and close the candles that time has ended, whether or not anything traded."""
        if self._newest_book is not None:
            self.depth.apply(self._newest_book)
            self._newest_book = None
        for interval, series in self.candles.items():
            for closed in series.roll(market_ms):
                self.closed.append((interval, closed))

    def reference(self) -> Decimal | None:
        """Last price, or the mid of the book before anything has traded."""
        if self.last_price is not None:
            return self.last_price
        bid, ask = self.depth.best()
        return (bid[0] + ask[0]) / 2 if bid and ask else None

    def kline(self, interval: str, candle: Candle, closed: bool) -> dict[str, object]:
        """The `k` object of a kline message."""
        return {
            "t": candle.open_ms,
            "T": candle.open_ms + INTERVALS_MS[interval] - 1,
            "s": self.market_id,
            "i": interval,
            "f": candle.first_id,
            "L": candle.last_id,
            "o": text8(candle.open),
            "c": text8(candle.close),
            "h": text8(candle.high),
            "l": text8(candle.low),
            "v": text8(candle.volume),
            "n": candle.count,
            "x": closed,
            "q": text8(candle.quote),
            "V": text8(candle.taker_base),
            "Q": text8(candle.taker_quote),
            "B": "0",
        }

    def klines(self, interval: str, start_ms: int | None, end_ms: int | None, limit: int) -> list[list[object]]:
        """Rows of the klines call."""
        length = INTERVALS_MS[interval]
        return [
            [
                candle.open_ms,
                text8(candle.open),
                text8(candle.high),
                text8(candle.low),
                text8(candle.close),
                text8(candle.volume),
                candle.open_ms + length - 1,
                text8(candle.quote),
                candle.count,
                text8(candle.taker_base),
                text8(candle.taker_quote),
                "0",
            ]
            for candle in self.candles[interval].rows(start_ms, end_ms, limit)
        ]

    def day(self) -> "Day | None":
        """The last 24 hours, from minute candles; None before anything was known."""
        rows = self.candles["1m"].rows(None, None, MINUTES_A_DAY)
        if not rows:
            return None
        return Day(
            open=rows[0].open,
            high=max(row.high for row in rows),
            low=min(row.low for row in rows),
            close=rows[-1].close,
            previous_close=rows[0].open,
            volume=sum(row.volume for row in rows),
            quote=sum(row.quote for row in rows),
            count=sum(row.count for row in rows),
            open_ms=rows[0].open_ms,
            close_ms=rows[-1].open_ms + 60_000 - 1,
        )


@dataclass(frozen=True, slots=True)
class Day:
    """A rolling day: prices, base and quote volume, number of trades."""

    open: float
    high: float
    low: float
    close: float
    previous_close: float
    volume: float
    quote: float
    count: int
    open_ms: int
    close_ms: int


class Markets:
    """All markets of the exchange, by exchange id and by symbol, and the market time that they stand at."""

    def __init__(self, instruments: Mapping[Symbol, Instrument], start: int, source: Source) -> None:
        self.now = start
        self.by_symbol: dict[Symbol, PublicMarket] = {}
        self.by_id: dict[str, PublicMarket] = {}
        self.by_stream: dict[str, PublicMarket] = {}
        for symbol, instrument in instruments.items():
            market = Market(f"{instrument.base}{instrument.quote}", instrument)
            public = PublicMarket(market, start // MS, source)
            self.by_symbol[symbol] = self.by_id[market.market_id] = self.by_stream[public.stream_id] = public

    @property
    def now_ms(self) -> int:
        return self.now // MS

    def __iter__(self) -> Iterator[PublicMarket]:
        return iter(self.by_id.values())

    def find(self, market_id: str) -> PublicMarket:
        """The market, or -1121."""
        found = self.by_id.get(market_id)
        if found is None:
            raise errors.bad_symbol()
        return found
