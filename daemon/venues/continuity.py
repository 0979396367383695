"""One symbol's prints: each once, in order, with no silent hole. Pure; the world is told when something must be mended."""

from collections import deque

from agents.core.events import Trade

LEARNED = 64
"""Consecutive ids after which a jump counts as a hole. Exchanges that skip ids never get there."""
REMEMBERED = 4096
"""Ids kept where they are no numbers."""
HELD = 100_000
"""Prints held back at most while a hole is being mended."""


class TradeLine:
    """What has been seen of one symbol's prints, across reconnects.

    While `holed`, new prints are held back, so that mended ones can come out before them.
    """

    def __init__(self) -> None:
        self.last: Trade | None = None
        self.holed = False
        self.duplicates = 0
        self._held: list[Trade] = []
        self._numeric = True
        self._number = -1
        """Id of `last` where ids are numbers."""
        self._steps = 0
        self._seen: set[str] = set()
        self._order: deque[str] = deque()

    def live(self, trades: list[Trade]) -> list[Trade]:
        """New prints from the stream -> those to hand on now."""
        out: list[Trade] = []
        for trade in trades:
            if self.holed:
                self._held.append(trade)
            elif self._numeric and self._steps >= LEARNED and trade.trade_id.isdigit() and int(trade.trade_id) > self._number + 1:
                self.holed = True
                self._held.append(trade)
            else:
                self._take(trade, out)
        if len(self._held) > HELD:
            out += self.give_up()
        return out

    def lose(self) -> None:
        """The stream broke: whatever comes next may be after a hole. Without a print so far there is nothing to join."""
        if self.last is not None:
            self.holed = True

    def seed(self, trade: Trade) -> None:
        """A print that happened before we listened: known, but not to be told. Steps between seeds teach nothing."""
        self._take(trade, [])
        self._steps = 0

    def mend(self, fetched: list[Trade]) -> tuple[list[Trade], bool]:
        """Prints from another source, in any order -> (those to hand on, in order; whether they close the hole)."""
        last = self.last
        joined = last is None or any(trade.trade_id == last.trade_id for trade in fetched)
        if not joined and fetched and self._numeric and self._steps >= LEARNED:
            joined = min(int(trade.trade_id) for trade in fetched if trade.trade_id.isdigit()) <= self._number + 1
        held, self._held, self.holed = self._held, [], False
        out: list[Trade] = []
        for trade in sorted([*fetched, *held], key=self._rank):
            self._take(trade, out)
        return out, joined

    def give_up(self) -> list[Trade]:
        """The hole stays: hand on what was held."""
        return self.mend([])[0]

    def _rank(self, trade: Trade) -> int:
        return int(trade.trade_id) if self._numeric and trade.trade_id.isdigit() else trade.time

    def _take(self, trade: Trade, out: list[Trade]) -> None:
        """Hand on a print unless it is known."""
        if self._numeric and trade.trade_id.isdigit():
            number = int(trade.trade_id)
            if number <= self._number:
                self.duplicates += 1
                return
            if self.last is not None:
                self._steps = self._steps + 1 if number == self._number + 1 else -LEARNED
            self._number = number
        elif trade.trade_id in self._seen:
            self.duplicates += 1
            return
        else:
            self._numeric = False
            self._seen.add(trade.trade_id)
            self._order.append(trade.trade_id)
            if len(self._order) > REMEMBERED:
                self._seen.discard(self._order.popleft())
        self.last = trade
        out.append(trade)
