"""Calls about orders, own trades and the account, for signed requests."""

from agents.core.instruments import Side
from daemon.rehearsal import errors
from daemon.rehearsal.filters import ORDER_TYPES, STP_MODES, Market
from daemon.rehearsal.orders import NewOrder, VenueOrder
from daemon.rehearsal.protocol import Params, text8
from daemon.rehearsal.venue import Venue

_SIDES = frozenset({"BUY", "SELL"})
_TIMES_IN_FORCE = frozenset({"GTC", "IOC", "FOK"})
_FORM = ("timeInForce", "price", "quantity", "quoteOrderQty", "stopPrice", "trailingDelta", "icebergQty")
_NEEDS: dict[str, frozenset[str]] = {
    "LIMIT": frozenset({"timeInForce", "quantity", "price"}),
    "LIMIT_MAKER": frozenset({"quantity", "price"}),
    "MARKET": frozenset(),
    "STOP_LOSS": frozenset({"quantity", "stopPrice"}),
    "STOP_LOSS_LIMIT": frozenset({"timeInForce", "quantity", "price", "stopPrice"}),
}
_RESPONSES = frozenset({"ACK", "RESULT", "FULL"})
DAY_MS = 86_400_000
UID = 354_937_868


def _check_form(kind: str, params: Params) -> None:
    """What an order of this type must bring (-1102), and what it must not (-1106)."""
    needs = _NEEDS[kind]
    for name in _FORM:
        if params.optional(name) is None:
            if name in needs:
                raise errors.mandatory(name)
        elif name not in needs and not (kind == "MARKET" and name in ("quantity", "quoteOrderQty")):
            raise errors.not_required(name)


def _new_order(venue: Venue, params: Params) -> NewOrder:
    """The order asked for, checked for form: what must be there, what must not, what may be said."""
    public = venue.markets.find(params.symbol())
    side = Side[params.choice("side", _SIDES, errors.bad_side)]
    kind = params.choice("type", frozenset(ORDER_TYPES), errors.bad_order_type)
    _check_form(kind, params)
    price, quantity, quote_quantity = params.decimal("price"), params.decimal("quantity"), params.decimal("quoteOrderQty")
    if kind == "MARKET" and (quantity is None) is (quote_quantity is None):
        raise errors.either_mandatory("quantity", "quoteOrderQty") if quantity is None else errors.bad_combination()
    return NewOrder(
        symbol=public.symbol,
        market_id=public.market_id,
        client_id=params.client_id("newClientOrderId") or venue.account.generated_id(),
        side=side,
        kind=kind,
        time_in_force=params.choice("timeInForce", _TIMES_IN_FORCE, errors.bad_time_in_force, "GTC"),
        price=price,
        quantity=quantity,
        quote_quantity=quote_quantity,
        stop_price=params.decimal("stopPrice"),
        stp_mode=params.choice(
            "selfTradePreventionMode", frozenset(STP_MODES), lambda: errors.invalid_value("selfTradePreventionMode"), "NONE"
        ),
    )


def _response_kind(params: Params, new: NewOrder) -> str:
    default = "FULL" if new.kind in ("LIMIT", "MARKET") else "ACK"
    return params.choice("newOrderRespType", _RESPONSES, lambda: errors.invalid_value("newOrderRespType"), default)


def place(venue: Venue, params: Params) -> object:
    new = _new_order(venue, params)
    response = _response_kind(params, new)
    return venue.account.place(new).placed(response)


def test(venue: Venue, params: Params) -> object:
    """Checks form and filters, sends nothing to the market."""
    venue.account.check(_new_order(venue, params))
    return {}


def _named(venue: Venue, params: Params, by_id: str = "orderId", by_client: str = "origClientOrderId") -> VenueOrder | None:
    """The order that the request names by its id or its client id."""
    market_id = venue.markets.find(params.symbol()).market_id
    order_id, client_id = params.integer(by_id), params.optional(by_client)
    if order_id is None and client_id is None:
        raise errors.either_mandatory(by_client, by_id)
    return venue.account.find(market_id, order_id, client_id)


def status(venue: Venue, params: Params) -> object:
    order = _named(venue, params)
    if order is None:
        raise errors.no_such_order()
    return order.row()


def _check_restriction(order: VenueOrder, params: Params) -> None:
    allowed = {"ONLY_NEW": "NEW", "ONLY_PARTIALLY_FILLED": "PARTIALLY_FILLED"}
    restriction = params.optional("cancelRestrictions")
    if restriction is None:
        return
    if restriction not in allowed:
        raise errors.invalid_value("cancelRestrictions")
    if order.status != allowed[restriction]:
        raise errors.cancel_restricted()


def cancel(venue: Venue, params: Params) -> object:
    order = _named(venue, params)
    if order is None or not order.open:
        raise errors.unknown_order()
    _check_restriction(order, params)
    cancel_id = params.client_id("newClientOrderId") or venue.account.generated_id()
    return venue.account.cancel(order, cancel_id).canceled(cancel_id)


def cancel_all(venue: Venue, params: Params) -> object:
    orders = venue.account.open_orders(venue.markets.find(params.symbol()).market_id)
    if not orders:
        raise errors.unknown_order()
    answers = []
    for order in orders:
        cancel_id = venue.account.generated_id()
        answers.append(venue.account.cancel(order, cancel_id).canceled(cancel_id))
    return answers


