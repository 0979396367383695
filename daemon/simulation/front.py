"""The exchange's door to the network: requests and frames pass here, and here they meet what goes wrong.

Everything below is what a client can see of an exchange in trouble; the truth in `Exchange` stays what it is.
"""

import random
from collections.abc import Callable, Coroutine
from typing import Any

import orjson
from aiohttp.client_exceptions import ClientOSError, ServerDisconnectedError

from daemon.rehearsal.calls import TABLE
from daemon.rehearsal.connection import Connection
from daemon.rehearsal.rest import serve_rest
from daemon.rehearsal.streams import answer as stream_answer
from daemon.rehearsal.ws_api import answer as api_answer
from daemon.simulation.exchange import Exchange
from daemon.simulation.faults import Plan
from daemon.simulation.network import Answer, Refused, Request, Wire
from daemon.simulation.timeline import NS, Timeline

LATENCY_S = (0.015, 0.05)
"""One way: the least, and the mean of what comes on top."""
_UNTOLD = ("timestamp=", "recvWindow=", "signature=")
LAG_S = 6.0
"""Queries are behind the truth by at most this much; less than the daemon's window for orders of unknown fate."""
ORDER = "/api/v3/order"


class Line(Connection):
    """A websocket of the exchange's, whose frames go to a wire instead of a socket."""

    def __init__(self, wire: Wire, front: "Front") -> None:
        self.wire, self._front = wire, front
        self.combined = False
        self.streams: set[str] = set()
        self.cut_off = False
        self._pending: list[bytes] = []
        self.private = "/ws-api/" in wire.url

    def __hash__(self) -> int:
        return self.wire.number  # sets of lines must have one order in every process

    def flush(self) -> None:
        """Hand over what was queued."""
        pending, self._pending = self._pending, []
        for block in pending:
            self._front.say(self, _payload(block))

    def abort(self) -> None:
        self.cut_off = True
        self.wire.cut()


def _payload(block: bytes) -> str:
    """The text of one unmasked websocket frame."""
    size = block[1]
    return block[{126: 4, 127: 10}.get(size, 2) :].decode()


