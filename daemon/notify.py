"""Tells people what they should know, by apprise (Telegram, Discord, e-mail and the rest): once when it begins, once when it is over.

Nothing waits for a message service. A condition that comes and goes is told at most every `again_s`, all conditions together at most
`most_an_hour` times an hour; in quiet hours only what is critical is told, and the rest is told together at their end.
What is critical is told beyond that bound too, and what no service took is told again later.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from agents.core.instruments import NS

log = structlog.get_logger()

LEVELS = ("info", "warning", "critical")
LOOK_S = 1.0
SEND_S = 20.0
"""A message service that takes longer has not got the message, as far as we know."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 60.0, 3600.0
"""Before what was not taken is told again: a service that fails after it has delivered must not become a storm."""
HOUR, DAY = 3600 * NS, 86_400 * NS

Send = Callable[[str, str, str], Awaitable[bool]]
"""Title, text and level; whether at least one service took it."""


@dataclass(frozen=True, slots=True)
class Manners:
    """When to speak. Quiet hours are minutes of the UTC day; the end may lie before the beginning."""

    level: str = "warning"
    quiet: tuple[int, int] | None = None
    again_s: float = 900.0
    most_an_hour: int = 12


@dataclass(frozen=True, slots=True)
class Notice:
    """One condition that a person should know of."""

    level: str
    text: str


def conditions(status: Mapping[str, Any]) -> dict[str, Notice]:
    """What is the matter now, by a name that stays the same while it lasts."""
    found: dict[str, Notice] = {}
    if status.get("halted"):
        found["halted"] = Notice("warning", "halted: no order is placed until resume")
    if status.get("flattening"):
        found["flattening"] = Notice("critical", "everything is being sold")
    rung = status.get("rung")
    if rung not in (None, "calm"):
        level = "critical" if rung in ("reduce", "flatten") else "warning"
        found[f"drawdown {rung}"] = Notice(level, f"drawdown {status.get('drawdown') or 0.0:.1%}: the ladder stands at {rung}")
    if status.get("ready") and status.get("reconciled") is False:
        found["unreconciled"] = Notice("critical", "ledger and exchange differ and nothing explains it; only reductions are sent")
    measures = status.get("measures") or {}
    if (measures.get("oldest_unknown_s") or 0.0) > 30.0:
        found["unknown order"] = Notice("critical", f"an order's outcome is unknown for {measures['oldest_unknown_s']:.0f} s")
    if status.get("ready") and (age := status.get("data_age_s")) is not None and age > 30.0:
        found["stale data"] = Notice("warning", f"market data is {age:.0f} s old; no new risk is taken")
    for name, text in (status.get("notes") or {}).items():
        found[f"note {name}"] = Notice("warning", f"{name}: {text}")
    if (status.get("learner") or {}).get("state") == "restarting":
        found["learner"] = Notice("info", "the learner does not run; trading goes on with the last good weights")
    return found


@dataclass(frozen=True, slots=True)
class News:
    """What is to be told of one condition."""

    name: str
    level: str
    text: str


