"""What an answer, an error or a silence says about an order that was sent. Pure; `docs` and tests walk the same table.

A network error is never evidence that an order does not exist: whatever is not known to be a refusal is UNKNOWN.
"""

import re
from dataclasses import dataclass
from enum import Enum

from ccxt.base.errors import (
    ArgumentsRequired,
    AuthenticationError,
    BadRequest,
    BadResponse,
    BaseError,
    DDoSProtection,
    DuplicateOrderId,
    InsufficientFunds,
    InvalidNonce,
    InvalidOrder,
    NetworkError,
    NotSupported,
    OperationRejected,
    OrderNotFound,
    RateLimitExceeded,
)

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


_CODE = re.compile(r'"code":\s*(-?\d+)')
_REFUSED_CODES = {
    -1003: "throttled", -1008: "overloaded", -1013: "filter", -1015: "throttled", -1021: "clock", -1022: "signature",
    -2010: "refused", -2011: "refused", -2014: "bad_key", -2015: "bad_key",
}  # fmt: skip
"""Binance's codes that say that nothing was accepted. Its -11xx (malformed request) are refusals too."""
_UNKNOWN_CODES = frozenset({-1000, -1001, -1006, -1007})
"""Codes by which Binance says that it does not know itself."""
_FILTERS = ("-1013", "Filter failure", "LOT_SIZE", "PRICE_FILTER", "NOTIONAL")


def code_of(error: BaseException) -> int | None:
    """The exchange's own error code where its answer is quoted in the message."""
    found = _CODE.search(str(error))
    return int(found.group(1)) if found else None


def bad_key(error: BaseException) -> bool:
    """Whether the exchange refuses our key. ccxt raises Binance's -2015 as DDoSProtection once the key has worked."""
    return code_of(error) in (-2014, -2015) or isinstance(error, AuthenticationError)


def judge_error(error: BaseException) -> Verdict:
    """The verdict on an exception that came out of a create call, ours (time-out) or ccxt's or a bug's."""
    text, code = str(error), code_of(error)
    if bad_key(error):
        return Verdict(Outcome.FATAL, "bad_key")
    if isinstance(error, DuplicateOrderId) or "uplicate order" in text or "uplicate client" in text:
        return Verdict(Outcome.UNKNOWN, "duplicate", duplicate=True)
    if code in _UNKNOWN_CODES:
        return Verdict(Outcome.UNKNOWN, f"code{code}")
    if code is not None and (code in _REFUSED_CODES or -1199 <= code <= -1100):
        reload = any(word in text for word in _FILTERS)
        reason = _funds(text) or _REFUSED_CODES.get(code, "malformed")
        return Verdict(Outcome.REJECTED, _would_cross(text) or reason, reload=reload)
    return _by_class(error, text)


def _by_class(error: BaseException, text: str) -> Verdict:
    match error:
        case InsufficientFunds():
            return Verdict(Outcome.REJECTED, "insufficient_balance")
        case DDoSProtection() | RateLimitExceeded():
            return Verdict(Outcome.REJECTED, "throttled")
        case InvalidNonce():
            return Verdict(Outcome.REJECTED, "clock")
        case NetworkError() | BadResponse() | OrderNotFound():
            return Verdict(Outcome.UNKNOWN, type(error).__name__)
        case InvalidOrder() | BadRequest() | ArgumentsRequired() | NotSupported() | OperationRejected():
            reload = any(word in text for word in _FILTERS)
            return Verdict(Outcome.REJECTED, _would_cross(text) or _funds(text) or type(error).__name__, reload=reload)
        case BaseError():
            return Verdict(Outcome.UNKNOWN, type(error).__name__)
    return Verdict(Outcome.UNKNOWN, "timeout" if isinstance(error, TimeoutError) else type(error).__name__)


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
    return "would_cross" if "immediately match" in text or "post only" in text.lower() or "OrderImmediatelyFillable" in text else None


def _funds(text: str) -> str | None:
    return "insufficient_balance" if "insufficient" in text.lower() else None
