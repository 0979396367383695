"""How far this machine's clock is from the exchange's: measured, corrected, and no order where it cannot be trusted.

An exchange takes a signed request only if its time is right. The offset is applied to the ccxt object, so requests go on being
signed rightly; but a machine whose clock is off by more than the bound has something wrong with it, and opens no new risk until it is
mended. Cancels and look-ups go on.
"""

import asyncio
from typing import Any

import structlog
from ccxt.base.errors import AuthenticationError, BaseError

from agents.core.errors import ConfigError, Throttled, Unreachable
from daemon.venues.client import Exchange
from daemon.venues.outcomes import off_clock
from daemon.venues.throttle import Throttle

log = structlog.get_logger(__name__)

SAMPLES = 5
EVERY_S = 120.0
"""Between two measurements of a good clock: a bad quartz drifts 10 ms in that time."""
AGAIN_S = 5.0
"""Between two while the clock is off, or after one that failed."""
LOOK_S = 1.0
"""Between two comparisons of the wall clock with the monotonic one, which show a jump without asking anybody."""


class ExchangeClock:
    """The clock of one ccxt object. Offsets are milliseconds, this machine's time minus the exchange's."""

    def __init__(self, exchange: Exchange, throttle: Throttle, bound_ms: float, every_s: float = EVERY_S) -> None:
        self._exchange, self._throttle, self._bound_ms, self._every_s = exchange, throttle, bound_ms, every_s
        self.measurable = bool(exchange.has.get("fetchTime") is True)
        self.offset_ms: float | None = None
        self.error_ms = 0.0
        """Half of the round trip that the offset was measured by."""
        self._measured_at = float("-inf")
        self._base: float | None = None
        """Wall clock minus monotonic clock when the offset was measured, milliseconds."""
        self._doubt = asyncio.Event()
        self._nonce = getattr(exchange, "nonce", None)
        self._said = False
        throttle.listener = self.heard

    @property
    def beyond(self) -> bool:
        """Whether the offset is certainly larger than the bound."""
        return self.offset_ms is not None and abs(self.offset_ms) - self.error_ms > self._bound_ms

    @property
    def usable(self) -> bool:
        """Whether new risk may be signed with this clock now."""
        if not self.measurable:
            return True
        if self._stepped():
            self._doubt.set()
        return self.offset_ms is not None and not self.beyond and not self._doubt.is_set()

    def ahead_s(self) -> float:
        """By how much the time that is signed now may be ahead of the exchange's, seconds; an exchange takes nothing that is more than 1 s ahead."""
        if self._base is None:
            return 1.0
        stepped_ms = float(self._exchange.milliseconds()) - _now() * 1000.0 - self._base
        return (max(stepped_ms, 0.0) + self.error_ms + 1.0) / 1000.0

    @property
    def status(self) -> dict[str, Any]:
        """For the session's view."""
        if not self.measurable:
            return {"measurable": False, "usable": True}
        age = None if self._measured_at == float("-inf") else round(_now() - self._measured_at, 1)
        rounded = None if self.offset_ms is None else round(self.offset_ms, 1)
        return {
            "measurable": True, "usable": self.usable, "offset_ms": rounded, "offset_s": None if rounded is None else rounded / 1000,
            "error_ms": round(self.error_ms, 1), "bound_ms": self._bound_ms, "age_s": age,
        }  # fmt: skip

    def heard(self, error: BaseException) -> None:
        """The exchange refused the time that we signed with: no new order before the next measurement."""
        if off_clock(error):
            self._doubt.set()

    async def start(self) -> None:
        """Measure before anything is signed. Raises ConfigError where this machine's clock is wrong, Unreachable where nobody answers."""
        if not self.measurable:
            log.warning("clock_not_measurable", exchange=self._exchange.id)
            return
        for pause in (0.2, 1.0, None):
            try:
                await self.measure()
                break
            except (BaseError, TimeoutError, Throttled) as error:
                if pause is None:
                    raise Unreachable(f"{self._exchange.id} does not tell its time: {type(error).__name__} {error}"[:300]) from error
                await asyncio.sleep(pause)
        if self.beyond:
            raise ConfigError(self._sentence())

    async def measure(self) -> float:
        """Ask for the time, several times; the answer that took the shortest way counts. Raises what ccxt raises."""
        best: tuple[float, float, float] | None = None
        for _ in range(SAMPLES):
            before, wall = _now(), float(self._exchange.milliseconds())
            told = await self._throttle.call(self._exchange, self._exchange.fetch_time, urgent=True)
            trip = (_now() - before) * 1000.0
            if told is not None and (best is None or trip < best[0]):
                best = trip, wall + trip / 2 - float(told), wall - before * 1000.0
        if best is None:
            raise Unreachable(f"{self._exchange.id} answers without a time")
        trip, self.offset_ms, self._base = best
        self.error_ms, self._measured_at = trip / 2, _now()
        self._apply(self.offset_ms)
        self._doubt.clear()
        return self.offset_ms

    async def run(self) -> None:
        """Measure every few minutes, and at once when in doubt. Never returns while the clock can be measured."""
        while self.measurable:
            await self._until_due()
            try:
                await self.measure()
            except (BaseError, TimeoutError, Throttled, Unreachable) as error:
                if not isinstance(error, AuthenticationError):
                    log.warning("clock_not_measured", error=f"{type(error).__name__}: {error}"[:200])
                await asyncio.sleep(AGAIN_S)
                continue
            if self.beyond and not self._said:
                log.error("clock_off", offset_ms=round(self.offset_ms or 0.0), bound_ms=self._bound_ms, what=self._sentence())
            elif not self.beyond and self._said:
                log.warning("clock_right_again", offset_ms=round(self.offset_ms or 0.0))
            self._said = self.beyond

    async def _until_due(self) -> None:
        due = self._measured_at + (AGAIN_S if self.beyond else self._every_s)
        while (left := due - _now()) > 0:
            try:
                async with asyncio.timeout(min(LOOK_S, left)):
                    await self._doubt.wait()
                    return
            except TimeoutError:
                if self._stepped():
                    log.warning("clock_jumped", exchange=self._exchange.id)
                    self._doubt.set()

    def _stepped(self) -> bool:
        """Whether the wall clock has moved against the monotonic one since the measurement, by more than half of the bound."""
        if self._base is None:
            return False
        return abs(float(self._exchange.milliseconds()) - _now() * 1000.0 - self._base) > max(self._bound_ms / 2, 100.0)

    def _apply(self, offset_ms: float) -> None:
        """Have ccxt sign with the exchange's time."""
        options = self._exchange.options
        if "timeDifference" in options:
            options["timeDifference"] = round(offset_ms)
        elif self._nonce is not None:
            nonce = self._nonce

            def corrected() -> float:
                now: float = nonce()
                return now - round(offset_ms) if now > 1e11 else now - round(offset_ms / 1000) if now > 1e8 else now

            self._exchange.nonce = corrected

    def _sentence(self) -> str:
        seconds = (self.offset_ms or 0.0) / 1000.0
        return (
            f"the clock of this machine is {abs(seconds):.1f} s {'ahead of' if seconds > 0 else 'behind'} {self._exchange.id}'s, more than"
            f" exchange.max_clock_offset_ms ({self._bound_ms:g}): set it right (timedatectl set-ntp true, or chronyc makestep)"
        )


def _now() -> float:
    return asyncio.get_running_loop().time()
