"""Hourly features over a history with holes and late listings: the streaming state row by row, its columns in blocks."""

from dataclasses import fields

import numpy as np
import numpy.typing as npt

from agents.market.columns import HOUR_COLUMNS
from agents.market.features import Flags, Floats, Times
from agents.market.hours import HourPanel, HourView, columns

BLOCK = 256
"""Rows whose columns are computed together: some megabytes."""


def hour_rows(times: Times, close: Floats, high: Floats, low: Floats, volume: Floats, seen: Flags) -> npt.NDArray[np.float32]:
    """HOUR_COLUMNS after each row, float32 [T, N, columns]. `times` [T] are closings, prices [T, N] count only where `seen`."""
    length, width = close.shape
    result = np.zeros((length, width, len(HOUR_COLUMNS)), dtype=np.float32)
    panel, block, start = HourPanel(width), _Block(), 0
    close, high, low = (np.where(seen, values, 1.0) for values in (close, high, low))
    volume = np.where(seen, volume, 0.0)
    for row in range(length):
        if seen[row].any():
            panel.push(int(times[row]), close[row], high[row], low[row], volume[row], seen[row])
        block.take(panel.view())
        if row + 1 - start == BLOCK or row + 1 == length:
            result[start : row + 1] = columns(block.view(row + 1 - start))
            start = row + 1
    return result


class _Block:
    """Up to BLOCK views, copied side by side as they come."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], Floats] = {}
        self._count = 0

    def take(self, view: HourView) -> None:
        for each in fields(HourView):
            value = getattr(view, each.name)
            for key, array in value.items() if isinstance(value, dict) else (("", value),):
                kept = self._rows.get((each.name, key))
                if kept is None:
                    kept = self._rows[each.name, key] = np.empty((BLOCK, *np.shape(array)))
                kept[self._count] = array
        self._count += 1

    def view(self, count: int) -> HourView:
        """The first `count` views as one; the block is empty afterwards."""
        self._count = 0
        made: dict[str, object] = {}
        for (name, key), rows in self._rows.items():
            if key:
                made.setdefault(name, {})[key] = rows[:count]  # type: ignore[index]
            else:
                made[name] = rows[:count]
        return HourView(**made)  # type: ignore[arg-type]