class Front:
    """`Far` and `Route` of the network: an exchange seen through trouble. Times are the timeline's nanoseconds."""

    def __init__(self, timeline: Timeline, exchange: Exchange, plan: Plan, rng: random.Random) -> None:
        self._timeline, self.exchange, self._plan, self._rng = timeline, exchange, plan, rng
        self._lines: dict[int, Line] = {}
        self._silent: dict[int, int] = {}
        self.down_until = self.throttled_until = self.key_refused_until = self.lagging_until = self.unfilled_until = self.crossed_until = 0
        self._banned = False
        self._crossings: dict[str, set[str]] = {}
        self.requests = 0
        self.happened: dict[str, int] = {}
        self.lags_s = {"order": 0.0, "openOrders": 0.0, "myTrades": 0.0, "account": 0.0}
        """How far each kind of query is behind the truth while lookups lag."""
        self.tell: Callable[[str], None] = lambda line: None
        """Told of every request and what became of it."""
        self.on_order: Callable[[str], None] = lambda client_id: None
        """Told the client id of every new order that is about to be carried out."""

    # -- the way ---------------------------------------------------------------------------------------------------

    def delay(self) -> float:
        least, mean = LATENCY_S
        return least + self._rng.expovariate(1 / mean)

    def dial(self) -> BaseException | None:
        if self._timeline.now < self.down_until:
            return ClientOSError(111, "Connect call failed")
        return None

    def swallow(self, wire: Wire, text: str) -> bool:
        return self._timeline.now < self._silent.get(wire.number, 0)

    def hush(self, seconds: float) -> None:
        """One open line goes silent and stays so for a while."""
        if self._lines:
            number = self._rng.choice(sorted(self._lines))
            self._silent[number] = self._timeline.now + round(seconds * NS)

    def throttle(self, until: int, *, banned: bool) -> None:
        """Refuse every request until then: as too many, or as from a banned address."""
        self.throttled_until, self._banned = until, banned

    def calm(self) -> None:
        """All trouble ends now."""
        self._silent.clear()
        self.down_until = self.throttled_until = self.key_refused_until = self.lagging_until = self.unfilled_until = self.crossed_until = 0

    # -- websockets --------------------------------------------------------------------------------------------------

    def dialled(self, url: str, wire: Wire) -> None:
        line = self._lines[wire.number] = Line(wire, self)
        if line.private:
            self.exchange.users.connections.add(line)
        else:
            self.exchange.hub.connections.add(line)

    def left(self, wire: Wire) -> None:
        if (line := self._lines.pop(wire.number, None)) is not None:
            (self.exchange.users if line.private else self.exchange.hub).drop(line)
            self._silent.pop(wire.number, None)

    def said(self, wire: Wire, text: str) -> None:
        line = self._lines.get(wire.number)
        if line is None:
            return
        if not line.private:
            line.wire.push(orjson.dumps(stream_answer(self.exchange.hub, line, text)).decode())
            return
        if '"order.' in text:
            self._order_said(line, text)
        elif self._timeline.now < self.throttled_until or self._timeline.now < self.key_refused_until:
            self._refuse_said(line, text)
        else:
            self._answer_said(line, text)

    def _order_said(self, line: Line, text: str) -> None:
        """A call about an order over the websocket API meets what requests meet."""
        self.tell(f"websocket {text[:220]}")
        if self._happens("lost_request"):
            return
        if self._timeline.now < self.throttled_until or self._timeline.now < self.key_refused_until:
            self._refuse_said(line, text)
        elif self._happens("delayed_request"):
            self._timeline.after(self._rng.uniform(1.0, 14.0), lambda: self._answer_said(line, text))
        elif self._happens("reset"):
            if self._rng.random() < 0.5:
                self._answer_said(line, text, heard=False)
            line.wire.cut()
            self.left(line.wire)
        elif self._happens("overloaded"):
            self._push_error(line, text, 503, -1008, "Server is currently overloaded with other requests. Please try again in a few minutes.")
        elif self._happens("unknown_outcome") or self._happens("server_error"):
            if self._rng.random() < 0.5:
                self._answer_said(line, text, heard=False)
            self._push_error(line, text, 503, -1007, "Timeout waiting for response from backend server.")
        else:
            self._answer_said(line, text, heard=not self._happens("late_answer"))

    def _answer_said(self, line: Line, text: str, *, heard: bool = True) -> None:
        if '"order.place"' in text:
            self.on_order(str(orjson.loads(text)["params"].get("newClientOrderId", "")))
        reply = api_answer(self.exchange.venue, TABLE, self.exchange.users, line, text)
        if heard:
            result = reply.get("result")
            if '"order.place"' in text and isinstance(result, dict) and self._happens("bare_answers"):
                reply["result"] = _bare(result)
            line.wire.push(orjson.dumps(reply).decode())
        self.exchange.users.flush()

    def _refuse_said(self, line: Line, text: str) -> None:
        if self._timeline.now < self.throttled_until:
            self._count("throttled")
            self._push_error(line, text, 418 if self._banned else 429, -1003, "Too many requests.")
        else:
            self._count("bad_key")
            self._push_error(line, text, 401, -2015, "Invalid API-key, IP, or permissions for action.")

    def _push_error(self, line: Line, text: str, status: int, code: int, message: str) -> None:
        error: dict[str, Any] = {"code": code, "msg": message}
        if status in (418, 429):
            error["data"] = {"serverTime": self.exchange.real_ms(), "retryAfter": self.exchange.real_ms() + (self.throttled_until - self._timeline.now) // 1_000_000}
        reply = {"id": orjson.loads(text).get("id"), "status": status, "error": error}
        line.wire.push(orjson.dumps(reply).decode())

    def say(self, line: Line, text: str) -> None:
        """One frame of a stream, as the client gets it."""
        if line.private:
            self._say_private(line, text)
            return
        if self._happens("lost_frames"):
            return
        if self._happens("malformed_frames"):
            text = self._rng.choice(("garbage", "[]", '{"e":"trade"}', text[: len(text) // 2]))
        elif self._timeline.now < self.crossed_until and '"depthUpdate"' in text:
            text = self._crossed(text)
        elif self._crossings and '"depthUpdate"' in text:
            text = self._uncrossed(text)
        line.wire.push(text)
        if self._happens("repeated_frames"):
            line.wire.push(text)

    def _say_private(self, line: Line, text: str) -> None:
        if self._happens("private_lost"):
            return
        if self._happens("private_delayed"):
            self._timeline.after(self._rng.uniform(0.5, 10.0), lambda: line.wire.push(text))
            return
        line.wire.push(text)
        if self._happens("private_repeated"):
            self._timeline.after(self._rng.uniform(0.0, 3.0), lambda: line.wire.push(text))

    def _crossed(self, text: str) -> str:
        """A diff that leaves a bid above the asks, until a later diff overwrites it."""
        message = orjson.loads(text)
        public = self.exchange.markets.by_id[message["s"]]
        _, ask = public.depth.best()
        if ask is None:
            return text
        self._count("crossed_books")
        price = f"{ask[0] + 5 * public.market.instrument.tick:.8f}"
        self._crossings.setdefault(message["s"], set()).add(price)
        message["b"].append([price, "0.50000000"])
        return orjson.dumps(message).decode()

    def _uncrossed(self, text: str) -> str:
        """The next diff after that: it takes away what was never there."""
        message = orjson.loads(text)
        message["b"] += [[price, "0.00000000"] for price in sorted(self._crossings.pop(message["s"], ()))]
        return orjson.dumps(message).decode()

    # -- requests ------------------------------------------------------------------------------------------------------

    def rest(self, request: Request) -> Answer | None:
        self.requests += 1
        before = dict(self.happened)
        try:
            answer = self._rest(request)
        except Refused as refused:
            self._log(request, type(refused.seen).__name__, before)
            raise
        self._log(request, "no answer" if answer is None else f"{answer.status} {answer.body[:90].decode(errors='replace')}", before)
        return answer

    def _log(self, request: Request, outcome: str, before: dict[str, int]) -> None:
        struck = [name for name, times in self.happened.items() if times != before.get(name)]
        asked = "&".join(part for part in request.query.split("&") if part and not part.startswith(_UNTOLD))
        self.tell(f"{request.method} {request.path} {asked} -> {outcome} {' '.join(struck)}")

    def _rest(self, request: Request) -> Answer | None:
        if self._happens("lost_request"):
            return None
        if (refused := self._refusal(request)) is not None:
            return refused
        if self._happens("delayed_request"):
            self._timeline.after(self._rng.uniform(1.0, 14.0), lambda: self._carry_out_unheard(request))
            return None
        if self._happens("reset"):
            if self._rng.random() < 0.5:
                self._carry_out(request)
            raise Refused(self._rng.choice((ServerDisconnectedError(), ClientOSError(104, "Connection reset by peer"))))
        if self._happens("overloaded"):
            return _error(503, -1008, "Server is currently overloaded with other requests. Please try again in a few minutes.")
        if (lost := self._vague(request)) is not None:
            return lost
        answer = self._behind(request) or self._carry_out(request)
        return None if self._happens("late_answer") else answer

    def _refusal(self, request: Request) -> Answer | None:
        now = self._timeline.now
        if now < self.throttled_until:
            status = 418 if self._banned else 429
            self._count("throttled")
            return _error(status, -1003, "Too many requests.", {"Retry-After": str(-(-(self.throttled_until - now) // NS))})
        if now < self.key_refused_until and "signature=" in request.query:
            self._count("bad_key")
            return _error(401, -2015, "Invalid API-key, IP, or permissions for action.")
        return None

    def _vague(self, request: Request) -> Answer | None:
        """An answer that does not say whether the request was carried out."""
        if self._happens("empty_answer"):
            answer = Answer(200, self._rng.choice((b"", b"<html></html>")))
        elif self._happens("unknown_outcome"):
            answer = self._rng.choice((_error(503, -1007, "Timeout waiting for response from backend server."), Answer(504, b"")))
        elif self._happens("server_error"):
            answer = self._rng.choice((Answer(500, b""), Answer(502, b"<html>Bad Gateway</html>"), Answer(403, b"<html>Forbidden</html>")))
        else:
            return None
        if self._rng.random() < 0.5:
            self._carry_out(request)
        return answer

    def _carry_out_unheard(self, request: Request) -> None:
        self._carry_out(request)

    def _carry_out(self, request: Request) -> Answer:
        if request.method == "POST" and request.path == ORDER:
            self.on_order(_parameter(request.query, "newClientOrderId"))
        response = _now(serve_rest(request, self.exchange.venue, TABLE))  # type: ignore[arg-type]  # as much of a request as is read
        body = response.body if isinstance(response.body, bytes) else b""
        self.exchange.users.flush()
        return Answer(response.status, self._veiled(request, response.status, body), dict(response.headers))

    def _veiled(self, request: Request, status: int, body: bytes) -> bytes:
        """Answers that leave things out, and what records of cancelled orders say while they forget fills."""
        if status != 200:
            return body
        path = request.path.removeprefix("/api/v3/")
        if path == "order" and request.method == "POST" and self._happens("bare_answers"):
            return orjson.dumps(_bare(orjson.loads(body)))
        if path in ("order", "openOrders", "allOrders") and self._timeline.now < self.unfilled_until:
            return self._unfilled(body)
        return body

    def lag(self, until: int) -> None:
        """Let queries be behind until then, each kind by its own time."""
        self.lagging_until = until
        self.lags_s = {kind: self._rng.uniform(0.0, LAG_S) for kind in self.lags_s}

    def _behind(self, request: Request) -> Answer | None:
        """The answer of a query that is behind the truth; None for everything else."""
        kind = request.path.removeprefix("/api/v3/")
        if self._timeline.now >= self.lagging_until or request.method != "GET" or kind not in self.lags_s:
            return None
        self._count("lagging_lookups")
        exchange, when_ms = self.exchange, self.exchange.real_ms() - round(self.lags_s[kind] * 1000)
        answer = self._carry_out(request)
        if answer.status != 200 and kind != "order":
            return answer
        when = when_ms * 1_000_000
        found = orjson.loads(answer.body)
        if kind == "order":
            if answer.status != 200:
                return answer
            row = exchange.order_as_of(int(found["orderId"]), when)
            return _error(400, -2013, "Order does not exist.") if row is None else Answer(200, orjson.dumps(row))
        if kind == "openOrders":
            return Answer(200, orjson.dumps(exchange.orders_as_of(_parameter(request.query, "symbol") or None, when)))
        if kind == "myTrades":
            return Answer(200, orjson.dumps([row for row in found if row["time"] <= when_ms]))
        held = exchange.balances_as_of(when)
        found["balances"] = [{"asset": name, "free": f"{free:.8f}", "locked": f"{locked:.8f}"} for name, free, locked in held]
        return Answer(200, orjson.dumps(found))

    def _unfilled(self, body: bytes) -> bytes:
        found = orjson.loads(body)
        for row in found if isinstance(found, list) else [found]:
            if row.get("status") in ("CANCELED", "EXPIRED") and row.get("executedQty"):
                row["executedQty"] = row["cummulativeQuoteQty"] = "0.00000000"
                self._count("unfilled_cancel")
        return orjson.dumps(found)

    # -- chance --------------------------------------------------------------------------------------------------------

    def _happens(self, name: str) -> bool:
        rate = self._plan.rate(name)
        if rate and self._rng.random() < rate:
            self._count(name)
            return True
        return False

    def _count(self, name: str) -> None:
        self.happened[name] = self.happened.get(name, 0) + 1


def _bare(row: dict[str, Any]) -> dict[str, Any]:
    """The answer to a new order that says no more than that it was taken."""
    kept = ("symbol", "orderId", "clientOrderId", "transactTime")
    return {name: row[name] for name in kept if name in row}


def _parameter(query: str, name: str) -> str:
    """One parameter of a query, or nothing."""
    found = (part.partition("=")[2] for part in query.split("&") if part.startswith(f"{name}="))
    return next(found, "")


def _error(status: int, code: int, message: str, headers: dict[str, str] | None = None) -> Answer:
    return Answer(status, orjson.dumps({"code": code, "msg": message}), headers)


def _now(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise RuntimeError("the exchange's door waits for something")
