"""`/rehearsal/faults`: what there is, what is on, on and off; `/rehearsal/account`: the truth, which no fault touches."""

from collections.abc import Awaitable, Callable

import orjson
from aiohttp import web

from agents.core.errors import ConfigError
from daemon.rehearsal.faults.actions import Ground, perform
from daemon.rehearsal.faults.catalogue import KINDS, Border
from daemon.rehearsal.faults.plan import Armed, Plan
from daemon.rehearsal.rest import json_answer

FAULTS, ACCOUNT = "/rehearsal/faults", "/rehearsal/account"
Handler = Callable[[web.Request], Awaitable[web.Response]]


def listed(plan: Plan) -> dict[str, object]:
    """Every fault there is, those that are on, and how often each has struck."""
    faults = {
        kind.name: {
            "border": kind.border.value,
            "what": kind.sentence,
            "count": kind.count,
            "match": dict(kind.match),
            "details": dict(kind.details),
            "random": kind.chance,
        }
        for kind in KINDS.values()
    }
    return {"faults": faults, "active": plan.active(), "struck": dict(plan.struck)}


def switch_on(plan: Plan, ground: Ground, body: bytes) -> dict[str, object]:
    """Arm or perform what a request body asks for; raises ConfigError with a sentence for the caller."""
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ConfigError(f"the body is not JSON ({error}); give an object such as {{\"fault\": \"empty_answer\"}}") from error
    if not isinstance(request, dict):
        raise ConfigError('give an object such as {"fault": "empty_answer", "count": 1}')
    armed = plan.arm(request)
    return {"id": armed.number, "fault": armed.kind.name, "result": act(plan, ground, armed)}


def act(plan: Plan, ground: Ground, armed: Armed) -> object:
    """Perform an action; what stays in the list waits there."""
    if armed.kind.border is not Border.ACTION:
        return None
    done = perform(armed.kind.name, armed.details, ground)
    plan.count(armed)
    return done


def truth(ground: Ground) -> dict[str, object]:
    """The account as it is: balances, orders and trades of every market."""
    venue = ground.venue
    return {
        "balances": {currency: {"free": str(free), "locked": str(locked)} for currency, free, locked in venue.account.balances()},
        "orders": [order.row() for public in venue.markets for order in venue.account.orders(public.market_id)],
        "trades": [trade.row() for public in venue.markets for trade in venue.account.trades(public.market_id)],
    }


def open_doors(router: web.UrlDispatcher, plan: Plan, ground: Ground) -> None:
    """The control endpoint's routes. Its answers are the same through every fault but a restart."""

    async def show(request: web.Request) -> web.Response:
        return json_answer(listed(plan), 200, {})

    async def arm(request: web.Request) -> web.Response:
        return json_answer(switch_on(plan, ground, await request.read()), 200, {})

    async def clear(request: web.Request) -> web.Response:
        plan.clear(request.query.get("fault"))
        return json_answer({"active": plan.active()}, 200, {})

    async def account(request: web.Request) -> web.Response:
        return json_answer(truth(ground), 200, {})

    def told(handler: Handler) -> Handler:
        async def answered(request: web.Request) -> web.Response:
            try:
                return await handler(request)
            except ConfigError as error:
                return json_answer({"error": str(error)}, 400, {})

        return answered

    router.add_get(FAULTS, told(show))
    router.add_post(FAULTS, told(arm))
    router.add_delete(FAULTS, told(clear))
    router.add_get(ACCOUNT, told(account))
