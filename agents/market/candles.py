"""A candle as a market: a book around the opening, four prints along the path, a book around the close."""

from decimal import Decimal

from agents.core.events import Bar, BookSnapshot, Level, MarketEvent, Stamp, Trade
from agents.core.instruments import TIMEFRAMES, Instrument, Side, Symbol
from agents.market.frictions import CandleBook

ONE = Decimal(1)
PRINTS = 4


def candle_path(bar: Bar) -> tuple[tuple[Decimal, Side], ...]:
    """(price, aggressor) open, near extreme, far extreme, close: a rising candle is taken to have dipped first."""
    if bar.close >= bar.open:
        return (bar.open, Side.SELL), (bar.low, Side.SELL), (bar.high, Side.BUY), (bar.close, Side.SELL)
    return (bar.open, Side.BUY), (bar.high, Side.BUY), (bar.low, Side.SELL), (bar.close, Side.BUY)


def candle_book(
    symbol: Symbol, time: int, centre: Decimal, volume: Decimal, instrument: Instrument, model: CandleBook
) -> BookSnapshot:
    """The book that `model` imagines around a price; without volume, or at a price of zero, it is empty."""
    quantity = instrument.round_quantity(volume * model.depth / model.levels)
    bids: list[Level] = []
    asks: list[Level] = []
    if quantity > 0:
        for step in range(1, model.levels + 1):
            away = model.half_spread * step
            bid = instrument.round_price(centre * (ONE - away), "down")
            ask = instrument.round_price(centre * (ONE + away), "up")
            bid = min(bid, bids[-1][0] - instrument.tick) if bids else min(bid, ask - instrument.tick)
            ask = max(ask, asks[-1][0] + instrument.tick) if asks else ask
            if bid > 0:
                bids.append((bid, quantity))
            asks.append((ask, quantity))
    return BookSnapshot(Stamp(time), symbol, time, tuple(bids), tuple(asks))


def candle_prints(bar: Bar, instrument: Instrument, share: Decimal) -> list[Trade]:
    """The candle's four prints, which together carry `share` of its volume; none if that is less than a lot each."""
    quantity = instrument.round_quantity(bar.volume * share / PRINTS)
    if quantity <= 0:
        return []
    step = (TIMEFRAMES[bar.timeframe] - 1) // (PRINTS - 1)
    return [
        Trade(Stamp(bar.time + i * step), bar.symbol, bar.time + i * step, f"{bar.time}-{i}", price, quantity, side)
        for i, (price, side) in enumerate(candle_path(bar))
    ]


def candle_events(bar: Bar, instrument: Instrument, model: CandleBook | None = None) -> list[MarketEvent]:
    """The candle as a feed would have told it: book, prints, book, and the bar itself at its close, stamped in market time."""
    model = model or CandleBook()
    end = bar.time + TIMEFRAMES[bar.timeframe]
    return [
        candle_book(bar.symbol, bar.time, bar.open, bar.volume, instrument, model),
        *candle_prints(bar, instrument, ONE),
        candle_book(bar.symbol, end - 1, bar.close, bar.volume, instrument, model),
        Bar(Stamp(end), bar.symbol, bar.time, bar.timeframe, bar.open, bar.high, bar.low, bar.close, bar.volume),
    ]
