"""The user-data stream: executionReport, outboundAccountPosition and balanceUpdate to every connection that subscribed."""

import orjson

from daemon.rehearsal.connection import Connection, frame


class UserStreams:
    """Who listens to the account's events: websocket-API connections with their subscription ids."""

    def __init__(self) -> None:
        self.connections: set[Connection] = set()
        self._listeners: dict[Connection, list[int]] = {}
        self._next_id = 0

    def subscribe(self, connection: Connection) -> int:
        subscription_id = self._next_id
        self._next_id += 1
        self._listeners.setdefault(connection, []).append(subscription_id)
        return subscription_id

    def unsubscribe(self, connection: Connection, subscription_id: int | None) -> bool:
        """Ends one subscription of the connection, or all; False when there was none."""
        held = self._listeners.get(connection, [])
        if subscription_id is None:
            self._listeners.pop(connection, None)
            return bool(held)
        if subscription_id not in held:
            return False
        held.remove(subscription_id)
        if not held:
            self._listeners.pop(connection, None)
        return True

    def subscriptions(self, connection: Connection) -> list[int]:
        return list(self._listeners.get(connection, []))

    def drop(self, connection: Connection) -> None:
        self._listeners.pop(connection, None)
        self.connections.discard(connection)

    def emit(self, event: dict[str, object]) -> None:
        """Queue one user-data event for everybody who listens; `flush` sends."""
        if not self._listeners:
            return
        payload = orjson.dumps(event)
        for connection, held in self._listeners.items():
            for subscription_id in held:
                connection.add(frame(b'{"subscriptionId":%d,"event":%b}' % (subscription_id, payload)))

    def flush(self) -> None:
        for connection in self._listeners:
            connection.flush()
