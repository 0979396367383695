"""Orders signed to expire before our right to send them does.

No exchange checks a fencing token. But some take a signed request only for so long after its time (`recvWindow`): whatever happens to
it on its way, it is refused afterwards. So a new order's window never reaches beyond the lease. Cancels and questions are not bounded.
"""

from collections.abc import Callable, Mapping
from typing import Any

from agents.core.errors import ConfigError
from daemon.venues.client import REHEARSAL, Exchange
from daemon.venues.clock import ExchangeClock
from daemon.venues.outcomes import NotSent

FAMILY = ("binance", "binanceus", REHEARSAL)
LEAST_S = 0.2
"""An order that may live for less would not arrive; it is not sent."""

MayLive = Callable[[], float]
"""Seconds for which what is signed now may still be taken; 0 for none at all."""
Params = Mapping[str, Any]


def require_expiring(exchange_id: str) -> None:
    """Raise ConfigError for an exchange whose orders would be taken however late they arrive."""
    if exchange_id not in FAMILY:
        raise ConfigError(
            f"redis.lease: nobody has tried orders that expire on {exchange_id}, and without them two daemons could trade at once: leave"
            f" redis.lease off there and let one daemon trade, or choose one of {', '.join(FAMILY)}"
        )


def expire(exchange: Exchange, clock: ExchangeClock, may_live_s: MayLive) -> None:
    """Have a ccxt object of the family sign new orders, over REST and the websocket API, for no longer than `may_live_s()`.

    Signing raises NotSent (`lease`) where that is too short.
    """
    longest_s = float(exchange.options.get("recvWindow") or 5000) / 1000

    def bounded(params: Params, sign: Callable[[dict[str, Any]], Any]) -> Any:
        # The time first, then the look at the lease: who is stopped between the two signs what is old already.
        signed_at = exchange.nonce()
        window_s = min(longest_s, may_live_s() - clock.ahead_s())
        if window_s < LEAST_S:
            raise NotSent("the lease is over, or about to be", "lease")
        options, before = exchange.options, exchange.options.get("recvWindow")
        options["recvWindow"] = int(window_s * 1000)  # ccxt prefers this to what parameters say, over the websocket
        try:
            return sign({**params, "timestamp": signed_at})
        finally:
            options["recvWindow"] = before

    sign_rest = exchange.sign

    def sign(path: str, api: Any = "public", method: str = "GET", params: Params | None = None, *rest: Any, **named: Any) -> Any:
        if method == "POST" and "order" in path.lower():
            return bounded(params or {}, lambda given: sign_rest(path, api, method, given, *rest, **named))
        return sign_rest(path, api, method, params or {}, *rest, **named)

    exchange.sign = sign
    if (sign_socket := getattr(exchange, "sign_params", None)) is not None:
        exchange.sign_params = lambda params: bounded(params, sign_socket) if "side" in params else sign_socket(params)
