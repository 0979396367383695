"""What happens at once on request: connections cut, transfers, orders by hand, prints and fills."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from agents.core.errors import ConfigError
from agents.core.events import UNSTAMPED, Trade
from agents.core.instruments import Currency, Side
from daemon.rehearsal import errors, trade_calls
from daemon.rehearsal.faults.catalogue import Value
from daemon.rehearsal.faults.publisher import FaultyPublisher
from daemon.rehearsal.faults.streams import FaultyUserStreams, cut
from daemon.rehearsal.floor import Floor
from daemon.rehearsal.market import PublicMarket
from daemon.rehearsal.orders import VenueOrder
from daemon.rehearsal.protocol import Params, text8
from daemon.rehearsal.streams import Hub
from daemon.rehearsal.venue import Venue

Details = Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Ground:
    """What actions act on."""

    venue: Venue
    floor: Floor
    hub: Hub
    users: FaultyUserStreams
    publisher: FaultyPublisher
    restart: Callable[[float], None]
    """Refuse dials for so many seconds."""


def perform(name: str, details: Details, ground: Ground) -> object:
    """Do it, and say what came of it; raises ConfigError for what cannot be done."""
    try:
        done = _ACTIONS[name](details, ground)
    except errors.ApiError as error:
        raise ConfigError(f"{name}: {error}") from error
    ground.users.flush()
    return done


def _market(details: Details, ground: Ground) -> PublicMarket:
    name = details.get("symbol")
    return ground.venue.markets.find(str(name).replace("/", "")) if name else next(iter(ground.venue.markets))


def _decimal(details: Details, name: str) -> Decimal:
    try:
        value = Decimal(str(details[name]))
    except InvalidOperation as error:
        raise ConfigError(f"{name} {details[name]!r} is not a number") from error
    if not value.is_finite() or value <= 0:
        raise ConfigError(f"{name} {details[name]!r} is not above 0")
    return value


def _transfer(details: Details, ground: Ground, sign: int) -> object:
    currency, amount = Currency(str(details["asset"])), _decimal(details, "amount")
    free = next((free for name, free, _ in ground.venue.account.balances() if name == currency), Decimal(0))
    if sign < 0 and amount > free:
        raise ConfigError(f"withdraw {amount} {currency}: only {free} are free")
    ground.venue.account.transfer(currency, sign * amount, told=not details["silent"])
    return {"asset": currency, "free": text8(free + sign * amount)}


def _manual_order(details: Details, ground: Ground) -> object:
    number = ground.venue.account.generated_id()
    given = {"symbol": _market(details, ground).market_id, "newClientOrderId": f"web_{number}", "newOrderRespType": "FULL"}
    given |= {name: str(details[name]) for name in ("side", "type", "quantity", "price") if details[name] is not None}
    if details["type"] == "LIMIT":
        given["timeInForce"] = "GTC"
    return trade_calls.place(ground.venue, Params(given))


def _open(details: Details, ground: Ground) -> list[VenueOrder]:
    market_id = _market(details, ground).market_id if details["symbol"] else None
    named = details["client_id"]
    return [order for order in ground.venue.account.open_orders(market_id) if named is None or order.client_id == named]


def _manual_cancel(details: Details, ground: Ground) -> object:
    account = ground.venue.account
    return [account.cancel(order, f"web_{account.generated_id()}").row() for order in _open(details, ground)]


def _partial_fill(details: Details, ground: Ground) -> object:
    """A print one tick through the order's price fills it whatever queue there is."""
    share, filled = _decimal(details, "share"), []
    for order in _open(details, ground):
        listing = ground.venue.markets.find(order.market_id).market.instrument
        quantity = listing.round_quantity((order.quantity - order.filled) * min(share, Decimal(1)))
        if quantity > 0 and order.price > 0 and not order.asleep:
            through = order.price - listing.tick if order.side is Side.BUY else order.price + listing.tick
            _print(ground, order.market_id, through, quantity, order.side.opposite)
            filled.append(order.row())
    return filled


def _print_trade(details: Details, ground: Ground) -> object:
    public = _market(details, ground)
    price = _decimal(details, "price") if details["price"] is not None else public.reference()
    if price is None or details["side"] not in ("BUY", "SELL"):
        raise ConfigError("print_trade: give a price, and a side of BUY or SELL")
    _print(ground, public.market_id, price, _decimal(details, "quantity"), Side[str(details["side"])])
    return {"symbol": public.market_id, "price": text8(price)}


def _print(ground: Ground, market_id: str, price: Decimal, quantity: Decimal, side: Side) -> None:
    public = ground.venue.markets.find(market_id)
    ground.floor.take(Trade(UNSTAMPED, public.symbol, ground.venue.markets.now, "", price, quantity, side))


def _number(details: Details, name: str) -> float:
    return float(_decimal(details, name))


_ACTIONS: dict[str, Callable[[Details, Ground], object]] = {
    "stream_drop": lambda details, ground: {"cut": cut(ground.hub.connections)},
    "restart": lambda details, ground: ground.restart(_number(details, "seconds")),
    "burst": lambda details, ground: {"sent": ground.publisher.burst(_market(details, ground), round(_number(details, "count")))},
    "private_drop": lambda details, ground: {"cut": cut(ground.users.connections)},
    "private_terminated": lambda details, ground: ground.users.terminate(ground.venue.real_ms()),
    "deposit": lambda details, ground: _transfer(details, ground, 1),
    "withdraw": lambda details, ground: _transfer(details, ground, -1),
    "manual_order": _manual_order,
    "manual_cancel": _manual_cancel,
    "partial_fill": _partial_fill,
    "print_trade": _print_trade,
}
