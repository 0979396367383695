"""The websocket API (`/ws-api/v3`): every call of the table, and the user-data stream on the same connection."""

from collections.abc import Callable, Mapping

import orjson
from aiohttp import WSMsgType, web

from daemon.rehearsal import errors
from daemon.rehearsal.calls import Security, Table
from daemon.rehearsal.connection import Connection
from daemon.rehearsal.protocol import Params, plain, signed_payload
from daemon.rehearsal.user_stream import UserStreams
from daemon.rehearsal.venue import Venue

SUBSCRIBE_SIGNATURE = "userDataStream.subscribe.signature"


Respond = Callable[[Connection, str], None]
"""Answers one request on its connection; what it causes is queued for the account's listeners."""


async def serve_ws_api(request: web.Request, users: UserStreams, respond: Respond) -> web.WebSocketResponse:
    """One websocket-API connection, until the client leaves."""
    connection = await Connection.accept(request)
    users.connections.add(connection)
    try:
        async for message in connection.socket:
            if message.type is WSMsgType.TEXT:
                respond(connection, message.data)
                users.flush()
    finally:
        users.drop(connection)
    return connection.socket


def answer(venue: Venue, table: Table, users: UserStreams, connection: Connection, text: str) -> dict[str, object]:
    """The answer to one request; account events that it causes are queued on the way."""
    request_id: object = None
    show_limits = True
    try:
        request_id, method, params = _parse(text)
        show_limits = plain(params.get("returnRateLimits", True)) != "false"
        reply: dict[str, object] = {"id": request_id, "status": 200, "result": _perform(venue, table, users, connection, method, params)}
    except errors.ApiError as error:
        reply = {"id": request_id, "status": error.status, "error": {**error.body(), **_when_to_retry(venue, error)}}
    if show_limits:
        reply["rateLimits"] = venue.budget.counts()
    return reply


def _when_to_retry(venue: Venue, error: errors.ApiError) -> dict[str, object]:
    """What a REST answer says by Retry-After, as the websocket API says it: the moment, in milliseconds."""
    seconds, now = error.headers.get("Retry-After"), venue.real_ms()
    return {} if seconds is None else {"data": {"serverTime": now, "retryAfter": now + 1000 * int(seconds)}}


def _parse(text: str) -> tuple[object, str, dict[str, object]]:
    try:
        request = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise errors.ApiError(-1135, "Invalid JSON Request") from error
    if not isinstance(request, dict) or not isinstance(request.get("method"), str):
        raise errors.ApiError(-1135, "Invalid JSON Request")
    params = request.get("params") or {}
    if not isinstance(params, dict):
        raise errors.ApiError(-1135, "Invalid JSON Request")
    return request.get("id"), request["method"], dict(params)


def _perform(
    venue: Venue, table: Table, users: UserStreams, connection: Connection, method: str, given: Mapping[str, object]
) -> object:
    params = Params({name: _listed(value) for name, value in given.items() if value is not None})
    if method == SUBSCRIBE_SIGNATURE:
        venue.budget.spend(2)
        _check_signed(venue, given, params)
        return {"subscriptionId": users.subscribe(connection)}
    if method == "userDataStream.unsubscribe":
        venue.budget.spend(2)
        if not users.unsubscribe(connection, params.integer("subscriptionId")):
            raise errors.ApiError(-2036, "Subscription not found.")
        return {}
    if method == "session.subscriptions":
        venue.budget.spend(2)
        return [{"subscriptionId": held} for held in users.subscriptions(connection)]
    if method == "session.status":
        venue.budget.spend(2)
        return {"apiKey": None, "authorizedSince": None, "connectedSince": None, "returnRateLimits": True, "serverTime": venue.real_ms()}
    if method == "session.logon":
        raise errors.ApiError(-4056, "HMAC_SHA256 API key is not supported.")
    call = table.by_method.get(method)
    if call is None:
        raise errors.ApiError(-1020, "This operation is not supported.")
    venue.budget.spend(call.weight_of(params))
    if call.security is Security.KEY:
        venue.access.check_key(params.optional("apiKey"))
    elif call.security is Security.SIGNED:
        _check_signed(venue, given, params)
    if call.counts_as_order:
        venue.budget.spend_order()
    return call.function(venue, params)


def _listed(value: object) -> str:
    return orjson.dumps(value).decode() if isinstance(value, list) else plain(value)


def _check_signed(venue: Venue, given: Mapping[str, object], params: Params) -> None:
    venue.access.check_signed(params.optional("apiKey"), signed_payload(given), params)
