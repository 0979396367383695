"""Turns what happened in a tick into stream messages, for those streams only that somebody listens to."""

from agents.core.events import Level
from daemon.rehearsal.candles import Candle
from daemon.rehearsal.depth import DepthChange
from daemon.rehearsal.market import Day, Markets, Print, PublicMarket
from daemon.rehearsal.protocol import text8
from daemon.rehearsal.streams import Hub

KLINE_EVERY_MS = 250
SECOND_MS = 1000
PARTIAL_DEPTHS = (5, 10, 20)


def levels(side: tuple[Level, ...] | list[Level]) -> list[list[str]]:
    return [[text8(price), text8(quantity)] for price, quantity in side]


class _SlowDepth:
    """Diffs of one second joined to one, for `@depth` without a speed."""

    def __init__(self) -> None:
        self.first_id = 0
        self.final_id = 0
        self.bids: dict[str, str] = {}
        self.asks: dict[str, str] = {}

    def take(self, change: DepthChange) -> None:
        self.first_id = self.first_id or change.first_id
        self.final_id = change.final_id
        self.bids.update((price, quantity) for price, quantity in levels(change.bids))
        self.asks.update((price, quantity) for price, quantity in levels(change.asks))


class Publisher:
    """Publishes ticks of all markets. `real_ms` paces klines and tickers, market time stands in every event."""

    def __init__(self, hub: Hub, markets: Markets) -> None:
        self._hub = hub
        self._markets = markets
        self._kline_due_ms = 0
        self._second_due_ms = 0
        self._hub_version = -1
        self._intervals: dict[str, list[str]] = {}
        self._sent_klines: dict[tuple[str, str], tuple[int, int]] = {}
        self._sent_best: dict[str, tuple[Level | None, Level | None]] = {}
        self._slow: dict[str, _SlowDepth] = {}

    def tick(self, real_ms: int) -> None:
        """Everything since the last tick, in order: trades, closed candles, book; then what is paced by the clock."""
        if self._hub.version != self._hub_version:
            self._note_wanted()
        event_ms = self._markets.now_ms
        kline_due, second_due = real_ms >= self._kline_due_ms, real_ms >= self._second_due_ms
        for public in self._markets:
            self._trades(public, event_ms)
            self._closed_candles(public, event_ms)
            self._book(public, event_ms, second_due)
            if kline_due:
                self._open_candles(public, event_ms)
            if second_due:
                self._tickers(public, event_ms)
        if kline_due:
            self._kline_due_ms = real_ms - real_ms % KLINE_EVERY_MS + KLINE_EVERY_MS
        if second_due:
            self._second_due_ms = real_ms - real_ms % SECOND_MS + SECOND_MS
        self._hub.flush()

    def _note_wanted(self) -> None:
        self._hub_version = self._hub.version
        self._intervals = {}
        for stream in self._hub.wanted_streams():
            name, _, channel = stream.partition("@")
            if channel.startswith("kline_"):
                self._intervals.setdefault(name, []).append(channel.removeprefix("kline_"))

    def _trades(self, public: PublicMarket, event_ms: int) -> None:
        if not public.fresh:
            return
        trade, aggregate = f"{public.stream_id}@trade", f"{public.stream_id}@aggTrade"
        for done in public.fresh:
            self._hub.publish(trade, lambda done=done: trade_message(public, done, event_ms))  # type: ignore[misc]
            self._hub.publish(aggregate, lambda done=done: aggregate_message(public, done, event_ms))  # type: ignore[misc]
        public.fresh.clear()

    def _closed_candles(self, public: PublicMarket, event_ms: int) -> None:
        for interval, candle in public.closed:
            stream = f"{public.stream_id}@kline_{interval}"
            if self._hub.wanted(stream):
                self._kline(stream, public, interval, candle, event_ms, closed=True)
        public.closed.clear()

    def _open_candles(self, public: PublicMarket, event_ms: int) -> None:
        for interval in self._intervals.get(public.stream_id, ()):
            series = public.candles.get(interval)
            if series is None or series.current is None:
                continue
            mark = (series.current.open_ms, series.current.count)
            if self._sent_klines.get((public.stream_id, interval)) == mark:
                continue
            self._sent_klines[public.stream_id, interval] = mark
            self._kline(f"{public.stream_id}@kline_{interval}", public, interval, series.current, event_ms, closed=False)

    def _kline(self, stream: str, public: PublicMarket, interval: str, candle: Candle, event_ms: int, *, closed: bool) -> None:
        inner = public.kline(interval, candle, closed)
        self._hub.publish(stream, lambda: {"e": "kline", "E": event_ms, "s": public.market_id, "k": inner})

    def _book(self, public: PublicMarket, event_ms: int, second_due: bool) -> None:
        change = public.depth.drain()
        name = public.stream_id
        if change is not None:
            self._hub.publish(f"{name}@depth@100ms", lambda: depth_message(public, change, event_ms))
            for count in PARTIAL_DEPTHS:
                self._partial(public, f"{name}@depth{count}@100ms", count)
            self._best(public)
        slow_stream = f"{name}@depth"
        if self._hub.wanted(slow_stream):
            slow = self._slow.setdefault(name, _SlowDepth())
            if change is not None:
                slow.take(change)
            if second_due and slow.first_id:
                self._hub.publish(slow_stream, lambda: slow_depth_message(public, slow, event_ms))
                del self._slow[name]
        else:
            self._slow.pop(name, None)
        if second_due:
            for count in PARTIAL_DEPTHS:
                self._partial(public, f"{name}@depth{count}", count)

    def _partial(self, public: PublicMarket, stream: str, count: int) -> None:
        if self._hub.wanted(stream):
            bids, asks = public.depth.top(count)
            update_id = public.depth.update_id
            self._hub.publish(stream, lambda: {"lastUpdateId": update_id, "bids": levels(bids), "asks": levels(asks)})

    def _best(self, public: PublicMarket) -> None:
        stream = f"{public.stream_id}@bookTicker"
        if not self._hub.wanted(stream):
            return
        best = public.depth.best()
        if self._sent_best.get(stream) != best:
            self._sent_best[stream] = best
            self._hub.publish(stream, lambda: best_message(public))

    def _tickers(self, public: PublicMarket, event_ms: int) -> None:
        mini, full = f"{public.stream_id}@miniTicker", f"{public.stream_id}@ticker"
        if not (self._hub.wanted(mini) or self._hub.wanted(full)):
            return
        day = public.day()
        if day is not None:
            self._hub.publish(mini, lambda: mini_message(public, day, event_ms))
            self._hub.publish(full, lambda: ticker_message(public, day, event_ms))


