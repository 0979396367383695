"""The filters of one spot market: as exchangeInfo lists them, and as a new order meets them."""

from dataclasses import dataclass
from decimal import Decimal

from agents.core.instruments import Instrument, Side
from daemon.rehearsal import errors
from daemon.rehearsal.protocol import PRECISION, text8

MAX_OPEN_ORDERS = 200
BID_UP = ASK_UP = Decimal(5)
BID_DOWN = ASK_DOWN = Decimal("0.2")
"""PERCENT_PRICE_BY_SIDE multipliers that Binance uses on its large markets."""
MAX_PRICE_TICKS = Decimal(10**8)
ORDER_TYPES = ("LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS", "STOP_LOSS_LIMIT")
MAX_STOP_ORDERS = 5
STP_MODES = ("NONE", "EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "DECREMENT")


@dataclass(frozen=True, slots=True)
class Market:
    """One instrument under its exchange id (BTCUSDT)."""

    market_id: str
    instrument: Instrument

    @property
    def max_price(self) -> Decimal:
        return self.instrument.tick * MAX_PRICE_TICKS

    @property
    def max_quantity(self) -> Decimal:
        return min(self.instrument.max_quantity, Decimal(9_000_000_000))

    @property
    def max_notional(self) -> Decimal:
        return min(self.instrument.max_notional, Decimal(9_000_000))

    @property
    def min_quantity(self) -> Decimal:
        return max(self.instrument.min_quantity, self.instrument.lot)

    def filters(self) -> list[dict[str, object]]:
        """The `filters` of exchangeInfo."""
        listing = self.instrument
        lot = {"minQty": text8(self.min_quantity), "maxQty": text8(self.max_quantity), "stepSize": text8(listing.lot)}
        return [
            {
                "filterType": "PRICE_FILTER",
                "minPrice": text8(listing.tick),
                "maxPrice": text8(self.max_price),
                "tickSize": text8(listing.tick),
            },
            {"filterType": "LOT_SIZE", **lot},
            {"filterType": "ICEBERG_PARTS", "limit": 10},
            {"filterType": "MARKET_LOT_SIZE", "minQty": text8(0), "maxQty": text8(self.max_quantity), "stepSize": text8(0)},
            {
                "filterType": "PERCENT_PRICE_BY_SIDE",
                "bidMultiplierUp": str(BID_UP),
                "bidMultiplierDown": str(BID_DOWN),
                "askMultiplierUp": str(ASK_UP),
                "askMultiplierDown": str(ASK_DOWN),
                "avgPriceMins": 5,
            },
            {
                "filterType": "NOTIONAL",
                "minNotional": text8(listing.min_notional),
                "applyMinToMarket": True,
                "maxNotional": text8(self.max_notional),
                "applyMaxToMarket": False,
                "avgPriceMins": 5,
            },
            {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": MAX_OPEN_ORDERS},
            {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": MAX_STOP_ORDERS},
        ]

    def listing(self) -> dict[str, object]:
        """This market's entry in exchangeInfo."""
        return {
            "symbol": self.market_id,
            "status": "TRADING",
            "baseAsset": self.instrument.base,
            "baseAssetPrecision": PRECISION,
            "quoteAsset": self.instrument.quote,
            "quotePrecision": PRECISION,
            "quoteAssetPrecision": PRECISION,
            "baseCommissionPrecision": PRECISION,
            "quoteCommissionPrecision": PRECISION,
            "orderTypes": list(ORDER_TYPES),
            "icebergAllowed": False,
            "ocoAllowed": False,
            "otoAllowed": False,
            "quoteOrderQtyMarketAllowed": True,
            "allowTrailingStop": False,
            "cancelReplaceAllowed": True,
            "amendAllowed": False,
            "pegInstructionsAllowed": False,
            "isSpotTradingAllowed": True,
            "isMarginTradingAllowed": False,
            "filters": self.filters(),
            "permissions": [],
            "permissionSets": [["SPOT"]],
            "defaultSelfTradePreventionMode": "NONE",
            "allowedSelfTradePreventionModes": list(STP_MODES),
        }

    def check(self, side: Side, quantity: Decimal, price: Decimal | None, reference: Decimal | None, open_orders: int) -> None:
        """Raises -1013 for the first filter that an order fails.

        `price` None means a market order; `reference` is the price that a market order's notional and the percent filter
        are judged by (Binance averages five minutes; here the last price).
        """
        if price is not None:
            self._check_price(side, price, reference)
        if not self.min_quantity <= quantity <= self.max_quantity or quantity % self.instrument.lot:
            raise errors.filter_failure("LOT_SIZE")
        worth_at = price if price is not None else reference
        if worth_at is not None:
            notional = worth_at * quantity
            if notional < self.instrument.min_notional or (price is not None and notional > self.max_notional):
                raise errors.filter_failure("NOTIONAL")
        if open_orders >= MAX_OPEN_ORDERS and price is not None:
            raise errors.filter_failure("MAX_NUM_ORDERS")

    def check_stop(self, stop_price: Decimal, stop_orders: int) -> None:
        """Raises -1013 where a stop price is off the grid, or so many stops sleep already."""
        self._check_grid(stop_price)
        if stop_orders >= MAX_STOP_ORDERS:
            raise errors.filter_failure("MAX_NUM_ALGO_ORDERS")

    def _check_grid(self, price: Decimal) -> None:
        if not self.instrument.tick <= price <= self.max_price or price % self.instrument.tick:
            raise errors.filter_failure("PRICE_FILTER")

    def _check_price(self, side: Side, price: Decimal, reference: Decimal | None) -> None:
        self._check_grid(price)
        if reference is None:
            return
        up, down = (BID_UP, BID_DOWN) if side is Side.BUY else (ASK_UP, ASK_DOWN)
        if not reference * down <= price <= reference * up:
            raise errors.filter_failure("PERCENT_PRICE_BY_SIDE")
