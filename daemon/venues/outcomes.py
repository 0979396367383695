"""What an answer, an error or a silence says about an order that was sent. Pure; docs/outcomes.md is the same in words.

A network error is never evidence that an order does not exist: whatever is not known to be a refusal is UNKNOWN.
"""

import re
from dataclasses import dataclass
from enum import Enum

from ccxt.base.errors import (
    ArgumentsRequired,
    AuthenticationError,
    BadRequest,
    BaseError,
    ChecksumError,
    DDoSProtection,
    DuplicateOrderId,
    InsufficientFunds,
    InvalidNonce,
    InvalidOrder,
    InvalidProxySettings,
    NoChange,
    NotSupported,
    OperationRejected,
    OrderImmediatelyFillable,
    OrderNotCached,
    OrderNotFound,
    PermissionDenied,
    RateLimitExceeded,
)

from agents.core.errors import Throttled, VenueError
from daemon.venues.parse import OrderView


class Outcome(Enum):
    """What is known after one attempt."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    """The exchange did not take the order, and will not."""
    UNKNOWN = "unknown"
    """It may have: look it up by client order id."""
    FATAL = "fatal"
    """The key is refused: nothing can be sent any more; this order was not taken."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """An outcome and its reason, a short word for the record."""

    outcome: Outcome
    reason: str
    duplicate: bool = False
    """The exchange has seen this client order id before: evidence that an earlier attempt was accepted."""
    reload: bool = False
    """A filter refused what our copy of the listing allows: the listing may have changed."""


class NotSent(VenueError):
    """Nothing has left this machine; `reason` is the word for the record."""

    def __init__(self, message: str, reason: str = "not_sent") -> None:
        super().__init__(message)
        self.reason = reason


class Unsettled(VenueError):
    """The request that could place the order was answered, and a later one of the same call failed: the order may exist."""


_CODE = re.compile(r'"code":\s*"?(-?\d+)')
_STATUS = re.compile(r"(?:^| )(418|429)(?: |$)")
_REFUSED_CODES = {
    -1003: "throttled", -1008: "overloaded", -1013: "filter", -1015: "throttled", -1021: "clock", -1022: "signature",
    -2010: "refused",
}  # fmt: skip
"""Binance's codes that say that nothing was accepted. Its -11xx (malformed request) are refusals too."""
_UNKNOWN_CODES = frozenset({-1000, -1001, -1006, -1007, -2011, -2013})
"""Codes by which Binance says that it does not know itself, or that are no answer to a new order."""
_BAD_KEY_CODES = frozenset({-2014, -2015})
_FILTERS = ("-1013", "Filter failure", "LOT_SIZE", "PRICE_FILTER", "NOTIONAL")
_SEEN_BEFORE = re.compile(r"duplicat|already (exist|been used)", re.IGNORECASE)
_ABOUT_AN_ORDER = re.compile(r"order|client|oid", re.IGNORECASE)


def code_of(error: BaseException) -> int | None:
    """The exchange's own error code where its answer is quoted in the message."""
    found = _CODE.search(str(error))
    return int(found.group(1)) if found else None


def bad_key(error: BaseException) -> bool:
    """Whether the exchange refuses our key. ccxt raises Binance's -2015 as DDoSProtection once the key has worked.

    A symbol that this account may not trade is a matter of that order, though ccxt calls it PermissionDenied too.
    """
    if isinstance(error, PermissionDenied) and re.search(r"symbol|market", str(error), re.IGNORECASE):
        return False
    return code_of(error) in _BAD_KEY_CODES or isinstance(error, AuthenticationError)


def off_clock(error: BaseException) -> bool:
    """Whether the exchange refuses the time that we signed with."""
    if isinstance(error, ChecksumError):
        return False
    return isinstance(error, InvalidNonce) or code_of(error) == -1021


def judge_error(error: BaseException) -> Verdict:
    """The verdict on an exception that came out of a create call, ours (time-out) or ccxt's or a bug's."""
    text, code = str(error), code_of(error)
    if isinstance(error, NotSent):
        return Verdict(Outcome.REJECTED, error.reason)
    if isinstance(error, Throttled):
        return Verdict(Outcome.REJECTED, "throttled")
    if isinstance(error, Unsettled):  # whatever it quotes was said of the later request
        return Verdict(Outcome.UNKNOWN, "Unsettled")
    if bad_key(error):
        return Verdict(Outcome.FATAL, "bad_key")
    if isinstance(error, DuplicateOrderId) or _duplicate(text):
        return Verdict(Outcome.UNKNOWN, "duplicate", duplicate=True)
    if code in _UNKNOWN_CODES:
        return Verdict(Outcome.UNKNOWN, f"code{code}")
    if code is not None and (code in _REFUSED_CODES or -1199 <= code <= -1100):
        reload = any(word in text for word in _FILTERS)
        reason = _funds(text) or _REFUSED_CODES.get(code, "malformed")
        return Verdict(Outcome.REJECTED, _would_cross(text) or reason, reload=reload)
    return _by_class(error, text)


def _by_class(error: BaseException, text: str) -> Verdict:
    name = type(error).__name__
    match error:
        case InsufficientFunds():
            return Verdict(Outcome.REJECTED, "insufficient_balance")
        case RateLimitExceeded():
            return Verdict(Outcome.REJECTED, "throttled")
        case DDoSProtection() if _STATUS.search(text):
            return Verdict(Outcome.REJECTED, "throttled")
        case PermissionDenied():
            return Verdict(Outcome.REJECTED, "not_permitted")
        case ChecksumError() | OrderNotFound() | OrderNotCached() | NoChange():
            return Verdict(Outcome.UNKNOWN, name)  # no answer to a new order: nobody knows what it means
        case InvalidNonce():
            return Verdict(Outcome.REJECTED, "clock")
        case OrderImmediatelyFillable():
            return Verdict(Outcome.REJECTED, "would_trigger" if "trigger" in text.lower() else "would_cross")
        case InvalidOrder() | BadRequest() | ArgumentsRequired() | NotSupported() | OperationRejected() | InvalidProxySettings():
            reload = any(word in text for word in _FILTERS)
            return Verdict(Outcome.REJECTED, _would_cross(text) or _funds(text) or name, reload=reload)
        case BaseError() | VenueError():
            return Verdict(Outcome.UNKNOWN, name)
    return Verdict(Outcome.UNKNOWN, "timeout" if isinstance(error, TimeoutError) else name)


def judge_answer(view: OrderView, order_id: str) -> Verdict:
    """The verdict on a create call that returned normally."""
    if view.order_id and view.order_id != order_id:
        return Verdict(Outcome.UNKNOWN, "answer_for_another_order")
    if view.empty:
        return Verdict(Outcome.UNKNOWN, "empty_answer")
    if view.status == "rejected":
        return Verdict(Outcome.REJECTED, "rejected")
    return Verdict(Outcome.ACCEPTED, "accepted")


def _would_cross(text: str) -> str | None:
    return "would_cross" if "immediately match" in text or "post only" in text.lower() else None


def _duplicate(text: str) -> bool:
    return bool(_SEEN_BEFORE.search(text) and _ABOUT_AN_ORDER.search(text))


def _funds(text: str) -> str | None:
    return "insufficient_balance" if "insufficient" in text.lower() else None
