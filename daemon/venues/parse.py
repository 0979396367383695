"""ccxt's unified structures -> events. Pure: no clock, no cache of anybody else's, no I/O.

What cannot be believed (missing, not finite, negative) is refused by DataError with a reason; nothing is guessed silently.
ccxt hands numbers out as floats: `Decimal(repr(x))` gives back the digits that the exchange sent.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from operator import gt, lt
from typing import Any

from agents.core.errors import DataError, NotFinite
from agents.core.events import UNSTAMPED, Adjustment, AdjustmentKind, Bar, BookSnapshot, Fill, Level, Trade
from agents.core.instruments import TIMEFRAMES, ZERO, Currency, Instrument, Side, Symbol
from agents.core.orders import OrderId, OrderState

MS = 1_000_000
_SIDES = {"buy": Side.BUY, "sell": Side.SELL}
DECIMAL_PLACES, SIGNIFICANT_DIGITS, TICK_SIZE = 2, 3, 4
"""ccxt's precision modes."""
INFINITY = float("inf")
FINEST = Decimal("1e-8")
"""Grid assumed where an exchange states none."""

Raw = Mapping[str, Any]


def number(value: Any, what: str) -> Decimal:
    """An exact, finite number; raises NotFinite for None, NaN and infinities."""
    if value is None or isinstance(value, bool):
        raise NotFinite(f"{what}_missing")
    try:
        exact = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    except (InvalidOperation, TypeError, ValueError) as error:
        raise NotFinite(f"{what}_not_a_number") from error
    if not exact.is_finite():
        raise NotFinite(f"{what}_not_finite")
    return exact


def positive(value: Any, what: str) -> Decimal:
    """As `number`, and above zero."""
    if type(value) is float and 0 < value < INFINITY:
        return Decimal(repr(value))
    exact = number(value, what)
    if exact <= 0:
        raise DataError(f"{what}_not_positive")
    return exact


def market_time(raw: Raw, otherwise: int) -> int:
    """The structure's exchange time in nanoseconds, or `otherwise` where the exchange sends none."""
    stamp = raw.get("timestamp")
    return int(stamp) * MS if isinstance(stamp, int | float) and stamp > 0 else otherwise


def parse_trade(raw: Raw, symbol: Symbol, otherwise: int, tick_rule: Side | None = None) -> Trade:
    """One public print. `tick_rule` stands in for the aggressor's side where the exchange does not tell it."""
    side = _SIDES.get(raw.get("side") or "", tick_rule)
    if side is None:
        raise DataError("side_missing")
    price, quantity = positive(raw.get("price"), "price"), positive(raw.get("amount"), "quantity")
    time = market_time(raw, otherwise)
    return Trade(UNSTAMPED, symbol, time, str(raw.get("id") or f"t{time}"), price, quantity, side)


class Levels:
    """Exact price levels by their floats, remembered: most levels of a book repeat from one update to the next."""

    def __init__(self, keep: int = 20_000) -> None:
        self._keep = keep
        self._known: dict[tuple[float, ...], Level] = {}
        self._prices: dict[float, Decimal] = {}

    def top(self, side: Sequence[Sequence[float]], depth: int, better: Callable[[float, float], bool]) -> tuple[Level, ...]:
        """The best `depth` levels, copied; raises DataError for a level that cannot be.

        `better` compares the prices of two neighbours, the better one first: `gt` for bids, `lt` for asks.
        """
        pairs = list(map(tuple, side[:depth]))
        exact = list(map(self._known.get, pairs))
        if None in exact:
            exact = [self._learn(pair) if level is None else level for pair, level in zip(pairs, exact, strict=True)]
        prices = [pair[0] for pair in pairs]
        if not all(map(better, prices, prices[1:])):
            raise DataError("levels_unsorted")
        return tuple(exact)  # type: ignore[arg-type]

    def _learn(self, pair: tuple[float, ...]) -> Level:
        price, quantity = self._prices.get(pair[0]), pair[1]
        if price is None:
            if len(self._prices) >= self._keep:
                self._prices.clear()
            price = self._prices[pair[0]] = positive(pair[0], "price")
        exact = (price, Decimal(repr(quantity)) if 0 < quantity < INFINITY else positive(quantity, "quantity"))
        if len(self._known) >= self._keep:
            self._known.clear()
        self._known[pair] = exact
        return exact


def parse_book(raw: Raw, symbol: Symbol, depth: int, otherwise: int, levels: Levels) -> BookSnapshot:
    """The top of a book, best first. An empty side is a fact; an unsorted one is refused."""
    bids, asks = levels.top(raw["bids"], depth, gt), levels.top(raw["asks"], depth, lt)
    return BookSnapshot(UNSTAMPED, symbol, market_time(raw, otherwise), bids, asks)


