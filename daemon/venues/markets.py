"""What an exchange lists: loaded, checked against what we want to trade, and reloaded when it changes."""

import asyncio
from collections.abc import Sequence
from decimal import Decimal

import structlog
from ccxt.base.errors import AuthenticationError, BaseError, NetworkError

from agents.core.errors import ConfigError, DataError, Throttled, Unreachable
from agents.core.instruments import TIMEFRAMES, Instrument, Symbol
from daemon.venues.client import Exchange, nearest
from daemon.venues.parse import SIGNIFICANT_DIGITS, number, parse_instrument, positive
from daemon.venues.throttle import Backoff, Throttle

Fees = tuple[Decimal, Decimal]
"""(maker, taker) as fractions."""

log = structlog.get_logger(__name__)


async def load(exchange: Exchange, throttle: Throttle, patience_s: float = 60.0) -> None:
    """Load the exchange's markets; raises Unreachable when it does not answer for `patience_s`."""
    deadline = asyncio.get_running_loop().time() + patience_s
    backoff = Backoff(0.5, 10.0)
    while True:
        try:
            await throttle.call(exchange, exchange.load_markets)
            return
        except AuthenticationError as error:
            raise ConfigError(f"exchange.api_key: {exchange.id} refuses it ({error})") from error
        except (NetworkError, TimeoutError, Throttled) as error:
            delay = backoff.failed()
            if asyncio.get_running_loop().time() + delay > deadline:
                raise Unreachable(f"exchange {exchange.id} does not answer: {type(error).__name__} {error}"[:400]) from error
            if backoff.failures == 1:
                log.warning("exchange_unreachable", exchange=exchange.id, error=f"{type(error).__name__}: {error}"[:200])
            await asyncio.sleep(delay)
        except BaseError as error:
            raise Unreachable(f"exchange {exchange.id} does not tell its markets: {error}"[:400]) from error


def check(exchange: Exchange, symbols: Sequence[Symbol], timeframes: Sequence[str]) -> None:
    """Raise ConfigError for what this exchange does not have, naming what comes nearest."""
    known = list(exchange.markets or {})
    for symbol in symbols:
        market = (exchange.markets or {}).get(symbol)
        if market is None:
            raise ConfigError(f"exchange.symbols: {exchange.id} does not list {symbol!r}{nearest(symbol, known, 'symbols')}")
        if not market.get("spot"):
            raise ConfigError(f"exchange.symbols: {symbol} is not a spot market; derivatives are not supported")
        if market.get("active") is False:
            raise ConfigError(f"exchange.symbols: {exchange.id} has suspended {symbol}; take it out")
    for timeframe in timeframes:
        if timeframe not in TIMEFRAMES:
            raise ConfigError(f"timeframe {timeframe!r} is unknown{nearest(timeframe, list(TIMEFRAMES), 'timeframes')}")


async def instruments(exchange: Exchange, throttle: Throttle, symbols: Sequence[Symbol]) -> list[Instrument]:
    """Grid and fees of each symbol; a price is fetched only where the grid depends on it."""
    return [
        parse_instrument(exchange.markets[symbol], exchange.precisionMode, await _price(exchange, throttle, symbol))
        for symbol in symbols
    ]


async def account_fees(exchange: Exchange, throttle: Throttle, symbols: Sequence[Symbol]) -> dict[Symbol, Fees]:
    """(maker, taker) that this account pays, for the symbols that the exchange tells them of; empty where it does not."""
    if not exchange.has.get("fetchTradingFees"):
        return {}
    try:
        told = await throttle.call(exchange, exchange.fetch_trading_fees)
        rows = {symbol: told[symbol] for symbol in symbols if isinstance(told.get(symbol), dict)}
        return {
            symbol: (number(row["maker"], "maker"), number(row["taker"], "taker"))
            for symbol, row in rows.items()
            if row.get("maker") is not None and row.get("taker") is not None
        }
    except (BaseError, TimeoutError, Throttled, DataError) as error:
        log.warning("account_fees_unknown", error=str(error)[:200], instead="the exchange's public rates")
        return {}


async def _price(exchange: Exchange, throttle: Throttle, symbol: Symbol) -> Decimal | None:
    if exchange.precisionMode != SIGNIFICANT_DIGITS:
        return None
    try:
        ticker = await throttle.call(exchange, lambda: exchange.fetch_ticker(symbol))
        return positive(ticker.get("last"), "last")
    except (BaseError, TimeoutError, Throttled, DataError) as error:
        log.warning("price_missing", symbol=symbol, error=str(error)[:200])
        return None
