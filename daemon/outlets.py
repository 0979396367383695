"""Settings to the outlets of a session: what mirrors outward, each with an outbox of its own. Knows no mode."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from agents.core.errors import ConfigError
from daemon.mirror import Mirror
from daemon.notify import Manners, Notifier, by_apprise
from daemon.operating import Operator
from daemon.publish.mqtt import MqttMirror, MqttOptions, Words
from daemon.publish.outbox import Outbox
from daemon.publish.outlet import Outlet, Service
from daemon.publish.redis import RedisMirror, RedisOptions
from daemon.settings import Settings

LAST_WORDS_S = 2.0
"""How long the end of a session waits for what is still to be told."""


@dataclass(frozen=True, slots=True)
class Outlets:
    """All outlets of one session, by name."""

    by_name: Mapping[str, Outlet]
    mirror: Mirror

    def status(self) -> dict[str, Any]:
        """Plain JSON values, by outlet."""
        return {name: outlet.status for name, outlet in self.by_name.items()}

    async def farewell(self) -> None:
        """Wait until the outlets that are up have told everything, for a while."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                while any(outlet.status["up"] and outlet.status["depth"] for outlet in self.by_name.values()):
                    await asyncio.sleep(0.02)


def outlets_of(settings: Settings, session: str, operator: Operator, snapshot: Callable[[], Mapping[str, Any]]) -> Outlets:
    """The outlets that are configured; none is dialled yet."""
    services: list[Service] = []
    redis, mqtt = settings.redis, settings.mqtt
    if redis.url is not None:
        services.append(
            RedisMirror(
                RedisOptions(
                    redis.url, settings.instance, session, redis.username, _plain(redis.password),
                    None if redis.ca_file is None else str(redis.ca_file), redis.stream_length,
                ),
                snapshot,
            )
        )  # fmt: skip
    if mqtt.host is not None:
        options = MqttOptions(
            mqtt.host, mqtt.port, mqtt.namespace, settings.instance, session, mqtt.username, _plain(mqtt.password), mqtt.tls,
            mqtt.ca_file, mqtt.commands, _plain(mqtt.token), home_assistant=mqtt.home_assistant,
        )  # fmt: skip
        services.append(MqttMirror(options, Words(operator.answers, options.token), snapshot))
    outboxes = [Outbox() for _ in services]
    outlets = {service.name: Outlet(service, outbox) for service, outbox in zip(services, outboxes, strict=True)}
    return Outlets(outlets, Mirror(outboxes))


def notifier_of(settings: Settings, snapshot: Callable[[], Mapping[str, Any]], now: Callable[[], int], mirror: Mirror) -> Notifier | None:
    """Who tells people: apprise's services, and whoever listens to the topic `notify`; None where nobody is told.

    Raises ConfigError for a service that apprise does not know.
    """
    notify = settings.notify
    urls = (_plain(notify.urls) or "").split()
    if not urls and settings.mqtt.host is None:
        return None
    try:
        services = by_apprise(urls) if urls else None
    except ValueError as error:
        raise ConfigError(f"notify.urls: {error}; see apprise's list of services") from None

    async def send(title: str, text: str, level: str) -> bool:
        mirror.say("notify", now(), {"title": title, "text": text, "level": level})
        return services is None or await services(title, text, level)

    manners = Manners(notify.level, _minutes(notify.quiet_hours), notify.again_min * 60, notify.most_an_hour)
    return Notifier(f"Quartet {settings.instance}", manners, send, snapshot, now)


def _minutes(hours: str | None) -> tuple[int, int] | None:
    """Minutes of the day of `22:00-07:00`."""
    if hours is None:
        return None
    begin, end = (int(clock[:2]) * 60 + int(clock[3:]) for clock in hours.split("-"))
    return begin, end


def _plain(secret: SecretStr | None) -> str | None:
    return None if secret is None else secret.get_secret_value()
