"""The ten coins of the synthetic market: grid, price level, and how each moves with the crowd."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from agents.core.errors import ConfigError
from agents.core.instruments import NS, Currency, Instrument, Symbol

YEAR_S = 365.25 * 86_400
FACTOR_VOLATILITY = 0.42
"""Annualised volatility of the common factor, about bitcoin's of recent years."""
MINUTE_NS = 60 * NS


@dataclass(frozen=True, slots=True)
class Asset:
    """Price in USDT at the start, grid, loading on the common factor, own annualised volatility, and size of its market."""

    symbol: str
    price: float
    tick: str
    lot: str
    beta: float
    own_volatility: float
    size: float
    """Multiplies depth and print sizes; bitcoin is 2."""


_ASSETS = (
    Asset("BTC/USDT", 97_000.0, "0.01", "0.00001", 1.0, 0.12, 2.0),
    Asset("ETH/USDT", 3_300.0, "0.01", "0.0001", 1.2, 0.25, 1.6),
    Asset("SOL/USDT", 190.0, "0.01", "0.001", 1.4, 0.45, 1.2),
    Asset("XRP/USDT", 2.2, "0.0001", "0.1", 1.1, 0.5, 1.2),
    Asset("BNB/USDT", 690.0, "0.01", "0.001", 0.9, 0.25, 1.0),
    Asset("ADA/USDT", 0.9, "0.0001", "0.1", 1.3, 0.45, 0.8),
    Asset("DOGE/USDT", 0.32, "0.00001", "1", 1.4, 0.55, 1.0),
    Asset("LINK/USDT", 22.0, "0.01", "0.01", 1.3, 0.45, 0.7),
    Asset("AVAX/USDT", 36.0, "0.01", "0.01", 1.4, 0.45, 0.7),
    Asset("LTC/USDT", 105.0, "0.01", "0.001", 1.0, 0.4, 0.7),
)
KNOWN = {asset.symbol: asset for asset in _ASSETS}


def find_assets(symbols: Sequence[str]) -> list[Asset]:
    """The assets of these symbols. Raises ConfigError for an unknown one, for a repeated one, and for none."""
    for symbol in symbols:
        if symbol not in KNOWN:
            raise ConfigError(f"exchange.symbols: the synthetic market has no {symbol}; it has {', '.join(KNOWN)}")
    if not symbols or len(set(symbols)) < len(symbols):
        raise ConfigError("exchange.symbols: give each symbol of the synthetic market once, and at least one")
    return [KNOWN[symbol] for symbol in symbols]


def listing(asset: Asset) -> Instrument:
    """The asset as a spot market with Binance's usual filters and 10 bps fees."""
    base, quote = asset.symbol.split("/")
    lot = Decimal(asset.lot)
    return Instrument(
        Symbol(asset.symbol), Currency(base), Currency(quote), Decimal(asset.tick), lot,
        min_quantity=lot, max_quantity=Decimal(9_000_000), min_notional=Decimal(5), max_notional=Decimal(9_000_000),
        amend=True,
    )  # fmt: skip
