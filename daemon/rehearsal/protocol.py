"""How Binance writes and reads: decimal strings, request parameters, signatures. Pure functions and one small reader."""

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from urllib.parse import parse_qsl

from daemon.rehearsal import errors

_DECIMAL = re.compile(r"^([0-9]{1,20})(\.[0-9]{1,20})?$")
_DECIMAL_RANGE = r"^([0-9]{1,20})(\.[0-9]{1,20})?$"
_INTEGER = re.compile(r"^[0-9]{1,20}$")
_SYMBOL = re.compile(r"^[A-Z0-9-_.]{1,20}$")
_CLIENT_ID = re.compile(r"^[a-zA-Z0-9-_]{1,36}$")
_KEY = re.compile(r"^[A-Za-z0-9]{64}$")

PRECISION = 8
"""Decimals of every price, quantity and commission that spot prints."""


def text8(value: Decimal | float) -> str:
    """A decimal string with eight places, as Binance prints every price and quantity."""
    return f"{value:.8f}"


def parse_query(raw: str) -> dict[str, str]:
    """Query string or form body as one dictionary; raises -1101 when a name comes twice."""
    found: dict[str, str] = {}
    for name, value in parse_qsl(raw, keep_blank_values=True):
        if name in found:
            raise errors.duplicate_values(name)
        found[name] = value
    return found


def without_signature(raw: str) -> str:
    """The raw query or body without its `signature` part: what the client signed."""
    return "&".join(part for part in raw.split("&") if not part.startswith("signature="))


def signed_payload(params: Mapping[str, object]) -> str:
    """What a websocket-API client signs: `name=value` sorted by name, joined by `&`, without the signature."""
    return "&".join(f"{name}={plain(params[name])}" for name in sorted(params) if name != "signature")


def plain(value: object) -> str:
    """A JSON value as the text that would stand in a query string."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


class Params:
    """The parameters of one request, each read with the refusal that Binance gives for a bad one."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = values

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def optional(self, name: str) -> str | None:
        """Text or None; raises -1105 when sent empty."""
        value = self.values.get(name)
        if value == "":
            raise errors.empty(name)
        return value

    def text(self, name: str) -> str:
        """Text that must be there (-1102)."""
        value = self.values.get(name)
        if not value:
            raise errors.mandatory(name)
        return value

    def symbol(self, name: str = "symbol") -> str:
        value = self.text(name)
        if not _SYMBOL.match(value):
            raise errors.illegal_characters(name, _SYMBOL.pattern)
        return value

    def client_id(self, name: str) -> str | None:
        value = self.optional(name)
        if value is not None and not _CLIENT_ID.match(value):
            raise errors.illegal_characters(name, _CLIENT_ID.pattern)
        return value

    def decimal(self, name: str) -> Decimal | None:
        """A non-negative decimal of at most eight places, or None; raises -1100, -1111."""
        value = self.optional(name)
        if value is None:
            return None
        if not _DECIMAL.match(value):
            raise errors.illegal_characters(name, _DECIMAL_RANGE)
        try:
            number = Decimal(value)
        except InvalidOperation as error:
            raise errors.illegal_characters(name, _DECIMAL_RANGE) from error
        exponent = number.normalize().as_tuple().exponent
        if isinstance(exponent, int) and exponent < -PRECISION:
            raise errors.too_precise(name)
        return number

    def integer(self, name: str) -> int | None:
        value = self.optional(name)
        if value is None:
            return None
        if not _INTEGER.match(value):
            raise errors.illegal_characters(name, _INTEGER.pattern)
        return int(value)

    def limit(self, default: int, highest: int) -> int:
        """`limit`, cut to the highest that the endpoint serves, refused (-1130) when zero."""
        value = self.integer("limit")
        if value is None:
            return default
        if value < 1:
            raise errors.invalid_value("limit")
        return min(value, highest)

    def choice(self, name: str, options: frozenset[str], refusal: Callable[[], errors.ApiError], default: str | None = None) -> str:
        value = self.optional(name)
        if value is None:
            if default is None:
                raise errors.mandatory(name)
            return default
        if value not in options:
            raise refusal()
        return value


class Access:
    """One API key and its HMAC-SHA256 secret, and the clock that signed requests are held against."""

    def __init__(self, api_key: str, secret: str, real_ms: Callable[[], int]) -> None:
        self._api_key = api_key
        self._secret = secret.encode()
        self._real_ms = real_ms

    def check_key(self, api_key: str | None) -> None:
        """Raises -2014 for what can't be a key, -2015 for a key that is not known."""
        if api_key is not None and hmac.compare_digest(api_key.encode(), self._api_key.encode()):
            return
        raise errors.key_refused() if api_key and _KEY.match(api_key) else errors.key_format()

    def check_signed(self, api_key: str | None, payload: str, params: Params) -> None:
        """Key, then timestamp within recvWindow, then signature over `payload`; raises -1102, -1021, -1022, -1131."""
        self.check_key(api_key)
        signature = params.text("signature")
        if params.integer("timestamp") is None:
            raise errors.mandatory("timestamp")
        self._check_time(params)
        expected = hmac.new(self._secret, payload.encode(), hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected, signature.lower()):
            raise errors.bad_signature()

    def _check_time(self, params: Params) -> None:
        window = params.decimal("recvWindow")
        if window is None:
            window = Decimal(5000)
        if window > 60_000:
            raise errors.ApiError(-1131, "recvWindow must be less than 60000.")
        timestamp = params.integer("timestamp") or 0
        if timestamp > 10**14:  # Binance takes microseconds as well
            timestamp //= 1000
        now = self._real_ms()
        if timestamp >= now + 1000:
            raise errors.early_timestamp()
        if now - timestamp > window:
            raise errors.late_timestamp()
