"""Orders and own trades as the exchange keeps them, and the JSON shapes that it shows them in."""

from dataclasses import dataclass, field
from decimal import Decimal

from agents.core.instruments import Currency, Side, Symbol
from agents.core.orders import TimeInForce
from daemon.rehearsal.protocol import text8

STOPS = frozenset({"STOP_LOSS", "STOP_LOSS_LIMIT"})
OPEN_STATES = frozenset({"NEW", "PARTIALLY_FILLED"})
ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class NewOrder:
    """A checked request for an order. `quantity` None means `quote_quantity` is given (market orders)."""

    symbol: Symbol
    market_id: str
    client_id: str
    side: Side
    kind: str
    time_in_force: str
    price: Decimal | None
    quantity: Decimal | None
    quote_quantity: Decimal | None = None
    stp_mode: str = "NONE"
    stop_price: Decimal | None = None

    @property
    def matcher_time_in_force(self) -> TimeInForce:
        return TimeInForce.GTC if self.time_in_force == "GTC" and self.price is not None else TimeInForce.IOC


@dataclass(frozen=True, slots=True)
class OwnTrade:
    """One execution of the account's; `real_ms` is wall-clock time."""

    trade_id: int
    order_id: int
    market_id: str
    price: Decimal
    quantity: Decimal
    commission: Decimal
    commission_asset: Currency
    real_ms: int
    is_buyer: bool
    is_maker: bool

    def row(self) -> dict[str, object]:
        """A row of myTrades."""
        return {
            "symbol": self.market_id,
            "id": self.trade_id,
            "orderId": self.order_id,
            "orderListId": -1,
            "price": text8(self.price),
            "qty": text8(self.quantity),
            "quoteQty": text8(self.price * self.quantity),
            "commission": text8(self.commission),
            "commissionAsset": self.commission_asset,
            "time": self.real_ms,
            "isBuyer": self.is_buyer,
            "isMaker": self.is_maker,
            "isBestMatch": True,
        }

    def fill(self) -> dict[str, object]:
        """An entry of `fills` in a FULL answer."""
        return {
            "price": text8(self.price),
            "qty": text8(self.quantity),
            "commission": text8(self.commission),
            "commissionAsset": self.commission_asset,
            "tradeId": self.trade_id,
        }


@dataclass(slots=True)
class VenueOrder:
    """One order that the exchange accepted. Times are wall clock, in milliseconds."""

    order_id: int
    symbol: Symbol
    market_id: str
    client_id: str
    side: Side
    kind: str
    time_in_force: str
    price: Decimal
    quantity: Decimal
    quote_quantity: Decimal
    stp_mode: str
    created_ms: int
    updated_ms: int
    stop_price: Decimal = ZERO
    """Zero: no stop, and working from the start."""
    working_ms: int = -1
    """Since when it works; -1 while the stop price has not been reached."""
    status: str = "NEW"
    filled: Decimal = ZERO
    quote_filled: Decimal = ZERO
    trades: list[OwnTrade] = field(default_factory=list)

    @property
    def open(self) -> bool:
        return self.status in OPEN_STATES

    @property
    def asleep(self) -> bool:
        """A stop whose price has not been reached."""
        return self.working_ms < 0

    def add(self, trade: OwnTrade) -> None:
        self.trades.append(trade)
        self.filled += trade.quantity
        self.quote_filled += trade.price * trade.quantity
        self.status = "FILLED" if self.filled >= self.quantity else "PARTIALLY_FILLED"
        self.updated_ms = trade.real_ms

    def _core(self) -> dict[str, object]:
        return {
            "price": text8(self.price),
            "origQty": text8(self.quantity),
            "executedQty": text8(self.filled),
            "origQuoteOrderQty": text8(self.quote_quantity),
            "cummulativeQuoteQty": text8(self.quote_filled),
            "status": self.status,
            "timeInForce": self.time_in_force,
            "type": self.kind,
            "side": self.side.name,
            **({"stopPrice": text8(self.stop_price)} if self.kind in STOPS else {}),
        }

    def placed(self, response: str) -> dict[str, object]:
        """The answer to a new order: ACK, RESULT or FULL."""
        answer: dict[str, object] = {
            "symbol": self.market_id,
            "orderId": self.order_id,
            "orderListId": -1,
            "clientOrderId": self.client_id,
            "transactTime": self.updated_ms,
        }
        if response == "ACK":
            return answer
        answer |= self._core()
        answer["workingTime"] = self.working_ms
        answer["selfTradePreventionMode"] = self.stp_mode
        if response == "FULL":
            answer["fills"] = [trade.fill() for trade in self.trades]
        return answer

    def row(self) -> dict[str, object]:
        """The order as a query shows it."""
        return {
            "symbol": self.market_id,
            "orderId": self.order_id,
            "orderListId": -1,
            "clientOrderId": self.client_id,
            **self._core(),
            "stopPrice": text8(self.stop_price),
            "icebergQty": text8(0),
            "time": self.created_ms,
            "updateTime": self.updated_ms,
            "isWorking": not self.asleep,
            "workingTime": self.working_ms,
            "selfTradePreventionMode": self.stp_mode,
        }

    def canceled(self, cancel_id: str) -> dict[str, object]:
        """The answer to a cancel; `clientOrderId` is the cancel's own id, not the order's."""
        return {
            "symbol": self.market_id,
            "origClientOrderId": self.client_id,
            "orderId": self.order_id,
            "orderListId": -1,
            "clientOrderId": cancel_id,
            "transactTime": self.updated_ms,
            **self._core(),
            "selfTradePreventionMode": self.stp_mode,
        }

    def report(self, execution: str, execution_id: int, trade: OwnTrade | None = None, cancel_id: str = "") -> dict[str, object]:
        """The executionReport event for one step in this order's life."""
        return {
            "e": "executionReport",
            "E": self.updated_ms,
            "s": self.market_id,
            "c": cancel_id or self.client_id,
            "S": self.side.name,
            "o": self.kind,
            "f": self.time_in_force,
            "q": text8(self.quantity),
            "p": text8(self.price),
            "P": text8(self.stop_price),
            "F": text8(0),
            "g": -1,
            "C": self.client_id if cancel_id else "",
            "x": execution,
            "X": self.status,
            "r": "NONE",
            "i": self.order_id,
            "l": text8(trade.quantity if trade else 0),
            "z": text8(self.filled),
            "L": text8(trade.price if trade else 0),
            "n": text8(trade.commission) if trade else "0",
            "N": trade.commission_asset if trade else None,
            "T": self.updated_ms,
            "t": trade.trade_id if trade else -1,
            "I": execution_id,
            "w": self.open and not self.asleep,
            "m": trade.is_maker if trade else False,
            "M": trade is not None,
            "O": self.created_ms,
            "Z": text8(self.quote_filled),
            "Y": text8(trade.price * trade.quantity if trade else 0),
            "Q": text8(self.quote_quantity),
            **({} if self.asleep else {"W": self.working_ms}),
            "V": self.stp_mode,
        }
