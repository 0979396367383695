"""The account with executions that come in pieces, and fees in a third currency."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from decimal import ROUND_UP, Decimal

from agents.core.events import Fill
from agents.core.instruments import Currency, Side, Symbol
from agents.market.exchange import SimulatedExchange
from daemon.rehearsal.account import Account
from daemon.rehearsal.faults.catalogue import Border
from daemon.rehearsal.faults.plan import Facts, Plan
from daemon.rehearsal.market import Markets
from daemon.rehearsal.orders import VenueOrder

BNB = Currency("BNB")
DISCOUNT = Decimal("0.75")
"""Fees that are paid in BNB cost a quarter less."""
_GRID = Decimal("1e-8")


class FaultyAccount(Account):
    """As `Account`, with the plan's faults in what executions look like. Balances always agree with the trades."""

    def __init__(
        self,
        plan: Plan,
        exchange: SimulatedExchange,
        markets: Markets,
        real_ms: Callable[[], int],
        emit: Callable[[dict[str, object]], None],
        taken: Callable[[Symbol, Side, Decimal], None],
    ) -> None:
        super().__init__(exchange, markets, real_ms, emit, taken)
        self._plan = plan

    def _fill(self, order: VenueOrder, fill: Fill) -> None:
        armed = self._plan.strike(Border.FILL, _facts(order))
        lot = self._markets.by_symbol[order.symbol].market.instrument.lot
        for piece in _pieces(fill, round(armed.detail("pieces")), lot) if armed else (fill,):
            super()._fill(order, piece)

    def _commission(self, order: VenueOrder, fill: Fill) -> tuple[Decimal, Currency]:
        armed = self._plan.holds("fee_bnb", _facts(order))
        if armed is None or not fill.fee:
            return super()._commission(order, fill)
        listing = self._markets.by_symbol[order.symbol].market.instrument
        worth = fill.fee * (fill.price if fill.fee_currency == listing.base else 1)
        market = self._markets.by_symbol.get(Symbol(f"{BNB}/{listing.quote}"))
        price = market.reference() if market else None
        amount = (worth * DISCOUNT / (price or Decimal(str(armed.details["price"])))).quantize(_GRID, ROUND_UP)
        if BNB in (listing.base, listing.quote) or self._exchange.balance(BNB)[0] < amount:
            return super()._commission(order, fill)
        self._exchange.account.deposit(fill.fee_currency, fill.fee)
        self._exchange.account.deposit(BNB, -amount)
        self._plan.count(armed)
        return amount, BNB


def _facts(order: VenueOrder) -> Facts:
    return {"symbol": order.market_id, "side": order.side.name, "client_id": order.client_id}


def _pieces(fill: Fill, count: int, lot: Decimal) -> Iterable[Fill]:
    """The execution in at most `count` pieces of whole lots; their fees sum to its fee."""
    lots = int(fill.quantity / lot)
    count = max(1, min(count, lots))
    size = lots // count * lot
    quantity, fee = fill.quantity, fill.fee
    for _ in range(count - 1):
        part = (fill.fee * size / fill.quantity).quantize(_GRID)
        quantity, fee = quantity - size, fee - part
        yield replace(fill, quantity=size, fee=part)
    yield replace(fill, quantity=quantity, fee=fee)
