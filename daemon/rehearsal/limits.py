"""Request weight per minute and orders per ten seconds and per day: the budgets that Binance keeps per address."""

from collections.abc import Callable

from daemon.rehearsal import errors

ORDERS_PER_DAY = 200_000


class Window:
    """A counter that starts again at each full interval of the clock, as the exchange's does."""

    def __init__(self, length_ms: int, real_ms: Callable[[], int]) -> None:
        self._length_ms = length_ms
        self._real_ms = real_ms
        self._index = -1
        self._used = 0

    @property
    def used(self) -> int:
        index = self._real_ms() // self._length_ms
        if index != self._index:
            self._index, self._used = index, 0
        return self._used

    def add(self, amount: int) -> int:
        self._used = self.used + amount
        return self._used

    @property
    def seconds_left(self) -> int:
        return max(1, -(-(self._length_ms - self._real_ms() % self._length_ms) // 1000))


class Budget:
    """All budgets of one address."""

    def __init__(self, weight_limit: int, order_limit: int, real_ms: Callable[[], int]) -> None:
        self.weight_limit = weight_limit
        self.order_limit = order_limit
        self.weight = Window(60_000, real_ms)
        self.orders_10s = Window(10_000, real_ms)
        self.orders_day = Window(86_400_000, real_ms)

    def spend(self, weight: int) -> None:
        """Counts the request; raises -1003 with Retry-After once the minute's weight is used up."""
        if self.weight.add(weight) > self.weight_limit:
            raise errors.too_much_weight(self.weight_limit, self.weight.seconds_left)

    def spend_order(self) -> None:
        """Counts a new order; raises -1015 once a budget is used up."""
        if self.orders_10s.add(1) > self.order_limit:
            raise errors.too_many_orders(self.order_limit, "10 SECOND", self.orders_10s.seconds_left)
        if self.orders_day.add(1) > ORDERS_PER_DAY:
            raise errors.too_many_orders(ORDERS_PER_DAY, "1 DAY", self.orders_day.seconds_left)

    def headers(self) -> dict[str, str]:
        """What every REST answer tells about the weight used."""
        used = str(self.weight.used)
        return {"X-MBX-USED-WEIGHT": used, "X-MBX-USED-WEIGHT-1M": used}

    def order_headers(self) -> dict[str, str]:
        """What an answer to a new order tells beside."""
        return {"X-MBX-ORDER-COUNT-10S": str(self.orders_10s.used), "X-MBX-ORDER-COUNT-1D": str(self.orders_day.used)}

    def limits(self) -> list[dict[str, object]]:
        """The `rateLimits` of exchangeInfo."""
        return [
            {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": self.weight_limit},
            {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": self.order_limit},
            {"rateLimitType": "ORDERS", "interval": "DAY", "intervalNum": 1, "limit": ORDERS_PER_DAY},
        ]

    def counts(self) -> list[dict[str, object]]:
        """The `rateLimits` of a websocket-API answer: limits and what is used of them."""
        used = (self.weight.used, self.orders_10s.used, self.orders_day.used)
        return [{**limit, "count": count} for limit, count in zip(self.limits(), used, strict=True)]
