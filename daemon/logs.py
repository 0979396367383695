"""Logging: events, not sentences, on standard error; and the redactor that no secret passes."""

import logging
import re
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import structlog
from pydantic import SecretBytes, SecretStr
from structlog.typing import EventDict, Processor, WrappedLogger

MASK = "**********"

_SECRET_KEY = re.compile(
    r"(?i)(^|[_\-.])(api[_-]?key|secret([_-]?key)?|password|passphrase|passwd|token|authorization|signature|credential|private[_-]?key)s?$"
)
_SECRET_TEXT = re.compile(r"(?i)\b(api[_-]?key|secret|password|passphrase|token|signature)(=|:\s?|\"\s?:\s?\")([^\s&\"',;}]+)")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_SHORTEST = 4
"""A secret value shorter than this is not searched for in texts: it would blot out ordinary words."""


class Redactor:
    """structlog processor: masks secrets by type, by key and by value, however deep they are nested."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._values = tuple(sorted({value for value in values if len(value) >= _SHORTEST}, key=len, reverse=True))

    def __call__(self, logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        return {key: self.clean(value, key) for key, value in event.items()}

    def clean(self, value: Any, key: str = "") -> Any:
        """The value with every secret masked; `key` is the name that it stands under."""
        if isinstance(value, (SecretStr, SecretBytes)) or (value and key and _SECRET_KEY.search(_CAMEL.sub("_", key))):
            return MASK
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, Mapping):
            return {name: self.clean(inner, str(name)) for name, inner in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self.clean(inner) for inner in value]
        if value is None or isinstance(value, (bool, int, float)):
            return value
        return self._text(str(value))

    def _text(self, text: str) -> str:
        for secret in self._values:
            text = text.replace(secret, MASK)
        return _SECRET_TEXT.sub(rf"\1\2{MASK}", text)


class _StandardError:
    """Writes to whatever `sys.stderr` is at that moment, so that the live view can print above itself."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


_RECENT: deque[dict[str, Any]] = deque(maxlen=1000)
"""The last lines of this process, secrets masked; structlog is one for the whole process, and so is this."""


_LISTENERS: list[Callable[[dict[str, Any]], None]] = []


def _remember(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    line = dict(event)
    _RECENT.append(line)
    for listener in _LISTENERS:
        listener(line)
    return event


@contextmanager
def listening(listener: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Hand each line to `listener` too, secrets masked; it returns at once and logs nothing."""
    _LISTENERS.append(listener)
    try:
        yield
    finally:
        _LISTENERS.remove(listener)


def recent(most: int) -> list[dict[str, Any]]:
    """Up to `most` of the last lines, oldest first."""
    return list(_RECENT)[-most:]


def configure(level: str, form: str, secrets: Iterable[str] = ()) -> None:
    """Set structlog up for this process, and send the standard library's records the same way.

    `form` is json, console, or auto: console on a terminal and JSON lines elsewhere. `secrets` are values to mask anywhere.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        structlog.processors.UnicodeDecoder(),
    ]
    pretty = form == "console" or (form == "auto" and sys.stderr.isatty())
    renderer: Processor = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback) if pretty else structlog.processors.JSONRenderer()
    last = Redactor(secrets)
    stream = _StandardError()
    structlog.configure(
        processors=[*shared, last, _remember, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(file=stream),  # type: ignore[arg-type]  # it only ever writes and flushes
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last, _remember, renderer],
        )
    )
    logging.captureWarnings(True)
    logging.basicConfig(level=max(threshold, logging.WARNING), handlers=[handler], force=True)
