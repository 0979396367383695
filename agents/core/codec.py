"""Facts and requests as JSON rows and back: the one form in which the journal and the tape keep them.

A row is positional: the type's name, then its fields in order. Decimals and bytes are text, enums their names, so nothing is
rounded. The converters are built once, from the type hints; a new event type needs no line here.
"""

import types
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from decimal import Decimal, InvalidOperation
from enum import Enum
from math import isfinite
from operator import attrgetter
from typing import Any, Union, get_args, get_origin, get_type_hints

from agents.core.errors import DataError
from agents.core.events import Event
from agents.core.orders import Command

Convert = Callable[[Any], Any] | None
"""None leaves the value as it is."""

_PLAIN = (int, str, bool, type(None))


def _float(value: float) -> float | str:
    return value if isfinite(value) else str(value)  # JSON has no NaN; float() reads the text again


def _pair(hint: Any) -> tuple[Convert, Convert]:
    """(encode, decode) for one type hint. Raises TypeError for a type that has no form here."""
    hint = getattr(hint, "__supertype__", hint)  # NewType
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return _optional(hint)
    if origin is tuple:
        return _tuple(get_args(hint))
    if hint in _PLAIN:
        return None, None
    if hint is float:
        return _float, float
    if hint is Decimal:
        return str, Decimal
    if hint is bytes:
        return lambda value: b64encode(value).decode(), b64decode
    if isinstance(hint, type) and issubclass(hint, Enum):
        return {member: member.name for member in hint}.__getitem__, hint.__members__.__getitem__
    if isinstance(hint, type) and issubclass(hint, tuple):  # NamedTuple of plain values
        return list, lambda row, make=hint: make(*row)
    if is_dataclass(hint):
        return _record(hint)
    raise TypeError(f"no row form for {hint!r}")


def _optional(hint: Any) -> tuple[Convert, Convert]:
    inner = [arg for arg in get_args(hint) if arg is not type(None)]
    if len(inner) != 1:
        raise TypeError(f"a row cannot tell the parts of {hint!r} apart")
    encode, decode = _pair(inner[0])
    return _unless_none(encode), _unless_none(decode)


def _unless_none(convert: Convert) -> Convert:
    return None if convert is None else lambda value: None if value is None else convert(value)


def _tuple(args: tuple[Any, ...]) -> tuple[Convert, Convert]:
    if len(args) == 2 and args[1] is Ellipsis:
        encode, decode = _pair(args[0])
        if encode is None or decode is None:
            return list, tuple
        return lambda value: [encode(item) for item in value], lambda row: tuple([decode(item) for item in row])
    if set(args) == {Decimal}:  # book levels, by far the most frequent
        return lambda value: list(map(str, value)), lambda row: tuple(map(Decimal, row))
    pairs = [_pair(arg) for arg in args]
    encoders, decoders = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    return (
        lambda value: [e(item) if e else item for e, item in zip(encoders, value, strict=True)],
        lambda row: tuple([d(item) if d else item for d, item in zip(decoders, row, strict=True)]),
    )


def _record(kind: Any) -> tuple[Callable[[Any], list[object]], Callable[[Any], Any]]:
    """Positional rows of a dataclass, without a tag."""
    hints = get_type_hints(kind)
    names = [field.name for field in fields(kind)]
    pairs = [_pair(hints[name]) for name in names]
    encoders = [(number, pair[0]) for number, pair in enumerate(pairs) if pair[0] is not None]
    decoders = [(number, pair[1]) for number, pair in enumerate(pairs) if pair[1] is not None]
    read: Callable[[Any], Any] = attrgetter(*names) if len(names) > 1 else lambda value: (getattr(value, names[0]),)
    width = len(names)
    defaults = [field.default for field in fields(kind)]

    def encode(value: Any) -> list[object]:
        row = list(read(value))
        for number, convert in encoders:
            row[number] = convert(row[number])
        return row

    def decode(row: Any) -> Any:
        values = list(row)
        given = len(values)
        if given > width or MISSING in defaults[given:]:
            raise ValueError(f"{given} fields instead of {width}")
        for number, convert in decoders:
            if number < given:  # a row of an older version lacks the fields that were added since: they take their defaults
                values[number] = convert(values[number])
        return kind(*values)

    return encode, decode


_CODECS = {kind.__name__: _record(kind) for kind in (*get_args(Event), *get_args(Command))}
_ENCODERS = {kind: (kind.__name__, _CODECS[kind.__name__][0]) for kind in (*get_args(Event), *get_args(Command))}


def encode(value: Event | Command) -> list[object]:
    """JSON-able row; its first item is the type's name."""
    name, convert = _ENCODERS[type(value)]
    return [name, *convert(value)]


def decode(row: list[Any]) -> Event | Command:
    """The fact or request of a row. Raises DataError for an unknown type, a missing field or an unreadable value."""
    try:
        result: Event | Command = _CODECS[row[0]][1](row[1:])
    except (KeyError, IndexError, TypeError, ValueError, InvalidOperation) as error:
        raise DataError(f"not a row of the journal: {str(row)[:120]}: {error!r}") from error
    return result