def cancel_replace(venue: Venue, params: Params) -> object:
    """Cancel one order and place another; STOP_ON_FAILURE places only when the cancel succeeded."""
    modes = frozenset({"STOP_ON_FAILURE", "ALLOW_FAILURE"})
    mode = params.choice("cancelReplaceMode", modes, lambda: errors.invalid_value("cancelReplaceMode"))
    new = _new_order(venue, params)
    response = _response_kind(params, new)
    outcome: dict[str, object] = {"cancelResult": "FAILURE", "newOrderResult": "NOT_ATTEMPTED"}
    outcome |= {"cancelResponse": None, "newOrderResponse": None}
    order = _named(venue, params, "cancelOrderId", "cancelOrigClientOrderId")
    try:
        if order is None or not order.open:
            raise errors.unknown_order()
        _check_restriction(order, params)
        cancel_id = params.client_id("cancelNewClientOrderId") or venue.account.generated_id()
        outcome |= {"cancelResult": "SUCCESS", "cancelResponse": venue.account.cancel(order, cancel_id).canceled(cancel_id)}
    except errors.ApiError as error:
        outcome["cancelResponse"] = error.body()
        if mode == "STOP_ON_FAILURE":
            raise errors.ApiError(-2022, "Order cancel-replace failed.", 400, data=outcome) from error
    try:
        outcome |= {"newOrderResult": "SUCCESS", "newOrderResponse": venue.account.place(new).placed(response)}
    except errors.ApiError as error:
        outcome |= {"newOrderResult": "FAILURE", "newOrderResponse": error.body()}
    results = {outcome["cancelResult"], outcome["newOrderResult"]}
    if results == {"FAILURE"}:
        raise errors.ApiError(-2022, "Order cancel-replace failed.", 400, data=outcome)
    if "FAILURE" in results:
        raise errors.ApiError(-2021, "Order cancel-replace partially failed.", 409, data=outcome)
    return outcome


def open_orders(venue: Venue, params: Params) -> object:
    market_id = venue.markets.find(params.symbol()).market_id if "symbol" in params else None
    return [order.row() for order in venue.account.open_orders(market_id)]


def _span(params: Params) -> tuple[int | None, int | None]:
    """startTime and endTime; at most a day apart (-1127)."""
    start, end = params.integer("startTime"), params.integer("endTime")
    if start is not None and end is not None and end - start > DAY_MS:
        raise errors.more_than_a_day()
    return start, end


def all_orders(venue: Venue, params: Params) -> object:
    market_id = venue.markets.find(params.symbol()).market_id
    first_id, limit = params.integer("orderId"), params.limit(500, 1000)
    start, end = _span(params)
    found = [
        order
        for order in venue.account.orders(market_id)
        if (first_id is None or order.order_id >= first_id)
        and (start is None or order.created_ms >= start)
        and (end is None or order.created_ms <= end)
    ]
    forward = first_id is not None or start is not None
    return [order.row() for order in (found[:limit] if forward else found[-limit:])]


def own_trades(venue: Venue, params: Params) -> object:
    market_id = venue.markets.find(params.symbol()).market_id
    from_id, order_id, limit = params.integer("fromId"), params.integer("orderId"), params.limit(500, 1000)
    start, end = _span(params)
    if from_id is not None and (start is not None or end is not None):
        raise errors.bad_combination()
    found = [
        trade
        for trade in venue.account.trades(market_id)
        if (from_id is None or trade.trade_id >= from_id)
        and (order_id is None or trade.order_id == order_id)
        and (start is None or trade.real_ms >= start)
        and (end is None or trade.real_ms <= end)
    ]
    forward = from_id is not None or start is not None
    return [trade.row() for trade in (found[:limit] if forward else found[-limit:])]


def _rates(venue: Venue) -> tuple[str, str]:
    """(maker, taker) of the first market: one fee tier holds for all."""
    listing = next(iter(venue.markets)).market.instrument
    return text8(listing.maker_fee), text8(listing.taker_fee)


def account(venue: Venue, params: Params) -> object:
    maker, taker = _rates(venue)
    omit_zero = params.optional("omitZeroBalances") == "true"
    return {
        "makerCommission": round(float(maker) * 10_000),
        "takerCommission": round(float(taker) * 10_000),
        "buyerCommission": 0,
        "sellerCommission": 0,
        "commissionRates": {"maker": maker, "taker": taker, "buyer": text8(0), "seller": text8(0)},
        "canTrade": True,
        "canWithdraw": False,
        "canDeposit": False,
        "brokered": False,
        "requireSelfTradePrevention": False,
        "preventSor": False,
        "updateTime": venue.account.updated_ms,
        "accountType": "SPOT",
        "balances": [
            {"asset": currency, "free": text8(free), "locked": text8(locked)}
            for currency, free, locked in venue.account.balances()
            if free or locked or not omit_zero
        ],
        "permissions": ["SPOT"],
        "uid": UID,
    }


def commission(venue: Venue, params: Params) -> object:
    listing: Market = venue.markets.find(params.symbol()).market
    rates = {"maker": text8(listing.instrument.maker_fee), "taker": text8(listing.instrument.taker_fee)}
    none = {"maker": text8(0), "taker": text8(0), "buyer": text8(0), "seller": text8(0)}
    return {
        "symbol": listing.market_id,
        "standardCommission": {**rates, "buyer": text8(0), "seller": text8(0)},
        "specialCommission": none,
        "taxCommission": none,
        "discount": {"enabledForAccount": False, "enabledForSymbol": False, "discountAsset": "BNB", "discount": "0.75000000"},
    }


def order_limits(venue: Venue, params: Params) -> object:
    return [row for row in venue.budget.counts() if row["rateLimitType"] == "ORDERS"]


def trade_fee(venue: Venue, params: Params) -> object:
    chosen = [venue.markets.find(params.symbol())] if "symbol" in params else list(venue.markets)
    return [
        {
            "symbol": public.market_id,
            "makerCommission": str(public.market.instrument.maker_fee),
            "takerCommission": str(public.market.instrument.taker_fee),
        }
        for public in chosen
    ]
