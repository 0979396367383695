"""The HTTP interface of a session, put together: what it may ask, who may come in, where it listens. Knows no mode."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import structlog

from daemon import logs
from daemon.control import Answer
from daemon.mirror import Mirror
from daemon.publish.health import Bounds
from daemon.publish.outbox import Outbox, Recent
from daemon.settings import Settings, is_loopback

_log = structlog.get_logger()


class Answering(Protocol):
    """Whoever answers the operator's words."""

    @property
    def answers(self) -> dict[str, Answer]: ...


@asynccontextmanager
async def interface(
    current: Callable[[], Settings], folder: Path, session: str, snapshot: Callable[[], Mapping[str, Any]], operator: Answering, mirror: Mirror,
    versions: Mapping[str, str],
) -> AsyncIterator[int | None]:  # fmt: skip
    """Serve while the context lasts; gives the port, or None when off. `current` gives the settings in force.

    Raises ConfigError for an address that cannot be had.
    """
    http = current().http
    if http.port == "off":
        yield None
        return
    from daemon.explain import explain  # reads journals: not needed to trade
    from daemon.publish.api import Desk, Door, application  # a quarter of a second, which a session without the interface saves
    from daemon.publish.http import Address, serve

    recent = Recent()
    mirror.add(recent)

    @contextmanager
    def listen() -> Iterator[Outbox]:
        outbox = Outbox()
        mirror.add(outbox)
        try:
            yield outbox
        finally:
            mirror.remove(outbox)

    desk = Desk(
        snapshot, operator.answers, recent.last, lambda what: explain(folder, what, session), lambda: current().public(), logs.recent, listen, versions
    )

    def bounds() -> Bounds:
        now = current().http
        return Bounds(now.max_data_age_s, now.max_decision_age_s, now.max_reconcile_age_s)

    token = None if http.token is None else http.token.get_secret_value()
    hosts = (*Door().hosts, http.host) if is_loopback(http.host) else Door().hosts
    if http.insecure_public and http.tls_certificate is None and not is_loopback(http.host):
        _log.warning("http_in_the_clear", host=http.host, mend="set http.tls_certificate and http.tls_key")
    address = Address(http.host, http.port, http.tls_certificate, http.tls_key)
    async with serve(application(desk, bounds, Door(token, hosts)), address) as port:
        yield port