def trade_message(public: PublicMarket, done: Print, event_ms: int) -> dict[str, object]:
    return {
        "e": "trade",
        "E": event_ms,
        "s": public.market_id,
        "t": done.trade_id,
        "p": text8(done.price),
        "q": text8(done.quantity),
        "T": done.market_ms,
        "m": done.buyer_is_maker,
        "M": True,
    }


def aggregate_message(public: PublicMarket, done: Print, event_ms: int) -> dict[str, object]:
    return {
        "e": "aggTrade",
        "E": event_ms,
        "s": public.market_id,
        "a": done.trade_id,
        "p": text8(done.price),
        "q": text8(done.quantity),
        "f": done.trade_id,
        "l": done.trade_id,
        "T": done.market_ms,
        "m": done.buyer_is_maker,
        "M": True,
    }


def depth_message(public: PublicMarket, change: DepthChange, event_ms: int) -> dict[str, object]:
    return {
        "e": "depthUpdate",
        "E": event_ms,
        "s": public.market_id,
        "U": change.first_id,
        "u": change.final_id,
        "b": levels(change.bids),
        "a": levels(change.asks),
    }


def slow_depth_message(public: PublicMarket, slow: _SlowDepth, event_ms: int) -> dict[str, object]:
    return {
        "e": "depthUpdate",
        "E": event_ms,
        "s": public.market_id,
        "U": slow.first_id,
        "u": slow.final_id,
        "b": list(slow.bids.items()),
        "a": list(slow.asks.items()),
    }


def best_message(public: PublicMarket) -> dict[str, object]:
    bid, ask = public.depth.best()
    return {
        "u": public.depth.update_id,
        "s": public.market_id,
        "b": text8(bid[0] if bid else 0),
        "B": text8(bid[1] if bid else 0),
        "a": text8(ask[0] if ask else 0),
        "A": text8(ask[1] if ask else 0),
    }


def mini_message(public: PublicMarket, day: Day, event_ms: int) -> dict[str, object]:
    return {
        "e": "24hrMiniTicker",
        "E": event_ms,
        "s": public.market_id,
        "c": text8(day.close),
        "o": text8(day.open),
        "h": text8(day.high),
        "l": text8(day.low),
        "v": text8(day.volume),
        "q": text8(day.quote),
    }


def ticker_message(public: PublicMarket, day: Day, event_ms: int) -> dict[str, object]:
    bid, ask = public.depth.best()
    last = public.prints[-1] if public.prints else None
    return {
        "e": "24hrTicker",
        "E": event_ms,
        "s": public.market_id,
        "p": text8(day.close - day.open),
        "P": f"{(day.close / day.open - 1) * 100 if day.open else 0.0:.3f}",
        "w": text8(day.quote / day.volume if day.volume else day.close),
        "x": text8(day.previous_close),
        "c": text8(day.close),
        "Q": text8(last.quantity if last else 0),
        "b": text8(bid[0] if bid else 0),
        "B": text8(bid[1] if bid else 0),
        "a": text8(ask[0] if ask else 0),
        "A": text8(ask[1] if ask else 0),
        "o": text8(day.open),
        "h": text8(day.high),
        "l": text8(day.low),
        "v": text8(day.volume),
        "q": text8(day.quote),
        "O": day.open_ms,
        "C": day.close_ms,
        "F": public.prints[0].trade_id if public.prints else -1,
        "L": last.trade_id if last else -1,
        "n": day.count,
    }
