"""The REST door: reads the request, holds it against budget, key, time and signature, and answers as Binance does."""

import orjson
from aiohttp import web

from daemon.rehearsal import errors
from daemon.rehearsal.calls import Call, Security, Table
from daemon.rehearsal.protocol import Params, parse_query, without_signature
from daemon.rehearsal.venue import Venue

KEY_HEADER = "X-MBX-APIKEY"


def json_answer(body: object, status: int, headers: dict[str, str]) -> web.Response:
    return web.Response(body=orjson.dumps(body), status=status, headers=headers, content_type="application/json")


async def serve_rest(request: web.Request, venue: Venue, table: Table) -> web.Response:
    """Answer one REST request."""
    call = table.by_path.get((request.method, request.path))
    if call is None:
        return web.Response(status=405 if request.path in table.paths else 404, headers=venue.budget.headers())
    try:
        body = await request.text() if request.can_read_body else ""
        result = _perform(venue, call, request.headers.get(KEY_HEADER), request.raw_path, body)
    except errors.ApiError as error:
        return json_answer(error.body(), error.status, {**venue.budget.headers(), **error.headers})
    headers = venue.budget.headers()
    if call.counts_as_order:
        headers |= venue.budget.order_headers()
    return json_answer(result, 200, headers)


def _perform(venue: Venue, call: Call, api_key: str | None, raw_path: str, body: str) -> object:
    _, _, raw_query = raw_path.partition("?")
    given = parse_query(raw_query) if raw_query else {}
    for name, value in parse_query(body).items() if body else ():
        if name in given:
            raise errors.duplicate_values(name)
        given[name] = value
    params = Params(given)
    venue.budget.spend(call.weight_of(params))
    if call.security is Security.KEY:
        venue.access.check_key(api_key)
    elif call.security is Security.SIGNED:
        payload = without_signature(raw_query) + without_signature(body)
        venue.access.check_signed(api_key, payload, params)
    if call.counts_as_order:
        venue.budget.spend_order()
    return call.function(venue, params)