def parse_candle(row: Sequence[Any], symbol: Symbol, timeframe: str) -> Bar:
    """One closed candle [open time in ms, open, high, low, close, volume]."""
    if timeframe not in TIMEFRAMES:
        raise DataError(f"timeframe_{timeframe}_unknown")
    if row[0] is None:
        raise NotFinite("time_missing")
    o, h, lo, c = (positive(value, name) for value, name in zip(row[1:5], ("open", "high", "low", "close"), strict=True))
    if not lo <= min(o, c) <= max(o, c) <= h:
        raise DataError("candle_inconsistent")
    volume = number(row[5] if row[5] is not None else 0, "volume")
    if volume < 0:
        raise DataError("volume_negative")
    return Bar(UNSTAMPED, symbol, int(row[0]) * MS, timeframe, o, h, lo, c, volume)


def parse_instrument(market: Raw, precision_mode: int, price: Decimal | None = None) -> Instrument:
    """Grid, bounds and fees of one spot market. `price` resolves precisions that are given in significant digits."""
    precision, limits = market.get("precision") or {}, market.get("limits") or {}
    amount, cost, prices = (limits.get(name) or {} for name in ("amount", "cost", "price"))
    stated: dict[str, Any] = {}
    for name in ("maker", "taker"):
        if market.get(name) is not None:
            stated[f"{name}_fee"] = number(market[name], name)
    for name, source, key in (
        ("min_quantity", amount, "min"), ("max_quantity", amount, "max"),
        ("min_notional", cost, "min"), ("max_notional", cost, "max"),
    ):  # fmt: skip
        if source.get(key):
            stated[name] = number(source[key], name)
    return Instrument(
        symbol=Symbol(market["symbol"]),
        base=Currency(market["base"]),
        quote=Currency(market["quote"]),
        tick=_step(precision.get("price"), precision_mode, price) or _or_finest(prices.get("min")),
        lot=_step(precision.get("amount"), precision_mode, None) or _or_finest(amount.get("min")),
        **stated,
    )


def _step(precision: Any, mode: int, price: Decimal | None) -> Decimal | None:
    if precision is None:
        return None
    value = number(precision, "precision")
    if mode == TICK_SIZE:
        return value if value > 0 else None
    if mode == SIGNIFICANT_DIGITS:
        return Decimal(1).scaleb(price.adjusted() + 1 - int(value)) if price is not None else None
    return Decimal(1).scaleb(-int(value))


def _or_finest(value: Any) -> Decimal:
    return number(value, "limit") if value else FINEST


VenueKey = tuple[str, str]
"""(symbol, the exchange's order id): such an id is unique within its symbol only, on Binance for one."""


@dataclass(frozen=True, slots=True)
class OrderView:
    """What one answer says about one order. None means unknown, never zero."""

    venue_order_id: str
    order_id: str
    symbol: str
    status: str | None
    filled: Decimal | None
    quantity: Decimal | None
    reason: str = ""
    side: Side | None = None
    price: Decimal | None = None
    created: int = 0
    """By the exchange's clock, nanoseconds UTC; 0 where it does not tell."""

    @property
    def key(self) -> VenueKey:
        """By what the exchange knows it."""
        return self.symbol, self.venue_order_id

    @property
    def empty(self) -> bool:
        """Whether the answer says nothing at all, as ccxt's reading of an empty body does."""
        return not self.venue_order_id and self.status is None

    @property
    def state(self) -> OrderState | None:
        """The house's name for the status, or None when the answer does not tell."""
        match self.status:
            case "open":
                return OrderState.PARTIAL if self.filled else OrderState.OPEN
            case "closed":
                return OrderState.FILLED
            case "canceled":
                return OrderState.CANCELED
            case "expired":
                return OrderState.EXPIRED
            case "rejected":
                return OrderState.REJECTED
            case "canceling":
                return OrderState.CANCELING
        return None


def parse_order(raw: Any) -> OrderView:
    """An order structure; anything that is no mapping counts as an empty answer."""
    if not isinstance(raw, Mapping):
        return OrderView("", "", "", None, None, None)
    filled, quantity = (number(raw[key], key) if raw.get(key) is not None else None for key in ("filled", "amount"))
    info = raw.get("info")
    reason = str(info.get("status") or "") if isinstance(info, Mapping) else ""
    text = [str(raw.get(key) or "") for key in ("id", "clientOrderId", "symbol")]
    side, price = _SIDES.get(raw.get("side") or ""), number(raw["price"], "price") if raw.get("price") is not None else None
    return OrderView(text[0], text[1], text[2], raw.get("status") or None, filled, quantity, reason, side, price, market_time(raw, 0))


def parse_fees(raw: Raw) -> list[tuple[Currency, Decimal]]:
    """What an own trade cost, by currency; empty when the exchange does not say."""
    found: dict[Currency, Decimal] = {}
    for fee in raw.get("fees") or [raw.get("fee") or {}]:
        if fee and fee.get("cost") is not None and fee.get("currency"):
            currency = Currency(fee["currency"])
            found[currency] = found.get(currency, ZERO) + number(fee["cost"], "fee")
    return list(found.items())


