"""Calls about the market, open to everybody: general, book, trades, candles, tickers."""

from collections.abc import Callable

import orjson

from daemon.rehearsal import errors
from daemon.rehearsal.candles import INTERVALS_MS
from daemon.rehearsal.market import Day, Print, PublicMarket
from daemon.rehearsal.protocol import Params, text8
from daemon.rehearsal.publisher import levels
from daemon.rehearsal.venue import Venue

Rows = list[dict[str, object]]


def ping(venue: Venue, params: Params) -> object:
    return {}


def time(venue: Venue, params: Params) -> object:
    return {"serverTime": venue.real_ms()}


def system_status(venue: Venue, params: Params) -> object:
    return {"status": 0, "msg": "normal"}


def nothing(venue: Venue, params: Params) -> object:
    return []


def no_symbols(venue: Venue, params: Params) -> object:
    """The futures side of this exchange: it has none, so that clients that load every market find an empty list."""
    return {"timezone": "UTC", "serverTime": venue.real_ms(), "rateLimits": [], "exchangeFilters": [], "symbols": []}


def _chosen(venue: Venue, params: Params) -> list[PublicMarket]:
    """Markets named by `symbol` or by `symbols` (a JSON list); all when neither is sent."""
    if "symbol" in params and "symbols" in params:
        raise errors.bad_combination()
    if "symbol" in params:
        return [venue.markets.find(params.symbol())]
    listed = params.optional("symbols")
    if listed is None:
        return list(venue.markets)
    try:
        names = orjson.loads(listed)
    except orjson.JSONDecodeError as error:
        raise errors.illegal_characters("symbols", r'^\["[A-Z0-9-_.]{1,20}"(,"[A-Z0-9-_.]{1,20}"){0,}\]$') from error
    if not isinstance(names, list) or not names:
        raise errors.illegal_characters("symbols", r'^\["[A-Z0-9-_.]{1,20}"(,"[A-Z0-9-_.]{1,20}"){0,}\]$')
    return [venue.markets.find(str(name)) for name in names]


def exchange_info(venue: Venue, params: Params) -> object:
    return {
        "timezone": "UTC",
        "serverTime": venue.real_ms(),
        "rateLimits": venue.budget.limits(),
        "exchangeFilters": [],
        "symbols": [public.market.listing() for public in _chosen(venue, params)],
    }


def depth(venue: Venue, params: Params) -> object:
    public = venue.markets.find(params.symbol())
    bids, asks = public.depth.top(params.limit(100, 5000))
    return {"lastUpdateId": public.depth.update_id, "bids": levels(bids), "asks": levels(asks)}


def _trade_row(done: Print) -> dict[str, object]:
    return {
        "id": done.trade_id,
        "price": text8(done.price),
        "qty": text8(done.quantity),
        "quoteQty": text8(done.price * done.quantity),
        "time": done.market_ms,
        "isBuyerMaker": done.buyer_is_maker,
        "isBestMatch": True,
    }


def _aggregate_row(done: Print) -> dict[str, object]:
    return {
        "a": done.trade_id,
        "p": text8(done.price),
        "q": text8(done.quantity),
        "f": done.trade_id,
        "l": done.trade_id,
        "T": done.market_ms,
        "m": done.buyer_is_maker,
        "M": True,
    }


def trades(venue: Venue, params: Params) -> object:
    public = venue.markets.find(params.symbol())
    return [_trade_row(done) for done in list(public.prints)[-params.limit(500, 1000) :]]


def historical_trades(venue: Venue, params: Params) -> object:
    public, limit, from_id = venue.markets.find(params.symbol()), params.limit(500, 1000), params.integer("fromId")
    prints = list(public.prints)
    found = prints[-limit:] if from_id is None else [done for done in prints if done.trade_id >= from_id][:limit]
    return [_trade_row(done) for done in found]


