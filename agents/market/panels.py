"""Carries closed bars of all symbols into the bar features, each once and in time order; starts over when the past changes."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from agents.core.instruments import TIMEFRAMES
from agents.market.bars import Bars, Row
from agents.market.hours import HourPanel
from agents.market.minutes import MinutePanel

Floats = npt.NDArray[np.float64]
COARSE = ("1d", "4h", "1h")
"""What the hourly features are made of, coarsest first: each only up to where the next finer begins."""


class Panels:
    """The two panels of bar features over the bars of all symbols.

    A bar that comes or changes after its row was taken makes a panel `stale`: it stands still until `renew` builds it anew from
    the bars that are kept. Views (`hour_columns`, `minute_columns`, `volatility_1h`) are computed when asked for, once per row.
    """

    def __init__(self, bars: Sequence[Bars]) -> None:
        self._bars = bars
        self.hours = HourPanel(len(bars))
        self.minutes = MinutePanel(len(bars))
        self.stale = {"1m": False, "1h": False}
        self.rebuilt = 0
        self._hour_columns: Floats | None = None
        self._minute_columns: Floats | None = None
        self._volatility: Floats | None = None

    # -- facts -----------------------------------------------------------------------------------------------------

    def touch(self, bars: Bars) -> None:
        """One symbol's bars came or changed: notice those whose time is past."""
        for timeframe, time in bars.touched.items():
            if timeframe == "1m":
                if time + TIMEFRAMES["1m"] <= self.minutes.time:
                    self.stale["1m"] = True
            elif timeframe in COARSE and time + TIMEFRAMES[timeframe] <= self.hours.time:
                finer = COARSE[COARSE.index(timeframe) + 1 :]
                if all(time < bars[name].first for name in finer):
                    self.stale["1h"] = True
        bars.touched.clear()

    def take(self, until: int) -> None:
        """Market time `until` has passed: take every row that closed by then."""
        if not self.stale["1m"]:
            rows = self._fresh("1m", self.minutes.time, until)
            for close in sorted(rows):
                self._minute_columns = None
                self.minutes.push(close, *_arrays(rows[close], len(self._bars)))
        if not self.stale["1h"]:
            rows = self._fresh_hours(until)
            for close in sorted(rows):
                self._hour_columns = self._volatility = self._minute_columns = None
                self.hours.push(close, *_arrays(rows[close], len(self._bars)))

    def renew(self, until: int) -> None:
        """Build what is stale anew, from the bars that closed by `until`."""
        if self.stale["1m"]:
            self.stale["1m"] = False
            self.minutes = MinutePanel(len(self._bars))
            self.rebuilt += 1
        if self.stale["1h"]:
            self.stale["1h"] = False
            self.hours = HourPanel(len(self._bars))
            self.rebuilt += 1
        self._hour_columns = self._minute_columns = self._volatility = None
        self.take(until)

    def _fresh(self, timeframe: str, after: int, until: int) -> dict[int, list[tuple[int, Row]]]:
        """Rows by closing time in (after, until]."""
        length = TIMEFRAMES[timeframe]
        rows: dict[int, list[tuple[int, Row]]] = {}
        for number, bars in enumerate(self._bars):
            for row in bars[timeframe].since(after - length + 1):
                if row.time + length <= until:
                    rows.setdefault(row.time + length, []).append((number, row))
        return rows

    def _fresh_hours(self, until: int) -> dict[int, list[tuple[int, Row]]]:
        """The same for the hourly features: of each symbol the finest bars there are at that time."""
        after, rows = self.hours.time, dict[int, list[tuple[int, Row]]]()
        for number, bars in enumerate(self._bars):
            for place, timeframe in enumerate(COARSE):
                ring, length = bars[timeframe], TIMEFRAMES[timeframe]
                if ring.last is None or ring.last.time + length <= after:
                    continue
                stop = min(until, min((bars[finer].first for finer in COARSE[place + 1 :]), default=until))
                for row in ring.since(after - length + 1):
                    if row.time + length <= stop:
                        rows.setdefault(row.time + length, []).append((number, row))
        return rows

    # -- questions -------------------------------------------------------------------------------------------------

    def volatility_1h(self) -> Floats:
        """Deviation of hourly log returns, [N]."""
        if self._volatility is None:
            self._volatility = self.hours.volatility_1h()
        return self._volatility

    def hour_columns(self) -> Floats:
        """float64 [N, HOUR_COLUMNS]."""
        if self._hour_columns is None:
            self._hour_columns = self.hours.columns()
        return self._hour_columns

    def minute_columns(self) -> Floats:
        """float64 [N, MINUTE_COLUMNS]."""
        if self._minute_columns is None:
            self._minute_columns = self.minutes.columns(self.volatility_1h())
        return self._minute_columns


def _arrays(rows: list[tuple[int, Row]], width: int) -> tuple[Floats, Floats, Floats, Floats, npt.NDArray[np.bool_]]:
    """(close, high, low, volume, seen), each [N]; prices are 1 where nothing is."""
    values = np.ones((4, width))
    values[3] = 0.0
    seen = np.zeros(width, dtype=bool)
    for number, row in rows:
        values[:, number] = (row.close, row.high, row.low, row.volume)
        seen[number] = True
    return values[0], values[1], values[2], values[3], seen