@dataclass(frozen=True, slots=True)
class OwnTrade:
    """One execution on the account, whoever's order it was of. Time in nanoseconds by the exchange's clock."""

    symbol: Symbol
    trade_id: str
    venue_order_id: str
    order_id: str
    """The client order id, where the exchange tells it with the trade."""
    time: int
    side: Side
    price: Decimal
    quantity: Decimal
    fees: tuple[tuple[Currency, Decimal], ...]
    maker: bool

    @property
    def order_key(self) -> VenueKey:
        """The order's, by what the exchange knows it."""
        return self.symbol, self.venue_order_id

    @property
    def pair(self) -> tuple[Currency, Currency]:
        """Base and quote."""
        base, _, quote = self.symbol.partition(":")[0].partition("/")
        return Currency(base), Currency(quote)

    def fill(self, order_id: OrderId) -> Fill:
        """As an execution of an order of ours, with its first fee."""
        currency, fee = self.fees[0] if self.fees else (self.pair[1], ZERO)
        return Fill(
            UNSTAMPED, self.symbol, self.time, order_id, self.trade_id, self.side, self.price, self.quantity, fee, currency, self.maker
        )

    def further_fees(self) -> list[Adjustment]:
        """Fees in a second currency and beyond, which a Fill has no room for."""
        note = f"second fee of trade {self.trade_id} of {self.symbol}"
        return [Adjustment(UNSTAMPED, currency, -fee, AdjustmentKind.FEE, note) for currency, fee in self.fees[1:]]

    def corrections(self, whose: str) -> list[Adjustment]:
        """What it moved in the account, as money that is none of ours. The note names the trade, so that it is booked once."""
        base, quote = self.pair
        signed, note = self.side.value * self.quantity, f"{trade_note(self.trade_id, self.symbol, self.time)} {whose}"
        moved = [(base, signed), (quote, -signed * self.price), *((currency, -fee) for currency, fee in self.fees)]
        return [Adjustment(UNSTAMPED, currency, amount, AdjustmentKind.CORRECTION, note) for currency, amount in moved]


def trade_note(trade_id: str, symbol: Symbol, time: int) -> str:
    """How a correction names the trade that it books; `noted_trade` reads it again."""
    return f"trade {trade_id} of {symbol} at {time // MS},"


_NOTED = re.compile(r"trade (\S+) of (\S+) at (\d+),")


def noted_trade(note: str) -> tuple[Symbol, str, int] | None:
    """(symbol, trade id, time in ms) of a correction that books somebody else's trade, else None."""
    found = _NOTED.match(note)
    return (Symbol(found[2]), found[1], int(found[3])) if found else None


def parse_own_trade(raw: Raw) -> OwnTrade:
    """One execution on the account."""
    side = _SIDES.get(raw.get("side") or "")
    if side is None:
        raise DataError("side_missing")
    if not raw.get("id"):
        raise DataError("trade_id_missing")
    return OwnTrade(
        symbol=Symbol(raw["symbol"]),
        trade_id=str(raw["id"]),
        venue_order_id=str(raw.get("order") or ""),
        order_id=str(raw.get("clientOrderId") or ""),
        time=market_time(raw, 0),
        side=side,
        price=positive(raw.get("price"), "price"),
        quantity=positive(raw.get("amount"), "quantity"),
        fees=tuple(parse_fees(raw)),
        maker=raw.get("takerOrMaker") == "maker",
    )


@dataclass(frozen=True, slots=True)
class Transfer:
    """Money that came into the account from outside, or left it (negative, its fee included). Time in nanoseconds."""

    transfer_id: str
    currency: Currency
    amount: Decimal
    time: int

    def adjustment(self) -> Adjustment:
        """The same as a fact; the note names the transfer, so that it is booked once."""
        kind = AdjustmentKind.DEPOSIT if self.amount > 0 else AdjustmentKind.WITHDRAWAL
        return Adjustment(UNSTAMPED, self.currency, self.amount, kind, self.transfer_id)


def parse_transfer(raw: Raw, sign: int) -> Transfer | None:
    """A deposit (`sign` 1) or withdrawal (-1) that has come to its end well; None for any other."""
    if raw.get("status") != "ok" or not raw.get("currency"):
        return None
    amount, fee, word = positive(raw.get("amount"), "amount"), raw.get("fee") or {}, "deposit" if sign > 0 else "withdrawal"
    if sign < 0 and fee.get("cost") and fee.get("currency") == raw["currency"]:
        amount += number(fee["cost"], "fee")
    name = raw.get("id") or raw.get("txid") or raw.get("timestamp")
    return Transfer(f"{word} {name}", Currency(raw["currency"]), sign * amount, market_time(raw, 0))


def parse_balances(raw: Raw) -> dict[Currency, tuple[Decimal, Decimal]]:
    """(total, free) of every currency the account holds or has held."""
    totals, frees = raw.get("total") or {}, raw.get("free") or {}
    out = {}
    for code, total in totals.items():
        if total is not None:
            out[Currency(code)] = (number(total, "total"), number(frees.get(code) if frees.get(code) is not None else total, "free"))
    return out
