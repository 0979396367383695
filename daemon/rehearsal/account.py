"""The one account: its orders, trades and balances over the simulated exchange, and the events that it sends its owner."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal

from agents.core.events import Fill, OrderUpdate
from agents.core.instruments import Currency, Side, Symbol
from agents.core.orders import Cancel, OrderId, OrderState, Place, base36
from agents.market.exchange import SimulatedExchange
from daemon.rehearsal import errors
from daemon.rehearsal.market import Markets
from daemon.rehearsal.orders import ZERO, NewOrder, OwnTrade, VenueOrder
from daemon.rehearsal.protocol import text8
from daemon.rehearsal.transfers import Transfer

FIRST_ORDER_ID = 1_000_000
KEPT_ORDERS = 100_000
"""Orders kept; the oldest finished ones are forgotten, as Binance archives them."""
KEPT_TRADES = 100_000

_REFUSALS: dict[str, Callable[[], errors.ApiError]] = {
    "would_cross": errors.would_match,
    "would_trigger": errors.would_trigger,
    "insufficient_balance": errors.insufficient_balance,
    "duplicate_order_id": errors.duplicate_order,
    "price_off_tick": lambda: errors.filter_failure("PRICE_FILTER"),
    "quantity_off_lot": lambda: errors.filter_failure("LOT_SIZE"),
    "below_min_quantity": lambda: errors.filter_failure("LOT_SIZE"),
    "above_max_quantity": lambda: errors.filter_failure("LOT_SIZE"),
    "below_min_notional": lambda: errors.filter_failure("NOTIONAL"),
    "above_max_notional": lambda: errors.filter_failure("NOTIONAL"),
}
"""The simulated exchange's reasons in Binance's words."""


class Account:
    """Orders go in, `emit` carries user-data events out. Real times come from `real_ms`, matching is in market time.

    `taken` is told what our takers took, so that a market that can may move.
    """

    def __init__(
        self,
        exchange: SimulatedExchange,
        markets: Markets,
        real_ms: Callable[[], int],
        emit: Callable[[dict[str, object]], None],
        taken: Callable[[Symbol, Side, Decimal], None],
    ) -> None:
        self._exchange = exchange
        self._markets = markets
        self._real_ms = real_ms
        self._emit = emit
        self._taken = taken
        self._orders: dict[int, VenueOrder] = {}
        self._open_by_client: dict[str, VenueOrder] = {}
        self._last_by_client: dict[str, int] = {}
        self._trades: dict[str, deque[OwnTrade]] = {}
        self._next_order_id = FIRST_ORDER_ID
        self._next_execution_id = 1
        self._next_generated_id = 1
        self.transfers: list[Transfer] = []
        """Deposits and withdrawals, oldest first."""
        self.updated_ms = real_ms()

    def transfer(self, currency: Currency, amount: Decimal, *, told: bool = True) -> None:
        """Money comes in, or goes out (negative); `told` whether the account's history and stream say so."""
        self._exchange.account.deposit(currency, amount)
        self.updated_ms = self._real_ms()
        if told:
            self.transfers.append(Transfer(len(self.transfers) + 1, currency, amount, self.updated_ms))
            now = self.updated_ms
            self._emit({"e": "balanceUpdate", "E": now, "a": currency, "d": text8(amount), "T": now})
            self._position((currency,))

    def generated_id(self) -> str:
        """A client id for a request that brought none."""
        self._next_generated_id += 1
        return f"rehearsal{base36(self._next_generated_id):0>13}"

    def open_orders(self, market_id: str | None = None) -> list[VenueOrder]:
        """Open orders, oldest first."""
        return [order for order in self._open_by_client.values() if market_id is None or order.market_id == market_id]

    def orders(self, market_id: str) -> Iterable[VenueOrder]:
        """Every order of a market that is still remembered, oldest first."""
        return (order for order in self._orders.values() if order.market_id == market_id)

    def trades(self, market_id: str) -> Sequence[OwnTrade]:
        """Own trades of a market, oldest first."""
        return self._trades.get(market_id, deque())

    def balances(self) -> list[tuple[Currency, Decimal, Decimal]]:
        """(currency, free, locked), by name."""
        return [(currency, *self._exchange.balance(currency)) for currency in sorted(self._exchange.balances())]

    def find(self, market_id: str, order_id: int | None, client_id: str | None) -> VenueOrder | None:
        """The order with that id, or the newest one with that client id."""
        if order_id is None and client_id is not None:
            order_id = self._last_by_client.get(client_id)
        order = self._orders.get(order_id) if order_id is not None else None
        if order is None or order.market_id != market_id or (client_id is not None and order.client_id != client_id):
            return None
        return order

    def check(self, new: NewOrder) -> Decimal:
        """Base quantity of a request that passes duplicate check and filters; raises -1013, -2010."""
        public = self._markets.find(new.market_id)
        if new.client_id in self._open_by_client:
            raise errors.duplicate_order()
        quantity = new.quantity
        if quantity is None:
            base, _ = public.depth.walk(new.side, new.quote_quantity or ZERO)
            quantity = public.market.instrument.round_quantity(base)
            if base == 0:
                raise errors.no_liquidity()
            if quantity == 0:
                raise errors.filter_failure("LOT_SIZE")
        opened = self.open_orders(new.market_id)
        if new.stop_price is not None:
            public.market.check_stop(new.stop_price, sum(order.asleep for order in opened))
        public.market.check(new.side, quantity, new.price, public.reference(), len(opened))
        return quantity

    def place(self, new: NewOrder) -> VenueOrder:
        """Accept and match one order; raises -1013, -2010."""
        quantity = self.check(new)
        now_ms = self._real_ms()
        self._next_order_id += 1
        order = VenueOrder(
            order_id=self._next_order_id,
            symbol=new.symbol,
            market_id=new.market_id,
            client_id=new.client_id,
            side=new.side,
            kind=new.kind,
            time_in_force=new.time_in_force,
            price=new.price or ZERO,
            quantity=quantity,
            quote_quantity=new.quote_quantity or ZERO,
            stp_mode=new.stp_mode,
            created_ms=now_ms,
            updated_ms=now_ms,
            stop_price=new.stop_price or ZERO,
            working_ms=now_ms if new.stop_price is None else -1,
        )
        at_once = new.time_in_force == "FOK" and not order.asleep
        unfillable = at_once and self._exchange.matcher(new.symbol).cost(new.side, quantity, new.price)[0] < quantity
        results: list[OrderUpdate | Fill] = []
        if not unfillable:
            place = Place(
                order_id=OrderId(str(order.order_id)),
                symbol=new.symbol,
                side=new.side,
                quantity=quantity,
                price=new.price,
                time_in_force=new.matcher_time_in_force,
                post_only=new.kind == "LIMIT_MAKER",
                trigger_price=new.stop_price,
            )
            results = self._exchange.submit(place, self._markets.now)
            self._raise_refusal(results)
        self._remember(order)
        self._report(order, "NEW")
        if unfillable:
            self._finish(order, "EXPIRED")
        elif not order.asleep:
            self.absorb(results)
        self._tell_balances(order)
        return order

    def cancel(self, order: VenueOrder, cancel_id: str) -> VenueOrder:
        """Cancel an open order; raises -2011 when it is not open."""
        if not order.open:
            raise errors.unknown_order()
        self._exchange.submit(Cancel(OrderId(str(order.order_id)), order.symbol), self._markets.now)
        self._finish(order, "CANCELED", cancel_id)
        self._tell_balances(order)
        return order

    def absorb(self, results: Iterable[OrderUpdate | Fill]) -> None:
        """Take what the simulated exchange says happened to our orders."""
        touched: dict[int, VenueOrder] = {}
        for result in results:
            order = self._orders.get(int(result.order_id))
            if order is None:
                continue
            if isinstance(result, Fill):
                self._fill(order, result)
                touched[order.order_id] = order
            elif result.state is OrderState.OPEN and order.asleep:
                self._wake(order)
            elif result.state in (OrderState.EXPIRED, OrderState.CANCELED) and order.open:
                self._finish(order, "EXPIRED")
                touched[order.order_id] = order
        for order in touched.values():
            self._tell_balances(order)

    def _wake(self, order: VenueOrder) -> None:
        """Its stop price was reached: from here on it is in the market."""
        order.working_ms = order.updated_ms = self._real_ms()
        self._report(order, "NEW")

    def _raise_refusal(self, results: Iterable[OrderUpdate | Fill]) -> None:
        for result in results:
            if isinstance(result, OrderUpdate) and result.state is OrderState.REJECTED:
                refusal = _REFUSALS.get(result.reason)
                raise refusal() if refusal else errors.ApiError(-2010, f"Order was rejected: {result.reason}")

    def _remember(self, order: VenueOrder) -> None:
        self._orders[order.order_id] = order
        self._open_by_client[order.client_id] = order
        self._last_by_client[order.client_id] = order.order_id
        if len(self._orders) > KEPT_ORDERS:
            oldest = next(kept for kept in self._orders.values() if not kept.open)
            del self._orders[oldest.order_id]
            if self._last_by_client.get(oldest.client_id) == oldest.order_id:
                del self._last_by_client[oldest.client_id]

    def _fill(self, order: VenueOrder, fill: Fill) -> None:
        public = self._markets.by_symbol[order.symbol]
        aggressor = order.side.opposite if fill.maker else order.side
        if not fill.maker:
            self._taken(order.symbol, order.side, fill.quantity)
        trade_id = public.print_trade(self._markets.now_ms, fill.price, fill.quantity, aggressor)
        commission, commission_asset = self._commission(order, fill)
        trade = OwnTrade(
            trade_id=trade_id,
            order_id=order.order_id,
            market_id=order.market_id,
            price=fill.price,
            quantity=fill.quantity,
            commission=commission,
            commission_asset=commission_asset,
            real_ms=self._real_ms(),
            is_buyer=order.side is Side.BUY,
            is_maker=fill.maker,
        )
        self._trades.setdefault(order.market_id, deque(maxlen=KEPT_TRADES)).append(trade)
        order.add(trade)
        if not order.open:
            self._open_by_client.pop(order.client_id, None)
        self._report(order, "TRADE", trade)

    def _commission(self, order: VenueOrder, fill: Fill) -> tuple[Decimal, Currency]:
        """What the execution costs, and in which currency."""
        return fill.fee, fill.fee_currency

    def _finish(self, order: VenueOrder, status: str, cancel_id: str = "") -> None:
        order.status = status
        order.updated_ms = self._real_ms()
        self._open_by_client.pop(order.client_id, None)
        self._report(order, status, cancel_id=cancel_id)

    def _report(self, order: VenueOrder, execution: str, trade: OwnTrade | None = None, cancel_id: str = "") -> None:
        self._emit(order.report(execution, self._next_execution_id, trade, cancel_id))
        self._next_execution_id += 1

    def _tell_balances(self, order: VenueOrder) -> None:
        """The currencies that the order may have moved."""
        listing = self._markets.by_symbol[order.symbol].market.instrument
        self.updated_ms = order.updated_ms
        paid = {trade.commission_asset for trade in order.trades} - {listing.base, listing.quote}
        self._position((listing.base, listing.quote, *sorted(paid)))

    def _position(self, currencies: Iterable[Currency]) -> None:
        """outboundAccountPosition of some currencies."""
        rows = []
        for currency in currencies:
            free, locked = self._exchange.balance(currency)
            rows.append({"a": currency, "f": text8(free), "l": text8(locked)})
        self._emit({"e": "outboundAccountPosition", "E": self.updated_ms, "u": self.updated_ms, "B": rows})
