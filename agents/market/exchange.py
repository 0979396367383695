"""A spot exchange in memory: external facts and our commands in, order updates and fills out. Synchronous; time is given.

It holds one account (free and locked balances) and one matcher a symbol. Offline runs, the paper venue, the rehearsal
exchange and the environment all use this object; they differ in where the market events come from.
"""

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal

from agents.core.errors import DataError
from agents.core.events import Bar, BookDelta, BookSnapshot, Event, Fill, Listing, OrderUpdate, Quote, Stamp, Trade
from agents.core.instruments import TIMEFRAMES, ZERO, Currency, Instrument, Side, Symbol
from agents.core.orders import Amend, Cancel, Command, OrderId, OrderState, Place, TimeInForce
from agents.market.account import Account, ExchangeOrder
from agents.market.candles import candle_book, candle_prints
from agents.market.frictions import CandleBook, Frictions
from agents.market.matcher import Execution, Matcher
from agents.market.triggers import Triggers

Report = OrderUpdate | Fill
Reports = list[Report]

KEEP_DONE = 10_000
"""Finished orders that can still be asked for; enough for any client that looks back."""


class SimulatedExchange:
    """The account of one trader on simulated or overlaid spot markets.

    `on_market` and `advance` take what has come; `send` is a command on its way (latency), `submit` one that arrives now.
    All times are nanoseconds; reports are stamped with when they are heard, sequence 0.
    """

    def __init__(self, instruments: Iterable[Instrument], frictions: Frictions, balances: Mapping[Currency, Decimal]) -> None:
        self.instruments: dict[Symbol, Instrument] = {}
        self.frictions = frictions
        self.account = Account(balances, frictions.fee, frictions.fee_currency)
        self.time = 0
        """Latest market time seen; fills carry it."""
        self._matchers: dict[Symbol, Matcher] = {}
        self._orders: dict[OrderId, ExchangeOrder] = {}
        self._open: dict[OrderId, ExchangeOrder] = {}
        self._done: list[OrderId] = []
        self._by_venue_id: dict[str, OrderId] = {}
        self._triggers = Triggers()
        self._sent = self._placed = self._filled = 0
        self._inbound: list[tuple[int, int, Command]] = []
        self._outbound: list[tuple[int, int, Report]] = []
        self._frames: dict[Symbol, int] = {}
        self._closed: dict[Symbol, Bar] = {}
        """Candles whose closing book nobody has asked for yet."""
        self._booked: set[Symbol] = set()
        """Symbols that have shown a book: their candles are news, not liquidity."""
        for instrument in instruments:
            self.list(instrument)

    # -- questions -------------------------------------------------------------------------------------------------

    def balance(self, currency: Currency) -> tuple[Decimal, Decimal]:
        """(free, locked)."""
        return self.account.balance(currency)

    def balances(self) -> dict[Currency, Decimal]:
        """Total (free and locked) of every currency ever held."""
        return self.account.totals()

    def open_orders(self, symbol: Symbol | None = None) -> Sequence[ExchangeOrder]:
        """Resting orders, in order of arrival."""
        return [order for order in self._open.values() if symbol is None or order.place.symbol == symbol]

    def order(self, order_id: OrderId) -> ExchangeOrder | None:
        """An open order, or one of the latest `KEEP_DONE` finished ones; None for one that never came or is forgotten."""
        return self._orders.get(order_id)

    def order_by_venue_id(self, venue_order_id: str) -> ExchangeOrder | None:
        """The same by the exchange's own id."""
        order_id = self._by_venue_id.get(venue_order_id)
        return None if order_id is None else self._orders.get(order_id)

    def matcher(self, symbol: Symbol) -> Matcher:
        """The symbol's book with our orders in it. Raises KeyError for a symbol that is not listed."""
        self._open_candle(symbol)
        return self._matchers[symbol]

    @property
    def idle(self) -> bool:
        """Nothing is on its way, in or out."""
        return not (self._inbound or self._outbound)

    @property
    def next_due(self) -> int | None:
        """When the next command arrives or the next report is heard; None if nothing is on its way."""
        return min((heap[0][0] for heap in (self._inbound, self._outbound) if heap), default=None)

    def list(self, instrument: Instrument) -> None:
        """A new instrument, or a changed grid or fee of a known one; resting orders stay."""
        self.instruments[instrument.symbol] = instrument
        if (matcher := self._matchers.get(instrument.symbol)) is None:
            matcher = Matcher(instrument, self.frictions.queue, self.frictions.impact)
            self._matchers[instrument.symbol] = matcher
        matcher.instrument = instrument

    # -- the world -------------------------------------------------------------------------------------------------

    def on_market(self, event: Event, at: int | None = None) -> Reports:
        """Apply one external fact and return the own reports heard by `at`, by default its stamp's time.

        Commands that arrive before it are executed first, one that arrives at the very same time afterwards: whoever acts
        on a fact cannot trade with the book from before it. A Bar moves the market only under `CandleBook` frictions, on the
        symbol's smallest timeframe, and until the symbol shows a book; then it is a whole path, and commands on their way
        meet its opening. Events that are not of the market change nothing. Raises DataError on a BookDelta, which the tape reader has to fold.
        """
        if at is None:
            at = event.stamp.at
        if isinstance(event, Trade | BookSnapshot):
            heard = self.advance(at - 1) if self._inbound or self._outbound else []
            self.time = max(self.time, event.time)
            if (matcher := self._matchers.get(event.symbol)) is not None:
                if isinstance(event, BookSnapshot):
                    self._booked.add(event.symbol)
                executions = matcher.on_trade(event) if isinstance(event, Trade) else matcher.on_book(event)
                if executions:
                    heard += self._tell(self._settle(executions, at), at)
                if isinstance(event, Trade) and (woken := self._triggers.trade(event.symbol, event.price, event.time)):
                    heard += self._tell([report for order in woken for report in self._work(order, at)], at)
            return heard + self.advance(at) if self._inbound or self._outbound else heard
        match event:
            case Bar():
                return self._on_bar(event)
            case Quote():
                bids, asks = ((event.bid, event.bid_quantity),), ((event.ask, event.ask_quantity),)
                return self.on_market(BookSnapshot(event.stamp, event.symbol, event.time, bids, asks), at)
            case Listing():
                self.list(event.instrument)
            case BookDelta():
                raise DataError(f"book delta of {event.symbol}: deltas must be folded into snapshots, as open_tape does")
            case _:
                pass
        return self.advance(at)

    def advance(self, now: int) -> Reports:
        """Execute the commands that have arrived by `now`, and return the reports heard by then, in order."""
        heard: Reports = []
        while self._inbound and self._inbound[0][0] <= now:
            due, _, command = heapq.heappop(self._inbound)
            heard += self._tell(self.submit(command, due), due)
        while self._outbound and self._outbound[0][0] <= now:
            heard.append(heapq.heappop(self._outbound)[2])
        return heard

    def send(self, command: Command, now: int) -> None:
        """Put a command on its way; it arrives after the latency, in order of sending."""
        self._sent += 1
        heapq.heappush(self._inbound, (now + self.frictions.latency.command_ns(), self._sent, command))

    def submit(self, command: Command, now: int) -> Reports:
        """Execute a command at once and return its reports at once: refusal, or OPEN and what followed."""
        self._open_candle(command.symbol)
        match command:
            case Place():
                return self._place(command, now)
            case Cancel():
                return self._cancel(command.order_id, command.symbol, now)
            case Amend():
                return self._amend(command, now)

    # -- commands --------------------------------------------------------------------------------------------------

    def _place(self, place: Place, now: int) -> Reports:
        if place.order_id in self._orders:
            return [OrderUpdate(Stamp(now), place.order_id, place.symbol, OrderState.REJECTED, reason="duplicate_order_id")]
        self._placed += 1
        order = ExchangeOrder(place, str(self._placed), OrderState.OPEN, now, now, self.time)
        reason = self._refusal(place) or self._lock(order)
        self._remember(order)
        if reason:
            return self._end(order, OrderState.REJECTED, now, reason)
        self._open[place.order_id] = order
        if place.trigger_price is not None:
            self._triggers.sleep(order)
            return [self._update(order, now)]
        return self._work(order, now)

    def _work(self, order: ExchangeOrder, now: int) -> Reports:
        """Lay an open order into the book: one that has just come, or a stop that was woken."""
        place = order.place
        rest = place.time_in_force is TimeInForce.GTC and place.price is not None
        reports: Reports = [self._update(order, now)]
        placed = self._matchers[place.symbol].place(place.order_id, place.side, place.quantity, place.price, rest)
        for order_id in placed.expired:
            reports += self._end(self._orders[order_id], OrderState.EXPIRED, now, "self_trade_prevention")
        reports += self._settle(placed.executions, now)
        if not order.state.done and not placed.rested:
            reports += self._end(order, OrderState.EXPIRED, now, "no_liquidity")
        return reports

    def _refusal(self, place: Place) -> str:
        """Why the exchange's filters refuse an order; empty if they do not."""
        if (instrument := self.instruments.get(place.symbol)) is None:
            return "unknown_symbol"
        matcher, price = self._matchers[place.symbol], place.price
        if place.trigger_price is not None:
            if reason := self._stop_refusal(place, place.trigger_price, instrument):
                return reason
            price = place.trigger_price if price is None else price
        if price is None:
            price = matcher.best_ask if place.side is Side.BUY else matcher.best_bid
            if price is None:
                return "no_liquidity"
        if problem := instrument.problem(price, place.quantity):
            return problem
        if place.reduce_only and place.side is Side.BUY:
            return "reduce_only_buy"
        if place.post_only:
            if place.price is None or place.time_in_force is not TimeInForce.GTC:
                return "post_only_must_rest"
            if matcher.crosses(place.side, place.price):
                return "would_cross"
        return ""

    def _stop_refusal(self, place: Place, trigger: Decimal, instrument: Instrument) -> str:
        """What is asked of a stop besides: it sells, its trigger is on the grid and still below the last price (else the best bid)."""
        if place.side is not Side.SELL:
            return "stop_must_sell"
        if not trigger.is_finite():
            return "not_finite"
        if trigger <= 0 or trigger % instrument.tick:
            return "price_off_tick"
        last = self._triggers.last(place.symbol) or self._matchers[place.symbol].best_bid
        return "would_trigger" if last is not None and last <= trigger else ""

    def _lock(self, order: ExchangeOrder) -> str:
        place, instrument = order.place, self.instruments[order.place.symbol]
        if place.price is None and place.trigger_price is None:
            quantity, notional = self._matchers[place.symbol].cost(place.side, place.quantity)
        else:
            quantity, notional = place.quantity, (place.price or ZERO) * place.quantity
        amount = self.account.reserve(instrument, place.side, quantity, notional)
        return "" if self.account.lock(instrument, order, amount) else "insufficient_balance"

    def _cancel(self, order_id: OrderId, symbol: Symbol, now: int) -> Reports:
        order = self._orders.get(order_id)
        if order is None:
            return [OrderUpdate(Stamp(now), order_id, symbol, OrderState.CANCELED, reason="unknown_order")]
        if order.state.done:
            state = OrderState.CANCELED if order.state is OrderState.REJECTED else order.state
            return [OrderUpdate(Stamp(now), order_id, symbol, state, order.venue_order_id, order.filled, "already_done")]
        self._triggers.forget(order)
        self._matchers[order.place.symbol].cancel(order_id)
        return self._end(order, OrderState.CANCELED, now, "")

    def _amend(self, amend: Amend, now: int) -> Reports:
        """Cancel and place in one breath. An order that is gone is not replaced: its rest may have been filled meanwhile."""
        old = self._orders.get(amend.order_id)
        alive = old is not None and not old.state.done
        reports = self._cancel(amend.order_id, amend.symbol, now)
        if old is None or not alive:
            state, reason = OrderState.REJECTED, "amended_order_is_done"
            return [*reports, OrderUpdate(Stamp(now), amend.new_order_id, amend.symbol, state, reason=reason)]
        place = replace(old.place, order_id=amend.new_order_id, quantity=amend.quantity, price=amend.price, trigger_price=None)
        return reports + self._place(place, now)

    # -- bookkeeping -----------------------------------------------------------------------------------------------

    def _settle(self, executions: Sequence[Execution], now: int) -> Reports:
        reports: Reports = []
        for execution in executions:
            order = self._orders[execution.order_id]
            symbol = order.place.symbol
            instrument = self.instruments[symbol]
            fee, currency = self.account.fill(instrument, order, execution)
            self._filled += 1
            reports.append(
                Fill(
                    Stamp(now), symbol, self.time, execution.order_id, str(self._filled), execution.side, execution.price,
                    execution.quantity, fee, currency, execution.maker,
                )
            )  # fmt: skip
            if order.remaining:
                order.state, order.updated = OrderState.PARTIAL, now
                reports.append(self._update(order, now))
            else:
                reports += self._end(order, OrderState.FILLED, now, "")
        return reports

    def _update(self, order: ExchangeOrder, now: int) -> OrderUpdate:
        place = order.place
        return OrderUpdate(
            Stamp(now), place.order_id, place.symbol, order.state, order.venue_order_id, order.filled, order.reason
        )

    def _end(self, order: ExchangeOrder, state: OrderState, now: int, reason: str) -> Reports:
        order.state, order.updated, order.reason = state, now, reason
        if order.locked:
            self.account.release(self.instruments[order.place.symbol], order)
        self._open.pop(order.place.order_id, None)
        self._done.append(order.place.order_id)
        if len(self._done) > 2 * KEEP_DONE:
            for order_id in self._done[:KEEP_DONE]:
                del self._by_venue_id[self._orders.pop(order_id).venue_order_id]
            del self._done[:KEEP_DONE]
        return [self._update(order, now)]

    def _remember(self, order: ExchangeOrder) -> None:
        self._orders[order.place.order_id] = order
        self._by_venue_id[order.venue_order_id] = order.place.order_id

    def _tell(self, reports: Reports, now: int) -> Reports:
        """Hand reports over now, or put them on their way if news takes time."""
        delay = self.frictions.latency.report_ns()
        if not delay:
            return reports
        for report in reports:
            self._sent += 1
            heapq.heappush(self._outbound, (now + delay, self._sent, replace(report, stamp=Stamp(now + delay))))
        return []

    # -- candles ---------------------------------------------------------------------------------------------------

    def _on_bar(self, bar: Bar) -> Reports:
        at, model, matcher = bar.stamp.at, self.frictions.candles, self._matchers.get(bar.symbol)
        length = TIMEFRAMES.get(bar.timeframe, 0)
        if not isinstance(model, CandleBook) or matcher is None or bar.symbol in self._booked:
            return self.advance(at)
        if not 0 < length <= self._frames.setdefault(bar.symbol, length):
            return self.advance(at)
        self._frames[bar.symbol] = length
        heard: Reports = []
        if self._inbound or matcher.busy or self._triggers.waits(bar.symbol):
            instrument = self.instruments[bar.symbol]
            self._closed.pop(bar.symbol, None)
            self.time = max(self.time, bar.time)
            opening = candle_book(bar.symbol, bar.time, bar.open, bar.volume, instrument, model)
            heard += self._tell(self._settle(matcher.on_book(opening), at), at)
            heard += self.advance(at - 1)
            for trade in candle_prints(bar, instrument, model.participation):
                self.time = max(self.time, trade.time)
                heard += self._tell(self._trip(bar, trade, model, at), at)
                heard += self._tell(self._settle(matcher.on_trade(trade), at), at)
        self._triggers.note(bar.symbol, bar.close)
        self.time = max(self.time, bar.time + length)
        if matcher.busy:
            closing = self._closing_book(bar, model)
            heard += self._tell(self._settle(matcher.on_book(closing), at), at)
        else:
            self._closed[bar.symbol] = bar
        return heard + self.advance(at) if self._inbound or self._outbound else heard

    def _trip(self, bar: Bar, trade: Trade, model: CandleBook, at: int) -> Reports:
        """Wake the stops that a candle's print reached. Prices between two prints are passed through: a stop meets the book around
        its own trigger, but around the opening where the candle began below it."""
        reports: Reports = []
        for order in self._triggers.trade(bar.symbol, trade.price, trade.time):
            trigger = order.place.trigger_price or trade.price
            centre = min(trigger, trade.price) if trade.time == bar.time else trigger
            passed = candle_book(bar.symbol, trade.time, centre, bar.volume, self.instruments[bar.symbol], model)
            reports += self._settle(self._matchers[bar.symbol].on_book(passed), at)
            reports += self._work(order, at)
        return reports

    def _closing_book(self, bar: Bar, model: CandleBook) -> BookSnapshot:
        end = bar.time + TIMEFRAMES[bar.timeframe]
        return candle_book(bar.symbol, end, bar.close, bar.volume, self.instruments[bar.symbol], model)

    def _open_candle(self, symbol: Symbol) -> None:
        """Show the book around the close of the symbol's last candle, now that somebody wants to trade with it.

        It waits here only while nothing of ours rests, so it fills nothing.
        """
        if (
            self._closed
            and (bar := self._closed.pop(symbol, None)) is not None
            and isinstance(self.frictions.candles, CandleBook)
        ):
            self._matchers[symbol].on_book(self._closing_book(bar, self.frictions.candles))