def aggregate_trades(venue: Venue, params: Params) -> object:
    public, limit = venue.markets.find(params.symbol()), params.limit(500, 1000)
    from_id, start, end = params.integer("fromId"), params.integer("startTime"), params.integer("endTime")
    prints = list(public.prints)
    if from_id is None and start is None and end is None:
        return [_aggregate_row(done) for done in prints[-limit:]]
    found = [
        done
        for done in prints
        if (from_id is None or done.trade_id >= from_id)
        and (start is None or done.market_ms >= start)
        and (end is None or done.market_ms <= end)
    ]
    only_end = from_id is None and start is None
    return [_aggregate_row(done) for done in (found[-limit:] if only_end else found[:limit])]


def klines(venue: Venue, params: Params) -> object:
    public = venue.markets.find(params.symbol())
    interval = params.text("interval")
    if interval not in INTERVALS_MS:
        raise errors.bad_interval()
    return public.klines(interval, params.integer("startTime"), params.integer("endTime"), params.limit(500, 1000))


def average_price(venue: Venue, params: Params) -> object:
    public = venue.markets.find(params.symbol())
    rows = public.candles["1m"].rows(None, None, 5)
    volume = sum(row.volume for row in rows)
    price = sum(row.quote for row in rows) / volume if volume else (public.reference() or 0)
    return {"mins": 5, "price": text8(price), "closeTime": venue.markets.now_ms}


def _each(venue: Venue, params: Params, row: Callable[[PublicMarket], dict[str, object] | None]) -> object:
    """One object when one symbol was asked for, else a list."""
    rows = [made for public in _chosen(venue, params) if (made := row(public)) is not None]
    if "symbol" in params:
        return rows[0] if rows else {}
    return rows


def ticker_price(venue: Venue, params: Params) -> object:
    def row(public: PublicMarket) -> dict[str, object] | None:
        price = public.reference()
        return None if price is None else {"symbol": public.market_id, "price": text8(price)}

    return _each(venue, params, row)


def ticker_book(venue: Venue, params: Params) -> object:
    def row(public: PublicMarket) -> dict[str, object]:
        bid, ask = public.depth.best()
        return {
            "symbol": public.market_id,
            "bidPrice": text8(bid[0] if bid else 0),
            "bidQty": text8(bid[1] if bid else 0),
            "askPrice": text8(ask[0] if ask else 0),
            "askQty": text8(ask[1] if ask else 0),
        }

    return _each(venue, params, row)


def ticker_day(venue: Venue, params: Params) -> object:
    def row(public: PublicMarket) -> dict[str, object] | None:
        day = public.day()
        return None if day is None else _day_row(public, day)

    return _each(venue, params, row)


def _day_row(public: PublicMarket, day: Day) -> dict[str, object]:
    bid, ask = public.depth.best()
    last = public.prints[-1] if public.prints else None
    return {
        "symbol": public.market_id,
        "priceChange": text8(day.close - day.open),
        "priceChangePercent": f"{(day.close / day.open - 1) * 100 if day.open else 0.0:.3f}",
        "weightedAvgPrice": text8(day.quote / day.volume if day.volume else day.close),
        "prevClosePrice": text8(day.previous_close),
        "lastPrice": text8(day.close),
        "lastQty": text8(last.quantity if last else 0),
        "bidPrice": text8(bid[0] if bid else 0),
        "bidQty": text8(bid[1] if bid else 0),
        "askPrice": text8(ask[0] if ask else 0),
        "askQty": text8(ask[1] if ask else 0),
        "openPrice": text8(day.open),
        "highPrice": text8(day.high),
        "lowPrice": text8(day.low),
        "volume": text8(day.volume),
        "quoteVolume": text8(day.quote),
        "openTime": day.open_ms,
        "closeTime": day.close_ms,
        "firstId": public.prints[0].trade_id if public.prints else -1,
        "lastId": last.trade_id if last else -1,
        "count": day.count,
    }
