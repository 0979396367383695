"""Binance's documented refusals: code, sentence and HTTP status, worded as the exchange words them."""

from collections.abc import Mapping


class ApiError(Exception):
    """A refusal that the client sees as `{"code": ..., "msg": ...}` with an HTTP status."""

    def __init__(
        self,
        code: int,
        message: str,
        status: int = 400,
        headers: Mapping[str, str] | None = None,
        data: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(f"{code} {message}")
        self.code = code
        self.message = message
        self.status = status
        self.headers = dict(headers or {})
        self.data = data

    def body(self) -> dict[str, object]:
        """The JSON object of the answer."""
        body: dict[str, object] = {"code": self.code, "msg": self.message}
        if self.data is not None:
            body["data"] = self.data
        return body


def too_much_weight(limit: int, retry_after_s: int) -> ApiError:
    message = (
        f"Too much request weight used; current limit is {limit} request weight per 1 MINUTE. "
        "Please use WebSocket Streams for live updates to avoid polling the API."
    )
    return ApiError(-1003, message, 429, {"Retry-After": str(retry_after_s)})


def banned(until_ms: int, retry_after_s: int) -> ApiError:
    message = (
        f"Way too much request weight used; IP banned until {until_ms}. "
        "Please use WebSocket Streams for live updates to avoid bans."
    )
    return ApiError(-1003, message, 418, {"Retry-After": str(retry_after_s)})


def too_many_orders(limit: int, interval: str, retry_after_s: int) -> ApiError:
    message = f"Too many new orders; current limit is {limit} orders per {interval}."
    return ApiError(-1015, message, 429, {"Retry-After": str(retry_after_s)})


def illegal_characters(name: str, legal: str) -> ApiError:
    return ApiError(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.")


def duplicate_values(name: str) -> ApiError:
    return ApiError(-1101, f"Duplicate values for parameter '{name}'.")


def mandatory(name: str) -> ApiError:
    return ApiError(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")


def either_mandatory(first: str, second: str) -> ApiError:
    return ApiError(-1102, f"Param '{first}' or '{second}' must be sent, but both were empty/null!")


def empty(name: str) -> ApiError:
    return ApiError(-1105, f"Parameter '{name}' was empty.")


def not_required(name: str) -> ApiError:
    return ApiError(-1106, f"Parameter '{name}' sent when not required.")


def too_precise(name: str) -> ApiError:
    return ApiError(-1111, f"Parameter '{name}' has too much precision.")


def bad_time_in_force() -> ApiError:
    return ApiError(-1115, "Invalid timeInForce.")


def bad_order_type() -> ApiError:
    return ApiError(-1116, "Invalid orderType.")


def bad_side() -> ApiError:
    return ApiError(-1117, "Invalid side.")


def bad_interval() -> ApiError:
    return ApiError(-1120, "Invalid interval.")


def bad_symbol() -> ApiError:
    return ApiError(-1121, "Invalid symbol.")


def more_than_a_day() -> ApiError:
    return ApiError(-1127, "More than 24 hours between startTime and endTime.")


def bad_combination() -> ApiError:
    return ApiError(-1128, "Combination of optional parameters invalid.")


def invalid_value(name: str) -> ApiError:
    return ApiError(-1130, f"Data sent for parameter '{name}' is not valid.")


def late_timestamp() -> ApiError:
    return ApiError(-1021, "Timestamp for this request is outside of the recvWindow.")


def early_timestamp() -> ApiError:
    return ApiError(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")


def bad_signature() -> ApiError:
    return ApiError(-1022, "Signature for this request is not valid.")


def key_format() -> ApiError:
    return ApiError(-2014, "API-key format invalid.", 401)


def key_refused() -> ApiError:
    return ApiError(-2015, "Invalid API-key, IP, or permissions for action.", 401)


def filter_failure(name: str) -> ApiError:
    return ApiError(-1013, f"Filter failure: {name}")


def insufficient_balance() -> ApiError:
    return ApiError(-2010, "Account has insufficient balance for requested action.")


def duplicate_order() -> ApiError:
    return ApiError(-2010, "Duplicate order sent.")


def would_match() -> ApiError:
    return ApiError(-2010, "Order would immediately match and take.")


def would_trigger() -> ApiError:
    return ApiError(-2010, "Stop price would trigger immediately.")


def no_liquidity() -> ApiError:
    return ApiError(-2010, "Market has no liquidity for this order.")


def unknown_order() -> ApiError:
    return ApiError(-2011, "Unknown order sent.")


def cancel_restricted() -> ApiError:
    return ApiError(-2011, "Order was not canceled due to cancel restrictions.")


def no_such_order() -> ApiError:
    return ApiError(-2013, "Order does not exist.")