class Notifier:
    """A watcher of a session. `now` gives stamps in nanoseconds."""

    def __init__(self, title: str, manners: Manners, send: Send, snapshot: Callable[[], Mapping[str, Any]], now: Callable[[], int]) -> None:
        self._title, self._manners, self._send, self._snapshot, self._now = title, manners, send, snapshot, now
        self._standing: dict[str, Notice] = {}
        """Conditions that were told, or are kept for the end of the quiet hours."""
        self._told_at: dict[str, int] = {}
        self._kept: dict[str, News] = {}
        """What waits for the end of the quiet hours, or for a message service that did not take it."""
        self._pause_s, self._again_at = FIRST_PAUSE_S, 0
        self._sent: deque[int] = deque()
        self.sent = self.withheld = self.failed = self.mistakes = 0

    @property
    def status(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"sent": self.sent, "withheld": self.withheld, "failed": self.failed, "kept": len(self._kept), "standing": sorted(self._standing)}

    async def run(self) -> None:
        """Look, and tell, until cancelled."""
        while True:
            try:
                await self.look()
            except Exception as error:  # a mistake in a message to people must not end trading
                if not self.mistakes:
                    log.exception("notifier_failed", error=f"{type(error).__name__}: {error}")
                self.mistakes += 1
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Compare what is the matter with what was, and tell the difference in one message."""
        now, found = self._now(), conditions(self._snapshot())
        news: list[News] = []
        for name, notice in found.items():
            if name not in self._standing and self._listens(notice.level) and now - self._told_at.get(name, -DAY * 365) >= self._manners.again_s * NS:
                self._standing[name] = notice
                news += self._hold_or_tell(name, notice.level, notice.text, now)
        for name in [name for name in self._standing if name not in found]:
            notice = self._standing.pop(name)
            news += self._hold_or_tell(name, "info" if notice.level == "info" else "warning", f"over: {notice.text}", now)
        fresh = {each.name for each in news}
        due = [each for each in self._kept.values() if each.name not in fresh and (each.level == "critical" or not self._quiet(now))]
        if due and now >= self._again_at:
            news += due
        for each in news:
            self._kept.pop(each.name, None)
        if news:
            await self._tell(news, now)

    def _hold_or_tell(self, name: str, level: str, text: str, now: int) -> list[News]:
        self._told_at[name] = now
        news = News(name, level, text)
        if self._quiet(now) and level != "critical":
            self._kept[name] = news
            return []
        return [news]

    async def _tell(self, news: Sequence[News], now: int) -> None:
        while self._sent and now - self._sent[0] >= HOUR:
            self._sent.popleft()
        level = max((each.level for each in news), key=LEVELS.index)
        if len(self._sent) >= self._manners.most_an_hour and level != "critical":  # each critical condition has a bound of its own
            self.withheld += len(news)
            return
        last = len(self._sent) + 1 == self._manners.most_an_hour
        text = "\n".join(each.text for each in news) + ("\nno more messages for now: too many within an hour" if last else "")
        try:
            async with asyncio.timeout(SEND_S):
                taken = await self._send(self._title, text, level)
        except Exception as error:  # noqa: BLE001 - a hundred services raise a hundred things, and none may end a session
            log.warning("notification_failed", error=f"{type(error).__name__}: {error}")
            taken = False
        self.sent += taken
        self.failed += not taken
        if taken:
            self._sent.append(now)
            self._pause_s = FIRST_PAUSE_S
        else:
            self._kept = {**{each.name: each for each in news}, **self._kept}
            self._again_at, self._pause_s = now + int(self._pause_s * NS), min(2 * self._pause_s, LONGEST_PAUSE_S)

    def _listens(self, level: str) -> bool:
        return LEVELS.index(level) >= LEVELS.index(self._manners.level)

    def _quiet(self, now: int) -> bool:
        if self._manners.quiet is None:
            return False
        begin, end = self._manners.quiet
        minute = now % DAY // (60 * NS)
        return begin <= minute < end if begin <= end else minute >= begin or minute < end


def by_apprise(urls: Sequence[str]) -> Send:
    """Sends to all of these services. Raises ValueError naming the first URL's scheme that apprise does not know."""
    import apprise  # a third of a second, which sessions that tell nobody save

    services = apprise.Apprise()
    for url in urls:
        if not services.add(url):
            raise ValueError(f"apprise knows no service for {url.split('://')[0]}://...")
    kinds = {"info": apprise.NotifyType.INFO, "warning": apprise.NotifyType.WARNING, "critical": apprise.NotifyType.FAILURE}

    async def send(title: str, text: str, level: str) -> bool:
        return bool(await services.async_notify(body=text, title=title, notify_type=kinds[level]))

    return send
