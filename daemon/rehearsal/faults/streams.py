"""Market data and account events that are lost, doubled, late, out of order or malformed."""

import asyncio
from collections.abc import Callable

import orjson

from daemon.rehearsal.connection import Connection, frame
from daemon.rehearsal.faults.catalogue import Border
from daemon.rehearsal.faults.plan import Facts, Plan
from daemon.rehearsal.streams import Hub
from daemon.rehearsal.user_stream import UserStreams

_CHANNELS = ("depth", "kline")
RELEASE_AFTER_S = 3.0
"""An event that waits for the next one of its kind waits no longer than this."""


class FaultyHub(Hub):
    """Market-data subscriptions with the plan's faults."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self._plan = plan
        self._held: dict[str, bytes] = {}

    def distribute(self, stream: str, payload: bytes) -> None:
        facts = _stream_facts(stream)
        if self._plan.holds("stream_silent", facts):
            return
        armed = self._plan.strike(Border.STREAM, facts)
        match armed.kind.name if armed else "":
            case "diff_skipped":
                return
            case "diffs_swapped":
                self._release(stream)
                self._held[stream] = payload
                return
            case "garbage_frame":
                payload = b"garbage"
            case "list_frame":
                payload = b"[]"
            case "bare_kline":
                payload = b'{"e":"kline"}'
            case _:
                pass
        super().distribute(stream, payload)
        self._release(stream)

    def _release(self, stream: str) -> None:
        held = self._held.pop(stream, None)
        if held is not None:
            super().distribute(stream, held)


def _stream_facts(stream: str) -> Facts:
    name, _, channel = stream.partition("@")
    return {
        "stream": stream,
        "symbol": name.upper(),
        "channel": next((known for known in _CHANNELS if channel.startswith(known)), channel),
    }


class FaultyUserStreams(UserStreams):
    """The account's stream with the plan's faults."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self._plan = plan
        self._held: list[dict[str, object]] = []

    def emit(self, event: dict[str, object]) -> None:
        facts = {
            "event": str(event["e"]),
            "execution": str(event.get("x")),
            "status": str(event.get("X")),
            "symbol": str(event.get("s")),
            "client_id": str(event.get("C") or event.get("c")),
        }
        if facts["event"] == "executionReport" and self._plan.holds("ends_unfilled", {**facts, "call": "order.status"}):
            if facts["execution"] == "TRADE" and facts["status"] != "FILLED":
                return
            event = _denied(event)
        armed = self._plan.strike(Border.PRIVATE, facts)
        match armed.kind.name if armed else "":
            case "private_lost":
                return
            case "private_duplicated":
                super().emit(event)
            case "private_reordered":
                self._held.append(event)
                self._later(RELEASE_AFTER_S, self._release)
                return
            case "private_delayed" if armed is not None:
                self._later(armed.detail("delay_s"), lambda: super(FaultyUserStreams, self).emit(event))
                return
            case _:
                pass
        super().emit(event)
        if any(held["e"] == event["e"] for held in self._held):
            self._release()

    def terminate(self, now_ms: int) -> None:
        """eventStreamTerminated to everybody, and nothing after it on these subscriptions."""
        for connection in list(self.connections):
            for subscription_id in self.subscriptions(connection):
                event = {"subscriptionId": subscription_id, "event": {"e": "eventStreamTerminated", "E": now_ms}}
                connection.add(frame(orjson.dumps(event)))
            connection.flush()
            self.unsubscribe(connection, None)

    def _release(self) -> None:
        held, self._held = self._held, []
        for event in held:
            super().emit(event)

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        def then() -> None:
            act()
            self.flush()

        asyncio.get_running_loop().call_later(seconds, then)


def cut(connections: set[Connection]) -> int:
    """Cut connections; how many there were."""
    leaving = list(connections)
    for connection in leaving:
        connection.abort()
    return len(leaving)


def _denied(event: dict[str, object]) -> dict[str, object]:
    """The end of an order that filled, told as if it had been canceled unfilled."""
    if event["X"] != "FILLED" and event["z"] == "0.00000000":
        return event
    none = dict.fromkeys(("l", "z", "L", "Z", "Y"), "0.00000000")
    return {**event, **none, "x": "CANCELED", "X": "CANCELED", "n": "0", "N": None, "t": -1, "w": False, "m": False, "M": False}
